/** The npm builder against a registry on the loopback that is honest, broken, hostile or gone. */
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Context } from '../../src/core/context.ts';
import { run } from '../../src/core/run.ts';
import { extractDeb, listDeb, writeDeb } from '../../src/deb/archive.ts';
import { type BinaryPackage, debFileName } from '../../src/deb/package.ts';
import { suiteFacts } from '../../src/deb/suites.ts';
import { type NodeBuildOptions, type NodeInput, prepareNode } from '../../src/pkg/node/builder.ts';
import { expandWorkspaces } from '../../src/pkg/node/workspaces.ts';
import { type FakePackage, type NpmRegistry, npmRegistry, packTarball } from '../support/npm-registry.ts';
import { createWorld, type World } from '../support/world.ts';

let world: World;
let registry: NpmRegistry | undefined;

beforeEach(async () => {
  world = await createWorld();
});
afterEach(async () => {
  await registry?.[Symbol.asyncDispose]();
  registry = undefined;
  await world[Symbol.asyncDispose]();
});

function context(env: Record<string, string> = {}): Context {
  const home = join(world.path, 'home');
  return { ...world.context, env: { PATH: process.env.PATH, HOME: home, ...registry?.env, ...env } };
}

const DEFAULTS: NodeBuildOptions = {
  suite: suiteFacts('bookworm'),
  architecture: 'amd64',
  revision: '1~deb12',
  mode: 'bundle',
  allowScripts: [],
  sourceDateEpoch: undefined,
  maintainer: async () => 'Ada Lovelace <ada@debian.org>',
};

async function build(
  input: NodeInput,
  options: Partial<NodeBuildOptions> = {},
  from = context(),
): Promise<BinaryPackage[]> {
  await using prepared = await prepareNode(from, input, { ...DEFAULTS, ...options });
  for (const warning of prepared.warnings) from.log.warn(warning);
  const packages: BinaryPackage[] = [];
  for (const job of prepared.jobs) {
    const { spec, architecture, warnings } = await job.make();
    for (const warning of warnings) from.log.warn(warning);
    const path = join(world.path, 'out', debFileName(job.name, job.version, architecture));
    packages.push(await writeDeb(from, path, spec, { compression: 'none', sourceDateEpoch: job.sourceDateEpoch ?? 0 }));
  }
  return packages;
}

const spec = (text: string): NodeInput => ({ kind: 'package', spec: text });
const serveThese = async (...packages: FakePackage[]) => {
  registry = await npmRegistry(packages);
};

async function project(files: Readonly<Record<string, unknown>>): Promise<NodeInput> {
  return { kind: 'project', folder: await folderWith('project', files) };
}

/** What was there before is gone. */
async function folderWith(name: string, files: Readonly<Record<string, unknown>>): Promise<string> {
  const folder = join(world.path, name);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return folder;
}

const paths = async (one: BinaryPackage) => (await Array.fromAsync(listDeb({}, one.path))).map((file) => file.path);
const leftovers = async () => {
  const work = join(world.context.cacheDir, 'pkg/work');
  return existsSync(work) ? readdir(work) : [];
};
const lockOf = (version: string) => ({
  name: 'app',
  version: '1.0.0',
  lockfileVersion: 3,
  packages: {
    '': { name: 'app', version: '1.0.0', dependencies: { dep: '^1.0.0' } },
    'node_modules/dep': { version },
  },
});

describe('a lock', () => {
  const manifest = { name: 'app', version: '1.0.0', dependencies: { dep: '^1.0.0' }, bin: 'cli.js' };

  it('is kept to, although the registry has a newer version', async () => {
    await serveThese({ name: 'dep', version: '1.0.0' }, { name: 'dep', version: '1.4.0' });
    const input = await project({ 'package.json': manifest, 'cli.js': '1', 'package-lock.json': lockOf('1.0.0') });
    await build(input);
    const asked = registry!.requests.map((one) => one.path).filter((path) => path.endsWith('.tgz'));
    expect(new Set(asked)).toEqual(new Set(['/dep/-/dep-1.0.0.tgz']));
  });

  it('without its package.json is enough', async () => {
    await serveThese({ name: 'dep', version: '1.0.0', files: { 'index.js': '1' } });
    const [one] = await build(await project({ 'package-lock.json': lockOf('1.0.0') }));
    expect(one).toMatchObject({ name: 'node-app', version: '1.0.0-1~deb12' });
    expect(await paths(one!)).toContain('/usr/lib/node-app/node_modules/dep/index.js');
  });

  it('that disagrees with package.json is an error that names what and why', async () => {
    await serveThese({ name: 'dep', version: '1.0.0' }, { name: 'dep', version: '2.0.0' });
    const changed = { ...manifest, dependencies: { dep: '^2.0.0' } };
    const input = await project({ 'package.json': changed, 'cli.js': '1', 'package-lock.json': lockOf('1.0.0') });
    await expect(build(input)).rejects.toMatchObject({
      code: 'lock-disagrees',
      problems: [{ message: "'dep': the lock has 1.0.0, the project wants ^2.0.0 (2.0.0)" }],
      hint: expect.stringContaining('npm install'),
    });
    expect(await leftovers()).toEqual([]);
  });
});

describe('what cannot be', () => {
  it.each([
    ['nothing', 'npm-not-found', "the registry has no 'nothing"],
    ['dep@^9', 'npm-no-version', "no version of 'dep@^9' is in that range"],
    ['dep@', 'npm-input', 'is not'],
  ])('%s is %s', async (text, code, message) => {
    await serveThese({ name: 'dep', version: '1.0.0' });
    const failure = await build(spec(text === 'dep@' ? 'BAD NAME@1' : text)).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code });
    if (code !== 'npm-input') expect(failure).toMatchObject({ message: expect.stringContaining(message) });
    expect(await leftovers()).toEqual([]);
  });

  it('workspaces are packages of their own, and carry what they need of each other from its folder', async () => {
    await serveThese({ name: 'dep', version: '1.0.0', files: { 'index.js': 'module.exports = "dep"' } });
    const top = await project({
      'package.json': { name: 'top', private: true, workspaces: ['packages/*', '!packages/old'] },
      'packages/cli/package.json': {
        name: 'shop-cli',
        version: '1.0.0',
        bin: 'cli.js',
        dependencies: { 'shop-lib': '^2.0.0' },
      },
      'packages/cli/cli.js': 'console.log(require("shop-lib"))',
      'packages/lib/package.json': {
        name: 'shop-lib',
        version: '2.1.0',
        dependencies: { '@shop/core': '*', dep: '^1.0.0' },
      },
      'packages/lib/index.js': 'module.exports = require("@shop/core") + " " + require("dep")',
      'packages/core/package.json': { name: '@shop/core', version: '0.3.0' },
      'packages/core/index.js': 'module.exports = "core"',
      'packages/old/package.json': { name: 'shop-old', version: '0.1.0' },
    });
    const inputs = await expandWorkspaces([top]);
    expect(inputs.map((one) => one.kind === 'project' && basename(one.folder))).toEqual(['cli', 'core', 'lib']);
    const packages = await build(inputs[0]!);
    expect(packages.map((one) => one.name)).toEqual(['shop-cli']);
    const target = join(world.path, 'workspace-root');
    await extractDeb(world.context, packages[0]!.path, target);
    const { stdout } = await run(world.context, process.execPath, [join(target, 'usr/lib/shop-cli/cli.js')]);
    expect(stdout.trim()).toBe('core dep');
    const own = JSON.parse(await readFile(join(target, 'usr/lib/shop-cli/package.json'), 'utf8'));
    expect(own.dependencies).toEqual({ 'shop-lib': '^2.0.0' });
  });

  it('two needs that exclude each other are shown with both chains', async () => {
    await serveThese(
      { name: 'host', version: '1.0.0' },
      { name: 'host', version: '2.0.0' },
      { name: 'a', version: '1.0.0', manifest: { peerDependencies: { host: '^1.0.0' } } },
      { name: 'b', version: '1.0.0', manifest: { peerDependencies: { host: '^2.0.0' } } },
    );
    const input = await project({
      'package.json': { name: 'app', version: '1.0.0', dependencies: { a: '*', b: '*', host: '^1.0.0' } },
    });
    const failure = (await build(input).catch((error: unknown) => error)) as Error;
    expect(failure).toMatchObject({ code: 'unresolvable' });
    expect(failure.message).toContain('host@^2.0.0');
    expect(failure.message).toContain('host@^1.0.0');
  });

  it('a registry that is down is named, with the next step', async () => {
    const gone = await npmRegistry([]);
    await gone[Symbol.asyncDispose]();
    await expect(build(spec('dep'), {}, context(gone.env))).rejects.toMatchObject({
      code: 'npm-registry',
      exitCode: 4,
      url: expect.stringContaining('127.0.0.1'),
    });
  });

  it('empty workspaces, wrong names and unknown keys are refused', async () => {
    await serveThese();
    const workspace = await project({ 'package.json': { name: 'app', version: '1.0.0', workspaces: ['a'] } });
    await expect(expandWorkspaces([workspace])).rejects.toMatchObject({ code: 'npm-workspaces' });
    const unnamed = await project({ 'package.json': { name: 'ü', version: '1.0.0' } });
    await expect(build(unnamed)).rejects.toMatchObject({ code: 'debian-name' });
    const wrongKey = await project({ 'package.json': { name: 'app', version: '1.0.0', buildkit: { unit: [] } } });
    await expect(build(wrongKey)).rejects.toMatchObject({ code: 'package-json-value', hint: "did you mean 'units'?" });
    const broken = await project({ 'package.json': '{"name": "app",}' });
    await expect(build(broken)).rejects.toMatchObject({ code: 'package-json' });
    const noVersion = await project({ 'package.json': { name: 'app' } });
    await expect(build(noVersion)).rejects.toMatchObject({
      code: 'package-json',
      message: expect.stringContaining('version'),
    });
  });
});

describe('tarballs', () => {
  const honest = { name: 'dep', version: '1.0.0', files: { 'index.js': 'module.exports = 1' } };

  it.each([
    [
      'a path that leaves the folder',
      { ...honest, files: { '!package/../../../../escaped.js': 'x' } },
      'unsafe-tarball',
    ],
    ['an absolute path', { ...honest, files: { '!/tmp/escaped-absolute.js': 'x' } }, 'unsafe-tarball'],
    [
      'other content than the registry promised',
      { ...honest, sendInstead: packTarball({ ...honest, files: {} }) },
      'digest-mismatch',
    ],
    ['half of itself', { ...honest, sendInstead: packTarball(honest).subarray(0, 80) }, 'digest-mismatch'],
  ])('with %s are refused, and nothing stays', async (_, evil, code) => {
    await serveThese({ name: 'app', version: '1.0.0', manifest: { dependencies: { dep: '1.0.0' } } }, evil);
    await expect(build(spec('app'))).rejects.toMatchObject({ code });
    expect(existsSync('/tmp/escaped-absolute.js')).toBe(false);
    expect(existsSync(join(world.path, 'escaped.js'))).toBe(false);
    expect(existsSync(join(world.path, 'out'))).toBe(false);
    expect(await leftovers()).toEqual([]);
    // the cache took nothing of it: what is good now is taken
    await registry![Symbol.asyncDispose]();
    await serveThese({ name: 'app', version: '1.0.1', manifest: { dependencies: { dep: '1.0.0' } } }, honest);
    expect(await build(spec('app'))).toHaveLength(1);
  });

  it('given as files are looked through before npm opens them', async () => {
    await serveThese();
    const evil = join(world.path, 'evil.tgz');
    await writeFile(evil, packTarball({ ...honest, files: { '!package/../../x': 'x' } }));
    await expect(build(spec(evil))).rejects.toMatchObject({ code: 'unsafe-tarball' });
    const good = join(world.path, 'good.tgz');
    await writeFile(good, packTarball(honest));
    expect(await build(spec(good))).toMatchObject([{ name: 'node-dep', version: '1.0.0-1~deb12' }]);
  });
});

describe('packages from git', () => {
  const identity = ['-c', 'user.name=Ada', '-c', 'user.email=ada@debian.org', '-c', 'init.defaultBranch=main'];
  /** A bare repository with one commit, tagged v1.2.0. @returns its commit */
  async function repository(name: string, files: Readonly<Record<string, unknown>>): Promise<string> {
    const bare = join(world.path, `${name}.git`);
    const { stdout } = await run(
      {},
      'sh',
      [
        '-ec',
        `git "$@" init -q . && git add -A && git "$@" commit -qm one &&
      git tag v1.2.0 && git clone -q --bare . '${bare}' && git rev-parse HEAD`,
        'sh',
        ...identity,
      ],
      {
        cwd: await folderWith(name, files),
      },
    );
    return stdout.trim();
  }
  const url = (name: string) => `git+file://${world.path}/${name}.git`;
  const lib = {
    'package.json': {
      name: 'lib',
      version: '1.2.0',
      main: 'lib.js',
      files: ['lib.js'],
      scripts: { prepare: 'compile src.txt lib.js' },
      devDependencies: { compiler: '^1.0.0' },
    },
    'src.txt': 'module.exports = "prepared"',
  };
  const compiler: FakePackage = {
    name: 'compiler',
    version: '1.0.0',
    manifest: { bin: { compile: 'compile.js' } },
    files: { 'compile.js': '#!/usr/bin/env node\nrequire("fs").copyFileSync(process.argv[2], process.argv[3]);' },
  };
  const app = (dependency: string) => ({
    'package.json': { name: 'app', version: '1.0.0', bin: 'cli.js', dependencies: { lib: dependency } },
    'cli.js': 'console.log(require("lib"))',
  });

  it('are built at their commit, prepared only when that is allowed, with their own tools', async () => {
    await repository('lib', lib);
    await serveThese(compiler);
    const input = await project(app(`${url('lib')}#semver:^1.0.0`));
    const [plain] = await build(input);
    expect(await paths(plain!)).not.toContain('/usr/lib/app/node_modules/lib/lib.js');
    expect(world.warnings.join()).toContain(
      "'lib@1.2.0' comes from git and was not prepared (prepare: compile src.txt",
    );
    expect(registry!.requests).toEqual([]);
    const [one] = await build(input, { allowScripts: ['lib'] });
    expect(await paths(one!)).not.toContain('/usr/lib/app/node_modules/lib/src.txt');
    await extractDeb({}, one!.path, join(world.path, 'root'));
    const { stdout } = await run({}, process.execPath, [join(world.path, 'root/usr/lib/app/cli.js')]);
    expect(stdout).toBe('prepared\n');
    const [again] = await build(input, { allowScripts: ['lib'] }, context({ TZ: 'Asia/Tokyo' }));
    expect(again!.sha256).toBe(one!.sha256);
    expect(await leftovers()).toEqual([]);
  });

  it('are found by the short names of hosts, and kept to by a lock', async () => {
    const commit = await repository('lib', {
      'package.json': { name: 'lib', version: '1.2.0' },
      'index.js': 'exports.a = 1',
    });
    await serveThese();
    const config = join(world.path, 'gitconfig');
    await writeFile(config, `[url "file://${world.path}/"]\n  insteadOf = https://github.com/acme/\n`);
    const before = process.env.GIT_CONFIG_GLOBAL; // npm starts git by itself
    process.env.GIT_CONFIG_GLOBAL = config;
    try {
      const from = context({ GIT_CONFIG_GLOBAL: config });
      const [one] = await build(await project(app('github:acme/lib#v1.2.0')), {}, from);
      expect(await paths(one!)).toContain('/usr/lib/app/node_modules/lib/index.js');
      const lock = {
        name: 'app',
        version: '1.0.0',
        lockfileVersion: 3,
        packages: {
          '': { name: 'app', version: '1.0.0', dependencies: { lib: 'github:acme/lib' } },
          'node_modules/lib': { version: '1.2.0', resolved: `git+ssh://git@github.com/acme/lib.git#${commit}` },
        },
      };
      const locked = await project({ ...app('github:acme/lib'), 'package-lock.json': lock });
      expect(await paths((await build(locked, {}, from))[0]!)).toContain('/usr/lib/app/node_modules/lib/index.js');
    } finally {
      if (before === undefined) delete process.env.GIT_CONFIG_GLOBAL;
      else process.env.GIT_CONFIG_GLOBAL = before;
    }
  });

  it('that nobody can fetch, or that others want from this machine, are errors', async () => {
    await serveThese();
    const gone = await project(app('git+http://127.0.0.1:1/x.git'));
    await expect(build(gone)).rejects.toMatchObject({ code: 'npm-git', exitCode: 4, url: 'http://127.0.0.1:1/x.git' });
    const noCommit = await project(app(`${url('lib')}#nothing`));
    await repository('lib', { 'package.json': { name: 'lib', version: '1.2.0' } });
    await expect(build(noCommit)).rejects.toMatchObject({ code: 'npm-git' });
    await registry![Symbol.asyncDispose]();
    await serveThese({ name: 'dep', version: '1.0.0', manifest: { dependencies: { lib: url('lib') } } });
    await expect(build(spec('dep'))).rejects.toMatchObject({ code: 'npm-source' });
    expect(await leftovers()).toEqual([]);
  });
});

describe('the target', () => {
  const platform = (cpu: string) => ({
    name: `tool-linux-${cpu}`,
    version: '1.0.0',
    manifest: { os: ['linux'], cpu: [cpu] },
    files: { 'tool.txt': cpu },
  });
  const tool = {
    name: 'tool',
    version: '1.0.0',
    manifest: { optionalDependencies: { 'tool-linux-x64': '1.0.0', 'tool-linux-arm64': '1.0.0' } },
  };

  it.each(['amd64', 'arm64'])('%s decides which platform package comes in, not this machine', async (architecture) => {
    await serveThese(tool, platform('x64'), platform('arm64'));
    const [one] = await build(spec('tool'), { architecture });
    const cpu = architecture === 'amd64' ? 'x64' : 'arm64';
    expect((await paths(one!)).filter((path) => path.endsWith('tool.txt'))).toEqual([
      `/usr/lib/node-tool/node_modules/tool-linux-${cpu}/tool.txt`,
    ]);
  });

  it('is told when something that is needed is not for it', async () => {
    await serveThese(
      { name: 'app', version: '1.0.0', manifest: { dependencies: { 'tool-linux-arm64': '1.0.0' } } },
      platform('arm64'),
    );
    await expect(build(spec('app'))).rejects.toMatchObject({ code: 'npm-platform' });
  });
});

describe('install scripts', () => {
  const probe = `const net = require('node:net'); const fs = require('node:fs');
    const seen = { token: process.env.NPM_TOKEN ?? null, target: process.env.npm_config_target };
    net.connect(Number(process.env.PROBE_PORT ?? 9), '127.0.0.1')
      .on('connect', () => { fs.writeFileSync('made.json', JSON.stringify({ ...seen, net: true })); process.exit(); })
      .on('error', (error) => fs.writeFileSync('made.json', JSON.stringify({ ...seen, net: error.code })));`;
  const scripted = (command: string): FakePackage => ({
    name: 'scripted',
    version: '1.0.0',
    manifest: { scripts: { postinstall: command } },
    files: { 'probe.js': probe },
  });

  it('do not run by themselves, which is said', async () => {
    await serveThese(scripted('node probe.js'));
    const [one] = await build(spec('scripted'));
    expect((await paths(one!)).join('\n')).not.toContain('made.json');
    expect(world.warnings).toEqual([
      expect.stringMatching(
        /'scripted@1\.0\.0' has install scripts, which did not run \(postinstall: node probe\.js\)/,
      ),
    ]);
  });

  it('run when they are allowed, without network and credentials, for the target', async () => {
    await serveThese(scripted('node probe.js'));
    const from = context({ NPM_TOKEN: 'secret', PROBE_PORT: new URL(registry!.url).port });
    const [one] = await build(spec('scripted'), { allowScripts: ['scripted'] }, from);
    await extractDeb({}, one!.path, join(world.path, 'root'));
    const made = await readFile(join(world.path, 'root/usr/lib/node-scripted/node_modules/scripted/made.json'), 'utf8');
    expect(JSON.parse(made)).toEqual({
      token: null,
      target: '18.20.4',
      net: expect.stringMatching(/^E(NETUNREACH|CONNREFUSED)$/),
    });
    expect(world.warnings).toEqual([]);
  });

  it('that fail end the build with the log', async () => {
    await serveThese(scripted('echo before; echo wrong >&2; exit 3'));
    const failure = await build(spec('scripted'), { allowScripts: ['scripted@1.0.0'] }).catch(
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({
      code: 'install-script',
      message: expect.stringMatching(/postinstall script of 'scripted@1\.0\.0' failed:\n {2}wrong/),
    });
    expect(await readFile(join(world.context.stateDir, 'logs/install-scripted.log'), 'utf8')).toContain('before');
  });

  it('compile native add-ons against the headers of the target, twice the same', async () => {
    const source = `#include <node_api.h>
#include <node_version.h>
NAPI_MODULE_INIT() { napi_value value; napi_create_int32(env, NODE_MAJOR_VERSION, &value); return value; }
`;
    const addon = {
      name: 'addon',
      version: '1.0.0',
      files: {
        'binding.gyp': '{"targets":[{"target_name":"addon","sources":["addon.c"]}]}',
        'addon.c': source,
        'index.js': "module.exports = require('./build/Release/addon.node');",
      },
    };
    await serveThese(addon);
    const [one] = await build(spec('addon'), { allowScripts: ['addon'] });
    expect(one!.architecture).toBe('amd64');
    await extractDeb({}, one!.path, join(world.path, 'root'));
    const module = join(world.path, 'root/usr/lib/node-addon/node_modules/addon');
    expect((await run({}, process.execPath, ['-p', `require('${module}')`])).stdout).toBe('18\n');
    expect((await readdir(join(module, 'build'))).concat(await readdir(join(module, 'build/Release')))).toEqual([
      'Release',
      'addon.node',
    ]);
    const [again] = await build(spec('addon'), { allowScripts: ['addon'] });
    expect(again!.sha256).toBe(one!.sha256);
  });

  it('native add-ons that may not be compiled are an error', async () => {
    await serveThese({ name: 'addon', version: '1.0.0', files: { 'binding.gyp': '{}' } });
    await expect(build(spec('addon'))).rejects.toMatchObject({
      code: 'native-addon',
      hint: expect.stringContaining('allowScripts'),
    });
  });
});

describe('the packages', () => {
  const world1: FakePackage[] = [
    {
      name: 'app',
      version: '1.0.0',
      manifest: { bin: { app: 'cli.mjs' }, dependencies: { dual: '^2.0.0', old: '^1.0.0' } },
      files: { 'cli.mjs': "import dual from 'dual'; import old from 'old'; console.log(dual.version, old.version);" },
    },
    {
      name: 'old',
      version: '1.0.0',
      manifest: { main: 'index.js', dependencies: { dual: '^1.0.0' } },
      files: { 'index.js': "exports.version = 'old with ' + require('dual').version;" },
    },
    ...['1.5.0', '2.1.0'].map((version) => ({
      name: 'dual',
      version,
      manifest: { exports: { import: './index.mjs', require: './index.cjs' } },
      files: {
        'index.mjs': `export default { version: 'esm ${version}' };`,
        'index.cjs': `exports.version = 'cjs ${version}';`,
      },
    })),
  ];

  it.each(['bundle', 'packages'] as const)('as %s let require and import find each its own version', async (mode) => {
    await serveThese(...world1);
    const packages = await build(spec('app'), { mode });
    expect(packages.map((one) => one.name)).toEqual(
      mode === 'bundle' ? ['node-app'] : ['node-app', 'node-app-1', 'node-dual-1', 'node-dual-2', 'node-old-1'],
    );
    const root = join(world.path, 'root');
    for (const one of packages) await extractDeb({}, one.path, root);
    const { stdout } = await run({}, process.execPath, [join(root, 'usr/bin/app')]);
    expect(stdout).toBe('esm 2.1.0 old with cjs 1.5.0\n');
    const wanted = `${root}/usr/share/nodejs/old/package.json`;
    const found = await run({}, process.execPath, ['-p', "require('old').version"], {
      env: { NODE_PATH: join(root, 'usr/share/nodejs') },
      okExitCodes: [1],
    });
    expect(existsSync(wanted)).toBe(false); // only what was asked for is public
    expect(found.exitCode).toBe(1);
    const own = await run({}, process.execPath, ['-p', "require.resolve('app/package.json')"], {
      env: { NODE_PATH: join(root, 'usr/share/nodejs') },
    });
    expect(own.stdout).toContain(mode === 'bundle' ? '/usr/lib/node-app/' : '/.store/app@1/');
  });

  it.each(['bundle', 'packages'] as const)(
    'as %s have the same bytes wherever and whenever they are made',
    async (mode) => {
      await serveThese(...world1);
      const first = await build(spec('app'), { mode });
      await using elsewhere = await createWorld(new Date('2031-05-05'));
      const before = process.umask(0o077);
      const saved = world;
      try {
        world = elsewhere;
        const second = await build(
          spec('app'),
          { mode },
          { ...context(), env: { ...context().env, TZ: 'Asia/Tokyo' } },
        );
        expect(second.map((one) => one.sha256)).toEqual(first.map((one) => one.sha256));
      } finally {
        world = saved;
        process.umask(before);
      }
    },
  );

  it('come from the registry of their scope, with the credentials for it', async () => {
    await using other = await npmRegistry([{ name: '@acme/inner', version: '1.0.0' }]);
    await serveThese({ name: 'app', version: '1.0.0', manifest: { dependencies: { '@acme/inner': '^1.0.0' } } });
    const host = new URL(other.url).host;
    const home = join(world.path, 'home');
    await mkdir(home);
    const npmrc = `@acme:registry=${other.url}\n//${host}/:_authToken=t0ken\n`;
    await writeFile(join(home, '.npmrc'), npmrc);
    const [one] = await build(spec('app'), {}, context({ npm_config_userconfig: join(home, '.npmrc') }));
    expect(await paths(one!)).toContain('/usr/lib/node-app/node_modules/@acme/inner/package.json');
    expect(new Set(other.requests.map((request) => request.authorization))).toEqual(new Set(['Bearer t0ken']));
    expect(new Set(registry!.requests.map((request) => request.authorization))).toEqual(new Set([undefined]));
  });

  it('hold what comes inside of the tarballs of others', async () => {
    const inner = { name: 'inner', version: '3.0.0' };
    await serveThese({
      name: 'outer',
      version: '1.0.0',
      manifest: { dependencies: { inner: '^3.0.0' }, bundleDependencies: ['inner'] },
      files: {
        'index.js': 'module.exports = require("inner")',
        'node_modules/inner/package.json': JSON.stringify(inner),
        'node_modules/inner/index.js': 'module.exports = "inside"',
      },
    });
    const [one] = await build(spec('outer'));
    await extractDeb({}, one!.path, join(world.path, 'root'));
    const place = join(world.path, 'root/usr/lib/node-outer/node_modules/outer');
    expect((await run({}, process.execPath, ['-p', `require('${place}')`])).stdout).toBe('inside\n');
    expect(registry!.requests.map((request) => request.path)).not.toContain('/inner');
  });

  it('hold folders as they would be published, with and without a lock', async () => {
    await serveThese({ name: 'dep', version: '1.0.0', files: { 'index.js': 'module.exports = "dep"' } });
    await folderWith('lib', {
      'package.json': { name: 'lib', version: '0.1.0', files: ['index.js'], dependencies: { dep: '^1.0.0' } },
      'index.js': 'module.exports = "lib " + require("dep")',
      'notes.txt': 'x',
    });
    const files = {
      'package.json': { name: 'app', version: '1.0.0', bin: 'cli.js', dependencies: { lib: 'file:../lib' } },
      'cli.js': 'console.log(require("lib"))',
    };
    const [one] = await build(await project(files));
    expect((await paths(one!)).filter((path) => path.includes('node_modules/lib'))).toEqual(
      expect.not.arrayContaining([expect.stringContaining('notes.txt')]),
    );
    await extractDeb({}, one!.path, join(world.path, 'root'));
    const { stdout } = await run({}, process.execPath, [join(world.path, 'root/usr/lib/app/cli.js')]);
    expect(stdout).toBe('lib dep\n');
    const lock = {
      name: 'app',
      version: '1.0.0',
      lockfileVersion: 3,
      packages: {
        '': { name: 'app', version: '1.0.0', dependencies: { lib: 'file:../lib' } },
        '../lib': { version: '0.1.0', dependencies: { dep: '^1.0.0' } },
        '../lib/node_modules/dep': { version: '1.0.0' },
        'node_modules/lib': { resolved: '../lib', link: true },
      },
    };
    const [locked] = await build(await project({ ...files, 'package-lock.json': lock }));
    expect((await paths(locked!)).filter((path) => path.includes('/dep/'))).toEqual(
      ['index.js', 'package.json'].map((name) => `/usr/lib/app/node_modules/lib/node_modules/dep/${name}`),
    );
    await extractDeb({}, locked!.path, join(world.path, 'locked'));
    const again = await run({}, process.execPath, [join(world.path, 'locked/usr/lib/app/cli.js')]);
    expect(again.stdout).toBe('lib dep\n');
  });

  it('of a project are from the day, and say the changes, of its commits and tags', async () => {
    await serveThese();
    const manifest = { name: 'app', version: '2.0.0', bin: 'cli.js' };
    const input = await project({ 'package.json': manifest, 'cli.js': '1' });
    const git = (text: string) =>
      run({}, 'sh', ['-ec', `git() { command git -C "$0" "$@"; }; ${text}`, join(world.path, 'project')], {
        env: Object.fromEntries(
          ['AUTHOR', 'COMMITTER'].flatMap((who) => [
            [`GIT_${who}_NAME`, 'Ada'],
            [`GIT_${who}_EMAIL`, 'ada@debian.org'],
            [`GIT_${who}_DATE`, '2024-05-05T05:05:05Z'],
          ]),
        ),
      });
    await git('git init -q; git add .; git commit -qm "Begin"; git tag v1.9.0');
    const changelog = async (one: BinaryPackage, root: string) => {
      await extractDeb({}, one.path, join(world.path, root));
      return gunzipSync(await readFile(join(world.path, root, 'usr/share/doc/app/changelog.Debian.gz'))).toString();
    };
    const entry = (version: string, changes: readonly string[]) =>
      `${[version, '', ...changes.map((one) => `  * ${one}`), '', ' -- Ada'].join('\n')}`;
    const [first] = await build(input);
    expect(await changelog(first!, 'one')).toContain(
      entry('app (2.0.0-1~deb12) bookworm; urgency=medium', [
        'Built by buildkit from its source tree, version 2.0.0.',
        'Begin',
      ]),
    );
    await git('git commit -q --allow-empty -m "Not here"; echo 2 >"$0/cli.js"; git commit -qam "Go on"');
    const [second] = await build(input);
    const text = await changelog(second!, 'two');
    expect(text).toContain('version 2.0.0.\n  * Go on\n');
    expect(text).toContain(entry('app (1.9.0) unstable; urgency=medium', ['Begin']));
    const { stdout } = await run({}, 'dpkg-deb', ['-c', second!.path]);
    expect(stdout).toContain('2024-05-05 05:05 ./usr/lib/app/cli.js');
    const debian =
      'app (1.0) bookworm; urgency=low\n\n  * X.\n\n -- Ada <ada@debian.org>  Sat, 01 Nov 2025 10:00:00 +0000\n';
    const [third] = await build(await project({ 'package.json': manifest, 'cli.js': '1', 'debian/changelog': debian }));
    expect(await changelog(third!, 'three')).toContain(debian);
    expect((await run({}, 'dpkg-deb', ['-c', third!.path])).stdout).toContain('2025-11-01 10:00 ./usr/lib/app/cli.js');
  });

  it('of a project leave its own package.json as it is, without what is for developers', async () => {
    await serveThese({ name: 'dep', version: '1.0.0' }, { name: 'tool', version: '1.0.0' });
    const text =
      '{ "name": "app",\n "version": "1.0.0", "bin": "cli.js", "dependencies": {"dep": "^1.0.0"}, "devDependencies": {"tool": "1"} }\n';
    const [one] = await build(
      await project({ 'package.json': text, 'cli.js': 'require("dep")', '.npmrc': 'fund=false' }),
    );
    expect(one!.name).toBe('app');
    await extractDeb({}, one!.path, join(world.path, 'root'));
    expect(await readFile(join(world.path, 'root/usr/lib/app/package.json'), 'utf8')).toBe(text);
    const installed = await paths(one!);
    expect(installed).toContain('/usr/bin/app');
    expect(installed.filter((path) => /tool|npmrc|lock/.test(path))).toEqual([]);
    expect(registry!.requests.map((request) => request.path)).not.toContain('/tool');
  });
});
