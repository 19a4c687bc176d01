/**
 * What can be decided about a repository and its suites, the defaults, and which values are safe in paths and in Release.
 *
 * Secret: how settings are checked before they are stored. Ruled by Policy 5.6.19 and the Debian wiki page
 * DebianRepository/Format for names; the stored form is JSON in the catalog.
 */
import { UserError } from '../core/errors.ts';
import { isArch } from '../deb/arch.ts';

export type IndexCompression = 'none' | 'gzip' | 'xz' | 'zstd';

/** Digests that Release may list beside SHA256. */
export type ExtraHash = 'MD5Sum' | 'SHA512';

export interface RepositorySettings {
  readonly origin: string;
  readonly label: string;
  readonly description?: string | undefined;
  /** Where clients find the repository, with a slash at its end. */
  readonly url?: string | undefined;
  /** The keys that sign together (see signing.ts for how they are named); empty: the only key in the store. */
  readonly keys: readonly string[];
  /** A planned change of keys: until `at` these sign too, from then on alone. */
  readonly rotation?: { readonly keys: readonly string[]; readonly at: string } | undefined;
  /** When the keys that clients need last changed (ISO 8601): the version of the keyring package. */
  readonly keysSince?: string | undefined;
  /** Days from Date to Valid-Until; 0 leaves Valid-Until out. */
  readonly validDays: number;
  /** Generations and by-hash objects live at least this many days after they were replaced ... */
  readonly keepDays: number;
  /** ... and as long as they are among this many latest generations of their suite. */
  readonly keepGenerations: number;
  /** Where apt finds changelogs: a URL with @CHANGEPATH@ in it, or 'no'. */
  readonly changelogs?: string | undefined;
  /** Say in Release by which keys later ones will be signed. */
  readonly signedBy?: boolean | undefined;
  /** False: no pages for people. */
  readonly pages?: boolean | undefined;
}

export interface SuiteSettings {
  /** Codename and name of the folder below dists/. */
  readonly name: string;
  /** `Suite:` in Release, and a second name below dists/: 'stable'. */
  readonly alias?: string | undefined;
  readonly components: readonly string[];
  /** Without `all`: packages for all are listed under each. */
  readonly architectures: readonly string[];
  readonly notAutomatic?: boolean | undefined;
  readonly butAutomaticUpgrades?: boolean | undefined;
  /** Publish Contents: which package has which file. */
  readonly contents?: boolean | undefined;
  /** Long descriptions stand in Translation-en, and Packages has the first line and Description-md5. */
  readonly translations?: boolean | undefined;
  /** Forms of each index; default: DEFAULT_COMPRESSIONS. */
  readonly compressions?: readonly IndexCompression[] | undefined;
  /** Listed in Release beside SHA256. */
  readonly hashes?: readonly ExtraHash[] | undefined;
  /** How many patches (pdiffs) are kept of each index; 0 or undefined: none are made. */
  readonly pdiffs?: number | undefined;
  /** Digest of the overrides that the catalog holds for it; undefined: none. */
  readonly overrides?: string | undefined;
}

export const DEFAULT_VALID_DAYS = 14;
export const DEFAULT_KEEP_DAYS = 7;
export const DEFAULT_KEEP_GENERATIONS = 5;

/** Forms of each index, unless the suite says otherwise. */
const DEFAULT_COMPRESSIONS: readonly IndexCompression[] = ['none', 'gzip', 'xz'];

export const INDEX_SUFFIX: Readonly<Record<IndexCompression, string>> = {
  none: '',
  gzip: '.gz',
  xz: '.xz',
  zstd: '.zst',
};

/** How users name the forms. */
const COMPRESSION_NAMES: Readonly<Record<string, IndexCompression>> = {
  plain: 'none',
  none: 'none',
  gz: 'gzip',
  gzip: 'gzip',
  xz: 'xz',
  zst: 'zstd',
  zstd: 'zstd',
};

const HASH_NAMES: Readonly<Record<string, ExtraHash>> = { md5: 'MD5Sum', md5sum: 'MD5Sum', sha512: 'SHA512' };

const MAX_PDIFFS = 200;

/** The forms of each index in the folder of a suite. */
export function compressionsOf(suite: SuiteSettings): readonly IndexCompression[] {
  return suite.compressions ?? DEFAULT_COMPRESSIONS;
}

/** `plain,gz,xz,zst`. @throws UserError for another word */
export function parseCompressions(words: readonly string[]): IndexCompression[] {
  return lookUp(words, COMPRESSION_NAMES, 'form of an index', 'plain, gz, xz, zst');
}

/** `md5,sha512`; SHA256 is always listed. @throws UserError for another word */
export function parseHashes(words: readonly string[]): ExtraHash[] {
  return lookUp(
    words.filter((word) => !['sha256', 'none'].includes(word.toLowerCase())),
    HASH_NAMES,
    'digest that Release may list',
    'md5, sha512 (sha256 is always listed)',
  );
}

function lookUp<T extends string>(
  words: readonly string[],
  known: Readonly<Record<string, T>>,
  what: string,
  hint: string,
): T[] {
  const found = words.map((word) => {
    const value = Object.hasOwn(known, word.toLowerCase()) ? known[word.toLowerCase()] : undefined;
    if (value === undefined) throw new UserError('bad-value', `'${word}' is no ${what}`, { hint });
    return value;
  });
  return Object.values(known).filter((value, at, all) => found.includes(value) && all.indexOf(value) === at);
}

/** A word that is safe as a folder below dists/ and pool/ and in a blank-separated list of Release. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9+._-]*$/;

function checkName(kind: string, name: string): string {
  if (NAME.test(name) && name.length <= 100) return name;
  throw new UserError('bad-name', `'${name}' cannot be the name of ${kind}`, {
    hint: "letters, digits, '+', '-', '_' and '.'; the first is a letter or digit",
  });
}

function checkLine(what: string, value: string): string {
  const text = value.trim();
  if (text !== '' && !/[\u0000-\u001f\u007f]/.test(text)) return text;
  throw new UserError('bad-value', `${what} must be one line of text, and not empty`);
}

/** @throws UserError when one of the values cannot stand in a Release file or a path */
export function checkSuite(settings: SuiteSettings): SuiteSettings {
  checkName('a suite', settings.name);
  if (settings.alias !== undefined) checkName('a suite', settings.alias);
  for (const component of settings.components) checkName('a component', component);
  if (settings.components.length === 0) {
    throw new UserError('no-component', `suite '${settings.name}' has no component`, { hint: '--component main' });
  }
  const architectures = [...new Set(settings.architectures)].filter((arch) => arch !== 'all' && arch !== 'source');
  for (const arch of architectures) {
    if (!isArch(arch)) {
      throw new UserError('bad-architecture', `'${arch}' is no Debian architecture`, {
        hint: 'for example amd64, arm64, armhf, i386, riscv64',
      });
    }
  }
  if (architectures.length === 0) {
    throw new UserError('no-architecture', `suite '${settings.name}' has no architecture`, {
      hint: "name at least one beside 'all': --arch amd64 (packages for all are listed under each)",
    });
  }
  checkIndexes(settings);
  return { ...settings, components: [...new Set(settings.components)], architectures };
}

function checkIndexes(settings: SuiteSettings): void {
  const { pdiffs = 0 } = settings;
  if (compressionsOf(settings).length === 0) {
    throw new UserError('bad-value', 'indexes need at least one form', { hint: 'plain, gz, xz, zst' });
  }
  if (!Number.isInteger(pdiffs) || pdiffs < 0 || pdiffs > MAX_PDIFFS) {
    throw new UserError('bad-value', `'${pdiffs}' is no number of patches`, { hint: `0 (none) to ${MAX_PDIFFS}` });
  }
}

/** @throws UserError when one of the values cannot stand in a Release file */
export function checkRepository(settings: RepositorySettings): RepositorySettings {
  checkLine('the origin', settings.origin);
  checkLine('the label', settings.label);
  if (settings.description !== undefined) checkLine('the description', settings.description);
  if (settings.changelogs !== undefined) checkChangelogs(settings.changelogs);
  for (const [what, days] of [
    ['valid for', settings.validDays],
    ['keep', settings.keepDays],
    ['keep generations', settings.keepGenerations],
  ] as const) {
    if (!Number.isInteger(days) || days < 0 || days > 36_500) {
      throw new UserError('bad-value', `'${days}' is no number of days (${what})`, {
        hint: 'a whole number, for example 14',
      });
    }
  }
  return { ...settings, ...(settings.url === undefined ? {} : { url: checkUrl(settings.url) }) };
}

/** apt-get changelog puts section/source_version in place of @CHANGEPATH@. */
function checkChangelogs(value: string): void {
  if (value === 'no' || (/^https?:\/\/[^\s]+$/.test(value) && value.includes('@CHANGEPATH@'))) return;
  throw new UserError('bad-url', `'${value}' does not say where changelogs are`, {
    hint: "a URL with @CHANGEPATH@ in it, for example https://apt.example.org/changelogs/@CHANGEPATH@, or 'no'",
  });
}

/** The address of a repository, with a slash at its end. @throws UserError for anything apt could not use */
export function checkUrl(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch (cause) {
    throw new UserError('bad-url', `'${text}' is no URL`, { hint: 'for example https://apt.example.org/', cause });
  }
  if (!['http:', 'https:'].includes(url.protocol) || /\s/.test(text)) {
    throw new UserError('bad-url', `'${text}' is no http or https URL`, {
      hint: 'for example https://apt.example.org/',
    });
  }
  url.hash = '';
  url.search = '';
  return url.href.endsWith('/') ? url.href : `${url.href}/`;
}

/** `amd64,arm64` and repeated flags as one list. */
export function splitList(values: readonly string[]): string[] {
  return [...new Set(values.flatMap((value) => value.split(/[\s,]+/)).filter((word) => word !== ''))];
}

/** `14d`, `36h`, `2w`, `3m`, `1y` as whole days, at least one (a month has 30 days, a year 365). */
export function daysOf(length: string): number {
  const match = /^(\d+)([hdwmy])$/.exec(length);
  if (!match) throw new UserError('bad-value', `'${length}' is no length of time`, { hint: "for example '14d'" });
  const days = { h: 1 / 24, d: 1, w: 7, m: 30, y: 365 }[match[2] as 'h' | 'd' | 'w' | 'm' | 'y'];
  return Math.max(1, Math.floor(Number(match[1]) * days));
}
