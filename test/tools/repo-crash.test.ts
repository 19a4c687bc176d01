/** kill -9 at any moment of gc and import: what clients see stays whole, and the same command, run again, finishes. */
import { randomInt } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { start } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { verifyRepository } from '../../src/repo/verify.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const PROGRAM = resolve(import.meta.dirname, '../../bin/buildkit');
const DAY_MS = 86_400_000;
const ROUNDS = 6;

async function newRepo(world: World, name: string): Promise<Repo> {
  return Repo.init(world.context, join(world.path, name), {
    suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
    origin: 'Example',
    label: 'Example',
  });
}

async function newKey(world: World): Promise<void> {
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
  await new KeyStore(world.context).generate(request);
}

const problemsOf = async (world: World, repo: Repo) =>
  (await verifyRepository(world.context, { place: repo.publicDir, suites: ['bookworm'] })).problems;

/** Starts a command and ends it as a power failure would, at any moment of its life. @returns its exit code, if it had ended */
async function killed(world: World, args: readonly string[]): Promise<number | undefined> {
  await using program = start({}, PROGRAM, ['--state', world.context.stateDir, 'repo', ...args]);
  await sleep(randomInt(500));
  program.kill('SIGKILL');
  return program.exitCode;
}

describe('kill -9', () => {
  it('of gc leaves nothing that clients ask for out, and nothing in', async () => {
    await using world = await createWorld(new Date(Date.now() - 40 * DAY_MS));
    await newKey(world);
    using repo = await newRepo(world, 'repo');
    for (let day = 1; day <= 20; day += 1) {
      world.setClock(new Date(Date.now() - (40 - day) * DAY_MS));
      const made = await makePackage(world.context, join(world.path, 'in'), { name: 'app', version: String(day) });
      await repo.add('bookworm', [made.path]);
      if (day > 1) await repo.remove('bookworm', [`app=${day - 1}`]);
      await repo.publish([], { pages: false });
    }
    world.setClock(undefined);
    await repo.publish([], { force: true });
    const plan = await repo.collectGarbage({ dryRun: true });
    expect(plan.generations.length).toBeGreaterThan(10);
    for (let round = 0; round < ROUNDS; round += 1) {
      await killed(world, ['gc', '--repo', repo.dir]);
      expect(await problemsOf(world, repo)).toEqual([]);
    }
    await repo.collectGarbage();
    expect(repo.generations('bookworm')).toHaveLength(21 - plan.generations.length);
    expect((await readdir(join(repo.publicDir, 'pool/main/a/app'))).length).toBe(20 - plan.packages.length);
    expect((await readdir(join(repo.publicDir, 'snapshots'))).length).toBe(21 - plan.generations.length);
    expect(await repo.collectGarbage()).toMatchObject({ generations: [], objects: 0, packages: [], leftovers: 0 });
    expect((await repo.check()).problems).toEqual([]);
  });

  it('of import loses nothing that was there, and the next one brings the rest', async () => {
    await using world = await createWorld();
    await newKey(world);
    using other = await newRepo(world, 'other');
    const names = Array.from({ length: 60 }, (_, at) => `pkg-${at}`).sort();
    for (const name of names) await makePackage(world.context, join(world.path, 'in'), { name });
    await other.add('bookworm', [join(world.path, 'in')]);
    await other.publish([], { pages: false });
    using repo = await newRepo(world, 'repo');
    const own = await makePackage(world.context, join(world.path, 'own'), { name: 'own' });
    await repo.add('bookworm', [own.path]);
    await repo.publish();
    const key = join(other.publicDir, 'archive-key.gpg');
    const line = ['import', '--repo', repo.dir, 'bookworm', other.publicDir, 'bookworm', '--key', key];
    for (let round = 0; round < ROUNDS; round += 1) {
      await killed(world, line);
      expect(repo.list('bookworm').map((one) => one.name)).toContain('own');
      expect((await repo.check()).problems, 'whatever came is whole').toEqual([]);
      expect(await problemsOf(world, repo)).toEqual([]);
    }
    await using last = start({}, PROGRAM, ['--state', world.context.stateDir, 'repo', ...line]);
    expect(await last.exitCode).toBe(0);
    await repo.publish();
    expect(repo.published('bookworm').map((one) => one.name)).toEqual(['own', ...names]);
    expect(await problemsOf(world, repo)).toEqual([]);
    await repo.collectGarbage();
    expect(await readdir(join(repo.dir, 'incoming'))).toEqual([]);
  });
});
