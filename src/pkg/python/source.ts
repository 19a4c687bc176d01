/**
 * From what the user asked for to wheels on disk: projects and sdists are built, published wheels fetched, each once.
 *
 * Secret: which cache entry stands for which source, and that what a download gives is what the resolution saw.
 */
import { lutimes, mkdir, readdir, readFile, rename } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Context } from '../../core/context.ts';
import { RemoteError, ToolError, UserError } from '../../core/errors.ts';
import { digestFile } from '../../core/files.ts';
import { freshLog } from '../build-log.ts';
import { cachedFiles, forget, keepFiles, keyOf, workFolder } from '../cache.ts';
import { choosePlace, expectPlace, type Isolation, type Place } from '../root/choose.ts';
import { NO_DATE } from '../source-date.ts';
import { buildWheel, type FoundSource, fetchWheels, type Pip, type Resolved } from './pip.ts';
import { copyTree, type PythonProject, readProjectTree } from './project.ts';

const BUILD_LIMIT_MS = 20 * 60 * 1000;

/** Where and how sources are built. */
export interface SourceOptions {
  readonly sourceDateEpoch: number | undefined;
  readonly suite: string;
  readonly architecture: string;
  /** 'auto': in the root that there is, or where this machine has another Python than the target. */
  readonly isolation?: Isolation | undefined;
  readonly network?: boolean | undefined;
  readonly timeLimitMs?: number | undefined;
  readonly mirror?: string | undefined;
  readonly proxy?: string | undefined;
}

function placeOf(context: Context, pip: Pip, options: SourceOptions): Promise<Place> {
  return choosePlace(context, options.isolation ?? 'auto', options, pip.native ? 'host' : 'make');
}

/** True: the code of sources runs in a root only, which may be yet to be made. */
export async function buildsInRoot(context: Context, pip: Pip, options: SourceOptions): Promise<boolean> {
  const place = await expectPlace(context, options.isolation ?? 'auto', options, pip.native ? 'host' : 'make');
  return place.kind === 'root';
}

export interface ProjectWheel {
  readonly project: PythonProject;
  readonly path: string;
  readonly sha256: string;
  /** Seconds since the epoch: when the source is from. */
  readonly date: number;
}

/**
 * The wheel of a project folder, from the cache while its content is the same.
 * @throws UserError `source-does-not-build` with the log kept
 */
export async function projectWheel(
  context: Context,
  pip: Pip,
  project: PythonProject,
  options: SourceOptions,
): Promise<ProjectWheel> {
  const tree = await readProjectTree(context, project.folder);
  const date = options.sourceDateEpoch ?? tree.date;
  const place = await placeOf(context, pip, options);
  const key = keyOf(['project', tree.digest, date, pip.target, placeKey(place, pip)]);
  const [cached] = (await cachedFiles(context, 'wheels', key)) ?? [];
  const path =
    cached ??
    (await context.log.step(`Build the wheel of ${project.name ?? basename(project.folder)} ${whereText(place)}`, () =>
      buildInto(context, pip, place, options, {
        key,
        name: project.name ?? basename(project.folder),
        sourceDateEpoch: date,
        // of this folder alone: an outer repository's tags are another's versions
        gitDir: tree.gitDir === join(project.folder, '.git') ? tree.gitDir : undefined,
        async prepare(scratch) {
          const source = join(scratch, 'source');
          await mkdir(source);
          await copyTree(project.folder, tree, source);
          await setTimes(source, date);
          return source;
        },
      }),
    ));
  return { project, path, sha256: await digestFile(path, 'sha256'), date };
}

/** The wheel files of resolved distributions, in their order. */
export async function wheelsOf(
  context: Context,
  pip: Pip,
  distributions: readonly Resolved[],
  options: SourceOptions,
): Promise<string[]> {
  const found = await Promise.all(distributions.map((one) => localWheel(context, one, pip, options)));
  const missing = distributions.filter((_, index) => found[index] === undefined);
  const published = missing.filter(isPublishedWheel);
  if (published.length > 0) await download(context, pip, published);
  for (const one of missing.filter((other) => !published.includes(other))) await buildSdist(context, pip, one, options);
  return Promise.all(
    distributions.map(async (one, index) => {
      const path = found[index] ?? (await localWheel(context, one, pip, options));
      if (path !== undefined) return path;
      throw new UserError('wheel-lost', `the wheel of '${one.name}' ${one.version} is gone from the cache`, {
        hint: 'run the command again',
      });
    }),
  );
}

/** As its makers published it. */
export function isPublishedWheel(one: Pick<Resolved, 'url'>): boolean {
  return one.url.split('#')[0]!.endsWith('.whl');
}

/** What was published as a wheel is the same for every target. */
function publishedKey(one: Resolved): string {
  return keyOf(['wheel', one.name, one.version, one.sha256 ?? one.url]);
}

/** What is built here is not: it is the work of a Python in some place, on some day. */
function builtKey(content: string, pip: Pip, place: string, { sourceDateEpoch }: SourceOptions): string {
  return keyOf(['built', content, pip.target, place, sourceDateEpoch ?? NO_DATE]);
}

/** What stands for a source: a digest of its content where there is one. */
async function contentOf(context: Context, { url, sha256 }: Pick<Resolved, 'url' | 'sha256'>): Promise<string> {
  if (sha256 !== undefined) return sha256;
  const folder = localFolder(url);
  return folder === undefined ? url : (await readProjectTree(context, folder)).digest;
}

function localFolder(url: string): string | undefined {
  const [plain = ''] = url.split('#');
  return plain.startsWith('file:') && !/\.(tar\.\w+|tgz|zip|whl)$/.test(plain) ? fileURLToPath(plain) : undefined;
}

/** The wheel of a distribution where it is on this machine already. */
async function localWheel(
  context: Context,
  one: Resolved,
  pip: Pip,
  options: SourceOptions,
): Promise<string | undefined> {
  const [url = ''] = one.url.split('#');
  if (isPublishedWheel(one) && url.startsWith('file:')) return fileURLToPath(url);
  const key = isPublishedWheel(one) ? publishedKey(one) : await expectedKey(context, one, pip, options);
  return key === undefined ? undefined : (await cachedFiles(context, 'wheels', key))?.[0];
}

/** The key of what is built of a source; undefined while there is no root yet. */
async function expectedKey(
  context: Context,
  one: Resolved,
  pip: Pip,
  options: SourceOptions,
): Promise<string | undefined> {
  const { kind, id } = await expectPlace(context, options.isolation ?? 'auto', options, pip.native ? 'host' : 'make');
  if (id === undefined) return undefined;
  return builtKey(await contentOf(context, one), pip, placeKey({ kind, id }, pip), options);
}

/** Stands for the wheel of a distribution before it is there; undefined where nothing can. */
export async function wheelIdentity(
  context: Context,
  one: Resolved,
  pip: Pip,
  options: SourceOptions,
): Promise<string | undefined> {
  if (!isPublishedWheel(one)) return expectedKey(context, one, pip, options);
  const path = one.sha256 === undefined ? await localWheel(context, one, pip, options) : undefined;
  return one.sha256 ?? (path && (await digestFile(path, 'sha256')));
}

/** @throws RemoteError `digest-mismatch` when the index gave other bytes than it promised */
async function download(context: Context, pip: Pip, wanted: readonly Resolved[]): Promise<void> {
  await using scratch = await workFolder(context);
  await context.log.step(`Fetch ${wanted.length} wheels`, () =>
    fetchWheels(
      context,
      pip,
      wanted.map((one) => `${one.name}==${one.version}`),
      scratch.path,
    ),
  );
  for (const one of wanted) {
    const name = decodeURIComponent(one.url.split('#')[0]!.split('/').at(-1)!);
    const path = join(scratch.path, name);
    const sha256 = await digestFile(path, 'sha256');
    if (one.sha256 !== undefined && sha256 !== one.sha256) {
      throw new RemoteError('digest-mismatch', `'${name}' has other content than the index says`, {
        url: one.url,
        hint: 'run the command again; when it stays so, do not trust this index',
      });
    }
    const folder = join(scratch.path, `${name}.d`);
    await mkdir(folder);
    await rename(path, join(folder, name));
    await keepFiles(context, 'wheels', publishedKey(one), folder);
  }
}

async function buildSdist(context: Context, pip: Pip, one: Resolved, options: SourceOptions): Promise<void> {
  const place = await placeOf(context, pip, options);
  const folder = localFolder(one.url);
  await buildSource(context, pip, place, options, {
    name: one.name,
    title: `${one.name} ${one.version}`,
    content: await contentOf(context, one),
    async prepare(scratch) {
      const [url = ''] = one.url.split('#');
      if (folder !== undefined) return copyProject(context, folder, scratch);
      if (url.startsWith('file:')) return fileURLToPath(url);
      if (place.kind === 'host') return /^\w+\+/.test(url) ? `${one.name} @ ${one.url}` : `${one.name}==${one.version}`;
      return await fetchSdist(context, one, scratch);
    },
  });
}

/** The wheel of a source that pip has unpacked while it resolves; `wheelsOf` finds it again. */
export async function foundWheel(
  context: Context,
  pip: Pip,
  found: FoundSource,
  options: SourceOptions,
): Promise<string> {
  const place = await placeOf(context, pip, options);
  const content = await contentOf(context, found);
  const [cached] = (await cachedFiles(context, 'wheels', builtKey(content, pip, placeKey(place, pip), options))) ?? [];
  if (cached !== undefined) return cached;
  const name = found.name ?? basename(found.archive ?? found.folder);
  const prepare = async (scratch: string) =>
    found.archive ??
    (localFolder(found.url) === undefined ? found.folder : copyProject(context, found.folder, scratch));
  return buildSource(context, pip, place, options, { name, title: name, content, prepare });
}

function buildSource(
  context: Context,
  pip: Pip,
  place: Place,
  options: SourceOptions,
  source: Pick<Wanted, 'name' | 'prepare'> & { readonly title: string; readonly content: string },
): Promise<string> {
  const { name, title, content, prepare } = source;
  const key = builtKey(content, pip, placeKey(place, pip), options);
  const sourceDateEpoch = options.sourceDateEpoch ?? NO_DATE;
  return context.log.step(`Build the wheel of ${title} from its source ${whereText(place)}`, () =>
    buildInto(context, pip, place, options, { key, name, sourceDateEpoch, gitDir: undefined, prepare }),
  );
}

function placeKey(place: Pick<Place, 'kind'> & { readonly id: string }, pip: Pip): string {
  return place.kind === 'root' ? place.id : pip.interpreter;
}

/** A copy to build in, so that back ends leave nothing in the user's folder. */
async function copyProject(context: Context, folder: string, scratch: string): Promise<string> {
  const source = join(scratch, 'source');
  await mkdir(source);
  await copyTree(folder, await readProjectTree(context, folder), source);
  return source;
}

/** Without pip, which would run the source's code here to learn its name. */
async function fetchSdist(context: Context, one: Resolved, scratch: string): Promise<string> {
  const [url = ''] = one.url.split('#');
  const path = join(scratch, basename(decodeURIComponent(new URL(url).pathname)));
  const { download: fetchFile } = await import('../../core/http.ts'); // its client is large
  await fetchFile(context, url, path, one.sha256 === undefined ? {} : { sha256: one.sha256 });
  return path;
}

function whereText(place: Place): string {
  return place.kind === 'root' ? `in ${place.id}` : 'on this machine';
}

interface Wanted {
  readonly key: string;
  readonly name: string;
  readonly sourceDateEpoch: number;
  readonly gitDir: string | undefined;
  /** @returns a folder, an archive, or (on this machine) 'name==version' */
  prepare(scratch: string): Promise<string>;
}

async function buildInto(
  context: Context,
  pip: Pip,
  place: Place,
  options: SourceOptions,
  { key, name, sourceDateEpoch, gitDir, prepare }: Wanted,
): Promise<string> {
  await using scratch = await workFolder(context);
  const logFile = await freshLog(context, 'build', name);
  const folder = join(scratch.path, 'wheels');
  await mkdir(folder);
  const timeoutMs = options.timeLimitMs ?? BUILD_LIMIT_MS;
  try {
    const source = await prepare(scratch.path);
    const common = { source, folder, sourceDateEpoch, logFile, timeoutMs };
    if (place.kind === 'host') await buildWheel(context, pip, common);
    else {
      const { buildWheelInRoot } = await import('./root-wheel.ts');
      const { network = false, proxy } = options;
      await buildWheelInRoot(context, pip, { ...common, root: place.root, gitDir, network, proxy });
    }
  } catch (error) {
    throw error instanceof ToolError ? await explainBuild(error, name, logFile, timeoutMs) : error;
  }
  const [path] = await keepFiles(context, 'wheels', key, folder);
  if (path?.endsWith('.whl')) return path;
  await forget(context, 'wheels', key);
  throw new UserError('source-does-not-build', `the back end of '${name}' made no wheel`, { hint: `see ${logFile}` });
}

/** Back ends that keep the times of files get the same ones from every checkout. */
async function setTimes(folder: string, date: number): Promise<void> {
  const inside = await readdir(folder, { recursive: true });
  for (const name of [...inside, '']) await lutimes(join(folder, name), date, date);
}

async function explainBuild(
  error: ToolError,
  name: string,
  logFile: string,
  limitMs: number,
): Promise<ToolError | UserError> {
  if (error.code === 'root-entry') return error;
  const hint = `the whole log: ${logFile}`;
  if (error.code === 'tool-timeout') {
    const what = `building '${name}' took longer than ${limitMs / 60_000} minutes`;
    return new UserError('source-does-not-build', what, { hint, cause: error });
  }
  const log = await readFile(logFile, 'utf8').catch(() => error.stderrTail);
  // pip frames what the back end said; its own last words say nothing of the cause
  const said = log.includes('[end of output]') ? log.slice(0, log.lastIndexOf('[end of output]')) : log;
  const lines = said
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '');
  const last = lines.slice(-12).map((line) => `  ${line.replace(/^ {6}/, '')}`);
  return new UserError('source-does-not-build', `'${name}' does not build:\n${last.join('\n')}`, {
    hint,
    cause: error,
  });
}
