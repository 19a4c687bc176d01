/**
 * Cuts a stream of deb822 into texts that end where a paragraph ends, so that a file of any size is read in little memory.
 *
 * Secret: chunk borders, which fall in the middle of lines and characters, and UTF-8 (which Policy 5.1 wants).
 */
import { isAscii, isUtf8 } from 'node:buffer';
import { UserError } from '../core/errors.ts';
import type { ParseOptions } from './control.ts';
import { paragraphLimit, tooLarge } from './control-reader.ts';

const NEWLINE = 0x0a;

/** Where the reader of the blocks is: kept by it, used for messages here. */
export interface Progress {
  /** 1-based line at which the next block starts. */
  readonly line: number;
}

type Source = AsyncIterable<Uint8Array | string> | Iterable<Uint8Array | string>;

/**
 * At most one unfinished paragraph and one chunk are held.
 * @throws UserError `control-syntax` for bytes that are not UTF-8, `control-too-large`
 */
export async function* paragraphBlocks(
  source: Source,
  options: ParseOptions,
  progress: Progress,
): AsyncGenerator<string, void, undefined> {
  let parts: string[] = [];
  let size = 0;
  const lineAfter = () => progress.line + countLines(parts.join(''));
  for await (const lines of wholeLines(source, options, lineAfter)) {
    const end = lastBlankLine(lines);
    if (end < 0) {
      parts.push(lines);
      size += lines.length;
      if (size > paragraphLimit(options)) throw tooLarge(options, progress.line);
      continue;
    }
    parts.push(lines.slice(0, end));
    const block = parts.join('');
    parts = [];
    yield block;
    const rest = lines.slice(end);
    parts = [rest];
    size = rest.length;
  }
  yield parts.join('');
}

/** Decodes, and cuts behind a newline; only the last text may lack it. `line` tells the line of the next one. */
async function* wholeLines(
  source: Source,
  options: ParseOptions,
  line: () => number,
): AsyncGenerator<string, void, undefined> {
  let pieces: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of source) {
    const bytes =
      typeof chunk === 'string' ? Buffer.from(chunk) : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const end = bytes.lastIndexOf(NEWLINE) + 1;
    if (end > 0) {
      const head = bytes.subarray(0, end);
      yield decode(pieces.length === 0 ? head : Buffer.concat([...pieces, head]), options, line);
      pieces = [];
      size = 0;
    }
    if (end < bytes.length) {
      pieces.push(Buffer.from(bytes.subarray(end))); // a copy: the source may use its buffer again
      size += bytes.length - end;
      if (size > paragraphLimit(options)) throw tooLarge(options, line());
    }
  }
  if (pieces.length > 0) yield decode(Buffer.concat(pieces), options, line);
}

function decode(bytes: Buffer, options: ParseOptions, line: () => number): string {
  if (isAscii(bytes)) return bytes.toString('latin1');
  if (isUtf8(bytes)) return bytes.toString('utf8');
  let bad = line();
  for (let at = 0; at < bytes.length; bad += 1) {
    const newline = bytes.indexOf(NEWLINE, at);
    const end = newline < 0 ? bytes.length : newline + 1;
    if (!isUtf8(bytes.subarray(at, end))) break;
    at = end;
  }
  throw new UserError('control-syntax', 'the text is not UTF-8', {
    file: options.file,
    line: bad,
    hint: 'convert it with iconv: Policy 5.1 wants UTF-8',
  });
}

/** Where a blank line starts, the last of its kind in `lines`; -1 when there is none. */
function lastBlankLine(lines: string): number {
  const found = lines.lastIndexOf('\n\n');
  const other = found >= 0 ? found : lines.lastIndexOf('\n\r\n'); // a second search of every chunk would cost a tenth
  if (other >= 0) return other + 1;
  return lines.startsWith('\n') || lines.startsWith('\r\n') ? 0 : -1;
}

function countLines(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) count += 1;
  return count;
}
