/**
 * Request targets: which form a request has (RFC 9112 3.2), told apart before anything is routed, and its path in one spelling.
 *
 * Secret: the spellings. A path is decoded once, `.` and empty segments vanish, `..` and whatever could be read as a separator
 * after decoding is refused: what is looked up, what is logged and what is asked upstream are then the same thing.
 */

import { isIP } from 'node:net';

/** `host` in lower case without brackets; `port` the one that will be used. */
export interface Authority {
  readonly scheme: 'http' | 'https';
  readonly host: string;
  readonly port: number;
}

export type Target =
  /** `GET http://host/path`: the client takes us for its proxy. */
  | { readonly form: 'absolute'; readonly authority: Authority; readonly path: string; readonly query: string }
  /** `GET /path`: the client takes us for a server. */
  | { readonly form: 'origin'; readonly path: string; readonly query: string }
  | { readonly form: 'bad'; readonly reason: string };

const MAX_TARGET = 4096;

/** Reads the target of a GET or HEAD. `http://HTTPS///host/path` and `/HTTPS///host/path` mean `https://host/path`. */
export function parseTarget(raw: string): Target {
  if (raw.length > MAX_TARGET) return bad('the address is too long');
  if (/[\u0000-\u0020\u007f-\uffff\\#]/.test(raw)) return bad('the address holds characters that no address has');
  const [before = '', query = ''] = splitAt(raw, '?');
  const https = /^(?:https?:\/\/HTTPS\/\/\/|\/HTTPS\/\/\/)(.+)$/.exec(before);
  if (https) return absolute('https', https[1]!, query);
  const match = /^(https?):\/\/(.*)$/i.exec(before);
  if (match) return absolute(match[1]!.toLowerCase() as 'http' | 'https', match[2]!, query);
  if (!before.startsWith('/')) return bad('the address is neither a path nor http');
  const path = normalisePath(before);
  return path === undefined ? bad('the path is malformed') : { form: 'origin', path, query };
}

/** npm escapes the slash of a scoped name (`/npm/@scope%2fname`): the one place where an escaped slash is a slash. */
export function npmSpelling(raw: string): string {
  return raw.replace(/^(\/npm\/(?:@|%40)[^/%]+)%2f/i, '$1/');
}

function absolute(scheme: 'http' | 'https', rest: string, query: string): Target {
  const slash = rest.indexOf('/');
  const authority = parseAuthority(scheme, slash < 0 ? rest : rest.slice(0, slash));
  if (!authority) return bad('the host is malformed');
  const path = normalisePath(slash < 0 ? '/' : rest.slice(slash));
  return path === undefined ? bad('the path is malformed') : { form: 'absolute', authority, path, query };
}

/** `host`, `host:port`, `[v6]:port`; undefined when malformed. User names are refused: they hide the real host from a reader. */
export function parseAuthority(scheme: 'http' | 'https', text: string): Authority | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9](?:[a-z0-9._-]*[a-z0-9])?))(?::(\d{1,5}))?$/i.exec(text);
  if (!match) return undefined;
  const port = match[3] === undefined ? (scheme === 'https' ? 443 : 80) : Number(match[3]);
  if (port < 1 || port > 65_535) return undefined;
  const host = (match[1] ?? match[2]!).toLowerCase();
  // `2130706433`, `0x7f.1`, `0177.0.0.1`: names to us, but addresses to whoever parses URLs as browsers do (WHATWG URL, 4.3.2)
  const looksNumeric = /(?:^|\.)(?:\d+|0x[0-9a-f]*)$/.test(host);
  if (match[1] === undefined && looksNumeric && isIP(host) !== 4) return undefined;
  return { scheme, host, port };
}

/** `http://host` or `http://host:8080`, the port left out where it is the scheme's own. */
export function formatAuthority({ scheme, host, port }: Authority): string {
  const shown = host.includes(':') ? `[${host}]` : host;
  return `${scheme}://${shown}${port === (scheme === 'https' ? 443 : 80) ? '' : `:${port}`}`;
}

/** Decoded, without a slash at its start; undefined when malformed or when it would climb. */
export function normalisePath(raw: string): string | undefined {
  const segments: string[] = [];
  const parts = raw.split('/');
  for (const [index, part] of parts.entries()) {
    let decoded: string;
    try {
      decoded = part.includes('%') ? decodeURIComponent(part) : part;
    } catch {
      return undefined; // not UTF-8, or a lone %
    }
    if (decoded === '' || decoded === '.') {
      if (index === parts.length - 1 && segments.length > 0) segments.push('');
      continue;
    }
    if (decoded === '..' || /[\u0000-\u001f\u007f/\\]/.test(decoded)) return undefined;
    segments.push(decoded);
  }
  return segments.join('/');
}

/** As apt spells it for servers: everything but unreserved characters and a few harmless ones is escaped (`+` too: S3 reads it as a blank). */
export function encodePath(path: string): string {
  return path
    .split('/')
    .map((segment) => encodeURIComponent(segment).replaceAll('%3A', ':').replaceAll('%40', '@').replaceAll('%2C', ','))
    .join('/');
}

function splitAt(text: string, mark: string): [string, string] {
  const at = text.indexOf(mark);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at)];
}

function bad(reason: string): Target {
  return { form: 'bad', reason };
}
