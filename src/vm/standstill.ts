/**
 * A machine whose QEMU runs and whose guest does not: found, said why, told to go on.
 *
 * Secret: QEMU's run states (QAPI RunState) and what they mean to people. A full disk of this machine stops the guest (`werror=enospc`
 * in qemu.ts); `cont` tries the write again. The control socket takes one visitor at a time: who waits for an answer asks again later.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ToolError } from '../core/errors.ts';
import { MACHINE_FILES } from './qemu.ts';
import { Qmp } from './qmp.ts';

const BROKEN_OFF = 'its start was broken off';
const MEANINGS: Readonly<Record<string, string>> = {
  'internal-error': 'the accelerator failed (KVM internal error)',
  'io-error': 'its disk cannot be written: no room left on this machine',
  'guest-panicked': 'the kernel of the guest panicked',
  paused: 'somebody stopped it (QMP stop)',
  // nobody is there who would give it what it waits for: QEMU would be busy with them
  inmigrate: BROKEN_OFF,
};
const ASK_EVERY_MS = 5000;
const ANSWER_MS = 2000;

/** Why the guest does not run in this run state of QEMU; undefined: it does, or is about to. */
export function standstillCause(status: string): string | undefined {
  return MEANINGS[status];
}

/** Why the guest of the machine in `dir` stands still; undefined when it runs, or when QEMU is busy with somebody else. */
export async function findStandstill(dir: string): Promise<string | undefined> {
  try {
    const signal = AbortSignal.timeout(ANSWER_MS);
    await using qmp = await Qmp.connect(join(dir, MACHINE_FILES.qmpSocket), { signal });
    return standstillCause(await qmp.status());
  } catch {
    return undefined; // it has ended, or begins
  }
}

/** Aborts its signal when the guest stands still: whoever waits for the guest then would wait for ever. */
export function watchStandstill(name: string, dir: string): Disposable & { readonly signal: AbortSignal } {
  const found = new AbortController();
  const timer = setInterval(async () => {
    const cause = await findStandstill(dir);
    if (cause !== undefined) found.abort(standstillError(name, cause));
  }, ASK_EVERY_MS);
  timer.unref();
  return { signal: found.signal, [Symbol.dispose]: () => clearInterval(timer) };
}

function standstillError(name: string, cause: string): ToolError {
  return new ToolError('guest-paused', `machine '${name}' stands still: ${cause}`, {
    command: 'query-status',
    hint:
      cause === BROKEN_OFF
        ? `end it: buildkit vm stop --timeout 0 ${name}`
        : `mend that, then let it go on: buildkit vm start ${name}; what it was doing it goes on with`,
  });
}

/**
 * Lets a guest that stands still go on.
 * @returns false when it did not stand still
 * @throws ToolError `guest-paused` when it stops again
 */
export async function letGoOn(name: string, dir: string): Promise<boolean> {
  const found = await findStandstill(dir);
  if (found === undefined) return false;
  if (found === BROKEN_OFF) throw standstillError(name, found);
  await using qmp = await Qmp.connect(join(dir, MACHINE_FILES.qmpSocket));
  await qmp.execute('cont');
  await sleep(1000); // the write that failed is tried at once
  const cause = standstillCause(await qmp.status());
  if (cause !== undefined) throw standstillError(name, cause);
  return true;
}
