/**
 * HTTP at both ends: listening sockets that close for good, and downloads that are whole or absent.
 *
 * Secret: undici's retry agent, which resumes a cut body by Range and If-Match (RFC 9110 13, 14).
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { RunContext } from './context.ts';
import { BuildkitError, errnoOf, RemoteError, UserError } from './errors.ts';
import { atomically } from './files.ts';

export interface Listening extends AsyncDisposable {
  readonly server: Server | TlsServer;
  readonly host: string;
  readonly port: number;
  /** `http://host:port` or `https://host:port`, without a slash at its end. */
  readonly url: string;
  /** Stops accepting, lets answers under way finish for `graceMs` (default 2000), then cuts them. */
  close(graceMs?: number): Promise<void>;
}

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * Reads `8080`, `127.0.0.1:8080`, `[::1]:8080`, `:8080` (every address) or `localhost:0` (a free port).
 * @throws UserError `listen-address`
 */
export function parseListenAddress(text: string): ListenAddress {
  const match = /^(?:(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]*)):)?(\d{1,5})$/.exec(text.trim());
  const port = Number(match?.[3]);
  if (!match || port > 65535) {
    throw new UserError('listen-address', `'${text}' is no address to listen on`, {
      hint: 'write HOST:PORT, for example 127.0.0.1:8080 or [::1]:8080',
    });
  }
  const everywhere = match[2] === '' ? '::' : undefined;
  return { host: match[1] ?? everywhere ?? match[2] ?? '127.0.0.1', port };
}

/**
 * Listens on `address`, or on a socket that somebody else opened (`fd`), and resolves once connections are accepted.
 * @throws UserError `address-in-use`, `address-denied` or `address-unavailable`
 */
export async function listen(
  handler: (request: IncomingMessage, response: ServerResponse) => void,
  address: string | ListenAddress | { readonly fd: number },
  tls?: { readonly cert: Buffer; readonly key: Buffer },
  limits: Pick<
    ServerOptions,
    'headersTimeout' | 'requestTimeout' | 'keepAliveTimeout' | 'connectionsCheckingInterval'
  > = {},
): Promise<Listening> {
  const place = typeof address === 'string' ? parseListenAddress(address) : address;
  const server = tls ? createTlsServer({ ...limits, ...tls }, handler) : createServer(limits, handler);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => reject('fd' in place ? cause : explainListenError(cause, place.host, place.port)));
    server.listen(place, resolve);
  });
  const bound = boundTo(server.address());
  const shownHost = bound.host.includes(':') ? `[${bound.host}]` : bound.host;
  let closing = false;
  // while closing, a connection whose answer has ended is of no more use
  const dropIdle = () => void (closing && setImmediate(() => server.closeIdleConnections()));
  server.on('request', (_, response: ServerResponse) => response.once('close', dropIdle));
  const close = async (graceMs = 2000): Promise<void> => {
    if (!server.listening) return;
    closing = true;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeIdleConnections();
    const cut = setTimeout(() => server.closeAllConnections(), graceMs);
    await closed;
    clearTimeout(cut);
  };
  return {
    server,
    host: bound.host,
    port: bound.port,
    url: `${tls ? 'https' : 'http'}://${shownHost}:${bound.port}`,
    close,
    [Symbol.asyncDispose]: () => close(0),
  };
}

/** Sockets of the file system, which `fd` may be, have a path and no port. */
function boundTo(address: AddressInfo | string | null): ListenAddress {
  return address !== null && typeof address === 'object'
    ? { host: address.address, port: address.port }
    : { host: String(address), port: 0 };
}

function explainListenError(cause: Error, host: string, port: number): Error {
  const where = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  switch (errnoOf(cause)) {
    case 'EADDRINUSE':
      return new UserError('address-in-use', `another program listens on ${where} already`, {
        hint: `choose another port with --listen, or find the other one: ss -ltnp 'sport = :${port}'`,
        cause,
      });
    case 'EACCES':
      return new UserError('address-denied', `no right to listen on ${where}`, {
        hint: 'ports below 1024 need root: choose a higher one',
        cause,
      });
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return new UserError('address-unavailable', `this machine has no address '${host}'`, {
        hint: 'see: ip address',
        cause,
      });
    default:
      return cause;
  }
}

export interface DownloadOptions {
  /** Hex; a body that differs is thrown away. */
  readonly sha256?: string;
  /** A longer body is cut off and refused. */
  readonly maxBytes?: number;
  readonly retries?: number;
  /** An HTTP proxy for `http:` addresses: `http://host:port`. */
  readonly proxy?: string | undefined;
  readonly onProgress?: (done: number, total: number | undefined) => void;
}

/**
 * Fetches `url` to `path`: whole and with the right digest, or not at all.
 * @returns hex sha256 and size of what was written
 * @throws RemoteError `http-status`, `http-failed`, `digest-mismatch`, `too-large`
 */
export async function download(
  context: RunContext,
  url: string,
  path: string,
  options: DownloadOptions = {},
): Promise<{ sha256: string; size: number }> {
  const { Agent, RetryAgent, request } = await import('undici');
  const maxRetries = options.retries ?? 4;
  const dispatcher = new RetryAgent(
    new Agent({ connect: { timeout: 15_000 }, headersTimeout: 60_000, bodyTimeout: 60_000 }),
    {
      maxRetries,
      minTimeout: 250,
      maxTimeout: 4000,
    },
  );
  try {
    const { signal } = context;
    const through = options.proxy !== undefined && url.startsWith('http:');
    const abort = signal ? { signal } : {};
    const response = through
      ? // the whole address is the target (RFC 9112 3.2.2)
        await dispatcher.request({
          ...{ origin: options.proxy!, path: url, method: 'GET' as const, ...abort },
          headers: { host: new URL(url).host },
        })
      : await request(url, { dispatcher, ...abort });
    if (response.statusCode !== 200) {
      await response.body.dump();
      throw new RemoteError('http-status', `the server answered ${response.statusCode}`, {
        url,
        status: response.statusCode,
      });
    }
    const length = Number(response.headers['content-length']);
    const total = Number.isFinite(length) ? length : undefined;
    const hash = createHash('sha256');
    let size = 0;
    await atomically(path, {}, async (file) => {
      for await (const chunk of response.body as AsyncIterable<Buffer>) {
        size += chunk.length;
        if (options.maxBytes !== undefined && size > options.maxBytes) {
          throw new RemoteError('too-large', `the answer is longer than ${options.maxBytes} bytes`, { url });
        }
        hash.update(chunk);
        await file.writeFile(chunk);
        options.onProgress?.(size, total);
      }
      const found = hash.copy().digest('hex');
      if (options.sha256 !== undefined && found !== options.sha256) {
        throw new RemoteError('digest-mismatch', `SHA256 is ${found}, expected ${options.sha256}`, { url });
      }
    });
    return { sha256: hash.digest('hex'), size };
  } catch (cause) {
    context.signal?.throwIfAborted();
    if (cause instanceof BuildkitError) throw cause;
    const status = (cause as { statusCode?: number }).statusCode;
    throw new RemoteError('http-failed', `cannot fetch: ${(cause as Error).message}`, {
      url,
      status,
      tries: maxRetries + 1,
      cause,
    });
  } finally {
    await dispatcher.close().catch(() => {});
  }
}
