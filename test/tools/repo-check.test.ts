/** Damage behind the back of a repository: found, told, and mended where that can be. */
import { readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Repo } from '../../src/repo/repo.ts';
import { verifyRepository } from '../../src/repo/verify.ts';
import { publishedRepo } from '../support/published-repo.ts';
import { createWorld, type World } from '../support/world.ts';

const codes = (report: { problems: readonly { code: string }[] }) => report.problems.map((problem) => problem.code);
const verified = async (world: World, repo: Repo) =>
  codes(await verifyRepository(world.context, { place: repo.publicDir, suites: ['bookworm'] }));

describe('repo check', () => {
  it('finds nothing where all is well', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world, 'app');
    expect(await repo.check()).toEqual({ problems: [], needsPublish: false });
  });

  it('mends links and indexes', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world, 'app');
    const link = join(repo.publicDir, 'dists/bookworm');
    const object = repo.generations()[0]!.id;
    await rm(link);
    await symlink(`../snapshots/${object}x/dists/bookworm`, link);
    const release = await readFile(join(repo.publicDir, 'snapshots', object, 'dists/bookworm/Release'), 'utf8');
    const sum = /^ ([0-9a-f]{64}) .*Packages$/m.exec(release)![1]!;
    await rm(join(repo.publicDir, 'by-hash/SHA256', sum));
    await writeFile(join(repo.publicDir, 'by-hash/SHA256', sum), 'something else');
    expect(codes(await repo.check())).toEqual(['suite-link', 'index-object']);
    expect(await repo.check({ repair: true })).toEqual({ problems: [], needsPublish: false });
    expect(await verified(world, repo)).toEqual([]);
  });

  it('asks for a package whose file is gone or another one, and takes it back', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world, 'app');
    const path = join(repo.publicDir, 'pool/main/a/app/app_1.0_all.deb');
    const flip = async () => {
      const bytes = await readFile(path);
      bytes[50] = bytes[50]! ^ 1;
      await writeFile(path, bytes);
    };
    for (const harm of [() => rename(path, `${path}.away`), flip]) {
      await harm();
      expect(codes(await repo.check({ repair: true }))).toEqual(['pool-file']);
      await repo.add('bookworm', [join(world.path, 'in')]);
      expect((await repo.check()).problems).toEqual([]);
    }
    expect(await verified(world, repo)).toEqual([]);
  });
});
