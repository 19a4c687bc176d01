/** Filling the cache beforehand: caches that the real apt-cacher-ng and approx made, apt's own archives, lists and locks. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run, start } from '../../src/core/run.ts';
import { parseLock } from '../../src/pkg/python/lock.ts';
import { importTree, precache } from '../../src/proxy/intake.ts';
import { readLocked } from '../../src/proxy/locks.ts';
import { prefetch } from '../../src/proxy/prefetch.ts';
import { createAptRoot } from '../support/apt-root.ts';
import { type Borrowed, borrow } from '../support/borrowed.ts';
import { freePort } from '../support/debian-root.ts';
import { npmRegistry } from '../support/npm-registry.ts';
import {
  type ArchivePackage,
  buildArchive,
  poolPath,
  publish,
  randomPackage,
  testKey,
} from '../support/proxy-archive.ts';
import { type FakeUpstream, sha256, startUpstream } from '../support/proxy-upstream.ts';
import { ask, startProxy } from '../support/proxy-world.ts';

let folder: string;
let borrowed: Borrowed;
let upstream: FakeUpstream;
let packages: ArchivePackage[];
let key: Awaited<ReturnType<typeof testKey>>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-proxy-fill-'));
  borrowed = await borrow(['approx']);
  upstream = await startUpstream(await lowFreePort());
  key = await testKey();
  await writeFile(join(folder, 'key.asc'), key.publicKeyArmored);
  packages = [randomPackage('hello', 40_000), randomPackage('libx', 3000, '1:2.0-1')];
  publish(upstream, await buildArchive({ date: new Date('2026-10-01T00:00:00Z'), packages, key }));
}, 180_000);
afterAll(async () => {
  await upstream?.[Symbol.asyncDispose]();
  await borrowed?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** apt-cacher-ng neither listens on nor reaches ports from 32768 on, which are those that the kernel chooses. */
async function lowFreePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    if (await isFree(port)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer().once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

const NOTHING_MORE = { packages: [], architectures: ['amd64'], components: ['main'] };

/** A cache with the indexes of the archive and nothing else. */
async function emptyCache() {
  const world = await startProxy([`${upstream.url}/archive`], {
    keys: [key.publicKeyArmored],
    settings: { maxAge: 86_400 },
  });
  await precache(world.proxy.cache, 'archive', 'stable', NOTHING_MORE);
  return world;
}

async function expectFilled(world: Awaited<ReturnType<typeof emptyCache>>): Promise<void> {
  const asked = upstream.count(/pool/);
  for (const one of packages) {
    const answer = await world.ask(`/archive/${poolPath(one)}`);
    expect([answer.headers['x-cache'], sha256(answer.body)]).toEqual(['HIT', sha256(one.bytes)]);
  }
  expect(upstream.count(/pool/)).toBe(asked);
}

describe('proxy import', () => {
  it('takes the cache of the real approx', async () => {
    const dir = join(folder, 'approx');
    await mkdir(join(dir, 'cache'), { recursive: true });
    const config = join(dir, 'approx.conf');
    await writeFile(
      config,
      `archive ${upstream.url}/archive\n$cache ${dir}/cache\n$user root\n$group root\n$syslog daemon\n`,
    );
    const port = await freePort();
    const program = join(borrowed.path, 'usr/sbin/approx');
    await using _approx = start(
      {},
      'systemd-socket-activate',
      ['--inetd', '-a', '-l', `127.0.0.1:${port}`, program, '-c', config],
      {
        stdio: { stdout: 'ignore', stderr: 'ignore' },
      },
    );
    for (const one of packages) {
      const get = () =>
        ask(`http://127.0.0.1:${port}`, `/archive/${poolPath(one)}`).then(
          (answer) => answer.status,
          () => 0,
        );
      await expect.poll(get, { timeout: 60_000, interval: 200 }).toBe(200);
    }
    await using world = await emptyCache();
    const report = await importTree(world.proxy.cache, join(dir, 'cache'));
    expect(report).toMatchObject({ imported: 2, present: 0 });
    await expectFilled(world);
  }, 120_000);

  it('takes the cache of the real apt-cacher-ng, filled by the real apt', async () => {
    const dir = join(folder, 'apt-cacher-ng');
    for (const one of ['cache', 'log']) await mkdir(join(dir, one), { recursive: true });
    const port = await lowFreePort();
    const settings = [
      ...[`CacheDir=${dir}/cache`, `LogDir=${dir}/log`, 'SocketPath=', 'PidFile='],
      ...['BindAddress=127.0.0.1', `Port=${port}`, 'ForeGround=1', 'AllowUserPorts=0'],
    ];
    await using _acng = start({}, '/usr/sbin/apt-cacher-ng', ['-c', '/etc/apt-cacher-ng', ...settings], {
      stdio: { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' },
    });
    const answers = () =>
      ask(`http://127.0.0.1:${port}`, '/').then(
        () => true,
        () => false,
      );
    await expect.poll(answers, { timeout: 60_000, interval: 200 }).toBe(true);
    await using root = await createAptRoot({
      sources: `Types: deb\nSigned-By: ${folder}/key.asc\nURIs: ${upstream.url}/archive\nSuites: stable\nComponents: main\n`,
      configuration: [`Acquire::http::Proxy "http://127.0.0.1:${port}";`],
    });
    await root.update();
    const direct = upstream.count(/pool/);
    const got = await root.run('apt-get', 'install', '--download-only', '-y', 'hello', 'libx');
    expect([got.exitCode, upstream.count(/pool/)]).toEqual([0, direct + 2]);
    await using world = await emptyCache();
    const report = await importTree(world.proxy.cache, join(dir, 'cache'));
    expect(report).toMatchObject({ imported: 2, present: 0 });
    // what it keeps of its own beside the files is no content that an index should name
    expect(report.unknown.filter((path) => !/\/dists\//.test(path))).toEqual([]);
    await expectFilled(world);
  }, 120_000);

  it("takes what apt itself keeps, and a mirror's tree", async () => {
    const sources = `Types: deb\nSigned-By: ${folder}/key.asc\nURIs: ${upstream.url}/archive\nSuites: stable\nComponents: main\n`;
    await using root = await createAptRoot({ sources });
    await root.update();
    const archives = join(root.path, 'var/cache/apt/archives');
    await root.run('apt-get', 'install', '--download-only', '-y', 'hello', 'libx');
    await using world = await emptyCache();
    expect(await importTree(world.proxy.cache, archives)).toMatchObject({ imported: 2, present: 0 });
    await expectFilled(world);
    const tree = join(folder, 'mirror');
    for (const one of packages) {
      await mkdir(join(tree, poolPath(one), '..'), { recursive: true });
      await writeFile(join(tree, poolPath(one)), one.bytes);
    }
    expect(await importTree(world.proxy.cache, tree)).toMatchObject({ imported: 0, present: 2, unknown: [] });
  }, 120_000);
});

describe('proxy precache', () => {
  it('fetches what dpkg and a manifest list, and what apt-get --print-uris says', async () => {
    const config = `proxy:\n  max-age: 86400\n  keyrings: [key.asc]\n  listen: ["127.0.0.1:1"]\n  hosts: ["127.0.0.1:${upstream.port}"]\n  inner-hosts: ["127.0.0.1:${upstream.port}"]\n  backends:\n    own: { mirrors: ["${upstream.url}/archive"] }\n`;
    await writeFile(join(folder, 'buildkit.yaml'), config);
    await writeFile(join(folder, 'manifest'), 'hello:amd64\t1.0-1\nlibx\t1:2.0-1\n');
    const precacheWith = (state: string, ...args: readonly string[]) =>
      run({}, resolve('bin/buildkit'), ['-C', folder, '--state', join(folder, state), 'proxy', 'precache', ...args], {
        cwd: folder,
        timeoutMs: 120_000,
        okExitCodes: [1, 2],
      });
    expect((await precacheWith('state', 'stable', '--backend', 'own', '--list', 'manifest')).stdout).toBe(
      '1 indexes; fetched 2 packages (43 kB), 0 were here\n',
    );
    const status =
      'Package: hello\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: amd64\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n';
    await writeFile(join(folder, 'status'), status);
    expect((await precacheWith('state', 'stable', '--backend', 'own', '--list', 'status')).stdout).toContain(
      '1 were here',
    );
    const uris = packages.map(
      (one) => `'${upstream.url}/archive/${poolPath(one)}' x.deb ${one.bytes.length} SHA256:${sha256(one.bytes)}`,
    );
    await writeFile(join(folder, 'uris'), ['Reading package lists...', ...uris, ''].join('\n'));
    const before = upstream.count(/pool/);
    const byUris = await precacheWith('state', '--lock', 'uris');
    expect(byUris.stdout).toBe('2 files of locks are here (43 kB), 0 could not be had\n');
    expect(upstream.count(/pool/)).toBe(before);
    await writeFile(join(folder, 'wrong'), uris[0]!.replace(/SHA256:../, 'SHA256:00'));
    const wrong = await precacheWith('state', '--lock', 'wrong');
    expect([wrong.exitCode, wrong.stdout]).toEqual([1, expect.stringContaining('is not what the lock says')]);
    expect((await precacheWith('state')).exitCode).toBe(2);
    expect((await precacheWith('state', '--lock', 'manifest')).stderr).toContain('precache SUITE --list');
  }, 240_000);

  it('fetches what package-lock.json and Python locks name, so that npm and pip need nobody else', async () => {
    await using registry = await npmRegistry([
      { name: '@scope/a', version: '1.0.0', manifest: { dependencies: { b: '^1.0.0' } } },
      { name: 'b', version: '1.2.0' },
    ]);
    const wheel = Buffer.from('a wheel');
    upstream.put('/files/demo-1.0-py3-none-any.whl', wheel);
    upstream.put('/files/demo-1.0-cp311-cp311-win_amd64.whl', 'for another system');
    const link = (name: string, bytes: string | Buffer) =>
      `<a href="../../files/${name}#sha256=${sha256(bytes)}">${name}</a>`;
    upstream.put(
      '/simple/demo/',
      `${link('demo-1.0-py3-none-any.whl', wheel)}${link('demo-1.0-cp311-cp311-win_amd64.whl', 'for another system')}`,
    );
    await using world = await startProxy([], {
      settings: { npmRegistry: registry.url, pypiIndex: `${upstream.url}/simple`, maxAge: 86_400 },
    });
    const project = join(folder, 'npm');
    await mkdir(project);
    await writeFile(
      join(project, 'package.json'),
      '{"name":"x","version":"1.0.0","dependencies":{"@scope/a":"1.0.0"}}',
    );
    await run({}, 'npm', ['install', '--package-lock-only', '--no-audit', '--no-fund'], {
      cwd: project,
      // npm test says which project it is in, and npm below it would take that one
      env: { ...registry.env, npm_config_globalconfig: '/nonexistent/npmrc', npm_config_local_prefix: project },
      timeoutMs: 120_000,
    });
    const npm = readLocked('package-lock.json', await readFile(join(project, 'package-lock.json'), 'utf8'));
    expect(npm.npm.map((one) => one.path).sort()).toEqual(['/@scope/a/-/a-1.0.0.tgz', '/b/-/b-1.2.0.tgz']);
    const python = parseLock('pylock.toml', 'lock-version = "1.0"\n[[packages]]\nname = "demo"\nversion = "1.0"\n');
    const done = await prefetch(world.world.context, world.url, { ...npm, python }, 'x86_64');
    expect(done).toMatchObject({ files: 3, failed: [] });
    expect(world.proxy.cache.store.urls('*win_amd64*')).toEqual([]);
    expect(world.proxy.cache.store.urls('npm/*.tgz').map((one) => one.verified)).toEqual([2, 2]);
    await world.restart({ offline: true });
    const env = {
      ...registry.env,
      npm_config_globalconfig: '/nonexistent/npmrc',
      npm_config_local_prefix: project,
      npm_config_registry: `${world.url}/npm/`,
      npm_config_cache: join(project, 'cache'),
      npm_config_replace_registry_host: '127.0.0.1',
    };
    await run({}, 'npm', ['ci', '--no-audit', '--no-fund'], { cwd: project, env, timeoutMs: 120_000 });
    expect(await readFile(join(project, 'node_modules/b/package.json'), 'utf8')).toContain('1.2.0');
    // npm's own page: it looks for a newer npm
    expect(world.proxy.cache.store.missing().filter((one) => !one.key.startsWith('npm/npm'))).toEqual([]);
    const wrong = await prefetch(
      world.world.context,
      world.url,
      { uris: [], python: [{ name: 'demo', version: '2.0' }], npm: [{ ...npm.npm[0]!, integrity: 'sha512-AAAA' }] },
      'x86_64',
    );
    expect(wrong.failed.map((one) => one.why)).toEqual(
      expect.arrayContaining([
        expect.stringContaining('no file of this version'),
        expect.stringContaining('not what the lock says'),
      ]),
    );
  }, 240_000);

  it.each([
    ['names', 'hello\nlibx=1:2.0-1 # comment\n', ['hello', 'libx=1:2.0-1']],
    ['a manifest', 'hello 1.0-1\nlibx:amd64\t1:2.0-1\n', ['hello=1.0-1', 'libx=1:2.0-1']],
  ])('reads %s', (_name, text, expected) => {
    expect(readLocked('x', text).debs.map(({ name, version }) => (version ? `${name}=${version}` : name))).toEqual(
      expected,
    );
  });

  it('reads requirements, old npm locks, and refuses what is neither', () => {
    expect(
      readLocked('r.txt', '-i http://x\nFlask[async]==3.0 ; python_version > "3" \\\n    --hash=sha256:00\n').python,
    ).toEqual([{ name: 'Flask', version: '3.0' }]);
    const old = {
      lockfileVersion: 1,
      dependencies: {
        a: {
          version: '1',
          resolved: 'https://r.example.org/a/-/a-1.tgz',
          integrity: 'sha512-x',
          dependencies: { b: { version: '2', resolved: 'https://r.example.org/b/-/b-2.tgz' } },
        },
      },
    };
    expect(readLocked('l', JSON.stringify(old)).npm.map((one) => one.path)).toEqual(['/a/-/a-1.tgz', '/b/-/b-2.tgz']);
    for (const text of ['{"a":1}', '{', '<html>', '../../etc/passwd']) expect(() => readLocked('x', text)).toThrow();
    expect(readLocked('x', '\n')).toEqual({ debs: [], uris: [], npm: [], python: [] });
  });
});
