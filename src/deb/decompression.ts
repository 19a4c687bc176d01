/**
 * Decompressors of .deb members: streams of bounded memory, and many small members at once.
 *
 * Secret: which run in this process and which as a program; that dpkg reads one xz stream and one zstd frame, so that what we see
 * of a package is what dpkg sees; how one xz process serves many members without any of them touching another. Ruled by
 * deb(5), xz(1), RFC 1952, RFC 8878.
 */
import { pipeline } from 'node:stream/promises';
import { createGunzip, createZstdDecompress, gunzipSync, zstdDecompressSync } from 'node:zlib';
import type { RunContext } from '../core/context.ts';
import { errnoOf, ToolError, UserError } from '../core/errors.ts';
import { start } from '../core/run.ts';
import { PLAIN_XZ, type StoredCompression } from './compression.ts';
import { xzContentSize } from './xz.ts';
import { createZstdWalker } from './zstd.ts';

/** Where compressed bytes come from, for messages. */
export interface Place {
  readonly file?: string | undefined;
  /** 'data.tar.xz' */
  readonly member: string;
}

/** xz -9 needs 65 MiB to decode; a header may ask for 4 GiB. */
const XZ_DECODE_MEMORY = '--memlimit-decompress=512MiB';

export interface DecompressOptions {
  /** Whose view of several streams in one file is taken: dpkg reads the first of xz and zstd (default), apt all of zstd. */
  readonly reader?: 'dpkg' | 'apt';
}

/**
 * Decompresses a stream. Ending the loop early stops everything.
 * @throws UserError `deb-broken` naming file and member when the bytes are not what they should be, or are cut short
 */
export async function* decompress(
  context: RunContext,
  compression: StoredCompression,
  source: AsyncIterable<Uint8Array>,
  place: Place,
  options: DecompressOptions = {},
): AsyncGenerator<Uint8Array> {
  if (compression === 'none') yield* source;
  else if (compression === 'gzip') yield* gunzip(source, place);
  else if (compression === 'zstd' && options.reader !== 'apt') yield* unzstd(source, place);
  else yield* throughProgram(context, compression, source, place, false);
}

async function* gunzip(source: AsyncIterable<Uint8Array>, place: Place): AsyncGenerator<Uint8Array> {
  const stream = createGunzip({ chunkSize: 256 * 1024 });
  const feeding = pipeline(source, stream);
  feeding.catch(() => {}); // reading the stream says the same
  try {
    for await (const chunk of stream) yield chunk as Uint8Array;
  } catch (cause) {
    throw errnoOf(cause)?.startsWith('Z_') ? broken(place, 'gzip', cause) : cause;
  } finally {
    stream.destroy();
    await feeding.catch(() => {}); // the source is at rest before its owner closes it
  }
}

/** One frame and no more, as dpkg reads it. */
async function* unzstd(source: AsyncIterable<Uint8Array>, place: Place): AsyncGenerator<Uint8Array> {
  const stream = createZstdDecompress({ chunkSize: 256 * 1024 });
  const feeding = pipeline(firstFrame(source, place), stream);
  feeding.catch(() => {}); // reading the stream says the same
  try {
    for await (const chunk of stream) yield chunk as Uint8Array;
  } catch (cause) {
    throw /^Z(STD)?_/.test(errnoOf(cause) ?? '') ? broken(place, 'zstd', cause) : cause;
  } finally {
    stream.destroy();
    await feeding.catch(() => {}); // the source is at rest before its owner closes it
  }
}

async function* firstFrame(source: AsyncIterable<Uint8Array>, place: Place): AsyncGenerator<Uint8Array> {
  const walk = createZstdWalker();
  for await (const chunk of source) {
    if (walk(chunk) !== chunk.length) throw broken(place, 'zstd'); // no frame, or something after it
    yield chunk;
  }
}

function decompressorArgs(
  compression: 'xz' | 'zstd' | 'bzip2' | 'lzma',
  allStreams: boolean,
): [program: string, args: string[]] {
  const common = ['--decompress', '--stdout', '--quiet'];
  if (compression === 'bzip2') return ['bzip2', common];
  if (compression === 'zstd') return ['zstd', common];
  const format = [`--format=${compression}`, ...(allStreams ? [] : ['--single-stream'])];
  return ['xz', [...common, ...format, '--threads=1', XZ_DECODE_MEMORY]];
}

async function* throughProgram(
  context: RunContext,
  compression: 'xz' | 'zstd' | 'bzip2' | 'lzma',
  source: AsyncIterable<Uint8Array>,
  place: Place,
  allStreams: boolean,
): AsyncGenerator<Uint8Array> {
  const [name, args] = decompressorArgs(compression, allStreams);
  await using program = start(context, name, args, { env: PLAIN_XZ });
  const feeding = pipeline(source, program.stdin).then(
    () => undefined,
    (cause: unknown) => ({ cause }),
  );
  try {
    for await (const chunk of program.stdout) yield chunk as Uint8Array;
    const failure = await feeding;
    if (failure !== undefined && !isClosedPipe(failure.cause)) throw failure.cause;
    await program.ended.catch((cause: unknown) => {
      throw cause instanceof ToolError && cause.code === 'tool-failed' ? broken(place, compression, cause) : cause;
    });
  } finally {
    program.kill('SIGKILL');
    await feeding; // the source is at rest before its owner closes it
  }
}

/** The program ended before it had read everything: why, it says itself. */
function isClosedPipe(cause: unknown): boolean {
  return ['EPIPE', 'ECONNRESET', 'ERR_STREAM_PREMATURE_CLOSE', 'ERR_STREAM_DESTROYED'].includes(errnoOf(cause) ?? '');
}

function broken(place: Place, compression: string, cause?: unknown): UserError {
  const reason =
    cause instanceof ToolError
      ? cause.stderrTail
          .trim()
          .split('\n')
          .at(-1)
          ?.replace(/^\S+: (?:\(stdin\): )?/, '')
      : undefined;
  return new UserError(
    'deb-broken',
    `${place.member}: broken or cut short (${compression}${reason ? `: ${reason}` : ''})`,
    {
      file: place.file,
      cause,
    },
  );
}

// ---------------------------------------------------------------- many small ones

/** Compressed bytes that are whole in memory. */
export interface PackedMember {
  readonly bytes: Uint8Array;
  readonly compression: StoredCompression;
  readonly place: Place;
}

/**
 * Decompresses many small members, those in xz by one process. Gives for each, in order, the content, or the UserError that says
 * what is wrong with that member alone. No more than `limit` bytes are held at a time, and those of the one given.
 * @param limit bytes that one member may have; more is an error, found without decoding more
 */
export async function* decompressMembers(
  context: RunContext,
  members: readonly PackedMember[],
  limit: number,
): AsyncGenerator<Buffer | UserError> {
  for (const group of groupsOf(members, limit)) {
    const decoded = new Map<XzJob, Buffer | UserError>();
    await decodeXz(
      context,
      group.filter((one) => 'size' in one),
      decoded,
    );
    for (const one of group) {
      if ('size' in one) yield decoded.get(one)!;
      else yield one instanceof UserError ? one : decompressMember(one, limit);
    }
  }
}

/** A member in xz with the size of its content. */
interface XzJob {
  readonly size: number;
  readonly member: PackedMember;
}

/** Consecutive members whose xz content together is no larger than one member's may be. */
function groupsOf(members: readonly PackedMember[], limit: number): (XzJob | PackedMember | UserError)[][] {
  const groups: (XzJob | PackedMember | UserError)[][] = [[]];
  let room = limit;
  for (const member of members) {
    const one = member.compression === 'xz' ? xzJob(member, limit) : member;
    if ('size' in one) {
      if (one.size > room) {
        groups.push([]);
        room = limit;
      }
      room -= one.size;
    }
    groups.at(-1)!.push(one);
  }
  return groups;
}

function xzJob(member: PackedMember, limit: number): XzJob | UserError {
  const size = xzContentSize(member.bytes);
  if (size === undefined) return broken(member.place, 'xz');
  return size > limit ? tooLarge(member.place, limit) : { size, member };
}

/** One process for all; where it fails, halves, until the broken member is alone. */
async function decodeXz(
  context: RunContext,
  jobs: readonly XzJob[],
  results: Map<XzJob, Buffer | UserError>,
): Promise<void> {
  const first = jobs[0];
  if (first === undefined) return;
  const expected = jobs.reduce((sum, job) => sum + job.size, 0);
  const content = await decodeXzTogether(context, jobs, expected);
  if (Buffer.isBuffer(content)) {
    let offset = 0;
    for (const job of jobs) {
      results.set(job, content.subarray(offset, offset + job.size));
      offset += job.size;
    }
    return;
  }
  if (jobs.length === 1) {
    results.set(first, content);
    return;
  }
  const middle = Math.ceil(jobs.length / 2);
  await decodeXz(context, jobs.slice(0, middle), results);
  await decodeXz(context, jobs.slice(middle), results);
}

async function decodeXzTogether(
  context: RunContext,
  jobs: readonly XzJob[],
  expected: number,
): Promise<Buffer | UserError> {
  const place = jobs[0]!.member.place;
  const content = Buffer.allocUnsafeSlow(expected);
  let filled = 0;
  async function* packed(): AsyncGenerator<Uint8Array> {
    yield Buffer.concat(jobs.map((job) => job.member.bytes));
  }
  try {
    for await (const chunk of throughProgram(context, 'xz', packed(), place, true)) {
      if (filled + chunk.length > expected) return broken(place, 'xz');
      content.set(chunk, filled);
      filled += chunk.length;
    }
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
  return filled === expected ? content : broken(place, 'xz');
}

function decompressMember(member: PackedMember, limit: number): Buffer | UserError {
  const { bytes, compression, place } = member;
  if (compression === 'none')
    return bytes.length > limit ? tooLarge(place, limit) : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  try {
    if (compression === 'gzip') return gunzipSync(bytes, { maxOutputLength: limit });
    if (compression === 'zstd') return unzstdWhole(bytes, place, limit);
  } catch (cause) {
    if (errnoOf(cause) === 'ERR_BUFFER_TOO_LARGE') return tooLarge(place, limit);
    if (cause instanceof UserError) return cause;
    if (errnoOf(cause) !== undefined) return broken(place, compression, cause);
    throw cause;
  }
  return new UserError('deb-broken', `${place.member}: dpkg does not take ${compression} here`, { file: place.file });
}

function unzstdWhole(bytes: Uint8Array, place: Place, limit: number): Buffer {
  if (createZstdWalker()(bytes) !== bytes.length) throw broken(place, 'zstd');
  return zstdDecompressSync(bytes, { maxOutputLength: limit });
}

function tooLarge(place: Place, limit: number): UserError {
  return new UserError(
    'deb-too-large',
    `${place.member}: decompresses to more than ${Math.round(limit / 1024 / 1024)} MiB`,
    {
      file: place.file,
      hint: 'no real package is like this: do not trust where it came from',
    },
  );
}
