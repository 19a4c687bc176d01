/**
 * Compressed indexes put together from pieces that were compressed once.
 *
 * Secret: how pieces are joined. gzip members are simply written one after the other (RFC 1952 2.2). xz is not: apt reads only
 * the first of several streams, so blocks are joined into ONE stream with a new index and footer (xz file format 1.2.1). zstd
 * frames are written one after the other (RFC 8878 3); node:zlib alone does not read more than one.
 */
import { promisify } from 'node:util';
import { constants, crc32, gzip, zstdCompress } from 'node:zlib';
import type { RunContext } from '../core/context.ts';
import { ToolError } from '../core/errors.ts';
import { start } from '../core/run.ts';
import { PLAIN_XZ } from '../deb/compression.ts';

/** One xz block with its padding, and what the index of a stream says of it. */
export interface XzBlock {
  readonly bytes: Uint8Array;
  readonly unpaddedSize: number;
  readonly uncompressedSize: number;
}

/** CRC64 as integrity check, as xz writes by default. */
const STREAM_FLAGS = Buffer.from([0x00, 0x04]);
const HEADER_MAGIC = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);
const FOOTER_MAGIC = Buffer.from('YZ');
const HEADER_BYTES = 12;
const FOOTER_BYTES = 12;

/** Small dictionaries: a block is some 100 kB, and the decoder of every client allocates what is said here. */
const XZ_FILTER = '--lzma2=preset=4,dict=512KiB';
/** Blocks longer than this are cut by xz itself in threaded mode. */
const XZ_BLOCK_LIMIT = 16 * 1024 * 1024;
/** Uncompressed bytes given to one xz process: bounds memory. */
const XZ_BATCH_BYTES = 12 * 1024 * 1024;

const gzipAsync = promisify(gzip);
const zstdAsync = promisify(zstdCompress);

/** One gzip member. Same bytes for the same text: no name, no time. */
export function gzipMember(text: Uint8Array): Promise<Uint8Array> {
  return gzipAsync(text, { level: 9 });
}

/** One zstd frame; apt reads as many as follow each other. */
export function zstdFrame(text: Uint8Array): Promise<Uint8Array> {
  const params = { [constants.ZSTD_c_compressionLevel]: 19, [constants.ZSTD_c_checksumFlag]: 1 };
  return zstdAsync(text, { params });
}

/** Each text as one xz block, with as few processes as memory allows. */
export async function xzBlocks(context: RunContext, texts: readonly Uint8Array[]): Promise<XzBlock[]> {
  const blocks: XzBlock[] = [];
  for (let from = 0; from < texts.length; ) {
    let to = from;
    for (let size = 0; to < texts.length && (to === from || size + texts[to]!.length <= XZ_BATCH_BYTES); to += 1) {
      size += texts[to]!.length;
    }
    blocks.push(...(await xzBatch(context, texts.slice(from, to))));
    from = to;
  }
  return blocks;
}

async function xzBatch(context: RunContext, texts: readonly Uint8Array[]): Promise<XzBlock[]> {
  const sizes = texts.map((text) => text.length);
  // a lone text larger than the limit is one block only without threads
  const threaded = texts.length > 1 && Math.max(...sizes) <= XZ_BLOCK_LIMIT;
  const args = ['--compress', '--stdout', '--check=crc64', XZ_FILTER, `--block-list=${sizes.join(',')}`];
  args.push(...(threaded ? ['-T2', `--block-size=${XZ_BLOCK_LIMIT}`] : ['-T1']));
  await using xz = start(context, 'xz', args, { env: PLAIN_XZ });
  const chunks: Buffer[] = [];
  const collect = (async () => {
    for await (const chunk of xz.stdout) chunks.push(chunk as Buffer);
  })();
  xz.stdin.on('error', () => {}); // xz ended early: `ended` says why
  xz.stdin.end(texts.length === 1 ? texts[0] : Buffer.concat(texts));
  await Promise.all([collect, xz.ended]);
  const blocks = splitXz(Buffer.concat(chunks));
  if (blocks.length !== texts.length || blocks.some((block, index) => block.uncompressedSize !== sizes[index])) {
    throw new ToolError('tool-output', "'xz' did not make the blocks it was asked for", {
      command: `xz ${args.join(' ')}`,
    });
  }
  return blocks;
}

/** The blocks of a single-stream xz file with CRC64 checks. */
function splitXz(file: Buffer): XzBlock[] {
  const footer = file.length - FOOTER_BYTES;
  if (
    footer < HEADER_BYTES ||
    !file.subarray(0, 6).equals(HEADER_MAGIC) ||
    !file.subarray(footer + 10).equals(FOOTER_MAGIC)
  ) {
    throw new RangeError('not a whole xz stream');
  }
  if (!file.subarray(6, 8).equals(STREAM_FLAGS)) throw new RangeError('xz stream with another integrity check');
  let at = footer - (file.readUInt32LE(footer + 4) + 1) * 4;
  if (file[at] !== 0) throw new RangeError('xz stream without an index');
  at += 1;
  const number = (): number => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = file[at]!;
      at += 1;
      value += (byte & 0x7f) * shift;
      if (byte < 0x80) return value;
    }
  };
  const blocks: XzBlock[] = [];
  let offset = HEADER_BYTES;
  for (let left = number(); left > 0; left -= 1) {
    const unpaddedSize = number();
    const uncompressedSize = number();
    const end = offset + padded(unpaddedSize);
    blocks.push({ bytes: file.subarray(offset, end), unpaddedSize, uncompressedSize });
    offset = end;
  }
  return blocks;
}

/** What stands before the first block. */
export function xzHeader(): Uint8Array {
  return Buffer.concat([HEADER_MAGIC, STREAM_FLAGS, uint32(crc32(STREAM_FLAGS))]);
}

/** What stands after the last block: the index of all blocks, in order, and the footer. */
export function xzTrailer(blocks: Iterable<Pick<XzBlock, 'unpaddedSize' | 'uncompressedSize'>>): Uint8Array {
  const records: number[] = [];
  let count = 0;
  for (const block of blocks) {
    count += 1;
    pushNumber(records, block.unpaddedSize);
    pushNumber(records, block.uncompressedSize);
  }
  const body: number[] = [0];
  pushNumber(body, count);
  const unpadded = Buffer.concat([Buffer.from(body), Buffer.from(records)]);
  const index = Buffer.concat([unpadded, Buffer.alloc(padded(unpadded.length) - unpadded.length)]);
  const backward = Buffer.concat([uint32((index.length + 4) / 4 - 1), STREAM_FLAGS]);
  return Buffer.concat([index, uint32(crc32(index)), uint32(crc32(backward)), backward, FOOTER_MAGIC]);
}

/** Variable-length integers of the xz format: seven bits a byte, lowest first. */
function pushNumber(bytes: number[], value: number): void {
  let rest = value;
  while (rest >= 128) {
    bytes.push((rest % 128) | 0x80);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
}

function padded(size: number): number {
  return Math.ceil(size / 4) * 4;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}
