import { mkdir, symlink, utimes, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Repo } from '../../../src/repo/repo.ts';
import { publicPath, requestedRange, serveRepo } from '../../../src/repo/serve.ts';
import { createWorld, type World } from '../../support/world.ts';

describe('a requested path', () => {
  it.each([
    ['/dists/bookworm/InRelease', '/dists/bookworm/InRelease'],
    ['/pool/main/g/g%2b%2b/g%2B%2B_1_all.deb?x=1#y', '/pool/main/g/g++/g++_1_all.deb'],
    ['http://other.example/pool/x', '/pool/x'],
    ['//dists/bookworm//Release', '/dists/bookworm/Release'],
  ])('%s', (url, path) => expect(publicPath(url)).toBe(path));

  it.each([
    '/.hidden',
    '/pool/.x/y',
    '/pool/..%2f..%2fdb/catalog.sqlite',
    '/a%00b',
    '/%',
    '/..%5cdb',
    '/pool/%2e%2e/%2e%2e/db',
  ])('refuses %s', (url) => expect(publicPath(url)).toBeUndefined());
});

describe('a requested range of 10 bytes', () => {
  it.each([
    ['bytes=0-3', { start: 0, end: 3 }],
    ['bytes=4-', { start: 4, end: 9 }],
    ['bytes=4-99', { start: 4, end: 9 }],
    ['bytes=-3', { start: 7, end: 9 }],
    ['bytes=-30', { start: 0, end: 9 }],
    ['bytes=10-', 'unsatisfiable'],
    ['bytes=-0', 'unsatisfiable'],
    ['bytes=5-2', undefined],
    ['bytes=0-1,4-5', undefined],
    ['lines=0-1', undefined],
    [undefined, undefined],
  ])('%s', (header, expected) => expect(requestedRange(header, 10, true)).toEqual(expected));

  it('is nothing when the file is another one now', () =>
    expect(requestedRange('bytes=0-3', 10, false)).toBeUndefined());
});

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly body: string;
}

/** The path goes out as it is: fetch would tidy it up. */
function get(port: number, path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: '127.0.0.1', port, path, headers, method }, (response) => {
      let body = '';
      response.setEncoding('latin1');
      response.on('data', (chunk) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    });
    asked.on('error', reject);
    asked.end();
  });
}

const POOL_FILE = '/pool/main/h/hello/hello_1_all.deb';

async function served(world: World) {
  const dir = join(world.path, '.hidden', 'repo');
  using repo = await Repo.init(world.context, dir, {
    suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
    origin: 'o',
    label: 'l',
  });
  await mkdir(join(repo.publicDir, 'pool/main/h/hello'), { recursive: true });
  await writeFile(join(repo.publicDir, POOL_FILE), '0123456789');
  await utimes(join(repo.publicDir, POOL_FILE), 1_795_248_725, 1_795_248_725);
  await mkdir(join(repo.publicDir, 'dists/bookworm'));
  await writeFile(join(repo.publicDir, 'dists/bookworm/InRelease'), 'signed');
  await writeFile(join(repo.publicDir, '.secret'), 'secret');
  await symlink('../../db/catalog.sqlite', join(repo.publicDir, 'pool/leak'));
  return serveRepo(world.context, dir, { listen: '127.0.0.1:0' });
}

describe('repo serve', () => {
  it('answers with type, validators and how long it may be kept', async () => {
    await using world = await createWorld();
    await using server = await served(world);
    const deb = await get(server.port, POOL_FILE);
    expect(deb).toMatchObject({ status: 200, body: '0123456789' });
    expect(deb.headers).toMatchObject({
      'content-type': 'application/vnd.debian.binary-package',
      'content-length': '10',
      'last-modified': 'Sat, 21 Nov 2026 08:12:05 GMT',
      'cache-control': 'public, max-age=31536000, immutable',
      'accept-ranges': 'bytes',
      etag: expect.stringMatching(/^"[^"]+"$/),
    });
    const release = await get(server.port, '/dists/bookworm/InRelease');
    expect(release.headers).toMatchObject({ 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-cache' });
    const head = await get(server.port, POOL_FILE, {}, 'HEAD');
    expect(head).toMatchObject({ status: 200, body: '', headers: { 'content-length': '10' } });
  });

  it('sends nothing again that the client has', async () => {
    await using world = await createWorld();
    await using server = await served(world);
    const { headers } = await get(server.port, POOL_FILE);
    expect((await get(server.port, POOL_FILE, { 'if-none-match': String(headers.etag) })).status).toBe(304);
    const since = { 'if-modified-since': String(headers['last-modified']) };
    expect((await get(server.port, POOL_FILE, since)).status).toBe(304);
    expect((await get(server.port, POOL_FILE, { 'if-none-match': '"other"' })).status).toBe(200);
  });

  it('resumes where the client stopped, of the same file only', async () => {
    await using world = await createWorld();
    await using server = await served(world);
    const { headers } = await get(server.port, POOL_FILE);
    const rest = { range: 'bytes=7-', 'if-range': String(headers.etag) };
    expect(await get(server.port, POOL_FILE, rest)).toMatchObject({
      status: 206,
      body: '789',
      headers: { 'content-range': 'bytes 7-9/10', 'content-length': '3' },
    });
    expect(await get(server.port, POOL_FILE, { ...rest, 'if-range': '"other"' })).toMatchObject({
      status: 200,
      body: '0123456789',
    });
    const dated = { range: 'bytes=7-', 'if-range': String(headers['last-modified']) };
    expect((await get(server.port, POOL_FILE, dated)).body).toBe('789');
    expect(await get(server.port, POOL_FILE, { range: 'bytes=10-' })).toMatchObject({
      status: 416,
      headers: { 'content-range': 'bytes */10' },
    });
  });

  it('shows nothing but public files', async () => {
    await using world = await createWorld();
    await using server = await served(world);
    for (const path of [
      '/db/catalog.sqlite',
      '/../db/catalog.sqlite',
      '/pool/../../db/catalog.sqlite',
      '/pool/%2e%2e/%2e%2e/db/catalog.sqlite',
      '/..%2fdb%2fcatalog.sqlite',
      '/pool/leak',
      '/.secret',
      '/pool',
      '/',
      '/nothing',
      `/${'a'.repeat(300)}`,
      '/%ff',
    ]) {
      expect(await get(server.port, path), path).toMatchObject({ status: 404, body: 'not found\n' });
    }
    for (const method of ['POST', 'PUT', 'DELETE']) {
      expect(await get(server.port, POOL_FILE, {}, method)).toMatchObject({
        status: 405,
        headers: { allow: 'GET, HEAD' },
      });
    }
  });

  it('refuses to serve what is no repository', async () => {
    await using world = await createWorld();
    await expect(serveRepo(world.context, world.path, { listen: '127.0.0.1:0' })).rejects.toMatchObject({
      code: 'no-repository',
    });
  });
});
