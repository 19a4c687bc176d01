/**
 * Does what a plan of net-plan.ts says.
 *
 * Secret: how an effect is done, and what the kernel answers where it may not be (proc(5), ip-sysctl).
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import type { RunContext } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { writeFileAtomic } from '../core/files.ts';
import { run } from '../core/run.ts';
import { pidOfDnsmasq } from './net-facts.ts';
import type { Effect } from './net-plan.ts';
import { endOf, signalProcess, waitUntil } from './process.ts';

export async function applyAll(context: RunContext, effects: readonly Effect[]): Promise<void> {
  for (const effect of effects) await applyEffect(context, effect);
}

async function applyEffect(context: RunContext, effect: Effect): Promise<void> {
  switch (effect.kind) {
    case 'run': {
      const [program = '', ...args] = effect.argv;
      const input = effect.input === undefined ? {} : { input: effect.input };
      await run(context, program, args, { timeoutMs: 30_000, ...input });
      return;
    }
    case 'sysctl':
      await switchTo(context, effect.key, effect.value);
      return;
    case 'write':
      await writeFileAtomic(effect.path, effect.text);
      return;
    case 'stop':
      await stopDnsmasq(effect);
      return;
    case 'remove':
      for (const path of effect.paths) await rm(path, { force: true });
  }
}

/** @throws UserError `net-switch` where /proc/sys is read-only, as in most containers */
async function switchTo(context: RunContext, key: string, value: string): Promise<void> {
  const path = `/proc/sys/${key}`;
  if ((await readFile(path, 'utf8')).trim() === value) return;
  context.log?.detail(`+ echo ${value} > ${path}`);
  try {
    await writeFile(path, `${value}\n`);
  } catch (cause) {
    if (!['EROFS', 'EACCES', 'EPERM'].includes(errnoOf(cause) ?? '')) throw cause;
    throw new UserError('net-switch', `no right to write '${path}'`, {
      hint: 'an isolated network needs no forwarding (--isolated), the user network no rights: buildkit vm start NAME without --bridge',
      cause,
    });
  }
}

async function stopDnsmasq(places: { pidFile: string; conf: string }): Promise<void> {
  const pid = await pidOfDnsmasq(places);
  if (pid === undefined) return;
  const gone = await endOf(pid);
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    if (!signalProcess(pid, signal)) return;
    if (await waitUntil(gone, 3000)) return;
  }
}
