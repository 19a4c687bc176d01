/**
 * Compressors of .deb members, as streams of bounded memory, and how members are named by them.
 *
 * Secret: which of them run in this process and which as a program, and with what settings, so that the bytes written depend
 * on content, kind and level alone, never on cores, environment or how the input was cut. Ruled by deb(5), xz(1), zstd(1).
 *
 * xz is a program, gzip is node:zlib. zstd is node:zlib for small content (no fork) and the program for large, as node's stream
 * cannot use several threads.
 */
import { writeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Writable } from 'node:stream';
import { promisify } from 'node:util';
import { constants, createGzip, gzip, zstdCompress } from 'node:zlib';
import type { RunContext } from '../core/context.ts';
import { ToolError, UserError } from '../core/errors.ts';
import { start } from '../core/run.ts';

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
export const PLAIN_XZ = { XZ_DEFAULTS: '', XZ_OPT: '' };

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
