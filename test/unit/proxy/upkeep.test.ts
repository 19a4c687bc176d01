import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { planEviction } from '../../../src/proxy/evict.ts';
import { importTree, precache } from '../../../src/proxy/intake.ts';
import { listAddresses } from '../../../src/proxy/listing.ts';
import { ProxyCache } from '../../../src/proxy/proxy.ts';
import type { EvictionRow } from '../../../src/proxy/store.ts';
import { dropMatching, expire, explain, verifyCache } from '../../../src/proxy/upkeep.ts';
import { buildArchive, poolPath, publish, randomPackage, testKey } from '../../support/proxy-archive.ts';
import { sha256, startUpstream } from '../../support/proxy-upstream.ts';
import { startProxy } from '../../support/proxy-world.ts';

async function archiveWorld() {
  const upstream = await startUpstream();
  const key = await testKey();
  const packages = [randomPackage('hello', 5000), randomPackage('libfoo', 6000), randomPackage('libbar', 7000)];
  publish(upstream, await buildArchive({ date: new Date('2026-11-01T00:00:00Z'), packages, key }));
  const world = await startProxy([`${upstream.url}/archive`], { keys: [key.publicKeyArmored] });
  return {
    upstream,
    world,
    packages,
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await upstream[Symbol.asyncDispose]();
    },
  };
}

const EVERYTHING = { architectures: ['amd64'], components: ['main'] };

describe('planEviction', () => {
  const row = (sha256: string, usedAt: number, size = 100): EvictionRow => ({
    sha256,
    size,
    usedAt,
    storedAt: 0,
    keys: [sha256],
  });
  const rules = { quota: 0, maxUnused: 0, now: 10_000_000, keep: new Set<string>(), isNamed: () => true };

  it('lets nothing go without a rule', () => {
    expect(planEviction([row('a', 0), row('b', 1)], rules)).toEqual([]);
  });

  it('lets go first what no index names, then the longest unused, and keeps what snapshots need', () => {
    const rows = [row('kept', 0), row('old', 1), row('unnamed', 50), row('new', 99)];
    const plan = planEviction(rows, {
      ...rules,
      quota: 220,
      keep: new Set(['kept']),
      isNamed: (one) => one.sha256 !== 'unnamed',
    });
    expect(plan.map((one) => [one.sha256, one.reason])).toEqual([
      ['unnamed', 'quota'],
      ['old', 'quota'],
    ]);
  });

  it('lets go what nobody used for long', () => {
    const plan = planEviction([row('old', 0), row('new', 9_999_999)], { ...rules, maxUnused: 86_400 });
    expect(plan.map((one) => one.sha256)).toEqual(['old']);
  });
});

describe('keeping house', () => {
  it('fetches beforehand what a list names, and says what matches nothing', async () => {
    await using bed = await archiveWorld();
    const { cache } = bed.world.proxy;
    const done = await precache(cache, 'archive', 'stable', {
      ...EVERYTHING,
      packages: ['hello=1.0-1', 'lib*', 'nothing'],
    });
    expect(done).toMatchObject({ indexes: 1, fetched: 3, present: 0, bytes: 18_000, unmatched: ['nothing'] });
    const asked = bed.upstream.log.length;
    for (const one of bed.packages)
      expect((await bed.world.ask(`/archive/${poolPath(one)}`)).headers['x-cache']).toBe('HIT');
    expect(bed.upstream.log.length).toBe(asked);
    expect((await precache(cache, 'archive', 'stable', { ...EVERYTHING, packages: ['*'] })).present).toBe(3);
    await expect(precache(cache, 'archive', 'none', { ...EVERYTHING, packages: [] })).rejects.toThrow(
      'upstream has no such suite',
    );
  });

  it('imports files from other caches by what they are, whatever they are called', async () => {
    await using bed = await archiveWorld();
    const { cache } = bed.world.proxy;
    const dir = join(bed.world.world.path, 'other');
    mkdirSync(join(dir, 'debrep/pool'), { recursive: true });
    mkdirSync(join(dir, 'partial'));
    writeFileSync(join(dir, 'debrep/pool/hello_1.0-1_amd64.deb'), bed.packages[0]!.bytes);
    writeFileSync(join(dir, 'debrep/pool/hello_1.0-1_amd64.deb.head'), 'HTTP/1.1 200 OK');
    writeFileSync(join(dir, 'renamed%3a1.deb'), bed.packages[1]!.bytes);
    writeFileSync(join(dir, 'strange.deb'), 'not of this archive');
    writeFileSync(join(dir, 'partial/cut.deb'), bed.packages[2]!.bytes.subarray(0, 100));
    await expect(importTree(cache, join(dir, 'none'))).rejects.toThrow('cannot be read');
    await expect(importTree(cache, dir)).rejects.toThrow('no index');
    await precache(cache, 'archive', 'stable', { ...EVERYTHING, packages: [] });
    const report = await importTree(cache, dir);
    expect(report).toMatchObject({ imported: 2, bytes: 11_000, present: 0, unknown: ['strange.deb'] });
    expect((await bed.world.ask(`/archive/${poolPath(bed.packages[1]!)}`)).headers['x-cache']).toBe('HIT');
    expect(bed.upstream.count(/pool/)).toBe(0);
    expect((await verifyCache(cache)).problems).toEqual([]);
  });

  it('expires by quota without touching what a suite needs, and a frozen view keeps its own', async () => {
    await using bed = await archiveWorld();
    const { cache } = bed.world.proxy;
    await precache(cache, 'archive', 'stable', { ...EVERYTHING, packages: ['*'] });
    const before = cache.store.totals();
    const plan = expire(cache, { quota: before.bytes - 5000, dryRun: true });
    expect(plan).not.toEqual([]);
    expect(cache.store.totals()).toEqual(before);
    expire(cache, { quota: 1 });
    expect(cache.store.urls('*')).toEqual([]);
    const paths = ['/archive/dists/stable/InRelease', '/archive/dists/stable/main/binary-amd64/Packages.gz'];
    await bed.upstream[Symbol.asyncDispose]();
    await bed.world.restart({ offline: true });
    for (const path of paths) expect((await bed.world.ask(path)).status).toBe(200);
    expect((await bed.world.ask(`/archive/${poolPath(bed.packages[0]!)}`)).status).toBe(503);
  });

  it('expires by itself while it serves', async () => {
    await using upstream = await startUpstream();
    upstream.put('/archive/pool/a.deb', 'a package');
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    try {
      await using world = await startProxy([`${upstream.url}/archive`], { settings: { quota: 5 } });
      expect((await world.ask('/archive/pool/a.deb')).body.toString()).toBe('a package');
      expect(world.proxy.cache.store.totals().objects).toBe(1);
      vi.advanceTimersByTime(61_000);
      expect(world.proxy.cache.store.totals()).toEqual({ objects: 0, bytes: 0, urls: 0 });
      expect((await world.ask('/archive/pool/a.deb')).headers['x-cache']).toBe('MISS');
    } finally {
      vi.useRealTimers();
    }
  });

  it('finds and repairs what is wrong on the disk', async () => {
    await using bed = await archiveWorld();
    const { cache } = bed.world.proxy;
    await precache(cache, 'archive', 'stable', { ...EVERYTHING, packages: ['*'] });
    const [hello, libfoo] = bed.packages.map((one) => sha256(one.bytes));
    writeFileSync(cache.blobs.pathOf(hello!), 'changed');
    rmSync(cache.blobs.pathOf(libfoo!));
    writeFileSync(join(cache.blobs.dir, 'objects', hello!.slice(0, 2), 'stray'), '');
    const found = await verifyCache(cache);
    expect(found.problems.map((one) => one.code).sort()).toEqual(['object-changed', 'object-missing', 'object-stray']);
    await verifyCache(cache, { repair: true });
    expect((await verifyCache(cache)).problems).toEqual([]);
    expect((await bed.world.ask(`/archive/${poolPath(bed.packages[0]!)}`)).body.equals(bed.packages[0]!.bytes)).toBe(
      true,
    );
  });

  it('drops addresses by pattern, seen by a server that runs', async () => {
    await using bed = await archiveWorld();
    const path = `/archive/${poolPath(bed.packages[0]!)}`;
    await precache(bed.world.proxy.cache, 'archive', 'stable', { ...EVERYTHING, packages: ['*'] });
    expect((await bed.world.ask(path)).headers['x-cache']).toBe('HIT');
    {
      await using beside = await ProxyCache.open(bed.world.world.context, bed.world.settings, { serving: false });
      expect(dropMatching(beside, 'archive/pool/*/hello/*', { dryRun: true })).toHaveLength(1);
      expect(dropMatching(beside, 'archive/pool/*/hello/*')).toHaveLength(1);
      expect(beside.store.urls('*')).toHaveLength(2);
    }
    await expect.poll(async () => (await bed.world.ask(path)).headers['x-cache'], { timeout: 60_000 }).toBe('MISS');
  }, 120_000);

  it('lists what a suite brought, though nobody asked for an address yet', async () => {
    await using bed = await archiveWorld();
    const { cache } = bed.world.proxy;
    expect(listAddresses(cache, '*')).toEqual([]);
    await precache(cache, 'archive', 'stable', { ...EVERYTHING, packages: [] });
    const keys = (pattern: string) => listAddresses(cache, pattern).map(({ key, verified }) => [key, verified]);
    const folder = 'archive/dists/stable';
    expect(keys('*')).toEqual([
      [`${folder}/InRelease`, 2],
      [`${folder}/main/binary-amd64/Packages.gz`, 2],
    ]);
    await precache(cache, 'archive', 'stable', { ...EVERYTHING, packages: ['hello'] });
    expect(keys('*/Packages.?z')).toEqual([[`${folder}/main/binary-amd64/Packages.gz`, 2]]);
    expect(keys('archive/pool/*')).toEqual([[`archive/${poolPath(bed.packages[0]!)}`, 2]]);
    expect(dropMatching(cache, 'archive/*')).toHaveLength(1);
    expect(keys('*')).toHaveLength(2);
  });

  it('reads brackets of an address as they are', async () => {
    await using bed = await archiveWorld();
    const { store } = bed.world.proxy.cache;
    store.putObject('a'.repeat(64), 1, 0, 0);
    const row = { etag: undefined, lastModified: undefined, contentType: undefined, source: 'x', verified: 0 as const };
    for (const key of ['http://[2001:db8::1]/x.deb', 'http://2/x.deb'])
      store.putUrl({ ...row, key, sha256: 'a'.repeat(64), fetchedAt: 0, checkedAt: 0 });
    expect(store.urls('http://[2001:db8::1]/*').map(({ key }) => key)).toEqual(['http://[2001:db8::1]/x.deb']);
  });

  it('is not served twice at a time, and says where it is served', async () => {
    await using bed = await archiveWorld();
    await expect(ProxyCache.open(bed.world.world.context, bed.world.settings)).rejects.toMatchObject({
      code: 'locked',
      message: expect.stringContaining(`is served already, at ${bed.world.url}`),
    });
  });

  it('says why', async () => {
    await using bed = await archiveWorld();
    const { cache } = bed.world.proxy;
    await precache(cache, 'archive', 'stable', { ...EVERYTHING, packages: ['hello'] });
    const lines = (address: string) => explain(cache, address).lines.join('\n');
    expect(lines(`${bed.upstream.url}/archive/${poolPath(bed.packages[0]!)}`)).toMatch(
      /in the cache: 5000 bytes.*digest of a signed index/s,
    );
    expect(lines('archive/dists/stable/InRelease')).toContain('signed by a known key');
    expect(lines('/archive/dists/stable/main/binary-amd64/Packages.gz')).toContain('must have SHA256');
    expect(lines('archive/pool/none.deb')).toContain('not in the cache');
    expect(() => explain(cache, 'http://elsewhere.example.org/x')).toThrow('no list of hosts');
    expect(() => explain(cache, 'hello')).toThrow(
      expect.objectContaining({ hint: 'write an address, or a path below a back end: archive/' }),
    );
  });
});
