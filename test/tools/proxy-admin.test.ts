/** The client's side and the pages: `proxy configure --apply` with the real apt, metrics as Prometheus reads them, GET that changes nothing. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { complaints, createAptRoot } from '../support/apt-root.ts';
import { buildArchive, poolPath, publish, randomPackage, testKey } from '../support/proxy-archive.ts';
import { startUpstream } from '../support/proxy-upstream.ts';
import { startProxy } from '../support/proxy-world.ts';

const DATE = new Date('2026-10-01T00:00:00Z');

describe('proxy configure --apply', () => {
  it('leads the real apt through the proxy, and past it while it is down or gone to another port', async () => {
    await using upstream = await startUpstream();
    const key = await testKey();
    publish(upstream, await buildArchive({ date: DATE, packages: [randomPackage('hello', 100)], key }));
    await using world = await startProxy([`${upstream.url}/archive`], { keys: [key.publicKeyArmored] });
    const folder = await mkdtemp(join(tmpdir(), 'buildkit-proxy-admin-'));
    try {
      await writeFile(join(folder, 'key.asc'), key.publicKeyArmored);
      await using root = await createAptRoot({
        sources: `Types: deb\nURIs: ${upstream.url}/archive\nSuites: stable\nComponents: main\nSigned-By: ${folder}/key.asc\n`,
        configuration: ['#clear Acquire::http::Proxy;'], // the fixture says DIRECT for all
      });
      const applied = await run(
        {},
        'bin/buildkit',
        ['proxy', 'configure', '--apply', '--root', root.path, '--url', world.url],
        {
          timeoutMs: 60_000,
        },
      );
      expect(applied.stdout).toBe(
        'wrote /etc/apt/apt.conf.d/30buildkit-proxy\nwrote /usr/local/lib/buildkit/apt-proxy-detect\n',
      );
      // in a mount namespace of its own the root's /usr/local is the machine's
      const update = async () => {
        await rm(join(root.path, 'var/lib/apt/lists'), { recursive: true, force: true });
        const inside = `mount --bind ${root.path}/usr/local /usr/local; exec apt-get update`;
        const result = await run({}, 'unshare', ['--mount', 'sh', '-ec', inside], {
          env: { APT_CONFIG: join(root.path, 'apt.conf') },
          timeoutMs: 120_000,
        });
        expect(complaints(result)).toEqual([]);
      };
      await update();
      const served = world.proxy.cache.metrics.get('requests');
      expect(served).toBeGreaterThan(1);
      const direct = upstream.log.length;
      await world.proxy.close();
      await update();
      expect(upstream.log.length).toBeGreaterThan(direct);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }, 180_000);
});

/** Prometheus' text format 0.0.4, strictly: what `promtool check metrics` would refuse is an Error. */
function parseMetrics(text: string): Map<string, { type: string; samples: number }> {
  const families = new Map<string, { type: string; samples: number; help: boolean }>();
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const seen = new Set<string>();
  let current = '';
  for (const line of text.slice(0, -1).split('\n')) {
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line);
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line);
    if (help) {
      if (families.has(help[1]!)) throw new Error(`twice: ${line}`);
      families.set(help[1]!, { type: '', samples: 0, help: true });
      current = help[1]!;
    } else if (type) {
      if (type[1] !== current || families.get(current)?.type !== '') throw new Error(`TYPE out of place: ${line}`);
      families.get(current)!.type = type[2]!;
      if ((type[2] === 'counter') !== current.endsWith('_total'))
        throw new Error(`its name does not fit its type: ${line}`);
    } else {
      const sample =
        /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",?)*\})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|NaN|[+-]Inf)$/.exec(
          line,
        );
      if (!sample) throw new Error(`no sample: ${line}`);
      if (sample[1] !== current || !families.get(current)?.type) throw new Error(`a sample out of place: ${line}`);
      if (seen.has(`${sample[1]}${sample[2] ?? ''}`)) throw new Error(`twice: ${line}`);
      seen.add(`${sample[1]}${sample[2] ?? ''}`);
      families.get(current)!.samples += 1;
    }
  }
  return families;
}

describe('pages', () => {
  it('speak Prometheus, tell health to people and programs, and escape what came from outside', async () => {
    await using upstream = await startUpstream();
    upstream.put('/archive/pool/a.deb', 'a');
    await using world = await startProxy([`${upstream.url}/archive`, 'http://mirror.invalid/archive']);
    await world.ask('/archive/pool/a.deb');
    await world.ask('/archive/pool/none.deb');
    const metrics = await world.ask('/metrics');
    expect(metrics.headers['content-type']).toContain('version=0.0.4');
    const families = parseMetrics(metrics.body.toString());
    expect([...families.values()].every((one) => one.type !== '')).toBe(true);
    expect(families.get('buildkit_proxy_upstream_up')!.samples).toBeGreaterThan(0);
    expect(metrics.body.toString()).toMatch(/^buildkit_proxy_misses_total 1$/m);
    const health = await world.ask('/healthz');
    expect(JSON.parse(health.body.toString())).toMatchObject({
      service: 'buildkit proxy',
      status: 'ok',
      offline: false,
    });
    const page = (await world.ask('/')).body.toString();
    for (const text of ['hit rate', 'saved', 'Being fetched', 'Upstreams', upstream.url, '/archive/'])
      expect(page).toContain(text);
    expect((await world.ask('/')).headers['content-security-policy']).toContain("default-src 'none'");
    expect(() => parseMetrics('# HELP a b\n# TYPE a counter\na 1\n')).toThrow('does not fit');
    expect(() => parseMetrics('a{b="c"d"} 1\n')).toThrow('no sample');
  });

  it('change nothing by GET, and have no other way in', async () => {
    await using upstream = await startUpstream();
    upstream.put('/archive/pool/a.deb', 'a');
    await using world = await startProxy([`${upstream.url}/archive`]);
    await world.ask('/archive/pool/a.deb');
    const objects = () => readdir(join(world.settings.dir, 'objects'), { recursive: true });
    const before = { urls: world.proxy.cache.store.urls('*').length, objects: await objects() };
    const actions = ['drop', 'expire', 'verify', 'purge', 'freeze', 'import', 'precache', 'shutdown', 'lease'];
    const queries = ['', '?pattern=*', '?confirm=yes', '?_method=DELETE', '?doExpire=1', '?doDelete=1'];
    for (const action of actions) {
      for (const query of queries) {
        for (const path of [`/${action}${query}`, `/api/${action}${query}`, `/acng-report.html${query}`])
          expect((await world.ask(path)).status).toBe(404);
      }
      for (const method of ['POST', 'PUT', 'DELETE', 'PATCH'])
        expect([403, 404]).toContain((await world.ask(`/api/${action}`, { method })).status);
    }
    for (const method of ['POST', 'PUT', 'DELETE'])
      expect((await world.ask(`/archive/${poolPath({ name: 'a', version: '1' })}`, { method })).status).toBe(405);
    expect({ urls: world.proxy.cache.store.urls('*').length, objects: await objects() }).toEqual(before);
    expect(world.proxy.leases.count()).toBe(0);
    expect((await world.ask('/healthz')).status).toBe(200);
  });
});
