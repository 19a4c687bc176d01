/**
 * Machines on record: what each is, which run, which are dead; making and removing them.
 *
 * Secret: the folder of a machine (`STATE/vm/machines/NAME`: `machine.json`, overlay, keys, console, and `run.json` while it
 * runs), claimed by one rename under one lock.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, readlink, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { type Lock, lock } from '../core/db.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { exists, namesIn, writeFileAtomic } from '../core/files.ts';
import { didYouMean } from '../core/nearest.ts';
import { run } from '../core/run.ts';
import { findBase } from './base.ts';
import { type FirstFile, keepFirstFiles } from './first-files.ts';
import { makeKey } from './key.ts';
import { type LaunchOptions, launchSchema } from './launch-options.ts';
import { DEFAULT_NETWORK, guestMac } from './net-spec.ts';
import { identityOf, isAlive, pidWithArgument } from './process.ts';
import { MACHINE_FILES } from './qemu.ts';
import { parseSize } from './size.ts';

const identitySchema = z.object({ pid: z.number(), startTicks: z.number(), bootId: z.string() });

const machineSchema = z.object({
  format: z.literal(1),
  name: z.string(),
  /** Gives address, MAC and the usual name. */
  number: z.number().optional(),
  uuid: z.string(),
  base: z.object({ id: z.string(), sha256: z.string() }),
  architecture: z.string(),
  memoryMiB: z.number(),
  cpus: z.number(),
  accel: z.enum(['auto', 'kvm', 'tcg']),
  mac: z.string(),
  created: z.string(),
  creator: z.object({ pid: z.number(), user: z.string() }),
  /** The process that it belongs to and dies with. */
  owner: identitySchema.optional(),
  /** Its disk is a whole copy of the base, raw. Absent: qcow2 over the base. */
  disk: z.literal('raw').optional(),
  /** For every start. */
  launch: launchSchema.optional(),
  /** Key of the frozen machine that its disk lies over, instead of the base itself. */
  frozen: z.string().optional(),
});
/** A machine as it was created. */
export type MachineRecord = z.infer<typeof machineSchema>;

const runSchema = z.object({
  /** Where ssh answers; absent: 127.0.0.1, a forwarded port. */
  sshHost: z.string().optional(),
  sshPort: z.number(),
  /** The network that it sits on; absent: QEMU's user network. */
  network: z.string().optional(),
  /** Who logs in, by which key. */
  ssh: launchSchema.shape.ssh,
  accel: z.enum(['kvm', 'tcg']),
  started: z.string(),
});
/** A machine as it was started. */
export type RunRecord = z.infer<typeof runSchema>;

export type MachineState =
  /** QEMU runs. */
  | 'running'
  | 'stopped'
  /** It was started, and its QEMU or its owner has gone without a stop. */
  | 'dead';

export interface MachineStatus {
  readonly name: string;
  readonly state: MachineState;
  readonly number: number | undefined;
  readonly base: string;
  readonly created: string;
  readonly dir: string;
  readonly pid: number | undefined;
  readonly sshHost: string | undefined;
  readonly sshPort: number | undefined;
  readonly accel: 'kvm' | 'tcg' | undefined;
  readonly memoryMiB: number;
  readonly cpus: number;
  /** Belongs to a process and goes with it. */
  readonly throwAway: boolean;
}

export interface MachineOptions {
  /** Id or suite of a base that is there; default: the newest of bookworm. */
  readonly base?: string | undefined;
  /** Beside a number: another name than `buildkitNUMBER`. */
  readonly name?: string | undefined;
  /** `1024M`, `2G`; default 1024M. */
  readonly memory?: string | undefined;
  /** Default 2. */
  readonly cpus?: number | undefined;
  readonly accel?: 'auto' | 'kvm' | 'tcg' | undefined;
  /** Its disk is a whole copy of the base, raw. */
  readonly raw?: boolean | undefined;
  /** Folder in which its own folder is made; default: in the state folder. */
  readonly directory?: string | undefined;
  /** For every start. */
  readonly launch?: LaunchOptions | undefined;
  /** Written into it at its first start. */
  readonly files?: readonly FirstFile[] | undefined;
}

export const DEFAULT_MEMORY = '1024M';
export const DEFAULT_CPUS = 2;
const CREATING = '.creating-';
const NAME = /^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/; // RFC 1123, and no digit first: numbers are numbers

/** What `10` and `web` mean. Pure. @throws UserError `vm-number`, `vm-name` */
export function identify(nameOrNumber: string | number, name?: string): { name: string; number: number | undefined } {
  const isNumber = typeof nameOrNumber === 'number' || /^\d+$/.test(nameOrNumber);
  const number = isNumber ? Number(nameOrNumber) : undefined;
  if (number !== undefined) guestMac(DEFAULT_NETWORK, number);
  const chosen = name ?? (isNumber ? `buildkit${number}` : String(nameOrNumber));
  if (!NAME.test(chosen)) {
    throw new UserError('vm-name', `'${chosen}' is no name for a machine`, {
      hint: 'it becomes a host name: lower case letters, digits and -, a letter first, at most 63',
    });
  }
  return { name: chosen, number };
}

function machinesDir(context: Context): string {
  return join(context.stateDir, 'vm', 'machines');
}

export function machineDir(context: Context, name: string): string {
  return join(machinesDir(context), name);
}

/** For everything that changes which machines there are. */
async function lockMachines(context: Context): Promise<Lock> {
  return lock(join(machinesDir(context), '.lock'), {
    what: 'the list of machines',
    waitMs: 60_000,
    signal: context.signal,
  });
}

/** For starting, stopping and removing one machine. */
export function lockMachine(context: Context, name: string): Promise<Lock> {
  return lock(join(machinesDir(context), `.lock-${name}`), { what: `machine '${name}'`, waitMs: 0 });
}

/**
 * Makes a machine: an overlay of a base, a key of its own. It does not run yet.
 * @throws UserError `vm-exists`, `vm-number-taken`, `vm-number`, `vm-name`, `base-unknown`
 */
export function createVm(
  context: Context,
  nameOrNumber: string | number,
  options: MachineOptions = {},
): Promise<MachineRecord> {
  return createMachine(context, identify(nameOrNumber, options.name), options, undefined);
}

/**
 * @param ownerPid the process that a throw-away machine dies with
 * @param frozen what its disk lies over, instead of the base itself
 */
export async function createMachine(
  context: Context,
  id: { readonly name: string; readonly number: number | undefined },
  options: MachineOptions,
  ownerPid: number | undefined,
  frozen?: { readonly key: string; readonly disk: string },
): Promise<MachineRecord> {
  const base = await findBase(context, options.base ?? 'bookworm');
  const record: MachineRecord = {
    format: 1,
    ...(id.number === undefined ? {} : { number: id.number }),
    name: id.name,
    uuid: randomUUID(),
    base: { id: base.id, sha256: base.sha256 },
    architecture: base.architecture,
    memoryMiB: mebibytes(options.memory ?? DEFAULT_MEMORY),
    cpus: options.cpus ?? DEFAULT_CPUS,
    accel: options.accel ?? 'auto',
    mac: id.number === undefined ? randomMac() : guestMac(DEFAULT_NETWORK, id.number),
    created: context.now().toISOString(),
    creator: { pid: process.pid, user: userInfo().username },
    ...(ownerPid === undefined ? {} : { owner: await identityOf(ownerPid) }),
    ...(frozen ? { frozen: frozen.key } : {}),
    ...(options.raw ? { disk: 'raw' as const } : {}),
    ...(options.launch && Object.keys(options.launch).length > 0 ? { launch: options.launch } : {}),
  };
  return placeMachine(context, record, options, (scratch) => {
    const below = frozen?.disk ?? base.disk;
    return options.raw
      ? makeRawDisk(context, below, join(scratch, MACHINE_FILES.rawDisk))
      : makeOverlay(context, below, join(scratch, MACHINE_FILES.disk));
  });
}

/**
 * Claims name and number and makes the machine's folder, with the disk that `makeDisk` puts there: all of it, or nothing. In a
 * folder of the user's choice only a link to it is in the list; what is half made is known by the link's name.
 * @throws UserError `vm-exists`, `vm-number-taken`, `folder-exists`
 */
export async function placeMachine(
  context: Context,
  record: MachineRecord,
  { directory, files }: Pick<MachineOptions, 'directory' | 'files'>,
  makeDisk: (scratch: string) => Promise<void>,
): Promise<MachineRecord> {
  await mkdir(machinesDir(context), { recursive: true });
  using _lock = await lockMachines(context);
  await refuseTaken(context, record);
  const scratch = join(machinesDir(context), `${CREATING}${record.uuid}`);
  const elsewhere = directory === undefined ? undefined : join(directory, record.name);
  if (elsewhere === undefined) await mkdir(scratch, { mode: 0o700 });
  else await claimFolder(elsewhere, scratch, record.uuid);
  try {
    await makeKey(context, join(scratch, 'hostkey'), record.name);
    await makeDisk(scratch);
    await keepFirstFiles(scratch, files ?? []);
    await writeFileAtomic(join(scratch, 'machine.json'), `${JSON.stringify(record, undefined, 2)}\n`);
    await rename(scratch, machineDir(context, record.name));
    if (elsewhere !== undefined) await rm(join(elsewhere, CLAIM));
  } catch (error) {
    await removeFolder(scratch);
    throw error;
  }
  return record;
}

/** Says in a folder of the user's that this creation made it, so that what a killed one leaves can be told from what is there. */
const CLAIM = '.creating';

async function claimFolder(folder: string, link: string, uuid: string): Promise<void> {
  await symlink(folder, link);
  try {
    await mkdir(dirname(folder), { recursive: true });
    await mkdir(folder, { mode: 0o700 });
  } catch (cause) {
    await rm(link);
    if (errnoOf(cause) !== 'EEXIST') throw cause;
    throw new UserError('folder-exists', `'${folder}' is there already`, {
      hint: 'a machine makes its own folder: choose another name or another place with -o',
      cause,
    });
  }
  await writeFile(join(folder, CLAIM), uuid);
}

/** Removes a half-made machine: a folder, or a link to one that is known to be its own. */
async function removeFolder(path: string): Promise<void> {
  const target = await readlink(path).catch(() => undefined);
  if (target !== undefined) {
    const claim = await readFile(join(target, CLAIM), 'utf8').catch(() => '');
    if (claim !== '' && path.endsWith(claim)) await rm(target, { recursive: true, force: true });
  }
  await rm(path, { recursive: true, force: true });
}

/** As QEMU's -m takes it. @throws UserError `size` */
export function mebibytes(size: string): number {
  return Math.floor(parseSize(size) / 2 ** 20);
}

export function randomMac(): string {
  return ['52', '54', '00', ...[...randomBytes(3)].map((byte) => byte.toString(16).padStart(2, '0'))].join(':');
}

async function refuseTaken(context: Context, wanted: MachineRecord): Promise<void> {
  for (const other of await readMachines(context)) {
    const sameName = other.name === wanted.name;
    if (!sameName && (wanted.number === undefined || other.number !== wanted.number)) continue;
    const since = `made ${other.created} by ${other.creator.user}, process ${other.creator.pid}`;
    throw sameName
      ? new UserError('vm-exists', `there is a machine '${other.name}' already (${since})`, {
          hint: `choose another name, or remove it: buildkit vm destroy ${other.name}`,
        })
      : new UserError('vm-number-taken', `number ${other.number} belongs to machine '${other.name}' (${since})`, {
          hint: `choose another number, or remove it: buildkit vm destroy ${other.name}`,
        });
  }
}

/** A whole copy; empty blocks take no room. */
async function makeRawDisk(context: Context, from: string, path: string): Promise<void> {
  await run(context, 'qemu-img', ['convert', '-q', '-f', 'qcow2', '-O', 'raw', from, path]);
  await chmod(path, 0o600);
}

/** A disk that holds only what differs from the base. */
async function makeOverlay(context: Context, below: string, path: string): Promise<void> {
  await run(context, 'qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', below, path]);
  await chmod(path, 0o600);
}

async function readMachines(context: Context): Promise<MachineRecord[]> {
  const names = await namesIn(machinesDir(context));
  const found: MachineRecord[] = [];
  for (const name of names.filter((one) => !one.startsWith('.')).sort()) {
    const record = await readJson(join(machineDir(context, name), 'machine.json'), machineSchema);
    if (record) found.push(record);
  }
  return found;
}

async function readJson<T>(file: string, schema: z.ZodType<T>): Promise<T | undefined> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new UserError('vm-damaged', 'the record of a machine cannot be read', {
      file,
      hint: 'remove its folder, then create the machine anew',
      cause,
    });
  }
}

/** @throws UserError `vm-unknown` with the nearest name */
export async function readMachine(context: Context, name: string): Promise<MachineRecord> {
  const wanted = /^\d+$/.test(name) ? `buildkit${name}` : name;
  const record = NAME.test(wanted)
    ? await readJson(join(machineDir(context, wanted), 'machine.json'), machineSchema)
    : undefined;
  if (record) return record;
  const all = await readMachines(context);
  const byNumber = all.find((one) => String(one.number) === name);
  if (byNumber) return byNumber;
  throw new UserError('vm-unknown', `there is no machine '${name}'`, {
    hint:
      didYouMean(
        name,
        all.map((one) => one.name),
      ) ?? 'see: buildkit vm list',
  });
}

export async function readRun(context: Context, name: string): Promise<RunRecord | undefined> {
  return readJson(join(machineDir(context, name), 'run.json'), runSchema);
}

export function writeRun(context: Context, name: string, record: RunRecord): Promise<void> {
  return writeFileAtomic(join(machineDir(context, name), 'run.json'), `${JSON.stringify(record)}\n`);
}

/** After an orderly end. */
export async function forgetRun(context: Context, name: string): Promise<void> {
  const dir = machineDir(context, name);
  for (const file of ['run.json', MACHINE_FILES.pid, MACHINE_FILES.qmpSocket, MACHINE_FILES.consoleSocket]) {
    await rm(join(dir, file), { force: true });
  }
}

/** The pid of the machine's QEMU, if it runs. */
export function machinePid(context: Context, record: MachineRecord): Promise<number | undefined> {
  return pidWithArgument(join(machineDir(context, record.name), MACHINE_FILES.pid), record.uuid);
}

/** What is true of a machine now, whatever was written down. */
export async function machineStatus(context: Context, record: MachineRecord): Promise<MachineStatus> {
  const pid = await machinePid(context, record);
  const running = await readRun(context, record.name);
  const orphan = record.owner !== undefined && !(await isAlive(record.owner));
  const state = pid !== undefined ? 'running' : running || orphan ? 'dead' : 'stopped';
  return {
    name: record.name,
    state,
    number: record.number,
    base: record.base.id,
    created: record.created,
    dir: machineDir(context, record.name),
    pid,
    sshHost: pid === undefined ? undefined : (running?.sshHost ?? '127.0.0.1'),
    sshPort: pid === undefined ? undefined : running?.sshPort,
    accel: pid === undefined ? undefined : running?.accel,
    memoryMiB: record.memoryMiB,
    cpus: record.cpus,
    throwAway: record.owner !== undefined,
  };
}

/** All machines, by name. */
export async function listVms(context: Context): Promise<MachineStatus[]> {
  const records = await readMachines(context);
  return Promise.all(records.map((record) => machineStatus(context, record)));
}

/** Keys of the frozen machines that disks lie over. */
export async function frozenInUse(context: Context): Promise<string[]> {
  return (await readMachines(context)).flatMap((record) => record.frozen ?? []);
}

/** Removes a machine's folder; its QEMU must have gone. */
export async function removeMachine(context: Context, name: string): Promise<void> {
  using _lock = await lockMachines(context);
  const uuid = randomUUID();
  const aside = join(machinesDir(context), `${CREATING}${uuid}`);
  const target = await readlink(machineDir(context, name)).catch(() => undefined);
  if (target !== undefined) await writeFile(join(target, CLAIM), uuid);
  await rename(machineDir(context, name), aside);
  await removeFolder(aside);
  await rm(join(machinesDir(context), `.lock-${name}`), { force: true });
}

/** Removes what killed creations and removals left; only while nobody creates. Returns how many. */
export async function removeHalfMade(context: Context): Promise<number> {
  if (!(await exists(machinesDir(context)))) return 0;
  using _lock = await lockMachines(context);
  const names = (await readdir(machinesDir(context))).filter((name) => name.startsWith(CREATING));
  for (const name of names) await removeFolder(join(machinesDir(context), name));
  return names.length;
}
