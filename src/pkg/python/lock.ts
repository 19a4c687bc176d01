/**
 * Lock files of Python projects: uv.lock, poetry.lock and pylock.toml (PEP 751). What they pin, pip is held to.
 *
 * Secret: their three layouts. pip-compile's files are requirements files and need nothing of this.
 */
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { parse as parseToml, TomlError } from 'smol-toml';
import { UserError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { parsePep440 } from './pep440.ts';
import { normaliseName } from './requirement.ts';

const LOCK_NAMES = ['uv.lock', 'poetry.lock', 'pylock.toml'] as const;

export function isLockName(path: string): boolean {
  return LOCK_NAMES.some((name) => name === basename(path));
}

/** Pins of the lock file in a project's folder, as constraints; none without one. */
export async function projectConstraints(folder: string): Promise<string[]> {
  for (const name of LOCK_NAMES) {
    const file = join(folder, name);
    if (await exists(file)) return (await readLock(file)).map(pin);
  }
  return [];
}

/** What a lock file names as the input: every package that it locks for use, as requirements with their markers. */
export async function lockedRequirements(file: string): Promise<string[]> {
  const locked = await readLock(file);
  return locked
    .filter((one) => one.wanted)
    .map((one) => (one.marker === undefined ? pin(one) : `${pin(one)} ; ${one.marker}`));
}

function pin(one: Locked): string {
  return `${one.name}==${one.version}`;
}

export interface Locked {
  readonly name: string;
  readonly version: string;
  /** For use, not for development only; not behind an extra. */
  readonly wanted: boolean;
  readonly marker: string | undefined;
}

async function readLock(file: string): Promise<Locked[]> {
  try {
    return parseLock(basename(file), await readFile(file, 'utf8'));
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    throw new UserError('lock-syntax', cause.message.split('\n')[0]!, {
      file,
      line: cause.line,
      column: cause.column,
      cause,
    });
  }
}

type Table = Record<string, unknown>;

/**
 * Reads the text of a lock file. Of several versions of one name (for other platforms) none is a pin: pip chooses.
 * @throws TomlError
 */
export function parseLock(name: string, text: string): Locked[] {
  const document = parseToml(text) as Table;
  const tables = listOf(name === 'pylock.toml' ? document.packages : document.package);
  const fromIndex = tables.filter(
    (one) => typeof one.name === 'string' && typeof one.version === 'string' && !isLocal(one),
  );
  const wanted = name === 'uv.lock' ? reachable(tables) : undefined;
  const locked = fromIndex.map((one): Locked => {
    const own = normaliseName(one.name as string);
    return {
      name: own,
      version: one.version as string,
      wanted: wanted === undefined ? isForUse(one) : wanted.has(own),
      marker: markerOf(one),
    };
  });
  const count = new Map<string, number>();
  for (const one of locked) count.set(one.name, (count.get(one.name) ?? 0) + 1);
  return locked.filter((one) => count.get(one.name) === 1 && parsePep440(one.version) !== undefined);
}

function listOf(value: unknown): Table[] {
  return Array.isArray(value) ? value.filter((one): one is Table => typeof one === 'object' && one !== null) : [];
}

/** The project itself and what it takes from folders. */
function isLocal(one: Table): boolean {
  const source = (one.source ?? {}) as Table;
  return (
    ['virtual', 'editable', 'directory', 'path'].some((key) => key in source) ||
    source.type === 'directory' ||
    'directory' in one
  );
}

/** uv.lock is a graph: from the project itself along plain dependencies, not its extras and groups. */
function reachable(tables: readonly Table[]): Set<string> {
  const byName = new Map(tables.map((one) => [normaliseName(String(one.name)), one]));
  const seen = new Set<string>();
  const queue = tables.filter(isLocal).map((one) => normaliseName(String(one.name)));
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (seen.has(name)) continue;
    seen.add(name);
    const one = byName.get(name);
    for (const next of listOf(one?.dependencies)) queue.push(normaliseName(String(next.name)));
  }
  return seen;
}

/** poetry.lock: 'groups' since 2.0, 'category' before. */
function isForUse(one: Table): boolean {
  if (one.optional === true) return false;
  if (Array.isArray(one.groups)) return one.groups.includes('main');
  return one.category === undefined || one.category === 'main';
}

function markerOf(one: Table): string | undefined {
  const marker = one.markers ?? one.marker;
  return typeof marker === 'string' && marker !== '' ? marker : undefined;
}
