/**
 * The .xz container seen from outside: how large its content is and where its parts lie, without decoding any.
 *
 * Secret: stream header and footer, index, block headers, LZMA2 chunk headers. Ruled by "The .xz File Format" 1.2.0.
 *
 * Needed because one xz process decodes many members at once, concatenated: their sizes are the only thing that tells
 * where one member's output ends, so a member must not be able to lie about its own or to swallow its neighbour.
 * `xzContentSize` therefore walks the chunks of each block as the decoder will; xz itself then checks index and checksums.
 */

const STREAM_MAGIC = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);
const HEADER_SIZE = 12;
const FOOTER_SIZE = 12;
/** By check id, section 2.1.1.2. */
const CHECK_SIZES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64] as const;

/**
 * Bytes that `file` decodes to; undefined when it is not exactly one well-formed stream. More than one, or padding, are not taken:
 * dpkg reads the first stream only.
 */
export function xzContentSize(file: Uint8Array): number | undefined {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.length);
  const end = bytes.length;
  if (end < HEADER_SIZE + FOOTER_SIZE || bytes.compare(STREAM_MAGIC, 0, 6, 0, 6) !== 0) return undefined;
  if (bytes.toString('latin1', end - 2) !== 'YZ') return undefined;
  const flags = bytes[7]!;
  if (bytes[6] !== 0 || flags >= CHECK_SIZES.length || bytes[end - 4] !== 0 || bytes[end - 3] !== flags)
    return undefined;
  const indexStart = end - FOOTER_SIZE - (bytes.readUInt32LE(end - 8) + 1) * 4;
  if (indexStart < HEADER_SIZE) return undefined;
  let offset = HEADER_SIZE;
  let contentSize = 0;
  const blocks = readIndex(bytes, indexStart, end - FOOTER_SIZE);
  if (blocks === undefined) return undefined;
  for (const block of blocks) {
    if (!isBlock(bytes, offset, block.unpaddedSize, CHECK_SIZES[flags]!)) return undefined;
    offset += roundUp4(block.unpaddedSize);
    contentSize += block.contentSize;
  }
  return offset === indexStart && contentSize <= Number.MAX_SAFE_INTEGER ? contentSize : undefined;
}

interface IndexRecord {
  readonly unpaddedSize: number;
  readonly contentSize: number;
}

/** The index fills [start, end) exactly, its CRC32 included. */
function readIndex(bytes: Buffer, start: number, end: number): IndexRecord[] | undefined {
  if (bytes[start] !== 0) return undefined;
  const cursor = { offset: start + 1 };
  const count = readVli(bytes, cursor, end);
  if (count === undefined || count > end - start) return undefined;
  const records: IndexRecord[] = [];
  for (let index = 0; index < count; index += 1) {
    const unpaddedSize = readVli(bytes, cursor, end);
    const contentSize = readVli(bytes, cursor, end);
    if (unpaddedSize === undefined || contentSize === undefined || unpaddedSize === 0) return undefined;
    records.push({ unpaddedSize, contentSize });
  }
  return roundUp4(cursor.offset - start) + 4 === end - start ? records : undefined;
}

/** True where a block of this size starts at `offset` and its LZMA2 chunks end exactly where its check begins. */
function isBlock(bytes: Buffer, offset: number, unpaddedSize: number, checkSize: number): boolean {
  const headerSize = (bytes[offset]! + 1) * 4;
  const end = offset + unpaddedSize - checkSize;
  if (bytes[offset] === 0 || end > bytes.length) return false;
  let at = offset + headerSize;
  while (at < end) {
    const control = bytes[at]!;
    if (control === 0) return at + 1 === end;
    if (control === 1 || control === 2) at += 3 + bytes.readUInt16BE(at + 1) + 1;
    else if (control >= 0x80) at += 5 + (control >= 0xc0 ? 1 : 0) + bytes.readUInt16BE(at + 3) + 1;
    else return false;
  }
  return false;
}

/** Variable-length integer, section 1.2: seven bits a byte, the least first. */
function readVli(bytes: Buffer, cursor: { offset: number }, end: number): number | undefined {
  let value = 0;
  for (let shift = 0; shift < 49; shift += 7) {
    if (cursor.offset >= end) return undefined;
    const byte = bytes[cursor.offset]!;
    cursor.offset += 1;
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) return value;
  }
  return undefined; // 2^49 bytes: no .deb holds that
}

function roundUp4(size: number): number {
  return Math.ceil(size / 4) * 4;
}
