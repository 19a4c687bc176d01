/**
 * Clones of a build root: what one build sees as its machine, and layers of installed packages between root and clone.
 *
 * Secret: `STATE/roots/clones/ID` with a lock that its process holds for as long as it lives: whose lock is free was killed, and
 * the next command removes it. A layer (`ROOT/layers/KEY/upper`) is what an installation wrote, kept for the builds that want
 * the same packages.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readdir, readFile, rename, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../../core/context.ts';
import { type Lock, lock } from '../../core/db.ts';
import { errnoOf, UserError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { type RunResult, run } from '../../core/run.ts';
import { keyOf } from '../cache.ts';
import { asOwner, type Entry, type Inside, type Rights, runInside } from './enter.ts';
import { aptProxy, type BuildRoot, dropReplaced, lockRoots, removeLeftovers, removeTree, rootsDir } from './root.ts';

const KEPT_LAYERS = 12;
const INSTALL_TIMEOUT_MS = 30 * 60_000;

/** Disposing removes all of it. */
export interface Clone extends AsyncDisposable {
  readonly root: BuildRoot;
  /** The folder that is /build inside. */
  readonly buildDir: string;
  run(inside: Inside): Promise<RunResult>;
}

/** What a build wants to find installed. */
export interface Wanted {
  /** A debian/control whose Build-Depends are meant, or a list of relations made into one. */
  readonly control: string;
  /** As apt-get's -P. */
  readonly profiles?: string | undefined;
  readonly proxy?: string | undefined;
}

/** The control file that stands for a few packages. */
export function controlOf(packages: readonly string[]): string {
  return `Source: buildkit-layer\nMaintainer: buildkit <buildkit@localhost>\nBuild-Depends: ${packages.join(', ')}\n\nPackage: buildkit-layer\nArchitecture: all\nDescription: layer\n`;
}

/**
 * A clone of `root`, with what is wanted installed in it.
 * @param logFile gets what apt says
 * @throws UserError `build-depends`; ToolError `root-entry`
 */
export async function openClone(
  context: Context,
  root: BuildRoot,
  wanted: Wanted | undefined,
  logFile: string,
): Promise<Clone> {
  await sweep(context);
  if (wanted === undefined || !/^Build-/m.test(wanted.control)) return newClone(context, root, []);
  if (root.clone === 'overlay') return newClone(context, root, [await layer(context, root, wanted, logFile)]);
  await using stack = new AsyncDisposableStack();
  const clone = stack.use(await newClone(context, root, []));
  await install(context, clone, wanted, logFile);
  stack.move();
  return clone;
}

/** Roots that living clones stand on. */
export async function rootsInUse(context: Context): Promise<Set<string>> {
  const used = new Set<string>();
  for (const { root } of await otherClones(context)) used.add(root);
  return used;
}

/** Removes what killed commands left, and roots and layers that nobody needs any more. */
export async function sweep(context: Context): Promise<void> {
  using _lock = await lockRoots(context);
  const live: { root: string; layers: readonly string[] }[] = [];
  for (const clone of await otherClones(context)) {
    const held = await tryLock(clone.dir);
    if (held === undefined) {
      live.push(clone);
      continue;
    }
    await removeTree(context, clone.rights, clone.dir);
    held[Symbol.dispose]();
  }
  await removeLeftovers(context);
  await dropReplaced(context, new Set(live.map((one) => one.root)));
  await dropOldLayers(context, new Set(live.flatMap((one) => one.layers)));
}

interface Note {
  readonly dir: string;
  readonly root: string;
  readonly rights: Rights;
  readonly layers: readonly string[];
}

function clonesDir(context: Context): string {
  return join(rootsDir(context), 'clones');
}

async function otherClones(context: Context): Promise<Note[]> {
  const notes: Note[] = [];
  for (const name of await namesIn(clonesDir(context))) {
    const dir = join(clonesDir(context), name);
    try {
      notes.push({ ...(JSON.parse(await readFile(join(dir, 'clone.json'), 'utf8')) as Omit<Note, 'dir'>), dir });
    } catch {
      notes.push({ dir, root: '', rights: process.getuid?.() === 0 ? 'root' : 'user', layers: [] }); // killed at its birth
    }
  }
  return notes;
}

async function tryLock(dir: string): Promise<Lock | undefined> {
  try {
    return await lock(join(dir, 'lock'));
  } catch (error) {
    if (error instanceof UserError && error.code === 'locked') return undefined;
    throw error;
  }
}

async function newClone(context: Context, root: BuildRoot, layers: readonly string[]): Promise<Clone> {
  const name = `clones/${randomUUID().slice(0, 13)}`;
  const dir = join(rootsDir(context), name);
  const held = await lockNew(context, root, layers, dir);
  const close = async () => {
    await removeTree(context, root.rights, dir);
    held[Symbol.dispose]();
  };
  const lowers = [...layers.map((one) => `${root.id}/layers/${one}/upper`), `${root.id}/tree`];
  const entry: Entry = {
    rights: root.rights,
    rootsDir: rootsDir(context),
    clone: name,
    lowers: root.clone === 'overlay' ? lowers : [],
  };
  try {
    for (const part of ['upper', 'work', 'root', 'build']) await mkdir(join(dir, part));
    if (root.clone === 'copy') await copyRoot(context, root, dir);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    root,
    buildDir: join(dir, 'build'),
    run: (inside) => runInside(context, entry, inside),
    [Symbol.asyncDispose]: close,
  };
}

/** With the folder's lock, so that nobody sweeps a clone that is being born. */
async function lockNew(context: Context, root: BuildRoot, layers: readonly string[], dir: string): Promise<Lock> {
  using _lock = await lockRoots(context);
  if (!(await exists(join(root.dir, 'root.json')))) {
    throw new UserError('no-such-root', `the build root '${root.id}' was replaced or removed meanwhile`, {
      hint: 'run the command again',
    });
  }
  await mkdir(dir, { recursive: true });
  const held = await lock(join(dir, 'lock'));
  await writeFile(join(dir, 'clone.json'), JSON.stringify({ root: root.id, rights: root.rights, layers }));
  return held;
}

async function copyRoot(context: Context, root: BuildRoot, dir: string): Promise<void> {
  const copy = ['cp', '-a', '--reflink=auto', '-T', '--', join(root.dir, 'tree'), join(dir, 'root')];
  const [program = '', ...args] = asOwner(root.rights, copy);
  await run(context, program, args);
}

/** The layer with what is wanted. @returns its key */
async function layer(context: Context, root: BuildRoot, wanted: Wanted, logFile: string): Promise<string> {
  const key = keyOf(['layer', wanted.control, wanted.profiles ?? null]).slice(0, 24);
  const place = join(root.dir, 'layers', key);
  if (await exists(place)) {
    const now = context.now();
    await utimes(place, now, now);
    return key;
  }
  await using clone = await newClone(context, root, []);
  await install(context, clone, wanted, logFile);
  using _lock = await lockRoots(context);
  if (await exists(place)) return key; // another process was faster
  await mkdir(join(root.dir, 'layers'), { recursive: true });
  const filled = join(clone.buildDir, '../filled');
  await mkdir(filled);
  await rename(join(clone.buildDir, '../upper'), join(filled, 'upper'));
  await rename(filled, place);
  return key;
}

const INSTALL = `
install() { apt-get -q -y --no-install-recommends "$@" build-dep ./layer; }
set -- -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@"
if ! install "$@"; then
  echo "buildkit: the lists of packages may be old: once more with new ones"
  apt-get -q "$1" "$2" update
  install "$@"
fi
apt-get clean
rm -rf layer
`;

/** @throws UserError `build-depends` with apt's own words */
async function install(context: Context, clone: Clone, wanted: Wanted, logFile: string): Promise<void> {
  const folder = join(clone.buildDir, 'layer/debian');
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'control'), wanted.control);
  const proxy = wanted.proxy ?? (await aptProxy(context));
  const before = await sizeOf(logFile);
  try {
    await context.log.step('Install what the build needs', () =>
      clone.run({
        user: 'root',
        network: true,
        script: INSTALL,
        args: wanted.profiles ? [`--build-profiles=${wanted.profiles}`] : [],
        env: { http_proxy: proxy, HOME: '/root' },
        logFile,
        timeoutMs: INSTALL_TIMEOUT_MS,
      }),
    );
  } catch (error) {
    context.signal.throwIfAborted();
    const log = (await readFile(logFile, 'utf8').catch(() => '')).slice(before);
    const reasons = log.split('\n').filter((line) => /^E: | : Depends: |^ +builddeps:|is not installable/.test(line));
    if (reasons.length === 0) throw error;
    const shown = [...new Set(reasons)].slice(0, 12).map((line) => `  ${line.trim()}`);
    throw new UserError('build-depends', `apt cannot install what the build needs:\n${shown.join('\n')}`, {
      hint: `see ${logFile}; an old root is renewed by: buildkit pkg root update --suite ${clone.root.suite}`,
      cause: error,
    });
  }
}

/** Only with the lock held. */
async function dropOldLayers(context: Context, inUse: ReadonlySet<string>): Promise<void> {
  const dir = rootsDir(context);
  for (const id of (await namesIn(dir)).filter((name) => !name.startsWith('.') && name !== 'clones')) {
    const folder = join(dir, id, 'layers');
    const aged: [key: string, used: number][] = [];
    for (const key of await namesIn(folder)) aged.push([key, (await stat(join(folder, key))).mtimeMs]);
    aged.sort((a, b) => b[1] - a[1]);
    for (const [key] of aged.slice(KEPT_LAYERS)) {
      if (inUse.has(key)) continue;
      const aside = join(dir, `.building-${key}-${randomUUID().slice(0, 8)}`);
      await rename(join(folder, key), aside);
      await removeTree(context, process.getuid?.() === 0 ? 'root' : 'user', aside);
    }
  }
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return [];
    throw error;
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch {
    return 0;
  }
}
