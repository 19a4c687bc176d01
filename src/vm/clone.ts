/**
 * A machine made of another one: the same disk, an identity of its own (name, machine-id, host key, card, ports).
 *
 * Secret: how a disk is copied with the base below it, from a snapshot too (qemu-img(1)); the identity itself goes in at the
 * clone's first start, as with every machine.
 */
import { randomUUID } from 'node:crypto';
import { chmod } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { run } from '../core/run.ts';
import { verifyBase } from './base.ts';
import { listSnapshots } from './disk-care.ts';
import { findFrozen } from './instant.ts';
import {
  identify,
  lockMachine,
  type MachineRecord,
  machineDir,
  machinePid,
  placeMachine,
  randomMac,
  readMachine,
} from './machine.ts';
import { refuseMounted } from './mount-state.ts';
import { DEFAULT_NETWORK, guestMac } from './net-spec.ts';
import { diskFile } from './qemu.ts';

export interface CloneOptions {
  /** Beside a number: another name than `buildkitNUMBER`. */
  readonly name?: string | undefined;
  /** A kept state of the source's disk; the source may run then. */
  readonly snapshot?: string | undefined;
  /** Folder in which the clone's own folder is made. */
  readonly directory?: string | undefined;
}

/** What a clone's record says. Pure. */
export function planClone(
  source: MachineRecord,
  id: { readonly name: string; readonly number: number | undefined },
  made: {
    readonly uuid: string;
    readonly mac: string;
    readonly created: string;
    readonly creator: MachineRecord['creator'];
  },
): MachineRecord {
  const { number: _number, owner: _owner, launch, ...same } = source;
  // two machines cannot have the same port of this one
  const { forwards: _forwards, ssh, ...others } = launch ?? {};
  const { port: _port, ...login } = ssh ?? {};
  const kept = { ...others, ...(Object.keys(login).length > 0 ? { ssh: login } : {}) };
  return {
    ...same,
    ...(Object.keys(kept).length > 0 ? { launch: kept } : {}),
    ...(id.number === undefined ? {} : { number: id.number }),
    ...{ name: id.name, ...made },
  };
}

/** @throws UserError `vm-running`, `snapshot-unknown`, `snapshot-raw`, `base-changed`, and as `createVm` does */
export async function cloneVm(
  context: Context,
  sourceName: string,
  nameOrNumber: string,
  options: CloneOptions = {},
): Promise<MachineRecord> {
  const source = await readMachine(context, sourceName);
  const id = identify(nameOrNumber, options.name);
  if (options.snapshot !== undefined) await checkSnapshot(context, source, options.snapshot);
  using _lock = await lockMachine(context, source.name);
  if (options.snapshot === undefined && (await machinePid(context, source)) !== undefined) {
    throw new UserError('vm-running', `machine '${source.name}' runs: its disk changes while it would be copied`, {
      hint: `stop it first: buildkit vm stop ${source.name}; or clone a state that was kept: --snapshot NAME`,
    });
  }
  await refuseMounted(source.name, machineDir(context, source.name));
  const base = await verifyBase(context, source.base.id, source.base.sha256);
  const record = planClone(source, id, {
    uuid: randomUUID(),
    mac: id.number === undefined ? randomMac() : guestMac(DEFAULT_NETWORK, id.number),
    created: context.now().toISOString(),
    creator: { pid: process.pid, user: userInfo().username },
  });
  const dropped = source.launch?.forwards?.length || source.launch?.ssh?.port !== undefined;
  if (dropped) context.log.info(`the ports of '${source.name}' stay its own: give the clone others with --port`);
  const from = join(machineDir(context, source.name), diskFile(source.disk));
  const frozen = source.frozen === undefined ? undefined : await findFrozen(context, source.frozen);
  return await placeMachine(context, record, { directory: options.directory }, async (scratch) => {
    const to = join(scratch, diskFile(source.disk));
    const [program, ...args] = copyArgs(from, to, frozen?.disk ?? base.disk, options.snapshot);
    await run(context, program, args, { timeoutMs: 3_600_000 });
    await chmod(to, 0o600);
  });
}

/** The whole file, shared with the source where the file system can; of a snapshot only what differs from the base. */
export function copyArgs(
  from: string,
  to: string,
  below: string,
  snapshot: string | undefined,
): readonly [program: string, ...args: string[]] {
  if (snapshot === undefined) return ['cp', '--reflink=auto', '--sparse=always', '--', from, to];
  const backing = ['-B', below, '-F', 'qcow2'];
  // the tables of a kept state never change, so that its machine may run and hold the lock
  return ['qemu-img', 'convert', '-q', '-U', '-l', `snapshot.name=${snapshot}`, '-O', 'qcow2', ...backing, from, to];
}

async function checkSnapshot(context: Context, source: MachineRecord, snapshot: string): Promise<void> {
  const found = await listSnapshots(context, source.name, { whileRunning: true });
  if (found.some((one) => one.name === snapshot)) return;
  throw new UserError('snapshot-unknown', `machine '${source.name}' has no snapshot '${snapshot}'`, {
    hint: `see: buildkit vm snapshot list ${source.name}`,
  });
}
