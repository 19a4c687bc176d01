/**
 * SQLite files (sole user of node:sqlite): opening with migrations, transactions, and locks that the kernel drops when a
 * process dies.
 */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type SQLInputValue, type SQLOutputValue, type StatementSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf, UserError } from './errors.ts';

export type SqlValue = SQLInputValue;
export type SqlRow = Record<string, SQLOutputValue>;

/** An open database. Statements are prepared once each. */
export interface Database extends Disposable {
  readonly path: string;
  all(sql: string, ...values: SqlValue[]): SqlRow[];
  get(sql: string, ...values: SqlValue[]): SqlRow | undefined;
  /** Returns the number of changed rows. */
  run(sql: string, ...values: SqlValue[]): number;
  iterate(sql: string, ...values: SqlValue[]): Iterable<SqlRow>;
  exec(sql: string): void;
  /** Runs `body` in one IMMEDIATE transaction; rolls back when it throws. Nested calls join the outer one. */
  transaction<T>(body: () => T): T;
  close(): void;
}

export interface OpenOptions {
  /** How long a writer waits for another process, in milliseconds (default 30,000). */
  readonly busyMs?: number;
  readonly readOnly?: boolean;
}

/**
 * Opens (and makes) a database and brings its schema to `migrations.length`, kept in `PRAGMA user_version`.
 * @param migrations SQL of each step, oldest first; never edited once released
 * @throws UserError `database-newer` when a later buildkit wrote it, `database-unreadable` when it is no database
 */
export function openDatabase(path: string, migrations: readonly string[], options: OpenOptions = {}): Database {
  let db: DatabaseSync;
  try {
    if (path !== ':memory:' && !options.readOnly) mkdirSync(dirname(path), { recursive: true });
    db = new DatabaseSync(path, { timeout: options.busyMs ?? 30_000, readOnly: options.readOnly ?? false });
    if (!options.readOnly) db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;');
  } catch (cause) {
    throw new UserError('database-unreadable', `cannot open the database: ${(cause as Error).message}`, {
      file: path,
      hint: 'see that the folder exists, can be written and has room',
      cause,
    });
  }
  const statements = new Map<string, StatementSync>();
  const prepare = (sql: string): StatementSync => {
    let statement = statements.get(sql);
    if (!statement) {
      statement = db.prepare(sql);
      statements.set(sql, statement);
    }
    return statement;
  };
  let inTransaction = false;
  const database: Database = {
    path,
    all: (sql, ...values) => prepare(sql).all(...values) as SqlRow[],
    get: (sql, ...values) => explained(path, () => prepare(sql).get(...values) as SqlRow | undefined),
    run: (sql, ...values) => explained(path, () => Number(prepare(sql).run(...values).changes)),
    iterate: (sql, ...values) => prepare(sql).iterate(...values) as Iterable<SqlRow>,
    exec: (sql) => db.exec(sql),
    transaction(body) {
      if (inTransaction) return body();
      explained(path, () => db.exec('BEGIN IMMEDIATE'));
      inTransaction = true;
      try {
        const result = body();
        explained(path, () => db.exec('COMMIT'));
        return result;
      } catch (error) {
        if (db.isTransaction) db.exec('ROLLBACK');
        throw error;
      } finally {
        inTransaction = false;
      }
    },
    close: () => db.close(),
    [Symbol.dispose]: () => {
      if (db.isOpen) db.close();
    },
  };
  try {
    migrate(database, migrations, options.readOnly ?? false);
  } catch (error) {
    database[Symbol.dispose]();
    throw error;
  }
  return database;
}

/** SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN: the disk's fault, which a user can mend. */
const DISK_ERRORS: readonly number[] = [8, 10, 13, 14];

/** @throws UserError `cannot-write` when the disk is full, read-only or broken */
function explained<T>(path: string, body: () => T): T {
  try {
    return body();
  } catch (cause) {
    const code = (cause as { errcode?: unknown }).errcode;
    if (typeof code !== 'number' || !DISK_ERRORS.includes(code & 0xff)) throw cause;
    throw new UserError('cannot-write', `cannot write the database: ${(cause as Error).message}`, {
      file: path,
      hint: 'see that the disk has room and can be written, then run the command again: nothing was changed',
      cause,
    });
  }
}

function migrate(database: Database, migrations: readonly string[], readOnly: boolean): void {
  const versionNow = () => Number(database.get('PRAGMA user_version')?.user_version ?? 0);
  const refuseNewer = (version: number) => {
    if (version <= migrations.length) return;
    throw new UserError(
      'database-newer',
      `the database was written by a newer buildkit (schema ${version}, this one knows ${migrations.length})`,
      {
        file: database.path,
        hint: 'use the newer buildkit',
      },
    );
  };
  refuseNewer(versionNow());
  if (versionNow() === migrations.length || readOnly) return;
  database.transaction(() => {
    const version = versionNow(); // another process may have migrated while this one waited
    refuseNewer(version);
    for (const sql of migrations.slice(version)) database.exec(sql);
    database.exec(`PRAGMA user_version = ${migrations.length}`);
  });
}

export interface Lock extends Disposable {
  readonly path: string;
}

/**
 * Takes an exclusive lock on `path` between processes. The lock is the kernel's (SQLite's fcntl lock on an otherwise empty
 * database), so that no crash leaves a stale one.
 * @param waitMs how long to wait for another holder
 * @throws UserError `locked` when another process still holds it then
 */
export async function lock(
  path: string,
  options: { waitMs?: number; what?: string; signal?: AbortSignal } = {},
): Promise<Lock> {
  mkdirSync(dirname(path), { recursive: true });
  const db = new DatabaseSync(path, { timeout: 0 });
  let delay = 5;
  for (let waited = 0; ; waited += delay) {
    try {
      db.exec('BEGIN EXCLUSIVE');
      return {
        path,
        [Symbol.dispose]: () => {
          if (db.isOpen) db.close();
        },
      };
    } catch (cause) {
      const busy = errnoOf(cause) === 'ERR_SQLITE_ERROR' && /locked|busy/.test((cause as Error).message);
      if (!busy || waited >= (options.waitMs ?? 0) || options.signal?.aborted) {
        db.close();
        options.signal?.throwIfAborted();
        if (!busy) throw cause;
        throw new UserError('locked', `${options.what ?? path} is in use by another buildkit`, {
          file: path,
          hint: 'wait until it has finished, then run the command again',
          cause,
        });
      }
      delay = Math.min(delay * 2, 100);
      await sleep(delay);
    }
  }
}
