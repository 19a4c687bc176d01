/**
 * Contents: which package has which file (DebianRepository/Format, "Contents indices").
 *
 * Secret: lists of files are made once for each package, when its first suite with Contents is published, and kept by the digest
 * of the package: publishing unpacks nothing that it has seen before. One more package makes anew the blocks that its files are
 * in; memory does not grow with what the suite holds.
 */
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { createGzip, gzipSync } from 'node:zlib';
import type { Context } from '../core/context.ts';
import { type DebFile, listDeb, listDebs } from '../deb/archive.ts';
import {
  BATCH_CHARACTERS,
  compressBlocks,
  dirtyRanges,
  type IndexSpec,
  type NameRange,
  type StoredBlock,
} from './blocks.ts';
import type { Catalog, CatalogPackage } from './catalog.ts';
import {
  ContentsCache,
  type ContentsEntry,
  type ContentsMember,
  type KnownBlock,
  renderEntries,
} from './contents-cache.ts';
import { listLines, unpackList } from './file-list.ts';
import { isBoundary, type StanzaStyle } from './indexes.ts';
import type { Layout } from './layout.ts';
import { applyOverride, type Override } from './overrides.ts';
import { SortedRuns } from './sorted-runs.ts';

/** About how many paths share a block, some 40 kB of text. */
const PATHS_PER_BLOCK = 512;

const beginsBlock = (path: string) => isBoundary(path, PATHS_PER_BLOCK);

interface Work {
  readonly context: Context;
  readonly layout: Layout;
  readonly catalog: Catalog;
  readonly cache: ContentsCache;
  readonly spec: IndexSpec;
  readonly change: number;
  readonly override: StanzaStyle['override'];
}

/** The Contents file of one component and architecture at a change, block by block, in the forms of `spec`. */
export async function* contentsBlocks(
  context: Context,
  layout: Layout,
  catalog: Catalog,
  spec: IndexSpec,
  change: number,
  override: StanzaStyle['override'],
): AsyncGenerator<StoredBlock> {
  using cache = await ContentsCache.open(layout.contents);
  const work: Work = { context, layout, catalog, cache, spec, change, override };
  const id = await bringUpToDate(work);
  for (const block of cache.blocksOf(id)) yield cache.formsOf(block);
}

/** @returns the index in the cache */
async function bringUpToDate(work: Work): Promise<number> {
  const { catalog, cache, spec, change } = work;
  const known = cache.find(spec.key, spec.variant);
  if (known?.change === change) return known.id;
  if (known && known.change < change) {
    const names = catalog.namesChangedSince(spec.key, known.change);
    const changes = names.map((name) => ({
      name,
      old: cache.membersOf(known.id, name),
      now: membersIn(work, name, `${name}\0`),
    }));
    // without the list of what goes, its lines cannot be found
    if (changes.every(({ old }) => old.every(({ sha256 }) => catalog.fileList(sha256)))) {
      await apply(work, known.id, changes);
      return known.id;
    }
  }
  const id = cache.transaction(() => cache.begin(spec.key, spec.variant));
  const groups = Map.groupBy(membersIn(work, '', undefined), (member) => member.name);
  await apply(
    work,
    id,
    [...groups].map(([name, now]) => ({ name, old: [], now })),
  );
  return id;
}

/** A package whose file is at hand where its list of files was never made. */
interface Listed extends ContentsMember {
  readonly filename: string;
  readonly size: number;
}

function membersIn({ catalog, spec, change, override }: Work, from: string, to: string | undefined): Listed[] {
  const members: Listed[] = [];
  for (const item of catalog.indexRange(spec.key, from, to, change)) {
    const { name, sha256, filename, size } = item;
    members.push({ name, sha256, filename, size, place: placeOf(item, override?.(item)) });
  }
  return members;
}

/** `section/name`, as apt-file shows it. */
function placeOf(item: CatalogPackage, override: Override | undefined): string {
  const section = /^Section:[ \t]*(\S+)/im.exec(applyOverride(item.control, override))?.[1];
  return section === undefined ? item.name : `${section}/${item.name}`;
}

interface NameChange {
  readonly name: string;
  readonly old: readonly ContentsMember[];
  readonly now: readonly Listed[];
}

/** Puts what changed of some names into an index. Interrupted in the middle, it counts as unknown. */
async function apply(work: Work, id: number, changes: readonly NameChange[]): Promise<void> {
  const { cache, change } = work;
  await listMissing(
    work,
    changes.flatMap(({ now }) => now),
  );
  await using edits = new SortedRuns(work.layout.incoming);
  for (const { old, now } of changes) {
    work.context.signal.throwIfAborted();
    for (const member of old) await addEdits(work, edits, member, '-');
    for (const member of now) await addEdits(work, edits, member, '+');
  }
  const known = cache.blocksOf(id);
  await rewrite(work, id, edits, known);
  cache.transaction(() => {
    for (const { name, now } of changes) cache.saveMembers(id, name, now);
    cache.finish(id, change);
  });
}

async function addEdits(
  { catalog }: Work,
  edits: SortedRuns,
  { sha256, place }: ContentsMember,
  sign: '+' | '-',
): Promise<void> {
  for (const path of listLines(unpackList(catalog.fileList(sha256)!))) {
    const full = edits.add(`${path.toString()}\0${place}\0${sign}`);
    if (full) await full;
  }
}

/** What happens to a path. */
interface PathEdit {
  readonly path: string;
  readonly gone: string[];
  readonly come: string[];
}

/** In the order of paths, without what a new version of a package has as the old one had it. */
export function* netEdits(lines: Iterable<string>): Generator<PathEdit> {
  let edit: PathEdit | undefined;
  for (const [path, place, signs] of signsOf(lines)) {
    if (signs.size === 2) continue;
    if (edit?.path !== path) {
      if (edit) yield edit;
      edit = { path, gone: [], come: [] };
    }
    (signs.has('+') ? edit.come : edit.gone).push(place);
  }
  if (edit) yield edit;
}

function* signsOf(lines: Iterable<string>): Generator<[path: string, place: string, signs: ReadonlySet<string>]> {
  let before = '';
  let signs = new Set<string>();
  const found = (): [string, string, ReadonlySet<string>] => {
    const [path, place] = before.split('\0');
    return [path!, place!, signs];
  };
  for (const line of lines) {
    const where = line.slice(0, -1);
    if (where !== before) {
      if (signs.size > 0) yield found();
      before = where;
      signs = new Set();
    }
    signs.add(line.at(-1)!);
  }
  if (signs.size > 0) yield found();
}

/** Makes the blocks anew that edits fall into. */
async function rewrite(work: Work, id: number, edits: SortedRuns, known: readonly KnownBlock[]): Promise<void> {
  const ranges =
    known.length > 0 && edits.isSmall
      ? dirtyRanges(
          [...netEdits(edits.sorted())].map((edit) => edit.path),
          known.map((block) => block.first),
          beginsBlock,
        )
      : [{ from: '', to: undefined }];
  const out = new BlockWriter(work, id);
  const next = peekable(netEdits(edits.sorted()));
  for (const range of ranges) {
    for (const entry of merged(out.entriesIn(known, range), next, range)) {
      const full = out.add(entry);
      if (full) await full;
    }
    out.cut();
  }
  await out.flush();
}

/** Collects entries into blocks and stores them, in place of those that they were read from. */
class BlockWriter {
  readonly #work: Work;
  readonly #id: number;
  #read: KnownBlock[] = [];
  #block: ContentsEntry[] = [];
  #blocks: ContentsEntry[][] = [];
  #characters = 0;

  constructor(work: Work, id: number) {
    this.#work = work;
    this.#id = id;
  }

  /** What the blocks of a range hold; they go when what comes of them is stored. */
  *entriesIn(known: readonly KnownBlock[], { from, to }: NameRange): Generator<ContentsEntry> {
    for (const block of known) {
      if (from !== '' && block.first < from) continue;
      if (to !== undefined && block.first >= to) return;
      this.#read.push(block);
      yield* this.#work.cache.entriesOf(block);
    }
  }

  /** Undefined but when there is something to store: then wait for it before the next entry. */
  add(entry: ContentsEntry): Promise<void> | undefined {
    let full: Promise<void> | undefined;
    if (beginsBlock(entry.path)) {
      this.cut();
      if (this.#characters >= BATCH_CHARACTERS) full = this.flush();
    }
    this.#block.push(entry);
    this.#characters += entry.path.length + 20 * entry.places.length;
    return full;
  }

  cut(): void {
    if (this.#block.length > 0) this.#blocks.push(this.#block);
    this.#block = [];
  }

  /** Everything that was cut. */
  async flush(): Promise<void> {
    const { cache, context, spec } = this.#work;
    const [blocks, read] = [this.#blocks, this.#read];
    this.#blocks = [];
    this.#read = [];
    this.#characters = 0;
    const forms = await compressBlocks(context, blocks.map(renderEntries), spec.compressions);
    cache.transaction(() => {
      cache.touch(this.#id);
      cache.deleteBlocks(read);
      for (const [index, entries] of blocks.entries()) cache.insertBlock(this.#id, { entries, forms: forms[index]! });
    });
  }
}

interface Peekable<T> {
  readonly peek: () => T | undefined;
  readonly take: () => void;
}

function peekable<T>(items: Iterator<T, undefined>): Peekable<T> {
  let head = items.next().value;
  return {
    peek: () => head,
    take: () => {
      head = items.next().value;
    },
  };
}

/** Entries as they are once the edits before the end of the range are made. */
function* merged(
  entries: Iterator<ContentsEntry, undefined>,
  edits: Peekable<PathEdit>,
  { to }: NameRange,
): Generator<ContentsEntry> {
  let entry = entries.next().value;
  for (;;) {
    const next = edits.peek();
    const edit = next && (to === undefined || next.path < to) ? next : undefined;
    if (entry && (!edit || entry.path < edit.path)) {
      yield entry;
      entry = entries.next().value;
    } else if (edit) {
      const places = entry?.path === edit.path ? entry.places : [];
      if (entry?.path === edit.path) entry = entries.next().value;
      const after = edited(places, edit);
      if (after.length > 0) yield { path: edit.path, places: after };
      edits.take();
    } else return;
  }
}

/** By the names of packages, whatever the order in which they came. */
function edited(places: readonly string[], { gone, come }: PathEdit): string[] {
  const after = new Set(places);
  for (const place of gone) after.delete(place);
  for (const place of come) after.add(place);
  return [...after].sort((a, b) => (nameIn(a) < nameIn(b) ? -1 : nameIn(a) > nameIn(b) ? 1 : a < b ? -1 : 1));
}

function nameIn(place: string): string {
  return place.slice(place.lastIndexOf('/') + 1);
}

const LISTS_AT_A_TIME = 1000;
/** Packages of this size are listed one by one. */
const LARGE_BYTES = 4 * 1024 * 1024;
const PIECE_CHARACTERS = 64 * 1024;

/** Makes the lists that are not there yet, many at a time. */
async function listMissing({ context, layout, catalog }: Work, items: readonly Listed[]): Promise<void> {
  const unlisted = items.filter((item) => catalog.fileList(item.sha256) === undefined);
  for (const item of unlisted.filter((one) => one.size > LARGE_BYTES)) {
    catalog.saveFileList(item.sha256, await listLarge(context, layout, item));
  }
  const missing = unlisted.filter((one) => one.size <= LARGE_BYTES);
  for (let from = 0; from < missing.length; from += LISTS_AT_A_TIME) {
    const part = missing.slice(from, from + LISTS_AT_A_TIME);
    const lists: Buffer[] = [];
    for await (const { files } of listDebs(
      context,
      part.map((item) => join(layout.public, item.filename)),
    )) {
      context.signal.throwIfAborted();
      lists.push(gzipSync(renderPaths(files)));
    }
    catalog.transaction(() => {
      for (const [index, { sha256 }] of part.entries()) catalog.saveFileList(sha256, lists[index]!);
    });
    context.log.progress('listing files', Math.min(from + LISTS_AT_A_TIME, missing.length), missing.length);
  }
}

/** The list of a package whose files may be more than memory should hold. */
async function listLarge(context: Context, layout: Layout, { filename }: Listed): Promise<Uint8Array> {
  await using lines = new SortedRuns(layout.incoming);
  for await (const file of listDeb(context, join(layout.public, filename))) {
    const full = isShown(file) ? lines.add(file.path.slice(1)) : undefined;
    if (full) await full;
  }
  return buffer(Readable.from(joined(lines.sorted())).pipe(createGzip()));
}

function* joined(lines: Iterable<string>): Generator<Buffer> {
  let text = '';
  for (const line of lines) {
    text += text === '' ? line : `\n${line}`;
    if (text.length < PIECE_CHARACTERS) continue;
    yield Buffer.from(`${text}\n`);
    text = '';
  }
  yield Buffer.from(text);
}

/** What a package installs but folders, without the slash at the beginning, in order. */
function renderPaths(files: readonly DebFile[]): string {
  return files
    .filter(isShown)
    .map((file) => file.path.slice(1))
    .sort()
    .join('\n');
}

/** A line break in a name would be another line of Contents. */
function isShown(file: DebFile): boolean {
  return file.type !== 'dir' && !file.path.includes('\n');
}
