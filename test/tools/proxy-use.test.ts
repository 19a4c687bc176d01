/** `--proxy auto`: a proxy that runs is found, one is started where none does, and it ends with the last who uses it. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Context } from '../../src/core/context.ts';
import { isDebian, readIndexTargets } from '../../src/deb/apt-targets.ts';
import { readSuiteIndex } from '../../src/pkg/suite-index.ts';
import { probe } from '../../src/proxy/leases.ts';
import { serveProxy } from '../../src/proxy/serve.ts';
import { configSchema } from '../../src/release/config.ts';
import { proxySettings } from '../../src/release/proxy-settings.ts';
import { guestFiles, proxyForGuest, useProxy } from '../../src/release/proxy-use.ts';
import { startUpstream } from '../support/proxy-upstream.ts';
import { createWorld, type World } from '../support/world.ts';

/** Port 1 is nobody's: nothing is found where it is configured. */
function wish(world: World, proxy: Record<string, unknown> = {}, wanted?: string) {
  const config = configSchema.parse({ proxy: { use: 'auto', listen: ['127.0.0.1:1'], ...proxy } }).proxy;
  return { wanted, workspaceDir: world.path, config };
}

const alive = async (url: string) => (await probe(url, new AbortController().signal)) !== undefined;

describe('--proxy auto', () => {
  it('starts one for the time of the command, with the cache in the state folder', async () => {
    await using world = await createWorld();
    const proxy = (await useProxy(world.context, wish(world)))!;
    expect(await alive(proxy.url)).toBe(true);
    expect(proxy.guestUrl).toBe(proxy.url.replace('127.0.0.1', 'host.buildkit'));
    expect(await readdir(join(world.context.cacheDir, 'proxy'))).toContain('serving.json');
    await proxy[Symbol.asyncDispose]();
    expect(await alive(proxy.url)).toBe(false);
    expect(await readdir(join(world.context.cacheDir, 'proxy'))).not.toContain('serving.json');
  }, 60_000);

  it('shares the one that another command started, which waits for all who use it', async () => {
    await using world = await createWorld();
    const notes: string[] = [];
    const context: Context = { ...world.context, log: { ...world.context.log, info: (line) => void notes.push(line) } };
    const [first, second] = await Promise.all([useProxy(context, wish(world)), useProxy(context, wish(world))]);
    expect(second!.url).toBe(first!.url);
    const starter =
      notes.findIndex((line) => line.includes('started for this command')) === 0
        ? [first!, second!]
        : [second!, first!];
    // whichever started it: one of the two disposals has to wait for the other
    const ends: string[] = [];
    const a = starter[0]![Symbol.asyncDispose]().then(() => ends.push('starter'));
    expect(await alive(first!.url)).toBe(true);
    const b = starter[1]![Symbol.asyncDispose]().then(() => ends.push('guest'));
    await Promise.all([a, b]);
    expect(await alive(first!.url)).toBe(false);
  }, 60_000);

  it('finds the server of its own cache, and a configured one, and leaves them running', async () => {
    await using world = await createWorld();
    const settings = await proxySettings(world.context, world.path, wish(world).config);
    await using server = await serveProxy(world.context, settings, { listen: ['0.0.0.0:0'] });
    const local = server.urls[0]!.replace('0.0.0.0', '127.0.0.1');
    const own = (await useProxy(world.context, wish(world)))!;
    expect(own.url).toBe(local);
    await own[Symbol.asyncDispose]();
    expect(await alive(local)).toBe(true);
    const elsewhere = { ...world.context, cacheDir: join(world.path, 'other') };
    const port = new URL(local).port;
    await using configured = await useProxy(elsewhere, wish(world, { listen: [`127.0.0.1:${port}`] }));
    expect(configured!.url).toBe(local);
    const files = await proxyForGuest(elsewhere, wish(world, { listen: [`127.0.0.1:${port}`] }));
    expect(files[1]!.text).toContain(`http://host.buildkit:${port}`);
    // by its cache as well: its address need not be configured
    const known = await proxyForGuest(world.context, wish(world));
    expect(known[1]!.text).toContain(`http://host.buildkit:${port}`);
  }, 60_000);

  it('is off unless asked for, and refuses what is no address', async () => {
    await using world = await createWorld();
    expect(await useProxy(world.context, { workspaceDir: world.path, config: configSchema.parse({}).proxy })).toBe(
      undefined,
    );
    expect(await useProxy(world.context, wish(world, {}, 'off'))).toBe(undefined);
    for (const wrong of ['auto2', 'https://proxy:1', 'http://u@host:1', 'http://host:1/path'])
      await expect(useProxy(world.context, wish(world, {}, wrong))).rejects.toMatchObject({ code: 'proxy-url' });
    const direct = guestFiles({ guestUrl: 'http://host.buildkit:9' })[0]!.text;
    for (const host of ['host.buildkit', '10.0.2.2', '192.168.100.254'])
      expect(direct).toContain(`Acquire::http::Proxy::${host} "DIRECT"`);
    // a guest beside busy ones starts a program in seconds: in less it would go direct, which it cannot where it is isolated
    expect(guestFiles({ guestUrl: 'http://host.buildkit:9' })[1]!.text).toContain('timeout 60 bash');
    expect(guestFiles({ guestUrl: 'http://192.0.2.1:9' })[1]!.text).toContain('timeout 10 bash');
  });

  it('hands pip and npm their own indexes through it, never another index in their place', async () => {
    await using upstream = await startUpstream();
    upstream.put('/simple/pip/', '<a href="pip-1.tar.gz">pip-1.tar.gz</a>');
    await using world = await createWorld();
    const indexes = { 'pypi-index': `${upstream.url}/simple`, 'npm-registry': `${upstream.url}/npm` };
    const settings = await proxySettings(world.context, world.path, wish(world, indexes).config);
    await using server = await serveProxy(world.context, settings, { listen: ['127.0.0.1:0'] });
    await using same = await useProxy(world.context, wish(world, indexes));
    expect(same!.env).toMatchObject({
      PIP_INDEX_URL: `${server.urls[0]}/pypi/simple/`,
      npm_config_registry: `${server.urls[0]}/npm/`,
    });
    await using other = await useProxy(
      world.context,
      wish(world, { ...indexes, 'pypi-index': `${upstream.url}/company` }),
    );
    expect(Object.keys(other!.env)).not.toContain('PIP_INDEX_URL');
    expect(Object.keys(other!.env)).toContain('npm_config_registry');
    // an index that does not answer would only be waited for
    upstream.faults.push({ path: /simple/, status: 503 });
    await server.close();
    await using fresh = await useProxy({ ...world.context, cacheDir: join(world.path, 'fresh') }, wish(world, indexes));
    expect(Object.keys(fresh!.env)).not.toContain('PIP_INDEX_URL');
  }, 60_000);

  it('reads the index of a suite a second time without a byte from upstream', async () => {
    await using world = await createWorld();
    const followed = new Set((await readIndexTargets({})).filter(isDebian).map((one) => one.codename));
    const suite = ['trixie', 'bookworm', 'forky'].find((one) => !followed.has(one))!;
    const settings = await proxySettings(world.context, world.path, wish(world, { 'max-age': 86_400 }).config);
    await using server = await serveProxy(world.context, settings, { listen: ['127.0.0.1:0'] });
    const fetched = () => server.cache.metrics.get('bytes_fetched');
    const read = async (name: string) => {
      const fresh = { ...world.context, cacheDir: join(world.path, name) };
      return readSuiteIndex(fresh, suite, 'amd64', { mirror: undefined, proxy: server.urls[0]! });
    };
    const first = await read('one');
    expect(first.size).toBeGreaterThan(100);
    const bytes = fetched();
    expect(bytes).toBeGreaterThan(1_000_000);
    expect([...(await read('two'))]).toEqual([...first]);
    expect(fetched()).toBe(bytes);
  }, 300_000);
});
