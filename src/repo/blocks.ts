/**
 * The cache of index blocks: text and compressed forms of each run of stanzas, brought up to date by what changed.
 *
 * Secret: how "one more package" costs one block, and the SQL of this cache. It may be deleted at any time: a missing or broken
 * cache only means that the next publish makes every block anew.
 */
import type { RunContext } from '../core/context.ts';
import type { Database } from '../core/db.ts';
import { openCache } from './cache-file.ts';
import type { Catalog, IndexKey } from './catalog.ts';
import { gzipMember, type XzBlock, xzBlocks, zstdFrame } from './compress.ts';
import { cutBlocks, INDEX_FORMAT, type IndexFile, type RenderGroup, startsBlock, type TextBlock } from './indexes.ts';
import type { IndexCompression } from './settings.ts';

/** Which index, of which packages, and how it is made. */
export interface IndexSpec {
  readonly key: IndexKey;
  /** Tells indexes of the same packages apart. */
  readonly what: 'stanzas' | 'translations' | 'contents';
  /** Whatever decides about the text beside the packages: with another one, every block is made anew. */
  readonly variant: string;
  readonly compressions: readonly IndexCompression[];
  readonly render: RenderGroup;
}

/** A block ready to be written, in the forms that the index has. */
export interface StoredBlock {
  readonly text: Uint8Array;
  readonly gzip: Uint8Array | undefined;
  readonly xz: XzBlock | undefined;
  readonly zstd: Uint8Array | undefined;
}

/** In place of a change: some blocks are missing. */
export const UNFINISHED = -1;

/** Text compressed and stored at a time: bounds memory. */
export const BATCH_CHARACTERS = 2 * 1024 * 1024;

const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE indexes (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, change INTEGER NOT NULL) STRICT;
  CREATE TABLE blocks (
    index_id INTEGER NOT NULL REFERENCES indexes (id) ON DELETE CASCADE, first TEXT NOT NULL, count INTEGER NOT NULL,
    text BLOB NOT NULL, gzip BLOB NOT NULL, xz BLOB NOT NULL, xz_unpadded INTEGER NOT NULL,
    PRIMARY KEY (index_id, first)
  ) STRICT;
  `,
  `
  DROP TABLE blocks;
  DROP TABLE indexes;
  CREATE TABLE indexes (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, variant TEXT NOT NULL, change INTEGER NOT NULL, written TEXT
  ) STRICT;
  CREATE TABLE blocks (
    index_id INTEGER NOT NULL REFERENCES indexes (id) ON DELETE CASCADE, first TEXT NOT NULL,
    text BLOB NOT NULL, gzip BLOB, xz BLOB, xz_unpadded INTEGER, zstd BLOB,
    PRIMARY KEY (index_id, first)
  ) STRICT;
  `,
];

/** Names in [from, to); `to` undefined: to the end. */
export interface NameRange {
  readonly from: string;
  readonly to: string | undefined;
}

export class BlockCache implements Disposable {
  readonly #db: Database;

  private constructor(db: Database) {
    this.#db = db;
  }

  static async open(path: string): Promise<BlockCache> {
    return new BlockCache(await openCache(path, MIGRATIONS));
  }

  [Symbol.dispose](): void {
    this.#db[Symbol.dispose]();
  }

  /**
   * Brings the blocks of one index to the state of the catalog at `change`. Returns how many were made anew.
   * Interrupted in the middle, the index counts as unknown and is made anew the next time.
   */
  async update(context: RunContext, catalog: Catalog, spec: IndexSpec, change: number): Promise<number> {
    const known = this.#find(spec);
    if (known?.change === change) return 0;
    const ranges =
      known !== undefined && known.change !== UNFINISHED && known.change < change
        ? dirtyRanges(catalog.namesChangedSince(spec.key, known.change), this.#firsts(known.id))
        : [{ from: '', to: undefined }];
    let made = 0;
    let id = known?.id;
    const store = async (blocks: readonly TextBlock[], deleted: readonly NameRange[], state: number) => {
      const pieces = await compressBlocks(
        context,
        blocks.map((block) => Buffer.from(block.text)),
        spec.compressions,
      );
      this.#db.transaction(() => {
        id ??= this.#insert(spec);
        this.#db.run('UPDATE indexes SET change = ? WHERE id = ?', state, id);
        if (ranges.length > 0) this.#db.run('UPDATE indexes SET written = NULL WHERE id = ?', id);
        for (const range of deleted) this.#deleteRange(id, range);
        for (const [index, block] of blocks.entries()) this.#put(id, block, pieces[index]!);
      });
      made += blocks.length;
    };
    let batch: TextBlock[] = [];
    let batchSize = 0;
    let deleted: readonly NameRange[] = ranges;
    for (const range of ranges) {
      for (const block of cutBlocks(catalog.indexRange(spec.key, range.from, range.to, change), spec.render)) {
        batch.push(block);
        batchSize += block.text.length;
        if (batchSize < BATCH_CHARACTERS) continue;
        await store(batch, deleted, UNFINISHED);
        batch = [];
        batchSize = 0;
        deleted = [];
      }
    }
    await store(batch, deleted, change);
    return made;
  }

  /** The blocks of one index in order, one in memory at a time. */
  *blocks(spec: IndexSpec): Generator<StoredBlock> {
    const id = this.#find(spec)?.id;
    if (id === undefined) return;
    const rows = this.#db.iterate(
      'SELECT text, gzip, xz, xz_unpadded, zstd FROM blocks WHERE index_id = ? ORDER BY first',
      id,
    );
    for (const row of rows) {
      const text = row.text as Uint8Array;
      yield {
        text,
        gzip: (row.gzip ?? undefined) as Uint8Array | undefined,
        xz:
          row.xz === null
            ? undefined
            : { bytes: row.xz as Uint8Array, unpaddedSize: Number(row.xz_unpadded), uncompressedSize: text.length },
        zstd: (row.zstd ?? undefined) as Uint8Array | undefined,
      };
    }
  }

  /** The files that were made of an index, while nothing of it changed up to `change`. */
  written(catalog: Catalog, spec: IndexSpec, change: number): readonly IndexFile[] | undefined {
    const known = this.#find(spec);
    if (known?.written === undefined) return undefined;
    if (known.change > change) return undefined;
    if (known.change < change && catalog.namesChangedSince(spec.key, known.change).length > 0) return undefined;
    return known.written;
  }

  /** Notes what was made of an index as it is at `change`. */
  saveWritten(spec: IndexSpec, change: number, files: readonly IndexFile[]): void {
    this.#db.transaction(() => {
      const id = this.#find(spec)?.id ?? this.#insert(spec);
      this.#db.run('UPDATE indexes SET change = ?, written = ? WHERE id = ?', change, JSON.stringify(files), id);
    });
  }

  #find(spec: IndexSpec): { id: number; change: number; written: readonly IndexFile[] | undefined } | undefined {
    const row = this.#db.get(
      'SELECT id, change, written FROM indexes WHERE key = ? AND variant = ?',
      keyText(spec),
      spec.variant,
    );
    if (!row) return undefined;
    const written = row.written === null ? undefined : (JSON.parse(String(row.written)) as IndexFile[]);
    return { id: Number(row.id), change: Number(row.change), written };
  }

  /** In place of one of another variant, whose blocks go with it. */
  #insert(spec: IndexSpec): number {
    this.#db.run('DELETE FROM indexes WHERE key = ?', keyText(spec));
    const sql = 'INSERT INTO indexes (key, variant, change) VALUES (?, ?, ?) RETURNING id';
    return Number(this.#db.get(sql, keyText(spec), spec.variant, UNFINISHED)?.id);
  }

  #firsts(id: number): string[] {
    return this.#db
      .all('SELECT first FROM blocks WHERE index_id = ? ORDER BY first', id)
      .map((row) => String(row.first));
  }

  #deleteRange(id: number, range: NameRange): void {
    this.#db.run(
      'DELETE FROM blocks WHERE index_id = ? AND first >= ? AND first < ?',
      id,
      range.from,
      range.to ?? '\u{10ffff}',
    );
  }

  #put(id: number, block: TextBlock, made: StoredBlock): void {
    this.#db.run(
      'INSERT INTO blocks (index_id, first, text, gzip, xz, xz_unpadded, zstd) VALUES (?, ?, ?, ?, ?, ?, ?)',
      id,
      block.first,
      made.text,
      made.gzip ?? null,
      made.xz?.bytes ?? null,
      made.xz?.unpaddedSize ?? null,
      made.zstd ?? null,
    );
  }
}

function keyText({ key, what }: IndexSpec): string {
  return JSON.stringify([INDEX_FORMAT, what, key.suite, key.component, key.kind, key.architecture]);
}

/** Each text in the forms that an index has. */
export async function compressBlocks(
  context: RunContext,
  texts: readonly Buffer[],
  wanted: readonly IndexCompression[],
): Promise<StoredBlock[]> {
  if (texts.length === 0) return [];
  const [xz, gzip, zstd] = await Promise.all([
    wanted.includes('xz') ? xzBlocks(context, texts) : [],
    wanted.includes('gzip') ? Promise.all(texts.map(gzipMember)) : [],
    wanted.includes('zstd') ? Promise.all(texts.map(zstdFrame)) : [],
  ]);
  return texts.map((text, index) => ({ text, gzip: gzip[index], xz: xz[index], zstd: zstd[index] }));
}

/**
 * The ranges of names whose blocks must be made anew. A block reaches from its first name to the next block's. Where a
 * changed name begins a block, or comes before the first one, its neighbour above may grow or shrink with it.
 * @param changed sorted
 * @param firsts first names of the blocks there are, sorted
 * @param begins whether a name begins a block
 */
export function dirtyRanges(
  changed: readonly string[],
  firsts: readonly string[],
  begins: (name: string) => boolean = startsBlock,
): NameRange[] {
  const starts = ['', ...firsts.slice(1)]; // the first block also takes every name before it
  const dirty = new Set<number>();
  for (const name of changed) {
    const at = lastAtOrBefore(starts, name);
    dirty.add(at);
    if (at > 0 && starts[at] === name && begins(name)) dirty.add(at - 1); // it may be gone: then the two are one
  }
  const ranges: { from: string; to: string | undefined }[] = [];
  for (const at of [...dirty].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last && last.to === starts[at]) last.to = starts[at + 1];
    else ranges.push({ from: starts[at]!, to: starts[at + 1] });
  }
  return ranges;
}

function lastAtOrBefore(starts: readonly string[], name: string): number {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (starts[middle]! <= name) low = middle;
    else high = middle - 1;
  }
  return low;
}
