/** When a source is from, so that its content decides the bytes of a package and not the day of the build (SOURCE_DATE_EPOCH). */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { ToolError } from '../core/errors.ts';
import { run } from '../core/run.ts';
import { readChangelogDate } from '../deb/changelog.ts';

/** A day for sources that name none; 2016-01-01 as flit has it: zip files know nothing before 1980, and lintian doubts 1980. */
export const NO_DATE = 1_451_606_400;

/** Seconds since the epoch: of the last commit to the folder, else of the newest entry of debian/changelog, else `NO_DATE`. */
export async function sourceDate(context: RunContext, folder: string): Promise<number> {
  return (await commitDate(context, folder)) ?? (await changelogDate(folder)) ?? NO_DATE;
}

async function commitDate(context: RunContext, folder: string): Promise<number | undefined> {
  try {
    const { stdout } = await run(context, 'git', ['-C', folder, 'log', '-1', '--format=%ct', '--', '.']);
    return /^\d+$/.test(stdout.trim()) ? Number(stdout) : undefined;
  } catch (error) {
    if (error instanceof ToolError) return undefined; // no git, no tree of git, or no commit yet
    throw error;
  }
}

async function changelogDate(folder: string): Promise<number | undefined> {
  const text = await readFile(join(folder, 'debian/changelog'), 'utf8').catch(() => '');
  const date = readChangelogDate(/^ -- .*?> {2}(.*)$/m.exec(text)?.[1] ?? '');
  return date && Math.floor(date.getTime() / 1000);
}

/** What the tags say, as an upstream version: 'v1.2.0' is 1.2.0, five commits later it is 1.2.0+5.gabc1234; undefined without tags. */
export async function describeVersion(context: RunContext, folder: string): Promise<string | undefined> {
  try {
    const { stdout } = await run(context, 'git', [
      '-C',
      folder,
      'describe',
      '--tags',
      '--match',
      '*[0-9]*',
      '--abbrev=7',
    ]);
    const match = /^(?:\D*)(\d.*?)(?:-(\d+)-g([0-9a-f]+))?$/.exec(stdout.trim());
    if (!match) return undefined;
    const base = match[1]!.replaceAll(/[^A-Za-z0-9.+~]/g, '~');
    return match[2] === undefined ? base : `${base}+${match[2]}.g${match[3]}`;
  } catch (error) {
    if (error instanceof ToolError) return undefined;
    throw error;
  }
}
