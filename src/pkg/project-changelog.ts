/**
 * What a project says of its own past: its debian/changelog, or else the tags of git, an entry for each that names a version.
 *
 * Secret: git's log as entries of a changelog: the subjects of commits belong to the next tag above them; who set the tagged commit,
 * and when, stands below.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { ToolError, UserError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { run } from '../core/run.ts';
import { formatChangelog, formatEntry, makeEntry } from '../deb/changelog.ts';
import { isVersion } from '../deb/version.ts';
import { oneLine } from './texts.ts';

export interface ProjectChanges {
  /** Since the version before this one. */
  readonly changes: readonly string[];
  /** As debian/changelog, newest first. */
  readonly older: string;
}

const NO_CHANGES: ProjectChanges = { changes: [], older: '' };

const MAX_COMMITS = 5000;
const MAX_ENTRIES = 50;
const MAX_CHANGES = 40;

/** @param now name of the package and its upstream version */
export async function projectChanges(
  context: RunContext,
  folder: string,
  now: { readonly name: string; readonly version: string },
): Promise<ProjectChanges> {
  const file = join(folder, 'debian/changelog');
  if (await exists(file)) return { changes: [], older: await readFile(file, 'utf8') };
  const format = '%x01%D%x00%cn <%ce>%x00%ct%x00%P%x00%s';
  const refs = ['--decorate=full', '--decorate-refs=refs/tags/'];
  const args = ['-C', folder, 'log', `--max-count=${MAX_COMMITS}`, ...refs, `--format=${format}`, '--', '.'];
  try {
    const { stdout } = await run(context, 'git', args);
    return stdout.includes('refs/tags/') ? changesOfLog(stdout, now) : NO_CHANGES;
  } catch (error) {
    if (error instanceof ToolError) return NO_CHANGES; // no git, no tree of git, or no commit yet
    throw error;
  }
}

interface Release {
  readonly version: string;
  readonly by: string;
  /** Seconds since the epoch. */
  readonly date: number;
  readonly changes: string[];
}

/** @param log as `projectChanges` asks git for it. Pure. */
export function changesOfLog(log: string, now: { readonly name: string; readonly version: string }): ProjectChanges {
  const changes: string[] = [];
  const releases: Release[] = [];
  for (const [index, record] of log.split('\x01').slice(1).entries()) {
    const [tags = '', by = '', date = '', parents = '', subject = ''] = record.trimEnd().split('\0');
    const version = versionOf(tags);
    // the tag of what is built stands for the entry on top
    if (version !== undefined && version !== now.version && index > 0)
      releases.push({ version, by, date: Number(date), changes: [] });
    const isMerge = parents.includes(' ');
    if (!isMerge && subject !== '') (releases.at(-1)?.changes ?? changes).push(oneLine(subject));
  }
  const entries = releases.slice(0, MAX_ENTRIES).flatMap((one) => entryOf(now.name, one));
  return { changes: shortened(changes), older: formatChangelog(entries) };
}

function versionOf(tags: string): string | undefined {
  for (const [, tag = ''] of tags.matchAll(/tag: refs\/tags\/([^,]+)/g)) {
    const version = /^\D*(\d.*)$/.exec(tag)?.[1]?.replaceAll(/[^A-Za-z0-9.+~]/g, '~');
    if (version !== undefined && isVersion(version)) return version;
  }
  return undefined;
}

/** Nothing for one that a changelog cannot hold, such as of somebody without a mail address. */
function entryOf(name: string, { version, by, date, changes }: Release) {
  try {
    const made = makeEntry({
      package: name,
      version,
      distributions: ['unstable'],
      changes: changes.length === 0 ? [`Version ${version}.`] : shortened(changes),
      maintainer: by,
      date: new Date(date * 1000),
    });
    return [{ ...made, raw: formatEntry(made) }];
  } catch (error) {
    if (error instanceof UserError) return [];
    throw error;
  }
}

function shortened(changes: readonly string[]): string[] {
  const rest = changes.length - MAX_CHANGES;
  return rest > 0 ? [...changes.slice(0, MAX_CHANGES), `And ${rest} more changes.`] : [...changes];
}
