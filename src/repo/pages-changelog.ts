/**
 * The changelog of a package, from its own files (Policy 12.7).
 *
 * Secret: how little is read and kept of it. Reading stops at the first changelog of Debian's own; of a file that could unpack to
 * gigabytes only the beginning is looked at, and whole entries of it are kept.
 */
import { join } from 'node:path';
import { constants, gunzipSync } from 'node:zlib';
import type { Context } from '../core/context.ts';
import { BuildkitError, errnoOf } from '../core/errors.ts';
import { readDebContents } from '../deb/archive.ts';
import type { CatalogPackage } from './catalog.ts';

/** Deflate makes at most a thousand bytes of one: this becomes 34 MB at worst. */
const MAX_PACKED_BYTES = 32 * 1024;
const MAX_CHARACTERS = 10_000;
/** Reading a larger package for its changelog takes too long for a publish. */
const MAX_PACKAGE_BYTES = 64 * 1024 * 1024;

/** The newest entries; '' when the package has none that can be read. */
export async function readChangelog(
  context: Context,
  publicFolder: string,
  item: Pick<CatalogPackage, 'kind' | 'name' | 'filename' | 'size'>,
): Promise<string> {
  if (item.kind !== 'deb' || item.size > MAX_PACKAGE_BYTES) return '';
  const folder = `/usr/share/doc/${item.name}/`;
  const wanted = new Set(['Debian.gz', 'Debian', 'gz'].map((end) => `${folder}changelog.${end}`));
  let found = '';
  try {
    const files = readDebContents(
      context,
      join(publicFolder, item.filename),
      (path) => wanted.has(path),
      MAX_PACKED_BYTES,
    );
    for await (const { path, content } of files) {
      found = path.endsWith('.gz') ? unpacked(content) : content.toString('utf8');
      if (path.includes('.Debian')) break; // the other one may be of upstream
    }
  } catch (error) {
    context.signal.throwIfAborted();
    const isBroken = error instanceof BuildkitError && error.exitCode === 1;
    if (!isBroken && errnoOf(error) === undefined) throw error; // a broken package is told by `repo check`
    return '';
  }
  return newestEntries(found);
}

/** What the beginning of a gzip file holds. */
function unpacked(content: Buffer): string {
  try {
    return gunzipSync(content, { finishFlush: constants.Z_SYNC_FLUSH }).toString('utf8', 0, MAX_CHARACTERS * 4);
  } catch {
    return '';
  }
}

/** Whole entries; of one that is endless, its beginning. */
export function newestEntries(text: string, limit: number = MAX_CHARACTERS): string {
  if (!/^\S+ \([^)]*\)/.test(text)) return ''; // a changelog of upstream
  if (text.length <= limit) return text.trimEnd();
  const ends = [...text.slice(0, limit).matchAll(/^ -- [^\n]*(?=\n)/gm)].map((match) => match.index + match[0].length);
  return text.slice(0, ends.at(-1) ?? limit).trimEnd();
}
