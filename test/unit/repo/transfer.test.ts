import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parseFilter } from '../../../src/repo/query.ts';
import { Repo } from '../../../src/repo/repo.ts';
import { makePackage, type TestPackage } from '../../support/packages.ts';
import { createWorld, type World } from '../../support/world.ts';

const NOW = new Date('2026-11-21T08:12:05Z');

async function newRepo(world: World): Promise<Repo> {
  return Repo.init(world.context, join(world.path, 'repo'), {
    suites: ['dev', 'live'].map((name) => ({ name, components: ['main'], architectures: ['amd64'] })),
    origin: 'o',
    label: 'l',
  });
}

async function add(world: World, repo: Repo, suite: string, spec: TestPackage): Promise<void> {
  const made = await makePackage(world.context, join(world.path, 'in'), spec);
  const result = await repo.add(suite, [made.path], { who: 'ann' });
  expect(result.refused).toEqual([]);
}

const names = (items: readonly { suite: string; name: string; version: string }[]) =>
  items.map((item) => `${item.suite} ${item.name} ${item.version}`);

describe('between suites', () => {
  it('copy adds, promote replaces, move takes away, and every one can be undone', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    await add(world, repo, 'live', { name: 'app', version: '1' });
    await add(world, repo, 'dev', { name: 'app', version: '2' });
    await add(world, repo, 'dev', { name: 'tool' });
    const app = parseFilter('app');
    expect(names((await repo.transfer('copy', { from: 'dev', to: 'live', filter: app })).added)).toEqual([
      'live app 2',
    ]);
    expect(names(repo.list('live'))).toEqual(['live app 1', 'live app 2']);
    await repo.undo();
    expect(names(repo.list('live'))).toEqual(['live app 1']);

    const plan = await repo.transfer('promote', { from: 'dev', to: 'live', dryRun: true });
    expect(names(plan.added)).toEqual(['live app 2', 'live tool 1.0']);
    expect(names(plan.removed)).toEqual(['live app 1']);
    expect(names(repo.list('live'))).toEqual(['live app 1']);
    await repo.transfer('promote', { from: 'dev', to: 'live', who: 'ben' });
    expect(names(repo.list())).toEqual(['dev app 2', 'dev tool 1.0', 'live app 2', 'live tool 1.0']);
    expect(repo.list('dev').map((item) => item.sha256)).toEqual(repo.list('live').map((item) => item.sha256));

    await repo.transfer('move', { from: 'dev', to: 'live', filter: parseFilter('tool') });
    expect(names(repo.list('dev'))).toEqual(['dev app 2']);
    expect(repo.history().map((one) => `${one.who} ${one.action} +${one.added} -${one.removed}`)).toEqual([
      'unknown move +0 -1',
      'ben promote +2 -1',
      'unknown undo +0 -1',
      'unknown copy +1 -0',
      'ann add +1 -0',
      'ann add +1 -0',
      'ann add +1 -0',
    ]);
    await repo.undo(6);
    expect(names(repo.list('live'))).toEqual(['live app 1']);
    await expect(repo.undo(6)).rejects.toMatchObject({ code: 'nothing-to-undo' });
    await expect(repo.undo(99)).rejects.toMatchObject({ code: 'no-such-change' });
  });

  it('refuses what could not be installed there', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    await add(world, repo, 'dev', { name: 'app', fields: { Depends: 'lib (>= 1), libc6' } });
    await add(world, repo, 'dev', { name: 'lib' });
    const request = { from: 'dev', to: 'live', filter: parseFilter('app') };
    await expect(repo.transfer('promote', request)).rejects.toMatchObject({
      code: 'not-installable',
      problems: [{ code: 'unmet-dependency', message: 'app 1.0 (all) needs lib (>= 1), which nothing there meets' }],
    });
    expect(repo.list('live')).toEqual([]);
    expect((await repo.transfer('promote', { ...request, dryRun: true })).problems).toHaveLength(1);
    await repo.transfer('promote', { from: 'dev', to: 'live' });
    expect(repo.list('live')).toHaveLength(2);
    await repo.transfer('copy', { ...request, force: true });
  });

  it('refuses what makes no sense', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    await add(world, repo, 'dev', { name: 'app' });
    await expect(repo.transfer('copy', { from: 'dev', to: 'dev' })).rejects.toMatchObject({ code: 'same-suite' });
    await expect(repo.transfer('copy', { from: 'live', to: 'dev' })).rejects.toMatchObject({ code: 'nothing-chosen' });
    await expect(repo.transfer('copy', { from: 'dev', to: 'live', component: 'x' })).rejects.toMatchObject({
      code: 'no-such-component',
    });
  });
});

describe('retain', () => {
  it('takes old versions out, but not what a kept package needs exactly', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    for (const version of ['1', '2', '3']) await add(world, repo, 'dev', { name: 'lib', version });
    await add(world, repo, 'dev', { name: 'app', fields: { Depends: 'lib (= 1)' } });
    const done = await repo.retain('dev', { keep: 1 });
    expect(names(done.removed)).toEqual(['dev lib 2']);
    expect(names(repo.list('dev'))).toEqual(['dev app 1.0', 'dev lib 1', 'dev lib 3']);
    expect((await repo.retain('dev', { keep: 1, olderThanDays: 1 })).removed).toEqual([]);
  });
});

describe('a package that was never published', () => {
  it('may come again with other bytes once it was removed', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    await add(world, repo, 'dev', { name: 'app' });
    await repo.remove('dev', ['app']);
    await add(world, repo, 'dev', { name: 'app', data: 'other' });
    expect(names(repo.list())).toEqual(['dev app 1.0']);
  });
});
