/**
 * Compressors of .deb members, as streams of bounded memory in both directions.
 *
 * Secret: which of them run in this process and which as a program, and with what settings, so that the bytes written depend
 * on content, kind and level alone, never on cores, environment or how the input was cut. Ruled by deb(5), xz(1), zstd(1).
 *
 * xz, bzip2 and lzma are programs, gzip is node:zlib. zstd is node:zlib too, but for compressing large content: node's stream
 * cannot use several threads.
 */
import { writeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import {
  constants,
  createGunzip,
  createGzip,
  createZstdDecompress,
  gunzipSync,
  gzip,
  zstdCompress,
  zstdDecompressSync,
} from 'node:zlib';
import type { RunContext } from '../core/context.ts';
import { errnoOf, ToolError, UserError } from '../core/errors.ts';
import { start } from '../core/run.ts';
import { xzContentSize } from './xz.ts';
import { createZstdWalker } from './zstd.ts';

/** What buildkit writes. */
export type Compression = 'xz' | 'zstd' | 'gzip' | 'none';
/** What it reads. */
export type StoredCompression = Compression | 'bzip2' | 'lzma';

export interface CompressionOptions {
  /** Default: xz 6, zstd 3, gzip 9. */
  readonly level?: number | undefined;
  /** Default: the number of cores. Changes how long it takes, never the bytes. */
  readonly threads?: number | undefined;
}

/** Where compressed bytes come from, for messages. */
export interface Place {
  readonly file?: string | undefined;
  /** 'data.tar.xz' */
  readonly member: string;
}

const SUFFIX: Readonly<Record<StoredCompression, string>> = {
  none: '',
  gzip: '.gz',
  xz: '.xz',
  zstd: '.zst',
  bzip2: '.bz2',
  lzma: '.lzma',
};
const LEVELS: Readonly<Record<Compression, { readonly usual: number; readonly max: number }>> = {
  xz: { usual: 6, max: 9 },
  zstd: { usual: 3, max: 22 },
  gzip: { usual: 9, max: 9 },
  none: { usual: 0, max: 9 },
};
/** Up to here zstd content is compressed in this process. Part of the format of what is written: not to be tuned per machine. */
const ZSTD_IN_PROCESS = 4 * 1024 * 1024;
/**
 * xz splits the input into blocks of this size, each compressed on its own, so that several cores share the work. 8 MiB is the
 * dictionary of -6: measured against dpkg-deb's 24 MiB, 0.5 % larger, a fifth less memory, no idle core at the end.
 */
const XZ_BLOCK = 8 * 1024 * 1024;
/** MiB of dictionary per xz level, where larger than a block. */
const XZ_DICTIONARY: Readonly<Record<number, number>> = { 7: 16, 8: 32, 9: 64 };
/** xz -9 needs 65 MiB to decode; a header may ask for 4 GiB. */
const XZ_DECODE_MEMORY = '--memlimit-decompress=512MiB';

/** '.xz' of 'data.tar.xz'. */
export function suffixOf(compression: StoredCompression): string {
  return SUFFIX[compression];
}

/** How `name` is compressed, where it is `base` with one of the known suffixes. */
export function compressionOf(name: string, base: string): StoredCompression | undefined {
  if (!name.startsWith(base)) return undefined;
  const suffix = name.slice(base.length);
  return (Object.keys(SUFFIX) as StoredCompression[]).find((compression) => SUFFIX[compression] === suffix);
}

/** @throws UserError `bad-level` */
function checkedLevel(compression: Compression, level: number | undefined): number {
  const { usual, max } = LEVELS[compression];
  if (level === undefined) return usual;
  if (Number.isInteger(level) && level >= (compression === 'xz' ? 0 : 1) && level <= max) return level;
  if (compression === 'none') return usual;
  throw new UserError('bad-level', `${compression} has no level '${level}'`, { hint: `choose one from 1 to ${max}` });
}

// ---------------------------------------------------------------- compressing

/** Takes content, writes compressed bytes to a file. Disposing before `end` stops everything. */
export interface Compressor extends AsyncDisposable {
  /** Resolves when the chunk's memory may be used for something else. */
  write(chunk: Uint8Array): Promise<void>;
  /** Resolves when everything is in the file. */
  end(): Promise<void>;
}

/**
 * @param fd written to where it stands; programs write to it directly, so that nothing passes through this process twice
 * @throws ToolError when the program is missing or fails; a full disk comes as the ENOSPC of a system call
 */
export function createCompressor(
  context: RunContext,
  compression: Compression,
  options: CompressionOptions,
  fd: number,
): Compressor {
  const level = checkedLevel(compression, options.level);
  const threads = options.threads ?? availableParallelism();
  switch (compression) {
    case 'none':
      return {
        write: async (chunk) => writeAll(fd, chunk),
        end: async () => {},
        [Symbol.asyncDispose]: async () => {},
      };
    case 'gzip':
      return gzipCompressor(level, fd);
    case 'zstd':
      return zstdCompressor(context, level, threads, fd);
    case 'xz':
      return programCompressor(context, 'xz', xzArgs(level, threads), fd);
  }
}

/** xz takes options from these too; an empty value switches them off, also where the environment is inherited. */
const PLAIN_XZ = { XZ_DEFAULTS: '', XZ_OPT: '' };

/** Two threads at least: `-T1` has another block layout, and so other bytes, than any higher number. */
function xzArgs(level: number, threads: number): string[] {
  const block = Math.max(XZ_BLOCK, (XZ_DICTIONARY[level] ?? 0) * 1024 * 1024);
  return [
    '--compress',
    '--format=xz',
    '--stdout',
    '--quiet',
    `-${level}`,
    `--threads=${Math.max(2, threads)}`,
    `--block-size=${block}`,
  ];
}

/** Any number of threads gives the same bytes; only `--single-thread` differs. */
function zstdArgs(level: number, threads: number): string[] {
  return ['--compress', '--stdout', '--quiet', ...(level > 19 ? ['--ultra'] : []), `-${level}`, `-T${threads}`];
}

function gzipCompressor(level: number, fd: number): Compressor {
  const stream = createGzip({ level, chunkSize: 256 * 1024 });
  stream.on('error', () => {}); // each write is told, too
  const flowing = (async () => {
    for await (const chunk of stream) writeAll(fd, chunk);
  })();
  flowing.catch(() => {}); // awaited below
  return {
    async write(chunk) {
      try {
        await writeTo(stream, chunk);
      } catch (cause) {
        await flowing; // what its other side says is the reason, a full disk for one
        throw cause;
      }
    },
    async end() {
      stream.end();
      await flowing;
    },
    async [Symbol.asyncDispose]() {
      stream.destroy();
    },
  };
}

function zstdCompressor(context: RunContext, level: number, threads: number, fd: number): Compressor {
  const held: Uint8Array[] = [];
  let heldSize = 0;
  let program: Compressor | undefined;
  return {
    async write(chunk) {
      if (program !== undefined) return program.write(chunk);
      held.push(Buffer.from(chunk));
      heldSize += chunk.length;
      if (heldSize <= ZSTD_IN_PROCESS) return;
      program = programCompressor(context, 'zstd', zstdArgs(level, threads), fd);
      for (const piece of held.splice(0)) await program.write(piece);
    },
    async end() {
      if (program !== undefined) return program.end();
      writeAll(fd, await zstdInProcess(Buffer.concat(held), level));
    },
    async [Symbol.asyncDispose]() {
      await program?.[Symbol.asyncDispose]();
    },
  };
}

function programCompressor(context: RunContext, name: string, args: readonly string[], fd: number): Compressor {
  const program = start(context, name, args, { env: PLAIN_XZ, stdio: { stdout: fd } });
  program.stdin.on('error', () => {}); // each write is told, too
  const ended = () =>
    program.ended.catch((cause: unknown) => {
      throw isDiskFull(cause) ? Object.assign(new Error(cause.stderrTail, { cause }), { code: 'ENOSPC' }) : cause;
    });
  return {
    async write(chunk) {
      try {
        await writeTo(program.stdin, chunk);
      } catch (cause) {
        await ended(); // the reason, where it says one
        throw cause;
      }
    },
    async end() {
      program.stdin.end();
      await ended();
    },
    async [Symbol.asyncDispose]() {
      await program[Symbol.asyncDispose]();
    },
  };
}

/** Programs run in the C.UTF-8 locale, so that this text is the same everywhere. */
function isDiskFull(error: unknown): error is ToolError {
  return error instanceof ToolError && /No space left on device|Disk quota exceeded/.test(error.stderrTail);
}

async function zstdInProcess(content: Uint8Array, level: number): Promise<Buffer> {
  const params = { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: 1 };
  return promisify(zstdCompress)(content, { params, pledgedSrcSize: content.length });
}

/** Resolves when the stream has taken the chunk, so that nothing piles up in memory. */
function writeTo(stream: Writable, chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(chunk, (error) => (error ? reject(error) : resolve()));
  });
}

/** Compresses content that is whole in memory, in this process (`xz` is not offered: it would be a fork for a few kB). */
export async function compressSmall(
  compression: Exclude<Compression, 'xz'>,
  content: Uint8Array,
  level?: number,
): Promise<Uint8Array> {
  const checked = checkedLevel(compression, level);
  if (compression === 'zstd') return zstdInProcess(content, checked);
  if (compression === 'gzip') return promisify<Uint8Array, object, Buffer>(gzip)(content, { level: checked });
  return content;
}

/** `write(2)` may take less than it was given. */
export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let offset = 0; offset < bytes.length; ) offset += writeSync(fd, bytes, offset);
}

// ---------------------------------------------------------------- decompressing

/**
 * Decompresses a stream. Ending the loop early stops everything.
 * @throws UserError `deb-broken` naming file and member when the bytes are not what they should be, or are cut short
 */
export async function* decompress(
  context: RunContext,
  compression: StoredCompression,
  source: AsyncIterable<Uint8Array>,
  place: Place,
): AsyncGenerator<Uint8Array> {
  if (compression === 'none') yield* source;
  else if (compression === 'gzip') yield* gunzip(source, place);
  else if (compression === 'zstd') yield* unzstd(source, place);
  else yield* throughProgram(context, compression, source, place);
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

/** Of several xz streams dpkg reads the first; the last argument is for batches of our own making. */
function decompressorArgs(
  compression: 'xz' | 'bzip2' | 'lzma',
  allStreams: boolean,
): [program: string, args: string[]] {
  if (compression === 'bzip2') return ['bzip2', ['--decompress', '--stdout', '--quiet']];
  const format = [`--format=${compression}`, ...(allStreams ? [] : ['--single-stream'])];
  return ['xz', ['--decompress', '--stdout', '--quiet', ...format, '--threads=1', XZ_DECODE_MEMORY]];
}

async function* throughProgram(
  context: RunContext,
  compression: 'xz' | 'bzip2' | 'lzma',
  source: AsyncIterable<Uint8Array>,
  place: Place,
  allStreams = false,
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
