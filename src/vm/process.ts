/**
 * Which process is which: QEMU by the UUID on its command line, others by pid and start time (proc(5)), so that a number that
 * the kernel gave to somebody else is never taken for ours.
 */
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf } from '../core/errors.ts';

/** A process of this boot. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot at its start. */
  readonly startTicks: number;
  readonly bootId: string;
}

export async function readBootId(): Promise<string> {
  return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
}

async function startTicks(pid: number): Promise<number | undefined> {
  try {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8');
    // the name in parentheses may hold blanks and parentheses
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    // a dead leader whose other threads are still about keeps files, locks and sockets open
    const ended = fields[0] === 'Z' && (await readdir(`/proc/${pid}/task`)).length <= 1;
    return ended ? undefined : Number(fields[19]);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ESRCH') return undefined;
    throw error;
  }
}

export async function identityOf(pid: number): Promise<ProcessIdentity> {
  return { pid, startTicks: (await startTicks(pid)) ?? -1, bootId: await readBootId() };
}

export async function isAlive(identity: ProcessIdentity): Promise<boolean> {
  return identity.bootId === (await readBootId()) && identity.startTicks === (await startTicks(identity.pid));
}

/**
 * Tells whether the process that has `pid` now has ended. Neither its pid file nor its command line do: both go before the kernel closes
 * its sockets and drops its locks.
 */
export async function endOf(pid: number): Promise<() => Promise<boolean>> {
  const identity = await identityOf(pid);
  return async () => !(await isAlive(identity));
}

/** The pid in `pidFile` if that process runs and has `argument` on its command line, whole. */
export function pidWithArgument(pidFile: string, argument: string): Promise<number | undefined> {
  return pidWhere(pidFile, (words) => words.includes(argument));
}

/** The pid in `pidFile` if that process runs and mentions `text` on its command line. */
export function pidWithWord(pidFile: string, text: string): Promise<number | undefined> {
  return pidWhere(pidFile, (words) => words.some((word) => word.includes(text)));
}

async function pidWhere(pidFile: string, isIt: (words: readonly string[]) => boolean): Promise<number | undefined> {
  try {
    const pid = Number.parseInt(await readFile(pidFile, 'utf8'), 10);
    if (!Number.isInteger(pid) || pid <= 1) return undefined;
    const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
    return isIt(words) ? pid : undefined;
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'ENOTDIR'].includes(errnoOf(error) ?? '')) return undefined;
    throw error;
  }
}

/** Sends a signal; false when there is no such process any more. */
export function signalProcess(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    if (errnoOf(error) === 'ESRCH') return false;
    throw error;
  }
}

/** Waits until `gone` says so; false when `limitMs` is over first. For processes that are no children of ours. */
export async function waitUntil(gone: () => Promise<boolean>, limitMs: number): Promise<boolean> {
  const end = performance.now() + limitMs;
  while (!(await gone())) {
    if (performance.now() >= end) return false;
    await sleep(20);
  }
  return true;
}
