/**
 * Debian source packages as they are given: a folder with debian/, or a .dsc with the files that it lists.
 *
 * Secret: which files make a source of which format, and what of them a build needs to know beforehand
 * (dpkg-source(1), deb-src-control(5), dsc(5), Policy 5.2 to 5.4).
 */
import { createHash } from 'node:crypto';
import { lstat, readdir, readFile, readlink } from 'node:fs/promises';
import { basename, dirname, join, relative, sep } from 'node:path';
import type { Context } from '../../core/context.ts';
import { ToolError, UserError } from '../../core/errors.ts';
import { digestFile, exists } from '../../core/files.ts';
import { run } from '../../core/run.ts';
import { parseChangelog } from '../../deb/changelog.ts';
import { formatParagraph, getField, type Paragraph, paragraph, parseControl } from '../../deb/control.ts';
import { parseVersion } from '../../deb/version.ts';

export interface SourceFile {
  /** Below the folder. */
  readonly path: string;
  readonly kind: 'file' | 'program' | 'link' | 'folder';
}

export interface DebianSource {
  readonly name: string;
  /** Whole, with the epoch. */
  readonly version: string;
  /** The folder, or the .dsc file. */
  readonly path: string;
  /** A .dsc: the files it lists, whose digests were checked. A folder: upstream's tarballs beside it. */
  readonly files: readonly string[];
  /** What is in the folder; undefined for a .dsc. */
  readonly tree: readonly SourceFile[] | undefined;
  /** Stands for its Build-Depends and Build-Conflicts. */
  readonly control: string;
  /** Names of the binary packages, in their order. */
  readonly binaries: readonly string[];
  /** Digest of all content. */
  readonly digest: string;
}

/** A folder from which dpkg-buildpackage can build: a lone debian/changelog makes none. */
export async function isDebianSource(folder: string): Promise<boolean> {
  const needed = ['control', 'changelog', 'rules'].map((name) => exists(join(folder, 'debian', name)));
  return (await Promise.all(needed)).every(Boolean);
}

/**
 * @param without a folder below it that is not part of the source: where results go
 * @throws UserError `source-invalid`, `orig-missing`, and what control and changelog refuse
 */
export async function readSourceFolder(context: Context, folder: string, without?: string): Promise<DebianSource> {
  const file = join(folder, 'debian/control');
  const [source, ...binaries] = parseControl(await readFile(file, 'utf8'), { file, blankLines: 'separate' });
  const name = source && getField(source, 'Source');
  if (source === undefined || name === undefined) {
    throw new UserError('source-invalid', 'its first paragraph has no field Source', { file });
  }
  const changelog = join(folder, 'debian/changelog');
  const [newest] = parseChangelog(await readFile(changelog, 'utf8'), { file: changelog });
  if (newest === undefined) throw new UserError('source-invalid', 'it has no entry', { file: changelog });
  if (newest.package !== name) {
    const message = `the newest entry is of '${newest.package}', debian/control says '${name}'`;
    throw new UserError('source-invalid', message, { file: changelog, line: newest.line });
  }
  const files = await originals(folder, name, newest.version);
  const tree = await readTree(context, folder, without);
  return {
    name,
    version: newest.version,
    path: folder,
    files,
    tree,
    control: buildControl(source),
    binaries: binaries.flatMap((one) => getField(one, 'Package') ?? []),
    digest: await digestAll(folder, tree, files),
  };
}

/** @throws UserError `source-invalid`, `listed-file-missing`, `listed-file-differs` */
export async function readSourceList(path: string): Promise<DebianSource> {
  const list = parseDsc(await readFile(path, 'utf8'), path);
  const [name, version] = [getField(list, 'Source'), getField(list, 'Version')];
  const sums = getField(list, 'Checksums-Sha256');
  if (name === undefined || version === undefined || sums === undefined) {
    throw new UserError('source-invalid', 'it lacks Source, Version or Checksums-Sha256', { file: path });
  }
  const files: string[] = [];
  for (const line of sums.trim().split('\n')) {
    const [, sha256, file = ''] = /^\s*([0-9a-f]{64})\s+\d+\s+([A-Za-z0-9][\w.+~-]*)\s*$/.exec(line) ?? [];
    if (sha256 === undefined) throw new UserError('source-invalid', `'${line.trim()}' lists no file`, { file: path });
    files.push(await checkListed(join(dirname(path), file), sha256, path));
  }
  const binaries = (getField(list, 'Binary') ?? '').split(/[\s,]+/).filter((one) => one !== '');
  const digest = createHash('sha256')
    .update(JSON.stringify([formatParagraph(list)]))
    .digest('hex');
  return { name, version, path, files, tree: undefined, control: buildControl(list), binaries, digest };
}

/** NAME-UPSTREAM, where dpkg-source unpacks it. */
export function sourceFolderName({ name, version }: Pick<DebianSource, 'name' | 'version'>): string {
  return `${name}-${parseVersion(version).upstream}`;
}

function parseDsc(text: string, file: string): Paragraph {
  const unsigned = /^-----BEGIN PGP SIGNED MESSAGE-----\n(?:[^\n]+\n)*\n(.*?)\n-----BEGIN PGP SIGNATURE-----/s.exec(
    text,
  );
  const [list] = parseControl(unsigned ? `${unsigned[1]}\n` : text, { file, blankLines: 'separate' });
  if (list === undefined) throw new UserError('source-invalid', 'there is nothing in it', { file });
  return list;
}

async function checkListed(path: string, sha256: string, list: string): Promise<string> {
  const what = `'${basename(path)}', which '${basename(list)}' lists,`;
  if (!(await exists(path))) throw new UserError('listed-file-missing', `${what} is not beside it`);
  if ((await digestFile(path, 'sha256')) === sha256) return path;
  throw new UserError('listed-file-differs', `${what} has other content`, { file: path });
}

const BUILD_FIELDS = ['Build-Depends', 'Build-Conflicts'].flatMap((name) => [name, `${name}-Arch`, `${name}-Indep`]);

/** debian/control with nothing but what apt-get build-dep looks at. */
function buildControl(source: Paragraph): string {
  const oneLine = (name: string) =>
    getField(source, name)
      ?.split('\n')
      .filter((line) => !line.startsWith('#'))
      .join(' ')
      .replaceAll(/\s+/g, ' ')
      .trim();
  const head = paragraph([
    ['Source', 'buildkit-layer'],
    ['Maintainer', 'buildkit <buildkit@localhost>'],
    ...BUILD_FIELDS.map((name) => [name, oneLine(name) || undefined] as const),
  ]);
  return `${formatParagraph(head)}\nPackage: buildkit-layer\nArchitecture: all\nDescription: layer\n`;
}

/** Upstream's tarballs, which lie beside the folder (dpkg-source(1)). @throws UserError `orig-missing` */
async function originals(folder: string, name: string, version: string): Promise<string[]> {
  const format = await readFile(join(folder, 'debian/source/format'), 'utf8').catch(() => '1.0');
  const { upstream, revision } = parseVersion(version);
  if (format.includes('native') || revision === '') return [];
  const stem = `${name}_${upstream}.orig`;
  const names = (await readdir(dirname(folder))).filter((one) => one.startsWith(stem));
  const found = names.filter((one) => /^(-[\w-]+)?\.tar\.(gz|xz|bz2|lzma)(\.asc)?$/.test(one.slice(stem.length)));
  if (found.length === 0 && format.includes('quilt')) {
    throw new UserError('orig-missing', `upstream's '${stem}.tar.*' is not beside the folder`, {
      file: folder,
      hint: "fetch it, as 'origtargz' does, or write '3.0 (native)' into debian/source/format",
    });
  }
  return found.sort().map((one) => join(dirname(folder), one));
}

/** What git would take into a commit; without git, everything. Sorted, each folder before what is in it. */
async function readTree(context: Context, folder: string, without: string | undefined): Promise<SourceFile[]> {
  const left = without === undefined ? '' : relative(folder, without);
  const outside = left === '' || left === '..' || left.startsWith(`..${sep}`);
  const listed = await gitFiles(context, folder);
  const tree: SourceFile[] = [];
  const walk = async (below: string): Promise<void> => {
    for (const item of (await readdir(join(folder, below), { withFileTypes: true })).sort(byName)) {
      const path = below === '' ? item.name : `${below}/${item.name}`;
      if (VERSION_CONTROL.has(item.name) || (!outside && path === left)) continue;
      if (listed !== undefined && !listed.has(path)) continue;
      if (item.isDirectory()) {
        tree.push({ path, kind: 'folder' });
        await walk(path);
      } else if (item.isSymbolicLink()) tree.push({ path, kind: 'link' });
      else if (item.isFile()) {
        const { mode } = await lstat(join(folder, path));
        tree.push({ path, kind: (mode & 0o111) === 0 ? 'file' : 'program' });
      } else throw new UserError('source-invalid', `'${path}' is neither file, folder nor link`, { file: folder });
    }
  };
  await walk('');
  return tree;
}

const VERSION_CONTROL = new Set(['.git', '.hg', '.svn', '.bzr']);

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : 1;
}

/** Files and the folders that hold them; undefined where the folder is not git's. */
async function gitFiles(context: Context, folder: string): Promise<Set<string> | undefined> {
  let text: string;
  try {
    const args = ['-C', folder, 'ls-files', '-z', '--cached', '--others', '--exclude-standard'];
    text = (await run(context, 'git', args)).stdout;
  } catch (error) {
    if (error instanceof ToolError) return undefined;
    throw error;
  }
  const files = text.split('\0').filter((name) => name !== '');
  if (!files.includes('debian/control')) return undefined; // ignored by an outer tree
  const all = new Set(files);
  for (const file of files) for (let at = dirname(file); at !== '.'; at = dirname(at)) all.add(at);
  return all;
}

async function digestAll(folder: string, tree: readonly SourceFile[], files: readonly string[]): Promise<string> {
  const hash = createHash('sha256');
  for (const { path, kind } of tree) {
    const full = join(folder, path);
    const content = kind === 'folder' ? '' : kind === 'link' ? await readlink(full) : await digestFile(full, 'sha256');
    hash.update(JSON.stringify([path, kind, content]));
  }
  for (const file of files) hash.update(JSON.stringify([basename(file), await digestFile(file, 'sha256')]));
  return hash.digest('hex');
}
