/**
 * deb822: paragraphs of ordered fields, as in debian/control, DEBIAN/control, Packages, Sources, Release and *.sources.
 *
 * Secret of this module: the syntax of Policy 5.1, deb822(5) and deb-control(5), and how a text is kept so that it prints back
 * byte for byte. A field stores the text it was read from only where that differs from `Name: value\n`, so that a paragraph
 * that was read and one that was made look alike, and a whole Packages index stays small.
 */
import { UserError } from '../core/errors.ts';
import { printable } from '../core/log.ts';
import { paragraphBlocks } from './control-blocks.ts';
import {
  type Cursor,
  endOfLine,
  findField,
  formatField,
  paragraphLimit,
  readLead,
  readParagraph,
  refuseDuplicates,
  sameName,
  tooLarge,
  trimBlanks,
} from './control-reader.ts';

export interface Field {
  /** As written; compare without regard to case. */
  readonly name: string;
  /** The first line without the blanks before it, then each continuation line verbatim (leading blank kept), joined by "\n". */
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

/** The value of a field, its name in any case; of a value of one line without blanks at its end, which do not count (Policy 5.1). */
export function getField(paragraph: Paragraph, name: string): string | undefined {
  const value = findField(paragraph.fields, name)?.value;
  return value === undefined || value.includes('\n') ? value : trimBlanks(value);
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
    if (between !== '' && !between.endsWith('\n')) between += '\n';
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
  const progress = { line: 1 };
  const lead: string[] = [];
  let leadSize = 0;
  let held: Paragraph | undefined; // the last one waits: what follows it belongs to it when nothing else does
  for await (const text of paragraphBlocks(source, options, progress)) {
    const cursor: Cursor = { text, options, position: 0, line: progress.line };
    for (;;) {
      const before = readLead(cursor);
      lead.push(before);
      leadSize += before.length;
      if (leadSize > paragraphLimit(options)) throw tooLarge(options, cursor.line);
      if (cursor.position >= text.length) break;
      const next = readParagraph(cursor, lead.join(''), held === undefined);
      lead.length = 0;
      leadSize = 0;
      if (held !== undefined) yield held;
      held = next;
    }
    progress.line = cursor.line;
  }
  if (held === undefined) return;
  const after = lead.join('');
  yield after === '' ? held : { ...held, after };
}

function makeField(name: string, value: string): Field {
  if (!/^[!-9;-~]+$/.test(name) || /^[#-]/.test(name))
    throw new UserError('control-value', `'${printable(name)}' cannot be the name of a field`);
  const firstEnd = endOfLine(value, 0);
  const field = { name, value: trimBlanks(value.slice(0, firstEnd)) + value.slice(firstEnd), line: 0 };
  const problem = problemOfValue(value);
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

/** Adds text that is whole lines; completes a last line that had no newline, now that something follows it. */
function pushLines(parts: string[], text: string): void {
  if (text === '') return;
  if (parts.length > 0 && !parts.at(-1)!.endsWith('\n')) parts.push('\n');
  parts.push(text);
}
