import { Readable } from 'node:stream';
import fc from 'fast-check';
import { extract } from 'tar-stream';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import {
  createTarReader,
  formatTarHeader,
  readTar,
  type TarEvent,
  type TarHeader,
  tarEnd,
  tarPadding,
} from '../../../src/deb/tar.ts';
import { rawTar, sealTarHeader, tarHeader } from '../../support/deb-builder.ts';

const PLACE = { file: 'x.deb', member: 'data.tar' };

function one(header: TarHeader, data = ''): TarHeader {
  const blocks = [formatTarHeader(header), Buffer.from(data), Buffer.alloc(tarPadding(data.length))];
  const size = blocks.reduce((sum, block) => sum + block.length, 0);
  return readTar(Buffer.concat([...blocks, tarEnd(size)]), PLACE)[0]!.header;
}

function failure(bytes: Uint8Array): UserError {
  try {
    readTar(bytes, PLACE);
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    return error as UserError;
  }
  throw new Error('taken as good');
}

describe('writing', () => {
  it('is the format of GNU tar, never pax', () => {
    const block = formatTarHeader(
      tarHeader({ name: './usr/bin/ü', mode: 0o4755, data: 'x', size: 1, mtime: 1_600_000_000 }),
    );
    expect(block).toHaveLength(512);
    expect(block.toString('latin1', 257, 265)).toBe('ustar  \0');
    expect(block.toString('latin1', 100, 156)).toBe(
      '0004755\0' +
        '0000000\0' +
        '0000000\0' +
        '00000000001\0' +
        '13727410000\0' +
        block.toString('latin1', 148, 154) +
        '\0 ',
    );
  });

  it('puts a name or target over 100 bytes into a record before the header, the target first', () => {
    const blocks = formatTarHeader(tarHeader({ name: `./${'n'.repeat(99)}`, type: 'symlink', link: 'l'.repeat(101) }));
    expect(blocks).toHaveLength(5 * 512);
    expect([0, 1024, 2048].map((at) => blocks.toString('latin1', at + 156, at + 157))).toEqual(['K', 'L', '2']);
    expect(
      formatTarHeader(tarHeader({ name: `./${'n'.repeat(98)}`, type: 'symlink', link: 'l'.repeat(100) })),
    ).toHaveLength(512);
  });

  it('ends with two empty blocks and fills a record of 10 kiB', () => {
    expect([0, 512, 10240 - 1024, 10240 - 512, 10240].map((size) => size + tarEnd(size).length)).toEqual([
      10240, 10240, 10240, 20480, 20480,
    ]);
  });

  it.each([
    ['a size over 8 GiB', { size: 9_000_000_000 }],
    ['a uid over 2 million', { uid: 3_000_000_000 }],
    ['a time before 1970', { mtime: -1 }],
    ['a time long before', { mtime: -12_345_678_901 }],
    ['a time beyond 2242', { mtime: 99_999_999_999 }],
  ] as const)('holds %s in base-256', (_title, numbers) => {
    const header = tarHeader({ name: './x', ...numbers });
    const reader = createTarReader(PLACE);
    expect(reader.push(formatTarHeader(header))).toEqual([{ header }]);
  });

  it('refuses a user name that would be cut off', () => {
    expect(() => formatTarHeader({ ...tarHeader({ name: './x' }), user: 'u'.repeat(32) })).toThrow(RangeError);
  });
});

const anyHeader = fc
  .record({
    name: fc.oneof(
      fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }),
      fc.stringMatching(/^[a-zé/]{90,300}[a-z]$/),
    ),
    type: fc.constantFrom('file', 'dir', 'symlink', 'hardlink', 'fifo', 'char-device', 'block-device'),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.oneof(fc.nat(70_000), fc.nat(4_294_967_295)),
    mtime: fc.oneof(fc.nat(2_000_000_000), fc.maxSafeInteger()),
    link: fc.stringMatching(/^[a-z/]{1,250}$/),
    data: fc.uint8Array({ maxLength: 1500 }),
  })
  .map(({ data, ...entry }): { header: TarHeader; data: Buffer } => {
    const content = Buffer.from(entry.type === 'file' ? data : []);
    const name = `./${entry.name.replaceAll('\0', '').replace(/\/+$/, '')}x`;
    const link = entry.type.endsWith('link') ? entry.link : '';
    return {
      header: tarHeader({ ...entry, type: entry.type as TarHeader['type'], name, link, size: content.length }),
      data: content,
    };
  });

function archive(entries: readonly { header: TarHeader; data: Buffer }[]): Buffer {
  const parts = entries.flatMap(({ header, data }) => [
    formatTarHeader(header),
    data,
    Buffer.alloc(tarPadding(data.length)),
  ]);
  return Buffer.concat([...parts, tarEnd(parts.reduce((sum, part) => sum + part.length, 0))]);
}

/** The same for every way of cutting: content joined. */
function joined(events: readonly TarEvent[]): { header: TarHeader; data: Buffer }[] {
  const entries: { header: TarHeader; data: Buffer }[] = [];
  for (const event of events) {
    if ('header' in event) entries.push({ header: event.header, data: Buffer.alloc(0) });
    else entries.at(-1)!.data = Buffer.concat([entries.at(-1)!.data, event.data]);
  }
  return entries;
}

describe('reading', () => {
  it('gives back what was written', () => {
    fc.assert(
      fc.property(fc.array(anyHeader, { maxLength: 6 }), (entries) => {
        expect(readTar(archive(entries), PLACE)).toEqual(entries);
      }),
    );
  });

  it('finds the same however the archive is cut into pieces', () => {
    const cuts = fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(fc.array(anyHeader, { maxLength: 4 }), cuts, (entries, sizes) => {
        const bytes = archive(entries);
        const reader = createTarReader(PLACE);
        const events: TarEvent[] = [];
        for (let offset = 0, turn = 0; offset < bytes.length; turn += 1) {
          const piece = Buffer.from(bytes.subarray(offset, offset + sizes[turn % sizes.length]!));
          events.push(
            ...reader.push(piece).map((event) => ('data' in event ? { data: Buffer.from(event.data) } : event)),
          );
          offset += piece.length;
          piece.fill(0xff); // the piece is the caller's to reuse
        }
        reader.end();
        expect(joined(events)).toEqual(entries);
      }),
      { numRuns: 50 },
    );
  });

  it('agrees with tar-stream where that agrees with dpkg', async () => {
    const plain = fc.array(anyHeader, { maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(plain, async (entries) => {
        const good = entries.filter(({ header }) => header.mtime >= 0 && header.mtime < 8_640_000_000_000);
        const seen: unknown[] = [];
        const reader = Readable.from([archive(good)]).pipe(extract());
        for await (const entry of reader) {
          const { name, type, mode, uid, size, mtime } = entry.header;
          seen.push([name.replace(/\/$/, ''), type, mode, uid, size, mtime!.getTime() / 1000]);
          entry.resume();
        }
        const types = {
          dir: 'directory',
          hardlink: 'link',
          'char-device': 'character-device',
          'block-device': 'block-device',
        };
        expect(seen).toEqual(
          good.map(({ header: { name, type, mode, uid, size, mtime } }) => [
            name.toString(),
            { ...types }[type as keyof typeof types] ?? type,
            mode,
            uid,
            size,
            mtime,
          ]),
        );
      }),
      { numRuns: 30 },
    );
  });

  it('skips through a file of 9 GB without holding it', () => {
    const size = 9_000_000_000;
    const piece = Buffer.alloc(8 * 1024 * 1024);
    const reader = createTarReader(PLACE);
    expect(reader.push(formatTarHeader(tarHeader({ name: './big', size })))).toHaveLength(1);
    let seen = 0;
    for (let left = size + tarPadding(size); left > 0; left -= piece.length) {
      for (const event of reader.push(piece.subarray(0, left))) seen += 'data' in event ? event.data.length : 0;
    }
    expect(reader.push(formatTarHeader(tarHeader({ name: './next' })))).toHaveLength(1);
    reader.push(tarEnd(0));
    reader.end();
    expect(seen).toBe(size);
  });

  it('reads ustar prefixes and the folders of v7', () => {
    const block = formatTarHeader(tarHeader({ name: 'bin/x' }));
    block.write('ustar\x0000', 257, 'latin1');
    block.write('./usr', 345, 'latin1');
    sealTarHeader(block);
    expect(readTar(block, PLACE)[0]!.header.name.toString()).toBe('./usr/bin/x');
    const old = formatTarHeader(tarHeader({ name: './usr/' }));
    old.fill(0, 257, 329);
    old[156] = 0;
    sealTarHeader(old);
    expect(readTar(old, PLACE)[0]!.header).toMatchObject({ type: 'dir', name: Buffer.from('./usr') });
  });

  it('keeps names that are not UTF-8 as bytes', () => {
    const name = Buffer.from([0x2e, 0x2f, 0xe9, 0xff]);
    expect(one({ ...tarHeader({ name: '' }), name }).name).toEqual(name);
  });

  it('takes an archive that ends between two entries without empty blocks, as tar and dpkg do', () => {
    expect(readTar(rawTar([{ name: './x', data: 'x' }], false), PLACE)).toHaveLength(1);
  });
});

describe('bad archives', () => {
  const good = rawTar([{ name: `./${'n'.repeat(150)}`, data: 'content' }], false);

  it('cut anywhere but between entries is an error', () => {
    for (let length = 1; length < good.length; length += 1) {
      expect(failure(good.subarray(0, length))).toMatchObject({ code: 'tar-truncated', file: 'x.deb' });
    }
  });

  it.each([
    ['a wrong checksum', () => Buffer.from(good).fill(0x41, 0, 1), 'tar-broken'],
    [
      'a pax header',
      () => rawTar([{ name: './PaxHeaders/x', data: '20 path=../evil\n', tamper: (b) => void b.write('x', 156) }]),
      'tar-unsupported',
    ],
    [
      'a global pax header',
      () => rawTar([{ name: './x', data: '20 path=../evil\n', tamper: (b) => void b.write('g', 156) }]),
      'tar-unsupported',
    ],
    ['a sparse file', () => rawTar([{ name: './x', tamper: (b) => void b.write('S', 156) }]), 'tar-unsupported'],
    ['a volume label', () => rawTar([{ name: './x', tamper: (b) => void b.write('V', 156) }]), 'tar-unsupported'],
    ['a folder with content', () => rawTar([{ name: './x', type: 'dir', size: 512 }]), 'tar-broken'],
    ['a link with content', () => rawTar([{ name: './x', type: 'symlink', link: 'y', size: 1 }]), 'tar-broken'],
    ['a negative size', () => rawTar([{ name: './x', tamper: (b) => void b.fill(0xff, 124, 136) }]), 'tar-broken'],
    [
      'a size beyond counting',
      () => rawTar([{ name: './x', tamper: (b) => void b.fill(0x7f, 125, 136).fill(0x80, 124, 125) }]),
      'tar-broken',
    ],
    ['a size in words', () => rawTar([{ name: './x', tamper: (b) => void b.write('many', 124) }]), 'tar-broken'],
    ['a mode in words', () => rawTar([{ name: './x', tamper: (b) => void b.write('rwx', 100) }]), 'tar-broken'],
    ['something after the end', () => Buffer.concat([rawTar([{ name: './x' }]), good]), 'tar-broken'],
    [
      'endless zeros after the end',
      () => Buffer.concat([rawTar([{ name: './x' }]), Buffer.alloc(17 * 1024 * 1024)]),
      'tar-broken',
    ],
    [
      'a name of a gigabyte',
      () => rawTar([{ name: './x', size: 1 << 30, tamper: (b) => void b.write('L', 156) }]),
      'tar-broken',
    ],
    ['a long name for nothing', () => Buffer.concat([good.subarray(0, 1024), Buffer.alloc(1024)]), 'tar-broken'],
  ])('%s is refused by name', (_title, bytes, code) => {
    const error = failure(bytes());
    expect(error).toMatchObject({ code, file: 'x.deb' });
    expect(error.message).toMatch(/^data\.tar: /);
  });

  it('never throws anything but UserError, whatever byte is changed', () => {
    const bytes = rawTar([
      { name: './dir', type: 'dir' },
      { name: `./${'n'.repeat(150)}`, data: 'content' },
      { name: './link', type: 'symlink', link: 'l'.repeat(120) },
    ]);
    const change = fc.record({ at: fc.nat(bytes.length - 1), to: fc.nat(255), seal: fc.boolean() });
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const bad = Buffer.from(bytes);
        for (const { at, to, seal } of changes) {
          bad[at] = to;
          if (seal) sealTarHeader(bad.subarray(at - (at % 512), at - (at % 512) + 512));
        }
        try {
          readTar(bad, PLACE);
        } catch (error) {
          expect(error).toBeInstanceOf(UserError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
