/** Closures of wheels made for the purpose, resolved by the real pip from a folder: cycles, extras, clashes, lies, other suites. */
import { mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { getField } from '../../src/deb/control.ts';
import { type BuildRequest, buildPackages, planBuild } from '../../src/pkg/build.ts';
import { type WheelSpec, writeWheel } from '../support/python-wheel.ts';
import { createWorld, type World } from '../support/world.ts';

let world: World;
let wheels: string;
const context = () => ({
  ...world.context,
  env: { ...world.context.env, PIP_CONFIG_FILE: '/dev/null', PIP_NO_INDEX: '1', PIP_FIND_LINKS: wheels },
});
const request = (inputs: readonly string[], out: string, more: Partial<BuildRequest> = {}): BuildRequest => ({
  inputs,
  cwd: world.path,
  suite: 'bookworm',
  outDir: join(world.path, out),
  maintainer: 'Ada <ada@debian.org>',
  ...more,
});
const module = (name: string): Record<string, string> => ({ [`${name}/__init__.py`]: `NAME = "${name}"\n` });
const wheel = (spec: WheelSpec) => writeWheel(wheels, { files: module(spec.name), ...spec });

beforeAll(async () => {
  world = await createWorld();
  wheels = join(world.path, 'wheels');
  await mkdir(wheels);
});
afterAll(() => world[Symbol.asyncDispose]());

describe('closures', () => {
  it('takes cycles, markers of the target, and extras as packages of their own', async () => {
    await wheel({
      name: 'ring_a',
      version: '1.0',
      metadata: ['Requires-Dist: ring-b>=1', 'Requires-Dist: never; sys_platform == "win32"'],
    });
    await wheel({
      name: 'ring_b',
      version: '1.0',
      metadata: ['Requires-Dist: ring-a', 'Provides-Extra: fast', 'Requires-Dist: quick; extra == "fast"'],
    });
    await wheel({ name: 'quick', version: '2.0rc1' });
    const { packages, asked } = await buildPackages(
      context(),
      request(['ring-a', 'ring-b[fast]', 'quick>=2.0rc1'], 'ring'),
    );
    expect(asked.toSorted()).toEqual(['python3-quick', 'python3-ring-a', 'python3-ring-b', 'python3-ring-b+fast']);
    const depends = Object.fromEntries(
      packages.map((one) => [`${one.name} ${one.version}`, getField(one.control, 'Depends')]),
    );
    expect(depends).toEqual({
      'python3-ring-a 1.0-1~deb12': 'python3-ring-b (>= 1.0), python3:any',
      'python3-ring-b 1.0-1~deb12': 'python3-ring-a, python3:any',
      'python3-quick 2.0~rc1-1~deb12': 'python3:any',
      'python3-ring-b+fast 1.0-1~deb12': 'python3-quick, python3-ring-b (= 1.0-1~deb12)',
    });
  });

  it('explains a conflict with both sides', async () => {
    await wheel({ name: 'wants_old', version: '1', metadata: ['Requires-Dist: shared<2'] });
    await wheel({ name: 'wants_new', version: '1', metadata: ['Requires-Dist: shared>=2'] });
    await wheel({ name: 'shared', version: '1.5' });
    await wheel({ name: 'shared', version: '2.5' });
    const failure = await planBuild(context(), request(['wants-old', 'wants-new'], 'never')).catch(
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ code: 'unresolvable', exitCode: 1 });
    expect((failure as Error).message).toMatch(/wants-old 1 depends on shared<2/);
    expect((failure as Error).message).toMatch(/wants-new 1 depends on shared>=2/);
  });

  it('refuses two owners of one file where both are needed, before anything is written', async () => {
    await wheel({ name: 'clash_a', version: '1', files: { 'common/x.py': 'a', 'clash_a.py': '' } });
    await wheel({ name: 'clash_b', version: '1', files: { 'common/x.py': 'b', 'clash_b.py': '' } });
    await wheel({
      name: 'clash_both',
      version: '1',
      metadata: ['Requires-Dist: clash-a', 'Requires-Dist: clash-b'],
    });
    await expect(buildPackages(context(), request(['clash-both'], 'clash'))).rejects.toMatchObject({
      code: 'file-clash',
      problems: [
        {
          message: expect.stringContaining(
            "'python3-clash-a' and 'python3-clash-b' both have /usr/lib/python3/dist-packages/common/x.py",
          ),
        },
      ],
    });
    expect(await readdir(world.path)).not.toContain('clash');
  });

  it('lets two owners of one file conflict with each other where nothing needs both', async () => {
    const { packages } = await buildPackages(context(), request(['clash-a', 'clash-b'], 'clash'));
    const said = packages.map((one) => [
      one.name,
      getField(one.control, 'Conflicts'),
      getField(one.control, 'Replaces'),
    ]);
    expect(said.toSorted()).toEqual([
      ['python3-clash-a', 'python3-clash-b', 'python3-clash-b'],
      ['python3-clash-b', 'python3-clash-a', 'python3-clash-a'],
    ]);
    expect(world.warnings.join('\n')).toContain("'python3-clash-a' has files that python3-clash-b has, too");
    const again = await buildPackages(context(), request(['clash-a', 'clash-b'], 'clash'));
    expect([again.built, again.reused]).toEqual([0, 2]);
  });

  it('puts data/etc into /etc as configuration file, and namespace packages side by side', async () => {
    await wheel({
      name: 'space_one',
      version: '1',
      files: { 'space/one/__init__.py': 'X = 1\n', 'space_one-1.data/data/etc/space.conf': 'a\n' },
    });
    await wheel({ name: 'space_two', version: '1', files: { 'space/two/__init__.py': 'X = 2\n' } });
    const { packages } = await buildPackages(context(), request(['space-one', 'space-two'], 'space'));
    const site = join(world.path, 'space-root');
    for (const one of packages) await run({}, 'dpkg-deb', ['-x', one.path, site]);
    const conffiles = await run({}, 'dpkg-deb', [
      '--info',
      packages.find((one) => one.name === 'python3-space-one')!.path,
      'conffiles',
    ]);
    expect(conffiles.stdout).toBe('/etc/space.conf\n');
    const code = 'import space.one, space.two; print(space.one.X + space.two.X)';
    const { stdout } = await run({}, '/usr/bin/python3', ['-S', '-c', code], {
      env: { PYTHONPATH: join(site, 'usr/lib/python3/dist-packages') },
    });
    expect(stdout).toBe('3\n');
  });

  it('ties extension modules to their Python, but not those of the stable ABI', async () => {
    const machine = (await run({}, 'uname', ['-m'])).stdout.trim();
    await wheel({ name: 'tied', version: '1', tag: `cp311-cp311-linux_${machine}`, pure: false });
    await wheel({ name: 'stable', version: '1', tag: `cp39-abi3-linux_${machine}`, pure: false });
    const { packages } = await buildPackages(context(), request(['tied', 'stable'], 'abi'));
    const depends = Object.fromEntries(packages.map((one) => [one.name, getField(one.control, 'Depends')]));
    expect(depends).toEqual({
      'python3-tied': 'python3 (>= 3.11~), python3 (<< 3.12)',
      'python3-stable': 'python3 (>= 3.9~)',
    });
    expect(packages.every((one) => one.architecture !== 'all')).toBe(true);
  });

  it('resolves for the Python of another suite: its tags and its markers', async () => {
    const machine = (await run({}, 'uname', ['-m'])).stdout.trim();
    await wheel({ name: 'fast_ext', version: '1', tag: `cp313-cp313-manylinux_2_28_${machine}`, pure: false });
    await wheel({ name: 'only_new', version: '1' });
    await wheel({
      name: 'newer',
      version: '1',
      metadata: [
        'Requires-Dist: fast-ext',
        'Requires-Dist: only-new; python_version >= "3.13"',
        'Requires-Dist: missing-old; python_version < "3.12"',
      ],
    });
    const { packages } = await buildPackages(context(), request(['newer'], 'trixie', { suite: 'trixie' }));
    const versions = Object.fromEntries(packages.map((one) => [one.name, one.version]));
    expect(versions).toEqual({
      'python3-newer': '1.0-1~deb13',
      'python3-fast-ext': '1.0-1~deb13',
      'python3-only-new': '1.0-1~deb13',
    });
    expect(getField(packages.find((one) => one.name === 'python3-fast-ext')!.control, 'Depends')).toBe(
      'python3 (>= 3.13~), python3 (<< 3.14)',
    );
  });

  it('takes the wheels of another architecture, and refuses what would have to be built there', async () => {
    const other = (await run({}, 'uname', ['-m'])).stdout.trim() === 'aarch64' ? 'x86_64' : 'aarch64';
    const architecture = other === 'aarch64' ? 'arm64' : 'amd64';
    for (const cpu of ['x86_64', 'aarch64']) {
      await wheel({ name: 'for_cpu', version: '1', tag: `cp311-cp311-manylinux_2_17_${cpu}`, pure: false });
    }
    await wheel({
      name: 'foreign',
      version: '1',
      metadata: ['Requires-Dist: for-cpu', `Requires-Dist: missing; platform_machine != "${other}"`],
    });
    const { packages } = await buildPackages(context(), request(['foreign'], 'foreign', { architecture }));
    const made = packages.map((one) => [one.name, one.architecture, getField(one.control, 'Architecture')]);
    expect(made).toEqual([
      ['python3-foreign', 'all', 'all'],
      ['python3-for-cpu', architecture, architecture],
    ]);
    const project = join(world.path, 'foreign-project');
    await mkdir(project);
    await writeFile(join(project, 'setup.py'), '');
    const building = (isolation: 'root' | 'host') =>
      buildPackages(context(), request([project], 'never', { architecture, isolation }));
    await expect(building('root')).rejects.toMatchObject({
      code: 'foreign-architecture',
      hint: expect.stringContaining('qemu-user-static'),
    });
    await expect(building('host')).rejects.toMatchObject({ code: 'needs-target-python' });
  });

  it('takes a requirements file with comments, options and extras', async () => {
    await wheel({
      name: 'listed',
      version: '1.2',
      metadata: ['Provides-Extra: more', 'Requires-Dist: quick; extra == "more"'],
    });
    await wheel({ name: 'quick', version: '2.0' });
    await writeFile(
      join(world.path, 'requirements.txt'),
      '# what we need\nlisted[more] >= 1 ; python_version > "3" # yes\n--no-binary nothing\n',
    );
    const plan = await planBuild(context(), request(['requirements.txt'], 'never'));
    expect(plan.packages.map((one) => [one.name, one.why])).toEqual([
      ['python3-listed', 'asked for'],
      ['python3-quick', 'needed by python3-listed+more'],
      ['python3-listed+more', 'asked for'],
    ]);
  });
});

const OWN_BACKEND = `import zipfile
INFO = "own-1.dist-info"
FILES = {"own.py": "", INFO + "/METADATA": "Metadata-Version: 2.1\\nName: own\\nVersion: 1\\nRequires-Dist: pinned\\n",
         INFO + "/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
def build_wheel(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(folder + "/own-1-py3-none-any.whl", "w") as wheel:
        for name, text in FILES.items(): wheel.writestr(name, text)
        wheel.writestr(INFO + "/RECORD", "".join(name + ",,\\n" for name in [*FILES, INFO + "/RECORD"]))
    return "own-1-py3-none-any.whl"
`;

describe('lock files', () => {
  it('hold pip to what they pin, as an input and beside a project', async () => {
    await wheel({ name: 'locked', version: '1.0', metadata: ['Requires-Dist: pinned'] });
    await wheel({ name: 'pinned', version: '1.0' });
    await wheel({ name: 'pinned', version: '2.0' });
    const lock =
      '[[package]]\nname = "locked"\nversion = "1.0"\noptional = false\ngroups = ["main"]\n[[package]]\nname = "pinned"\nversion = "1.0"\noptional = false\ngroups = ["main"]\n';
    await writeFile(join(world.path, 'poetry.lock'), lock);
    const versions = async (input: string) =>
      (await planBuild(context(), request([input], 'never'))).packages.map((one) => `${one.name} ${one.version}`);
    expect(await versions('locked')).toContain('python3-pinned 2.0-1~deb12');
    // a project whose back end is its own and needs nothing from an index
    const project = join(world.path, 'project');
    await mkdir(project);
    await writeFile(
      join(project, 'pyproject.toml'),
      '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "own"\nversion = "1"\n',
    );
    await writeFile(join(project, 'backend.py'), OWN_BACKEND);
    expect(await versions('./project')).toContain('python3-pinned 2.0-1~deb12');
    await writeFile(join(project, 'poetry.lock'), lock);
    expect(await versions('./project')).toContain('python3-pinned 1.0-1~deb12');
    expect(await versions('poetry.lock')).toEqual(['python3-locked 1.0-1~deb12', 'python3-pinned 1.0-1~deb12']);
  });
});

describe('what must not get in', () => {
  it('a wheel that was cut or changed: nothing is written, and the cache is not poisoned', async () => {
    const path = await wheel({ name: 'fragile', version: '1' });
    const whole = await readFile(path);
    const good = await buildPackages(context(), request(['fragile'], 'fragile'));
    await rm(good.packages[0]!.path);
    await truncate(path, whole.length - 10);
    await expect(buildPackages(context(), request([path], 'fragile-cut'))).rejects.toMatchObject({
      exitCode: expect.any(Number),
    });
    expect(await readdir(world.path)).not.toContain('fragile-cut');
    await writeFile(path, whole);
    const again = await buildPackages(context(), request(['fragile'], 'fragile', { refresh: true }));
    expect(again.packages[0]!.sha256).toBe(good.packages[0]!.sha256);
  });

  it('a damaged cache entry is made again', async () => {
    await wheel({ name: 'cached', version: '1' });
    const first = await buildPackages(context(), request(['cached'], 'cached-1'));
    const debs = join(world.context.cacheDir, 'pkg/debs');
    const all = (await readdir(debs, { recursive: true })).filter(
      (name) => name.endsWith('.deb') && name.includes('cached'),
    );
    expect(all).toHaveLength(1);
    await truncate(join(debs, all[0]!), 20);
    const again = await buildPackages(context(), request(['cached'], 'cached-2'));
    expect(again.packages[0]!.sha256).toBe(first.packages[0]!.sha256);
    expect(world.warnings.join()).toContain('damaged');
  });

  it('a distribution whose wheel names files outside', async () => {
    const path = await wheel({ name: 'escape', version: '1', extra: [{ name: '../../etc/cron.d/evil', data: 'x' }] });
    await expect(buildPackages(context(), request([path], 'escape'))).rejects.toMatchObject({
      exitCode: expect.any(Number),
    });
    expect(await readdir(world.path)).not.toContain('escape');
  });

  it('no room for the packages: said so, nothing half written', async () => {
    await wheel({ name: 'roomy', version: '1' });
    const out = join(world.path, 'full');
    await mkdir(out);
    await run({}, 'mount', ['-t', 'tmpfs', '-o', 'size=4k', 'tmpfs', out]);
    try {
      await writeFile(join(out, 'filler'), Buffer.alloc(4096)).catch(() => {});
      await expect(buildPackages(context(), request(['roomy'], 'full'))).rejects.toMatchObject({
        code: 'cannot-write',
        exitCode: 1,
      });
      expect(await readdir(out)).toEqual(['filler']);
    } finally {
      await run({}, 'umount', [out]);
    }
  });
});
