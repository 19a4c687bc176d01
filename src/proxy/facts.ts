/**
 * What signed indexes say of each file: path -> size and SHA256, kept for look-up while the file streams.
 *
 * Secret: the form on disk. One file per index object, records of fixed length sorted by a hash of the path, searched where they
 * lie: hashes are spread evenly, so that a look-up mostly reads one piece of a file, and nothing stays in memory. Indexes are
 * hostile until proven otherwise: what they unpack to and how many files they name is limited, and so is the memory that reading
 * one takes (some 70 MB at most; 4 MB for Debian's main). (Debian wiki, RepositoryFormat: Packages, Sources, diff Index.)
 */
import { hash } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { compressionOf } from '../deb/compression.ts';
import { decompress } from '../deb/decompression.ts';
import { namesFiles } from './policy.ts';
import type { NamedFile } from './release.ts';

const MAGIC = Buffer.from('BKFACTS1');
const KEY_BYTES = 16;
const RECORD_BYTES = KEY_BYTES + 32 + 6;
const MAX_UNPACKED = 2 * 1024 * 1024 * 1024;
const MAX_LINE = 1024 * 1024;
/** Several times what the largest indexes of Debian and Ubuntu name. */
const MAX_RECORDS = 1_000_000;
/** Of one source package, or of one list of diffs. */
const MAX_ENTRIES = 50_000;
/** Records are kept, read and written in pieces of this many. */
const PIECE = 256;
const PIECE_BYTES = PIECE * RECORD_BYTES;
const MAX_OPEN = 64;

export interface Facts extends Disposable {
  /** True when the index with this digest was read before. */
  has(index: string): boolean;
  /** `path` as the index names it. */
  find(index: string, path: string): NamedFile | undefined;
  put(index: string, records: Records): void;
  drop(index: string): void;
}

interface Records {
  readonly count: number;
  add(path: string, file: NamedFile): void;
  /** One after the other in the order of their keys; each holds until the next one is asked for. */
  sorted(): Iterable<Buffer>;
}

function factKey(path: string): Buffer {
  return hash('sha256', path, 'buffer').subarray(0, KEY_BYTES);
}

/** Records side by side: a buffer for each would take five times the memory. */
function createRecords(): Records {
  const pieces: Buffer[] = [];
  let count = 0;
  const at = (index: number) => {
    const start = (index % PIECE) * RECORD_BYTES;
    return pieces[Math.floor(index / PIECE)]!.subarray(start, start + RECORD_BYTES);
  };
  const compare = (a: number, b: number) => at(a).compare(at(b), 0, KEY_BYTES, 0, KEY_BYTES);
  return {
    get count() {
      return count;
    },
    add(path, file) {
      if (count % PIECE === 0) pieces.push(Buffer.allocUnsafeSlow(PIECE_BYTES));
      count += 1;
      const record = at(count - 1);
      factKey(path).copy(record);
      record.write(file.sha256, KEY_BYTES, 'hex');
      record.writeUIntBE(file.size, KEY_BYTES + 32, 6);
    },
    *sorted() {
      // spread by the first two bytes, of which most records have their own
      const starts = new Uint32Array(0x10001);
      for (let index = 0; index < count; index += 1) starts[at(index).readUInt16BE(0) + 1]! += 1;
      for (let first = 0; first < 0x10000; first += 1) starts[first + 1]! += starts[first]!;
      const order = new Uint32Array(count);
      const next = starts.slice();
      for (let index = 0; index < count; index += 1) {
        const first = at(index).readUInt16BE(0);
        order[next[first]!] = index;
        next[first]! += 1;
      }
      for (let first = 0; first < 0x10000; first += 1) {
        const group = order.subarray(starts[first], starts[first + 1]);
        if (group.length > 1) group.sort(compare);
        for (const index of group) yield at(index);
      }
    },
  };
}

export function openFacts(dir: string): Facts {
  mkdirSync(dir, { recursive: true });
  const open = new Map<string, { fd: number; count: number } | undefined>();
  const piece = Buffer.allocUnsafeSlow(PIECE_BYTES);

  function openIndex(index: string): { fd: number; count: number } | undefined {
    if (open.has(index)) return open.get(index);
    let found: { fd: number; count: number } | undefined;
    try {
      const fd = openSync(join(dir, index), 'r');
      const head = Buffer.alloc(MAGIC.length + 4);
      const whole =
        readSync(fd, head, 0, head.length, 0) === head.length && head.subarray(0, MAGIC.length).equals(MAGIC);
      const count = whole ? head.readUInt32BE(MAGIC.length) : 0;
      // a power cut may leave less of it
      if (whole && fstatSync(fd).size === head.length + count * RECORD_BYTES) found = { fd, count };
      else closeSync(fd);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      return undefined; // may come later
    }
    if (open.size >= MAX_OPEN) forget(open.keys().next().value!);
    open.set(index, found);
    return found;
  }
  function forget(index: string): void {
    const file = open.get(index);
    if (file) closeSync(file.fd);
    open.delete(index);
  }

  return {
    has: (index) => openIndex(index) !== undefined,
    find(index, path) {
      const file = openIndex(index);
      if (!file) return undefined;
      const key = factKey(path);
      let low = 0;
      let high = file.count;
      let guess = Math.floor((key.readUIntBE(0, 6) / 2 ** 48) * file.count);
      while (low < high) {
        const start = Math.max(low, Math.min(guess - PIECE / 2, high - PIECE));
        const length = Math.min(PIECE, high - start) * RECORD_BYTES;
        if (readSync(file.fd, piece, 0, length, MAGIC.length + 4 + start * RECORD_BYTES) < length) return undefined;
        const place = searchPiece(piece, length / RECORD_BYTES, key);
        if (typeof place === 'object') return place;
        if (place === 'before') high = start;
        else if (place === 'behind') low = start + length / RECORD_BYTES;
        else return undefined;
        guess = (low + high) >>> 1;
      }
      return undefined;
    },
    put(index, records) {
      const head = Buffer.alloc(MAGIC.length + 4);
      MAGIC.copy(head);
      head.writeUInt32BE(records.count, MAGIC.length);
      const temporary = join(dir, `.${index}.tmp`);
      const fd = openSync(temporary, 'w');
      try {
        writeWhole(fd, head, head.length);
        let filled = 0;
        for (const record of records.sorted()) {
          filled += record.copy(piece, filled);
          if (filled < PIECE_BYTES) continue;
          writeWhole(fd, piece, filled);
          filled = 0;
        }
        writeWhole(fd, piece, filled);
      } finally {
        closeSync(fd);
      }
      renameSync(temporary, join(dir, index));
      forget(index);
    },
    drop(index) {
      forget(index);
      rmSync(join(dir, index), { force: true });
    },
    [Symbol.dispose]() {
      for (const index of [...open.keys()]) forget(index);
    },
  };
}

function writeWhole(fd: number, bytes: Buffer, length: number): void {
  for (let offset = 0; offset < length; ) offset += writeSync(fd, bytes, offset, length - offset);
}

/** Looks for a key in sorted records; where it would be when it is not among them. */
function searchPiece(piece: Buffer, count: number, key: Buffer): NamedFile | 'before' | 'behind' | 'nowhere' {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const start = middle * RECORD_BYTES;
    const order = piece.compare(key, 0, KEY_BYTES, start, start + KEY_BYTES);
    if (order === 0) {
      const digest = start + KEY_BYTES;
      return { sha256: piece.toString('hex', digest, digest + 32), size: piece.readUIntBE(digest + 32, 6) };
    }
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? 'before' : low === count ? 'behind' : 'nowhere';
}

/**
 * Reads an index object and keeps what it names.
 * @param indexPath as the Release file names it; its suffix tells the compression
 * @param folder what names in a diff Index are relative to, from the archive's base
 * @param most bytes that it may unpack to
 * @throws UserError `index-hostile` beyond the limits, `deb-broken` when it does not unpack
 */
export async function harvest(
  context: RunContext,
  facts: Facts,
  object: { readonly path: string; readonly sha256: string },
  indexPath: string,
  folder: string,
  most = MAX_UNPACKED,
): Promise<number> {
  const form = namesFiles(indexPath);
  if (form === undefined || facts.has(object.sha256)) return 0;
  const file = indexPath.slice(indexPath.lastIndexOf('/') + 1);
  const compression = form === 'diff' ? 'none' : (compressionOf(file, form) ?? 'none');
  const source = createReadStream(object.path, { highWaterMark: 1 << 16 });
  const unpacked = decompress(
    context,
    compression,
    source,
    { file: object.path, member: indexPath },
    { reader: 'apt' },
  );
  const records = createRecords();
  const reader = form === 'Packages' ? packagesReader(records) : sectionReader(records, form, folder, indexPath);
  let rest = '';
  let total = 0;
  for await (const chunk of unpacked) {
    total += chunk.length;
    if (total > most || rest.length > MAX_LINE || records.count > MAX_RECORDS) throw hostile(indexPath);
    const text = rest + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).toString('latin1');
    const end = text.lastIndexOf('\n');
    for (let from = 0; from <= end; ) {
      const next = text.indexOf('\n', from);
      reader.line(text, from, next);
      from = next + 1;
    }
    rest = text.slice(end + 1);
  }
  if (rest !== '') reader.line(rest, 0, rest.length);
  reader.line('', 0, 0);
  facts.put(object.sha256, records);
  return records.count;
}

interface LineReader {
  line(text: string, from: number, to: number): void;
}

function packagesReader(records: Records): LineReader {
  let filename = '';
  let sha256 = '';
  let size = -1;
  return {
    line(text, from, to) {
      if (from === to) {
        if (filename !== '' && /^[0-9a-f]{64}$/.test(sha256) && Number.isSafeInteger(size) && size >= 0) {
          records.add(utf8(filename.replace(/^(?:\.\/)+/, '')), { sha256, size });
        }
        filename = '';
        sha256 = '';
        size = -1;
        return;
      }
      const first = text.charCodeAt(from);
      if (first === 70 && text.startsWith('Filename:', from)) filename = text.slice(from + 9, to).trim();
      else if (first !== 83) return;
      else if (text.startsWith('SHA256:', from))
        sha256 = text
          .slice(from + 7, to)
          .trim()
          .toLowerCase();
      else if (text.startsWith('Size:', from)) size = Number(text.slice(from + 5, to).trim());
    },
  };
}

/** Sources (`Checksums-Sha256`, below `Directory`) and a diff Index (`SHA256-Download`, below its own folder). */
function sectionReader(records: Records, form: 'Sources' | 'diff', folder: string, index: string): LineReader {
  const field = form === 'Sources' ? 'Checksums-Sha256:' : 'SHA256-Download:';
  let inside = false;
  let directory = form === 'Sources' ? '' : folder;
  let entries: { name: string; file: NamedFile }[] = [];
  return {
    line(text, from, to) {
      if (from === to) {
        for (const { name, file } of entries) records.add(utf8(directory === '' ? name : `${directory}/${name}`), file);
        entries = [];
        inside = false;
        if (form === 'Sources') directory = '';
        return;
      }
      if (text.charCodeAt(from) !== 32) {
        inside = text.startsWith(field, from);
        if (text.startsWith('Directory:', from))
          directory = text
            .slice(from + 10, to)
            .trim()
            .replace(/^(?:\.\/)+|^\.$/g, '');
        return;
      }
      const match = inside ? /^ ([0-9a-f]{64}) (\d{1,15}) (\S+)$/.exec(text.slice(from, to)) : null;
      if (entries.length > MAX_ENTRIES) throw hostile(index);
      if (match) entries.push({ name: match[3]!, file: { sha256: match[1]!, size: Number(match[2]) } });
    },
  };
}

function utf8(latin1: string): string {
  return /[\u0080-\u00ff]/.test(latin1) ? Buffer.from(latin1, 'latin1').toString('utf8') : latin1;
}

function hostile(index: string): UserError {
  return new UserError('index-hostile', `'${index}' unpacks to more than an index can be`, {
    hint: 'the signed index is broken or made to do harm: tell whoever runs the archive',
  });
}
