import { randomBytes } from 'node:crypto';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import {
  type Compression,
  compressionOf,
  compressSmall,
  createCompressor,
  type StoredCompression,
} from '../../../src/deb/compression.ts';
import { decompress, decompressMembers } from '../../../src/deb/decompression.ts';
import { xzContentSize } from '../../../src/deb/xz.ts';
import { createZstdWalker } from '../../../src/deb/zstd.ts';
import { createScratch } from '../../support/deb-builder.ts';

const PLACE = { file: 'x.deb', member: 'control.tar' };
const LIMIT = 100_000;

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += size) yield bytes.subarray(offset, offset + size);
}

async function joined(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of source) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

async function member(bytes: Uint8Array, compression: StoredCompression): Promise<Buffer | UserError> {
  for await (const result of decompressMembers({}, [{ bytes, compression, place: PLACE }], LIMIT)) return result;
  throw new Error('no result');
}

describe('names', () => {
  it('knows the suffixes of deb(5) and no others', () => {
    const names = ['', '.gz', '.xz', '.zst', '.bz2', '.lzma', '.Z', '.xz.gz', 'x'];
    expect(names.map((suffix) => compressionOf(`data.tar${suffix}`, 'data.tar'))).toEqual([
      'none',
      'gzip',
      'xz',
      'zstd',
      'bzip2',
      'lzma',
      undefined,
      undefined,
      undefined,
    ]);
  });
});

describe('compressing in this process', () => {
  it.each<[Compression, (packed: Uint8Array) => Buffer]>([
    ['gzip', gunzipSync],
    ['zstd', zstdDecompressSync],
    ['none', Buffer.from],
  ])(
    '%s gives the same bytes however the content is cut, and whatever happens to the chunk later',
    async (compression, unpack) => {
      await using scratch = await createScratch();
      const content = Buffer.concat([Buffer.from('text '.repeat(20_000)), randomBytes(3000)]);
      const results: Buffer[] = [];
      for (const size of [content.length, 4096, 777]) {
        const path = scratch.at(String(size));
        const fd = openSync(path, 'w');
        await using compressor = createCompressor({}, compression, {}, fd);
        for await (const piece of pieces(content, size)) {
          const own = Buffer.from(piece);
          await compressor.write(own);
          own.fill(0);
        }
        await compressor.end();
        closeSync(fd);
        results.push(await readFile(path));
      }
      expect(unpack(results[0]!)).toEqual(content);
      expect(results[1]).toEqual(results[0]);
      expect(results[2]).toEqual(results[0]);
    },
  );

  it('writes gzip without name and time', async () => {
    const packed = await compressSmall('gzip', Buffer.from('x'));
    expect([...packed.subarray(0, 8)]).toEqual([0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
  });

  it('refuses levels that there are not', async () => {
    for (const [compression, level] of [
      ['gzip', 10],
      ['gzip', 0],
      ['zstd', 23],
      ['zstd', 1.5],
    ] as const) {
      await expect(compressSmall(compression, Buffer.from('x'), level)).rejects.toMatchObject({ code: 'bad-level' });
    }
    expect(() => createCompressor({}, 'xz', { level: 10 }, 1)).toThrow(UserError);
  });

  it('stops when its file cannot be written', async () => {
    await using scratch = await createScratch();
    const fd = openSync(await scratch.put('x', ''), 'r');
    for (const compression of ['gzip', 'zstd', 'none'] as const) {
      const work = async () => {
        await using compressor = createCompressor({}, compression, {}, fd);
        await compressor.write(randomBytes(1024 * 1024));
        await compressor.end();
      };
      await expect(work()).rejects.toMatchObject({ code: 'EBADF' });
    }
    closeSync(fd);
  });
});

describe('createZstdWalker', () => {
  it('finds the end of frames of every shape, however they are cut', () => {
    const settings = fc.record({ level: fc.constantFrom(1, 3, 19), checksum: fc.boolean(), isText: fc.boolean() });
    const cuts = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 10 });
    fc.assert(
      fc.property(fc.nat(200_000), settings, cuts, (size, { level, checksum, isText }, sizes) => {
        const content = isText ? Buffer.alloc(size, 'text') : randomBytes(size);
        const frame = zstdCompressSync(content, { params: { 100: level, 201: Number(checksum) } });
        const bytes = Buffer.concat([frame, frame]);
        const walk = createZstdWalker();
        let inside = 0;
        for (let offset = 0, turn = 0; offset < bytes.length; turn += 1) {
          const piece = bytes.subarray(offset, offset + sizes[turn % sizes.length]!);
          inside += walk(piece)!;
          offset += piece.length;
        }
        expect(inside).toBe(frame.length);
      }),
      { numRuns: 50 },
    );
  });

  it('takes nothing that does not start as a frame', () => {
    expect(createZstdWalker()(Buffer.from('no frame'))).toBeUndefined();
    expect(createZstdWalker()(Buffer.from([0x53, 0x2a, 0x4d, 0x18, 0]))).toBeUndefined();
  });
});

describe('xzContentSize', () => {
  it('takes no garbage, and never throws', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(xzContentSize(bytes)).toBeUndefined();
        expect(
          xzContentSize(
            Buffer.concat([Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0, 0, 4]), bytes, Buffer.from('YZ')]),
          ),
        ).toBeUndefined();
      }),
    );
  });
});

describe('many small members', () => {
  const content = Buffer.from('control '.repeat(5000));

  it.each<[StoredCompression, Buffer]>([
    ['none', content],
    ['gzip', gzipSync(content)],
    ['gzip', Buffer.concat([gzipSync(content.subarray(0, 999)), gzipSync(content.subarray(999))])],
    ['zstd', zstdCompressSync(content)],
  ])('decompresses %s', async (compression, packed) => {
    expect(await member(packed, compression)).toEqual(content);
  });

  it.each<[StoredCompression, Buffer]>([
    ['none', Buffer.alloc(LIMIT + 1)],
    ['gzip', gzipSync(Buffer.alloc(1_000_000_000))],
    ['zstd', zstdCompressSync(Buffer.alloc(1_000_000_000))],
  ])('stops a bomb in %s at the limit', async (compression, packed) => {
    expect(await member(packed, compression)).toMatchObject({
      code: 'deb-too-large',
      file: 'x.deb',
      message: expect.stringContaining('control.tar'),
    });
  });

  it.each<[StoredCompression, Uint8Array]>([
    ['gzip', gzipSync(content).subarray(0, -1)],
    ['gzip', content],
    ['zstd', zstdCompressSync(content).subarray(0, -1)],
    ['zstd', Buffer.concat([zstdCompressSync(content), zstdCompressSync(content)])],
    ['zstd', Buffer.concat([zstdCompressSync(content), Buffer.from('junk')])],
    ['zstd', content],
    ['xz', content],
    ['xz', new Uint8Array(0)],
    ['zstd', new Uint8Array(0)],
    ['gzip', new Uint8Array(0)],
    ['bzip2', content],
  ])('says that broken %s is broken, by file and member', async (compression, packed) => {
    expect(await member(packed, compression)).toMatchObject({
      code: 'deb-broken',
      file: 'x.deb',
      message: expect.stringContaining('control.tar'),
    });
  });

  it('a flipped byte of zstd with a checksum is found', async () => {
    const packed = zstdCompressSync(randomBytes(1000), { params: { 201: 1 } });
    packed[500]! ^= 1;
    expect(await member(packed, 'zstd')).toMatchObject({ code: 'deb-broken' });
  });
});

describe('decompressing a stream', () => {
  const content = Buffer.concat([randomBytes(100_000), Buffer.alloc(500_000)]);

  it.each<[StoredCompression, Buffer]>([
    ['none', content],
    ['gzip', gzipSync(content)],
    ['zstd', zstdCompressSync(content)],
  ])('%s', async (compression, packed) => {
    expect(await joined(decompress({}, compression, pieces(packed, 1000), PLACE))).toEqual(content);
  });

  it('says so when gzip is cut short', async () => {
    const cut = pieces(gzipSync(content).subarray(0, -5), 1000);
    await expect(joined(decompress({}, 'gzip', cut, PLACE))).rejects.toMatchObject({
      code: 'deb-broken',
      file: 'x.deb',
    });
  });

  it('passes on what the source throws', async () => {
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield gzipSync(content).subarray(0, 1000);
      throw new UserError('source-says-no', 'no');
    }
    await expect(joined(decompress({}, 'gzip', failing(), PLACE))).rejects.toMatchObject({ code: 'source-says-no' });
  });
});
