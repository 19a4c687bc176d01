/**
 * The door of pkg: source -> .deb files of it and of everything that it needs.
 *
 * Reads top to bottom: inputs -> planned packages (each builder for its kind) -> one .deb for each, in parallel, in the cache
 * -> checked against each other -> placed in the folder asked for. Nothing appears there before all of it is made.
 */
import { availableParallelism, machine } from 'node:os';
import { join } from 'node:path';
import pLimit from 'p-limit';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { writeFileAtomic } from '../core/files.ts';
import { debArch } from '../deb/arch.ts';
import type { Compression } from '../deb/compression.ts';
import { type BinaryPackage, debFileName } from '../deb/package.ts';
import { suiteFacts, suiteMark } from '../deb/suites.ts';
import type { Explanation } from './explain.ts';
import { findClashes, relationsAmong } from './file-conflicts.ts';
import { readInputs } from './inputs.ts';
import type { BuildPolicy, DependencyMode, PackageJob, PlannedDependency } from './job.ts';
import { chooseMaintainer } from './maintainer.ts';
import { prepareManifest } from './manifest/builder.ts';
import type { NodeBuildOptions } from './node/builder.ts';
import { expandWorkspaces } from './node/workspaces.ts';
import { type Built, buildJob, type ExtraRelations, placePackages } from './produce.ts';
import { type PublishedPackage, refuseOldVersions } from './published.ts';
import { preparePython } from './python/builder.ts';
import type { Isolation } from './root/choose.ts';
import { buildSources, planSources, readSources } from './source-package/prepare.ts';
import type { DebianSource } from './source-package/read.ts';
import { prepareTree } from './tree/builder.ts';

export type { DependencyMode };

export interface BuildRequest {
  /** Folders and requirements as the user wrote them: '.', 'flask', 'flask>=3', 'pypi:flask==3.1.3', 'x.whl'. */
  readonly inputs: readonly string[];
  /** What relative folders refer to. */
  readonly cwd: string;
  /** Codename: 'bookworm'. */
  readonly suite: string;
  /** Where the .deb files go; made when missing. */
  readonly outDir: string;
  /** Debian architecture; default: this machine's. */
  readonly architecture?: string | undefined;
  /** The Debian revision before the suite mark; default '1'. */
  readonly packagingVersion?: string | undefined;
  /** Of trees and package sections that do not say it; default: from git's tags. */
  readonly upstreamVersion?: string | undefined;
  /** "Name <mail>"; default: DEBFULLNAME and DEBEMAIL, git, or the project's author. */
  readonly maintainer?: string | undefined;
  /** Default 'xz'. */
  readonly compression?: Compression | undefined;
  /** What becomes of dependencies; default: each is built. */
  readonly policy?: BuildPolicy | undefined;
  /** Writes a bill of materials beside each package: SPDX 2.3. */
  readonly sbom?: boolean | undefined;
  /** Looks in the suite's Contents for packages that have the same files. */
  readonly checkContents?: boolean | undefined;
  /** What the suite of the repository has: every version must sort above it, or be it, byte for byte. */
  readonly published?: readonly PublishedPackage[] | undefined;
  /** An apt proxy for what is read from the suite's mirror; pip and npm have theirs in the environment. */
  readonly proxy?: string | undefined;
  /** Where sources are built; default 'auto'. */
  readonly isolation?: Isolation | undefined;
  /** Writes a .changes and a .buildinfo beside the packages. */
  readonly changes?: boolean | undefined;
  /** Builds in a root may reach the network; default no. */
  readonly network?: boolean | undefined;
  /** After which a build of a source is ended. */
  readonly timeLimitMs?: number | undefined;
  /** Asks the index again, also when it was asked minutes ago. */
  readonly refresh?: boolean | undefined;
  /** Python requirements that hold off other versions, where anything needs what they name: 'flask==3.1.3'. */
  readonly constraints?: readonly string[] | undefined;
  /** npm packages that were published later do not count: an ISO date. */
  readonly before?: string | undefined;
}

export interface PlannedPackage {
  /** Debian's name. */
  readonly name: string;
  /** Debian's version, whole. */
  readonly version: string;
  /** Where it comes from: 'pypi:flask==3.1.3', a folder. */
  readonly source: string;
  /** 'asked for', 'needed by python3-flask'. */
  readonly why: string;
  readonly decision: 'build';
}

export interface BuildPlan {
  /** What would be built. */
  readonly packages: readonly PlannedPackage[];
  /** Every distribution of the closure and what becomes of it. */
  readonly table: readonly PlannedDependency[];
  /** Who needs whom, by the names in `packages`. */
  readonly edges: readonly (readonly [from: string, to: string])[];
}

export interface BuildResult {
  /** Every package of the closure, those asked for first. */
  readonly packages: readonly BinaryPackage[];
  /** Names of the packages that the inputs stand for: what a test machine should install. */
  readonly asked: readonly string[];
  /** .changes and .buildinfo files. */
  readonly lists: readonly string[];
  /** How many were built now; the others were there, byte for byte. */
  readonly built: number;
  readonly reused: number;
  /** Why each was made anew or taken from the cache. */
  readonly explained: readonly (Explanation & { readonly name: string; readonly version: string })[];
}

/** Resolves the closure and says what `buildPackages` would build. Writes nothing outside the cache. */
export async function planBuild(context: Context, request: BuildRequest): Promise<BuildPlan> {
  await using prepared = await prepare(context, request);
  const { jobs, table, edges } = prepared;
  const rows = planSources(prepared.sources);
  refuseOldVersions([...jobs, ...rows], request.published);
  const packages = [...jobs, ...rows].map(
    ({ name, version, source, why }): PlannedPackage => ({ name, version, source, why, decision: 'build' }),
  );
  return { packages, table: [...table, ...rows], edges };
}

/**
 * Builds every package of the closure into `outDir`.
 * @throws UserError for a closure that cannot be, for names and files that clash, for sources that do not build
 */
export async function buildPackages(context: Context, request: BuildRequest): Promise<BuildResult> {
  await using prepared = await prepare(context, request);
  const { jobs } = prepared;
  refuseOldVersions(jobs, request.published);
  const limit = pLimit(availableParallelism());
  const options = {
    compression: request.compression ?? 'xz',
    line: `${request.suite} ${request.architecture ?? debArch(machine())}`,
  };
  const buildAll = () => Promise.all(jobs.map((job) => limit(() => buildJob(context, job, options))));
  const title = `Build ${jobs.length} packages for ${request.suite}`;
  const first = jobs.length === 0 ? [] : await context.log.step(title, buildAll);
  const relations = await fileRelations(context, request, first, prepared.edges);
  const built = await Promise.all(
    jobs.map((job, index) => {
      const more = relations.get(job.name);
      return more === undefined ? first[index]! : limit(() => buildJob(context, job, { ...options, relations: more }));
    }),
  );
  const warnings = new Set([...prepared.warnings, ...built.flatMap((one) => one.warnings), ...saidOf(relations)]);
  for (const warning of warnings) context.log.warn(warning);
  const made = built.flatMap((one) => (one.debug === undefined ? [one.package] : [one.package, one.debug]));
  refuseOldVersions(made, request.published);
  const sources = await buildSources(context, prepared.sources, { ...request, mirror: request.policy?.mirror });
  const placed = await placePackages(context, made, request.outDir);
  const asked = [...jobs.filter((job) => job.why === 'asked for').map((job) => job.name), ...sources.asked];
  if (request.sbom) await writeSboms(context, built, request.outDir);
  const lists = request.changes ? await writeLists(context, request, prepared.closure, placed.packages, asked) : [];
  const rank = (one: BinaryPackage) => (asked.includes(one.name) ? 0 : 1);
  return {
    packages: [...placed.packages, ...sources.packages].toSorted((a, b) => rank(a) - rank(b)),
    asked,
    lists: [...sources.files.filter((file) => /\.(changes|buildinfo)$/.test(file)), ...lists],
    built: placed.written + sources.built,
    reused: placed.kept + sources.reused,
    explained: jobs.map(({ name, version }, index) => ({ name, version, ...built[index]!.explanation })),
  };
}

async function writeLists(
  context: Context,
  request: BuildRequest,
  closure: readonly string[],
  packages: readonly BinaryPackage[],
  asked: readonly string[],
): Promise<string[]> {
  const { requestSchema, writeBuildLists } = await import('./buildinfo.ts');
  const recorded = { request: requestSchema.parse(request), closure: [...new Set(closure)].sort() };
  return writeBuildLists(context, packages, asked, recorded, request.outDir);
}

/** What packages must say of others that have the same files. @throws ProblemsError `file-clash` */
async function fileRelations(
  context: Context,
  request: BuildRequest,
  built: readonly Built[],
  edges: Prepared['edges'],
): Promise<Map<string, ExtraRelations>> {
  const owned = built.map((one) => ({ name: one.package.name, paths: one.paths }));
  const relations = relationsAmong(findClashes(owned), edges);
  if (!request.checkContents) return relations;
  const { suiteRelations } = await import('./suite-conflicts.ts');
  for (const [name, more] of await suiteRelations(context, request, built)) {
    const known = relations.get(name);
    const both = (field: 'Conflicts' | 'Replaces') => [...(known?.[field] ?? []), ...(more[field] ?? [])];
    relations.set(name, { Conflicts: both('Conflicts'), Replaces: both('Replaces') });
  }
  return relations;
}

function saidOf(relations: ReadonlyMap<string, ExtraRelations>): string[] {
  return [...relations].map(
    ([name, { Conflicts = [] }]) =>
      `'${name}' has files that ${Conflicts.join(', ')} ${Conflicts.length > 1 ? 'have' : 'has'}, too: it conflicts with and replaces it`,
  );
}

async function writeSboms(context: Context, built: readonly Built[], outDir: string): Promise<void> {
  const { sbomText } = await import('./sbom.ts');
  for (const { package: one, components, date } of built) {
    context.signal.throwIfAborted();
    const name = debFileName(one.name, one.version, one.architecture).replace(/\.deb$/, '.spdx.json');
    await writeFileAtomic(join(outDir, name), sbomText(one, components, date, 'buildkit'));
  }
}

function sourceDateEpoch(context: Context): number | undefined {
  const text = context.env.SOURCE_DATE_EPOCH;
  return text !== undefined && /^\d{1,12}$/.test(text) ? Number(text) : undefined;
}

/** What all builders planned; disposing frees what they hold to make it. */
interface Prepared extends AsyncDisposable {
  readonly jobs: readonly PackageJob[];
  /** Debian source packages: dpkg-buildpackage makes all of their packages. */
  readonly sources: readonly DebianSource[];
  readonly table: readonly PlannedDependency[];
  readonly edges: readonly (readonly [from: string, to: string])[];
  readonly warnings: readonly string[];
  /** Versions that indexes led to: 'pypi:flask==3.1.3', 'npm:yo@5.1.0'; also of what is carried inside. */
  readonly closure: readonly string[];
}

async function prepare(context: Context, request: BuildRequest): Promise<Prepared> {
  const suite = suiteFacts(request.suite);
  const options = {
    suite,
    architecture: request.architecture ?? debArch(machine()),
    revision: `${request.packagingVersion ?? '1'}~${suiteMark(request.suite)}`,
    sourceDateEpoch: sourceDateEpoch(context),
    policy: request.policy ?? {},
    refresh: request.refresh ?? false,
    proxy: request.proxy,
    isolation: request.isolation,
    network: request.network,
    timeLimitMs: request.timeLimitMs,
    upstreamVersion: request.upstreamVersion,
    before: request.before,
    maintainer: (author: string | undefined) => chooseMaintainer(context, request.maintainer, [author]),
  };
  const inputs = await readInputs(request.inputs, request.cwd);
  const jobs: PackageJob[] = [];
  const table: PlannedDependency[] = [];
  const edges: (readonly [string, string])[] = [];
  const warnings: string[] = [];
  const others: PlannedDependency[] = [];
  await using stack = new AsyncDisposableStack();
  for (const folder of inputs.trees) jobs.push(await prepareTree(context, folder, options));
  for (const { folder, manifest } of inputs.manifests) {
    jobs.push(await prepareManifest(context, folder, manifest, options));
  }
  for (const input of await expandWorkspaces(inputs.node)) {
    const { prepareNode } = await import('./node/builder.ts'); // npm's own code is large: loaded for those who need it
    const node = stack.use(await prepareNode(context, input, { ...options, ...nodeOptions(options.policy) }));
    jobs.push(...node.jobs);
    edges.push(...node.edges);
    warnings.push(...node.warnings);
    others.push(...node.table);
  }
  table.push(
    ...jobs.map(({ name, version, why }): PlannedDependency => ({ name, version, decision: 'build', why })),
    ...others,
  );
  const closure: string[] = [];
  if (inputs.python !== undefined) {
    const constraints = [...inputs.python.constraints, ...(request.constraints ?? [])];
    const python = await preparePython(context, { ...inputs.python, constraints }, options);
    const carried = python.table.filter((one) => one.decision === 'vendor');
    closure.push(...carried.map((one) => `pypi:${one.name}==${one.version}`));
    jobs.push(...python.jobs);
    table.push(...python.table);
    edges.push(...python.edges);
    warnings.push(...python.warnings);
  }
  const sources = await readSources(context, inputs.sources, request.outDir);
  refuseSameNames([...jobs, ...planSources(sources)]);
  const owned = stack.move();
  closure.push(...jobs.map((job) => job.source).filter((one) => /^(pypi|npm):/.test(one)));
  return { jobs, sources, table, edges, warnings, closure, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function nodeOptions(policy: BuildPolicy): Pick<NodeBuildOptions, 'mode' | 'allowScripts'> {
  return { mode: policy.npm ?? 'bundle', allowScripts: policy['allow-scripts'] ?? [] };
}

function refuseSameNames(jobs: readonly Pick<PackageJob, 'name' | 'version' | 'source'>[]): void {
  const seen = new Map<string, string>();
  for (const { name, version, source } of jobs) {
    const other = seen.get(name);
    if (other !== undefined) {
      throw new UserError('debian-name', `${other} and ${source} would both be the package '${name}'`, {
        hint: 'give one of them another name: [tool.buildkit] package = "..." in its pyproject.toml, or rename in buildkit.yaml',
      });
    }
    seen.set(name, source);
    debFileName(name, version, 'all'); // throws for what dpkg refuses
  }
}
