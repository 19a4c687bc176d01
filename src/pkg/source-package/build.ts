/**
 * A Debian source package built by dpkg-buildpackage, in a clone of the suite's root or on this machine.
 *
 * Secret: how a source is laid out for dpkg-buildpackage(1) so that neither place, day, umask nor user shows in what it makes,
 * and which files are the result: those that the .changes lists (deb-changes(5)).
 */
import {
  chmod,
  chown,
  copyFile,
  lutimes,
  mkdir,
  readdir,
  readFile,
  readlink,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import type { Context } from '../../core/context.ts';
import { ToolError, UserError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { run } from '../../core/run.ts';
import { parseChangelog, readChangelogDate } from '../../deb/changelog.ts';
import { getField, parseControl } from '../../deb/control.ts';
import { freshLog } from '../build-log.ts';
import { cachedFiles, keepFiles, keyOf, workFolder } from '../cache.ts';
import type { Place } from '../root/choose.ts';
import { openClone } from '../root/clone.ts';
import { NO_DATE } from '../source-date.ts';
import { type DebianSource, sourceFolderName } from './read.ts';

const BUILD_LIMIT_MS = 4 * 60 * 60_000;

export interface SourceBuildOptions {
  readonly place: Place;
  /** Build anew also what is known. */
  readonly force?: boolean | undefined;
  /** The build may reach the network: default no. */
  readonly network?: boolean | undefined;
  readonly proxy?: string | undefined;
  readonly timeLimitMs?: number | undefined;
  /** Default: the context's. */
  readonly buildOptions?: string | undefined;
  readonly buildProfiles?: string | undefined;
}

export interface SourceBuild {
  /** .changes, .buildinfo, .deb, .dsc, tarballs: in the cache. */
  readonly files: readonly string[];
  readonly built: boolean;
}

/**
 * Builds a source, or finds it built: the key is all of its content, the root and the options.
 * @throws UserError `source-does-not-build`, `build-depends`; ToolError
 */
export async function buildSource(
  context: Context,
  source: DebianSource,
  options: SourceBuildOptions,
): Promise<SourceBuild> {
  const { place } = options;
  const settings = buildSettings(context, options);
  const key = keyOf(['source', source.digest, place.id, settings.env, options.network ?? false]);
  const cached = options.force ? undefined : await cachedFiles(context, 'sources', key);
  if (cached) return { files: cached, built: false };
  const logFile = await freshLog(context, 'build', source.name);
  await writeFile(logFile, '');
  await using scratch = await workFolder(context);
  const results = join(scratch.path, 'results');
  await mkdir(results);
  const title = `Build ${source.name} ${source.version} ${place.kind === 'root' ? `in ${place.id}` : 'on this machine'}`;
  await context.log.step(title, async () => {
    if (place.kind === 'host')
      await buildOnHost(context, source, settings, { scratch: scratch.path, results, logFile });
    else await buildInRoot(context, source, { ...options, ...settings, root: place.root }, { results, logFile });
  });
  if (options.force)
    return { files: await keepFiles(context, 'sources', keyOf([key, scratch.path]), results), built: true };
  return { files: await keepFiles(context, 'sources', key, results), built: true };
}

interface Settings {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly timeLimitMs: number;
}

function buildSettings(context: Context, options: SourceBuildOptions): Settings {
  const words = (options.buildOptions ?? context.env.DEB_BUILD_OPTIONS ?? '').split(/\s+/).filter(Boolean);
  if (!words.some((word) => word.startsWith('parallel='))) words.push(`parallel=${availableParallelism()}`);
  const profiles = options.buildProfiles ?? context.env.DEB_BUILD_PROFILES;
  return {
    env: {
      DEB_BUILD_OPTIONS: words.join(' '),
      DEB_BUILD_PROFILES: profiles || undefined,
      SOURCE_DATE_EPOCH: context.env.SOURCE_DATE_EPOCH || undefined,
    },
    timeLimitMs: options.timeLimitMs ?? BUILD_LIMIT_MS,
  };
}

interface Places {
  readonly results: string;
  readonly logFile: string;
}

async function buildInRoot(
  context: Context,
  source: DebianSource,
  options: SourceBuildOptions & Settings & { readonly root: Extract<Place, { kind: 'root' }>['root'] },
  { results, logFile }: Places,
): Promise<void> {
  const wanted = { control: source.control, profiles: options.env.DEB_BUILD_PROFILES, proxy: options.proxy };
  await using clone = await openClone(context, options.root, wanted, logFile);
  await layOut(source, clone.buildDir);
  const folder = sourceFolderName(source);
  try {
    const owned = 'chown -R -h builder:builder /build';
    await clone.run({ user: 'root', script: owned, logFile });
    await clone.run({
      script: source.tree === undefined ? `${UNPACK}\n${BUILD}` : BUILD,
      args: buildArgs(source, folder),
      env: options.env,
      network: options.network ?? false,
      logFile,
      timeoutMs: options.timeLimitMs,
    });
  } catch (error) {
    throw await explain(context, error, source, logFile, options.timeLimitMs);
  }
  await collect(source, clone.buildDir, results);
}

async function buildOnHost(
  context: Context,
  source: DebianSource,
  { env, timeLimitMs }: Settings,
  { scratch, results, logFile }: Places & { readonly scratch: string },
): Promise<void> {
  const place = join(scratch, 'build');
  await mkdir(place);
  await layOut(source, place);
  const script = `set -eu; umask 022; exec 2>&1; ${source.tree === undefined ? `${UNPACK}\n${BUILD}` : BUILD}`;
  try {
    await run(context, 'sh', ['-c', script, 'buildkit-build', ...buildArgs(source, sourceFolderName(source))], {
      cwd: place,
      env: { ...env, LANG: 'C.UTF-8', TZ: 'UTC', HOME: '/nonexistent' },
      logFile,
      timeoutMs: timeLimitMs,
    });
  } catch (error) {
    throw await explain(context, error, source, logFile, timeLimitMs);
  }
  await collect(source, place, results);
}

const UNPACK = 'dpkg-source --no-check -x "$2" "$1"';
/** What was given as a .dsc is not packed again: its bytes are somebody's. -sa: the list names upstream's tarball for every revision. */
const BUILD = 'cd "$1"; shift 2; dpkg-buildpackage --unsigned-source --unsigned-changes -rfakeroot "$@"';

function buildArgs(source: DebianSource, folder: string): string[] {
  return source.tree === undefined ? [folder, basename(source.path), '-b'] : [folder, '', '-F', '-sa'];
}

/** The source as dpkg-buildpackage wants it in `place`; modes and times depend on its content only. */
async function layOut(source: DebianSource, place: string): Promise<void> {
  for (const file of [...source.files, ...(source.tree === undefined ? [source.path] : [])]) {
    await copyFile(file, join(place, basename(file)));
    await chmod(join(place, basename(file)), 0o644);
  }
  if (source.tree === undefined) return;
  const target = join(place, sourceFolderName(source));
  const date = await dateOf(source.path);
  await mkdir(target);
  for (const { path, kind } of source.tree) {
    const [from, to] = [join(source.path, path), join(target, path)];
    if (kind === 'folder') await mkdir(to);
    else if (kind === 'link') await symlink(await readlink(from), to);
    else {
      await copyFile(from, to);
      await chmod(to, kind === 'program' ? 0o755 : 0o644);
    }
  }
  await chmod(join(target, 'debian/rules'), 0o755);
  for (const { path, kind } of [...source.tree.toReversed(), { path: '', kind: 'folder' }]) {
    if (kind === 'folder') await chmod(join(target, path), 0o755); // not the umask's
    await lutimes(join(target, path), date, date);
  }
}

async function dateOf(folder: string): Promise<number> {
  const [newest] = parseChangelog(await readFile(join(folder, 'debian/changelog'), 'utf8'));
  const date = newest && readChangelogDate(newest.date);
  return date ? Math.floor(date.getTime() / 1000) : NO_DATE;
}

/** Moves what the .changes lists, and what was given as a .dsc. */
async function collect(source: DebianSource, place: string, results: string): Promise<void> {
  const changes = (await readdir(place)).filter((name) => name.endsWith('.changes'));
  const [only] = changes;
  if (only === undefined || changes.length > 1) {
    throw new UserError('source-does-not-build', `dpkg-buildpackage of '${source.name}' made no .changes file`);
  }
  const file = join(place, only);
  const [list] = parseControl(await readFile(file, 'utf8'), { file });
  const listed = (list && getField(list, 'Files')) ?? '';
  const names = listed.split('\n').flatMap((line) => line.trim().split(/\s+/).at(-1) || []);
  const given = source.tree === undefined ? [source.path, ...source.files].map((one) => basename(one)) : [];
  for (const name of new Set([only, ...names, ...given])) {
    await copyFile(join(place, basename(name)), join(results, basename(name)));
    await chmod(join(results, basename(name)), 0o644);
    // copyFile keeps the owner where it may
    await chown(join(results, basename(name)), process.getuid!(), process.getgid!());
  }
}

async function explain(
  context: Context,
  error: unknown,
  source: DebianSource,
  logFile: string,
  limitMs: number,
): Promise<unknown> {
  context.signal.throwIfAborted();
  if (!(error instanceof ToolError) || error.code === 'root-entry' || error.code === 'tool-missing') return error;
  const log = (await exists(logFile)) ? await readFile(logFile, 'utf8') : '';
  const lines = log.split('\n').filter((line) => line.trim() !== '');
  const missing = lines.findLast((line) => /error: Unmet build dependencies/.test(line));
  const late = error.code === 'tool-timeout';
  const what = late
    ? `building '${source.name}' took longer than ${limitMs / 60_000} minutes`
    : `'${source.name}' ${source.version} does not build:\n${lines
        .slice(-12)
        .map((line) => `  ${line.trimEnd()}`)
        .join('\n')}`;
  const advice = missing && !late ? 'install them, or build in a root: --isolation root; ' : '';
  return new UserError('source-does-not-build', what, { hint: `${advice}the whole log: ${logFile}`, cause: error });
}
