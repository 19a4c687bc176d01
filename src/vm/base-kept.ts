/**
 * What a build leaves for a later one that goes on from one of its stages, when it cannot be finished.
 *
 * Secret: the folder `STATE/vm/bases/.kept-SUITE-LINE`: a tar file with the root before each stage of the customization, made
 * aside and renamed, and the root itself before the disk is written. It lasts until the build succeeds, begins anew, or `vm gc`.
 */
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { ToolError } from '../core/errors.ts';
import { namesIn } from '../core/files.ts';
import { run } from '../core/run.ts';
import { type Owner, removeTree } from './base-owner.ts';
import { keptName, keptRootName, lineOf, type Stage } from './base-stages.ts';

export const KEPT = '.kept-';
const TIMEOUT_MS = 30 * 60_000;
/** File capabilities and access lists are part of a root. */
const TAR_OPTIONS = ['--numeric-owner', '--xattrs', '--xattrs-include=*'];

export function keptDir(basesDir: string, suite: string, stages: readonly Stage[]): string {
  return join(basesDir, `${KEPT}${suite}-${lineOf(stages)}`);
}

/** The kept folders of all builds. */
export async function keptDirs(basesDir: string): Promise<string[]> {
  return (await namesIn(basesDir)).filter((name) => name.startsWith(KEPT)).map((name) => join(basesDir, name));
}

/** Where the root lies while and after the disk is written of it. */
export function rootPlace(dir: string, stage: Stage): string {
  return join(dir, keptRootName(stage));
}

/** Keeps the root as it is before `stage`. Where that cannot be, the build goes on without. */
export async function keepBefore(
  context: Context,
  owner: Owner,
  dir: string,
  stage: Stage,
  root: string,
): Promise<void> {
  await mkdir(dir, { recursive: true });
  const target = join(dir, keptName(stage));
  const part = join(dir, '.part');
  const create = ['tar', '--create', '--use-compress-program=zstd -q -1 -T0', ...TAR_OPTIONS, '--one-file-system'];
  const [program, ...args] = owner.wrap([...create, '--file', part, '-C', root, '.']);
  try {
    await run(context, program, args, { timeoutMs: TIMEOUT_MS });
    await rename(part, target);
  } catch (error) {
    await rm(part, { force: true });
    if (!(error instanceof ToolError)) throw error;
    context.log.warn(`the work before stage '${stage.name}' cannot be kept: ${error.stderrTail.trim().split('\n')[0]}`);
  }
}

/** Makes the root as it was before `stage`. */
export async function takeBefore(
  context: Context,
  owner: Owner,
  dir: string,
  stage: Stage,
  root: string,
): Promise<void> {
  await mkdir(root);
  const extract = ['tar', '--extract', '--use-compress-program=zstd', '--preserve-permissions', '--same-owner'];
  const [program, ...args] = owner.wrap([...extract, ...TAR_OPTIONS, '--file', join(dir, keptName(stage)), '-C', root]);
  await run(context, program, args, { timeoutMs: TIMEOUT_MS });
}

/** Moves the finished root to its place in `dir`. */
export async function keepRoot(context: Context, dir: string, stage: Stage, root: string): Promise<string> {
  const place = rootPlace(dir, stage);
  await mkdir(dir, { recursive: true });
  await removeTree(context, place);
  await rename(root, place);
  return place;
}
