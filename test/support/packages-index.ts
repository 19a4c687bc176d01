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
  const { stdout } = await run(context, 'apt-get', [
    'indextargets',
    '--format=$(FILENAME)',
    'Created-By: Packages',
    'Codename: bookworm',
    'Component: main',
    'Architecture: amd64',
  ]);
  const file = stdout.split('\n')[0] ?? '';
  if (file !== '' && (await exists(file)))
    return start(context, APT_HELPER, ['cat-file', file], { stdio: { stdin: 'ignore' } });
  const source = (await machineSources()).find(
    (each) => each.suites.includes('bookworm') && each.components.includes('main'),
  );
  if (source === undefined) throw new Error('apt on this machine has no source for bookworm main');
  const base = `${source.uris[0]?.replace(/\/$/, '')}/dists/bookworm/main/binary-amd64`;
  await run(context, APT_HELPER, ['download-file', `${base}/Packages.xz`, join(folder, 'Packages.xz')]);
  return start(context, APT_HELPER, ['cat-file', join(folder, 'Packages.xz')], { stdio: { stdin: 'ignore' } });
}
