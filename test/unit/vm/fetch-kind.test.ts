import { describe, expect, it } from 'vitest';
import { checkQcow2, kindOf } from '../../../src/vm/fetch-kind.ts';

const bytes = (hex: string) => Buffer.concat([Buffer.from(hex, 'hex'), Buffer.alloc(512)]);

describe('kindOf', () => {
  it.each([
    ['1f8b0800', 'gz'],
    ['fd377a585a00', 'xz'],
    ['28b52ffd', 'zst'],
    ['514649fb00000003', 'qcow2'],
    ['eb6390', 'raw'],
    ['00', 'raw'],
  ])('%s is %s', (hex, kind) => {
    expect(kindOf(bytes(hex), 'x')).toBe(kind);
  });

  it.each([
    [bytes('4b444d56'), 'a VMware disk'],
    [bytes('425a6839'), 'packed with bzip2'],
    [Buffer.from('\n<!DOCTYPE html><title>404'), 'a web page'],
    [Buffer.alloc(0), 'empty'],
  ])('%#: says what it is instead', (head, what) => {
    expect(() => kindOf(head, 'x')).toThrow(
      expect.objectContaining({ code: 'image-kind', message: expect.stringContaining(what) }),
    );
  });
});

describe('checkQcow2', () => {
  const header = (change: (header: Buffer) => void) => {
    const head = Buffer.alloc(512);
    head.writeUInt32BE(0x514649fb, 0);
    head.writeUInt32BE(3, 4);
    head.writeBigUInt64BE(5n * 2n ** 30n, 24);
    change(head);
    return head;
  };

  it('tells the size of the virtual disk', () => {
    expect(
      checkQcow2(
        header(() => {}),
        'x',
      ),
    ).toBe(5 * 2 ** 30);
  });

  it('refuses what makes QEMU read other files of this machine', () => {
    const foreign = expect.objectContaining({ code: 'image-foreign-file' });
    expect(() =>
      checkQcow2(
        header((head) => head.writeBigUInt64BE(200n, 8)),
        'x',
      ),
    ).toThrow(foreign);
    expect(() =>
      checkQcow2(
        header((head) => head.writeUInt32BE(4, 76)),
        'x',
      ),
    ).toThrow(foreign);
  });

  it('refuses a header that is cut off', () => {
    expect(() => checkQcow2(Buffer.alloc(50), 'x')).toThrow(expect.objectContaining({ code: 'image-kind' }));
  });
});
