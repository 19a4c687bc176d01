/** Generations as clients meet them: snapshots, going back, what is kept and what may go. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { createAptRoot } from '../support/apt-root.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const DAY_MS = 86_400_000;
const START = Date.now() - 30 * DAY_MS;

async function newRepo(world: World): Promise<Repo> {
  await new KeyStore(world.context).generate({
    name: 'Example',
    email: 'archive@example.org',
    algorithm: 'ed25519',
    expiresSeconds: undefined,
  });
  return Repo.init(world.context, join(world.path, 'repo'), {
    suites: ['bookworm', 'trixie'].map((name) => ({ name, components: ['main'], architectures: ['amd64'] })),
    origin: 'Example',
    label: 'Example',
    url: 'https://apt.example.org/',
    validDays: 60,
  });
}

async function addVersion(world: World, repo: Repo, version: string): Promise<void> {
  const made = await makePackage(world.context, join(world.path, 'in'), { name: 'app', version });
  await repo.add('bookworm', [made.path]);
}

/** Publishes app 1, 2, ... one a day; returns the ids, oldest first. */
async function publishDaily(world: World, repo: Repo, days: number): Promise<string[]> {
  const ids: string[] = [];
  for (let day = 1; day <= days; day += 1) {
    world.setClock(new Date(START + day * DAY_MS));
    await addVersion(world, repo, String(day));
    if (day > 1) await repo.remove('bookworm', [`app=${day - 1}`]);
    const [done] = await repo.publish(['bookworm']);
    ids.push(done!.generation!);
  }
  return ids;
}

describe('generations', () => {
  it('are served as snapshots that apt takes, whatever was published since', async () => {
    await using world = await createWorld(new Date(START));
    using repo = await newRepo(world);
    const ids = await publishDaily(world, repo, 3);
    expect(await readFile(join(repo.publicDir, 'dists/bookworm/Release'), 'utf8')).toContain(
      'Snapshots: https://apt.example.org/snapshots/@SNAPSHOTID@/\n',
    );
    await repo.publish(['trixie']);
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    for (const [index, id] of ids.entries()) {
      const url = `${server.url}/snapshots/${id}/`;
      await using apt = await createAptRoot({ sources: await repo.sources('bookworm', { url }) });
      await apt.update();
      expect((await apt.run('apt-cache', 'policy', 'app')).stdout).toContain(`Candidate: ${index + 1}\n`);
      const fetched = await apt.run('apt-get', 'install', '-y', '--download-only', 'app');
      expect(fetched).toMatchObject({ exitCode: 0, stderr: '' });
    }
    const latest = repo.generations('trixie')[0]!.id;
    const url = `${server.url}/snapshots/${latest}/`;
    await using apt = await createAptRoot({ sources: await repo.sources('bookworm', { url }) });
    await apt.update(); // a snapshot shows the other suites as they were
    expect((await apt.run('apt-cache', 'policy', 'app')).stdout).toContain('Candidate: 3\n');
  });

  it('are compared and returned to', async () => {
    await using world = await createWorld(new Date(START));
    using repo = await newRepo(world);
    const [first, , third] = await publishDaily(world, repo, 3);
    const names = (items: readonly { name: string; version: string }[]) =>
      items.map((item) => `${item.name}=${item.version}`);
    const diff = repo.diff('bookworm', first!, third);
    expect([names(diff.added), names(diff.removed)]).toEqual([['app=3'], ['app=1']]);
    const done = await repo.rollBack('bookworm', first!);
    expect([names(done.added), names(done.removed)]).toEqual([['app=1'], ['app=3']]);
    await repo.publish();
    expect(names(repo.list('bookworm'))).toEqual(['app=1']);
    const index = (id: string) =>
      readFile(join(repo.publicDir, 'snapshots', id, 'dists/bookworm/main/binary-amd64/Packages'));
    expect(await index(repo.generations('bookworm')[0]!.id)).toEqual(await index(first!));
    await expect(repo.rollBack('bookworm', 'x')).rejects.toMatchObject({ code: 'no-such-generation' });
    await expect(repo.undo()).resolves.toMatchObject({ added: [{ version: '3' }], removed: [{ version: '1' }] });
  });

  it('go when their time is over, with the files that only they named, and never when pinned', async () => {
    await using world = await createWorld(new Date(START));
    using repo = await newRepo(world);
    const ids = await publishDaily(world, repo, 9);
    repo.pin('bookworm', ids[0]!, true);
    world.setClock(new Date(START + 12 * DAY_MS)); // 1..4 were replaced more than 7 days ago; 5..9 are the latest five
    const plan = await repo.collectGarbage({ dryRun: true });
    expect(plan.generations).toEqual([3, 2, 1].map((index) => `bookworm ${ids[index]}`));
    expect(plan.packages.map((item) => item.version)).toEqual(['2', '3', '4']);
    expect(repo.generations('bookworm')).toHaveLength(9);
    const done = await repo.collectGarbage();
    expect(done).toEqual(plan);
    expect(repo.generations('bookworm').map((one) => one.id)).toEqual([8, 7, 6, 5, 4, 0].map((index) => ids[index]));
    expect((await readdir(join(repo.publicDir, 'pool/main/a/app'))).sort()).toEqual(
      ['1', '5', '6', '7', '8', '9'].map((version) => `app_${version}_all.deb`),
    );
    expect((await readdir(join(repo.publicDir, 'snapshots'))).sort()).toEqual(
      [0, 4, 5, 6, 7, 8].map((index) => ids[index]),
    );
    expect((await repo.collectGarbage()).generations).toEqual([]);
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    for (const path of ['', `snapshots/${ids[0]}/`]) {
      await using apt = await createAptRoot({
        sources: await repo.sources('bookworm', { url: `${server.url}/${path}` }),
      });
      await apt.update();
      expect((await apt.run('apt-get', 'install', '-y', '--download-only', 'app')).exitCode).toBe(0);
    }
    // what was published stands for its bytes for ever, also when its file is gone
    const other = await makePackage(world.context, join(world.path, 'other'), { name: 'app', version: '2', data: 'x' });
    expect((await repo.add('bookworm', [other.path])).refused).toMatchObject([{ code: 'package-changed' }]);
    await addVersion(world, repo, '2');
    expect(await readdir(join(repo.publicDir, 'pool/main/a/app'))).toContain('app_2_all.deb');
  });
});
