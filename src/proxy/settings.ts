/** What the one who runs the proxy decides, and what holds when nothing is said. */
import type { SignatureRule } from './backends.ts';
import { DEFAULT_CLIENTS } from './guard.ts';

export interface BackendSettings {
  readonly mirrors: readonly string[];
  readonly aliases?: readonly string[] | undefined;
  readonly signatures?: SignatureRule | undefined;
  readonly maxAge?: number | undefined;
}

export interface ProxySettings {
  /** Folder of the cache. */
  readonly dir: string;
  readonly backends: Readonly<Record<string, BackendSettings>>;
  /** Hosts that clients may name beside the back ends. */
  readonly hosts: readonly string[];
  /** Hosts that may be at inner addresses. */
  readonly innerHosts: readonly string[];
  /** Networks whose clients are served. */
  readonly clients: readonly string[];
  /** `host:port` patterns that CONNECT may reach; none: CONNECT is refused. */
  readonly connect: readonly string[];
  /** Files with public keys. */
  readonly keyrings: readonly string[];
  /** Seconds for which an answer that may change is handed out without asking upstream. */
  readonly maxAge: number;
  readonly offline: boolean;
  /** Serves this frozen view where a client names none. */
  readonly frozen: string | undefined;
  /** Bytes; 0: no limit. */
  readonly quota: number;
  /** Days after which what nobody used goes; 0: never. */
  readonly maxUnusedDays: number;
  /** Refuses files that no signed index names. */
  readonly onlyVerified: boolean;
  readonly accessLog: string | undefined;
  /** Behind /npm/; empty: none. */
  readonly npmRegistry: string;
  /** Behind /pypi/simple/; empty: none. */
  readonly pypiIndex: string;
}

const KEYRINGS: readonly string[] = [
  '/usr/share/keyrings/debian-archive-keyring.gpg',
  '/usr/share/keyrings/ubuntu-archive-keyring.gpg',
];

export function defaultSettings(dir: string): ProxySettings {
  return {
    dir,
    backends: {},
    hosts: [],
    innerHosts: [],
    clients: DEFAULT_CLIENTS,
    connect: [],
    keyrings: KEYRINGS,
    maxAge: 120,
    offline: false,
    frozen: undefined,
    quota: 0,
    maxUnusedDays: 0,
    onlyVerified: false,
    accessLog: undefined,
    npmRegistry: '',
    pypiIndex: '',
  };
}
