import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lock, openDatabase } from '../../../src/core/db.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-db-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('databases', () => {
  it('migrate step by step, keeping what is there, and refuse one from the future', () => {
    const path = join(folder, 'a.db');
    const first = ['CREATE TABLE t (a TEXT NOT NULL) STRICT'];
    {
      using db = openDatabase(path, first);
      db.run('INSERT INTO t VALUES (?)', 'kept');
    }
    const second = [...first, "ALTER TABLE t ADD COLUMN b TEXT NOT NULL DEFAULT 'new'"];
    {
      using db = openDatabase(path, second);
      expect({ ...db.get('SELECT a, b FROM t') }).toEqual({ a: 'kept', b: 'new' });
    }
    expect(() => openDatabase(path, first)).toThrow(expect.objectContaining({ code: 'database-newer', file: path }));
  });

  it('undo a transaction that throws, with the ones it called', () => {
    using db = openDatabase(':memory:', ['CREATE TABLE t (a INTEGER NOT NULL) STRICT']);
    expect(() =>
      db.transaction(() => {
        db.transaction(() => db.run('INSERT INTO t VALUES (1)'));
        throw new Error('no');
      }),
    ).toThrow('no');
    expect(db.all('SELECT * FROM t')).toEqual([]);
    db.transaction(() => db.run('INSERT INTO t VALUES (2)'));
    expect(db.all('SELECT a FROM t').length).toBe(1);
  });

  it('refuse a file that is none', async () => {
    const path = join(folder, 'no.db');
    await writeFile(path, 'this is no database, and long enough for SQLite to look at its header: '.repeat(20));
    expect(() => openDatabase(path, [])).toThrow(expect.objectContaining({ code: 'database-unreadable' }));
  });
});

describe('locks', () => {
  it('exclude, wait, and go with their holder', async () => {
    const path = join(folder, 'x.lock');
    const held = await lock(path, { what: 'the repository' });
    await expect(lock(path, { what: 'the repository' })).rejects.toMatchObject({
      code: 'locked',
      message: 'the repository is in use by another buildkit',
    });
    const waiting = lock(path, { waitMs: 5000 });
    held[Symbol.dispose]();
    using got = await waiting;
    expect(got.path).toBe(path);
  });

  it('stop waiting when the user interrupts', async () => {
    const path = join(folder, 'y.lock');
    using _held = await lock(path);
    const controller = new AbortController();
    const waiting = lock(path, { waitMs: 60_000, signal: controller.signal });
    controller.abort(new Error('interrupted'));
    await expect(waiting).rejects.toThrow('interrupted');
  });
});
