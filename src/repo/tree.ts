/** A published repository, in a folder or behind a URL, file by file. */
import { readdir, realpath, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Context } from '../core/context.ts';
import { errnoOf, RemoteError, UserError } from '../core/errors.ts';
import { type Scratch, scratchFolder } from '../core/files.ts';
import { download } from '../core/http.ts';
import { checkUrl } from './settings.ts';

/** 'bookworm/updates', 'experimental/snapshots/a': nobody goes deeper. */
const DEEPEST_SUITE = 3;

export interface Tree extends AsyncDisposable {
  /** For messages. */
  readonly name: string;
  /** Behind a URL: each file is a transfer. */
  readonly isRemote: boolean;
  /** A local file with the content of `path`; undefined when there is none. Good until `release`, or until the tree is disposed. */
  fetch(path: string): Promise<string | undefined>;
  /** Says that a fetched file is no longer needed. */
  release(path: string): Promise<void>;
}

/** @throws UserError `no-such-file` */
export async function openTree(context: Context, place: string): Promise<Tree> {
  return /^https?:\/\//.test(place) ? remoteTree(context, checkUrl(place)) : localTree(place);
}

/** Where the Release of a suite lies: below dists/, or, when it ends in a slash, just there (sources.list(5), "flat"). */
export function suiteFolder(suite: string): string {
  return suite.endsWith('/') ? suite.replace(/^(?:\.?\/)+/, '') : `dists/${suite}/`;
}

/**
 * Suites of a published tree in a folder, by name: each folder below dists/ that has a Release, './' where the tree itself has one. Of
 * several names for one folder (stable and bookworm) the first.
 */
export async function suitesIn(root: string): Promise<string[]> {
  const found = new Map<string, string>();
  const visit = async (suite: string, depth: number): Promise<void> => {
    const folder = join(root, suiteFolder(suite));
    if ((await isFile(join(folder, 'InRelease'), 'file')) || (await isFile(join(folder, 'Release'), 'file'))) {
      const real = await realpath(folder);
      if (!found.has(real)) found.set(real, suite);
    } else if (depth < DEEPEST_SUITE && (await isFile(folder, 'folder'))) {
      for (const name of (await readdir(folder)).sort())
        await visit(suite === '' ? name : `${suite}/${name}`, depth + 1);
    }
  };
  await visit('./', DEEPEST_SUITE);
  await visit('', 0);
  return [...found.values()];
}

/** A path that stays within the tree, whatever an index says. */
export function isInside(path: string): boolean {
  return !path.startsWith('/') && !path.split('/').includes('..') && !path.includes('\u0000');
}

async function localTree(place: string): Promise<Tree> {
  const root = resolve(place);
  if (!(await isFile(root, 'folder'))) {
    throw new UserError('no-such-file', `there is no folder '${place}'`, {
      hint: 'name the folder that web servers serve (public/), or a URL',
    });
  }
  return {
    name: place,
    isRemote: false,
    fetch: async (path) => (isInside(path) && (await isFile(join(root, path), 'file')) ? join(root, path) : undefined),
    release: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
}

async function isFile(path: string, wanted: 'file' | 'folder'): Promise<boolean> {
  try {
    const found = await stat(path);
    return wanted === 'file' ? found.isFile() : found.isDirectory();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG'].includes(errnoOf(error) ?? '')) return false;
    throw error;
  }
}

async function remoteTree(context: Context, url: string): Promise<Tree> {
  const scratch: Scratch = await scratchFolder(context.cacheDir, 'verify-');
  const { rm } = await import('node:fs/promises');
  let count = 0;
  const fetched = new Map<string, string>();
  return {
    name: url,
    isRemote: true,
    async fetch(path) {
      const known = fetched.get(path);
      if (known !== undefined) return known;
      if (!isInside(path)) return undefined;
      count += 1;
      const target = join(scratch.path, String(count));
      try {
        await download(context, url + path.split('/').map(encodeURIComponent).join('/'), target);
      } catch (error) {
        if (error instanceof RemoteError && (error.status === 404 || error.status === 403)) return undefined;
        throw error;
      }
      fetched.set(path, target);
      return target;
    },
    async release(path) {
      const known = fetched.get(path);
      if (known === undefined) return;
      fetched.delete(path);
      await rm(known, { force: true });
    },
    [Symbol.asyncDispose]: () => scratch[Symbol.asyncDispose](),
  };
}
