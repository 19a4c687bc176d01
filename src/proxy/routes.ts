/**
 * What a request target means: a file of a back end, an own page, or nothing that is answered.
 *
 * Secret: that requests as to a proxy and own pages are told apart before anything is routed; where a client may name a frozen
 * view; how a request that comes back to us is known (RFC 9110 7.6.3, Via).
 */
import type { IncomingMessage } from 'node:http';
import type { Backends, Location } from './backends.ts';
import { npmSpelling, parseTarget } from './target.ts';

/** Where a request goes: to the cache, to own pages, or nowhere. */
export type Route =
  | { readonly kind: 'file'; readonly location: Location; readonly view: string | undefined }
  | { readonly kind: 'local'; readonly path: string; readonly query: string }
  | { readonly kind: 'refused'; readonly status: number; readonly reason: string };

export function createRouter(parts: {
  readonly backends: Backends;
  readonly hasView: (name: string) => boolean;
  /** The view of clients that name none. */
  readonly frozen: string | undefined;
  /** How we call ourselves. */
  readonly via: string;
}): (request: IncomingMessage) => Route {
  const { backends, hasView, frozen, via } = parts;
  return (request) => {
    const target = parseTarget(npmSpelling(request.url ?? ''));
    if (target.form === 'bad') return { kind: 'refused', status: 400, reason: target.reason };
    if (request.headers.via?.includes(via))
      return { kind: 'refused', status: 508, reason: 'this request went in a circle' };
    const view = viewOf(request) ?? frozen;
    if (view !== undefined && !hasView(view)) {
      return { kind: 'refused', status: 404, reason: `there is no frozen view '${view}'` };
    }
    if (target.form === 'absolute') {
      const location = backends.byAuthority(target.authority, target.path, target.query);
      if (location) return { kind: 'file', location, view };
      return {
        kind: 'refused',
        status: 403,
        reason: `'${target.authority.host}' is not on the list of upstreams (--allow-host)`,
      };
    }
    const inView = /^frozen\/([^/]+)\/(.*)$/.exec(target.path);
    if (inView) {
      const location = backends.byPath(inView[2]!, target.query);
      if (!location || !hasView(inView[1]!))
        return { kind: 'refused', status: 404, reason: 'there is no such frozen view' };
      return { kind: 'file', location, view: inView[1]! };
    }
    const location = backends.byPath(target.path, target.query);
    return location ? { kind: 'file', location, view } : { kind: 'local', path: target.path, query: target.query };
  };
}

/** A GET with a body is nothing that apt sends, and a way to smuggle a second request past somebody. */
export function hasBody(request: IncomingMessage): boolean {
  const { headers } = request;
  return (
    headers['transfer-encoding'] !== undefined ||
    (headers['content-length'] !== undefined && headers['content-length'] !== '0')
  );
}

/** The user name of proxy credentials names a frozen view: `Acquire::http::Proxy "http://NAME@host:9999"`. */
function viewOf(request: IncomingMessage): string | undefined {
  const match = /^Basic ([A-Za-z0-9+/=]{1,200})$/i.exec(request.headers['proxy-authorization'] ?? '');
  const name = match && Buffer.from(match[1]!, 'base64').toString('utf8').split(':')[0];
  return name && /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) ? name : undefined;
}
