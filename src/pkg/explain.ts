/**
 * Why a package was built anew or taken as it was: what went into it, by name, against what went into it the last time.
 *
 * Secret: what is kept of the last build (digests of its parts, short ones as they are), and under which key.
 */
import type { Context } from '../core/context.ts';
import { cachedValue, keepValue, keyOf } from './cache.ts';

/** Name of a part of a package's key to its value, or its digest where that is long. */
export type KeyParts = Readonly<Record<string, string>>;

export interface Explanation {
  readonly outcome: 'built' | 'reused';
  /** 'never built here before', 'changed: version 1.0 -> 1.1, the source'. */
  readonly why: string;
}

const LONGEST = 60;

/** The key of a package and its parts by name. Their order counts. */
export function keyed(parts: Readonly<Record<string, unknown>>): { readonly key: string; readonly parts: KeyParts } {
  const shown = Object.entries(parts).map(([name, value]) => {
    const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
    return [name, text.length <= LONGEST && !/^[0-9a-f]{40,}$/.test(text) ? text : `#${keyOf(text)}`] as const;
  });
  return { key: keyOf(parts), parts: Object.fromEntries(shown) };
}

/** @param last what went into it when it was built last; undefined: never, or nobody knows */
export function explain(
  outcome: Explanation['outcome'],
  now: KeyParts | undefined,
  last: KeyParts | undefined,
): Explanation {
  if (outcome === 'reused') return { outcome, why: 'nothing that goes into it has changed' };
  if (now === undefined)
    return { outcome, why: 'part of it has no digest that is known beforehand: it is always built' };
  if (last === undefined) return { outcome, why: 'never built here before' };
  const names = [...new Set([...Object.keys(last), ...Object.keys(now)])].filter((name) => last[name] !== now[name]);
  if (names.length === 0) return { outcome, why: 'it was lost from the cache' };
  return { outcome, why: `changed: ${names.map((name) => changeOf(name, last[name], now[name])).join(', ')}` };
}

function changeOf(name: string, last: string | undefined, now: string | undefined): string {
  const isShort = (text: string | undefined) => text === undefined || !text.startsWith('#');
  if (!isShort(last) || !isShort(now)) return name;
  return `${name} ${quoted(last)} -> ${quoted(now)}`;
}

function quoted(text: string | undefined): string {
  return text === undefined || text === '' || text === 'null' ? 'none' : text;
}

/** `line`: what tells this series of builds from others of the same name: the suite, the architecture. */
export async function lastParts(context: Context, name: string, line: string): Promise<KeyParts | undefined> {
  return (await cachedValue(context, 'last', keyOf([name, line]))) as KeyParts | undefined;
}

export function keepLastParts(context: Context, name: string, line: string, parts: KeyParts): Promise<void> {
  return keepValue(context, 'last', keyOf([name, line]), parts);
}
