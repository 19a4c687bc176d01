/**
 * Wheels as files (sole user of yauzl): what is inside, checked before anything is believed.
 *
 * Secret: the zip archive. Ruled by the PyPA "Binary distribution format". Refused: names that leave the archive, links,
 * bombs, contents that differ from their CRC or from RECORD, a wheel cut short.
 */
import { createHash, hash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { basename } from 'node:path';
import { Readable } from 'node:stream';
import { crc32, inflateRawSync } from 'node:zlib';
import yauzl from 'yauzl';
import { UserError } from '../../core/errors.ts';
import { digestFile } from '../../core/files.ts';
import { type CoreMetadata, parseCoreMetadata, parseHeaders, parseRecord } from './metadata.ts';

/** More than this is kept on disk and read twice. */
const KEEP_IN_MEMORY_BYTES = 48 * 1024 * 1024;
const MAX_FILES = 250_000;
const MAX_BYTES = 16 * 1024 ** 3;
/** Deflate cannot do better than 1032:1; real wheels stay below 100:1 as a whole. */
const MAX_RATIO = 250;
const RATIO_MATTERS_FROM = 64 * 1024 * 1024;
const MAX_METADATA_BYTES = 16 * 1024 * 1024;

export interface WheelTags {
  readonly name: string;
  readonly version: string;
  readonly pythons: readonly string[];
  readonly abis: readonly string[];
  readonly platforms: readonly string[];
}

export interface WheelFile {
  /** Inside the archive. */
  readonly path: string;
  readonly size: number;
  readonly executable: boolean;
  /** Seconds since the epoch; the zip's time read as UTC. */
  readonly mtime: number;
  /** Whole content. */
  read(): Promise<Buffer>;
  /** Content in pieces, for files larger than memory. */
  open(): AsyncIterable<Uint8Array>;
}

/** An open wheel. Disposing closes the file. */
export interface Wheel extends Disposable {
  readonly path: string;
  /** Of the wheel file. */
  readonly sha256: string;
  readonly tags: WheelTags;
  readonly metadata: CoreMetadata;
  /** Root-Is-Purelib of WHEEL. */
  readonly pure: boolean;
  /** 'flask-3.1.3.dist-info' */
  readonly distInfo: string;
  /** 'flask-3.1.3.data' */
  readonly dataDir: string;
  readonly files: readonly WheelFile[];
}

/**
 * Reads 'name-version(-build)?-python-abi-platform.whl'.
 * @throws UserError `wheel-name`
 */
export function parseWheelName(file: string): WheelTags {
  const parts = file.endsWith('.whl') ? basename(file, '.whl').split('-') : [];
  if (parts.length !== 5 && parts.length !== 6) {
    throw new UserError('wheel-name', `'${basename(file)}' is no name of a wheel`, {
      hint: 'wheels are called name-version-python-abi-platform.whl',
      file,
    });
  }
  const [pythons, abis, platforms] = parts.slice(-3).map((part) => part.split('.'));
  return { name: parts[0]!, version: parts[1]!, pythons: pythons!, abis: abis!, platforms: platforms! };
}

/**
 * Opens a wheel and checks all of its content.
 * @throws UserError `wheel-broken`, `wheel-unsafe`, `wheel-record`, `wheel-metadata`
 */
export async function openWheel(path: string): Promise<Wheel> {
  const tags = parseWheelName(basename(path));
  const zip = await openZip(path);
  try {
    const entries = await listEntries(zip, path);
    const total = entries.reduce((sum, entry) => sum + entry.uncompressedSize, 0);
    const inMemory = total <= KEEP_IN_MEMORY_BYTES;
    const files: WheelFile[] = [];
    const digests = new Map<string, string>();
    using archive = inMemory ? openArchive(path) : undefined;
    for (const entry of entries) {
      const { content, sha256 } = archive
        ? readWhole(archive, entry, path)
        : { content: undefined, sha256: await digestChecked(zip, entry, path) };
      digests.set(entry.fileName, sha256);
      files.push(wheelFile(zip, entry, path, content));
    }
    const distInfo = findDistInfo(files, tags, path);
    await checkRecord(files, distInfo, digests, path);
    const metadata = parseCoreMetadata(await textOf(files, `${distInfo}/METADATA`, path));
    if (metadata.name === '' || metadata.version === '') throw broken(path, 'METADATA names no project or no version');
    const wheelHeaders = parseHeaders(await textOf(files, `${distInfo}/WHEEL`, path));
    const headerOf = (name: string) => wheelHeaders.find(([key]) => key === name)?.[1];
    const layout = headerOf('wheel-version');
    if (!layout?.startsWith('1.')) throw broken(path, `the wheel has the unknown format '${layout ?? ''}'`);
    return {
      path,
      sha256: await digestFile(path, 'sha256'),
      tags,
      metadata,
      pure: headerOf('root-is-purelib')?.toLowerCase() === 'true',
      distInfo,
      dataDir: distInfo.replace(/\.dist-info$/, '.data'),
      files,
      [Symbol.dispose]: () => zip.close(),
    };
  } catch (error) {
    zip.close();
    throw error;
  }
}

function broken(path: string, what: string, cause?: unknown): UserError {
  return new UserError('wheel-broken', `the wheel '${basename(path)}' is broken: ${what}`, {
    hint: 'fetch it again; when it stays broken, its author must mend it',
    file: path,
    cause,
  });
}

function unsafe(path: string, what: string): UserError {
  return new UserError('wheel-unsafe', `the wheel '${basename(path)}' is refused: ${what}`, { file: path });
}

async function openZip(path: string): Promise<yauzl.ZipFile> {
  try {
    // strict: backslashes are refused, not turned into slashes; lazy: entries are read one by one
    return await yauzl.openPromise(path, {
      autoClose: false,
      decodeStrings: true,
      strictFileNames: true,
      lazyEntries: true,
    });
  } catch (cause) {
    throw broken(path, (cause as Error).message, cause);
  }
}

async function listEntries(zip: yauzl.ZipFile, path: string): Promise<yauzl.Entry[]> {
  if (zip.entryCount > MAX_FILES) throw unsafe(path, `it has ${zip.entryCount} files`);
  const entries: yauzl.Entry[] = [];
  const seen = new Set<string>();
  let packed = 0;
  let unpacked = 0;
  await new Promise<void>((resolve, reject) => {
    zip.on('error', (cause: Error) => {
      const bad = /invalid relative path|absolute path|invalid characters/.test(cause.message);
      reject(bad ? unsafe(path, cause.message) : broken(path, cause.message, cause));
    });
    zip.on('end', resolve);
    zip.on('entry', (entry: yauzl.Entry) => {
      const problem = judgeEntry(entry, seen);
      if (problem !== undefined) return reject(unsafe(path, problem));
      seen.add(entry.fileName);
      packed += entry.compressedSize;
      unpacked += entry.uncompressedSize;
      if (unpacked > MAX_BYTES) return reject(unsafe(path, `it unpacks to more than ${MAX_BYTES} bytes`));
      if (unpacked > RATIO_MATTERS_FROM && unpacked > packed * MAX_RATIO) {
        return reject(unsafe(path, `it unpacks to ${Math.round(unpacked / packed)} times its size`));
      }
      if (!entry.fileName.endsWith('/')) entries.push(entry);
      zip.readEntry();
    });
    zip.readEntry();
  });
  return entries;
}

/** Why an entry cannot be taken; undefined when it can. yauzl itself refuses absolute names, `..` and backslashes. */
function judgeEntry(
  entry: Pick<yauzl.Entry, 'fileName' | 'externalFileAttributes' | 'generalPurposeBitFlag' | 'compressionMethod'>,
  seen: ReadonlySet<string>,
): string | undefined {
  const { fileName } = entry;
  if (fileName === '' || /[\u0000-\u001f\u007f\\]/.test(fileName))
    return `'${fileName}' has characters that no file name should have`;
  if (fileName.split('/').some((part, index, all) => part === '.' || (part === '' && index < all.length - 1))) {
    return `'${fileName}' is no plain name`;
  }
  if (seen.has(fileName)) return `'${fileName}' is in it twice`;
  const kind = (entry.externalFileAttributes >>> 16) & 0o170000;
  if (kind !== 0 && kind !== 0o100000 && kind !== 0o040000) return `'${fileName}' is no regular file`;
  if ((entry.generalPurposeBitFlag & 1) !== 0) return `'${fileName}' is encrypted`;
  if (entry.compressionMethod !== 0 && entry.compressionMethod !== 8) {
    return `'${fileName}' is compressed by the unknown method ${entry.compressionMethod}`;
  }
  return undefined;
}

async function* contentOf(zip: yauzl.ZipFile, entry: yauzl.Entry, path: string): AsyncGenerator<Buffer> {
  try {
    const stream = await zip.openReadStreamPromise(entry);
    yield* stream as AsyncIterable<Buffer>;
  } catch (cause) {
    throw broken(path, `'${entry.fileName}': ${(cause as Error).message}`, cause);
  }
}

async function digestChecked(zip: yauzl.ZipFile, entry: yauzl.Entry, path: string): Promise<string> {
  const digest = createHash('sha256');
  let crc = 0;
  for await (const chunk of contentOf(zip, entry, path)) {
    digest.update(chunk);
    crc = crc32(chunk, crc);
  }
  if (crc !== entry.crc32) throw broken(path, `'${entry.fileName}' differs from its checksum`);
  return digest.digest('base64url');
}

interface Archive extends Disposable {
  readonly fd: number;
}

function openArchive(path: string): Archive {
  const fd = openSync(path, 'r');
  return { fd, [Symbol.dispose]: () => closeSync(fd) };
}

const LOCAL_HEADER_BYTES = 30;

/** In one piece: thousands of small files each as a stream cost more in streams than in content. */
function readWhole({ fd }: Archive, entry: yauzl.Entry, path: string): { content: Buffer; sha256: string } {
  const { fileName, relativeOffsetOfLocalHeader: start, compressedSize, uncompressedSize } = entry;
  // deflate never needs more: a larger number is a lie that would cost memory
  if (compressedSize > uncompressedSize * 1.125 + 1024) throw broken(path, `'${fileName}' has a wrong packed size`);
  const header = readAt(fd, start, LOCAL_HEADER_BYTES);
  if (header.length < LOCAL_HEADER_BYTES || header.readUInt32LE(0) !== 0x04034b50) {
    throw broken(path, `'${fileName}' is not where its directory says`);
  }
  const packed = readAt(
    fd,
    start + LOCAL_HEADER_BYTES + header.readUInt16LE(26) + header.readUInt16LE(28),
    compressedSize,
  );
  const content = entry.compressionMethod === 0 ? packed : inflate(packed, uncompressedSize, fileName, path);
  if (content.length !== uncompressedSize) throw broken(path, `'${fileName}' has other than ${uncompressedSize} bytes`);
  if (crc32(content) !== entry.crc32) throw broken(path, `'${fileName}' differs from its checksum`);
  return { content, sha256: hash('sha256', content, 'base64url') };
}

function inflate(packed: Buffer, size: number, name: string, path: string): Buffer {
  try {
    return inflateRawSync(packed, { maxOutputLength: size + 1, chunkSize: Math.max(64, size + 1) });
  } catch (cause) {
    throw broken(path, `'${name}': ${(cause as Error).message}`, cause);
  }
}

/** What is there of `length` bytes. */
function readAt(fd: number, position: number, length: number): Buffer {
  const buffer = Buffer.allocUnsafeSlow(length);
  let filled = 0;
  while (filled < length) {
    const count = readSync(fd, buffer, filled, length - filled, position + filled);
    if (count === 0) break;
    filled += count;
  }
  return buffer.subarray(0, filled);
}

function wheelFile(zip: yauzl.ZipFile, entry: yauzl.Entry, path: string, content: Buffer | undefined): WheelFile {
  const read = async (): Promise<Buffer> => {
    if (content) return content;
    const chunks: Buffer[] = [];
    for await (const chunk of contentOf(zip, entry, path)) chunks.push(chunk);
    return Buffer.concat(chunks);
  };
  return {
    path: entry.fileName,
    size: entry.uncompressedSize,
    executable: ((entry.externalFileAttributes >>> 16) & 0o111) !== 0,
    mtime: Math.floor(entry.getLastModDate({ timezone: 'UTC', forceDosFormat: true }).getTime() / 1000),
    read,
    open: () => (content ? Readable.from([content]) : contentOf(zip, entry, path)),
  };
}

function findDistInfo(files: readonly WheelFile[], tags: WheelTags, path: string): string {
  const folders = new Set(files.flatMap((file) => /^([^/]+\.dist-info)\//.exec(file.path)?.[1] ?? []));
  const [folder] = folders;
  if (folders.size !== 1 || folder === undefined)
    throw broken(path, `it has ${folders.size} dist-info folders, not one`);
  const plain = (text: string) => text.replaceAll(/[-_.]+/g, '-').toLowerCase();
  if (!plain(folder).startsWith(plain(tags.name))) throw broken(path, `its dist-info folder is called '${folder}'`);
  return folder;
}

async function textOf(files: readonly WheelFile[], name: string, path: string): Promise<string> {
  const file = files.find((one) => one.path === name);
  if (!file) throw broken(path, `'${name}' is missing`);
  if (file.size > MAX_METADATA_BYTES) throw unsafe(path, `'${name}' has ${file.size} bytes`);
  return (await file.read()).toString('utf8');
}

async function checkRecord(
  files: readonly WheelFile[],
  distInfo: string,
  digests: ReadonlyMap<string, string>,
  path: string,
): Promise<void> {
  const lines = parseRecord(await textOf(files, `${distInfo}/RECORD`, path));
  const recorded = new Set(lines.map((line) => line.path));
  const complain = (what: string) => {
    throw new UserError('wheel-record', `the wheel '${basename(path)}' disagrees with its RECORD: ${what}`, {
      hint: 'somebody changed it after it was made: fetch it again from its author',
      file: path,
    });
  };
  for (const line of lines) {
    const digest = digests.get(line.path);
    if (line.sha256 === undefined) continue;
    if (digest === undefined) complain(`'${line.path}' is missing`);
    if (digest !== line.sha256.replace(/=+$/, '')) complain(`'${line.path}' has other content`);
  }
  for (const file of files) {
    const exempt = file.path.startsWith(`${distInfo}/RECORD`);
    if (!exempt && !recorded.has(file.path)) complain(`'${file.path}' is not listed`);
  }
}
