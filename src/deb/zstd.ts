/**
 * The Zstandard container seen from outside: where each frame ends, without decoding any.
 *
 * Secret: frame and block headers. Ruled by RFC 8878. Needed because node:zlib decodes the first frame of several, and drops
 * the others without a word.
 */

const FRAME_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50; // the last four bits are free

/** The frames that hold content; undefined when `file` is not exactly a sequence of whole frames. */
export function zstdFrames(file: Uint8Array): Uint8Array[] | undefined {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const frames: Uint8Array[] = [];
  let offset = 0;
  while (offset < file.length) {
    if (offset + 8 > file.length) return undefined;
    const magic = view.getUint32(offset, true);
    if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
      offset += 8 + view.getUint32(offset + 4, true);
      continue;
    }
    const end = magic === FRAME_MAGIC ? frameEnd(view, offset) : undefined;
    if (end === undefined) return undefined;
    frames.push(file.subarray(offset, end));
    offset = end;
  }
  return offset === file.length ? frames : undefined;
}

function frameEnd(view: DataView, start: number): number | undefined {
  const descriptor = view.getUint8(start + 4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const contentSizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6]!;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  let offset = start + 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes;
  for (;;) {
    if (offset + 3 > view.byteLength) return undefined;
    const header = view.getUint16(offset, true) | (view.getUint8(offset + 2) << 16);
    const isRunLength = ((header >> 1) & 3) === 1;
    offset += 3 + (isRunLength ? 1 : header >> 3);
    if ((header & 1) !== 0) break;
  }
  const end = offset + ((descriptor & 4) !== 0 ? 4 : 0);
  return end <= view.byteLength ? end : undefined;
}
