import { expect, it } from 'vitest';
import { dotText, planGraph } from '../../../src/pkg/graph.ts';

const graph = planGraph({
  table: [
    { name: 'app', version: '1.0-1', decision: 'build', why: '' },
    { name: 'python3-six', version: '1.16-4', decision: 'present', why: '' },
    { name: 'weird"na\\me', version: '2', decision: 'vendor', why: '' },
  ],
  edges: [
    ['app', 'python3-six'],
    ['app', 'python3-six'],
    ['app', 'python3'],
  ],
});

it('planGraph has every row, what relations name beside, and each edge once', () => {
  expect(graph).toEqual({
    nodes: [
      { name: 'app', version: '1.0-1', decision: 'build' },
      { name: 'python3-six', version: '1.16-4', decision: 'present' },
      { name: 'weird"na\\me', version: '2', decision: 'vendor' },
      { name: 'python3', version: '', decision: 'present' },
    ],
    edges: [
      { from: 'app', to: 'python3-six' },
      { from: 'app', to: 'python3' },
    ],
  });
});

it('dotText quotes names and says the decisions', () => {
  expect(dotText(graph)).toBe(`digraph packages {
  "app" [label="app\\n1.0-1\\nbuild", shape=box];
  "python3-six" [label="python3-six\\n1.16-4\\npresent", shape=box, style=dashed];
  "weird\\"na\\\\me" [label="weird\\"na\\\\me\\n2\\nvendor", shape=box, style=filled, fillcolor=lightgrey];
  "python3" [label="python3\\npresent", shape=box, style=dashed];
  "app" -> "python3-six";
  "app" -> "python3";
}`);
});
