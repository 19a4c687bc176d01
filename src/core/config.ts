/**
 * Layered configuration: defaults, a YAML file, the environment and flags, the later winning, each value with its origin.
 *
 * Secret: how a YAML position, an environment variable or a flag is found again when a value is wrong. What the keys mean
 * is the schema's business (zod), handed in.
 */
import { isMap, isNode, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { z } from 'zod';
import { type Problem, ProblemsError } from './errors.ts';
import { didYouMean } from './nearest.ts';

export type Origin =
  | { readonly kind: 'default' }
  | { readonly kind: 'file'; readonly file: string; readonly line: number; readonly column: number }
  | { readonly kind: 'environment'; readonly variable: string }
  | { readonly kind: 'flag'; readonly flag: string };

export interface ConfigLayers {
  readonly file?: { readonly path: string; readonly text: string } | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** `BUILDKIT` makes BUILDKIT_REPO_VALID_FOR stand for `repo.valid-for`. */
  readonly envPrefix: string;
  /** Dotted key to value and to the flag that gave it. */
  readonly flags?: Readonly<Record<string, { readonly value: unknown; readonly flag: string }>>;
}

export interface LoadedConfig<T> {
  readonly values: T;
  /** Every leaf: dotted key, value, where it came from; sorted as the schema lists them. */
  readonly entries: readonly { readonly key: string; readonly value: unknown; readonly origin: Origin }[];
}

interface SchemaNode {
  readonly type?: string | string[];
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly additionalProperties?: boolean | SchemaNode;
  readonly items?: SchemaNode;
  readonly anyOf?: readonly SchemaNode[];
  readonly enum?: readonly unknown[];
  readonly description?: string;
  readonly default?: unknown;
}

/** JSON Schema (2020-12) of a configuration file, for editors. */
export function configJsonSchema(schema: z.ZodType, title: string): Record<string, unknown> {
  return { ...z.toJSONSchema(schema, { io: 'input' }), title };
}

/**
 * Merges the layers and checks the result.
 * @throws ProblemsError `config-invalid` with every problem: file, line, column, and the nearest known key
 */
export function loadConfig<T>(schema: z.ZodType<T>, layers: ConfigLayers): LoadedConfig<T> {
  const shape = z.toJSONSchema(schema, { io: 'input' }) as SchemaNode;
  const origins = new Map<string, Origin>();
  const problems: Problem[] = [];
  const raw: Record<string, unknown> = {};
  const locate = layers.file ? readFileLayer(layers.file, raw, origins, problems) : () => undefined;
  for (const [key, node] of leaves(shape)) {
    const variable = `${layers.envPrefix}_${key.toUpperCase().replaceAll(/[^A-Z0-9]+/g, '_')}`;
    const text = layers.env[variable];
    if (text === undefined || text === '') continue;
    setAt(raw, key.split('.'), fromText(text, node));
    origins.set(key, { kind: 'environment', variable });
  }
  for (const [key, { value, flag }] of Object.entries(layers.flags ?? {})) {
    setAt(raw, key.split('.'), value);
    origins.set(key, { kind: 'flag', flag });
  }
  const parsed = schema.safeParse(raw);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) problems.push(...explainIssue(issue, shape, origins, locate));
  }
  if (problems.length > 0 || !parsed.success) {
    throw invalid(
      problems.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0)),
      layers.file?.path,
    );
  }
  return { values: parsed.data, entries: listEntries(shape, parsed.data, origins) };
}

function invalid(problems: readonly Problem[], file: string | undefined): ProblemsError {
  const count = problems.length === 1 ? 'a mistake' : `${problems.length} mistakes`;
  return new ProblemsError('config-invalid', `${count} in the configuration`, problems, {
    ...(file === undefined ? {} : { file }),
    hint: 'see the keys and their meaning: buildkit config schema',
  });
}

type Locate = (
  path: readonly PropertyKey[],
  onKey: boolean,
) => { file: string; line: number; column: number } | undefined;

function readFileLayer(
  file: { readonly path: string; readonly text: string },
  raw: Record<string, unknown>,
  origins: Map<string, Origin>,
  problems: Problem[],
): Locate {
  const counter = new LineCounter();
  const document = parseDocument(file.text, { lineCounter: counter, uniqueKeys: true, prettyErrors: false });
  for (const error of document.errors) {
    const at = counter.linePos(error.pos[0]);
    problems.push({ code: 'yaml-syntax', message: error.message, file: file.path, line: at.line, column: at.col });
  }
  const root = document.contents;
  if (problems.length === 0 && root !== null && !isMap(root)) {
    problems.push({
      code: 'yaml-syntax',
      message: 'the file must be a mapping of keys to values',
      file: file.path,
      line: 1,
      column: 1,
    });
  }
  if (problems.length > 0) throw invalid(problems, file.path);
  Object.assign(raw, document.toJS({ maxAliasCount: 50 }) ?? {});
  const position = (node: unknown) => {
    const range = isNode(node) ? (node as Node).range : undefined;
    const at = counter.linePos(range?.[0] ?? 0);
    return { file: file.path, line: at.line, column: at.col };
  };
  const walk = (node: unknown, path: string[]): void => {
    if (path.length > 0) origins.set(path.join('.'), { kind: 'file', ...position(node) });
    if (!isMap(node)) return;
    for (const pair of node.items) walk(pair.value ?? pair.key, [...path, String(pair.key)]);
  };
  walk(root, []);
  return (path, onKey) => {
    let node: unknown = root;
    let found: unknown = root;
    for (const [index, step] of path.entries()) {
      if (isMap(node)) {
        const pair = node.items.find((item) => String(item.key) === String(step));
        if (!pair) break;
        found = onKey && index === path.length - 1 ? pair.key : (pair.value ?? pair.key);
        node = pair.value;
      } else if (isSeq(node)) {
        found = node.items[Number(step)] ?? found;
        node = node.items[Number(step)];
      } else break;
    }
    return isNode(found) ? position(found) : undefined;
  };
}

function explainIssue(
  issue: z.core.$ZodIssue,
  shape: SchemaNode,
  origins: ReadonlyMap<string, Origin>,
  locate: Locate,
): Problem[] {
  const path = issue.path.map(String);
  if (issue.code === 'unrecognized_keys') {
    const known = Object.keys(nodeAt(shape, path)?.properties ?? {});
    return issue.keys.map((key) => ({
      code: 'config-unknown-key',
      message: `unknown key '${[...path, key].join('.')}'`,
      hint: didYouMean(key, known),
      ...locate([...path, key], true),
    }));
  }
  const dotted = path.join('.');
  const origin = origins.get(dotted);
  const where =
    origin?.kind === 'environment'
      ? ` (from ${origin.variable})`
      : origin?.kind === 'flag'
        ? ` (from ${origin.flag})`
        : '';
  const hint = nodeAt(shape, path)?.description;
  const place = origin === undefined || origin.kind === 'file' ? locate(issue.path, false) : {};
  return [
    {
      code: 'config-value',
      message: `'${dotted || 'the file'}'${where}: ${lowerFirst(issue.message)}`,
      hint,
      ...place,
    },
  ];
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

function nodeAt(shape: SchemaNode, path: readonly string[]): SchemaNode | undefined {
  let node: SchemaNode | undefined = shape;
  for (const step of path) {
    const candidates: readonly SchemaNode[] = node?.anyOf ?? (node ? [node] : []);
    node = candidates
      .map(
        (one) =>
          one.properties?.[step] ??
          (/^\d+$/.test(step) ? one.items : undefined) ??
          (typeof one.additionalProperties === 'object' ? one.additionalProperties : undefined),
      )
      .find((one) => one !== undefined);
  }
  return node;
}

/** Dotted keys of all values that are no mappings of fixed keys. */
function* leaves(node: SchemaNode, path: readonly string[] = []): Generator<[string, SchemaNode]> {
  if (node.properties === undefined) {
    yield [path.join('.'), node];
    return;
  }
  for (const [key, child] of Object.entries(node.properties)) yield* leaves(child, [...path, key]);
}

/** An environment variable's text as the leaf's type: numbers, true/false, comma-separated lists. */
function fromText(text: string, node: SchemaNode): unknown {
  const types = [node.type ?? [], ...(node.anyOf ?? []).map((one) => one.type ?? [])].flat();
  if (types.includes('array'))
    return text
      .split(',')
      .map((part) => part.trim())
      .filter((part) => part !== '');
  if (types.includes('boolean') && /^(true|false|yes|no|1|0)$/.test(text)) return /^(true|yes|1)$/.test(text);
  if ((types.includes('number') || types.includes('integer')) && /^-?\d+(\.\d+)?$/.test(text)) return Number(text);
  return text;
}

function setAt(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let node = target;
  for (const step of path.slice(0, -1)) {
    const next = node[step];
    if (typeof next === 'object' && next !== null && !Array.isArray(next)) node = next as Record<string, unknown>;
    else {
      const made: Record<string, unknown> = {};
      node[step] = made;
      node = made;
    }
  }
  node[path.at(-1)!] = value;
}

function listEntries(
  shape: SchemaNode,
  values: unknown,
  origins: ReadonlyMap<string, Origin>,
): LoadedConfig<unknown>['entries'] {
  return [...leaves(shape)].flatMap(([key]) => {
    let value: unknown = values;
    for (const step of key.split('.')) value = (value as Record<string, unknown> | undefined)?.[step];
    return value === undefined ? [] : [{ key, value, origin: originOf(key, origins) }];
  });
}

/** A list or mapping given whole has its origin at the key itself. */
function originOf(key: string, origins: ReadonlyMap<string, Origin>): Origin {
  return origins.get(key) ?? { kind: 'default' };
}

/** Where a value came from, for people. */
export function formatOrigin(origin: Origin): string {
  switch (origin.kind) {
    case 'default':
      return 'default';
    case 'file':
      return `${origin.file}:${origin.line}:${origin.column}`;
    case 'environment':
      return `environment ${origin.variable}`;
    case 'flag':
      return `flag ${origin.flag}`;
  }
}
