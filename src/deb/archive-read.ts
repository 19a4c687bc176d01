/**
 * Reading a .deb: where its members lie, its control files, its digests, the objects of data.tar as a stream.
 *
 * Secret: files are read once, front to back, a MiB at a time at most; control members of many files share one decompressor.
 * Everything is checked before it is believed. Ruled by deb(5) and by what dpkg refuses.
 */
import { createHash, hash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, read, readSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { RunContext } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import type { DebResult } from './archive.ts';
import { readControlArchive } from './archive-control.ts';
import { findMembers, type Layout } from './archive-members.ts';
import { decompress, decompressMembers } from './decompression.ts';
import type { BinaryPackage } from './package.ts';
import { createTarReader, type TarEvent } from './tar.ts';

const CHUNK = 1024 * 1024;
/** Of control.tar once decompressed: md5sums of a million files fit. */
const MAX_CONTROL_TAR = 64 * 1024 * 1024;
/** Files whose control members are decompressed together. */
const BATCH_FILES = 256;
const BATCH_BYTES = 4 * 1024 * 1024;

// ---------------------------------------------------------------- one pass over the file

interface OpenDeb extends Disposable {
  readonly fd: number;
  readonly size: number;
  /** @throws UserError when the file is no longer the one that was opened */
  checkUnchanged(): void;
}

function openDeb(path: string): OpenDeb {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const reasons: Record<string, string> = {
      ENOENT: 'does not exist',
      ENOTDIR: 'does not exist',
      EACCES: 'may not be read',
      EPERM: 'may not be read',
      ELOOP: 'is a link to itself',
    };
    const reason = reasons[errnoOf(cause) ?? ''];
    throw reason === undefined ? cause : new UserError('deb-unreadable', `'${path}' ${reason}`, { file: path, cause });
  }
  const before = fstatSync(fd);
  if (!before.isFile()) {
    closeSync(fd);
    throw new UserError('deb-unreadable', `'${path}' is no regular file`, { file: path });
  }
  return {
    fd,
    size: before.size,
    checkUnchanged() {
      const after = fstatSync(fd);
      if (after.size !== before.size || after.mtimeMs !== before.mtimeMs) throw changedWhileRead(path);
    },
    [Symbol.dispose]: () => closeSync(fd),
  };
}

function changedWhileRead(path: string): UserError {
  return new UserError('deb-changed', `'${path}' changed while it was read`, {
    file: path,
    hint: 'let nothing write to it, then run the command again',
  });
}

function readExactly(fd: number, offset: number, length: number, path: string): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let done = 0; done < length; ) {
    const count = readSync(fd, bytes, done, length - done, offset + done);
    if (count === 0) throw changedWhileRead(path);
    done += count;
  }
  return bytes;
}

/** What one pass over a file gives. */
interface Scan {
  readonly path: string;
  readonly layout: Layout;
  /** The control member as stored. */
  readonly control: Buffer;
  readonly digests: Pick<BinaryPackage, 'size' | 'md5' | 'sha1' | 'sha256' | 'sha512'>;
}

const DIGESTS = ['md5', 'sha1', 'sha256', 'sha512'] as const;

async function scan(context: RunContext, path: string): Promise<Scan> {
  using deb = openDeb(path);
  const result = deb.size <= CHUNK ? scanSmall(path, deb) : await scanLarge(context, path, deb);
  deb.checkUnchanged();
  return result;
}

function scanSmall(path: string, { fd, size }: OpenDeb): Scan {
  const bytes = readExactly(fd, 0, size, path);
  const layout = findMembers((offset, length) => bytes.subarray(offset, offset + length), size, path);
  const control = Buffer.from(bytes.subarray(layout.control.offset, layout.control.offset + layout.control.size)); // lets go of the rest
  const [md5, sha1, sha256, sha512] = DIGESTS.map((name) => hash(name, bytes)) as [string, string, string, string];
  return { path, layout, control, digests: { size, md5, sha1, sha256, sha512 } };
}

async function scanLarge(context: RunContext, path: string, { fd, size }: OpenDeb): Promise<Scan> {
  const layout = findMembers((offset, length) => readExactly(fd, offset, length, path), size, path);
  const { offset: start, size: controlSize, name } = layout.control;
  if (controlSize > MAX_CONTROL_TAR)
    throw new UserError('deb-too-large', `${name}: larger than ${MAX_CONTROL_TAR >> 20} MiB`, { file: path });
  const control = Buffer.allocUnsafe(controlSize);
  const hashes = DIGESTS.map((algorithm) => createHash(algorithm));
  let offset = 0;
  for await (const chunk of readRange(context, fd, 0, size, path)) {
    for (const digest of hashes) digest.update(chunk);
    // the same bytes that were digested, not a second reading of them
    const [from, to] = [Math.max(start - offset, 0), Math.min(start + controlSize - offset, chunk.length)];
    if (from < to) chunk.copy(control, offset + from - start, from, to);
    offset += chunk.length;
  }
  const [md5, sha1, sha256, sha512] = hashes.map((digest) => digest.digest('hex')) as [string, string, string, string];
  return { path, layout, control, digests: { size, md5, sha1, sha256, sha512 } };
}

const readAsync = promisify(read);

/** The next piece is on its way from the disk while the caller works on this one; a piece is good until the next but one is asked for. */
async function* readRange(
  context: RunContext,
  fd: number,
  start: number,
  length: number,
  path: string,
): AsyncGenerator<Buffer> {
  const end = start + length;
  const spare = [Buffer.allocUnsafeSlow(CHUNK), Buffer.allocUnsafeSlow(CHUNK), Buffer.allocUnsafeSlow(CHUNK)] as const;
  let turnOf = 0;
  const readAt = (offset: number) => {
    const buffer = spare[turnOf % spare.length]!;
    turnOf += 1;
    return readAsync(fd, buffer, 0, Math.min(CHUNK, end - offset), offset);
  };
  let next = length > 0 ? readAt(start) : undefined;
  let offset = start;
  try {
    while (next !== undefined) {
      context.signal?.throwIfAborted();
      const { bytesRead, buffer } = await next;
      if (bytesRead === 0) throw changedWhileRead(path);
      offset += bytesRead;
      next = offset < end ? readAt(offset) : undefined;
      yield (buffer as Buffer).subarray(0, bytesRead);
    }
  } finally {
    await next?.catch(() => {}); // the caller closes the file: nothing may still be reading from it
  }
}

// ---------------------------------------------------------------- doors

type Scanned = Scan | { readonly path: string; readonly error: unknown };

/** See `readDebs` in archive.ts. */
export async function* readDebFiles(
  context: RunContext,
  paths: Iterable<string> | AsyncIterable<string>,
): AsyncGenerator<DebResult> {
  let batch: Scanned[] = [];
  let bytes = 0;
  let underWay: AsyncGenerator<DebResult> | undefined;
  for await (const path of paths) {
    context.signal?.throwIfAborted();
    try {
      const found = await scan(context, path);
      batch.push(found);
      bytes += found.control.length;
    } catch (error) {
      batch.push({ path, error });
    }
    if (batch.length % 16 === 0) await turn(); // the decompressor's output is read meanwhile
    if (batch.length < BATCH_FILES && bytes < BATCH_BYTES) continue;
    const next = begun(finishBatch(context, batch));
    batch = [];
    bytes = 0;
    if (underWay !== undefined) yield* underWay;
    underWay = next;
  }
  if (underWay !== undefined) yield* underWay;
  yield* finishBatch(context, batch);
}

/** Works on its first item while nobody waits for it yet: one batch is decompressed while the next is read. */
function begun<T>(source: AsyncGenerator<T>): AsyncGenerator<T> {
  const first = source.next();
  first.catch(() => {}); // thrown where it is awaited, if it is
  return (async function* () {
    for (let item = await first; !item.done; item = await source.next()) yield item.value;
  })();
}

async function* finishBatch(context: RunContext, batch: readonly Scanned[]): AsyncGenerator<DebResult> {
  const packed = batch
    .filter((one) => 'layout' in one)
    .map(({ path, layout, control }) => ({
      bytes: control,
      compression: layout.control.compression,
      place: { file: path, member: layout.control.name },
    }));
  const tars = decompressMembers(context, packed, MAX_CONTROL_TAR);
  for (const one of batch) {
    if ('layout' in one) yield debResult(one, (await tars.next()).value);
    else yield one;
  }
}

function debResult(found: Scan, tar: Buffer | UserError): DebResult {
  if (!Buffer.isBuffer(tar)) return { path: found.path, error: tar };
  try {
    const { files, conffiles, ...named } = readControlArchive(tar, found.path, found.layout.control.name);
    const described: BinaryPackage = { path: found.path, ...named, ...found.digests };
    return {
      path: found.path,
      info: { package: described, members: found.layout.members, controlFiles: files, conffiles },
    };
  } catch (error) {
    return { path: found.path, error };
  }
}

/** What data.tar holds, as events; `member` names it in messages. */
export async function* readData(
  context: RunContext,
  path: string,
): AsyncGenerator<{ readonly events: readonly TarEvent[]; readonly member: string }> {
  using deb = openDeb(path);
  const { data } = findMembers((offset, length) => readExactly(deb.fd, offset, length, path), deb.size, path);
  const place = { file: path, member: data.name };
  const reader = createTarReader(place);
  const stored = readRange(context, deb.fd, data.offset, data.size, path);
  for await (const chunk of decompress(context, data.compression, stored, place)) {
    yield { events: reader.push(chunk), member: data.name };
  }
  reader.end();
  deb.checkUnchanged();
}

/**
 * The path as installed: './usr/bin/x' is '/usr/bin/x', '.' and './' are '/'. As bytes, for names need not be UTF-8.
 * @throws UserError `deb-unsafe` for names that are absolute, empty, or go up
 */
export function installedPath(name: Buffer, file: string, member: string): Buffer {
  const latin1 = name.toString('latin1');
  const parts = latin1.split('/').filter((part) => part !== '.' && part !== '');
  const fail = (what: string): never => {
    throw new UserError('deb-unsafe', `${member}: ${JSON.stringify(name.toString('utf8').slice(0, 200))} ${what}`, {
      file,
      hint: 'no real package is like this: do not trust where it came from',
    });
  };
  if (latin1 === '') fail('is an empty name');
  if (latin1.startsWith('/')) fail('is an absolute name');
  if (parts.includes('..')) fail('leads out of the package');
  return Buffer.from(`/${parts.join('/')}`, 'latin1');
}
