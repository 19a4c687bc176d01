/**
 * What the cache knows: objects by SHA256, the addresses that mean them, work that was interrupted, counters; with the rows of
 * suites (store-suites.ts). All SQL of the proxy is in these two.
 *
 * Secret: when an object is believed. The bytes themselves are in `blobs`. Rows are written with `synchronous = NORMAL`: a killed process loses
 * nothing, a power cut at most the last seconds, which `checked` makes good (see `openStore`).
 */
import { type Database, openDatabase } from '../core/db.ts';
import { integer, MIGRATIONS, type Row, text } from './store-schema.ts';
import { type SuiteStore, suiteStore } from './store-suites.ts';

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

export interface EvictionRow {
  readonly sha256: string;
  readonly size: number;
  readonly usedAt: number;
  readonly storedAt: number;
  /** Addresses that mean it; empty: only a digest names it. */
  readonly keys: readonly string[];
}

export interface Store extends Disposable, SuiteStore {
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
  /** Addresses whose key matches (`*`, `?`), sorted. */
  urls(pattern: string): (StoredUrl & { readonly size: number })[];

  partial(key: string): Partial | undefined;
  putPartial(row: Partial, now: number): void;
  dropPartial(key: string): void;
  partials(): Partial[];

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

/** Opens (and makes) the database at `path`. @throws UserError as `openDatabase` */
export function openStore(path: string): Store {
  const db = openDatabase(path, MIGRATIONS, { busyMs: 5000 });
  db.exec('PRAGMA synchronous = NORMAL');
  return { ...objectQueries(db), ...urlQueries(db), ...partialQueries(db), ...suiteStore(db), ...otherQueries(db) };
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
    urls(pattern: string) {
      const glob = pattern.replaceAll('[', '[[]'); // sets of characters are not ours: an IPv6 host has brackets
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
