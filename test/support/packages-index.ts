/**
 * A real index of Debian's archive, from the machine's own apt: the downloaded list, or one fetched now from the mirror that apt is
 * configured with.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunContext } from '../../src/core/context.ts';
import { exists } from '../../src/core/files.ts';
import { type RunningProgram, run, start } from '../../src/core/run.ts';
import { type AptSource, parseOneLine, parseSources } from '../../src/deb/sources.ts';

const APT_HELPER = '/usr/lib/apt/apt-helper';

/** The sources that apt on this machine is configured with. */
async function machineSources(): Promise<AptSource[]> {
  const read = (file: string) => readFile(file, 'utf8').catch(() => '');
  const names = await readdir('/etc/apt/sources.list.d').catch(() => []);
  const found = parseOneLine(await read('/etc/apt/sources.list'), { file: '/etc/apt/sources.list' });
  for (const name of names.sort()) {
    const file = join('/etc/apt/sources.list.d', name);
    if (name.endsWith('.list')) found.push(...parseOneLine(await read(file), { file }));
    if (name.endsWith('.sources')) found.push(...parseSources(await read(file), { file }));
  }
  return found;
}

/** bookworm's main Packages for amd64 (63,000 paragraphs, 50 MB), as a stream. Dispose of it, or await its end. */
export async function openPackagesIndex(context: RunContext, folder: string): Promise<RunningProgram> {
  const list = await downloadedList(context);
  if (list !== undefined) return start(context, APT_HELPER, ['cat-file', list], { stdio: { stdin: 'ignore' } });
  const file = join(folder, 'Packages.xz');
  await run(context, APT_HELPER, ['download-file', `${await bookwormUrl()}/main/binary-amd64/Packages.xz`, file]);
  return start(context, APT_HELPER, ['cat-file', file], { stdio: { stdin: 'ignore' } });
}

/** bookworm's InRelease. */
export async function fetchRelease(context: RunContext, folder: string): Promise<Buffer> {
  const list = await downloadedList(context);
  const kept = list?.replace(/_main_binary-amd64_Packages.*$/, '_InRelease');
  if (kept !== undefined && (await exists(kept))) return readFile(kept);
  const file = join(folder, 'InRelease');
  await run(context, APT_HELPER, ['download-file', `${await bookwormUrl()}/InRelease`, file]);
  return readFile(file);
}

/** The Packages file that the last `apt-get update` left, if it is still there. */
async function downloadedList(context: RunContext): Promise<string | undefined> {
  const { stdout } = await run(context, 'apt-get', [
    'indextargets',
    '--format=$(FILENAME)',
    'Created-By: Packages',
    'Codename: bookworm',
    'Component: main',
    'Architecture: amd64',
  ]);
  const file = stdout.split('\n')[0] ?? '';
  return file !== '' && (await exists(file)) ? file : undefined;
}

async function bookwormUrl(): Promise<string> {
  const source = (await machineSources()).find(
    (each) => each.suites.includes('bookworm') && each.components.includes('main'),
  );
  if (source === undefined) throw new Error('apt on this machine has no source for bookworm main');
  return `${source.uris[0]?.replace(/\/$/, '')}/dists/bookworm`;
}
