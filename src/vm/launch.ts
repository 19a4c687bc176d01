/**
 * Starting QEMU and getting hold of it: as a child that dies with this process, or detached.
 *
 * Secret: setpriv(1) asks the kernel to kill QEMU with its parent, so that even `kill -9` of buildkit leaves no machine that
 * nobody owns; -daemonize is QEMU's own way to outlive it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Context } from '../core/context.ts';
import { errnoOf, ToolError } from '../core/errors.ts';
import { type RunningProgram, run, start } from '../core/run.ts';
import { Qmp } from './qmp.ts';

/** Starts QEMU in `folder`; the child's handle unless it is detached. */
export async function launch(
  context: Context,
  folder: string,
  program: string,
  args: readonly string[],
): Promise<RunningProgram | undefined> {
  if (args.includes('-daemonize')) {
    await run(context, program, args, { cwd: folder, timeoutMs: 60_000 });
    return undefined;
  }
  return start(context, 'setpriv', ['--pdeathsig', 'KILL', '--', program, ...args], {
    cwd: folder,
    stdio: { stdin: 'ignore', stdout: 'ignore' },
  });
}

/**
 * Connects to a QEMU that was just started, as soon as its socket is there.
 * @throws ToolError of QEMU when it ends first; `qmp-missing` when it takes longer than `limitMs`
 */
export async function connectQmp(
  socket: string,
  qemu: Pick<RunningProgram, 'ended'> | undefined,
  limitMs: number,
  signal?: AbortSignal,
): Promise<Qmp> {
  const end = performance.now() + limitMs;
  const outcome = { ended: false };
  const over = () => {
    outcome.ended = true;
  };
  const failed = qemu?.ended.then(over, over);
  for (;;) {
    signal?.throwIfAborted();
    try {
      return await Qmp.connect(socket, signal ? { signal } : {});
    } catch (error) {
      if (!['ENOENT', 'ECONNREFUSED'].includes(errnoOf(error) ?? '')) throw error;
    }
    if (outcome.ended) {
      await qemu?.ended;
      throw new ToolError('qmp-missing', 'QEMU ended before it could be asked anything', { command: 'qemu' });
    }
    if (performance.now() > end) {
      throw new ToolError('qmp-missing', `QEMU did not open its control socket within ${limitMs / 1000} s`, {
        command: 'qemu',
      });
    }
    await (failed ? Promise.race([sleep(20), failed]) : sleep(20));
  }
}
