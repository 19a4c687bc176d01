/** Clients, faults, publishing and kill -9 at random, for a bounded number of requests; afterwards every byte in the cache is right. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type RunningProgram, start } from '../../src/core/run.ts';
import { ProxyCache } from '../../src/proxy/proxy.ts';
import { defaultSettings } from '../../src/proxy/settings.ts';
import { verifyCache } from '../../src/proxy/upkeep.ts';
import {
  type ArchivePackage,
  buildArchive,
  poolPath,
  publish,
  randomPackage,
  testKey,
} from '../support/proxy-archive.ts';
import { sha256, startUpstream } from '../support/proxy-upstream.ts';
import { type Answer, ask } from '../support/proxy-world.ts';
import { createWorld } from '../support/world.ts';

const ROUNDS = 8;
/** Answers of a round, whole or not, after which its server is killed: between half of them and all. */
const ANSWERS = 150;
const PROCESS = fileURLToPath(new URL('../support/proxy-process.ts', import.meta.url));

/** The same sequence in every run. */
function randomFrom(seed: number): () => number {
  let count = 0;
  return () => {
    count += 1;
    return createHash('sha256').update(`${seed} ${count}`).digest().readUInt32BE(0) / 2 ** 32;
  };
}

describe('a soak', () => {
  it('leaves a cache without a wrong byte, and no client ever got one', async () => {
    const random = randomFrom(5);
    const dir = await mkdtemp(join(tmpdir(), 'buildkit-soak-'));
    await using upstream = await startUpstream();
    await using world = await createWorld();
    const key = await testKey();
    const packages: ArchivePackage[] = Array.from({ length: 30 }, (_, index) =>
      randomPackage(`p${index}`, Math.floor(2 ** (8 + random() * 14))),
    );
    const archives = await Promise.all(
      [1, 2, 3].map((day) =>
        buildArchive({ date: new Date(Date.UTC(2026, 9, day)), packages: packages.slice(0, 10 * day), key }),
      ),
    );
    publish(upstream, archives[0]!);
    const keyring = join(dir, 'key.asc');
    await writeFile(keyring, key.publicKeyArmored);
    const settings = {
      ...defaultSettings(join(dir, 'cache')),
      keyrings: [keyring],
      maxAge: 0,
      backends: { archive: { mirrors: [`${upstream.url}/archive`], signatures: 'require' as const } },
    };
    await writeFile(join(dir, 'settings.json'), JSON.stringify(settings));
    const wrong: string[] = [];
    let answers = 0;
    let whole = 0;
    const byPath = new Map(packages.map((one) => [poolPath(one), one]));

    const judge = (path: string, answer: Answer) => {
      if (!answer.complete || answer.status !== 200) return;
      whole += 1;
      const known = byPath.get(path);
      const told = `${path}: ${answer.headers['x-cache']}, ${answer.headers['x-cache-why']}`;
      if (known && sha256(answer.body) !== sha256(known.bytes)) wrong.push(told);
      if (path.endsWith('InRelease') && !archives.some((one) => one.inRelease === answer.body.toString()))
        wrong.push(told);
    };
    const client = async (url: string, signal: AbortSignal) => {
      while (!signal.aborted) {
        const one = packages[Math.floor(random() * packages.length)]!;
        const path =
          random() < 0.15
            ? 'dists/stable/InRelease'
            : random() < 0.15
              ? 'dists/stable/main/binary-amd64/Packages.gz'
              : poolPath(one);
        const answer = await ask(url, `/archive/${path}`, { signal }).catch(() => undefined);
        if (answer === undefined) continue; // cut off before its head, or the server was killed
        answers += 1;
        judge(path, answer);
      }
    };
    try {
      for (let round = 0; round < ROUNDS; round += 1) {
        upstream.faults.length = 0;
        upstream.faults.push(
          { path: new RegExp(`p${round}_`), cutAfter: 5000, times: 3 },
          { path: new RegExp(`p1${round}_`), flip: 100, times: 2 },
          { path: new RegExp(`p2${round}_`), status: 500, times: 2 },
          { path: /p[3-6]_/, delayMs: 30 },
        );
        await using server: RunningProgram = start(
          {},
          resolve('node_modules/.bin/node'),
          [PROCESS, join(dir, 'settings.json')],
          { stdio: { stdin: 'ignore' } },
        );
        const url = await new Promise<string>((done) => createInterface(server.stdout).once('line', done));
        const killed = new AbortController();
        const clients = Array.from({ length: 6 }, () => client(url, killed.signal));
        const before = answers;
        const last = Math.floor(ANSWERS * (0.5 + random() / 2));
        const reached = (share: number) =>
          expect.poll(() => answers - before, { timeout: 120_000, interval: 10 }).toBeGreaterThan(share * last);
        const step = archives[Math.min(2, Math.floor(round / 3))]!;
        for (const [index, part] of [/InRelease$/, /Packages/, /./].entries()) {
          publish(upstream, step, part);
          await reached((index + 1) / 4);
        }
        await reached(1);
        server.kill('SIGKILL');
        await server.exitCode;
        killed.abort();
        await Promise.all(clients);
        await using cache = await ProxyCache.open(world.context, settings, { serving: false });
        expect((await verifyCache(cache)).problems).toEqual([]);
      }
      expect(wrong).toEqual([]);
      expect(whole).toBeGreaterThan(ANSWERS);
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  }, 600_000);
});
