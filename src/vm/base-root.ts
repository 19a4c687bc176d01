/**
 * Makes the root file system of a base or disk, stage by stage, or goes on with one that an earlier build left.
 *
 * Secret: the scratch folder of a build, which is gone at its end whatever happens, its log, and what a failure says.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, rename, rm, statfs, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { errnoOf, ToolError, UserError } from '../core/errors.ts';
import { exists, explainWriteError, namesIn, readIfThere } from '../core/files.ts';
import { run } from '../core/run.ts';
import { missingProgramHint } from '../core/tools.ts';
import { KEPT, keepBefore, keepRoot, keptDir, keptDirs, rootPlace, takeBefore } from './base-kept.ts';
import { chooseOwner, type Owner, removeTree } from './base-owner.ts';
import { type BaseRecipe, mmdebstrapArgs, sourcesFile, stageArgs } from './base-plan.ts';
import { lineOf, type Stage, type StageName, stagesFrom } from './base-stages.ts';
import { type Customization, type CustomStage, writeStageHooks } from './customize.ts';
import { finishHook } from './guest.ts';

/** What is to be built, and with what help that leaves no trace in it. */
export interface RootJob {
  readonly recipe: BaseRecipe;
  readonly custom: Customization;
  readonly stages: readonly Stage[];
  /** Go on from here with what an earlier build left; undefined: from the start. */
  readonly fromStage: StageName | undefined;
  readonly proxy: string | undefined;
}

/** Where an image is being made. */
export interface Workshop {
  readonly root: string;
  /** Gone afterwards. */
  readonly scratch: string;
  readonly logFile: string;
  readonly owner: Owner;
}

const BUILDING = '.building-';
/** In a scratch folder: lines with other folders that go with it. */
const ELSEWHERE = 'elsewhere';
/** In a scratch folder: where `ASIDE` in it belongs. */
const RESTORE = 'restore';
export const ASIDE = 'aside';
const BUILD_TIMEOUT_MS = 30 * 60_000;
/** With less than that a disk is full. */
const NO_ROOM_BYTES = 2 ** 20;

/** A new folder for something that is being made; `removeLeftovers` finds it. */
export async function newScratch(basesDir: string, name: string): Promise<string> {
  const scratch = join(basesDir, `${BUILDING}${name}-${randomUUID().slice(0, 8)}`);
  await mkdir(scratch, { recursive: true });
  return scratch;
}

/** `folder` goes when `scratch` goes, also when buildkit is killed. */
export async function noteElsewhere(scratch: string, folder: string): Promise<void> {
  await writeFile(join(scratch, ELSEWHERE), `${folder}\n`);
}

/** What lies at `SCRATCH/aside` goes back to `place` when the process dies before it has put something else there. */
export async function noteRestore(scratch: string, place: string): Promise<void> {
  await writeFile(join(scratch, RESTORE), place);
}

async function restore(scratch: string): Promise<void> {
  const place = await readIfThere(join(scratch, RESTORE));
  const aside = join(scratch, ASIDE);
  if (place && (await exists(aside)) && !(await exists(place))) await rename(aside, place);
}

async function elsewhereOf(scratch: string): Promise<string[]> {
  return ((await readIfThere(join(scratch, ELSEWHERE))) ?? '').split('\n').filter(Boolean);
}

/** What a killed build left behind. Only with the lock held: then nobody is building. @returns how many there were */
export async function removeLeftovers(context: Context, basesDir: string): Promise<number> {
  const names = (await namesIn(basesDir)).filter((one) => one.startsWith(BUILDING));
  for (const name of names) {
    const scratch = join(basesDir, name);
    await restore(scratch);
    for (const folder of await elsewhereOf(scratch)) await removeTree(context, folder);
    await removeTree(context, scratch);
  }
  return names.length;
}

/** The work that failed builds left to go on from, and their logs. Only with the lock held. @returns what it was, in words */
export async function removeKept(context: Context, basesDir: string): Promise<string[]> {
  const removed: string[] = [];
  for (const dir of await keptDirs(basesDir)) {
    await removeTree(context, dir);
    removed.push(`kept work of a build (${basename(dir).slice(KEPT.length)})`);
  }
  for (const name of (await namesIn(basesDir)).filter((one) => one.endsWith('.log'))) {
    await rm(join(basesDir, name), { force: true });
    removed.push(`the log of a failed build (${name})`);
  }
  return removed;
}

/**
 * Makes the root and hands it to `body`, which is the last stage. The log and what was done so far stay when one fails.
 * @throws UserError as `stagesFrom` and `chooseOwner` do, `cannot-write`; ToolError `base-stage-failed`
 */
export async function withWorkshop<T>(
  context: Context,
  basesDir: string,
  job: RootJob,
  body: (shop: Workshop) => Promise<T>,
): Promise<T> {
  const { recipe, stages } = job;
  const line = `${recipe.suite}-${lineOf(stages)}`;
  const dir = keptDir(basesDir, recipe.suite, stages);
  const kept = await namesIn(dir);
  const left = stagesFrom(stages, job.fromStage, kept, kept.length === 0 && (await keptDirs(basesDir)).length > 0);
  const owner = await chooseOwner(context);
  const logFile = join(basesDir, `${line}.log`);
  if (left[0]!.name === 'bootstrap') {
    await removeTree(context, dir);
    await rm(logFile, { force: true });
  }
  const scratch = await newScratch(basesDir, line);
  try {
    const shop = { root: join(scratch, 'root'), scratch, logFile, owner };
    const root = await makeRoot(context, basesDir, job, left, shop);
    const last = stages.at(-1)!;
    const result = await inStage(context, basesDir, last, shop, () => body({ ...shop, root }));
    await removeTree(context, dir);
    await rm(logFile, { force: true });
    return result;
  } finally {
    await removeTree(context, scratch);
  }
}

async function makeRoot(
  context: Context,
  basesDir: string,
  job: RootJob,
  left: readonly Stage[],
  shop: Workshop,
): Promise<string> {
  const dir = keptDir(basesDir, job.recipe.suite, job.stages);
  const [first, last] = [left[0]!, left.at(-1)!];
  if (first === last && (await exists(rootPlace(dir, last)))) return rootPlace(dir, last);
  const make = left.slice(0, -1);
  const customs = make.map(({ name }) => name).filter((name): name is CustomStage => name !== 'bootstrap');
  const hooks = await writeStageHooks(context, job.custom, customs, shop.scratch);
  const sources = join(shop.scratch, 'build.sources');
  await writeFile(sources, sourcesFile(job.recipe));
  if (first.name !== 'bootstrap') {
    await context.log.step(`Take up the work before stage '${first.name}'`, () =>
      takeBefore(context, shop.owner, dir, first, shop.root),
    );
  }
  for (const [at, stage] of make.entries()) {
    await inStage(context, basesDir, stage, shop, () =>
      stage.name === 'bootstrap'
        ? bootstrap(context, job, shop, sources)
        : context.log.step(`Stage '${stage.name}'`, () =>
            runHook(context, job, shop, hooks.get(stage.name as CustomStage)!),
          ),
    );
    const next = make[at + 1];
    if (next) await keepBefore(context, shop.owner, dir, next, shop.root);
  }
  if (job.stages.length > 2) await inStage(context, basesDir, last, shop, () => finish(context, job, shop));
  return await keepRoot(context, dir, last, shop.root);
}

async function bootstrap(context: Context, job: RootJob, shop: Workshop, sources: string): Promise<void> {
  const { recipe } = job;
  const hook = join(shop.scratch, 'hook.sh');
  await writeFile(hook, recipe.hook, { mode: 0o755 });
  const args = mmdebstrapArgs(recipe, { root: shop.root, hookFile: hook, sourcesFile: sources });
  const what = `mmdebstrap, ${recipe.packages.length} packages and what they need`;
  await context.log.step(`Bootstrap ${recipe.suite} (${what})`, () => mmdebstrap(context, job, shop, args));
}

function runHook(context: Context, job: RootJob, shop: Workshop, hookFile: string): Promise<void> {
  const sources = join(shop.scratch, 'build.sources');
  return mmdebstrap(context, job, shop, stageArgs(job.recipe, { root: shop.root, hookFile, sourcesFile: sources }));
}

/** Takes the traces of the user's stages out. */
async function finish(context: Context, job: RootJob, shop: Workshop): Promise<void> {
  const hook = join(shop.scratch, 'finish.sh');
  await writeFile(hook, finishHook(job.recipe.profile), { mode: 0o755 });
  await runHook(context, job, shop, hook);
}

async function mmdebstrap(
  context: Context,
  { proxy }: RootJob,
  shop: Workshop,
  argv: readonly string[],
): Promise<void> {
  const [program, ...args] = shop.owner.enclose(['mmdebstrap', ...argv]);
  await run(context, program, args, {
    logFile: shop.logFile,
    timeoutMs: BUILD_TIMEOUT_MS,
    // what a kill leaves goes away with the scratch folder
    env: { TMPDIR: shop.scratch, ...(proxy === undefined ? {} : { http_proxy: proxy }) },
    onLine: (line) => {
      const percent = /^\s*\[?[#=>. ]*\]?\s*(\d+)(?:\.\d+)?%?/.exec(line)?.[1];
      if (percent !== undefined && line.includes('%')) context.log.progress('mmdebstrap', Number(percent), 100);
    },
  });
}

/** A failure names the stage, says where the log is, and how to go on. */
async function inStage<T>(
  context: Context,
  basesDir: string,
  { name }: Stage,
  { logFile, scratch }: Workshop,
  body: () => Promise<T>,
): Promise<T> {
  try {
    return await body();
  } catch (error) {
    context.signal.throwIfAborted();
    const again = name === 'bootstrap' ? 'run the command again' : `go on: add --from-stage ${name} to the command`;
    const failed = `stage '${name}' of the base image failed`;
    const full = await fullPlace(error, [basesDir, ...(await elsewhereOf(scratch)).map((folder) => dirname(folder))]);
    if (full !== undefined) {
      throw new UserError('cannot-write', `${failed}: no room left on the disk of '${full}'`, {
        hint: `free some room (a build takes about 3 GB while it runs), then ${again}; nothing half made was left (log: ${logFile})`,
        cause: error,
      });
    }
    throw asStageError(explainWriteError(error, basesDir), failed, again, logFile);
  }
}

/** The failure of a program or a check as that of a stage, with how to go on. Pure. */
export function asStageError(error: unknown, failed: string, again: string, logFile: string): unknown {
  if (error instanceof UserError) {
    const hint = error.hint === undefined ? again : `${error.hint}; then ${again}`;
    return new UserError(error.code, `${failed}: ${error.message}`, { hint, file: error.file, cause: error });
  }
  if (!(error instanceof ToolError)) return error;
  const { command, stderrTail, status, cause } = error;
  // what starts a program for us cannot say where it comes from
  const missing = /^(?:setpriv|unshare): failed to execute (\S+): No such file/m.exec(stderrTail)?.[1];
  const [code, message, todo] =
    missing === undefined
      ? [error.code, error.message, error.hint ?? 'see the log']
      : ['tool-missing', `'${missing}' is not installed`, missingProgramHint(missing)];
  const more = { hint: `${todo}; then ${again}`, command, stderrTail, status, cause: cause ?? error, logFile };
  if (code === 'tool-failed') return new ToolError('base-stage-failed', failed, more);
  return new ToolError(code, `${failed}: ${message}`, more);
}

/** The place that is to blame where there was no room; undefined: there was. */
async function fullPlace(error: unknown, places: readonly string[]): Promise<string | undefined> {
  const free = await Promise.all(
    places.map(async (place) => {
      const { bavail, bsize } = await statfs(place);
      return { place, bytes: bavail * bsize };
    }),
  );
  const { place, bytes } = free.toSorted((a, b) => a.bytes - b.bytes)[0]!;
  const said = error instanceof ToolError && /No space left on device/.test(error.stderrTail);
  const guessed = bytes < NO_ROOM_BYTES && !(error instanceof UserError);
  return errnoOf(error) === 'ENOSPC' || said || guessed ? place : undefined;
}
