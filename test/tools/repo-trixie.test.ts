/** apt of Debian 13 (apt 3, Sequoia's sqv for signatures) on a published repository: other rules than Debian 12's. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunResult, run } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { complaints } from '../support/apt-root.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const DAY_MS = 86_400_000;
const ANY_EXIT_CODE = Array.from({ length: 255 }, (_, index) => index + 1);

/** A Debian 13 with apt and nothing more. */
let root = '';
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-trixie-'));
  root = join(folder, 'root');
  const targets = await run({}, 'apt-get', [
    'indextargets',
    '--format',
    '$(SITE)',
    'Created-By: Packages',
    'Origin: Debian',
  ]);
  const mirror = targets.stdout.split('\n').find((site) => !/security/.test(site)) ?? '';
  expect(mirror).toMatch(/^https?:/);
  await run({}, 'mmdebstrap', ['--quiet', '--variant=apt', 'trixie', root, mirror], { timeoutMs: 400_000 });
}, 420_000);

afterAll(() => rm(folder, { recursive: true, force: true }));

function apt(...args: string[]): Promise<RunResult> {
  return run({}, 'chroot', [root, ...args], { okExitCodes: ANY_EXIT_CODE, env: { DEBIAN_FRONTEND: 'noninteractive' } });
}

/** From empty lists, with nothing but this source. */
async function update(sources: string, ...options: string[]): Promise<RunResult> {
  await rm(join(root, 'var/lib/apt/lists'), { recursive: true, force: true });
  await mkdir(join(root, 'var/lib/apt/lists/partial'), { recursive: true });
  await rm(join(root, 'etc/apt/sources.list'), { force: true });
  await writeFile(join(root, 'etc/apt/sources.list.d/test.sources'), sources);
  await writeFile(
    join(root, 'etc/apt/apt.conf.d/99test'),
    ['APT::Update::Error-Mode "any";', 'APT::Sandbox::User "root";', 'Acquire::http::Proxy "DIRECT";', ''].join('\n'),
  );
  return apt('apt-get', 'update', ...options);
}

async function repoWithKey(world: World, algorithm: 'ed25519' | 'rsa4096', url?: string): Promise<Repo> {
  const request = { name: 'Example', email: 'a@example.org', algorithm, expiresSeconds: 400 * 86_400 };
  await new KeyStore(world.context).generate(request);
  return Repo.init(world.context, join(world.path, 'repo'), {
    suites: [{ name: 'test', components: ['main'], architectures: ['amd64'] }],
    origin: 'Example',
    label: 'Example',
    url,
  });
}

async function addVersion(world: World, repo: Repo, version: string): Promise<string> {
  const made = await makePackage(world.context, join(world.path, 'in'), { name: 'app', version });
  await repo.add('test', [made.path]);
  return (await repo.publish())[0]!.generation!;
}

describe('apt of Debian 13', () => {
  it.each(['ed25519', 'rsa4096'] as const)('updates and installs with a key of %s', async (algorithm) => {
    await using world = await createWorld();
    using repo = await repoWithKey(world, algorithm);
    await addVersion(world, repo, '1');
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    const sources = await repo.sources('test', { url: server.url });
    for (const options of [[], ['-o', 'Acquire::By-Hash=no']]) {
      const result = await update(sources, ...options);
      expect(complaints(result), result.stdout + result.stderr).toEqual([]);
      expect(result.exitCode).toBe(0);
    }
    const installed = await apt('apt-get', 'install', '-y', '-o', 'Dpkg::Use-Pty=0', 'app');
    expect(installed.exitCode, installed.stdout + installed.stderr).toBe(0);
    expect((await apt('dpkg-query', '-W', 'app')).stdout).toBe('app\t1\n');
    await apt('apt-get', 'purge', '-y', 'app');
  });

  it('takes --snapshot from what Release says', async () => {
    await using world = await createWorld();
    using repo = await repoWithKey(world, 'ed25519');
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    const first = await (async () => {
      await repo.publish([], { url: server.url });
      return addVersion(world, repo, '1');
    })();
    await repo.remove('test', ['app']);
    await addVersion(world, repo, '2');
    const sources = `${await repo.sources('test')}Snapshot: enable\n`;
    await update(sources);
    expect((await apt('apt-cache', 'policy', 'app')).stdout).toContain('Candidate: 2\n');
    const old = await apt('apt-get', 'update', '--snapshot', first);
    expect(complaints(old), old.stdout + old.stderr).toEqual([]);
    expect((await apt('apt-cache', 'policy', '--snapshot', first, 'app')).stdout).toContain('Candidate: 1\n');
  });

  it('takes translations, patches, zstd and SHA512', async () => {
    await using world = await createWorld();
    using repo = await repoWithKey(world, 'ed25519');
    await repo.saveSuite('test', {
      translations: true,
      pdiffs: 5,
      compressions: ['none', 'xz', 'zstd'],
      hashes: ['SHA512'],
    });
    for (let n = 0; n < 40; n += 1) await makePackage(world.context, join(world.path, 'in'), { name: `pkg-${n}` });
    await repo.add('test', [join(world.path, 'in')]);
    await addVersion(world, repo, '1');
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    const languages = 'Acquire::Languages=en';
    const zstd = 'Acquire::CompressionTypes::Order=zst';
    const first = await update(await repo.sources('test', { url: server.url }), '-o', languages, '-o', zstd);
    expect(complaints(first), first.stdout + first.stderr).toEqual([]);
    await addVersion(world, repo, '2');
    const second = await apt('apt-get', 'update', '-o', languages, '-o', 'Debug::Acquire::http=true');
    expect(complaints(second), second.stdout + second.stderr).toEqual([]);
    const requests = [...`${second.stdout}\n${second.stderr}`.matchAll(/^GET (\S+) HTTP/gm)].map((match) => match[1]!);
    expect(requests.filter((path) => /Packages\.diff\/[^/]+\.gz$/.test(path))).toHaveLength(1);
    expect(requests.filter((path) => /binary-amd64\/by-hash/.test(path))).toEqual([]);
    expect(requests.some((path) => /Packages\.diff\/by-hash\/SHA512\//.test(path))).toBe(true);
    const shown = await apt('apt-cache', 'show', '-o', languages, 'app=2');
    expect(shown.stdout).toContain(' It holds one file.\n');
  });

  it('refuses an expired repository', async () => {
    await using world = await createWorld(new Date(Date.now() - 15 * DAY_MS));
    using repo = await repoWithKey(world, 'ed25519');
    await addVersion(world, repo, '1');
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    const result = await update(await repo.sources('test', { url: server.url }));
    expect(result.exitCode).not.toBe(0);
    expect(complaints(result).join('\n')).toMatch(/expired/);
  });
});
