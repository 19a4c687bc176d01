/**
 * Keeping house beside or inside a running server: what may go, whether everything is what it should be, what is named how.
 *
 * Secret: which objects are needed together (Release files with their indexes), so that keeping house never makes a mix.
 */
import { readFileSync, rmSync } from 'node:fs';
import type { Problem } from '../core/errors.ts';
import { UserError } from '../core/errors.ts';
import { applyEviction, type Eviction, planEviction } from './evict.ts';
import { classify, namesFiles } from './policy.ts';
import type { ProxyCache } from './proxy.ts';
import { parseRelease } from './release.ts';
import type { StoredSnapshot } from './store-suites.ts';

export interface ExpireOptions {
  readonly quota?: number | undefined;
  readonly maxUnusedDays?: number | undefined;
  readonly dryRun?: boolean | undefined;
}

/** Snapshots that were replaced are kept this long for clients in the middle of an update, in seconds. */
const OLD_SNAPSHOTS = 3600;

/** Lets go what the rules say. Returns what went (or would). */
export function expire(cache: ProxyCache, options: ExpireOptions): Eviction[] {
  const { store, blobs, settings } = cache;
  const now = seconds(cache);
  cache.flush();
  if (!options.dryRun) store.forgetSnapshots(now - OLD_SNAPSHOTS);
  const { keep, indexes } = neededObjects(cache);
  const plan = planEviction(store.evictionRows(), {
    quota: options.quota ?? settings.quota,
    maxUnused: (options.maxUnusedDays ?? settings.maxUnusedDays) * 86_400,
    now,
    keep,
    isNamed: (row) => row.keys.some((key) => isNamedByIndex(cache, indexes, key, row.sha256)),
  });
  if (options.dryRun) return plan;
  applyEviction(store, blobs, plan);
  for (const { sha256 } of plan) {
    cache.files.forget(sha256);
    if (!indexes.has(sha256)) cache.facts.drop(sha256);
  }
  cache.forgetHot();
  return plan;
}

function seconds(cache: ProxyCache): number {
  return Math.floor(cache.context.now().getTime() / 1000);
}

/** Release files of current and frozen snapshots and the indexes that they name; those of them that name packages. */
function neededObjects(cache: ProxyCache): { keep: Set<string>; indexes: Map<string, { backend: string }> } {
  const keep = new Set<string>();
  const indexes = new Map<string, { backend: string }>();
  const snapshots = [...cache.store.currentSnapshots(), ...cache.store.frozen()].map(({ snapshot }) => snapshot);
  for (const snapshot of snapshots) {
    for (const sha256 of [snapshot.inRelease, snapshot.release, snapshot.signature])
      if (sha256 !== undefined) keep.add(sha256);
    for (const [path, { sha256 }] of filesOf(cache, snapshot)) {
      keep.add(sha256);
      if (namesFiles(path)) indexes.set(sha256, { backend: snapshot.backend });
    }
  }
  return { keep, indexes };
}

function filesOf(cache: ProxyCache, snapshot: StoredSnapshot): [string, { sha256: string; size: number }][] {
  try {
    return [...parseRelease(readFileSync(cache.blobs.pathOf(snapshot.release), 'utf8'), snapshot.root, []).files];
  } catch {
    return []; // its text is gone or damaged: nothing hangs on it any more
  }
}

function isNamedByIndex(
  cache: ProxyCache,
  indexes: ReadonlyMap<string, { backend: string }>,
  key: string,
  sha256: string,
): boolean {
  const location = cache.backends.byKey(key);
  if (!location) return false;
  const parts = location.path.split('/');
  for (let depth = 0; depth < Math.min(parts.length, 6); depth += 1) {
    const path = parts.slice(depth).join('/');
    for (const [index, { backend }] of indexes) {
      if (backend === location.backend.name && cache.facts.find(index, path)?.sha256 === sha256) return true;
    }
  }
  return false;
}

export interface VerifyReport {
  readonly objects: number;
  readonly bytes: number;
  readonly problems: readonly Problem[];
}

/** Reads everything again. With `repair`, what is wrong is dropped and fetched again when it is next asked for. */
export async function verifyCache(
  cache: ProxyCache,
  options: { repair?: boolean | undefined } = {},
): Promise<VerifyReport> {
  const { store, blobs } = cache;
  const problems: Problem[] = [];
  let objects = 0;
  let bytes = 0;
  const known = new Set<string>();
  for (const object of store.objects()) {
    known.add(object.sha256);
    objects += 1;
    bytes += object.size;
    cache.context.signal.throwIfAborted();
    const found = await blobs.digest(object.sha256);
    if (found === object.sha256) {
      if (options.repair && !object.checked) store.markChecked(object.sha256, object.mtimeMs);
      continue;
    }
    const gone = found === undefined;
    problems.push({
      code: gone ? 'object-missing' : 'object-changed',
      subject: object.sha256,
      message: gone ? 'the file is gone' : `its SHA256 is ${found}`,
    });
    if (options.repair) {
      store.dropObject(object.sha256);
      blobs.remove(object.sha256);
      cache.files.forget(object.sha256);
    }
  }
  for (const { name, path } of blobs.names()) {
    if (known.has(name) || store.object(name) !== undefined) continue;
    // a server killed between the rename and the row leaves one: whole, but without a name
    if (options.repair) rmSync(path, { force: true });
    else if (!/^[0-9a-f]{64}$/.test(name) || (await blobs.digest(name)) !== name) {
      problems.push({ code: 'object-stray', subject: name, message: 'a file that is no object of this cache' });
    }
  }
  for (const { snapshot } of store.currentSnapshots()) problems.push(...mixProblems(cache, snapshot));
  if (options.repair) removeStrayPartials(cache);
  return { objects, bytes, problems };
}

/** An InRelease must be here with the text that it signs. */
function mixProblems(cache: ProxyCache, snapshot: StoredSnapshot): Problem[] {
  const needed = [snapshot.inRelease, snapshot.release].filter((sha256) => sha256 !== undefined);
  return needed
    .filter((sha256) => !cache.store.object(sha256))
    .map((sha256) => ({
      code: 'snapshot-incomplete',
      subject: `${snapshot.backend}/${snapshot.root}`,
      message: `its Release file ${sha256.slice(0, 12)} is not in the cache`,
    }));
}

function removeStrayPartials(cache: ProxyCache): void {
  const wanted = new Set(cache.store.partials().map((partial) => partial.file));
  for (const name of cache.blobs.partialNames()) if (!wanted.has(name)) cache.blobs.removePartial(name);
}

/** Forgets addresses that match a pattern, and their objects where nothing else means them. */
export function dropMatching(
  cache: ProxyCache,
  pattern: string,
  options: { dryRun?: boolean | undefined } = {},
): { key: string; size: number }[] {
  const rows = cache.store.urls(pattern);
  if (options.dryRun) return rows.map(({ key, size }) => ({ key, size }));
  const { keep } = neededObjects(cache);
  cache.store.transaction(() => {
    for (const row of rows) cache.store.dropUrl(row.key);
  });
  const others = new Map(cache.store.evictionRows().map((row) => [row.sha256, row.keys.length]));
  for (const { sha256 } of rows) {
    if (keep.has(sha256) || (others.get(sha256) ?? 0) > 0) continue;
    cache.store.dropObject(sha256);
    cache.blobs.remove(sha256);
    cache.files.forget(sha256);
  }
  cache.forgetHot();
  return rows.map(({ key, size }) => ({ key, size }));
}

/** Why an address is answered as it is: one line a fact. @throws UserError `proxy-unknown-host` */
export function explain(cache: ProxyCache, address: string): { key: string; lines: string[] } {
  const match = /^(https?):\/\/([^/]+)(\/.*)$/.exec(address);
  const location = match
    ? cache.backends.byAuthority(
        {
          scheme: match[1] as 'http' | 'https',
          host: match[2]!.replace(/:\d+$/, '').toLowerCase(),
          port: Number(/:(\d+)$/.exec(match[2]!)?.[1] ?? (match[1] === 'https' ? 443 : 80)),
        },
        match[3]!.slice(1),
        '',
      )
    : (cache.backends.byPath(address.replace(/^\//, ''), '') ?? cache.backends.byKey(address));
  if (!location) {
    const names = cache.backends.list.map(({ name }) => `${name}/`).join(' ');
    throw new UserError('proxy-unknown-host', `'${address}' is at no back end and on no list of hosts`, {
      hint: match
        ? 'allow its host: buildkit proxy serve --allow-host HOST, or proxy.hosts of buildkit.yaml'
        : `write an address, or a path below a back end: ${names}`,
    });
  }
  const kind = classify(location.path);
  const client = { socket: {}, address: '' };
  const index = kind.kind === 'changing' ? cache.suites.indexFor(location, client, undefined) : undefined;
  const row = cache.store.url(location.key);
  const suite =
    kind.kind === 'release'
      ? cache.store
          .currentSnapshots()
          .find((one) => one.snapshot.backend === location.backend.name && one.snapshot.root === kind.root)
      : undefined;
  const sha256 =
    index?.named?.sha256 ??
    (kind.kind === 'release'
      ? kind.file === 'InRelease'
        ? suite?.snapshot.inRelease
        : suite?.snapshot.release
      : undefined) ??
    (kind.kind === 'by-hash' && kind.digest.algorithm === 'sha256' ? kind.digest.hex : row?.sha256);
  const object = sha256 === undefined ? undefined : cache.store.object(sha256);
  const when = (at: number) => new Date(at * 1000).toISOString();
  const lines = [
    `back end '${location.backend.name}': ${location.backend.mirrors.join(', ')}`,
    {
      release:
        'a Release file: handed out with the indexes that it names, asked for again when it is older than the max age',
      'by-hash': 'its name is its digest: never asked for again',
      pool: 'a package file: never other bytes under one name',
      changing: index?.named
        ? 'an index that a Release names: changes with it only'
        : 'may change: asked for again when it is older than the max age',
    }[kind.kind],
  ];
  if (index?.named)
    lines.push(
      `must have SHA256 ${index.named.sha256} and ${index.named.size} bytes (${index.snapshot.row.signed ? 'signed' : 'unsigned'} Release of ${when(index.snapshot.release.date)})`,
    );
  if (suite)
    lines.push(
      `Release of ${when(suite.snapshot.date)}, ${suite.snapshot.signed ? 'signed by a known key' : 'signed by no known key'}, checked ${when(suite.checkedAt)}`,
    );
  if (object)
    lines.push(
      `in the cache: ${object.size} bytes, stored ${when(object.storedAt)}, used ${object.uses} times, last ${when(object.usedAt)}`,
    );
  else lines.push('not in the cache');
  if (row)
    lines.push(
      `came from ${row.source}, checked ${when(row.checkedAt)}, ${['no digest was known', 'digest of an unsigned index', 'digest of a signed index'][row.verified]}`,
    );
  return { key: location.key, lines };
}
