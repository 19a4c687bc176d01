/**
 * What the indexes of all snapshots say a file of the archive must be, and reading those indexes when that is asked.
 *
 * Secret: when an index is read: after a client used it, one at a time, or because a file is asked for that no index read so far
 * names. What cannot be fetched or read is left alone for a while.
 */
import type { RunContext } from '../core/context.ts';
import type { Location } from './backends.ts';
import type { Blobs } from './blobs.ts';
import { type Facts, harvest } from './facts.ts';
import { indexesThatMayName } from './naming.ts';
import { archiveBase, namesFiles } from './policy.ts';
import type { NamedFile } from './release.ts';
import type { Snapshot } from './snapshots.ts';
import type { Store } from './store.ts';
import type { Transfer } from './transfer.ts';

export interface NamedBy {
  readonly named: NamedFile;
  /** A Release with a known signer stands behind it. */
  readonly signed: boolean;
}

export interface Named {
  /** From what was read so far, after waiting for what is being read; several when snapshots disagree, the newest first. */
  find(location: Location, only: ReadonlySet<number> | undefined): Promise<NamedBy[]>;
  /** Reads the index `path` of a snapshot, which is here. */
  read(snapshot: Snapshot, path: string, sha256: string): Promise<void>;
  /** Fetches and reads indexes of these snapshots until one names the file or none is left that could. */
  seek(location: Location, snapshots: Iterable<Snapshot>): Promise<void>;
  /** Settles when no index is being read. */
  settled(): Promise<void>;
}

const READ_WAIT_MS = 15_000;
const LEAVE_ALONE_MS = 60_000;
const LEFT_ALONE = 10_000;

export function createNamed(parts: {
  readonly context: RunContext;
  readonly store: Store;
  readonly blobs: Blobs;
  readonly facts: Facts;
  /** Milliseconds, monotonic. */
  readonly clock: () => number;
  readonly loaded: () => Iterable<Snapshot>;
  readonly fetchIndex: (snapshot: Snapshot, path: string, named: NamedFile) => { readonly transfer: Transfer };
  readonly readFailed: (index: string, error: unknown) => void;
}): Named {
  const { context, store, blobs, facts, clock } = parts;
  const reading = new Map<string, Promise<void>>();
  const leftAlone = new Map<string, number>();
  let chain: Promise<void> = Promise.resolve();

  function leaveAlone(sha256: string): void {
    if (leftAlone.size >= LEFT_ALONE) leftAlone.clear();
    leftAlone.set(sha256, clock() + LEAVE_ALONE_MS);
  }

  function read(snapshot: Snapshot, path: string, sha256: string): Promise<void> {
    const under = reading.get(sha256);
    if (under) return under;
    const work = chain.then(async () => {
      try {
        if (!facts.has(sha256) && store.object(sha256)) {
          const folder = folderInArchive(snapshot.row.root, path);
          await harvest(context, facts, { path: blobs.pathOf(sha256), sha256 }, path, folder);
        }
        for (const one of parts.loaded()) {
          if (facts.has(sha256) && [...one.release.files.values()].some((file) => file.sha256 === sha256))
            one.facts.add(sha256);
        }
      } catch (error) {
        leaveAlone(sha256);
        parts.readFailed(path, error);
      } finally {
        reading.delete(sha256);
      }
    });
    reading.set(sha256, work);
    chain = work;
    return work;
  }

  function lookUp(location: Location, only: ReadonlySet<number> | undefined): NamedBy[] {
    const found = new Map<string, NamedBy & { readonly date: number }>();
    for (const snapshot of parts.loaded()) {
      if (snapshot.backend.name !== location.backend.name || (only && !only.has(snapshot.row.id))) continue;
      for (const path of namesWithin(location.path, snapshot.row.root)) {
        for (const index of snapshot.facts) {
          const named = facts.find(index, path);
          const before = named && found.get(named.sha256);
          if (!named || (before && before.date >= snapshot.release.date)) continue;
          const signed = snapshot.row.signed || before?.signed === true;
          found.set(named.sha256, { named, signed, date: snapshot.release.date });
        }
      }
    }
    return [...found.values()].sort((a, b) => b.date - a.date);
  }

  async function bring(snapshot: Snapshot, path: string, named: NamedFile): Promise<void> {
    if (snapshot.facts.has(named.sha256) || (leftAlone.get(named.sha256) ?? 0) > clock()) return;
    if (!store.object(named.sha256)) {
      const outcome = await parts.fetchIndex(snapshot, path, named).transfer.done;
      if (outcome.kind !== 'stored' || outcome.mtimeMs === undefined) {
        if (outcome.kind !== 'failed' || outcome.code !== 'stopped') leaveAlone(named.sha256);
        return;
      }
    }
    await read(snapshot, path, named.sha256);
  }

  return {
    read,
    async find(location, only) {
      const before = lookUp(location, only);
      if (before.length > 0 || reading.size === 0) return before;
      await atMost(READ_WAIT_MS, Promise.allSettled([...reading.values()]));
      return lookUp(location, only);
    },
    async seek(location, snapshots) {
      for (const snapshot of snapshots) {
        for (const name of namesWithin(location.path, snapshot.row.root)) {
          const candidates = indexesThatMayName(name, snapshot.release, (sha256) => store.object(sha256) !== undefined);
          for (const { path, named } of candidates) {
            if (lookUp(location, undefined).length > 0) return;
            await bring(snapshot, path, named);
          }
        }
      }
    },
    async settled() {
      while (reading.size > 0) await Promise.allSettled([...reading.values()]);
    },
  };
}

/** Waits for `work`, but not longer. */
export async function atMost(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
    timer.unref();
  });
  await Promise.race([work, patience]).finally(() => clearTimeout(timer));
}

/** True when the indexes of a suite may name a path of the archive. */
export function mayBeNamedFrom(path: string, root: string): boolean {
  return namesWithin(path, root).length > 0;
}

/** How the indexes of a suite may spell a path of the archive: from its base; in a flat archive from any folder above. */
function namesWithin(path: string, root: string): string[] {
  const base = archiveBase(root);
  const names: string[] = [];
  const flat = base === root;
  for (let at: string | undefined = base; at !== undefined; ) {
    if (at === '' || path.startsWith(`${at}/`)) names.push(at === '' ? path : path.slice(at.length + 1));
    if (!flat || at === '') break;
    at = at.includes('/') ? at.slice(0, at.lastIndexOf('/')) : '';
  }
  return names;
}

/** Where an index is, from the archive's base: what names in a diff Index are relative to. */
function folderInArchive(root: string, path: string): string {
  const base = archiveBase(root);
  return `${root}/${path}`.slice(base === '' ? 0 : base.length + 1).replace(/\/[^/]*$/, '');
}

/** Indexes that clients take first, when nothing is known of those of a suite yet: the small ones that name packages. */
export function likelyIndexes(snapshot: Snapshot): string[] {
  const folders = new Map<string, string>();
  for (const [path, named] of snapshot.release.files) {
    if (namesFiles(path) !== 'Packages' || named.size > LIKELY_BYTES || named.size === 0) continue;
    const folder = path.slice(0, path.lastIndexOf('/') + 1);
    const before = folders.get(folder);
    if (before === undefined || named.size < snapshot.release.files.get(before)!.size) folders.set(folder, path);
  }
  return folders.size > LIKELY_FOLDERS ? [] : [...folders.values()];
}

const LIKELY_BYTES = 1024 * 1024;
const LIKELY_FOLDERS = 4;
