/**
 * The texts of an apt repository: stanzas of Packages, and Release.
 *
 * Secret: which fields stand where. Pure: the same input gives the same bytes. Ruled by apt_preferences(5) for the fields that
 * apt evaluates, and by the Debian wiki page DebianRepository/Format.
 */
import { compareVersions } from '../deb/version.ts';
import type { CatalogPackage } from './catalog.ts';
import { applyOverride, type Override } from './overrides.ts';
import type { RepositorySettings, SuiteSettings } from './settings.ts';
import { shortenDescription } from './translations.ts';

/** Raised whenever stanzas, cutting or compression change, so that no piece or file made before is used again. */
export const INDEX_FORMAT = 1;

/** A file that Release lists. */
export interface IndexFile {
  /** Below dists/SUITE/: 'main/binary-amd64/Packages.xz'. */
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
  /** Where the suite lists them. */
  readonly sha512?: string | undefined;
  readonly md5?: string | undefined;
  /** In the folder of the suite, but not in Release: patches, which their own index lists. */
  readonly unlisted?: boolean | undefined;
  /** In Release and in by-hash, but not in the folder of the suite. */
  readonly onlyByHash?: boolean | undefined;
  /** In Release alone, as in Debian's archive: apt knows an index by its plain name, and fetches another form. */
  readonly onlyListed?: boolean | undefined;
}

export interface ReleaseDates {
  /** Seconds since the epoch. */
  readonly date: number;
  readonly validUntil: number | undefined;
}

/** What a suite decides about its stanzas. */
export interface StanzaStyle {
  /** Long descriptions stand in Translation-en. */
  readonly shortDescriptions?: boolean;
  readonly override?: (item: CatalogPackage) => Override | undefined;
}

/** One stanza of Packages or Sources, with the blank line after it. */
export function renderStanza(item: CatalogPackage, style: StanzaStyle = {}): string {
  const own = applyOverride(item.control, style.override?.(item));
  if (item.kind === 'dsc') return `${own}Directory: ${item.filename.replace(/\/[^/]*$/, '')}\n\n`;
  const control = style.shortDescriptions ? shortenDescription(own) : own;
  return `${control}Filename: ${item.filename}\nSize: ${item.size}\nMD5sum: ${item.md5}\nSHA256: ${item.sha256}\n\n`;
}

/** As dpkg orders versions, then architecture. */
function sortVersions(items: readonly CatalogPackage[]): CatalogPackage[] {
  return [...items].sort(
    (a, b) =>
      compareVersions(a.version, b.version) ||
      compareText(a.version, b.version) ||
      compareText(a.architecture, b.architecture),
  );
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** About how many names share a block. More: smaller indexes; fewer: less work for one more package. */
const NAMES_PER_BLOCK = 128;

/** True for names at which a new block begins. */
export function startsBlock(name: string): boolean {
  return isBoundary(name, NAMES_PER_BLOCK);
}

/**
 * True for one text in `every`. It depends on the text alone, so that adding or removing others moves no boundary, and the same
 * contents are cut in the same way whatever their history.
 */
export function isBoundary(text: string, every: number): boolean {
  let hash = 0x811c9dc5; // FNV-1a, 32 bits
  for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  hash ^= hash >>> 15; // its low bits alone are poor
  return (hash >>> 0) % every === 0;
}

/** A run of stanzas that is compressed on its own. */
export interface TextBlock {
  /** The first name in it. */
  readonly first: string;
  readonly text: string;
}

/** The stanzas of all versions of a name, which are in the order of their versions; never none. */
export type RenderGroup = (versions: readonly CatalogPackage[]) => readonly string[];

export function renderStanzas(style: StanzaStyle): RenderGroup {
  return (versions) => versions.map((item) => renderStanza(item, style));
}

/** Cuts packages, given by name, into blocks; all versions of a name stay together, in the order of their versions. */
export function* cutBlocks(
  items: Iterable<CatalogPackage>,
  render: RenderGroup = renderStanzas({}),
): Generator<TextBlock> {
  let block: { first: string; text: string } | undefined;
  for (const versions of groupByName(items)) {
    const name = versions[0]!.name;
    if (block && startsBlock(name)) {
      yield block;
      block = undefined;
    }
    block ??= { first: name, text: '' };
    block.text += render(versions.length === 1 ? versions : sortVersions(versions)).join('');
  }
  if (block) yield block;
}

function* groupByName(items: Iterable<CatalogPackage>): Generator<CatalogPackage[]> {
  let group: CatalogPackage[] = [];
  for (const item of items) {
    if (group.length > 0 && group[0]!.name !== item.name) {
      yield group;
      group = [];
    }
    group.push(item);
  }
  if (group.length > 0) yield group;
}

/** RFC 7231 date in UTC, as Release wants it: 'Sat, 21 Nov 2026 08:12:00 UTC'. */
function releaseDate(seconds: number): string {
  return new Date(seconds * 1000).toUTCString().replace(/GMT$/, 'UTC');
}

/** '20261121T081200Z': names a generation after the Date of its Release. */
export function generationId(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replaceAll(/[-:]|\.\d+/g, '');
}

/** Digests of Release and where an index has them, in the order in which Debian lists them. */
const HASH_FIELDS = [
  ['MD5Sum', 'md5'],
  ['SHA256', 'sha256'],
  ['SHA512', 'sha512'],
] as const;

/** The Release file. `files` are listed by path. `signers`: fingerprints of the keys that sign this one. */
export function renderRelease(
  repository: RepositorySettings,
  suite: SuiteSettings,
  files: readonly IndexFile[],
  dates: ReleaseDates,
  signers: readonly string[] = [],
): string {
  const fields: [string, string | undefined][] = [
    ['Origin', repository.origin],
    ['Label', repository.label],
    ['Suite', suite.alias ?? suite.name],
    ['Codename', suite.name],
    ['Date', releaseDate(dates.date)],
    ['Valid-Until', dates.validUntil === undefined ? undefined : releaseDate(dates.validUntil)],
    ['Acquire-By-Hash', 'yes'],
    ['NotAutomatic', suite.notAutomatic ? 'yes' : undefined],
    ['ButAutomaticUpgrades', suite.butAutomaticUpgrades ? 'yes' : undefined],
    ['Changelogs', repository.changelogs],
    ['Snapshots', repository.url === undefined ? undefined : `${repository.url}snapshots/@SNAPSHOTID@/`],
    ['Signed-By', repository.signedBy && signers.length > 0 ? signers.join(',') : undefined],
    ['Architectures', suite.architectures.join(' ')],
    ['Components', suite.components.join(' ')],
    ['Description', repository.description],
  ];
  const lines = fields.flatMap(([name, value]) => (value === undefined ? [] : [`${name}: ${value}`]));
  const listed = files.filter((file) => !file.unlisted).sort((a, b) => compareText(a.path, b.path));
  const width = Math.max(1, ...listed.map((file) => String(file.size).length));
  for (const [field, name] of HASH_FIELDS) {
    if (name !== 'sha256' && !suite.hashes?.includes(field as never)) continue;
    lines.push(
      `${field}:`,
      ...listed.map((file) => ` ${file[name] ?? ''} ${String(file.size).padStart(width)} ${file.path}`),
    );
  }
  return `${lines.join('\n')}\n`;
}
