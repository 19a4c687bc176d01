/**
 * Index files by their digests, below public/by-hash/.
 *
 * Secret: an object lies under its SHA256, with links under the other digests that a Release lists: apt asks for the strongest.
 * It is complete and durable before it has its name, and never changes.
 */
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import { type FileHandle, link, mkdir, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../core/errors.ts';
import { explainWriteError } from '../core/files.ts';
import type { IndexFile } from './indexes.ts';
import type { Layout } from './layout.ts';
import type { ExtraHash } from './settings.ts';

const ALGORITHMS = { MD5Sum: 'md5', SHA512: 'sha512' } as const;

function folderOf(layout: Layout, hash: ExtraHash | 'SHA256'): string {
  return join(layout.public, 'by-hash', hash);
}

/** Those there are. */
export function objectFolders(layout: Layout): string[] {
  return (['MD5Sum', 'SHA256', 'SHA512'] as const).map((hash) => folderOf(layout, hash)).filter(existsSync);
}

export function objectPath(layout: Layout, sha256: string): string {
  return join(folderOf(layout, 'SHA256'), sha256);
}

/** Every name of an object. */
export function objectNames(file: IndexFile): string[] {
  return [file.sha256, file.sha512, file.md5].filter((digest) => digest !== undefined);
}

/** It is there under every digest asked for, or need not be. */
export function hasObject(layout: Layout, file: IndexFile, hashes: readonly ExtraHash[]): boolean {
  if (file.onlyListed) return true;
  const paths = [objectPath(layout, file.sha256)];
  for (const hash of file.unlisted ? [] : hashes) {
    const digest = file[ALGORITHMS[hash]];
    if (digest === undefined) return false;
    paths.push(join(folderOf(layout, hash), digest));
  }
  return paths.every((path) => statSync(path, { throwIfNoEntry: false })?.size === file.size);
}

export type ObjectFacts = Omit<IndexFile, 'path'>;

const WRITE_BUFFER_BYTES = 256 * 1024;

/** The digests of a file that is not kept. */
export class ObjectDigest {
  readonly #hash = createHash('sha256');
  readonly #extra: ReadonlyMap<ExtraHash, Hash>;
  #size = 0;

  constructor(hashes: readonly ExtraHash[] = []) {
    this.#extra = new Map(hashes.map((hash) => [hash, createHash(ALGORITHMS[hash])]));
  }

  write(chunk: Uint8Array): void {
    this.#hash.update(chunk);
    for (const hash of this.#extra.values()) hash.update(chunk);
    this.#size += chunk.length;
  }

  finish(): ObjectFacts {
    const extra: { md5?: string; sha512?: string } = {};
    for (const [hash, sum] of this.#extra) extra[ALGORITHMS[hash]] = sum.digest('hex');
    return { sha256: this.#hash.digest('hex'), size: this.#size, ...extra };
  }
}

/** A file below public/by-hash/ whose name is known only when it is complete. */
export class ObjectWriter implements AsyncDisposable {
  readonly #layout: Layout;
  readonly #temporary: string;
  readonly #file: FileHandle;
  readonly #digest: ObjectDigest;
  readonly #hashes: readonly ExtraHash[];
  readonly #buffer = Buffer.allocUnsafe(WRITE_BUFFER_BYTES);
  #pending = 0;
  #open = true;

  private constructor(layout: Layout, temporary: string, file: FileHandle, hashes: readonly ExtraHash[]) {
    this.#layout = layout;
    this.#temporary = temporary;
    this.#file = file;
    this.#hashes = hashes;
    this.#digest = new ObjectDigest(hashes);
  }

  /** @param hashes under which it is to be found beside SHA256 */
  static async open(layout: Layout, hashes: readonly ExtraHash[] = []): Promise<ObjectWriter> {
    const temporary = join(layout.incoming, `object-${randomBytes(8).toString('hex')}`);
    try {
      return new ObjectWriter(layout, temporary, await open(temporary, 'wx', 0o644), hashes);
    } catch (cause) {
      throw explainWriteError(cause, temporary);
    }
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#digest.write(chunk);
    // one buffer for all: chunks are small and many
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + this.#buffer.length - this.#pending);
      this.#buffer.set(part, this.#pending);
      this.#pending += part.length;
      at += part.length;
      if (this.#pending === this.#buffer.length) await this.#flush();
    }
  }

  async #flush(): Promise<void> {
    try {
      await this.#file.writeFile(this.#buffer.subarray(0, this.#pending));
    } catch (cause) {
      throw explainWriteError(cause, this.#temporary);
    }
    this.#pending = 0;
  }

  /** Moves it to its place; an object that is there already is the same. */
  async finish(): Promise<ObjectFacts> {
    try {
      await this.#flush();
      const facts = this.#digest.finish();
      const target = objectPath(this.#layout, facts.sha256);
      await this.#file.chmod(0o644);
      await this.#file.sync();
      await rename(this.#temporary, target);
      for (const hash of this.#hashes) await this.#linkAs(target, hash, facts[ALGORITHMS[hash]]!);
      return facts;
    } catch (cause) {
      throw explainWriteError(cause, this.#temporary);
    } finally {
      await this[Symbol.asyncDispose]();
    }
  }

  async #linkAs(target: string, hash: ExtraHash, digest: string): Promise<void> {
    const folder = folderOf(this.#layout, hash);
    await mkdir(folder, { recursive: true });
    try {
      await link(target, join(folder, digest));
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
      // of the object before, which may have been damaged: the new one takes its place
      const aside = `${this.#temporary}.link`;
      await link(target, aside);
      await rename(aside, join(folder, digest));
      await rm(aside, { force: true }); // rename does nothing between two names of one file
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
    await rm(this.#temporary, { force: true });
  }
}
