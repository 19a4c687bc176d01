/**
 * The pool: package files by name, written once, never changed.
 *
 * Secret: where a package lies below public/ (Debian's pool layout), and how it gets there so that a crash leaves a whole
 * file or none.
 */
import { existsSync, lstatSync, mkdirSync, renameSync } from 'node:fs';
import { constants, copyFile, open, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { explainWriteError } from '../core/files.ts';
import { debFileName } from '../deb/package.ts';
import { parseVersion } from '../deb/version.ts';
import type { NewPackage } from './catalog.ts';

/** From this many files on, the whole file system is synced once instead of each file. */
const SYNC_ALL_FROM = 16;

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
  const file = debFileName(item.name, item.version, item.architecture).replace(/\.deb$/, `.${item.kind}`);
  const folder = poolFolder(component, item.source);
  const plain = `${folder}/${file}`;
  return isTaken(plain) ? `${folder}/epoch-${parseVersion(item.version).epoch}/${file}` : plain;
}

/** What tells that a file was changed: compared before it was read and after it was copied. */
export async function fileState(path: string): Promise<string> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  return [dev, ino, size, mtimeNs, ctimeNs].join(':');
}

/**
 * Copies a file aside; it shares no inode with the original, which its owner may change at any time.
 * @throws UserError `file-changed` when it is no longer as `state` says
 */
export async function stage(from: string, to: string, state: string): Promise<void> {
  try {
    await copyFile(from, to, constants.COPYFILE_FICLONE | constants.COPYFILE_EXCL);
  } catch (cause) {
    throw explainWriteError(cause, to);
  }
  if ((await fileState(from)) !== state) {
    throw new UserError('file-changed', `'${from}' was changed while it was read`, {
      file: from,
      hint: 'wait until it is complete, then add it again',
    });
  }
}

/** Makes staged files durable and readable for everybody. */
export async function syncStaged(context: Context, folder: string, files: readonly string[]): Promise<void> {
  const each = files.length < SYNC_ALL_FROM;
  for (const path of files) {
    const file = await open(path, 'r+');
    try {
      await file.chmod(0o644);
      if (each) await file.sync();
    } finally {
      await file.close();
    }
  }
  if (each) return;
  const { run } = await import('../core/run.ts');
  await run(context, 'sync', ['--file-system', folder]);
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
