/**
 * The door of the Python builder: projects, wheels and requirements -> closure -> planned packages, each with the means to make it.
 *
 * Secret: that wheels are fetched and built only when a package is not in the cache, and then all together.
 */
import { readFile } from 'node:fs/promises';
import type { Context } from '../../core/context.ts';
import { UserError } from '../../core/errors.ts';
import { parseRelations } from '../../deb/relation.ts';
import type { SuiteFacts } from '../../deb/suites.ts';
import { parseVersion } from '../../deb/version.ts';
import { keyed } from '../explain.ts';
import type { BuildPolicy, Made, PackageJob, PlannedDependency } from '../job.ts';
import { projectChanges } from '../project-changelog.ts';
import { type Component, packageUrl } from '../sbom.ts';
import { NO_DATE } from '../source-date.ts';
import { readSuiteIndex } from '../suite-index.ts';
import { type ClosurePackage, planClosure } from './closure.ts';
import { metadataReader } from './found-source.ts';
import { hasPrograms } from './layout.ts';
import { extraPackage, type PackageFacts, pythonPackage, wheelDate } from './package.ts';
import { findPip, type Pip, type Resolution, type Resolved } from './pip.ts';
import { type Decision, decide, type Policy } from './policy.ts';
import type { PythonProject } from './project.ts';
import { isRequirement, normaliseName, parseRequirement } from './requirement.ts';
import { resolveOnce } from './resolution.ts';
import { readService, type ServiceFiles } from './service.ts';
import {
  isPublishedWheel,
  type ProjectWheel,
  projectWheel,
  type SourceOptions,
  wheelIdentity,
  wheelsOf,
} from './source.ts';
import { openWheel, parseWheelName, type Wheel } from './wheel.ts';

export interface PythonInputs {
  readonly projects: readonly { readonly project: PythonProject; readonly extras: readonly string[] }[];
  readonly wheels: readonly { readonly path: string; readonly sha256: string; readonly extras: readonly string[] }[];
  /** PEP 508. */
  readonly requirements: readonly string[];
  /** requirements.txt and the like, absolute. */
  readonly requirementFiles: readonly string[];
  /** 'name==version' of lock files. */
  readonly constraints: readonly string[];
}

export interface PythonBuildOptions {
  readonly suite: SuiteFacts;
  readonly architecture: string;
  /** '1~deb12' */
  readonly revision: string;
  readonly sourceDateEpoch: number | undefined;
  readonly policy: BuildPolicy;
  readonly refresh: boolean;
  /** An apt proxy for the suite's own index. */
  readonly proxy?: string | undefined;
  /** Where and how sources are built. */
  readonly isolation?: SourceOptions['isolation'];
  readonly network?: boolean | undefined;
  readonly timeLimitMs?: number | undefined;
  /** Asked once the authors are known. */
  readonly maintainer: (author: string | undefined) => Promise<string>;
}

export interface PythonBuild {
  readonly jobs: readonly PackageJob[];
  readonly table: readonly PlannedDependency[];
  readonly edges: readonly (readonly [from: string, to: string])[];
  readonly warnings: readonly string[];
}

/**
 * Resolves the closure and plans its packages.
 * @throws UserError `unresolvable`, `source-does-not-build`, `not-in-suite`, ... and what closure, policy and pip refuse
 */
export async function preparePython(
  context: Context,
  inputs: PythonInputs,
  options: PythonBuildOptions,
): Promise<PythonBuild> {
  const { suite, architecture, policy } = options;
  const pip = await findPip(context, { version: suite.python, machine: pythonMachine(architecture) });
  const sources = sourcesOf(options);
  const wheels: ProjectWheel[] = [];
  for (const { project } of inputs.projects) wheels.push(await projectWheel(context, pip, project, sources));
  const given = [
    ...wheels.map((wheel, index) => ({ ...wheel, extras: inputs.projects[index]!.extras })),
    ...inputs.wheels,
  ];
  const resolution = await resolveOnce(context, pip, {
    ...inputs,
    wheels: given,
    refresh: options.refresh,
    metadataReader: await metadataReader(context, pip, sources),
  });
  const services = new Map<string, OwnSource>();
  const names = new Map<string, string>();
  for (const wheel of wheels) {
    const name = normaliseName(parseWheelName(wheel.path).name);
    const service = await readService(wheel.project, suite);
    services.set(name, { service, wheel });
    if (service) names.set(name, wheel.project.tool.package ?? name);
  }
  for (const [name, debian] of Object.entries(policy.rename ?? {})) names.set(normaliseName(name), debian);
  const listed = (await Promise.all(inputs.requirementFiles.map(requirementLines))).flat();
  const askedExtras = askedFor([...inputs.requirements, ...listed], given);
  const decisions = await decideAll(context, options, { pip, resolution, askedExtras, names, services });
  const closure = planClosure(resolution, { revision: options.revision, names, askedExtras, decisions });
  const maintainer = await options.maintainer(wheels.map((one) => one.project.author).find((one) => one !== undefined));
  const fetch = once(async () => {
    const wanted = [...new Set(closure.packages.flatMap((one) => [one.distribution, ...one.vendored]))];
    const paths = await wheelsOf(context, pip, wanted, sources);
    return new Map(wanted.map((one, index) => [one, paths[index]!]));
  });
  const jobs = await Promise.all(
    closure.packages.map(async (planned): Promise<PackageJob> => {
      const own = services.get(normaliseName(planned.distribution.name));
      const facts: Facts = {
        name: planned.debianName,
        version: planned.version,
        suite,
        architecture,
        maintainer,
        depends: [planned.depends, ...(policy.depends?.[planned.debianName] ?? [])].filter(Boolean).join(', '),
        source: sourceName(planned, own?.wheel),
        service: planned.extra === undefined ? own?.service : undefined,
        past:
          own &&
          (await projectChanges(context, own.wheel.project.folder, {
            name: planned.debianName,
            version: parseVersion(planned.version).upstream,
          })),
      };
      const sourceDateEpoch = options.sourceDateEpoch ?? own?.wheel.date;
      return {
        name: facts.name,
        version: facts.version,
        source: facts.source,
        why: planned.why,
        ...(await jobKey(context, planned, facts, { sourceDateEpoch, own: own?.wheel.sha256, pip, sources })),
        make: async () => make(planned, facts, { date: sourceDateEpoch, isOwn: own !== undefined }, await fetch()),
      };
    }),
  );
  return {
    jobs,
    table: planTable(closure.packages, decisions, resolution),
    edges: closure.packages.flatMap((one) => namesIn(one.depends).map((to) => [one.debianName, to] as const)),
    warnings: closure.warnings,
  };
}

type Facts = Omit<PackageFacts, 'sourceDateEpoch'>;

interface OwnSource {
  readonly service: ServiceFiles | undefined;
  readonly wheel: ProjectWheel;
}

function once<T>(body: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined;
  return () => (result ??= body());
}

/** The lines of a requirements file that name a distribution; options, folders and URLs are pip's own affair. */
async function requirementLines(path: string): Promise<string[]> {
  const text = (await readFile(path, 'utf8')).replaceAll(/\\\r?\n/g, ' ');
  const lines = text.split(/\r?\n/).map((line) =>
    line
      .replace(/(^|\s)#.*$/, '')
      .replace(/\s--\w.*$/, '')
      .trim(),
  );
  return lines.filter((line) => line !== '' && isRequirement(line));
}

/** Extras that the user asked for, by normalised name. */
function askedFor(
  requirements: readonly string[],
  wheels: readonly { readonly path: string; readonly extras: readonly string[] }[],
): Map<string, readonly string[]> {
  const asked = new Map<string, readonly string[]>();
  const add = (name: string, more: readonly string[]) => {
    const key = normaliseName(name);
    asked.set(key, [...new Set([...(asked.get(key) ?? []), ...more])]);
  };
  for (const line of requirements) {
    const { name, extras } = parseRequirement(line);
    add(name, extras);
  }
  for (const wheel of wheels) add(parseWheelName(wheel.path).name, wheel.extras);
  return asked;
}

/** undefined: a wheel's digest is not known before it is fetched. */
async function jobKey(
  context: Context,
  planned: ClosurePackage,
  facts: Facts,
  given: {
    readonly sourceDateEpoch: number | undefined;
    /** Digest of a project's own wheel. */
    readonly own: string | undefined;
    readonly pip: Pip;
    readonly sources: SourceOptions;
  },
): Promise<Pick<PackageJob, 'key' | 'parts'>> {
  const { sourceDateEpoch, own, pip, sources } = given;
  const digests = await Promise.all(
    [planned.distribution, ...planned.vendored].map(async (one, index) =>
      index === 0 && own !== undefined ? own : wheelIdentity(context, one, pip, sources),
    ),
  );
  if (digests.includes(undefined)) return { key: undefined };
  const { service, suite, ...plain } = facts;
  const unit = service && { ...service, entries: service.entries.map(describeEntry) };
  const { version, maintainer, depends, source, ...others } = plain;
  return keyed({
    kind: 'python',
    wheels: digests,
    version,
    maintainer,
    depends,
    source,
    'name and architecture': others,
    suite: suite.codename,
    extra: planned.extra ?? null,
    date: sourceDateEpoch ?? null,
    'the service and its files': unit ?? null,
  });
}

function describeEntry(entry: { readonly path: string; readonly mode: number; readonly source?: unknown }): unknown {
  const source = entry.source as { readonly data?: Uint8Array | string } | undefined;
  return [entry.path, entry.mode, Buffer.from(source?.data ?? '').toString('base64')];
}

async function make(
  planned: ClosurePackage,
  facts: Facts,
  given: { readonly date: number | undefined; readonly isOwn: boolean },
  paths: ReadonlyMap<Resolved, string>,
): Promise<Made> {
  const wheels = await openWheels([planned.distribution, ...planned.vendored].map((one) => paths.get(one)!));
  try {
    const [wheel, ...vendored] = wheels.list as [Wheel, ...Wheel[]];
    const sourceDateEpoch = given.date ?? wheelDate(wheel, NO_DATE);
    const dated = { ...facts, sourceDateEpoch };
    const { extra } = planned;
    const made =
      extra === undefined
        ? await pythonPackage(wheel, dated, vendored)
        : { spec: extraPackage(dated, wheel.metadata.name, extra), architecture: 'all', warnings: [] };
    // the files of a published wheel stay as they are
    const compiled = given.isOwn || [planned.distribution, ...planned.vendored].some((one) => !isPublishedWheel(one));
    return {
      ...made,
      sourceDateEpoch,
      components: extra === undefined ? wheels.list.map(componentOf) : [],
      ...(compiled && extra === undefined ? { isCompiledHere: isLibraryPath } : {}),
      [Symbol.dispose]: () => wheels[Symbol.dispose](),
    };
  } catch (error) {
    wheels[Symbol.dispose]();
    throw error;
  }
}

function isLibraryPath(path: string): boolean {
  return /\.so(\.[\d.]+)?$/.test(path);
}

function componentOf({ metadata, sha256 }: Wheel): Component {
  const { name, version, licence, homepage } = metadata;
  const purl = packageUrl('pypi', normaliseName(name), version);
  return { name, version, purl, licence, homepage, digest: { algorithm: 'sha256', hex: sha256 } };
}

async function openWheels(paths: readonly string[]): Promise<{ readonly list: Wheel[] } & Disposable> {
  const list: Wheel[] = [];
  const close = () => {
    for (const wheel of list) wheel[Symbol.dispose]();
  };
  try {
    for (const path of paths) list.push(await openWheel(path));
  } catch (error) {
    close();
    throw error;
  }
  return { list, [Symbol.dispose]: close };
}

function planTable(
  packages: readonly ClosurePackage[],
  decisions: ReadonlyMap<string, Decision> | undefined,
  resolution: Resolution,
): PlannedDependency[] {
  const built = packages.map((one): PlannedDependency => {
    const decision = one.extra === undefined ? decisions?.get(normaliseName(one.distribution.name)) : undefined;
    return { name: one.debianName, version: one.version, decision: 'build', why: decision?.why ?? one.why };
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

function namesIn(depends: string): string[] {
  return [...new Set(parseRelations(depends).flatMap((group) => group.map((one) => one.name)))];
}

interface DecisionFacts {
  readonly pip: Pip;
  readonly resolution: Resolution;
  readonly askedExtras: ReadonlyMap<string, readonly string[]>;
  readonly names: ReadonlyMap<string, string>;
  readonly services: ReadonlyMap<string, OwnSource>;
}

/** undefined: everything is built, as the plain policy has it. */
async function decideAll(
  context: Context,
  options: PythonBuildOptions,
  facts: DecisionFacts,
): Promise<ReadonlyMap<string, Decision> | undefined> {
  const set = (names: readonly string[] | undefined) => new Set(names?.map(normaliseName));
  const { deps = 'packages', mirror, ...lists } = options.policy;
  const policy: Policy = {
    mode: deps,
    present: set(lists.present),
    build: set(lists.build),
    vendor: set(lists.vendor),
    drop: set(lists.drop),
  };
  if (deps === 'packages' && policy.present.size + policy.vendor.size + policy.drop.size === 0) return undefined;
  const wantsSuite = deps === 'auto' || deps === 'distro' || policy.present.size > 0;
  const suite = wantsSuite
    ? await readSuiteIndex(context, options.suite.codename, options.architecture, { mirror, proxy: options.proxy })
    : new Map();
  const requested = facts.resolution.distributions.filter((one) => one.requested);
  const { of, problems } = decide({
    ...facts,
    suite,
    policy,
    asked: new Set(requested.map((one) => normaliseName(one.name))),
    applications: await applicationsAmong(context, facts, requested, sourcesOf(options)),
  });
  if (problems.length === 0) return of;
  throw new UserError(
    'not-in-suite',
    `${options.suite.codename} does not have all that is needed:\n${problems.map((line) => `  ${line}`).join('\n')}`,
    {
      hint: "build what is missing (deps: auto), or name it under 'build' or 'vendor'",
    },
  );
}

function sourcesOf(options: PythonBuildOptions): SourceOptions {
  return { ...options, suite: options.suite.codename, mirror: options.policy.mirror };
}

/** Those with programs or units of their own. */
async function applicationsAmong(
  context: Context,
  facts: DecisionFacts,
  requested: readonly Resolved[],
  sources: SourceOptions,
): Promise<Set<string>> {
  const paths = await wheelsOf(context, facts.pip, requested, sources);
  const applications = new Set<string>();
  for (const [index, one] of requested.entries()) {
    const name = normaliseName(one.name);
    using wheel = await openWheel(paths[index]!);
    const units = facts.services.get(name)?.service?.units.length ?? 0;
    if (units > 0 || (await hasPrograms(wheel))) applications.add(name);
  }
  return applications;
}

function sourceName(planned: ClosurePackage, wheel: ProjectWheel | undefined): string {
  const { name, version } = planned.distribution;
  return wheel === undefined ? `pypi:${normaliseName(name)}==${version}` : `its source tree, version ${version}`;
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
