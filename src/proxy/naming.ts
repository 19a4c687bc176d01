/**
 * Which indexes of a suite may name a file of the archive: from its path alone, before any of them was read.
 *
 * Secret: what a path of a pool says about component and architecture (Debian Policy 3.2.1 and 5.6.8, RepositoryFormat: one
 * folder an architecture), and which of the same index's compressions is worth fetching. Pure.
 */
import { namesFiles } from './policy.ts';
import type { NamedFile, Release } from './release.ts';

export interface Candidate {
  /** Relative to the Release file. */
  readonly path: string;
  readonly named: NamedFile;
}

/** Smaller is better; `decompress` reads them all. */
const FORMS: readonly string[] = ['.xz', '.zst', '.lzma', '.bz2', '.gz', ''];
/** Indexes beyond these are not read for the sake of one file (Debian's largest Packages.xz has 10 MiB, Ubuntu's 20). */
const LARGEST = 64 * 1024 * 1024;
const MOST = 8;

/**
 * The likeliest indexes first, one compression each: that which is here, else the smallest form.
 * @param isHere true for indexes that need not be fetched
 */
export function indexesThatMayName(
  path: string,
  release: Pick<Release, 'files'>,
  isHere: (sha256: string) => boolean,
): Candidate[] {
  const kind = kindOf(path);
  const folders = new Map<string, Candidate>();
  for (const [index, named] of release.files) {
    const form = namesFiles(index);
    if (form === undefined || form === 'diff' || named.size > LARGEST || named.size === 0) continue;
    const folder = index.slice(0, Math.max(0, index.lastIndexOf('/')));
    if (!mayHold(folder, form, kind)) continue;
    const before = folders.get(`${folder}\n${form}`);
    if (before && !isBetter(index, named, before, isHere)) continue;
    folders.set(`${folder}\n${form}`, { path: index, named });
  }
  const all = [...folders.values()];
  const fitting = all.filter(({ path: index }) => isOfComponent(path, index));
  const chosen = (fitting.length > 0 ? fitting : all).sort((a, b) => rank(a.path) - rank(b.path));
  return (kind?.architecture === 'all' ? onePerComponent(chosen) : chosen).slice(0, MOST);
}

/** What is built for all architectures is in the index of each. */
function onePerComponent(candidates: readonly Candidate[]): Candidate[] {
  const seen = new Set<string>();
  return candidates.filter(({ path }) => {
    const component = path.replace(/(?:^|\/)binary-[a-z0-9-]+\/[^/]+$/, '');
    if (seen.has(component)) return false;
    seen.add(component);
    return true;
  });
}

type FileKind = { readonly architecture: string; readonly udeb: boolean } | undefined;

/** Undefined: a source file, or no telling. */
function kindOf(path: string): FileKind {
  const match = /_([a-z0-9-]+)\.(u|d)?deb$/.exec(path);
  return match ? { architecture: match[1]!, udeb: match[2] === 'u' } : undefined;
}

function mayHold(folder: string, form: 'Packages' | 'Sources', kind: FileKind): boolean {
  if (kind === undefined) return form === 'Sources';
  if (form !== 'Packages') return false;
  const binary = /(?:^|\/)binary-([a-z0-9-]+)$/.exec(folder);
  if (!binary) return !/(?:^|\/)source$/.test(folder); // a flat archive
  if (kind.udeb !== /(?:^|\/)debian-installer\//.test(folder)) return false;
  return kind.architecture === 'all' || binary[1] === kind.architecture || binary[1] === 'all';
}

/** `main` of `main/binary-amd64/Packages.xz` is a folder of `pool/updates/main/h/hello/...`. */
function isOfComponent(path: string, index: string): boolean {
  const component = /^(.*?)(?:\/debian-installer)?\/(?:binary-[a-z0-9-]+|source)\/[^/]+$/.exec(index)?.[1];
  return component === undefined || `/${path}`.includes(`/${component}/`);
}

/** An `all` package is in `binary-all` where there is one, else in every architecture. */
function rank(index: string): number {
  if (/binary-all\//.test(index)) return 0;
  return /binary-amd64\//.test(index) ? 1 : 2;
}

function isBetter(index: string, named: NamedFile, before: Candidate, isHere: (sha256: string) => boolean): boolean {
  const here = isHere(named.sha256);
  if (here !== isHere(before.named.sha256)) return here;
  return formOf(index) < formOf(before.path);
}

function formOf(index: string): number {
  const file = index.slice(index.lastIndexOf('/') + 1);
  const at = FORMS.indexOf(file.includes('.') ? file.slice(file.indexOf('.')) : '');
  return at < 0 ? FORMS.length : at;
}
