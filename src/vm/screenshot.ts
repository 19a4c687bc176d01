/** What the screen of a running machine shows, as a PNG (QMP screendump; QEMU writes it, into the machine's own folder). */
import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { atomically } from '../core/files.ts';
import { machineDir, machinePid, readMachine } from './machine.ts';
import { MACHINE_FILES } from './qemu.ts';
import { Qmp } from './qmp.ts';

const FILE = 'screen.png';

/** @throws UserError `vm-not-running`, `vm-no-screen` */
export async function takeScreenshot(context: Context, name: string, target: string): Promise<void> {
  const record = await readMachine(context, name);
  if ((await machinePid(context, record)) === undefined) {
    throw new UserError('vm-not-running', `machine '${record.name}' does not run`, {
      hint: `start it: buildkit vm start --graphics ${record.name}`,
    });
  }
  const dir = machineDir(context, record.name);
  const file = join(dir, FILE);
  await using qmp = await Qmp.connect(join(dir, MACHINE_FILES.qmpSocket), { signal: context.signal });
  try {
    await qmp.execute('screendump', { filename: file, format: 'png' }, 60_000);
    await atomically(target, {}, (_open, aside) => copyFile(file, aside));
  } catch (error) {
    if (!(error instanceof UserError) || !/no surface|no display|[Cc]onsole/.test(error.message)) throw error;
    throw new UserError('vm-no-screen', `machine '${record.name}' has no screen`, {
      hint: `start it with one: buildkit vm start --graphics ${record.name}`,
      cause: error,
    });
  } finally {
    await rm(file, { force: true });
  }
}
