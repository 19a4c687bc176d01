/**
 * Where a disk goes, and whether that place may be used: made when missing, used again when it is blank, never overwritten
 * without being told to, and never while in use.
 *
 * Secret: how blkid(8), lsblk(8) and lvm(8) tell what a device is, holds and serves.
 */
import { readFile, realpath, stat } from 'node:fs/promises';
import { z } from 'zod';
import type { RunContext } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { formatBytes } from '../core/log.ts';
import { run } from '../core/run.ts';

/** `qcow2:FILE`, `raw:FILE`, `lv:VG/NAME`, `dev:/dev/X`. */
export type DiskTarget =
  | { readonly kind: 'qcow2' | 'raw'; readonly file: string }
  | { readonly kind: 'lv'; readonly group: string; readonly name: string }
  | { readonly kind: 'dev'; readonly device: string };

/** @throws UserError `disk-target` */
export function parseTarget(text: string): DiskTarget {
  const at = text.indexOf(':');
  const [kind, rest] = [text.slice(0, Math.max(at, 0)), text.slice(at + 1)];
  if ((kind === 'qcow2' || kind === 'raw') && rest !== '') return { kind, file: rest };
  if (kind === 'dev' && /^\/dev\/./.test(rest)) return { kind, device: rest };
  // lvm(8): no leading hyphen, no . or .. alone
  const [, group, name] = /^([A-Za-z0-9_+.][\w+.-]*)\/([A-Za-z0-9_+.][\w+.-]*)$/.exec(rest) ?? [];
  if (kind === 'lv' && group && name && ![group, name].some((one) => /^\.\.?$/.test(one))) return { kind, group, name };
  throw new UserError('disk-target', `'${text}' is no place for a disk`, {
    hint: 'write qcow2:FILE, raw:FILE, lv:GROUP/NAME or dev:/dev/X',
  });
}

export interface TargetFacts {
  /** The file or device itself. */
  readonly path: string;
  readonly kind: 'missing' | 'file' | 'block' | 'other';
  readonly sizeBytes: number;
  /** What blkid finds on it, `ext4`, or what a file is. */
  readonly holds: string | undefined;
  /** Who uses it now, `mounted on /srv`. */
  readonly inUse: string | undefined;
}

export interface TargetDecision {
  /** `create` makes the file or volume, `reuse` takes what is there. */
  readonly action: 'create' | 'reuse';
  /** Of the disk to be written. */
  readonly sizeBytes: number;
}

/**
 * Whether the target may be written, and how large the disk will be.
 * @param sizeBytes asked for; undefined takes a device as it is
 * @throws UserError `disk-in-use`, `disk-holds-data`, `disk-too-small`, `disk-target`
 */
export function decideTarget(
  target: DiskTarget,
  facts: TargetFacts,
  options: { readonly sizeBytes: number | undefined; readonly defaultBytes: number; readonly force: boolean },
): TargetDecision {
  const shown = `'${facts.path}'`;
  const isFile = target.kind === 'qcow2' || target.kind === 'raw';
  const wanted = options.sizeBytes ?? options.defaultBytes;
  if (facts.kind === 'missing') {
    if (target.kind !== 'dev') return { action: 'create', sizeBytes: wanted };
    throw new UserError('disk-target', `there is no device ${shown}`, { hint: 'see: lsblk' });
  }
  if (facts.kind !== (isFile ? 'file' : 'block')) {
    throw new UserError('disk-target', `${shown} is no ${isFile ? 'ordinary file' : 'block device'}`, {
      hint: isFile ? 'write a device as dev:/dev/X' : 'write a file as qcow2:FILE or raw:FILE',
    });
  }
  if (facts.inUse !== undefined) {
    throw new UserError('disk-in-use', `${shown} is in use: ${facts.inUse}`, {
      hint: 'unmount it or choose another target; --force does not override this',
    });
  }
  if (facts.holds !== undefined && !options.force) {
    throw new UserError('disk-holds-data', `${shown} holds something: ${facts.holds}`, {
      hint: 'look at it first; --force overwrites it',
    });
  }
  if (isFile) return { action: 'create', sizeBytes: wanted }; // a file is replaced whole, by a rename
  if (options.sizeBytes !== undefined && facts.sizeBytes < options.sizeBytes) {
    const [has, asked] = [formatBytes(facts.sizeBytes), formatBytes(options.sizeBytes)];
    throw new UserError('disk-too-small', `${shown} has ${has}, asked for ${asked}`, {
      hint: 'leave --size out to use the whole device',
    });
  }
  // the backup of the partition table belongs at the device's end
  return { action: 'reuse', sizeBytes: facts.sizeBytes };
}

/** Looks at the target; changes nothing. */
export async function examineTarget(context: RunContext, target: DiskTarget): Promise<TargetFacts> {
  const path = pathOf(target);
  const found = await statOf(path);
  if (!found) return { path, kind: 'missing', sizeBytes: 0, holds: undefined, inUse: undefined };
  if (found.isFile()) {
    const holds = found.size === 0 ? undefined : `a file of ${formatBytes(found.size)}`;
    return { path, kind: 'file', sizeBytes: found.size, holds, inUse: await loopUser(context, path) };
  }
  if (!found.isBlockDevice()) return { path, kind: 'other', sizeBytes: 0, holds: undefined, inUse: undefined };
  const device = await readDevice(context, path);
  return { path, kind: 'block', ...device, holds: await probe(context, path) };
}

export function pathOf(target: DiskTarget): string {
  if (target.kind === 'lv') return `/dev/${target.group}/${target.name}`;
  return target.kind === 'dev' ? target.device : target.file;
}

async function statOf(path: string) {
  try {
    return await stat(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function loopUser(context: RunContext, path: string): Promise<string | undefined> {
  const { stdout } = await run(context, 'losetup', ['--noheadings', '--output', 'NAME', '--associated', path]);
  const [name] = stdout.trim().split('\n');
  return name ? `it is behind ${name.trim()}` : undefined;
}

/** File system, partition table or member signature on the device. */
async function probe(context: RunContext, path: string): Promise<string | undefined> {
  const { stdout } = await run(context, 'blkid', ['-p', '-o', 'export', path], { okExitCodes: [2] });
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(stdout)?.[1];
  const table = value('PTTYPE');
  return value('TYPE') ?? (table === undefined ? undefined : `a ${table} partition table`);
}

interface BlockNode {
  readonly name: string;
  readonly size?: number | undefined;
  readonly type?: string | undefined;
  readonly mountpoints?: readonly (string | null)[] | undefined;
  readonly children?: readonly BlockNode[] | undefined;
}
const blockNode: z.ZodType<BlockNode> = z.object({
  name: z.string(),
  size: z.number().optional(),
  type: z.string().optional(),
  mountpoints: z.array(z.string().nullable()).optional(),
  children: z.lazy(() => z.array(blockNode).optional()),
});
const lsblkSchema = z.object({ blockdevices: z.array(blockNode) });

async function readDevice(
  context: RunContext,
  path: string,
): Promise<{ sizeBytes: number; inUse: string | undefined }> {
  const columns = 'NAME,SIZE,TYPE,MOUNTPOINTS';
  const { stdout } = await run(context, 'lsblk', ['--json', '--bytes', '--output', columns, await realpath(path)]);
  const [device] = lsblkSchema.parse(JSON.parse(stdout)).blockdevices;
  const swaps = await readFile('/proc/swaps', 'utf8');
  return { sizeBytes: device?.size ?? 0, inUse: device ? useOf(device, swaps) : undefined };
}

/** First use of a device or of anything upon it. @param swaps text of /proc/swaps */
export function useOf(device: BlockNode, swaps: string): string | undefined {
  const [mount] = (device.mountpoints ?? []).filter((one) => one !== null);
  if (mount === '[SWAP]' || swaps.includes(`/dev/${device.name} `)) return `${device.name} is swap`;
  if (mount !== undefined) return `${device.name} is mounted on ${mount}`;
  const children = device.children ?? [];
  const mapped = children.find(({ type }) => type !== 'part');
  if (mapped) return `${mapped.name} (${mapped.type}) is built upon it`;
  return children.map((child) => useOf(child, swaps)).find((use) => use !== undefined);
}

/** Arguments of lvcreate(8) for a new volume. */
export function lvcreateArgs(target: Extract<DiskTarget, { kind: 'lv' }>, sizeBytes: number): string[] {
  return [
    '--yes',
    '--wipesignatures',
    'y',
    '--size',
    `${Math.ceil(sizeBytes / 1024)}k`,
    '--name',
    target.name,
    target.group,
  ];
}

/** Arguments of lvremove(8), for a volume that was made here and is of no use. */
export function lvremoveArgs(target: Extract<DiskTarget, { kind: 'lv' }>): string[] {
  return ['--yes', `${target.group}/${target.name}`];
}
