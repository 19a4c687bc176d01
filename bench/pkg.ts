/**
 * `node bench/pkg.ts [flask] [largeTree] [jupyterlab] [npmTree]`: the goals of package building, each measured beside what it is
 * compared with, in under ten minutes.
 *
 * Flask and its dependencies from local wheels to .debs, resolution included; a tree of 200 MB against dpkg-deb; jupyterlab; the memory
 * of a large npm tree; nothing changed. For fpm and wheel2deb, which Debian does not have, what others measured stands beside ours.
 */
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { ToolError } from '../src/core/errors.ts';
import { scratchFolder } from '../src/core/files.ts';
import { run } from '../src/core/run.ts';
import { pythonIndex } from '../test/support/python-index.ts';
import { type Measurement, measure, medianOf, report } from './support.ts';
import { otherPackagers } from './support-packagers.ts';
import { makeBenchTree } from './support-tree.ts';

const BUILDKIT = resolve(import.meta.dirname, '../bin/buildkit');
const [FILES, MEGABYTES] = [12_334, 200];
/** Of the same seven wheels, on the machine that the goals were set on. */
const ELSEWHERE = 'there: fpm 7.1 s, wheel2deb 9.1 s, pybuild 26.5 s, dh-virtualenv 27.2 s';

await using scratch = await scratchFolder(tmpdir(), 'buildkit-bench-');
await using index = await pythonIndex();
const path = (...names: readonly string[]) => join(scratch.path, ...names);
const goals: string[] = [];

type Env = Readonly<Record<string, string>>;

/** @param limit the goal */
function goal(what: string, value: number, limit: number, unit: 's' | 'MB'): void {
  const shown = (one: number) => one.toFixed(unit === 's' ? 2 : 0);
  const verdict = value <= limit ? 'reached' : 'NOT REACHED';
  const ratio = `${(value / limit).toFixed(2)}x`;
  goals.push(`${what.padEnd(58)} ${shown(value)} of ${shown(limit)} ${unit} (${ratio}): ${verdict}`);
}

/** With what earlier runs kept. */
function again(name: string, place: string, words: readonly string[], more: Env = {}): Promise<Measurement> {
  const options = ['--suite', 'bookworm', '--out', path(place, 'out'), ...words];
  const argv = [BUILDKIT, '--quiet', '--state', path(place, 'state'), 'pkg', 'build', ...options];
  const env = { SOURCE_DATE_EPOCH: '1700000000', DEBFULLNAME: 'Bench', DEBEMAIL: 'bench@example.org', ...more };
  return measure(name, argv, { scratch: scratch.path, cwd: scratch.path, env });
}

/** With nothing kept of earlier runs. */
async function fresh(name: string, place: string, words: readonly string[], more: Env = {}): Promise<Measurement> {
  for (const folder of ['state', 'out']) await rm(path(place, folder), { recursive: true, force: true });
  return again(name, place, words, more);
}

/** The wheels of a distribution and of all that it needs. */
async function download(name: string): Promise<string[]> {
  await mkdir(path(name), { recursive: true });
  const words = ['-m', 'pip', 'download', '--quiet', '--only-binary', ':all:', '--dest', path(name), name];
  await run({}, '/usr/bin/python3', words, { env: index.env, timeoutMs: 300_000 });
  return (await readdir(path(name))).map((one) => path(name, one));
}

async function flask(): Promise<void> {
  const wheels = await download('flask');
  const local = { PIP_NO_INDEX: '1', PIP_FIND_LINKS: path('flask') };
  const ours = await medianOf(5, () => fresh(`buildkit, ${wheels.length} packages, xz`, 'flask-xz', ['flask'], local));
  const unchanged = await medianOf(5, () => again('buildkit, nothing changed', 'flask-xz', ['flask'], local));
  const words = ['flask', '--compression', 'zstd'];
  const zstd = await medianOf(3, () => fresh('buildkit, zstd', 'flask-zstd', words, local));
  const rows = [ours, zstd, unchanged];
  await using others = await otherPackagers(wheels, 'flask');
  for (const { name, argv } of others.commands) {
    try {
      rows.push(await measure(name, argv, { scratch: scratch.path }));
    } catch (error) {
      if (!(error instanceof ToolError)) throw error;
      console.log(`${name} does not work here:\n${error.stderrTail}`);
    }
  }
  console.log(report(`Flask and what it needs, from local wheels (${ELSEWHERE})`, rows));
  goal('Flask and six dependencies, resolution included', ours.wallSeconds, 1.5, 's');
  goal('the same with nothing changed', unchanged.wallSeconds, 0.5, 's');
}

async function largeTree(): Promise<void> {
  const what = `${MEGABYTES} MB in ${FILES} files`;
  await makeBenchTree(path('tree'), FILES, MEGABYTES);
  await mkdir(path('tree/DEBIAN'), { mode: 0o755 });
  const control = ['Package: bench', 'Version: 1.0', 'Architecture: all', 'Maintainer: Bench <bench@example.org>'];
  await writeFile(path('tree/DEBIAN/control'), [...control, 'Description: benchmark', ''].join('\n'));
  for (const compression of ['zstd', 'xz'] as const) {
    const words = ['./tree', '--compression', compression];
    const argv = ['dpkg-deb', '--root-owner-group', `-Z${compression}`, '--build', path('tree'), path('theirs.deb')];
    const turns: { readonly theirs: Measurement; readonly ours: Measurement }[] = [];
    for (let turn = 0; turn < (compression === 'xz' ? 1 : 3); turn += 1) {
      turns.push({
        theirs: await measure(`dpkg-deb -Z${compression}`, argv, { scratch: scratch.path }),
        ours: await fresh(`buildkit pkg build, ${compression}`, 'tree-built', words),
      });
    }
    turns.sort((a, b) => a.ours.wallSeconds / a.theirs.wallSeconds - b.ours.wallSeconds / b.theirs.wallSeconds);
    const { theirs, ours } = turns[Math.floor(turns.length / 2)]!;
    console.log(report(`${what}, ${compression}, with both cores`, [theirs, ours]));
    goal(`${what}, ${compression}: no slower than dpkg-deb`, ours.wallSeconds, theirs.wallSeconds, 's');
    goal(`${what}, ${compression}: memory`, ours.peakMegabytes, 300, 'MB');
  }
  const unchanged = await medianOf(3, () => again('', 'tree-built', ['./tree', '--compression', 'xz']));
  goal(`${what}: nothing changed`, unchanged.wallSeconds, 0.5, 's');
}

async function jupyterlab(): Promise<void> {
  const wheels = await download('jupyterlab');
  const local = { PIP_NO_INDEX: '1', PIP_FIND_LINKS: path('jupyterlab') };
  const ours = await fresh(`buildkit, ${wheels.length} packages`, 'lab-built', ['jupyterlab'], local);
  console.log(report('jupyterlab and what it needs, from local wheels', [ours]));
  goal(`jupyterlab, ${wheels.length} wheels`, ours.wallSeconds, 20, 's');
  goal('jupyterlab: memory', ours.peakMegabytes, 300, 'MB');
}

async function npmTree(): Promise<void> {
  const words = ['npm:yo', '--compression', 'zstd'];
  const first = await fresh('npm:yo, from the registry', 'yo-built', words);
  const unchanged = await medianOf(3, () => again('npm:yo, nothing changed', 'yo-built', words));
  console.log(report('a large npm tree in one package', [first, unchanged]));
  goal('npm:yo: memory', first.peakMegabytes, 300, 'MB');
  goal('npm:yo: nothing changed', unchanged.wallSeconds, 0.5, 's');
}

const parts = { flask, largeTree, jupyterlab, npmTree };
const chosen = process.argv.slice(2);
for (const [name, part] of Object.entries(parts)) if (chosen.length === 0 || chosen.includes(name)) await part();
console.log(['Goals', ...goals].join('\n'));
