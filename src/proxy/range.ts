/**
 * Ranges and preconditions of RFC 9110 (13, 14): which bytes a request wants of a representation with this validator and length.
 * Pure.
 */

export interface ByteRange {
  readonly start: number;
  /** One past the last. */
  readonly end: number;
}

export type Wanted =
  | { readonly kind: 'whole' }
  | { readonly kind: 'not-modified' }
  | { readonly kind: 'precondition-failed' }
  | { readonly kind: 'unsatisfiable' }
  | { readonly kind: 'ranges'; readonly ranges: readonly ByteRange[] };

export interface Representation {
  /** With its quotes. */
  readonly etag: string;
  /** Whole seconds since the epoch; undefined: unknown. */
  readonly lastModified: number | undefined;
  /** Undefined while it is not known yet: ranges are then not served. */
  readonly size: number | undefined;
}

export interface Conditions {
  readonly range?: string | undefined;
  readonly 'if-range'?: string | undefined;
  readonly 'if-none-match'?: string | undefined;
  readonly 'if-modified-since'?: string | undefined;
  readonly 'if-match'?: string | undefined;
  readonly 'if-unmodified-since'?: string | undefined;
}

/** More ranges than this in one request are answered whole, as RFC 9110 14.2 allows against greedy clients. */
const MAX_RANGES = 16;

export function decideAnswer(headers: Conditions, file: Representation): Wanted {
  const ifMatch = headers['if-match'];
  if (ifMatch !== undefined) {
    if (!matchesAny(ifMatch, file.etag, true)) return { kind: 'precondition-failed' };
  } else if (headers['if-unmodified-since'] !== undefined && file.lastModified !== undefined) {
    const date = parseHttpDate(headers['if-unmodified-since']);
    if (date !== undefined && file.lastModified > date) return { kind: 'precondition-failed' };
  }
  const ifNoneMatch = headers['if-none-match'];
  if (ifNoneMatch !== undefined) {
    if (matchesAny(ifNoneMatch, file.etag, false)) return { kind: 'not-modified' };
  } else if (headers['if-modified-since'] !== undefined && file.lastModified !== undefined) {
    const date = parseHttpDate(headers['if-modified-since']);
    if (date !== undefined && file.lastModified <= date) return { kind: 'not-modified' };
  }
  if (headers.range === undefined || file.size === undefined) return { kind: 'whole' };
  if (headers['if-range'] !== undefined && !rangeHolds(headers['if-range'], file)) return { kind: 'whole' };
  return parseRanges(headers.range, file.size);
}

/** If-Range compares strongly; a date must be the very same (RFC 9110 13.1.5). */
function rangeHolds(value: string, file: Representation): boolean {
  if (value.startsWith('"')) return value === file.etag;
  const date = parseHttpDate(value);
  return date !== undefined && date === file.lastModified;
}

function matchesAny(list: string, etag: string, strong: boolean): boolean {
  if (list.trim() === '*') return true;
  return list.split(',').some((item) => {
    const one = item.trim();
    return strong ? one === etag : one.replace(/^W\//, '') === etag.replace(/^W\//, '');
  });
}

/** Seconds since the epoch; undefined when it is no date. */
export function parseHttpDate(text: string): number | undefined {
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? undefined : Math.floor(ms / 1000);
}

/** A malformed header is ignored, as RFC 9110 14.2 says; ranges that overlap so much that they repeat the file are, too. */
export function parseRanges(header: string, size: number): Wanted {
  const match = /^bytes=(.+)$/.exec(header.trim());
  if (!match) return { kind: 'whole' };
  const specs = match[1]!.split(',').map((spec) => spec.trim());
  if (specs.length > MAX_RANGES) return { kind: 'whole' };
  const ranges: ByteRange[] = [];
  for (const spec of specs) {
    const parts = /^(\d{0,15})-(\d{0,15})$/.exec(spec);
    if (!parts || (parts[1] === '' && parts[2] === '')) return { kind: 'whole' };
    if (parts[1] === '') {
      const length = Math.min(Number(parts[2]), size);
      if (length > 0) ranges.push({ start: size - length, end: size });
      continue;
    }
    const start = Number(parts[1]);
    const last = parts[2] === '' ? size - 1 : Number(parts[2]);
    if (last < start && parts[2] !== '') return { kind: 'whole' };
    if (start < size) ranges.push({ start, end: Math.min(last + 1, size) });
  }
  if (ranges.length === 0) return { kind: 'unsatisfiable' };
  const wanted = ranges.reduce((sum, range) => sum + range.end - range.start, 0);
  if (ranges.length > 1 && wanted > size) return { kind: 'whole' };
  return { kind: 'ranges', ranges };
}

/** The parts of a multipart/byteranges answer: text before each range, and the text that ends it (RFC 9110 14.6). */
export function multipartFrames(
  ranges: readonly ByteRange[],
  size: number,
  type: string,
  boundary: string,
): { heads: string[]; tail: string; length: number } {
  const heads = ranges.map(
    ({ start, end }, index) =>
      `${index === 0 ? '' : '\r\n'}--${boundary}\r\nContent-Type: ${type}\r\nContent-Range: bytes ${start}-${end - 1}/${size}\r\n\r\n`,
  );
  const tail = `\r\n--${boundary}--\r\n`;
  const bytes = ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  return { heads, tail, length: heads.reduce((sum, head) => sum + head.length, 0) + bytes + tail.length };
}
