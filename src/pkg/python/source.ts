/**
 * From what the user asked for to wheels on disk: projects and sdists are built, published wheels fetched, each once.
 *
 * Secret: which cache entry stands for which source, and that what a download gives is what the resolution saw.
 */
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Context } from '../../core/context.ts';
import { RemoteError, ToolError, UserError } from '../../core/errors.ts';
import { digestFile } from '../../core/files.ts';
import { cachedFiles, forget, keepFiles, keyOf, workFolder } from '../cache.ts';
import { NO_DATE } from '../source-date.ts';
import { buildWheel, fetchWheels, type Pip, type Resolved } from './pip.ts';
import { copyTree, type PythonProject, readProjectTree } from './project.ts';

const BUILD_LIMIT_MS = 20 * 60 * 1000;

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
  sourceDateEpoch: number | undefined,
): Promise<ProjectWheel> {
  const tree = await readProjectTree(context, project.folder);
  const date = sourceDateEpoch ?? tree.date;
  const key = keyOf(['project', tree.digest, date, pip.target, pip.interpreter]);
  const [cached] = (await cachedFiles(context, 'wheels', key)) ?? [];
  const path =
    cached ??
    (await context.log.step(`Build the wheel of ${project.name ?? basename(project.folder)}`, () =>
      buildInto(context, pip, key, project.name ?? basename(project.folder), date, async (scratch) => {
        const source = join(scratch, 'source');
        await mkdir(source);
        await copyTree(project.folder, tree, source);
        return source;
      }),
    ));
  return { project, path, sha256: await digestFile(path, 'sha256'), date };
}

/** The wheel files of resolved distributions, in their order. */
export async function wheelsOf(
  context: Context,
  pip: Pip,
  distributions: readonly Resolved[],
  sourceDateEpoch: number | undefined,
): Promise<string[]> {
  const found = await Promise.all(distributions.map((one) => localWheel(context, one)));
  const missing = distributions.filter((_, index) => found[index] === undefined);
  const published = missing.filter((one) => one.url.split('#')[0]!.endsWith('.whl'));
  if (published.length > 0) await download(context, pip, published);
  for (const one of missing.filter((other) => !published.includes(other)))
    await buildSdist(context, pip, one, sourceDateEpoch);
  return Promise.all(
    distributions.map(async (one, index) => {
      const path = found[index] ?? (await localWheel(context, one));
      if (path !== undefined) return path;
      throw new UserError('wheel-lost', `the wheel of '${one.name}' ${one.version} is gone from the cache`, {
        hint: 'run the command again',
      });
    }),
  );
}

function cacheKey(one: Resolved): string {
  return keyOf(['wheel', one.name, one.version, one.sha256 ?? one.url]);
}

/** The wheel of a distribution where it is on this machine already. */
export async function localWheel(context: Context, one: Resolved): Promise<string | undefined> {
  const url = one.url.split('#')[0]!;
  if (url.startsWith('file:') && url.endsWith('.whl')) return fileURLToPath(url);
  return (await cachedFiles(context, 'wheels', cacheKey(one)))?.[0];
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
    await keepFiles(context, 'wheels', cacheKey(one), folder);
  }
}

async function buildSdist(
  context: Context,
  pip: Pip,
  one: Resolved,
  sourceDateEpoch: number | undefined,
): Promise<void> {
  await context.log.step(`Build the wheel of ${one.name} ${one.version} from its source`, () =>
    buildInto(context, pip, cacheKey(one), one.name, sourceDateEpoch ?? NO_DATE, async () =>
      one.url.startsWith('file:') ? fileURLToPath(one.url.split('#')[0]!) : `${one.name}==${one.version}`,
    ),
  );
}

async function buildInto(
  context: Context,
  pip: Pip,
  key: string,
  name: string,
  sourceDateEpoch: number,
  prepare: (scratch: string) => Promise<string>,
): Promise<string> {
  await using scratch = await workFolder(context);
  const logFolder = join(context.stateDir, 'logs');
  await mkdir(logFolder, { recursive: true });
  const logFile = join(logFolder, `build-${name.replaceAll(/[^\w.-]/g, '_')}.log`);
  await rm(logFile, { force: true });
  const folder = join(scratch.path, 'wheels');
  await mkdir(folder);
  try {
    const source = await prepare(scratch.path);
    await buildWheel(context, pip, { source, folder, sourceDateEpoch, logFile, timeoutMs: BUILD_LIMIT_MS });
  } catch (error) {
    throw error instanceof ToolError ? await explainBuild(error, name, logFile) : error;
  }
  const [path] = await keepFiles(context, 'wheels', key, folder);
  if (path?.endsWith('.whl')) return path;
  await forget(context, 'wheels', key);
  throw new UserError('source-does-not-build', `the back end of '${name}' made no wheel`, { hint: `see ${logFile}` });
}

async function explainBuild(error: ToolError, name: string, logFile: string): Promise<UserError> {
  const hint = `the whole log: ${logFile}`;
  if (error.code === 'tool-timeout') {
    const what = `building '${name}' took longer than ${BUILD_LIMIT_MS / 60_000} minutes`;
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
