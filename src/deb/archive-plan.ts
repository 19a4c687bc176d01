/**
 * From the description of a package to the exact list of what its two tar archives hold, in dpkg-deb's order. Pure.
 *
 * Secret: the order (folders and files as a sorted walk of the tree meets them, then all symlinks), which objects are added,
 * which are refused. Ruled by deb(5), dpkg-deb(1), deb-conffiles(5), Policy 5.6.20, 6.1, 10.7; md5sums as dh_md5sums(1).
 */
import { UserError } from '../core/errors.ts';
import { isArch } from './arch.ts';
import type { DebEntry, DebSource, DebSpec } from './archive.ts';
import { formatParagraph, getField, type Paragraph, paragraph } from './control.ts';
import { isPackageName } from './package.ts';
import type { TarHeader } from './tar.ts';
import { isVersion } from './version.ts';

/** One object of data.tar. The size of a file is known when its source is opened. */
export interface DataObject {
  /** '/usr/bin/x' */
  readonly path: string;
  readonly header: TarHeader;
  /** Files only. */
  readonly source?: DebSource;
  readonly conffile: boolean;
}

/** One file of control.tar. */
export interface ControlFile {
  readonly name: string;
  readonly mode: number;
  readonly data: Buffer;
}

const MAX_PATH = 4096;
/** The kernel takes 255 bytes; dpkg needs nine of them for '.dpkg-new' while it unpacks. */
const MAX_NAME = 246;

/**
 * All objects of data.tar in order: the root and every missing parent folder are added (0755, root's).
 * @throws UserError `deb-path`, `deb-entry`, `duplicate-path`
 */
export function planData(entries: readonly DebEntry[], sourceDateEpoch: number): DataObject[] {
  const byPath = new Map<string, DebEntry>();
  for (const entry of entries) {
    checkEntry(entry);
    if (byPath.has(entry.path)) throw new UserError('duplicate-path', `'${entry.path}' is listed twice in the package`);
    byPath.set(entry.path, entry);
  }
  addParents(byPath);
  const linked = canonicalLinks(byPath);
  const order = pathOrder(linked.keys());
  const objects = [...linked.values()]
    .sort((a, b) => order(a.path, b.path))
    .map((entry) => dataObject(entry, sourceDateEpoch));
  return [
    ...objects.filter(({ header }) => header.type !== 'symlink'),
    ...objects.filter(({ header }) => header.type === 'symlink'),
  ];
}

/** Order of a tree walk with each folder's names sorted by their bytes, as dpkg-deb and `tar --sort=name` have it. */
function pathOrder(paths: Iterable<string>): (a: string, b: string) => number {
  // a slash sorts before every other byte; UTF-16 order is byte order unless surrogates are about
  const keys = new Map<string, string>();
  let plain = true;
  for (const path of paths) {
    keys.set(path, path.replaceAll('/', '\0'));
    plain &&= !/[\ud800-\udfff]/.test(path);
  }
  const key = (path: string) => keys.get(path)!;
  if (plain) return (a, b) => (key(a) < key(b) ? -1 : 1);
  return (a, b) => Buffer.compare(Buffer.from(key(a)), Buffer.from(key(b)));
}

function checkEntry(entry: DebEntry): void {
  const { path, type, mode } = entry;
  const wrong = pathProblem(path);
  if (wrong !== undefined) throw new UserError('deb-path', `'${path}' cannot be in a package: ${wrong}`);
  const refuse = (what: string): never => {
    throw new UserError('deb-entry', `'${path}' cannot be in a package: ${what}`);
  };
  if (!Number.isInteger(mode) || mode < 0 || mode > 0o7777) refuse(`${mode} is no file mode`);
  if (type === 'file' && entry.source === undefined) refuse('there is no source for its content');
  if (type !== 'file' && entry.source !== undefined) refuse(`content for a ${type}`);
  if (type !== 'file' && entry.conffile === true) refuse('a configuration file must be a regular file');
  if (type === 'symlink' && !isLinkText(entry.link)) refuse('a symlink needs a target');
  if (type === 'hardlink' && entry.link === undefined) refuse('a hard link needs the path of its file');
  for (const id of [entry.uid, entry.gid]) {
    if (id !== undefined && !(Number.isInteger(id) && id >= 0 && id < 2 ** 32)) refuse(`${id} is no user or group id`);
  }
  for (const name of [entry.user, entry.group]) {
    if (name !== undefined && (Buffer.byteLength(name) > 31 || name.includes('\0')))
      refuse(`'${name}' is too long for a user or group`);
  }
  if (entry.mtime !== undefined && !Number.isFinite(entry.mtime)) refuse('its time is no number');
}

function pathProblem(path: string): string | undefined {
  if (!path.startsWith('/')) return 'the path must start with a slash';
  if (path === '/') return undefined;
  if (!path.isWellFormed()) return 'the name is no valid Unicode';
  if (path.includes('\n')) return 'dpkg takes no newline in a name';
  if (path.includes('\0')) return 'it holds a NUL byte';
  if (Buffer.byteLength(path) >= MAX_PATH) return `it is longer than ${MAX_PATH} bytes`;
  for (const part of path.slice(1).split('/')) {
    if (part === '' || part === '.' || part === '..') return `it has a part '${part}'`;
    if (part.length > MAX_NAME / 4 && Buffer.byteLength(part) > MAX_NAME)
      return `a part of it is longer than ${MAX_NAME} bytes, the most that dpkg can unpack`;
  }
  return undefined;
}

function isLinkText(link: string | undefined): boolean {
  return (
    link !== undefined &&
    link !== '' &&
    link.isWellFormed() &&
    !link.includes('\0') &&
    Buffer.byteLength(link) < MAX_PATH
  );
}

function addParents(byPath: Map<string, DebEntry>): void {
  for (const path of [...byPath.keys()]) {
    for (let parent = parentOf(path); ; parent = parentOf(parent)) {
      const known = byPath.get(parent);
      if (known !== undefined && known.type !== 'dir') {
        throw new UserError('deb-path', `'${path}' is below '${parent}', which is a ${known.type} in the same package`);
      }
      if (known !== undefined) break;
      byPath.set(parent, { path: parent, type: 'dir', mode: 0o755 });
      if (parent === '/') break;
    }
  }
  if (!byPath.has('/')) byPath.set('/', { path: '/', type: 'dir', mode: 0o755 });
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(1, path.lastIndexOf('/')));
}

/**
 * Of several names of one file the first in order holds the content and the others link to it, whichever the caller named as
 * the file: so tar would write it, and no link stands before its target.
 */
function canonicalLinks(byPath: ReadonlyMap<string, DebEntry>): ReadonlyMap<string, DebEntry> {
  const namesOf = new Map<string, string[]>();
  for (const entry of byPath.values()) {
    if (entry.type !== 'hardlink') continue;
    const target = byPath.get(entry.link!);
    if (target?.type !== 'file') {
      throw new UserError(
        'deb-entry',
        `'${entry.path}' is a hard link to '${entry.link}', which is no file of the same package`,
      );
    }
    namesOf.set(target.path, [...(namesOf.get(target.path) ?? [target.path]), entry.path]);
  }
  if (namesOf.size === 0) return byPath;
  const result = new Map(byPath);
  for (const [holder, names] of namesOf) {
    const content = byPath.get(holder)!;
    const [first, ...others] = names.sort(pathOrder(names));
    result.set(first!, { ...content, path: first!, conffile: byPath.get(first!)!.conffile ?? false });
    const { source: _, ...attributes } = content;
    for (const other of others) {
      result.set(other, {
        ...attributes,
        path: other,
        type: 'hardlink',
        link: first!,
        conffile: byPath.get(other)!.conffile ?? false,
      });
    }
  }
  return result;
}

function dataObject(entry: DebEntry, sourceDateEpoch: number): DataObject {
  const uid = entry.uid ?? 0;
  const gid = entry.gid ?? 0;
  const name = (path: string) => Buffer.from(path === '/' ? '.' : `.${path}`);
  const header: TarHeader = {
    name: name(entry.path),
    type: entry.type,
    mode: entry.type === 'symlink' ? 0o777 : entry.mode,
    uid,
    gid,
    user: entry.user ?? (uid === 0 ? 'root' : ''),
    group: entry.group ?? (gid === 0 ? 'root' : ''),
    size: 0,
    mtime: Math.min(Math.floor(entry.mtime ?? sourceDateEpoch), sourceDateEpoch),
    link: entry.type === 'hardlink' ? name(entry.link!) : Buffer.from(entry.link ?? ''),
  };
  return {
    path: entry.path,
    header,
    conffile: entry.conffile ?? false,
    ...(entry.source === undefined ? {} : { source: entry.source }),
  };
}

/** KiB that one object counts for, Policy 5.6.20: content rounded up for files and symlinks, 1 for anything else. */
export function installedKib(header: TarHeader): number {
  if (header.type === 'file') return Math.ceil(header.size / 1024);
  if (header.type === 'symlink') return Math.ceil(header.link.length / 1024);
  return header.type === 'hardlink' ? 0 : 1; // dpkg-gencontrol counts the content of a file with several names once
}

/**
 * The lines of the conffiles file: what the spec lists and the entries marked so, sorted.
 * @throws UserError `deb-conffile`
 */
export function planConffiles(objects: readonly DataObject[], listed: readonly string[]): string[] {
  const files = new Map(objects.map((object) => [object.path, object.header.type]));
  const lines = new Set(objects.filter((object) => object.conffile).map((object) => object.path));
  for (const line of listed) {
    const [, flag, path] = /^(?:(remove-on-upgrade)\s+)?(\/.*)$/.exec(line) ?? [];
    const refuse = (what: string): never => {
      throw new UserError('deb-conffile', `conffile '${line}': ${what}`);
    };
    if (path === undefined || pathProblem(path) !== undefined) return refuse('not an absolute path');
    const type = files.get(path);
    if (flag === undefined && type === undefined) refuse('the package has no such file');
    if (flag !== undefined && type !== undefined) refuse('the package still has this file');
    if (type !== undefined && type !== 'file' && type !== 'hardlink') refuse(`it is a ${type}, not a regular file`);
    lines.add(flag === undefined ? path : `${flag} ${path}`);
  }
  return [...lines].sort();
}

/** @throws UserError `deb-control` for a control file that dpkg would not take or Policy 5.3 calls incomplete */
export function checkControl(control: Paragraph): { name: string; version: string; architecture: string } {
  const field = (name: string): string => {
    const value = getField(control, name);
    if (value !== undefined && value !== '') return value;
    throw new UserError('deb-control', `the package has no ${name}`, { hint: `add the field '${name}:'` });
  };
  const [name, version, architecture] = [field('Package'), field('Version'), field('Architecture')];
  field('Maintainer');
  field('Description');
  const wrong = !isPackageName(name)
    ? `'${name}' is no package name`
    : !isVersion(version)
      ? `'${version}' is no Debian version`
      : !isArch(architecture)
        ? `'${architecture}' is no architecture that a binary package can have`
        : undefined;
  if (wrong !== undefined) throw new UserError('deb-control', wrong);
  return { name, version, architecture };
}

/** The control file with Installed-Size where dpkg-gencontrol puts it: after Maintainer. */
export function withInstalledSize(control: Paragraph, kib: number): Paragraph {
  const fields = control.fields.filter((field) => field.name.toLowerCase() !== 'installed-size');
  const after = fields.findIndex((field) => field.name.toLowerCase() === 'maintainer') + 1;
  return { fields: fields.toSpliced(after, 0, ...paragraph([['Installed-Size', String(kib)]]).fields) };
}

/**
 * The files of control.tar, sorted by name.
 * @param md5sums of every regular file that is no conffile
 * @throws UserError `deb-script`, `deb-control-file`
 */
export function planControl(
  spec: DebSpec,
  control: Paragraph,
  conffiles: readonly string[],
  md5sums: readonly { readonly path: string; readonly md5: string }[],
): ControlFile[] {
  const files = new Map<string, ControlFile>();
  const add = (name: string, mode: number, data: string | Uint8Array) => {
    if (files.has(name)) throw new UserError('deb-control-file', `the control file '${name}' is given twice`);
    files.set(name, { name, mode, data: Buffer.from(data) });
  };
  add('control', 0o644, formatParagraph(control));
  if (md5sums.length > 0) add('md5sums', 0o644, md5sumLines(md5sums));
  if (conffiles.length > 0) add('conffiles', 0o644, conffiles.map((line) => `${line}\n`).join(''));
  if (spec.triggers !== undefined) add('triggers', 0o644, spec.triggers);
  for (const [name, script] of Object.entries(spec.scripts ?? {})) {
    if (script === undefined) continue;
    if (!script.startsWith('#!')) {
      throw new UserError('deb-script', `the maintainer script '${name}' does not start with '#!'`, {
        hint: "let its first line be '#!/bin/sh'",
      });
    }
    add(name, 0o755, script);
  }
  for (const [name, { data, mode }] of Object.entries(spec.extraControl ?? {})) {
    if (!/^[A-Za-z0-9][A-Za-z0-9+._-]{0,99}$/.test(name))
      throw new UserError('deb-control-file', `'${name}' is no name for a control file`);
    add(name, mode, data);
  }
  return [...files.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function md5sumLines(sums: readonly { readonly path: string; readonly md5: string }[]): string {
  const lines = sums.map(({ path, md5 }) => ({ path: Buffer.from(path.slice(1)), md5 }));
  lines.sort((a, b) => Buffer.compare(a.path, b.path));
  return lines.map(({ path, md5 }) => `${md5}  ${path}\n`).join('');
}
