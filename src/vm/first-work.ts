/**
 * What is done in a machine as soon as it is ready: shared folders mounted, files copied, commands run.
 *
 * Secret: 9p over virtio (mount(8), v9fs): the guest's kernel must have it, which Debian's cloud kernel has not.
 */
import type { Context } from '../core/context.ts';
import { ToolError, UserError } from '../core/errors.ts';
import { type LaunchOptions, mountPoint, type Share } from './launch-options.ts';
import { putTree } from './transfer.ts';
import type { Vm } from './vm.ts';

const MOUNT =
  'mkdir -p -- "$2" && mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,$3" -- "$1" "$2" || exit 32';

/** @throws UserError `vm-share`; ToolError `guest-command-failed` */
export async function doFirstWork(context: Context, vm: Vm, options: LaunchOptions): Promise<void> {
  for (const share of options.shares ?? []) await mountShare(vm, share);
  for (const { from, to } of options.copyFiles ?? []) await putTree(context, vm, from, to);
  for (const command of options.execOnBoot ?? []) {
    const { exitCode, stdout, stderr } = await vm.run(['sh', '-c', command]);
    if (stdout !== '') context.log.info(stdout.trimEnd());
    if (exitCode === 0) continue;
    throw new ToolError('guest-command-failed', `what machine '${vm.name}' runs at its start failed with ${exitCode}`, {
      command,
      status: exitCode,
      stderrTail: stderr.slice(-4096),
    });
  }
}

async function mountShare(vm: Vm, share: Share): Promise<void> {
  const args = [share.tag, mountPoint(share), share.writable ? 'rw' : 'ro'];
  const { exitCode, stderr } = await vm.run(['sh', '-c', MOUNT, 'sh', ...args]);
  if (exitCode === 0) return;
  const unknown = /unknown filesystem type/.test(stderr);
  throw new UserError(
    'vm-share',
    unknown ? `the kernel of machine '${vm.name}' has no 9p` : `'${share.dir}' is not mounted: ${stderr.trim()}`,
    { hint: unknown ? 'make it of a base with all drivers: buildkit vm base build --kernel generic' : undefined },
  );
}
