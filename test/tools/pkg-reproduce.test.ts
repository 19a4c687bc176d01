/** The same input twice, with nothing else the same: folder, order and times of files, umask, locale, time zone, caches. */
import { chmod, mkdir, readdir, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { digestFile } from '../../src/core/files.ts';
import { run } from '../../src/core/run.ts';
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

async function build(
  place: string,
  umask: string,
  env: Readonly<Record<string, string>>,
): Promise<Map<string, string>> {
  const out = join(world.path, place, 'out');
  const words = [
    ...['--state', join(world.path, place, 'state'), 'pkg', 'build', './thing', '--out', out, '--suite', 'bookworm'],
    ...['--isolation', 'host', '--maintainer', 'Ada <ada@example.org>'],
  ];
  const program = join(world.context.programDir, 'bin/buildkit');
  await run(
    { ...world.context, env: { ...world.context.env, ...env } },
    'sh',
    ['-c', `umask ${umask}; exec "$@"`, 'sh', program, ...words],
    {
      cwd: join(world.path, place),
      env: { SOURCE_DATE_EPOCH: undefined, ...env },
    },
  );
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
