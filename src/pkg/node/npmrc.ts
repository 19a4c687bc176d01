/**
 * The user's npm configuration, as npm's libraries take it: registry, scopes, certificates, proxies, credentials.
 *
 * Secret: npmrc(5) and npm's config(7): the files and their order, `${VARIABLE}`, and what each key is called in the libraries.
 * (npm's own loader, @npmcli/config, wants npm's folder and process-wide state; a dozen keys are all that a resolution needs.)
 */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { Context } from '../../core/context.ts';
import { errnoOf, UserError } from '../../core/errors.ts';

/** Options for arborist and pacote. Holds credentials: never printed. */
export type NpmOptions = Readonly<Record<string, unknown>>;

type Settings = Map<string, string>;

/** Keys whose name in the libraries is not the camel case of the one in npmrc, or whose value is no text. */
const KINDS: Readonly<Record<string, readonly [name: string, kind: 'text' | 'yes-no' | 'number' | 'pem']>> = {
  registry: ['registry', 'text'],
  ca: ['ca', 'pem'],
  cert: ['cert', 'pem'],
  key: ['key', 'pem'],
  'strict-ssl': ['strictSSL', 'yes-no'],
  proxy: ['proxy', 'text'],
  'https-proxy': ['httpsProxy', 'text'],
  noproxy: ['noProxy', 'text'],
  'local-address': ['localAddress', 'text'],
  'user-agent': ['userAgent', 'text'],
  maxsockets: ['maxSockets', 'number'],
  'fetch-timeout': ['timeout', 'number'],
  'prefer-offline': ['preferOffline', 'yes-no'],
  'prefer-online': ['preferOnline', 'yes-no'],
  offline: ['offline', 'yes-no'],
  'legacy-peer-deps': ['legacyPeerDeps', 'yes-no'],
  'strict-peer-deps': ['strictPeerDeps', 'yes-no'],
  'replace-registry-host': ['replaceRegistryHost', 'text'],
  nodedir: ['nodedir', 'text'],
};

/** Values that npm fills in by itself on the command line, and that would only be noise here. */
const IGNORED_TEXTS = new Set(['', 'null', 'undefined']);

/**
 * Reads, from weak to strong: the global npmrc files, the user's, the project's, `npm_config_*` of the environment.
 * @param project folder of a project, whose `.npmrc` counts
 * @throws UserError `npm-config` for a file that cannot be read
 */
export async function readNpmOptions(context: Context, project?: string): Promise<NpmOptions> {
  const settings: Settings = new Map();
  for (const file of npmrcFiles(context, project)) {
    for (const [key, value] of await readNpmrc(file, context.env)) settings.set(key, value);
  }
  for (const [key, value] of environmentSettings(context.env)) settings.set(key, value);
  return toOptions(settings);
}

function npmrcFiles(context: Context, project: string | undefined): string[] {
  const { env } = context;
  const home = env.HOME ?? homedir();
  const prefix = env.npm_config_prefix ?? env.PREFIX;
  const global = env.npm_config_globalconfig ?? (prefix === undefined ? undefined : join(prefix, 'etc/npmrc'));
  return [
    // Debian's npm, upstream's npm with prefix /usr and /usr/local
    ...(global === undefined ? ['/usr/etc/npmrc', '/usr/local/etc/npmrc', '/etc/npmrc'] : [global]),
    env.npm_config_userconfig ?? env.NPM_CONFIG_USERCONFIG ?? join(home, '.npmrc'),
    ...(project === undefined ? [] : [join(project, '.npmrc')]),
  ];
}

async function readNpmrc(file: string, env: Context['env']): Promise<Settings> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    if (['ENOENT', 'ENOTDIR'].includes(errnoOf(cause) ?? '')) return new Map();
    throw new UserError('npm-config', `cannot read npm's configuration '${file}'`, { file, cause });
  }
  const settings = parseNpmrc(text, env);
  for (const [given, key] of [
    ['cafile', 'ca'],
    ['certfile', 'cert'],
    ['keyfile', 'key'],
  ] as const) {
    const path = settings.get(given);
    if (path !== undefined) settings.set(key, await readPem(resolve(dirname(file), path), file));
  }
  return settings;
}

async function readPem(path: string, from: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new UserError('npm-config', `'${path}', which npm's configuration names, cannot be read`, {
      file: from,
      cause,
    });
  }
}

/** `key = value` lines; `#` and `;` start comments, quotes are taken off, `${NAME}` is the variable, `${NAME?}` may be absent. */
export function parseNpmrc(text: string, env: Context['env']): Settings {
  const settings: Settings = new Map();
  for (const line of text.split(/\r?\n/)) {
    const match = /^\s*([^#;=\s[][^=]*?)\s*(?:=\s*(.*?)\s*)?$/.exec(line);
    if (!match) continue;
    const key = substitute(match[1]!, env).replace(/\[\]$/, '');
    const raw = match[2] ?? 'true';
    const value = /^"(.*)"$/.exec(raw)?.[1] ?? /^'(.*)'$/.exec(raw)?.[1] ?? raw.replace(/\s+[#;].*$/, '');
    settings.set(key, substitute(value, env));
  }
  return settings;
}

function substitute(text: string, env: Context['env']): string {
  return text.replaceAll(/\$\{([^${}?]+)(\?)?\}/g, (whole, name: string, optional?: string) => {
    return env[name] ?? (optional === undefined ? whole : '');
  });
}

/** npm lower-cases the name behind `npm_config_` and reads `_` as `-`, but for keys of one registry (`//host/:_authToken`). */
function environmentSettings(env: Context['env']): Settings {
  const settings: Settings = new Map();
  for (const [name, value] of Object.entries(env)) {
    const match = /^npm_config_(.+)$/i.exec(name);
    if (!match || value === undefined || IGNORED_TEXTS.has(value)) continue;
    const key = match[1]!.startsWith('//')
      ? match[1]!
      : match[1]!
          .toLowerCase()
          .replaceAll(/(?!^)_/g, '-')
          .replace(/:-/, ':_');
    settings.set(key, value);
  }
  return settings;
}

function toOptions(settings: Settings): NpmOptions {
  const options: Record<string, unknown> = {};
  for (const [key, value] of settings) {
    if (key.startsWith('//') || /^@[^:]+:registry$/.test(key)) options[key] = value;
    const kind = Object.hasOwn(KINDS, key) ? KINDS[key] : undefined;
    if (kind === undefined || IGNORED_TEXTS.has(value)) continue;
    const [name, type] = kind;
    if (type === 'yes-no') options[name] = value === 'true';
    else if (type === 'number') options[name] = Number(value);
    else options[name] = type === 'pem' ? splitCertificates(name, value.replaceAll('\\n', '\n')) : value;
  }
  // npm waits ten seconds before it asks again; a registry that is down should be told of sooner
  options.retry = { retries: 2, factor: 2, minTimeout: 500, maxTimeout: 4000 };
  return options;
}

/** The libraries hand `ca` to Node, which wants one certificate per text. */
function splitCertificates(name: string, value: string): string | string[] {
  if (name !== 'ca') return value;
  const blocks = value.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g);
  return blocks ?? value;
}
