/** Moving in from elsewhere: a published tree in a folder or over HTTP, what aptly and reprepro made, a pool alone. */
import { cp, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { listen } from '../../src/core/http.ts';
import { run, start } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { parseFilter } from '../../src/repo/query.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

async function newRepo(world: World, name: string): Promise<Repo> {
  return Repo.init(world.context, join(world.path, name), {
    suites: [{ name: 'bookworm', components: ['main', 'extra'], architectures: ['amd64'] }],
    origin: 'Example',
    label: 'Example',
  });
}

const KEY = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519', expiresSeconds: undefined } as const;

async function newKey(world: World): Promise<string> {
  return (await new KeyStore(world.context).generate(KEY)).fingerprint;
}

/** What moves: two packages and a source. */
async function moved(world: World): Promise<{ readonly dsc: string; readonly debs: readonly string[] }> {
  const debs: string[] = [];
  for (const [name, version] of [
    ['one', '1.0'],
    ['two', '1:2.0-1'],
  ] as const) {
    debs.push((await makePackage(world.context, join(world.path, `in-${name}`), { name, version })).path);
  }
  const folder = join(world.path, 'source');
  await mkdir(join(folder, 'hello-1.0/debian/source'), { recursive: true });
  const files = {
    'source/format': '3.0 (native)\n',
    control:
      'Source: hello\nSection: misc\nPriority: optional\nMaintainer: T <t@example.org>\nStandards-Version: 4.6.2\n\n' +
      'Package: hello\nArchitecture: all\nDescription: says hello\n',
    changelog:
      'hello (1.0) unstable; urgency=low\n\n  * First.\n\n -- T <t@example.org>  Mon, 01 Jan 2024 00:00:00 +0000\n',
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, 'hello-1.0/debian', name), text);
  await run({}, 'dpkg-source', ['--build', 'hello-1.0'], { cwd: folder });
  return { dsc: join(folder, 'hello_1.0.dsc'), debs };
}

/** A published repository with three packages. */
async function otherRepo(world: World): Promise<Repo> {
  await newKey(world);
  const repo = await newRepo(world, 'other');
  for (const [name, component] of [
    ['one', 'main'],
    ['two', 'main'],
    ['three', 'extra'],
  ] as const) {
    const { path } = await makePackage(world.context, join(world.path, 'in'), { name });
    await repo.add('bookworm', [path], { component });
  }
  await repo.publish();
  return repo;
}

const names = (items: readonly { name: string; component: string }[]) =>
  items.map((item) => `${item.component} ${item.name}`).sort();

describe('repo import', () => {
  it('takes what is signed, over HTTP, and nothing twice', async () => {
    await using world = await createWorld();
    using other = await otherRepo(world);
    using repo = await newRepo(world, 'repo');
    await using server = await serveRepo(world.context, other.dir, { listen: '127.0.0.1:0' });
    const keys = [join(other.publicDir, 'archive-key.gpg')];
    const request = { place: `${server.url}/`, from: 'bookworm', to: 'bookworm', keys };
    expect(names((await repo.import({ ...request, dryRun: true })).added)).toHaveLength(3);
    expect(repo.list()).toEqual([]);
    const some = await repo.import({ ...request, filter: parseFilter('Name (~ ^t)') });
    expect(names(some.added)).toEqual(['extra three', 'main two']);
    const rest = await repo.import(request);
    expect(rest).toMatchObject({ unchanged: 2, refused: [] });
    expect(names(rest.added)).toEqual(['main one']);
    expect(
      repo
        .list()
        .map((item) => item.sha256)
        .sort(),
    ).toEqual(
      other
        .list()
        .map((item) => item.sha256)
        .sort(),
    );
  });

  it('takes nothing that is not vouched for', async () => {
    await using world = await createWorld();
    await using stranger = await createWorld();
    using other = await otherRepo(world);
    using repo = await newRepo(world, 'repo');
    const request = { place: other.publicDir, from: 'bookworm', to: 'bookworm' };
    await expect(repo.import(request)).rejects.toMatchObject({ code: 'import-unsigned' });
    const wrong = join(world.path, 'wrong.asc');
    await writeFile(wrong, await new KeyStore(stranger.context).exportArmored(await newKey(stranger)));
    await expect(repo.import({ ...request, keys: [wrong] })).rejects.toMatchObject({ code: 'signature-unknown-key' });
    const keys = [join(other.publicDir, 'archive-key.gpg')];
    await expect(repo.import({ ...request, from: 'trixie', keys })).rejects.toMatchObject({ code: 'import-index' });
    const path = join(other.publicDir, 'pool/main/o/one/one_1.0_all.deb');
    const bytes = await readFile(path);
    bytes[100] = bytes[100]! ^ 1;
    await rm(path);
    await writeFile(path, bytes);
    const result = await repo.import({ ...request, keys });
    expect(result.refused).toMatchObject([{ file: 'pool/main/o/one/one_1.0_all.deb', code: 'import-file' }]);
    expect(names(result.added)).toEqual(['extra three', 'main two']);
    world.setClock(new Date(Date.now() + 20 * 86_400_000));
    await expect(repo.import({ ...request, keys })).rejects.toMatchObject({ code: 'import-expired' });
  });

  it('reads what reprepro keeps: by codename, by suite, beside its books or where they say', async () => {
    await using world = await createWorld();
    const base = join(world.path, 'reprepro');
    await mkdir(join(base, 'conf'), { recursive: true });
    const lines = ['Codename: old', 'Suite: stable', 'Architectures: amd64 source', 'Components: main', ''];
    await writeFile(join(base, 'conf/distributions'), [...lines, 'Codename: new', ...lines.slice(2)].join('\n'));
    await writeFile(join(base, 'conf/options'), 'outdir +b/www\n');
    const { dsc, debs } = await moved(world);
    for (const path of debs) await run({}, 'reprepro', ['-b', base, 'includedeb', 'old', path]);
    await run({}, 'reprepro', ['-b', base, '--section', 'misc', '--priority', 'optional', 'includedsc', 'old', dsc]);
    using repo = await newRepo(world, 'repo');
    const request = { place: base, to: 'bookworm', unsigned: true };
    await expect(repo.import(request)).rejects.toMatchObject({ code: 'import-which', hint: 'it has old, new' });
    await expect(repo.import({ ...request, from: 'odd' })).rejects.toMatchObject({ code: 'import-index' });
    const result = await repo.import({ ...request, from: 'stable' });
    expect(result.refused).toEqual([]);
    expect(names(result.added)).toEqual(['main hello', 'main one', 'main two']);
    expect(await repo.import({ ...request, from: 'old' })).toMatchObject({ added: [], unchanged: 3 });
  });

  it('reads what aptly keeps: published, below a prefix or not, and its pool alone', async () => {
    await using world = await createWorld();
    const root = join(world.path, 'aptly');
    const config = join(world.path, 'aptly.conf');
    await writeFile(config, JSON.stringify({ rootDir: root, architectures: ['amd64'], gpgDisableSign: true }));
    const aptly = (...args: string[]) => run({}, 'aptly', [`-config=${config}`, ...args], { timeoutMs: 120_000 });
    const { dsc, debs } = await moved(world);
    await aptly('repo', 'create', '-distribution=old', '-component=main', 'local');
    await aptly('repo', 'add', 'local', debs[0]!, dsc);
    await aptly('publish', 'repo', '-skip-signing', '-architectures=amd64,source', 'local');
    await aptly('publish', 'repo', '-skip-signing', '-distribution=other', 'local', 'deep/below');
    await aptly('repo', 'add', 'local', debs[1]!);
    using repo = await newRepo(world, 'repo');
    const request = { place: root, to: 'bookworm', unsigned: true, dryRun: true };
    expect(names((await repo.import({ ...request, from: 'old' })).added)).toEqual(['main hello', 'main one']);
    for (const from of ['other', 'deep/below/other']) {
      expect(names((await repo.import({ ...request, from })).added)).toEqual(['main one']);
    }
    await expect(repo.import({ ...request, from: 'new' })).rejects.toMatchObject({ code: 'import-index' });
    const some = { place: root, to: 'bookworm', filter: parseFilter('Name (= hello)') };
    expect(await repo.import(some)).toMatchObject({ added: [{ name: 'hello', architecture: 'source' }], refused: [] });
    expect(await repo.import({ place: root, to: 'bookworm' })).toMatchObject({ unchanged: 1, refused: [] });
    expect(names(repo.list())).toEqual(['main hello', 'main one', 'main two']);
    await new KeyStore(world.context).generate(KEY);
    await repo.publish();
    expect(await repo.check()).toMatchObject({ problems: [] });
  });

  it('reads a pool without an index, by its sections, and a flat tree', async () => {
    await using world = await createWorld();
    const { dsc, debs } = await moved(world);
    const top = join(world.path, 'debs');
    await mkdir(join(top, 'pool/extra/t/two'), { recursive: true });
    await rename(debs[1]!, join(top, 'pool/extra/t/two/two.deb'));
    await cp(resolve(dsc, '..'), join(top, 'src'), { recursive: true });
    await writeFile(join(top, 'broken.deb'), 'no package');
    using repo = await newRepo(world, 'repo');
    const some = { place: top, to: 'bookworm', filter: parseFilter('!Name (= hello)') };
    expect(await repo.import({ ...some, dryRun: true })).toMatchObject({
      added: [{ name: 'two', component: 'extra' }],
    });
    const result = await repo.import({ place: top, to: 'bookworm' });
    expect(result.refused.map((one) => one.file)).toEqual([join(top, 'broken.deb')]);
    expect(names(result.added)).toEqual(['extra two', 'main hello']);
    const flat = resolve(debs[0]!, '..');
    await run(
      {},
      'sh',
      ['-c', 'apt-ftparchive packages . > Packages && apt-ftparchive release . > R && mv R Release'],
      {
        cwd: flat,
      },
    );
    const taken = await repo.import({ place: flat, from: './', to: 'bookworm', unsigned: true });
    expect(taken).toMatchObject({ refused: [], added: [{ name: 'one', component: 'main' }] });
    await expect(repo.import({ place: flat, from: 'old', to: 'bookworm' })).rejects.toMatchObject({
      code: 'import-index',
    });
  });

  it('killed while it fetches goes on where it stopped', async () => {
    await using world = await createWorld();
    const COUNT = 230;
    await newKey(world);
    using other = await newRepo(world, 'other');
    const folder = join(world.path, 'in');
    for (let n = 0; n < COUNT; n += 1) await makePackage(world.context, folder, { name: `pkg-${n}` });
    await other.add('bookworm', [folder]);
    await other.publish();
    const asked: string[] = [];
    let stalled = (): void => {};
    const isStalled = new Promise<void>((done) => {
      stalled = done;
    });
    await using real = await serveRepo(world.context, other.dir, { listen: '127.0.0.1:0' });
    // answers the first 210 packages, then nothing
    await using slow = await listen(async (request, response) => {
      if (request.url!.endsWith('.deb')) asked.push(request.url!);
      if (asked.length > 210) return stalled();
      const answer = await fetch(real.url + request.url);
      response.writeHead(answer.status).end(Buffer.from(await answer.arrayBuffer()));
    }, '127.0.0.1:0');
    using repo = await newRepo(world, 'repo');
    const key = join(other.publicDir, 'archive-key.gpg');
    const program = resolve(import.meta.dirname, '../../bin/buildkit');
    const line = ['--state', world.context.stateDir, 'repo', 'import', 'bookworm', slow.url, 'bookworm'];
    await using first = start({}, program, [...line, '--key', key, '--repo', repo.dir]);
    await isStalled;
    first.kill('SIGKILL');
    await first.exitCode;
    expect(repo.list()).toHaveLength(200); // the first batch
    const rest = await repo.import({ place: real.url, from: 'bookworm', to: 'bookworm', keys: [key] });
    expect(rest).toMatchObject({ unchanged: 200, refused: [] });
    expect(repo.list()).toHaveLength(COUNT);
  });
});
