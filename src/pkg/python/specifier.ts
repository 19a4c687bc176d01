/**
 * Version specifiers of PEP 440 ('>=1.2,<2,!=1.5.*'): which versions they take, and the Debian relations that take the same.
 *
 * Secret: every clause is a union of half-open intervals of Debian versions; a Debian relation is an AND of ORs.
 */
import { comparePep440, debianUpstream, isPreRelease, type PepVersion, parsePep440, stripZeros } from './pep440.ts';

export type Operator = '==' | '!=' | '<=' | '>=' | '<' | '>' | '~=' | '===';

export interface Clause {
  readonly operator: Operator;
  /** As written, without blanks. */
  readonly text: string;
  readonly version: PepVersion;
  /** '== 1.4.*' */
  readonly wildcard: boolean;
}

/** What is no specifier of PEP 440. The message names the clause. */
export class SpecifierError extends Error {}

/**
 * @throws SpecifierError
 */
export function parseSpecifiers(text: string): Clause[] {
  const parts = text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '');
  return parts.map(parseClause);
}

function parseClause(part: string): Clause {
  const match = /^(===|==|!=|<=|>=|<|>|~=)\s*(\S+)$/.exec(part);
  const operator = match?.[1] as Operator | undefined;
  const wildcard = (operator === '==' || operator === '!=') && match![2]!.endsWith('.*');
  const version = parsePep440(wildcard ? match![2]!.slice(0, -2) : (match?.[2] ?? ''));
  const tooShort = operator === '~=' && (version?.release.length ?? 0) < 2;
  if (operator === undefined || version === undefined || tooShort) {
    throw new SpecifierError(`'${part}' is no version specifier`);
  }
  return { operator, text: match![2]!, version, wildcard };
}

/** True when `version` is in the range; pre-releases are taken as they are (an installed one counts, as for pip). */
export function accepts(clauses: readonly Clause[], version: PepVersion): boolean {
  return clauses.every((clause) => acceptsOne(clause, version));
}

function acceptsOne(clause: Clause, version: PepVersion): boolean {
  const bound = clause.version;
  const publicPart = { ...version, local: [] };
  const sign = comparePep440(publicPart, bound);
  const sameBase = comparePep440(baseOf(version), baseOf(bound)) === 0;
  switch (clause.operator) {
    case '==':
    case '===':
      if (clause.wildcard) return hasPrefix(version, bound);
      return comparePep440(bound.local.length > 0 ? version : publicPart, bound) === 0;
    case '!=':
      return !acceptsOne({ ...clause, operator: '==' }, version);
    case '~=':
      return sign >= 0 && hasPrefix(version, { ...bound, release: bound.release.slice(0, -1) });
    case '>=':
      return sign >= 0;
    case '<=':
      return sign <= 0;
    case '<':
      return sign < 0 && !(sameBase && !isPreRelease(bound) && isPreRelease(version));
    case '>':
      if (comparePep440(version, bound) <= 0) return false;
      if (sameBase && bound.post === undefined && version.post !== undefined) return false;
      return !(sameBase && version.local.length > 0);
  }
}

function baseOf(version: PepVersion): PepVersion {
  return { ...version, pre: undefined, post: undefined, dev: undefined, local: [] };
}

function hasPrefix(version: PepVersion, prefix: PepVersion): boolean {
  if (version.epoch !== prefix.epoch) return false;
  return prefix.release.every((part, index) => part === (version.release[index] ?? 0n));
}

/** [from, below): Debian versions; undefined: no bound on that side. */
interface Interval {
  readonly from: string | undefined;
  readonly below: string | undefined;
}

/** One way to satisfy a relation: 'x (>= 1.2)'. */
export interface Bound {
  readonly relation: '<<' | '>=';
  readonly version: string;
}

/** AND of ORs; empty: any version. A group of two means 'x (<< 1.5) | x (>= 1.6)'. */
export type BoundGroups = readonly (readonly Bound[])[];

export interface DebianRange {
  readonly groups: BoundGroups;
  /** What Debian's language cannot say. */
  readonly warnings: readonly string[];
}

/** The relations on Debian versions (made by `debianUpstream`) that take what the clauses take. */
export function debianRange(clauses: readonly Clause[]): DebianRange {
  const groups: (readonly Bound[])[] = [];
  const warnings: string[] = [];
  for (const clause of clauses) {
    const limit = inexact(clause);
    if (limit !== undefined) warnings.push(`'${clause.operator}${clause.text}' ${limit}`);
    for (const group of conjunction(intervals(clause))) {
      if (!groups.some((known) => JSON.stringify(known) === JSON.stringify(group))) groups.push(group);
    }
  }
  return { groups, warnings };
}

/** What the relations of a clause take beyond it: PEP 440 leaves single versions out that no short list of intervals can name. */
function inexact({ operator, version, text }: Clause): string | undefined {
  if (operator === '===') return `compares texts; it is taken as '==${text}'`;
  if (operator === '>' && (isPreRelease(version) || version.post !== undefined)) {
    return 'also takes local versions and post-releases of what comes between it and the release in Debian';
  }
  if (operator === '<' && version.post !== undefined && !isPreRelease(version)) {
    return 'also takes developments of earlier post-releases in Debian';
  }
  return undefined;
}

/** A union of intervals, in ascending order, as AND of ORs: the outer bounds, and one OR for each gap. */
function conjunction(union: readonly Interval[]): Bound[][] {
  const groups: Bound[][] = [];
  const first = union[0]?.from;
  const last = union.at(-1)?.below;
  if (first !== undefined) groups.push([{ relation: '>=', version: first }]);
  for (const [index, interval] of union.slice(0, -1).entries()) {
    const next = union[index + 1]!;
    groups.push([
      { relation: '<<', version: interval.below! },
      { relation: '>=', version: next.from! },
    ]);
  }
  if (last !== undefined) groups.push([{ relation: '<<', version: last }]);
  return groups;
}

function intervals(clause: Clause): Interval[] {
  const { version: bound } = clause;
  const here = debianUpstream(bound);
  switch (clause.operator) {
    case '>=':
      return [{ from: here, below: undefined }];
    case '<=':
      return [{ from: undefined, below: afterVersion(bound) }];
    case '<':
      return below(bound, here);
    case '>':
      return above(bound, here);
    case '~=': {
      const prefix = bound.release.slice(0, -1);
      return [{ from: here, below: lowest(bound.epoch, next(prefix)) }];
    }
    case '==':
    case '===':
      return [matching(clause, here)];
    case '!=': {
      const hole = matching(clause, here);
      return [
        { from: undefined, below: hole.from },
        { from: hole.below, below: undefined },
      ];
    }
  }
}

function matching(clause: Clause, here: string): Interval {
  const { version: bound } = clause;
  if (!clause.wildcard) return { from: here, below: bound.local.length > 0 ? `${here}.~` : afterVersion(bound) };
  const { epoch, release } = bound;
  return { from: lowestInside(epoch, release), below: lowest(epoch, next(release)) };
}

/** '< 2.0' leaves out 2.0rc1; '< 2.0rc1' takes 2.0b1; '< 2.0.post1' takes 2.0 but not 2.0rc1. */
function below(bound: PepVersion, here: string): Interval[] {
  if (isPreRelease(bound)) return [{ from: undefined, below: here }];
  const beforeRelease = lowest(bound.epoch, bound.release);
  if (bound.post === undefined) return [{ from: undefined, below: beforeRelease }];
  return [
    { from: undefined, below: beforeRelease },
    { from: debianUpstream(baseOf(bound)), below: `${here}~~` },
  ];
}

/**
 * '> 1.0' takes neither 1.0.post1 nor 1.0+label ('+' sorts below '.'); '> 1.0rc1' takes 1.0, but none of those two either.
 */
function above(bound: PepVersion, here: string): Interval[] {
  const from = `${here}.~`;
  if (!isPreRelease(bound) || bound.post !== undefined) return [{ from, below: undefined }];
  const release = debianUpstream(baseOf(bound));
  return [
    { from, below: `${release}+l.` },
    { from: `${release}.~`, below: undefined },
  ];
}

/** Just above the version itself with any local label and any revision, below its post-releases. */
function afterVersion(bound: PepVersion): string {
  const here = debianUpstream({ ...bound, local: [] });
  return bound.post === undefined && bound.dev === undefined ? `${here}+post~` : `${here}.~`;
}

function next(release: readonly bigint[]): bigint[] {
  return [...release.slice(0, -1), release.at(-1)! + 1n];
}

/** Below every version of this release, also its developments, however many zeros its text has. */
function lowest(epoch: bigint, release: readonly bigint[]): string {
  return `${epoch > 0n ? `${epoch}:` : ''}${stripZeros(release).join('.')}~~`;
}

/** Like `lowest`, but 1.0.* does not begin at 1~~ : a release of two numbers keeps its zero. */
function lowestInside(epoch: bigint, release: readonly bigint[]): string {
  const short = stripZeros(release);
  const kept = short.length === 1 && release.length > 1 ? [...short, 0n] : short;
  return `${epoch > 0n ? `${epoch}:` : ''}${kept.join('.')}~~`;
}
