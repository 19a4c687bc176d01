/**
 * Fetching from mirrors: connections kept open, redirects followed under guard, and the health of each server.
 *
 * Secret: who may be asked. The address is checked by the very look-up that the connection uses, so that no second answer of the
 * DNS can lead into an inner network. A server that does not answer is not asked again for some seconds: an offline proxy answers
 * at once.
 */
import { lookup } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import { RemoteError } from '../core/errors.ts';
import { type Connections, type Control, createConnections } from './connections.ts';
import { hostMatches, isInnerAddress } from './guard.ts';
import { type Authority, formatAuthority, parseTarget } from './target.ts';

export interface Head {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Where it came from at last. */
  readonly url: string;
}

export interface Flow {
  pause(): void;
  resume(): void;
}

export interface Receiver {
  /** False: the body is not wanted, and not read. */
  onHead(head: Head, flow: Flow): boolean;
  onData(chunk: Buffer): void;
}

export interface Health {
  readonly origin: string;
  readonly requests: number;
  readonly failures: number;
  readonly bytes: number;
  readonly lastError: string | undefined;
  /** Milliseconds until it is asked again; 0: it is well. */
  readonly downForMs: number;
}

export interface UpstreamOptions {
  /** Hosts that may be in an inner network, as `hostMatches` reads them (trusted back ends are always allowed). */
  readonly innerHosts: readonly string[];
  /** Milliseconds, monotonic. */
  readonly clock: () => number;
  readonly connectMs?: number;
  /** The longest silence within an answer. */
  readonly idleMs?: number;
  /** Own name in Via, to find loops. */
  readonly via: string;
  /** For other than trusted upstreams: how a host name becomes addresses. Tests put a lying DNS here. */
  readonly lookup?: LookupFunction;
}

export interface GetOptions {
  readonly headers: Readonly<Record<string, string>>;
  /** Named by the one who runs the proxy: inner addresses are allowed. */
  readonly trusted: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface Upstream {
  /**
   * Asks for `url` and hands the answer to `receiver`. Resolves at the end of the body, or when the body was declined.
   * @throws RemoteError `upstream-unreachable`, `upstream-refused` (guard), `upstream-redirects`, `upstream-cut`
   */
  get(url: string, options: GetOptions, receiver: Receiver): Promise<'ended' | 'declined'>;
  /** True when the server of `url` failed moments ago. */
  isDown(url: string): boolean;
  health(): Health[];
  /** For CONNECT: a name look-up that refuses inner addresses unless the host is allowed. */
  readonly guardedLookup: LookupFunction;
  mayConnect(host: string): boolean;
  close(): Promise<void>;
}

interface Server {
  requests: number;
  failures: number;
  /** In a row. */
  row: number;
  bytes: number;
  lastError: string | undefined;
  downUntil: number;
}

const MAX_REDIRECTS = 5;
const REDIRECTS: readonly number[] = [301, 302, 303, 307, 308];
const FIRST_REST_MS = 4000;
const LONGEST_REST_MS = 60_000;
/** Connections to one server. */
const CONNECTIONS = 8;

class InnerAddressError extends Error {
  constructor(host: string, address: string) {
    super(`'${host}' is at the inner address ${address}`);
    this.name = 'InnerAddressError';
  }
}

/** A look-up that fails when any of the addresses is an inner one. */
function guarded(inner: LookupFunction): LookupFunction {
  return (hostname, options, callback) => {
    inner(hostname, { ...options, all: true }, ((error: NodeJS.ErrnoException | null, found: unknown) => {
      if (error) return callback(error, '', 0);
      const list = Array.isArray(found) ? (found as { address: string; family: number }[]) : [];
      const wrong = list.find(({ address }) => isInnerAddress(address));
      if (wrong !== undefined || list.length === 0) {
        return callback(new InnerAddressError(hostname, wrong?.address ?? 'none'), '', 0);
      }
      if (options.all) return (callback as unknown as (error: null, all: unknown) => void)(null, list);
      return callback(null, list[0]!.address, list[0]!.family);
    }) as never);
  };
}

export function createUpstream(options: UpstreamOptions): Upstream {
  const common = { most: CONNECTIONS, connectMs: options.connectMs ?? 5000, idleMs: options.idleMs ?? 30_000 };
  const guardedLookup = guarded(options.lookup ?? (lookup as unknown as LookupFunction));
  const open = createConnections(common);
  const guardedOnes = createConnections({ ...common, lookup: guardedLookup });
  const servers = new Map<string, Server>();
  const mayConnect = (host: string) => isIP(host) === 0 || !isInnerAddress(host);

  function serverOf(origin: string): Server {
    let server = servers.get(origin);
    if (!server) {
      if (servers.size > 1000) servers.delete(servers.keys().next().value!);
      server = { requests: 0, failures: 0, row: 0, bytes: 0, lastError: undefined, downUntil: 0 };
      servers.set(origin, server);
    }
    return server;
  }
  function failed(server: Server, message: string, rest: boolean): void {
    server.failures += 1;
    server.lastError = message;
    if (!rest) return;
    server.row += 1;
    server.downUntil = options.clock() + Math.min(FIRST_REST_MS * 2 ** (server.row - 1), LONGEST_REST_MS);
  }

  async function get(url: string, { headers, trusted, signal }: GetOptions, receiver: Receiver) {
    let address = url;
    let trust = trusted;
    for (let hops = 0; ; hops += 1) {
      const target = parseTarget(address);
      if (target.form !== 'absolute') throw refused(address, 'the address is malformed');
      const { authority } = target;
      const listed = trust || hostMatches(options.innerHosts, authority.host, authority.port);
      if (!listed && !mayConnect(authority.host)) throw refused(address, `'${authority.host}' is an inner address`);
      const server = serverOf(formatAuthority(authority));
      if (server.downUntil > options.clock()) {
        throw new RemoteError('upstream-unreachable', server.lastError ?? 'the server did not answer', {
          url: address,
        });
      }
      const connections = listed ? open : guardedOnes;
      const outcome = await exchange(connections, authority, address, headers, signal, server, receiver);
      if (typeof outcome === 'string') return outcome;
      if (hops >= MAX_REDIRECTS) throw new RemoteError('upstream-redirects', 'too many redirects', { url });
      const next = redirectTarget(address, outcome.location);
      if (next === undefined)
        throw refused(address, `the redirect to '${outcome.location.slice(0, 200)}' is malformed`);
      // whoever vouched for a mirror did not vouch for where it points, but for itself
      const nextTarget = parseTarget(next);
      trust = trusted && nextTarget.form === 'absolute' && formatAuthority(nextTarget.authority) === originOf(url);
      address = next;
    }
  }

  function exchange(
    connections: Connections,
    authority: Authority,
    address: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal | undefined,
    server: Server,
    receiver: Receiver,
  ): Promise<'ended' | 'declined' | { location: string }> {
    server.requests += 1;
    return new Promise((resolve, reject) => {
      let headSeen = false;
      let settled = false;
      const finish = (body: () => void) => {
        if (settled) return;
        settled = true;
        signal?.removeEventListener('abort', abort);
        body();
      };
      const failedWith = (error: Error) => {
        if (causedByGuard(error)) return reject(refused(address, innerMessage(error)));
        failed(server, error.message, !headSeen);
        reject(
          new RemoteError(headSeen ? 'upstream-cut' : 'upstream-unreachable', error.message || 'no answer', {
            url: address,
            cause: error,
          }),
        );
      };
      const abort = () => {
        control?.abandon();
        finish(() => reject(signal?.reason));
      };
      let control: Control | undefined;
      if (signal?.aborted) return abort();
      signal?.addEventListener('abort', abort, { once: true });
      const path = address.slice(address.indexOf('/', address.indexOf('//') + 2));
      const own = { 'user-agent': 'buildkit-proxy', via: `1.1 ${options.via}`, 'accept-encoding': 'identity' };
      try {
        control = connections.ask(
          authority,
          path,
          { ...own, ...headers },
          {
            onHead(status, answerHeaders, { abandon, pause, resume }) {
              headSeen = true;
              server.row = status >= 500 ? server.row : 0;
              if (status >= 500) failed(server, `the server answered ${status}`, false);
              const { location } = answerHeaders;
              if (REDIRECTS.includes(status) && typeof location === 'string') {
                finish(() => resolve({ location }));
                abandon();
              } else if (!receiver.onHead({ status, headers: answerHeaders, url: address }, { pause, resume })) {
                finish(() => resolve('declined'));
                abandon();
              }
            },
            onBody(chunk, { abandon }) {
              server.bytes += chunk.length;
              try {
                receiver.onData(chunk);
              } catch (error) {
                finish(() => reject(error));
                abandon();
              }
            },
            onEnd: () => finish(() => resolve('ended')),
            onError: (error) => finish(() => failedWith(error as Error)),
          },
        );
      } catch (error) {
        finish(() => reject(refused(address, (error as Error).message)));
      }
    });
  }

  return {
    get,
    guardedLookup,
    mayConnect,
    isDown(url) {
      const server = servers.get(originOf(url) ?? '');
      return server !== undefined && server.downUntil > options.clock();
    },
    health: () =>
      [...servers].map(([origin, server]) => ({
        origin,
        requests: server.requests,
        failures: server.failures,
        bytes: server.bytes,
        lastError: server.lastError,
        downForMs: Math.max(0, Math.round(server.downUntil - options.clock())),
      })),
    async close() {
      open.close();
      guardedOnes.close();
    },
  };
}

function originOf(url: string): string | undefined {
  const target = parseTarget(url);
  return target.form === 'absolute' ? formatAuthority(target.authority) : undefined;
}

/** Absolute or relative to where it was found; only http and https, no user names. */
function redirectTarget(from: string, location: string): string | undefined {
  const url = URL.parse(location, from);
  if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.username !== '') return undefined;
  url.hash = '';
  return url.href;
}

function refused(url: string, message: string): RemoteError {
  return new RemoteError('upstream-refused', message, {
    url,
    hint: 'name the host in proxy.inner-hosts of buildkit.yaml (--inner-host) if it is meant',
  });
}

function innerMessage(error: unknown): string {
  for (let at: unknown = error; at instanceof Error; at = at.cause)
    if (at instanceof InnerAddressError) return at.message;
  return 'an inner address';
}

function causedByGuard(error: unknown): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    if (at instanceof InnerAddressError) return true;
    if (at instanceof AggregateError && at.errors.some(causedByGuard)) return true;
  }
  return false;
}
