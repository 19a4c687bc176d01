/**
 * The pool: package files by name, written once, never changed.
 *
 * Secret: where a package lies below public/ (Debian's pool layout), and how it gets there so that a crash leaves a whole
 * file or none.
 */
import { existsSync, lstatSync, mkdirSync, renameSync } from 'node:fs';
import { chmod, constants, copyFile, open, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { explainWriteError } from '../core/files.ts';
import { debFileName } from '../deb/package.ts';
import { parseVersion } from '../deb/version.ts';
import type { NewPackage } from './catalog.ts';

/** From this many files on, the whole file system is synced once instead of each file. */
const SYNC_ALL_FROM = 16;
const POOL_MODE = 0o644;

/** `main/h/hello`, `main/libx/libxml2`: Debian's folders, four letters for libraries. */
function poolFolder(component: string, source: string): string {
  const prefix = source.startsWith('lib') && source.length > 3 ? source.slice(0, 4) : source.slice(0, 1);
  return `pool/${component}/${prefix}/${source}`;
}

/**
 * The place of a package below public/. Debian leaves the epoch out of file names, so that 1:1.0 and 1.0 would meet: where
 * `isTaken` says so, the package goes to a folder of its epoch.
 */
export function poolPath(
  component: string,
  item: Pick<NewPackage, 'kind' | 'name' | 'version' | 'architecture' | 'source'>,
  isTaken: (path: string) => boolean = () => false,
): string {
  const deb = debFileName(item.name, item.version, item.architecture);
  const file = item.kind === 'dsc' ? deb.replace(/_source\.deb$/, '.dsc') : deb.replace(/\.deb$/, `.${item.kind}`);
  const folder = poolFolder(component, item.source);
  const plain = `${folder}/${file}`;
  return isTaken(plain) ? `${folder}/epoch-${parseVersion(item.version).epoch}/${file}` : plain;
}

/** What tells that a file was changed: compared before it was read and after it was copied. */
export interface FileState {
  readonly identity: string;
  readonly mode: number;
}

export async function fileState(path: string): Promise<FileState> {
  const { dev, ino, size, mtimeNs, ctimeNs, mode } = await stat(path, { bigint: true });
  return { identity: [dev, ino, size, mtimeNs, ctimeNs].join(':'), mode: Number(mode & 0o777n) };
}

/**
 * Copies a file aside, readable for everybody; it shares no inode with the original, which its owner may change at any time.
 * @throws UserError `file-changed` when it is no longer as `state` says
 */
export async function stage(from: string, to: string, state: FileState): Promise<void> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
    if (state.mode !== POOL_MODE) await chmod(to, POOL_MODE); // the copy has the mode of the original
  } catch (cause) {
    throw explainWriteError(cause, to);
  }
  if ((await fileState(from)).identity !== state.identity) {
    throw new UserError('file-changed', `'${from}' was changed while it was read`, {
      file: from,
      hint: 'wait until it is complete, then add it again',
    });
  }
}

/** Makes staged files durable. */
export async function syncStaged(context: Context, folder: string, files: readonly string[]): Promise<void> {
  if (files.length >= SYNC_ALL_FROM) {
    const { run } = await import('../core/run.ts');
    await run(context, 'sync', ['--file-system', folder]);
    return;
  }
  for (const path of files) {
    const file = await open(path, 'r+');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }
}

/** Moves a staged file to its place. Called inside the transaction that catalogues it, hence not async. */
export function putStaged(publicFolder: string, staged: string, filename: string): void {
  const target = join(publicFolder, filename);
  mkdirSync(dirname(target), { recursive: true });
  renameSync(staged, target);
}

/** True when the pool file is there with its size. */
export function isInPool(publicFolder: string, item: Pick<NewPackage, 'filename' | 'size'>): boolean {
  const path = join(publicFolder, item.filename);
  return existsSync(path) && lstatSync(path).isFile() && lstatSync(path).size === item.size;
}
