import { createHash } from 'node:crypto';
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

import { type InitRequest, Repo } from '../../../src/repo/repo.ts';
import { makePackage, type TestPackage } from '../../support/packages.ts';
import { createWorld, type World } from '../../support/world.ts';

const NOW = new Date('2026-11-21T08:12:05Z');
const REQUEST: InitRequest = {
  suites: [
    { name: 'bookworm', components: ['main', 'extra'], architectures: ['amd64', 'arm64'] },
    { name: 'trixie', components: ['main'], architectures: ['amd64'] },
  ],
  origin: 'Example',
  label: 'Example',
};

async function newRepo(world: World): Promise<Repo> {
  return Repo.init(world.context, join(world.path, 'repo'), REQUEST);
}

async function deb(world: World, spec: TestPackage, folder = 'in'): Promise<string> {
  return (await makePackage(world.context, join(world.path, folder), spec)).path;
}

const names = (items: readonly { name: string; version: string; suite: string; component: string }[]) =>
  items.map((item) => `${item.suite}/${item.component} ${item.name} ${item.version}`);

describe('repo init', () => {
  it('makes a repository once', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    expect(repo.suites().map((suite) => suite.name)).toEqual(['bookworm', 'trixie']);
    expect((await stat(join(repo.dir, 'db'))).mode & 0o777).toBe(0o700);
    await expect(newRepo(world)).rejects.toMatchObject({ code: 'repository-exists' });
    await expect(Repo.open(world.context, world.path)).rejects.toMatchObject({ code: 'no-repository' });
  });

  it.each([
    [{ name: '../x', components: ['main'], architectures: ['amd64'] }, 'bad-name'],
    [{ name: 'bookworm', components: ['ma in'], architectures: ['amd64'] }, 'bad-name'],
    [{ name: 'bookworm', components: ['main'], architectures: ['x86_64'] }, 'bad-architecture'],
    [{ name: 'bookworm', components: ['main'], architectures: ['all'] }, 'no-architecture'],
    [{ name: 'bookworm', components: [], architectures: ['amd64'] }, 'no-component'],
  ])('refuses %j', async (suite, code) => {
    await using world = await createWorld(NOW);
    const dir = join(world.path, 'repo');
    await expect(Repo.init(world.context, dir, { ...REQUEST, suites: [suite] })).rejects.toMatchObject({ code });
    await expect(stat(dir)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it.each([{ origin: 'a\nCodename: b' }, { label: '' }, { url: 'ftp://x/' }, { validDays: 1.5 }])(
    'refuses %j',
    async (wrong) => {
      await using world = await createWorld(NOW);
      await expect(Repo.init(world.context, join(world.path, 'repo'), { ...REQUEST, ...wrong })).rejects.toMatchObject({
        exitCode: 1,
      });
    },
  );
});

describe('repo add', () => {
  it('takes files and folders, each package once', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    const hello = await deb(world, { name: 'hello', architecture: 'amd64' });
    await deb(world, { name: 'libworld1', fields: { Source: 'world (1.0)' } });
    const result = await repo.add('bookworm', [hello, join(world.path, 'in')]);
    expect(result.refused).toEqual([]);
    expect(result.added.map((item) => item.filename)).toEqual([
      'pool/main/h/hello/hello_1.0_amd64.deb',
      'pool/main/w/world/libworld1_1.0_all.deb',
    ]);
    for (const item of result.added) {
      const bytes = await readFile(join(repo.publicDir, item.filename));
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(item.sha256);
    }
    const again = await repo.add('bookworm', [hello]);
    expect(again).toMatchObject({ added: [], refused: [] });
    expect(names(again.unchanged)).toEqual(['bookworm/main hello 1.0']);
    await repo.add('trixie', [hello]);
    await repo.add('bookworm', [hello], { component: 'extra' });
    expect(names(repo.list())).toEqual([
      'bookworm/extra hello 1.0',
      'bookworm/main hello 1.0',
      'bookworm/main libworld1 1.0',
      'trixie/main hello 1.0',
    ]);
    expect(await readdir(join(repo.dir, 'incoming'))).toEqual([]);
  });

  it('refuses other bytes under a known name, and takes the rest of the call', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    await repo.add('bookworm', [await deb(world, { name: 'hello' })]);
    const before = await readFile(join(repo.publicDir, 'pool/main/h/hello/hello_1.0_all.deb'));
    const changed = await deb(world, { name: 'hello', data: 'other' }, 'other');
    const fresh = await deb(world, { name: 'fresh' }, 'other');
    const refusal = { file: changed, code: 'package-changed' };
    expect(await repo.add('bookworm', [changed, fresh], { allOrNothing: true })).toMatchObject({
      added: [],
      refused: [refusal],
    });
    expect(names(repo.list())).toEqual(['bookworm/main hello 1.0']);
    const result = await repo.add('trixie', [changed, fresh]);
    expect(result.refused).toMatchObject([refusal]);
    expect(names(repo.list())).toEqual(['bookworm/main hello 1.0', 'trixie/main fresh 1.0']);
    expect(await readFile(join(repo.publicDir, 'pool/main/h/hello/hello_1.0_all.deb'))).toEqual(before);
  });

  it('refuses two packages of one name and different bytes in one call, but for the first', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    const one = await deb(world, { name: 'hello' });
    const two = await deb(world, { name: 'hello', data: 'other' }, 'other');
    const result = await repo.add('bookworm', [one, two]);
    expect(names(result.added)).toEqual(['bookworm/main hello 1.0']);
    expect(result.refused).toMatchObject([{ file: two, code: 'package-changed' }]);
  });

  it('refuses what the suite does not carry and what is no package', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    const foreign = await deb(world, { name: 'foreign', architecture: 'riscv64' });
    const broken = join(world.path, 'in', 'broken_1_all.deb');
    await writeFile(broken, 'no ar archive');
    const good = await deb(world, { name: 'good' });
    const result = await repo.add('bookworm', [foreign, broken, good]);
    expect(result.refused.map((refusal) => refusal.file)).toEqual([foreign, broken]);
    expect(result.refused[0]).toMatchObject({ code: 'wrong-architecture' });
    expect(names(repo.list())).toEqual(['bookworm/main good 1.0']);
    await expect(repo.add('bookwurm', [good])).rejects.toMatchObject({ hint: "did you mean 'bookworm'?" });
    await expect(repo.add('bookworm', [join(world.path, 'none.deb')])).rejects.toMatchObject({ code: 'no-such-file' });
  });

  it('gives versions that differ by the epoch alone different files', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    const plain = await deb(world, { name: 'hello', version: '1.0' });
    const epoch = await deb(world, { name: 'hello', version: '2:1.0' }, 'epoch');
    const result = await repo.add('bookworm', [plain, epoch]);
    expect(result.added.map((item) => item.filename)).toEqual([
      'pool/main/h/hello/hello_1.0_all.deb',
      'pool/main/h/hello/epoch-2/hello_1.0_all.deb',
    ]);
  });

  it('changes nothing in a dry run', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    const result = await repo.add('bookworm', [await deb(world, { name: 'hello' })], { dryRun: true });
    expect(names(result.added)).toEqual(['bookworm/main hello 1.0']);
    expect(repo.list()).toEqual([]);
    expect(await readdir(join(repo.publicDir, 'pool'))).toEqual([]);
  });

  it('puts a package that vanished from the pool back', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    const path = await deb(world, { name: 'hello' });
    const { filename } = (await repo.add('bookworm', [path])).added[0]!;
    await rm(join(repo.publicDir, filename));
    await repo.add('bookworm', [path]);
    expect(await readFile(join(repo.publicDir, filename))).toEqual(await readFile(path));
  });
});

describe('repo remove', () => {
  it('takes out every version, or one, or nothing when one is not there', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    for (const version of ['1.0', '2.0']) await deb(world, { name: 'hello', version });
    await deb(world, { name: 'other' });
    await repo.add('bookworm', [join(world.path, 'in')]);
    await expect(repo.remove('bookworm', ['other', 'hello=3.0'])).rejects.toMatchObject({
      code: 'no-such-package',
      hint: 'it has version 1.0, 2.0',
    });
    expect(repo.list()).toHaveLength(3);
    expect(names(await repo.remove('bookworm', ['hello=1.0']))).toEqual(['bookworm/main hello 1.0']);
    expect(names(await repo.remove('bookworm', ['hello', 'other'], { dryRun: true }))).toHaveLength(2);
    expect(names(repo.list())).toEqual(['bookworm/main hello 2.0', 'bookworm/main other 1.0']);
    await repo.add('bookworm', [join(world.path, 'in', 'hello_1.0_all.deb')]);
    expect(repo.list()).toHaveLength(3);
  });
});

describe('repo publish', () => {
  it('needs a key and says how to make one', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    await expect(repo.publish()).rejects.toMatchObject({
      code: 'no-key',
      hint: expect.stringContaining('key generate'),
    });
    expect(await readdir(join(repo.publicDir, 'dists'))).toEqual([]);
  });
});
