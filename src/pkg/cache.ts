/**
 * What was built once: wheels, packages and resolutions, each under the digest of everything that went into it.
 *
 * Secret: the folder layout below `cacheDir/pkg`. Entries appear by rename, whole; a lost or broken one is made again.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { errnoOf } from '../core/errors.ts';
import { type Scratch, scratchFolder, writeFileAtomic } from '../core/files.ts';

/** Raised when the same inputs give other bytes than before. */
const FORMAT = 3;

/** Hex digest of a value's JSON text; keys in the order they were written. */
export function keyOf(value: unknown): string {
  return createHash('sha256')
    .update(JSON.stringify([FORMAT, value]))
    .digest('hex');
}

function root(context: Context): string {
  return join(context.cacheDir, 'pkg');
}

/** A folder for work under way, on the same file system as the cache. */
export function workFolder(context: Context): Promise<Scratch> {
  return scratchFolder(join(root(context), 'work'));
}

/** Files of a finished entry; undefined when there is none. */
export async function cachedFiles(context: Context, kind: string, key: string): Promise<string[] | undefined> {
  const folder = join(root(context), kind, key.slice(0, 2), key);
  try {
    return (await readdir(folder)).sort().map((name) => join(folder, name));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Moves a filled folder into the cache. When another process was faster, its entry stays. @returns the files */
export async function keepFiles(context: Context, kind: string, key: string, filled: string): Promise<string[]> {
  const folder = join(root(context), kind, key.slice(0, 2), key);
  await mkdir(dirname(folder), { recursive: true });
  try {
    await rename(filled, folder);
  } catch (error) {
    if (errnoOf(error) !== 'ENOTEMPTY' && errnoOf(error) !== 'EEXIST') throw error;
  }
  return (await cachedFiles(context, kind, key)) ?? [];
}

/** Drops an entry that turned out to be broken. */
export async function forget(context: Context, kind: string, key: string): Promise<void> {
  await rm(join(root(context), kind, key.slice(0, 2), key), { recursive: true, force: true });
}

/** A small value; undefined when absent or unreadable. */
export async function cachedValue(context: Context, kind: string, key: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(join(root(context), kind, `${key}.json`), 'utf8'));
  } catch {
    return undefined;
  }
}

export function keepValue(context: Context, kind: string, key: string, value: unknown): Promise<void> {
  return writeFileAtomic(join(root(context), kind, `${key}.json`), JSON.stringify(value));
}
