/**
 * A repository over HTTP: the files below public/, and what programs ask for (`/api/`, `/metrics`, `/healthz`).
 *
 * Secret: which answers may be kept, and for how long (RFC 9110, RFC 9111). Packages, by-hash objects and snapshots never
 * change under their name; everything else is asked for anew each time. Nothing is written without a token (upload.ts).
 */
import { open, realpath } from 'node:fs/promises';
import type { Server as TlsServer } from 'node:https';
import { join, resolve, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';
import express, { type Request, type Response } from 'express';
import type { Context } from '../core/context.ts';
import { BuildkitError, errnoOf, UserError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { type Listening, listen } from '../core/http.ts';
import { AccessLog } from './access-log.ts';
import { type CertificateFiles, certificateState, readCertificate } from './certificate.ts';
import { layoutOf } from './layout.ts';
import { Repo } from './repo.ts';
import { drain, handleWrite, RateLimit, TooMany, type UploadLimits, writeRequestOf } from './upload.ts';

export interface ServeOptions {
  /** 'host:port'; port 0 takes a free one. */
  readonly listen: string;
  /** Sign anew before Valid-Until runs out. */
  readonly renew?: boolean | undefined;
  readonly maxUploadBytes?: number | undefined;
  /** Of one token. */
  readonly writesPerMinute?: number | undefined;
  /** For one upload; without a byte it ends much sooner. */
  readonly uploadSeconds?: number | undefined;
  /** HTTPS in place of HTTP. */
  readonly tls?: CertificateFiles | undefined;
  /** How often the files of the certificate are looked at (default 10 s). */
  readonly watchMs?: number | undefined;
  /** A line for each answer, in the combined format. */
  readonly accessLog?: string | undefined;
}

export interface RepoServer extends Listening {
  /** Takes the certificate of now, opens the log file anew. */
  reload(): Promise<void>;
}

const MAX_UPLOAD_BYTES = 2 * 1024 ** 3;
const WRITES_PER_MINUTE = 300;
const UPLOAD_SECONDS = 3600;
const RENEWAL_MS = 3_600_000;
const WATCH_MS = 10_000;

const TYPES: readonly (readonly [RegExp, string])[] = [
  [/\.u?deb$/, 'application/vnd.debian.binary-package'],
  [/\.gz$/, 'application/gzip'],
  [/\.xz$/, 'application/x-xz'],
  [/\.zst$/, 'application/zstd'],
  [/\.asc$|\/Release\.gpg$/, 'application/pgp-keys'],
  [/\.gpg$/, 'application/octet-stream'],
  [/\.html$|\/$/, 'text/html; charset=utf-8'],
  [/\.css$/, 'text/css; charset=utf-8'],
  [/\.js$/, 'text/javascript; charset=utf-8'],
  [/\.txt$/, 'text/plain; charset=utf-8'],
  [/\.svg$/, 'image/svg+xml'],
  [/\.xml$|\.atom$/, 'application/atom+xml; charset=utf-8'],
  [
    /\.(dsc|changes|sources)$|\/(InRelease|Release|Packages|Sources|Index)$|\/Contents-[^/.]+$|\/Translation-[^/.]+$/,
    'text/plain; charset=utf-8',
  ],
];

const IMMUTABLE = /^\/(?:pool|snapshots)\/|\/by-hash\//;

/**
 * Serves the repository in `dir` until it is disposed.
 * @throws UserError `no-repository`, `address-in-use`, `bad-certificate`, ...
 */
export async function serveRepo(context: Context, dir: string, options: ServeOptions): Promise<RepoServer> {
  const layout = layoutOf(resolve(dir));
  if (!(await exists(layout.catalog))) {
    throw new UserError('no-repository', `'${dir}' holds no repository`, { hint: 'see: buildkit repo init --help' });
  }
  const pair = options.tls && (await readCertificate(options.tls));
  const log = options.accessLog === undefined ? undefined : await openLog(context, options.accessLog);
  const server: Server = {
    context,
    dir: resolve(dir),
    root: await realpath(layout.public),
    limits: {
      maxBytes: options.maxUploadBytes ?? MAX_UPLOAD_BYTES,
      writesPerMinute: options.writesPerMinute ?? WRITES_PER_MINUTE,
      seconds: options.uploadSeconds ?? UPLOAD_SECONDS,
    },
    rate: new RateLimit(options.writesPerMinute ?? WRITES_PER_MINUTE),
    counts: new Map(),
    log,
  };
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.use((request: Request, response: Response) => answer(server, request, response));
  const listening = await listen(app, options.listen, pair).catch(async (error: unknown) => {
    await log?.[Symbol.asyncDispose]();
    throw error;
  });
  listening.server.requestTimeout = 0; // uploads have limits of their own
  const renewal = options.renew ? startRenewal(server) : undefined;
  const certificate = options.tls && watchCertificate(context, listening, options.tls, options.watchMs ?? WATCH_MS);
  const end = async (closing: () => Promise<void>): Promise<void> => {
    renewal?.[Symbol.dispose]();
    certificate?.[Symbol.dispose]();
    await closing();
    await log?.[Symbol.asyncDispose]();
  };
  return {
    server: listening.server,
    host: listening.host,
    port: listening.port,
    url: listening.url,
    reload: async () => {
      await log?.reopen();
      await certificate?.reload();
    },
    close: (graceMs) => end(() => listening.close(graceMs)),
    [Symbol.asyncDispose]: () => end(() => listening.close(0)),
  };
}

function openLog(context: Context, path: string): Promise<AccessLog> {
  return AccessLog.open(path, (message) => context.log.warn(message));
}

interface WatchedCertificate extends Disposable {
  reload(): Promise<void>;
}

/** Takes the certificate again whenever its files changed. */
function watchCertificate(
  context: Context,
  listening: Listening,
  files: CertificateFiles,
  everyMs: number,
): WatchedCertificate {
  let known = certificateState(files);
  const reload = async () => {
    known = certificateState(files);
    try {
      (listening.server as TlsServer).setSecureContext(await readCertificate(files));
      context.log.info('took the certificate anew');
    } catch (error) {
      context.log.warn(`the certificate in use stays: ${(error as Error).message}`);
    }
  };
  const look = async () => {
    if ((await certificateState(files)) !== (await known)) await reload();
  };
  const timer = setInterval(() => void look(), everyMs);
  timer.unref();
  return { reload, [Symbol.dispose]: () => clearInterval(timer) };
}

interface Server {
  readonly context: Context;
  readonly dir: string;
  /** The real path of public/. */
  readonly root: string;
  readonly limits: UploadLimits;
  readonly rate: RateLimit;
  /** Answers by method and status, and bytes sent. */
  readonly counts: Map<string, number>;
  readonly log: AccessLog | undefined;
}

/** Signs anew before Valid-Until runs out, as long as the server runs. Trouble is told, and tried again. */
function startRenewal(server: Server): Disposable {
  const renew = async () => {
    try {
      using repo = await Repo.open(server.context, server.dir);
      const renewed = await repo.renew();
      if (renewed.length > 0) server.context.log.info(`signed anew: ${renewed.join(', ')}`);
    } catch (error) {
      server.context.log.warn(`cannot sign anew: ${(error as Error).message}`);
    }
  };
  void renew();
  const timer = setInterval(renew, RENEWAL_MS);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

async function answer(server: Server, request: Request, response: Response): Promise<void> {
  const { context } = server;
  const started = performance.now();
  const at = context.now();
  const { remoteAddress: address, bytesWritten: before } = request.socket;
  let user: string | undefined;
  response.setHeader('X-Content-Type-Options', 'nosniff');
  response.once('close', () => {
    const bytes = bodyBytes(request, response, before);
    count(server, `${request.method} ${response.statusCode}`, 1);
    count(server, 'bytes', bytes);
    const { method, originalUrl: target, httpVersion } = request;
    const { referer, 'user-agent': agent } = request.headers;
    const status = response.headersSent ? response.statusCode : 499; // as nginx: gone before there was an answer
    server.log?.write({ address, user, at, method, target, httpVersion, status, bytes, referer, agent });
    context.log.detail(`${address ?? '-'} ${method} ${target} ${status} ${Math.round(performance.now() - started)} ms`);
  });
  try {
    await route(server, request, response, (name) => {
      user = name;
    });
  } catch (error) {
    if (request.destroyed && !request.complete) return; // the client has gone
    if (response.destroyed) return;
    if (!(error instanceof BuildkitError) && !(error instanceof TooMany)) {
      context.log.warn(`${request.method} ${request.originalUrl}: ${(error as Error).message}`);
    }
    if (response.headersSent) response.destroy();
    else {
      const isSlow = error instanceof UserError && error.code === 'too-slow';
      if (!request.complete && !isSlow) await drain(request, server.limits).catch(() => {});
      if (!request.complete) response.setHeader('Connection', 'close'); // nobody reads the rest of it
      refuse(response, error);
    }
  }
}

/** Of the body, as far as it went out; of one that was cut, what went out of all. */
function bodyBytes(request: Request, response: Response, before: number): number {
  if (request.method === 'HEAD' || !response.headersSent) return 0;
  const whole = Number(response.getHeader('content-length') ?? 0);
  return response.writableFinished ? whole : Math.min(whole, Math.max(0, request.socket.bytesWritten - before));
}

function count(server: Server, name: string, by: number): void {
  server.counts.set(name, (server.counts.get(name) ?? 0) + by);
}

async function route(
  server: Server,
  request: Request,
  response: Response,
  onUser: (name: string) => void,
): Promise<void> {
  const path = publicPath(request.originalUrl);
  if (request.method === 'GET' || request.method === 'HEAD') {
    if (path === '/healthz') return health(server, response);
    if (path === '/metrics') return metrics(server, response);
    if (path?.startsWith('/api/')) return readApi(server, path, request, response);
    return sendFile(server.root, request, response);
  }
  const wanted = path === undefined ? undefined : writeRequestOf(request.method, path);
  if (!wanted) {
    response.setHeader('Allow', 'GET, HEAD');
    plain(response, 405, 'only GET and HEAD');
    return;
  }
  const { context, dir, limits, rate } = server;
  json(response, 200, await handleWrite({ context, dir, limits, rate, onUser }, wanted, request));
}

/** One place for how kinds of failure look over HTTP. */
function refuse(response: Response, error: unknown): void {
  if (error instanceof TooMany) {
    response.setHeader('Retry-After', '60');
    plain(response, 429, 'too many writes in a minute');
  } else if (!(error instanceof UserError)) {
    plain(response, 500, 'cannot do it');
  } else if (error.code === 'not-allowed') {
    response.setHeader('WWW-Authenticate', 'Bearer realm="buildkit", Basic realm="buildkit"');
    plain(response, 401, error.message);
  } else {
    const status = { 'too-large': 413, 'too-slow': 408, 'no-such-suite': 404, 'query-syntax': 400 }[error.code] ?? 409;
    json(response, status, { code: error.code, message: error.message });
  }
}

function json(response: Response, status: number, data: unknown): void {
  const refused = (data as { refused?: readonly unknown[] } | undefined)?.refused;
  response.status(refused && refused.length > 0 ? 409 : status).setHeader('Cache-Control', 'no-cache');
  response.type('application/json').send(`${JSON.stringify(data)}\n`);
}

async function health(server: Server, response: Response): Promise<void> {
  using repo = await Repo.open(server.context, server.dir);
  const now = server.context.now().getTime();
  const current = repo.generations().filter((generation) => generation.current);
  const expired = current.filter(({ validUntil }) => validUntil !== undefined && Date.parse(validUntil) < now);
  const message = expired.length > 0 ? `expired: ${expired.map(({ suite }) => suite).join(', ')}` : 'ok';
  plain(response, expired.length > 0 ? 503 : 200, message);
}

/** Text exposition format 0.0.4 of Prometheus. */
async function metrics(server: Server, response: Response): Promise<void> {
  using repo = await Repo.open(server.context, server.dir);
  const lines = ['# TYPE buildkit_repo_requests_total counter'];
  for (const [name, value] of [...server.counts].sort()) {
    const [method, status] = name.split(' ');
    if (status !== undefined)
      lines.push(`buildkit_repo_requests_total{method="${method}",status="${status}"} ${value}`);
  }
  lines.push(
    '# TYPE buildkit_repo_sent_bytes_total counter',
    `buildkit_repo_sent_bytes_total ${server.counts.get('bytes') ?? 0}`,
  );
  lines.push('# TYPE buildkit_repo_valid_until_seconds gauge');
  for (const { suite, validUntil, current } of repo.generations()) {
    if (!current || validUntil === undefined) continue;
    lines.push(`buildkit_repo_valid_until_seconds{suite="${suite}"} ${Date.parse(validUntil) / 1000}`);
  }
  response.setHeader('Cache-Control', 'no-cache');
  response.type('text/plain; version=0.0.4').send(`${lines.join('\n')}\n`);
}

/** What clients see, as JSON: what is not published yet is not told. */
async function readApi(server: Server, path: string, request: Request, response: Response): Promise<void> {
  using repo = await Repo.open(server.context, server.dir);
  if (path === '/api/suites') return json(response, 200, repo.suites());
  if (path === '/api/generations') return json(response, 200, repo.generations());
  const match = /^\/api\/suites\/([^/]+)\/packages$/.exec(path);
  if (!match) return plain(response, 404, 'not found');
  const { parseFilter } = await import('./query.ts');
  const text = new URL(request.originalUrl, 'http://localhost').searchParams.get('filter');
  json(response, 200, repo.published(match[1]!, text === null ? undefined : parseFilter(text)));
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
  const asked = publicPath(request.originalUrl);
  const path = asked?.endsWith('/') ? `${asked}index.html` : asked;
  const found = path === undefined ? undefined : await findFile(root, path.endsWith('/') ? `${path}index.html` : path);
  if (path === undefined || found === undefined) {
    plain(response, 404, 'not found');
    return;
  }
  // opened once, so that what is described and what is sent are one file, also while a publish turns the links
  const file = await open(found, 'r');
  try {
    const stats = await file.stat();
    if (stats.isDirectory() && (await exists(join(found, 'index.html')))) {
      response.redirect(301, `./${path.slice(path.lastIndexOf('/') + 1)}/`);
      return;
    }
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
