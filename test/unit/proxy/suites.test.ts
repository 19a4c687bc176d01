import { describe, expect, it, vi } from 'vitest';
import type { GeneratedKey } from '../../../src/deb/openpgp.ts';
import { type Archive, buildArchive, poolPath, publish, randomPackage, testKey } from '../../support/proxy-archive.ts';
import { type FakeUpstream, sha256, startUpstream } from '../../support/proxy-upstream.ts';
import { type Answer, type ProxyWorld, startProxy } from '../../support/proxy-world.ts';

vi.setConfig({ testTimeout: 180_000 });

const ROOT = '/archive/dists/stable';
const INDEX = `${ROOT}/main/binary-amd64/Packages.gz`;

async function twoVersions(key: GeneratedKey, byHash = false): Promise<[Archive, Archive]> {
  const one = randomPackage('hello', 5000, '1.0-1');
  const two = randomPackage('hello', 5000, '2.0-1');
  return [
    await buildArchive({ date: new Date('2026-11-01T00:00:00Z'), packages: [one], key, byHash }),
    await buildArchive({ date: new Date('2026-11-02T00:00:00Z'), packages: [one, two], key, byHash }),
  ];
}

async function worldFor(key: GeneratedKey, ...mirrors: readonly FakeUpstream[]): Promise<ProxyWorld> {
  return startProxy(
    mirrors.map((mirror) => `${mirror.url}/archive`),
    { keys: [key.publicKeyArmored], clock: new Date('2026-11-03T00:00:00Z') },
  );
}

function fitsTo(release: Answer, index: Answer): boolean {
  return release.body.toString().includes(` ${sha256(index.body)} ${index.body.length} main/binary-amd64/Packages.gz`);
}

describe('never a mix of old and new', () => {
  it('keeps the old snapshot while upstream publishes, then switches as a whole', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const [one, two] = await twoVersions(key);
    publish(upstream, one);
    await using world = await worldFor(key, upstream);
    await world.ask(`${ROOT}/InRelease`);
    await world.ask(INDEX);
    publish(upstream, two, /InRelease$/); // the Release is there, its indexes are not yet
    const during = await world.ask(`${ROOT}/InRelease`);
    expect(during.body.toString()).toBe(one.inRelease);
    expect(during.headers['x-cache']).toBe('STALE');
    expect(fitsTo(during, await world.ask(INDEX))).toBe(true);
    publish(upstream, two);
    // a refresh that failed is not repeated at once
    const now = async () => (await world.ask(`${ROOT}/InRelease`)).body.toString();
    await expect.poll(now, { timeout: 60_000, interval: 200 }).toBe(two.inRelease);
    const after = await world.ask(`${ROOT}/InRelease`);
    const asked = upstream.log.length;
    expect(fitsTo(after, await world.ask(INDEX))).toBe(true);
    expect(upstream.log.length).toBe(asked); // it was brought before the Release was handed out
    expect(world.proxy.cache.metrics.get('held_snapshots')).toBe(1);
  });

  it('gives a client in the middle of its update the indexes of the Release that it has', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const [one, two] = await twoVersions(key);
    publish(upstream, one);
    await using world = await worldFor(key, upstream);
    const { Agent } = await import('node:http');
    const [a, b] = [new Agent({ keepAlive: true, maxSockets: 1 }), new Agent({ keepAlive: true, maxSockets: 1 })];
    try {
      await world.ask(INDEX);
      const early = await world.ask(`${ROOT}/InRelease`, { agent: a });
      publish(upstream, two);
      const late = await world.ask(`${ROOT}/InRelease`, { agent: b });
      expect(late.body.toString()).toBe(two.inRelease);
      expect(fitsTo(late, await world.ask(INDEX, { agent: b }))).toBe(true);
      expect(fitsTo(early, await world.ask(INDEX, { agent: a }))).toBe(true);
    } finally {
      a.destroy();
      b.destroy();
    }
  });

  it('says that it cannot, where the index of the Release that a client has is nowhere any more', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const [one, two] = await twoVersions(key, true); // with by-hash names nothing is brought beforehand
    publish(upstream, one);
    await using world = await worldFor(key, upstream);
    await world.ask(`${ROOT}/InRelease`);
    publish(upstream, two);
    for (const path of upstream.files.keys())
      if (path.endsWith(sha256(one.files.get('dists/stable/main/binary-amd64/Packages.gz')!)))
        upstream.files.delete(path);
    expect((await world.ask(INDEX)).status).toBe(502);
  });

  it('lets the first client ever wait until upstream has published, whichever file comes first', async () => {
    const key = await testKey();
    const [one, two] = await twoVersions(key);
    for (const first of [/InRelease$/, /Packages(\.gz)?$/]) {
      await using upstream = await startUpstream();
      publish(upstream, one);
      publish(upstream, two, first);
      await using world = await worldFor(key, upstream);
      const release = world.ask(`${ROOT}/InRelease`);
      await expect.poll(() => world.proxy.cache.metrics.get('held_snapshots'), { timeout: 60_000 }).toBeGreaterThan(0);
      publish(upstream, two);
      const given = await release;
      expect(given.body.toString()).toBe(two.inRelease);
      const index = await world.ask(INDEX);
      expect(index.status).toBe(200);
      expect(fitsTo(given, index)).toBe(true);
    }
  });

  it('gives the first client what there is, when upstream does not finish', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const [one, two] = await twoVersions(key);
    publish(upstream, one);
    publish(upstream, two, /InRelease$/);
    await using world = await startProxy([`${upstream.url}/archive`], {
      keys: [key.publicKeyArmored],
      parts: { publishWaitMs: 0 },
    });
    expect((await world.ask(`${ROOT}/InRelease`)).body.toString()).toBe(two.inRelease);
    expect((await world.ask(INDEX)).status).toBe(502);
  });

  it('waits for an index that upstream is about to have', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const [one] = await twoVersions(key);
    publish(upstream, one, /InRelease$/);
    await using world = await worldFor(key, upstream);
    const release = await world.ask(`${ROOT}/InRelease`);
    const asked = upstream.count(/Packages\.gz/);
    const index = world.ask(INDEX);
    await expect.poll(() => upstream.count(/Packages\.gz/), { timeout: 60_000 }).toBeGreaterThan(asked);
    publish(upstream, one);
    expect(fitsTo(release, await index)).toBe(true);
  });

  it('finds the index of an old Release by its hash', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const [one, two] = await twoVersions(key, true);
    publish(upstream, one);
    await using world = await worldFor(key, upstream);
    const release = await world.ask(`${ROOT}/InRelease`);
    publish(upstream, two);
    expect(fitsTo(release, await world.ask(INDEX))).toBe(true);
  });

  it('leaves a mirror that lags behind alone', async () => {
    await using fresh = await startUpstream();
    await using stale = await startUpstream();
    const key = await testKey();
    const [one, two] = await twoVersions(key);
    publish(fresh, two);
    publish(stale, one);
    await using world = await worldFor(key, fresh, stale);
    expect((await world.ask(`${ROOT}/InRelease`)).body.toString()).toBe(two.inRelease);
    await world.ask(INDEX);
    fresh.faults.push({ path: /./, status: 503 });
    const answer = await world.ask(`${ROOT}/InRelease`);
    expect(answer.body.toString()).toBe(two.inRelease);
    expect(fitsTo(answer, await world.ask(INDEX))).toBe(true);
    expect(world.proxy.cache.metrics.get('stale_mirrors')).toBe(1);
  });

  it('takes the indexes of a fresh Release from the mirror that has them', async () => {
    await using fresh = await startUpstream();
    await using stale = await startUpstream();
    const key = await testKey();
    const [one, two] = await twoVersions(key);
    publish(fresh, two);
    publish(stale, one);
    await using world = await worldFor(key, stale, fresh);
    expect((await world.ask(`${ROOT}/InRelease`)).body.toString()).toBe(one.inRelease);
    stale.faults.push({ path: /InRelease/, status: 500 });
    const answer = await world.ask(`${ROOT}/InRelease`);
    expect(answer.body.toString()).toBe(two.inRelease);
    const index = await world.ask(INDEX);
    expect(index.status).toBe(200);
    expect(fitsTo(answer, index)).toBe(true);
  });

  it('serves Release and Release.gpg that belong together', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const [one, two] = await twoVersions(key);
    publish(upstream, one);
    await using world = await worldFor(key, upstream);
    const release = await world.ask(`${ROOT}/Release`);
    expect(release.body.equals(one.files.get('dists/stable/Release')!)).toBe(true);
    publish(upstream, two, /Release\.gpg$/);
    expect((await world.ask(`${ROOT}/Release.gpg`)).status).toBe(404);
    publish(upstream, one, /Release\.gpg$/);
    expect((await world.ask(`${ROOT}/Release.gpg`)).status).toBe(200);
  });

  it('works for an archive without InRelease', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const [one] = await twoVersions(key);
    publish(upstream, one, /^(?!.*InRelease)/);
    await using world = await worldFor(key, upstream);
    expect((await world.ask(`${ROOT}/InRelease`)).status).toBe(404);
    expect((await world.ask(`${ROOT}/Release`)).status).toBe(200);
    expect((await world.ask(`${ROOT}/Release.gpg`)).status).toBe(200);
    expect((await world.ask(INDEX)).headers['x-cache-why']).toContain('signed Release');
  });
});

describe('signatures', () => {
  it('of strangers are refused where they are asked for, accepted as unverified elsewhere', async () => {
    await using upstream = await startUpstream();
    const [key, other] = [await testKey(), await testKey('Other')];
    const [one] = await twoVersions(other);
    publish(upstream, one);
    await using strict = await worldFor(key, upstream);
    const refused = await strict.ask(`${ROOT}/InRelease`);
    expect(refused.status).toBe(502);
    expect(strict.proxy.cache.metrics.get('bad_signatures')).toBe(1);
    await using open = await startProxy([`${upstream.url}/archive`], {
      keys: [key.publicKeyArmored],
      signatures: 'accept',
    });
    expect((await open.ask(`${ROOT}/InRelease`)).status).toBe(200);
    const index = await open.ask(INDEX);
    expect(index.headers['x-cache-why']).toMatch(/^named by the Release/);
  });

  it('that do not fit the text are refused everywhere, and the good copy stays', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const [one] = await twoVersions(key);
    publish(upstream, one);
    await using world = await startProxy([`${upstream.url}/archive`], {
      keys: [key.publicKeyArmored],
      signatures: 'accept',
      clock: new Date('2026-11-03T00:00:00Z'),
    });
    await world.ask(`${ROOT}/InRelease`);
    upstream.put(`${ROOT}/InRelease`, one.inRelease.replace('Origin: Test', 'Origin: Evil'));
    const answer = await world.ask(`${ROOT}/InRelease`);
    expect(answer.body.toString()).toBe(one.inRelease);
    expect(answer.headers['x-cache']).toBe('STALE');
  });
});

describe('offline', () => {
  it('serves a suite with its indexes and packages after upstream has gone, also after a restart', async () => {
    const upstream = await startUpstream();
    const key = await testKey();
    const hello = randomPackage('hello', 5000);
    const archive = await buildArchive({ date: new Date('2026-11-01T00:00:00Z'), packages: [hello], key });
    publish(upstream, archive);
    await using world = await worldFor(key, upstream);
    const paths = [`${ROOT}/InRelease`, INDEX, `/archive/${poolPath(hello)}`];
    for (const path of paths) await world.ask(path);
    await upstream[Symbol.asyncDispose]();
    for (const offline of [false, true]) {
      await world.restart({ offline });
      for (const path of paths) expect((await world.ask(path)).status).toBe(200);
      expect((await world.ask('/archive/pool/other.deb')).status).toBe(503);
      // without being told, it finds out by itself, and not for each of them
      const tries = world.proxy.cache.upstream.health().reduce((sum, one) => sum + one.failures, 0);
      expect(tries).toBeLessThan(offline ? 1 : 3);
    }
    expect(world.proxy.cache.store.missing().map((one) => one.key)).toEqual(['archive/pool/other.deb']);
  });

  it('freezes a view that later publishing does not change', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const [one, two] = await twoVersions(key);
    publish(upstream, one);
    await using world = await worldFor(key, upstream);
    await world.ask(`${ROOT}/InRelease`);
    await world.ask(INDEX);
    world.proxy.cache.suites.freeze('monday');
    publish(upstream, two);
    expect((await world.ask(`${ROOT}/InRelease`)).body.toString()).toBe(two.inRelease);
    const frozen = await world.ask('/frozen/monday/archive/dists/stable/InRelease');
    expect(frozen.body.toString()).toBe(one.inRelease);
    const index = await world.ask('/frozen/monday/archive/dists/stable/main/binary-amd64/Packages.gz');
    expect(fitsTo(frozen, index)).toBe(true);
    const credentials = { 'proxy-authorization': `Basic ${Buffer.from('monday:').toString('base64')}` };
    const asProxy = await world.ask(`${upstream.url}${ROOT}/InRelease`, { headers: credentials });
    expect(asProxy.body.toString()).toBe(one.inRelease);
    expect((await world.ask('/frozen/tuesday/archive/dists/stable/InRelease')).status).toBe(404);
  });
});
