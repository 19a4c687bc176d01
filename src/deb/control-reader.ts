/**
 * Reads one paragraph at a time from a text: the scanner below `control.ts`.
 *
 * Secret: the lines of Policy 5.1 and deb822(5), and scanning them at 100 MB/s: a position moves over one text, and a field whose text
 * is as usual costs two slices of it.
 */
import { UserError } from '../core/errors.ts';
import { printable } from '../core/log.ts';
import type { Field, Paragraph, ParseOptions } from './control.ts';

const TAB = 0x09;
const NEWLINE = 0x0a;
const RETURN = 0x0d;
const SPACE = 0x20;
const HASH = 0x23;
const DASH = 0x2d;
const COLON = 0x3a;

export interface Cursor {
  readonly text: string;
  readonly options: ParseOptions;
  position: number;
  /** 1-based line at `position`. */
  line: number;
}

/** How a line starts tells what it is. */
type LineKind = 'blank' | 'continuation' | 'comment' | 'field' | 'end';

/** Moves over blank lines and comments, and gives their text. */
export function readLead(cursor: Cursor): string {
  const start = cursor.position;
  for (;;) {
    const kind = lineKind(cursor);
    if (kind === 'field' || kind === 'end') return cursor.text.slice(start, cursor.position);
    if (kind === 'continuation') {
      throw syntaxError(cursor, 'a line that starts with a blank continues a field, but there is none above it');
    }
    skipLine(cursor);
  }
}

/** Reads the paragraph that starts at the cursor; `before` is what is above it. */
export function readParagraph(cursor: Cursor, before: string, isFirst: boolean): Paragraph {
  const start = cursor.position;
  const limit = paragraphLimit(cursor.options);
  const firstLine = cursor.line;
  const fields: Field[] = [readField(cursor, '')];
  for (;;) {
    if (cursor.position - start > limit) throw tooLarge(cursor.options, firstLine);
    let kind = lineKind(cursor);
    if (kind === 'field') {
      fields.push(readField(cursor, ''));
      continue;
    }
    if (kind !== 'comment') break;
    const { position, line } = cursor;
    while (kind === 'comment') {
      skipLine(cursor);
      kind = lineKind(cursor);
    }
    if (kind === 'field') {
      fields.push(readField(cursor, cursor.text.slice(position, cursor.position)));
      continue;
    }
    cursor.position = position; // no field below: these comments lead the next paragraph
    cursor.line = line;
    break;
  }
  refuseDuplicates(fields, cursor.options);
  return before === (isFirst ? '' : '\n') ? { fields } : { fields, before };
}

/** Reads the field that starts at the cursor, with its continuation lines and the comments between them. */
function readField(cursor: Cursor, comment: string): Field {
  const { text } = cursor;
  const start = cursor.position;
  const line = cursor.line;
  const colon = endOfName(cursor);
  const firstEnd = endOfLine(text, start);
  const usual = isUsualFirstLine(text, colon, firstEnd);
  toNextLine(cursor, firstEnd);
  const plain = skipContinuation(cursor);
  const end = cursor.position;
  const name = text.slice(start, colon);
  const terminated = text.charCodeAt(end - 1) === NEWLINE;
  const lastEnd = terminated ? end - 1 : end;
  if (usual && plain && terminated) {
    const value = text.slice(firstEnd === colon + 1 ? firstEnd : colon + 2, lastEnd);
    return comment === '' ? { name, value, line } : { name, value, line, comment };
  }
  const value = valueOfLines(text.slice(colon + 1, lastEnd));
  const raw = text.slice(start, end);
  const field = comment === '' ? { name, value, line } : { name, value, line, comment };
  return raw === formatField(field) ? field : { ...field, raw };
}

/** Moves over the lines that continue a field. False when they hold comments or carriage returns, so that they are not the value as they are. */
function skipContinuation(cursor: Cursor): boolean {
  const { text } = cursor;
  let plain = true;
  for (;;) {
    const kind = lineKind(cursor);
    if (kind === 'continuation') {
      const end = endOfLine(text, cursor.position);
      if (text.charCodeAt(end - 1) === RETURN) plain = false;
      toNextLine(cursor, end);
    } else if (kind === 'comment' && skipInnerComments(cursor)) plain = false;
    else return plain;
  }
}

/** Moves over comments that stand between two lines of one value; stays where they do not. */
function skipInnerComments(cursor: Cursor): boolean {
  const { position, line } = cursor;
  let kind: LineKind = 'comment';
  while (kind === 'comment') {
    skipLine(cursor);
    kind = lineKind(cursor);
  }
  if (kind === 'continuation') return true;
  cursor.position = position;
  cursor.line = line;
  return false;
}

/** "Name: value" with exactly one blank, or "Name:" alone; no carriage return at its end. */
function isUsualFirstLine(text: string, colon: number, end: number): boolean {
  if (end === colon + 1) return true;
  if (end === colon + 2 || text.charCodeAt(colon + 1) !== SPACE) return false;
  return !isBlank(text.charCodeAt(colon + 2)) && text.charCodeAt(end - 1) !== RETURN;
}

function valueOfLines(text: string): string {
  const [first = '', ...more] = text.split('\n').map((line) => (line.endsWith('\r') ? line.slice(0, -1) : line));
  return [trimBlanksBefore(first), ...more.filter((line) => !line.startsWith('#'))].join('\n');
}

/** What kind of line the cursor is at. Refuses a line of blanks unless it may separate paragraphs. */
function lineKind(cursor: Cursor): LineKind {
  const { text, position } = cursor;
  if (position >= text.length) return 'end';
  const code = text.charCodeAt(position);
  if (code === NEWLINE) return 'blank';
  if (code === HASH) {
    if (cursor.options.comments === 'refuse') throw syntaxError(cursor, 'comments are not allowed here');
    return 'comment';
  }
  if (!isBlank(code)) return 'field';
  let at = position;
  while (isBlank(text.charCodeAt(at))) at += 1;
  if (at < text.length && text.charCodeAt(at) !== NEWLINE) return code === RETURN ? 'field' : 'continuation';
  if (at === position + 1 && code === RETURN) return 'blank'; // the empty line of a CRLF file
  if (cursor.options.blankLines === 'separate') return 'blank';
  throw syntaxError(
    cursor,
    'there is a line of nothing but blanks',
    "make it empty to end the paragraph, or ' .' for an empty line of text",
  );
}

/** The position of the colon after a field name. Policy 5.1: US-ASCII but controls, space and colon, not starting with `#` or `-`. */
function endOfName(cursor: Cursor): number {
  const { text, position } = cursor;
  let at = position;
  let code = text.charCodeAt(at);
  if (code === DASH) throw badFieldStart(cursor);
  while (code > SPACE && code < 0x7f && code !== COLON) {
    at += 1;
    code = text.charCodeAt(at);
  }
  if (code === COLON && at > position) return at;
  throw badName(cursor, at);
}

function badFieldStart(cursor: Cursor): UserError {
  if (cursor.text.startsWith('-----BEGIN PGP', cursor.position)) {
    return syntaxError(
      cursor,
      'the text is signed',
      'verify it with its public key: a signed text is read through its signature only',
    );
  }
  return syntaxError(cursor, "a field name cannot start with '-'");
}

function badName(cursor: Cursor, at: number): UserError {
  const shown = printable(cursor.text.slice(cursor.position, Math.min(at, cursor.position + 60)));
  const code = cursor.text.charCodeAt(at);
  if (code === 0xfeff)
    return syntaxError(cursor, 'the file starts with a byte order mark', 'save it as UTF-8 without one');
  if (code === COLON) return syntaxError(cursor, 'a field has no name');
  if (code === NEWLINE || Number.isNaN(code) || isBlank(code)) {
    return syntaxError(
      cursor,
      `'${shown}' is not followed by a colon`,
      "a field is 'Name: value'; a line that continues one starts with a blank",
    );
  }
  return syntaxError(cursor, `a field name cannot hold the character after '${shown}'`);
}

/** @throws UserError `control-duplicate` */
export function refuseDuplicates(fields: readonly Field[], options: ParseOptions): void {
  if (options.duplicates === 'keep') return;
  // for the few fields of a usual paragraph comparing lengths is many times faster than a set
  const second = fields.length <= 64 ? secondOfFew(fields) : secondOfMany(fields);
  if (second === undefined) return;
  const { name, line } = second;
  const first = fields.find((field) => sameName(field.name, name));
  throw new UserError(
    'control-duplicate',
    `the field '${printable(name)}' is there twice${first && line > 0 ? ` (first in line ${first.line})` : ''}`,
    {
      file: options.file,
      line: line > 0 ? line : undefined,
    },
  );
}

function secondOfFew(fields: readonly Field[]): Field | undefined {
  for (let later = 1; later < fields.length; later += 1) {
    const field = fields[later]!;
    const { length } = field.name;
    for (let earlier = 0; earlier < later; earlier += 1) {
      const other = fields[earlier]!.name;
      if (other.length === length && sameName(other, field.name)) return field;
    }
  }
  return undefined;
}

function secondOfMany(fields: readonly Field[]): Field | undefined {
  const seen = new Set<string>();
  for (const field of fields) {
    const key = field.name.toLowerCase();
    if (seen.has(key)) return field;
    seen.add(key);
  }
  return undefined;
}

/** The field in its usual form. */
export function formatField({ name, value }: Field): string {
  return value === '' || value.startsWith('\n') ? `${name}:${value}\n` : `${name}: ${value}\n`;
}

export function findField(fields: readonly Field[], name: string): Field | undefined {
  for (const field of fields) if (field.name === name) return field;
  for (const field of fields) if (sameName(field.name, name)) return field;
  return undefined;
}

export function sameName(a: string, b: string): boolean {
  return a === b || (a.length === b.length && a.toLowerCase() === b.toLowerCase());
}

export function endOfLine(text: string, from: number): number {
  const end = text.indexOf('\n', from);
  return end < 0 ? text.length : end;
}

function toNextLine(cursor: Cursor, endOfThis: number): void {
  cursor.position = Math.min(endOfThis + 1, cursor.text.length);
  cursor.line += 1;
}

function skipLine(cursor: Cursor): void {
  toNextLine(cursor, endOfLine(cursor.text, cursor.position));
}

function trimBlanksBefore(line: string): string {
  let start = 0;
  while (start < line.length && isBlank(line.charCodeAt(start))) start += 1;
  return line.slice(start);
}

/** Without the blanks at both ends, in time that grows with the length only (a regular expression would not). */
export function trimBlanks(line: string): string {
  let end = line.length;
  while (end > 0 && isBlank(line.charCodeAt(end - 1))) end -= 1;
  return trimBlanksBefore(line.slice(0, end));
}

function isBlank(code: number): boolean {
  return code === SPACE || code === TAB || code === RETURN;
}

function syntaxError(cursor: Cursor, message: string, hint?: string): UserError {
  return new UserError('control-syntax', message, { file: cursor.options.file, line: cursor.line, hint });
}

export function tooLarge(options: ParseOptions, line: number): UserError {
  const message = `a paragraph is larger than ${paragraphLimit(options)} characters`;
  return new UserError('control-too-large', message, { file: options.file, line });
}

export function paragraphLimit(options: ParseOptions): number {
  return options.maxParagraphSize ?? 64 * 1024 * 1024;
}
