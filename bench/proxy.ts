/**
 * `nice node bench/proxy.ts [NAME...]`: buildkit's cache beside apt-cacher-ng, nginx proxy_cache and squid (each from Debian, each
 * where it is installed), in one run on one machine: small hits, large hits, cold files, 20 clients on one cold file, real apt.
 * Needs nginx as upstream, wrk and curl. Ours checks every file against a signed index; the others check nothing.
 */
import { readFileSync } from 'node:fs';
import { chmod, mkdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { scratchFolder } from '../src/core/files.ts';
import { hasProgram, run } from '../src/core/run.ts';
import { createAptRoot } from '../test/support/apt-root.ts';
import { buildArchive, poolPath, randomPackage, testKey } from '../test/support/proxy-archive.ts';
import {
  type Bed,
  type Cache,
  cpuSeconds,
  residentMiB,
  startAcng,
  startBuildkit,
  startNginxCache,
  startSquid,
  startUpstream,
} from './support-proxies.ts';

const UPSTREAM_PORT = 28080;
const SMALL_PACKAGES = 250;
const names = process.argv.slice(2);

interface Row {
  smallPerSecond: number;
  smallCpu: number;
  mediumMBs: number;
  largeMBs: number;
  coldFirst: number;
  coldTotal: number;
  fetches: number;
  slowest: number;
  aptCold: number;
  aptWarm: number;
  aptPlain: number;
  resident: number;
}

const small = randomPackage('small', 20_000);
const medium = randomPackage('medium', 1_000_000);
const large = ['large1', 'large2'].map((name) => randomPackage(name, 200_000_000));
const many = Array.from({ length: SMALL_PACKAGES }, (_, index) => randomPackage(`tiny${index}`, 20_000));

async function curl(
  url: string,
  proxy: string | undefined,
): Promise<{ first: number; total: number; ok: boolean; size: number }> {
  const args = ['-s', '-o', '/dev/null', '-w', '%{http_code} %{time_starttransfer} %{time_total} %{size_download}'];
  const { stdout } = await run({}, 'curl', [...args, ...(proxy === undefined ? [] : ['-x', proxy]), url], {
    okExitCodes: [18],
  });
  const [status, first, total, size] = stdout.split(' ').map(Number);
  return { first: first! * 1000, total: total! * 1000, ok: status === 200, size: size! };
}

function address(bed: Bed, cache: Cache, path: string): { url: string; proxy: string | undefined } {
  if (cache.direct) return { url: cache.direct(path), proxy: undefined };
  return { url: `http://${bed.upstream}/archive/${path}`, proxy: `http://127.0.0.1:${cache.port}` };
}

/** Requests and bytes per second, and CPU seconds of the cache. */
async function wrk(bed: Bed, cache: Cache, path: string, seconds: number, clients: number) {
  const { url, proxy } = address(bed, cache, path);
  const script = join(bed.dir, 'wrk.lua');
  await writeFile(script, `wrk.path = "${proxy === undefined ? new URL(url).pathname : url}"\n`);
  const before = cpuSeconds(cache.pids());
  const target = `http://127.0.0.1:${cache.port}/`;
  const { stdout } = await run({}, 'wrk', ['-t1', `-c${clients}`, `-d${seconds}s`, '-s', script, target], {
    timeoutMs: 120_000,
  });
  const cpu = cpuSeconds(cache.pids()) - before;
  const requests = Number(/(\d+) requests in/.exec(stdout)?.[1]);
  const rate = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]);
  if (/Non-2xx/.test(stdout)) throw new Error(`${cache.name}: ${stdout}`);
  return { rate, cpuMicros: (cpu / requests) * 1e6 };
}

async function aptRun(bed: Bed, proxyPort: number, depth: number | undefined): Promise<number> {
  await using root = await createAptRoot({
    sources: `Types: deb\nURIs: http://${bed.upstream}/archive\nSuites: stable\nComponents: main\nSigned-By: ${bed.keyring}\n`,
    configuration: [
      `Acquire::http::Proxy "http://127.0.0.1:${proxyPort}";`,
      ...(depth === undefined ? [] : [`Acquire::http::Pipeline-Depth "${depth}";`]),
    ],
  });
  await root.update();
  const start = performance.now();
  const result = await root.run('apt-get', 'install', '-y', '--download-only', ...many.map((one) => one.name));
  const took = performance.now() - start;
  if (result.exitCode !== 0) throw new Error(result.stderr);
  return took;
}

async function measure(bed: Bed, cache: Cache): Promise<Row> {
  const get = (path: string) => {
    const { url, proxy } = address(bed, cache, path);
    return curl(url, proxy);
  };
  const log = join(bed.dir, 'upstream/access.log');
  // ours knows what the files must be before it is measured: the signed index is here
  for (const path of ['dists/stable/InRelease', 'dists/stable/main/binary-amd64/Packages.gz']) await get(path);
  await new Promise((done) => setTimeout(done, 500));
  const cold = await get(poolPath(large[0]!));
  await truncate(log, 0);
  const crowd = await Promise.all(Array.from({ length: 20 }, () => get(poolPath(large[1]!))));
  const short = crowd.filter((one) => !one.ok || one.size !== 200_000_000).length;
  if (short > 0) process.stderr.write(`${cache.name}: ${short} of 20 clients did not get the whole file\n`);
  const fetches = readFileSync(log, 'utf8')
    .split('\n')
    .filter((line) => line.includes('large2')).length;
  await get(poolPath(small));
  const { rate: smallPerSecond, cpuMicros: smallCpu } = await wrk(bed, cache, poolPath(small), 4, 8);
  await get(poolPath(medium));
  const mediumRate = await wrk(bed, cache, poolPath(medium), 4, 4);
  const hits = [];
  for (let index = 0; index < 3; index += 1) hits.push((await get(poolPath(large[0]!))).total);
  await wrk(bed, cache, poolPath(medium), 2, 32);
  const resident = residentMiB(cache.pids());
  await cache.restart();
  const aptCold = await aptRun(bed, cache.port, undefined);
  const aptWarm = Math.min(await aptRun(bed, cache.port, undefined), await aptRun(bed, cache.port, undefined));
  await cache.restart();
  const aptPlain = await aptRun(bed, cache.port, 0);
  return {
    smallPerSecond,
    smallCpu,
    mediumMBs: mediumRate.rate,
    largeMBs: 200_000 / Math.min(...hits),
    coldFirst: cold.first,
    coldTotal: cold.total,
    fetches,
    slowest: Math.max(...crowd.map((one) => one.total)),
    aptCold,
    aptWarm,
    aptPlain,
    resident,
  };
}

function print(rows: readonly (readonly [string, Row])[], direct: { first: number; total: number }): void {
  const number = (value: number, digits = 0) => value.toLocaleString('en', { maximumFractionDigits: digits });
  const lines: [string, (row: Row) => string][] = [
    ['20 kB hits per second; CPU us each', (row) => `${number(row.smallPerSecond)}; ${number(row.smallCpu)}`],
    ['1 MB / 200 MB hits, MB/s', (row) => `${number(row.mediumMBs)} / ${number(row.largeMBs)}`],
    ['cold 200 MB: first byte / total, ms', (row) => `${number(row.coldFirst)} / ${number(row.coldTotal)}`],
    ['20 clients, one cold file: fetches; slowest, s', (row) => `${row.fetches}; ${number(row.slowest / 1000, 1)}`],
    [
      'apt, 250 packages: cold / warm / no pipelining, ms',
      (row) => `${number(row.aptCold)} / ${number(row.aptWarm)} / ${number(row.aptPlain)}`,
    ],
    ['resident MiB after 32 clients', (row) => number(row.resident)],
  ];
  process.stdout.write(`direct, cold 200 MB: ${number(direct.first)} / ${number(direct.total)} ms\n`);
  process.stdout.write(`| | ${rows.map(([name]) => name).join(' | ')} |\n|---${'|---'.repeat(rows.length)}|\n`);
  for (const [title, cell] of lines)
    process.stdout.write(`| ${title} | ${rows.map(([, row]) => cell(row)).join(' | ')} |\n`);
}

async function main(): Promise<void> {
  await using scratch = await scratchFolder(tmpdir(), 'buildkit-bench-proxy-');
  await chmod(scratch.path, 0o755); // squid drops its rights
  const key = await testKey();
  const archive = await buildArchive({
    date: new Date(Date.now() - 3_600_000),
    packages: [small, medium, ...large, ...many],
    key,
  });
  const www = join(scratch.path, 'www');
  for (const [path, bytes] of archive.files) {
    await mkdir(dirname(join(www, 'archive', path)), { recursive: true });
    await writeFile(join(www, 'archive', path), bytes);
  }
  const keyring = join(scratch.path, 'key.asc');
  await writeFile(keyring, key.publicKeyArmored);
  const bed: Bed = { dir: scratch.path, upstream: `127.0.0.1:${UPSTREAM_PORT}`, keyring };
  await using _upstream = await startUpstream(join(scratch.path, 'upstream'), www, UPSTREAM_PORT);
  const direct = await curl(`http://${bed.upstream}/archive/${poolPath(large[0]!)}`, undefined);
  const contenders: [string, string | undefined, (bed: Bed, port: number) => Promise<Cache>][] = [
    ['buildkit', undefined, startBuildkit],
    ['apt-cacher-ng', '/usr/sbin/apt-cacher-ng', startAcng],
    ['nginx', '/usr/sbin/nginx', startNginxCache],
    ['squid', '/usr/sbin/squid', startSquid],
  ];
  const rows: [string, Row][] = [];
  for (const [index, [name, program, launch]] of contenders.entries()) {
    if (names.length > 0 && !names.includes(name)) continue;
    if (program !== undefined && !(await hasProgram({}, program))) {
      process.stderr.write(`${name} is not installed: left out\n`);
      continue;
    }
    await using cache = await launch(bed, 28_081 + index);
    const row = await measure(bed, cache);
    rows.push([name, row]);
    process.stderr.write(`${name}: ${JSON.stringify(row)}\n`);
    await rm(join(scratch.path, name), { recursive: true, force: true });
  }
  print(rows, direct);
}

await main();
