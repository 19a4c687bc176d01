/**
 * The Zstandard container seen from outside: where the first frame ends, without decoding it.
 *
 * Secret: frame and block headers. Ruled by RFC 8878. Needed because dpkg reads one frame and no more, while node:zlib reads a
 * second one or not depending on how the input was cut: what we see of a package must be what dpkg sees.
 */

const FRAME_MAGIC = 0xfd2fb528;

/** Says of each piece, in order, how many of its bytes belong to the first frame; undefined when none starts there. */
export type ZstdWalker = (piece: Uint8Array) => number | undefined;

export function createZstdWalker(): ZstdWalker {
  let header = Buffer.alloc(0); // of the frame or of a block, as far as it has come
  let wanted = 5; // bytes of header before the next decision
  let step: 'start' | 'block' | 'done' = 'start';
  let skip = 0; // bytes of content before the next header
  let checksum = 0;

  /** A header is whole: what comes next. */
  function decide(): boolean {
    if (step === 'start') {
      if (header.readUInt32LE(0) !== FRAME_MAGIC) return false;
      const descriptor = header[4]!;
      const isSingleSegment = (descriptor & 0x20) !== 0;
      checksum = (descriptor & 4) !== 0 ? 4 : 0;
      const sizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
      skip = (isSingleSegment ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]! + sizeBytes;
      step = 'block';
    } else {
      const block = header.readUIntLE(0, 3);
      const isLast = (block & 1) !== 0;
      const isRunLength = ((block >> 1) & 3) === 1;
      skip = (isRunLength ? 1 : block >> 3) + (isLast ? checksum : 0);
      step = isLast ? 'done' : 'block';
    }
    header = Buffer.alloc(0);
    wanted = 3;
    return true;
  }

  return (piece) => {
    let offset = 0;
    while (offset < piece.length) {
      const skipped = Math.min(skip, piece.length - offset);
      skip -= skipped;
      offset += skipped;
      if (skip > 0) break;
      if (step === 'done') return offset;
      const part = piece.subarray(offset, offset + wanted - header.length);
      header = Buffer.concat([header, part]);
      offset += part.length;
      if (header.length === wanted && !decide()) return undefined;
    }
    return offset;
  };
}
