import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import { AR_MAX_SIZE, arPadding, formatArHeader, parseArHeader } from '../../../src/deb/ar.ts';

describe('formatArHeader', () => {
  it('writes the sixty bytes that dpkg-deb writes', () => {
    expect(formatArHeader('data.tar.xz', 4242, 1_700_000_000).toString('latin1')).toBe(
      'data.tar.xz     1700000000  0     0     100644  4242      `\n',
    );
  });

  it('takes ten digits of size and refuses eleven with a code', () => {
    expect(parseArHeader(formatArHeader('data.tar', AR_MAX_SIZE, 0))).toEqual({
      name: 'data.tar',
      size: 9_999_999_999,
    });
    try {
      formatArHeader('data.tar', AR_MAX_SIZE + 1, 0);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(UserError);
      expect(error).toMatchObject({ code: 'deb-too-big', message: expect.stringContaining('data.tar') });
    }
  });

  it('refuses names and times that do not fit', () => {
    for (const name of ['', 'sixteen-letters!', 'a/b', 'a b', 'é'])
      expect(() => formatArHeader(name, 0, 0)).toThrow(RangeError);
    for (const mtime of [-1, 1.5, 1e12]) expect(() => formatArHeader('x', 0, mtime)).toThrow(RangeError);
  });

  it('reads back what it wrote', () => {
    const name = fc.stringMatching(/^[!-.0-~]{1,15}$/);
    const size = fc.integer({ min: 0, max: AR_MAX_SIZE });
    fc.assert(
      fc.property(name, size, (one, bytes) => {
        expect(parseArHeader(formatArHeader(one, bytes, 0))).toEqual({ name: one, size: bytes });
      }),
    );
  });
});

describe('parseArHeader', () => {
  const header = (name: string, size: string, end = '`\n') =>
    Buffer.from(
      `${name.padEnd(16)}${'0'.padEnd(12)}${'0'.padEnd(6)}${'0'.padEnd(6)}${'100644'.padEnd(8)}${size.padEnd(10)}${end}`,
      'latin1',
    );

  it('drops the slash that GNU ar puts after a name, as dpkg does', () => {
    expect(parseArHeader(header('debian-binary/', '4'))).toEqual({ name: 'debian-binary', size: 4 });
  });

  it.each([
    ['no end mark', header('data.tar', '4', 'xx'), /no ar header/],
    ['an empty name', header('', '4'), /name that dpkg does not take/],
    ['a table of long names', header('//', '4'), /name that dpkg does not take/],
    ['a name in such a table', header('/12', '4'), /name that dpkg does not take/],
    ['a size that is no number', header('data.tar', '0x10'), /'data.tar' is no number/],
    ['a negative size', header('data.tar', '-4'), /is no number/],
    ['no size', header('data.tar', ''), /is no number/],
  ])('says what is wrong: %s', (_title, bytes, reason) => {
    expect(parseArHeader(bytes)).toMatch(reason);
  });

  it('pads odd sizes', () => {
    expect([0, 1, 2, 3].map(arPadding)).toEqual([0, 1, 0, 1]);
  });
});
