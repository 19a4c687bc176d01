import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sourcesFrom } from '../../../src/proxy/apt-sources.ts';
import { createBackends } from '../../../src/proxy/backends.ts';
import { clientConfiguration } from '../../../src/proxy/client.ts';
import { hostMatches, isInnerAddress, parseNetworks } from '../../../src/proxy/guard.ts';
import { encodeAnswer, parseQuestions } from '../../../src/proxy/mdns.ts';
import { createMetrics, prometheusText } from '../../../src/proxy/metrics.ts';
import { archiveBase, classify, guessSuiteRoot, namesFiles, suiteRoots } from '../../../src/proxy/policy.ts';
import { decideAnswer, parseRanges } from '../../../src/proxy/range.ts';
import { inheritedSockets } from '../../../src/proxy/serve.ts';
import { encodePath, formatAuthority, normalisePath, parseTarget } from '../../../src/proxy/target.ts';

describe('parseTarget', () => {
  it.each([
    ['/debian/pool/a%2bb.deb', 'origin debian/pool/a+b.deb'],
    ['/debian/./dists//stable/', 'origin debian/dists/stable/'],
    ['http://Deb.Example.org/debian/x', 'http://deb.example.org debian/x'],
    ['http://h:8080/x?q=1', 'http://h:8080 x ?q=1'],
    ['http://h:80', 'http://h '],
    ['http://HTTPS///secure.example.org/x', 'https://secure.example.org x'],
    ['/HTTPS///secure.example.org:444/x', 'https://secure.example.org:444 x'],
    ['http://[::1]:80/x', 'http://[::1] x'],
  ])('reads %s', (raw, expected) => {
    const target = parseTarget(raw);
    const shown =
      target.form === 'bad'
        ? target.reason
        : `${target.form === 'absolute' ? formatAuthority(target.authority) : 'origin'} ${target.path}${target.query === '' ? '' : ` ${target.query}`}`;
    expect(shown).toBe(expected);
  });

  it.each([
    '',
    'x',
    '*',
    'ftp://h/x',
    'http://user@h/x',
    'http://h:0/x',
    'http://h:99999/x',
    'http:///x',
    '/a%',
    '/a%ff',
    '/a/../b',
    '/a%2fb',
    '/a\\b',
    '/a#b',
    '/a b',
    'http://127.1/',
    'http://0x7f.0.0.1/',
    'http://-h/',
  ])('refuses %j', (raw) => {
    expect(parseTarget(raw).form).toBe('bad');
  });

  it('never lets a path climb, and spells each path in one way', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('/', '.', '%2e', '%2f', '%5c', 'a', '%00', '%25', '+', '~') }),
        (text) => {
          const path = normalisePath(`/${text}`);
          if (path === undefined) return;
          expect(path.split('/')).not.toContain('..');
          expect(path).not.toMatch(/\\|\u0000|^\//);
          expect(normalisePath(`/${encodePath(path)}`)).toBe(path);
        },
      ),
    );
  });
});

describe('classify', () => {
  const digest = 'a'.repeat(64);
  it.each([
    ['dists/bookworm/InRelease', 'release dists/bookworm'],
    ['dists/bookworm/updates/Release.gpg', 'release dists/bookworm/updates'],
    ['Release', 'release '],
    [`dists/x/main/binary-amd64/by-hash/SHA256/${digest}`, 'by-hash dists/x/main/binary-amd64'],
    ['dists/x/main/binary-amd64/by-hash/SHA256/abc', 'changing'],
    ['pool/main/h/hello/hello_1.deb', 'pool'],
    ['pool/main/h/hello/New_Kind.of-file', 'pool'],
    ['flat/hello_1_amd64.deb', 'pool'],
    ['x/y_1.orig.tar.xz', 'pool'],
    ['x/y_1.orig-part.tar.gz.asc', 'pool'],
    ['dists/x/main/binary-amd64/Packages.xz', 'changing'],
    ['dists/x/Contents-amd64.gz', 'changing'],
    ['pool/', 'changing'],
  ])('%s', (path, expected) => {
    const kind = classify(path);
    const where = kind.kind === 'release' ? ` ${kind.root}` : kind.kind === 'by-hash' ? ` ${kind.folder}` : '';
    expect(`${kind.kind}${where}`).toBe(expected);
  });

  it('knows what belongs to which suite', () => {
    expect(suiteRoots('debian/dists/x/main/binary-amd64/Packages')).toEqual([
      'debian/dists/x/main/binary-amd64',
      'debian/dists/x/main',
      'debian/dists/x',
    ]);
    expect(suiteRoots('flat/Packages')).toEqual(['flat', '']);
    expect(guessSuiteRoot('dists/x/updates/main/binary-amd64/Packages')).toBe('dists/x/updates');
    expect(guessSuiteRoot('flat/Packages')).toBeUndefined();
    expect([archiveBase('dists/x'), archiveBase('debian/dists/x/updates'), archiveBase('flat')]).toEqual([
      '',
      'debian',
      'flat',
    ]);
    expect(['a/Packages.xz', 'a/Sources', 'a/Packages.diff/Index', 'a/Contents-amd64'].map(namesFiles)).toEqual([
      'Packages',
      'Sources',
      'diff',
      undefined,
    ]);
  });
});

describe('guard', () => {
  it.each([
    '127.0.0.1',
    '10.1.2.3',
    '169.254.169.254',
    '172.31.0.1',
    '192.168.1.1',
    '100.64.0.1',
    '0.0.0.0',
    '224.0.0.1',
    '::1',
    '::',
    'fe80::1%eth0',
    'fd00::1',
    '::ffff:10.0.0.1',
    '::ffff:7f00:1',
    '64:ff9b::a00:1',
    '2002:a00:1::',
    '::127.0.0.1',
    'name',
  ])('%s is inner', (address) => {
    expect(isInnerAddress(address)).toBe(true);
  });
  it.each(['8.8.8.8', '172.32.0.1', '2a00::1', '::ffff:8.8.8.8', '192.169.0.1'])('%s is not', (address) => {
    expect(isInnerAddress(address)).toBe(false);
  });
  it('reads lists', () => {
    const list = parseNetworks(['10.0.0.0/8', '2001:db8::/32', '192.0.2.7']);
    expect(
      ['10.9.9.9', '::ffff:10.1.1.1', '2001:db8::5', '192.0.2.7', '192.0.2.8', '11.0.0.1', ''].map((one) =>
        list.has(one),
      ),
    ).toEqual([true, true, true, true, false, false, false]);
    expect(parseNetworks(['all']).has('8.8.8.8')).toBe(true);
    for (const wrong of ['10.0.0.0/33', 'x', '10.0.0.0/a', ''])
      expect(() => parseNetworks([wrong])).toThrow('is no network');
    expect(hostMatches(['*.example.org', 'h:81'], 'a.b.example.org')).toBe(true);
    expect(hostMatches(['*.example.org', 'h:81'], 'evilexample.org')).toBe(false);
    expect([hostMatches(['h:81'], 'h', 81), hostMatches(['h:81'], 'h', 80)]).toEqual([true, false]);
  });
});

describe('ranges', () => {
  it('cover only bytes that exist, in the order asked', () => {
    fc.assert(
      fc.property(
        fc.nat(1000),
        fc.array(fc.tuple(fc.option(fc.nat(1200)), fc.option(fc.nat(1200))), { minLength: 1, maxLength: 4 }),
        (size, pairs) => {
          const wanted = parseRanges(`bytes=${pairs.map(([a, b]) => `${a ?? ''}-${b ?? ''}`).join(',')}`, size);
          if (wanted.kind !== 'ranges') return;
          for (const { start, end } of wanted.ranges) expect(start >= 0 && start < end && end <= size).toBe(true);
        },
      ),
    );
  });
  it('are ignored when they are too many or repeat the file', () => {
    expect(
      parseRanges(`bytes=${Array.from({ length: 17 }, (_, index) => `${index}-${index}`).join(',')}`, 100).kind,
    ).toBe('whole');
    expect(parseRanges('bytes=0-99,0-99', 100).kind).toBe('whole');
    expect(parseRanges('lines=1-2', 100).kind).toBe('whole');
  });
  it('need the same validator', () => {
    const file = { etag: '"a"', lastModified: 1000, size: 10 };
    expect(decideAnswer({ range: 'bytes=0-1', 'if-range': 'W/"a"' }, file).kind).toBe('whole');
    expect(decideAnswer({ range: 'bytes=0-1', 'if-range': new Date(1_000_000).toUTCString() }, file).kind).toBe(
      'ranges',
    );
    expect(decideAnswer({ 'if-none-match': 'W/"a", "b"' }, file).kind).toBe('not-modified');
    expect(decideAnswer({ range: 'bytes=0-1' }, { ...file, size: undefined }).kind).toBe('whole');
  });
});

describe('backends', () => {
  const backends = createBackends({
    own: {
      corp: { mirrors: ['http://a.example.org/x/', 'http://b.example.org/y'], aliases: ['http://*.c.example.org/z'] },
    },
    hosts: ['other.example.org'],
    maxAge: 0,
  });
  const key = (address: string) => {
    const target = parseTarget(address);
    if (target.form === 'bad') return 'bad';
    return (
      target.form === 'absolute'
        ? backends.byAuthority(target.authority, target.path, target.query)
        : backends.byPath(target.path, target.query)
    )?.key;
  };
  it.each([
    ['/corp/p/a.deb', 'corp/p/a.deb'],
    ['http://a.example.org/x/p/a.deb', 'corp/p/a.deb'],
    ['https://b.example.org/y/p/a.deb', 'corp/p/a.deb'],
    ['http://1.c.example.org/z/p/a.deb', 'corp/p/a.deb'],
    ['http://a.example.org/w/p/a.deb', undefined],
    ['http://other.example.org/p/a.deb', 'http://other.example.org/p/a.deb'],
    ['/none/a.deb', undefined],
    // as clients of apt-cacher-ng write it
    ['/a.example.org/x/p/a.deb', 'corp/p/a.deb'],
    ['/other.example.org/p/a.deb', 'http://other.example.org/p/a.deb'],
    ['/evil.example.org/x/p/a.deb', undefined],
    ['/127.0.0.1/x', undefined],
    ['/2130706433.0/x', undefined],
  ])('%s is %s', (address, expected) => {
    expect(key(address)).toBe(expected);
  });
  it('know the public archives by name: their addresses anywhere are one, and they must be signed', () => {
    const own = Object.fromEntries(
      ['debian', 'security', 'ubuntu', 'ports'].map((name) => [name, { mirrors: [`http://m.example.org/${name}`] }]),
    );
    const known = createBackends({ own, maxAge: 0 });
    const keyOf = (address: string) => {
      const target = parseTarget(address);
      return target.form === 'absolute' ? known.byAuthority(target.authority, target.path, '')?.key : undefined;
    };
    expect(
      [
        'http://ftp.de.debian.org/debian/x',
        'http://security.debian.org/debian-security/x',
        'http://us.archive.ubuntu.com/ubuntu/x',
        'http://ports.ubuntu.com/ubuntu-ports/x',
        'http://archive.ubuntu.com.example.org/ubuntu/x',
      ].map(keyOf),
    ).toEqual(['debian/x', 'security/x', 'ubuntu/x', 'ports/x', undefined]);
    expect(known.byPath('ports/dists/noble/InRelease', '')?.key).toBe('ports/dists/noble/InRelease');
    expect(known.list.map((one) => one.signatures)).toEqual(['require', 'require', 'require', 'require']);
    const machine = sourcesFrom(['http://m.example.org/ubuntu/', 'http://m.example.org/ubuntu-ports']);
    expect(Object.keys(machine.backends)).toEqual(['ubuntu', 'ports']);
  });
  it('finds its way back from a key', () => {
    expect(backends.byKey('corp/p/a.deb')).toMatchObject({ path: 'p/a.deb', backend: { name: 'corp' } });
    expect(backends.byKey('http://other.example.org/p/a.deb?x')).toMatchObject({ path: 'p/a.deb', query: '?x' });
  });
  it('refuses names and mirrors that cannot be', () => {
    for (const name of ['healthz', 'Up', '..', 'npm'])
      expect(() => createBackends({ own: { [name]: { mirrors: ['http://h/x'] } }, maxAge: 0 })).toThrow(
        'cannot be the name',
      );
    expect(() => createBackends({ own: { a: { mirrors: ['ftp://h/x'] } }, maxAge: 0 })).toThrow('cannot be a mirror');
    expect(() => createBackends({ own: { a: { mirrors: [] } }, maxAge: 0 })).toThrow('no mirror');
  });
  it('are read from what apt uses', () => {
    expect(
      sourcesFrom([
        'http://m.example.org/debian/',
        'http://m.example.org/debian-security/',
        'file:/x/',
        'https://n.example.org:8443/own/',
        '',
      ]),
    ).toEqual({
      backends: {
        debian: { mirrors: ['http://m.example.org/debian'] },
        security: { mirrors: ['http://m.example.org/debian-security'] },
      },
      hosts: ['m.example.org', 'n.example.org:8443'],
    });
  });
});

describe('the client side', () => {
  it('writes a detector that falls back, and refuses what could leave its quotes', () => {
    const { files } = clientConfiguration('http://cache.example.org:9999/', { direct: ['mirror.example.org'] });
    expect(files[0]!.text).toContain('Acquire::http::Proxy-Auto-Detect "/usr/local/lib/buildkit/apt-proxy-detect";');
    expect(files[0]!.text).toContain('Acquire::http::Proxy::mirror.example.org "DIRECT";');
    expect(files[1]).toMatchObject({ mode: 0o755 });
    for (const wrong of ['https://h', 'http://h/x', 'http://h";x', "http://h'$(id)", 'h:1'])
      expect(() => clientConfiguration(wrong, { direct: [] })).toThrow('is no address of a proxy');
  });

  it('speaks mDNS as RFC 6762 writes it', () => {
    const question = Buffer.concat([
      Buffer.from([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
      Buffer.from('\u000a_apt_proxy\u0004_tcp\u0005local\u0000'),
      Buffer.from([0, 12, 0, 1]),
    ]);
    expect(parseQuestions(question)).toEqual([{ name: '_apt_proxy._tcp.local', type: 12 }]);
    const answer = encodeAnswer(
      { name: 'buildkit on h', type: '_apt_proxy._tcp', host: 'h', port: 9999, addresses: ['192.0.2.1'] },
      120,
    );
    expect(answer.readUInt16BE(6)).toBe(4);
    expect(answer.includes(Buffer.from([0x27, 0x0f, 1, 104, 5]))).toBe(true); // SRV: port 9999, target h.local
    expect(answer.subarray(-4)).toEqual(Buffer.from([192, 0, 2, 1]));
    expect(parseQuestions(answer)).toEqual([]);
    expect(parseQuestions(Buffer.from([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12]))).toEqual([]); // a name that points to itself
  });
});

describe('metrics and sockets', () => {
  it('keeps what it counted before', () => {
    const metrics = createMetrics(new Map([['hits', 5]]));
    metrics.add('hits', 2);
    expect([metrics.get('hits'), [...metrics.takeChanges()], [...metrics.takeChanges()]]).toEqual([
      7,
      [['hits', 2]],
      [],
    ]);
    const text = prometheusText(metrics.all(), {
      objects: 1,
      bytes: 2,
      fetching: 0,
      connections: 0,
      upstreams: [{ origin: 'http://a"b', up: true, failures: 0 }],
    });
    expect(text).toContain('buildkit_proxy_upstream_up{origin="http://a\\"b"} 1');
  });
  it('takes sockets from systemd only when they are meant for it', () => {
    expect(inheritedSockets({ LISTEN_PID: '7', LISTEN_FDS: '2' }, 7)).toEqual([3, 4]);
    expect(inheritedSockets({ LISTEN_PID: '8', LISTEN_FDS: '2' }, 7)).toEqual([]);
    expect(inheritedSockets({}, 7)).toEqual([]);
  });
});
