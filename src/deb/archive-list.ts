/**
 * data.tar of many small packages at once.
 *
 * Secret: one process decompresses the members of hundreds of packages; what is too large for that is left to be streamed.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { RunContext } from '../core/context.ts';
import { findMembers } from './archive-members.ts';
import { decompressMembers, type PackedMember } from './decompression.ts';

/** Larger members are streamed: their own process is no longer what takes the time. */
const SMALL_MEMBER_BYTES = 128 * 1024;
/** Of one unpacked tar, and of all that are unpacked together. */
const MAX_TAR_BYTES = 8 * 1024 * 1024;
const BATCH_FILES = 200;

interface SmallData {
  readonly path: string;
  /** Undefined: to be streamed, which also says what is wrong with it. */
  readonly tar: Buffer | undefined;
  readonly member: string;
}

/** The unpacked data.tar of each, in order. @throws UserError `deb-...` for what is no package */
export async function* readSmallData(context: RunContext, paths: readonly string[]): AsyncGenerator<SmallData> {
  for (let from = 0; from < paths.length; from += BATCH_FILES) {
    const batch = paths.slice(from, from + BATCH_FILES).map((path) => ({ path, packed: packedData(path) }));
    const small = batch.flatMap(({ packed }) => packed ?? []);
    const tars = decompressMembers(context, small, MAX_TAR_BYTES);
    for (const { path, packed } of batch) {
      const tar = packed && (await tars.next()).value;
      yield { path, tar: Buffer.isBuffer(tar) ? tar : undefined, member: packed?.place.member ?? '' };
    }
  }
}

/** Undefined for a large one. */
function packedData(path: string): PackedMember | undefined {
  const fd = openSync(path, 'r');
  try {
    const read = (offset: number, length: number) => {
      const bytes = Buffer.alloc(length);
      return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
    };
    const { data } = findMembers(read, fstatSync(fd).size, path);
    if (data.size > SMALL_MEMBER_BYTES) return undefined;
    const bytes = read(data.offset, data.size);
    return { bytes, compression: data.compression, place: { file: path, member: data.name } };
  } finally {
    closeSync(fd);
  }
}
