/** Files that are whole or absent: atomic writes, fsync, digests while copying, scratch folders that vanish. */
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { type FileHandle, mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { errnoOf, UserError } from './errors.ts';

export interface AtomicWriteOptions {
  readonly mode?: number;
  /** Seconds since the epoch, set before the rename. */
  readonly mtime?: number;
}

/** Writes `path` whole: to a neighbour first, fsync, rename, fsync of the folder. Parent folders are made. */
export async function writeFileAtomic(
  path: string,
  content: string | Uint8Array,
  options: AtomicWriteOptions = {},
): Promise<void> {
  await atomically(path, options, (file) => file.writeFile(content));
}

/** Like `writeFileAtomic`, for content that `body` writes to an open file. On any error nothing is left behind. */
export async function atomically(
  path: string,
  options: AtomicWriteOptions,
  body: (file: FileHandle, temporary: string) => Promise<void>,
): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const temporary = join(dirname(path), `.${basename(path).slice(0, 200)}.${randomBytes(6).toString('hex')}.tmp`);
  const file = await open(temporary, 'wx', options.mode ?? 0o644);
  try {
    try {
      await body(file, temporary);
      if (options.mode !== undefined) await file.chmod(options.mode); // the umask does not decide
      if (options.mtime !== undefined) await file.utimes(options.mtime, options.mtime);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true });
    throw explainWriteError(cause, path);
  }
  await syncFolder(dirname(path));
}

/** Makes renames in `folder` durable. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A full disk or missing rights as a UserError with the next step; anything else unchanged. */
export function explainWriteError(cause: unknown, path: string): unknown {
  const hints: Record<string, [string, string]> = {
    ENOSPC: ['no room left on the disk', 'free some room, then run the command again: nothing was changed'],
    EDQUOT: ['your disk quota is used up', 'free some room, then run the command again: nothing was changed'],
    EROFS: ['the file system is read-only', 'choose another folder or remount it writable'],
    EACCES: ['no right to write here', 'choose another folder (--state, --out) or run as the user that owns it'],
    EPERM: ['no right to write here', 'choose another folder (--state, --out) or run as the user that owns it'],
  };
  const known = hints[errnoOf(cause) ?? ''];
  return known
    ? new UserError('cannot-write', `cannot write '${path}': ${known[0]}`, { hint: known[1], file: path, cause })
    : cause;
}

export type DigestName = 'md5' | 'sha1' | 'sha256' | 'sha512';

const DIGEST_BYTES = 1 << 20;

/** Hex digest of a file, a piece at a time. */
export async function digestFile(path: string, algorithm: DigestName): Promise<string> {
  const hash = createHash(algorithm);
  await using file = await open(path);
  // no more than there is to read: of thousands of small files, a megabyte each would be gigabytes of garbage
  const buffer = Buffer.allocUnsafe(Math.min((await file.stat()).size + 1, DIGEST_BYTES));
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, null);
    if (bytesRead === 0) return hash.digest('hex');
    hash.update(buffer.subarray(0, bytesRead));
  }
}

/** Hex digests of many files, one after the other: each waits for the disk alone, which takes a tenth of the time of `digestFile`. */
export function createDigester(algorithm: DigestName): (path: string) => string {
  const buffer = Buffer.allocUnsafe(DIGEST_BYTES);
  return (path) => {
    const hash = createHash(algorithm);
    const file = openSync(path, 'r');
    try {
      for (;;) {
        const count = readSync(file, buffer, 0, buffer.length, null);
        if (count === 0) return hash.digest('hex');
        hash.update(buffer.subarray(0, count));
      }
    } finally {
      closeSync(file);
    }
  };
}

export interface Scratch extends AsyncDisposable {
  readonly path: string;
}

/** A temporary folder below `parent` (made when missing), removed with all it holds on dispose. */
export async function scratchFolder(parent: string, prefix = 'buildkit-'): Promise<Scratch> {
  await mkdir(parent, { recursive: true });
  const path = await mkdtemp(join(parent, prefix));
  return {
    path,
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true, maxRetries: 3 });
    },
  };
}

/** The text of a file; undefined when there is none. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Names of what is in a folder; none where there is no folder. */
export async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

/** True when something (a file, a folder, a link's target) is at `path`. */
export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return false;
    throw error;
  }
}
