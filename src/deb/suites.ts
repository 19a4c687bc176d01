/**
 * What differs between Debian's suites, as data.
 *
 * Secret: the facts (read from each suite's Release and Packages; forky and sid as of October 2026, and still moving), and the mark that
 * a suite leaves in a version. Marks are numeric: in Debian's order `bookworm` < `bullseye`, so a codename would sort an upgrade wrong.
 */
import { UserError } from '../core/errors.ts';
import { didYouMean } from '../core/nearest.ts';

export interface SuiteFacts {
  readonly codename: string;
  /** The release's number; sid, which never gets one, has '99': above every release. */
  readonly number: string;
  /** The default Python 3, as 'major.minor'. */
  readonly python: string;
  /** The default Node.js, its major version. */
  readonly node: string;
  /** Where packages of this suite keep systemd units (merged /usr is complete in trixie). */
  readonly unitDir: '/lib/systemd/system' | '/usr/lib/systemd/system';
  /** dpkg reads .deb members compressed with zstd (from 1.21.18 on). */
  readonly zstd: boolean;
  /** The archive has the component non-free-firmware. */
  readonly hasNonFreeFirmware: boolean;
  /** What Debian's archive is built for, without `all`. */
  readonly architectures: readonly string[];
}

const SUITES: readonly SuiteFacts[] = [
  {
    codename: 'bullseye',
    number: '11',
    python: '3.9',
    node: '12',
    unitDir: '/lib/systemd/system',
    zstd: false,
    hasNonFreeFirmware: false,
    architectures: ['amd64', 'arm64', 'armhf', 'i386'],
  },
  {
    codename: 'bookworm',
    number: '12',
    python: '3.11',
    node: '18',
    unitDir: '/lib/systemd/system',
    zstd: true,
    hasNonFreeFirmware: true,
    architectures: ['amd64', 'arm64', 'armel', 'armhf', 'i386', 'mips64el', 'mipsel', 'ppc64el', 's390x'],
  },
  {
    codename: 'trixie',
    number: '13',
    python: '3.13',
    node: '20',
    unitDir: '/usr/lib/systemd/system',
    zstd: true,
    hasNonFreeFirmware: true,
    architectures: ['amd64', 'arm64', 'armel', 'armhf', 'i386', 'ppc64el', 'riscv64', 's390x'],
  },
  {
    codename: 'forky',
    number: '14',
    python: '3.14',
    node: '24',
    unitDir: '/usr/lib/systemd/system',
    zstd: true,
    hasNonFreeFirmware: true,
    architectures: ['amd64', 'arm64', 'armhf', 'i386', 'loong64', 'ppc64el', 'riscv64', 's390x'],
  },
  {
    codename: 'sid',
    number: '99',
    python: '3.14',
    node: '24',
    unitDir: '/usr/lib/systemd/system',
    zstd: true,
    hasNonFreeFirmware: true,
    architectures: ['amd64', 'arm64', 'armhf', 'i386', 'loong64', 'ppc64el', 'riscv64', 's390x'],
  },
];

/** Debian's own keyring, for `Signed-By`: by this name in every suite (trixie has `.pgp` too). */
export const ARCHIVE_KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Names that mean a suite for ever; `stable` and `testing` move on, so they are refused. */
const ALIASES: Readonly<Record<string, string>> = { unstable: 'sid' };
const MOVING = new Set(['stable', 'testing', 'oldstable', 'oldoldstable']);

/** Oldest first. */
export function suiteNames(): string[] {
  return SUITES.map((suite) => suite.codename);
}

/**
 * The facts of a suite, also of one built on it: `bookworm-backports`, `bookworm-staging`.
 * @throws UserError `unknown-suite`
 */
export function suiteFacts(suite: string): SuiteFacts {
  const base = suite.split('-', 1)[0] ?? '';
  const wanted = Object.hasOwn(ALIASES, base) ? ALIASES[base] : base;
  const facts = SUITES.find((candidate) => candidate.codename === wanted);
  if (facts !== undefined) return facts;
  throw new UserError('unknown-suite', `'${suite}' is not a Debian suite that buildkit knows`, {
    hint: MOVING.has(base)
      ? `say which one it is today, by its codename: ${suiteNames().join(', ')}`
      : (didYouMean(base, suiteNames()) ?? `known: ${suiteNames().join(', ')}`),
  });
}

/**
 * What is added to a version for a suite, after `~`: `deb12`. Sorts as the suites do: `1-1~deb12` < `1-1~deb13` < `1-1~deb99` (sid) < `1-1`.
 * @throws UserError `unknown-suite`
 */
export function suiteMark(suite: string): string {
  return `deb${suiteFacts(suite).number}`;
}
