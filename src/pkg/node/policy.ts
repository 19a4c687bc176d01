/**
 * Which modules of an npm tree are left to the target suite, which are carried or built, which are left out. Pure.
 *
 * Secret: the rules, and where Debian has a module (JavaScript policy: /usr/share/nodejs, native ones below the triplet). A module
 * that the suite has in a version that everybody takes who asks for it there becomes a link to it and a dependency; what only such
 * modules need goes with them. All else stays in the tree, at its place, so that nothing of the suite is touched.
 */
import { multiarchTriplet } from '../../deb/arch.ts';
import { type RelationGroup, versionFits } from '../../deb/relation.ts';
import { debianRelationsOfRange, isSemver, satisfiesRange } from '../../deb/semver.ts';
import type { BuildPolicy, DependencyMode, PlannedDependency } from '../job.ts';
import { epochOf, type SuiteIndex, type SuitePackage, upstreamOf } from '../suite-index.ts';
import type { NodeModule } from './arborist.ts';
import { textOf } from './manifest.ts';
import { debianNodeName } from './names.ts';

export interface NodePolicyInput {
  /** Root first. */
  readonly modules: readonly NodeModule[];
  /** Name of what was asked for; '' where that is the root. */
  readonly asked: string;
  readonly mode: DependencyMode;
  readonly policy: Pick<BuildPolicy, 'present' | 'build' | 'vendor' | 'drop' | 'rename'>;
  readonly suite: SuiteIndex;
  /** Debian architecture of the target. */
  readonly architecture: string;
}

/** A module that the suite has. */
export interface PresentModule {
  /** '/usr/share/nodejs/semver' */
  readonly path: string;
  /** Debian's name: its own package, or one that another provides. */
  readonly debianName: string;
  readonly package: SuitePackage;
  /** Debian version of the module, where the package has another. */
  readonly version: string;
}

export interface NodeDecisions {
  /** What is carried or built, root first. */
  readonly kept: readonly NodeModule[];
  /** By location. */
  readonly present: ReadonlyMap<string, PresentModule>;
  /** What is not built: present and dropped. */
  readonly table: readonly PlannedDependency[];
  /** What the mode wants and the suite lacks. */
  readonly problems: readonly string[];
}

interface Need {
  readonly from: NodeModule;
  readonly spec: string;
}

export function decideNode(input: NodePolicyInput): NodeDecisions {
  const providers = providersOf(input.suite);
  const byLocation = new Map(input.modules.map((one) => [one.location, one]));
  const refused = new Map<string, string>(); // location -> why the suite's does not do
  for (const one of input.modules) {
    if (one.manifest.type === 'module' && one.edges.some((edge) => edge.to !== undefined))
      refused.set(one.location, "what it needs it finds by 'import', which never looks where Debian has modules");
  }
  for (;;) {
    const walk = walkTree(input, byLocation, providers, refused);
    const before = refused.size;
    for (const [location, { module, needs }] of walk.reached) {
      const there = walk.present.get(location);
      if (there === undefined || input.policy.present?.includes(realName(module))) continue;
      const refusal = needs.find(({ spec }) => !suits(spec, there.version));
      if (refusal !== undefined) refused.set(location, `${refusal.from.name || 'the project'} wants ${refusal.spec}`);
    }
    // refused only grows, so this ends
    if (refused.size === before) return conclude(input, walk, refused, providers);
  }
}

interface Walk {
  readonly kept: ReadonlySet<string>;
  readonly present: ReadonlyMap<string, PresentModule>;
  readonly dropped: ReadonlyMap<string, NodeModule>;
  readonly reached: ReadonlyMap<string, { readonly module: NodeModule; readonly needs: Need[] }>;
}

function walkTree(
  input: NodePolicyInput,
  byLocation: ReadonlyMap<string, NodeModule>,
  providers: Providers,
  refused: ReadonlyMap<string, string>,
): Walk {
  const kept = new Set<string>(['']);
  const present = new Map<string, PresentModule>();
  const dropped = new Map<string, NodeModule>();
  const reached = new Map<string, { module: NodeModule; needs: Need[] }>();
  for (const location of kept) {
    const from = byLocation.get(location)!;
    for (const edge of from.edges) {
      const module = edge.to === undefined ? undefined : byLocation.get(edge.to);
      if (module === undefined) continue;
      if (input.policy.drop?.includes(realName(module))) {
        dropped.set(module.location, module);
        continue;
      }
      const seen = reached.get(module.location) ?? { module, needs: [] };
      seen.needs.push({ from, spec: edge.spec });
      reached.set(module.location, seen);
      const there = mayBePresent(input, module, refused) ? findPresent(input, module, providers) : undefined;
      if (there !== undefined) present.set(module.location, there);
      else kept.add(module.location);
    }
    // what came in a tarball stays in it
    for (const one of byLocation.values())
      if (one.inBundle && one.location.startsWith(`${location}/node_modules/`) && location !== '')
        kept.add(one.location);
  }
  return { kept, present, dropped, reached };
}

function mayBePresent(input: NodePolicyInput, module: NodeModule, refused: ReadonlyMap<string, string>): boolean {
  const { policy, mode, asked } = input;
  const name = realName(module);
  if (module.inBundle || refused.has(module.location) || name === asked) return false;
  if (policy.present?.includes(name)) return true;
  if (policy.build?.includes(name) || policy.vendor?.includes(name)) return false;
  return mode === 'auto' || mode === 'distro';
}

/** Debian name to the packages that provide it with a version. */
type Providers = ReadonlyMap<string, readonly { readonly package: SuitePackage; readonly version: string }[]>;

function providersOf(suite: SuiteIndex): Providers {
  const providers = new Map<string, { package: SuitePackage; version: string }[]>();
  for (const one of suite.values()) {
    for (const [name, version] of one.provides ?? [])
      providers.set(name, [...(providers.get(name) ?? []), { package: one, version }]);
  }
  return providers;
}

function findPresent(input: NodePolicyInput, module: NodeModule, providers: Providers): PresentModule | undefined {
  const name = realName(module);
  const debianName = input.policy.rename?.[name] ?? debianNodeName(name);
  const own = input.suite.get(debianName);
  const found = own === undefined ? providers.get(debianName)?.[0] : { package: own, version: own.version };
  if (found === undefined) return undefined;
  const isNative = found.package.architecture !== undefined && found.package.architecture !== 'all';
  const base = isNative ? `/usr/lib/${multiarchTriplet(input.architecture)}/nodejs` : '/usr/share/nodejs';
  return { ...found, debianName, path: `${base}/${name}` };
}

/** '7.3.5+~7.3.9-2' is 7.3.5; undefined for what is no version of npm. */
export function npmVersionOf(debianVersion: string): string | undefined {
  const own = debianVersion.replace(/\+~.*$/, '');
  if (own.includes('~')) return undefined; // before a release, in words that npm has not
  const plain = upstreamOf(own)
    .replace(/\+.*$/, '')
    .replace(/^(\d+)$/, '$1.0.0')
    .replace(/^(\d+\.\d+)$/, '$1.0');
  return isSemver(plain) ? plain : undefined;
}

function suits(spec: string, debianVersion: string): boolean {
  const version = npmVersionOf(debianVersion);
  if (version === undefined) return false;
  try {
    return satisfiesRange(version, spec.replace(/^npm:(?:@[^@/]+\/)?[^@/]+@?/, '') || '*');
  } catch {
    return false; // a tag, an address, a folder
  }
}

function realName(module: NodeModule): string {
  return textOf(module.manifest.name) || module.name;
}

function conclude(
  input: NodePolicyInput,
  walk: Walk,
  refused: ReadonlyMap<string, string>,
  providers: Providers,
): NodeDecisions {
  const present = new Map([...walk.present].filter(([location]) => !walk.kept.has(location)));
  const by = (location: string) => {
    const names = (walk.reached.get(location)?.needs ?? []).map(({ from }) => realName(from) || 'the project');
    return `needed by ${[...new Set(names)].sort().join(', ')}`;
  };
  const moduleAt = (location: string) => walk.reached.get(location)!.module;
  const table = new Map<string, PlannedDependency>();
  for (const [location, one] of present) {
    const why = `${by(location)}; the suite has ${one.version}`;
    table.set(one.debianName, { name: one.debianName, version: one.version, decision: 'present', why });
  }
  for (const one of walk.dropped.values()) {
    const why = 'dropped by the configuration';
    table.set(`- ${realName(one)}`, { name: realName(one), version: one.version, decision: 'drop', why });
  }
  const problems: string[] = [];
  for (const location of walk.kept) {
    const reached = walk.reached.get(location);
    if (reached === undefined || realName(reached.module) === input.asked) continue;
    const name = realName(reached.module);
    const conflict = refused.get(location);
    const there = conflict === undefined ? undefined : findPresent(input, moduleAt(location), providers);
    const why =
      there === undefined
        ? `${by(location)}; the suite has no ${debianNodeName(name)}`
        : `${by(location)}; the suite has ${there.version}, and ${conflict}`;
    if (there !== undefined)
      table.set(`${name} ${location}`, { name, version: reached.module.version, decision: 'vendor', why });
    const isWanted = input.policy.build?.includes(name) || input.policy.vendor?.includes(name);
    if (input.mode === 'distro' && !isWanted) problems.push(`${name} ${reached.module.version}: ${why}`);
  }
  const kept = input.modules.filter((one) => walk.kept.has(one.location));
  return { kept, present, table: [...table.values()], problems };
}

/** What must be installed of the suite, for one who asks for `spec`. */
export function relationsOnPresent({ debianName, version }: PresentModule, spec: string): RelationGroup[] {
  const atLeast: RelationGroup[] = [[{ name: debianName, version: { operator: '>=', version } }]];
  try {
    const epoch = epochOf(version);
    const groups = debianRelationsOfRange(debianName, spec).groups.map((group) =>
      group.map((one) =>
        one.version === undefined
          ? one
          : { ...one, version: { ...one.version, version: `${epoch}${one.version.version}` } },
      ),
    );
    if (groups.length === 0) return [[{ name: debianName }]];
    const fits = groups.every((group) =>
      group.some((one) => one.version === undefined || versionFits(version, one.version)),
    );
    return fits ? groups : atLeast;
  } catch {
    return atLeast;
  }
}
