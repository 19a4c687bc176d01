/** Real clients of the cache: the program's own commands, apt with its detector, npm and pip. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { clientConfiguration } from '../../src/proxy/client.ts';
import { createAptRoot } from '../support/apt-root.ts';
import { npmRegistry } from '../support/npm-registry.ts';
import { buildArchive, poolPath, publish, randomPackage, testKey } from '../support/proxy-archive.ts';
import { sha256, startUpstream } from '../support/proxy-upstream.ts';
import { startProxy } from '../support/proxy-world.ts';

async function scratch(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'buildkit-proxy-clients-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

describe('apt with the detector that proxy configure writes', () => {
  it('uses the proxy while it answers and goes direct when it is down', async () => {
    await using upstream = await startUpstream();
    await using folder = await scratch();
    const key = await testKey();
    publish(
      upstream,
      await buildArchive({ date: new Date('2026-10-01T00:00:00Z'), packages: [randomPackage('hello', 100)], key }),
    );
    await using world = await startProxy([`${upstream.url}/archive`], { keys: [key.publicKeyArmored] });
    const keyring = join(folder.path, 'key.asc');
    await writeFile(keyring, key.publicKeyArmored);
    const script = clientConfiguration(world.url, { direct: [] }).files[1]!;
    const detector = join(folder.path, 'detect');
    await writeFile(detector, script.text, { mode: script.mode });
    const update = async () => {
      await using root = await createAptRoot({
        sources: `Types: deb\nURIs: ${upstream.url}/archive\nSuites: stable\nComponents: main\nSigned-By: ${keyring}\n`,
        // the fixture says DIRECT for all; a detector is asked only where no proxy is set
        configuration: ['#clear Acquire::http::Proxy;', `Acquire::http::Proxy-Auto-Detect "${detector}";`],
      });
      await root.update();
    };
    await update();
    expect(world.proxy.cache.metrics.get('requests')).toBeGreaterThan(0);
    await world.proxy.close();
    const before = upstream.log.length;
    await update();
    expect(upstream.log.length).toBeGreaterThan(before);
  }, 120_000);
});

describe('the commands', () => {
  it('fill, list, explain, freeze, drop and verify a cache', async () => {
    await using upstream = await startUpstream();
    await using folder = await scratch();
    const key = await testKey();
    const hello = randomPackage('hello', 5000);
    publish(upstream, await buildArchive({ date: new Date('2026-10-01T00:00:00Z'), packages: [hello], key }));
    await writeFile(join(folder.path, 'key.asc'), key.publicKeyArmored);
    await writeFile(
      join(folder.path, 'buildkit.yaml'),
      `proxy:\n  keyrings: [key.asc]\n  backends:\n    own: { mirrors: ["${upstream.url}/archive"], signatures: require }\n`,
    );
    const buildkit = (...args: readonly string[]) =>
      run({}, 'bin/buildkit', ['-C', folder.path, '--state', join(folder.path, 'state'), 'proxy', ...args], {
        timeoutMs: 60_000,
        okExitCodes: [1],
      });
    expect((await buildkit('precache', 'stable', 'hello', '--backend', 'own')).stdout).toContain(
      '1 indexes; fetched 1 packages (5.0 kB)',
    );
    expect((await buildkit('ls', 'own/pool/*')).stdout).toMatch(
      /own\/pool\/main\/h\/hello\/hello_1\.0-1_amd64\.deb +5\.0 kB +verified/,
    );
    expect((await buildkit('ls', 'Packages')).stdout).toMatch(/^own\/dists\/stable\/.*Packages\.gz +\S+ B +verified$/m);
    expect((await buildkit('drop', 'own/dists/*')).stdout).toBe(
      '0 addresses forgotten; 2 Release files and indexes stay with their suites\n',
    );
    expect((await buildkit('why', `own/${poolPath(hello)}`)).stdout).toContain('digest of a signed index');
    expect((await buildkit('freeze', 'monday')).stdout).toContain('/frozen/monday/own/');
    expect((await buildkit('freeze', 'monday')).exitCode).toBe(1);
    expect((await buildkit('verify')).stdout).toMatch(/ 0 wrong/);
    await writeFile(
      join(folder.path, 'state/cache/proxy/objects', sha256(hello.bytes).slice(0, 2), sha256(hello.bytes)),
      'wrong',
    );
    expect((await buildkit('verify')).exitCode).toBe(1);
    expect((await buildkit('verify', '--repair')).exitCode).toBe(0);
    expect(JSON.parse((await buildkit('stats', '--json')).stdout)).toMatchObject({ objects: 3, urls: 0 });
    await buildkit('configure', '--apply', '--root', join(folder.path, 'root'));
    expect(await readFile(join(folder.path, 'root/etc/apt/apt.conf.d/30buildkit-proxy'), 'utf8')).toContain(
      'Proxy-Auto-Detect',
    );
  }, 180_000);
});

describe('npm', () => {
  it('installs the same packages again offline, with an empty cache of its own', async () => {
    await using folder = await scratch();
    const { stdout } = await run({}, 'npm', ['config', 'get', 'registry'], { timeoutMs: 60_000 });
    await using world = await startProxy([], { settings: { npmRegistry: stdout.trim(), maxAge: 600 } });
    const install = async (name: string) => {
      const dir = join(folder.path, name);
      await mkdir(dir);
      await writeFile(join(dir, 'package.json'), '{"name":"x","version":"1.0.0","private":true}');
      const args = [
        'install',
        '--no-audit',
        '--no-fund',
        '--ignore-scripts',
        `--registry=${world.url}/npm/`,
        `--cache=${join(dir, 'cache')}`,
        'rimraf@6.1.4',
      ];
      await run({}, 'npm', args, { cwd: dir, timeoutMs: 180_000 });
      return readFile(join(dir, 'node_modules/rimraf/package.json'), 'utf8');
    };
    const first = await install('one');
    await world.restart({ offline: true });
    expect(await install('two')).toBe(first);
    expect(world.proxy.cache.store.missing()).toEqual([]);
    expect(world.proxy.cache.store.urls('npm/*.tgz').every((one) => one.verified === 2)).toBe(true);
  }, 400_000);
});

describe('pip', () => {
  it('downloads the same wheel again offline', async () => {
    await using upstream = await startUpstream();
    await using folder = await scratch();
    const bytes = await demoWheel(folder.path);
    upstream.put('/files/demo-1.0-py3-none-any.whl', bytes);
    upstream.put(
      '/simple/demo/',
      `<a href="../../files/demo-1.0-py3-none-any.whl#sha256=${sha256(bytes)}">demo-1.0-py3-none-any.whl</a>`,
    );
    await using world = await startProxy([], { settings: { pypiIndex: `${upstream.url}/simple`, maxAge: 600 } });
    const download = async (name: string) => {
      const dir = join(folder.path, name);
      const env = { ...process.env, PIP_CONFIG_FILE: '/dev/null', PIP_FIND_LINKS: undefined, PIP_NO_INDEX: undefined };
      await run(
        { env },
        'python3',
        [
          '-m',
          'pip',
          'download',
          '--no-deps',
          '--no-cache-dir',
          '--index-url',
          `${world.url}/pypi/simple/`,
          '-d',
          dir,
          'demo==1.0',
        ],
        { timeoutMs: 120_000 },
      );
      return sha256(await readFile(join(dir, 'demo-1.0-py3-none-any.whl')));
    };
    expect(await download('one')).toBe(sha256(bytes));
    const asked = upstream.log.length;
    await world.restart({ offline: true });
    expect(await download('two')).toBe(sha256(bytes));
    expect(upstream.log.length).toBe(asked);
  }, 180_000);
});

describe('a whole build', () => {
  it('is made again offline, byte for byte, with pip and npm pointed at the cache', async () => {
    await using upstream = await startUpstream();
    await using folder = await scratch();
    const wheel = await demoWheel(folder.path);
    upstream.put('/files/demo-1.0-py3-none-any.whl', wheel);
    upstream.put(
      '/simple/demo/',
      `<a href="../../files/demo-1.0-py3-none-any.whl#sha256=${sha256(wheel)}">demo-1.0-py3-none-any.whl</a>`,
    );
    upstream.put('/simple/pip/', '<a href="pip-1.tar.gz">pip-1.tar.gz</a>');
    const registry = await npmRegistry([
      { name: 'tiny', version: '1.2.0', files: { 'package/index.js': 'module.exports = 1;\n' } },
    ]);
    await using _registry = registry;
    await writeFile(
      join(folder.path, 'buildkit.yaml'),
      `proxy:\n  pypi-index: ${upstream.url}/simple\n  npm-registry: ${registry.url}\n`,
    );
    await using world = await startProxy([], {
      settings: { pypiIndex: `${upstream.url}/simple`, npmRegistry: registry.url, maxAge: 86_400 },
    });
    const build = async (name: string) => {
      const env = {
        ...{ PIP_CONFIG_FILE: '/dev/null', PIP_FIND_LINKS: undefined, PIP_NO_INDEX: undefined },
        ...{ DEBFULLNAME: 'A', DEBEMAIL: 'a@example.org', SOURCE_DATE_EPOCH: '1790000000', ...registry.env },
      };
      const dir = join(folder.path, name);
      const args = [
        '-C',
        folder.path,
        '--state',
        join(dir, 'state'),
        '--json',
        'pkg',
        'build',
        'demo==1.0',
        'npm:tiny@1.2.0',
      ];
      const { stdout } = await run({}, 'bin/buildkit', [...args, '--out', join(dir, 'out'), '--proxy', world.url], {
        env,
        timeoutMs: 170_000,
      });
      const { packages } = JSON.parse(stdout) as { packages: { name: string; sha256: string }[] };
      return packages.map((one) => [one.name, one.sha256]);
    };
    const first = await build('online');
    expect(first.length).toBe(2);
    const asked = upstream.log.length + registry.requests.length;
    await world.restart({ offline: true });
    expect(await build('offline')).toEqual(first);
    expect(upstream.log.length + registry.requests.length).toBe(asked);
    expect(world.proxy.cache.store.missing()).toEqual([]);
  }, 400_000);
});

async function demoWheel(folder: string): Promise<Buffer> {
  const script = [
    'import sys, zipfile',
    "with zipfile.ZipFile(sys.argv[1], 'w') as z:",
    "    z.writestr('demo.py', 'x = 1\\n')",
    "    z.writestr('demo-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n')",
    "    z.writestr('demo-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')",
    "    z.writestr('demo-1.0.dist-info/RECORD', 'demo.py,,\\ndemo-1.0.dist-info/METADATA,,\\ndemo-1.0.dist-info/WHEEL,,\\ndemo-1.0.dist-info/RECORD,,\\n')",
  ].join('\n');
  const wheel = join(folder, 'demo-1.0-py3-none-any.whl');
  await run({}, 'python3', ['-c', script, wheel]);
  return readFile(wheel);
}
