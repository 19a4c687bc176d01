import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { BLOCK_BYTES, createBlocks, type Supply } from '../../../src/proxy/blocks.ts';

function supplyOf(bytes: Buffer, there = bytes.length) {
  const reads: [number, number][] = [];
  const state = { there };
  const supply: Supply = {
    content: {},
    available: () => state.there,
    read(into, position, length) {
      reads.push([position, length]);
      return bytes.copy(into, 0, position, Math.min(position + length, state.there));
    },
  };
  return { supply, reads, state };
}

describe('blocks', () => {
  const bytes = randomBytes(3 * BLOCK_BYTES + 100_000);

  it('are read once for all who are sent the same bytes', () => {
    const blocks = createBlocks();
    const { supply, reads } = supplyOf(bytes);
    const got: Buffer[][] = [[], [], []];
    const positions = [0, 0, 0];
    while (positions.some((position) => position < bytes.length)) {
      const loans = positions.map((position) =>
        blocks.borrow(supply, position, Math.min(BLOCK_BYTES, bytes.length - position), bytes.length - position),
      );
      for (const [client, loan] of loans.entries()) {
        got[client]!.push(Buffer.from(loan!.bytes));
        positions[client]! += loan!.bytes.length;
        loan!.giveBack(false);
      }
    }
    for (const pieces of got) expect(Buffer.concat(pieces).equals(bytes)).toBe(true);
    expect(reads).toHaveLength(4);
  });

  it('grow with a body that is under way', () => {
    const blocks = createBlocks();
    const { supply, reads, state } = supplyOf(bytes, 70_001);
    const one = blocks.borrow(supply, 0, 70_001, bytes.length)!;
    const two = blocks.borrow(supply, 0, 70_001, bytes.length)!;
    state.there = 150_000;
    const three = blocks.borrow(supply, 70_001, 79_999, bytes.length - 70_001)!;
    expect(one.bytes.equals(bytes.subarray(0, 70_001))).toBe(true);
    expect(two.bytes.equals(one.bytes)).toBe(true);
    expect(three.bytes.equals(bytes.subarray(70_001, 150_000))).toBe(true);
    expect(reads).toEqual([
      [0, 70_001],
      [70_001, 79_999],
    ]);
  });

  it('never give bytes of one content for another, nor a buffer that somebody still has', () => {
    const blocks = createBlocks();
    const other = randomBytes(bytes.length);
    const [a, b] = [supplyOf(bytes), supplyOf(other)];
    const held = blocks.borrow(a.supply, 0, BLOCK_BYTES, bytes.length)!;
    const lost = blocks.borrow(a.supply, BLOCK_BYTES, BLOCK_BYTES, bytes.length)!;
    lost.giveBack(true);
    for (let round = 0; round < 200; round += 1) {
      const position = (round % 3) * BLOCK_BYTES;
      const fresh = { ...b.supply, content: {} };
      const loan = blocks.borrow(fresh, position, BLOCK_BYTES, bytes.length)!;
      expect(loan.bytes.equals(other.subarray(position, position + BLOCK_BYTES))).toBe(true);
      loan.giveBack(false);
      loan.giveBack(false); // twice is once
    }
    expect(held.bytes.equals(bytes.subarray(0, BLOCK_BYTES))).toBe(true);
    expect(lost.bytes.equals(bytes.subarray(BLOCK_BYTES, 2 * BLOCK_BYTES))).toBe(true);
  });

  it('serve those who are behind and those who want little without disturbing the rest', () => {
    const blocks = createBlocks();
    const { supply, reads } = supplyOf(bytes);
    const middle = blocks.borrow(supply, 100_000, 1000, bytes.length)!; // makes a block from there to its end
    const behind = blocks.borrow(supply, 5, 1000, bytes.length)!;
    const little = blocks.borrow(supply, bytes.length - 7, 7, 7)!;
    expect(middle.bytes.equals(bytes.subarray(100_000, 101_000))).toBe(true);
    expect(behind.bytes.equals(bytes.subarray(5, 1005))).toBe(true);
    expect(little.bytes.equals(bytes.subarray(-7))).toBe(true);
    expect(reads.at(-1)).toEqual([bytes.length - 7, 7]);
  });

  it('say when there is less than there should be', () => {
    const { supply } = supplyOf(bytes, 10);
    expect(createBlocks().borrow({ ...supply, available: () => 100 }, 50, 50, 50)).toBeUndefined();
    const failing = {
      ...supply,
      read: () => {
        throw new Error('EIO');
      },
    };
    expect(createBlocks().borrow(failing, 0, 50, 50)).toBeUndefined();
  });
});
