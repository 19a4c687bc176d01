import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  isDebianSource,
  readSourceFolder,
  readSourceList,
  sourceFolderName,
} from '../../../../src/pkg/source-package/read.ts';
import { createWorld, type World } from '../../../support/world.ts';

let world: World;
let folder: string;

const CONTROL = `# what it is
Source: thing
Maintainer: Ada <ada@example.org>
Build-Depends: debhelper-compat (= 13),
# only for tests
 python3 <!nocheck>,
Build-Depends-Indep: sphinx

Package: thing
Architecture: all

Package: thing-doc
Architecture: all
`;
const changelog = (version: string, name = 'thing') =>
  `${name} (${version}) bookworm; urgency=low\n\n  * X.\n\n -- Ada <ada@example.org>  Sat, 01 Nov 2025 10:00:00 +0000\n`;

async function put(name: string, text: string): Promise<void> {
  await mkdir(join(folder, name, '..'), { recursive: true });
  await writeFile(join(folder, name), text);
}

beforeAll(async () => {
  world = await createWorld();
  folder = join(world.path, 'thing');
  await put('debian/control', CONTROL);
  await put('debian/rules', '#!/usr/bin/make -f\n');
  await put('src/a.c', 'a');
  await put('dist/old.deb', 'result');
  await put('.git/HEAD', 'not a repository');
  await symlink('src', join(folder, 'link'));
});
afterAll(() => world[Symbol.asyncDispose]());

describe('a folder with debian/', () => {
  it('is a source only with control, changelog and rules', async () => {
    expect(await isDebianSource(folder)).toBe(false);
    await put('debian/changelog', changelog('2:1.0-3'));
    expect(await isDebianSource(folder)).toBe(true);
  });

  it('is read: name, packages, build dependencies; without results and version control', async () => {
    await put('debian/changelog', changelog('2:1.0-3'));
    const source = await readSourceFolder(world.context, folder, join(folder, 'dist'));
    expect(source).toMatchObject({ name: 'thing', version: '2:1.0-3', binaries: ['thing', 'thing-doc'], files: [] });
    expect(source.tree!.map((one) => `${one.kind} ${one.path}`)).toEqual([
      'folder debian',
      'file debian/changelog',
      'file debian/control',
      'file debian/rules',
      'link link',
      'folder src',
      'file src/a.c',
    ]);
    expect(source.control).toContain('Build-Depends: debhelper-compat (= 13), python3 <!nocheck>,\n');
    expect(source.control).toContain('Build-Depends-Indep: sphinx\n');
    expect(sourceFolderName(source)).toBe('thing-1.0');
    await put('src/a.c', 'b');
    expect((await readSourceFolder(world.context, folder)).digest).not.toBe(source.digest);
  });

  it("wants upstream's tarball for 3.0 (quilt), and takes it from beside", async () => {
    await put('debian/source/format', '3.0 (quilt)\n');
    await expect(readSourceFolder(world.context, folder)).rejects.toMatchObject({ code: 'orig-missing' });
    for (const name of [
      'thing_1.0.orig.tar.xz',
      'thing_1.0.orig-doc.tar.gz',
      'thing_1.0.orig.tar.xz.asc',
      'thing_1.0.origin',
    ]) {
      await writeFile(join(world.path, name), 'x');
    }
    const { files } = await readSourceFolder(world.context, folder);
    expect(files.map((one) => one.slice(world.path.length + 1))).toEqual([
      'thing_1.0.orig-doc.tar.gz',
      'thing_1.0.orig.tar.xz',
      'thing_1.0.orig.tar.xz.asc',
    ]);
  });

  it('has one name', async () => {
    await put('debian/changelog', changelog('1.0', 'other'));
    await expect(readSourceFolder(world.context, folder)).rejects.toMatchObject({ code: 'source-invalid', line: 1 });
  });
});

describe('a .dsc', () => {
  const list = (sha256: string, name: string) =>
    `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nFormat: 3.0 (native)\nSource: thing\nBinary: thing,\n thing-doc\nVersion: 1.0\nBuild-Depends: a\nChecksums-Sha256:\n ${sha256} 1 ${name}\n\n-----BEGIN PGP SIGNATURE-----\nx\n-----END PGP SIGNATURE-----\n`;
  const X = '2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881';
  const write = async (text: string) => {
    const path = join(world.path, 'thing_1.0.dsc');
    await writeFile(path, text);
    return path;
  };

  it('is read with what it lists', async () => {
    await writeFile(join(world.path, 'thing_1.0.tar.xz'), 'x');
    const source = await readSourceList(await write(list(X, 'thing_1.0.tar.xz')));
    expect(source).toMatchObject({ name: 'thing', binaries: ['thing', 'thing-doc'], tree: undefined });
    expect(source.control).toContain('Build-Depends: a\n');
  });

  it.each([
    ['listed-file-differs', '0'.repeat(64), 'thing_1.0.tar.xz'],
    ['listed-file-missing', X, 'thing_2.0.tar.xz'],
    ['source-invalid', X, '../thing_1.0.tar.xz'],
  ])('is refused: %s', async (code, sha256, name) => {
    await writeFile(join(world.path, 'thing_1.0.tar.xz'), 'x');
    await expect(readSourceList(await write(list(sha256, name)))).rejects.toMatchObject({ code });
  });
});
