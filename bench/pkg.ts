/**
 * `node bench/pkg.ts [RUNS]`: Flask and everything it needs, from the configured package index to .debs, resolution included;
 * then the same again with nothing changed. pip's own share is shown beside it: the rest is ours.
 */
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { scratchFolder } from '../src/core/files.ts';
import { pythonIndex } from '../test/support/python-index.ts';
import { measure, medianOf, report } from './support.ts';

const BUILDKIT = resolve(import.meta.dirname, '../bin/buildkit');
const runs = Number(process.argv[2] ?? 5);

await using scratch = await scratchFolder(tmpdir(), 'buildkit-bench-');
await using index = await pythonIndex();
const options = { scratch: scratch.path, env: { ...index.env, SOURCE_DATE_EPOCH: '1700000000' } };
const state = join(scratch.path, 'state');
const out = join(scratch.path, 'out');
const build = [BUILDKIT, '--quiet', '--state', state, 'pkg', 'build', 'flask', '--out', out];
const pip = [
  '/usr/bin/python3',
  '-m',
  'pip',
  'install',
  '--dry-run',
  '--ignore-installed',
  '--quiet',
  '--break-system-packages',
];

async function fromNothing() {
  await rm(state, { recursive: true, force: true });
  await rm(out, { recursive: true, force: true });
}

const rows = [
  await medianOf(runs, async () => {
    await fromNothing();
    return measure('buildkit: from nothing, xz', build, options);
  }),
  await medianOf(runs, async () => {
    await fromNothing();
    return measure('buildkit: from nothing, zstd', [...build, '--compression', 'zstd'], options);
  }),
  await medianOf(runs, () => measure('pip alone: resolution', [...pip, 'flask'], options)),
];
await fromNothing();
await measure('warm', build, options);
rows.push(await medianOf(runs, () => measure('buildkit: nothing changed', build, options)));
console.log(report('Flask and its closure, from wheels to .debs', rows));
