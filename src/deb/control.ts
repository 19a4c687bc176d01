/**
 * deb822: paragraphs of ordered fields, as in debian/control, DEBIAN/control, Packages, Sources, Release and *.sources.
 *
 * Secret of this module: the syntax of Policy 5.1, deb822(5) and deb-control(5), and how a text is kept so that it prints back
 * byte for byte. A field stores the text it was read from only where that differs from `Name: value\n`, so that a paragraph
 * that was read and one that was made look alike, and a whole Packages index stays small.
 */
import { isAscii, isUtf8 } from 'node:buffer';
import { UserError } from '../core/errors.ts';
import { printable } from '../core/log.ts';

export interface Field {
  /** As written; compare without regard to case. */
  readonly name: string;
  /** The first line without the blanks around it, then each continuation line verbatim (leading blank kept), joined by "\n". */
  readonly value: string;
  /** 1-based line in the file it was read from; 0 when made. */
  readonly line: number;
  /** The text it was read from, where that is not `Name: value\n` (odd blanks, CRLF, comments inside, no final newline). */
  readonly raw?: string;
  /** The comment lines directly above it (not of a paragraph's first field: those are in `Paragraph.before`). */
  readonly comment?: string;
}

export interface Paragraph {
  readonly fields: readonly Field[];
  /** Blank lines and comments above it, where that is not the usual one empty line (nothing for the first). */
  readonly before?: string;
  /** What follows the last paragraph of a file, where anything does. */
  readonly after?: string;
}

export interface ParseOptions {
  /** For messages. */
  readonly file?: string | undefined;
  /** Two fields of one name in a paragraph: an error (default), or both are listed and `getField` answers with the first. */
  readonly duplicates?: 'refuse' | 'keep';
  /** Lines that start with `#`: kept (default), or an error as dpkg makes it in a binary package's control file. */
  readonly comments?: 'keep' | 'refuse';
  /**
   * A line of nothing but blanks: an error (default), as dpkg and apt disagree on it, or the end of the paragraph,
   * which Policy 5.1 allows and dpkg-source does.
   */
  readonly blankLines?: 'refuse' | 'separate';
  /** The largest paragraph taken, in characters. Default 64 Mi. */
  readonly maxParagraphSize?: number;
}

const DEFAULT_MAX_PARAGRAPH_SIZE = 64 * 1024 * 1024;

const TAB = 0x09;
const NEWLINE = 0x0a;
const RETURN = 0x0d;
const SPACE = 0x20;
const HASH = 0x23;
const DASH = 0x2d;
const COLON = 0x3a;

interface Cursor {
  readonly text: string;
  readonly options: ParseOptions;
  position: number;
  /** 1-based line at `position`. */
  line: number;
}

/** How a line starts tells what it is. */
type LineKind = 'blank' | 'continuation' | 'comment' | 'field' | 'end';

/**
 * Reads a whole text.
 * @throws UserError `control-syntax` with file and line
 */
export function parseControl(text: string, options: ParseOptions = {}): Paragraph[] {
  const cursor: Cursor = { text, options, position: 0, line: 1 };
  const paragraphs: Paragraph[] = [];
  for (;;) {
    const before = readLead(cursor);
    if (cursor.position >= text.length) {
      const last = paragraphs.pop();
      if (last !== undefined) paragraphs.push(before === '' ? last : { ...last, after: before });
      return paragraphs;
    }
    paragraphs.push(readParagraph(cursor, before, paragraphs.length === 0));
  }
}

/**
 * Reads a text that holds exactly one paragraph.
 * @throws UserError `control-syntax`, `control-empty`, `control-several`
 */
export function parseParagraph(text: string, options: ParseOptions = {}): Paragraph {
  const [only, second] = parseControl(text, options);
  if (only === undefined) throw new UserError('control-empty', 'there is no paragraph in it', { file: options.file });
  if (second !== undefined) {
    throw new UserError('control-several', 'there is more than one paragraph where one is expected', {
      file: options.file,
      line: second.fields[0]?.line,
      hint: 'remove the empty line above it, or the second paragraph',
    });
  }
  return only;
}

/** The value of a field; its name in any case. */
export function getField(paragraph: Paragraph, name: string): string | undefined {
  return findField(paragraph.fields, name)?.value;
}

/**
 * The same paragraph with one field set (in its place, or added at the end) or, where `value` is undefined, left out.
 * Everything else prints as it was read.
 * @throws UserError `control-value`
 */
export function setField(paragraph: Paragraph, name: string, value: string | undefined): Paragraph {
  const old = findField(paragraph.fields, name);
  if (value === undefined) {
    return old === undefined
      ? paragraph
      : { ...paragraph, fields: paragraph.fields.filter((field) => !sameName(field.name, name)) };
  }
  const made = makeField(name, value);
  if (old === undefined) return { ...paragraph, fields: [...paragraph.fields, made] };
  const replacement: Field =
    old.value === made.value
      ? old
      : {
          name: old.name,
          value: made.value,
          line: old.line,
          ...(old.comment === undefined ? {} : { comment: old.comment }),
        };
  return {
    ...paragraph,
    fields: paragraph.fields.flatMap((field) =>
      field === old ? [replacement] : sameName(field.name, name) ? [] : [field],
    ),
  };
}

/**
 * A paragraph of these fields in this order; those whose value is undefined are left out.
 * @throws UserError `control-value` for a value that could not be read back as it is, above all one that would add a field
 */
export function paragraph(fields: Iterable<readonly [name: string, value: string | undefined]>): Paragraph {
  const made: Field[] = [];
  for (const [name, value] of fields) if (value !== undefined) made.push(makeField(name, value));
  refuseDuplicates(made, {});
  return { fields: made };
}

/** The paragraph as dpkg and apt want it in a package or an index: no comments, one blank after the colon; ends with a newline. */
export function formatParagraph(paragraph: Paragraph): string {
  let text = '';
  for (const field of paragraph.fields) text += formatField(field);
  return text;
}

/** A whole file; what was read and not changed is printed byte for byte, comments and blank lines included. */
export function formatControl(paragraphs: readonly Paragraph[]): string {
  const parts: string[] = [];
  let between = '';
  for (const [index, { fields, before, after }] of paragraphs.entries()) {
    between += before ?? (index === 0 ? '' : '\n');
    if (index > 0 && !/(?:^|\n)[ \t]*\r?\n/.test(between)) between = `\n${between}`;
    pushLines(parts, between);
    for (const field of fields) {
      if (field.comment !== undefined) pushLines(parts, field.comment);
      pushLines(parts, field.raw ?? formatField(field));
    }
    between = after ?? '';
  }
  pushLines(parts, between);
  return parts.join('');
}

/** Lines as the continuation of a value: each with a leading blank, an empty one as " ." (Policy 5.6.13). */
export function foldLines(lines: readonly string[]): string {
  return lines.map((line) => (line.trim() === '' ? '\n .' : `\n ${line}`)).join('');
}

/** The continuation lines of a value as lines: the leading blank removed, " ." as an empty line. */
export function unfoldLines(value: string): string[] {
  const lines = value.split('\n').slice(1);
  return lines.map((line) => (line.slice(1).trimEnd() === '.' ? '' : line.slice(1)));
}

/**
 * Reads paragraphs from a stream, at most one paragraph (see `maxParagraphSize`) and one chunk in memory.
 * Bytes must be UTF-8. As in `parseControl`, the paragraphs print back byte for byte.
 * @throws UserError `control-syntax` with file and line, also for bytes that are not UTF-8
 */
export async function* readParagraphs(
  source: AsyncIterable<Uint8Array | string> | Iterable<Uint8Array | string>,
  options: ParseOptions = {},
): AsyncGenerator<Paragraph, void, undefined> {
  const limit = options.maxParagraphSize ?? DEFAULT_MAX_PARAGRAPH_SIZE;
  let held: Paragraph | undefined; // the last one waits: what follows it belongs to it when nothing else does
  let lead: string[] = [];
  let line = 1;
  for await (const text of paragraphBlocks(source, options, limit)) {
    const cursor: Cursor = { text, options, position: 0, line };
    for (;;) {
      lead.push(readLead(cursor));
      if (cursor.position >= text.length) break;
      const next = readParagraph(cursor, lead.join(''), held === undefined);
      lead = [];
      if (held !== undefined) yield held;
      held = next;
    }
    line = cursor.line;
  }
  if (held === undefined) return;
  const after = lead.join('');
  yield after === '' ? held : { ...held, after };
}

/** Cuts a stream into texts that end where a paragraph ends. */
async function* paragraphBlocks(
  source: AsyncIterable<Uint8Array | string> | Iterable<Uint8Array | string>,
  options: ParseOptions,
  limit: number,
): AsyncGenerator<string, void, undefined> {
  let parts: string[] = [];
  let size = 0;
  let firstLine = 1;
  for await (const lines of wholeLines(source, options, limit)) {
    const end = lastBlankLine(lines);
    if (end < 0) {
      parts.push(lines);
      size += lines.length;
      if (size > limit) throw tooLarge(options, firstLine, limit);
      continue;
    }
    parts.push(lines.slice(0, end));
    const block = parts.join('');
    yield block;
    firstLine += countLines(block);
    const rest = lines.slice(end);
    parts = [rest];
    size = rest.length;
  }
  yield parts.join('');
}

/** Decodes and cuts a stream into texts of whole lines; only the last may lack its newline. */
async function* wholeLines(
  source: AsyncIterable<Uint8Array | string> | Iterable<Uint8Array | string>,
  options: ParseOptions,
  limit: number,
): AsyncGenerator<string, void, undefined> {
  let pieces: Uint8Array[] = [];
  let size = 0;
  let line = 1;
  for await (const chunk of source) {
    const bytes =
      typeof chunk === 'string' ? Buffer.from(chunk) : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const end = bytes.lastIndexOf(NEWLINE) + 1;
    if (end > 0) {
      const text = decode(
        pieces.length === 0 ? bytes.subarray(0, end) : Buffer.concat([...pieces, bytes.subarray(0, end)]),
        options,
        line,
      );
      yield text;
      line += countLines(text);
      pieces = [];
      size = 0;
    }
    if (end < bytes.length) {
      pieces.push(Buffer.from(bytes.subarray(end))); // a copy: the source may use its buffer again
      size += bytes.length - end;
      if (size > limit) throw tooLarge(options, line, limit);
    }
  }
  if (pieces.length > 0) yield decode(Buffer.concat(pieces), options, line);
}

/** Moves over blank lines and comments, and gives their text. */
function readLead(cursor: Cursor): string {
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

function readParagraph(cursor: Cursor, before: string, isFirst: boolean): Paragraph {
  const start = cursor.position;
  const limit = cursor.options.maxParagraphSize ?? DEFAULT_MAX_PARAGRAPH_SIZE;
  const firstLine = cursor.line;
  const fields: Field[] = [readField(cursor, '')];
  for (;;) {
    if (cursor.position - start > limit) throw tooLarge(cursor.options, firstLine, limit);
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

/** "Name: value" with exactly one blank and none at its end, or "Name:" alone. */
function isUsualFirstLine(text: string, colon: number, end: number): boolean {
  if (end === colon + 1) return true;
  return (
    text.charCodeAt(colon + 1) === SPACE && !isBlank(text.charCodeAt(colon + 2)) && !isBlank(text.charCodeAt(end - 1))
  );
}

function valueOfLines(text: string): string {
  const [first = '', ...more] = text.split('\n').map((line) => (line.endsWith('\r') ? line.slice(0, -1) : line));
  return [trimBlanks(first), ...more.filter((line) => !line.startsWith('#'))].join('\n');
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

function refuseDuplicates(fields: readonly Field[], options: ParseOptions): void {
  if (options.duplicates === 'keep') return;
  // for the few fields of a usual paragraph comparing lengths is many times faster than a set
  const second = fields.length <= 64 ? secondOfFew(fields) : secondOfMany(fields);
  if (second === undefined) return;
  const { name, line } = second;
  const first = findField(fields, name);
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

function makeField(name: string, value: string): Field {
  if (!/^[!-9;-~]+$/.test(name) || /^[#-]/.test(name))
    throw new UserError('control-value', `'${printable(name)}' cannot be the name of a field`);
  const firstEnd = endOfLine(value, 0);
  const field = { name, value: trimBlanks(value.slice(0, firstEnd)) + value.slice(firstEnd), line: 0 };
  const problem = problemOfValue(field.value);
  if (problem !== undefined) {
    throw new UserError('control-value', `the value of the field '${name}' ${problem}`, {
      hint: "each further line of a value starts with a blank; an empty one is ' .'",
    });
  }
  return field;
}

function problemOfValue(value: string): string | undefined {
  if (/[\r\0]/.test(value)) return 'holds a carriage return or a NUL character';
  if (/\n[^ \t]/.test(value)) return 'has a further line that does not start with a blank';
  if (/\n(?:[ \t]*(?:\n|$))/.test(value)) return 'has an empty line';
  return undefined;
}

function formatField({ name, value }: Field): string {
  return value === '' || value.startsWith('\n') ? `${name}:${value}\n` : `${name}: ${value}\n`;
}

function findField(fields: readonly Field[], name: string): Field | undefined {
  for (const field of fields) if (field.name === name) return field;
  for (const field of fields) if (sameName(field.name, name)) return field;
  return undefined;
}

function sameName(a: string, b: string): boolean {
  return a === b || (a.length === b.length && a.toLowerCase() === b.toLowerCase());
}

/** Adds text that is whole lines; completes a last line that had no newline, now that something follows it. */
function pushLines(parts: string[], text: string): void {
  if (text === '') return;
  if (parts.length > 0 && !parts.at(-1)!.endsWith('\n')) parts.push('\n');
  parts.push(text);
}

function endOfLine(text: string, from: number): number {
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

/** Without the blanks at both ends, in time that grows with the length only. */
function trimBlanks(line: string): string {
  let start = 0;
  let end = line.length;
  while (start < end && isBlank(line.charCodeAt(start))) start += 1;
  while (end > start && isBlank(line.charCodeAt(end - 1))) end -= 1;
  return line.slice(start, end);
}

function isBlank(code: number): boolean {
  return code === SPACE || code === TAB || code === RETURN;
}

/** Where the last blank line of `lines` starts; -1 when there is none. */
function lastBlankLine(lines: string): number {
  const found = Math.max(lines.lastIndexOf('\n\n'), lines.lastIndexOf('\n\r\n'));
  if (found >= 0) return found + 1;
  return /^\r?\n/.test(lines) ? 0 : -1;
}

function countLines(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) count += 1;
  return count;
}

function decode(bytes: Buffer, options: ParseOptions, firstLine: number): string {
  if (isAscii(bytes)) return bytes.toString('latin1');
  if (isUtf8(bytes)) return bytes.toString('utf8');
  let line = firstLine;
  for (let at = 0; at < bytes.length; line += 1) {
    const newline = bytes.indexOf(NEWLINE, at);
    const end = newline < 0 ? bytes.length : newline + 1;
    if (!isUtf8(bytes.subarray(at, end))) break;
    at = end;
  }
  throw new UserError('control-syntax', 'the text is not UTF-8', {
    file: options.file,
    line,
    hint: 'convert it with iconv: Policy 5.1 wants UTF-8',
  });
}

function syntaxError(cursor: Cursor, message: string, hint?: string): UserError {
  return new UserError('control-syntax', message, { file: cursor.options.file, line: cursor.line, hint });
}

function tooLarge(options: ParseOptions, line: number, limit: number): UserError {
  return new UserError('control-too-large', `a paragraph is larger than ${limit} characters`, {
    file: options.file,
    line,
  });
}
