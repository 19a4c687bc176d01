/**
 * The door of the npm builder: an input -> its tree -> planned packages, each with the means to make it.
 *
 * Secret: the scratch folder in which a tree is resolved and unpacked, once, and only when a package is not in the cache.
 */
import { createReadStream } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import type { Context } from '../../core/context.ts';
import { ToolError, UserError } from '../../core/errors.ts';
import { printable } from '../../core/log.ts';
import { run } from '../../core/run.ts';
import type { DebEntry } from '../../deb/archive.ts';
import { formatRelations, parseRelations } from '../../deb/relation.ts';
import type { SuiteFacts } from '../../deb/suites.ts';
import { parseVersion } from '../../deb/version.ts';
import { lastLines } from '../build-log.ts';
import { keyOf, workFolder } from '../cache.ts';
import { keyed } from '../explain.ts';
import type { BuildPolicy, Made, PackageJob, PlannedDependency } from '../job.ts';
import { type ProjectChanges, projectChanges } from '../project-changelog.ts';
import { readService, type ServiceFiles } from '../python/service.ts';
import { type Component, packageUrl } from '../sbom.ts';
import { NO_DATE } from '../source-date.ts';
import { readSuiteIndex } from '../suite-index.ts';
import { type NodeModule, resolveTree } from './arborist.ts';
import { readCopyright } from './copyright.ts';
import { packageFiles } from './files.ts';
import { allowedByProject, runInstallScripts } from './install-scripts.ts';
import {
  appHome,
  type FilledModule,
  innerPrograms,
  moduleEntries,
  moduleLinks,
  publicEntries,
  publicModule,
  storedName,
  storeHome,
  suiteEntries,
} from './layout.ts';
import { authorOf, homepageOf, licenceOf, programsOf, textOf } from './manifest.ts';
import { debianNodeName } from './names.ts';
import type { TreeRequest } from './npm-client.ts';
import { readNpmOptions } from './npmrc.ts';
import { type NodePackage, nodePackage } from './package.ts';
import { type NodeMode, type NodePlan, type PlannedNode, planNodePackages } from './plan.ts';
import { decideNode, type NodeDecisions } from './policy.ts';
import { copyProject, digestTree, type NodeProject, readNodeProject, restoreProject } from './project.ts';
import { rememberNode } from './remembered.ts';
import { inspectTarball } from './tarball.ts';
import { type NodeTarget, nodeTarget } from './target.ts';
import { packFolder, unpackTree } from './unpack.ts';

/** A folder with package.json or package-lock.json, or what npm would install: 'semver@^7', '/path/x.tgz'. */
export type NodeInput =
  | { readonly kind: 'project'; readonly folder: string }
  | { readonly kind: 'package'; readonly spec: string };

export interface NodeBuildOptions {
  readonly suite: SuiteFacts;
  /** Debian architecture of the target. */
  readonly architecture: string;
  /** '1~deb12' */
  readonly revision: string;
  readonly mode: NodeMode;
  /** Names, or NAME@VERSION, whose install scripts may run; beside `allowScripts` in package.json. */
  readonly allowScripts: readonly string[];
  readonly sourceDateEpoch: number | undefined;
  /** Debian names by npm name, for what is asked for; further relations by Debian name. */
  readonly policy?: BuildPolicy | undefined;
  /** An apt proxy, to read what the suite has. */
  readonly proxy?: string | undefined;
  /** Asks the registry again, also when it was asked minutes ago. */
  readonly refresh?: boolean | undefined;
  /** What was published later does not count: an ISO date. */
  readonly before?: string | undefined;
  /** Asked once the author is known. */
  readonly maintainer: (author: string | undefined) => Promise<string>;
}

export interface NodeBuild extends AsyncDisposable {
  /** What was asked for comes first. What they give may be read until the build is disposed. */
  readonly jobs: readonly PackageJob[];
  /** Which of the jobs needs which. */
  readonly edges: readonly (readonly [from: string, to: string])[];
  readonly warnings: readonly string[];
  /** What is left to the suite, kept from it, or left out. */
  readonly table: readonly PlannedDependency[];
  /** Of what was asked for, 'Name <mail>'. */
  readonly author: string | undefined;
  readonly maintainer: string;
}

/**
 * Resolves an input, unless that was done a moment ago, and plans its packages. Nothing is unpacked before a job is made.
 * @throws UserError for what `resolveTree`, `readNodeProject` and `planNodePackages` refuse
 */
export function prepareNode(context: Context, input: NodeInput, options: NodeBuildOptions): Promise<NodeBuild> {
  return rememberNode(context, input, options, () => prepareAnew(context, input, options));
}

async function prepareAnew(context: Context, input: NodeInput, options: NodeBuildOptions): Promise<NodeBuild> {
  const target = nodeTarget(options.suite, options.architecture);
  const project = input.kind === 'project' ? await readNodeProject(context, input.folder) : undefined;
  if (project?.tool.prepare !== undefined) await prepareSources(context, project.folder, project.tool.prepare);
  await using stack = new AsyncDisposableStack();
  const scratch = stack.use(await workFolder(context));
  const request: TreeRequest = {
    folder: join(scratch.path, 'tree'),
    add: input.kind === 'package' ? [input.spec] : [],
    npm: await readNpmOptions(context, project?.folder),
    cacheDir: join(context.cacheDir, 'npm'),
    target,
    before: options.before,
  };
  // most of what npm's resolution allocates is soon of no use: let it go sooner than V8 would
  setFlagsFromString('--heap-growing-percent=20');
  const modules = await context.log.step(`Resolve ${project?.name ?? basename(request.add[0]!)}`, async () => {
    await fillRoot(context, request, project);
    return resolveTree(context, request);
  });
  const build = await plan(context, { input, options, target, project, request, modules });
  const owned = stack.move();
  return { ...build, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

const PREPARE_LIMIT_MS = 20 * 60 * 1000;

/** The project's own command, which its owner named for this: it may do what he may. */
async function prepareSources(context: Context, folder: string, command: string): Promise<void> {
  try {
    await context.log.step(`Prepare ${basename(folder)}`, () =>
      run(context, 'sh', ['-c', command], { cwd: folder, timeoutMs: PREPARE_LIMIT_MS }),
    );
  } catch (cause) {
    if (!(cause instanceof ToolError)) throw cause;
    throw new UserError('prepare', `its "prepare" failed:\n${lastLines(cause.stderrTail)}`, {
      file: join(folder, 'package.json'),
      hint: `run it by hand in the folder: ${printable(command)}`,
      cause,
    });
  }
}

async function fillRoot(context: Context, request: TreeRequest, project: NodeProject | undefined): Promise<void> {
  if (project !== undefined) {
    await copyProject(project, request.folder, (folder) => packFolder(context, request, folder, request.folder));
    return;
  }
  await mkdir(request.folder, { recursive: true });
  await writeFile(join(request.folder, 'package.json'), '{}\n');
  const [spec = ''] = request.add;
  // npm unpacks a local tarball to read its package.json
  if (spec.startsWith('/')) await inspectTarball(createReadStream(spec) as AsyncIterable<Uint8Array>, basename(spec));
}

interface Prepared {
  readonly input: NodeInput;
  readonly options: NodeBuildOptions;
  readonly target: NodeTarget;
  readonly project: NodeProject | undefined;
  readonly request: TreeRequest;
  /** Root first, then by location. */
  readonly modules: readonly NodeModule[];
}

async function plan(context: Context, prepared: Prepared): Promise<Omit<NodeBuild, keyof AsyncDisposable>> {
  const { options, project, request, modules, target } = prepared;
  const root = modules[0]!;
  const asked = project?.name ?? root.edges[0]?.name;
  if (asked === undefined) throw new UserError('npm-input', `'${request.add[0]}' holds no npm package`);
  const decisions = await decideAll(context, options, modules, project === undefined ? asked : '');
  const nodePlan = withPolicy(
    options.policy?.depends,
    planNodePackages(decisions.kept, {
      mode: options.mode,
      present: decisions.present,
      rename: options.policy?.rename,
      appName: options.policy?.rename?.[asked] ?? project?.debianName ?? debianNodeName(asked),
      isProject: project !== undefined,
      asked,
      revision: options.revision,
      nodeVersion: target.nodeVersion,
      suite: options.suite.codename,
    }),
  );
  const subject = nodePlan.packages[0]!.subject;
  const service = project === undefined ? undefined : await serviceOf(project, options.suite);
  const past = project && (await projectChanges(context, project.folder, pastOf(nodePlan.packages[0]!)));
  const author = authorOf(project?.manifest ?? subject.manifest);
  const maintainer = await options.maintainer(author);
  const sourceDateEpoch = options.sourceDateEpoch ?? project?.date ?? NO_DATE;
  const allowed = [...options.allowScripts, ...allowedByProject(root.manifest)].sort();
  const digest = project === undefined ? undefined : keyOf([await digestTree(request.folder), project.manifestText]);
  const unpacked = once(() => unpack(context, prepared, nodePlan, new Set(allowed), sourceDateEpoch));
  const jobs = nodePlan.packages.map((planned): PackageJob => {
    const source =
      planned.kind !== 'store' && project !== undefined
        ? `its source tree, version ${project.version}`
        : `npm:${planned.subject.name}@${planned.subject.version}`;
    const facts = { suite: options.suite, architecture: options.architecture, maintainer, sourceDateEpoch, source };
    const own = planned.kind === 'store' ? undefined : service;
    const ownPast = planned.kind === 'store' ? undefined : past;
    return {
      name: planned.debianName,
      version: planned.version,
      source,
      why: planned.why,
      ...jobKey(
        planned,
        nodePlan,
        { architecture: facts.architecture, maintainer, date: sourceDateEpoch, source, suite: options.suite.codename },
        {
          allowed,
          digest: planned.kind === 'store' ? undefined : digest,
          service: own,
          past: ownPast,
        },
      ),
      sourceDateEpoch,
      make: async () => {
        const contents = await unpacked();
        const made = await compose(planned, contents, prepared, { ...facts, service: own, past: ownPast });
        const components = planned.modules.map(componentOf);
        if (planned.kind === 'store') return { ...made, components };
        return { ...made, components, warnings: [...contents.warnings, ...made.warnings] };
      },
    };
  });
  const nameOf = new Map(nodePlan.packages.map((one) => [one.storeKey, one.debianName]));
  const present = new Set([...decisions.present.values()].map((one) => one.debianName));
  const edges = nodePlan.packages.flatMap((one) => {
    const suite = one.depends.flatMap((group) => group.map((relation) => relation.name));
    const names = [
      ...[...one.links.values()].map((key) => nameOf.get(key)!),
      ...suite.filter((name) => present.has(name)),
    ];
    return [...new Set(names)].map((name) => [one.debianName, name] as const);
  });
  return { jobs, edges, warnings: nodePlan.warnings, table: decisions.table, author, maintainer };
}

/** @throws UserError `not-in-suite` */
async function decideAll(
  context: Context,
  options: NodeBuildOptions,
  modules: readonly NodeModule[],
  asked: string,
): Promise<NodeDecisions> {
  const { deps: mode = 'packages', mirror, ...policy } = options.policy ?? {};
  const isPlain = (mode === 'packages' || mode === 'bundle') && !policy.present?.length && !policy.drop?.length;
  if (isPlain) return { kept: modules, present: new Map(), table: [], problems: [] };
  const { architecture, proxy, suite } = options;
  const wantsSuite = mode === 'auto' || mode === 'distro' || Boolean(policy.present?.length);
  const index = wantsSuite ? await readSuiteIndex(context, suite.codename, architecture, { mirror, proxy }) : new Map();
  const decisions = decideNode({ modules, asked, mode, policy, suite: index, architecture });
  if (decisions.problems.length === 0) return decisions;
  const lines = decisions.problems.map((line) => `  ${line}`).join('\n');
  throw new UserError('not-in-suite', `${suite.codename} does not have all that is needed:\n${lines}`, {
    hint: "carry what is missing (deps: auto), or name it under 'build' or 'vendor'",
  });
}

function componentOf({ name, version, manifest, integrity }: NodeModule): Component {
  const real = textOf(manifest.name) || name;
  const [, algorithm, base64 = ''] = /^(sha1|sha256|sha512)-([A-Za-z0-9+/=]+)/.exec(integrity ?? '') ?? [];
  return {
    name: real,
    version,
    purl: packageUrl('npm', real, version),
    licence: licenceOf(manifest),
    homepage: homepageOf(manifest),
    ...(algorithm === undefined
      ? {}
      : {
          digest: {
            algorithm: algorithm as 'sha1' | 'sha256' | 'sha512',
            hex: Buffer.from(base64, 'base64').toString('hex'),
          },
        }),
  };
}

function withPolicy(depends: BuildPolicy['depends'], nodePlan: NodePlan): NodePlan {
  const packages = nodePlan.packages.map((one) => {
    const more = depends?.[one.debianName] ?? [];
    return { ...one, depends: [...one.depends, ...more.flatMap((text) => parseRelations(text))] };
  });
  return { ...nodePlan, packages };
}

function pastOf({ debianName, version }: PlannedNode): { readonly name: string; readonly version: string } {
  return { name: debianName, version: parseVersion(version).upstream };
}

async function serviceOf(project: NodeProject, suite: SuiteFacts): Promise<ServiceFiles | undefined> {
  const { folder, name, tool } = project;
  return readService({ folder, name, tool, author: undefined }, suite);
}

/** undefined: something in it has no digest that is known beforehand. */
function jobKey(
  planned: PlannedNode,
  nodePlan: NodePlan,
  facts: Readonly<Record<string, unknown>>,
  own: {
    readonly allowed: readonly string[];
    readonly digest: string | undefined;
    readonly service: ServiceFiles | undefined;
    readonly past: ProjectChanges | undefined;
  },
): Pick<PackageJob, 'key' | 'parts'> {
  const linked = nodePlan.packages.filter(
    (one) => one.storeKey !== undefined && [...planned.links.values()].includes(one.storeKey),
  );
  const modules = [planned, ...linked].flatMap((one) => one.modules);
  const digests = modules.map((one) => [one.location, one.version, digestOf(one) ?? null]);
  const isKnown = modules.every((one) => one.inBundle || one.location === '' || digestOf(one) !== undefined);
  if (!isKnown) return { key: undefined };
  const { service } = own;
  return keyed({
    kind: `npm ${planned.kind}`,
    ...facts,
    name: planned.debianName,
    version: planned.version,
    depends: formatRelations(planned.depends),
    links: [...planned.links],
    'links to the suite': [...planned.suiteLinks],
    modules: digests,
    'allowed scripts': own.allowed,
    'the source': own.digest ?? null,
    'its changelog': own.past ?? null,
    'the service and its files':
      service === undefined ? null : { ...service, entries: service.entries.map(describeEntry) },
  });
}

function digestOf({ integrity, source }: NodeModule): string | undefined {
  return source?.kind === 'git' ? source.commit : integrity;
}

function describeEntry(entry: DebEntry): unknown {
  const { source } = entry;
  const data = source !== undefined && 'data' in source ? source.data : '';
  return [entry.path, entry.mode, Buffer.from(data as string).toString('base64')];
}

interface Contents {
  /** By location. */
  readonly filled: ReadonlyMap<string, FilledModule>;
  /** Architecture of store packages that hold programs for one kind of machine. */
  readonly nativeStores: ReadonlySet<string>;
  /** Locations of modules whose install scripts ran. */
  readonly ran: ReadonlySet<string>;
  readonly warnings: readonly string[];
}

async function unpack(
  context: Context,
  prepared: Prepared,
  nodePlan: NodePlan,
  allowed: ReadonlySet<string>,
  sourceDateEpoch: number,
): Promise<Contents> {
  const { request, modules, target, project, options } = prepared;
  const { folder } = request;
  const policy = { allowed, nodeDir: typeof request.npm.nodedir === 'string' ? request.npm.nodedir : undefined };
  const scripts = { folder, policy, target, suite: options.suite, sourceDateEpoch };
  const warnings = await context.log.step(`Unpack ${modules.length - 1} npm packages`, () =>
    unpackTree(context, request, modules, scripts),
  );
  const outcome = await runInstallScripts(context, scripts, modules);
  if (project !== undefined) await restoreProject(project, folder);
  const filled = new Map<string, FilledModule>();
  for (const planned of nodePlan.packages) {
    const interpreter = runtimeOf(planned);
    for (const module of planned.modules)
      filled.set(module.location, await fill(module, prepared, outcome.ran, interpreter));
  }
  const native = nodePlan.packages.filter(
    (one) =>
      one.storeKey !== undefined &&
      one.modules.some((module) => filled.get(module.location)!.files.some((file) => file.native)),
  );
  return {
    filled,
    nativeStores: new Set(native.map((one) => one.storeKey!)),
    ran: outcome.ran,
    warnings: [...warnings, ...outcome.warnings],
  };
}

/** Where the Node.js that a package carries is installed; undefined: it has the system's. */
function runtimeOf({ runtime, debianName }: PlannedNode): string | undefined {
  const path = runtime && programsOf(runtime.name, runtime.manifest).get('node');
  return path && `${appHome(debianName)}/${runtime.location}/${path}`;
}

async function fill(
  module: NodeModule,
  prepared: Prepared,
  built: ReadonlySet<string>,
  interpreter?: string,
): Promise<FilledModule> {
  const programs = new Set(programsOf(module.name, module.manifest).values());
  const all = await packageFiles(
    join(prepared.request.folder, module.location),
    programs,
    prepared.target,
    interpreter,
  );
  // of a Node.js that is carried, headers and manuals are for those who compile
  const isRuntime = interpreter !== undefined && programs.has('bin/node');
  const isWanted = (path: string) =>
    !(built.has(module.location) && isBuildLitter(path)) && !(isRuntime && /^(include|share)\//.test(path));
  return { module, files: all.filter((file) => isWanted(file.path)) };
}

/** What node-gyp leaves beside the add-on: objects, makefiles, its own configuration with paths of this machine. */
function isBuildLitter(path: string): boolean {
  return /^build\//.test(path) && !/^build\/Release\/[^/]+\.node$/.test(path);
}

async function compose(
  planned: PlannedNode,
  contents: Contents,
  prepared: Prepared,
  facts: Omit<Parameters<typeof nodePackage>[4], 'isTiedToMachine'>,
): Promise<NodePackage & Pick<Made, 'isCompiledHere'>> {
  const { options, request, project } = prepared;
  const filled = planned.modules.map((module) => contents.filled.get(module.location)!);
  const homeOf = (key: string) => storeHome(key, contents.nativeStores.has(key) ? options.architecture : undefined);
  const home = planned.storeKey === undefined ? appHome(planned.debianName) : homeOf(planned.storeKey);
  const base = planned.storeKey === undefined ? '' : planned.subject.location;
  const inner = planned.storeKey === undefined ? home : `${home}/${storedName(planned.storeKey)}`;
  const place = (module: NodeModule): string => {
    const below = module.location.slice(base.length).replace(/^\/+/, '');
    return below === '' ? inner : `${inner}/${below}`;
  };
  const linkFolder = planned.storeKey === undefined ? `${home}/node_modules` : home;
  const placed = [
    ...moduleEntries(filled, place),
    ...moduleLinks(linkFolder, planned.links, homeOf),
    ...suiteEntries(planned.kind === 'store' ? dirname(home) : home, planned.suiteLinks),
  ];
  if (planned.kind === 'bundle') placed.push(...innerPrograms(filled, home));
  if (planned.kind !== 'store') {
    const subject = contents.filled.get(planned.subject.location) ?? (await fill(planned.subject, prepared, new Set()));
    const at = placeOfSubject(planned, place, homeOf);
    placed.push(...(await publicEntries(subject, at)));
    if (project === undefined || planned.debianName === debianNodeName(project.name))
      placed.push(...publicModule(subject, at));
  }
  const copyrights = await Promise.all(
    [planned.subject, ...planned.modules.filter((one) => one !== planned.subject)].map((module, index) =>
      readCopyright(
        join(request.folder, module.location),
        module.name,
        module.manifest,
        index === 0 ? '*' : `${place(module).slice(1)}/*`,
      ),
    ),
  );
  const isTiedToMachine = [...planned.links.values()].some((key) => contents.nativeStores.has(key));
  const made = nodePackage(planned, filled, placed, copyrights, { ...facts, isTiedToMachine });
  const compiled = planned.modules.filter((one) => contents.ran.has(one.location)).map((one) => `${place(one)}/build/`);
  if (compiled.length === 0) return made;
  const isCompiledHere = (path: string) => compiled.some((folder) => path.startsWith(folder));
  return { ...made, isCompiledHere };
}

/** Where the files of what was asked for really are. */
function placeOfSubject(
  planned: PlannedNode,
  place: (module: NodeModule) => string,
  homeOf: (key: string) => string,
): string {
  const key =
    planned.kind === 'app' && planned.subject.location !== '' ? planned.links.get(planned.subject.name) : undefined;
  return key === undefined ? place(planned.subject) : `${homeOf(key)}/${storedName(key)}`;
}

function once<T>(body: () => Promise<T>): () => Promise<T> {
  let under: Promise<T> | undefined;
  return () => {
    under ??= body();
    return under;
  };
}
