/**
 * What a proxy of this machine is like: buildkit.yaml, this machine's apt, npm and pip, and what the command line adds.
 *
 * Secret: which of them wins, and where the cache lies. `proxy serve` and a proxy that a command starts for itself share it.
 */
import { join, resolve } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { machineSources } from '../proxy/apt-sources.ts';
import { defaultSettings, type ProxySettings } from '../proxy/settings.ts';
import type { Config } from './config.ts';

/** What the command line may add to the configuration. */
export interface ProxyWishes {
  /** Absolute. */
  readonly cache?: string | undefined;
  readonly offline?: boolean | undefined;
  readonly frozen?: string | undefined;
  readonly allowHost?: readonly string[] | undefined;
  readonly allowClient?: readonly string[] | undefined;
  readonly allowConnect?: readonly string[] | undefined;
  readonly innerHost?: readonly string[] | undefined;
  /** `NAME=URL` */
  readonly backend?: readonly string[] | undefined;
  /** Absolute. */
  readonly accessLog?: string | undefined;
}

/** @param workspaceDir what relative paths of the configuration refer to */
export async function proxySettings(
  context: Context,
  workspaceDir: string,
  config: Config['proxy'],
  wishes: ProxyWishes = {},
): Promise<ProxySettings> {
  const defaults = defaultSettings(cacheFolder(context, workspaceDir, config, wishes.cache));
  const machine = await machineSources(context);
  return {
    ...defaults,
    backends: { ...machine.backends, ...camel(config.backends), ...backendFlags(wishes.backend ?? []) },
    hosts: [...machine.hosts, ...config.hosts, ...(wishes.allowHost ?? [])],
    innerHosts: [...config['inner-hosts'], ...(wishes.innerHost ?? [])],
    clients: [...(config.clients ?? defaults.clients), ...(wishes.allowClient ?? [])],
    connect: [...config.connect, ...(wishes.allowConnect ?? [])],
    keyrings: [...defaults.keyrings, ...config.keyrings.map((path) => resolve(workspaceDir, path))],
    maxAge: config['max-age'],
    offline: wishes.offline ?? false,
    frozen: wishes.frozen,
    quota: config.quota === undefined ? 0 : parseSize(config.quota),
    maxUnusedDays: config['max-unused-days'],
    onlyVerified: config['only-verified'],
    accessLog: wishes.accessLog,
    npmRegistry: config['npm-registry'] ?? defaults.npmRegistry,
    pypiIndex: config['pypi-index'] ?? defaults.pypiIndex,
  };
}

/** The same with the npm registry and the Python index that this machine uses, where the configuration names none. */
export async function withOwnIndexes(context: Context, settings: ProxySettings): Promise<ProxySettings> {
  const { machineIndexes } = await import('../proxy/package-indexes.ts');
  const own = await machineIndexes(context);
  return {
    ...settings,
    npmRegistry: settings.npmRegistry || own.npmRegistry,
    pypiIndex: settings.pypiIndex || own.pypiIndex,
  };
}

function cacheFolder(context: Context, workspaceDir: string, config: Config['proxy'], cache: string | undefined) {
  if (cache !== undefined) return cache;
  return config.dir === undefined ? join(context.cacheDir, 'proxy') : resolve(workspaceDir, config.dir);
}

function camel(backends: Config['proxy']['backends']): ProxySettings['backends'] {
  return Object.fromEntries(Object.entries(backends).map(([name, one]) => [name, { ...one, maxAge: one['max-age'] }]));
}

function backendFlags(texts: readonly string[]): ProxySettings['backends'] {
  const found: Record<string, { mirrors: string[] }> = {};
  for (const text of texts) {
    const at = text.indexOf('=');
    if (at < 1)
      throw new UserError('proxy-backend', `'${text}' is no back end`, { hint: 'write NAME=http://HOST/path' });
    const name = text.slice(0, at);
    found[name] ??= { mirrors: [] };
    found[name].mirrors.push(text.slice(at + 1));
  }
  return found;
}

/** Bytes of `500M`, `20G`, `1T` (powers of 1000). @throws UserError `proxy-size` */
export function parseSize(text: string): number {
  const match = /^(\d+)([kMGT]?)B?$/.exec(text);
  if (!match)
    throw new UserError('proxy-size', `'${text}' is no size`, {
      hint: "write a number and k, M, G or T, for example '20G'",
    });
  return Number(match[1]) * 1000 ** ['', 'k', 'M', 'G', 'T'].indexOf(match[2]!);
}
