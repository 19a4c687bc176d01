import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { download, listen, parseListenAddress } from '../../../src/core/http.ts';

describe('addresses to listen on', () => {
  it.each([
    ['8080', '127.0.0.1', 8080],
    ['127.0.0.1:0', '127.0.0.1', 0],
    ['[::1]:80', '::1', 80],
    [':9999', '::', 9999],
    ['localhost:65535', 'localhost', 65535],
  ])('%s', (text, host, port) => {
    expect(parseListenAddress(text)).toEqual({ host, port });
  });

  it.each(['', 'x', '1.2.3.4', '127.0.0.1:65536', '::1:80', 'a b:1'])('refuses "%s"', (text) => {
    expect(() => parseListenAddress(text)).toThrow(expect.objectContaining({ code: 'listen-address' }));
  });

  it('that are taken give an error with the next step', async () => {
    await using first = await listen((_request, response) => void response.end(), '127.0.0.1:0');
    await expect(listen(() => {}, `127.0.0.1:${first.port}`)).rejects.toMatchObject({ code: 'address-in-use' });
  });
});

describe('downloads', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'buildkit-http-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));
  const body = Buffer.alloc(300_000, 'debian');

  it('come back whole after a cut, by a range request', async () => {
    const ranges: (string | undefined)[] = [];
    await using server = await listen((request, response) => {
      ranges.push(request.headers.range);
      const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      const headers = { etag: '"1"', 'content-length': body.length - from };
      if (from === 0) {
        response.writeHead(200, headers);
        response.write(body.subarray(0, 100_000), () => setTimeout(() => response.destroy(), 50));
      } else {
        response.writeHead(206, { ...headers, 'content-range': `bytes ${from}-${body.length - 1}/${body.length}` });
        response.end(body.subarray(from));
      }
    }, '127.0.0.1:0');
    const path = join(folder, 'f');
    const result = await download({}, `${server.url}/f`, path);
    expect(result.size).toBe(body.length);
    expect((await readFile(path)).equals(body)).toBe(true);
    expect(ranges[0]).toBeUndefined();
    expect(ranges[1]).toMatch(/^bytes=\d+-/);
  });

  it('leave nothing behind when the digest, the length or the status is wrong', async () => {
    await using server = await listen((request, response) => {
      response.writeHead(request.url === '/404' ? 404 : 200);
      response.end(body);
    }, '127.0.0.1:0');
    const path = join(folder, 'f');
    await expect(download({}, `${server.url}/f`, path, { sha256: '0'.repeat(64) })).rejects.toMatchObject({
      code: 'digest-mismatch',
    });
    await expect(download({}, `${server.url}/f`, path, { maxBytes: 1000 })).rejects.toMatchObject({
      code: 'too-large',
    });
    await expect(download({}, `${server.url}/404`, path, { retries: 0 })).rejects.toMatchObject({
      code: 'http-status',
      status: 404,
    });
    expect(await readdir(folder)).toEqual([]);
  });
});
