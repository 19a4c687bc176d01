/**
 * From pip's resolution to a plan of Debian packages: names, versions, relations, who needs whom. Pure.
 *
 * Secret: how a distribution, an extra and a requirement are said in Debian. An extra that somebody asks for becomes an
 * empty package of its own, so that the bytes of a package never depend on who asked.
 */
import { UserError } from '../../core/errors.ts';
import { isPackageName } from '../../deb/package.ts';
import { formatRelations, type Relation, type RelationGroup } from '../../deb/relation.ts';
import { DEBIAN_NAMES } from './debian-names.ts';
import { debianUpstream, parsePep440 } from './pep440.ts';
import type { Resolution, Resolved } from './pip.ts';
import { markerHolds, normaliseName, parseRequirement, type Requirement } from './requirement.ts';
import { debianRange } from './specifier.ts';

export interface ClosureOptions {
  /** '1~deb12' */
  readonly revision: string;
  /** Debian names that projects choose for themselves, by normalised name. */
  readonly names: ReadonlyMap<string, string>;
  /** Extras of what was asked for, by normalised name. */
  readonly askedExtras: ReadonlyMap<string, readonly string[]>;
}

export interface ClosurePackage {
  readonly debianName: string;
  /** Whole Debian version. */
  readonly version: string;
  readonly distribution: Resolved;
  /** Set for the empty package of an extra. */
  readonly extra: string | undefined;
  /** Relations on the other packages of the closure, as in Depends. */
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

/**
 * @throws UserError `version-syntax`, `debian-name`, `unresolvable`
 */
export function planClosure(resolution: Resolution, options: ClosureOptions): Closure {
  const byName = new Map(resolution.distributions.map((one) => [normaliseName(one.name), one]));
  const warnings: string[] = [];
  const needed = new Map<string, Set<string>>();
  const wantedExtras = new Map<string, Set<string>>();
  for (const [name, extras] of options.askedExtras) wantedExtras.set(name, new Set(extras));
  const packages: Omit<ClosurePackage, 'why'>[] = [];
  const build = (distribution: Resolved, extra: string | undefined): void => {
    const self = debianName(distribution.name, options.names, extra);
    if (!isPackageName(self)) {
      throw new UserError('debian-name', `Debian cannot have a package called '${self}'`, {
        hint: 'give it another name: [tool.buildkit] package = "..." in its pyproject.toml',
      });
    }
    const groups: RelationGroup[] = [];
    for (const requirement of requirementsOf(distribution, extra, resolution)) {
      const target = byName.get(normaliseName(requirement.name));
      if (!target) {
        throw new UserError('unresolvable', `'${distribution.name}' needs '${requirement.name}', which pip left out`);
      }
      const range = debianRange(requirement.clauses);
      warnings.push(...range.warnings.map((text) => `${distribution.name} needs ${requirement.name}: ${text}`));
      for (const on of [undefined, ...requirement.extras.filter((one) => providesExtra(target, one))]) {
        if (on !== undefined) addTo(wantedExtras, normaliseName(target.name), on);
        const name = debianName(target.name, options.names, on);
        if (name === self) continue; // 'package[all]' that names its own extras
        addTo(needed, name, self);
        groups.push(...(on === undefined ? relationsOn(name, range.groups) : [[{ name }]]));
      }
    }
    if (extra !== undefined) {
      groups.unshift([
        {
          name: debianName(distribution.name, options.names),
          version: { operator: '=', version: fullVersion(distribution, options) },
        },
      ]);
    }
    packages.push({
      debianName: self,
      version: fullVersion(distribution, options),
      distribution,
      extra,
      depends: formatRelations(dedupe(groups)),
    });
  };
  for (const distribution of resolution.distributions) build(distribution, undefined);
  buildExtras(byName, wantedExtras, build);
  return {
    packages: packages.map((one) => ({ ...one, why: whyIs(one, needed, options) })),
    warnings: [...new Set(warnings)],
  };
}

/** Extras lead to further extras: until nothing new turns up. */
function buildExtras(
  byName: ReadonlyMap<string, Resolved>,
  wanted: ReadonlyMap<string, ReadonlySet<string>>,
  build: (distribution: Resolved, extra: string) => void,
): void {
  const done = new Set<string>();
  for (let before = -1; before !== done.size; ) {
    before = done.size;
    for (const [name, extras] of [...wanted]) {
      const distribution = byName.get(name);
      for (const extra of distribution ? [...extras] : []) {
        if (done.has(`${name}[${extra}]`)) continue;
        done.add(`${name}[${extra}]`);
        build(distribution!, extra);
      }
    }
  }
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

function relationsOn(name: string, groups: ReturnType<typeof debianRange>['groups']): RelationGroup[] {
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
