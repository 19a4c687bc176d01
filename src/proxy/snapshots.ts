/**
 * Release files that were believed, with what they name: kept, loaded, and frozen under a name.
 *
 * Secret: that a snapshot is a row of the store and the text of its Release, read back and checked against its digest; how many
 * stay in memory; and that a Release which came inside an InRelease is an object of its own.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Backend } from './backends.ts';
import type { Blobs } from './blobs.ts';
import type { Facts } from './facts.ts';
import { namesFiles } from './policy.ts';
import { type NamedFile, parseRelease, type Release } from './release.ts';
import type { NewRelease } from './releases.ts';
import type { Store } from './store.ts';
import type { StoredSnapshot } from './store-suites.ts';

export interface Snapshot {
  readonly row: StoredSnapshot;
  readonly backend: Backend;
  readonly release: Release;
  /** Its indexes whose facts are here. */
  readonly facts: Set<string>;
}

export interface Snapshots {
  keep(backend: Backend, root: string, mirror: string, found: NewRelease): Snapshot;
  /** Undefined: its text is gone or damaged, to be asked for anew. */
  load(id: number, backend: Backend): Snapshot | undefined;
  loaded(): Iterable<Snapshot>;
  withSignature(snapshot: Snapshot, sha256: string): Snapshot;
  /** The index with this SHA256 in any snapshot of the back end, for by-hash names. */
  byDigest(
    backend: Backend,
    folder: string,
    sha256: string,
  ): { snapshot: Snapshot; path: string; named: NamedFile } | undefined;
  /** Reads anew which views there are. */
  reloadViews(): void;
  hasView(name: string): boolean;
  /** The snapshot of a suite in a frozen view. */
  inView(name: string, key: string): number | undefined;
  viewIds(name: string): ReadonlySet<number>;
}

const MOST_LOADED = 128;

export function createSnapshots(parts: {
  readonly store: Store;
  readonly blobs: Blobs;
  readonly facts: Facts;
  /** Seconds since the epoch. */
  readonly now: () => number;
  /** Those that must stay in memory. */
  readonly inUse: () => ReadonlySet<number>;
}): Snapshots {
  const { store, blobs, facts, now } = parts;
  const loaded = new Map<number, Snapshot>();
  const views = new Map<string, Map<string, number>>();

  /** The signed text of an InRelease, as an object: what a client that asks for `Release` gets. */
  function keepText(text: string): string {
    const bytes = Buffer.from(text);
    const sha256 = sha256Of(bytes);
    if (store.object(sha256) === undefined) store.putObject(sha256, bytes.length, blobs.write(bytes, sha256), now());
    return sha256;
  }

  function remember(snapshot: Snapshot): Snapshot {
    for (const [path, { sha256 }] of snapshot.release.files) {
      if (namesFiles(path) && facts.has(sha256)) snapshot.facts.add(sha256);
    }
    if (loaded.size >= MOST_LOADED) {
      const inUse = parts.inUse();
      for (const id of loaded.keys()) {
        if (inUse.has(id)) continue;
        loaded.delete(id);
        break;
      }
    }
    loaded.set(snapshot.row.id, snapshot);
    return snapshot;
  }

  return {
    loaded: () => loaded.values(),
    keep(backend, root, mirror, found) {
      const main = found.inRelease ?? found.plain!;
      const release = found.plain?.sha256 ?? keepText(found.release.text);
      const row = {
        backend: backend.name,
        root,
        inRelease: found.inRelease?.sha256,
        release,
        signature: found.signature?.sha256,
        date: found.release.date,
        etag: main.etag,
        lastModified: main.lastModified,
        source: `${mirror}/`,
        signed: found.release.signers.length > 0,
        madeAt: now(),
      };
      const id = store.putSnapshot(row);
      return loaded.get(id) ?? remember({ row: { ...row, id }, backend, release: found.release, facts: new Set() });
    },
    load(id, backend) {
      const already = loaded.get(id);
      if (already) return already;
      const row = store.snapshot(id);
      if (!row) return undefined;
      try {
        const bytes = readFileSync(blobs.pathOf(row.release));
        if (sha256Of(bytes) !== row.release) return undefined;
        const release = parseRelease(bytes.toString('utf8'), row.root, []);
        return remember({ row, backend, release, facts: new Set() });
      } catch {
        return undefined;
      }
    },
    withSignature(snapshot, sha256) {
      store.setSignature(snapshot.row.id, sha256);
      const signed = { ...snapshot, row: { ...snapshot.row, signature: sha256 } };
      loaded.set(snapshot.row.id, signed);
      return signed;
    },
    byDigest(backend, folder, sha256) {
      for (const snapshot of loaded.values()) {
        const prefix = prefixOf(snapshot.row.root);
        if (snapshot.backend.name !== backend.name || !`${folder}/`.startsWith(prefix)) continue;
        const within = folder.slice(prefix.length);
        for (const [path, named] of snapshot.release.files) {
          if (named.sha256 === sha256 && path.slice(0, Math.max(0, path.lastIndexOf('/'))) === within)
            return { snapshot, path, named };
        }
      }
      return undefined;
    },
    reloadViews() {
      views.clear();
      for (const { name, snapshot } of store.frozen()) {
        const view = views.get(name) ?? new Map<string, number>();
        view.set(suiteKey(snapshot.backend, snapshot.root), snapshot.id);
        views.set(name, view);
      }
    },
    hasView: (name) => views.has(name),
    inView: (name, key) => views.get(name)?.get(key),
    viewIds: (name) => new Set(views.get(name)?.values()),
  };
}

/** Of a suite, among all back ends. */
export function suiteKey(backend: string, root: string): string {
  return `${backend}\n${root}`;
}

function prefixOf(root: string): string {
  return root === '' ? '' : `${root}/`;
}

function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
