/**
 * A generation: every index of a suite with its signed Release, made aside and switched to in one step.
 *
 * Secret: the order of writes that makes a crash harmless. Objects go to public/by-hash/ under their digest, the generation to
 * incoming/, from there by one rename to public/snapshots/ID/, and dists/SUITE is a link that one more rename turns to it. Until
 * that last rename every client sees the old generation, after it the new one, whole.
 */
import { createHash, randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { type FileHandle, link, mkdir, open, readlink, rename, rm, symlink } from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';
import type { Context } from '../core/context.ts';
import { errnoOf } from '../core/errors.ts';
import { explainWriteError, syncFolder, writeFileAtomic } from '../core/files.ts';
import type { BlockCache } from './blocks.ts';
import type { Catalog, Generation, IndexKey, PackageKind } from './catalog.ts';
import { gzipMember, type XzBlock, xzHeader, xzTrailer } from './compress.ts';
import { INDEX_FORMAT, type IndexFile, renderRelease } from './indexes.ts';
import type { Layout } from './layout.ts';
import { INDEX_COMPRESSIONS, INDEX_SUFFIX, type RepositorySettings, type SuiteSettings } from './settings.ts';

/** An index of a suite: which packages, and its path below dists/SUITE/ without the suffix. */
interface PlannedIndex {
  readonly key: IndexKey;
  readonly path: string;
}

/** What a generation will hold, before it is dated and signed. */
export interface PlannedSuite {
  readonly suite: SuiteSettings;
  readonly change: number;
  readonly files: readonly IndexFile[];
  /** In the suite, each counted once. */
  readonly packages: number;
  /** Equal to that of the generation before: there is nothing new to publish. */
  readonly fingerprint: string;
}

/** The indexes that a suite has; those of installer packages and sources where there are any. */
function planIndexes(suite: SuiteSettings, has: (component: string, kind: PackageKind) => boolean): PlannedIndex[] {
  return suite.components.flatMap((component) => {
    const index = (kind: PackageKind, architecture: string, folder: string): PlannedIndex => ({
      key: { suite: suite.name, component, kind, architecture },
      path: `${component}/${folder}/${kind === 'dsc' ? 'Sources' : 'Packages'}`,
    });
    const { architectures } = suite;
    return [
      ...architectures.map((one) => index('deb', one, `binary-${one}`)),
      ...(has(component, 'udeb')
        ? architectures.map((one) => index('udeb', one, `debian-installer/binary-${one}`))
        : []),
      ...(has(component, 'dsc') ? [index('dsc', 'source', 'source')] : []),
    ];
  });
}

/** Dates in seconds since the epoch. */
export function planDates(
  now: Date,
  latest: number | undefined,
  validDays: number,
): { date: number; validUntil: number | undefined } {
  // Date never stands still: it names the generation, and clients and caches compare it
  const date = Math.max(Math.floor(now.getTime() / 1000), (latest ?? -1) + 1);
  return { date, validUntil: validDays === 0 ? undefined : date + validDays * 86_400 };
}

/**
 * Brings the blocks of a suite up to date and writes each index to public/by-hash/, where nothing refers to it yet.
 * @param keys fingerprints of the keys that will sign
 */
export async function planSuite(
  context: Context,
  layout: Layout,
  catalog: Catalog,
  cache: BlockCache,
  suite: SuiteSettings,
  facts: { readonly change: number; readonly keys: readonly string[]; readonly repository: RepositorySettings },
): Promise<PlannedSuite> {
  const before = catalog.currentGeneration(suite.name);
  const files: IndexFile[] = [];
  for (const index of planIndexes(suite, (component, kind) => catalog.hasKind(suite.name, component, kind))) {
    await cache.update(context, catalog, index.key, facts.change);
    const known =
      before && isCurrent(catalog, before, index) ? before.files.filter((file) => isOfIndex(file, index)) : [];
    const usable = known.length === INDEX_COMPRESSIONS.length && known.every((file) => hasObject(layout, file));
    files.push(...(usable ? known : await writeIndex(layout, cache, index)));
  }
  if (suite.contents) files.push(...(await planContents(context, layout, catalog, suite, facts.change)));
  const undated = renderRelease(facts.repository, suite, files, { date: 0, validUntil: undefined });
  const fingerprint = createHash('sha256')
    .update(JSON.stringify([undated, facts.keys, facts.repository.validDays, INDEX_FORMAT]))
    .digest('hex');
  return { suite, change: facts.change, files, packages: catalog.countMembers(suite.name), fingerprint };
}

/** Contents of each component and architecture; what did not change since the last generation is taken from there. */
async function planContents(
  context: Context,
  layout: Layout,
  catalog: Catalog,
  suite: SuiteSettings,
  change: number,
): Promise<IndexFile[]> {
  const { contentsMembers } = await import('./contents.ts');
  const before = catalog.currentGeneration(suite.name);
  const files: IndexFile[] = [];
  for (const component of suite.components) {
    for (const architecture of suite.architectures) {
      const path = `${component}/Contents-${architecture}.gz`;
      const key: IndexKey = { suite: suite.name, component, kind: 'deb', architecture };
      const known =
        before && isCurrent(catalog, before, { key, path }) && before.files.find((file) => file.path === path);
      if (known && hasObject(layout, known)) {
        files.push(known);
        continue;
      }
      await using writer = await ObjectWriter.open(layout);
      for await (const piece of contentsMembers(context, layout, catalog, key, change)) await writer.write(piece);
      files.push({ path, ...(await writer.finish()) });
    }
  }
  return files;
}

/** Writes one index in every compressed form, one block in memory at a time. */
async function writeIndex(layout: Layout, cache: BlockCache, index: PlannedIndex): Promise<IndexFile[]> {
  const writers: ObjectWriter[] = [];
  try {
    for (const _ of INDEX_COMPRESSIONS) writers.push(await ObjectWriter.open(layout));
    const [plain, gz, xz] = writers as [ObjectWriter, ObjectWriter, ObjectWriter];
    const xzSizes: Pick<XzBlock, 'unpaddedSize' | 'uncompressedSize'>[] = [];
    await xz.write(xzHeader());
    for (const block of cache.blocks(index.key)) {
      xzSizes.push({ unpaddedSize: block.xz.unpaddedSize, uncompressedSize: block.xz.uncompressedSize });
      await plain.write(block.text);
      await gz.write(block.gzip);
      await xz.write(block.xz.bytes);
    }
    if (xzSizes.length === 0) await gz.write(await gzipMember(new Uint8Array()));
    await xz.write(xzTrailer(xzSizes));
    const files: IndexFile[] = [];
    for (const [at, compression] of INDEX_COMPRESSIONS.entries()) {
      const { sha256, size } = await writers[at]!.finish();
      files.push({ path: index.path + INDEX_SUFFIX[compression], size, sha256 });
    }
    return files;
  } finally {
    for (const writer of writers) await writer[Symbol.asyncDispose]();
  }
}

const WRITE_BUFFER_BYTES = 1024 * 1024;

/** A file below public/by-hash/ whose name is known only when it is complete. */
class ObjectWriter implements AsyncDisposable {
  readonly #layout: Layout;
  readonly #temporary: string;
  readonly #file: FileHandle;
  readonly #hash = createHash('sha256');
  #pending: Uint8Array[] = [];
  #pendingSize = 0;
  #size = 0;
  #open = true;

  private constructor(layout: Layout, temporary: string, file: FileHandle) {
    this.#layout = layout;
    this.#temporary = temporary;
    this.#file = file;
  }

  static async open(layout: Layout): Promise<ObjectWriter> {
    const temporary = join(layout.incoming, `object-${randomBytes(8).toString('hex')}`);
    try {
      return new ObjectWriter(layout, temporary, await open(temporary, 'wx', 0o644));
    } catch (cause) {
      throw explainWriteError(cause, temporary);
    }
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#hash.update(chunk);
    this.#size += chunk.length;
    this.#pending.push(chunk);
    this.#pendingSize += chunk.length;
    if (this.#pendingSize >= WRITE_BUFFER_BYTES) await this.#flush();
  }

  async #flush(): Promise<void> {
    try {
      await this.#file.writeFile(Buffer.concat(this.#pending));
    } catch (cause) {
      throw explainWriteError(cause, this.#temporary);
    }
    this.#pending = [];
    this.#pendingSize = 0;
  }

  /** Moves it to its place; an object that is there already is the same. */
  async finish(): Promise<{ sha256: string; size: number }> {
    await this.#flush();
    const sha256 = this.#hash.digest('hex');
    const target = objectPath(this.#layout, sha256);
    await this.#file.chmod(0o644);
    await this.#file.sync();
    await rename(this.#temporary, target);
    await this[Symbol.asyncDispose]();
    return { sha256, size: this.#size };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
    await rm(this.#temporary, { force: true });
  }
}

/** Nothing that this index shows has changed since that generation. */
function isCurrent(catalog: Catalog, before: Generation, index: PlannedIndex): boolean {
  return before.format === INDEX_FORMAT && catalog.namesChangedSince(index.key, before.change).length === 0;
}

function isOfIndex(file: IndexFile, index: PlannedIndex): boolean {
  return INDEX_COMPRESSIONS.some((compression) => file.path === index.path + INDEX_SUFFIX[compression]);
}

function hasObject(layout: Layout, file: IndexFile): boolean {
  return statSync(objectPath(layout, file.sha256), { throwIfNoEntry: false })?.size === file.size;
}

function objectPath(layout: Layout, sha256: string): string {
  return join(layout.public, 'by-hash', 'SHA256', sha256);
}

/** Release in its three forms. */
export interface SignedRelease {
  readonly release: string;
  readonly inRelease: string;
  readonly releaseGpg: string;
}

export interface PlannedGeneration {
  readonly id: string;
  readonly date: number;
  readonly validUntil: number | undefined;
  readonly suites: readonly { readonly plan: PlannedSuite; readonly signed: SignedRelease }[];
  /** Suites that are not published anew, and the generation that each has now: they belong to the snapshot too. */
  readonly others: ReadonlyMap<string, string>;
}

/** Where dists/SUITE leads for a generation. */
function linkTarget(id: string, suite: string): string {
  return `../snapshots/${id}/dists/${suite}`;
}

/** Writes a generation and switches every suite in it. The caller holds the publish lock. */
export async function applyGeneration(layout: Layout, catalog: Catalog, generation: PlannedGeneration): Promise<void> {
  const aside = join(layout.incoming, `generation-${generation.id}`);
  await rm(aside, { recursive: true, force: true });
  try {
    await writeGeneration(layout, aside, generation);
  } catch (cause) {
    await rm(aside, { recursive: true, force: true });
    throw explainWriteError(cause, aside);
  }
  catalog.transaction(() => {
    for (const { plan } of generation.suites) catalog.proposeGeneration(generationRow(generation, plan));
  });
  const folder = join(layout.public, 'snapshots', generation.id);
  await rename(aside, folder);
  await syncFolder(dirname(folder));
  for (const { plan } of generation.suites) await switchSuite(layout, plan.suite, generation.id);
  catalog.transaction(() => {
    for (const { plan } of generation.suites) catalog.settleGeneration(plan.suite.name, generation.id);
  });
}

function generationRow(generation: PlannedGeneration, plan: PlannedSuite): Generation {
  return {
    id: generation.id,
    suite: plan.suite.name,
    change: plan.change,
    fingerprint: plan.fingerprint,
    format: INDEX_FORMAT,
    date: generation.date,
    validUntil: generation.validUntil,
    files: plan.files,
    pinned: false,
  };
}

async function writeGeneration(layout: Layout, aside: string, generation: PlannedGeneration): Promise<void> {
  await mkdir(join(aside, 'dists'), { recursive: true });
  await symlink('../../pool', join(aside, 'pool'));
  for (const [suite, id] of generation.others) await symlink(`../../${id}/dists/${suite}`, join(aside, 'dists', suite));
  for (const { plan, signed } of generation.suites) {
    const root = join(aside, 'dists', plan.suite.name);
    for (const folder of new Set(plan.files.map((file) => posix.dirname(file.path)))) {
      await mkdir(join(root, folder), { recursive: true });
      const up = '../'.repeat(folder.split('/').length + 4); // dists/SUITE below snapshots/ID
      await symlink(`${up}by-hash`, join(root, folder, 'by-hash'));
    }
    for (const file of plan.files) await link(objectPath(layout, file.sha256), join(root, file.path));
    const mtime = generation.date;
    await writeFileAtomic(join(root, 'Release'), signed.release, { mode: 0o644, mtime });
    await writeFileAtomic(join(root, 'Release.gpg'), signed.releaseGpg, { mode: 0o644, mtime });
    await writeFileAtomic(join(root, 'InRelease'), signed.inRelease, { mode: 0o644, mtime });
  }
  await syncFolder(join(layout.public, 'by-hash', 'SHA256'));
}

/** Turns dists/SUITE (and its alias) to a generation: the one step that clients see. */
async function switchSuite(layout: Layout, suite: SuiteSettings, id: string): Promise<void> {
  const dists = join(layout.public, 'dists');
  await turnLink(layout, join(dists, suite.name), linkTarget(id, suite.name));
  if (suite.alias !== undefined && suite.alias !== suite.name)
    await turnLink(layout, join(dists, suite.alias), suite.name);
  await syncFolder(dists);
}

async function turnLink(layout: Layout, path: string, target: string): Promise<void> {
  const temporary = join(layout.incoming, `link-${randomBytes(8).toString('hex')}`);
  await symlink(target, temporary);
  await rename(temporary, path);
}

/**
 * Brings the catalog in line with what a publish that was interrupted left behind: what clients see is what happened. The
 * caller holds the publish lock.
 */
export async function recoverPublish(layout: Layout, catalog: Catalog): Promise<void> {
  for (const { suite, id } of catalog.unsettledGenerations()) {
    if ((await readLink(join(layout.public, 'dists', suite))) === linkTarget(id, suite)) {
      catalog.settleGeneration(suite, id);
    } else {
      await rm(join(layout.public, 'snapshots', id, 'dists', suite), { recursive: true, force: true });
      catalog.dropGeneration(suite, id);
    }
  }
}

async function readLink(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
