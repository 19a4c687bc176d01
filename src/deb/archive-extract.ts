/**
 * Unpacking data.tar below a folder, whatever the archive says: nothing outside it is made, changed or linked to.
 *
 * Secret: each parent folder is looked at, never followed as a link; what is in the way is removed, never written through;
 * times and modes of folders are set last. Ruled by deb(5), and by what `dpkg-deb --extract` does with good packages.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  futimesSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  type Stats,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { resolve } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { explainWriteError } from '../core/files.ts';
import { installedPath, readData } from './archive-read.ts';
import type { TarHeader } from './tar.ts';

/** See `extractDeb` in archive.ts. */
export async function extractDebFile(context: RunContext, path: string, target: string): Promise<void> {
  const root = resolve(target);
  try {
    mkdirSync(root, { recursive: true });
    using unpacker = createUnpacker(path, Buffer.from(root), process.getuid?.() === 0);
    for await (const { events, member } of readData(context, path)) {
      for (const event of events) {
        if ('header' in event) unpacker.add(event.header, member);
        else unpacker.write(event.data);
      }
    }
    unpacker.finish();
  } catch (cause) {
    throw explainWriteError(cause, root);
  }
}

interface Unpacker extends Disposable {
  add(header: TarHeader, member: string): void;
  /** More of the file that was added last. */
  write(data: Uint8Array): void;
  /** Folders get their modes and times. */
  finish(): void;
}

interface OpenFile {
  readonly fd: number;
  readonly header: TarHeader;
}

function createUnpacker(file: string, root: Buffer, asRoot: boolean): Unpacker {
  const folders = new Map<string, TarHeader | undefined>(); // latin1 of the path below root, known to be real folders
  let current: OpenFile | undefined;
  let left = 0;

  const fail = (header: TarHeader, member: string, what: string): never => {
    throw new UserError(
      'deb-unsafe',
      `${member}: ${JSON.stringify(header.name.toString('utf8').slice(0, 200))} ${what}`,
      {
        file,
        hint: 'no real package is like this: do not trust where it came from',
      },
    );
  };
  const onDisk = (below: Buffer) => (below.length === 1 ? root : Buffer.concat([root, below]));

  /** All folders above `below` exist and are folders, not links to some. */
  function checkParents(below: Buffer, make: boolean, header: TarHeader, member: string): void {
    for (let end = below.indexOf(0x2f, 1); end > 0; end = below.indexOf(0x2f, end + 1)) {
      const parent = below.subarray(0, end);
      const key = parent.toString('latin1');
      if (folders.has(key)) continue;
      const found = look(onDisk(parent));
      if (found === undefined && make) mkdirSync(onDisk(parent), 0o755);
      else if (found === undefined) fail(header, member, 'has no folder to be in');
      else if (found.isSymbolicLink())
        fail(header, member, `would be written through the link '${parent.toString('utf8')}'`);
      else if (!found.isDirectory()) fail(header, member, `is below '${parent.toString('utf8')}', which is no folder`);
      folders.set(key, undefined);
    }
  }

  /** Removes what is in the way, so that nothing is written through a link, hard or symbolic. */
  function clear(path: Buffer, header: TarHeader, member: string): void {
    const found = look(path);
    if (found === undefined) return;
    if (found.isDirectory()) fail(header, member, 'is in the place of a folder');
    unlinkSync(path);
  }

  function addFolder(below: Buffer, path: Buffer, header: TarHeader, member: string): void {
    const found = look(path);
    if (found?.isSymbolicLink()) fail(header, member, 'is a folder in the place of a link');
    if (found !== undefined && !found.isDirectory()) unlinkSync(path);
    if (found === undefined || !found.isDirectory()) mkdirSync(path, 0o700);
    folders.set(below.toString('latin1'), header);
  }

  function addHardLink(path: Buffer, header: TarHeader, member: string): void {
    const target = installedPath(header.link, file, member);
    checkParents(target, false, header, member);
    const found = look(onDisk(target));
    if (!found?.isFile())
      fail(header, member, `is a link to '${target.toString('utf8')}', which is no file of the package`);
    if (path.equals(onDisk(target))) fail(header, member, 'is a link to itself');
    clear(path, header, member);
    linkSync(onDisk(target), path);
  }

  function addSymlink(path: Buffer, header: TarHeader, member: string): void {
    if (header.link.length === 0) fail(header, member, 'is a link to nowhere');
    clear(path, header, member);
    symlinkSync(header.link, path);
    if (asRoot) lchownSync(path, header.uid, header.gid);
    lutimesSync(path, timeOf(header), timeOf(header));
  }

  function openFile(path: Buffer, header: TarHeader, member: string): void {
    clear(path, header, member);
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    current = { fd: openSync(path, flags, 0o600), header };
    left = header.size;
    if (left === 0) closeFile();
  }

  function closeFile(): void {
    const { fd, header } = current!;
    if (asRoot) fchownSync(fd, header.uid, header.gid);
    fchmodSync(fd, header.mode); // after the owner: chown takes setuid away
    futimesSync(fd, timeOf(header), timeOf(header));
    closeSync(fd);
    current = undefined;
  }

  return {
    add(header, member) {
      const below = installedPath(header.name, file, member);
      const path = onDisk(below);
      try {
        checkParents(below, true, header, member);
        if (header.type === 'dir') addFolder(below, path, header, member);
        else if (below.length === 1) fail(header, member, `is a ${header.type} in the place of the root`);
        else if (header.type === 'file') openFile(path, header, member);
        else if (header.type === 'symlink') addSymlink(path, header, member);
        else if (header.type === 'hardlink') addHardLink(path, header, member);
        else fail(header, member, `is a ${header.type}: Policy 10.6 leaves those to maintainer scripts`);
      } catch (cause) {
        const unusable = ['ENAMETOOLONG', 'EINVAL', 'ENOTDIR', 'ELOOP', 'EILSEQ'].includes(errnoOf(cause) ?? '');
        if (!unusable || cause instanceof UserError) throw cause;
        throw new UserError(
          'deb-unsafe',
          `${member}: the system does not take the name ${JSON.stringify(header.name.toString('utf8').slice(0, 200))}`,
          { file, cause },
        );
      }
    },
    write(data) {
      for (let offset = 0; offset < data.length; ) offset += writeSync(current!.fd, data, offset);
      left -= data.length;
      if (left === 0) closeFile();
    },
    finish() {
      // the deepest first: a folder's mode may forbid to enter it, and what is made in it changes its time
      for (const [key, header] of [...folders].reverse()) {
        if (header === undefined) continue;
        const path = onDisk(Buffer.from(key, 'latin1'));
        if (asRoot) chownSync(path, header.uid, header.gid);
        chmodSync(path, header.mode);
        utimesSync(path, timeOf(header), timeOf(header));
      }
    },
    [Symbol.dispose]() {
      if (current !== undefined) closeSync(current.fd);
    },
  };
}

function look(path: Buffer): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** A Date: node takes a negative number of seconds for the current time. */
function timeOf(header: TarHeader): Date {
  const limit = 8_640_000_000_000; // what a Date can hold, beyond any file system
  return new Date(Math.min(Math.max(header.mtime, -limit), limit) * 1000);
}
