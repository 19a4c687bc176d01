/** A context for tests: fixed clock that can be turned, temp folders that vanish, silence. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Context } from '../../src/core/context.ts';
import { silentLog } from '../../src/core/log.ts';

export interface World extends AsyncDisposable {
  readonly context: Context;
  readonly path: string;
  /** Warnings so far. */
  readonly warnings: string[];
  /** Sets the clock; undefined: the real one. */
  setClock(date: Date | undefined): void;
}

/** @param clock undefined: the real one */
export async function createWorld(clock?: Date): Promise<World> {
  const path = await mkdtemp(join(tmpdir(), 'buildkit-test-'));
  const warnings: string[] = [];
  let fixed = clock;
  return {
    path,
    warnings,
    setClock: (date) => {
      fixed = date;
    },
    context: {
      env: process.env,
      signal: new AbortController().signal,
      log: { ...silentLog(), warn: (text) => void warnings.push(text) },
      now: () => fixed ?? new Date(),
      stateDir: join(path, 'state'),
      cacheDir: join(path, 'cache'),
      programDir: resolve(import.meta.dirname, '../..'),
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 3 }),
  };
}
