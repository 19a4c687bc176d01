/**
 * A binary package as the rest of buildkit hands it around: where the .deb is, what it says of itself, its digests.
 *
 * Secret: the rules for package names (Policy 5.6.7) and for the file name that dpkg-deb gives a package.
 */
import type { Paragraph } from './control.ts';
import { type DebVersion, formatVersion, parseVersion } from './version.ts';

export interface BinaryPackage {
  /** The .deb file. */
  readonly path: string;
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly control: Paragraph;
  /** Bytes of the .deb file. */
  readonly size: number;
  /** Hex digests of the .deb file. */
  readonly md5: string;
  readonly sha1: string;
  readonly sha256: string;
  readonly sha512: string;
}

/** At least two characters: lower case letters, digits, plus, minus and full stop, starting with a letter or a digit. */
export function isPackageName(name: string): boolean {
  return /^[a-z0-9][a-z0-9+.-]+$/.test(name);
}

/**
 * `name_version_arch.deb`, the epoch left out, as `dpkg-deb --build` names it.
 * @throws UserError `version-syntax`
 */
export function debFileName(name: string, version: string | DebVersion, architecture: string): string {
  const { upstream, revision } = typeof version === 'string' ? parseVersion(version) : version;
  return `${name}_${formatVersion({ epoch: 0, upstream, revision })}_${architecture}.deb`;
}
