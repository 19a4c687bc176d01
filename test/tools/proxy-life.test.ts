/** The cache as a process of its own: https upstreams, kill -9 in the middle of a fetch, what it says when it ends. */
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningProgram, run, start } from '../../src/core/run.ts';
import { defaultSettings, type ProxySettings } from '../../src/proxy/settings.ts';
import { startUpstream } from '../support/proxy-upstream.ts';
import { ask } from '../support/proxy-world.ts';

const PROCESS = fileURLToPath(new URL('../support/proxy-process.ts', import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-proxy-life-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function firstLine(program: RunningProgram): Promise<string> {
  return new Promise((done) => createInterface(program.stdout as Readable).once('line', done));
}

/** The settings of a cache in a folder of its own, and the file that the process reads them from. */
async function cacheOf(name: string, changes: Partial<ProxySettings>) {
  const settings = { ...defaultSettings(join(folder, name)), keyrings: [], ...changes };
  const file = join(folder, `${name}.json`);
  await writeFile(file, JSON.stringify(settings));
  return file;
}

function startCache(file: string, env: Readonly<Record<string, string>> = {}): RunningProgram {
  return start({}, resolve('node_modules/.bin/node'), [PROCESS, file], { env, stdio: { stdin: 'ignore' } });
}

/** A server with a certificate of its own, which nobody knows but who is told. */
async function httpsUpstream(name: string, files: ReadonlyMap<string, Buffer>) {
  const [key, certificate] = [join(folder, `${name}.key`), join(folder, `${name}.crt`)];
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const names = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1'];
  await run({}, 'openssl', [...request, ...names, '-keyout', key, '-out', certificate], { timeoutMs: 60_000 });
  const asked: string[] = [];
  const server = createServer({ key: await readFile(key), cert: await readFile(certificate) }, (asking, response) => {
    asked.push(asking.url ?? '');
    const bytes = files.get(asking.url ?? '');
    response.writeHead(bytes ? 200 : 404, { 'content-length': bytes?.length ?? 0 }).end(bytes);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const at = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    ...{ at, asked, certificate },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

describe('https upstreams', () => {
  it('are reached for clients that speak http, by back end, by the address that stands for it, and by HTTPS///', async () => {
    const [package1, package2] = [randomBytes(100_000), randomBytes(300)];
    await using upstream = await httpsUpstream(
      'known',
      new Map([
        ['/archive/pool/a.deb', package1],
        ['/other/pool/b.deb', package2],
      ]),
    );
    await using stranger = await httpsUpstream('stranger', new Map([['/pool/a.deb', package1]]));
    const hosts = [upstream.at, stranger.at];
    const backends = {
      archive: { mirrors: [`https://${upstream.at}/archive`], aliases: ['http://plain.example.org/debian'] },
      stranger: { mirrors: [`https://${stranger.at}`] },
    };
    const file = await cacheOf('https', { backends, hosts, innerHosts: hosts });
    await using server = startCache(file, { NODE_EXTRA_CA_CERTS: upstream.certificate });
    const url = await firstLine(server);
    const get = async (path: string) => {
      const { status, headers, body } = await ask(url, path);
      return [status, headers['x-cache'], status === 200 ? body : undefined];
    };
    expect(await get('/archive/pool/a.deb')).toEqual([200, 'MISS', package1]);
    expect(await get('http://plain.example.org/debian/pool/a.deb')).toEqual([200, 'HIT', package1]);
    expect(await get(`http://HTTPS///${upstream.at}/other/pool/b.deb`)).toEqual([200, 'MISS', package2]);
    expect(await get(`/HTTPS///${upstream.at}/other/pool/b.deb`)).toEqual([200, 'HIT', package2]);
    expect(upstream.asked).toEqual(['/archive/pool/a.deb', '/other/pool/b.deb']);
    expect((await get('/stranger/pool/a.deb'))[0]).toBe(503);
    expect(stranger.asked).toEqual([]);
  }, 120_000);
});

describe('kill -9', () => {
  it('in the middle of a fetch costs only what had not come: the next server goes on where it ended', async () => {
    await using upstream = await startUpstream();
    const bytes = randomBytes(8_000_000);
    upstream.put('/archive/pool/a.deb', bytes, { etag: '"one"' });
    const file = await cacheOf('killed', { backends: { archive: { mirrors: [`${upstream.url}/archive`] } } });
    upstream.hold(6_000_000);
    {
      await using server = startCache(file);
      const url = await firstLine(server);
      let received = 0;
      const cut = ask(url, '/archive/pool/a.deb', {
        onData(_chunk, all) {
          received = all;
        },
      }).catch(() => undefined);
      await expect.poll(() => received, { timeout: 60_000 }).toBeGreaterThan(4_000_000);
      server.kill('SIGKILL');
      await server.exitCode;
      expect((await cut)?.complete).not.toBe(true);
    }
    upstream.release();
    await using server = startCache(file);
    const answer = await ask(await firstLine(server), '/archive/pool/a.deb');
    expect([answer.complete, answer.body.equals(bytes)]).toEqual([true, true]);
    expect(upstream.log.at(-1)).toMatch(/^\/archive\/pool\/a\.deb bytes=[1-9]\d{5,}-$/);
  }, 120_000);
});

describe('an offline run', () => {
  it('asks nothing upstream, and lists at its end what was missing', async () => {
    await using upstream = await startUpstream();
    upstream.put('/archive/pool/a.deb', 'a');
    const dir = join(folder, 'offline');
    await mkdir(dir);
    await writeFile(
      join(dir, 'buildkit.yaml'),
      `proxy:\n  backends: { own: { mirrors: ["${upstream.url}/archive"] } }\n`,
    );
    const args = ['-C', dir, '--state', join(dir, 'state'), 'proxy'];
    const buildkit = resolve('bin/buildkit');
    await using server = start({}, buildkit, [...args, 'serve', '--offline', '--listen', '127.0.0.1:0'], {
      stdio: { stdin: 'ignore' },
    });
    const said = text(server.stderr as Readable);
    const url = await firstLine(server);
    expect((await ask(url, '/own/pool/a.deb')).status).toBe(503);
    expect((await ask(url, '/own/pool/b.deb')).status).toBe(503);
    server.kill('SIGTERM');
    await server.exitCode;
    const told = (await said).split('\n').filter((line) => line.includes('is not in the cache'));
    expect(told.map((line) => line.replace(/.*: /, ''))).toEqual(['own/pool/a.deb', 'own/pool/b.deb']);
    expect(upstream.log).toEqual([]);
    const missing = await run({}, buildkit, [...args, 'missing', '--clear'], { timeoutMs: 60_000 });
    expect(missing.stdout).toBe('own/pool/a.deb\nown/pool/b.deb\n');
    expect((await run({}, buildkit, [...args, 'missing'], { timeoutMs: 60_000 })).stdout).toBe('');
  }, 120_000);
});
