/**
 * Ready means ready: the rungs from a started QEMU to a machine that can be worked in, each with a name and a limit.
 *
 * Secret: the signs of life of a Debian guest, in which order they come, and what ends all waiting at once.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Context } from '../core/context.ts';
import { BuildkitError, ToolError } from '../core/errors.ts';
import { formatDuration } from '../core/log.ts';
import { type ConsoleWatch, consoleEnd, lostCause } from './console.ts';
import { SSH_UP_LINE } from './guest.ts';
import type { Qmp } from './qmp.ts';
import { Ssh, type SshTarget } from './ssh.ts';
import { standstillCause } from './standstill.ts';

export interface WaitLimits {
  readonly sshMs: number;
  readonly loginMs: number;
  readonly systemMs: number;
}

/** Emulated on a busy machine; a machine that is healthy needs a tenth of it. */
export const DEFAULT_LIMITS: WaitLimits = { sshMs: 300_000, loginMs: 120_000, systemMs: 300_000 };

export interface Patient {
  readonly name: string;
  /** As a shell takes it, for the error. */
  readonly command: string;
  readonly console: ConsoleWatch;
  readonly qmp: Qmp;
  readonly target: SshTarget;
  /** The image has buildkit's unit that says when sshd is up; otherwise the port is tried again and again. */
  readonly tellsReady: boolean;
}

/**
 * Waits until `systemctl is-system-running` has settled; returns the connection. Ends at once when the guest panics or QEMU dies.
 * @throws ToolError `vm-not-ready`, `vm-lost`, with the end of the console
 */
export async function waitUntilReady(context: Context, patient: Patient, limits: WaitLimits): Promise<Ssh> {
  using lost = watchForLoss(patient);
  const rung = <T>(what: string, limitMs: number, body: (signal: AbortSignal) => Promise<T>) =>
    climb(context, patient, lost.promise, what, limitMs, body);
  await rung('sshd of the guest', limits.sshMs, (signal) => waitForSshUp(patient, signal));
  // an image that says nothing is at this rung from its first instruction on
  const loginMs = patient.tellsReady ? limits.loginMs : limits.sshMs + limits.loginMs;
  const ssh = await rung('a login by ssh', loginMs, (signal) => login(patient, signal));
  try {
    await rung('systemctl is-system-running', limits.systemMs, () => systemSettled(context, patient, ssh));
    return ssh;
  } catch (error) {
    ssh[Symbol.dispose]();
    throw error;
  }
}

/** Waits for a login alone: for a guest that was ready when it was frozen. @throws as `waitUntilReady` does */
export async function waitForLogin(context: Context, patient: Patient, limits: WaitLimits): Promise<Ssh> {
  using lost = watchForLoss(patient);
  const body = (signal: AbortSignal) => login(patient, signal);
  return climb(context, patient, lost.promise, 'a login by ssh', limits.loginMs, body);
}

/** Rejects when the machine is beyond hope. */
function watchForLoss({ console, qmp }: Patient): Disposable & { readonly promise: Promise<never> } {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => {}); // it is raced with each rung; between two rungs nobody listens
  const stopConsole = console.onChange((text) => {
    const cause = lostCause(text);
    if (cause !== undefined) reject(new LostError(cause));
  });
  const stopEvents = qmp.onEvent(({ event }) => {
    if (event === 'GUEST_PANICKED') reject(new LostError('the kernel of the guest panicked'));
    if (event === 'SHUTDOWN') reject(new LostError('the guest switched itself off'));
    if (event === 'STOP') void explainStop(qmp).then(reject, reject);
  });
  void qmp.closed.then(() => reject(new LostError('QEMU ended')));
  return {
    promise,
    [Symbol.dispose]() {
      stopConsole();
      stopEvents();
    },
  };
}

class LostError extends Error {}

async function explainStop(qmp: Qmp): Promise<Error> {
  const status = await qmp.status();
  return new LostError(standstillCause(status) ?? `QEMU stopped the guest (${status})`);
}

/** One rung: the body, or the loss of the machine, or the limit, whichever comes first. */
async function climb<T>(
  context: Context,
  patient: Patient,
  lost: Promise<never>,
  what: string,
  limitMs: number,
  body: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const limit = AbortSignal.timeout(limitMs);
  using stop = stopper([limit, context.signal]);
  try {
    return await Promise.race([body(stop.signal), lost, stop.rejection]);
  } catch (error) {
    context.signal.throwIfAborted();
    if (error instanceof BuildkitError && error.code === 'vm-not-ready') throw error;
    await patient.console.read();
    const failure = {
      command: patient.command,
      logFile: patient.console.path,
      stderrTail: consoleEnd(patient.console.text),
      hint: `the console of the machine is in ${patient.console.path}`,
      cause: error,
    };
    if (error instanceof LostError) {
      throw new ToolError(
        'vm-lost',
        `machine '${patient.name}' is lost: ${error.message}, waiting for ${what}`,
        failure,
      );
    }
    const why = limit.aborted ? `took longer than ${formatDuration(limitMs)}` : (error as Error).message;
    throw new ToolError('vm-not-ready', `machine '${patient.name}' is not ready: ${what}: ${why}`, failure);
  }
}

function stopper(signals: readonly AbortSignal[]): Disposable & { signal: AbortSignal; rejection: Promise<never> } {
  const ended = new AbortController();
  const any = AbortSignal.any([...signals, ended.signal]);
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => {});
  any.addEventListener('abort', () => reject(any.reason as Error), { once: true });
  if (any.aborted) reject(any.reason as Error);
  return { signal: any, rejection: promise, [Symbol.dispose]: () => ended.abort() };
}

/** Until the console says so. An image that cannot say it is tried at once. */
function waitForSshUp({ console, tellsReady }: Patient, signal: AbortSignal): Promise<void> {
  if (!tellsReady) return Promise.resolve();
  return new Promise((resolve) => {
    const stop = console.onChange((text) => {
      if (!text.includes(SSH_UP_LINE)) return;
      resolve();
      signal.removeEventListener('abort', end);
      queueMicrotask(() => stop());
    });
    const end = () => stop();
    signal.addEventListener('abort', end, { once: true });
  });
}

/**
 * QEMU accepts connections before the guest does, so a failed try means nothing. A refused key never gets better, but where
 * cloud-init is yet to put it in place, and host keys too.
 */
async function login({ target, tellsReady }: Patient, signal: AbortSignal): Promise<Ssh> {
  for (let pause = 100; ; pause = Math.min(pause * 2, 2000)) {
    try {
      return await Ssh.connect(target, 30_000, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (tellsReady && (error as { level?: string }).level === 'client-authentication') throw error;
      if (tellsReady && /Host denied|verification/.test((error as Error).message)) throw error;
    }
    await sleep(pause, undefined, { signal });
  }
}

async function systemSettled(context: Context, patient: Patient, ssh: Ssh): Promise<void> {
  const { stdout } = await ssh.exec(['systemctl', 'is-system-running', '--wait'], { signal: context.signal });
  const state = stdout.trim();
  if (state === 'running') return;
  if (state !== 'degraded') throw new Error(`systemd says '${state}'`);
  const failed = await ssh.exec(['systemctl', 'list-units', '--failed', '--plain', '--no-legend', '--no-pager']);
  const units = failed.stdout
    .split('\n')
    .map((line) => line.split(' ', 1)[0])
    .filter(Boolean);
  context.log.warn(`machine '${patient.name}' is up, but degraded: ${units.join(', ')} failed`);
}
