import { randomBytes } from 'node:crypto';
import { chmodSync, rmSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { verifyCache } from '../../../src/proxy/upkeep.ts';
import { buildArchive, poolPath, publish, randomPackage, testKey } from '../../support/proxy-archive.ts';
import { type FakeUpstream, sha256, startUpstream, type UpstreamFile } from '../../support/proxy-upstream.ts';
import { type ProxyWorld, startProxy } from '../../support/proxy-world.ts';

/** For what surely comes: a busy machine takes its time. */
const PATIENTLY = { timeout: 60_000 };
vi.setConfig({ testTimeout: 180_000 });

const DATE = new Date('2026-11-01T00:00:00Z');

/** A signed archive of one package of `size` bytes whose index was asked for, so that its digest is known. */
async function knownPackage(mirrors: readonly FakeUpstream[], size: number) {
  const key = await testKey();
  const hello = randomPackage('hello', size);
  const archive = await buildArchive({ date: DATE, packages: [hello], key });
  for (const mirror of mirrors) publish(mirror, archive);
  const world = await startProxy(
    mirrors.map((mirror) => `${mirror.url}/archive`),
    { keys: [key.publicKeyArmored], clock: new Date('2026-11-02T00:00:00Z') },
  );
  await world.ask('/archive/dists/stable/InRelease');
  await world.ask('/archive/dists/stable/main/binary-amd64/Packages.gz');
  await world.proxy.cache.suites.settled();
  return { world, hello, path: `/archive/${poolPath(hello)}` };
}

function warnings(world: ProxyWorld): string {
  return world.world.warnings.join('\n');
}

describe('wrong bytes', () => {
  it('never reach the end of the answer, are never stored, and are fetched from the next mirror', async () => {
    await using bad = await startUpstream();
    await using good = await startUpstream();
    const { world, hello, path } = await knownPackage([bad, good], 2_000_000);
    await using _ = world;
    bad.faults.push({ path: /hello/, flip: 1_999_999 });
    const first = await world.ask(path);
    expect(first.complete).toBe(false);
    expect(first.body.length).toBeLessThanOrEqual(2_000_000 - 64 * 1024);
    const second = await world.ask(path);
    expect(second.complete).toBe(true);
    expect(second.body.equals(hello.bytes)).toBe(true);
    expect(good.count(/hello/)).toBe(1);
    expect(world.proxy.cache.metrics.get('bad_bodies')).toBe(1);
    expect(warnings(world)).toContain('not served to its end');
  });

  it('are not seen at all where the whole file fits into what is held back', async () => {
    await using bad = await startUpstream();
    await using good = await startUpstream();
    const { world, hello, path } = await knownPackage([bad, good], 50_000);
    await using _ = world;
    bad.faults.push({ path: /hello/, flip: 10 });
    const answer = await world.ask(path);
    expect(answer.status).toBe(200);
    expect(answer.body.equals(hello.bytes)).toBe(true);
    expect([bad.count(/hello/), good.count(/hello/)]).toEqual([1, 1]);
  });

  it('of another length are refused before a byte is taken', async () => {
    await using upstream = await startUpstream();
    const { world, path } = await knownPackage([upstream], 300_000);
    await using _ = world;
    upstream.put(path, randomBytes(300_001));
    const answer = await world.ask(path);
    expect(answer.status).toBe(502);
    expect(answer.body.toString()).toContain('300001 bytes long instead of 300000');
    expect(world.proxy.cache.store.url(path.slice(1))).toBeUndefined();
  });

  it('are not believed of by-hash names', async () => {
    await using upstream = await startUpstream();
    const digest = sha256('right');
    upstream.put(`/archive/dists/x/main/binary-amd64/by-hash/SHA256/${digest}`, 'wrong');
    await using world = await startProxy([`${upstream.url}/archive`]);
    const answer = await world.ask(`/archive/dists/x/main/binary-amd64/by-hash/SHA256/${digest}`);
    expect(answer.status).toBe(502);
  });
});

describe('cut answers', () => {
  it('are resumed by Range, and the client notices nothing', async () => {
    await using upstream = await startUpstream();
    const bytes = randomBytes(1_500_000);
    upstream.put('/archive/pool/a.deb', bytes, { etag: '"one"' });
    upstream.faults.push({ path: /a\.deb/, cutAfter: 600_000, times: 1 });
    await using world = await startProxy([`${upstream.url}/archive`]);
    const answer = await world.ask('/archive/pool/a.deb');
    expect(answer.body.equals(bytes)).toBe(true);
    expect(upstream.log).toHaveLength(2);
    expect(upstream.log[1]).toMatch(/^\/archive\/pool\/a\.deb bytes=\d+-$/);
  });

  it('are fetched whole and compared where the server promises nothing', async () => {
    await using upstream = await startUpstream();
    const bytes = randomBytes(1_500_000);
    upstream.put('/archive/pool/a.deb', bytes);
    upstream.faults.push({ path: /a\.deb/, cutAfter: 600_000, times: 1 });
    await using world = await startProxy([`${upstream.url}/archive`]);
    const answer = await world.ask('/archive/pool/a.deb');
    expect(answer.body.equals(bytes)).toBe(true);
    expect(upstream.log).toEqual(['/archive/pool/a.deb', '/archive/pool/a.deb']);
  });

  it('are never joined with another file that came in between', async () => {
    await using upstream = await startUpstream();
    const old = randomBytes(1_500_000);
    const fresh = randomBytes(1_500_000);
    for (const etag of [undefined, '"old"']) {
      await using world = await startProxy([`${upstream.url}/archive`]);
      upstream.put('/archive/pool/a.deb', old, { etag });
      upstream.faults.push({ path: /a\.deb/, cutAfter: 600_000, times: 1 });
      let changed = false;
      const first = await world.ask('/archive/pool/a.deb', {
        onData() {
          if (!changed) upstream.put('/archive/pool/a.deb', fresh, { etag: etag && '"new"' });
          changed = true;
        },
      });
      expect(first.complete).toBe(false); // it had bytes of the old one: cut off, not spliced
      const second = await world.ask('/archive/pool/a.deb');
      expect(second.body.equals(fresh)).toBe(true);
    }
  });

  it.each([
    ['another ETag', { etag: '"new"' }, 1_500_000, false],
    ['another ETag in a part, If-Range or not', { etag: '"new"' }, 1_500_000, true],
    ['more bytes', {}, 1_600_000, false],
    ['more bytes in the total of a part', { etag: '"old"' }, 1_600_000, true],
    ['fewer bytes', {}, 1_400_000, false],
    ['fewer bytes than are here (416)', { etag: '"old"' }, 300_000, true],
    ['another date', { lastModified: 'Mon, 02 Nov 2026 00:00:00 GMT' }, 1_500_000, false],
  ] satisfies [string, Omit<UpstreamFile, 'bytes'>, number, boolean][])(
    'are never joined with a file that has %s now, before or after a restart',
    async (_name, now: Omit<UpstreamFile, 'bytes'>, size, blind) => {
      await using upstream = await startUpstream();
      const [old, fresh] = [randomBytes(1_500_000), randomBytes(size)];
      const before =
        now.lastModified === undefined ? { etag: '"old"' } : { lastModified: 'Sun, 01 Nov 2026 00:00:00 GMT' };
      for (const restarts of [false, true]) {
        await using world = await startProxy([`${upstream.url}/archive`]);
        upstream.put('/archive/pool/a.deb', old, before);
        upstream.faults.length = 0;
        upstream.faults.push({ path: /a\.deb/, cutAfter: 600_000, times: 1 });
        upstream.faults.push({ path: /a\.deb/, ignoresIfRange: blind });
        if (restarts) {
          upstream.hold(500_000);
          const leaving = new AbortController();
          const first = world.ask('/archive/pool/a.deb', { signal: leaving.signal }).catch(() => undefined);
          await expect
            .poll(() => world.proxy.cache.flights.current()[0]?.received ?? 0, PATIENTLY)
            .toBeGreaterThan(400_000);
          leaving.abort();
          expect((await first)?.complete).not.toBe(true);
          await world.restart();
          upstream.release();
          upstream.put('/archive/pool/a.deb', fresh, now);
        } else {
          let changed = false;
          const first = await world.ask('/archive/pool/a.deb', {
            onData() {
              if (!changed) upstream.put('/archive/pool/a.deb', fresh, now);
              changed = true;
            },
          });
          expect(first.complete).toBe(false);
        }
        expect((await world.ask('/archive/pool/a.deb')).body.equals(fresh)).toBe(true);
      }
    },
  );

  it('notice a file that became shorter (416)', async () => {
    await using upstream = await startUpstream();
    const fresh = randomBytes(400_000);
    const { world, path, hello } = await knownPackage([upstream], 1_500_000);
    await using _ = world;
    upstream.faults.push({ path: /hello/, cutAfter: 600_000, times: 1 });
    let changed = false;
    const first = await world.ask(path, {
      onData() {
        if (!changed) upstream.put(path, fresh);
        changed = true;
      },
    });
    expect(first.complete).toBe(false);
    upstream.put(path, hello.bytes);
    expect((await world.ask(path)).body.equals(hello.bytes)).toBe(true);
  });

  it('without a length are not taken for whole files', async () => {
    await using upstream = await startUpstream();
    upstream.put('/archive/pool/a.deb', randomBytes(300_000));
    upstream.faults.push({ path: /a\.deb/, cutAfter: 100_000, lengthless: true, times: 1 });
    await using world = await startProxy([`${upstream.url}/archive`]);
    await world.ask('/archive/pool/a.deb');
    expect(world.proxy.cache.store.url('archive/pool/a.deb')).toBeUndefined();
    expect((await world.ask('/archive/pool/a.deb')).body.length).toBe(300_000);
  });

  it('without a length are resumed where the signed index tells the size', async () => {
    await using upstream = await startUpstream();
    const { world, path, hello } = await knownPackage([upstream], 900_000);
    await using _ = world;
    upstream.faults.push({ path: /hello/, cutAfter: 400_000, lengthless: true, times: 1 });
    const answer = await world.ask(path);
    expect(answer.complete).toBe(true);
    expect(answer.body.equals(hello.bytes)).toBe(true);
  });

  it('go on after a restart of the proxy', async () => {
    await using upstream = await startUpstream();
    const { world, path, hello } = await knownPackage([upstream], 3_000_000);
    await using _ = world;
    upstream.hold(1_000_000);
    const first = world.ask(path).catch(() => undefined);
    await expect.poll(() => world.proxy.cache.flights.current()[0]?.received ?? 0, PATIENTLY).toBeGreaterThan(800_000);
    await world.restart();
    await first;
    upstream.release();
    const second = await world.ask(path);
    expect(second.body.equals(hello.bytes)).toBe(true);
    expect(upstream.log.at(-1)).toMatch(/bytes=\d{6,}-$/);
  });
});

describe('upstream errors', () => {
  it('keep a 5xx from becoming a 404', async () => {
    await using upstream = await startUpstream();
    upstream.faults.push({ path: /a\.deb/, status: 500 });
    await using world = await startProxy([`${upstream.url}/archive`]);
    const answer = await world.ask('/archive/pool/a.deb');
    expect(answer.status).toBe(503);
    expect(answer.headers['retry-after']).toBe('5');
    expect((await world.ask('/archive/pool/none.deb')).status).toBe(404);
  });

  it('try the next mirror on 404, 500 and silence', async () => {
    await using first = await startUpstream();
    await using second = await startUpstream();
    second.put('/archive/pool/a.deb', 'abc');
    second.put('/archive/pool/b.deb', 'abc');
    first.faults.push({ path: /b\.deb/, status: 500 });
    await using world = await startProxy([`${first.url}/archive`, `${second.url}/archive`]);
    expect((await world.ask('/archive/pool/a.deb')).body.toString()).toBe('abc');
    expect((await world.ask('/archive/pool/b.deb')).body.toString()).toBe('abc');
    await first[Symbol.asyncDispose]();
    second.put('/archive/pool/c.deb', 'abc');
    expect((await world.ask('/archive/pool/c.deb')).body.toString()).toBe('abc');
  });

  it('answer at once while a server is known to be down', async () => {
    const upstream = await startUpstream();
    await using world = await startProxy([`${upstream.url}/archive`]);
    await upstream[Symbol.asyncDispose]();
    const tries = () => world.proxy.cache.upstream.health()[0]!.failures;
    expect((await world.ask('/archive/pool/a.deb')).status).toBe(503);
    const before = tries();
    for (let index = 0; index < 20; index += 1)
      expect((await world.ask(`/archive/pool/${index}.deb`)).status).toBe(503);
    // it is tried again only after seconds
    expect(tries() - before).toBeLessThan(10);
    const metrics = (await world.ask('/metrics')).body.toString();
    expect(metrics).toMatch(/^buildkit_proxy_upstream_up\{origin="http:\/\/127[^"]*"\} 0$/m);
    expect((await world.ask('/')).body.toString()).toContain('<td>down: ');
  });

  it('end a circle of redirects', async () => {
    await using upstream = await startUpstream();
    upstream.faults.push({ path: /a\.deb/, status: 302, headers: { location: `${upstream.url}/archive/pool/a.deb` } });
    upstream.put('/archive/pool/b.deb', 'found');
    upstream.faults.push({ path: /c\.deb/, status: 302, headers: { location: '/archive/pool/b.deb' } });
    await using world = await startProxy([`${upstream.url}/archive`]);
    expect((await world.ask('/archive/pool/a.deb')).status).toBe(503);
    expect(upstream.count(/a\.deb/)).toBe(6);
    expect((await world.ask('/archive/pool/c.deb')).body.toString()).toBe('found');
  });
});

describe('the disk', () => {
  it('may be read-only or full: clients get their bytes', async () => {
    await using upstream = await startUpstream();
    const { world, path, hello } = await knownPackage([upstream], 20_000_000);
    await using _ = world;
    const { blobs } = world.proxy.cache;
    // root writes past modes: the folder of partial files becomes a file, as a full disk would refuse it
    rmSync(`${blobs.dir}/partial`, { recursive: true });
    writeFileSync(`${blobs.dir}/partial`, '');
    const [a, b] = await Promise.all([world.ask(path), world.ask(path)]);
    expect(a.body.equals(hello.bytes)).toBe(true);
    expect(b.body.equals(hello.bytes)).toBe(true);
    expect(warnings(world)).toContain('clients are served, nothing is kept');
    expect(world.proxy.cache.metrics.get('disk_trouble')).toBeGreaterThan(0);
    const again = await world.ask(path);
    expect(again.body.equals(hello.bytes)).toBe(true);
  });

  it.each([
    ['deleted', (file: string) => rmSync(file)],
    ['cut short', (file: string) => truncateSync(file, 1000)],
    [
      'overwritten with the same length',
      (file: string) => {
        writeFileSync(file, randomBytes(statSync(file).size));
        utimesSync(file, 1, 1);
      },
    ],
  ])('heals a file that was %s behind its back', async (_name, harm) => {
    await using upstream = await startUpstream();
    const { world, path, hello } = await knownPackage([upstream], 400_000);
    await using _ = world;
    await world.ask(path);
    const file = world.proxy.cache.blobs.pathOf(sha256(hello.bytes));
    await world.restart();
    chmodSync(file, 0o644);
    harm(file);
    const answer = await world.ask(path);
    expect(answer.body.equals(hello.bytes)).toBe(true);
    expect(upstream.count(/hello/)).toBe(2);
    expect((await verifyCache(world.proxy.cache)).problems).toEqual([]);
  });

  it('reads again what was stored just before an unclean end', async () => {
    await using upstream = await startUpstream();
    const { world, path, hello } = await knownPackage([upstream], 400_000);
    await using _ = world;
    await world.ask(path);
    const { store } = world.proxy.cache;
    store.setState('clean', 'no');
    store.doubtSince(0);
    world.proxy.cache.files.forgetAll();
    world.proxy.cache.forgetHot();
    expect((await world.ask(path)).body.equals(hello.bytes)).toBe(true);
    expect(store.object(sha256(hello.bytes))?.checked).toBe(true);
    expect(upstream.count(/hello/)).toBe(1);
  });
});
