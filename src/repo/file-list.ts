/** The list of what a package installs, as the catalog keeps it: compressed, a line for each path, without the slash at the beginning. */
import { gunzipSync } from 'node:zlib';

/** Not by a thread for each: most lists are small, and there are many. */
export function unpackList(packed: Uint8Array): Buffer {
  return gunzipSync(packed);
}

/** One line at a time, where it lies: a list may be longer than everything else in memory. */
export function* listLines(list: Buffer): Generator<Buffer> {
  for (let from = 0; from < list.length; ) {
    const end = list.indexOf(0x0a, from);
    const to = end === -1 ? list.length : end;
    if (to > from) yield list.subarray(from, to);
    from = to + 1;
  }
}
