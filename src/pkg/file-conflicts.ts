/**
 * Files that two packages would both own: dpkg refuses to unpack the second (Policy 7.6, 10.1).
 *
 * Secret: when such a pair may say so in its relations, and when it is an error. Two packages that nobody needs together get
 * Conflicts and Replaces on each other (Policy 7.4, 7.6.2); two that one package needs can never be installed, and neither can a
 * package beside one of the suite that it, or the system itself, depends on.
 */
import { type Problem, ProblemsError } from '../core/errors.ts';
import type { ExtraRelations } from './produce.ts';

export interface Owned {
  readonly name: string;
  /** Installed paths, no folders. */
  readonly paths: readonly string[];
}

export interface Clash {
  readonly path: string;
  /** Sorted. */
  readonly owners: readonly string[];
}

/** Who needs whom, by Debian names. */
export type Edges = readonly (readonly [from: string, to: string])[];

/** Files that two packages of one plan would both own. */
export function findClashes(built: readonly Owned[]): Clash[] {
  const owners = new Map<string, string[]>();
  for (const one of built) {
    for (const path of one.paths) {
      const known = owners.get(path);
      if (known) known.push(one.name);
      else owners.set(path, [one.name]);
    }
  }
  return [...owners].filter(([, names]) => names.length > 1).map(([path, names]) => ({ path, owners: names.sort() }));
}

/** Two packages and the files that both have. */
interface Pair {
  readonly mine: string;
  readonly other: string;
  readonly paths: string[];
}

function pairsOf(clashes: readonly Clash[]): Pair[] {
  const pairs = new Map<string, Pair>();
  for (const { path, owners } of clashes) {
    for (const [index, mine] of owners.entries()) {
      for (const other of owners.slice(index + 1)) {
        const known = pairs.get(`${mine} ${other}`);
        if (known) known.paths.push(path);
        else pairs.set(`${mine} ${other}`, { mine, other, paths: [path] });
      }
    }
  }
  return [...pairs.values()];
}

/**
 * What packages of one plan say of each other.
 * @param clashes of `findClashes`
 * @throws ProblemsError `file-clash` for packages that one of the plan needs together
 */
export function relationsAmong(clashes: readonly Clash[], edges: Edges): Map<string, ExtraRelations> {
  const pairs = pairsOf(clashes);
  const together = pairs.flatMap((pair) => {
    const by = neededTogether(pair, edges);
    return by === undefined ? [] : [problemOf(pair, `'${by}' needs both`)];
  });
  refuse(together);
  const others = new Map<string, string[]>();
  for (const { mine, other } of pairs) {
    others.set(mine, [...(others.get(mine) ?? []), other]);
    others.set(other, [...(others.get(other) ?? []), mine]);
  }
  return asRelations(others);
}

/**
 * What packages say of those of the suite whose files they take.
 * @param owners path to the suite's packages that have it
 * @param depends name of a package of the plan to the names in its relations
 * @param essential packages of the suite that no system is without
 * @throws ProblemsError `file-clash`
 */
export function relationsWithSuite(
  built: readonly Owned[],
  owners: ReadonlyMap<string, readonly string[]>,
  depends: ReadonlyMap<string, readonly string[]>,
  essential: ReadonlySet<string>,
): Map<string, ExtraRelations> {
  const names = new Set(built.map((one) => one.name));
  const needed = new Map([...depends].flatMap(([from, list]) => list.map((to) => [to, from] as const)));
  const pairs = new Map<string, Pair>();
  for (const one of built) {
    for (const path of one.paths) {
      for (const other of owners.get(path) ?? []) {
        if (names.has(other) || one.name === other) continue; // the plan brings a version of its own
        const pair = pairs.get(`${one.name} ${other}`) ?? { mine: one.name, other, paths: [] };
        pair.paths.push(path);
        pairs.set(`${one.name} ${other}`, pair);
      }
    }
  }
  refuse(
    [...pairs.values()].flatMap((pair) => {
      const from = needed.get(pair.other);
      if (from !== undefined) return [problemOf(pair, `'${from}' depends on the suite's '${pair.other}'`)];
      return essential.has(pair.other) ? [problemOf(pair, `every system has '${pair.other}'`)] : [];
    }),
  );
  const others = new Map<string, string[]>();
  for (const { mine, other } of pairs.values()) others.set(mine, [...(others.get(mine) ?? []), other]);
  return asRelations(others);
}

function asRelations(others: ReadonlyMap<string, readonly string[]>): Map<string, ExtraRelations> {
  return new Map(
    [...others].map(([name, list]) => {
      const sorted = [...new Set(list)].sort();
      return [name, { Conflicts: sorted, Replaces: sorted }];
    }),
  );
}

/** A package that brings both, however far away; one that needs the other itself counts, too. */
function neededTogether({ mine, other }: Pair, edges: Edges): string | undefined {
  const needs = Map.groupBy(edges, ([from]) => from);
  const reach = (start: string): Set<string> => {
    const seen = new Set([start]);
    for (const name of seen) for (const [, to] of needs.get(name) ?? []) seen.add(to);
    return seen;
  };
  return [...new Set([mine, other, ...needs.keys()])].find((name) => {
    const reached = reach(name);
    return reached.has(mine) && reached.has(other);
  });
}

function problemOf({ mine, other, paths }: Pair, why: string): Problem {
  const shown = paths.slice(0, 3).join(', ');
  const more = paths.length > 3 ? ` and ${paths.length - 3} more` : '';
  return {
    code: 'file-clash',
    message: `'${mine}' and '${other}' both have ${shown}${more}, and ${why}`,
    subject: mine,
  };
}

function refuse(problems: readonly Problem[]): void {
  if (problems.length === 0) return;
  throw new ProblemsError('file-clash', 'dpkg would refuse files that two packages have', problems, {
    hint: 'leave one of them out: drop, present or vendor in buildkit.yaml; or ask for one of them only',
  });
}
