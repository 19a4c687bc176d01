/**
 * The disk of a machine that does not run as a folder of this one.
 *
 * Secret: a qcow2 becomes a raw file by qemu-storage-daemon(1)'s FUSE export, which needs neither nbd nor libguestfs; the file
 * system in it is mounted by its offset (mount(8), loop). `STATE/vm/machines/NAME/mount.json` says that it is so.
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { writeFileAtomic } from '../core/files.ts';
import { run } from '../core/run.ts';
import { withDisk } from './disk-care.ts';
import { lockMachine, type MachineRecord, machineDir, readMachine } from './machine.ts';
import { mountedAt, MOUNT_RECORD as RECORD } from './mount-state.ts';
import { endOf, pidWithWord, signalProcess, waitUntil } from './process.ts';

export interface MountedDisk {
  readonly name: string;
  readonly dir: string;
  readonly writable: boolean;
}

const VIEW = 'disk.view';
const PID = 'mount.pid';
/**
 * Mounts the root file system at `dir`, which is made when it is missing.
 * @throws UserError `vm-running`, `vm-mounted`, `vm-mount-rights`, `vm-mount-none`
 */
export async function mountVm(
  context: Context,
  name: string,
  dir: string,
  { writable = false } = {},
): Promise<MountedDisk> {
  if (process.getuid?.() !== 0) {
    throw new UserError('vm-mount-rights', 'only root may mount a file system', {
      hint: `without root: buildkit vm start ${name}, then vm get; or vm export --raw and debugfs`,
    });
  }
  return withDisk(context, name, async (disk, record) => {
    const folder = machineDir(context, record.name);
    await mkdir(dir, { recursive: true });
    await writeFileAtomic(join(folder, RECORD), JSON.stringify({ dir, writable }));
    try {
      const view = record.disk === 'raw' ? disk : await exportView(context, folder, disk, writable);
      const at = await findRoot(context, view);
      await run(context, 'mount', mountArgs(view, dir, at, writable), { timeoutMs: 60_000 });
      return { name: record.name, dir, writable };
    } catch (error) {
      await undo({ ...context, signal: new AbortController().signal }, folder, dir);
      throw error;
    }
  });
}

/** Takes it back; also what a killed mount left. False when it was not mounted. */
export async function umountVm(context: Context, name: string): Promise<boolean> {
  const record = await readMachine(context, name);
  using _lock = await lockMachine(context, record.name);
  return await releaseMount(context, record);
}

/** With the machine's lock held. */
export async function releaseMount(context: Context, record: MachineRecord): Promise<boolean> {
  const folder = machineDir(context, record.name);
  const dir = await mountedAt(folder);
  if (dir === undefined) return false;
  await undo(context, folder, dir);
  return true;
}

async function undo(context: Context, folder: string, dir: string): Promise<void> {
  if (await isMountPoint(dir)) await run(context, 'umount', ['--', dir], { timeoutMs: 300_000 });
  const pid = await pidWithWord(join(folder, PID), join(folder, VIEW));
  if (pid !== undefined) {
    const gone = await endOf(pid);
    signalProcess(pid, 'SIGTERM');
    await waitUntil(gone, 60_000);
  }
  if (await isMountPoint(join(folder, VIEW))) await run(context, 'umount', ['--', join(folder, VIEW)]);
  for (const file of [VIEW, PID, RECORD]) await rm(join(folder, file), { force: true });
}

/** mountinfo writes blanks and backslashes as octal numbers (proc(5)). */
async function isMountPoint(path: string): Promise<boolean> {
  const wanted = resolve(path).replaceAll(/[\s\\]/g, (one) => `\\${one.charCodeAt(0).toString(8).padStart(3, '0')}`);
  const text = await readFile('/proc/self/mountinfo', 'utf8');
  return text.split('\n').some((line) => line.split(' ')[4] === wanted);
}

/** The disk as a raw file, as long as the daemon lives. */
async function exportView(context: Context, folder: string, disk: string, writable: boolean): Promise<string> {
  const view = join(folder, VIEW);
  await writeFile(view, '');
  await run(context, 'qemu-storage-daemon', exportArgs(disk, view, join(folder, PID), writable), { timeoutMs: 60_000 });
  return view;
}

/** Pure. The view's path is a word of its own, by which the process is known. */
export function exportArgs(disk: string, view: string, pidFile: string, writable: boolean): string[] {
  const json = JSON.stringify;
  const readOnly = !writable;
  return [
    ...['--daemonize', '--pidfile', pidFile],
    ...['--blockdev', json({ driver: 'file', filename: disk, 'node-name': 'file', 'read-only': readOnly })],
    ...['--blockdev', json({ driver: 'qcow2', file: 'file', 'node-name': 'disk', 'read-only': readOnly })],
    '--export',
    json({ type: 'fuse', id: 'view', 'node-name': 'disk', mountpoint: view, writable, 'allow-other': 'off' }),
  ];
}

interface Extent {
  readonly offset: number;
  /** undefined: to the end. */
  readonly size: number | undefined;
}

const tableSchema = z.object({
  partitiontable: z.object({
    sectorsize: z.number().default(512),
    partitions: z.array(
      z.object({ start: z.number(), size: z.number(), name: z.string().optional(), type: z.string() }),
    ),
  }),
});

/** The partition called root, else the largest; the whole disk when it has no partitions. @throws UserError `vm-mount-none` */
export function chooseRoot(sfdiskJson: string | undefined): Extent {
  if (sfdiskJson === undefined) return { offset: 0, size: undefined };
  const { partitions, sectorsize } = tableSchema.parse(JSON.parse(sfdiskJson)).partitiontable;
  const found = partitions.find((one) => one.name === 'root') ?? partitions.toSorted((a, b) => b.size - a.size)[0];
  if (found) return { offset: found.start * sectorsize, size: found.size * sectorsize };
  throw new UserError('vm-mount-none', 'the disk has an empty partition table: there is nothing to mount');
}

async function findRoot(context: Context, view: string): Promise<Extent> {
  const { stdout, exitCode } = await run(context, 'sfdisk', ['--json', view], { okExitCodes: [1] });
  return chooseRoot(exitCode === 0 ? stdout : undefined);
}

export function mountArgs(view: string, dir: string, { offset, size }: Extent, writable: boolean): string[] {
  const limits = [`offset=${offset}`, ...(size === undefined ? [] : [`sizelimit=${size}`])];
  // a journal that was not written out is left alone where nothing may be written
  const mode = writable ? ['rw'] : ['ro', 'noload'];
  return ['-o', ['loop', ...limits, ...mode, 'nosuid', 'nodev'].join(','), '--', view, dir];
}
