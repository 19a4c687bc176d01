/**
 * The bytes of the cache: whole objects named by their SHA256, and files under way.
 *
 * Secret: where they are on disk. An object appears by rename, so a name below `objects` is always a whole file; what a power
 * cut or a stranger did to it afterwards shows in its size or time and is found by reading it again.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  createReadStream,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '../core/errors.ts';

export interface OpenBlob {
  readonly fd: number;
  readonly size: number;
  readonly mtimeMs: number;
}

export interface Blobs {
  readonly dir: string;
  pathOf(sha256: string): string;
  partialPath(file: string): string;
  /** Undefined when it is not there. Not followed when somebody put a link in its place. */
  open(sha256: string): OpenBlob | undefined;
  /** Moves a whole file to its name; returns its time. */
  adopt(path: string, sha256: string): number;
  /** Writes a small object at once; returns its time. */
  write(bytes: Uint8Array, sha256: string): number;
  remove(sha256: string): void;
  removePartial(file: string): void;
  /** Reads the whole object; undefined when it is not there. */
  digest(sha256: string): Promise<string | undefined>;
  /** Names below `objects`, whole or strange; not what a killed writer left. */
  names(): Iterable<{ readonly name: string; readonly path: string }>;
  /** Removes what killed writers left. */
  sweep(): void;
  partialNames(): string[];
}

export function openBlobs(dir: string): Blobs {
  const objects = join(dir, 'objects');
  const partials = join(dir, 'partial');
  mkdirSync(objects, { recursive: true });
  mkdirSync(partials, { recursive: true });
  const pathOf = (sha256: string) => join(objects, sha256.slice(0, 2), sha256);
  const partialPath = (file: string) => join(partials, file);
  const known = new Set<string>();
  let serial = 0;

  function folderFor(sha256: string): void {
    const folder = sha256.slice(0, 2);
    if (known.has(folder)) return;
    mkdirSync(join(objects, folder), { recursive: true });
    known.add(folder);
  }
  function adopt(path: string, sha256: string): number {
    folderFor(sha256);
    try {
      renameSync(path, pathOf(sha256));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      known.clear(); // somebody removed the folder
      folderFor(sha256);
      renameSync(path, pathOf(sha256));
    }
    return statSync(pathOf(sha256)).mtimeMs;
  }

  function openForWriting(path: string, sha256: string): number {
    try {
      return openSync(path, 'w', 0o644);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      known.clear();
      folderFor(sha256);
      return openSync(path, 'w', 0o644);
    }
  }

  return {
    dir,
    pathOf,
    partialPath,
    open(sha256) {
      try {
        const fd = openSync(pathOf(sha256), constants.O_RDONLY | constants.O_NOFOLLOW);
        const stats = fstatSync(fd);
        if (stats.isFile()) return { fd, size: stats.size, mtimeMs: stats.mtimeMs };
        closeSync(fd);
        return undefined;
      } catch (error) {
        if (['ENOENT', 'ELOOP', 'ENOTDIR', 'EACCES', 'EIO'].includes(errnoOf(error) ?? '')) return undefined;
        throw error;
      }
    },
    adopt,
    write(bytes, sha256) {
      // in the same folder: renames between folders wait for each other, all over the file system
      folderFor(sha256);
      serial += 1;
      const path = join(objects, sha256.slice(0, 2), `.${serial}.tmp`);
      const fd = openForWriting(path, sha256);
      try {
        for (let offset = 0; offset < bytes.length; ) offset += writeSync(fd, bytes, offset);
      } catch (error) {
        closeSync(fd);
        rmSync(path, { force: true });
        throw error;
      }
      closeSync(fd);
      return adopt(path, sha256);
    },
    remove: (sha256) => rmSync(pathOf(sha256), { force: true }),
    removePartial: (file) => rmSync(partialPath(file), { force: true }),
    async digest(sha256) {
      const hash = createHash('sha256');
      try {
        for await (const chunk of createReadStream(pathOf(sha256), { highWaterMark: 1 << 18 }))
          hash.update(chunk as Buffer);
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') return undefined;
        throw error;
      }
      return hash.digest('hex');
    },
    *names() {
      for (const folder of readdirSync(objects)) {
        const entries = statSync(join(objects, folder)).isDirectory() ? readdirSync(join(objects, folder)) : [];
        for (const name of entries) if (!name.startsWith('.')) yield { name, path: join(objects, folder, name) };
      }
    },
    sweep() {
      for (const folder of readdirSync(objects)) {
        for (const name of readdirSync(join(objects, folder))) {
          if (name.startsWith('.') && name.endsWith('.tmp')) rmSync(join(objects, folder, name), { force: true });
        }
      }
    },
    partialNames: () => readdirSync(partials),
  };
}
