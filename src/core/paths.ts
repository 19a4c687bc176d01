/**
 * Where things are kept: `--state DIR`, else BUILDKIT_STATE, else `state` of buildkit.yaml, else /var/lib/buildkit for root
 * with an installed buildkit, else the XDG folders (XDG Base Directory Specification 0.8).
 */
import { join, resolve } from 'node:path';

export interface PathFacts {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly uid: number;
  readonly home: string;
  /** The folder that this program runs from. */
  readonly programDir: string;
  readonly cwd: string;
  readonly stateFlag?: string | undefined;
  /** `state` of buildkit.yaml, made absolute. */
  readonly stateOfWorkspace?: string | undefined;
}

export interface Places {
  readonly stateDir: string;
  readonly cacheDir: string;
  /** What decided, in the words of `buildkit config show`. */
  readonly origin: string;
}

/** Pure: the facts come from `cli/main`. */
export function choosePlaces(facts: PathFacts): Places {
  if (facts.stateFlag !== undefined) return below(resolve(facts.cwd, facts.stateFlag), 'flag --state');
  if (facts.env.BUILDKIT_STATE)
    return below(resolve(facts.cwd, facts.env.BUILDKIT_STATE), 'environment BUILDKIT_STATE');
  if (facts.stateOfWorkspace !== undefined) return below(facts.stateOfWorkspace, 'buildkit.yaml');
  const installed = facts.programDir === '/usr' || facts.programDir.startsWith('/usr/');
  if (facts.uid === 0 && installed) {
    return { stateDir: '/var/lib/buildkit', cacheDir: '/var/cache/buildkit', origin: 'default (root, installed)' };
  }
  return {
    stateDir: join(xdg(facts.env.XDG_STATE_HOME, facts.home, '.local/state'), 'buildkit'),
    cacheDir: join(xdg(facts.env.XDG_CACHE_HOME, facts.home, '.cache'), 'buildkit'),
    origin: 'default (XDG folders)',
  };
}

function below(stateDir: string, origin: string): Places {
  return { stateDir, cacheDir: join(stateDir, 'cache'), origin };
}

/** XDG says: a relative path in the variable is invalid and is ignored. */
function xdg(value: string | undefined, home: string, fallback: string): string {
  return value?.startsWith('/') ? value : join(home, fallback);
}
