/**
 * Dependency lines of Python packages (PEP 508): 'name[extra] (>=1); python_version < "3.9"', and their markers.
 *
 * Secret: the grammar. Markers are evaluated for the machine the package is made for, never for this one.
 */

import { parsePep440 } from './pep440.ts';
import { accepts, type Clause, parseSpecifiers, SpecifierError } from './specifier.ts';

export interface Requirement {
  /** As written. */
  readonly name: string;
  readonly extras: readonly string[];
  readonly clauses: readonly Clause[];
  /** 'name @ URL' */
  readonly url: string | undefined;
  readonly marker: Marker | undefined;
}

export type Marker =
  | { readonly kind: 'and' | 'or'; readonly parts: readonly Marker[] }
  | { readonly kind: 'compare'; readonly left: Operand; readonly operator: string; readonly right: Operand };

export interface Operand {
  readonly kind: 'variable' | 'text';
  readonly value: string;
}

/** Values of the marker variables: 'python_version', 'sys_platform', ... */
export type MarkerEnvironment = Readonly<Record<string, string>>;

/** What is no dependency line of PEP 508. */
export class RequirementError extends Error {}

const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?/;

/** The one spelling of a distribution's name (PEP 503): 'Flask_SQLAlchemy' is 'flask-sqlalchemy'. */
export function normaliseName(name: string): string {
  return name.replaceAll(/[-_.]+/g, '-').toLowerCase();
}

/**
 * @throws RequirementError
 */
export function parseRequirement(line: string): Requirement {
  const name = NAME.exec(line.trim())?.[0];
  if (name === undefined) throw new RequirementError(`'${line}' is no requirement`);
  let rest = line.trim().slice(name.length).trimStart();
  const extras = /^\[([^\]]*)\]/.exec(rest);
  if (extras) rest = rest.slice(extras[0].length).trimStart();
  const extraNames = (extras?.[1] ?? '').split(',').map((extra) => extra.trim());
  const url = /^@\s*(\S+?)(?:\s*$|\s+(?=;))/.exec(rest);
  if (url) rest = rest.slice(url[0].length).trimStart();
  const at = rest.indexOf(';');
  const specifier = (at < 0 ? rest : rest.slice(0, at)).trim();
  const marker = at < 0 ? undefined : rest.slice(at + 1).trim();
  try {
    return {
      name,
      extras: extraNames.filter((extra) => extra !== '').map(normaliseName),
      clauses: parseSpecifiers(/^\((.*)\)$/.exec(specifier)?.[1] ?? specifier),
      url: url?.[1],
      marker: marker ? parseMarker(marker) : undefined,
    };
  } catch (cause) {
    if (!(cause instanceof SpecifierError)) throw cause;
    throw new RequirementError(`'${line}' is no requirement: ${cause.message}`, { cause });
  }
}

/** True for a line that `parseRequirement` takes. */
export function isRequirement(line: string): boolean {
  try {
    parseRequirement(line);
    return true;
  } catch (error) {
    if (error instanceof RequirementError) return false;
    throw error;
  }
}

const TOKEN =
  /\s*(?:(\(|\))|("[^"]*"|'[^']*')|(===|==|!=|<=|>=|~=|<|>)|(not\s+in\b|in\b|and\b|or\b)|([a-z][a-z._0-9]*))/y;

/**
 * @throws RequirementError
 */
export function parseMarker(text: string): Marker {
  const tokens = tokenise(text);
  let at = 0;
  const fail = (): never => {
    throw new RequirementError(`'${text}' is no marker`);
  };
  const operand = (): Operand => {
    const token = tokens[at++] ?? fail();
    if (/^["']/.test(token)) return { kind: 'text', value: token.slice(1, -1) };
    if (!/^[a-z]/.test(token)) fail();
    return {
      kind: 'variable',
      value: token.replaceAll('.', '_').replace(/^python_implementation$/, 'platform_python_implementation'),
    };
  };
  const atom = (): Marker => {
    if (tokens[at] !== '(') {
      const left = operand();
      const operator = tokens[at++] ?? fail();
      if (!/^(===|==|!=|<=|>=|~=|<|>|in|not in)$/.test(operator)) fail();
      return { kind: 'compare', left, operator, right: operand() };
    }
    at += 1;
    const inner = either();
    return tokens[at++] === ')' ? inner : fail();
  };
  const chain = (word: 'and' | 'or', part: () => Marker): Marker => {
    const parts = [part()];
    while (tokens[at] === word) {
      at += 1;
      parts.push(part());
    }
    return parts.length === 1 ? parts[0]! : { kind: word, parts };
  };
  const both = (): Marker => chain('and', atom);
  const either = (): Marker => chain('or', both);
  const marker = either();
  return at === tokens.length ? marker : fail();
}

function tokenise(text: string): string[] {
  const tokens: string[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < text.trimEnd().length) {
    const match = TOKEN.exec(text);
    if (!match) throw new RequirementError(`'${text}' is no marker`);
    tokens.push(match[0].trim().replace(/^not\s+in$/, 'not in'));
  }
  return tokens;
}

/**
 * @param extra the extra whose requirements are asked for; '' for the package itself
 */
export function markerHolds(marker: Marker | undefined, environment: MarkerEnvironment, extra = ''): boolean {
  if (marker === undefined) return true;
  if (marker.kind !== 'compare') {
    const holds = (part: Marker) => markerHolds(part, environment, extra);
    return marker.kind === 'and' ? marker.parts.every(holds) : marker.parts.some(holds);
  }
  const value = (operand: Operand): string => {
    if (operand.kind === 'text') return operand.value;
    return operand.value === 'extra' ? extra : (environment[operand.value] ?? '');
  };
  const isExtra = [marker.left, marker.right].some((side) => side.kind === 'variable' && side.value === 'extra');
  const [left, right] = [value(marker.left), value(marker.right)].map((text) => (isExtra ? normaliseName(text) : text));
  return compare(left!, marker.operator, right!);
}

/** PEP 508: as versions where the right side is a version specifier, as texts otherwise. */
function compare(left: string, operator: string, right: string): boolean {
  if (operator === 'in') return right.includes(left);
  if (operator === 'not in') return !right.includes(left);
  const version = parsePep440(left);
  const clauses = version === undefined ? undefined : tryParse(`${operator}${right}`);
  if (version !== undefined && clauses !== undefined) return accepts(clauses, version);
  switch (operator) {
    case '==':
    case '===':
      return left === right;
    case '!=':
      return left !== right;
    case '<':
      return left < right;
    case '<=':
      return left <= right;
    case '>':
      return left > right;
    case '>=':
      return left >= right;
    default:
      return false;
  }
}

function tryParse(text: string): Clause[] | undefined {
  try {
    return parseSpecifiers(text);
  } catch {
    return undefined;
  }
}
