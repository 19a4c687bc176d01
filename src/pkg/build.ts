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
import { suiteFacts, suiteMark } from '../deb/suites.ts';
import { readInputs } from './inputs.ts';
import { chooseMaintainer } from './maintainer.ts';
import { type Built, buildJob, findClashes, type Job, placePackages } from './produce.ts';
import { type ClosurePackage, planClosure } from './python/closure.ts';
import { findPip } from './python/pip.ts';
import { normaliseName } from './python/requirement.ts';
import { resolveOnce } from './python/resolution.ts';
import { readService, type ServiceFiles } from './python/service.ts';
import { type ProjectWheel, projectWheel, wheelsOf } from './python/source.ts';

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
  readonly packages: readonly PlannedPackage[];
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
  const { jobs } = await prepare(context, request);
  return {
    packages: jobs.map((job) => ({
      name: job.facts.name,
      version: job.facts.version,
      source: job.facts.source,
      why: job.planned.why,
      decision: 'build',
    })),
  };
}

/**
 * Builds every package of the closure into `outDir`.
 * @throws UserError for a closure that cannot be, for names and files that clash, for sources that do not build
 */
export async function buildPackages(context: Context, request: BuildRequest): Promise<BuildResult> {
  const prepared = await prepare(context, request);
  const distributions = [...new Set(prepared.jobs.map((job) => job.planned.distribution))];
  const paths = await wheelsOf(context, prepared.pip, distributions, sourceDateEpoch(context));
  const wheelOf = new Map(distributions.map((one, index) => [one, paths[index]!]));
  const limit = pLimit(availableParallelism());
  const built: Built[] = await context.log.step(`Build ${prepared.jobs.length} packages for ${request.suite}`, () =>
    Promise.all(
      prepared.jobs.map((job) => limit(() => buildJob(context, job, wheelOf.get(job.planned.distribution)!))),
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
  const closure = planClosure(resolution, {
    revision,
    names,
    askedExtras: inputs.askedExtras(wheels.map((one) => one.path)),
  });
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
        depends: planned.depends,
        source: sourceName(planned, own?.wheel),
        service: planned.extra === undefined ? own?.service : undefined,
      },
    };
  });
  refuseSameNames(jobs);
  return { jobs, pip, warnings: closure.warnings };
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
