/**
 * A repository over HTTP: the files below public/ and nothing else.
 *
 * Secret: which answers may be kept, and for how long (RFC 9110, RFC 9111). Packages, by-hash objects and snapshots never
 * change under their name; everything else is asked for anew each time. Reading only: any other method is refused.
 */
import { open, realpath } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';
import express, { type Request, type Response } from 'express';
import type { Context } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { type Listening, listen } from '../core/http.ts';
import { layoutOf } from './layout.ts';

export interface ServeOptions {
  /** 'host:port'; port 0 takes a free one. */
  readonly listen: string;
}

const TYPES: readonly (readonly [RegExp, string])[] = [
  [/\.u?deb$/, 'application/vnd.debian.binary-package'],
  [/\.gz$/, 'application/gzip'],
  [/\.xz$/, 'application/x-xz'],
  [/\.zst$/, 'application/zstd'],
  [/\.asc$|\/Release\.gpg$/, 'application/pgp-keys'],
  [/\.gpg$/, 'application/octet-stream'],
  [/\.html$/, 'text/html; charset=utf-8'],
  [/\.css$/, 'text/css; charset=utf-8'],
  [/\.svg$/, 'image/svg+xml'],
  [/\.xml$|\.atom$/, 'application/atom+xml; charset=utf-8'],
  [
    /\.(dsc|changes|sources)$|\/(InRelease|Release|Packages|Sources|Index)$|\/Contents-[^/.]+$|\/Translation-[^/.]+$/,
    'text/plain; charset=utf-8',
  ],
];

const IMMUTABLE = /^\/(?:pool|snapshots)\/|\/by-hash\//;

/** Serves the repository in `dir` until it is disposed. @throws UserError `no-repository`, `address-in-use`, ... */
export async function serveRepo(context: Context, dir: string, options: ServeOptions): Promise<Listening> {
  const layout = layoutOf(resolve(dir));
  if (!(await exists(layout.catalog))) {
    throw new UserError('no-repository', `'${dir}' holds no repository`, { hint: 'see: buildkit repo init --help' });
  }
  const root = await realpath(layout.public);
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.use((request: Request, response: Response) => answer(context, root, request, response));
  return listen(app, options.listen);
}

async function answer(context: Context, root: string, request: Request, response: Response): Promise<void> {
  response.setHeader('X-Content-Type-Options', 'nosniff');
  try {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.setHeader('Allow', 'GET, HEAD');
      plain(response, 405, 'only GET and HEAD');
      return;
    }
    await sendFile(root, request, response);
  } catch (error) {
    if (request.destroyed || response.destroyed) return; // the client has gone
    context.log.warn(`${request.method} ${request.originalUrl}: ${(error as Error).message}`);
    if (response.headersSent) response.destroy();
    else plain(response, 500, 'cannot read it');
  }
}

function plain(response: Response, status: number, text: string): void {
  response.status(status).setHeader('Cache-Control', 'no-cache');
  response.type('text/plain; charset=utf-8').send(`${text}\n`);
}

/** The path asked for, '/' first, decoded once; undefined when it is none or names something hidden. */
export function publicPath(url: string): string | undefined {
  const target = url.replace(/^https?:\/\/[^/?#]*/, '').replace(/[?#].*$/s, '');
  let path: string;
  try {
    path = decodeURIComponent(target).replaceAll(/\/{2,}/g, '/');
  } catch {
    return undefined;
  }
  if (!path.startsWith('/') || /[\u0000-\u001f\u007f\\]/.test(path)) return undefined;
  const segments = path.slice(1).split('/');
  return segments.some((segment) => segment.startsWith('.')) ? undefined : path;
}

async function sendFile(root: string, request: Request, response: Response): Promise<void> {
  const path = publicPath(request.originalUrl);
  const found = path === undefined ? undefined : await findFile(root, path);
  if (path === undefined || found === undefined) {
    plain(response, 404, 'not found');
    return;
  }
  // opened once, so that what is described and what is sent are one file, also while a publish turns the links
  const file = await open(found, 'r');
  try {
    const stats = await file.stat();
    if (!stats.isFile()) {
      plain(response, 404, 'not found');
      return;
    }
    const tag = `"${stats.ino.toString(36)}-${stats.size.toString(36)}-${Math.trunc(stats.mtimeMs).toString(36)}"`;
    response.setHeader('ETag', tag);
    response.setHeader('Last-Modified', stats.mtime.toUTCString());
    response.setHeader('Accept-Ranges', 'bytes');
    response.setHeader('Cache-Control', IMMUTABLE.test(path) ? 'public, max-age=31536000, immutable' : 'no-cache');
    response.setHeader(
      'Content-Type',
      TYPES.find(([pattern]) => pattern.test(path))?.[1] ?? 'application/octet-stream',
    );
    if (request.fresh) {
      response.status(304).end();
      return;
    }
    const range = requestedRange(request.headers.range, stats.size, rangeStillHolds(request, tag, stats.mtime));
    if (range === 'unsatisfiable') {
      response.status(416).setHeader('Content-Range', `bytes */${stats.size}`);
      response.end();
      return;
    }
    const { start, end } = range ?? { start: 0, end: stats.size - 1 };
    if (range) response.status(206).setHeader('Content-Range', `bytes ${start}-${end}/${stats.size}`);
    response.setHeader('Content-Length', end - start + 1);
    if (request.method === 'HEAD' || stats.size === 0) {
      response.end();
      return;
    }
    await pipeline(file.createReadStream({ start, end, autoClose: false, highWaterMark: 256 * 1024 }), response);
  } finally {
    await file.close();
  }
}

/** The file meant, links followed, as long as it stays below `root`. */
async function findFile(root: string, path: string): Promise<string | undefined> {
  try {
    const found = await realpath(join(root, path));
    if (!found.startsWith(root + sep)) return undefined;
    return found;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

/** RFC 9110 13.1.5: a range is of what the client has seen the rest of, else the whole is sent. */
function rangeStillHolds(request: Request, tag: string, mtime: Date): boolean {
  const condition = request.headers['if-range'];
  if (typeof condition !== 'string') return true;
  return condition.startsWith('"') ? condition === tag : condition === mtime.toUTCString();
}

/** One range of bytes, both ends included; undefined: send all. Several ranges are answered with all (RFC 9110 14.2). */
export function requestedRange(
  header: string | undefined,
  size: number,
  holds: boolean,
): { readonly start: number; readonly end: number } | 'unsatisfiable' | undefined {
  const match = holds ? /^bytes=(?:(\d{1,15})-(\d{0,15})|-(\d{1,15}))$/.exec(header?.trim() ?? '') : undefined;
  if (!match) return undefined;
  if (match[3] !== undefined) {
    const length = Math.min(Number(match[3]), size);
    return length === 0 ? 'unsatisfiable' : { start: size - length, end: size - 1 };
  }
  const start = Number(match[1]);
  const end = match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (start > end && match[2] !== '' && Number(match[2]) < start) return undefined; // no range at all: ignored
  return start >= size ? 'unsatisfiable' : { start, end };
}
