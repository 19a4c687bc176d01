/** A program that owns a throw-away machine until it is killed: node vm-owner.ts STATE NAME. Says "up" when QEMU runs. */
import { setTimeout as sleep } from 'node:timers/promises';
import { silentLog } from '../../src/core/log.ts';
import { listVms } from '../../src/vm/machine.ts';
import { startVm } from '../../src/vm/vm.ts';

const [stateDir = '', name = ''] = process.argv.slice(2);
const context = {
  env: process.env,
  signal: new AbortController().signal,
  log: silentLog(),
  now: () => new Date(),
  stateDir,
  cacheDir: `${stateDir}/cache`,
  programDir: '/',
};
void startVm(context, { name });
while (!(await listVms(context)).some((one) => one.name === name && one.state === 'running')) await sleep(50);
process.stdout.write('up\n');
