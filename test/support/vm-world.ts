/** A state folder with a base of bookworm for machines of a test file; every machine in it is gone afterwards. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Context } from '../../src/core/context.ts';
import { createLog } from '../../src/core/log.ts';
import { run } from '../../src/core/run.ts';
import { type Base, buildBase } from '../../src/vm/base.ts';
import { listVms } from '../../src/vm/machine.ts';
import { destroyVm } from '../../src/vm/vm.ts';

export interface VmWorld extends AsyncDisposable {
  readonly context: Context;
  readonly base: Base;
  /** For scratch files. */
  readonly folder: string;
  /** What was narrated, in order; a test may empty it. */
  readonly said: string[];
}

/** @param below name of the state folder in the scratch folder; BUILDKIT_TEST_STATE names one whose base is used instead */
export async function createVmWorld(below = 'state'): Promise<VmWorld> {
  const folder = await mkdtemp(join(tmpdir(), 'buildkit-vm-'));
  const said: string[] = [];
  const context: Context = {
    env: process.env,
    signal: new AbortController().signal,
    log: createLog({
      level: 'verbose',
      sink: { write: (text) => void said.push(text), isTerminal: false, columns: 80 },
      clock: () => performance.now(),
    }),
    now: () => new Date(),
    stateDir: process.env.BUILDKIT_TEST_STATE ?? join(folder, below),
    cacheDir: join(folder, 'cache'),
    programDir: resolve(import.meta.dirname, '../..'),
  };
  await takeBases(context);
  const base = await buildBase(context, { suite: 'bookworm' });
  return {
    context,
    base,
    folder,
    said,
    async [Symbol.asyncDispose]() {
      for (const { name } of await listVms(context)) await destroyVm(context, name);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Bases of the whole run, the one that is wanted built where it is missing, by links to their files, which nobody writes to. */
export async function takeBases(context: Context): Promise<void> {
  const { BUILDKIT_TEST_BASES: shared, BUILDKIT_TEST_STATE: own } = process.env;
  if (!shared || own) return;
  await buildBase({ ...context, stateDir: shared }, { suite: 'bookworm' });
  await mkdir(join(context.stateDir, 'vm'), { recursive: true });
  await run({}, 'cp', ['-al', '--', join(shared, 'vm/bases'), join(context.stateDir, 'vm/bases')]);
}
