/**
 * What the cache knows: objects by SHA256, the addresses that mean them, snapshots of suites, frozen views, work that was
 * interrupted. All SQL of the proxy is here.
 *
 * Secret: the schema. The bytes themselves are in `blobs`. Rows are written with `synchronous = NORMAL`: a killed process loses
 * nothing, a power cut at most the last seconds, which `checked` makes good (see `openStore`).
 */
import { type Database, openDatabase } from '../core/db.ts';

const MIGRATIONS: readonly string[] = [
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

export interface StoredObject {
  readonly sha256: string;
  readonly size: number;
  /** Of the file when it was stored; another one now means that somebody touched it. */
  readonly mtimeMs: number;
  readonly storedAt: number;
  readonly usedAt: number;
  readonly uses: number;
  /** False: stored shortly before a power cut, to be read again before it is served. */
  readonly checked: boolean;
}

/** 0: no digest was known; 1: the digest that a Release file without known signer named; 2: that of a signed one, or the name itself. */
export type Verified = 0 | 1 | 2;

export interface StoredUrl {
  readonly key: string;
  readonly sha256: string;
  readonly etag: string | undefined;
  /** Times in seconds since the epoch. */
  readonly lastModified: number | undefined;
  readonly contentType: string | undefined;
  /** The address it came from. */
  readonly source: string;
  readonly fetchedAt: number;
  readonly checkedAt: number;
  readonly verified: Verified;
}

export interface Partial {
  readonly key: string;
  /** File name below the folder of partial files. */
  readonly file: string;
  readonly url: string;
  readonly size: number | undefined;
  /** `algorithm:hex` */
  readonly digest: string | undefined;
  readonly etag: string | undefined;
  readonly lastModified: number | undefined;
}

export interface StoredSnapshot {
  readonly id: number;
  readonly backend: string;
  readonly root: string;
  /** Digests of the objects. */
  readonly inRelease: string | undefined;
  readonly release: string;
  readonly signature: string | undefined;
  readonly date: number;
  readonly etag: string | undefined;
  readonly lastModified: number | undefined;
  readonly source: string;
  /** A known key signed it. */
  readonly signed: boolean;
  readonly madeAt: number;
}

export interface EvictionRow {
  readonly sha256: string;
  readonly size: number;
  readonly usedAt: number;
  readonly storedAt: number;
  /** Addresses that mean it; empty: only a digest names it. */
  readonly keys: readonly string[];
}

export interface Store extends Disposable {
  object(sha256: string): StoredObject | undefined;
  putObject(sha256: string, size: number, mtimeMs: number, now: number): void;
  /** Forgets the object and every address that means it. */
  dropObject(sha256: string): void;
  /** After the bytes were read again and are right. */
  markChecked(sha256: string, mtimeMs: number): void;
  /** What was stored since is to be read again before it is served. */
  doubtSince(since: number): void;
  touchObjects(uses: ReadonlyMap<string, number>, now: number): void;
  objects(): Iterable<StoredObject>;
  totals(): { objects: number; bytes: number; urls: number };
  evictionRows(): EvictionRow[];

  url(key: string): StoredUrl | undefined;
  putUrl(row: StoredUrl): void;
  dropUrl(key: string): void;
  touchUrl(key: string, checkedAt: number): void;
  /** Addresses whose key matches a GLOB pattern (`*`, `?`, `[...]`), sorted. */
  urls(glob: string): (StoredUrl & { readonly size: number })[];

  partial(key: string): Partial | undefined;
  putPartial(row: Partial, now: number): void;
  dropPartial(key: string): void;
  partials(): Partial[];

  snapshot(id: number): StoredSnapshot | undefined;
  /** Returns the id; the row of an equal snapshot when there is one. */
  putSnapshot(row: Omit<StoredSnapshot, 'id'>): number;
  setSignature(id: number, sha256: string): void;
  currentSnapshots(): { readonly snapshot: StoredSnapshot; readonly checkedAt: number }[];
  setCurrent(backend: string, root: string, id: number, checkedAt: number): void;
  /** Snapshots that are neither current nor frozen and older than `before` vanish. */
  forgetSnapshots(before: number): number;

  want(backend: string, root: string, path: string, now: number): void;
  /** Paths asked for since `since`. */
  wanted(backend: string, root: string, since: number): string[];

  freeze(name: string, ids: readonly number[], now: number): void;
  unfreeze(name: string): number;
  frozen(): { readonly name: string; readonly madeAt: number; readonly snapshot: StoredSnapshot }[];

  noteMissing(key: string, now: number): void;
  missing(): { readonly key: string; readonly asked: number }[];
  clearMissing(): void;

  counters(): Map<string, number>;
  addCounters(changes: ReadonlyMap<string, number>): void;
  state(name: string): string | undefined;
  setState(name: string, value: string): void;
  /** Changes when another process wrote. */
  dataVersion(): number;
  transaction<T>(body: () => T): T;
}

const OBJECT = 'sha256, size, mtime_ms, stored_at, used_at, uses, checked';
const SNAPSHOT =
  's.id, s.backend, s.root, s.inrelease, s.release, s.signature, s.date, s.etag, s.last_modified, s.source, s.signed, s.made_at';

type Row = Record<string, unknown>;
const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
const integer = (value: unknown): number | undefined => (typeof value === 'number' ? value : undefined);

function toObject(row: Row): StoredObject {
  return {
    sha256: String(row.sha256),
    size: Number(row.size),
    mtimeMs: Number(row.mtime_ms),
    storedAt: Number(row.stored_at),
    usedAt: Number(row.used_at),
    uses: Number(row.uses),
    checked: row.checked === 1,
  };
}

function toUrl(row: Row): StoredUrl {
  return {
    key: String(row.key),
    sha256: String(row.sha256),
    etag: text(row.etag),
    lastModified: integer(row.last_modified),
    contentType: text(row.content_type),
    source: String(row.source),
    fetchedAt: Number(row.fetched_at),
    checkedAt: Number(row.checked_at),
    verified: Number(row.verified) as Verified,
  };
}

function toPartial(row: Row): Partial {
  return {
    key: String(row.key),
    file: String(row.file),
    url: String(row.url),
    size: integer(row.size),
    digest: text(row.digest),
    etag: text(row.etag),
    lastModified: integer(row.last_modified),
  };
}

function toSnapshot(row: Row): StoredSnapshot {
  return {
    id: Number(row.id),
    backend: String(row.backend),
    root: String(row.root),
    inRelease: text(row.inrelease),
    release: String(row.release),
    signature: text(row.signature),
    date: Number(row.date),
    etag: text(row.etag),
    lastModified: integer(row.last_modified),
    source: String(row.source),
    signed: row.signed === 1,
    madeAt: Number(row.made_at),
  };
}

/** Opens (and makes) the database at `path`. @throws UserError as `openDatabase` */
export function openStore(path: string): Store {
  const db = openDatabase(path, MIGRATIONS, { busyMs: 5000 });
  db.exec('PRAGMA synchronous = NORMAL');
  return { ...objectQueries(db), ...urlQueries(db), ...partialQueries(db), ...suiteQueries(db), ...otherQueries(db) };
}

function objectQueries(db: Database) {
  return {
    object(sha256: string) {
      const row = db.get(`SELECT ${OBJECT} FROM objects WHERE sha256 = ?`, sha256);
      return row && toObject(row);
    },
    putObject(sha256: string, size: number, mtimeMs: number, now: number) {
      db.run(
        `INSERT INTO objects (sha256, size, mtime_ms, stored_at, used_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (sha256) DO UPDATE SET size = excluded.size, mtime_ms = excluded.mtime_ms, checked = 1`,
        sha256,
        size,
        mtimeMs,
        now,
        now,
      );
    },
    dropObject(sha256: string) {
      db.run('DELETE FROM objects WHERE sha256 = ?', sha256);
    },
    markChecked(sha256: string, mtimeMs: number) {
      db.run('UPDATE objects SET checked = 1, mtime_ms = ? WHERE sha256 = ?', mtimeMs, sha256);
    },
    doubtSince(since: number) {
      db.run('UPDATE objects SET checked = 0 WHERE stored_at >= ?', since);
    },
    touchObjects(uses: ReadonlyMap<string, number>, now: number) {
      db.transaction(() => {
        for (const [sha256, count] of uses) {
          db.run('UPDATE objects SET used_at = ?, uses = uses + ? WHERE sha256 = ?', now, count, sha256);
        }
      });
    },
    *objects() {
      for (const row of db.all(`SELECT ${OBJECT} FROM objects ORDER BY sha256`)) yield toObject(row);
    },
    totals() {
      const row = db.get('SELECT count(*) AS objects, coalesce(sum(size), 0) AS bytes FROM objects');
      const urls = db.get('SELECT count(*) AS urls FROM urls');
      return { objects: Number(row?.objects), bytes: Number(row?.bytes), urls: Number(urls?.urls) };
    },
    evictionRows() {
      const rows = db.all(
        `SELECT o.sha256, o.size, o.used_at, o.stored_at, coalesce(json_group_array(u.key) FILTER (WHERE u.key NOT NULL), '[]') AS keys
         FROM objects o LEFT JOIN urls u USING (sha256) GROUP BY o.sha256 ORDER BY o.used_at, o.sha256`,
      );
      return rows.map((row) => ({
        sha256: String(row.sha256),
        size: Number(row.size),
        usedAt: Number(row.used_at),
        storedAt: Number(row.stored_at),
        keys: JSON.parse(String(row.keys)) as string[],
      }));
    },
  };
}

function urlQueries(db: Database) {
  return {
    url(key: string) {
      const row = db.get('SELECT * FROM urls WHERE key = ?', key);
      return row && toUrl(row);
    },
    putUrl(row: StoredUrl) {
      db.run(
        `INSERT INTO urls (key, sha256, etag, last_modified, content_type, source, fetched_at, checked_at, verified)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (key) DO UPDATE SET sha256 = excluded.sha256, etag = excluded.etag, last_modified = excluded.last_modified,
           content_type = excluded.content_type, source = excluded.source, fetched_at = excluded.fetched_at,
           checked_at = excluded.checked_at, verified = excluded.verified`,
        row.key,
        row.sha256,
        row.etag ?? null,
        row.lastModified ?? null,
        row.contentType ?? null,
        row.source,
        row.fetchedAt,
        row.checkedAt,
        row.verified,
      );
    },
    dropUrl(key: string) {
      db.run('DELETE FROM urls WHERE key = ?', key);
    },
    touchUrl(key: string, checkedAt: number) {
      db.run('UPDATE urls SET checked_at = ? WHERE key = ?', checkedAt, key);
    },
    urls(glob: string) {
      return db
        .all('SELECT u.*, o.size FROM urls u JOIN objects o USING (sha256) WHERE key GLOB ? ORDER BY key', glob)
        .map((row) => ({ ...toUrl(row), size: Number(row.size) }));
    },
  };
}

function partialQueries(db: Database) {
  return {
    partial(key: string) {
      const row = db.get('SELECT * FROM partials WHERE key = ?', key);
      return row && toPartial(row);
    },
    putPartial(row: Partial, now: number) {
      db.run(
        'INSERT OR REPLACE INTO partials (key, file, url, size, digest, etag, last_modified, started_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
        row.key,
        row.file,
        row.url,
        row.size ?? null,
        row.digest ?? null,
        row.etag ?? null,
        row.lastModified ?? null,
        now,
      );
    },
    dropPartial(key: string) {
      db.run('DELETE FROM partials WHERE key = ?', key);
    },
    partials: () => db.all('SELECT * FROM partials').map(toPartial),
  };
}

function suiteQueries(db: Database) {
  return {
    snapshot(id: number) {
      const row = db.get(`SELECT ${SNAPSHOT} FROM snapshots s WHERE id = ?`, id);
      return row && toSnapshot(row);
    },
    putSnapshot(row: Omit<StoredSnapshot, 'id'>) {
      return db.transaction(() => {
        const same = db.get(
          'SELECT id FROM snapshots WHERE backend = ? AND root = ? AND release = ? AND inrelease IS ?',
          row.backend,
          row.root,
          row.release,
          row.inRelease ?? null,
        );
        if (same) return Number(same.id);
        const made = db.get(
          `INSERT INTO snapshots (backend, root, inrelease, release, signature, date, etag, last_modified, source, signed, made_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
          row.backend,
          row.root,
          row.inRelease ?? null,
          row.release,
          row.signature ?? null,
          row.date,
          row.etag ?? null,
          row.lastModified ?? null,
          row.source,
          row.signed ? 1 : 0,
          row.madeAt,
        );
        return Number(made?.id);
      });
    },
    setSignature(id: number, sha256: string) {
      db.run('UPDATE snapshots SET signature = ? WHERE id = ?', sha256, id);
    },
    currentSnapshots() {
      return db
        .all(
          `SELECT ${SNAPSHOT}, t.checked_at FROM suites t JOIN snapshots s ON s.id = t.current ORDER BY s.backend, s.root`,
        )
        .map((row) => ({ snapshot: toSnapshot(row), checkedAt: Number(row.checked_at) }));
    },
    setCurrent(backend: string, root: string, id: number, checkedAt: number) {
      db.run(
        'INSERT OR REPLACE INTO suites (backend, root, current, checked_at) VALUES (?, ?, ?, ?)',
        backend,
        root,
        id,
        checkedAt,
      );
    },
    forgetSnapshots(before: number) {
      return db.run(
        `DELETE FROM snapshots WHERE made_at < ? AND id NOT IN (SELECT current FROM suites) AND id NOT IN (SELECT snapshot FROM frozen)`,
        before,
      );
    },
    want(backend: string, root: string, path: string, now: number) {
      db.run(
        'INSERT OR REPLACE INTO wanted (backend, root, path, used_at) VALUES (?, ?, ?, ?)',
        backend,
        root,
        path,
        now,
      );
    },
    wanted(backend: string, root: string, since: number) {
      return db
        .all(
          'SELECT path FROM wanted WHERE backend = ? AND root = ? AND used_at >= ? ORDER BY path',
          backend,
          root,
          since,
        )
        .map((row) => String(row.path));
    },
    freeze(name: string, ids: readonly number[], now: number) {
      db.transaction(() => {
        for (const id of ids) db.run('INSERT INTO frozen (name, snapshot, made_at) VALUES (?, ?, ?)', name, id, now);
      });
    },
    unfreeze: (name: string) => db.run('DELETE FROM frozen WHERE name = ?', name),
    frozen() {
      return db
        .all(
          `SELECT ${SNAPSHOT}, f.name, f.made_at AS frozen_at FROM frozen f JOIN snapshots s ON s.id = f.snapshot ORDER BY f.name, s.backend, s.root`,
        )
        .map((row) => ({ name: String(row.name), madeAt: Number(row.frozen_at), snapshot: toSnapshot(row) }));
    },
  };
}

function otherQueries(db: Database) {
  return {
    noteMissing(key: string, now: number) {
      db.run(
        `INSERT INTO missing (key, asked, last_at) VALUES (?, 1, ?)
         ON CONFLICT (key) DO UPDATE SET asked = asked + 1, last_at = excluded.last_at`,
        key,
        now,
      );
    },
    missing: () =>
      db
        .all('SELECT key, asked FROM missing ORDER BY key')
        .map((row) => ({ key: String(row.key), asked: Number(row.asked) })),
    clearMissing: () => void db.run('DELETE FROM missing'),
    counters: () =>
      new Map(db.all('SELECT name, value FROM counters').map((row) => [String(row.name), Number(row.value)])),
    addCounters(changes: ReadonlyMap<string, number>) {
      db.transaction(() => {
        for (const [name, change] of changes) {
          db.run(
            'INSERT INTO counters (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value',
            name,
            change,
          );
        }
      });
    },
    state: (name: string) => text(db.get('SELECT value FROM state WHERE name = ?', name)?.value),
    setState: (name: string, value: string) =>
      void db.run('INSERT OR REPLACE INTO state (name, value) VALUES (?, ?)', name, value),
    dataVersion: () => Number(db.get('PRAGMA data_version')?.data_version ?? 0),
    transaction: <T>(body: () => T) => db.transaction(body),
    [Symbol.dispose]: () => db[Symbol.dispose](),
  };
}
