/**
 * Tar as dpkg takes it: written in GNU format (never pax, which dpkg refuses), read from v7, ustar and GNU format.
 *
 * Secret: the layout of a tar header, the `././@LongLink` records (K, L) for long names, base-256 for numbers that octal
 * cannot hold. Ruled by deb(5), tar(5), and dpkg's own reader: what it refuses (pax, sparse, multi-volume) is refused here.
 *
 * Why not tar-stream for reading: it goes on after the end-of-archive blocks (so it would list files that dpkg never sees),
 * reads negative base-256 times off by one, applies pax headers that dpkg refuses and hands sparse files out as plain ones.
 */
import { UserError } from '../core/errors.ts';

const TAR_BLOCK = 512;
/** GNU tar's default record of 20 blocks, to which dpkg-deb's archives are padded. */
const TAR_RECORD = 20 * TAR_BLOCK;
/** Longer than any path that a kernel takes (PATH_MAX is 4096). */
const MAX_LONG_NAME = 64 * 1024;
/** Zeros after the end of the archive: some writers pad to large tape blocks, none to more than this. */
const MAX_TRAILER = 16 * 1024 * 1024;

export type TarType = 'file' | 'hardlink' | 'symlink' | 'char-device' | 'block-device' | 'dir' | 'fifo';

const FLAG_OF: Readonly<Record<TarType, string>> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  'char-device': '3',
  'block-device': '4',
  dir: '5',
  fifo: '6',
};
const TYPE_OF: ReadonlyMap<string, TarType> = new Map([
  ['\0', 'file'],
  ...Object.entries(FLAG_OF).map(([type, flag]) => [flag, type as TarType] as const),
]);

/** One object of a tar archive. Names are bytes: old packages hold names that are not UTF-8. */
export interface TarHeader {
  /** As stored, without the slash at the end that marks a folder: './usr/bin'. */
  readonly name: Buffer;
  readonly type: TarType;
  /** Permission bits with setuid, setgid, sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly user: string;
  readonly group: string;
  /** Bytes of content that follow; 0 for all but files. */
  readonly size: number;
  /** Seconds since the epoch, may be negative. */
  readonly mtime: number;
  /** Of hard and symbolic links; empty for others. */
  readonly link: Buffer;
}

// ---------------------------------------------------------------- writing

/**
 * The blocks that stand before the content: the header, and records for a name or link target over 100 bytes. The same bytes as
 * `tar --format=gnu`.
 */
export function formatTarHeader(header: TarHeader): Buffer {
  const name =
    header.type === 'dir' && header.name.at(-1) !== 0x2f ? Buffer.concat([header.name, Buffer.from('/')]) : header.name;
  const parts: Buffer[] = [];
  if (header.link.length > 100) parts.push(...longRecord('K', header.link));
  if (name.length > 100) parts.push(...longRecord('L', name));
  const block = Buffer.alloc(TAR_BLOCK);
  name.copy(block, 0, 0, 100);
  putNumber(block, 100, 8, header.mode);
  putNumber(block, 108, 8, header.uid);
  putNumber(block, 116, 8, header.gid);
  putNumber(block, 124, 12, header.size);
  putNumber(block, 136, 12, header.mtime);
  block.write(FLAG_OF[header.type], 156, 'latin1');
  header.link.copy(block, 157, 0, 100);
  block.write('ustar  \0', 257, 'latin1');
  putName(block, 265, header.user);
  putName(block, 297, header.group);
  putChecksum(block);
  if (parts.length === 0) return block;
  return Buffer.concat([...parts, block]);
}

/** Zeros from the end of a file's content to the next block. */
export function tarPadding(size: number): number {
  return (TAR_BLOCK - (size % TAR_BLOCK)) % TAR_BLOCK;
}

/** The end of an archive that has `size` bytes so far: two empty blocks, then zeros to a whole record. */
export function tarEnd(size: number): Buffer {
  const end = size + 2 * TAR_BLOCK;
  return Buffer.alloc(2 * TAR_BLOCK + ((TAR_RECORD - (end % TAR_RECORD)) % TAR_RECORD));
}

function longRecord(flag: 'K' | 'L', value: Buffer): Buffer[] {
  const block = Buffer.alloc(TAR_BLOCK);
  block.write('././@LongLink', 0, 'latin1');
  putNumber(block, 100, 8, 0o644);
  putNumber(block, 108, 8, 0);
  putNumber(block, 116, 8, 0);
  putNumber(block, 124, 12, value.length + 1);
  putNumber(block, 136, 12, 0);
  block.write(flag, 156, 'latin1');
  block.write('ustar  \0', 257, 'latin1');
  putName(block, 265, 'root');
  putName(block, 297, 'root');
  putChecksum(block);
  return [block, value, Buffer.alloc(1 + tarPadding(value.length + 1))];
}

function putNumber(block: Buffer, offset: number, width: number, value: number): void {
  if (value >= 0 && value < 8 ** (width - 1)) {
    block.write(value.toString(8).padStart(width - 1, '0'), offset, 'latin1');
    return;
  }
  // base-256, two's complement: the first bit set marks it
  let rest = BigInt.asUintN(width * 8, BigInt(value)) | (1n << BigInt(width * 8 - 1));
  for (let index = width - 1; index >= 0; index -= 1) {
    block[offset + index] = Number(rest & 0xffn);
    rest >>= 8n;
  }
}

function putName(block: Buffer, offset: number, name: string): void {
  if (Buffer.byteLength(name) > 31) throw new RangeError(`user or group name too long for tar: ${name}`);
  block.write(name, offset, 'utf8');
}

function putChecksum(block: Buffer): void {
  block.write('        ', 148, 'latin1');
  block.write(`${checksum(block).toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}

/** Sum of all bytes with the checksum field itself counted as spaces. */
function checksum(block: Uint8Array): number {
  let sum = 8 * 0x20;
  for (let index = 0; index < 148; index += 1) sum += block[index]!;
  for (let index = 156; index < TAR_BLOCK; index += 1) sum += block[index]!;
  return sum;
}

// ---------------------------------------------------------------- reading

/** What `TarReader.push` finds, in order: each header is followed by exactly `size` bytes in `data` events. */
export type TarEvent = { readonly header: TarHeader } | { readonly data: Uint8Array };

/** Takes an archive in pieces of any size. Holds at most one block, or one long name, between calls. */
export interface TarReader {
  /** @throws UserError `tar-broken`, `tar-unsupported` */
  push(chunk: Uint8Array): TarEvent[];
  /** To be called once after the last piece. @throws UserError `tar-truncated` */
  end(): void;
}

/** @param place names the file and member in messages */
export function createTarReader(place: { readonly file?: string | undefined; readonly member: string }): TarReader {
  let pending: Buffer = Buffer.alloc(0); // the start of a block or of a long name whose rest is still to come
  let content = 0; // bytes of the current file still to come
  let padding = 0; // zeros still to come after it
  let long: { readonly flag: 'K' | 'L'; readonly size: number } | undefined;
  let longName: Buffer | undefined;
  let longLink: Buffer | undefined;
  let ended = false;
  let trailer = 0;

  function fail(code: string, what: string): never {
    throw new UserError(code, `${place.member}: ${what}`, { file: place.file });
  }

  function readHeader(block: Buffer): TarEvent | undefined {
    if (isEmpty(block)) {
      if (longName !== undefined || longLink !== undefined)
        fail('tar-broken', 'the archive ends after the record of a long name');
      ended = true;
      return undefined;
    }
    const header = parseTarHeader(block, longName, longLink);
    if (typeof header === 'string') fail('tar-broken', header);
    if ('unsupported' in header) fail('tar-unsupported', header.unsupported);
    if ('long' in header) {
      if (header.size > MAX_LONG_NAME) fail('tar-broken', `a name of ${header.size} bytes`);
      long = { flag: header.long, size: header.size };
      return undefined;
    }
    longName = undefined;
    longLink = undefined;
    content = header.size;
    padding = tarPadding(header.size);
    return { header };
  }

  function readLong(record: { readonly flag: 'K' | 'L' }, bytes: Buffer): void {
    const end = bytes.indexOf(0);
    const value = Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)); // a copy: the piece is the caller's to reuse
    if (record.flag === 'L') longName = value;
    else longLink = value;
    padding = tarPadding(bytes.length);
    long = undefined;
  }

  return {
    push(chunk) {
      const events: TarEvent[] = [];
      let rest: Buffer = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
      while (rest.length > 0) {
        if (ended) {
          trailer += rest.length;
          if (!isEmpty(rest)) fail('tar-broken', 'there is something after the end of the archive');
          if (trailer > MAX_TRAILER) fail('tar-broken', `more than ${MAX_TRAILER} zeros after the end of the archive`);
          break;
        }
        if (content > 0) {
          const data = rest.subarray(0, content);
          content -= data.length;
          rest = rest.subarray(data.length);
          events.push({ data });
          continue;
        }
        if (padding > 0) {
          const skipped = Math.min(padding, rest.length);
          padding -= skipped;
          rest = rest.subarray(skipped);
          continue;
        }
        const wanted = long === undefined ? TAR_BLOCK : long.size;
        const missing = wanted - pending.length;
        const piece = rest.subarray(0, missing);
        rest = rest.subarray(piece.length);
        if (piece.length < missing) {
          pending = Buffer.concat([pending, piece]);
          break;
        }
        const whole = pending.length === 0 ? piece : Buffer.concat([pending, piece]);
        pending = Buffer.alloc(0);
        if (long !== undefined) {
          readLong(long, whole);
          continue;
        }
        const event = readHeader(whole);
        if (event !== undefined) events.push(event);
      }
      return events;
    },
    end() {
      const between = pending.length === 0 && content === 0 && padding === 0 && long === undefined;
      if (ended || (between && longName === undefined && longLink === undefined)) return; // as tar and dpkg take it
      fail('tar-truncated', 'the archive is cut short');
    },
  };
}

/** Reads an archive that is whole in memory. */
export function readTar(
  archive: Uint8Array,
  place: { readonly file?: string | undefined; readonly member: string },
): { header: TarHeader; data: Buffer }[] {
  const reader = createTarReader(place);
  const entries: { header: TarHeader; data: Buffer }[] = [];
  for (const event of reader.push(archive)) {
    if ('header' in event) entries.push({ header: event.header, data: Buffer.alloc(0) });
    else entries.at(-1)!.data = event.data as Buffer; // one piece in, so the content is one piece too
  }
  reader.end();
  return entries;
}

type Parsed =
  | TarHeader
  | { readonly long: 'K' | 'L'; readonly size: number }
  | { readonly unsupported: string }
  | string;

/** One header block; a string says what is wrong with it. */
function parseTarHeader(block: Buffer, longName: Buffer | undefined, longLink: Buffer | undefined): Parsed {
  const name = longName ?? storedName(block);
  const shown = JSON.stringify(name.toString('utf8').slice(0, 200));
  if (readNumber(block, 148, 8) !== checksum(block)) return 'the checksum of a tar header is wrong';
  const size = readNumber(block, 124, 12);
  if (size === undefined || size < 0) return `${shown} has no valid size`;
  const flag = String.fromCharCode(block[156]!);
  if (flag === 'K' || flag === 'L') return { long: flag, size };
  const stored = TYPE_OF.get(flag);
  if (stored === undefined) return { unsupported: `${shown} is ${flagName(flag)}, which dpkg does not take` };
  const isFolder = stored === 'dir' || (stored === 'file' && name.at(-1) === 0x2f); // v7 marked folders by the slash alone
  const type = isFolder ? 'dir' : stored;
  if (size > 0 && type !== 'file') return `${shown} is no file, yet has ${size} bytes of content`;
  const [mode, uid, gid, mtime] = [
    readNumber(block, 100, 8),
    readNumber(block, 108, 8),
    readNumber(block, 116, 8),
    readNumber(block, 136, 12),
  ];
  if (mode === undefined || uid === undefined || gid === undefined || mtime === undefined)
    return `${shown} has a header field that is no number`;
  const isLink = type === 'symlink' || type === 'hardlink';
  return {
    name: type === 'dir' ? withoutSlash(name) : Buffer.from(name),
    type,
    mode: mode & 0o7777,
    uid,
    gid,
    user: text(block, 265, 32).toString('utf8'),
    group: text(block, 297, 32).toString('utf8'),
    size,
    mtime,
    link: isLink ? Buffer.from(longLink ?? text(block, 157, 100)) : Buffer.alloc(0),
  };
}

function flagName(flag: string): string {
  if (flag === 'x' || flag === 'g') return 'described by a pax header';
  if (flag === 'S') return 'a sparse file';
  return `of tar type ${JSON.stringify(flag)}`;
}

/** ustar splits a name in two; GNU's magic differs and its prefix area holds other things. */
function storedName(block: Buffer): Buffer {
  const name = text(block, 0, 100);
  const isUstar = block.toString('latin1', 257, 263) === 'ustar\0';
  if (!isUstar || block[345] === 0) return name;
  return Buffer.concat([text(block, 345, 155), Buffer.from('/'), name]);
}

function withoutSlash(name: Buffer): Buffer {
  let end = name.length;
  while (end > 1 && name[end - 1] === 0x2f) end -= 1;
  return Buffer.from(name.subarray(0, end));
}

function text(block: Buffer, offset: number, width: number): Buffer {
  const field = block.subarray(offset, offset + width);
  const end = field.indexOf(0);
  return end < 0 ? field : field.subarray(0, end);
}

/** Octal between optional blanks and zeros, or base-256; undefined when it is neither or too large to count exactly. */
function readNumber(block: Buffer, offset: number, width: number): number | undefined {
  const first = block[offset]!;
  if ((first & 0x80) !== 0) return readBase256(block, offset, width);
  let value = 0;
  let index = offset;
  const end = offset + width;
  while (index < end && block[index] === 0x20) index += 1;
  for (; index < end; index += 1) {
    const digit = block[index]! - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  for (; index < end; index += 1) if (block[index] !== 0x20 && block[index] !== 0) return undefined;
  return value;
}

function readBase256(block: Buffer, offset: number, width: number): number | undefined {
  let value = 0n;
  for (let index = 0; index < width; index += 1) value = (value << 8n) | BigInt(block[offset + index]!);
  const bits = width * 8 - 1; // the first bit is the mark, the second one the sign
  const signed = BigInt.asIntN(bits, value);
  return signed >= Number.MIN_SAFE_INTEGER && signed <= Number.MAX_SAFE_INTEGER ? Number(signed) : undefined;
}

const EMPTY = Buffer.alloc(64 * 1024);

function isEmpty(bytes: Buffer): boolean {
  if (bytes[0] !== 0) return false;
  for (let offset = 0; offset < bytes.length; offset += EMPTY.length) {
    const piece = bytes.subarray(offset, offset + EMPTY.length);
    if (piece.compare(EMPTY, 0, piece.length) !== 0) return false;
  }
  return true;
}
