/**
 * The door of pkg: source -> .deb files of it and of everything that it needs.
 *
 * Reads top to bottom: inputs -> wheels of the projects -> closure -> plan -> one .deb for each package, in parallel, in the
 * cache -> checked against each other -> placed in the folder asked for. Nothing appears there before all of it is made.
 */
import { availableParallelism, machine } from 'node:os';
import pLimit from 'p-limit';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { debArch } from '../deb/arch.ts';
import type { Compression } from '../deb/compression.ts';
import { type BinaryPackage, debFileName } from '../deb/package.ts';
import { parseRelations } from '../deb/relation.ts';
import { suiteFacts, suiteMark } from '../deb/suites.ts';
import { readInputs } from './inputs.ts';
import { chooseMaintainer } from './maintainer.ts';
import { type Built, buildJob, findClashes, type Job, placePackages } from './produce.ts';
import { type ClosurePackage, planClosure } from './python/closure.ts';
import { hasPrograms } from './python/layout.ts';
import { findPip, type Pip, type Resolution, type Resolved } from './python/pip.ts';
import { type Decision, type DependencyMode, decide, type Policy } from './python/policy.ts';
import { normaliseName } from './python/requirement.ts';
import { resolveOnce } from './python/resolution.ts';
import { readService, type ServiceFiles } from './python/service.ts';
import { type ProjectWheel, projectWheel, wheelsOf } from './python/source.ts';
import { openWheel } from './python/wheel.ts';
import { readSuiteIndex } from './suite-index.ts';

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
  /** "Name <mail>"; default: DEBFULLNAME and DEBEMAIL, git, or the project's author. */
  readonly maintainer?: string | undefined;
  /** Default 'xz'. */
  readonly compression?: Compression | undefined;
  /** What becomes of dependencies; default: each is built. */
  readonly policy?: BuildPolicy | undefined;
  /** Asks the index again, also when it was asked minutes ago. */
  readonly refresh?: boolean | undefined;
}

export type { DependencyMode };

export interface BuildPolicy {
  /** 'auto': what the suite has is left to it, what it lacks is built, what it has otherwise is vendored; default 'packages'. */
  readonly deps?: DependencyMode | undefined;
  /** Overrides by distribution name. */
  readonly present?: readonly string[] | undefined;
  readonly build?: readonly string[] | undefined;
  readonly vendor?: readonly string[] | undefined;
  readonly drop?: readonly string[] | undefined;
  /** Distribution to Debian name. */
  readonly rename?: Readonly<Record<string, string>> | undefined;
  /** Debian name of a built package to further relations. */
  readonly depends?: Readonly<Record<string, readonly string[]>> | undefined;
  /** Where to read what the suite has, when this machine does not follow it. */
  readonly mirror?: string | undefined;
}

/** One row of the whole table: also what is left to the suite, carried inside, or dropped. */
export interface PlannedDependency {
  /** Debian's name for what is built or present, the distribution's otherwise. */
  readonly name: string;
  readonly version: string;
  readonly decision: Decision['kind'];
  readonly why: string;
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
  const prepared = await prepare(context, request);
  const { jobs } = prepared;
  const built = new Set(jobs.map((job) => job.facts.name));
  return {
    table: planTable(prepared),
    edges: jobs
      .flatMap((job) =>
        [...new Set(parseRelations(job.facts.depends).flatMap((group) => group.map((one) => one.name)))].map(
          (to) => [job.facts.name, to] as const,
        ),
      )
      .filter(([, to]) => built.has(to) || prepared.decisions !== undefined),
    packages: jobs.map((job) => ({
      name: job.facts.name,
      version: job.facts.version,
      source: job.facts.source,
      why: job.planned.why,
      decision: 'build',
    })),
  };
}

function planTable({ jobs, decisions, resolution }: Prepared): PlannedDependency[] {
  const built = jobs.map((job): PlannedDependency => {
    const decision = decisions?.get(normaliseName(job.planned.distribution.name));
    const why = job.planned.extra === undefined && decision ? decision.why : job.planned.why;
    return { name: job.facts.name, version: job.facts.version, decision: 'build', why };
  });
  const others = [...(decisions ?? [])].filter(([, one]) => one.kind !== 'build');
  return [
    ...built,
    ...others.map(([name, one]): PlannedDependency => {
      if (one.kind === 'present')
        return { name: one.package.name, version: one.package.version, decision: 'present', why: one.why };
      const version = resolution.distributions.find((other) => normaliseName(other.name) === name)?.version ?? '';
      return { name, version, decision: one.kind, why: one.why };
    }),
  ];
}

/**
 * Builds every package of the closure into `outDir`.
 * @throws UserError for a closure that cannot be, for names and files that clash, for sources that do not build
 */
export async function buildPackages(context: Context, request: BuildRequest): Promise<BuildResult> {
  const prepared = await prepare(context, request);
  const distributions = [
    ...new Set(prepared.jobs.flatMap(({ planned }) => [planned.distribution, ...planned.vendored])),
  ];
  const paths = await wheelsOf(context, prepared.pip, distributions, sourceDateEpoch(context));
  const wheelOf = new Map(distributions.map((one, index) => [one, paths[index]!]));
  const limit = pLimit(availableParallelism());
  const built: Built[] = await context.log.step(`Build ${prepared.jobs.length} packages for ${request.suite}`, () =>
    Promise.all(
      prepared.jobs.map((job) =>
        limit(() =>
          buildJob(
            context,
            job,
            wheelOf.get(job.planned.distribution)!,
            job.planned.vendored.map((one) => wheelOf.get(one)!),
          ),
        ),
      ),
    ),
  );
  for (const warning of new Set([...prepared.warnings, ...built.flatMap((one) => one.warnings)]))
    context.log.warn(warning);
  refuseClashes(built);
  const placed = await placePackages(context, built, request.outDir);
  const asked = prepared.jobs.filter((job) => job.planned.why === 'asked for').map((job) => job.facts.name);
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

type Prepared = Awaited<ReturnType<typeof prepare>>;

async function prepare(context: Context, request: BuildRequest) {
  const suite = suiteFacts(request.suite);
  const revision = `${request.packagingVersion ?? '1'}~${suiteMark(request.suite)}`;
  const architecture = request.architecture ?? debArch(machine());
  const inputs = await readInputs(request.inputs, request.cwd);
  const pip = await findPip(context, { version: suite.python, machine: pythonMachine(architecture) });
  const wheels: ProjectWheel[] = [];
  for (const project of inputs.projects)
    wheels.push(await projectWheel(context, pip, project, sourceDateEpoch(context)));
  const resolution = await resolveOnce(context, pip, {
    requirements: inputs.requirements,
    wheels: [...wheels, ...inputs.wheels],
    extras: inputs.extras,
    refresh: request.refresh ?? false,
  });
  const services = new Map<string, { service: ServiceFiles | undefined; wheel: ProjectWheel }>();
  const names = new Map<string, string>();
  for (const wheel of wheels) {
    const name = normaliseName(distributionOf(wheel.path));
    const service = await readService(wheel.project, suite);
    services.set(name, { service, wheel });
    if (service) names.set(name, wheel.project.tool.package ?? name);
  }
  for (const [name, debian] of Object.entries(request.policy?.rename ?? {})) names.set(normaliseName(name), debian);
  const askedExtras = inputs.askedExtras(wheels.map((one) => one.path));
  const decisions = await decideAll(context, request, { pip, resolution, askedExtras, names, services, architecture });
  const closure = planClosure(resolution, { revision, names, askedExtras, decisions });
  const maintainer = await chooseMaintainer(
    context,
    request.maintainer,
    wheels.map((one) => one.project.author),
  );
  const jobs = closure.packages.map((planned): Job => {
    const own = services.get(normaliseName(planned.distribution.name));
    return {
      planned,
      compression: request.compression ?? 'xz',
      wheelSha256: own?.wheel.sha256 ?? planned.distribution.sha256,
      sourceDateEpoch: sourceDateEpoch(context) ?? own?.wheel.date,
      facts: {
        name: planned.debianName,
        version: planned.version,
        suite,
        architecture,
        maintainer,
        depends: [planned.depends, ...(request.policy?.depends?.[planned.debianName] ?? [])].filter(Boolean).join(', '),
        source: sourceName(planned, own?.wheel),
        service: planned.extra === undefined ? own?.service : undefined,
      },
    };
  });
  refuseSameNames(jobs);
  return { jobs, pip, resolution, decisions, warnings: closure.warnings };
}

interface DecisionFacts {
  readonly pip: Pip;
  readonly resolution: Resolution;
  readonly askedExtras: ReadonlyMap<string, readonly string[]>;
  readonly names: ReadonlyMap<string, string>;
  readonly services: ReadonlyMap<string, { readonly service: ServiceFiles | undefined }>;
  readonly architecture: string;
}

/** undefined: everything is built, as the plain policy has it. */
async function decideAll(
  context: Context,
  request: BuildRequest,
  facts: DecisionFacts,
): Promise<ReadonlyMap<string, Decision> | undefined> {
  const set = (names: readonly string[] | undefined) => new Set(names?.map(normaliseName));
  const { deps = 'packages', mirror, ...lists } = request.policy ?? {};
  const policy: Policy = {
    mode: deps,
    present: set(lists.present),
    build: set(lists.build),
    vendor: set(lists.vendor),
    drop: set(lists.drop),
  };
  if (deps === 'packages' && policy.present.size + policy.vendor.size + policy.drop.size === 0) return undefined;
  const wantsSuite = deps === 'auto' || deps === 'distro' || policy.present.size > 0;
  const suite = wantsSuite ? await readSuiteIndex(context, request.suite, facts.architecture, mirror) : new Map();
  const requested = facts.resolution.distributions.filter((one) => one.requested);
  const { of, problems } = decide({
    ...facts,
    suite,
    policy,
    asked: new Set(requested.map((one) => normaliseName(one.name))),
    applications: await applicationsAmong(context, facts, requested),
  });
  if (problems.length === 0) return of;
  throw new UserError(
    'not-in-suite',
    `${request.suite} does not have all that is needed:\n${problems.map((line) => `  ${line}`).join('\n')}`,
    {
      hint: "build what is missing (deps: auto), or name it under 'build' or 'vendor'",
    },
  );
}

/** Those with programs or units of their own. */
async function applicationsAmong(
  context: Context,
  facts: DecisionFacts,
  requested: readonly Resolved[],
): Promise<Set<string>> {
  const paths = await wheelsOf(context, facts.pip, requested, sourceDateEpoch(context));
  const applications = new Set<string>();
  for (const [index, one] of requested.entries()) {
    const name = normaliseName(one.name);
    using wheel = await openWheel(paths[index]!);
    const units = facts.services.get(name)?.service?.units.length ?? 0;
    if (units > 0 || (await hasPrograms(wheel))) applications.add(name);
  }
  return applications;
}

/** 'hello_service' of 'hello_service-0.1.0-py3-none-any.whl' */
function distributionOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1).split('-')[0]!;
}

function sourceName(planned: ClosurePackage, wheel: ProjectWheel | undefined): string {
  const { name, version } = planned.distribution;
  return wheel === undefined ? `pypi:${normaliseName(name)}==${version}` : `its source tree, version ${version}`;
}

function refuseSameNames(jobs: readonly Job[]): void {
  const seen = new Map<string, string>();
  for (const { facts, planned } of jobs) {
    const other = seen.get(facts.name);
    if (other !== undefined) {
      throw new UserError(
        'debian-name',
        `'${other}' and '${planned.distribution.name}' would both be the package '${facts.name}'`,
        {
          hint: 'give the project another name: [tool.buildkit] package = "..." in its pyproject.toml',
        },
      );
    }
    seen.set(facts.name, planned.distribution.name);
  }
  for (const { facts } of jobs) debFileName(facts.name, facts.version, facts.architecture); // throws for what dpkg refuses
}

/** `platform.machine()` of an architecture. */
function pythonMachine(architecture: string): string {
  const machines: Readonly<Record<string, string>> = {
    amd64: 'x86_64',
    arm64: 'aarch64',
    armhf: 'armv7l',
    i386: 'i686',
    ppc64el: 'ppc64le',
  };
  return machines[architecture] ?? architecture;
}
