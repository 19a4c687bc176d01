/**
 * The mirrors that this machine's own apt uses: what a proxy on it should ask, and the hosts its clients may name.
 *
 * Secret: which addresses of archives mean which back end.
 */
import type { RunContext } from '../core/context.ts';
import { ToolError } from '../core/errors.ts';
import { hasProgram } from '../core/run.ts';
import { readIndexTargets } from '../deb/apt-targets.ts';
import type { BackendSettings } from './settings.ts';
import { formatAuthority, parseTarget } from './target.ts';

export interface MachineSources {
  readonly backends: Readonly<Record<string, BackendSettings>>;
  /** Hosts of all http and https sources, as `hostMatches` reads them. */
  readonly hosts: readonly string[];
}

const NAMES: Readonly<Record<string, string>> = {
  debian: 'debian',
  'debian-security': 'security',
  ubuntu: 'ubuntu',
  'ubuntu-ports': 'ports',
};

/** Nothing where there is no apt, or where it cannot read its sources. */
export async function machineSources(context: RunContext): Promise<MachineSources> {
  if (!(await hasProgram(context, 'apt-get'))) return { backends: {}, hosts: [] };
  try {
    return sourcesFrom((await readIndexTargets(context)).map((target) => target.uri));
  } catch (error) {
    if (error instanceof ToolError) return { backends: {}, hosts: [] }; // broken sources are apt's to complain about
    throw error;
  }
}

/** Pure: addresses of archives to back ends and hosts. */
export function sourcesFrom(addresses: readonly string[]): MachineSources {
  const mirrors = new Map<string, Set<string>>();
  const hosts = new Set<string>();
  for (const address of new Set(addresses)) {
    const target = parseTarget(address.trim());
    if (target.form !== 'absolute') continue;
    const { authority } = target;
    hosts.add(authority.port === 80 || authority.port === 443 ? authority.host : `${authority.host}:${authority.port}`);
    const path = target.path.replace(/\/+$/, '');
    const name = NAMES[path.slice(path.lastIndexOf('/') + 1)];
    if (name === undefined) continue;
    mirrors.set(name, (mirrors.get(name) ?? new Set()).add(`${formatAuthority(authority)}/${path}`));
  }
  const backends = Object.fromEntries([...mirrors].map(([name, list]) => [name, { mirrors: [...list] }]));
  return { backends, hosts: [...hosts] };
}
