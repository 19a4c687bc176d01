/**
 * Lists of what will be needed, as the tools write them: what of apt, npm and Python each names.
 *
 * Secret: the forms, told apart by their content: `apt-get --print-uris`, dpkg's status file (deb822), `dpkg-query -W` and mmdebstrap's
 * manifest, package-lock.json (npm's "package-lock.json" page), requirements with versions (PEP 440 `==`). Pure.
 */
import { UserError } from '../core/errors.ts';

export interface LockedDeb {
  readonly name: string;
  readonly version: string | undefined;
  readonly architecture: string | undefined;
}

export interface LockedUri {
  readonly url: string;
  readonly digest: { readonly algorithm: 'md5' | 'sha1' | 'sha256' | 'sha512'; readonly hex: string } | undefined;
}

export interface LockedNpm {
  readonly name: string;
  /** Of the tarball, below the registry: `/@scope/name/-/name-1.0.0.tgz`. */
  readonly path: string;
  /** Subresource Integrity. */
  readonly integrity: string | undefined;
}

export interface LockedPython {
  readonly name: string;
  readonly version: string;
}

export interface Locked {
  readonly debs: readonly LockedDeb[];
  readonly uris: readonly LockedUri[];
  readonly npm: readonly LockedNpm[];
  readonly python: readonly LockedPython[];
}

const NOTHING: Locked = { debs: [], uris: [], npm: [], python: [] };

/** @throws UserError `proxy-lock` when it is none of these */
export function readLocked(file: string, text: string): Locked {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (lines.length === 0) return NOTHING;
  if (text.trimStart().startsWith('{')) return { ...NOTHING, npm: npmLock(file, text) };
  if (lines.some((line) => /^'\S+:\/\//.test(line))) return { ...NOTHING, uris: lines.flatMap(aptUri) };
  if (/^Package: /m.test(text) && /^Version: /m.test(text)) return { ...NOTHING, debs: dpkgStatus(text) };
  const requirements = lines
    .filter((line) => !/^-/.test(line))
    .map((line) => /^([\w.-]+)(?:\[.*?\])?\s*==\s*([^\s;\\]+)/.exec(line));
  if (requirements.some((match) => match !== null)) {
    const python = requirements.flatMap((match) => (match ? [{ name: match[1]!, version: match[2]! }] : []));
    return { ...NOTHING, python };
  }
  return { ...NOTHING, debs: lines.map((line) => manifestLine(file, line)) };
}

/** `'URL' NAME SIZE MD5Sum:HEX` */
function aptUri(line: string): LockedUri[] {
  const match = /^'(\S+)' \S+(?: \d+)?(?: (\w+):([0-9a-f]+))?/i.exec(line);
  if (!match) return []; // apt's other lines
  const algorithm = match[2]?.toLowerCase().replace('md5sum', 'md5');
  const known = (['md5', 'sha1', 'sha256', 'sha512'] as const).find((one) => one === algorithm);
  return [{ url: match[1]!, digest: known && { algorithm: known, hex: match[3]!.toLowerCase() } }];
}

function dpkgStatus(text: string): LockedDeb[] {
  return text.split(/\n\s*\n/).flatMap((paragraph) => {
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(paragraph)?.[1]?.trim();
    const [name, status] = [field('Package'), field('Status')];
    if (name === undefined || (status !== undefined && !status.endsWith(' installed'))) return [];
    return [{ name, version: field('Version'), architecture: field('Architecture') }];
  });
}

/** `NAME`, `NAME=VERSION`, `NAME:ARCH VERSION` */
function manifestLine(file: string, line: string): LockedDeb {
  const match = /^([a-z0-9*?][a-z0-9+.*?-]*)(?::([a-z0-9-]+))?(?:(?:=|\s+)([\w.+~:-]+))?(?:\s.*)?$/.exec(line);
  if (!match) {
    throw new UserError('proxy-lock', `'${line.slice(0, 80)}' is nothing that can be fetched beforehand`, {
      file,
      hint: 'known are: NAME or NAME=VERSION lines, dpkg-query -W, dpkg status, apt-get --print-uris, package-lock.json, Python locks',
    });
  }
  return { name: match[1]!, version: match[3], architecture: match[2] };
}

interface NpmEntry {
  readonly name?: string;
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly inBundle?: boolean;
  readonly dependencies?: Readonly<Record<string, NpmEntry>>;
}

function npmLock(file: string, text: string): LockedNpm[] {
  const lock = parseJson(file, text) as {
    lockfileVersion?: number;
    packages?: Readonly<Record<string, NpmEntry>>;
    dependencies?: Readonly<Record<string, NpmEntry>>;
  };
  if (typeof lock.lockfileVersion !== 'number') {
    throw new UserError('proxy-lock', 'this JSON is no package-lock.json', { file });
  }
  const entries = lock.packages
    ? Object.entries(lock.packages).map(
        ([at, one]) => [at.slice(at.lastIndexOf('node_modules/') + 13), at, one] as const,
      )
    : nested(lock.dependencies ?? {});
  const found = new Map<string, LockedNpm>();
  for (const [folder, at, one] of entries) {
    if (at === '' || one.link || one.inBundle) continue;
    const name = one.name ?? folder;
    const tarball = registryTarball(name, one);
    if (tarball === undefined) continue;
    const path = `/${name}/-/${tarball}`;
    found.set(path, { name, path, integrity: one.integrity });
  }
  return [...found.values()];
}

/** File name of a registry's tarball; undefined for what is of git, of a folder, or of an address that is no registry's. */
function registryTarball(name: string, { resolved, version, integrity }: NpmEntry): string | undefined {
  if (resolved !== undefined) {
    if (!/^https?:/.test(resolved) || !resolved.includes('/-/')) return undefined;
    return resolved
      .replace(/[?#].*$/, '')
      .split('/')
      .at(-1);
  }
  // as npm writes it where omit-lockfile-registry-resolved is set
  const isRegistrys = version !== undefined && integrity !== undefined;
  return isRegistrys ? `${name.slice(name.indexOf('/') + 1)}-${version}.tgz` : undefined;
}

/** Version 1 of the format. */
function nested(dependencies: Readonly<Record<string, NpmEntry>>): (readonly [string, string, NpmEntry])[] {
  return Object.entries(dependencies).flatMap(([name, one]) => [
    [name, name, one] as const,
    ...nested(one.dependencies ?? {}),
  ]);
}

function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new UserError('proxy-lock', 'this is no JSON', { file, cause });
  }
}
