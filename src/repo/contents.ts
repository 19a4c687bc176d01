/**
 * Contents: which package has which file (DebianRepository/Format, "Contents indices").
 *
 * Secret: lists of files are made once for each package, when its first suite with Contents is published, and kept by the digest
 * of the package: publishing unpacks nothing that it has seen before.
 */
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gunzip, gzip } from 'node:zlib';
import type { Context } from '../core/context.ts';
import { listDeb } from '../deb/archive.ts';
import type { Catalog, CatalogPackage, IndexKey } from './catalog.ts';
import { gzipMember } from './compress.ts';
import type { StanzaStyle } from './indexes.ts';
import type { Layout } from './layout.ts';
import { applyOverride, type Override } from './overrides.ts';

const pack = promisify(gzip);
const unpack = promisify(gunzip);

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
  for (const item of [...catalog.indexRange(key, '', undefined, change)]) {
    context.signal.throwIfAborted();
    const place = placeOf(item, override?.(item));
    for (const path of await pathsOf(context, layout, catalog, item)) {
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

/** What a package installs but folders, without the slash at the beginning. */
async function pathsOf(context: Context, layout: Layout, catalog: Catalog, item: CatalogPackage): Promise<string[]> {
  const known = catalog.fileList(item.sha256);
  if (known !== undefined)
    return (await unpack(known))
      .toString('utf8')
      .split('\n')
      .filter((path) => path !== '');
  const paths: string[] = [];
  for await (const file of listDeb(context, join(layout.public, item.filename))) {
    // a line break in a name would be another line of Contents
    if (file.type !== 'dir' && !file.path.includes('\n')) paths.push(file.path.slice(1));
  }
  catalog.saveFileList(item.sha256, await pack(paths.join('\n')));
  return paths;
}
