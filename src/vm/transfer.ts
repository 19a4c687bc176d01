/**
 * Folders into and out of a machine, with modes, links and times.
 *
 * Secret: tar(1) at both ends of the ssh connection: many small files in one stream.
 */
import { mkdir, stat } from 'node:fs/promises';
import { PassThrough } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Context } from '../core/context.ts';
import { start } from '../core/run.ts';
import type { Vm } from './vm.ts';

/** Copies a file, or a folder's content into the folder `remote`. @throws UserError `no-such-file`; ToolError */
export async function putTree(context: Context, vm: Vm, local: string, remote: string): Promise<void> {
  const facts = await stat(local).catch(() => undefined);
  if (!facts?.isDirectory()) return vm.put(local, remote);
  await using tar = start(context, 'tar', ['-C', local, '-cf', '-', '.'], { stdio: { stdin: 'ignore' } });
  const unpack = ['sh', '-c', 'mkdir -p -- "$1" && exec tar -C "$1" --no-same-owner -xpf -', 'sh', remote];
  // read from the start: what nobody reads yet when the channel opens would be thrown away
  const through = new PassThrough();
  const packed = pipeline(tar.stdout, through);
  await Promise.all([vm.must(unpack, { stdin: through }), packed, tar.ended]);
}

/** Copies a file, or the content of a folder into the folder `local`. @throws ToolError `guest-command-failed` */
export async function getTree(context: Context, vm: Vm, remote: string, local: string): Promise<void> {
  const isFolder = (await vm.run(['test', '-d', remote])).exitCode === 0;
  if (!isFolder) return vm.get(remote, local);
  await mkdir(local, { recursive: true });
  await using tar = start(context, 'tar', ['-C', local, '--no-same-owner', '-xpf', '-'], {
    stdio: { stdout: 'ignore' },
  });
  const through = new PassThrough();
  // tar reads no further than the end mark of the archive; whether all was well its exit code tells
  const unpacked = pipeline(through, tar.stdin).catch(() => {});
  const packed = vm
    .must(['tar', '-C', remote, '-cf', '-', '.'], {
      discard: true,
      onOutput: (chunk, stream) => void (stream === 'stdout' && through.write(chunk)),
    })
    .finally(() => through.end());
  await Promise.all([packed, unpacked, tar.ended]);
}
