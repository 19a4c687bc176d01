/**
 * What is done to the disk of a machine that does not run: snapshots, copies that stand alone, and the machine as libvirt
 * knows it.
 *
 * Secret: qemu-img(1) and libvirt's domain XML (libvirt.org/formatdomain.html).
 */
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { exists, writeFileAtomic } from '../core/files.ts';
import { run } from '../core/run.ts';
import { type Base, verifyBase } from './base.ts';
import { lockMachine, type MachineRecord, machineDir, machinePid, readMachine } from './machine.ts';
import { refuseMounted } from './mount-state.ts';
import { diskFile } from './qemu.ts';

export interface DiskSnapshot {
  readonly name: string;
  /** ISO 8601. */
  readonly created: string;
}

const infoSchema = z.object({
  snapshots: z.array(z.object({ name: z.string(), 'date-sec': z.number() })).default([]),
});

/** Runs `body` with the disk of a machine that does not run and cannot be started meanwhile. @throws UserError `vm-running` */
export async function withDisk<T>(
  context: Context,
  name: string,
  body: (disk: string, record: MachineRecord, base: Base) => Promise<T>,
): Promise<T> {
  const record = await readMachine(context, name);
  using _lock = await lockMachine(context, record.name);
  if ((await machinePid(context, record)) !== undefined) {
    throw new UserError('vm-running', `machine '${record.name}' runs: its disk is in use`, {
      hint: `stop it first: buildkit vm stop ${record.name}`,
    });
  }
  await refuseMounted(record.name, machineDir(context, record.name));
  const base = await verifyBase(context, record.base.id, record.base.sha256);
  return await body(join(machineDir(context, record.name), diskFile(record.disk)), record, base);
}

/** Snapshots of a machine's disk, oldest first. @throws UserError `vm-unknown`, `vm-running` */
export async function listSnapshots(
  context: Context,
  name: string,
  { whileRunning = false } = {},
): Promise<DiskSnapshot[]> {
  if (!whileRunning) return withDisk(context, name, (disk) => readSnapshots(context, disk));
  const record = await readMachine(context, name);
  return readSnapshots(context, join(machineDir(context, record.name), diskFile(record.disk)));
}

async function readSnapshots(context: Context, disk: string): Promise<DiskSnapshot[]> {
  const { stdout } = await run(context, 'qemu-img', ['info', '-U', '--output=json', disk]);
  return infoSchema
    .parse(JSON.parse(stdout))
    .snapshots.map((one) => ({ name: one.name, created: new Date(one['date-sec'] * 1000).toISOString() }));
}

/**
 * Keeps the state of the disk under a name, goes back to it, or forgets it.
 * @throws UserError `vm-running`, `snapshot-name`, `snapshot-exists`, `snapshot-unknown`
 */
export function changeSnapshot(
  context: Context,
  name: string,
  verb: 'create' | 'restore' | 'delete',
  snapshot: string,
): Promise<void> {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(snapshot)) {
    throw new UserError('snapshot-name', `'${snapshot}' is no name for a snapshot`, {
      hint: 'use letters, digits, ., _ and -',
    });
  }
  return withDisk(context, name, async (disk, record) => {
    if (record.disk === 'raw') {
      throw new UserError('snapshot-raw', `the disk of machine '${name}' is raw: it keeps no states`, {
        hint: `copy it instead: buildkit vm clone ${name} NEW`,
      });
    }
    const there = (await readSnapshots(context, disk)).some((one) => one.name === snapshot);
    if (verb === 'create' && there) {
      throw new UserError('snapshot-exists', `machine '${name}' has a snapshot '${snapshot}' already`, {
        hint: `forget it first: buildkit vm snapshot delete ${name} ${snapshot}`,
      });
    }
    if (verb !== 'create' && !there) {
      throw new UserError('snapshot-unknown', `machine '${name}' has no snapshot '${snapshot}'`, {
        hint: `see: buildkit vm snapshot list ${name}`,
      });
    }
    if (verb === 'restore') await rm(join(machineDir(context, record.name), 'fresh'), { force: true });
    const flag = { create: '-c', restore: '-a', delete: '-d' }[verb];
    await run(context, 'qemu-img', ['snapshot', flag, snapshot, disk]);
  });
}

/**
 * Writes the whole disk, base included, to a file of its own.
 * @throws UserError `target-exists`, `vm-running`
 */
export function exportDisk(context: Context, name: string, format: 'raw' | 'qcow2', target: string): Promise<void> {
  return withDisk(context, name, async (disk, record) => {
    await refuseExisting(target);
    const aside = `${target}.${process.pid}.tmp`;
    try {
      await run(context, 'qemu-img', ['convert', '-f', record.disk ?? 'qcow2', '-O', format, disk, aside]);
      await rename(aside, target);
    } catch (error) {
      await rm(aside, { force: true });
      throw error;
    }
  });
}

/**
 * Writes the machine's definition for libvirt (`virsh define FILE`). It shares disk and kernel with buildkit's machine.
 * @throws UserError `target-exists`, `vm-running`
 */
export function exportLibvirt(context: Context, name: string, target: string): Promise<void> {
  return withDisk(context, name, async (disk, record, base) => {
    await refuseExisting(target);
    await writeFileAtomic(target, domainXml(record, base, disk));
  });
}

/** @throws UserError `target-exists` */
export async function refuseExisting(target: string): Promise<void> {
  if (!(await exists(target))) return;
  throw new UserError('target-exists', `'${target}' is there already`, { hint: 'remove it or name another file' });
}

/** libvirt's description of a machine. Pure. */
function domainXml(record: MachineRecord, base: Base, disk: string): string {
  const { name, uuid, memoryMiB, cpus, mac } = record;
  const boot = base.bootsItself
    ? ['    <boot dev="hd"/>']
    : [
        `    <kernel>${xml(base.kernel)}</kernel>`,
        `    <initrd>${xml(base.initrd)}</initrd>`,
        `    <cmdline>root=UUID=${xml(base.rootUuid)} rw console=ttyS0</cmdline>`,
      ];
  return [
    '<domain type="qemu">',
    `  <name>${xml(name)}</name>`,
    `  <uuid>${xml(uuid)}</uuid>`,
    `  <memory unit="MiB">${memoryMiB}</memory>`,
    `  <vcpu>${cpus}</vcpu>`,
    '  <os>',
    '    <type arch="x86_64" machine="q35">hvm</type>',
    ...boot,
    '  </os>',
    '  <features><acpi/></features>',
    '  <devices>',
    '    <disk type="file" device="disk">',
    `      <driver name="qemu" type="${record.disk ?? 'qcow2'}" discard="unmap"/>`,
    `      <source file="${xml(disk)}"/>`,
    '      <target dev="vda" bus="virtio"/>',
    '    </disk>',
    `    <interface type="user"><mac address="${xml(mac)}"/><model type="virtio"/></interface>`,
    '    <serial type="pty"><target port="0"/></serial>',
    '    <rng model="virtio"><backend model="random">/dev/urandom</backend></rng>',
    '  </devices>',
    '</domain>',
    '',
  ].join('\n');
}

function xml(text: string): string {
  const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  return text.replaceAll(/[&<>"]/g, (character) => entities[character] ?? character);
}
