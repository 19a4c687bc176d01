/** What apt itself makes of a published repository: taken when whole, refused when anything was touched. */
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { clearSign } from '../../src/deb/openpgp.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { type AptRoot, complaints, createAptRoot } from '../support/apt-root.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const DAY_MS = 86_400_000;

async function newKey(world: World, algorithm: 'ed25519' | 'rsa4096' = 'ed25519'): Promise<string> {
  const request = { name: 'Example', email: 'archive@example.org', algorithm, expiresSeconds: 400 * 86_400 };
  return (await new KeyStore(world.context).generate(request)).fingerprint;
}

/** A published repository with `app` (amd64), which depends on `lib` (all) of another component. */
async function publishedRepo(world: World): Promise<Repo> {
  const repo = await Repo.init(world.context, join(world.path, 'repo'), {
    suites: [{ name: 'bookworm', components: ['main', 'extra'], architectures: ['amd64', 'arm64'] }],
    origin: 'Example',
    label: 'Example',
  });
  const incoming = join(world.path, 'in');
  const app = await makePackage(world.context, incoming, {
    name: 'app',
    version: '1:2.0-1',
    architecture: 'amd64',
    fields: { Depends: 'lib (>= 1.0)' },
  });
  const lib = await makePackage(world.context, incoming, { name: 'lib' });
  await repo.add('bookworm', [app.path]);
  await repo.add('bookworm', [lib.path], { component: 'extra' });
  await repo.publish();
  return repo;
}

async function aptOf(repo: Repo, url: string, configuration: readonly string[] = []): Promise<AptRoot> {
  return createAptRoot({ sources: await repo.sources('bookworm', { url }), configuration });
}

/** Turns one bit in the middle of a file, by writing another file in its place: hard links share the bytes. */
async function flipByte(path: string, at?: number): Promise<void> {
  const bytes = Buffer.from(await readFile(path));
  const index = at ?? Math.floor(bytes.length / 2);
  bytes[index] = bytes[index]! ^ 1;
  const file = await open(path, 'r+');
  await file.write(bytes, index, 1, index);
  await file.close();
}

describe('apt takes a published repository', () => {
  it.each(['ed25519', 'rsa4096'] as const)('signed with %s: update, install, by-hash', async (algorithm) => {
    await using world = await createWorld();
    await newKey(world, algorithm);
    using repo = await publishedRepo(world);
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    await using apt = await aptOf(repo, server.url, ['Debug::Acquire::http "true";']);
    const updated = await apt.update();
    const requests = [...updated.stdout.matchAll(/^GET (\S+) HTTP/gm), ...updated.stderr.matchAll(/^GET (\S+) HTTP/gm)];
    const paths = requests.map((match) => match[1]!);
    expect(paths).toContain('/dists/bookworm/InRelease');
    expect(paths.filter((path) => path.includes('Packages'))).toEqual([]);
    const objects = paths.filter((path) => path.includes('/by-hash/SHA256/')).map((path) => path.split('/by-hash/')[0]);
    expect(objects.sort()).toEqual(['/dists/bookworm/extra/binary-amd64', '/dists/bookworm/main/binary-amd64']);

    const installed = await apt.run('apt-get', 'install', '-y', '-o', 'Debug::Acquire::http=false', 'app');
    expect(installed.stderr).toBe('');
    expect(installed.exitCode).toBe(0);
    const status = await run({}, 'dpkg-query', [`--admindir=${apt.path}/var/lib/dpkg`, '-W']);
    expect(status.stdout).toBe('app\t1:2.0-1\nlib\t1.0\n');
    expect(await readFile(join(apt.path, 'usr/share/app/data'), 'utf8')).toBe('app 1:2.0-1\n');
  });

  it('also by plain names, by Release and Release.gpg alone, and for another architecture', async () => {
    await using world = await createWorld();
    await newKey(world);
    using repo = await publishedRepo(world);
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    await using plain = await aptOf(repo, server.url, ['Acquire::By-Hash "no";']);
    await plain.update();
    for (const type of ['gz', 'xz']) {
      await using one = await aptOf(repo, server.url, [`Acquire::CompressionTypes::Order { "${type}"; };`]);
      await one.update();
      expect((await one.run('apt-cache', 'show', 'app')).stdout).toContain('Depends: lib (>= 1.0)');
    }
    const sources = await repo.sources('bookworm', { url: server.url });
    await using arm = await createAptRoot({ sources, architecture: 'arm64' });
    await arm.update();
    expect((await arm.run('apt-cache', 'pkgnames')).stdout.trim()).toBe('lib');
  });

  it('downloads what was published, the second time from where it stopped', async () => {
    await using world = await createWorld();
    await newKey(world);
    using repo = await publishedRepo(world);
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    await using apt = await aptOf(repo, server.url);
    await apt.update();
    const original = await readFile(join(world.path, 'in', 'lib_1.0_all.deb'));
    const cached = join(apt.path, 'var/cache/apt/archives/partial/lib_1.0_all.deb');
    await writeFile(cached, original.subarray(0, 200));
    const result = await apt.run('apt-get', 'install', '-y', '--download-only', 'lib');
    expect(result.stderr).toBe('');
    expect(await readFile(join(apt.path, 'var/cache/apt/archives/lib_1.0_all.deb'))).toEqual(original);
  });

  it('sees each publish, however fast they follow', async () => {
    await using world = await createWorld();
    await newKey(world);
    using repo = await publishedRepo(world);
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    await using apt = await aptOf(repo, server.url);
    for (let round = 1; round <= 3; round += 1) {
      const made = await makePackage(world.context, join(world.path, 'in'), { name: `new-${round}` });
      await repo.add('bookworm', [made.path]);
      expect((await repo.publish())[0]?.published).toBe(true);
      await apt.update();
      expect((await apt.run('apt-cache', 'pkgnames', 'new-')).stdout.trim().split('\n')).toHaveLength(round);
    }
  });
});

describe('apt refuses', () => {
  async function refusal(world: World, repo: Repo, configuration: readonly string[] = []): Promise<string> {
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    await using apt = await aptOf(repo, server.url, configuration);
    const result = await apt.run('apt-get', 'update');
    expect(result.exitCode).not.toBe(0);
    return complaints(result).join('\n');
  }

  it.each(['.gz', '.xz'])('a flipped byte in Packages%s', async (suffix) => {
    await using world = await createWorld();
    await newKey(world);
    using repo = await publishedRepo(world);
    await flipByte(join(repo.publicDir, `dists/bookworm/main/binary-amd64/Packages${suffix}`));
    const text = await refusal(world, repo, [`Acquire::CompressionTypes::Order { "${suffix.slice(1)}"; };`]);
    expect(text).toMatch(/Hash Sum mismatch|File has unexpected size|Failed to fetch/);
  });

  it('a flipped byte in a package', async () => {
    await using world = await createWorld();
    await newKey(world);
    using repo = await publishedRepo(world);
    await flipByte(join(repo.publicDir, 'pool/extra/l/lib/lib_1.0_all.deb'));
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    await using apt = await aptOf(repo, server.url);
    await apt.update();
    const result = await apt.run('apt-get', 'install', '-y', '--download-only', 'lib');
    expect(result.exitCode).not.toBe(0);
    expect(complaints(result).join('\n')).toContain('Hash Sum mismatch');
  });

  it('a flipped byte in InRelease', async () => {
    await using world = await createWorld();
    await newKey(world);
    using repo = await publishedRepo(world);
    const path = join(repo.publicDir, 'dists/bookworm/InRelease');
    await flipByte(path, (await readFile(path)).indexOf('Example'));
    expect(await refusal(world, repo)).toMatch(/BADSIG|invalid/);
  });

  it('a signature of another key', async () => {
    await using world = await createWorld();
    await using stranger = await createWorld();
    await newKey(world);
    const foreign = await newKey(stranger);
    using repo = await publishedRepo(world);
    const now = new Date();
    const signers = await new KeyStore(stranger.context).signers([foreign], now);
    const release = await readFile(join(repo.publicDir, 'dists/bookworm/Release'), 'utf8');
    await writeFile(join(repo.publicDir, 'dists/bookworm/InRelease'), await clearSign(release, signers, { date: now }));
    expect(await refusal(world, repo)).toMatch(/NO_PUBKEY|public key is not available/);
  });

  it('a Valid-Until that is over, and one that publishing anew mends', async () => {
    await using world = await createWorld(new Date(Date.now() - 15 * DAY_MS));
    await newKey(world);
    using repo = await publishedRepo(world);
    expect(await refusal(world, repo)).toMatch(/expired|not valid/);
    world.setClock(undefined);
    expect((await repo.publish())[0]).toMatchObject({ published: true });
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    await using apt = await aptOf(repo, server.url);
    await apt.update();
  });
});

describe('gpgv', () => {
  it('finds InRelease and Release.gpg good, and Release in InRelease', async () => {
    await using world = await createWorld();
    const fingerprint = await newKey(world);
    using repo = await publishedRepo(world);
    const folder = join(repo.publicDir, 'dists/bookworm');
    const keyring = join(repo.publicDir, 'archive-key.gpg');
    const text = join(world.path, 'text');
    const status = ['--status-fd', '1', '--keyring', keyring];
    const inline = await run({}, 'gpgv', [...status, '--output', text, join(folder, 'InRelease')]);
    expect(inline.stdout).toContain(`VALIDSIG ${fingerprint}`);
    expect(await readFile(text)).toEqual(await readFile(join(folder, 'Release')));
    const detached = await run({}, 'gpgv', [...status, join(folder, 'Release.gpg'), join(folder, 'Release')]);
    expect(detached.stdout).toContain(`VALIDSIG ${fingerprint}`);
  });
});
