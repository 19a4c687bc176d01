/**
 * What a path is to apt, and so whether it may ever change: pool files and by-hash objects never do, Release files and what they
 * name do together, anything else is asked for again.
 *
 * Secret: the layout of Debian archives (Debian wiki, RepositoryFormat; apt-secure(8)), flat ones included. Pure.
 */

export type HashName = 'md5' | 'sha1' | 'sha256' | 'sha512';

export interface Digest {
  readonly algorithm: HashName;
  /** Lower case hex. */
  readonly hex: string;
}

export type Kind =
  /** InRelease, Release or Release.gpg: `root` is the folder it is in. */
  | { readonly kind: 'release'; readonly root: string; readonly file: 'InRelease' | 'Release' | 'Release.gpg' }
  /** Its name is its digest. */
  | { readonly kind: 'by-hash'; readonly digest: Digest; readonly folder: string }
  /** Packages, source files: never other bytes under one name. */
  | { readonly kind: 'pool' }
  /** Below dists, or anything that only a Release file can tell about. */
  | { readonly kind: 'changing' };

const BY_HASH: Readonly<Record<string, readonly [HashName, number]>> = {
  MD5Sum: ['md5', 32],
  SHA1: ['sha1', 40],
  SHA256: ['sha256', 64],
  SHA512: ['sha512', 128],
};

const PACKAGE_FILE =
  /\.(?:u?deb|ddeb|dsc|changes|buildinfo)$|\.(?:orig(?:-[^/]+)?|debian)\.tar\.[a-z0-9]+(?:\.asc)?$|\.diff\.gz$/;

export function classify(path: string): Kind {
  const slash = path.lastIndexOf('/');
  const file = path.slice(slash + 1);
  const folder = slash < 0 ? '' : path.slice(0, slash);
  if (file === 'InRelease' || file === 'Release' || file === 'Release.gpg') {
    return { kind: 'release', root: folder, file };
  }
  const byHash = /^(.*?)\/?by-hash\/(MD5Sum|SHA1|SHA256|SHA512)\/([0-9a-fA-F]+)$/.exec(path);
  if (byHash) {
    const [algorithm, length] = BY_HASH[byHash[2]!]!;
    if (byHash[3]!.length === length) {
      return { kind: 'by-hash', digest: { algorithm, hex: byHash[3]!.toLowerCase() }, folder: byHash[1]! };
    }
  }
  const inPool = /(?:^|\/)pool\//.test(path) && file !== '';
  if (inPool || PACKAGE_FILE.test(file)) return { kind: 'pool' };
  return { kind: 'changing' };
}

/**
 * Folders that may hold the Release file that names `path`, the likeliest first. Below `dists` only folders below it count;
 * in a flat archive any folder above the file may.
 */
export function suiteRoots(path: string): string[] {
  const folders = path.split('/').slice(0, -1);
  const dists = folders.lastIndexOf('dists');
  const roots: string[] = [];
  for (let depth = folders.length; depth > (dists >= 0 ? dists + 1 : -1); depth -= 1) {
    roots.push(folders.slice(0, depth).join('/'));
  }
  return roots;
}

/** The suite that a path below `dists` most likely belongs to, when no Release file is known yet. */
export function guessSuiteRoot(path: string): string | undefined {
  const match = /^((?:.*\/)?dists\/[^/]+(?:\/updates)?)\/./.exec(path);
  return match?.[1];
}

/** The folder that `Filename` fields of a suite's Packages are relative to. */
export function archiveBase(root: string): string {
  const at = root === 'dists' || root.startsWith('dists/') ? 0 : root.lastIndexOf('/dists/');
  return at < 0 ? root : root.slice(0, at);
}

/** True for the indexes that name packages or source files with their digests. */
export function namesFiles(path: string): 'Packages' | 'Sources' | 'diff' | undefined {
  const file = path.slice(path.lastIndexOf('/') + 1);
  if (/^(?:Packages|Sources)\.diff\/Index$/.test(path.split('/').slice(-2).join('/'))) return 'diff';
  const match = /^(Packages|Sources)(?:\.(?:gz|xz|zst|bz2|lzma))?$/.exec(file);
  return match?.[1] as 'Packages' | 'Sources' | undefined;
}

const TYPES: readonly (readonly [RegExp, string])[] = [
  [/\.[ud]?deb$/, 'application/vnd.debian.binary-package'],
  [/\.gz$|\.tgz$/, 'application/gzip'],
  [/\.xz$/, 'application/x-xz'],
  [/\.zst$/, 'application/zstd'],
  [/\.bz2$/, 'application/x-bzip2'],
  [/\.whl$/, 'application/zip'],
  [/\.json$/, 'application/json'],
  [
    /(?:^|\/)(?:InRelease|Release|Release\.gpg|Packages|Sources|Index|Contents-[^/.]+|Translation-[^/.]+)$|\.(?:dsc|changes)$/,
    'text/plain',
  ],
];

/** From the name alone: what a server says about it, when it says nothing dangerous in a browser, is not needed by apt. */
export function contentType(path: string): string {
  return TYPES.find(([pattern]) => pattern.test(path))?.[1] ?? 'application/octet-stream';
}
