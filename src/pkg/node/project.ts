/**
 * A folder with a package.json: what it says of its Debian package, and a copy of it to resolve and unpack in.
 *
 * `"buildkit"` in package.json holds what a .deb has beside the JavaScript: its name, units, configuration files; the keys are those of
 * `[tool.buildkit]` in pyproject.toml.
 */
import { createHash } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Context } from '../../core/context.ts';
import { errnoOf, UserError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { didYouMean } from '../../core/nearest.ts';
import { isSemver } from '../../deb/semver.ts';
import { type ToolTable, toolSchema } from '../python/project.ts';
import { sourceDate } from '../source-date.ts';
import type { Manifest } from './arborist.ts';
import { asTable, programsOf, textOf } from './manifest.ts';
import { debianAppName, debianNodeName } from './names.ts';
import { neededSiblings } from './workspaces.ts';

export interface NodeProject {
  readonly folder: string;
  readonly name: string;
  readonly version: string;
  readonly manifest: Manifest;
  /** package.json byte for byte. */
  readonly manifestText: string;
  readonly tool: ToolTable;
  readonly debianName: string;
  /** Members of the same workspaces that it needs, names to folders. */
  readonly siblings: ReadonlyMap<string, string>;
  /** Seconds since the epoch: of the last commit, else of debian/changelog, else a fixed day. */
  readonly date: number;
}

const LOCKS = ['npm-shrinkwrap.json', 'package-lock.json', 'yarn.lock'];

/** True for a folder that npm could install from. */
export async function isNodeProject(folder: string): Promise<boolean> {
  return (await exists(join(folder, 'package.json'))) || (await exists(join(folder, 'package-lock.json')));
}

/**
 * @throws UserError `package-json`, `package-json-value`, `debian-name`
 */
export async function readNodeProject(context: Context, folder: string): Promise<NodeProject> {
  const file = join(folder, 'package.json');
  const manifestText = await readManifestText(folder);
  const manifest = parseManifest(manifestText, file);
  const [name, version] = [textOf(manifest.name), textOf(manifest.version)];
  const missing = name === '' ? 'name' : isSemver(version) ? undefined : 'version';
  if (missing !== undefined) {
    throw new UserError('package-json', `package.json has no ${missing} that a package could have`, {
      file,
      hint: 'a package needs both: "name": "hello", "version": "1.0.0"',
    });
  }
  const tool = readTool(manifest, file);
  const isApp = programsOf(name, manifest).size > 0 || tool.units.length > 0;
  const debianName = tool.package ?? (isApp ? debianAppName(name) : debianNodeName(name));
  const siblings = await neededSiblings(folder);
  return {
    folder,
    name,
    version,
    manifest,
    manifestText,
    tool,
    debianName,
    siblings,
    date: await sourceDate(context, folder),
  };
}

/** A lock without its package.json holds enough of it. */
async function readManifestText(folder: string): Promise<string> {
  try {
    return await readFile(join(folder, 'package.json'), 'utf8');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
  const lockFile = join(folder, 'package-lock.json');
  const root = asTable(asTable(parseManifest(await readFile(lockFile, 'utf8'), lockFile).packages)['']);
  return `${JSON.stringify({ name: root.name, version: root.version ?? '0.0.0', ...root }, undefined, 2)}\n`;
}

function parseManifest(text: string, file: string): Manifest {
  try {
    const value: unknown = JSON.parse(text.replace(/^\uFEFF/, ''));
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Manifest;
  } catch (cause) {
    throw new UserError('package-json', `this is no JSON: ${(cause as Error).message}`, { file, cause });
  }
  throw new UserError('package-json', 'this is no object of JSON', { file });
}

function readTool(manifest: Manifest, file: string): ToolTable {
  const parsed = toolSchema.safeParse(asTable(manifest.buildkit));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const unknown = issue.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
  const key = ['buildkit', ...issue.path.map(String), ...(unknown === undefined ? [] : [unknown])].join('.');
  const message = unknown === undefined ? `'${key}' ${issue.message}` : `unknown key '${key}'`;
  const hint = unknown === undefined ? undefined : didYouMean(unknown, Object.keys(toolSchema.shape));
  throw new UserError('package-json-value', message, { file, hint });
}

/**
 * Fills `target` with what `npm pack` would take, with a lock, and with a package.json to resolve from: without development
 * dependencies, which nobody installs, and with `file:` dependencies that still lead where they led.
 */
export async function copyProject(
  project: NodeProject,
  target: string,
  pack: (folder: string, target: string) => Promise<void>,
): Promise<void> {
  if (await exists(join(project.folder, 'package.json'))) await pack(project.folder, target);
  else await mkdir(target, { recursive: true });
  for (const lock of LOCKS) {
    const file = join(project.folder, lock);
    if (!(await exists(file))) continue;
    if (!lock.endsWith('.json')) await copyFile(file, join(target, lock));
    else await writeFile(join(target, lock), JSON.stringify(lockOfCopies(await readLock(file), project.folder)));
  }
  const { devDependencies: _, workspaces: __, ...kept } = project.manifest;
  // siblings of siblings stand on top, too: whoever needs them finds them there and asks no registry
  const siblings = Object.fromEntries([...project.siblings].map(([name, folder]) => [name, `file:${folder}`]));
  const optional = withAbsoluteFolders(project, kept.optionalDependencies);
  const fields = {
    dependencies: { ...withAbsoluteFolders(project, kept.dependencies), ...siblings },
    optionalDependencies: Object.fromEntries(Object.entries(optional).filter(([name]) => !project.siblings.has(name))),
  };
  await writeFile(join(target, 'package.json'), JSON.stringify({ ...kept, ...fields }));
}

async function readLock(file: string): Promise<Manifest> {
  return parseManifest(await readFile(file, 'utf8'), file);
}

/** npm locks folders as links, with what they need below the folder itself; in a package they are copies. */
function lockOfCopies(lock: Manifest, folder: string): Manifest {
  const entries = asTable(lock.packages);
  const places = new Map<string, string>();
  for (const [location, entry] of Object.entries(entries)) {
    const { link, resolved } = asTable(entry);
    if (link === true && typeof resolved === 'string') places.set(resolved, location);
  }
  if (places.size === 0) return lock;
  const packages: Record<string, unknown> = {};
  for (const [location, entry] of Object.entries(entries)) {
    if (asTable(entry).link === true) continue;
    const [top = '', below] = location.split(/\/(node_modules\/.*)/s);
    const place = places.get(top);
    if (place === undefined) packages[location] = entry;
    else if (below !== undefined) packages[`${place}/${below}`] = entry;
    else packages[place] = { ...asTable(entry), resolved: `file:${resolve(folder, top)}` };
  }
  return { ...lock, packages };
}

function withAbsoluteFolders(project: NodeProject, dependencies: unknown): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(asTable(dependencies)).map(([name, spec]) => {
      const path =
        /^(?:file:|link:)?(\.{1,2}\/.*)$/.exec(textOf(spec))?.[1] ??
        /^(?:file:|link:)([^/].*)$/.exec(textOf(spec))?.[1];
      return [name, path === undefined ? spec : `file:${resolve(project.folder, path)}`];
    }),
  );
}

/** Puts the project's own package.json in place of the one that was resolved from, and takes the lock away. */
export async function restoreProject(project: NodeProject, target: string): Promise<void> {
  await writeFile(join(target, 'package.json'), project.manifestText);
}

/** Digest of names and contents below `folder`, but for what is installed there and for git's. */
export async function digestTree(folder: string): Promise<string> {
  const hash = createHash('sha256');
  const visit = async (below: string): Promise<void> => {
    const items = await readdir(join(folder, below), { withFileTypes: true });
    for (const item of items.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const path = join(below, item.name);
      if (item.isDirectory() && !['node_modules', '.git'].includes(item.name)) await visit(path);
      if (!item.isFile()) continue;
      const content = await readFile(join(folder, path));
      hash.update(`${path}\0${content.length}\0`).update(content);
    }
  };
  await visit('');
  return hash.digest('hex');
}
