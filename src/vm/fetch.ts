/**
 * Base images from elsewhere: fetched, checked before and after unpacking, or used in place.
 *
 * Secret: the order that keeps nothing wrong: the download is checked before it is unpacked, the image before it gets its name.
 */
import { createReadStream } from 'node:fs';
import { access, constants, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import type { Context } from '../core/context.ts';
import { errnoOf, RemoteError, UserError } from '../core/errors.ts';
import { explainWriteError, scratchFolder, syncFolder } from '../core/files.ts';
import { formatBytes } from '../core/log.ts';
import { run, start } from '../core/run.ts';
import { downloadResumable } from './fetch-download.ts';
import { checkQcow2, type FileKind, HEAD_BYTES, kindOf, type Packing } from './fetch-kind.ts';
import {
  checkDigestFormat,
  checkSignature,
  compareDigests,
  type Digests,
  digester,
  digestInSums,
  signaturePlaces,
} from './fetch-verify.ts';

export interface FetchRequest {
  /** http(s) or file URL, path of a file, or block device. */
  readonly source: string;
  /** What a relative path is relative to. */
  readonly cwd: string;
  /** Where the image goes; a local image that needs no unpacking stays where it is. */
  readonly target: string;
  /** Of what is downloaded. */
  readonly digests: Digests;
  /** Of the image after unpacking. */
  readonly imageDigests: Digests;
  /** File with the publisher's keys: a signature must lie beside the image. */
  readonly keyring?: string | undefined;
}

export interface FetchedImage {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  /** The user's own file or device: never written, never removed. */
  readonly inPlace: boolean;
  /** Bytes of the virtual disk. */
  readonly virtualSize: number;
  /** Hex, of the image as it will be used. */
  readonly sha256: string;
}

/**
 * Brings the image to `target`, or tells where it is. On any error nothing is left at `target`; a download that was cut off
 * stays in the cache and goes on next time, one with a wrong digest or signature does not.
 * @throws UserError `image-missing`, `image-kind`, `image-foreign-file`, `digest-format`; RemoteError `http-status`,
 *   `http-failed`, `digest-mismatch`, `signature-bad`, `signature-missing`
 */
export async function fetchImage(context: Context, request: FetchRequest): Promise<FetchedImage> {
  checkDigestFormat(request.digests);
  checkDigestFormat(request.imageDigests);
  await mkdir(dirname(request.target), { recursive: true });
  await using scratch = await scratchFolder(dirname(request.target), '.buildkit-fetch-');
  if (!/^https?:/i.test(request.source)) return await useLocal(context, request, scratch.path);
  const url = request.source;
  using download = await downloadResumable(context, url, join(context.cacheDir, 'downloads'));
  if (download.resumedAt > 0) context.log.info(`went on at ${formatBytes(download.resumedAt)} of an earlier download`);
  try {
    await verifySource(context, request, download.path, scratch.path);
    const kind = await readKind(download.path, url);
    const image = join(scratch.path, 'image');
    if (isPacked(kind)) await unpack(context, kind, download.path, image);
    else await moveFile(download.path, image);
    const result = await checkImage(context, request, image);
    await rename(image, request.target);
    await syncFolder(dirname(request.target));
    await download.remove();
    return { ...result, path: request.target, inPlace: false };
  } catch (error) {
    // complete and yet of no use, unless it was only room or time that lacked
    const usable = context.signal.aborted || (error instanceof UserError && error.code === 'cannot-write');
    if (!usable) await download.remove();
    context.signal.throwIfAborted(); // streams hide why
    throw error;
  }
}

async function useLocal(context: Context, request: FetchRequest, scratch: string): Promise<FetchedImage> {
  const named = request.source.startsWith('file:') ? fileURLToPath(request.source) : request.source;
  const path = resolve(request.cwd, named);
  await mustBeReadable(path);
  await verifySource(context, { ...request, source: path }, path, scratch);
  const kind = await readKind(path, path);
  if (!isPacked(kind)) return { ...(await checkImage(context, request, path)), path, inPlace: true };
  const image = join(scratch, 'image');
  await unpack(context, kind, path, image);
  const result = await checkImage(context, request, image);
  await rename(image, request.target);
  await syncFolder(dirname(request.target));
  return { ...result, path: request.target, inPlace: false };
}

async function mustBeReadable(path: string): Promise<void> {
  try {
    const found = await stat(path);
    await access(path, constants.R_OK);
    if (found.isFile() || found.isBlockDevice()) return;
    throw new UserError('image-missing', `'${path}' is neither a file nor a block device`);
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') {
      throw new UserError('image-missing', `there is no '${path}'`, { hint: 'give a URL, a file or a device', cause });
    }
    if (errnoOf(cause) === 'EACCES') {
      throw new UserError('image-missing', `no right to read '${path}'`, { hint: `see: ls -l '${path}'`, cause });
    }
    throw cause;
  }
}

function isPacked(kind: FileKind): kind is Packing {
  return kind !== 'raw' && kind !== 'qcow2';
}

async function readHead(path: string): Promise<Uint8Array> {
  const file = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

async function readKind(path: string, name: string): Promise<FileKind> {
  return kindOf(await readHead(path), name);
}

/** Digests and signature of what was published, before anything of it is used. */
async function verifySource(context: Context, request: FetchRequest, path: string, scratch: string): Promise<void> {
  const signed = request.keyring === undefined ? {} : await checkPublished(context, request, path, scratch);
  const wanted = [request.digests, signed].filter((digests) => Object.keys(digests).length > 0);
  if (wanted.length === 0) return;
  const found = await digestsOf(context, path, Object.assign({}, ...wanted), []);
  for (const digests of wanted) compareDigests(digests, found, 'the download', request.source);
}

/** Follows the publisher's signature. @returns digests that it vouches for, empty when it is of the image itself */
async function checkPublished(
  context: Context,
  request: FetchRequest,
  path: string,
  scratch: string,
): Promise<Digests> {
  const { source } = request;
  const keyring = await readFile(resolve(request.cwd, request.keyring ?? ''));
  const name = basename(/^https?:/i.test(source) ? new URL(source).pathname : source);
  for (const place of signaturePlaces(name)) {
    const signature = await neighbour(context, source, place.signature);
    if (!signature) continue;
    const signatureFile = join(scratch, 'signature');
    await writeFile(signatureFile, signature);
    if (place.sums === undefined) {
      await checkSignature(context, { signed: path, signature: signatureFile, keyring }, scratch, source);
      return {};
    }
    const sums = await neighbour(context, source, place.sums);
    if (!sums) continue;
    const sumsFile = join(scratch, place.sums);
    await writeFile(sumsFile, sums);
    await checkSignature(context, { signed: sumsFile, signature: signatureFile, keyring }, scratch, source);
    const digest = digestInSums(sums.toString('utf8'), name);
    if (digest !== undefined) return place.sums === 'SHA512SUMS' ? { sha512: digest } : { sha256: digest };
  }
  throw new RemoteError('signature-missing', `no signature lies beside '${name}'; nothing was kept`, {
    url: source,
    hint: `looked for ${name}.sig, .asc, .gpg and for SHA512SUMS or SHA256SUMS with .sign or .gpg`,
  });
}

const NEIGHBOUR_BYTES = 4 * 1024 * 1024;

/** A small file beside the image; undefined when there is none. */
async function neighbour(context: Context, source: string, name: string): Promise<Buffer | undefined> {
  if (!/^https?:/i.test(source)) {
    const path = join(dirname(source), name);
    return readFile(path).catch((error: unknown) => {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    });
  }
  const url = new URL(name, source); // beside it: the last part of the path is replaced
  const response = await fetch(url, { signal: context.signal });
  if (!response.ok) {
    await response.body?.cancel();
    if (response.status < 500) return undefined;
    throw new RemoteError('http-status', `the server answered ${response.status}`, {
      url: url.href,
      status: response.status,
    });
  }
  const bytes = Buffer.from(await response.arrayBuffer());
  return bytes.length > NEIGHBOUR_BYTES ? undefined : bytes;
}

async function digestsOf(
  context: Context,
  path: string,
  wanted: Digests,
  always: readonly 'sha256'[],
): Promise<Digests> {
  const hashes = digester(wanted, always);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20, signal: context.signal })) {
    hashes.update(chunk as Buffer);
  }
  return hashes.results();
}

async function checkImage(
  context: Context,
  request: FetchRequest,
  image: string,
): Promise<Pick<FetchedImage, 'format' | 'sha256' | 'virtualSize'>> {
  const head = await readHead(image);
  const format = kindOf(head, request.source);
  if (isPacked(format)) {
    throw new UserError('image-kind', `'${request.source}' is packed twice`, { hint: 'unpack it once by hand' });
  }
  const virtualSize = format === 'qcow2' ? checkQcow2(head, request.source) : await sizeOf(context, image);
  const found = await digestsOf(context, image, request.imageDigests, ['sha256']);
  compareDigests(request.imageDigests, found, 'the image', request.source);
  return { format, sha256: found.sha256 ?? '', virtualSize };
}

async function sizeOf(context: Context, path: string): Promise<number> {
  const found = await stat(path);
  if (!found.isBlockDevice()) return found.size;
  return Number((await run(context, 'blockdev', ['--getsize64', path])).stdout);
}

const UNPACKERS: Readonly<Record<Packing, readonly [program: string, ...args: string[]]>> = {
  gz: ['gzip', '-dc'],
  xz: ['xz', '-dc', '-T0'],
  zst: ['zstd', '-dcq', '--memory=2048MB'],
};

/** Runs of zeros become holes. */
async function unpack(context: Context, packing: Packing, from: string, to: string): Promise<void> {
  const [program, ...args] = UNPACKERS[packing];
  await using unpacker = start(context, program, args);
  const feeding = pipeline(createReadStream(from, { highWaterMark: 1 << 20 }), unpacker.stdin);
  feeding.catch(() => {}); // the program's own error says more
  const file = await open(to, 'wx');
  let at = 0;
  try {
    for await (const chunk of unpacker.stdout as AsyncIterable<Buffer>) {
      if (!isZero(chunk)) await file.write(chunk, 0, chunk.length, at);
      at += chunk.length;
      context.log.progress('unpack', at);
    }
    await file.truncate(at);
    await file.sync();
  } catch (cause) {
    throw explainWriteError(cause, to);
  } finally {
    await file.close();
  }
  await unpacker.ended;
  await feeding;
}

function isZero(chunk: Buffer): boolean {
  return chunk[0] === 0 && chunk.subarray(1).equals(chunk.subarray(0, -1)); // each byte like the one before
}

/** Across file systems as well. */
async function moveFile(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (errnoOf(error) !== 'EXDEV') throw error;
    const source = createReadStream(from, { highWaterMark: 1 << 20 });
    const target = await open(to, 'wx');
    try {
      await pipeline(source, target.createWriteStream());
    } finally {
      await target.close().catch(() => {}); // the stream has closed it
    }
    await rm(from);
  }
}
