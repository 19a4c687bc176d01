/**
 * Package relations: `a (>= 1) [amd64] <!nocheck> | b:any, c` of Policy 7.1, with the substvars of deb-substvars(5).
 *
 * Secret: the syntax, and when a set of packages satisfies a relation (Policy 7.5 for virtual packages).
 */
import { UserError } from '../core/errors.ts';
import { printable } from '../core/log.ts';
import { archMatches } from './arch.ts';
import { compareVersions, isVersion } from './version.ts';

/** Fields of binary packages that hold relations, in the order of Policy 7.2 to 7.6. */
export const RELATION_FIELDS = [
  'Pre-Depends',
  'Depends',
  'Recommends',
  'Suggests',
  'Enhances',
  'Breaks',
  'Conflicts',
  'Replaces',
  'Provides',
] as const;

/** How `<<`, `<=`, `=`, `>=` and `>>` compare. */
export type Operator = '<<' | '<=' | '=' | '>=' | '>>';

export interface VersionRestriction {
  readonly operator: Operator;
  /** A Debian version, or a text with a substvar such as `${binary:Version}`. */
  readonly version: string;
}

/** One alternative. A substvar that stands alone is a relation whose name is that substvar. */
export interface Relation {
  /** A package name, or a text with a substvar such as `${misc:Depends}`. */
  readonly name: string;
  /** `any`, `native` or an architecture: what follows the colon. */
  readonly qualifier?: string;
  readonly version?: VersionRestriction;
  /** `amd64`, `linux-any`, or all with a `!` in front. */
  readonly architectures?: readonly string[];
  /** Each inner list is one `<...>`: all of its terms must hold; one of the lists must. */
  readonly profiles?: readonly (readonly string[])[];
}

/** Alternatives, the preferred one first: one of them is enough. */
export type RelationGroup = readonly Relation[];

/** What an installed or available package offers to relations. */
export interface Candidate {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  /** The Multi-Arch field. */
  readonly multiArch?: string | undefined;
  /** The Provides field. */
  readonly provides?: string | undefined;
}

export interface RelationOptions {
  /** For messages. */
  readonly file?: string | undefined;
  /** The line of the field in that file. */
  readonly line?: number | undefined;
}

export interface ReduceOptions {
  /** The architecture that is built for or installed on. */
  readonly architecture: string;
  /** Active build profiles (`nocheck`, `cross`, ...). */
  readonly profiles?: readonly string[];
}

export interface SatisfyOptions {
  /** The architecture of the depending package; without it any architecture will do and `[...]` counts as said. */
  readonly architecture?: string | undefined;
}

/** Packages by every name they answer to; see `indexCandidates`. */
export type CandidateIndex = ReadonlyMap<string, readonly Offer[]>;

interface Offer {
  readonly candidate: Candidate;
  /** undefined: provided without a version. */
  readonly version: string | undefined;
  /** Of a provided name: what follows its colon. */
  readonly provided: false | { readonly qualifier: string | undefined };
}

const SUBSTVAR = '\\$\\{[A-Za-z0-9][A-Za-z0-9:_-]*\\}';
const NAME = new RegExp(`(?:[a-z0-9]|${SUBSTVAR})(?:[a-z0-9+.-]|${SUBSTVAR})*`, 'y');
const QUALIFIER = /:([a-z0-9][a-z0-9-]*)/y;
const VERSION = new RegExp(`(?:[A-Za-z0-9.+~:-]|${SUBSTVAR})+`, 'y');
const OPERATOR = /<<|<=|=|>=|>>|<|>/y;
const ARCHITECTURE = /!?[a-z0-9][a-z0-9-]*/y;
const PROFILE = /!?[a-z0-9][a-z0-9+.-]*/y;
const BLANKS = /[ \t\n]*/y;

/**
 * Reads the value of Depends, Build-Depends, Provides and the like. Empty parts between commas are skipped, as dpkg does.
 * @throws UserError `relation-syntax` with the column in `text`
 */
export function parseRelations(text: string, options: RelationOptions = {}): RelationGroup[] {
  const reader: Reader = { text, position: 0, options };
  const groups: RelationGroup[] = [];
  for (;;) {
    skip(reader, BLANKS);
    if (at(reader, ',')) continue;
    if (reader.position >= text.length) return groups;
    groups.push(readGroup(reader));
    if (reader.position < text.length && text[reader.position] !== ',') throw unexpected(reader);
  }
}

/** One line: groups joined by comma and blank, alternatives by ` | `. */
export function formatRelations(groups: readonly RelationGroup[]): string {
  return groups.map((group) => group.map(formatRelation).join(' | ')).join(', ');
}

/** One alternative in its usual form: `name:qualifier (>= 1) [amd64] <!nocheck>`. */
export function formatRelation({ name, qualifier, version, architectures, profiles }: Relation): string {
  let text = qualifier === undefined ? name : `${name}:${qualifier}`;
  if (version !== undefined) text += ` (${version.operator} ${version.version})`;
  if (architectures !== undefined) text += ` [${architectures.join(' ')}]`;
  for (const list of profiles ?? []) text += ` <${list.join(' ')}>`;
  return text;
}

/**
 * What remains for one architecture and set of build profiles: alternatives that do not apply are left out, and so are the
 * restrictions of those that do (Policy 7.1; as dpkg-checkbuilddeps does).
 */
export function reduceRelations(groups: readonly RelationGroup[], options: ReduceOptions): RelationGroup[] {
  const reduced = groups.map((group) =>
    group.filter((relation) => applies(relation, options)).map(withoutRestrictions),
  );
  return reduced.filter((group) => group.length > 0);
}

/**
 * Leaves out what something else in the list says already: `a, a (>= 2), a | b` is `a (>= 2)`. Holds for every architecture and
 * profile, so of relations with restrictions less can be left out: reduce them first where the architecture is known.
 */
export function simplifyRelations(groups: readonly RelationGroup[]): RelationGroup[] {
  const simpler = groups.map((group) =>
    group.filter((relation, index) => !group.slice(0, index).some((earlier) => isNeedlessAfter(relation, earlier))),
  );
  return simpler.filter(
    (group, index) =>
      !simpler.some((other, otherIndex) => {
        if (otherIndex === index || !groupImplies(other, group)) return false;
        return otherIndex < index || !groupImplies(group, other); // of two that say the same the first stays
      }),
  );
}

/** True when whatever satisfies `a` satisfies `b` too, restrictions aside. */
export function implies(a: Relation, b: Relation): boolean {
  if (a.name !== b.name || a.qualifier !== b.qualifier) return false;
  if (b.version === undefined) return true;
  return a.version !== undefined && versionImplies(a.version, b.version);
}

/** Makes the table that `satisfiers` and `unsatisfied` look names up in. */
export function indexCandidates(candidates: Iterable<Candidate>): CandidateIndex {
  const index = new Map<string, Offer[]>();
  const add = (name: string, offer: Offer) => {
    const offers = index.get(name);
    if (offers === undefined) index.set(name, [offer]);
    else offers.push(offer);
  };
  for (const candidate of candidates) {
    add(candidate.name, { candidate, version: candidate.version, provided: false });
    if (candidate.provides === undefined) continue;
    for (const [provided] of parseRelations(candidate.provides)) {
      // `=` is the only relation that Provides may have (Policy 7.5)
      if (provided === undefined || (provided.version !== undefined && provided.version.operator !== '=')) continue;
      add(provided.name, {
        candidate,
        version: provided.version?.version,
        provided: { qualifier: provided.qualifier },
      });
    }
  }
  return index;
}

/** The packages that satisfy one alternative, by name or by what they provide; a version asks for a versioned Provides (Policy 7.5). */
export function satisfiers(relation: Relation, index: CandidateIndex, options: SatisfyOptions = {}): Candidate[] {
  const found = new Set<Candidate>();
  for (const offer of index.get(relation.name) ?? []) {
    if (!architectureFits(relation.qualifier, offer, options.architecture)) continue;
    const { candidate, version } = offer;
    if (relation.version === undefined || (version !== undefined && versionFits(version, relation.version))) {
      found.add(candidate);
    }
  }
  return [...found];
}

/** The groups that nothing in `index` satisfies; none when all is well. Those for other architectures do not count. */
export function unsatisfied(
  groups: readonly RelationGroup[],
  index: CandidateIndex,
  options: SatisfyOptions = {},
): RelationGroup[] {
  const { architecture } = options;
  return groups.filter((group) => {
    const alternatives =
      architecture === undefined ? group : group.filter((relation) => applies(relation, { architecture }));
    return alternatives.length > 0 && !alternatives.some((relation) => satisfiers(relation, index, options).length > 0);
  });
}

/** True when `index` satisfies every group. */
export function satisfies(
  groups: readonly RelationGroup[],
  index: CandidateIndex,
  options: SatisfyOptions = {},
): boolean {
  return unsatisfied(groups, index, options).length === 0;
}

/** True when a version meets a restriction, in dpkg's order. */
export function versionFits(version: string, restriction: VersionRestriction): boolean {
  const order = compareVersions(version, restriction.version);
  switch (restriction.operator) {
    case '<<':
      return order < 0;
    case '<=':
      return order <= 0;
    case '=':
      return order === 0;
    case '>=':
      return order >= 0;
    case '>>':
      return order > 0;
  }
}

interface Reader {
  readonly text: string;
  readonly options: RelationOptions;
  position: number;
}

function readGroup(reader: Reader): RelationGroup {
  const alternatives: Relation[] = [];
  do {
    skip(reader, BLANKS);
    alternatives.push(readRelation(reader));
    skip(reader, BLANKS);
  } while (at(reader, '|'));
  return alternatives;
}

function readRelation(reader: Reader): Relation {
  const start = reader.position;
  const name = take(reader, NAME);
  if (name === undefined) throw problem(reader, 'a package name is expected');
  if (name.length < 2) throw problem(reader, `'${name}' is too short for a package name`, undefined, start);
  const qualifier = take(reader, QUALIFIER)?.slice(1);
  const version = readVersion(reader);
  const architectures = readList(reader, '[', ']', ARCHITECTURE, 'an architecture');
  if (architectures !== undefined) refuseMixed(reader, architectures);
  const profiles: string[][] = [];
  for (let list = readList(reader, '<', '>', PROFILE, 'a build profile'); list !== undefined; ) {
    profiles.push(list);
    list = readList(reader, '<', '>', PROFILE, 'a build profile');
  }
  return {
    name,
    ...(qualifier === undefined ? {} : { qualifier }),
    ...(version === undefined ? {} : { version }),
    ...(architectures === undefined ? {} : { architectures }),
    ...(profiles.length === 0 ? {} : { profiles }),
  };
}

function readVersion(reader: Reader): VersionRestriction | undefined {
  skip(reader, BLANKS);
  if (!at(reader, '(')) return undefined;
  skip(reader, BLANKS);
  const operatorStart = reader.position;
  const operator = take(reader, OPERATOR);
  if (operator === undefined) throw problem(reader, 'one of << <= = >= >> is expected');
  if (operator === '<' || operator === '>') {
    throw problem(
      reader,
      `'${operator}' is not a relation`,
      `write '${operator}=' (what dpkg takes it for) or '${operator}${operator}'`,
      operatorStart,
    );
  }
  skip(reader, BLANKS);
  const versionStart = reader.position;
  const version = take(reader, VERSION);
  if (version === undefined) throw problem(reader, 'a version is expected');
  if (!version.includes('${') && !isVersion(version))
    throw problem(reader, `'${version}' is not a Debian version`, undefined, versionStart);
  skip(reader, BLANKS);
  if (!at(reader, ')')) throw problem(reader, "')' is expected");
  return { operator: operator as Operator, version };
}

function readList(reader: Reader, open: string, close: string, item: RegExp, what: string): string[] | undefined {
  skip(reader, BLANKS);
  if (!at(reader, open)) return undefined;
  const items: string[] = [];
  for (;;) {
    skip(reader, BLANKS);
    if (items.length > 0 && at(reader, close)) return items;
    const next = take(reader, item);
    if (next === undefined)
      throw problem(reader, items.length === 0 ? `${what} is expected` : `${what} or '${close}' is expected`);
    items.push(next);
  }
}

function refuseMixed(reader: Reader, architectures: readonly string[]): void {
  const negated = architectures.filter((name) => name.startsWith('!')).length;
  if (negated > 0 && negated < architectures.length) {
    throw problem(
      reader,
      `'[${architectures.join(' ')}]' mixes architectures with and without '!'`,
      'Policy 7.1: all of them or none',
    );
  }
}

function skip(reader: Reader, pattern: RegExp): void {
  take(reader, pattern);
}

function take(reader: Reader, pattern: RegExp): string | undefined {
  pattern.lastIndex = reader.position;
  const found = pattern.exec(reader.text)?.[0];
  if (found !== undefined) reader.position += found.length;
  return found;
}

function at(reader: Reader, character: string): boolean {
  if (reader.text[reader.position] !== character) return false;
  reader.position += 1;
  return true;
}

function unexpected(reader: Reader): UserError {
  return problem(
    reader,
    `'${printable(reader.text[reader.position] ?? '')}' is not expected here`,
    "alternatives are joined by '|', relations by ','",
  );
}

function problem(reader: Reader, message: string, hint?: string, position = reader.position): UserError {
  const { text, options } = reader;
  const before = text.slice(0, position).split('\n');
  const column = before.at(-1)!.length + 1;
  const near = printable(text.slice(position, position + 30).split('\n', 1)[0] ?? '');
  const where = near === '' ? 'at the end' : `before '${near}'`;
  return new UserError('relation-syntax', `${message} ${where} (column ${column} of the relations)`, {
    file: options.file,
    line: options.line === undefined ? undefined : options.line + before.length - 1,
    column,
    hint,
  });
}

function applies({ architectures, profiles }: Relation, options: ReduceOptions): boolean {
  return architecturesApply(architectures, options.architecture) && profilesApply(profiles, options.profiles ?? []);
}

function architecturesApply(architectures: readonly string[] | undefined, wanted: string): boolean {
  if (architectures === undefined) return true;
  const negated = architectures[0]?.startsWith('!') === true;
  return negated !== architectures.some((name) => archMatches(negated ? name.slice(1) : name, wanted));
}

function profilesApply(profiles: Relation['profiles'], active: readonly string[]): boolean {
  if (profiles === undefined) return true;
  return profiles.some((list) =>
    list.every((term) => (term.startsWith('!') ? !active.includes(term.slice(1)) : active.includes(term))),
  );
}

function withoutRestrictions({ name, qualifier, version }: Relation): Relation {
  return { name, ...(qualifier === undefined ? {} : { qualifier }), ...(version === undefined ? {} : { version }) };
}

/** The restrictions as text; '' when there are none. */
function restrictions({ architectures, profiles }: Relation): string {
  return formatRelation({ name: '', ...(architectures && { architectures }), ...(profiles && { profiles }) });
}

function isNeedlessAfter(relation: Relation, earlier: Relation): boolean {
  const when = restrictions(earlier);
  return (when === '' || when === restrictions(relation)) && implies(relation, earlier);
}

/** Where restrictions take an alternative of `b` away, the others remain and ask for something else: so it cannot be counted on. */
function groupImplies(a: RelationGroup, b: RelationGroup): boolean {
  const [whenA, whenB] = [new Set(a.map(restrictions)), new Set(b.map(restrictions))];
  const together =
    whenB.size === 1 && whenA.size === 1 && (whenA.has('') || whenA.symmetricDifference(whenB).size === 0);
  if (!together && !(whenA.size === 1 && whenA.has(''))) return false;
  const reliable = together ? b : b.filter((relation) => restrictions(relation) === '');
  return a.every((left) => reliable.some((right) => implies(left, right)));
}

function versionImplies(a: VersionRestriction, b: VersionRestriction): boolean {
  if (a.version.includes('${') || b.version.includes('${')) return a.operator === b.operator && a.version === b.version;
  const order = compareVersions(a.version, b.version);
  const strict = a.operator === '<<' || a.operator === '>>';
  switch (b.operator) {
    case '=':
      return a.operator === '=' && order === 0;
    case '>=':
      return !a.operator.startsWith('<') && order >= 0;
    case '>>':
      return !a.operator.startsWith('<') && (strict ? order >= 0 : order > 0);
    case '<=':
      return !a.operator.startsWith('>') && order <= 0;
    case '<<':
      return !a.operator.startsWith('>') && (strict ? order <= 0 : order < 0);
  }
}

/**
 * Which architecture of a package will do: as Dpkg::Deps::KnownFacts; for what is provided as dpkg, where `name:any` is not
 * satisfied by a plain `Provides: name`.
 */
function architectureFits(
  qualifier: string | undefined,
  { candidate, provided }: Offer,
  wanted: string | undefined,
): boolean {
  if (wanted === undefined) return true;
  if (provided !== false && qualifier !== provided.qualifier) return false;
  const here = candidate.architecture === wanted || candidate.architecture === 'all' || wanted === 'all';
  switch (qualifier) {
    case undefined:
      return here || candidate.multiArch === 'foreign';
    case 'any':
      return provided !== false || candidate.multiArch === 'allowed';
    case 'native':
      return here && candidate.multiArch !== 'foreign';
    default:
      return candidate.architecture === qualifier;
  }
}
