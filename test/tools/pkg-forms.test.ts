/** Other forms of a package, by the tools that read them: exported source trees, .rpm files, debug symbols, bills of materials. */
import { chmod, copyFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { getField, paragraph } from '../../src/deb/control.ts';
import { type BuildResult, buildPackages } from '../../src/pkg/build.ts';
import { diffDebs } from '../../src/pkg/diff.ts';
import { exportDebian } from '../../src/pkg/export-debian.ts';
import { buildJob } from '../../src/pkg/produce.ts';
import { makeRpm } from '../../src/pkg/rpm.ts';
import { createWorld, type World } from '../support/world.ts';

let world: World;
let result: BuildResult;
const request = (more: object = {}) => ({
  inputs: ['./shop'],
  cwd: world.path,
  suite: 'bookworm',
  outDir: join(world.path, 'out'),
  maintainer: 'Ada <ada@debian.org>',
  ...more,
});

beforeAll(async () => {
  world = await createWorld();
  const shop = join(world.path, 'shop');
  await mkdir(join(shop, 'data'), { recursive: true });
  await writeFile(join(shop, 'shop.sh'), '#!/bin/sh\necho open\n');
  await chmod(join(shop, 'shop.sh'), 0o755);
  await writeFile(join(shop, 'shop.conf'), 'open = yes\n');
  await writeFile(join(shop, 'data/a file.txt'), 'text\n');
  await writeFile(join(shop, 'postinst'), '#!/bin/sh\nset -e\n#DEBHELPER#\nexit 0\n');
  await writeFile(
    join(shop, 'buildkit.yaml'),
    `package:
  name: shop
  version: '1.2'
  summary: shop that is open
  licence: MIT
  depends: ['libc6 (>= 2.36) | libc6.1']
  scripts: { postinst: postinst }
  triggers: ['interest-noawait /usr/share/shop']
  files:
    - { source: shop.sh, target: /usr/bin/shop }
    - { source: shop.conf, target: /etc/shop.conf, type: config }
    - { source: data, target: /usr/share/shop }
    - { target: /var/lib/shop, type: dir, mode: '2750', group: mail }
    - { target: /usr/bin/store, type: symlink, link: shop }
`,
  );
  result = await buildPackages(world.context, request({ sbom: true }));
});
afterAll(() => world[Symbol.asyncDispose]());

describe('what is written beside a .deb', () => {
  it('is a bill of materials with the digest of the package', async () => {
    const [shop] = result.packages;
    const document = JSON.parse(await readFile(shop!.path.replace(/\.deb$/, '.spdx.json'), 'utf8'));
    expect(document).toMatchObject({
      spdxVersion: 'SPDX-2.3',
      packages: [{ checksums: [{ checksumValue: shop!.sha256 }] }],
    });
  });

  it('is a source tree that dpkg-buildpackage turns into the same package', async () => {
    const [shop] = result.packages;
    const folder = await exportDebian(world.context, shop!.path, join(world.path, 'export'));
    // as a checkout under another umask has it
    await run(world.context, 'chmod', ['-R', 'go=', join(folder, 'debian/root')]);
    const fakeroot = ['-us', '-uc', '-b', '-d', '-rfakeroot'];
    await run(world.context, 'dpkg-buildpackage', fakeroot, { cwd: folder, timeoutMs: 120_000 });
    const again = join(world.path, 'export', basename(shop!.path));
    const diff = await diffDebs(world.context, shop!.path, again);
    expect(diff.differences).toEqual([]);
    const list = async (deb: string) =>
      (await run(world.context, 'dpkg-deb', ['--contents', deb])).stdout
        .split('\n')
        .map((line) => line.replace(/\d{4}-\d\d-\d\d \d\d:\d\d/, ''))
        .sort();
    expect(await list(again)).toEqual(await list(shop!.path));
    await expect(exportDebian(world.context, shop!.path, join(world.path, 'export'))).rejects.toMatchObject({
      code: 'export-exists',
    });
  });

  it('is an .rpm that rpm reads, with the same files', async () => {
    const [shop] = result.packages;
    const rpm = await makeRpm(world.context, shop!, join(world.path, 'rpm'));
    const { stdout } = await run(world.context, 'rpm', ['-qpl', rpm]);
    for (const path of ['/usr/bin/shop', '/usr/bin/store', '/etc/shop.conf', '/usr/share/shop/a file.txt'])
      expect(stdout.split('\n')).toContain(path);
    const facts = await run(world.context, 'rpm', ['-qp', '--qf', '%{NAME} %{VERSION} %{RELEASE} %{ARCH}', rpm]);
    expect(facts.stdout).toBe('shop 1.2 1~deb12 noarch');
    expect(await readdir(join(world.path, 'rpm'))).toEqual([basename(rpm)]);
  });
});

it('says why a package is built anew', async () => {
  expect((await buildPackages(world.context, request())).explained).toEqual([
    { name: 'shop', version: '1.2-1~deb12', outcome: 'reused', why: 'nothing that goes into it has changed' },
  ]);
  await writeFile(join(world.path, 'shop/shop.conf'), 'open = no\n');
  const changed = await buildPackages(world.context, request({ outDir: join(world.path, 'out2') }));
  expect(changed.explained[0]).toMatchObject({ outcome: 'built', why: 'changed: files' });
});

it('puts the symbols of what was compiled here into a package of their own', async () => {
  const source = join(world.path, 'add.c');
  const library = join(world.path, 'libadd.so');
  await writeFile(source, 'int add(int a, int b) { return a + b; }\n');
  await run(world.context, 'gcc', ['-g', '-shared', '-fPIC', '-Wl,--build-id', '-o', library, source]);
  const published = join(world.path, 'published.so');
  await copyFile(library, published);
  const control = paragraph([
    ['Package', 'libadd'],
    ['Version', '1.0-1'],
    ['Architecture', 'amd64'],
    ['Maintainer', 'Ada <ada@debian.org>'],
    ['Description', 'library that adds'],
  ]);
  const file = (path: string, from: string) => ({ path, type: 'file' as const, mode: 0o644, source: { file: from } });
  const spec = { control, entries: [file('/usr/lib/libadd.so', library), file('/usr/lib/published.so', published)] };
  const built = await buildJob(
    world.context,
    {
      name: 'libadd',
      version: '1.0-1',
      source: 'a test',
      why: 'asked for',
      key: 'libadd',
      sourceDateEpoch: 1_700_000_000,
      make: async () => ({
        spec,
        architecture: 'amd64',
        warnings: [],
        isCompiledHere: (path) => path.endsWith('libadd.so'),
      }),
    },
    { compression: 'xz', line: 'bookworm amd64' },
  );
  expect(built.debug).toMatchObject({ name: 'libadd-dbgsym', version: '1.0-1', architecture: 'amd64' });
  const id = getField(built.debug!.control, 'Build-Ids')!;
  const root = join(world.path, 'symbols');
  for (const one of [built.package, built.debug!]) await run(world.context, 'dpkg-deb', ['-x', one.path, root]);
  const sections = async (path: string) => (await run(world.context, 'readelf', ['-W', '-S', join(root, path)])).stdout;
  expect(await sections('usr/lib/libadd.so')).toMatch(/\.gnu_debuglink/);
  expect(await sections('usr/lib/libadd.so')).not.toMatch(/\.debug_info|\.symtab/);
  expect(await sections('usr/lib/published.so')).toMatch(/\.debug_info/);
  const debug = `usr/lib/debug/.build-id/${id.slice(0, 2)}/${id.slice(2)}.debug`;
  expect(await sections(debug)).toMatch(/\.debug_info/);
  expect((await run(world.context, 'readelf', ['-n', join(root, 'usr/lib/libadd.so')])).stdout).toContain(
    `Build ID: ${id}`,
  );
  const { stdout } = await run(world.context, 'lintian', ['--fail-on', 'none', built.debug!.path]);
  expect(stdout.split('\n').filter((line) => line.startsWith('E:'))).toEqual([]);
});
