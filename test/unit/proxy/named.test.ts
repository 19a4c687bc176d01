import { describe, expect, it, vi } from 'vitest';
import { indexesThatMayName } from '../../../src/proxy/naming.ts';
import type { NamedFile } from '../../../src/proxy/release.ts';
import {
  type ArchivePackage,
  buildArchive,
  poolPath,
  publish,
  randomPackage,
  testKey,
} from '../../support/proxy-archive.ts';
import { type FakeUpstream, sha256, startUpstream } from '../../support/proxy-upstream.ts';
import { startProxy } from '../../support/proxy-world.ts';

/** For what surely comes: a busy machine takes its time. */
const PATIENTLY = { timeout: 60_000 };
vi.setConfig({ testTimeout: 180_000 });

const RELEASE = '/archive/dists/stable/InRelease';
const CHECKED = 'checked against a signed index';
const INDEX = /Packages|by-hash/;

/** Two generations of an archive, the first of them published and its Release (not its index) known to the proxy. */
async function generations(
  mirrors: readonly FakeUpstream[],
  old: readonly ArchivePackage[],
  added: readonly ArchivePackage[],
) {
  const key = await testKey();
  const one = await buildArchive({ date: new Date('2026-11-01T00:00:00Z'), packages: old, key, byHash: true });
  const packages = [...old, ...added];
  const two = await buildArchive({ date: new Date('2026-11-02T00:00:00Z'), packages, key, byHash: true });
  for (const mirror of mirrors) publish(mirror, one);
  const world = await startProxy(
    mirrors.map((mirror) => `${mirror.url}/archive`),
    { keys: [key.publicKeyArmored], clock: new Date('2026-11-03T00:00:00Z') },
  );
  expect((await world.ask(RELEASE)).status).toBe(200);
  return { world, one, two };
}

describe('a package file whose index no client has asked for', () => {
  it('is checked against the index that names it, fetched once for all who ask', async () => {
    await using upstream = await startUpstream();
    const hello = randomPackage('hello', 300_000);
    const { world } = await generations([upstream], [hello], []);
    await using _ = world;
    const path = `/archive/${poolPath(hello)}`;
    const answers = await Promise.all(Array.from({ length: 5 }, () => world.ask(path)));
    for (const answer of answers) {
      expect(answer.body.equals(hello.bytes)).toBe(true);
      expect(answer.headers['x-cache-why']).toBe(CHECKED);
    }
    expect([upstream.count(/hello/), upstream.count(INDEX)]).toEqual([1, 1]);
    expect(world.proxy.cache.store.url(path.slice(1))?.verified).toBe(2);
  });

  it('is not served when it is wrong', async () => {
    await using upstream = await startUpstream();
    const hello = randomPackage('hello', 40_000);
    const { world } = await generations([upstream], [hello], []);
    await using _ = world;
    upstream.faults.push({ path: /hello/, flip: 100, times: 1 });
    expect((await world.ask(`/archive/${poolPath(hello)}`)).status).toBe(502);
    expect((await world.ask(`/archive/${poolPath(hello)}`)).body.equals(hello.bytes)).toBe(true);
  });

  it('is checked against a newer Release than the one that is here', async () => {
    await using upstream = await startUpstream();
    const [hello, fresh] = [randomPackage('hello', 1000), randomPackage('fresh', 40_000)];
    const { world, two } = await generations([upstream], [hello], [fresh]);
    await using _ = world;
    publish(upstream, two);
    upstream.faults.push({ path: /fresh/, flip: 100, times: 1 });
    expect((await world.ask(`/archive/${poolPath(fresh)}`)).status).toBe(502);
    const answer = await world.ask(`/archive/${poolPath(fresh)}`);
    expect(answer.body.equals(fresh.bytes)).toBe(true);
    expect(answer.headers['x-cache-why']).toBe(CHECKED);
  });

  it.each([
    ['right', 300_000, undefined],
    ['wrong', 40_000, 100],
    ['wrong and large', 300_000, 299_999],
  ])('is checked when upstream publishes while it is being asked for: %s', async (_name, size, flip) => {
    await using upstream = await startUpstream();
    const [hello, fresh] = [randomPackage('hello', 1000), randomPackage('fresh', size)];
    const { world, two } = await generations([upstream], [hello], [fresh]);
    await using _ = world;
    const path = `/archive/${poolPath(fresh)}`;
    upstream.faults.push({
      path: /fresh/,
      before: () => publish(upstream, two),
      ...(flip === undefined ? {} : { flip }),
      times: 1,
    });
    const answer = await world.ask(path).catch(() => undefined); // it may be cut off before its head is out
    if (flip === undefined) {
      expect(answer?.body.equals(fresh.bytes)).toBe(true);
      expect(answer?.headers['x-cache-why']).toBe(CHECKED);
      expect(answer?.headers.etag).toBe(`"${sha256(fresh.bytes)}"`);
      expect(world.proxy.cache.store.url(path.slice(1))?.verified).toBe(2);
    } else {
      expect(answer?.complete && answer.status === 200).not.toBe(true);
      expect(world.proxy.cache.store.url(path.slice(1))).toBeUndefined();
      expect(world.proxy.cache.metrics.get('bad_bodies')).toBe(1);
    }
    expect((await world.ask(path)).body.equals(fresh.bytes)).toBe(true);
  });

  it('of another length than the Release says that came meanwhile is not served at all', async () => {
    await using upstream = await startUpstream();
    const [hello, fresh] = [randomPackage('hello', 1000), randomPackage('fresh', 400_000)];
    const { world, two } = await generations([upstream], [hello], [fresh]);
    await using _ = world;
    const path = `/archive/${poolPath(fresh)}`;
    const other = randomPackage('fresh', 300_000);
    const wrong = () => {
      publish(upstream, two);
      upstream.put(path, other.bytes);
    };
    upstream.faults.push({ path: /fresh/, before: wrong, times: 1 });
    expect((await world.ask(path)).status).toBe(502);
    publish(upstream, two);
    expect((await world.ask(path)).body.equals(fresh.bytes)).toBe(true);
  });

  it('goes out marked when nothing names it; no index is read twice for that; and an index that comes later is believed', async () => {
    await using upstream = await startUpstream();
    const [hello, stray] = [randomPackage('hello', 1000), randomPackage('stray', 40_000)];
    const { world, two } = await generations([upstream], [hello], [stray]);
    await using _ = world;
    const path = `/archive/${poolPath(stray)}`;
    const other = randomPackage('stray', 40_000);
    upstream.put(path, other.bytes);
    for (const cache of ['MISS', 'HIT', 'HIT']) {
      const answer = await world.ask(path);
      expect(answer.body.equals(other.bytes)).toBe(true);
      expect(answer.headers['x-cache']).toBe(cache);
      expect(answer.headers['x-cache-why']).toContain('unverified');
      expect(answer.headers['cache-control']).not.toContain('immutable');
    }
    expect([upstream.count(/stray/), upstream.count(INDEX)]).toEqual([1, 1]);
    publish(upstream, two);
    const answer = await world.ask(path);
    expect(answer.body.equals(stray.bytes)).toBe(true);
    expect(answer.headers['x-cache-why']).toBe(CHECKED);
  });

  it('does not fail when its index cannot be had', async () => {
    await using upstream = await startUpstream();
    const hello = randomPackage('hello', 40_000);
    const { world } = await generations([upstream], [hello], []);
    await using _ = world;
    upstream.faults.push({ path: INDEX, status: 404 });
    for (let round = 0; round < 2; round += 1) {
      const answer = await world.ask(`/archive/${poolPath(hello)}`);
      expect(answer.body.equals(hello.bytes)).toBe(true);
      expect(answer.headers['x-cache-why']).toContain('unverified');
    }
    expect(upstream.count(INDEX)).toBe(2); // by hash and by path, once
  });
});

describe('a fetch that began before its digest was known', () => {
  it('is joined by those who know it, and held to it', async () => {
    await using upstream = await startUpstream();
    const [hello, fresh] = [randomPackage('hello', 1000), randomPackage('fresh', 3_000_000)];
    const { world, two } = await generations([upstream], [hello], [fresh]);
    await using _ = world;
    const path = `/archive/${poolPath(fresh)}`;
    upstream.put(path, fresh.bytes);
    upstream.hold(1_000_000);
    const early = world.ask(path);
    await expect.poll(() => world.proxy.cache.flights.current()[0]?.released ?? 0, PATIENTLY).toBeGreaterThan(500_000);
    for (const [name, bytes] of two.files) if (!name.startsWith('pool')) upstream.put(`/archive/${name}`, bytes);
    await world.ask(RELEASE);
    const late = world.ask(path);
    await expect.poll(() => world.proxy.cache.flights.current()[0]?.readers, PATIENTLY).toBe(2);
    upstream.release();
    expect((await late).headers['x-cache']).toBe('JOIN');
    expect((await late).headers['x-cache-why']).toBe(CHECKED);
    for (const answer of [await early, await late]) expect(answer.body.equals(fresh.bytes)).toBe(true);
    expect(upstream.count(/fresh/)).toBe(1);
    expect(world.proxy.cache.store.url(path.slice(1))?.verified).toBe(2);
  });

  it('gives its end to nobody when it does not fit: those who know the digest get it from the next mirror', async () => {
    await using bad = await startUpstream();
    await using good = await startUpstream();
    const [hello, fresh] = [randomPackage('hello', 1000), randomPackage('fresh', 3_000_000)];
    const { world, two } = await generations([bad, good], [hello], [fresh]);
    await using _ = world;
    const path = `/archive/${poolPath(fresh)}`;
    for (const mirror of [bad, good]) mirror.put(path, fresh.bytes);
    bad.faults.push({ path: /fresh/, flip: 2_999_999, times: 1 });
    bad.hold(1_000_000);
    const early = world.ask(path);
    await expect.poll(() => world.proxy.cache.flights.current()[0]?.released ?? 0, PATIENTLY).toBeGreaterThan(500_000);
    for (const mirror of [bad, good])
      for (const [name, bytes] of two.files) if (!name.startsWith('pool')) mirror.put(`/archive/${name}`, bytes);
    await world.ask(RELEASE);
    const late = world.ask(path, { headers: { range: 'bytes=2999000-' } });
    await expect.poll(() => world.proxy.cache.flights.current()[0]?.readers, PATIENTLY).toBe(2);
    bad.release();
    expect((await early).complete).toBe(false);
    expect((await late).body.equals(fresh.bytes.subarray(2_999_000))).toBe(true);
    expect([bad.count(/fresh/), good.count(/fresh/)]).toEqual([1, 1]);
  });
});

describe('indexes that may name a file', () => {
  const file = (size = 10): NamedFile => ({ size, sha256: 'a'.repeat(64) });
  const release = (...paths: string[]) => ({ files: new Map(paths.map((path) => [path, file()])) });
  const pick = (path: string, ...paths: string[]) =>
    indexesThatMayName(path, release(...paths), () => false).map((one) => one.path);

  it('are those of its component and architecture, in the smallest form', () => {
    const paths = ['main', 'contrib'].flatMap((component) => [
      ...['', '.gz', '.xz'].flatMap((end) => [
        `${component}/binary-amd64/Packages${end}`,
        `${component}/binary-arm64/Packages${end}`,
        `${component}/source/Sources${end}`,
      ]),
      `${component}/debian-installer/binary-amd64/Packages.xz`,
      `${component}/Contents-amd64.gz`,
    ]);
    expect(pick('pool/main/h/hello/hello_1-1_amd64.deb', ...paths)).toEqual(['main/binary-amd64/Packages.xz']);
    expect(pick('pool/updates/contrib/h/hello/hello_1-1_arm64.deb', ...paths)).toEqual([
      'contrib/binary-arm64/Packages.xz',
    ]);
    expect(pick('pool/main/h/hello/hello_1-1.dsc', ...paths)).toEqual(['main/source/Sources.xz']);
    expect(pick('pool/main/h/hello/hello_1-1_amd64.udeb', ...paths)).toEqual([
      'main/debian-installer/binary-amd64/Packages.xz',
    ]);
    expect(pick('pool/main/h/hello/hello-doc_1-1_all.deb', ...paths)).toEqual(['main/binary-amd64/Packages.xz']);
    expect(pick('pool/h/hello_1-1_amd64.deb', ...paths)).toEqual([
      'main/binary-amd64/Packages.xz',
      'contrib/binary-amd64/Packages.xz',
    ]);
    expect(pick('pool/main/h/hello/hello_1-1_s390x.deb', ...paths)).toEqual([]);
  });

  it('are those for all architectures, and those of flat archives', () => {
    const paths = ['main/binary-all/Packages.xz', 'main/binary-amd64/Packages.xz', 'main/binary-arm64/Packages.xz'];
    expect(pick('pool/main/h/hello/hello_1_all.deb', ...paths)).toEqual(['main/binary-all/Packages.xz']);
    expect(pick('hello_1_amd64.deb', 'Packages', 'Packages.gz', 'Sources.gz')).toEqual(['Packages.gz']);
  });

  it('prefer what is here, and leave out what is too large', () => {
    const files = new Map([
      ['main/binary-amd64/Packages.xz', file()],
      ['main/binary-amd64/Packages.gz', { size: 20, sha256: 'b'.repeat(64) }],
      ['main/binary-all/Packages.xz', file(65 * 1024 * 1024)],
    ]);
    const found = indexesThatMayName('pool/main/h_1_amd64.deb', { files }, (sha) => sha.startsWith('b'));
    expect(found.map((one) => one.path)).toEqual(['main/binary-amd64/Packages.gz']);
  });
});
