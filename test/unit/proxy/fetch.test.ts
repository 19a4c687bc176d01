import { randomBytes } from 'node:crypto';
import { describe, expect, it, vi } from 'vitest';
import { buildArchive, poolPath, publish, randomPackage, testKey } from '../../support/proxy-archive.ts';
import { sha256, startUpstream } from '../../support/proxy-upstream.ts';
import { startProxy } from '../../support/proxy-world.ts';

/** For what surely comes: a busy machine takes its time. */
const PATIENTLY = { timeout: 60_000 };
vi.setConfig({ testTimeout: 180_000 });

describe('one fetch for many clients', () => {
  it('answers a cold file, then from the cache without asking upstream', async () => {
    await using upstream = await startUpstream();
    const bytes = randomBytes(700_000);
    upstream.put('/archive/pool/main/h/hello_1_all.deb', bytes);
    await using world = await startProxy([`${upstream.url}/archive`]);
    const first = await world.ask('/archive/pool/main/h/hello_1_all.deb');
    expect(first.status).toBe(200);
    expect(first.body.equals(bytes)).toBe(true);
    expect(first.headers['content-length']).toBe('700000');
    expect(first.headers['x-cache']).toBe('MISS');
    const second = await world.ask('/archive/pool/main/h/hello_1_all.deb');
    expect(second.headers['x-cache']).toBe('HIT');
    expect(second.body.equals(bytes)).toBe(true);
    expect(second.headers.etag).toBe(`"${sha256(bytes)}"`);
    const third = await world.ask('/archive/pool/main/h/hello_1_all.deb');
    expect(third.body.equals(bytes)).toBe(true);
    expect(upstream.log).toHaveLength(1);
  });

  it('feeds early and late joiners at any range from the same fetch', async () => {
    await using upstream = await startUpstream();
    const bytes = randomBytes(3_000_000);
    upstream.put('/archive/pool/big.deb', bytes);
    await using world = await startProxy([`${upstream.url}/archive`]);
    upstream.hold(1_000_000);
    const path = '/archive/pool/big.deb';
    const early = [world.ask(path), world.ask(path), world.ask(path, { headers: { range: 'bytes=2000000-' } })];
    await expect.poll(() => world.proxy.cache.flights.current()[0]?.received ?? 0, PATIENTLY).toBeGreaterThan(900_000);
    const late = [
      world.ask(path),
      world.ask(path, { headers: { range: 'bytes=500000-599999' } }),
      world.ask(path, { headers: { range: 'bytes=-7' } }),
    ];
    const middle = await late[1]!;
    expect(middle.status).toBe(206);
    expect(middle.body.equals(bytes.subarray(500_000, 600_000))).toBe(true);
    upstream.release();
    const [a, b, c] = await Promise.all(early);
    const [d, , f] = await Promise.all(late);
    expect([a, b, d].every((one) => one!.body.equals(bytes))).toBe(true);
    expect(c!.body.equals(bytes.subarray(2_000_000))).toBe(true);
    expect(f!.body.equals(bytes.subarray(-7))).toBe(true);
    expect(upstream.log).toHaveLength(1);
  });

  it('goes on when the client that started it leaves', async () => {
    await using upstream = await startUpstream();
    const bytes = randomBytes(2_000_000);
    upstream.put('/archive/pool/big.deb', bytes);
    await using world = await startProxy([`${upstream.url}/archive`]);
    upstream.hold(500_000);
    const leaving = new AbortController();
    const first = world
      .ask('/archive/pool/big.deb', { signal: leaving.signal, onData: () => leaving.abort() })
      .catch(() => {});
    await first;
    const second = world.ask('/archive/pool/big.deb');
    upstream.release();
    expect((await second).body.equals(bytes)).toBe(true);
    expect(upstream.log).toHaveLength(1);
  });

  it('does not let a client that reads nothing hold another up', async () => {
    await using upstream = await startUpstream();
    const bytes = randomBytes(12_000_000);
    upstream.put('/archive/pool/big.deb', bytes);
    await using world = await startProxy([`${upstream.url}/archive`]);
    let go = () => {};
    const stop = new Promise<void>((resolve) => {
      go = resolve;
    });
    const slow = world.ask('/archive/pool/big.deb', { onData: () => stop });
    const fast = await world.ask('/archive/pool/big.deb');
    expect(fast.body.equals(bytes)).toBe(true);
    go();
    expect((await slow).body.equals(bytes)).toBe(true);
    expect(upstream.log).toHaveLength(1);
  });

  it('treats the same file at two addresses of one archive as one', async () => {
    await using upstream = await startUpstream();
    upstream.put('/archive/pool/a.deb', 'abc');
    await using world = await startProxy([`${upstream.url}/archive`]);
    expect((await world.ask('/archive/pool/a.deb')).body.toString()).toBe('abc');
    const viaProxy = await world.ask(`${upstream.url}/archive/./pool//a.deb`);
    expect(viaProxy.body.toString()).toBe('abc');
    expect(viaProxy.headers['x-cache']).toBe('HIT');
    expect(upstream.log).toHaveLength(1);
  });
});

describe('verification', () => {
  it('hands out an archive whose every file is checked', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    const hello = randomPackage('hello', 300_000);
    publish(upstream, await buildArchive({ date: new Date('2026-11-01T00:00:00Z'), packages: [hello], key }));
    await using world = await startProxy([`${upstream.url}/archive`], { keys: [key.publicKeyArmored] });
    const release = await world.ask('/archive/dists/stable/InRelease');
    expect(release.status).toBe(200);
    const index = await world.ask('/archive/dists/stable/main/binary-amd64/Packages.gz');
    expect(index.status).toBe(200);
    expect(index.headers['x-cache-why']).toContain('signed Release');
    const deb = await world.ask(`/archive/${poolPath(hello)}`);
    expect(deb.body.equals(hello.bytes)).toBe(true);
    expect(deb.headers['x-cache-why']).toBe('checked against a signed index');
  });
});
