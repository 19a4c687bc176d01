/** Writing over HTTP, and what a running server does by itself. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
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
