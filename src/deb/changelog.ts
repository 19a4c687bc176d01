/**
 * debian/changelog: entries, newest first.
 *
 * Secret: the format of deb-changelog(5) (Policy 4.4), and how what was read prints back byte for byte: an entry keeps its text
 * only where it differs from the usual layout.
 */
import { UserError } from '../core/errors.ts';
import { printable } from '../core/log.ts';
import { isPackageName } from './package.ts';
import { compareVersions, isVersion } from './version.ts';

export interface ChangelogEntry {
  readonly package: string;
  readonly version: string;
  readonly distributions: readonly string[];
  /** `urgency` and others, keys in lower case. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The lines between heading and signature as they are, without the empty ones at both ends. */
  readonly changes: readonly string[];
  /** `Name <mail>` */
  readonly maintainer: string;
  /** As written; see `readChangelogDate`. */
  readonly date: string;
  /** 1-based line of the heading; 0 when made. */
  readonly line: number;
  /** Its text, where that is not the usual layout. */
  readonly raw?: string;
  /** What is above it, where that is not the usual (nothing for the first, one empty line for the others). */
  readonly before?: string;
  /** What follows the last entry: an older format, editor settings. */
  readonly after?: string;
}

export interface NewEntry {
  readonly package: string;
  readonly version: string;
  readonly distributions: readonly string[];
  /** Default `medium`. */
  readonly urgency?: string;
  /** One text per change; wrapped and bulleted. */
  readonly changes: readonly string[];
  readonly maintainer: string;
  readonly date: Date;
}

export interface ChangelogOptions {
  /** For messages. */
  readonly file?: string | undefined;
}

const HEADING = /^([A-Za-z0-9][A-Za-z0-9.+-]*) \(([^ ()]+)\)((?:\s+[A-Za-z0-9][A-Za-z0-9.+~-]*)+);(.*?)\s*$/;
const SIGNATURE = /^ -- (.*) <(.*)>( ?)( ?)(\S.*?)\s*$/;
/** Where deb-changelog(5) parsers stop: what Emacs, vim and CVS leave, and formats of the nineties. */
const OLD =
  /^(?:;;\s*)?Local variables:|^vim:|^\$\w+:.*\$|^# |^\/\*.*\*\/|^(?:\w+\s+\w+\s+\d{1,2} \d{1,2}:\d{1,2}:\d{1,2}\s+[\w\s]*\d{4})\s+|^(?:\w[-+0-9a-z.]*) \(([^() \t]+)\);?|^(?:[\w.+-]+)[- ]\S+ Debian \S+|^Changes from version .* to|^Changes for [\w.+-]+-[\w.+-]+:?|^Old Changelog:|^(?:\d+:)?\w[\w.+~-]*:?\s*$/i;

const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'];
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/**
 * Reads a whole changelog.
 * @throws UserError `changelog-syntax` with file and line
 */
export function parseChangelog(text: string, options: ChangelogOptions = {}): ChangelogEntry[] {
  const lines = text.split(/(?<=\n)/);
  const entries: ChangelogEntry[] = [];
  let position = 0;
  for (;;) {
    const start = position;
    while (position < lines.length && isEmpty(lines[position]!)) position += 1;
    const before = lines.slice(start, position).join('');
    const heading = lines[position];
    const match = heading === undefined ? null : HEADING.exec(heading.replace(/\r?\n$/, ''));
    if (heading === undefined || match === null) {
      const last = entries.pop();
      if (heading !== undefined && (last === undefined || !OLD.test(heading))) {
        throw syntaxError(
          position,
          "this is not the heading of an entry: 'package (version) distribution; urgency=medium'",
          options,
        );
      }
      const after = lines.slice(start).join('');
      if (last !== undefined) entries.push(after === '' ? last : { ...last, after });
      return entries;
    }
    const end = findSignature(lines, position, options);
    entries.push(readEntry(match, lines, position, end, before, entries.length === 0, options));
    position = end + 1;
  }
}

/** The file; what was read and not changed is printed byte for byte. */
export function formatChangelog(entries: readonly ChangelogEntry[]): string {
  return entries
    .map((entry, index) => {
      const before = entry.before ?? (index === 0 ? '' : '\n');
      return (index > 0 && before === '' ? '\n' : before) + (entry.raw ?? formatEntry(entry)) + (entry.after ?? '');
    })
    .join('');
}

/** One entry in the usual layout. */
export function formatEntry(entry: ChangelogEntry): string {
  const metadata = Object.entries(entry.metadata).map(([key, value]) => `${key}=${value}`);
  return [
    `${entry.package} (${entry.version}) ${entry.distributions.join(' ')}; ${metadata.join(', ')}`.trimEnd(),
    '',
    ...entry.changes,
    '',
    ` -- ${entry.maintainer}  ${entry.date}`,
    '',
  ].join('\n');
}

/**
 * An entry of these changes.
 * @throws UserError `changelog-entry` for a value that could not be read back
 */
export function makeEntry(entry: NewEntry): ChangelogEntry {
  const made: ChangelogEntry = {
    package: entry.package,
    version: entry.version,
    distributions: entry.distributions,
    metadata: { urgency: entry.urgency ?? 'medium' },
    changes: entry.changes.flatMap((change) => wrap(change, '  * ', '    ')),
    maintainer: entry.maintainer,
    date: formatChangelogDate(entry.date),
    line: 0,
  };
  const problem = problemOf(made);
  if (problem !== undefined) throw new UserError('changelog-entry', problem);
  return made;
}

/**
 * The changelog with a new entry on top.
 * @throws UserError `changelog-entry`; `changelog-order` when the version is not above that of the newest entry
 */
export function bumpChangelog(entries: readonly ChangelogEntry[], entry: NewEntry): ChangelogEntry[] {
  const made = makeEntry(entry);
  const [newest, ...older] = entries;
  if (newest === undefined) return [made];
  if (compareVersions(made.version, newest.version) <= 0) {
    throw new UserError(
      'changelog-order',
      `the new version '${made.version}' is not above '${newest.version}', the newest in the changelog`,
    );
  }
  return [made, { ...newest, before: newest.before ?? '\n' }, ...older];
}

/** A time as in an entry's signature, in UTC: `Mon, 03 Jun 2024 12:00:00 +0000`. */
export function formatChangelogDate(date: Date): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const day = `${DAYS[date.getUTCDay()]}, ${two(date.getUTCDate())} ${MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`;
  return `${day} ${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} +0000`;
}

/** The time of an entry, for SOURCE_DATE_EPOCH among others; undefined when it is not written as deb-changelog(5) asks. */
export function readChangelogDate(text: string): Date | undefined {
  const match =
    /^(?:[A-Za-z]{3},\s+)?(\d{1,2}) ([A-Za-z]{3})[a-z]* (\d{4}) (\d{1,2}):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)(?: \([^)]*\))?$/.exec(
      text,
    );
  if (!match) return undefined;
  const [, day, monthName = '', year, hours, minutes, seconds, sign, offsetHours, offsetMinutes] = match;
  const month = MONTHS.findIndex((name) => name.toLowerCase() === monthName.toLowerCase());
  if (month < 0) return undefined;
  const offset = (Number(offsetHours) * 60 + Number(offsetMinutes)) * (sign === '-' ? -1 : 1);
  const date = new Date(
    Date.UTC(Number(year), month, Number(day), Number(hours), Number(minutes), Number(seconds)) - offset * 60_000,
  );
  return Number.isNaN(date.getTime()) ? undefined : date;
}

function findSignature(lines: readonly string[], heading: number, options: ChangelogOptions): number {
  for (let at = heading + 1; at < lines.length; at += 1) {
    const line = lines[at]!;
    if (/^ -- /.test(line)) return at;
    if (HEADING.test(line.replace(/\r?\n$/, '')))
      throw syntaxError(at, 'the entry above has no signature: a line with its maintainer and date', options);
    if (!/^ {2}| *\t/.test(line) && !isEmpty(line))
      throw syntaxError(at, 'a line of an entry starts with two blanks', options);
  }
  throw syntaxError(heading, "the entry has no signature: ' -- Name <mail>  date'", options);
}

function readEntry(
  heading: RegExpExecArray,
  lines: readonly string[],
  start: number,
  end: number,
  before: string,
  isFirst: boolean,
  options: ChangelogOptions,
): ChangelogEntry {
  const [, name = '', version = '', distributions = '', metadata = ''] = heading;
  const signature = SIGNATURE.exec(lines[end]!.replace(/\r?\n$/, ''));
  if (!signature)
    throw syntaxError(end, "a signature is ' -- Name <mail>  date', with two blanks before the date", options);
  if (!isVersion(version)) throw syntaxError(start, `'${printable(version)}' is not a Debian version`, options);
  const [, maintainer = '', mail = '', , , date = ''] = signature;
  const entry: ChangelogEntry = {
    package: name,
    version,
    distributions: distributions.trim().split(/\s+/),
    metadata: readMetadata(metadata, start, options),
    changes: trimLines(lines.slice(start + 1, end).map((line) => line.replace(/\r?\n$/, ''))),
    maintainer: `${maintainer} <${mail}>`,
    date,
    line: start + 1,
  };
  const raw = lines.slice(start, end + 1).join('');
  return {
    ...entry,
    ...(raw === formatEntry(entry) ? {} : { raw }),
    ...(before === (isFirst ? '' : '\n') ? {} : { before }),
  };
}

function readMetadata(text: string, line: number, options: ChangelogOptions): Record<string, string> {
  const found: [string, string][] = [];
  for (const part of text.split(',')) {
    if (part.trim() === '') continue;
    const match = /^\s*([A-Za-z0-9][A-Za-z0-9-]*)=\s*(.*?)\s*$/.exec(part);
    if (!match) throw syntaxError(line, `'${printable(part.trim())}' is not 'key=value'`, options);
    found.push([match[1]!.toLowerCase(), match[2]!]);
  }
  return Object.fromEntries(found);
}

function problemOf(entry: ChangelogEntry): string | undefined {
  if (!isPackageName(entry.package)) return `'${printable(entry.package)}' is not the name of a package`;
  if (!isVersion(entry.version)) return `'${printable(entry.version)}' is not a Debian version`;
  if (entry.changes.length === 0) return 'an entry needs at least one change';
  if (entry.distributions.length === 0) return 'an entry needs a distribution';
  const badName = entry.distributions.find((name) => !/^[A-Za-z0-9][A-Za-z0-9.+~-]*$/.test(name));
  if (badName !== undefined) return `'${printable(badName)}' cannot be the name of a distribution`;
  if (!/^[a-z]+(?: \([^()\n]*\))?$/.test(entry.metadata.urgency ?? ''))
    return `'${printable(entry.metadata.urgency ?? '')}' is not an urgency`;
  if (!/^[^\s<>][^\n<>]* <[^\s<>]+@[^\s<>]+>$/.test(entry.maintainer))
    return `'${printable(entry.maintainer)}' is not 'Name <mail>'`;
  return undefined;
}

/** Breaks a text at blanks so that no line is longer than 80 columns where that can be. */
function wrap(text: string, first: string, others: string): string[] {
  const lines: string[] = [];
  let line = first;
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    const start = line === first || line === others;
    if (!start && line.length + 1 + word.length > 80) {
      lines.push(line);
      line = others + word;
    } else line += start ? word : ` ${word}`;
  }
  return line === first ? lines : [...lines, line];
}

function trimLines(lines: readonly string[]): string[] {
  const first = lines.findIndex((line) => !isEmpty(line));
  const last = lines.findLastIndex((line) => !isEmpty(line));
  return first < 0 ? [] : lines.slice(first, last + 1);
}

function isEmpty(line: string): boolean {
  return line.trim() === '';
}

function syntaxError(index: number, message: string, options: ChangelogOptions): UserError {
  return new UserError('changelog-syntax', message, { file: options.file, line: index + 1 });
}
