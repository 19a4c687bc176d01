/**
 * Contents: which package has which file (DebianRepository/Format, "Contents indices").
 *
 * Secret: lists of files are made once for each package, when its first suite with Contents is published, and kept by the digest
 * of the package: publishing unpacks nothing that it has seen before.
 */
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import type { Context } from '../core/context.ts';
import { type DebFile, listDebs } from '../deb/archive.ts';
import type { Catalog, CatalogPackage, IndexKey } from './catalog.ts';
import { gzipMember } from './compress.ts';
import type { StanzaStyle } from './indexes.ts';
import type { Layout } from './layout.ts';
import { applyOverride, type Override } from './overrides.ts';

/** Text of one gzip member: members are joined, so that memory stays small. */
const PIECE_CHARACTERS = 1024 * 1024;

/** The Contents file of one component and architecture, compressed, in pieces. */
export async function* contentsMembers(
  context: Context,
  layout: Layout,
  catalog: Catalog,
  key: IndexKey,
  change: number,
  override: StanzaStyle['override'],
): AsyncGenerator<Uint8Array> {
  const places = new Map<string, string>();
  const items: Listed[] = [];
  for (const item of catalog.indexRange(key, '', undefined, change)) {
    items.push({ filename: item.filename, sha256: item.sha256, place: placeOf(item, override?.(item)) });
  }
  await listMissing(context, layout, catalog, items);
  for (const { sha256, place } of items) {
    context.signal.throwIfAborted();
    for (const path of pathsOf(catalog, sha256)) {
      const known = places.get(path);
      if (known === undefined) places.set(path, place);
      else if (!known.split(',').includes(place)) places.set(path, `${known},${place}`);
    }
  }
  let piece = '';
  for (const path of [...places.keys()].sort()) {
    piece += `${path.padEnd(59)} ${places.get(path)}\n`;
    if (piece.length < PIECE_CHARACTERS) continue;
    yield await gzipMember(Buffer.from(piece));
    piece = '';
  }
  yield await gzipMember(Buffer.from(piece));
}

/** `section/name`, as apt-file shows it. */
function placeOf(item: CatalogPackage, override: Override | undefined): string {
  const section = /^Section:[ \t]*(\S+)/im.exec(applyOverride(item.control, override))?.[1];
  return section === undefined ? item.name : `${section}/${item.name}`;
}

/** What Contents needs to know of a package. */
interface Listed {
  readonly filename: string;
  readonly sha256: string;
  /** `section/name`. */
  readonly place: string;
}

const LISTS_AT_A_TIME = 1000;

/** Makes the lists that are not there yet, many at a time. */
async function listMissing(
  context: Context,
  layout: Layout,
  catalog: Catalog,
  items: readonly Listed[],
): Promise<void> {
  const missing = items.filter((item) => catalog.fileList(item.sha256) === undefined);
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

/** What a package installs but folders, without the slash at the beginning. */
function renderPaths(files: readonly DebFile[]): string {
  // a line break in a name would be another line of Contents
  const named = files.filter((file) => file.type !== 'dir' && !file.path.includes('\n'));
  return named.map((file) => file.path.slice(1)).join('\n');
}

/** Not by a thread for each: the lists are small and many. */
function pathsOf(catalog: Catalog, sha256: string): string[] {
  const text = gunzipSync(catalog.fileList(sha256)!).toString('utf8');
  return text.split('\n').filter((path) => path !== '');
}
