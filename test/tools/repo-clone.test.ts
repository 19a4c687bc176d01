/** Moving out: a whole repository once more, and packages as files. */
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { parseFilter } from '../../src/repo/query.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { verifyRepository } from '../../src/repo/verify.ts';
import { createAptRoot } from '../support/apt-root.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const DAY_MS = 86_400_000;

/** Two suites, three generations of the first, one package that only the oldest holds. */
async function publishedRepo(world: World): Promise<Repo> {
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
  world.setClock(new Date(Date.now() - 4 * DAY_MS)); // before it signs
  await new KeyStore(world.context).generate(request);
  const repo = await Repo.init(world.context, join(world.path, 'repo'), {
    suites: ['bookworm', 'trixie'].map((name) => ({ name, components: ['main'], architectures: ['amd64'] })),
    origin: 'Example',
    label: 'Example',
  });
  const add = async (name: string, version: string) => {
    const { path } = await makePackage(world.context, join(world.path, 'in'), { name, version });
    await repo.add('bookworm', [path]);
  };
  world.setClock(new Date(Date.now() - 3 * DAY_MS));
  await add('gone', '1.0');
  await add('kept', '1.0');
  await repo.publish(['bookworm']);
  world.setClock(new Date(Date.now() - 2 * DAY_MS));
  await repo.remove('bookworm', ['gone']);
  await repo.publish(['bookworm']);
  world.setClock(new Date(Date.now() - DAY_MS));
  await add('kept', '1:1.0');
  await repo.publish();
  world.setClock(undefined);
  return repo;
}

describe('repo clone', () => {
  it('copies everything but secrets, and the copy goes on by itself', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    const token = repo.createToken({ name: 'ci', role: 'publish' });
    await mkdir(join(repo.dir, 'db/uploaders'), { recursive: true });
    await writeFile(join(repo.dir, 'db/uploaders/a.asc'), 'a public key');
    const target = join(world.path, 'copy');
    expect(await repo.clone(target)).toMatchObject({ suites: ['bookworm', 'trixie'], generations: 4, packages: 3 });
    await expect(repo.clone(target)).rejects.toMatchObject({ code: 'repository-exists' });
    using copy = await Repo.open(world.context, target);
    expect(copy.list()).toEqual(repo.list());
    expect(copy.history()).toEqual(repo.history());
    expect(copy.generations()).toEqual(repo.generations());
    expect(copy.tokens()).toEqual([]);
    expect(() => copy.checkToken(token, 'bookworm', 'upload')).toThrow('no right');
    expect(await readdir(join(target, 'db/uploaders'))).toEqual(['a.asc']);
    expect((await copy.check()).problems).toEqual([]);
    const again = await verifyRepository(world.context, { place: copy.publicDir, suites: ['bookworm', 'trixie'] });
    expect(again.problems).toEqual([]);
    expect(await copy.publish()).toMatchObject([{ published: false }, { published: false }]);
    await copy.rollBack('bookworm', repo.generations('bookworm').at(-1)!.id);
    await copy.publish();
    await using server = await serveRepo(world.context, target, { listen: '127.0.0.1:0' });
    await using apt = await createAptRoot({ sources: await copy.sources('bookworm', { url: server.url }) });
    await apt.update();
    expect(repo.generations('bookworm')).toHaveLength(3); // the original knows nothing of it
  });

  it('copies what clients see now alone, and uses what an interrupted copy left', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    const target = join(world.path, 'copy');
    await repo.clone(target, { current: true, link: true });
    const pool = join(target, 'public/pool/main');
    expect(await readdir(pool)).toEqual(['k']);
    // as a kill -9 before the catalog had its name leaves it
    await rm(join(target, 'db/catalog.sqlite'));
    await rm(join(pool, 'k/kept/kept_1.0_all.deb'));
    await repo.clone(target, { current: true, link: true });
    using copy = await Repo.open(world.context, target);
    expect(copy.generations()).toHaveLength(2);
    expect(await readdir(join(copy.publicDir, 'snapshots'))).toHaveLength(1);
    expect((await copy.check()).problems).toEqual([]);
    const [ours, theirs] = await Promise.all(
      [repo, copy].map((one) => stat(join(one.publicDir, 'pool/main/k/kept/kept_1.0_all.deb'))),
    );
    expect(theirs!.ino).toBe(ours!.ino);
  });
});

describe('repo export-debs', () => {
  it('writes files by their names with a manifest, and nothing over what is there', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    const folder = join(world.path, 'out');
    expect(await repo.exportDebs('bookworm', folder)).toMatchObject({ linked: 2, copied: 0, unchanged: 0 });
    expect(await readdir(folder)).toEqual(['SHA256SUMS', 'kept_1%3a1.0_all.deb', 'kept_1.0_all.deb']);
    await run({}, 'sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: folder });
    const version = await run({}, 'dpkg-deb', ['--field', join(folder, 'kept_1%3a1.0_all.deb'), 'Version']);
    expect(version.stdout.trim()).toBe('1:1.0');
    expect(await repo.exportDebs('bookworm', folder)).toMatchObject({ linked: 0, unchanged: 2 });
    const other = join(world.path, 'other');
    const filter = parseFilter('$Version (= 1.0)');
    expect(await repo.exportDebs('bookworm', other, { filter, copy: true })).toMatchObject({ copied: 1 });
    await writeFile(join(other, 'kept_1.0_all.deb'), 'mine');
    await expect(repo.exportDebs('bookworm', other)).rejects.toMatchObject({ code: 'file-differs' });
    expect(await readFile(join(other, 'kept_1.0_all.deb'), 'utf8')).toBe('mine');
  });
});
