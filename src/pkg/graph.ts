/**
 * A plan as a graph: who needs whom, and what becomes of each.
 *
 * Secret: the DOT language of Graphviz (graphviz.org/doc/info/lang.html): quoting, and how a decision is drawn.
 */
import type { BuildPlan } from './build.ts';
import type { PlannedDependency } from './job.ts';

export interface PlanGraph {
  readonly nodes: readonly Pick<PlannedDependency, 'name' | 'version' | 'decision'>[];
  readonly edges: readonly { readonly from: string; readonly to: string }[];
}

/** What is only named in relations (python3, libc6) is left to the suite, in a version that the plan does not say. */
export function planGraph({ table, edges }: Pick<BuildPlan, 'table' | 'edges'>): PlanGraph {
  const nodes = new Map(table.map(({ name, version, decision }) => [name, { name, version, decision }]));
  for (const [, to] of edges) if (!nodes.has(to)) nodes.set(to, { name: to, version: '', decision: 'present' });
  const unique = new Map(edges.map(([from, to]) => [`${from} ${to}`, { from, to }]));
  return { nodes: [...nodes.values()], edges: [...unique.values()] };
}

const SHAPES: Readonly<Record<PlannedDependency['decision'], string>> = {
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
