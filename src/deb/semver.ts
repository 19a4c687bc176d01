/**
 * npm's versions and ranges (semver 2.0.0, npm's "semver" as the judge) in Debian's language.
 *
 * Secret: an encoding of pre-releases whose order in deb-version(7) is semver's own, and how a union of intervals becomes what a
 * relation field can say: an AND of ORs (Policy 7.1). Checked against npm's semver and dpkg on random pairs.
 *
 * Pre-releases. Semver compares identifiers one by one, numbers as numbers, words character by character (so `rc10` is before `rc2`),
 * and the shorter list first. Debian has `~` before the end, the end before letters, letters before `+ - .`, and reads digits as
 * numbers wherever they are. Hence: `~` starts the pre-release and follows a word, `.` follows a number, and `~~` ends a version whose
 * last identifier is a word: `1.0.0-beta.2` is `1.0.0~beta~2`, `1.0.0-beta` is `1.0.0~beta~~`. Inside a word `-` is `~-`, a digit
 * after a digit gets `+` and any letter after a digit gets `.` before it; a word that starts with a digit or `-` is marked by `A~~~`.
 */
import comparator from 'semver/classes/comparator.js';
import rangeClass from 'semver/classes/range.js';
import semver from 'semver/classes/semver.js';
import { UserError } from '../core/errors.ts';
import { printable } from '../core/log.ts';
import type { Operator, RelationGroup } from './relation.ts';
import { compareVersions } from './version.ts';

/** npm's mark for a comparator without a bound; missing in its types. */
const { ANY } = comparator as unknown as { readonly ANY: symbol };

/** A range as relations on one package. */
export interface DebianRange {
  /** AND of ORs; empty: the range takes every version, the package alone is enough of a relation. */
  readonly groups: RelationGroup[];
  /** What Debian's language cannot say, each naming the range. */
  readonly warnings: readonly string[];
}

/**
 * The upstream part of the Debian version for an npm version. Build metadata (`+x`) is left out, as npm does not order by it.
 * A revision must follow, else a `-` in a pre-release would be read as the start of one.
 * @throws UserError `semver-syntax`
 */
export function debianUpstreamOfSemver(version: string): string {
  return encode(readVersion(version));
}

/**
 * The relations on `name` that take the Debian versions (made by `debianUpstreamOfSemver`, with any revision or `+dfsg`) of exactly the
 * versions that npm takes. Pre-releases strictly inside an interval are taken too: no relation can leave them out.
 * @throws UserError `semver-range`
 */
export function debianRelationsOfRange(name: string, range: string): DebianRange {
  const union = mergeIntervals(readRange(range).set.flatMap((all) => intervalOf(all) ?? []));
  if (union.length === 0) {
    throw new UserError('semver-range', `no version is in the range '${shown(range)}' of '${name}'`, {
      hint: 'its lower end is above its upper end',
    });
  }
  const relation = (operator: Operator, version: string) => ({ name, version: { operator, version } });
  const groups: RelationGroup[] = [];
  const { from } = union[0]!;
  const { below } = union.at(-1)!;
  if (from !== undefined) groups.push([relation('>=', from)]);
  for (const [index, { below: end }] of union.slice(0, -1).entries()) {
    groups.push([relation('<<', end!), relation('>=', union[index + 1]!.from!)]);
  }
  if (below !== undefined) groups.push([relation('<<', below)]);
  return { groups, warnings: warningsOf(name, range) };
}

/** True when `version` is an npm version as registries take it. */
export function isSemver(version: string): boolean {
  return tryRead(version) !== undefined;
}

/** True when npm takes `version` for `range`; false for what is no range. */
export function satisfiesRange(version: string, range: string): boolean {
  try {
    return new rangeClass(range, { loose: true }).test(version);
  } catch {
    return false;
  }
}

/** npm's order: -1 when `a` is the older one. */
export function compareSemver(a: string, b: string): -1 | 0 | 1 {
  return readVersion(a).compare(readVersion(b));
}

/** [from, below) in Debian versions; undefined: no bound on that side. */
interface Interval {
  readonly from: string | undefined;
  readonly below: string | undefined;
}

function readVersion(version: string): semver {
  const read = tryRead(version);
  if (read !== undefined) return read;
  throw new UserError('semver-syntax', `'${shown(version)}' is not a version as npm knows them`, {
    hint: 'write MAJOR.MINOR.PATCH, with -PRERELEASE where it is one: 1.4.0, 2.0.0-beta.1',
  });
}

function tryRead(version: string): semver | undefined {
  try {
    return new semver(version, { loose: true });
  } catch {
    return undefined;
  }
}

function readRange(range: string): rangeClass {
  try {
    return new rangeClass(range, { loose: true });
  } catch (cause) {
    throw new UserError('semver-range', `'${shown(range)}' is not a range of versions as npm knows them`, {
      hint: "for example '^1.2.3', '>=1.2 <3', '1.x || 2.x'; a tag such as 'latest' or an address has no range",
      cause,
    });
  }
}

function shown(text: string): string {
  return printable(text.slice(0, 200));
}

function releaseOf({ major, minor, patch }: semver): string {
  return `${major}.${minor}.${patch}`;
}

function encode(version: semver): string {
  const { prerelease } = version;
  if (prerelease.length === 0) return releaseOf(version);
  let text = `${releaseOf(version)}~`;
  for (const [index, identifier] of prerelease.entries()) {
    const previous = prerelease[index - 1];
    if (index > 0) text += typeof previous === 'number' ? '.' : '~';
    text += typeof identifier === 'number' ? identifier : encodeWord(identifier);
  }
  return typeof prerelease.at(-1) === 'number' ? text : `${text}~~`;
}

function encodeWord(word: string): string {
  let text = /^[0-9-]/.test(word) ? 'A~~~' : '';
  for (const [index, character] of [...word].entries()) {
    const afterDigit = index > 0 && isDigit(word[index - 1]!);
    if (character === '-') text += '~-';
    else if (isDigit(character)) text += afterDigit ? `+${character}` : character;
    else text += afterDigit ? `.${character}` : character;
  }
  return text;
}

function isDigit(character: string): boolean {
  return character >= '0' && character <= '9';
}

/** What all comparators of one list take together; undefined: nothing. */
function intervalOf(comparators: readonly comparator[]): Interval | undefined {
  let from: string | undefined;
  let below: string | undefined;
  for (const one of comparators) {
    const here = halfLine(one);
    if (here.from !== undefined && (from === undefined || compareVersions(here.from, from) > 0)) from = here.from;
    if (here.below !== undefined && (below === undefined || compareVersions(here.below, below) < 0)) below = here.below;
  }
  const isEmpty = below !== undefined && compareVersions(from ?? LOWEST, below) >= 0;
  return isEmpty ? undefined : { from, below };
}

/** Below every version that npm can have. */
const LOWEST = '0~~';

function halfLine(one: comparator): Interval {
  if (isUnbounded(one)) return { from: undefined, below: undefined };
  const { operator, semver: bound } = one;
  const here = encode(bound);
  // `.~` is above the version with whatever revision or `+dfsg`, and below all that follow it
  const after = `${here}.~`;
  switch (operator) {
    case '>=':
      return { from: atLeast(bound), below: undefined };
    case '>':
      return { from: after, below: undefined };
    case '<=':
      return { from: undefined, below: after };
    case '<':
      return { from: undefined, below: before(bound) };
    default:
      return { from: here, below: after };
  }
}

/** Zeros stay: `>= 1.2` would take 1.2.0-rc.1. */
function atLeast(bound: semver): string {
  return isLowestPrerelease(bound) ? `${shortRelease(bound)}~~` : encode(bound);
}

/** npm's `<2.0.0` takes no 2.0.0-rc.1, and `<2.0.0-0` cannot: both end below every 2.0.0. Trailing zeros go, as in upstream's "2". */
function before(bound: semver): string {
  return bound.prerelease.length === 0 || isLowestPrerelease(bound) ? `${shortRelease(bound)}~~` : encode(bound);
}

function isLowestPrerelease({ prerelease }: semver): boolean {
  return prerelease.length === 1 && prerelease[0] === 0;
}

function shortRelease(version: semver): string {
  return releaseOf(version).replace(/(\.0)+$/, '');
}

/** The same union, ascending, without overlaps. */
function mergeIntervals(intervals: readonly Interval[]): Interval[] {
  const merged: Interval[] = [];
  for (const next of intervals.toSorted(byStart)) {
    const last = merged.at(-1);
    const touches =
      last !== undefined &&
      (last.below === undefined || next.from === undefined || compareVersions(next.from, last.below) <= 0);
    if (!touches) merged.push(next);
    else merged[merged.length - 1] = { from: last.from, below: later(last.below, next.below) };
  }
  return merged;
}

function byStart(a: Interval, b: Interval): number {
  if (a.from === undefined || b.from === undefined) return Number(a.from !== undefined) - Number(b.from !== undefined);
  return compareVersions(a.from, b.from);
}

function later(a: string | undefined, b: string | undefined): string | undefined {
  if (a === undefined || b === undefined) return undefined;
  return compareVersions(a, b) >= 0 ? a : b;
}

function warningsOf(name: string, range: string): string[] {
  const bounds = readRange(range).set.flatMap((all) => all.filter((one) => hasWrittenPrerelease(one)));
  if (bounds.length === 0) return [];
  return [
    `'${shown(range)}' of '${name}' takes pre-releases of ${[...new Set(bounds.map((one) => releaseOf(one.semver)))].join(', ')} only; ` +
      'the Debian relation takes those of later versions in the range too',
  ];
}

/** `<2.0.0-0` is how npm itself writes the end of `^1.0.0`. */
function hasWrittenPrerelease(one: comparator): boolean {
  return !isUnbounded(one) && one.semver.prerelease.length > 0 && one.operator !== '<';
}

function isUnbounded(one: comparator): boolean {
  return (one.semver as unknown) === ANY;
}
