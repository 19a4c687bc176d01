/**
 * The published holes of caches in this role, and of apt behind them: what was sent is sent to ours, byte for byte.
 *
 * approx has no published hole. Of squid's, those of protocols that this cache does not speak (FTP, Gopher, WAIS, ICP, HTCP, SNMP,
 * ICAP, ESI as a language, Digest, NTLM, WCCP) are covered by their being refused or passed on as plain bytes.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { serveProxy } from '../../src/proxy/serve.ts';
import { defaultSettings } from '../../src/proxy/settings.ts';
import { heldBytes } from '../support/held-memory.ts';
import { buildArchive, publish, randomPackage, testKey } from '../support/proxy-archive.ts';
import { type FakeUpstream, sha256, startUpstream } from '../support/proxy-upstream.ts';
import { type ProxyWorld, startProxy } from '../support/proxy-world.ts';
import { createWorld } from '../support/world.ts';

/** An upstream that answers in raw bytes; what it was asked is kept. */
interface RawUpstream extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly asked: string[];
  /** For the path: the answer's bytes, sent as they are; the connection ends after them. */
  answer(path: string, bytes: string | Buffer): void;
}

async function rawUpstream(): Promise<RawUpstream> {
  const answers = new Map<string, string | Buffer>();
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      if (!text.includes('\r\n\r\n')) return;
      asked.push(text);
      const path = text.split(' ')[1] ?? '';
      text = '';
      socket.end(answers.get(path) ?? 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    });
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  return {
    ...{ url: `http://127.0.0.1:${port}`, port, asked },
    answer: (path, bytes) => void answers.set(path, bytes),
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((done) => server.close(done));
    },
  };
}

/** Sends bytes as they are; resolves with all that comes back once the proxy ends the connection, or `enough` holds. */
function raw(url: string, text: string | Buffer, enough: (answer: string) => boolean = () => false): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port) });
    let answer = '';
    const finish = () => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(60_000, () => reject(new Error(`no end of the answer: ${answer.slice(0, 300)}`)));
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
      if (enough(answer)) finish();
    });
    socket.on('end', finish);
    socket.on('error', (error: NodeJS.ErrnoException) =>
      error.code === 'ECONNRESET' || error.code === 'EPIPE' ? finish() : reject(error),
    );
    socket.on('connect', () => socket.write(text));
  });
}

const HEAD = 'Host: x\r\nConnection: close\r\n';
const get = (target: string, headers = '') => `GET ${target} HTTP/1.1\r\n${HEAD}${headers}\r\n`;
const SECOND = 'GET /archive/pool/evil.deb HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
const smuggle = (headers: string, body = SECOND) =>
  `GET /archive/pool/a.deb HTTP/1.1\r\nHost: x\r\n${headers}\r\n${body}`;

let good: FakeUpstream;
let inner: FakeUpstream;
let odd: RawUpstream;
let world: ProxyWorld;

beforeAll(async () => {
  good = await startUpstream();
  inner = await startUpstream();
  odd = await rawUpstream();
  inner.put('/secret', 'top-hidden');
  good.put('/archive/pool/a.deb', 'the package');
  world = await startProxy([`${good.url}/archive`], {
    settings: {
      backends: {
        archive: { mirrors: [`${good.url}/archive`], signatures: 'accept' },
        odd: { mirrors: [odd.url], signatures: 'accept' },
      },
      hosts: ['*.example.org'],
    },
  });
}, 60_000);
afterAll(async () => {
  await world[Symbol.asyncDispose]();
  for (const one of [good, inner, odd]) await one[Symbol.asyncDispose]();
});

/** After every case: it lives, serves the right bytes, and nothing that was smuggled reached an upstream. */
async function unharmed(): Promise<void> {
  expect((await world.ask('/archive/pool/a.deb')).body.toString()).toBe('the package');
  expect(good.count(/evil/)).toBe(0);
  expect(inner.log).toEqual([]);
}

interface Case {
  readonly hole: string;
  readonly send: string;
  /** Of the status line. */
  readonly status: RegExp;
  /** Must be nowhere in the answer. */
  readonly never?: RegExp;
}

const REFUSED = /^HTTP\/1\.1 (?:400|403|404|405|408|414|417|431|501|505)/;

const CLIENTS: readonly Case[] = [
  {
    hole: 'apt-cacher-ng CVE-2017-7443: response splitting by an escaped newline',
    send: get('/archive/pool/%0d%0aX-Evil:%201'),
    status: /^HTTP\/1\.1 400/,
    never: /^X-Evil/im,
  },
  {
    hole: 'apt-cacher-ng CVE-2017-7443: the same in a query',
    send: get('/none/x?%0d%0aX-Evil:%201'),
    status: REFUSED,
    never: /^X-Evil/im,
  },
  {
    hole: 'apt-cacher-ng CVE-2014-4510: markup in an error page',
    send: get('/none/%3Cscript%3Ealert(1)%3C/script%3E'),
    status: /^HTTP\/1\.1 404/,
    never: /<script>/i,
  },
  {
    hole: 'apt-cacher-ng CVE-2025-11146, CVE-2025-11147: markup in the parameters of its report page',
    send: get('/acng-report.html?doScan=%22%3E%3Cscript%3Ealert(1)%3C/script%3E'),
    status: /^HTTP\/1\.1 404/,
    never: /<script>/i,
  },
  {
    hole: 'caches as file servers, path traversal: dots',
    send: get('/archive/../../../../etc/passwd'),
    status: REFUSED,
    never: /root:/,
  },
  ...[
    '%2e%2e/',
    '..%2f',
    '%2e%2e%2f',
    '..%5c',
    '%252e%252e%252f',
    '..%c0%af',
    '%c0%ae%c0%ae/',
    '%u002e%u002e/',
    '..;/',
    '..%00/',
    '.%2e/',
    '%ef%bc%8f..',
  ].map((step) => ({
    hole: `path traversal as ${step}`,
    send: get(`/archive/${step.repeat(5)}etc/passwd`),
    status: REFUSED,
    never: /root:/,
  })),
  {
    hole: 'squid CVE-2019-12523, CVE-2021-28651, CVE-2025-54574: urn: to an inner host',
    send: get('urn::@127.0.0.1/?secret'),
    status: /^HTTP\/1\.1 400/,
  },
  { hole: 'squid CVE-2019-12523: urn: of a namespace', send: get('urn:example:secret'), status: /^HTTP\/1\.1 400/ },
  {
    hole: 'squid CVE-2019-12520, CVE-2019-12524: cache manager by another scheme',
    send: get('cache_object://127.0.0.1/info'),
    status: /^HTTP\/1\.1 400/,
  },
  {
    hole: 'squid CVE-2019-12520: a user name that hides the host',
    send: get('http://archive.example.org%2f@127.0.0.1/secret'),
    status: REFUSED,
  },
  {
    hole: 'squid CVE-2019-18677: a host that a default domain is added to',
    send: get('http://localhost/secret'),
    status: REFUSED,
  },
  {
    hole: 'squid CVE-2021-46784, CVE-2023-46728: gopher:',
    send: get('gopher://127.0.0.1:70/1'),
    status: /^HTTP\/1\.1 400/,
  },
  {
    hole: 'the gateways of squid to other protocols: ftp:',
    send: get('ftp://archive.example.org/x'),
    status: /^HTTP\/1\.1 400/,
  },
  { hole: 'apt method abuse: file:', send: get('file:///etc/passwd'), status: /^HTTP\/1\.1 400/, never: /root:/ },
  {
    hole: 'squid CVE-2019-18678: a blank before the colon',
    send: smuggle('Transfer-Encoding : chunked\r\n', `0\r\n\r\n${SECOND}`),
    status: /^HTTP\/1\.1 400/,
  },
  {
    hole: 'squid CVE-2020-15810: a control character before chunked',
    send: smuggle('Transfer-Encoding: \u000bchunked\r\n', `0\r\n\r\n${SECOND}`),
    status: /^HTTP\/1\.1 400/,
  },
  {
    hole: 'squid CVE-2020-15811: chunked in quotes',
    send: smuggle('Transfer-Encoding: "chunked"\r\n', `0\r\n\r\n${SECOND}`),
    status: /^HTTP\/1\.1 400/,
  },
  {
    hole: 'squid CVE-2020-15811: chunked, then identity',
    send: smuggle('Transfer-Encoding: chunked, identity\r\n', `0\r\n\r\n${SECOND}`),
    status: /^HTTP\/1\.1 400/,
  },
  ...['+73', '-1', '4 0', '0x49', '73, 0', '', '99999999999999999999999'].map((length) => ({
    hole: `squid CVE-2020-15049: Content-Length '${length}'`,
    send: smuggle(`Content-Length: ${length}\r\n`),
    status: /^HTTP\/1\.1 400/,
  })),
  {
    hole: 'CL.TE',
    send: smuggle('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', `0\r\n\r\n${SECOND}`),
    status: /^HTTP\/1\.1 400/,
  },
  {
    hole: 'TE.CL',
    send: smuggle('Transfer-Encoding: chunked\r\nContent-Length: 4\r\n', `49\r\n${SECOND}\r\n0\r\n\r\n`),
    status: /^HTTP\/1\.1 400/,
  },
  {
    hole: 'TE.TE: two encodings',
    send: smuggle('Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n', `0\r\n\r\n${SECOND}`),
    status: /^HTTP\/1\.1 400/,
  },
  { hole: 'two lengths', send: smuggle('Content-Length: 0\r\nContent-Length: 73\r\n'), status: /^HTTP\/1\.1 400/ },
  { hole: 'a body on GET', send: smuggle(`Content-Length: ${SECOND.length}\r\n`), status: /^HTTP\/1\.1 400/ },
  {
    hole: 'squid CVE-2023-46846: chunks ended by bare newlines',
    send: smuggle('Transfer-Encoding: chunked\r\n', `1;a="\n"\nx\n0\n\n${SECOND}`),
    status: /^HTTP\/1\.1 400/,
  },
  {
    hole: 'folded header (obs-fold)',
    send: smuggle('Transfer-Encoding:\r\n chunked\r\n', `0\r\n\r\n${SECOND}`),
    status: /^HTTP\/1\.1 400/,
  },
  {
    hole: 'bare newlines between headers',
    send: `GET /archive/pool/a.deb HTTP/1.1\nHost: x\nX: y\n\n${SECOND}`,
    status: /^HTTP\/1\.1 400/,
  },
  {
    hole: 'bare carriage return in a header',
    send: smuggle('X: a\rTransfer-Encoding: chunked\r\n', `0\r\n\r\n${SECOND}`),
    status: /^HTTP\/1\.1 400/,
  },
  { hole: 'NUL in a header', send: smuggle('X: a\0b\r\n'), status: /^HTTP\/1\.1 400/ },
  {
    hole: 'squid CVE-2019-18676: an address that is far too long',
    send: get(`/archive/${'a'.repeat(12_000)}`),
    status: REFUSED,
  },
  {
    hole: 'squid CVE-2023-50269: X-Forwarded-For without end',
    send: get('/archive/pool/a.deb', `X-Forwarded-For: ${'1.2.3.4, '.repeat(20_000)}\r\n`),
    status: /^HTTP\/1\.1 431|^$/,
  },
  {
    hole: 'squid CVE-2024-25617: a header without end',
    send: get('/archive/pool/a.deb', `X: ${'a'.repeat(300_000)}\r\n`),
    status: /^HTTP\/1\.1 431|^$/,
  },
  {
    hole: 'lists of hosts by name: a dot behind the host',
    send: get('http://127.0.0.1./secret'),
    status: REFUSED,
  },
  { hole: 'squid open CONNECT: mail', send: `CONNECT 127.0.0.1:25 HTTP/1.1\r\n${HEAD}\r\n`, status: /^HTTP\/1\.1 403/ },
  {
    hole: 'CONNECT to a name that is no host',
    send: `CONNECT ${'a.'.repeat(500)}:443 HTTP/1.1\r\n${HEAD}\r\n`,
    status: REFUSED,
  },
  {
    hole: 'PURGE and other methods that change a cache',
    send: `PURGE /archive/pool/a.deb HTTP/1.1\r\n${HEAD}\r\n`,
    status: /^HTTP\/1\.1 405/,
  },
  {
    hole: 'TRACE shows the headers of a client',
    send: `TRACE /archive/pool/a.deb HTTP/1.1\r\n${HEAD}X-Secret: 1\r\n\r\n`,
    status: REFUSED,
    never: /X-Secret/,
  },
  { hole: 'HTTP/2 by prior knowledge', send: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', status: /^HTTP\/1\.1 (?:400|505)/ },
  {
    hole: 'Upgrade: h2c as a way around',
    send: get('/archive/pool/a.deb', 'Upgrade: h2c\r\nHTTP2-Settings: AAAA\r\n').replace(
      'Connection: close',
      'Connection: Upgrade, HTTP2-Settings',
    ),
    status: /^HTTP\/1\.1 (?:200|400)|^$/,
    never: /101 Switching/,
  },
  { hole: 'what is no HTTP', send: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', status: /^HTTP\/1\.1 400/ },
];

describe('what a client sends', () => {
  it.each(CLIENTS)('$hole', async ({ send, status, never }) => {
    const answer = await raw(
      world.url,
      Buffer.from(send, 'latin1'),
      (text) => REFUSED.test(text) && text.includes('\r\n\r\n') && !text.includes('\r\nConnection: keep-alive'),
    );
    expect(answer.slice(0, 60)).toMatch(status);
    if (never) expect(answer).not.toMatch(never);
    expect(answer.match(/^HTTP\/1\.1 /gm)?.length ?? 0).toBeLessThan(2);
    await unharmed();
  });

  it('squid CVE-2021-31806, -31807, -31808: ranges beyond every number', async () => {
    const ranges = [
      '0-18446744073709551615',
      '-18446744073709551616',
      '9223372036854775807-',
      '1-0',
      'x-',
      '0-0,'.repeat(2000),
      '-0',
      '0-9007199254740993',
    ];
    for (const range of ranges) {
      const { status, body } = await world.ask('/archive/pool/a.deb', { headers: { range: `bytes=${range}` } });
      expect([200, 206, 416]).toContain(status);
      expect(body.length).toBeLessThanOrEqual(11);
    }
    await unharmed();
  });

  it('squid CVE-2016-4553, CVE-2009-0801: the Host header says otherwise than the address', async () => {
    good.put('/archive/pool/host.deb', 'ours');
    const answer = await raw(
      world.url,
      `GET ${good.url}/archive/pool/host.deb HTTP/1.1\r\nHost: evil.example.org\r\nConnection: close\r\n\r\n`,
    );
    expect(answer).toMatch(/ours$/);
    expect((await world.ask('/archive/pool/host.deb', { headers: { host: 'evil.example.org' } })).body.toString()).toBe(
      'ours',
    );
    expect(world.proxy.cache.store.urls('*evil.example.org*')).toEqual([]);
  });

  it('squid CVE-2016-10002, CVE-2016-10003: what belongs to one client reaches neither upstream nor another', async () => {
    odd.answer(
      '/pool/private.deb',
      'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nSet-Cookie: s=1\r\nX-Evil: 1\r\nConnection: close\r\n\r\nbody',
    );
    const headers = {
      cookie: 'session=secret',
      authorization: 'Basic c2VjcmV0',
      'x-forwarded-for': '1.2.3.4',
    };
    const first = await world.ask('/odd/pool/private.deb', { headers });
    const second = await world.ask('/odd/pool/private.deb');
    for (const one of [first, second]) {
      expect(one.body.toString()).toBe('body');
      expect(Object.keys(one.headers)).not.toContain('set-cookie');
      expect(Object.keys(one.headers)).not.toContain('x-evil');
    }
    expect(odd.asked.join('')).not.toMatch(/secret|c2VjcmV0|1\.2\.3\.4/i);
  });

  it('apt-cacher-ng CVE-2020-5202: its housekeeping gave the password to whoever listened on the port', async () => {
    await using trap = await rawUpstream();
    await using own = await createWorld();
    const config = `proxy:\n  listen: ["127.0.0.1:${trap.port}"]\n`;
    await run({}, 'sh', ['-c', 'printf %s "$1" >"$2"', 'sh', config, join(own.path, 'buildkit.yaml')]);
    for (const command of [['stats'], ['expire'], ['verify'], ['drop', '*'], ['ls']])
      await run({}, 'bin/buildkit', ['-C', own.path, '--state', join(own.path, 'state'), 'proxy', ...command], {
        timeoutMs: 60_000,
      });
    expect(trap.asked).toEqual([]);
  }, 120_000);
});

describe('what an upstream sends', () => {
  const body = 'HTTP/1.1 200 OK\r\n';
  const cases: readonly { hole: string; answer: string | Buffer; status: readonly number[]; never?: RegExp }[] = [
    {
      hole: 'squid CVE-2015-0881: a bare carriage return before a header',
      answer: `${body}X: a\rX-Evil: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok`,
      status: [200, 502, 503],
      never: /x-evil/i,
    },
    {
      hole: 'squid CVE-2005-0174: two lengths',
      answer: `${body}Content-Length: 2\r\nContent-Length: 40\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`,
      status: [502, 503],
    },
    {
      hole: 'squid CVE-2005-0175: an answer behind the answer',
      answer: `${body}Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`,
      status: [200, 502, 503],
      never: /evil/,
    },
    {
      hole: 'squid CVE-2023-46846: length and chunks',
      answer: `${body}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      status: [200, 502, 503],
      never: /evil/,
    },
    {
      hole: 'squid CVE-2024-25111: a chunk size without end',
      answer: `${body}Transfer-Encoding: chunked\r\n\r\n${'0'.repeat(100_000)}1\r\nx\r\n0\r\n\r\n`,
      status: [200, 502, 503],
    },
    {
      hole: 'squid CVE-2024-25111: a chunk size beyond every number',
      answer: `${body}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx`,
      status: [502, 503],
    },
    {
      hole: 'squid CVE-2021-33620: a Content-Range that nobody asked for',
      answer: 'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 10-5/2\r\nContent-Length: 2\r\n\r\nok',
      status: [502, 503],
    },
    {
      hole: 'squid CVE-2021-33620: a Content-Range beyond every number',
      answer:
        'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-18446744073709551615/*\r\nContent-Length: 2\r\n\r\nok',
      status: [502, 503],
    },
    {
      hole: 'squid CVE-2024-25617, CVE-2020-8449: headers without end',
      answer: `${body}${'X: aaaaaaaaaaaaaaaa\r\n'.repeat(100_000)}Content-Length: 2\r\n\r\nok`,
      status: [502, 503],
    },
    {
      hole: 'squid CVE-2023-49285: a date that is none',
      answer: `${body}Date: ${'9'.repeat(60)}\r\nLast-Modified: Sun, 99 Nov 99999999999 00:00:00 GMT\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok`,
      status: [200],
    },
    {
      hole: 'squid CVE-2016-3948: Vary on everything',
      answer: `${body}Vary: *\r\nVary: ${'a,'.repeat(2000)}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok`,
      status: [200, 502, 503],
    },
    {
      hole: 'an ETag that ends the header',
      answer: `${body}ETag: "a"\tX-Evil: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok`,
      status: [200, 502, 503],
      never: /^x-evil/im,
    },
    { hole: 'a status line that is none', answer: 'HTTP/1.1 200\x00OK\r\n\r\nok', status: [502, 503] },
    { hole: 'what is no HTTP', answer: 'ok, here it is', status: [502, 503] },
    {
      hole: 'a length beyond every number',
      answer: `${body}Content-Length: 99999999999999999999999\r\n\r\nok`,
      status: [502, 503],
    },
    {
      hole: 'apt CVE-2019-3462: an escaped newline in Location',
      answer: `HTTP/1.1 302 Found\r\nLocation: /pool/x%0d%0aX-Evil:%201%0a%0a201%20URI%20Done\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
      status: [400, 403, 404, 502, 503],
      never: /x-evil|201 URI/i,
    },
    ...[
      'http://169.254.169.254/latest/meta-data/',
      'http://[::ffff:169.254.169.254]/x',
      'http://[fd00:ec2::254]/x',
      'http://0x7f.1/secret',
      'http://2130706433/secret',
      'http://127.0.0.1:INNER/secret',
      '//127.0.0.1:INNER/secret',
      'http://localhost:INNER/secret',
      'http://u@127.0.0.1:INNER/secret',
      'file:///etc/passwd',
      'gopher://127.0.0.1/',
      'https://127.0.0.1:INNER/secret',
    ].map((target) => ({
      hole: `a redirect to ${target}`,
      answer: `REDIRECT ${target}`,
      status: [400, 403, 404, 502, 503],
      never: /top-hidden|root:/,
    })),
  ];

  it.each(cases)(
    '$hole',
    async ({ answer, status, never }) => {
      // one that misbehaved is left alone for seconds: each case has its own
      await using upstream = await rawUpstream();
      await using proxy = await startProxy([upstream.url]);
      const redirect = /^REDIRECT (.*)$/.exec(String(answer))?.[1]?.replace('INNER', String(inner.port));
      const location = `HTTP/1.1 302 Found\r\nLocation: ${redirect}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`;
      upstream.answer('/pool/a.deb', redirect === undefined ? answer : location);
      const text = await raw(proxy.url, get('/archive/pool/a.deb'));
      expect(status).toContain(Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1]));
      if (never) expect(text.replace(/X-Cache-Why: .*/, '')).not.toMatch(never);
      expect((await proxy.ask('/healthz')).status).toBe(200);
      expect(inner.log).toEqual([]);
    },
    90_000,
  );

  it('squid CVE-2024-45802: an ESI include is nothing but bytes', async () => {
    await using upstream = await rawUpstream();
    await using proxy = await startProxy([upstream.url]);
    const page = `<esi:include src="${inner.url}/secret"/>`;
    upstream.answer(
      '/pool/a.deb',
      `HTTP/1.1 200 OK\r\nSurrogate-Control: content="ESI/1.0"\r\nContent-Length: ${page.length}\r\nConnection: close\r\n\r\n${page}`,
    );
    expect((await proxy.ask('/archive/pool/a.deb')).body.toString()).toBe(page);
    expect(inner.log).toEqual([]);
  });
});

describe('apt: signed texts that are not what they seem', () => {
  it.each([
    [
      'CVE-2013-1051, CVE-2011-1829: text before the signed one',
      (text: string) => `Origin: Evil\nSuite: evil\n\n${text}`,
    ],
    ['CVE-2013-1051: text behind the signed one', (text: string) => `${text}\nOrigin: Evil\n`],
    [
      'CVE-2016-1252: a line longer than a reader takes, then a signature',
      (text: string) => `${'x'.repeat(1_200_000)}\n${text}`,
    ],
    [
      'CVE-2016-1252: a long line inside of the armour header',
      (text: string) => text.replace('\nHash:', `\nX: ${'x'.repeat(600_000)}\nHash:`),
    ],
    [
      'a second signed text behind the first',
      (text: string) => `${text}\n${text.replace('Origin: Test', 'Origin: Evil')}`,
    ],
    ['a signature without a text', (text: string) => text.replace(/^[\s\S]*(?=-----BEGIN PGP SIGNATURE)/, '')],
  ])('%s', async (_hole, change) => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const archive = await buildArchive({
      date: new Date('2026-10-01T00:00:00Z'),
      packages: [randomPackage('hello', 100)],
      key,
    });
    publish(upstream, archive);
    upstream.put('/archive/dists/stable/InRelease', change(archive.inRelease));
    upstream.files.delete('/archive/dists/stable/Release');
    upstream.files.delete('/archive/dists/stable/Release.gpg');
    await using strict = await startProxy([`${upstream.url}/archive`], { keys: [key.publicKeyArmored] });
    const answer = await strict.ask('/archive/dists/stable/InRelease');
    // refused, or handed out as exactly the text that was signed
    if (answer.status === 200) expect(answer.body.toString().trim()).toBe(archive.inRelease.trim());
    else expect([404, 502, 503]).toContain(answer.status);
  });
});

describe('bombs', () => {
  const blank = Buffer.alloc(1 << 20, 'A: b\n');

  it.each([
    ['gz', (bytes: Buffer) => Buffer.concat(Array.from({ length: 200 }, () => gzipSync(bytes)))],
    ['zst', (bytes: Buffer) => Buffer.concat(Array.from({ length: 200 }, () => zstdCompressSync(bytes)))],
    ['xz', async () => readFileSync('/dev/null')],
  ])(
    'an index as .%s that unpacks to hundreds of megabytes is not held in memory',
    async (suffix, pack) => {
      await using upstream = await startUpstream();
      let bomb = Buffer.from(await pack(blank));
      if (suffix === 'xz') {
        const made = await run({}, 'sh', ['-c', 'head -c 200000000 /dev/zero | tr "\\0" "\\n" | xz -1 | base64 -w0'], {
          timeoutMs: 120_000,
        });
        bomb = Buffer.from(made.stdout, 'base64');
      }
      const key = await testKey();
      const archive = await buildArchive({
        date: new Date('2026-10-01T00:00:00Z'),
        packages: [randomPackage('hello', 100)],
        key,
      });
      publish(upstream, archive);
      const { clearSign } = await import('../../src/deb/openpgp.ts');
      const path = `main/binary-amd64/Packages.${suffix}`;
      const release = `Origin: Test\nSuite: stable\nCodename: stable\nDate: Thu, 01 Oct 2026 00:00:00 GMT\nArchitectures: amd64\nComponents: main\nSHA256:\n ${sha256(bomb)} ${bomb.length} ${path}\n`;
      upstream.put(
        '/archive/dists/stable/InRelease',
        await clearSign(release, [{ key: key.privateKeyArmored }], { date: new Date('2026-10-01T00:00:00Z') }),
      );
      upstream.put(`/archive/dists/stable/${path}`, bomb);
      await using strict = await startProxy([`${upstream.url}/archive`], { keys: [key.publicKeyArmored] });
      expect((await strict.ask('/archive/dists/stable/InRelease')).status).toBe(200);
      const before = heldBytes();
      let most = before;
      // a look takes the time of a collection: the reader gets three times that in between
      let watch: NodeJS.Timeout;
      const look = () => {
        const start = performance.now();
        most = Math.max(most, heldBytes());
        watch = setTimeout(look, 3 * (performance.now() - start));
      };
      watch = setTimeout(look, 50);
      try {
        expect((await strict.ask(`/archive/dists/stable/${path}`)).body.equals(bomb)).toBe(true);
        await strict.proxy.cache.suites.settled();
      } finally {
        clearTimeout(watch);
      }
      // of the 200 MB, pieces that are being read: a reader that keeps them is seen when it has a third
      expect(Math.round((most - before) / 1e6)).toBeLessThan(70);
      expect((await strict.ask('/healthz')).status).toBe(200);
    },
    180_000,
  );

  it('a body without end is cut at the length that the signed index tells', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const hello = randomPackage('hello', 5000);
    publish(upstream, await buildArchive({ date: new Date('2026-10-01T00:00:00Z'), packages: [hello], key }));
    const path = '/archive/pool/main/h/hello/hello_1.0-1_amd64.deb';
    upstream.put(path, Buffer.concat([hello.bytes, randomBytes(5_000_000)]));
    await using strict = await startProxy([`${upstream.url}/archive`], { keys: [key.publicKeyArmored] });
    await strict.ask('/archive/dists/stable/InRelease');
    await strict.ask('/archive/dists/stable/main/binary-amd64/Packages.gz');
    await strict.proxy.cache.suites.settled();
    expect((await strict.ask(path)).status).toBe(502);
    expect(strict.proxy.cache.metrics.get('bad_bodies')).toBeGreaterThan(0);
  });
});

describe('slow and greedy clients', () => {
  it('are cut off: headers by the byte, a body that never comes, silence', async () => {
    await using own = await createWorld();
    const limits = { headersMs: 500, requestMs: 800, checkMs: 100, idleMs: 600 };
    const settings = { ...defaultSettings(join(own.path, 'proxy')), backends: {} };
    await using proxy = await serveProxy(own.context, settings, { listen: ['127.0.0.1:0'], limits });
    const url = proxy.urls[0]!;
    const trickle = (first: string, every: string): Promise<string> =>
      new Promise((resolve) => {
        const { hostname, port } = new URL(url);
        const socket = connect({ host: hostname, port: Number(port) }, () => socket.write(first));
        let answer = '';
        const timer = setInterval(() => socket.write(every), 100);
        socket.on('data', (chunk) => {
          answer += chunk.toString('latin1');
        });
        socket.on('error', () => {});
        socket.on('close', () => {
          clearInterval(timer);
          resolve(answer);
        });
      });
    const [headers, body, silent] = await Promise.all([
      trickle('GET /healthz HTTP/1.1\r\nX: ', 'a'),
      trickle('POST /api/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n', 'a'),
      trickle('', ''),
    ]);
    expect(headers).toMatch(/^(?:HTTP\/1\.1 4\d\d|$)/);
    expect(body).toMatch(/^(?:HTTP\/1\.1 4\d\d|$)/);
    expect(silent).toMatch(/^(?:HTTP\/1\.1 4\d\d|$)/);
    // on a busy machine half a second may pass before an honest request is read
    await expect.poll(() => raw(url, get('/healthz')), { timeout: 60_000 }).toContain('"status":"ok"');
  }, 120_000);

  it('have no more connections from one address than allowed', async () => {
    await using own = await createWorld();
    const settings = { ...defaultSettings(join(own.path, 'proxy')), backends: {} };
    await using proxy = await serveProxy(own.context, settings, { listen: ['127.0.0.1:0'], limits: { perClient: 5 } });
    const { hostname, port } = new URL(proxy.urls[0]!);
    const held = await Promise.all(
      Array.from({ length: 5 }, () => {
        const socket = connect({ host: hostname, port: Number(port) });
        return new Promise<Socket>((resolve) => socket.once('connect', () => resolve(socket)));
      }),
    );
    // a connection is counted when it is accepted: the five were connected before
    expect(await raw(proxy.urls[0]!, get('/healthz'))).toMatch(/^HTTP\/1\.1 503 .*too many connections/s);
    held[0]!.destroy();
    await expect.poll(() => raw(proxy.urls[0]!, get('/healthz')), { timeout: 60_000 }).toContain('"status":"ok"');
    for (const socket of held) socket.destroy();
  }, 60_000);
});
