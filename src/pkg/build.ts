/**
 * The door of pkg: source -> .deb files of it and of everything that it needs.
 *
 * Reads top to bottom: inputs -> planned packages (each builder for its kind) -> one .deb for each, in parallel, in the cache
 * -> checked against each other -> placed in the folder asked for. Nothing appears there before all of it is made.
 */
import { availableParallelism, machine } from 'node:os';
import pLimit from 'p-limit';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { debArch } from '../deb/arch.ts';
import type { Compression } from '../deb/compression.ts';
import { type BinaryPackage, debFileName } from '../deb/package.ts';
import { suiteFacts, suiteMark } from '../deb/suites.ts';
import { readInputs } from './inputs.ts';
import type { BuildPolicy, DependencyMode, PackageJob, PlannedDependency } from './job.ts';
import { chooseMaintainer } from './maintainer.ts';
import { prepareManifest } from './manifest/builder.ts';
import type { NodeBuildOptions } from './node/builder.ts';
import { type Built, buildJob, findClashes, placePackages } from './produce.ts';
import { type PublishedPackage, refuseOldVersions } from './published.ts';
import { preparePython } from './python/builder.ts';
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
  /** What the suite of the repository has: every version must sort above it, or be it, byte for byte. */
  readonly published?: readonly PublishedPackage[] | undefined;
  /** An apt proxy for what is read from the suite's mirror; pip and npm have theirs in the environment. */
  readonly proxy?: string | undefined;
  /** Asks the index again, also when it was asked minutes ago. */
  readonly refresh?: boolean | undefined;
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
  /** How many were built now; the others were there, byte for byte. */
  readonly built: number;
  readonly reused: number;
}

/** Resolves the closure and says what `buildPackages` would build. Writes nothing outside the cache. */
export async function planBuild(context: Context, request: BuildRequest): Promise<BuildPlan> {
  await using prepared = await prepare(context, request);
  const { jobs, table, edges } = prepared;
  refuseOldVersions(jobs, request.published);
  const packages = jobs.map(
    ({ name, version, source, why }): PlannedPackage => ({ name, version, source, why, decision: 'build' }),
  );
  return { packages, table, edges };
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
  const compression = request.compression ?? 'xz';
  const built: Built[] = await context.log.step(`Build ${jobs.length} packages for ${request.suite}`, () =>
    Promise.all(jobs.map((job) => limit(() => buildJob(context, job, compression)))),
  );
  const warnings = new Set([...prepared.warnings, ...built.flatMap((one) => one.warnings)]);
  for (const warning of warnings) context.log.warn(warning);
  refuseClashes(built);
  refuseOldVersions(
    built.map((one) => one.package),
    request.published,
  );
  const placed = await placePackages(context, built, request.outDir);
  const asked = jobs.filter((job) => job.why === 'asked for').map((job) => job.name);
  const first = (one: BinaryPackage) => (asked.includes(one.name) ? 0 : 1);
  return {
    packages: placed.packages.toSorted((a, b) => first(a) - first(b)),
    asked,
    built: placed.written,
    reused: placed.kept,
  };
}

function refuseClashes(built: readonly Built[]): void {
  const clashes = findClashes(built);
  if (clashes.length === 0) return;
  const lines = clashes.slice(0, 10).map(({ path, owners }) => `  ${path}: ${owners.join(' and ')}`);
  throw new UserError(
    'file-clash',
    `${clashes.length} files are in two packages, and dpkg would refuse the second:\n${lines.join('\n')}`,
    {
      hint: 'two of these distributions cannot be installed together: ask for one of them only',
    },
  );
}

function sourceDateEpoch(context: Context): number | undefined {
  const text = context.env.SOURCE_DATE_EPOCH;
  return text !== undefined && /^\d{1,12}$/.test(text) ? Number(text) : undefined;
}

/** What all builders planned; disposing frees what they hold to make it. */
interface Prepared extends AsyncDisposable {
  readonly jobs: readonly PackageJob[];
  readonly table: readonly PlannedDependency[];
  readonly edges: readonly (readonly [from: string, to: string])[];
  readonly warnings: readonly string[];
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
    upstreamVersion: request.upstreamVersion,
    maintainer: (author: string | undefined) => chooseMaintainer(context, request.maintainer, [author]),
  };
  const inputs = await readInputs(request.inputs, request.cwd);
  const jobs: PackageJob[] = [];
  const table: PlannedDependency[] = [];
  const edges: (readonly [string, string])[] = [];
  const warnings: string[] = [];
  await using stack = new AsyncDisposableStack();
  for (const folder of inputs.trees) jobs.push(await prepareTree(context, folder, options));
  for (const { folder, manifest } of inputs.manifests) {
    jobs.push(await prepareManifest(context, folder, manifest, options));
  }
  for (const input of inputs.node) {
    const { prepareNode } = await import('./node/builder.ts'); // npm's own code is large: loaded for those who need it
    const node = stack.use(await prepareNode(context, input, { ...options, ...nodeOptions(options.policy) }));
    jobs.push(...node.jobs);
    edges.push(...node.edges);
    warnings.push(...node.warnings);
  }
  table.push(...jobs.map(({ name, version, why }): PlannedDependency => ({ name, version, decision: 'build', why })));
  if (inputs.python !== undefined) {
    const python = await preparePython(context, inputs.python, options);
    jobs.push(...python.jobs);
    table.push(...python.table);
    edges.push(...python.edges);
    warnings.push(...python.warnings);
  }
  refuseSameNames(jobs);
  const owned = stack.move();
  return { jobs, table, edges, warnings, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

function nodeOptions(policy: BuildPolicy): Pick<NodeBuildOptions, 'mode' | 'allowScripts'> {
  return { mode: policy.npm ?? 'bundle', allowScripts: policy['allow-scripts'] ?? [] };
}

function refuseSameNames(jobs: readonly PackageJob[]): void {
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
