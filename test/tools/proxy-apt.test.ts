/** The cache between the real apt, mmdebstrap and the machine's own Debian mirror. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { machineSources } from '../../src/proxy/apt-sources.ts';
import { verifyCache } from '../../src/proxy/upkeep.ts';
import { complaints, createAptRoot } from '../support/apt-root.ts';
import { buildArchive, publish, randomPackage, testKey } from '../support/proxy-archive.ts';
import { startUpstream } from '../support/proxy-upstream.ts';
import { type ProxyWorld, startProxy } from '../support/proxy-world.ts';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** The archive that this machine's apt uses. */
async function debianMirror(): Promise<string> {
  const [mirror] = (await machineSources({})).backends.debian?.mirrors ?? [];
  if (mirror === undefined) throw new Error("this machine's apt has no Debian archive in its sources");
  return mirror;
}

async function debianProxy(maxAge = 600): Promise<{ world: ProxyWorld; mirror: string }> {
  const mirror = await debianMirror();
  const world = await startProxy([], {
    settings: { backends: { debian: { mirrors: [mirror] } }, keyrings: [KEYRING], maxAge },
  });
  return { world, mirror };
}

function requestsUpstream(world: ProxyWorld): number {
  return world.proxy.cache.upstream.health().reduce((sum, one) => sum + one.requests, 0);
}

function source(uri: string, suite: string, signedBy: string): string {
  return `Types: deb\nURIs: ${uri}\nSuites: ${suite}\nComponents: main\nSigned-By: ${signedBy}\n`;
}

/** apt 3 with sqv, by path and as a proxy, from empty lists: what it fetched by the one way is here for the other. */
async function expectAptOfTrixie(world: ProxyWorld, mirror: string, root: string): Promise<void> {
  const apt = async (...args: readonly string[]) => {
    const options = ['APT::Sandbox::User=root', 'APT::Update::Error-Mode=any', 'Dir::Cache::archives=/tmp'];
    const set = options.flatMap((one) => ['-o', one]);
    const result = await run({}, 'chroot', [root, ...args, ...set], { timeoutMs: 200_000 });
    expect(complaints(result)).toEqual([]);
    return result.stdout;
  };
  expect(await apt('apt-get', '--version')).toMatch(/^apt 3\./);
  await rm(join(root, 'etc/apt/sources.list'), { force: true });
  await rm(join(root, 'etc/apt/apt.conf.d/99mmdebstrap'), { force: true });
  const asked: number[] = [];
  for (const [uri, proxy] of [
    [`${world.url}/debian`, 'DIRECT'],
    [mirror, world.url],
  ] as const) {
    await rm(join(root, 'var/lib/apt/lists'), { recursive: true, force: true });
    await mkdir(join(root, 'var/lib/apt/lists/partial'), { recursive: true });
    await writeFile(join(root, 'etc/apt/sources.list.d/test.sources'), source(uri, 'trixie', KEYRING));
    await writeFile(join(root, 'etc/apt/apt.conf.d/99test'), `Acquire::http::Proxy "${proxy}";\n`);
    await apt('apt-get', 'update');
    const served = world.proxy.cache.metrics.get('requests');
    await apt('apt-get', 'install', '--download-only', '--reinstall', '-y', 'hello', 'sed');
    expect(world.proxy.cache.metrics.get('requests')).toBeGreaterThan(served);
    await rm(join(root, 'tmp'), { recursive: true, force: true });
    await mkdir(join(root, 'tmp/partial'), { recursive: true });
    asked.push(requestsUpstream(world));
  }
  expect(asked[1]).toBe(asked[0]);
  const counters = world.proxy.cache.metrics.all();
  expect(counters.bad_bodies + counters.bad_signatures + counters.harvest_failures).toBe(0);
}

describe('apt through the cache', () => {
  it('updates and downloads from bookworm by path and as a proxy, the second time from the cache', async () => {
    const suite = 'bookworm';
    const { world, mirror } = await debianProxy();
    await using _ = world;
    const options = ['Acquire::Check-Valid-Until "true";'];
    await using direct = await createAptRoot({
      sources: source(`${world.url}/debian`, suite, KEYRING),
      configuration: options,
    });
    await direct.update();
    const packages = ['hello', 'sed', 'tree'];
    const first = await direct.run(
      'apt-get',
      'download',
      ...packages.slice(0, 2),
      '-o',
      `Dir::Cache::archives=${direct.path}`,
      '-o',
      'APT::Sandbox::User=root',
    );
    expect(complaints(first)).toEqual([]);
    expect(first.exitCode).toBe(0);
    const asked = requestsUpstream(world);
    await using proxied = await createAptRoot({
      sources: source(mirror, suite, KEYRING),
      configuration: [...options, `Acquire::http::Proxy "${world.url}";`],
    });
    await proxied.update();
    expect(requestsUpstream(world)).toBe(asked);
    const counters = world.proxy.cache.metrics.all();
    expect(counters.bad_bodies + counters.bad_signatures + counters.harvest_failures).toBe(0);
    expect(world.proxy.cache.suites.list().every((one) => one.signed)).toBe(true);
    expect(world.proxy.cache.store.urls('debian/pool/*').every((one) => one.verified === 2)).toBe(true);
  }, 300_000);

  it('lets mmdebstrap make the same trixie twice, the second time without fetching anything; its own apt works through it', async () => {
    const { world, mirror } = await debianProxy(86_400);
    await using _ = world;
    const scratch = await mkdtemp(join(tmpdir(), 'buildkit-mmdebstrap-'));
    try {
      const build = (name: string, format: string) =>
        run(
          { env: { ...process.env } },
          'mmdebstrap',
          [
            '--variant=apt',
            '--mode=root',
            `--format=${format}`,
            `--aptopt=Acquire::http::Proxy "${world.url}"`,
            '--aptopt=Acquire::Check-Valid-Until "true"',
            'trixie',
            join(scratch, name),
            `deb [signed-by=${KEYRING}] ${mirror} trixie main`,
          ],
          { timeoutMs: 500_000 },
        );
      await build('one.tar', 'tar');
      const asked = requestsUpstream(world);
      const { misses } = world.proxy.cache.metrics.all();
      expect(misses).toBeGreaterThan(50);
      await build('two', 'directory');
      expect(requestsUpstream(world)).toBe(asked);
      expect(world.proxy.cache.metrics.get('misses')).toBe(misses);
      expect(await readdir(scratch)).toEqual(['one.tar', 'two']);
      const trixie = join(scratch, 'two');
      await expectAptOfTrixie(world, mirror, trixie);
      expect(world.proxy.cache.store.urls('debian/pool/*').every((one) => one.verified === 2)).toBe(true);
      expect((await verifyCache(world.proxy.cache)).problems).toEqual([]);
      await world.restart({ offline: true });
      await expectAptOfTrixie(world, mirror, trixie);
      expect([requestsUpstream(world), world.proxy.cache.store.missing()]).toEqual([0, []]);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }, 900_000);

  it('never gives apt a mix, while an archive is published again and again under it', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const versions = await Promise.all(
      Array.from({ length: 8 }, (_, index) =>
        buildArchive({
          date: new Date(Date.UTC(2026, 9, 1 + index)),
          packages: [randomPackage('hello', 3000, `${index + 1}.0-1`)],
          key,
          byHash: index % 2 === 0,
        }),
      ),
    );
    publish(upstream, versions[0]!);
    await using world = await startProxy([`${upstream.url}/archive`], { keys: [key.publicKeyArmored] });
    const signedBy = `\n${key.publicKeyArmored
      .trimEnd()
      .split('\n')
      .map((line) => (line === '' ? ' .' : ` ${line}`))
      .join('\n')}`;
    const roots = await Promise.all(
      [1, 2].map(() => createAptRoot({ sources: source(`${world.url}/archive`, 'stable', signedBy) })),
    );
    try {
      await Promise.all(roots.map((root) => root.update()));
      for (const version of versions.slice(1)) {
        // step by step, as a mirror does it: new Release first is the worst order
        const publishing = (async () => {
          for (const step of [/InRelease$/, /Packages$/, /Packages\.gz$/, /pool|by-hash|Release(\.gpg)?$/]) {
            publish(upstream, version, step);
            await new Promise((resolve) => setTimeout(resolve, 150));
          }
        })();
        const results = await Promise.all(roots.map((root) => root.run('apt-get', 'update')));
        for (const result of results)
          expect(`${result.stdout}${result.stderr}`).not.toMatch(/Hash Sum mismatch|unexpected size|E: /);
        await publishing;
      }
      world.proxy.cache.forgetHot();
      for (const root of roots) {
        // a refresh that failed in the middle of publishing is not repeated at once
        const newest = async () => {
          await root.update();
          return (await root.run('apt-cache', 'policy', 'hello')).stdout;
        };
        await expect.poll(newest, { timeout: 60_000, interval: 500 }).toContain('8.0-1');
      }
    } finally {
      for (const root of roots) await root[Symbol.asyncDispose]();
    }
  }, 300_000);
});
