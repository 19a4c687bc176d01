/**
 * Listening: proxy requests, path requests, CONNECT and own pages on the same ports.
 *
 * Secret: the order in which a socket's bytes become one of these, and the limits on what a client may hold. Files are answered
 * before express sees anything; express has the pages and the API. Sockets handed over by systemd: sd_listen_fds(3).
 */
import { createWriteStream, type WriteStream } from 'node:fs';
import type { IncomingMessage, RequestListener, Server, ServerOptions, ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import express from 'express';
import type { Context } from '../core/context.ts';
import { BuildkitError, UserError } from '../core/errors.ts';
import { type Listening, listen } from '../core/http.ts';
import { hostMatches, parseNetworks } from './guard.ts';
import { createLeases, forgetServing, healthOf, type Leases, noteServing } from './leases.ts';
import { prometheusText } from './metrics.ts';
import { type Status, statusPage } from './pages.ts';
import { ProxyCache, type ProxyParts } from './proxy.ts';
import { createRegistries, type Registries } from './registries.ts';
import { hasBody } from './routes.ts';
import { headerText } from './send.ts';
import type { ProxySettings } from './settings.ts';
import { parseAuthority } from './target.ts';
import { expire } from './upkeep.ts';

export interface ServeOptions {
  /** 'host:port', several; ignored when systemd hands sockets over. */
  readonly listen: readonly string[];
  /** Started by a command for itself: it ends with it, once others that lease it are done (see leases.ts). */
  readonly forCommand?: boolean;
  readonly limits?: Partial<ClientLimits>;
  readonly parts?: ProxyParts;
}

/** What a slow or greedy client may hold; milliseconds. */
export interface ClientLimits {
  /** For all headers of a request. */
  readonly headersMs: number;
  /** For a whole request. */
  readonly requestMs: number;
  /** How often these two are looked at. */
  readonly checkMs: number;
  /** Of silence in both directions. */
  readonly idleMs: number;
  /** Connections from one address. */
  readonly perClient: number;
}

const LIMITS: ClientLimits = { headersMs: 15_000, requestMs: 30_000, checkMs: 5000, idleMs: 120_000, perClient: 500 };

export interface RunningProxy extends AsyncDisposable {
  readonly cache: ProxyCache;
  /** One per listener. */
  readonly urls: readonly string[];
  readonly leases: Leases;
  close(): Promise<void>;
}

const IDLE_MS = 120_000;
const MAX_CONNECTIONS = 2000;
const FIRST_FD = 3;
const EXPIRE_MS = 60_000;

/** Opens the cache and serves it until it is disposed. @throws UserError as `ProxyCache.open` and `listen` */
export async function serveProxy(
  context: Context,
  settings: ProxySettings,
  options: ServeOptions,
): Promise<RunningProxy> {
  const limits = { ...LIMITS, ...options.limits };
  const clients = parseNetworks(settings.clients);
  const cache = await ProxyCache.open(context, settings, options.parts);
  const listeners: Listening[] = [];
  const sockets = new Set<Socket>();
  const refused = new WeakSet<Socket>();
  const log = settings.accessLog === undefined ? undefined : createWriteStream(settings.accessLog, { flags: 'a' });
  log?.on('error', () => {}); // a full disk must not stop the answers
  const leases = createLeases();
  const limited = settings.quota > 0 || settings.maxUnusedDays > 0;
  const expiry = limited ? setInterval(() => expireQuietly(context, cache), EXPIRE_MS).unref() : undefined;
  const close = async () => {
    clearInterval(expiry);
    if (listeners.length > 0) forgetServing(settings.dir);
    await Promise.all(listeners.map((one) => one.close(2000)));
    for (const socket of sockets) socket.destroy();
    await cache.close();
    log?.end();
  };
  try {
    const handler = createHandler(context, cache, { connections: () => sockets.size, log, leases, refused });
    const fds = inheritedSockets(context.env);
    const places = fds.length > 0 ? fds.map((fd) => ({ fd })) : options.listen;
    const open = places.map((place) => listen(handler, place, undefined, serverOptions(limits)));
    const opened = await Promise.allSettled(open);
    for (const one of opened) if (one.status === 'fulfilled') listeners.push(one.value);
    for (const one of opened) if (one.status === 'rejected') throw one.reason;
    for (const { server } of listeners) {
      guardServer(server, cache, settings, { isClient: (address) => clients.has(address), sockets, limits, refused });
    }
    const urls = listeners.map((one) => one.url);
    noteServing(settings.dir, { urls, forCommand: options.forCommand ?? false });
    return { cache, urls, leases, close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

function expireQuietly(context: Context, cache: ProxyCache): void {
  try {
    expire(cache, {});
  } catch (error) {
    context.log.warn(`nothing could be evicted: ${(error as Error).message}`);
  }
}

/** Descriptors that systemd opened for this very process. */
export function inheritedSockets(env: Readonly<Record<string, string | undefined>>, pid = process.pid): number[] {
  if (Number(env.LISTEN_PID) !== pid) return [];
  const count = Number(env.LISTEN_FDS);
  return Number.isInteger(count) && count > 0 && count < 100
    ? Array.from({ length: count }, (_, index) => FIRST_FD + index)
    : [];
}

function serverOptions({ headersMs, requestMs, checkMs }: ClientLimits): ServerOptions {
  return {
    headersTimeout: headersMs,
    requestTimeout: requestMs,
    connectionsCheckingInterval: checkMs,
    keepAliveTimeout: 75_000,
  };
}

/** Limits, the list of clients, CONNECT, and an answer to what is not HTTP. */
function guardServer(
  server: Server,
  cache: ProxyCache,
  settings: ProxySettings,
  door: {
    readonly isClient: (address: string) => boolean;
    readonly sockets: Set<Socket>;
    readonly limits: ClientLimits;
    readonly refused: WeakSet<Socket>;
  },
): void {
  const { isClient, sockets, limits, refused } = door;
  const open = new Map<string, number>();
  server.maxConnections = MAX_CONNECTIONS;
  server.maxHeadersCount = 100;
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.setNoDelay(true);
    const address = socket.remoteAddress ?? '';
    const count = (open.get(address) ?? 0) + 1;
    open.set(address, count);
    socket.once('close', () => {
      const left = open.get(address)! - 1;
      if (left > 0) open.set(address, left);
      else open.delete(address);
    });
    if (isClient(address) && count <= limits.perClient) {
      // silence in both directions: a client that reads nothing and asks nothing
      socket.setTimeout(limits.idleMs, () => socket.destroy());
      return;
    }
    cache.metrics.add('refused');
    const [status, body] = isClient(address)
      ? ['503 Service Unavailable', 'too many connections from this address\n']
      : ['403 Forbidden', 'this network is not on the list of clients (--allow-client)\n'];
    socket.end(
      `HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
    );
    socket.destroySoon();
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    // what comes behind a refused request is no request: one answer, and the end
    if (!socket.writable || refused.has(socket as Socket)) socket.destroy();
    else socket.end(`HTTP/1.1 ${complaintOf(error.code)}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
  });
  server.on('connect', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    if (!isClient(socket.remoteAddress ?? '')) socket.destroy();
    else tunnel(cache, settings.connect, settings.innerHosts, request.url ?? '', socket, head);
  });
  server.on('upgrade', (_request: IncomingMessage, socket: Socket) => socket.destroy());
}

function tunnel(
  cache: ProxyCache,
  allowed: readonly string[],
  innerHosts: readonly string[],
  target: string,
  socket: Socket,
  head: Buffer,
): void {
  const refuse = (status: string, reason: string) => {
    cache.metrics.add('refused');
    const body = `${reason}\n`;
    socket.end(
      `HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    );
  };
  socket.on('error', () => socket.destroy());
  const authority = /:\d+$/.test(target) ? parseAuthority('https', target) : undefined;
  if (!authority) {
    refuse('400 Bad Request', 'CONNECT needs HOST:PORT');
    return;
  }
  const { host, port } = authority;
  if (!hostMatches(allowed, host, port)) {
    refuse('403 Forbidden', 'this tunnel is not allowed (--allow-connect)');
    return;
  }
  const inner = hostMatches(innerHosts, host, port);
  if (!inner && !cache.upstream.mayConnect(host)) {
    refuse('403 Forbidden', 'inner addresses are not allowed (--inner-host)');
    return;
  }
  const far = connect({ host, port, ...(inner ? {} : { lookup: cache.upstream.guardedLookup }) });
  let open = false;
  far.setTimeout(IDLE_MS, () => far.destroy());
  far.once('connect', () => {
    open = true;
    cache.metrics.add('tunnels');
    socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
    if (head.length > 0) far.write(head);
    far.pipe(socket);
    socket.pipe(far);
  });
  far.on('error', () => {
    if (open) socket.destroy();
    else refuse('502 Bad Gateway', 'the other end does not answer');
  });
  far.once('close', () => socket.end());
  socket.once('close', () => far.destroy());
}

/** What a handler needs beside the cache. */
interface Surroundings {
  readonly connections: () => number;
  readonly log: WriteStream | undefined;
  readonly leases: Leases;
  /** Connections that end with an answer already given: nothing more is read from them. */
  readonly refused: WeakSet<Socket>;
}

function complaintOf(code: string | undefined): string {
  if (code === 'HPE_HEADER_OVERFLOW') return '431 Request Header Fields Too Large';
  return code === 'ERR_HTTP_REQUEST_TIMEOUT' ? '408 Request Timeout' : '400 Bad Request';
}

function createHandler(context: Context, cache: ProxyCache, around: Surroundings): RequestListener {
  const { log, refused } = around;
  const pages = createPages(cache, createRegistries(cache), around);
  return (request, response) => {
    if (refused.has(request.socket)) return;
    if (log) noteAccess(context, log, request, response);
    if (cache.answerHot(request, response)) return;
    if (hasBody(request) && (request.method === 'GET' || request.method === 'HEAD')) {
      response.shouldKeepAlive = false;
      refused.add(request.socket);
      cache.answerer.text(response, 400, 'a request for a file has no body', { Connection: 'close' });
      return;
    }
    const route = cache.route(request);
    if (route.kind === 'refused') {
      cache.metrics.add('refused');
      cache.answerer.text(response, route.status, route.reason, {
        'X-Cache': 'ERROR',
        'X-Cache-Why': headerText(route.reason),
      });
    } else if (route.kind === 'local') {
      pages(request, response);
    } else if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.shouldKeepAlive = false;
      refused.add(request.socket);
      cache.answerer.text(response, 405, 'only GET and HEAD', { Allow: 'GET, HEAD', Connection: 'close' });
    } else {
      void cache.answer(request, response, route.location, route.view);
    }
  };
}

/** One line per answer; the target is quoted as JSON, so that no byte of it can make another line. */
function noteAccess(context: Context, log: WriteStream, request: IncomingMessage, response: ServerResponse): void {
  const start = performance.now();
  const { method, url = '' } = request;
  const address = request.socket.remoteAddress ?? '-';
  response.once('close', () => {
    const sent =
      response.getHeader('X-Cache') ??
      /X-Cache: (\w+)/.exec((response as { _header?: string })._header ?? '')?.[1] ??
      '-';
    const line = [
      context.now().toISOString(),
      address,
      method,
      JSON.stringify(url),
      response.statusCode,
      sent,
      `${(performance.now() - start).toFixed(1)}ms`,
    ];
    if (log.writableLength < 1 << 20) log.write(`${line.join(' ')}\n`);
  });
}

/** Facts for the status page and `proxy stats`. */
export function statusOf(cache: ProxyCache, connections: number): Status {
  return {
    counters: cache.metrics.all(),
    ...cache.store.totals(),
    quota: cache.settings.quota,
    offline: cache.offline,
    connections,
    residentBytes: process.memoryUsage.rss(),
    fetching: cache.flights
      .current()
      .map((one) => ({ what: one.source, received: one.received, size: one.size, clients: one.readers })),
    upstreams: cache.upstream.health(),
    suites: cache.suites.list(),
    backends: cache.backends.list.map(({ name, mirrors }) => ({ name, mirrors })),
  };
}

function createPages(cache: ProxyCache, registries: Registries, around: Surroundings): RequestListener {
  const { connections, leases } = around;
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.use((_request, response, next) => {
    response.setHeader('X-Content-Type-Options', 'nosniff');
    response.setHeader('Cache-Control', 'no-store');
    next();
  });
  app.get('/npm/*path', (request, response) => void registries.npm(request, response));
  app.get('/pypi/*path', (request, response) => void registries.pypi(request, response));
  app.use((_request, response, next) => {
    response.setHeader('Content-Security-Policy', "default-src 'none'; style-src 'unsafe-inline'");
    next();
  });
  app.get('/healthz', (_request, response) => void response.json(healthOf(cache)));
  app.post('/api/lease', leases.answer);
  app.get('/metrics', (_request, response) => {
    const status = statusOf(cache, connections());
    const upstreams = status.upstreams.map(({ origin, downForMs, failures }) => ({
      origin,
      up: downForMs === 0,
      failures,
    }));
    const gauges = {
      objects: status.objects,
      bytes: status.bytes,
      fetching: status.fetching.length,
      connections: status.connections,
      upstreams,
    };
    response.type('text/plain; version=0.0.4; charset=utf-8').send(prometheusText(status.counters, gauges));
  });
  app.get('/api/status', (_request, response) => void response.json(statusOf(cache, connections())));
  app.get(['/', '/status'], (request, response) => {
    // what auto-apt-proxy knows apt-cacher-ng by, on the port where it looks for it
    if (request.socket.localPort === 3142 && /^Debian APT/.test(request.headers['user-agent'] ?? '')) {
      response.status(406).statusMessage = 'Usage Information';
    }
    response.type('html').send(statusPage(statusOf(cache, connections())));
  });
  app.use((_request: express.Request, response: express.Response) => {
    response
      .status(404)
      .type('text/plain')
      .send(
        `there is nothing here; back ends: ${cache.backends.list.map(({ name }) => `/${name}/`).join(' ') || 'none'} (more: --backend NAME=URL)\n`,
      );
  });
  app.use((error: unknown, _request: express.Request, response: express.Response, _next: express.NextFunction) => {
    const status = error instanceof UserError ? 400 : error instanceof BuildkitError ? 502 : 500;
    if (!response.headersSent)
      response
        .status(status)
        .type('text/plain')
        .send(`${(error as Error).message}\n`);
  });
  return app;
}
