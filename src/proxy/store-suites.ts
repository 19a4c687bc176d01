/**
 * Rows of suites: snapshots, which of them is current, what clients use of it, and frozen views.
 *
 * Secret: how a snapshot is told from one that is here already, and which snapshots nothing holds any more.
 */
import type { Database } from '../core/db.ts';
import { integer, type Row, text } from './store-schema.ts';

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

export interface SuiteStore {
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
}

const SNAPSHOT =
  's.id, s.backend, s.root, s.inrelease, s.release, s.signature, s.date, s.etag, s.last_modified, s.source, s.signed, s.made_at';

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

export function suiteStore(db: Database): SuiteStore {
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
