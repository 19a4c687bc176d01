/**
 * A look into npm tarballs before npm unpacks them: names that leave the folder, links, too much content.
 *
 * Secret: tar as npm packages have it (ustar with pax headers for long names). npm's unpacker leaves such entries out in silence,
 * and a package with holes would come out; here they are an error.
 */
import { pipeline, Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { UserError } from '../../core/errors.ts';
import { formatBytes, printable } from '../../core/log.ts';

const BLOCK = 512;
/** Of one package, unpacked. The largest known ones have about 0.5 GB. */
const MAX_UNPACKED_BYTES = 4e9;
const MAX_PAX_BYTES = 1 << 20;

/**
 * Reads a whole tarball and looks at every name in it.
 * @param name of the package, for messages
 * @throws UserError `unsafe-tarball`, `broken-tarball`
 */
export async function inspectTarball(source: AsyncIterable<Uint8Array>, name: string): Promise<void> {
  const bytes = byteReader(await unpacked(source, name));
  let longName: string | undefined;
  let entries = 0;
  let total = 0;
  for (;;) {
    const block = await bytes.read(BLOCK);
    if (block.length === 0 || block.every((byte) => byte === 0)) break;
    if (block.length < BLOCK) throw broken(name, 'it is cut short');
    const size = parseSize(block);
    if (size === undefined || !hasRightChecksum(block)) throw broken(name, 'it is no tar archive');
    const flag = String.fromCharCode(block[156]!);
    if (flag === 'x' || flag === 'L') {
      if (size > MAX_PAX_BYTES) throw broken(name, `it has a header of ${formatBytes(size)}`);
      const blocks = await bytes.read(padded(size));
      if (blocks.length < padded(size)) throw broken(name, 'it is cut short');
      const body = blocks.subarray(0, size);
      longName = (flag === 'x' ? paxPath(body) : body.toString('utf8').replace(/\0.*$/s, '')) ?? longName;
      continue;
    }
    if ((await bytes.skip(padded(size))) < padded(size)) throw broken(name, 'it is cut short');
    if (flag === 'g' || flag === 'K') continue;
    const path = longName ?? storedName(block);
    longName = undefined;
    entries += 1;
    total += size;
    if (total > MAX_UNPACKED_BYTES) throw unsafe(name, `it unpacks to more than ${formatBytes(MAX_UNPACKED_BYTES)}`);
    refuseName(name, path);
    if (!['\0', '0', '5', '7'].includes(flag))
      throw unsafe(name, `'${printable(path)}' in it is a link or a device, which npm packages cannot have`);
  }
  await bytes.skip(Number.POSITIVE_INFINITY); // the checksum of gzip comes last
  if (entries === 0) throw broken(name, 'it holds nothing');
}

/** Throws what is wrong with the gzip stream as `broken-tarball`. */
async function unpacked(source: AsyncIterable<Uint8Array>, name: string): Promise<AsyncGenerator<Uint8Array>> {
  const chunks = source[Symbol.asyncIterator]();
  const first = await chunks.next();
  if (first.done) throw broken(name, 'it is empty');
  const isGzip = first.value[0] === 0x1f && first.value[1] === 0x8b;
  async function* whole(): AsyncGenerator<Uint8Array> {
    for (let next = first; !next.done; next = await chunks.next()) yield next.value;
  }
  async function* plain(): AsyncGenerator<Uint8Array> {
    const gunzip = createGunzip();
    pipeline(Readable.from(whole()), gunzip, () => {}); // an error of either ends the loop below
    try {
      yield* gunzip as AsyncIterable<Uint8Array>;
    } catch (cause) {
      throw broken(name, 'it is not whole', cause);
    }
  }
  return isGzip ? plain() : whole();
}

interface ByteReader {
  /** Fewer at the end. */
  read(count: number): Promise<Buffer>;
  /** @returns how many there were to skip */
  skip(count: number): Promise<number>;
}

function byteReader(source: AsyncGenerator<Uint8Array>): ByteReader {
  let held: Uint8Array = new Uint8Array(0);
  /** Hands out what comes next, at most `count` bytes; undefined at the end. */
  async function next(count: number): Promise<Uint8Array | undefined> {
    while (held.length === 0) {
      const chunk = await source.next();
      if (chunk.done) return undefined;
      held = chunk.value;
    }
    const piece = held.subarray(0, count);
    held = held.subarray(piece.length);
    return piece;
  }
  return {
    async read(count) {
      const pieces: Uint8Array[] = [];
      let missing = count;
      while (missing > 0) {
        const piece = await next(missing);
        if (piece === undefined) break;
        pieces.push(piece);
        missing -= piece.length;
      }
      return Buffer.concat(pieces);
    },
    async skip(count) {
      let skipped = 0;
      while (skipped < count) {
        const piece = await next(count - skipped);
        if (piece === undefined) break;
        skipped += piece.length;
      }
      return skipped;
    },
  };
}

function padded(size: number): number {
  return Math.ceil(size / BLOCK) * BLOCK;
}

function refuseName(name: string, path: string): void {
  if (path.startsWith('/')) throw unsafe(name, `'${printable(path)}' in it is an absolute path`);
  if (path.split('/').includes('..')) throw unsafe(name, `'${printable(path)}' in it leaves the package's own folder`);
  if (path.includes('\0')) throw unsafe(name, `'${printable(path)}' in it holds a NUL character`);
}

function unsafe(name: string, what: string): UserError {
  return new UserError('unsafe-tarball', `the tarball of '${printable(name)}' is not safe to unpack: ${what}`, {
    hint: 'nothing was unpacked; whoever made it either erred or means harm: do not use this package',
  });
}

function broken(name: string, what: string, cause?: unknown): UserError {
  return new UserError('broken-tarball', `the tarball of '${printable(name)}' cannot be read: ${what}`, {
    hint: 'make it again with npm pack, or fetch it again',
    cause,
  });
}

/** Octal, or base-256 for more than 8 GiB. */
function parseSize(block: Buffer): number | undefined {
  if ((block[124]! & 0x80) !== 0) return undefined; // no npm package has a file of 8 GiB
  const text = block.toString('latin1', 124, 136).replace(/[\0 ].*$/s, '');
  return /^[0-7]*$/.test(text) ? Number.parseInt(text || '0', 8) : undefined;
}

function hasRightChecksum(block: Buffer): boolean {
  const text = block.toString('latin1', 148, 156).replaceAll(/[\0 ]/g, '');
  let sum = 0;
  for (const [index, byte] of block.entries()) sum += index >= 148 && index < 156 ? 0x20 : byte;
  return Number.parseInt(text, 8) === sum;
}

function storedName(block: Buffer): string {
  const name = cString(block, 0, 100);
  const prefix = block.toString('latin1', 257, 262) === 'ustar' ? cString(block, 345, 155) : '';
  return prefix === '' || block[263] === 0x20 ? name : `${prefix}/${name}`;
}

function cString(block: Buffer, offset: number, width: number): string {
  return block.toString('utf8', offset, offset + width).replace(/\0.*$/s, '');
}

/** `LENGTH path=VALUE\n` records. */
function paxPath(body: Buffer): string | undefined {
  for (let at = 0; at < body.length; ) {
    const space = body.indexOf(0x20, at);
    const length = Number(body.toString('latin1', at, space));
    if (space < 0 || !Number.isInteger(length) || length <= 0) return undefined;
    const record = body.toString('utf8', space + 1, at + length - 1);
    if (record.startsWith('path=')) return record.slice(5);
    at += length;
  }
  return undefined;
}
