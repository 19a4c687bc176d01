/**
 * A whole repository once more: suites, settings, history, generations, and every file that clients may ask for.
 *
 * Secret: the order that makes a copy whole or none. Files first, the catalog last: until it has its name there is no repository,
 * and the same command goes on. No private key is in a repository (keys.ts), and rights to write over HTTP (tokens) stay behind.
 */
import { lstatSync } from 'node:fs';
import {
  chmod,
  constants,
  copyFile,
  link,
  mkdir,
  readdir,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  utimes,
} from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { exists, explainWriteError } from '../core/files.ts';
import { Catalog } from './catalog.ts';
import { expiredGenerations } from './gc.ts';
import { lockPublish, type RepoHandle } from './handle.ts';
import { type Layout, layoutOf } from './layout.ts';
import { objectNames } from './objects.ts';

export interface CloneOptions {
  /** Only the generations that clients see now, and those that are pinned. */
  readonly current?: boolean | undefined;
  /** Package files share their bytes with the original where the file system allows it. */
  readonly link?: boolean | undefined;
}

export interface CloneResult {
  readonly dir: string;
  readonly suites: readonly string[];
  readonly generations: number;
  readonly packages: number;
  readonly bytes: number;
}

/** @throws UserError `repository-exists` when `to` holds one; what an interrupted clone left there is used */
export async function cloneRepository(repo: RepoHandle, to: string, options: CloneOptions = {}): Promise<CloneResult> {
  const target = layoutOf(resolve(to));
  if (await exists(target.catalog)) {
    throw new UserError('repository-exists', `'${to}' holds a repository already`, { hint: 'choose another folder' });
  }
  using _ = await lockPublish(repo); // nothing published is deleted meanwhile
  try {
    for (const folder of [target.incoming, dirname(target.catalog)]) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
    }
    const part = `${target.catalog}.part`;
    const kept = await copyCatalog(repo, part, options.current ?? false);
    const copier = new Copier(repo.context, repo.layout, target, kept, options.link ?? false);
    await copier.run();
    if (await exists(repo.layout.uploaders)) await copyUploaders(repo.layout, target);
    const { run } = await import('../core/run.ts');
    await run(repo.context, 'sync', ['--file-system', target.root]);
    await rename(part, target.catalog);
    return { dir: target.root, ...kept.facts, packages: copier.packages, bytes: copier.bytes };
  } catch (cause) {
    throw explainWriteError(cause, to);
  }
}

interface Kept {
  /** Below public/: package files that nobody can ask for. */
  readonly unneeded: ReadonlySet<string>;
  /** Names of index objects and of snapshots. */
  readonly objects: ReadonlySet<string>;
  readonly snapshots: ReadonlyMap<string, ReadonlySet<string>>;
  readonly facts: { readonly suites: readonly string[]; readonly generations: number };
}

async function copyCatalog(repo: RepoHandle, path: string, currentOnly: boolean): Promise<Kept> {
  for (const suffix of ['', '-wal', '-shm']) await rm(path + suffix, { force: true });
  repo.catalog.copyTo(path);
  using copy = Catalog.open(path, dirname(dirname(path)));
  const all = copy.generations();
  const expired = currentOnly ? expiredGenerations(all, { keepDays: -1, keepGenerations: 1 }, Number.MAX_VALUE) : [];
  copy.transaction(() => {
    for (const { name } of copy.tokens()) copy.deleteToken(name);
    for (const { suite, id } of expired) copy.dropGeneration(suite, id);
  });
  const kept = all.filter((generation) => !expired.includes(generation));
  const unneeded = copy.unreferencedPackages(kept);
  const beside = copy.unsharedFiles(unneeded.map((item) => item.id));
  const bySnapshot = Map.groupBy(kept, (generation) => generation.id);
  return {
    unneeded: new Set([...unneeded, ...beside].map((item) => item.filename)),
    objects: new Set(kept.flatMap((generation) => generation.files.flatMap(objectNames))),
    snapshots: new Map([...bySnapshot].map(([id, ofId]) => [id, new Set(ofId.map((one) => one.suite))])),
    facts: { suites: copy.suites().map((suite) => suite.name), generations: kept.length },
  };
}

async function copyUploaders(from: Layout, to: Layout): Promise<void> {
  await mkdir(to.uploaders, { recursive: true, mode: 0o700 });
  for (const name of await readdir(from.uploaders)) {
    await copyFile(join(from.uploaders, name), join(to.uploaders, name));
  }
}

/** public/, with its links: symbolic ones as they are, hard ones among the index files as such. */
class Copier {
  readonly #context: Context;
  readonly #from: string;
  readonly #to: string;
  readonly #kept: Kept;
  readonly #link: boolean;
  /** Where the first of several names of a file went. */
  readonly #first = new Map<string, string>();
  packages = 0;
  bytes = 0;

  constructor(context: Context, from: Layout, to: Layout, kept: Kept, link: boolean) {
    this.#context = context;
    this.#from = from.public;
    this.#to = to.public;
    this.#kept = kept;
    this.#link = link;
  }

  async run(): Promise<void> {
    if (await exists(this.#to)) {
      // of an interrupted clone: packages are used, the rest is small and made anew
      for (const name of await readdir(this.#to)) {
        if (name !== 'pool') await rm(join(this.#to, name), { recursive: true, force: true });
      }
    }
    await this.#folder('');
  }

  async #folder(path: string): Promise<void> {
    this.#context.signal.throwIfAborted();
    if (!path.startsWith('pool/')) await mkdir(join(this.#to, path), { recursive: true });
    const entries = await readdir(join(this.#from, path), { withFileTypes: true });
    for (const entry of entries) {
      const below = path === '' ? entry.name : `${path}/${entry.name}`;
      if (!this.#isWanted(below)) continue;
      if (entry.isDirectory()) await this.#folder(below);
      else if (entry.isSymbolicLink()) await symlink(await readlink(join(this.#from, below)), join(this.#to, below));
      else if (below.startsWith('pool/')) await this.#packageFile(below);
      else if (entry.isFile()) await this.#indexFile(below);
    }
  }

  #isWanted(path: string): boolean {
    const [top, second = '', third, fourth] = path.split('/');
    if (top === 'pool') return !this.#kept.unneeded.has(path);
    if (top === 'by-hash' && third !== undefined) return this.#kept.objects.has(third);
    if (top !== 'snapshots' || second === '') return true;
    const suites = this.#kept.snapshots.get(second);
    return suites !== undefined && (third !== 'dists' || fourth === undefined || this.#isShown(path, suites, fourth));
  }

  /** A suite of a snapshot: one of its own, or a link to one that is kept too. */
  #isShown(path: string, suites: ReadonlySet<string>, suite: string): boolean {
    const isLink = lstatSync(join(this.#from, path), { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
    return isLink || suites.has(suite);
  }

  async #packageFile(path: string): Promise<void> {
    const [from, to] = [join(this.#from, path), join(this.#to, path)];
    const { size } = await stat(from);
    this.packages += 1;
    this.bytes += size;
    this.#context.log.progress('copying packages', this.packages);
    const there = lstatSync(to, { throwIfNoEntry: false });
    if (there?.isFile() && there.size === size) return;
    await mkdir(dirname(to), { recursive: true });
    if (this.#link && (await linked(from, to))) return;
    await copyFile(from, `${to}.part`, constants.COPYFILE_FICLONE);
    await rename(`${to}.part`, to);
  }

  async #indexFile(path: string): Promise<void> {
    const [from, to] = [join(this.#from, path), join(this.#to, path)];
    const { dev, ino, mode, nlink, atime, mtime } = await stat(from);
    const identity = `${dev}:${ino}`;
    const first = this.#first.get(identity);
    if (first !== undefined) return link(first, to);
    await copyFile(from, to, constants.COPYFILE_FICLONE);
    await chmod(to, mode & 0o777);
    await utimes(to, atime, mtime);
    if (nlink > 1) this.#first.set(identity, to);
  }
}

async function linked(from: string, to: string): Promise<boolean> {
  try {
    await rm(to, { force: true });
    await link(from, to);
    return true;
  } catch {
    return false; // another file system, or one without hard links
  }
}
