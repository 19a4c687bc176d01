/**
 * Writing a .deb: sources are read once, a MiB at a time, into the compressor; then the members are put together.
 *
 * Secret: data.tar goes to a nameless scratch file first, for control.tar, which stands before it, holds the md5sums of what
 * is in it. Ruled by deb(5).
 */
import { createHash, hash, randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync, type Stats, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { atomically } from '../core/files.ts';
import { AR_MAGIC, AR_MAX_SIZE, arPadding, formatArHeader } from './ar.ts';
import type { DebEntry, DebSpec, WriteDebOptions } from './archive.ts';
import {
  type ControlFile,
  checkControl,
  type DataObject,
  installedKib,
  planConffiles,
  planControl,
  planData,
  withInstalledSize,
} from './archive-plan.ts';
import {
  type Compression,
  type Compressor,
  compressSmall,
  createCompressor,
  suffixOf,
  writeAll,
} from './compression.ts';
import type { BinaryPackage } from './package.ts';
import { formatTarHeader, tarEnd, tarPadding } from './tar.ts';

const CHUNK = 1024 * 1024;
const SMALL_FILE = 256 * 1024;
const ZEROS = Buffer.alloc(512);

/** See `writeDeb` in archive.ts. */
export async function writeDebFile(
  context: RunContext,
  path: string,
  spec: DebSpec,
  options: WriteDebOptions,
): Promise<BinaryPackage> {
  const epoch = options.sourceDateEpoch;
  if (!Number.isSafeInteger(epoch) || epoch < 0)
    throw new UserError('bad-epoch', `'${epoch}' is no SOURCE_DATE_EPOCH`, { hint: 'give whole seconds since 1970' });
  const compression = options.compression ?? 'xz';
  const identity = checkControl(spec.control);
  const objects = planData(await allEntries(spec.entries), epoch);
  const conffiles = planConffiles(objects, spec.conffiles ?? []);
  let written: BinaryPackage | undefined;
  await atomically(path, { mode: 0o644 }, async (file) => {
    using scratch = openScratch(dirname(path));
    const data = await writeData(context, objects, compression, options, scratch.fd);
    const control = withInstalledSize(spec.control, data.installedKib);
    const plain = new Set(conffiles);
    const sums = data.md5sums.filter((sum) => !plain.has(sum.path));
    const controlTar = formatControlTar(planControl(spec, control, conffiles, sums), epoch);
    const controlKind = compression === 'xz' ? 'gzip' : compression;
    const packed = await compressSmall(
      controlKind,
      controlTar,
      controlKind === compression ? options.level : undefined,
    );
    const digests = assemble(context, file.fd, epoch, [
      { name: 'debian-binary', size: 4, content: Buffer.from('2.0\n') },
      { name: `control.tar${suffixOf(controlKind)}`, size: packed.length, content: packed },
      { name: `data.tar${suffixOf(compression)}`, size: data.size, content: scratch.fd },
    ]);
    written = { path, ...identity, control, ...digests };
  });
  return written!;
}

async function allEntries(entries: Iterable<DebEntry> | AsyncIterable<DebEntry>): Promise<DebEntry[]> {
  const all: DebEntry[] = [];
  for await (const entry of entries) all.push(entry);
  return all;
}

/** A file without a name, so that not even a killed process leaves it behind. Beside the result, where its room is needed anyway. */
function openScratch(folder: string): { readonly fd: number } & Disposable {
  const path = join(folder, `.data.${randomBytes(6).toString('hex')}.tmp`);
  const fd = openSync(path, 'wx+', 0o600);
  unlinkSync(path);
  return { fd, [Symbol.dispose]: () => closeSync(fd) };
}

// ---------------------------------------------------------------- data.tar

interface WrittenData {
  /** Bytes of the compressed member. */
  readonly size: number;
  readonly installedKib: number;
  /** Of every regular file, hard links included. */
  readonly md5sums: { readonly path: string; readonly md5: string }[];
}

async function writeData(
  context: RunContext,
  objects: readonly DataObject[],
  compression: Compression,
  options: WriteDebOptions,
  fd: number,
): Promise<WrittenData> {
  const md5sums: { path: string; md5: string }[] = [];
  const md5Of = new Map<string, string>(); // by tar name, for hard links
  let kib = 0;
  const packedSize = () => {
    const { size } = fstatSync(fd);
    if (size > AR_MAX_SIZE) formatArHeader(`data.tar${suffixOf(compression)}`, size, 0); // says that it is too big
    return size;
  };
  await using compressor = createCompressor(context, compression, options, fd);
  const tar = createTarWriter(compressor, () => {
    context.signal?.throwIfAborted();
    packedSize();
  });
  for (const object of objects) {
    if (object.header.type !== 'file') {
      await tar.put(formatTarHeader(object.header));
      kib += installedKib(object.header);
      const md5 = object.header.type === 'hardlink' ? md5Of.get(object.header.link.toString('latin1')) : undefined;
      if (md5 !== undefined) md5sums.push({ path: object.path, md5 });
      continue;
    }
    const { md5, header } = await writeFile(tar, object);
    kib += installedKib(header);
    md5sums.push({ path: object.path, md5 });
    md5Of.set(header.name.toString('latin1'), md5);
  }
  await tar.put(tarEnd(tar.size));
  await tar.end();
  return { size: packedSize(), installedKib: kib, md5sums };
}

/** Gathers small pieces into chunks of a MiB. */
interface TarWriter {
  /** Bytes so far. */
  readonly size: number;
  put(bytes: Uint8Array): Promise<void>;
  /** Room for at least so many bytes (a chunk at most), to be filled by the caller, who then says by `filled` how many it was. */
  room(least: number): Promise<Buffer>;
  filled(count: number): void;
  /** Resolves when everything is in the compressor's file. */
  end(): Promise<void>;
}

/** @param check called before each chunk goes out; may throw */
function createTarWriter(compressor: Compressor, check: () => void): TarWriter {
  let chunk = Buffer.allocUnsafeSlow(CHUNK);
  let spare = Buffer.allocUnsafeSlow(CHUNK);
  let underWay: Promise<void> = Promise.resolve(); // the compressor takes one chunk while the other is filled
  let used = 0;
  let size = 0;
  const flush = async () => {
    check();
    await underWay;
    underWay = compressor.write(chunk.subarray(0, used));
    underWay.catch(() => {}); // awaited above or in `end`
    [chunk, spare] = [spare, chunk];
    used = 0;
  };
  return {
    get size() {
      return size;
    },
    async put(bytes) {
      let rest = bytes;
      while (rest.length > 0) {
        if (used === CHUNK) await flush();
        const piece = rest.subarray(0, CHUNK - used);
        chunk.set(piece, used);
        used += piece.length;
        size += piece.length;
        rest = rest.subarray(piece.length);
      }
    },
    async room(least) {
      if (used + least > CHUNK) await flush();
      return chunk.subarray(used);
    },
    filled(count) {
      used += count;
      size += count;
    },
    async end() {
      await flush();
      await underWay;
      await compressor.end();
    },
  };
}

async function writeFile(tar: TarWriter, object: DataObject): Promise<{ md5: string; header: DataObject['header'] }> {
  const source = object.source!;
  if ('file' in source) return writeFromDisk(tar, object, source.file);
  if ('data' in source) {
    const data = typeof source.data === 'string' ? Buffer.from(source.data) : source.data;
    const header = { ...object.header, size: data.length };
    await tar.put(formatTarHeader(header));
    await tar.put(data);
    await tar.put(ZEROS.subarray(0, tarPadding(data.length)));
    return { md5: hash('md5', data), header };
  }
  const header = { ...object.header, size: source.size };
  await tar.put(formatTarHeader(header));
  const digest = createHash('md5');
  let left = source.size;
  for await (const chunk of source.open()) {
    left -= chunk.length;
    if (left < 0) break;
    digest.update(chunk);
    await tar.put(chunk);
  }
  if (left !== 0) {
    const what =
      left < 0
        ? `more than the ${source.size} bytes that were announced`
        : `only ${source.size - left} of ${source.size} bytes`;
    throw new UserError('source-changed', `the content of '${object.path}' has ${what}`);
  }
  await tar.put(ZEROS.subarray(0, tarPadding(source.size)));
  return { md5: digest.digest('hex'), header };
}

/** Synchronous reads straight into the chunk: a package has thousands of small files, and each turn of the loop costs more than they do. */
async function writeFromDisk(
  tar: TarWriter,
  object: DataObject,
  file: string,
): Promise<{ md5: string; header: DataObject['header'] }> {
  const fd = openSource(object.path, file);
  try {
    const before = fstatSync(fd);
    if (!before.isFile())
      throw new UserError('source-not-file', `the source of '${object.path}' is no regular file`, { file });
    const header = { ...object.header, size: before.size };
    await tar.put(formatTarHeader(header));
    const md5 = await copyContent(tar, fd, before.size, () => changed(object.path, file));
    if (!isSame(before, fstatSync(fd))) throw changed(object.path, file);
    await tar.put(ZEROS.subarray(0, tarPadding(before.size)));
    return { md5, header };
  } finally {
    closeSync(fd);
  }
}

/** @returns the md5 of what was copied */
async function copyContent(tar: TarWriter, fd: number, size: number, tooShort: () => UserError): Promise<string> {
  const isSmall = size <= SMALL_FILE;
  let room = await tar.room(isSmall ? Math.max(1, size) : 1);
  if (isSmall && readSync(fd, room, 0, size, null) === size) {
    tar.filled(size);
    return hash('md5', room.subarray(0, size)); // without a digest object, which costs more than a small file
  }
  const digest = createHash('md5');
  let left = isSmall ? -1 : size; // a small file that does not come in one piece is shorter than it was
  while (left > 0) {
    room = await tar.room(1);
    const count = readSync(fd, room, 0, Math.min(left, room.length), null);
    if (count === 0) break;
    digest.update(room.subarray(0, count));
    tar.filled(count);
    left -= count;
  }
  if (left !== 0) throw tooShort();
  return digest.digest('hex');
}

/** O_NONBLOCK: a pipe where a file is expected is to be refused, not waited for. */
function openSource(path: string, file: string): number {
  try {
    return openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const errno = errnoOf(cause);
    if (errno === 'ENOENT' || errno === 'ENOTDIR')
      throw new UserError('source-missing', `the source of '${path}' does not exist`, { file, cause });
    if (errno === 'EACCES' || errno === 'EPERM')
      throw new UserError('source-unreadable', `the source of '${path}' may not be read`, { file, cause });
    throw cause;
  }
}

function isSame(a: Stats, b: Stats): boolean {
  return a.size === b.size && a.mtimeMs === b.mtimeMs && a.ctimeMs === b.ctimeMs;
}

function changed(path: string, file: string): UserError {
  return new UserError('source-changed', `the source of '${path}' changed while it was read`, {
    file,
    hint: 'let nothing write to it, then run the command again',
  });
}

// ---------------------------------------------------------------- control.tar and the whole

function formatControlTar(files: readonly ControlFile[], mtime: number): Buffer {
  const own = { uid: 0, gid: 0, user: 'root', group: 'root', mtime, link: Buffer.alloc(0) } as const;
  const parts: Buffer[] = [formatTarHeader({ ...own, name: Buffer.from('.'), type: 'dir', mode: 0o755, size: 0 })];
  for (const { name, mode, data } of files) {
    parts.push(
      formatTarHeader({ ...own, name: Buffer.from(`./${name}`), type: 'file', mode, size: data.length }),
      data,
    );
    parts.push(Buffer.alloc(tarPadding(data.length)));
  }
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([...parts, tarEnd(size)]);
}

interface Member {
  readonly name: string;
  readonly size: number;
  /** The bytes, or the file that holds them from its start. */
  readonly content: Uint8Array | number;
}

type Digests = Pick<BinaryPackage, 'size' | 'md5' | 'sha1' | 'sha256' | 'sha512'>;

/** Writes the ar archive and digests it on the way. */
function assemble(context: RunContext, fd: number, mtime: number, members: readonly Member[]): Digests {
  const hashes = (['md5', 'sha1', 'sha256', 'sha512'] as const).map((name) => createHash(name));
  let size = 0;
  const put = (bytes: Uint8Array) => {
    for (const digest of hashes) digest.update(bytes);
    writeAll(fd, bytes);
    size += bytes.length;
  };
  put(Buffer.from(AR_MAGIC));
  for (const member of members) {
    put(formatArHeader(member.name, member.size, mtime));
    if (typeof member.content === 'number') copyFrom(context, member.content, member.size, put);
    else put(member.content);
    if (arPadding(member.size) === 1) put(Buffer.from('\n'));
  }
  const [md5, sha1, sha256, sha512] = hashes.map((digest) => digest.digest('hex')) as [string, string, string, string];
  return { size, md5, sha1, sha256, sha512 };
}

function copyFrom(context: RunContext, fd: number, size: number, put: (bytes: Uint8Array) => void): void {
  const chunk = Buffer.allocUnsafeSlow(Math.min(size, CHUNK));
  for (let offset = 0; offset < size; ) {
    context.signal?.throwIfAborted();
    const count = readSync(fd, chunk, 0, Math.min(chunk.length, size - offset), offset);
    if (count === 0) throw new Error('the scratch file is shorter than what was written to it');
    put(chunk.subarray(0, count));
    offset += count;
  }
}
