/** Writing over HTTP, and what a running server does by itself. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { type ServeOptions, serveRepo } from '../../src/repo/serve.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const DAY_MS = 86_400_000;

async function newRepo(world: World): Promise<Repo> {
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
  await new KeyStore(world.context).generate(request);
  return Repo.init(world.context, join(world.path, 'repo'), {
    suites: ['bookworm', 'trixie'].map((name) => ({ name, components: ['main'], architectures: ['amd64'] })),
    origin: 'Example',
    label: 'Example',
  });
}

const serving = (world: World, repo: Repo, options: Partial<ServeOptions> = {}) =>
  serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0', ...options });

function put(url: string, token: string | undefined, body: string | Buffer): Promise<Response> {
  return fetch(url, { method: 'PUT', body, headers: token === undefined ? {} : { authorization: `Bearer ${token}` } });
}

/** The path goes out as it is. */
function ask(port: number, method: string, path: string, authorization: string | undefined): Promise<number> {
  return new Promise((done, fail) => {
    const headers = authorization === undefined ? {} : { authorization };
    const asked = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      response.resume().once('end', () => done(response.statusCode ?? 0));
    });
    asked.once('error', fail).end(method === 'TRACE' ? undefined : 'x');
  });
}

async function debBytes(world: World, name: string, data?: string): Promise<Buffer> {
  const folder = join(world.path, data ?? 'in');
  return readFile((await makePackage(world.context, folder, { name, ...(data === undefined ? {} : { data }) })).path);
}

describe('uploading', () => {
  it('adds with a token, publishes with the right to, and does nothing without', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const upload = repo.createToken({ name: 'ci', suites: ['bookworm'], role: 'upload' });
    const publish = repo.createToken({ name: 'boss', role: 'publish' });
    expect(await readFile(join(repo.dir, 'db/catalog.sqlite'))).not.toContain(upload);
    await using server = await serving(world, repo);
    const url = `${server.url}/api/suites/bookworm/packages/hello_1.0_all.deb`;
    const bytes = await debBytes(world, 'hello');
    for (const token of [undefined, 'bk_wrong']) expect((await put(url, token, bytes)).status).toBe(401);
    expect((await put(url.replace('bookworm', 'trixie'), upload, bytes)).status).toBe(401);
    expect(repo.list()).toEqual([]);
    const added = await put(url, upload, bytes);
    expect([added.status, await added.json()]).toMatchObject([200, { added: [{ name: 'hello' }] }]);
    expect((await put(url, upload, await debBytes(world, 'hello', 'other'))).status).toBe(409);
    expect((await put(url, upload, 'no package')).status).toBe(409);
    const push = (token: string) =>
      fetch(`${server.url}/api/suites/bookworm/publish`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}` },
      });
    expect((await push(upload)).status).toBe(401);
    expect(
      (await fetch(`${server.url}/api/suites/bookworm/packages`).then((answer) => answer.json())) as unknown[],
    ).toEqual([]);
    expect((await push(publish)).status).toBe(200);
    const shown = await fetch(`${server.url}/api/suites/bookworm/packages?filter=hel*`);
    expect(await shown.json()).toMatchObject([{ name: 'hello', version: '1.0' }]);
    expect(repo.history()[0]).toMatchObject({ who: 'token ci', action: 'add' });
    repo.revokeToken('ci');
    expect((await put(url, upload, bytes)).status).toBe(401);
    expect(await readdir(join(repo.dir, 'incoming'))).toEqual([]);
  });

  it('takes an upload as dput sends it: files first, the list last', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const token = repo.createToken({ name: 'dput', role: 'upload' });
    await using server = await serving(world, repo);
    const folder = join(world.path, 'in');
    const { path, size, sha256 } = await makePackage(world.context, folder, { name: 'hello' });
    const changes = `Format: 1.8\nSource: hello\nVersion: 1.0\nChecksums-Sha256:\n ${sha256} ${size} hello_1.0_all.deb\n`;
    // as dput does: Basic, the token as password
    const authorization = `Basic ${Buffer.from(`user:${token}`).toString('base64')}`;
    const send = async (name: string, body: Buffer | string) => {
      const answer = await fetch(`${server.url}/upload/bookworm/${name}`, {
        method: 'PUT',
        body,
        headers: { authorization },
      });
      expect(answer.status).toBe(200);
      return answer.text();
    };
    await send('hello_1.0_all.deb', await readFile(path));
    expect(repo.list()).toEqual([]);
    expect(await send('hello_1.0.changes', changes)).toContain('"name":"hello"');
    expect(repo.list('bookworm')).toHaveLength(1);
    expect(await readdir(join(repo.dir, 'incoming'))).toEqual([]);
  });

  it('is what dput does, also of a file that is larger than any buffer', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const token = repo.createToken({ name: 'ci', role: 'upload', suites: ['bookworm'] });
    await using server = await serving(world, repo);
    const folder = join(world.path, 'in');
    const data = randomBytes(12 * 1024 * 1024).toString('hex'); // dput sends all of it before it is asked for the password
    const made = await makePackage(world.context, folder, { name: 'hello', data });
    const { size, sha1, sha256, md5 } = made;
    const file = 'hello_1.0_all.deb';
    const lines = [
      ...[
        'Format: 1.8',
        'Date: Mon, 01 Jan 2024 00:00:00 +0000',
        'Source: hello',
        'Binary: hello',
        'Architecture: all',
      ],
      ...['Version: 1.0', 'Distribution: bookworm', 'Urgency: low', 'Maintainer: T <t@example.org>'],
      ...['Changed-By: T <t@example.org>', 'Description:', ' hello - test', 'Changes:', ' hello (1.0)', ' .', '   * x'],
      ...['Checksums-Sha1:', ` ${sha1} ${size} ${file}`, 'Checksums-Sha256:', ` ${sha256} ${size} ${file}`],
      ...['Files:', ` ${md5} ${size} misc optional ${file}`, ''],
    ];
    await writeFile(join(folder, 'hello_1.0_all.changes'), lines.join('\n'));
    const section = ['[ours]', `fqdn = 127.0.0.1:${server.port}`, 'method = http', 'login = ci', 'run_dinstall = 0'];
    await writeFile(
      join(world.path, 'dput.cf'),
      [...section, 'incoming = /upload/bookworm', 'allow_unsigned_uploads = 1', ''].join('\n'),
    );
    const dput = (password: string, okExitCodes: readonly number[]) =>
      run({}, 'dput', ['-c', join(world.path, 'dput.cf'), '--force', 'ours', join(folder, 'hello_1.0_all.changes')], {
        ...{ env: { HOME: world.path }, input: `${password}\n`, okExitCodes, timeoutMs: 120_000 },
      });
    expect((await dput('wrong', [1])).stdout).toContain('Upload failed as unauthorized');
    expect(repo.list()).toEqual([]);
    await dput(token, [0]);
    expect(repo.list('bookworm')).toMatchObject([{ name: 'hello', sha256 }]);
    expect(repo.history()[0]).toMatchObject({ who: 'token ci' });
  });

  it('has limits on size and number, and takes no odd names', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const token = repo.createToken({ name: 'ci', role: 'upload' });
    await using server = await serving(world, repo, { maxUploadBytes: 100, writesPerMinute: 3 });
    const base = `${server.url}/api/suites/bookworm/packages`;
    expect((await put(`${base}/a_1_all.deb`, token, 'x'.repeat(101))).status).toBe(413);
    for (const name of ['..%2fx.deb', '.x.deb', 'x.exe', 'a%2fb.deb', '%00.deb']) {
      expect((await put(`${base}/${name}`, token, 'x')).status, name).toBe(405);
    }
    for (const status of [409, 409, 429]) expect((await put(`${base}/a_1_all.deb`, token, 'x')).status).toBe(status);
  });
});

describe('without a token', () => {
  it('nothing is written, by any method, at any address', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    await makePackage(world.context, join(world.path, 'in'), { name: 'hello' });
    await repo.add('bookworm', [join(world.path, 'in')]);
    await repo.publish();
    const revoked = repo.createToken({ name: 'old', role: 'publish' });
    repo.revokeToken('old');
    const elsewhere = repo.createToken({ name: 'else', role: 'publish', suites: ['trixie'] });
    const state = async () => ({
      ...{ list: repo.list(), history: repo.history(), generations: repo.generations(), tokens: repo.tokens() },
      files: await run({}, 'find', [repo.publicDir, join(repo.dir, 'incoming'), '-printf', '%p %s %T@ %l\n']),
    });
    const before = await state();
    await using server = await serving(world, repo);
    const addresses = [
      ...['/', '/index.html', '/dists/bookworm/InRelease', '/pool/main/h/hello/hello_1.0_all.deb', '/new.deb'],
      ...['/api/suites', '/api/suites/bookworm', '/api/suites/bookworm/packages', '/api/generations', '/api/tokens'],
      ...['/api/suites/bookworm/packages/new_1_all.deb', '/api/suites/bookworm/publish', '/healthz', '/metrics'],
      ...['/upload/bookworm/new_1_all.deb', '/upload/bookworm/new_1.changes', '/upload/bookworm', '/db/catalog.sqlite'],
      ...['/../db/catalog.sqlite', '/%2e%2e/incoming/x', '//upload//bookworm//new_1.changes', '*'],
    ];
    const methods = ['PUT', 'POST', 'PATCH', 'DELETE', 'MKCOL', 'MOVE', 'COPY', 'PROPFIND', 'LOCK', 'OPTIONS', 'TRACE'];
    const authorizations = [
      undefined,
      'Bearer ',
      'Bearer bk_wrong',
      `Bearer ${revoked}`,
      `Bearer ${elsewhere}`,
      `Basic ${Buffer.from(`root:${revoked}`).toString('base64')}`,
      `Basic ${Buffer.from('root:').toString('base64')}`,
    ];
    for (const path of addresses) {
      for (const method of methods) {
        for (const authorization of authorizations) {
          const status = await ask(server.port, method, path, authorization);
          expect([401, 405], `${method} ${path} ${authorization}`).toContain(status);
        }
      }
    }
    expect(await state()).toEqual(before);
  });
});

describe('an upload', () => {
  it('that stands still is ended, and nothing of it stays', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const token = repo.createToken({ name: 'ci', role: 'upload' });
    await using server = await serving(world, repo, { uploadSeconds: 0.3 });
    const headers = { authorization: `Bearer ${token}`, 'content-length': '1000' };
    const stalled = request({
      ...{ port: server.port, host: '127.0.0.1', method: 'PUT', headers },
      path: '/api/suites/bookworm/packages/a_1_all.deb',
    });
    stalled.write('!<arch>');
    const [answer] = (await once(stalled, 'response')) as [IncomingMessage];
    expect(answer.statusCode).toBe(408);
    stalled.destroy();
    const cut = request({
      ...{ port: server.port, host: '127.0.0.1', method: 'PUT', headers },
      path: '/upload/bookworm/a_1_all.deb',
    });
    cut.on('error', () => {});
    cut.write('!<arch>');
    const spooled = () => readdir(join(repo.dir, 'incoming'), { recursive: true });
    await expect.poll(spooled, { timeout: 60_000 }).toContainEqual(expect.stringMatching(/\.part$/));
    cut.destroy();
    await expect.poll(spooled, { timeout: 60_000 }).not.toContainEqual(expect.stringMatching(/a_1_all/));
  });

  it('may be of any length as long as it is within the limit, and no longer', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const token = repo.createToken({ name: 'ci', role: 'upload' });
    const bytes = await debBytes(world, 'hello');
    await using server = await serving(world, repo, { maxUploadBytes: bytes.length });
    // chunked: the length is not told beforehand
    const send = (body: Buffer) =>
      fetch(`${server.url}/api/suites/bookworm/packages/hello_1.0_all.deb`, {
        method: 'PUT',
        duplex: 'half',
        body: ReadableStream.from([body.subarray(0, 100), body.subarray(100)]),
        headers: { authorization: `Bearer ${token}` },
      } as RequestInit);
    expect((await send(Buffer.concat([bytes, Buffer.from('x')]))).status).toBe(413);
    expect((await send(bytes)).status).toBe(200);
  });
});

describe('a running server', () => {
  it('signs anew before Valid-Until runs out, and shows nothing that was not published', async () => {
    await using world = await createWorld(new Date(Date.now() - 10 * DAY_MS));
    using repo = await newRepo(world);
    await repo.publish();
    const before = repo.generations('bookworm')[0]!;
    await makePackage(world.context, join(world.path, 'in'), { name: 'hidden' });
    await repo.add('bookworm', [join(world.path, 'in')]);
    world.setClock(undefined);
    await using server = await serving(world, repo, { renew: true });
    await expect.poll(() => repo.generations('bookworm')[0]!.id, { timeout: 10_000 }).not.toBe(before.id);
    const packages = await fetch(`${server.url}/dists/bookworm/main/binary-amd64/Packages`);
    expect(await packages.text()).toBe('');
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    expect(await repo.publish()).toMatchObject([{ published: true }, { published: false }]);
  });

  it('tells how it is', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    await repo.publish();
    await using server = await serving(world, repo);
    await fetch(`${server.url}/nothing`);
    expect(await (await fetch(`${server.url}/healthz`)).text()).toBe('ok\n');
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toContain('buildkit_repo_requests_total{method="GET",status="404"} 1\n');
    expect(metrics).toMatch(/^buildkit_repo_valid_until_seconds\{suite="bookworm"\} \d+$/m);
    expect(await (await fetch(`${server.url}/api/suites`)).json()).toMatchObject([
      { name: 'bookworm' },
      { name: 'trixie' },
    ]);
    world.setClock(new Date(Date.now() + 20 * DAY_MS));
    expect((await fetch(`${server.url}/healthz`)).status).toBe(503);
  });
});
