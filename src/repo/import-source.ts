/**
 * What somebody has who moves in: a published tree, the folder of aptly or reprepro with their own books in it, or a pool alone.
 *
 * Secret: how aptly(1) and reprepro(1) lay out their folders. aptly keeps its pool by digest (`pool/ab/cd/REST_NAME`) and each
 * published tree below `public/`, under a prefix or none; reprepro has `conf/distributions`, and its tree beside it or where
 * `outdir` of `conf/options` says.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join, relative, resolve } from 'node:path';
import { errnoOf, UserError } from '../core/errors.ts';
import { didYouMean } from '../core/nearest.ts';
import { getField, readParagraphs } from '../deb/control.ts';
import { suiteFolder } from './tree.ts';

export type ImportSource =
  | {
      readonly kind: 'index';
      /** The folder that web servers serve, or a URL. */
      readonly place: string;
      /** Of Release, below `place`, with a slash at its end; '' in a flat tree. */
      readonly folder: string;
    }
  | { readonly kind: 'pool'; readonly folder: string; readonly isAptly: boolean };

/** aptly's prefixes may hold slashes. */
const PREFIX_DEPTH = 4;

/**
 * @param from the suite there (`PREFIX/SUITE` for aptly, `FOLDER/` for a flat tree); undefined: the only one there, or the pool
 * @throws UserError `no-such-file`, `import-which`, `import-index`
 */
export async function findSource(place: string, from: string | undefined): Promise<ImportSource> {
  if (/^https?:\/\//.test(place)) {
    if (from !== undefined) return { kind: 'index', place, folder: suiteFolder(from) };
    throw new UserError('import-which', `which suite of '${place}'?`, {
      hint: "name it after the address: bookworm, or './' for a flat tree",
    });
  }
  const root = resolve(place);
  if (!(await isFolder(root))) throw new UserError('no-such-file', `there is no folder '${place}'`);
  if (from?.endsWith('/')) return { kind: 'index', place: root, folder: suiteFolder(from) };
  if (await isFile(join(root, 'conf/distributions'))) return ofReprepro(root, from);
  if (await isFolder(join(root, 'dists'))) return ofTrees(place, [root], from);
  const isAptly = (await isFolder(join(root, 'db'))) && (await isFolder(join(root, 'pool')));
  if (isAptly && from === undefined) return { kind: 'pool', folder: join(root, 'pool'), isAptly };
  const published = await treesBelow(join(root, 'public'), PREFIX_DEPTH);
  if (published.length > 0 || isAptly) return ofTrees(place, published, from, join(root, 'public'));
  if (from === undefined) return { kind: 'pool', folder: root, isAptly: false };
  throw new UserError('import-index', `'${place}' has no suite '${from}': it is no published repository`, {
    hint: 'leave the suite out to take every package below that folder',
  });
}

async function ofReprepro(root: string, from: string | undefined): Promise<ImportSource> {
  const names = new Map<string, string>();
  const path = join(root, 'conf/distributions');
  for await (const stanza of readParagraphs([await readFile(path, 'utf8')], { file: path })) {
    const codename = getField(stanza, 'Codename') ?? '';
    names.set(codename, codename);
    const suite = getField(stanza, 'Suite');
    if (suite !== undefined && !names.has(suite)) names.set(suite, codename);
  }
  const codenames = [...new Set(names.values())];
  const wanted = from ?? (codenames.length === 1 ? codenames[0] : undefined);
  const codename = wanted === undefined ? undefined : names.get(wanted);
  if (codename === undefined) throw noSuite(root, from, codenames);
  return { kind: 'index', place: await repreproOutDir(root), folder: suiteFolder(codename) };
}

/** `outdir` of conf/options: `+b/` begins at the base, as reprepro(1) says. */
async function repreproOutDir(root: string): Promise<string> {
  const options = await readFile(join(root, 'conf/options'), 'utf8').catch(() => '');
  const wanted = /^[ \t]*outdir[ \t]+(.+?)[ \t]*$/m.exec(options)?.[1];
  return wanted === undefined ? root : resolve(root, wanted.replace(/^\+b(?:\/|$)/, `${root}/`));
}

/** The suite meant, of one or several trees. */
async function ofTrees(
  place: string,
  trees: readonly string[],
  from: string | undefined,
  top?: string,
): Promise<ImportSource> {
  const found = new Map<string, ImportSource>();
  for (const tree of trees) {
    for (const name of await releasesBelow(join(tree, 'dists'))) {
      const prefix = top === undefined ? '' : relative(top, tree);
      found.set(prefix === '' ? name : `${prefix}/${name}`, { kind: 'index', place: tree, folder: suiteFolder(name) });
    }
  }
  const names = [...found.keys()];
  const ends = names.filter((name) => name === from || (from !== undefined && name.endsWith(`/${from}`)));
  const candidates = from === undefined ? names : names.includes(from) ? [from] : ends;
  if (candidates.length === 1) return found.get(candidates[0]!)!;
  throw noSuite(place, from, candidates.length > 1 ? candidates : names);
}

function noSuite(place: string, from: string | undefined, names: readonly string[]): UserError {
  const hint = names.length === 0 ? 'nothing is published there' : `it has ${names.join(', ')}`;
  return from === undefined || names.includes(from)
    ? new UserError('import-which', `which suite of '${place}'?`, { hint })
    : new UserError('import-index', `'${place}' has no suite '${from}'`, { hint: didYouMean(from, names) ?? hint });
}

/** Folders with dists/ in them. */
async function treesBelow(folder: string, depth: number): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    if (['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')) return [];
    throw error;
  });
  const folders = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  const own = folders.includes('dists') ? [folder] : [];
  const below = folders.filter((name) => name !== 'dists' && name !== 'pool');
  const deeper = depth === 0 ? [] : await Promise.all(below.map((name) => treesBelow(join(folder, name), depth - 1)));
  return [...own, ...deeper.flat()];
}

/** Suites: folders, and links to them, with a Release; `stable/updates` counts too. */
async function releasesBelow(dists: string, prefix = '', depth = 1): Promise<string[]> {
  const found: string[] = [];
  for (const name of (await readdir(dists)).sort()) {
    const folder = join(dists, name);
    if (!(await isFolder(folder))) continue;
    if ((await isFile(join(folder, 'Release'))) || (await isFile(join(folder, 'InRelease')))) found.push(prefix + name);
    else if (depth > 0) found.push(...(await releasesBelow(folder, `${prefix}${name}/`, depth - 1)));
  }
  return found;
}

async function isFolder(path: string): Promise<boolean> {
  return (await statOf(path))?.isDirectory() ?? false;
}

async function isFile(path: string): Promise<boolean> {
  return (await statOf(path))?.isFile() ?? false;
}

async function statOf(path: string) {
  try {
    return await stat(path);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}
