/**
 * The serial console of a running machine on a terminal. Its log goes on meanwhile and afterwards.
 *
 * Secret: QEMU's socket takes one visitor at a time; Ctrl-] (as in telnet(1)) ends the visit and never reaches the guest. What comes
 * from the guest may draw on the terminal and no more.
 */

import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { consoleFilter } from './console-filter.ts';
import { machineDir, machinePid, readMachine } from './machine.ts';
import { MACHINE_FILES } from './qemu.ts';
import { connectUnix } from './qmp.ts';

const ESCAPE = 0x1d;

/** A terminal, or anything that is read and written. */
export interface Screen {
  readonly input: Readable & { readonly isTTY?: boolean; setRawMode?(raw: boolean): unknown };
  readonly output: Writable;
}

export type Leave = 'escape' | 'end-of-input' | 'machine-ended';

/**
 * Until Ctrl-], the end of the input or of the machine.
 * @throws UserError `vm-unknown`, `vm-not-running`
 */
export async function attachConsole(context: Context, name: string, screen: Screen): Promise<Leave> {
  const record = await readMachine(context, name);
  if ((await machinePid(context, record)) === undefined) {
    throw new UserError('vm-not-running', `machine '${record.name}' does not run`, {
      hint: `start it: buildkit vm start ${record.name}`,
    });
  }
  const { socket, folder } = await connectUnix(join(machineDir(context, record.name), MACHINE_FILES.consoleSocket));
  const { input, output } = screen;
  const { promise, resolve, reject } = Promise.withResolvers<Leave>();
  const type = (chunk: Buffer): void => {
    const end = chunk.indexOf(ESCAPE);
    socket.write(end === -1 ? chunk : chunk.subarray(0, end));
    if (end !== -1) resolve('escape');
  };
  const stop = () => reject(context.signal.reason as Error);
  try {
    const filter = consoleFilter();
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => void output.write(filter(chunk)));
    socket.on('error', () => {}); // 'close' follows
    socket.once('close', () => resolve('machine-ended'));
    context.signal.addEventListener('abort', stop, { once: true });
    input.setRawMode?.(true);
    input.on('data', type);
    input.once('end', () => resolve('end-of-input'));
    input.resume();
    return await promise;
  } finally {
    context.signal.removeEventListener('abort', stop);
    input.off('data', type);
    input.pause();
    input.setRawMode?.(false);
    socket.end();
    await new Promise<void>((done) => (socket.destroyed ? done() : socket.once('close', () => done()).destroySoon()));
    await folder.close();
  }
}
