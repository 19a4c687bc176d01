/**
 * The filter language: which packages are meant, in the terms of aptly and of apt.
 *
 * Secret: its grammar. aptly: `Name (~ ^python3-), $Version (>= 2)`, `hello (>= 1.0) {amd64}`, `hello_1.0_amd64`, globs; apt's
 * patterns (apt-patterns(7)): `?name(^python3-)`, `?and(...)`, `?or(...)`, `?not(...)`, `~nREGEX`. `,` is and, `|` is or, `!` is not.
 */
import { UserError } from '../core/errors.ts';
import { getField, type Paragraph, parseParagraph } from '../deb/control.ts';
import { compareVersions, isVersion } from '../deb/version.ts';
import type { Member } from './catalog.ts';
import { factsOfMember } from './handle.ts';
import { renderStanza } from './indexes.ts';

export type PackageFilter = (member: Member) => boolean;

const OPERATORS = ['>=', '<=', '>>', '<<', '>', '<', '=', '%', '~'] as const;
type Operator = (typeof OPERATORS)[number];

/** @throws UserError `query-syntax` with the column */
export function parseFilter(text: string): PackageFilter {
  const parser = new Parser(text);
  const filter = parser.either();
  parser.skipBlanks();
  if (parser.at < text.length) throw parser.fault(`'${text.slice(parser.at, parser.at + 20)}' was not expected`);
  return filter;
}

class Parser {
  readonly text: string;
  at = 0;

  constructor(text: string) {
    this.text = text;
  }

  fault(message: string): UserError {
    return new UserError('query-syntax', `${message} in the filter '${this.text}'`, {
      column: this.at + 1,
      hint: "for example: 'Name (~ ^python3-), $Version (>= 2)' or '?name(^python3-)'",
    });
  }

  skipBlanks(): void {
    while (/\s/.test(this.text[this.at] ?? '')) this.at += 1;
  }

  take(word: string): boolean {
    this.skipBlanks();
    if (!this.text.startsWith(word, this.at)) return false;
    this.at += word.length;
    return true;
  }

  expect(word: string): void {
    if (!this.take(word)) throw this.fault(`'${word}' is missing at column ${this.at + 1}`);
  }

  match(pattern: RegExp): RegExpExecArray | undefined {
    this.skipBlanks();
    const sticky = new RegExp(pattern.source, 'y');
    sticky.lastIndex = this.at;
    const found = sticky.exec(this.text);
    if (found) this.at += found[0].length;
    return found ?? undefined;
  }

  either(): PackageFilter {
    const parts = [this.every()];
    while (this.take('|')) parts.push(this.every());
    return parts.length === 1 ? parts[0]! : (member) => parts.some((part) => part(member));
  }

  every(): PackageFilter {
    const parts = [this.single()];
    while (this.take(',')) parts.push(this.single());
    return parts.length === 1 ? parts[0]! : (member) => parts.every((part) => part(member));
  }

  single(): PackageFilter {
    if (this.take('!')) {
      const inner = this.single();
      return (member) => !inner(member);
    }
    if (this.take('(')) {
      const inner = this.either();
      this.expect(')');
      return inner;
    }
    if (this.take('?')) return this.aptPattern();
    const short = this.match(/~([nesVr])(\S[^,|)\s]*)/);
    if (short) return aptTerm(this, SHORT_NAMES[short[1] as keyof typeof SHORT_NAMES], short[2]!);
    const field = this.match(/\$?[A-Z][A-Za-z0-9-]*|\$[a-z][A-Za-z0-9-]*/);
    return field ? this.fieldTerm(field[0].replace(/^\$/, '')) : this.packageTerm();
  }

  fieldTerm(name: string): PackageFilter {
    if (!this.take('(')) return (member) => fieldOf(member, name) !== undefined;
    const operator = OPERATORS.find((one) => this.take(one));
    if (operator === undefined)
      throw this.fault(`an operator (${OPERATORS.join(' ')}) is missing at column ${this.at + 1}`);
    const value = this.value();
    this.expect(')');
    return comparison(this, name, operator, value);
  }

  /** `hello`, `py*`, `hello (>= 1.0)`, `hello {amd64}`, `hello_1.0_amd64`. */
  packageTerm(): PackageFilter {
    const word = this.match(/[a-z0-9*?[][a-zA-Z0-9+.*?[\]_:~-]*/)?.[0];
    if (word === undefined) throw this.fault(`a package or a field is missing at column ${this.at + 1}`);
    const exact = /^([^_]+)_([^_]+)_([^_]+)$/.exec(word);
    if (exact) {
      const [, name, version, architecture] = exact;
      return ({ package: item }) =>
        item.name === name && item.version === version && item.architecture === architecture;
    }
    const parts: PackageFilter[] = [comparison(this, 'Name', '%', word)];
    if (this.take('(')) {
      const operator = OPERATORS.find((one) => this.take(one));
      if (operator === undefined) throw this.fault(`an operator is missing at column ${this.at + 1}`);
      const value = this.value();
      this.expect(')');
      parts.push(comparison(this, 'Version', operator, value));
    }
    if (this.take('{')) {
      const value = this.value();
      this.expect('}');
      parts.push(comparison(this, 'Architecture', '=', value));
    }
    return (member) => parts.every((part) => part(member));
  }

  value(): string {
    const quoted = this.match(/"((?:[^"\\]|\\.)*)"|'([^']*)'/);
    if (quoted) return quoted[1]?.replaceAll(/\\(.)/g, '$1') ?? quoted[2] ?? '';
    // parentheses may be part of a regular expression as long as they are paired
    let depth = 0;
    const start = this.at;
    for (; this.at < this.text.length; this.at += 1) {
      const character = this.text[this.at]!;
      if (character === '\\') this.at += 1;
      else if (character === '(') depth += 1;
      else if (character === '}' && depth === 0) break;
      else if (character === ')') {
        if (depth === 0) break;
        depth -= 1;
      }
    }
    return this.text.slice(start, this.at).trim();
  }

  /** Of `?and` and `?or`, where a comma is no "and". */
  argument(): PackageFilter {
    const parts = [this.single()];
    while (this.take('|')) parts.push(this.single());
    return (member) => parts.some((part) => part(member));
  }

  aptPattern(): PackageFilter {
    const name = this.match(/[a-z-]+/)?.[0] ?? '';
    if (name === 'and' || name === 'or') {
      this.expect('(');
      const parts = [this.argument()];
      while (this.take(',')) parts.push(this.argument());
      this.expect(')');
      return name === 'and'
        ? (member) => parts.every((part) => part(member))
        : (member) => parts.some((part) => part(member));
    }
    this.expect('(');
    if (name === 'not') {
      const inner = this.either();
      this.expect(')');
      return (member) => !inner(member);
    }
    const value = this.value();
    this.expect(')');
    return aptTerm(this, name, value);
  }
}

const SHORT_NAMES = { n: 'name', e: 'source-package', s: 'section', V: 'version', r: 'architecture' } as const;

const APT_FIELDS: Readonly<Record<string, readonly [field: string, operator: Operator]>> = {
  name: ['Name', '~'],
  'exact-name': ['Name', '='],
  'source-package': ['Source', '~'],
  section: ['Section', '~'],
  version: ['Version', '~'],
  architecture: ['Architecture', '='],
  codename: ['Suite', '~'],
  depends: ['Depends', '~'],
  provides: ['Provides', '~'],
  priority: ['Priority', '='],
  description: ['Description', '~'],
};

function aptTerm(parser: Parser, name: string, value: string): PackageFilter {
  const known = APT_FIELDS[name];
  if (!known) throw parser.fault(`'?${name}' is not known (known: ${Object.keys(APT_FIELDS).join(', ')})`);
  return comparison(parser, known[0], known[1], value);
}

function comparison(parser: Parser, name: string, operator: Operator, value: string): PackageFilter {
  const test = valueTest(parser, operator, value);
  return (member) => {
    const found = fieldOf(member, name);
    return found !== undefined && test(found);
  };
}

function valueTest(parser: Parser, operator: Operator, value: string): (found: string) => boolean {
  if (operator === '~') {
    try {
      const pattern = new RegExp(value);
      return (found) => pattern.test(found);
    } catch (cause) {
      throw parser.fault(`'${value}' is no regular expression (${(cause as Error).message})`);
    }
  }
  if (operator === '%') {
    const pattern = globPattern(value);
    return (found) => pattern.test(found);
  }
  if (operator === '=')
    return (found) => found === value || (isVersion(found) && isVersion(value) && compareVersions(found, value) === 0);
  return (found) => {
    const order =
      isVersion(found) && isVersion(value) ? compareVersions(found, value) : found < value ? -1 : found > value ? 1 : 0;
    if (operator === '>=') return order >= 0;
    if (operator === '<=') return order <= 0;
    return operator.startsWith('>') ? order > 0 : order < 0;
  };
}

function globPattern(glob: string): RegExp {
  const source = glob
    .replaceAll(/[.+^${}()|\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 's');
}

/** The fields of a package, and what the repository knows of it: Name, Source, Component, Suite, PackageType, Size. */
function fieldOf(member: Member, name: string): string | undefined {
  const item = member.package;
  switch (name.toLowerCase()) {
    case 'name':
    case 'package':
      return item.name;
    case 'version':
      return item.version;
    case 'architecture':
      return item.architecture;
    case 'source':
      return item.source;
    case 'suite':
      return member.suite;
    case 'component':
      return member.component;
    case 'packagetype':
      return item.kind;
    case 'size':
      return String(item.size);
    case 'filename':
      return item.filename;
    case 'sha256':
      return item.sha256;
    default:
      return getField(stanzaOf(member), name);
  }
}

/** The control file of a package as a paragraph. */
export function stanzaOf(member: Member): Paragraph {
  return parseParagraph(member.package.control);
}

/** `${Package} ${Version}\n` as dpkg-query prints it: fields by name, `\n` and `\t`; unknown fields are empty. */
export function formatMember(member: Member, format: string): string {
  return format
    .replaceAll(/\\([nt\\])/g, (_, letter: string) => ({ n: '\n', t: '\t', '\\': '\\' })[letter] ?? '')
    .replaceAll(/\$\{([A-Za-z0-9-]+)\}/g, (_, name: string) => fieldOf(member, name) ?? '');
}

/** The stanza of Packages, without the blank line after it. */
export function fullStanza(member: Member): string {
  return renderStanza(member.package).slice(0, -1);
}

export function synopsisOf(member: Member): string {
  return (getField(stanzaOf(member), 'Description') ?? '').split('\n')[0] ?? '';
}

/** All words are in the name or the description, in any case. */
export function hasWords(member: Member, words: readonly string[]): boolean {
  const text = `${member.package.name}\n${getField(stanzaOf(member), 'Description') ?? ''}`.toLowerCase();
  return words.every((word) => text.includes(word.toLowerCase()));
}

/** For `--json`: what the repository knows, and every field by its name. */
export function memberData(member: Member): Record<string, unknown> {
  const fields = Object.fromEntries(stanzaOf(member).fields.map((field) => [field.name, field.value]));
  return { ...factsOfMember(member), fields };
}
