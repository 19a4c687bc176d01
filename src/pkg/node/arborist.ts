/**
 * npm's own tree: which package in which version lies where below node_modules, and putting it there.
 *
 * Secret: @npmcli/arborist and pacote (sole user of both), what their errors mean, and what they must not do here: run scripts,
 * clone from git, look at this machine's processor, write into the user's project. What leaves this module is plain data.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type Arborist from '@npmcli/arborist';
import pLimit from 'p-limit';
import type { RunContext } from '../../core/context.ts';
import { BuildkitError, errnoOf, type Problem, ProblemsError, RemoteError, UserError } from '../../core/errors.ts';
import { explainWriteError } from '../../core/files.ts';
import { printable } from '../../core/log.ts';
import type { NpmOptions } from './npmrc.ts';
import { inspectTarball } from './tarball.ts';
import { listTakes, type NodeTarget } from './target.ts';

const FETCHES_AT_ONCE = 8;

/** package.json as published; only what was checked may be trusted to have its type. */
export type Manifest = Readonly<Record<string, unknown>>;

export interface NodeEdge {
  readonly name: string;
  /** As in package.json: '^1.2.3', 'npm:other@1'. */
  readonly spec: string;
  readonly kind: 'prod' | 'optional' | 'peer' | 'peerOptional';
  /** Location of the module that it resolves to; undefined: none (optional, or for another platform). */
  readonly to: string | undefined;
}

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
  readonly edges: readonly NodeEdge[];
}

/** A resolved tree. Nothing is unpacked until `install`. */
export interface ResolvedTree {
  /** Root first, then by location. */
  readonly modules: readonly NodeModule[];
  /**
   * Fetches, inspects and unpacks every module below the folder of the request.
   * @throws UserError `unsafe-tarball`, `broken-tarball`; RemoteError
   */
  install(): Promise<void>;
}

export interface TreeRequest {
  /** Holds package.json (and a lock); node_modules is made there. */
  readonly folder: string;
  /** Further things to have: 'semver@^7', a path of a tarball. */
  readonly add: readonly string[];
  readonly npm: NpmOptions;
  readonly cacheDir: string;
  readonly target: NodeTarget;
}

/**
 * Resolves as `npm ci` where the folder has a lock, as `npm install` otherwise. Development dependencies are left out.
 * @throws UserError `npm-not-found`, `npm-no-version`, `unresolvable`, `npm-platform`, `npm-input`, `npm-source`;
 *   ProblemsError `lock-disagrees`; RemoteError `npm-registry`, `digest-mismatch`
 */
export async function resolveTree(context: RunContext, request: TreeRequest): Promise<ResolvedTree> {
  const { default: ArboristClass } = await import('@npmcli/arborist');
  const options = arboristOptions(context, request);
  const arborist = new ArboristClass(options);
  const ideal = await guarded(context, request, () =>
    arborist.buildIdealTree({ add: [...request.add], omit: ['dev'] } as Arborist.BuildIdealTreeOptions),
  );
  const nodes = wantedNodes(ideal);
  await refuseOtherThanLocked(request.folder, nodes);
  refusePlatforms(nodes, request.target);
  refuseSources(nodes);
  return {
    modules: nodes.map(toModule),
    async install() {
      await inspectAll(context, request, nodes, options);
      const reify = { add: [...request.add], omit: ['dev'], save: false } satisfies Arborist.ReifyOptions;
      await guarded(context, request, () => arborist.reify(reify));
    },
  };
}

/**
 * Copies what `npm pack` would take of a project into `target`. No script runs.
 * @throws UserError `npm-input`
 */
export async function packProject(context: RunContext, request: TreeRequest, project: string): Promise<void> {
  const [{ default: ArboristClass }, { default: pacote }] = await Promise.all([
    import('@npmcli/arborist'),
    import('pacote'),
  ]);
  const options = { ...arboristOptions(context, request), Arborist: ArboristClass };
  await guarded(context, request, () => pacote.extract(`file:${project}`, request.folder, options));
}

function arboristOptions(context: RunContext, request: TreeRequest): Arborist.Options {
  const { npm, target } = request;
  const options = {
    ...npm,
    path: request.folder,
    cache: request.cacheDir,
    signal: context.signal,
    ignoreScripts: true,
    allowGit: 'none',
    installLinks: true, // a folder becomes a copy: links to this machine's folders are nothing to package
    binLinks: true,
    audit: false,
    fund: false,
    os: target.os,
    cpu: target.cpu,
    libc: target.libc,
    nodeVersion: `v${target.nodeVersion}`,
  };
  return options as unknown as Arborist.Options;
}

/** A node of arborist, with what its types leave out. */
type Node = Arborist.Node & {
  readonly inert?: boolean;
  shouldOmit(omit: ReadonlySet<string>): boolean;
  readonly package: Manifest & { readonly os?: string[]; readonly cpu?: string[]; readonly libc?: string[] };
};

const OMIT = new Set(['dev']);

function wantedNodes(ideal: Arborist.Node): Node[] {
  const nodes = [...ideal.inventory.values()] as Node[];
  return nodes
    .filter((node) => node.isRoot || (!node.inert && !node.extraneous && !node.shouldOmit(OMIT)))
    .sort((a, b) => (a.location < b.location ? -1 : 1));
}

function toModule(node: Node): NodeModule {
  const edges: NodeEdge[] = [];
  for (const edge of node.edgesOut.values()) {
    const kind = edge.type as string;
    if (kind === 'dev' || kind === 'workspace') continue;
    const to = edge.to as Node | null;
    const isThere = to !== null && !to.inert && !to.shouldOmit(OMIT) && edge.valid;
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

function platformError(name: string, version: string, target: NodeTarget): UserError {
  return new UserError('npm-platform', `'${printable(name)}' ${printable(version)} is not for ${target.architecture}`, {
    hint: `its os, cpu or libc leave out ${target.os}, ${target.cpu}, ${target.libc}`,
  });
}

function refuseSources(nodes: readonly Node[]): void {
  const fromGit = nodes.find((node) => /^git(\+|:)/.test(node.resolved ?? ''));
  if (fromGit) throw gitError(fromGit.name);
}

function gitError(name: string): UserError {
  return new UserError(
    'npm-source',
    `'${printable(name)}' comes from git, which buildkit does not fetch npm packages from`,
    {
      hint: 'depend on a release in a registry, or on a tarball of it (npm pack)',
    },
  );
}

/** Every tarball is looked through before npm unpacks any. They come from npm's cache afterwards. */
async function inspectAll(
  context: RunContext,
  request: TreeRequest,
  nodes: readonly Node[],
  options: Arborist.Options,
): Promise<void> {
  const { tarball } = (await import('pacote')).default;
  const limit = pLimit(FETCHES_AT_ONCE);
  let done = 0;
  const wanted = nodes.filter((node) => !node.isRoot && !node.isLink && !node.inBundle && !isFolder(node));
  await guarded(context, request, () =>
    Promise.all(
      wanted.map((node) =>
        limit(async () => {
          context.signal?.throwIfAborted();
          const spec = tarballSpec(node, String(request.npm.registry ?? ''));
          const exact = {
            ...options,
            ...(node.integrity ? { integrity: node.integrity } : {}),
          } as Parameters<typeof tarball.stream>[2];
          const name = `${node.name}@${node.version}`;
          await tarball.stream(spec, (stream) => inspectTarball(stream as AsyncIterable<Uint8Array>, name), exact);
          done += 1;
          context.log?.progress('npm packages', done, wanted.length);
        }),
      ),
    ),
  );
}

function isFolder(node: Node): boolean {
  return node.resolved?.startsWith('file:') === true && !/\.(tgz|tar\.gz|tar)$/.test(node.resolved);
}

/** The public registry's address in a lock means the registry that is configured, as for npm. */
function tarballSpec(node: Node, registry: string): string {
  const { resolved } = node;
  if (!resolved) return `${node.packageName}@${node.version}`;
  const isPublic = /^https?:\/\/registry\.npmjs\.org\//.test(resolved);
  return `${node.name}@${isPublic && registry !== '' ? resolved.replace(/^https?:\/\/[^/]+/, registry.replace(/\/+$/, '')) : resolved}`;
}

interface NpmError extends Error {
  readonly code?: string;
  readonly statusCode?: number;
  readonly uri?: string;
  readonly pkgid?: string;
  readonly spec?: { readonly raw?: string };
  readonly explanation?: unknown;
  readonly required?: unknown;
  readonly wanted?: string;
  readonly versions?: readonly string[];
  readonly file?: string;
}

const NETWORK = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'ESOCKETTIMEDOUT',
  'ENETUNREACH',
  'EHOSTUNREACH',
  'EPROTO',
  'ERR_SOCKET_TIMEOUT',
  'EIDLETIMEOUT',
  'ECONNECTIONTIMEOUT',
  'ERESPONSETIMEOUT',
  'ETRANSFERTIMEOUT',
  'EBADSIZE',
  'FETCH_ERROR',
  'ENOTCACHED',
]);

async function guarded<T>(context: RunContext, request: TreeRequest, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (cause) {
    context.signal?.throwIfAborted();
    if (cause instanceof BuildkitError || !(cause instanceof Error)) throw cause;
    throw explain(cause as NpmError, request);
  }
}

function explain(cause: NpmError, request: TreeRequest): unknown {
  const url = cause.uri ?? String(request.npm.registry ?? 'the registry');
  const what = printable(cause.message.split('\n')[0]!);
  const code = cause.code ?? '';
  const asked = printable(cause.pkgid ?? cause.spec?.raw ?? request.add.join(', '));
  const certificate = /CERT|SELF_SIGNED|UNABLE_TO_/.test(code);
  if (code === 'E404') {
    return new UserError('npm-not-found', `the registry has no '${asked.replace(/@$/, '')}'`, {
      hint: "check the spelling; a private package needs its registry in .npmrc: '@scope:registry=URL'",
      cause,
    });
  }
  if (code === 'ETARGET' || code === 'ENOVERSIONS') {
    const newest = cause.versions?.slice(-5).join(', ');
    return new UserError('npm-no-version', `no version of '${asked}' is in that range`, {
      hint: newest ? `the last published ones: ${printable(newest)}` : 'look at its versions: npm view NAME versions',
      cause,
    });
  }
  if (code === 'ERESOLVE') return unresolvable(cause);
  if (code === 'EINTEGRITY') {
    return new RemoteError(
      'digest-mismatch',
      `a tarball has other content than the lock or the registry says: ${what}`,
      {
        url,
        hint: 'nothing was kept; when it stays so, do not trust this registry',
        cause,
      },
    );
  }
  if (code === 'EBADPLATFORM') return platformError(cause.pkgid ?? request.add.join(', '), '', request.target);
  if (code === 'EALLOWGIT' || code === 'EALLOWREMOTE') return gitError(asked);
  if (
    /^EINVALID|^EUNSUPPORTEDPROTOCOL$|^ELOCKFILEVERSION$|^EJSONPARSE$|^EOVERRIDE$/.test(code) ||
    cause.name === 'JSONParseError'
  ) {
    return new UserError('npm-input', `npm cannot take this: ${what}`, { file: cause.file, cause });
  }
  if (NETWORK.has(code) || certificate || cause.statusCode !== undefined || /^E[45]\d\d$/.test(code)) {
    return new RemoteError('npm-registry', `the npm registry does not answer as it should: ${what}`, {
      url,
      status: cause.statusCode,
      hint: certificate
        ? 'name its certificate in .npmrc: cafile=PATH'
        : 'see where npm looks: npm config get registry; then run the command again',
      cause,
    });
  }
  if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EISDIR') {
    return new UserError('npm-input', `npm cannot read a file that it needs: ${what}`, { cause });
  }
  return errnoOf(cause) === undefined ? cause : explainWriteError(cause, request.folder);
}

interface Explained {
  readonly name?: string;
  readonly version?: string;
  readonly spec?: string;
  readonly from?: Explained & { readonly location?: string };
  readonly dependents?: readonly Explained[];
}

/** Both chains of a conflict: who wants what, up to the project. */
function unresolvable(cause: NpmError): UserError {
  const conflict = cause as unknown as {
    readonly edge?: Explained;
    readonly current?: Explained;
    readonly currentEdge?: Explained;
    readonly peerConflict?: { readonly peer?: Explained } | null;
  };
  const chain = (edge: Explained | undefined): string => {
    const steps: string[] = [];
    for (let at = edge, depth = 0; at !== undefined && depth < 8; depth += 1) {
      const from: Explained | undefined = at.from;
      const who = from?.name === undefined ? 'the project' : `${from.name}${from.version ? `@${from.version}` : ''}`;
      if (at.name !== undefined) steps.push(`${who} needs ${at.name}@${at.spec ?? '*'}`);
      at = from?.dependents?.[0];
    }
    return printable(steps.join('; ') || 'unknown');
  };
  const have = conflict.current;
  const chains = [
    chain(conflict.edge),
    chain(have?.dependents?.[0] ?? conflict.currentEdge ?? conflict.peerConflict?.peer),
  ];
  return new UserError('unresolvable', `two needs exclude each other:\n  ${chains.join('\n  ')}`, {
    hint: "change one of the two ranges, or accept npm's old ways: legacy-peer-deps=true in .npmrc",
    cause,
  });
}
