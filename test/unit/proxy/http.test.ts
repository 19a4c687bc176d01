import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { connect, Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { type FakeUpstream, sha256, startUpstream } from '../../support/proxy-upstream.ts';
import { startProxy } from '../../support/proxy-world.ts';

vi.setConfig({ testTimeout: 180_000 });

/** Sends bytes as they are and returns all that comes back until the connection ends. */
function raw(url: string, text: string): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect({ host: hostname, port: Number(port) });
    const chunks: Buffer[] = [];
    const finish = () => {
      socket.destroy();
      resolve(Buffer.concat(chunks).toString('latin1'));
    };
    socket.setTimeout(60_000, () => reject(new Error('the connection does not end')));
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('end', finish);
    socket.on('error', reject);
    socket.on('connect', () => socket.write(text));
  });
}

async function cached(upstream: FakeUpstream, size: number) {
  const bytes = randomBytes(size);
  upstream.put('/archive/pool/a.deb', bytes, { lastModified: 'Sun, 01 Nov 2026 00:00:00 GMT' });
  const world = await startProxy([`${upstream.url}/archive`]);
  await world.ask('/archive/pool/a.deb');
  return { world, bytes };
}

describe('HTTP as it should be', () => {
  it.each([500, 400_000])('serves ranges, heads and conditions of a file of %d bytes', async (size) => {
    await using upstream = await startUpstream();
    const { world, bytes } = await cached(upstream, size);
    await using _ = world;
    const get = (headers: Record<string, string>, method = 'GET') =>
      world.ask('/archive/pool/a.deb', { headers, method });
    const whole = await get({});
    const etag = whole.headers.etag!;
    expect(etag).toBe(`"${sha256(bytes)}"`);
    expect(whole.headers).toMatchObject({
      'content-length': String(size),
      'accept-ranges': 'bytes',
      'last-modified': 'Sun, 01 Nov 2026 00:00:00 GMT',
      'content-type': 'application/vnd.debian.binary-package',
    });
    for (const name of ['date', 'age', 'via', 'x-cache', 'x-cache-why']) expect(whole.headers[name]).toBeDefined();
    const part = await get({ range: 'bytes=10-19' });
    expect([part.status, part.headers['content-range'], part.body.equals(bytes.subarray(10, 20))]).toEqual([
      206,
      `bytes 10-19/${size}`,
      true,
    ]);
    expect((await get({ range: 'bytes=-5' })).body.equals(bytes.subarray(-5))).toBe(true);
    expect((await get({ range: `bytes=${size - 3}-` })).body.equals(bytes.subarray(-3))).toBe(true);
    const beyond = await get({ range: `bytes=${size}-` });
    expect([beyond.status, beyond.headers['content-range']]).toEqual([416, `bytes */${size}`]);
    const several = await get({ range: 'bytes=0-1,5-6' });
    expect(several.status).toBe(206);
    expect(several.headers['content-type']).toMatch(/^multipart\/byteranges; boundary=/);
    expect(several.body.length).toBe(Number(several.headers['content-length']));
    expect(several.body.includes(bytes.subarray(5, 7))).toBe(true);
    const head = await get({}, 'HEAD');
    expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, String(size), 0]);
    expect((await get({ 'if-none-match': etag })).status).toBe(304);
    expect((await get({ 'if-modified-since': 'Sun, 01 Nov 2026 00:00:00 GMT' })).status).toBe(304);
    expect((await get({ 'if-match': '"other"' })).status).toBe(412);
    expect((await get({ range: 'bytes=0-1', 'if-range': '"other"' })).status).toBe(200);
    expect((await get({ range: 'bytes=0-1', 'if-range': etag })).status).toBe(206);
    expect(upstream.log).toHaveLength(1);
  });

  it('answers pipelined requests in order on one connection', async () => {
    await using upstream = await startUpstream();
    for (let index = 0; index < 10; index += 1) upstream.put(`/archive/pool/${index}.deb`, `content ${index}`);
    upstream.faults.push({ path: /\/0\.deb/, delayMs: 100 });
    await using world = await startProxy([`${upstream.url}/archive`]);
    const requests = Array.from(
      { length: 10 },
      (_, index) =>
        `GET /archive/pool/${index}.deb HTTP/1.1\r\nHost: x\r\n${index === 9 ? 'Connection: close\r\n' : ''}\r\n`,
    );
    const text = await raw(world.url, requests.join(''));
    expect([...text.matchAll(/content (\d)/g)].map((match) => match[1])).toEqual([...'0123456789']);
    expect(text.match(/HTTP\/1\.1 200/g)).toHaveLength(10);
  });

  it('tells requests as to a proxy from requests for its own pages before it routes them', async () => {
    await using upstream = await startUpstream();
    upstream.put('/healthz', 'the health of another');
    await using world = await startProxy([], {
      settings: { hosts: [`127.0.0.1:${upstream.port}`], innerHosts: ['127.0.0.1'] },
    });
    expect(JSON.parse((await world.ask('/healthz')).body.toString())).toMatchObject({ status: 'ok' });
    expect((await world.ask(`${upstream.url}/healthz`)).body.toString()).toBe('the health of another');
  });

  it('reaches https by the name that apt-cacher-ng gave it', async () => {
    await using world = await startProxy([], { settings: { hosts: ['*'] } });
    const answer = await world.ask('http://HTTPS///127.0.0.1/pool/a.deb');
    expect(answer.status).toBe(403);
    expect(answer.body.toString()).toContain("'127.0.0.1' is an inner address");
  });

  it('changes nothing by GET and has no other methods for files', async () => {
    await using upstream = await startUpstream();
    const { world } = await cached(upstream, 10);
    await using _ = world;
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH'])
      expect((await world.ask('/archive/pool/a.deb', { method })).status).toBe(405);
    for (const path of ['/api/drop?pattern=*', '/acng-report.html?doClean', '/api/expire'])
      expect((await world.ask(path)).status).toBe(404);
    expect((await world.ask('/archive/pool/a.deb')).headers['x-cache']).toBe('HIT');
  });

  it('shows its state to people, programs and Prometheus', async () => {
    await using upstream = await startUpstream();
    const { world } = await cached(upstream, 10);
    await using _ = world;
    await world.ask('/archive/pool/a.deb');
    expect((await world.ask('/')).body.toString()).toContain('hit rate');
    const metrics = (await world.ask('/metrics')).body.toString();
    expect(metrics).toMatch(/^buildkit_proxy_hits_total 1$/m);
    expect(metrics).toMatch(/^buildkit_proxy_objects 1$/m);
    expect(JSON.parse((await world.ask('/api/status')).body.toString())).toMatchObject({ objects: 1, urls: 1 });
  });

  it('writes an access log that no request can forge a line of', async () => {
    await using upstream = await startUpstream();
    await using world = await startProxy([`${upstream.url}/archive`]);
    const log = join(world.world.path, 'access.log');
    await world.restart({ accessLog: log });
    await world.ask('/archive/pool/%0a%0dforged.deb');
    await world.ask('/archive/pool/none.deb');
    await expect.poll(() => readFileSync(log, 'utf8').split('\n').length, { timeout: 60_000 }).toBe(3);
    const lines = readFileSync(log, 'utf8').trimEnd().split('\n');
    expect(lines[0]).toMatch(/127\.0\.0\.1 GET "\/archive\/pool\/%0a%0dforged\.deb" 400/);
    expect(lines[1]).toMatch(/"\/archive\/pool\/none\.deb" 404 ERROR/);
  });

  it('revalidates what may change, and serves the old when upstream fails', async () => {
    await using upstream = await startUpstream();
    upstream.put('/archive/doc/list.txt', 'one', { etag: '"1"' });
    await using world = await startProxy([`${upstream.url}/archive`]);
    const get = async () => {
      const answer = await world.ask('/archive/doc/list.txt');
      return [answer.body.toString(), answer.headers['x-cache']];
    };
    expect(await get()).toEqual(['one', 'MISS']);
    expect(await get()).toEqual(['one', 'REVALIDATED']);
    upstream.put('/archive/doc/list.txt', 'two', { etag: '"2"' });
    expect(await get()).toEqual(['two', 'MISS']);
    upstream.faults.push({ path: /list/, status: 500 });
    expect(await get()).toEqual(['two', 'STALE']);
    await world.restart({ maxAge: 60 });
    expect(await get()).toEqual(['two', 'HIT']);
    const mirrors = [`${upstream.url}/archive`];
    await world.restart({ backends: { archive: { mirrors, maxAge: 0 }, same: { mirrors } } });
    expect(await get()).toEqual(['two', 'STALE']); // the age of this back end, not of the others
    upstream.faults.length = 0;
    const other = async () => (await world.ask('/same/doc/list.txt')).headers['x-cache'];
    expect([await other(), await other()]).toEqual(['MISS', 'HIT']);
  });

  it('refuses no file for the look of its name', async () => {
    await using upstream = await startUpstream();
    await using world = await startProxy([`${upstream.url}/archive`]);
    const names = [
      'dists/x/main/New-Kind.2030',
      'dists/x/dep99/~weird+name=1.qqq',
      'pool/a.deb3',
      'no-suffix',
      'a/b c',
    ];
    for (const name of names) {
      upstream.put(`/archive/${name}`, name);
      expect((await world.ask(`/archive/${name.replaceAll(' ', '%20')}`)).body.toString()).toBe(name);
    }
  });

  it('sends what it has at once: no waiting for a fuller packet (TCP_NODELAY)', async () => {
    const set = Socket.prototype.setNoDelay;
    const ports: (number | undefined)[] = [];
    const prompt = vi.spyOn(Socket.prototype, 'setNoDelay').mockImplementation(function (this: Socket, on) {
      if (on !== false) ports.push(this.localPort);
      return set.call(this, on);
    });
    try {
      await using world = await startProxy([]);
      expect((await world.ask('/healthz')).status).toBe(200);
      expect(ports).toContain(Number(new URL(world.url).port));
    } finally {
      prompt.mockRestore();
    }
  });
});

describe('safe in a company', () => {
  it('serves listed networks only', async () => {
    await using upstream = await startUpstream();
    await using world = await startProxy([`${upstream.url}/archive`], { settings: { clients: ['10.0.0.0/8'] } });
    expect((await world.ask('/archive/pool/a.deb')).status).toBe(403);
    expect(upstream.log).toEqual([]);
  });

  it('is no open proxy', async () => {
    await using upstream = await startUpstream();
    await using world = await startProxy([`${upstream.url}/archive`]);
    expect((await world.ask('http://other.example.org/pool/a.deb')).status).toBe(403);
    expect((await world.ask(`http://127.0.0.1:${upstream.port}/other/a.deb`)).status).toBe(403);
    expect(upstream.log).toEqual([]);
  });

  it.each([
    'http://127.0.0.1:PORT/a',
    'http://localhost:PORT/a',
    'http://[::1]:PORT/a',
    'http://[::ffff:127.0.0.1]:PORT/a',
    'http://169.254.169.254/latest/meta-data/',
    'http://2130706433:PORT/a',
    'http://0x7f000001:PORT/a',
    'http://0:PORT/a',
  ])('is no way into the inner network: %s', async (address) => {
    await using upstream = await startUpstream();
    upstream.put('/a', 'secret');
    await using world = await startProxy([], { settings: { hosts: ['*'] } });
    const answer = await world.ask(address.replace('PORT', String(upstream.port)));
    expect([400, 403, 503]).toContain(answer.status);
    expect(answer.body.toString()).not.toContain('secret');
    expect(upstream.log).toEqual([]);
  });

  it('does not follow a redirect or a second answer of the DNS to an inner address', async () => {
    await using upstream = await startUpstream();
    await using inner = await startUpstream();
    inner.put('/secret', 'secret');
    upstream.faults.push({ path: /a\.deb/, status: 302, headers: { location: `${inner.url}/secret` } });
    await using world = await startProxy([`${upstream.url}/archive`], {
      settings: { hosts: ['rebind.example.org'] },
      parts: {
        lookup: ((_host: string, _options: object, done: (error: null, all: object[]) => void) =>
          done(null, [{ address: '127.0.0.1', family: 4 }])) as never,
      },
    });
    expect((await world.ask('/archive/pool/a.deb')).status).toBe(403);
    expect((await world.ask(`http://rebind.example.org:${inner.port}/secret`)).status).toBe(403);
    const tunnelled = await raw(world.url, `CONNECT rebind.example.org:${inner.port} HTTP/1.1\r\n\r\n`);
    expect(tunnelled).toMatch(/^HTTP\/1\.1 403/);
    expect(inner.log).toEqual([]);
  });

  it('tunnels only where the list says so', async () => {
    await using upstream = await startUpstream();
    upstream.put('/x', 'through');
    const target = `127.0.0.1:${upstream.port}`;
    const request = `CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\nGET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`;
    await using closed = await startProxy([]);
    expect(await raw(closed.url, request)).toMatch(/^HTTP\/1\.1 403/);
    await using guarded = await startProxy([], { settings: { connect: [target] } });
    expect(await raw(guarded.url, request)).toMatch(/^HTTP\/1\.1 403 .*inner addresses/s);
    await using open = await startProxy([], { settings: { connect: [target], innerHosts: [target] } });
    expect(await raw(open.url, request)).toMatch(
      /^HTTP\/1\.1 200 Connection established\r\n\r\nHTTP\/1\.1 200.*through$/s,
    );
  });

  it.each([
    '/archive/../../etc/passwd',
    '/archive/%2e%2e/%2e%2e/etc/passwd',
    '/archive/..%2f..%2fetc/passwd',
    '/archive/%2e%2e%5c%2e%2e%5cetc/passwd',
    '/archive/pool/..;/x',
    '/archive/pool/%00.deb',
    '/archive/pool/%c0%ae%c0%ae/x',
    '/archive/pool/%252e%252e/x',
    '//etc/passwd',
    '/archive//../x',
    '/archive/pool/a.deb%0d%0aX-Evil:%201',
    `/archive/${'a/'.repeat(3000)}`,
  ])('keeps paths where they are: %s', async (path) => {
    await using upstream = await startUpstream();
    await using world = await startProxy([`${upstream.url}/archive`]);
    const answer = await raw(world.url, `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 4\d\d/);
    expect(answer).not.toContain('root:');
    expect(answer.split('\r\n\r\n')[0]).not.toContain('X-Evil');
    expect(upstream.log.every((line) => line.startsWith('/archive/') && !line.includes('/../'))).toBe(true);
  });

  it.each([
    [
      'two lengths',
      'GET /archive/pool/a.deb HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\nGET /archive/pool/evil.deb HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
    [
      'length and chunks',
      'GET /archive/pool/a.deb HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /archive/pool/evil.deb HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
    [
      'a body on GET',
      'GET /archive/pool/a.deb HTTP/1.1\r\nHost: x\r\nContent-Length: 56\r\n\r\nGET /archive/pool/evil.deb HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
    [
      'a blank before the colon',
      'GET /archive/pool/a.deb HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /archive/pool/evil.deb HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
    [
      'a folded header',
      'GET /archive/pool/a.deb HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nGET /archive/pool/evil.deb HTTP/1.1\r\nHost: x\r\n\r\n',
    ],
  ])('takes no second request out of %s', async (_name, text) => {
    await using upstream = await startUpstream();
    await using world = await startProxy([`${upstream.url}/archive`]);
    const answer = await raw(world.url, text);
    expect(answer).toMatch(/^HTTP\/1\.1 400/);
    expect(answer.match(/HTTP\/1\.1/g)).toHaveLength(1);
    expect(upstream.count(/evil/)).toBe(0);
  });

  it('passes no header of upstream on that a browser or another cache would act on', async () => {
    await using upstream = await startUpstream();
    upstream.put('/archive/pool/a.deb', '<script>alert(1)</script>');
    upstream.faults.push({ path: /none/, status: 404, headers: { 'set-cookie': 'a=b', 'x-evil': '1' } });
    await using world = await startProxy([`${upstream.url}/archive`]);
    expect((await world.ask('/archive/pool/a.deb')).headers['content-type']).toBe(
      'application/vnd.debian.binary-package',
    );
    const none = await world.ask('/archive/pool/none.deb');
    expect(none.headers['set-cookie']).toBeUndefined();
    expect(none.headers['x-evil']).toBeUndefined();
    // what a client sends is not shown as markup: apt-cacher-ng's report page did
    expect((await world.ask('/status/%3Cscript%3E')).body.toString()).not.toContain('<script>');
  });

  it('notices a request that went in a circle', async () => {
    await using world = await startProxy([], { settings: { hosts: ['*'], innerHosts: ['127.0.0.1'] } });
    const answer = await world.ask(`${world.url}/pool/a.deb`);
    expect(answer.status).toBe(503);
  });
});
