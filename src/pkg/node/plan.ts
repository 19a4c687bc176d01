/**
 * From npm's tree to Debian packages: one that holds everything, or one for each line of versions. Pure.
 *
 * Secret: the store. `/usr/share/nodejs/.store/NAME@LINE/node_modules/NAME` holds a package, and beside it, below the same
 * node_modules, stand links to what it needs. Node looks a module up from where its file really is, for `require` as for `import`, so
 * each package finds its own versions; nothing depends on NODE_PATH or on global folders, which `import` never reads.
 */
import { formatRelations, type RelationGroup, simplifyRelations } from '../../deb/relation.ts';
import {
  compareSemver,
  debianRelationsOfRange,
  debianUpstreamOfSemver,
  isSemver,
  satisfiesRange,
} from '../../deb/semver.ts';
import type { NodeEdge, NodeModule } from './arborist.ts';
import { asTable, programsOf, textOf } from './manifest.ts';
import { debianLineName, versionLine } from './names.ts';
import { type PresentModule, relationsOnPresent } from './policy.ts';

export type NodeMode = 'bundle' | 'packages';

export interface NodePlanOptions {
  readonly mode: NodeMode;
  /** Debian's name of the package that was asked for. */
  readonly appName: string;
  /** The input is a folder: its own files are the package. Otherwise the root is empty and needs `asked`. */
  readonly isProject: boolean;
  /** Name of what was asked for, below node_modules; the project's own name where the input is a folder. */
  readonly asked: string;
  /** '1~deb12' */
  readonly revision: string;
  /** Of the target: '18.20.4'. */
  readonly nodeVersion: string;
  readonly suite: string;
  /** Modules that are left to the suite, by location. */
  readonly present?: ReadonlyMap<string, PresentModule> | undefined;
  /** npm name to Debian name, without its line. */
  readonly rename?: Readonly<Record<string, string>> | undefined;
}

export interface PlannedNode {
  readonly debianName: string;
  /** Debian's version, whole. */
  readonly version: string;
  readonly kind: 'bundle' | 'app' | 'store';
  /** The package that it is about. */
  readonly subject: NodeModule;
  /** Modules whose files are in it; those that came in another's tarball go with that one. */
  readonly modules: readonly NodeModule[];
  /** Store packages only: 'NAME@LINE', `/` as `+`. */
  readonly storeKey: string | undefined;
  /** Names to store keys: the links that stand in its node_modules. */
  readonly links: ReadonlyMap<string, string>;
  /** Links to modules of the suite: 'node_modules/x' below the package's home, or below its place in the store, to a path. */
  readonly suiteLinks: ReadonlyMap<string, string>;
  /** The Node.js that it carries and is run by. */
  readonly runtime?: NodeModule | undefined;
  /** On the other packages of the plan, and on nodejs. */
  readonly depends: readonly RelationGroup[];
  readonly why: string;
}

export interface NodePlan {
  /** What was asked for comes first. */
  readonly packages: readonly PlannedNode[];
  readonly warnings: readonly string[];
}

/**
 * @param modules the root first, as `resolveTree` gives them
 * @throws UserError `debian-name`, `semver-syntax`
 */
export function planNodePackages(modules: readonly NodeModule[], options: NodePlanOptions): NodePlan {
  const warnings = new Set<string>();
  const root = modules.find((one) => one.location === '')!;
  const subject = options.isProject ? root : modules.find((one) => one.location === `node_modules/${options.asked}`);
  if (subject === undefined) throw new Error(`'${options.asked}' is not in its own tree`); // arborist puts what is added on top
  const version = `${debianUpstreamOfSemver(subject.version)}-${options.revision}`;
  if (options.mode === 'bundle') {
    const carried = modules.filter((one) => options.isProject || one.location !== '');
    const runtime = carriedRuntime(carried);
    const held = runtime && hasNewerNode(options, runtime) ? carried.filter((one) => one !== runtime) : carried;
    const app: PlannedNode = {
      debianName: options.appName,
      version,
      kind: 'bundle',
      subject,
      modules: held,
      storeKey: undefined,
      links: new Map(),
      suiteLinks: new Map([...(options.present ?? [])].map(([location, one]) => [location, one.path])),
      runtime: runtime && held.includes(runtime) ? runtime : undefined,
      depends: simplifyRelations([
        ...suiteRelations(held, options),
        ...(runtime === undefined ? nodeRelations(held, options, warnings) : runtimeRelations(options, runtime)),
      ]),
      why: 'asked for',
    };
    return { packages: [app], warnings: [...warnings] };
  }
  const store = buildStore(
    modules.filter((one) => one.location !== ''),
    warnings,
    options.rename ?? {},
  );
  const owned = options.isProject ? ownedBy(root, modules) : [];
  const links = linksOf(options.isProject ? owned : [root], store);
  const app: PlannedNode = {
    debianName: options.appName,
    version,
    kind: 'app',
    subject,
    modules: owned,
    storeKey: undefined,
    links,
    suiteLinks: suiteLinksOf(owned, options),
    depends: [
      ...suiteRelations(owned, options),
      ...relationsOn(
        options.isProject ? owned : [root],
        store,
        warnings,
        options.isProject ? undefined : subject.version,
      ),
      ...nodeRelations(owned, options, warnings),
    ],
    why: 'asked for',
  };
  const neededBy = new Map<string, Set<string>>();
  const note = (keys: Iterable<string>, by: string) => {
    for (const key of keys) neededBy.set(key, (neededBy.get(key) ?? new Set()).add(by));
  };
  note(links.values(), options.appName);
  const groups = [...store.groups.values()].sort((a, b) => (a.key < b.key ? -1 : 1));
  const packages = groups.map((group): Omit<PlannedNode, 'why'> => {
    const members = ownedBy(group.module, modules);
    const groupLinks = linksOf(members, store);
    groupLinks.delete(group.name); // the package itself stands there
    note(groupLinks.values(), group.debianName);
    return {
      debianName: group.debianName,
      version: `${debianUpstreamOfSemver(group.module.version)}-${options.revision}`,
      kind: 'store',
      subject: group.module,
      modules: members,
      storeKey: group.key,
      links: groupLinks,
      suiteLinks: suiteLinksOf(members, options),
      depends: simplifyRelations([
        ...suiteRelations(members, options),
        ...relationsOn(members, store, warnings).filter((alternatives) => alternatives[0]?.name !== group.debianName),
        ...nodeRelations(members, options, warnings),
      ]),
    };
  });
  const whyIs = (key: string) => `needed by ${[...(neededBy.get(key) ?? [])].sort().join(', ')}`;
  return {
    packages: [app, ...packages.map((one) => ({ ...one, why: whyIs(one.storeKey!) }))],
    warnings: [...warnings],
  };
}

/** A Node.js that the project brings along as a dependency of its own: `node_modules/.bin/node`. */
function carriedRuntime(modules: readonly NodeModule[]): NodeModule | undefined {
  return modules.find(
    (one) => one.location === `node_modules/${one.name}` && programsOf(one.name, one.manifest).has('node'),
  );
}

function majorOf(version: string): number {
  return Number(version.split('.', 1)[0]);
}

function hasNewerNode({ nodeVersion }: NodePlanOptions, runtime: NodeModule): boolean {
  return majorOf(nodeVersion) >= majorOf(runtime.version);
}

/** What carries its Node.js needs no other; where the suite's is new enough, that one is taken. */
function runtimeRelations(options: NodePlanOptions, runtime: NodeModule): RelationGroup[] {
  if (!hasNewerNode(options, runtime)) return [];
  return debianRelationsOfRange('nodejs', `>=${majorOf(runtime.version)}.0.0`).groups.map((group) => [...group]);
}

interface Group {
  readonly key: string;
  readonly name: string;
  readonly debianName: string;
  readonly module: NodeModule;
}

interface Store {
  readonly groups: ReadonlyMap<string, Group>;
  /** Location of a module to the key of its group. */
  readonly keyOf: ReadonlyMap<string, string>;
}

/** One package for each line; the newest version of it in the tree. */
function buildStore(
  modules: readonly NodeModule[],
  warnings: Set<string>,
  rename: Readonly<Record<string, string>>,
): Store {
  const wantedAs = new Map<string, string[]>();
  for (const edge of modules.flatMap((one) => one.edges)) {
    if (edge.to !== undefined) wantedAs.set(edge.to, [...(wantedAs.get(edge.to) ?? []), edge.spec]);
  }
  const lines = new Map<string, { readonly line: string; readonly members: NodeModule[] }>();
  for (const one of modules.filter((module) => !module.inBundle)) {
    const line = lineFor(one.version, wantedAs.get(one.location) ?? []);
    const known = lines.get(`${realName(one)}@${line}`);
    if (known) known.members.push(one);
    else lines.set(`${realName(one)}@${line}`, { line, members: [one] });
  }
  const groups = new Map<string, Group>();
  const keyOf = new Map<string, string>();
  const taken = new Map<string, string>();
  for (const [id, { line, members }] of lines) {
    const module = members.reduce((best, one) => (compareSemver(one.version, best.version) > 0 ? one : best));
    const name = realName(module);
    const key = id.replaceAll('/', '+');
    groups.set(key, { key, name, debianName: uniqueName(name, line, taken, rename), module });
    for (const one of members) keyOf.set(one.location, key);
  }
  warnOfContexts(modules, keyOf, warnings);
  return { groups, keyOf };
}

/**
 * The widest line of which everybody takes every later version: all of `1` for `^1.2`, `1.2` for `~1.2.0`, the version alone where it is
 * pinned. So what one application pins never keeps another from an update, and a name never means two things.
 */
export function lineFor(version: string, specs: readonly string[]): string {
  const [major, minor] = version.split('.');
  const lines = [versionLine(version), `${major}.${minor}`];
  const last = (line: string) => [...line.split('.'), '999999', '999999'].slice(0, 3).join('.');
  const isPrerelease = version.includes('-');
  const wide = isPrerelease ? undefined : lines.find((line) => specs.every((spec) => takes(spec, last(line))));
  return wide ?? version.replace(/\+.*$/, '');
}

/** A package that sees other packages in different places of the tree is one in the store, and sees one of them. */
function warnOfContexts(
  modules: readonly NodeModule[],
  keyOf: ReadonlyMap<string, string>,
  warnings: Set<string>,
): void {
  const seen = new Map<string, string>();
  for (const one of modules) {
    for (const edge of one.edges.filter((other) => other.kind.startsWith('peer') && other.to !== undefined)) {
      const where = `${keyOf.get(one.location)} ${edge.name}`;
      const key = keyOf.get(edge.to!) ?? '';
      const other = seen.get(where);
      if (other !== undefined && other !== key) {
        warnings.add(
          `'${realName(one)}' ${one.version} stands beside '${other}' in one place and '${key}' in another; as packages it always has '${other}': use the mode bundle if that matters`,
        );
      } else seen.set(where, key);
    }
  }
}

/** Of two npm names that are one in Debian ('@a/b' and 'a-b') the second gets a `+`. */
function uniqueName(
  name: string,
  line: string,
  taken: Map<string, string>,
  rename: Readonly<Record<string, string>>,
): string {
  if (Object.hasOwn(rename, name)) return `${rename[name]}-${line.toLowerCase()}`;
  const plain = debianLineName(name, line);
  const other = taken.get(plain);
  const mine =
    other === undefined || other === name
      ? plain
      : debianLineName(name.replace(/^@([^/]+)\//, '$1+').replaceAll('_', '+'), line);
  taken.set(mine, name);
  return mine;
}

/** An alias has the folder of another name. */
function realName(module: NodeModule): string {
  return textOf(module.manifest.name) || module.name;
}

/** The module, and those that came in its tarball. */
function ownedBy(owner: NodeModule, modules: readonly NodeModule[]): NodeModule[] {
  const prefix = owner.location === '' ? 'node_modules/' : `${owner.location}/node_modules/`;
  const inside = modules.filter((one) => one.inBundle && one.location.startsWith(prefix));
  const closer = modules.filter(
    (one) => !one.inBundle && one.location !== owner.location && one.location.startsWith(prefix),
  );
  return [owner, ...inside.filter((one) => !closer.some((other) => one.location.startsWith(`${other.location}/`)))];
}

function outwardEdges(members: readonly NodeModule[], store: Store): [edge: NodeEdge, key: string][] {
  return members.flatMap((one) =>
    one.edges.flatMap((edge): [NodeEdge, string][] => {
      const key = edge.to === undefined ? undefined : store.keyOf.get(edge.to);
      return key === undefined ? [] : [[edge, key]];
    }),
  );
}

function linksOf(members: readonly NodeModule[], store: Store): Map<string, string> {
  const links = new Map<string, string>();
  for (const [edge, key] of outwardEdges(members, store)) if (!links.has(edge.name)) links.set(edge.name, key);
  return new Map([...links].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** @param atLeast set where the relation is on what was asked for: that very version or a later one of its line */
function relationsOn(
  members: readonly NodeModule[],
  store: Store,
  warnings: Set<string>,
  atLeast?: string,
): RelationGroup[] {
  const groups = outwardEdges(members, store).flatMap(([edge, key]) => {
    const group = store.groups.get(key)!;
    return relationsOfSpec(
      group.debianName,
      atLeast === undefined ? edge.spec : `>=${atLeast}`,
      group.module.version,
      warnings,
    );
  });
  return simplifyRelations(sortGroups(groups));
}

/** Edges of packages to what the suite has, in order. */
function presentEdges(members: readonly NodeModule[], { present }: NodePlanOptions): [NodeEdge, PresentModule][] {
  return members.flatMap((one) =>
    one.edges.flatMap((edge): [NodeEdge, PresentModule][] => {
      const there = edge.to === undefined ? undefined : present?.get(edge.to);
      return there === undefined ? [] : [[edge, there]];
    }),
  );
}

function suiteRelations(members: readonly NodeModule[], options: NodePlanOptions): RelationGroup[] {
  const groups = presentEdges(members, options).flatMap(([edge, there]) => relationsOnPresent(there, edge.spec));
  return simplifyRelations(sortGroups(groups));
}

function suiteLinksOf(members: readonly NodeModule[], options: NodePlanOptions): Map<string, string> {
  return new Map(presentEdges(members, options).map(([edge, there]) => [`node_modules/${edge.name}`, there.path]));
}

function relationsOfSpec(debianName: string, spec: string, version: string, warnings: Set<string>): RelationGroup[] {
  const range = rangeOfSpec(spec);
  if (range === undefined || !takes(spec, version)) {
    return [[{ name: debianName, version: { operator: '>=', version: debianUpstreamOfSemver(version) } }]];
  }
  const { groups, warnings: more } = debianRelationsOfRange(debianName, range);
  for (const warning of more) warnings.add(warning);
  return groups.length === 0 ? [[{ name: debianName }]] : groups;
}

/** The range in '^1', 'npm:other@^1'; undefined for tags, addresses and folders. */
function rangeOfSpec(spec: string): string | undefined {
  const range = /^npm:(?:@[^@/]+\/)?[^@/]+(?:@(.*))?$/.exec(spec);
  const text = range ? (range[1] ?? '*') : spec;
  return satisfiesNothing(text) ? undefined : text;
}

function satisfiesNothing(text: string): boolean {
  try {
    debianRelationsOfRange('x', text);
    return false;
  } catch {
    return true;
  }
}

function takes(spec: string, version: string): boolean {
  const range = rangeOfSpec(spec);
  return range !== undefined && satisfiesRange(version, range);
}

/** On nodejs: what `engines` of all modules take together. */
function nodeRelations(
  members: readonly NodeModule[],
  options: NodePlanOptions,
  warnings: Set<string>,
): RelationGroup[] {
  const groups: RelationGroup[] = [[{ name: 'nodejs' }]];
  for (const one of members) {
    const range = textOf(asTable(one.manifest.engines).node);
    if (range === '' || satisfiesNothing(range)) continue;
    groups.push(...debianRelationsOfRange('nodejs', range).groups);
    if (isSemver(options.nodeVersion) && !satisfiesRange(options.nodeVersion, range)) {
      warnings.add(
        `'${one.name}' ${one.version} wants Node.js ${range}, and ${options.suite} has ${options.nodeVersion}: it installs only where a newer nodejs package is at hand`,
      );
    }
  }
  return simplifyRelations(sortGroups(groups));
}

function sortGroups(groups: readonly RelationGroup[]): RelationGroup[] {
  return groups.toSorted((a, b) => (formatRelations([a]) < formatRelations([b]) ? -1 : 1));
}
