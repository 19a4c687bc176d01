/**
 * npm's own tree: which package in which version lies where below node_modules, and where each comes from.
 *
 * Secret: @npmcli/arborist, and that it looks at this machine's processor and calls the root after its folder, which is corrected
 * here. What leaves this module is plain data: nothing of arborist's tree, which is large, lives on.
 */
import { readFile } from 'node:fs/promises';
import { isAbsolute, join, resolve } from 'node:path';
import type Arborist from '@npmcli/arborist';
import type { RunContext } from '../../core/context.ts';
import { type Problem, ProblemsError, UserError } from '../../core/errors.ts';
import { printable } from '../../core/log.ts';
import { type GitSource, parseGitSource } from './git-source.ts';
import { clientOptions, guarded, platformError, type TreeRequest } from './npm-client.ts';
import { listTakes, type NodeTarget } from './target.ts';

/** package.json as published; only what was checked may be trusted to have its type. */
export type Manifest = Readonly<Record<string, unknown>>;

export interface NodeEdge {
  readonly name: string;
  /** As in package.json: '^1.2.3', 'npm:other@1'. */
  readonly spec: string;
  readonly kind: 'prod' | 'optional' | 'peer' | 'peerOptional' | 'dev';
  /** Location of the module that it resolves to; undefined: none (optional, or for another platform). */
  readonly to: string | undefined;
}

/** Where the files of a module come from. */
export type NodeSource =
  | { readonly kind: 'tarball'; readonly spec: string; readonly resolved: string | undefined }
  | { readonly kind: 'folder'; readonly path: string }
  | GitSource;

/** One package folder of the tree. */
export interface NodeModule {
  /** Of its folder, which is what `require` takes: an alias has its own. */
  readonly name: string;
  readonly version: string;
  /** 'node_modules/a/node_modules/b'; '' for the root. */
  readonly location: string;
  readonly manifest: Manifest;
  /** Came inside of another package's tarball. */
  readonly inBundle: boolean;
  /** Of its tarball, as the registry or the lock says; undefined for folders and bundled ones. */
  readonly integrity: string | undefined;
  /** undefined: for the root, and for what is in another package's tarball. */
  readonly source: NodeSource | undefined;
  readonly edges: readonly NodeEdge[];
}

/**
 * Resolves as `npm ci` where the folder has a lock, as `npm install` otherwise. Development dependencies are left out.
 * @throws UserError `npm-not-found`, `npm-no-version`, `unresolvable`, `npm-platform`, `npm-input`, `npm-source`;
 *   ProblemsError `lock-disagrees`; RemoteError `npm-registry`, `digest-mismatch`
 */
export async function resolveTree(context: RunContext, request: TreeRequest): Promise<readonly NodeModule[]> {
  const { default: ArboristClass } = await import('@npmcli/arborist');
  const arborist = new ArboristClass(clientOptions(context, request) as unknown as Arborist.Options);
  // complete: what comes inside of other packages' tarballs is part of the tree, too
  const omit = request.dev ? [] : ['dev'];
  const wanted = { add: [...request.add], omit, complete: true } as Arborist.BuildIdealTreeOptions;
  const ideal = await guarded(context, request, () => arborist.buildIdealTree(wanted));
  const nodes = wantedNodes(ideal, new Set(omit));
  await refuseOtherThanLocked(request.folder, nodes);
  refusePlatforms(nodes, request.target);
  refusePatches(nodes, request.folder);
  return nodes.map((node) => toModule(node, request, new Set(omit)));
}

/** A node of arborist, with what its types leave out. */
type Node = Arborist.Node & {
  readonly inert?: boolean;
  readonly patched?: unknown;
  shouldOmit(omit: ReadonlySet<string>): boolean;
  readonly package: Manifest & { readonly os?: string[]; readonly cpu?: string[]; readonly libc?: string[] };
};

function wantedNodes(ideal: Arborist.Node, omit: ReadonlySet<string>): Node[] {
  const nodes = [...ideal.inventory.values()] as Node[];
  return nodes
    .filter((node) => node.isRoot || (!node.inert && !node.extraneous && !node.shouldOmit(omit)))
    .sort((a, b) => (a.location < b.location ? -1 : 1));
}

function toModule(node: Node, request: TreeRequest, omit: ReadonlySet<string>): NodeModule {
  const edges: NodeEdge[] = [];
  for (const edge of node.edgesOut.values()) {
    const kind = edge.type as string;
    if (kind === 'workspace' || omit.has(kind)) continue;
    const to = edge.to as Node | null;
    const isThere = to !== null && !to.inert && !to.shouldOmit(omit) && edge.valid;
    const { name, spec } = edge;
    edges.push({ name, spec, kind: kind as NodeEdge['kind'], to: isThere ? to.location : undefined });
  }
  const ownName = typeof node.package.name === 'string' ? node.package.name : '';
  return {
    name: node.isRoot ? ownName : node.name, // arborist calls the root as its folder is called
    version: node.version ?? '',
    location: node.location,
    manifest: node.package,
    inBundle: node.inBundle,
    integrity: node.integrity ?? undefined,
    source:
      node.isRoot || node.inBundle ? undefined : sourceOf(node, request.folder, String(request.npm.registry ?? '')),
    edges: edges.sort((a, b) => (a.name < b.name ? -1 : 1)),
  };
}

interface Lock {
  readonly packages?: Readonly<Record<string, { readonly version?: string; readonly link?: boolean }>>;
}

/** As `npm ci`: what the lock does not say is an error, and never quietly resolved anew. */
async function refuseOtherThanLocked(folder: string, nodes: readonly Node[]): Promise<void> {
  const lock = await readLock(folder);
  if (lock?.packages === undefined) return;
  const problems: Problem[] = [];
  for (const node of nodes) {
    if (node.isRoot || node.isLink || node.inBundle || node.resolved?.startsWith('file:')) continue;
    const locked = Object.hasOwn(lock.packages, node.location) ? lock.packages[node.location] : undefined;
    if (locked?.version === node.version || locked?.link) continue;
    const wanted = [...node.edgesIn].map(
      (edge) => `${edge.from?.isRoot ? 'the project' : edge.from?.name} wants ${edge.spec}`,
    );
    const has = locked?.version === undefined ? 'the lock has none' : `the lock has ${locked.version}`;
    const message = `'${node.name}': ${has}, ${[...new Set(wanted)].join(', ')} (${node.version})`;
    problems.push({ code: 'lock-disagrees', message: printable(message), subject: node.name });
  }
  if (problems.length === 0) return;
  throw new ProblemsError('lock-disagrees', 'package.json and its lock do not agree', problems, {
    hint: 'run npm install in the project and look at what it changes in the lock',
    file: join(folder, 'package-lock.json'),
  });
}

async function readLock(folder: string): Promise<Lock | undefined> {
  for (const name of ['npm-shrinkwrap.json', 'package-lock.json']) {
    const text = await readFile(join(folder, name), 'utf8').catch(() => undefined);
    if (text !== undefined) return JSON.parse(text) as Lock;
  }
  return undefined;
}

/** arborist looks at this machine for what is not optional; the target decides. */
function refusePlatforms(nodes: readonly Node[], target: NodeTarget): void {
  for (const node of nodes) {
    const { os, cpu, libc } = node.package;
    if (node.optional || (listTakes(os, target.os) && listTakes(cpu, target.cpu) && listTakes(libc, target.libc)))
      continue;
    throw platformError(node.name, node.version, target);
  }
}

/** Patches are files of the project's makers: what they change would carry the name and version of what others published. */
function refusePatches(nodes: readonly Node[], folder: string): void {
  const patched = nodes.find((node) => node.patched);
  if (patched === undefined) return;
  throw new UserError('npm-input', `'${printable(patched.name)}' has a patch in patchedDependencies`, {
    file: join(folder, 'package.json'),
    hint: 'publish the patched package under a name of its own, or depend on its folder: file:./NAME',
  });
}

/** @throws UserError `npm-source` */
function sourceOf(node: Node, root: string, registry: string): NodeSource {
  const { resolved } = node;
  if (node.isLink) return { kind: 'folder', path: node.realpath };
  if (!resolved) return { kind: 'tarball', spec: `${node.packageName}@${node.version}`, resolved: undefined };
  if (/^git(\+|:)/.test(resolved)) return gitSource(node, resolved);
  const path = resolved.startsWith('file:')
    ? resolved.slice('file:'.length)
    : isAbsolute(resolved)
      ? resolved
      : undefined;
  if (path !== undefined && !/\.(tgz|tar\.gz|tar)$/.test(path)) return { kind: 'folder', path: resolve(root, path) };
  if (path !== undefined) return { kind: 'tarball', spec: `file:${resolve(root, path)}`, resolved: undefined };
  // the public registry's address in a lock means the registry that is configured, as for npm
  const isPublic = /^https?:\/\/registry\.npmjs\.org\//.test(resolved);
  const address =
    isPublic && registry !== '' ? resolved.replace(/^https?:\/\/[^/]+/, registry.replace(/\/+$/, '')) : resolved;
  return { kind: 'tarball', spec: `${node.name}@${address}`, resolved };
}

/** A folder of this machine is for the project alone to name: what others publish could take anything from it. */
function gitSource(node: Node, resolved: string): GitSource {
  const source = parseGitSource(resolved);
  const isOwn = [...node.edgesIn].some((edge) => edge.from?.isRoot);
  if (source !== undefined && (isOwn || !source.urls.some((url) => url.startsWith('file:')))) return source;
  throw new UserError('npm-source', `'${printable(node.name)}' comes from '${printable(resolved)}'`, {
    hint: 'from git come packages by https, ssh or git, with a commit; by file: only what the project itself names',
  });
}
