/** A cache on a disk that is full, or that cannot be written, in a mount namespace: clients get their bytes all the same. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { start } from '../../src/core/run.ts';
import { defaultSettings } from '../../src/proxy/settings.ts';
import { startUpstream } from '../support/proxy-upstream.ts';
import { ask } from '../support/proxy-world.ts';

const PROCESS = fileURLToPath(new URL('../support/proxy-process.ts', import.meta.url));
const FULL = 'mount -t tmpfs -o size=6m tmpfs "$1"';
const READ_ONLY =
  'mkdir -p "$1/objects" "$1/partial"; for d in objects partial; do mount --bind "$1/$d" "$1/$d"; mount -o remount,ro,bind "$1/$d"; done';

/** The proxy in a namespace where `mounts` (a shell script; $1 is the folder of the cache) was done first. */
async function proxyOn(mounts: string, mirror: string) {
  const dir = await mkdtemp(join(tmpdir(), 'buildkit-disk-'));
  const settings = {
    ...defaultSettings(join(dir, 'cache')),
    keyrings: [],
    backends: { archive: { mirrors: [mirror], signatures: 'accept' as const } },
  };
  await writeFile(join(dir, 'settings.json'), JSON.stringify(settings));
  const script = `set -e; mkdir -p "$1"; ${mounts}; exec "$2" "$3" "$4"`;
  const argv = [settings.dir, resolve('node_modules/.bin/node'), PROCESS, join(dir, 'settings.json')];
  const server = start({}, 'unshare', ['-rm', 'sh', '-c', script, 'sh', ...argv], { stdio: { stdin: 'ignore' } });
  const url = await new Promise<string>((done) => createInterface(server.stdout).once('line', done));
  return {
    url,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** A client that asks and never reads. */
async function stalledClient(url: string, path: string): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port) });
  socket.on('error', () => {});
  await new Promise<void>((done) => socket.once('connect', () => done()));
  socket.pause();
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
  return socket;
}

describe('a disk that refuses', () => {
  it.each([
    ['is full', FULL],
    ['cannot be written', READ_ONLY],
  ])(
    'because it %s does not keep anything from the clients, nor does one that stalls',
    async (_name, mounts) => {
      await using upstream = await startUpstream();
      const [large, small] = [randomBytes(24_000_000), randomBytes(20_000)];
      upstream.put('/archive/pool/large.deb', large);
      upstream.put('/archive/pool/small.deb', small);
      await using proxy = await proxyOn(mounts, `${upstream.url}/archive`);
      const stalled = await stalledClient(proxy.url, '/archive/pool/large.deb');
      try {
        const answers = await Promise.all([1, 2].map(() => ask(proxy.url, '/archive/pool/large.deb')));
        for (const answer of answers) expect(answer.body.equals(large)).toBe(true);
        expect((await ask(proxy.url, '/archive/pool/small.deb')).body.equals(small)).toBe(true);
        expect((await ask(proxy.url, '/archive/pool/small.deb')).body.equals(small)).toBe(true);
        const status = JSON.parse((await ask(proxy.url, '/api/status')).body.toString()) as {
          counters: { disk_trouble: number };
          residentBytes: number;
        };
        expect(status.counters.disk_trouble).toBeGreaterThan(0);
      } finally {
        stalled.destroy();
      }
    },
    120_000,
  );
});
