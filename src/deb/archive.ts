/**
 * Binary packages as files: what a .deb holds, writing one reproducibly, reading, listing and unpacking any, also hostile ones.
 *
 * Secret: how members, tar entries and digests are put together so that nothing larger than a few MiB is ever in memory.
 * Ruled by deb(5), dpkg-deb(1), Policy 3.9, 5.6.20 (Installed-Size), 10.9.
 */
import type { RunContext } from '../core/context.ts';
import { extractDebFile } from './archive-extract.ts';
import { readSmallData } from './archive-list.ts';
import { installedPath, readData, readDebFiles } from './archive-read.ts';
import { writeDebFile } from './archive-write.ts';
import type { Compression } from './compression.ts';
import type { Paragraph } from './control.ts';
import type { BinaryPackage } from './package.ts';
import { createTarReader, type TarHeader } from './tar.ts';

/** Where the content of a regular file comes from. `size` of `open` is in bytes and must be exact. */
export type DebSource =
  | { readonly file: string }
  | { readonly data: Uint8Array | string }
  | { readonly open: () => AsyncIterable<Uint8Array>; readonly size: number };

/** One object of data.tar. */
export interface DebEntry {
  /** As installed: '/usr/bin/x'. */
  readonly path: string;
  readonly type: 'file' | 'dir' | 'symlink' | 'hardlink';
  /** Permission bits with setuid, setgid and sticky: 0o4755. Ignored for links. */
  readonly mode: number;
  /** Seconds since the epoch; never later than `sourceDateEpoch`, which is also the default. */
  readonly mtime?: number;
  /** Default 0. */
  readonly uid?: number;
  readonly gid?: number;
  /** Default 'root' where uid (gid) is 0, else empty. */
  readonly user?: string;
  readonly group?: string;
  /** Symlink: the text of the link. Hard link: the path of another entry of type 'file'. */
  readonly link?: string;
  /** Files only. */
  readonly source?: DebSource;
  readonly conffile?: boolean;
}

export type MaintainerScript = 'preinst' | 'postinst' | 'prerm' | 'postrm' | 'config';

/** A package to write. */
export interface DebSpec {
  /** Installed-Size is filled in. */
  readonly control: Paragraph;
  readonly scripts?: Partial<Record<MaintainerScript, string>>;
  /** Added to the entries marked `conffile`. */
  readonly conffiles?: readonly string[];
  readonly triggers?: string;
  /** Other control files: 'templates', 'shlibs', ... */
  readonly extraControl?: Readonly<Record<string, { readonly data: Uint8Array | string; readonly mode: number }>>;
  readonly entries: Iterable<DebEntry> | AsyncIterable<DebEntry>;
}

export interface WriteDebOptions {
  /** Default 'xz'. */
  readonly compression?: Compression;
  /** Default: that of the program (xz 6, zstd 3, gzip 9). */
  readonly level?: number;
  /** Seconds since the epoch: every later mtime is set back to it. */
  readonly sourceDateEpoch: number;
  /** Default: the number of cores. The bytes written do not depend on it. */
  readonly threads?: number;
}

/** One member of the outer ar archive. */
export interface DebMember {
  /** 'debian-binary', 'control.tar.xz', ... */
  readonly name: string;
  /** Of its first byte in the file. */
  readonly offset: number;
  /** In bytes, as stored. */
  readonly size: number;
}

export interface DebInfo {
  readonly package: BinaryPackage;
  readonly members: readonly DebMember[];
  /** By plain name: 'control', 'postinst', 'md5sums', ... */
  readonly controlFiles: ReadonlyMap<string, Uint8Array>;
  /** Paths as in conffiles, without flags. */
  readonly conffiles: readonly string[];
}

/** One object of data.tar as read. */
export interface DebFile {
  /** '/usr/bin/x'; '/' for the root entry. */
  readonly path: string;
  readonly type: 'file' | 'dir' | 'symlink' | 'hardlink' | 'fifo' | 'char-device' | 'block-device';
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly user: string;
  readonly group: string;
  /** Bytes of content; 0 for everything but files. */
  readonly size: number;
  /** Seconds since the epoch, may be negative. */
  readonly mtime: number;
  /** Symlink: its text. Hard link: the path of its target, '/usr/bin/x'. */
  readonly link?: string;
}

/** One result of `readDebs`: the package, or why that file is none. */
export type DebResult =
  | { readonly path: string; readonly info: DebInfo }
  | { readonly path: string; readonly error: unknown };

/**
 * Writes a .deb: streamed, atomic, fsynced. The same spec and `sourceDateEpoch` give the same bytes, whatever the day, the folder,
 * the umask, the number of cores.
 * @throws UserError for a spec that cannot be a package, a source that vanished or changed, a full disk; nothing is left behind
 */
export function writeDeb(
  context: RunContext,
  path: string,
  spec: DebSpec,
  options: WriteDebOptions,
): Promise<BinaryPackage> {
  return writeDebFile(context, path, spec, options);
}

/**
 * Reads the control files and all four digests in one pass. data.tar is digested, not decompressed: `listDeb` and `extractDeb`
 * find what is wrong inside it.
 * @throws UserError `deb-...` that names the file and the member, for anything that dpkg would not take
 */
export async function readDeb(context: RunContext, path: string): Promise<DebInfo> {
  for await (const result of readDebFiles(context, [path])) {
    if ('info' in result) return result.info;
    throw result.error;
  }
  throw new Error('no result for a file');
}

/**
 * Like `readDeb` for many files, in their order, with one decompressor process for many members. A broken file gives a
 * result with `error` and disturbs no other.
 */
export function readDebs(
  context: RunContext,
  paths: Iterable<string> | AsyncIterable<string>,
): AsyncGenerator<DebResult> {
  return readDebFiles(context, paths);
}

/**
 * The objects of data.tar in their order, streaming. A list depends on nothing but the .deb's bytes: `package.sha256` is the key
 * to keep it under.
 * @throws UserError `deb-...`, `tar-...`
 */
export async function* listDeb(context: RunContext, path: string): AsyncGenerator<DebFile> {
  for await (const { events, member } of readData(context, path)) {
    for (const event of events) if ('header' in event) yield debFile(event.header, path, member);
  }
}

/**
 * `listDeb` of many, in their order: small ones are decompressed together.
 * @throws UserError `deb-...`, `tar-...`
 */
export async function* listDebs(
  context: RunContext,
  paths: readonly string[],
): AsyncGenerator<{ readonly path: string; readonly files: readonly DebFile[] }> {
  for await (const { path, tar, member } of readSmallData(context, paths)) {
    if (tar === undefined) {
      yield { path, files: await Array.fromAsync(listDeb(context, path)) };
      continue;
    }
    const reader = createTarReader({ file: path, member });
    const events = reader.push(tar);
    reader.end();
    yield { path, files: events.flatMap((event) => ('header' in event ? debFile(event.header, path, member) : [])) };
  }
}

/**
 * The content of those regular files that `wanted` names, in their order; of each at most the first `maxBytes`.
 * @throws UserError `deb-...`, `tar-...`
 */
export async function* readDebContents(
  context: RunContext,
  path: string,
  wanted: (path: string) => boolean,
  maxBytes: number,
): AsyncGenerator<{ readonly path: string; readonly content: Buffer }> {
  let current: { readonly path: string; readonly parts: Uint8Array[]; size: number } | undefined;
  const finished = () => current && { path: current.path, content: Buffer.concat(current.parts).subarray(0, maxBytes) };
  for await (const { events, member } of readData(context, path)) {
    for (const event of events) {
      if ('header' in event) {
        const before = finished();
        if (before) yield before;
        const file = debFile(event.header, path, member);
        current = file.type === 'file' && wanted(file.path) ? { path: file.path, parts: [], size: 0 } : undefined;
      } else if (current && current.size < maxBytes) {
        current.parts.push(Uint8Array.from(event.data)); // the reader may use its buffer again
        current.size += event.data.length;
      }
    }
  }
  const last = finished();
  if (last) yield last;
}

/**
 * Unpacks data.tar below `target` (made when missing) with modes and mtimes; owners (by number) when root.
 * @throws UserError `deb-unsafe` for a name or link that leaves `target` or goes through a link, for device nodes; `deb-...` and
 *   `tar-...` for broken archives. What came before the fault is then unpacked.
 */
export function extractDeb(context: RunContext, path: string, target: string): Promise<void> {
  return extractDebFile(context, path, target);
}

function debFile(header: TarHeader, file: string, member: string): DebFile {
  const { type, mode, uid, gid, user, group, size, mtime } = header;
  const path = installedPath(header.name, file, member).toString('utf8');
  const common = { path, type, mode, uid, gid, user, group, size, mtime };
  if (type === 'symlink') return { ...common, link: header.link.toString('utf8') };
  if (type === 'hardlink') return { ...common, link: installedPath(header.link, file, member).toString('utf8') };
  return common;
}
