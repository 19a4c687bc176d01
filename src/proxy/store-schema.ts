/**
 * The tables of the cache.
 *
 * Secret: the schema and how it came about, one migration after another; how a column that may be NULL is read.
 */
export const MIGRATIONS: readonly string[] = [
  `
CREATE TABLE objects (
  sha256 TEXT PRIMARY KEY,
  size INTEGER NOT NULL,
  mtime_ms REAL NOT NULL,
  stored_at INTEGER NOT NULL,
  used_at INTEGER NOT NULL,
  uses INTEGER NOT NULL DEFAULT 0,
  checked INTEGER NOT NULL DEFAULT 1
) STRICT, WITHOUT ROWID;
CREATE INDEX objects_used ON objects (used_at);
CREATE TABLE urls (
  key TEXT PRIMARY KEY,
  sha256 TEXT NOT NULL REFERENCES objects ON DELETE CASCADE,
  etag TEXT,
  last_modified INTEGER,
  content_type TEXT,
  source TEXT NOT NULL,
  fetched_at INTEGER NOT NULL,
  checked_at INTEGER NOT NULL,
  verified INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX urls_object ON urls (sha256);
CREATE TABLE partials (
  key TEXT PRIMARY KEY,
  file TEXT NOT NULL,
  url TEXT NOT NULL,
  size INTEGER,
  digest TEXT,
  etag TEXT,
  last_modified INTEGER,
  started_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (
  id INTEGER PRIMARY KEY,
  backend TEXT NOT NULL,
  root TEXT NOT NULL,
  inrelease TEXT,
  release TEXT NOT NULL,
  signature TEXT,
  date INTEGER NOT NULL,
  etag TEXT,
  last_modified INTEGER,
  source TEXT NOT NULL,
  signed INTEGER NOT NULL,
  made_at INTEGER NOT NULL,
  UNIQUE (backend, root, release, inrelease)
) STRICT;
CREATE TABLE suites (
  backend TEXT NOT NULL,
  root TEXT NOT NULL,
  current INTEGER NOT NULL REFERENCES snapshots ON DELETE CASCADE,
  checked_at INTEGER NOT NULL,
  PRIMARY KEY (backend, root)
) STRICT, WITHOUT ROWID;
CREATE TABLE wanted (
  backend TEXT NOT NULL,
  root TEXT NOT NULL,
  path TEXT NOT NULL,
  used_at INTEGER NOT NULL,
  PRIMARY KEY (backend, root, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE frozen (
  name TEXT NOT NULL,
  snapshot INTEGER NOT NULL REFERENCES snapshots,
  made_at INTEGER NOT NULL,
  PRIMARY KEY (name, snapshot)
) STRICT, WITHOUT ROWID;
CREATE TABLE missing (
  key TEXT PRIMARY KEY,
  asked INTEGER NOT NULL,
  last_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE state (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
`,
];

export type Row = Record<string, unknown>;

export function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

export function integer(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined;
}
