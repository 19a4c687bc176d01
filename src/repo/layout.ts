/**
 * Where everything of a repository lies on disk. Only `public/` is meant for clients: any web server may serve it as it is.
 *
 * ```
 * db/catalog.sqlite   settings, packages, suites, history       db/blocks.sqlite   compressed pieces of indexes (a cache)
 * db/*.lock           kernel locks, never stale                 db/contents.sqlite compressed pieces of Contents (a cache)
 * incoming/           half-done work; emptied at will
 * public/pool/        the packages                              public/by-hash/    every index ever published, by digest
 * public/snapshots/ID/dists/SUITE/   one immutable generation   public/dists/SUITE -> ../snapshots/ID/dists/SUITE
 * ```
 */
import { join } from 'node:path';

export interface Layout {
  readonly root: string;
  readonly catalog: string;
  readonly blocks: string;
  readonly contents: string;
  readonly writeLock: string;
  readonly publishLock: string;
  /** Public keys of those who may upload. */
  readonly uploaders: string;
  readonly incoming: string;
  readonly public: string;
}

export function layoutOf(root: string): Layout {
  return {
    root,
    catalog: join(root, 'db', 'catalog.sqlite'),
    blocks: join(root, 'db', 'blocks.sqlite'),
    contents: join(root, 'db', 'contents.sqlite'),
    writeLock: join(root, 'db', 'write.lock'),
    publishLock: join(root, 'db', 'publish.lock'),
    uploaders: join(root, 'db', 'uploaders'),
    incoming: join(root, 'incoming'),
    public: join(root, 'public'),
  };
}
