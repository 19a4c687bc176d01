/**
 * From pip's resolution to a plan of Debian packages: names, versions, relations, who needs whom. Pure.
 *
 * Secret: how a distribution, an extra and a requirement are said in Debian. An extra that somebody asks for becomes an
 * empty package of its own, so that the bytes of a package never depend on who asked.
 */
import { UserError } from '../../core/errors.ts';
import { isPackageName } from '../../deb/package.ts';
import { formatRelations, type Relation, type RelationGroup, versionFits } from '../../deb/relation.ts';
import { epochOf, type SuitePackage } from '../suite-index.ts';
import { DEBIAN_NAMES } from './debian-names.ts';
import { debianUpstream, parsePep440 } from './pep440.ts';
import type { Resolution, Resolved } from './pip.ts';
import type { Decision } from './policy.ts';
import { markerHolds, normaliseName, parseRequirement, type Requirement } from './requirement.ts';
import { type BoundGroups, debianRange } from './specifier.ts';

export interface ClosureOptions {
  /** '1~deb12' */
  readonly revision: string;
  /** Debian names that projects or the configuration choose, by normalised name. */
  readonly names: ReadonlyMap<string, string>;
  /** Extras of what was asked for, by normalised name. */
  readonly askedExtras: ReadonlyMap<string, readonly string[]>;
  /** By normalised name; absent: everything is built. */
  readonly decisions?: ReadonlyMap<string, Decision> | undefined;
}

export interface ClosurePackage {
  readonly debianName: string;
  /** Whole Debian version. */
  readonly version: string;
  readonly distribution: Resolved;
  /** Set for the empty package of an extra. */
  readonly extra: string | undefined;
  /** Carried inside, in a private folder; sorted by name. */
  readonly vendored: readonly Resolved[];
  /** Relations on the other packages of the closure and of the suite, as in Depends. */
  readonly depends: string;
  /** 'asked for' or 'needed by X, Y'. */
  readonly why: string;
}

export interface Closure {
  readonly packages: readonly ClosurePackage[];
  readonly warnings: readonly string[];
}

/** 'python3-flask'; 'python3-yaml' for PyYAML, as in Debian; an extra is 'python3-uvicorn+standard'. */
export function debianName(name: string, names: ReadonlyMap<string, string>, extra?: string): string {
  const normal = normaliseName(name);
  const base = names.get(normal) ?? DEBIAN_NAMES.get(normal) ?? `python3-${normal}`;
  return extra === undefined ? base : `${base}+${normaliseName(extra)}`;
}

/** What one planning run gathers. */
interface Planner {
  readonly resolution: Resolution;
  readonly options: ClosureOptions;
  readonly byName: ReadonlyMap<string, Resolved>;
  readonly warnings: string[];
  /** Debian name to the Debian names that need it. */
  readonly needed: Map<string, Set<string>>;
  /** Extras that become packages, by normalised name. */
  readonly extras: Map<string, Set<string>>;
}

/**
 * @throws UserError `version-syntax`, `debian-name`, `unresolvable`, `vendor-public`
 */
export function planClosure(resolution: Resolution, options: ClosureOptions): Closure {
  const planner: Planner = {
    resolution,
    options,
    byName: new Map(resolution.distributions.map((one) => [normaliseName(one.name), one])),
    warnings: [],
    needed: new Map(),
    extras: new Map([...options.askedExtras].map(([name, extras]) => [name, new Set(extras)])),
  };
  const packages = resolution.distributions
    .filter((one) => kindOf(planner, one.name) === 'build')
    .map((one) => planPackage(planner, one, undefined));
  packages.push(...planExtras(planner));
  return {
    packages: packages.map((one) => ({ ...one, why: whyIs(one, planner.needed, options) })),
    warnings: [...new Set(planner.warnings)],
  };
}

/** What becomes of a distribution; one that nothing leads to is left out. */
function kindOf(planner: Planner, name: string): Decision['kind'] {
  if (planner.options.decisions === undefined) return 'build';
  return planner.options.decisions.get(normaliseName(name))?.kind ?? 'drop';
}

type Planned = Omit<ClosurePackage, 'why'>;

function planPackage(planner: Planner, distribution: Resolved, extra: string | undefined): Planned {
  const { options } = planner;
  const debian = debianName(distribution.name, options.names, extra);
  if (!isPackageName(debian)) {
    throw new UserError('debian-name', `Debian cannot have a package called '${debian}'`, {
      hint: 'give it another name: [tool.buildkit] package = "..." in its pyproject.toml, or rename in buildkit.yaml',
    });
  }
  const groups: RelationGroup[] = [];
  const vendored = new Map<string, Resolved>();
  relate(planner, distribution, extra, { debian, groups, vendored, seen: new Set() });
  const version = fullVersion(distribution, options);
  if (extra !== undefined)
    groups.push([{ name: debianName(distribution.name, options.names), version: { operator: '=', version } }]);
  if (vendored.size > 0 && (extra !== undefined || !distribution.requested)) {
    const names = [...vendored.values()].map((one) => one.name).join(', ');
    throw new UserError(
      'vendor-public',
      `'${debian}' is for everybody, and would need ${names} that only an application has inside`,
      {
        hint: `vendor '${distribution.name}' too, or build ${names}`,
      },
    );
  }
  return {
    debianName: debian,
    version,
    distribution,
    extra,
    vendored: [...vendored.values()].sort((a, b) => (normaliseName(a.name) < normaliseName(b.name) ? -1 : 1)),
    depends: formatRelations(dedupe(groups)),
  };
}

interface Gathering {
  /** The package that gets the relations. */
  readonly debian: string;
  readonly groups: RelationGroup[];
  readonly vendored: Map<string, Resolved>;
  readonly seen: Set<string>;
}

/** Adds what a distribution (or one of its extras) needs; the needs of what is vendored become the package's own. */
function relate(planner: Planner, distribution: Resolved, extra: string | undefined, into: Gathering): void {
  const visit = `${normaliseName(distribution.name)}[${extra ?? ''}]`;
  if (into.seen.has(visit)) return;
  into.seen.add(visit);
  for (const requirement of requirementsOf(distribution, extra, planner.resolution)) {
    const name = normaliseName(requirement.name);
    const decision = planner.options.decisions?.get(name);
    const kind = kindOf(planner, name);
    if (kind === 'drop') continue;
    const target = planner.byName.get(name);
    if (!target)
      throw new UserError('unresolvable', `'${distribution.name}' needs '${requirement.name}', which pip left out`);
    const range = debianRange(requirement.clauses);
    planner.warnings.push(...range.warnings.map((text) => `${distribution.name} needs ${requirement.name}: ${text}`));
    const extras = requirement.extras.filter((one) => providesExtra(target, one));
    if (kind === 'build') relateBuilt(planner, target, extras, range.groups, into);
    else {
      if (decision?.kind === 'present') into.groups.push(...relationsOnSuite(decision.package, range.groups));
      else {
        into.vendored.set(name, target);
        relate(planner, target, undefined, into);
      }
      for (const one of extras) relate(planner, target, one, into);
    }
  }
}

function relateBuilt(
  planner: Planner,
  target: Resolved,
  extras: readonly string[],
  bounds: BoundGroups,
  into: Gathering,
): void {
  const { names } = planner.options;
  const plain = debianName(target.name, names);
  if (plain !== into.debian) {
    addTo(planner.needed, plain, into.debian);
    into.groups.push(...relationsOn(plain, bounds));
  }
  for (const extra of extras) {
    const name = debianName(target.name, names, extra);
    addTo(planner.extras, normaliseName(target.name), extra);
    if (name === into.debian) continue; // 'package[all]' that names its own extras
    addTo(planner.needed, name, into.debian);
    into.groups.push([{ name }]);
  }
}

/** On the suite's own package, with its epoch; where its version is spelled so that the range would miss it, on that version. */
function relationsOnSuite(there: SuitePackage, bounds: BoundGroups): RelationGroup[] {
  const epoch = epochOf(there.version);
  const withEpoch = bounds.map((group) =>
    group.map((bound) => ({
      ...bound,
      version: bound.version.includes(':') ? bound.version : `${epoch}${bound.version}`,
    })),
  );
  const groups = relationsOn(there.name, withEpoch);
  const fits = groups.every((group) =>
    group.some((one) => one.version === undefined || versionFits(there.version, one.version)),
  );
  return fits ? groups : [[{ name: there.name, version: { operator: '>=', version: there.version } }]];
}

/** Extras lead to further extras: until nothing new turns up. */
function planExtras(planner: Planner): Planned[] {
  const planned = new Map<string, Planned>();
  for (let before = -1; before !== planned.size; ) {
    before = planned.size;
    for (const [name, extras] of [...planner.extras]) {
      const distribution = planner.byName.get(name);
      if (!distribution || kindOf(planner, name) !== 'build') continue;
      for (const extra of [...extras]) {
        if (!planned.has(`${name}[${extra}]`))
          planned.set(`${name}[${extra}]`, planPackage(planner, distribution, extra));
      }
    }
  }
  return [...planned.values()];
}

function addTo(map: Map<string, Set<string>>, key: string, value: string): void {
  map.set(key, (map.get(key) ?? new Set()).add(value));
}

function providesExtra(distribution: Resolved, extra: string): boolean {
  return distribution.requiresDist.some(
    (line) =>
      /\bextra\b/.test(line) &&
      line
        .toLowerCase()
        .replaceAll(/[-_.]+/g, '-')
        .includes(extra),
  );
}

/** What holds for the target: without extra the plain requirements, with one those that only it brings. */
function requirementsOf(distribution: Resolved, extra: string | undefined, resolution: Resolution): Requirement[] {
  return distribution.requiresDist.map(parseRequirement).filter((requirement) => {
    const plain = markerHolds(requirement.marker, resolution.environment, '');
    if (extra === undefined) return plain;
    return !plain && markerHolds(requirement.marker, resolution.environment, extra);
  });
}

function relationsOn(name: string, groups: BoundGroups): RelationGroup[] {
  if (groups.length === 0) return [[{ name }]];
  return groups.map((bounds) =>
    bounds.map(({ relation, version }): Relation => ({ name, version: { operator: relation, version } })),
  );
}

function dedupe(groups: readonly RelationGroup[]): RelationGroup[] {
  const byText = new Map(groups.map((group) => [formatRelations([group]), group]));
  const versioned = new Set([...byText.values()].filter((group) => group[0]?.version).map((group) => group[0]!.name));
  return [...byText]
    .filter(([, group]) => group.length > 1 || group[0]?.version || !versioned.has(group[0]!.name))
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    .map(([, group]) => group);
}

function fullVersion(distribution: Resolved, options: ClosureOptions): string {
  const version = parsePep440(distribution.version);
  if (!version) {
    throw new UserError(
      'version-syntax',
      `'${distribution.version}' of '${distribution.name}' is no version of PEP 440`,
      {
        hint: 'its author must give it a version such as 1.0',
      },
    );
  }
  return `${debianUpstream(version)}-${options.revision}`;
}

function whyIs(
  one: Omit<ClosurePackage, 'why'>,
  needed: ReadonlyMap<string, ReadonlySet<string>>,
  options: ClosureOptions,
): string {
  const normal = normaliseName(one.distribution.name);
  const asked =
    one.extra === undefined ? one.distribution.requested : options.askedExtras.get(normal)?.includes(one.extra);
  if (asked) return 'asked for';
  return `needed by ${[...(needed.get(one.debianName) ?? [])].sort().join(', ')}`;
}
