/**
 * What the cache has, by address: files that were asked for one by one, and what belongs to a suite.
 *
 * Secret: that Release files and indexes have no rows of their own. They hang on a snapshot, which names them by digest; so a suite
 * that was fetched beforehand is here although nobody asked for an address yet.
 */
import type { ProxyCache } from './proxy.ts';
import type { Snapshot } from './snapshots.ts';
import type { Verified } from './store.ts';

export interface Listed {
  readonly key: string;
  readonly size: number;
  readonly sha256: string;
  readonly verified: Verified;
  /** It is here with its suite, and goes only with it. */
  readonly ofSuite: boolean;
}

/** Every address whose key matches (`*`, `?`), sorted. */
export function listAddresses(cache: ProxyCache, pattern: string): Listed[] {
  const wanted = globRegex(pattern);
  const ofSuites = cache.store
    .currentSnapshots()
    .flatMap(({ snapshot: { id, backend } }) => {
      const known = cache.backends.byKey(`${backend}/`)?.backend;
      const snapshot = known && cache.suites.snapshotOf(id, known);
      return snapshot ? filesOf(cache, snapshot) : [];
    })
    .filter(({ key }) => wanted.test(key));
  const own = new Set(ofSuites.map(({ key }) => key));
  const others = cache.store
    .urls(pattern)
    .filter(({ key }) => !own.has(key))
    .map(({ key, size, sha256, verified }) => ({ key, size, sha256, verified, ofSuite: false }));
  return [...ofSuites, ...others].sort((a, b) => (a.key < b.key ? -1 : 1));
}

function filesOf(cache: ProxyCache, { row, release }: Snapshot): Listed[] {
  const folder = [row.backend, row.root].filter((part) => part !== '').join('/');
  const verified = row.signed ? 2 : 1;
  // the text of an InRelease is kept as a Release, too, which upstream need not have
  const plain = row.inRelease === undefined || row.signature !== undefined ? row.release : undefined;
  const named: readonly (readonly [string, string | undefined])[] = [
    ['InRelease', row.inRelease],
    ['Release', plain],
    ['Release.gpg', row.signature],
    ...[...release.files].map(([path, { sha256 }]) => [path, sha256] as const),
  ];
  return named.flatMap(([path, sha256]) => {
    const object = sha256 === undefined ? undefined : cache.store.object(sha256);
    if (!object?.size) return []; // hundreds of indexes are the same empty file
    return [{ key: `${folder}/${path}`, size: object.size, sha256: object.sha256, verified, ofSuite: true }];
  });
}

/** A pattern of a command line as a whole name: `*` any text, `?` any character, all else itself. */
export function globRegex(pattern: string): RegExp {
  return new RegExp(
    `^${pattern
      .replace(/[.+^${}()|[\]\\]/g, '\\$&')
      .replaceAll('*', '.*')
      .replaceAll('?', '.')}$`,
    's',
  );
}
