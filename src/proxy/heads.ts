/**
 * What is asked of a mirror for a file, and what the head of its answer means.
 *
 * Secret: conditions and ranges (RFC 9110 13.1.5, 14, 15.4.5, 15.5.17): when a part may be taken for the rest of what is here,
 * and when it is of another file. Pure.
 */
import { parseHttpDate } from './range.ts';
import type { Head } from './upstream.ts';

/** What an earlier answer left for the next request. */
export interface Validators {
  readonly etag?: string | undefined;
  /** Seconds since the epoch. */
  readonly lastModified?: number | undefined;
}

/** Of the body so far. */
export interface Progress extends Validators {
  readonly received: number;
  readonly size: number | undefined;
  /** What it was declared to be beforehand. */
  readonly expectedSize: number | undefined;
  readonly hasDigest: boolean;
  /** It came from the very server that is asked now. */
  readonly sameServer: boolean;
  readonly maxBytes: number;
}

export type Verdict =
  /** The rest of what is here; `size` when the answer tells. */
  | { readonly kind: 'rest'; readonly size: number | undefined }
  /** The whole file; `anew`: it cannot be the one that is here. */
  | ({ readonly kind: 'whole'; readonly size: number | undefined; readonly anew: boolean } & Validators)
  /** What is here is of another file. */
  | { readonly kind: 'another' }
  | { readonly kind: 'not-modified' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'failed'; readonly code: 'upstream-status' | 'body-bad' | 'too-large'; readonly reason: string };

/** @param validators of what is in the cache: asks whether it changed */
export function requestHeaders(progress: Progress, validators: Validators | undefined): Record<string, string> {
  const headers: Record<string, string> = {};
  if (progress.received > 0) {
    const { etag, lastModified, sameServer, hasDigest } = progress;
    const strong = etag !== undefined && !etag.startsWith('W/') ? etag : undefined;
    const promise = sameServer ? (strong ?? httpDate(lastModified)) : undefined;
    if (promise !== undefined) headers['if-range'] = promise;
    if (promise !== undefined || hasDigest) headers.range = `bytes=${progress.received}-`;
  } else if (validators) {
    if (validators.etag !== undefined) headers['if-none-match'] = validators.etag;
    const date = httpDate(validators.lastModified);
    if (date !== undefined) headers['if-modified-since'] = date;
  }
  return headers;
}

/** @param asked the headers of the request */
export function judgeHead(head: Head, asked: Readonly<Record<string, string>>, progress: Progress): Verdict {
  const { status } = head;
  if (status === 304 && (asked['if-none-match'] !== undefined || asked['if-modified-since'] !== undefined))
    return { kind: 'not-modified' };
  if (status === 404 || status === 410) return { kind: 'absent' };
  if (status === 416 && asked.range !== undefined) return { kind: 'another' }; // shorter than what is here
  if (status !== 200 && status !== 206) {
    return { kind: 'failed', code: 'upstream-status', reason: `the server answered ${status}` };
  }
  const encoding = single(head.headers['content-encoding']);
  if (encoding !== undefined && encoding !== 'identity') {
    return { kind: 'failed', code: 'upstream-status', reason: `the server sent it in encoding '${encoding}'` };
  }
  return status === 206 ? judgePart(head, asked, progress) : judgeWhole(head, progress);
}

function judgePart(head: Head, asked: Readonly<Record<string, string>>, progress: Progress): Verdict {
  const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(single(head.headers['content-range']) ?? '');
  const total = match === null || match[3] === '*' ? undefined : Number(match[3]);
  const fits =
    asked.range !== undefined &&
    match !== null &&
    Number(match[1]) === progress.received &&
    (total === undefined || progress.size === undefined || total === progress.size);
  const etag = single(head.headers.etag);
  const sameTag =
    asked['if-range'] === undefined || etag === undefined || progress.etag === undefined || etag === progress.etag;
  return fits && sameTag ? { kind: 'rest', size: total } : { kind: 'another' };
}

function judgeWhole(head: Head, { received, size, expectedSize, maxBytes }: Progress): Verdict {
  const text = single(head.headers['content-length']);
  const length = text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
  if (length !== undefined && expectedSize !== undefined && length !== expectedSize) {
    return { kind: 'failed', code: 'body-bad', reason: `it is ${length} bytes long instead of ${expectedSize}` };
  }
  if ((length ?? 0) > maxBytes) return { kind: 'failed', code: 'too-large', reason: `it is ${length} bytes long` };
  const date = single(head.headers['last-modified']);
  return {
    kind: 'whole',
    size: expectedSize ?? length,
    anew: received > 0 && size !== undefined && length !== undefined && length !== size,
    etag: single(head.headers.etag),
    lastModified: date === undefined ? undefined : parseHttpDate(date),
  };
}

function httpDate(seconds: number | undefined): string | undefined {
  return seconds === undefined ? undefined : new Date(seconds * 1000).toUTCString();
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
