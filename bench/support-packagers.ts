/**
 * Debian's own ways from Python packages to .debs, in a root of their own: pybuild, a source package for each wheel, and dh-virtualenv,
 * all in one package. fpm (a Ruby gem) and wheel2deb (not in Debian) are left to the numbers that others measured.
 */
import { copyFile, mkdir, readdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { run } from '../src/core/run.ts';
import { createDebianRoot, type DebianRoot } from '../test/support/debian-root.ts';

const TOOLS = [
  'debhelper',
  'dh-python',
  'dh-virtualenv',
  'python3-all',
  'python3-setuptools',
  'python3-venv',
  'python3-wheel',
  'unzip',
];

export interface Packagers extends AsyncDisposable {
  readonly commands: readonly { readonly name: string; readonly argv: readonly string[] }[];
}

/** @param wheels paths of wheel files, that of the application among them */
export async function otherPackagers(wheels: readonly string[], application: string): Promise<Packagers> {
  const root = await createDebianRoot('bookworm', TOOLS);
  const inRoot = join(root.path, 'build');
  await mkdir(join(inRoot, 'wheels'), { recursive: true });
  for (const wheel of wheels) await copyFile(wheel, join(inRoot, 'wheels', basename(wheel)));
  for (const wheel of wheels) await pybuildSource(root, basename(wheel));
  await virtualenvSource(inRoot, application);
  const build =
    'DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage -b -d -us -uc >log 2>&1 || { tail -n 30 log >&2; exit 1; }';
  return {
    commands: [
      {
        name: 'pybuild, 7 source packages',
        argv: inChroot(root, `for one in /build/py-*; do cd $one; ${build}; done`),
      },
      { name: 'dh-virtualenv, 1 package', argv: inChroot(root, `cd /build/venv; ${build}`) },
    ],
    [Symbol.asyncDispose]: () => root[Symbol.asyncDispose](),
  };
}

function inChroot(root: DebianRoot, text: string): string[] {
  return ['env', '-i', 'HOME=/root', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'chroot', root.path, '/bin/sh', '-ec', text];
}

/** The files of a wheel as a project of setuptools: what an sdist would hold. */
async function pybuildSource(root: DebianRoot, wheel: string): Promise<void> {
  const [name = '', version = ''] = wheel.split('-');
  const folder = join(root.path, 'build', `py-${name}`);
  await mkdir(folder, { recursive: true });
  await run({}, 'unzip', ['-q', join(root.path, 'build/wheels', wheel), '-d', folder]);
  const modules = (await readdir(folder)).filter((one) => !one.includes('.dist-info'));
  const setup = `from setuptools import setup, find_packages
setup(name=${JSON.stringify(name)}, version=${JSON.stringify(version)}, packages=find_packages(),
  py_modules=${JSON.stringify(modules.filter((one) => one.endsWith('.py')).map((one) => one.slice(0, -3)))}, package_data={'': ['*', '*/*']})
`;
  await writeFile(join(folder, 'setup.py'), setup);
  await debianFolder(
    folder,
    `python3-${name.replaceAll('_', '-')}`,
    version,
    '--with python3 --buildsystem=pybuild',
    'any',
  );
}

async function virtualenvSource(inRoot: string, application: string): Promise<void> {
  const folder = join(inRoot, 'venv');
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'requirements.txt'), `${application}\n`);
  await debianFolder(folder, 'bench-venv', '1.0', '--with python-virtualenv', 'any');
  const options = ['--no-index', '--find-links=/build/wheels'].map((one) => `--extra-pip-arg=${one}`).join(' ');
  const rules = `#!/usr/bin/make -f
%:
\tdh $@ --with python-virtualenv
override_dh_virtualenv:
\tdh_virtualenv --python /usr/bin/python3 --builtin-venv --skip-install ${options}
override_dh_strip override_dh_shlibdeps override_dh_dwz:
`;
  await writeFile(join(folder, 'debian/rules'), rules, { mode: 0o755 });
}

async function debianFolder(folder: string, name: string, version: string, dh: string, architecture: string) {
  await mkdir(join(folder, 'debian/source'), { recursive: true });
  const files = {
    control: `Source: ${name}
Maintainer: Bench <bench@example.org>
Build-Depends: debhelper-compat (= 13), dh-python, dh-virtualenv, python3-all, python3-setuptools

Package: ${name}
Architecture: ${architecture}
Description: benchmark
 of packagers
`,
    changelog: `${name} (${version}-1) bookworm; urgency=low\n\n  * X.\n\n -- Bench <bench@example.org>  Sat, 01 Nov 2025 10:00:00 +0000\n`,
    'source/format': '3.0 (quilt)\n',
  };
  for (const [path, text] of Object.entries(files)) await writeFile(join(folder, 'debian', path), text);
  await writeFile(join(folder, 'debian/rules'), `#!/usr/bin/make -f\n%:\n\tdh $@ ${dh}\n`, { mode: 0o755 });
}
