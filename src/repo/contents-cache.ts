/**
 * What is known of each Contents file: its lines in blocks, compressed once, and which package of which bytes is in it.
 *
 * Secret: the SQL of this cache, and the order of its blocks, which is that of JavaScript's strings and not SQLite's. It may be
 * deleted at any time: the next publish makes every block anew from the lists of files in the catalog.
 */
import { gunzipSync, gzipSync } from 'node:zlib';
import type { Database } from '../core/db.ts';
import { type StoredBlock, UNFINISHED } from './blocks.ts';
import { openCache } from './cache-file.ts';
import type { IndexKey } from './catalog.ts';
import { INDEX_FORMAT } from './indexes.ts';

const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE indexes (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, variant TEXT NOT NULL, change INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE members (
    index_id INTEGER NOT NULL REFERENCES indexes (id) ON DELETE CASCADE, name TEXT NOT NULL, sha256 TEXT NOT NULL,
    place TEXT NOT NULL, PRIMARY KEY (index_id, name, sha256)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE blocks (
    id INTEGER PRIMARY KEY, index_id INTEGER NOT NULL REFERENCES indexes (id) ON DELETE CASCADE, first TEXT NOT NULL,
    entries BLOB NOT NULL, gzip BLOB, xz BLOB, xz_unpadded INTEGER, zstd BLOB
  ) STRICT;
  CREATE INDEX blocks_index ON blocks (index_id);
  `,
];

/** A package in a Contents file. */
export interface ContentsMember {
  readonly name: string;
  readonly sha256: string;
  /** `section/name`, as the file shows it. */
  readonly place: string;
}

/** A path, and every package that has it. */
export interface ContentsEntry {
  readonly path: string;
  readonly places: readonly string[];
}

/** A block to be stored: what it was made of, and its forms. */
export interface ContentsBlock {
  readonly entries: readonly ContentsEntry[];
  readonly forms: StoredBlock;
}

export interface KnownBlock {
  readonly id: number;
  readonly first: string;
}

export class ContentsCache implements Disposable {
  readonly #db: Database;

  private constructor(db: Database) {
    this.#db = db;
  }

  static async open(path: string): Promise<ContentsCache> {
    return new ContentsCache(await openCache(path, MIGRATIONS));
  }

  [Symbol.dispose](): void {
    this.#db[Symbol.dispose]();
  }

  transaction<T>(body: () => T): T {
    return this.#db.transaction(body);
  }

  /** An index that is whole, and the change that it is at. */
  find(key: IndexKey, variant: string): { readonly id: number; readonly change: number } | undefined {
    const row = this.#db.get(
      'SELECT id, change FROM indexes WHERE key = ? AND variant = ? AND change <> ?',
      keyText(key),
      variant,
      UNFINISHED,
    );
    return row && { id: Number(row.id), change: Number(row.change) };
  }

  /** An empty index in place of the one there was. */
  begin(key: IndexKey, variant: string): number {
    this.#db.run('DELETE FROM indexes WHERE key = ?', keyText(key));
    const sql = 'INSERT INTO indexes (key, variant, change) VALUES (?, ?, ?) RETURNING id';
    return Number(this.#db.get(sql, keyText(key), variant, UNFINISHED)?.id);
  }

  /** From now until `finish` it does not count as known. */
  touch(id: number): void {
    this.#db.run('UPDATE indexes SET change = ? WHERE id = ?', UNFINISHED, id);
  }

  finish(id: number, change: number): void {
    this.#db.run('UPDATE indexes SET change = ? WHERE id = ?', change, id);
  }

  membersOf(id: number, name: string): ContentsMember[] {
    return this.#db
      .all('SELECT sha256, place FROM members WHERE index_id = ? AND name = ?', id, name)
      .map((row) => ({ name, sha256: String(row.sha256), place: String(row.place) }));
  }

  /** In place of those of this name. */
  saveMembers(id: number, name: string, members: readonly ContentsMember[]): void {
    this.#db.run('DELETE FROM members WHERE index_id = ? AND name = ?', id, name);
    for (const { sha256, place } of members) {
      this.#db.run(
        'INSERT OR REPLACE INTO members (index_id, name, sha256, place) VALUES (?, ?, ?, ?)',
        id,
        name,
        sha256,
        place,
      );
    }
  }

  /** In the order of the file. */
  blocksOf(id: number): KnownBlock[] {
    return this.#db
      .all('SELECT id, first FROM blocks WHERE index_id = ?', id)
      .map((row) => ({ id: Number(row.id), first: String(row.first) }))
      .sort((a, b) => (a.first < b.first ? -1 : 1));
  }

  entriesOf({ id }: KnownBlock): ContentsEntry[] {
    const packed = this.#db.get('SELECT entries FROM blocks WHERE id = ?', id)?.entries as Uint8Array;
    return gunzipSync(packed).toString('utf8').split('\n').map(parseEntry);
  }

  formsOf({ id }: KnownBlock): StoredBlock {
    const row = this.#db.get('SELECT entries, gzip, xz, xz_unpadded, zstd FROM blocks WHERE id = ?', id)!;
    const bytes = (column: string) => (row[column] ?? undefined) as Uint8Array | undefined;
    const [gzip, xz] = [bytes('gzip'), bytes('xz')];
    const text = gzip ? gunzipSync(gzip) : renderEntries(this.entriesOf({ id, first: '' }));
    return {
      text,
      gzip,
      xz: xz && { bytes: xz, unpaddedSize: Number(row.xz_unpadded), uncompressedSize: text.length },
      zstd: bytes('zstd'),
    };
  }

  deleteBlocks(blocks: readonly KnownBlock[]): void {
    for (const { id } of blocks) this.#db.run('DELETE FROM blocks WHERE id = ?', id);
  }

  insertBlock(id: number, { entries, forms }: ContentsBlock): void {
    this.#db.run(
      'INSERT INTO blocks (index_id, first, entries, gzip, xz, xz_unpadded, zstd) VALUES (?, ?, ?, ?, ?, ?, ?)',
      id,
      entries[0]!.path,
      gzipSync(entries.map(formatEntry).join('\n'), { level: 1 }),
      forms.gzip ?? null,
      forms.xz?.bytes ?? null,
      forms.xz?.unpaddedSize ?? null,
      forms.zstd ?? null,
    );
  }
}

/** Lines of Contents: the path, and from column 60 on who has it. */
export function renderEntries(entries: readonly ContentsEntry[]): Buffer {
  return Buffer.from(entries.map(({ path, places }) => `${path.padEnd(59)} ${places.join(',')}\n`).join(''));
}

/** No name of a file holds a zero byte, and what is shown pads names with spaces. */
function formatEntry({ path, places }: ContentsEntry): string {
  return [path, ...places].join('\0');
}

function parseEntry(line: string): ContentsEntry {
  const [path, ...places] = line.split('\0');
  return { path: path!, places };
}

function keyText(key: IndexKey): string {
  return JSON.stringify([INDEX_FORMAT, key.suite, key.component, key.kind, key.architecture]);
}
