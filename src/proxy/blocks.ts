/**
 * Pieces of large files on their way to clients, read once for all who are sent the same bytes at about the same time.
 *
 * Secret: the buffers. A block is shared while somebody is sent it and for a short while after; one at the front of a body under
 * way grows as the body does. A buffer is used anew only when no socket has any of it.
 */
export interface Loan {
  readonly bytes: Buffer;
  /** When they were sent. `lost`: something may still read them, so that the buffer is not used again. */
  giveBack(lost: boolean): void;
}

/** Where bytes come from. */
export interface Supply {
  /** Changes when the bytes do. */
  readonly content: object;
  /** How many there are so far. */
  available(): number;
  /** Copies bytes from `position` on to the start of `into`; returns how many. */
  read(into: Buffer, position: number, length: number): number;
}

export interface Blocks {
  /**
   * Up to `length` available bytes from `position` on. Undefined: there are fewer than there should be.
   * @param rest how many the client will take from `position` on, sooner or later
   */
  borrow(supply: Supply, position: number, length: number, rest: number): Loan | undefined;
}

export const BLOCK_BYTES = 256 * 1024;
/** Blocks that nobody is being sent. */
const IDLE_BLOCKS = 16;
/** A shorter piece is not worth a block that others may want. */
const WORTH_SHARING = 64 * 1024;

interface Block {
  readonly buffer: Buffer;
  readonly place: number;
  /** Where its buffer begins; it ends where its place ends. */
  readonly start: number;
  /** Undefined: not shared. */
  readonly home: Map<number, Block> | undefined;
  filled: number;
  users: number;
  lost: boolean;
}

export function createBlocks(): Blocks {
  const byContent = new WeakMap<object, Map<number, Block>>();
  const idle = new Set<Block>();
  const spare: Buffer[] = [];

  function evict(block: Block): void {
    idle.delete(block);
    block.home?.delete(block.place);
    if (!block.lost && spare.length < IDLE_BLOCKS) spare.push(block.buffer);
  }

  function freshBuffer(): Buffer {
    if (spare.length === 0 && idle.size >= IDLE_BLOCKS) evict(idle.values().next().value!);
    return spare.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES);
  }

  function homeOf(content: object): Map<number, Block> {
    let home = byContent.get(content);
    if (!home) {
      home = new Map();
      byContent.set(content, home);
    }
    return home;
  }

  function blockFor(supply: Supply, position: number, rest: number): Block {
    const place = Math.floor(position / BLOCK_BYTES);
    const home = homeOf(supply.content);
    const shared = home.get(place);
    if (shared && position >= shared.start && position <= shared.start + shared.filled) return shared;
    const alone = shared !== undefined || rest < WORTH_SHARING;
    const block = { buffer: freshBuffer(), place, start: position, filled: 0, users: 0, lost: false };
    if (alone) return { ...block, home: undefined };
    const sharing = { ...block, home };
    home.set(place, sharing);
    return sharing;
  }

  function giveBack(block: Block, lost: boolean): void {
    block.users -= 1;
    block.lost ||= lost;
    if (block.users > 0) return;
    if (block.home === undefined || block.lost) evict(block);
    else {
      idle.add(block);
      if (idle.size > IDLE_BLOCKS) evict(idle.values().next().value!);
    }
  }

  function fill(block: Block, supply: Supply, until: number): void {
    while (block.filled < until) {
      const rest = block.buffer.subarray(block.filled, until);
      const got = supply.read(rest, block.start + block.filled, rest.length);
      if (got <= 0) return;
      block.filled += got;
    }
  }

  return {
    borrow(supply, position, length, rest) {
      const block = blockFor(supply, position, rest);
      block.users += 1;
      idle.delete(block);
      const from = position - block.start;
      const end = (block.place + 1) * BLOCK_BYTES;
      const wanted = Math.min(from + length, end - block.start);
      if (block.filled < wanted) {
        // to others the whole of it is worth as much
        const most = block.home === undefined ? wanted : Math.min(end, supply.available()) - block.start;
        try {
          fill(block, supply, Math.max(wanted, most));
        } catch {
          // what is there is given; the rest is missing
        }
      }
      const bytes = block.buffer.subarray(from, Math.min(wanted, block.filled));
      if (bytes.length === 0) {
        giveBack(block, false);
        return undefined;
      }
      let given = false;
      return {
        bytes,
        giveBack(lost) {
          if (given) return;
          given = true;
          giveBack(block, lost);
        },
      };
    },
  };
}
