/**
 * What signed indexes say of each file: path -> size and SHA256, kept for look-up while the file streams.
 *
 * Secret: the form on disk. One file per index object, records of fixed length sorted by a hash of the path, searched where they
 * lie: a look-up reads some twenty records and nothing stays in memory. Indexes are hostile until proven otherwise: what they
 * unpack to and how many files they name is limited. (Debian wiki, RepositoryFormat: Packages, Sources, diff Index.)
 */
import { createHash } from 'node:crypto';
import { closeSync, createReadStream, mkdirSync, openSync, readSync, renameSync, rmSync, writeSync } from 'node:fs';
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
const MAX_RECORDS = 5_000_000;
const MAX_OPEN = 64;

export interface Facts extends Disposable {
  /** True when the index with this digest was read before. */
  has(index: string): boolean;
  /** `path` as the index names it. */
  find(index: string, path: string): NamedFile | undefined;
  put(index: string, records: readonly Buffer[]): void;
  drop(index: string): void;
}

function factKey(path: string): Buffer {
  return createHash('sha256').update(path).digest().subarray(0, KEY_BYTES);
}

function factRecord(path: string, file: NamedFile): Buffer {
  const record = Buffer.alloc(RECORD_BYTES);
  factKey(path).copy(record);
  record.write(file.sha256, KEY_BYTES, 'hex');
  record.writeUIntBE(file.size, KEY_BYTES + 32, 6);
  return record;
}

export function openFacts(dir: string): Facts {
  mkdirSync(dir, { recursive: true });
  const open = new Map<string, { fd: number; count: number } | undefined>();
  const record = Buffer.alloc(RECORD_BYTES);

  function openIndex(index: string): { fd: number; count: number } | undefined {
    if (open.has(index)) return open.get(index);
    let found: { fd: number; count: number } | undefined;
    try {
      const fd = openSync(join(dir, index), 'r');
      const head = Buffer.alloc(MAGIC.length + 4);
      const whole =
        readSync(fd, head, 0, head.length, 0) === head.length && head.subarray(0, MAGIC.length).equals(MAGIC);
      if (whole) found = { fd, count: head.readUInt32BE(MAGIC.length) };
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
      while (low < high) {
        const middle = (low + high) >>> 1;
        if (readSync(file.fd, record, 0, RECORD_BYTES, MAGIC.length + 4 + middle * RECORD_BYTES) < RECORD_BYTES)
          return undefined;
        const order = record.compare(key, 0, KEY_BYTES, 0, KEY_BYTES);
        if (order === 0) {
          return {
            sha256: record.toString('hex', KEY_BYTES, KEY_BYTES + 32),
            size: record.readUIntBE(KEY_BYTES + 32, 6),
          };
        }
        if (order < 0) low = middle + 1;
        else high = middle;
      }
      return undefined;
    },
    put(index, records) {
      const sorted = [...records].sort((a, b) => a.compare(b, 0, KEY_BYTES, 0, KEY_BYTES));
      const head = Buffer.alloc(MAGIC.length + 4);
      MAGIC.copy(head);
      head.writeUInt32BE(sorted.length, MAGIC.length);
      const temporary = join(dir, `.${index}.tmp`);
      const fd = openSync(temporary, 'w');
      try {
        const bytes = Buffer.concat([head, ...sorted]);
        for (let offset = 0; offset < bytes.length; ) offset += writeSync(fd, bytes, offset);
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
  const reader = form === 'Packages' ? packagesReader() : sectionReader(form, folder);
  let rest = '';
  let total = 0;
  for await (const chunk of unpacked) {
    total += chunk.length;
    if (total > most || rest.length > MAX_LINE || reader.records.length > MAX_RECORDS) throw hostile(indexPath);
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
  facts.put(object.sha256, reader.records);
  return reader.records.length;
}

interface LineReader {
  readonly records: Buffer[];
  line(text: string, from: number, to: number): void;
}

function packagesReader(): LineReader {
  const records: Buffer[] = [];
  let filename = '';
  let sha256 = '';
  let size = -1;
  return {
    records,
    line(text, from, to) {
      if (from === to) {
        if (filename !== '' && /^[0-9a-f]{64}$/.test(sha256) && Number.isSafeInteger(size) && size >= 0) {
          records.push(factRecord(utf8(filename.replace(/^(?:\.\/)+/, '')), { sha256, size }));
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
function sectionReader(form: 'Sources' | 'diff', folder: string): LineReader {
  const records: Buffer[] = [];
  const field = form === 'Sources' ? 'Checksums-Sha256:' : 'SHA256-Download:';
  let inside = false;
  let directory = form === 'Sources' ? '' : folder;
  let entries: { name: string; file: NamedFile }[] = [];
  return {
    records,
    line(text, from, to) {
      if (from === to) {
        for (const { name, file } of entries)
          records.push(factRecord(utf8(directory === '' ? name : `${directory}/${name}`), file));
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
