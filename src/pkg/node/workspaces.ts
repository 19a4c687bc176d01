/**
 * Workspaces of npm: several packages in one folder, which need each other by name.
 *
 * Secret: package.json's `workspaces` (npm's workspaces(7)): patterns, or an object with `packages`; who is a member, and that members
 * come from their folders and never from a registry.
 */
import { glob, readFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { UserError } from '../../core/errors.ts';
import type { Manifest } from './arborist.ts';
import type { NodeInput } from './builder.ts';
import { asTable, textOf } from './manifest.ts';

/** The nearest folder above that could hold the workspaces is not looked for further up than this. */
const DEEPEST = 6;

/** Names of members to their folders; undefined: this folder holds no workspaces. @throws UserError `npm-workspaces` */
async function workspacesOf(folder: string): Promise<Map<string, string> | undefined> {
  const patterns = patternsOf(await manifestIn(folder));
  if (patterns === undefined) return undefined;
  const members = new Map<string, string>();
  for (const pattern of patterns.filter((one) => !one.startsWith('!'))) {
    const exclude = ['**/node_modules/**', ...patterns.filter((one) => one.startsWith('!')).map((one) => one.slice(1))];
    for await (const found of glob(join(pattern, 'package.json'), { cwd: folder, exclude })) {
      const member = dirname(resolve(folder, found));
      const name = textOf((await manifestIn(member))?.name);
      const other = members.get(name);
      if (name === '' || other === member) continue;
      if (other !== undefined) {
        throw new UserError('npm-workspaces', `two workspaces are called '${name}'`, {
          file: join(member, 'package.json'),
        });
      }
      members.set(name, member);
    }
  }
  return new Map([...members].sort(([, a], [, b]) => (a < b ? -1 : 1)));
}

function patternsOf(manifest: Manifest | undefined): string[] | undefined {
  const { workspaces } = manifest ?? {};
  const list = Array.isArray(workspaces) ? workspaces : asTable(workspaces).packages;
  if (!Array.isArray(list)) return undefined;
  // nothing outside of the folder can be a member
  return list.filter((one): one is string => typeof one === 'string' && !/^\/|(^|\/)\.\.(\/|$)/.test(one));
}

async function manifestIn(folder: string): Promise<Manifest | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'));
    return asTable(value);
  } catch {
    return undefined; // whoever builds it says what is wrong with it
  }
}

/** The members that a folder stands for: those of its workspaces, or itself alone. */
async function membersOf(folder: string): Promise<string[]> {
  const members = await workspacesOf(folder);
  if (members === undefined) return [folder];
  const withVersion: string[] = [];
  for (const member of members.values())
    if (textOf((await manifestIn(member))?.version) !== '') withVersion.push(member);
  if (withVersion.length > 0) return withVersion;
  throw new UserError('npm-workspaces', 'none of its workspaces has a name and a version', {
    file: join(folder, 'package.json'),
  });
}

/** A folder with workspaces stands for its members. @throws UserError `npm-workspaces` */
export async function expandWorkspaces(inputs: readonly NodeInput[]): Promise<NodeInput[]> {
  const expanded = await Promise.all(
    inputs.map(async (one): Promise<NodeInput[]> => {
      if (one.kind !== 'project') return [one];
      return (await membersOf(one.folder)).map((folder) => ({ kind: 'project', folder }));
    }),
  );
  return expanded.flat();
}

/** Other members of the workspaces that a folder belongs to, as far as it needs them, directly or not: names to folders. */
export async function neededSiblings(folder: string): Promise<Map<string, string>> {
  const needed = new Map<string, string>();
  const all = await siblingsOf(folder);
  const queue = [folder];
  for (const at of queue) {
    const manifest = await manifestIn(at);
    for (const field of ['dependencies', 'optionalDependencies', 'peerDependencies']) {
      for (const name of Object.keys(asTable(manifest?.[field]))) {
        const place = all.get(name);
        if (place === undefined || place === folder || needed.has(name)) continue;
        needed.set(name, place);
        queue.push(place);
      }
    }
  }
  return needed;
}

async function siblingsOf(folder: string): Promise<Map<string, string>> {
  let above = dirname(folder);
  for (let level = 0; level < DEEPEST && above !== dirname(above); level += 1, above = dirname(above)) {
    const members = await workspacesOf(above);
    if (members && [...members.values()].includes(folder)) return members;
  }
  return new Map();
}
