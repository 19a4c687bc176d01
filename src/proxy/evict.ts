/**
 * What leaves the cache when it is full or old.
 *
 * Secret: the order. Nothing that a current or frozen Release names as its index goes, nor the Release files themselves; then what
 * no index names any more goes before what one names, and the longest unused before the rest. The plan is pure.
 */
import type { Blobs } from './blobs.ts';
import type { EvictionRow, Store } from './store.ts';

export interface EvictionRules {
  /** Bytes; 0: no limit. */
  readonly quota: number;
  /** Seconds; 0: no limit. */
  readonly maxUnused: number;
  /** Seconds since the epoch. */
  readonly now: number;
  /** Objects that stay. */
  readonly keep: ReadonlySet<string>;
  /** True when an index that is here names this object. */
  readonly isNamed: (row: EvictionRow) => boolean;
}

export interface Eviction {
  readonly sha256: string;
  readonly size: number;
  readonly keys: readonly string[];
  readonly reason: 'unused' | 'unnamed' | 'quota';
}

/** What nobody used for this long and no index names any more is not worth keeping, in seconds. */
const UNNAMED_AFTER = 30 * 86_400;
/** Below the quota by this share, so that not every new file starts an eviction. */
const LOW_WATER = 0.95;

export function planEviction(rows: readonly EvictionRow[], rules: EvictionRules): Eviction[] {
  const gone: Eviction[] = [];
  const left: { row: EvictionRow; named: boolean }[] = [];
  let bytes = 0;
  const drop = ({ sha256, size, keys }: EvictionRow, reason: Eviction['reason']) =>
    gone.push({ sha256, size, keys, reason });
  for (const row of rows) {
    const unused = rules.now - row.usedAt;
    if (rules.keep.has(row.sha256)) bytes += row.size;
    else if (rules.maxUnused > 0 && unused > rules.maxUnused) drop(row, 'unused');
    else {
      const named = rules.isNamed(row);
      if (!named && rules.maxUnused > 0 && unused > UNNAMED_AFTER) drop(row, 'unnamed');
      else {
        bytes += row.size;
        left.push({ row, named });
      }
    }
  }
  if (rules.quota <= 0 || bytes <= rules.quota) return gone;
  left.sort((a, b) => Number(a.named) - Number(b.named) || a.row.usedAt - b.row.usedAt || b.row.size - a.row.size);
  for (const { row } of left) {
    if (bytes <= rules.quota * LOW_WATER) break;
    drop(row, 'quota');
    bytes -= row.size;
  }
  return gone;
}

/** Row first, then file: what is cut in between is a file that nothing names, which `verify` removes. */
export function applyEviction(store: Store, blobs: Blobs, plan: readonly Eviction[]): number {
  let bytes = 0;
  for (let at = 0; at < plan.length; at += 200) {
    const batch = plan.slice(at, at + 200);
    store.transaction(() => {
      for (const { sha256 } of batch) store.dropObject(sha256);
    });
    for (const { sha256, size } of batch) {
      blobs.remove(sha256);
      bytes += size;
    }
  }
  return bytes;
}
