/**
 * `--proxy auto`: the proxy that a command fetches through, found or started for the time of the command.
 *
 * Secret: where to look (this cache's own server, the configured addresses, mDNS) and what each may be trusted with: apt checks
 * signatures itself, so any apt proxy will do; npm and Python files only come through one whose registry is this machine's own.
 */
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { parseListenAddress } from '../core/http.ts';
import { type ClientConfiguration, clientConfiguration } from '../proxy/client.ts';
import { probe, readServing, takeLease } from '../proxy/leases.ts';
import type { ProxySettings } from '../proxy/settings.ts';
import type { Config } from './config.ts';

export interface UsedProxy extends AsyncDisposable {
  /** Without a slash at its end; for programs of this machine. */
  readonly url: string;
  /** Where a machine finds it, on the user network as on a bridge. */
  readonly guestUrl: string;
  /** For pip and npm: their own indexes through the proxy, as far as it has the same ones. */
  readonly env: Readonly<Record<string, string>>;
}

const LOOK_MS = 700;
/** This machine answers its guests at once, also when no proxy listens; an emulated CPU beside busy ones takes its time to ask. */
const NEAR_SECONDS = 60;
/** Another machine may have gone without a word. */
const FAR_SECONDS = 10;
const START_TRIES = 40;
const START_PAUSE_MS = 250;
/** What this machine is called in each of its guests: 10.0.2.2 on the user network, the bridge's address on a bridge. */
const HOST_FROM_GUEST = 'host.buildkit';
/** The addresses that it usually has there (vm/qemu.ts, vm/net-spec.ts). */
const HOST_ADDRESSES: readonly string[] = ['10.0.2.2', '192.168.100.254'];

export interface ProxyWish {
  /** `auto`, `off` or an address; default: `proxy.use` of the configuration. */
  readonly wanted?: string | undefined;
  readonly workspaceDir: string;
  readonly config: Config['proxy'];
}

/**
 * The proxy to use; undefined: none is wanted. Dispose it after the last fetch.
 * @throws UserError `proxy-url`, and as `serveProxy`
 */
export async function useProxy(context: Context, wish: ProxyWish): Promise<UsedProxy | undefined> {
  const wanted = wish.wanted ?? wish.config.use;
  if (wanted === 'off') return undefined;
  const given = wanted === 'auto' ? undefined : named(wanted);
  const { proxySettings, withOwnIndexes } = await import('./proxy-settings.ts');
  const settings = await withOwnIndexes(context, await proxySettings(context, wish.workspaceDir, wish.config));
  const found = given ?? (await findOrStart(context, wish, settings));
  context.log.info(`fetching through the proxy ${found.url} (${found.how})`);
  try {
    const env = found.foreign ? {} : await indexEnvironment(context, found.url, settings);
    return { url: found.url, guestUrl: fromGuest(found.url), env, [Symbol.asyncDispose]: found.leave };
  } catch (error) {
    await found.leave();
    throw error;
  }
}

/**
 * apt's configuration for a guest of either kind of network. What this machine itself serves is fetched directly; a guest that
 * outlives the proxy goes direct.
 */
export function guestFiles({ guestUrl }: Pick<UsedProxy, 'guestUrl'>): ClientConfiguration['files'] {
  const seconds = guestUrl.includes(`//${HOST_FROM_GUEST}`) ? NEAR_SECONDS : FAR_SECONDS;
  return clientConfiguration(guestUrl, { direct: [HOST_FROM_GUEST, ...HOST_ADDRESSES], seconds }).files;
}

/**
 * apt's configuration for a machine that goes on when this command ends: nothing is started for it.
 * @throws UserError `proxy-url`
 */
export async function proxyForGuest(context: Context, wish: ProxyWish): Promise<ClientConfiguration['files']> {
  const wanted = wish.wanted ?? wish.config.use;
  if (wanted === 'off') return [];
  if (wanted !== 'auto') return guestFiles({ guestUrl: fromGuest(named(wanted).url) });
  const { proxySettings } = await import('./proxy-settings.ts');
  const settings = await proxySettings(context, wish.workspaceDir, wish.config);
  const found =
    (await lastingServer(context, settings)) ?? (await configured(context, wish)) ?? (await announced(context));
  const url = found?.url ?? listenUrl(wish.config.listen[0]!);
  context.log.info(`apt in the machine will use ${fromGuest(url)}${found ? '' : ' while buildkit proxy serve runs'}`);
  return guestFiles({ guestUrl: fromGuest(url) });
}

interface Found {
  readonly url: string;
  readonly how: string;
  /** Of somebody else in the local network. */
  readonly foreign: boolean;
  readonly leave: () => Promise<void>;
}

const nothing = async () => {};

function named(text: string): Found {
  const url = URL.parse(text);
  if (url?.protocol !== 'http:' || url.pathname !== '/' || url.search !== '' || url.username !== '') {
    throw new UserError('proxy-url', `'${text}' is no address of a proxy`, {
      hint: "write http://HOST:9999, 'auto' or 'off'",
    });
  }
  return { url: url.origin, how: 'named', foreign: false, leave: nothing };
}

async function findOrStart(context: Context, wish: ProxyWish, settings: ProxySettings): Promise<Found> {
  const near = (await ownServer(context, settings)) ?? (await configured(context, wish)) ?? (await announced(context));
  if (near) return near;
  for (let left = START_TRIES; ; left -= 1) {
    try {
      return await started(context, settings);
    } catch (error) {
      // another command starts one on the same cache at this moment
      if (!(error instanceof UserError && error.code === 'locked') || left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, START_PAUSE_MS));
      context.signal.throwIfAborted();
      const other = await ownServer(context, settings);
      if (other) return other;
    }
  }
}

/** The server of this very cache: the one that runs, or one for the time of the command. */
export async function serverOf(
  context: Context,
  settings: ProxySettings,
): Promise<{ readonly url: string } & AsyncDisposable> {
  const { url, leave } = (await ownServer(context, settings)) ?? (await started(context, settings));
  return { url, [Symbol.asyncDispose]: leave };
}

async function ownServer(context: Context, { dir }: ProxySettings): Promise<Found | undefined> {
  const serving = readServing(dir);
  for (const url of (serving?.urls ?? []).map(reachable)) {
    if (!(await probe(url, context.signal))) continue;
    if (!serving?.forCommand) return { url, how: 'serves this cache', foreign: false, leave: nothing };
    const lease = await takeLease(url);
    if (!lease) continue;
    return { url, how: 'started by another command', foreign: false, leave: async () => lease[Symbol.asyncDispose]() };
  }
  return undefined;
}

/** The server of this very cache, unless it ends with the command that started it. */
async function lastingServer(context: Context, { dir }: ProxySettings): Promise<Found | undefined> {
  const serving = readServing(dir);
  if (!serving || serving.forCommand) return undefined;
  for (const url of serving.urls.map(reachable)) {
    if (await probe(url, context.signal)) return { url, how: 'serves this cache', foreign: false, leave: nothing };
  }
  return undefined;
}

async function configured(context: Context, { config }: ProxyWish): Promise<Found | undefined> {
  for (const text of config.listen) {
    const url = listenUrl(text);
    if (!url.endsWith(':0') && (await probe(url, context.signal)))
      return { url, how: 'configured', foreign: false, leave: nothing };
  }
  return undefined;
}

function listenUrl(text: string): string {
  const { host, port } = parseListenAddress(text);
  return reachable(`http://${host.includes(':') ? `[${host}]` : host}:${port}`);
}

async function announced(context: Context): Promise<Found | undefined> {
  const { discover } = await import('../proxy/mdns.ts');
  const found = await discover('_apt_proxy._tcp', LOOK_MS);
  context.signal.throwIfAborted();
  if (!found) return undefined;
  const url = `http://${found.address}:${found.port}`;
  const answers = await fetch(url, { method: 'HEAD', signal: AbortSignal.timeout(LOOK_MS * 4) }).then(
    () => true,
    () => false,
  );
  return answers ? { url, how: 'announced in the local network', foreign: true, leave: nothing } : undefined;
}

async function started(context: Context, settings: ProxySettings): Promise<Found> {
  const { serveProxy } = await import('../proxy/serve.ts');
  const proxy = await serveProxy(context, settings, { listen: ['127.0.0.1:0'], forCommand: true });
  const leave = async () => {
    if (proxy.leases.count() > 0 && !context.signal.aborted) {
      context.log.info('another command still fetches through this proxy: waiting for it');
      const interrupted = new Promise<void>((resolve) =>
        context.signal.addEventListener('abort', () => resolve(), { once: true }),
      );
      await Promise.race([proxy.leases.unused(), interrupted]);
    }
    await proxy.close();
  };
  return { url: proxy.urls[0]!, how: `started for this command, cache in ${settings.dir}`, foreign: false, leave };
}

/** One that listens on every address is asked on the loopback. */
function reachable(url: string): string {
  return url
    .replace('//0.0.0.0:', '//127.0.0.1:')
    .replace('//[::]:', '//127.0.0.1:')
    .replace('//localhost:', '//127.0.0.1:');
}

function fromGuest(url: string): string {
  return url.replace(/\/\/(?:127\.\d+\.\d+\.\d+|localhost|\[::1\])(?=:|$)/, `//${HOST_FROM_GUEST}`);
}

/**
 * Another index than the machine's own could hold other packages under the same names: it is never put in its place.
 */
async function indexEnvironment(
  context: Context,
  url: string,
  settings: ProxySettings,
): Promise<Readonly<Record<string, string>>> {
  const health = await probe(url, context.signal);
  if (!health) return {};
  const same = (a: string, b: string) => a !== '' && a.replace(/\/+$/, '') === b.replace(/\/+$/, '');
  const npm = same(health.npmRegistry, settings.npmRegistry);
  // an index that upstream does not answer for would only be waited for
  const pypi =
    same(health.pypiIndex, settings.pypiIndex) &&
    (health.offline || (await answers(context, `${url}/pypi/simple/pip/`)));
  const host = new URL(url).hostname.replace(/^\[|\]$/g, '');
  const direct = [context.env.no_proxy ?? context.env.NO_PROXY ?? '', host].filter(Boolean).join(',');
  return {
    ...(npm || pypi ? { no_proxy: direct, NO_PROXY: direct } : {}),
    ...(npm
      ? { npm_config_registry: `${url}/npm/`, npm_config_replace_registry_host: hostOf(settings.npmRegistry) }
      : {}),
    ...(pypi
      ? {
          PIP_INDEX_URL: `${url}/pypi/simple/`,
          PIP_TRUSTED_HOST: [context.env.PIP_TRUSTED_HOST ?? '', new URL(url).host].filter(Boolean).join(' '),
        }
      : {}),
  };
}

/** npm's own name for "the public registry" is its default. */
function hostOf(registry: string): string {
  return URL.parse(registry)?.hostname ?? 'npmjs';
}

async function answers(context: Context, url: string): Promise<boolean> {
  try {
    const signal = AbortSignal.any([context.signal, AbortSignal.timeout(10_000)]);
    const response = await fetch(url, { signal });
    await response.body?.cancel();
    return response.status < 500;
  } catch {
    context.signal.throwIfAborted();
    return false;
  }
}
