/**
 * A plan, or any packages, as a graph: who needs whom, and what becomes of each.
 *
 * Secret: the DOT language of Graphviz (graphviz.org/doc/info/lang.html): quoting, and how a decision is drawn.
 */
import { getField } from '../deb/control.ts';
import type { BinaryPackage } from '../deb/package.ts';
import { type Candidate, indexCandidates, parseRelations, satisfiers } from '../deb/relation.ts';
import type { BuildPlan } from './build.ts';
import type { PlannedDependency } from './job.ts';

type Decision = PlannedDependency['decision'] | 'given' | 'other';

export interface PlanGraph {
  readonly nodes: readonly {
    readonly name: string;
    /** '' where only its name is known. */
    readonly version: string;
    /** Of packages that are there already, `given` or only named by those: `other`. */
    readonly decision: Decision;
  }[];
  readonly edges: readonly { readonly from: string; readonly to: string }[];
}

/** What is only named in relations (python3, libc6) is left to the suite, in a version that the plan does not say. */
export function planGraph({ table, edges }: Pick<BuildPlan, 'table' | 'edges'>): PlanGraph {
  return graphOf(table, edges, 'present');
}

/** @param unknown what becomes of those that only an edge names */
function graphOf(table: PlanGraph['nodes'], edges: BuildPlan['edges'], unknown: Decision): PlanGraph {
  const nodes = new Map(table.map(({ name, version, decision }) => [name, { name, version, decision }]));
  for (const [, to] of edges) if (!nodes.has(to)) nodes.set(to, { name: to, version: '', decision: unknown });
  const unique = new Map(edges.map(([from, to]) => [`${from} ${to}`, { from, to }]));
  return { nodes: [...nodes.values()], edges: [...unique.values()] };
}

/**
 * Who of these packages needs whom, by Depends and Pre-Depends. Of alternatives each that is among them counts, by name, version and
 * Provides; where none is, the first is shown as another package.
 * @throws UserError `relation-syntax`
 */
export function packageGraph(packages: readonly BinaryPackage[]): PlanGraph {
  const candidates = packages.map(({ control, name, version, architecture }): Candidate => {
    const [multiArch, provides] = [getField(control, 'Multi-Arch'), getField(control, 'Provides')];
    return { name, version, architecture, multiArch, provides };
  });
  const index = indexCandidates(candidates);
  const table = packages.map(({ name, version }) => ({ name, version, decision: 'given' as const }));
  const edges = packages.flatMap(({ name, control }) =>
    ['Pre-Depends', 'Depends'].flatMap((field) =>
      parseRelations(getField(control, field) ?? '').flatMap((group) => {
        const found = group.flatMap((relation) => satisfiers(relation, index).map((one) => one.name));
        const names = found.length > 0 ? found : [group[0]!.name];
        return names.filter((other) => other !== name).map((other) => [name, other] as const);
      }),
    ),
  );
  return graphOf(table, edges, 'other');
}

const SHAPES: Readonly<Record<Decision, string>> = {
  given: 'shape=box',
  other: 'shape=box, style=dashed',
  build: 'shape=box',
  present: 'shape=box, style=dashed',
  vendor: 'shape=box, style=filled, fillcolor=lightgrey',
  drop: 'shape=plaintext',
};

export function dotText({ nodes, edges }: PlanGraph): string {
  const quoted = (text: string) => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
  return [
    'digraph packages {',
    ...nodes.map(({ name, version, decision }) => {
      const label = [name, version, decision].filter((text) => text !== '').join('\n');
      return `  ${quoted(name)} [label=${quoted(label).replaceAll('\n', '\\n')}, ${SHAPES[decision]}];`;
    }),
    ...edges.map(({ from, to }) => `  ${quoted(from)} -> ${quoted(to)};`),
    '}',
  ].join('\n');
}
