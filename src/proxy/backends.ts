/**
 * Back ends: names for archives, the mirrors behind each, and which addresses mean one of them.
 *
 * Secret: how an address becomes a key of the cache, so that `/debian/...`, the same path at any mirror of Debian through the
 * proxy, and a mirror used after another failed are one file.
 */
import { UserError } from '../core/errors.ts';
import { hostMatches } from './guard.ts';
import { type Authority, encodePath, formatAuthority, parseAuthority, parseTarget } from './target.ts';

/** What a wrong or missing signature of a Release file means: refuse, or serve it as unverified (apt has the last word). */
export type SignatureRule = 'require' | 'accept';

export interface Backend {
  readonly name: string;
  /** Base addresses without a slash at the end, the preferred first. */
  readonly mirrors: readonly string[];
  /** Addresses that mean this back end, too; a host may start with `*.`. */
  readonly aliases: readonly string[];
  readonly signatures: SignatureRule;
  /** How long an answer that may change is handed out without asking upstream, in seconds. */
  readonly maxAge: number;
  /** Its mirrors were named by the one who runs the proxy: they may be in an inner network. */
  readonly trusted: boolean;
}

/** A file of a back end. */
export interface Location {
  readonly backend: Backend;
  /** Decoded, without a slash at its start. */
  readonly path: string;
  /** `?...` or empty. */
  readonly query: string;
  /** Of the cache. */
  readonly key: string;
}

/**
 * The public archives: names that clients have in their sources whatever the mirror. Which mirrors to ask is this machine's
 * apt configuration to say (apt-sources.ts), or the settings.
 */
const PUBLIC: Readonly<Record<string, readonly string[]>> = {
  debian: ['http://*.debian.org/debian'],
  security: ['http://*.debian.org/debian-security'],
  ubuntu: ['http://*.ubuntu.com/ubuntu'],
  ports: ['http://*.ubuntu.com/ubuntu-ports'],
};

/** First path segments that are never back ends. */
const RESERVED = new Set(['healthz', 'metrics', 'status', 'api', 'npm', 'pypi', 'frozen', 'https', 'http']);

export interface BackendOptions {
  readonly own?: Readonly<
    Record<
      string,
      {
        readonly mirrors: readonly string[];
        readonly aliases?: readonly string[] | undefined;
        readonly signatures?: SignatureRule | undefined;
        readonly maxAge?: number | undefined;
      }
    >
  >;
  /** Other hosts that clients may name, as `hostMatches` reads them. */
  readonly hosts?: readonly string[];
  /** Seconds. */
  readonly maxAge: number;
}

interface Alias {
  readonly backend: Backend;
  readonly host: string;
  readonly port: number;
  /** Without slashes around it. */
  readonly prefix: string;
}

export interface Backends {
  readonly list: readonly Backend[];
  /** The file that an origin-form path means: `debian/pool/...`, or `HOST/debian/pool/...` where the host is on the list. */
  byPath(path: string, query: string): Location | undefined;
  /** The file that an absolute target means; undefined when the host is not on the list. */
  byAuthority(authority: Authority, path: string, query: string): Location | undefined;
  /** The back end of a key; for hosts without a name too. */
  byKey(key: string): Location | undefined;
}

/** @throws UserError `proxy-backend` */
export function createBackends(options: BackendOptions): Backends {
  const list = listBackends(options);
  const byName = new Map(list.map((backend) => [backend.name, backend]));
  const aliases = list.flatMap(aliasesOf).sort((a, b) => b.prefix.length - a.prefix.length);
  const hosts = options.hosts ?? [];
  const anonymous = (authority: Authority): Backend => {
    const name = formatAuthority(authority);
    return { name, mirrors: [name], aliases: [], signatures: 'accept', maxAge: options.maxAge, trusted: false };
  };

  function byAuthority(authority: Authority, path: string, query: string): Location | undefined {
    for (const alias of aliases) {
      if (alias.port !== authority.port && !(isDefaultPort(alias.port) && isDefaultPort(authority.port))) continue;
      if (!hostMatches([alias.host], authority.host)) continue;
      if (alias.prefix === '') return locate(alias.backend, path, query);
      if (path.startsWith(`${alias.prefix}/`)) {
        return locate(alias.backend, path.slice(alias.prefix.length + 1), query);
      }
    }
    return hostMatches(hosts, authority.host, authority.port) ? locate(anonymous(authority), path, query) : undefined;
  }

  return {
    list,
    byAuthority,
    byPath(path, query) {
      const slash = path.indexOf('/');
      if (slash < 0) return undefined;
      const [first, rest] = [path.slice(0, slash), path.slice(slash + 1)];
      const backend = byName.get(first);
      if (backend) return locate(backend, rest, query);
      // `/HOST/path`, as clients of apt-cacher-ng have it in their sources
      const authority = first.includes('.') ? parseAuthority('http', first) : undefined;
      return authority && byAuthority(authority, rest, query);
    },
    byKey(key) {
      const match = /^(https?:\/\/[^/]+|[^/]+)\/(.*)$/.exec(key);
      if (!match) return undefined;
      const target = parseTarget(`${match[1]!}/`);
      const backend = byName.get(match[1]!) ?? (target.form === 'absolute' ? anonymous(target.authority) : undefined);
      const [path = '', query] = match[2]!.split('?', 2);
      return backend && locate(backend, path, query === undefined ? '' : `?${query}`);
    },
  };
}

function isDefaultPort(port: number): boolean {
  return port === 80 || port === 443;
}

function listBackends(options: BackendOptions): Backend[] {
  const own = options.own ?? {};
  return Object.entries(own).map(([name, given]): Backend => {
    if (!/^[a-z0-9][a-z0-9._-]*$/.test(name) || RESERVED.has(name)) {
      throw new UserError('proxy-backend', `'${name}' cannot be the name of a back end`, {
        hint: `lower case letters, digits, '.', '_' and '-'; not ${[...RESERVED].join(', ')}`,
      });
    }
    if (given.mirrors.length === 0) {
      throw new UserError('proxy-backend', `back end '${name}' has no mirror`, {
        hint: 'give it one address at least',
      });
    }
    return {
      name,
      mirrors: given.mirrors.map((mirror) => checkedBase(mirror, name)),
      aliases: [...(given.aliases ?? []), ...(PUBLIC[name] ?? [])],
      signatures: given.signatures ?? (Object.hasOwn(PUBLIC, name) ? 'require' : 'accept'),
      maxAge: given.maxAge ?? options.maxAge,
      trusted: true,
    };
  });
}

function checkedBase(address: string, name: string): string {
  const target = parseTarget(address);
  if (target.form !== 'absolute' || target.query !== '') {
    throw new UserError('proxy-backend', `'${address}' cannot be a mirror of back end '${name}'`, {
      hint: 'write an address such as http://HOST/debian',
    });
  }
  return `${formatAuthority(target.authority)}/${encodePath(target.path)}`.replace(/\/$/, '');
}

function aliasesOf(backend: Backend): Alias[] {
  return [...backend.mirrors, ...backend.aliases].map((address) => {
    const match = /^https?:\/\/(\*\.)?([^/]*)(.*)$/.exec(address);
    const target = parseTarget(
      `${address.startsWith('https') ? 'https' : 'http'}://${match?.[2] ?? ''}${match?.[3] ?? ''}`,
    );
    if (!match || target.form !== 'absolute') {
      throw new UserError('proxy-backend', `'${address}' cannot be an alias of back end '${backend.name}'`, {
        hint: 'write an address such as http://*.example.org/debian',
      });
    }
    const { host, port } = target.authority;
    return { backend, host: `${match[1] ?? ''}${host}`, port, prefix: target.path.replace(/\/$/, '') };
  });
}

function locate(backend: Backend, path: string, query: string): Location {
  return { backend, path, query, key: `${backend.name}/${path}${query}` };
}

/** The address of a location at one of its mirrors. */
export function addressAt(mirror: string, location: Pick<Location, 'path' | 'query'>): string {
  return `${mirror}/${encodePath(location.path)}${location.query}`;
}
