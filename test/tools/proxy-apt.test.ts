/** The cache between the real apt, mmdebstrap and the machine's own Debian mirror. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
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

describe('apt through the cache', () => {
  it.each(['bookworm', 'trixie'])(
    'updates and downloads from %s by path and as a proxy, the second time from the cache',
    async (suite) => {
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
    },
    300_000,
  );

  it('lets mmdebstrap make the same system twice, the second time without fetching anything', async () => {
    const { world, mirror } = await debianProxy();
    await using _ = world;
    const scratch = await mkdtemp(join(tmpdir(), 'buildkit-mmdebstrap-'));
    try {
      const build = (name: string) =>
        run(
          { env: { ...process.env } },
          'mmdebstrap',
          [
            '--variant=essential',
            '--mode=root',
            '--format=tar',
            `--aptopt=Acquire::http::Proxy "${world.url}"`,
            '--aptopt=Acquire::Check-Valid-Until "true"',
            'bookworm',
            join(scratch, name),
            `deb [signed-by=${KEYRING}] ${mirror} bookworm main`,
          ],
          { timeoutMs: 500_000 },
        );
      await build('one.tar');
      const asked = requestsUpstream(world);
      const { misses } = world.proxy.cache.metrics.all();
      expect(misses).toBeGreaterThan(50);
      await build('two.tar');
      expect(requestsUpstream(world)).toBe(asked);
      expect(world.proxy.cache.metrics.get('misses')).toBe(misses);
      expect(await readdir(scratch)).toEqual(['one.tar', 'two.tar']);
      expect(world.proxy.cache.store.urls('debian/pool/*').every((one) => one.verified === 2)).toBe(true);
      expect((await verifyCache(world.proxy.cache)).problems).toEqual([]);
      await world.restart({ offline: true });
      await build('three.tar');
      expect(world.proxy.cache.store.missing()).toEqual([]);
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
      await new Promise((resolve) => setTimeout(resolve, 4200));
      for (const root of roots) await root.update();
      const policy = await roots[0]!.run('apt-cache', 'policy', 'hello');
      expect(policy.stdout).toContain('8.0-1');
    } finally {
      for (const root of roots) await root[Symbol.asyncDispose]();
    }
  }, 300_000);
});
