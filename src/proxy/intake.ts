/**
 * Filling the cache by hand: files that are on disk already, and files that will be needed.
 *
 * Secret: how the trees of others look. An import trusts no name: what a file is decides its digest, which an index in the cache
 * must name; only then its address is known. So an apt-cacher-ng or approx cache, /var/cache/apt/archives and a mirror tree are
 * all read alike.
 */
import { createHash } from 'node:crypto';
import { createReadStream, type Dirent } from 'node:fs';
import { copyFile, lstat, readdir } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { RemoteError, UserError } from '../core/errors.ts';
import { getField, readParagraphs } from '../deb/control.ts';
import { decompress } from '../deb/decompression.ts';
import type { Location } from './backends.ts';
import { globRegex } from './listing.ts';
import { archiveBase, namesFiles } from './policy.ts';
import type { ProxyCache } from './proxy.ts';

export interface ImportReport {
  readonly imported: number;
  readonly bytes: number;
  readonly present: number;
  /** Files that no index in the cache names. */
  readonly unknown: readonly string[];
}

/** Files that are no content: heads that apt-cacher-ng keeps, locks, partial downloads. */
const NOT_CONTENT = /(?:^|\/)(?:partial|lock|_actmp|_expending_\w+)(?:\/|$)|\.(?:head|tmp|dl|lock)$/;

/** What the Packages files in the cache say: digest to addresses. */
interface Wanted {
  readonly keys: Map<string, { readonly key: string; readonly path: string; readonly signed: boolean }>;
}

/** Takes every file below `dir` whose digest an index in the cache names. */
export async function importTree(cache: ProxyCache, dir: string): Promise<ImportReport> {
  await readFolder(dir); // said before the cache is read through
  const wanted = await wantedFiles(cache);
  if (wanted.keys.size === 0) {
    throw new UserError('proxy-no-index', 'the cache has no index to tell by what these files are', {
      hint: 'run apt-get update through the proxy first, or: buildkit proxy precache SUITE',
    });
  }
  let imported = 0;
  let bytes = 0;
  let present = 0;
  const unknown: string[] = [];
  const now = Math.floor(cache.context.now().getTime() / 1000);
  for await (const path of filesBelow(dir)) {
    cache.context.signal.throwIfAborted();
    if (NOT_CONTENT.test(relative(dir, path))) continue;
    const copy = cache.blobs.partialPath(`import-${process.pid}`);
    await copyFile(path, copy); // hashed where nobody else can change it
    const { sha256, size } = await digestOf(copy);
    const known = wanted.keys.get(sha256);
    if (!known) {
      unknown.push(relative(dir, path));
      cache.blobs.removePartial(`import-${process.pid}`);
      continue;
    }
    if (cache.store.object(sha256)) present += 1;
    else {
      imported += 1;
      bytes += size;
    }
    const mtimeMs = cache.blobs.adopt(copy, sha256);
    cache.store.transaction(() => {
      cache.store.putObject(sha256, size, mtimeMs, now);
      cache.store.putUrl({
        key: known.key,
        sha256,
        etag: undefined,
        lastModified: undefined,
        contentType: undefined,
        source: `import:${path}`,
        fetchedAt: now,
        checkedAt: now,
        verified: known.signed ? 2 : 1,
      });
    });
  }
  return { imported, bytes, present, unknown };
}

async function digestOf(path: string): Promise<{ sha256: string; size: number }> {
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 18 })) {
    hash.update(chunk as Buffer);
    size += (chunk as Buffer).length;
  }
  return { sha256: hash.digest('hex'), size };
}

async function readFolder(dir: string): Promise<Dirent[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch((cause: unknown) => {
    throw new UserError('proxy-import', 'the folder cannot be read', {
      file: dir,
      hint: 'name the folder that the other cache keeps its files in',
      cause,
    });
  });
  return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Regular files only; links are not followed. */
async function* filesBelow(dir: string): AsyncGenerator<string> {
  for (const entry of await readFolder(dir)) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path);
    else if (entry.isFile() && (await lstat(path)).size > 0) yield path;
  }
}

async function wantedFiles(cache: ProxyCache): Promise<Wanted> {
  const keys: Wanted['keys'] = new Map();
  for await (const { location, sha256, signed } of indexedFiles(cache, () => true)) {
    keys.set(sha256, { key: location.key, path: location.path, signed });
  }
  return { keys };
}

interface IndexedFile {
  readonly location: Location;
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly sha256: string;
  readonly size: number;
  readonly signed: boolean;
}

/** Packages of all Packages indexes in the cache whose suite is `chosen`. */
async function* indexedFiles(
  cache: ProxyCache,
  chosen: (backend: string, root: string) => boolean,
): AsyncGenerator<IndexedFile> {
  const seen = new Set<string>();
  for (const { snapshot: row } of cache.store.currentSnapshots()) {
    const backend = cache.backends.byKey(`${row.backend}/`)?.backend;
    if (!backend || !chosen(row.backend, row.root)) continue;
    const snapshot = cache.suites.snapshotOf(row.id, backend);
    if (!snapshot) continue;
    const base = archiveBase(row.root);
    for (const [path, { sha256 }] of snapshot.release.files) {
      if (namesFiles(path) !== 'Packages' || seen.has(sha256) || !cache.store.object(sha256)) continue;
      seen.add(sha256);
      for await (const one of packagesOf(cache, path, sha256)) {
        const full = base === '' ? one.filename : `${base}/${one.filename}`;
        const location = { backend, path: full, query: '', key: `${backend.name}/${full}` };
        yield { ...one, location, signed: row.signed };
      }
    }
  }
}

async function* packagesOf(cache: ProxyCache, path: string, index: string) {
  const suffix = /\.(gz|xz|zst|bz2|lzma)$/.exec(path)?.[1];
  const compression =
    ({ gz: 'gzip', xz: 'xz', zst: 'zstd', bz2: 'bzip2', lzma: 'lzma' } as const)[suffix as 'gz'] ?? 'none';
  const file = cache.blobs.pathOf(index);
  const text = decompress(
    cache.context,
    compression,
    createReadStream(file),
    { file, member: path },
    { reader: 'apt' },
  );
  for await (const paragraph of readParagraphs(text, { file: path, duplicates: 'keep' })) {
    const filename = getField(paragraph, 'Filename')?.replace(/^(?:\.\/)+/, '');
    const sha256 = getField(paragraph, 'SHA256');
    if (filename === undefined || sha256 === undefined || filename.split('/').includes('..')) continue;
    yield {
      filename,
      sha256,
      size: Number(getField(paragraph, 'Size')),
      name: getField(paragraph, 'Package') ?? '',
      version: getField(paragraph, 'Version') ?? '',
      architecture: getField(paragraph, 'Architecture') ?? '',
    };
  }
}

export interface PrecacheOptions {
  /** `NAME`, `NAME=VERSION`, with `*`; none: nothing but the indexes. */
  readonly packages: readonly string[];
  readonly architectures: readonly string[];
  readonly components: readonly string[];
}

export interface PrecacheReport {
  readonly indexes: number;
  readonly fetched: number;
  readonly present: number;
  readonly bytes: number;
  /** Patterns that matched nothing. */
  readonly unmatched: readonly string[];
}

/** Fetches a suite's indexes and the packages that match. @throws RemoteError when upstream has no such suite */
export async function precache(
  cache: ProxyCache,
  backendName: string,
  suite: string,
  options: PrecacheOptions,
): Promise<PrecacheReport> {
  const backend = cache.backends.list.find((one) => one.name === backendName);
  if (!backend) {
    throw new UserError('proxy-backend', `there is no back end '${backendName}'`, {
      hint: `there are: ${cache.backends.list.map(({ name }) => name).join(', ')}`,
    });
  }
  const root = `dists/${suite}`;
  const client = { socket: {}, address: '' };
  const answer = await cache.suites.forRelease(backend, root, client, undefined);
  if (answer.kind !== 'snapshot') {
    const reason = answer.kind === 'absent' ? 'upstream has no such suite' : answer.reason;
    throw new RemoteError('proxy-precache', `cannot get '${suite}': ${reason}`, {
      url: `${backend.mirrors[0]}/${root}/InRelease`,
    });
  }
  const { snapshot } = answer;
  let indexes = 0;
  for (const component of options.components) {
    for (const architecture of options.architectures) {
      const folder = `${component}/binary-${architecture}`;
      const path =
        ['xz', 'gz', 'zst']
          .map((suffix) => `${folder}/Packages.${suffix}`)
          .find((one) => snapshot.release.files.has(one)) ?? `${folder}/Packages`;
      const named = snapshot.release.files.get(path);
      if (!named) continue;
      indexes += 1;
      if (!cache.store.object(named.sha256)) {
        const outcome = await cache.suites.fetchIndex(snapshot, path, named).transfer.done;
        if (outcome.kind !== 'stored')
          throw new RemoteError('proxy-precache', `cannot get '${path}'`, {
            url: `${backend.mirrors[0]}/${root}/${path}`,
          });
      }
      cache.suites.used(snapshot, path, named);
    }
  }
  await cache.suites.settled();
  return { indexes, ...(await fetchMatching(cache, backendName, root, options)) };
}

async function fetchMatching(cache: ProxyCache, backend: string, root: string, options: PrecacheOptions) {
  const patterns = options.packages.map((text) => {
    const [name = '', version] = text.split('=', 2);
    return { text, name: globRegex(name), version, matched: false };
  });
  let fetched = 0;
  let present = 0;
  let bytes = 0;
  const work: IndexedFile[] = [];
  if (patterns.length > 0) {
    for await (const file of indexedFiles(cache, (name, at) => name === backend && at === root)) {
      const pattern = patterns.find(
        (one) => one.name.test(file.name) && (one.version === undefined || one.version === file.version),
      );
      if (!pattern) continue;
      pattern.matched = true;
      if (cache.store.object(file.sha256)) present += 1;
      else work.push(file);
    }
  }
  const failed: string[] = [];
  const next = async (): Promise<void> => {
    for (let file = work.pop(); file; file = work.pop()) {
      cache.context.signal.throwIfAborted();
      const found = await cache.find(file.location, { socket: {}, address: '' }, undefined);
      const outcome = found.kind === 'transfer' ? await found.transfer.done : undefined;
      if (outcome?.kind !== 'stored' && found.kind !== 'file') failed.push(file.location.key);
      else {
        fetched += 1;
        bytes += file.size;
      }
      cache.context.log.progress('precache', fetched, fetched + work.length);
    }
  };
  await Promise.all(Array.from({ length: 6 }, next));
  if (failed.length > 0)
    throw new RemoteError('proxy-precache', `${failed.length} files could not be fetched, first '${failed[0]}'`, {
      url: failed[0]!,
    });
  return { fetched, present, bytes, unmatched: patterns.filter((one) => !one.matched).map((one) => one.text) };
}
