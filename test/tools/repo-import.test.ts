/** Moving in from elsewhere: a published tree in a folder or over HTTP, and one that reprepro made. */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
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

async function newKey(world: World): Promise<string> {
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
  return (await new KeyStore(world.context).generate(request)).fingerprint;
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

  it('reads the tree of reprepro', async () => {
    await using world = await createWorld();
    const base = join(world.path, 'reprepro');
    await mkdir(join(base, 'conf'), { recursive: true });
    const lines = ['Codename: old', 'Architectures: amd64', 'Components: main', ''];
    await writeFile(join(base, 'conf/distributions'), lines.join('\n'));
    for (const name of ['one', 'two']) {
      const { path } = await makePackage(world.context, join(world.path, 'in'), { name });
      await run({}, 'reprepro', ['-b', base, 'includedeb', 'old', path]);
    }
    using repo = await newRepo(world, 'repo');
    const result = await repo.import({ place: base, from: 'old', to: 'bookworm', unsigned: true });
    expect(result.refused).toEqual([]);
    expect(names(result.added)).toEqual(['main one', 'main two']);
  });
});
