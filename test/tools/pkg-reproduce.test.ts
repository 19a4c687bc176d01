/** The same input twice, with nothing else the same: folder, order and times of files, umask, locale, time zone, caches. */
import { chmod, mkdir, readdir, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { digestFile } from '../../src/core/files.ts';
import { run } from '../../src/core/run.ts';
import { npmRegistry, packTarball } from '../support/npm-registry.ts';
import { writeWheel } from '../support/python-wheel.ts';
import { createWorld, type World } from '../support/world.ts';

let world: World;
beforeAll(async () => {
  world = await createWorld();
});
afterAll(() => world?.[Symbol.asyncDispose]());

const BACK_END = `import glob, os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        for path in glob.glob("thing/*.py"):
            wheel.write(path, path)
        wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: thing\\nVersion: 1.0\\n")
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "".join(path + ",,\\n" for path in wheel.namelist() + ["thing-1.0.dist-info/RECORD"]))
    return name
`;
const RULES = `clean build build-arch build-indep:
binary binary-arch binary-indep:
\tmkdir -p debian/thing/DEBIAN debian/thing/usr/share/thing
\tcp b a debian/thing/usr/share/thing
\tdpkg-gencontrol -pthing -Pdebian/thing
\tdpkg-deb --root-owner-group -b debian/thing ..
`;

const KINDS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'a DEBIAN tree': {
    'DEBIAN/control':
      'Package: thing\nVersion: 1.0-1\nArchitecture: all\nMaintainer: Ada <ada@example.org>\nDescription: a thing\n more\n',
    'DEBIAN/postinst': '#!/bin/sh\nset -e\n#DEBHELPER#\n',
    'usr/share/thing/b': 'b',
    'usr/share/thing/a': 'a',
    'usr/bin/thing': '#!/bin/sh\n',
  },
  'a package section': {
    'buildkit.yaml': `package:
  name: thing
  version: "1.0"
  summary: a thing
  description: more of it
  files:
    - { source: b, target: /usr/share/thing/b }
    - { source: a, target: /usr/share/thing/a }
`,
    b: 'b',
    a: 'a',
  },
  'a Python project': {
    'pyproject.toml':
      '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "thing"\nversion = "1.0"\n',
    'backend.py': BACK_END,
    'thing/b.py': 'b = 1\n',
    'thing/a.py': 'a = 1\n',
    'thing/__init__.py': '',
  },
  'an npm project': {
    'package.json':
      '{"name": "thing", "version": "1.0.0", "bin": {"thing": "b.js"}, "license": "MIT", "description": "a thing"}',
    'b.js': '#!/usr/bin/env node\nconsole.log(1);\n',
    'a.js': 'module.exports = 1;\n',
    LICENSE: 'MIT\n',
  },
  'a Debian source': {
    'debian/control':
      'Source: thing\nMaintainer: Ada <ada@example.org>\n\nPackage: thing\nArchitecture: all\nDescription: a thing\n more\n',
    'debian/changelog':
      'thing (1.0) bookworm; urgency=low\n\n  * X.\n\n -- Ada <ada@example.org>  Sat, 01 Nov 2025 10:00:00 +0000\n',
    'debian/rules': `#!/usr/bin/make -f\n${RULES}`,
    'debian/source/format': '3.0 (native)\n',
    b: 'b',
    a: 'a',
  },
};

async function write(folder: string, files: readonly (readonly [string, string])[], mode: number, time: number) {
  for (const [name, text] of files) {
    const path = join(folder, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
    const isProgram = text.startsWith('#!');
    await chmod(path, isProgram ? mode | 0o100 : mode);
    await utimes(path, time, time);
  }
}

type Env = Readonly<Record<string, string>>;

/** @returns what it printed */
async function buildkit(place: string, umask: string, env: Env, ...words: readonly string[]): Promise<string> {
  const program = join(world.context.programDir, 'bin/buildkit');
  const { stdout } = await run(
    { ...world.context, env: { ...world.context.env, ...env } },
    'sh',
    ['-c', `umask ${umask}; exec "$@"`, 'sh', program, '--state', join(world.path, place, 'state'), 'pkg', ...words],
    {
      cwd: join(world.path, place),
      env: { SOURCE_DATE_EPOCH: undefined, ...env },
    },
  );
  return stdout;
}

async function build(place: string, umask: string, env: Env): Promise<Map<string, string>> {
  const out = join(world.path, place, 'out');
  const options = ['--suite', 'bookworm', '--isolation', 'host', '--maintainer', 'Ada <ada@example.org>'];
  await buildkit(place, umask, env, 'build', './thing', '--out', out, ...options);
  const found = new Map<string, string>();
  for (const name of (await readdir(out)).filter((one) => /\.(deb|dsc|tar\.\w+)$/.test(one)).sort()) {
    found.set(name, await digestFile(join(out, name), 'sha256'));
  }
  return found;
}

it.each(Object.entries(KINDS))('%s gives the same bytes', async (kind, files) => {
  const [first, second] = [`${kind}/here`, `${kind}/somewhere/else`];
  const entries = Object.entries(files);
  await write(join(world.path, first, 'thing'), entries, 0o644, 1_600_000_000);
  await write(join(world.path, second, 'thing'), entries.toReversed(), 0o600, 1_790_000_000);
  const one = await build(first, '022', { TZ: 'UTC', LANG: 'C' });
  const two = await build(second, '077', { TZ: 'Asia/Tokyo', LANG: 'tr_TR.UTF-8', LC_ALL: 'C', HOME: world.path });
  expect(one.size).toBeGreaterThan(0);
  expect(two).toEqual(one);
});

/** With digests, as pip-compile writes them. */
async function lockedLines(folder: string): Promise<string> {
  const digest = (name: string) => digestFile(join(folder, `${name}-1.0-py3-none-any.whl`), 'sha256');
  return `top==1.0 --hash=sha256:${await digest('top')}\ndep==1.0 --hash=sha256:${await digest('dep')}\n`;
}

/** Needs `dep`, which the test publishes in a newer version between the two builds. */
const WHEEL = { name: 'top', version: '1.0', files: { 'top.py': 'import dep\n' }, metadata: ['Requires-Dist: dep'] };
const dep = (version: string) => ({ name: 'dep', version, files: { 'dep.py': `v = "${version}"\n` } });
const TARBALL = {
  name: 'top',
  version: '1.0.0',
  manifest: { bin: 'cli.js', dependencies: { dep: '^1.0.0' } },
  files: { 'cli.js': 'require("dep")' },
};
const nodeDep = (version: string, published: string) => ({
  name: 'dep',
  version,
  published,
  files: { 'index.js': version },
});

it.each([
  ['a wheel', './top-1.0-py3-none-any.whl'],
  ['requirements', './requirements.txt'],
  ['a requirement', 'pypi:top'],
  ['a tarball', './top-1.0.0.tgz'],
  ['an npm package', 'npm:top@^1'],
])('%s is made again from its .buildinfo, whatever the index has meanwhile', async (kind, input) => {
  const place = `again/${kind.replaceAll(' ', '-')}`; // pip takes blanks in PIP_FIND_LINKS for ends
  const folder = join(world.path, place);
  await mkdir(folder, { recursive: true });
  await writeWheel(folder, WHEEL);
  await writeWheel(folder, dep('1.0'));
  await writeFile(join(folder, 'requirements.txt'), await lockedLines(folder));
  await writeFile(join(folder, 'top-1.0.0.tgz'), packTarball(TARBALL));
  const old = { ...nodeDep('1.0.0', '2020-01-01T00:00:00.000Z') };
  const env = { PIP_NO_INDEX: '1', PIP_FIND_LINKS: folder, SOURCE_DATE_EPOCH: '1700000000', TZ: 'UTC' };
  {
    await using registry = await npmRegistry([TARBALL, old]);
    const words = ['--out', 'out', '--suite', 'bookworm', '--maintainer', 'Ada <ada@example.org>', '--changes'];
    await buildkit(place, '022', { ...env, ...registry.env }, 'build', input, ...words);
  }
  await writeWheel(folder, dep('1.1'));
  await using registry = await npmRegistry([TARBALL, old, nodeDep('1.1.0', '2999-01-01T00:00:00.000Z')]);
  const [info] = (await readdir(join(folder, 'out'))).filter((name) => name.endsWith('.buildinfo'));
  const elsewhere = { ...env, ...registry.env, SOURCE_DATE_EPOCH: '5', TZ: 'Asia/Tokyo', LANG: 'tr_TR.UTF-8' };
  const said = await buildkit(place, '077', elsewhere, 'reproduce', join('out', info!));
  expect(said.trim().split('\n').sort()).toEqual(
    (await readdir(join(folder, 'out'))).filter((name) => name.endsWith('.deb')).map((name) => `${name}: identical`),
  );
});
