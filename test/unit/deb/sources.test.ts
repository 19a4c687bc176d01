import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AptSource, formatSource, parseOneLine, parseSources } from '../../../src/deb/sources.ts';

const KEY = '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxjMEZ1a2\n=AbCd\n-----END PGP PUBLIC KEY BLOCK-----\n';

const SOURCE: AptSource = {
  types: ['deb', 'deb-src'],
  uris: ['http://127.0.0.1:8080'],
  suites: ['bookworm', 'bookworm-updates'],
  components: ['main', 'contrib'],
  architectures: ['amd64'],
  signedBy: KEY,
  options: { 'By-Hash': 'no', Languages: 'none' },
};

describe('formatSource', () => {
  it('writes a key into the entry, its empty line as a full stop', () => {
    expect(formatSource(SOURCE)).toBe(`Types: deb deb-src
URIs: http://127.0.0.1:8080
Suites: bookworm bookworm-updates
Components: main contrib
Architectures: amd64
By-Hash: no
Languages: none
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xjMEZ1a2
 =AbCd
 -----END PGP PUBLIC KEY BLOCK-----
`);
    expect(parseSources(formatSource(SOURCE))).toEqual([SOURCE]);
  });

  it('writes a path, and a source that is off', () => {
    const source: AptSource = {
      types: ['deb'],
      uris: ['file:/srv/apt'],
      suites: ['./'],
      components: [],
      enabled: false,
      signedBy: '/etc/apt/k.gpg',
    };
    const text = 'Enabled: no\nTypes: deb\nURIs: file:/srv/apt\nSuites: ./\nSigned-By: /etc/apt/k.gpg\n';
    expect(formatSource(source)).toBe(text);
    expect(parseSources(text)).toEqual([source]);
  });

  it.each<[Partial<AptSource>, string]>([
    [{ types: [] }, 'the source has no type'],
    [{ uris: [] }, 'the source has no address'],
    [{ uris: ['/srv/apt'] }, 'is not an address'],
    [{ suites: [] }, 'the source has no suite'],
    [{ components: [] }, 'the source has no component'],
    [{ suites: ['./'] }, 'has no components'],
    [{ suites: ['./', 'x'] }, 'cannot stand in one source'],
    [{ uris: ['http://x\nTrusted: yes'] }, 'does not start with a blank'],
    [{ options: { 'Trusted: yes\nX': 'y' } }, 'cannot be the name of a field'],
    [{ options: { suites: 'y' } }, 'twice'],
  ])('refuses %j', (change, message) => {
    expect(() => formatSource({ ...SOURCE, ...change })).toThrow(message);
  });

  it('reads back what it writes', () => {
    const word = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/);
    const words = fc.array(word, { minLength: 1, maxLength: 3 });
    const source = fc.record(
      {
        types: fc.constantFrom<AptSource['types']>(['deb'], ['deb-src'], ['deb', 'deb-src']),
        uris: words.map((list) => list.map((item) => `https://${item}/debian/`)),
        suites: words,
        components: words,
        architectures: words,
        enabled: fc.constant(false),
        signedBy: fc.constantFrom('/usr/share/keyrings/x.gpg', KEY, '0123456789ABCDEF0123456789ABCDEF01234567'),
        options: fc.constantFrom<Record<string, string>>({ Trusted: 'yes' }, { Languages: 'de en', PDiffs: 'no' }),
      },
      { requiredKeys: ['types', 'uris', 'suites', 'components'] },
    );
    fc.assert(
      fc.property(source, (made) => {
        expect(parseSources(formatSource(made))).toEqual([made]);
      }),
    );
  });
});

describe('parseSources', () => {
  it('reads several entries, lists over lines, comments, any case', () => {
    const text =
      '# Debian\nTypes: deb\nuris: https://deb.example/debian\nSuites: trixie\n trixie-updates\nComponents:\n main\n non-free-firmware\n\nTypes: deb-src\nURIs: https://x\nSuites: sid\nComponents: main\nEnabled: False\n';
    expect(parseSources(text)).toEqual([
      {
        types: ['deb'],
        uris: ['https://deb.example/debian'],
        suites: ['trixie', 'trixie-updates'],
        components: ['main', 'non-free-firmware'],
      },
      { types: ['deb-src'], uris: ['https://x'], suites: ['sid'], components: ['main'], enabled: false },
    ]);
  });

  it('says where it is wrong', () => {
    expect(() =>
      parseSources('\n# x\nTypes: rpm\nURIs: https://x\nSuites: y\nComponents: z\n', { file: 'a.sources' }),
    ).toThrow(
      expect.objectContaining({
        code: 'source-invalid',
        file: 'a.sources',
        line: 3,
        message: "'rpm' is not a type of source: deb or deb-src",
      }),
    );
  });
});

describe('parseOneLine', () => {
  it('reads options, comments and flat repositories', () => {
    const text = `# a comment
deb http://deb.example/debian bookworm main contrib # and more

deb-src [ arch=amd64,arm64 signed-by=/a.gpg,/b.gpg by-hash=no lang+=de trusted=yes ] https://x/y sid main
deb [arch=amd64] cdrom:[Debian GNU/Linux 12 _Bookworm_]/ bookworm main
deb file:/srv/apt ./
`;
    expect(parseOneLine(text)).toEqual([
      { types: ['deb'], uris: ['http://deb.example/debian'], suites: ['bookworm'], components: ['main', 'contrib'] },
      {
        types: ['deb-src'],
        uris: ['https://x/y'],
        suites: ['sid'],
        components: ['main'],
        architectures: ['amd64', 'arm64'],
        signedBy: '/a.gpg /b.gpg',
        options: { 'By-Hash': 'no', 'Languages-Add': 'de', Trusted: 'yes' },
      },
      {
        types: ['deb'],
        uris: ['cdrom:[Debian GNU/Linux 12 _Bookworm_]/'],
        suites: ['bookworm'],
        components: ['main'],
        architectures: ['amd64'],
      },
      { types: ['deb'], uris: ['file:/srv/apt'], suites: ['./'], components: [] },
    ]);
  });

  it.each([
    ['deb http://x', 'an address and a suite are expected'],
    ['rpm http://x y z', "'rpm' is not a type of source"],
    ['deb [arch] http://x y z', "'arch' is not 'option=value'"],
    ['deb http://x y', 'has no component'],
    ['deb [arch=amd64 http://x y z', 'is not an address'],
  ])('refuses %j with its line', (line, message) => {
    expect(() => parseOneLine(`\n${line}\n`, { file: 'sources.list' })).toThrow(
      expect.objectContaining({ file: 'sources.list', line: 2, message: expect.stringContaining(message) }),
    );
  });
});
