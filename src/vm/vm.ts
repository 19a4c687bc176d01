/**
 * A running machine: started, reached, stopped. A `Vm` exists only while its guest can be worked in.
 *
 * Secret: how a record on disk, a QEMU process, its control socket and an ssh connection become one thing.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { PassThrough, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Context } from '../core/context.ts';
import { errnoOf, ToolError, UserError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { formatDuration } from '../core/log.ts';
import { type RunningProgram, shellQuote } from '../core/run.ts';
import { type AccelChoice, chooseAccel, forgetAccel, type WantedAccel } from './accel.ts';
import { type Base, findBase, listBases, verifyBase } from './base.ts';
import { ConsoleWatch } from './console.ts';
import { giveFirstFiles } from './first-files.ts';
import { doFirstWork } from './first-work.ts';
import { FAST_PARAMETERS, type GuestNet, type GuestSettings, oemString } from './guest.ts';
import {
  dropStaleFrozen,
  FROZEN_NET,
  type Frozen,
  findFrozen,
  freeze,
  freshEntropy,
  keyOf,
  tellAgent,
  thaw,
} from './instant.ts';
import { resumeScript } from './instant-plan.ts';
import { foreignKey, readKey, type SshKey, userKey } from './key.ts';
import { connectQmp, launch } from './launch.ts';
import { type LaunchOptions, launchFromEnvironment, mergeLaunch } from './launch-options.ts';
import {
  createMachine,
  DEFAULT_CPUS,
  DEFAULT_MEMORY,
  forgetRun,
  frozenInUse,
  identify,
  listVms,
  lockMachine,
  type MachineOptions,
  type MachineRecord,
  machineDir,
  machinePid,
  mebibytes,
  readMachine,
  readRun,
  removeHalfMade,
  removeMachine,
  writeRun,
} from './machine.ts';
import { releaseMount } from './mount.ts';
import { refuseMounted } from './mount-state.ts';
import { collectNetworks, joinNetwork, leaveNetwork, type NetworkSeat } from './net.ts';
import type { NetworkSpec } from './net-spec.ts';
import { freePort } from './port.ts';
import { endOf, signalProcess, waitUntil } from './process.ts';
import {
  type Forward,
  isPortTaken,
  MACHINE_FILES,
  type QemuPlan,
  qemuArgs,
  qemuProgram,
  USER_NET,
  userNet,
} from './qemu.ts';
import { Qmp } from './qmp.ts';
import { seedImage } from './seed.ts';
import { type ExecOptions, type ExecResult, Ssh, type SshTarget } from './ssh.ts';
import { letGoOn, watchStandstill } from './standstill.ts';
import { DEFAULT_LIMITS, type WaitLimits, waitForLogin, waitUntilReady } from './wait.ts';

export interface StartOptions extends LaunchOptions {
  readonly limits?: Partial<WaitLimits> | undefined;
  /** Instead of what the machine was created with. */
  readonly memory?: string | undefined;
  readonly cpus?: number | undefined;
  readonly accel?: WantedAccel | undefined;
  /** Waited for on the console, once the machine is ready. */
  readonly waitMessage?: string | undefined;
  /** Instead of QEMU's user network: a bridge of this machine (see net.ts). The machine needs a number. */
  readonly network?: NetworkChoice | undefined;
}

export interface NetworkChoice {
  /** Brought up when it is down; one that is up stays as it is. */
  readonly spec: NetworkSpec;
  /** Default: `qtapNUMBER`. */
  readonly tap?: string | undefined;
}

export interface VmSpec extends MachineOptions, StartOptions {
  /**
   * Go on from a frozen machine instead of booting: a second or two instead of twenty. The first time, one is booted and frozen.
   * Where that cannot be, the machine boots as ever, and the reason is told.
   */
  readonly instant?: boolean | undefined;
}

const SSH_GUEST_PORT = 22;
const LOOPBACK = '127.0.0.1';
const FRESH = 'fresh';
const AGENT_LIMIT_MS = 60_000;
const PORT_TRIES = 8;
const MESSAGE_LIMIT_MS = 300_000;

interface VmParts {
  readonly context: Context;
  readonly record: MachineRecord;
  readonly sshHost: string;
  readonly sshPort: number;
  readonly accel: 'kvm' | 'tcg';
  readonly bootMs: number;
  readonly ssh: Ssh;
  /** What the disposal does to the machine itself. */
  readonly release: () => Promise<void>;
}

/** A machine with a login. `await using` it: a throw-away machine vanishes with it, others go on running. */
export class Vm implements AsyncDisposable {
  readonly name: string;
  readonly dir: string;
  /** 127.0.0.1, or the guest's own address on a bridge. */
  readonly sshHost: string;
  /** Leads to the guest's port 22. */
  readonly sshPort: number;
  readonly accel: 'kvm' | 'tcg';
  /** From the start of QEMU until the guest could be worked in; 0 for one that ran already. */
  readonly bootMs: number;
  readonly consoleLog: string;
  readonly #parts: VmParts;

  constructor(parts: VmParts) {
    this.#parts = parts;
    this.name = parts.record.name;
    this.dir = machineDir(parts.context, this.name);
    this.sshHost = parts.sshHost;
    this.sshPort = parts.sshPort;
    this.accel = parts.accel;
    this.bootMs = parts.bootMs;
    this.consoleLog = join(this.dir, MACHINE_FILES.console);
  }

  /**
   * Runs a program in the guest as root, without a shell.
   * @throws ToolError `guest-timeout`, `guest-gone`, `guest-paused` (its disk is full, for example)
   */
  async run(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const { context, ssh } = this.#parts;
    context.log.detail(`${this.name}# ${shellQuote(argv)}`);
    using standstill = watchStandstill(this.name, this.dir);
    const signal = AbortSignal.any([options.signal ?? context.signal, standstill.signal]);
    return await ssh.exec(argv, { ...options, signal });
  }

  /** Runs a program in the guest that must succeed. @throws ToolError `guest-command-failed` */
  async must(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const result = await this.run(argv, options);
    if (result.exitCode === 0) return result;
    throw new ToolError('guest-command-failed', `a command in machine '${this.name}' failed with ${result.exitCode}`, {
      command: shellQuote(argv),
      status: result.exitCode,
      stderrTail: result.stderr.slice(-4096),
    });
  }

  /** Writes a text or bytes to a file of the guest, whole or not at all. */
  async write(path: string, content: string | Uint8Array, mode = 0o644): Promise<void> {
    await this.must(['sh', '-c', WRITE_SCRIPT, 'sh', path, mode.toString(8)], { stdin: content });
  }

  /**
   * Copies a file into the guest, with its mode.
   * @throws UserError `no-such-file`
   */
  async put(local: string, remote: string): Promise<void> {
    const facts = await stat(local).catch((cause: unknown) => {
      throw new UserError('no-such-file', `there is no file '${local}'`, { file: local, cause });
    });
    const target = remote.endsWith('/') ? remote + basename(local) : remote;
    const mode = (facts.mode & 0o7777).toString(8);
    const count = this.#counter(basename(local), facts.size);
    const counted = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        count(chunk);
        done(null, chunk);
      },
    });
    const read = pipeline(createReadStream(local), counted);
    await Promise.all([this.must(['sh', '-c', WRITE_SCRIPT, 'sh', target, mode], { stdin: counted }), read]);
  }

  /** Copies a file out of the guest, with its mode. @throws ToolError `guest-command-failed` */
  async get(remote: string, local: string): Promise<void> {
    const { stdout } = await this.must(['stat', '-L', '-c', '%a %s', '--', remote]);
    const [mode = '', size] = stdout.trim().split(' ');
    const target = local.endsWith('/') ? local + basename(remote) : local;
    await mkdir(dirname(target), { recursive: true });
    const aside = `${target}.${process.pid}.tmp`;
    const through = new PassThrough();
    const written = pipeline(through, createWriteStream(aside, { mode: Number.parseInt(mode, 8) }));
    const count = this.#counter(basename(remote), Number(size));
    const copied = this.must(['cat', '--', remote], {
      discard: true,
      onOutput: (chunk, stream) => {
        if (stream !== 'stdout') return;
        count(chunk);
        through.write(chunk);
      },
    }).finally(() => through.end());
    await Promise.all([copied, written]);
    await rename(aside, target);
  }

  #counter(label: string, total: number): (chunk: Uint8Array) => void {
    let done = 0;
    return (chunk) => {
      done += chunk.length;
      this.#parts.context.log.progress(label, done, total);
    };
  }

  /** Leaves the machine; a throw-away one is destroyed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#parts.ssh[Symbol.dispose]();
    await this.#parts.release();
  }
}

const WRITE_SCRIPT =
  'd=$1.buildkit.$$; cat >"$d" && chmod "$2" "$d" && mv -f -- "$d" "$1" || { rm -f -- "$d"; exit 1; }';

/**
 * Makes a machine that belongs to this process, boots it and waits until it can be worked in. It vanishes with the returned
 * value, and with this process whatever ends it.
 * @throws UserError `base-unknown`, `vm-exists`; ToolError `vm-not-ready`, `vm-lost`
 */
export async function startVm(context: Context, given: VmSpec): Promise<Vm> {
  await collectGarbage(context);
  const spec = mergeLaunch<VmSpec>(launchFromEnvironment(context.env), given);
  const id = identify(spec.name ?? `tmp-${Math.random().toString(36).slice(2, 10)}`);
  const frozen = spec.instant ? await frozenFor(context, spec) : undefined;
  const record = await createMachine(context, id, spec, process.pid, frozen);
  if (frozen) await markFresh(context, record);
  try {
    return await withWork(context, await bringUp(context, record, spec, false), spec);
  } catch (error) {
    const console = join(machineDir(context, record.name), MACHINE_FILES.console);
    const kept = await keepConsole(context, console, record.name);
    await destroyVm(context, record.name);
    throw kept === undefined ? error : withConsole(error, kept);
  }
}

/**
 * Makes a machine whose first start goes on from a frozen one.
 * @throws as `createVm` does
 */
export async function createInstantVm(
  context: Context,
  nameOrNumber: string | number,
  options: MachineOptions,
): Promise<MachineRecord> {
  const id = identify(nameOrNumber, options.name);
  const frozen = await frozenFor(context, options);
  const record = await createMachine(context, id, options, undefined, frozen);
  if (frozen) await markFresh(context, record);
  return record;
}

/** Something to go on from, or undefined and the reason told. */
async function frozenFor(context: Context, spec: VmSpec): Promise<Frozen | undefined> {
  const base = await findBase(context, spec.base ?? 'bookworm');
  const reason = whyColdBoot(base, spec);
  if (reason !== undefined) {
    context.log.info(`no instant clone: ${reason}; the machine boots`);
    return undefined;
  }
  await verifyBase(context, base.id, base.sha256);
  const choice = await chooseAccel(context, spec.accel ?? 'auto', {
    architecture: base.architecture,
    kernel: base.kernel,
  });
  const memoryMiB = mebibytes(spec.memory ?? DEFAULT_MEMORY);
  const shape = {
    base,
    choice,
    memoryMiB,
    cpus: spec.cpus ?? DEFAULT_CPUS,
    kernelParameters: kernelParameters(base, spec),
  };
  try {
    return await freeze(context, shape);
  } catch (error) {
    context.signal.throwIfAborted();
    context.log.warn(`no instant clone: ${(error as Error).message}; the machine boots`);
    return undefined;
  }
}

function whyColdBoot(base: Base, spec: VmSpec): string | undefined {
  const { diskInterface = 'virtio', vnc, graphics, shares, netdevs } = spec;
  if (diskInterface !== 'virtio' || vnc !== undefined || graphics || shares?.length || netdevs?.length)
    return 'it has other devices';
  if (spec.raw) return 'its disk is raw';
  if (spec.ssh?.user !== undefined) return 'it has a user of its own';
  if (base.bootsItself) return 'the base has a boot loader of its own';
  if (base.architecture !== 'amd64') return `not on ${base.architecture}`;
  if (spec.qemuOptions?.length) return 'QEMU has other options';
  return undefined;
}

/** The marker is there from the creation until the first start: after it, memory and disk would not fit together. */
function markFresh(context: Context, record: MachineRecord): Promise<void> {
  return writeFile(join(machineDir(context, record.name), FRESH), '');
}

/** Takes the marker away and says what to go on from; undefined, with the reason told, when the machine must boot. */
async function takeFresh(
  context: Context,
  record: MachineRecord,
  base: Base,
  choice: AccelChoice,
  options: StartOptions,
): Promise<Frozen | undefined> {
  const marker = join(machineDir(context, record.name), FRESH);
  if (record.frozen === undefined || !(await exists(marker))) return undefined;
  await rm(marker);
  const memoryMiB = options.memory === undefined ? record.memoryMiB : mebibytes(options.memory);
  const shape = {
    base,
    choice,
    memoryMiB,
    cpus: options.cpus ?? record.cpus,
    kernelParameters: kernelParameters(base, options),
  };
  const cold = whyColdBoot(base, options);
  const same = (await keyOf(context, shape)) === record.frozen;
  const frozen = cold === undefined && same ? await findFrozen(context, record.frozen) : undefined;
  if (!frozen)
    context.log.info(`no instant clone: ${cold ?? 'QEMU, its options or this CPU have changed'}; the machine boots`);
  return frozen;
}

/** Saves the console of a machine that is about to vanish. */
async function keepConsole(context: Context, path: string, name: string): Promise<string | undefined> {
  if (!(await exists(path))) return undefined;
  const kept = join(context.stateDir, 'vm', 'consoles', `${name}.log`);
  await mkdir(dirname(kept), { recursive: true });
  await rename(path, kept);
  return kept;
}

function withConsole(error: unknown, logFile: string): unknown {
  if (!(error instanceof ToolError)) return error;
  const { message, code, command, stderrTail, status, cause } = error;
  const hint = `the console of the machine is in ${logFile}`;
  return new ToolError(code, message, { hint, command, stderrTail, status, cause, logFile });
}

/**
 * Boots a machine of the list; it goes on when this process ends. One that stands still is told to go on.
 * @throws UserError `vm-unknown`, `vm-running`, `base-changed`; ToolError `vm-not-ready`, `vm-lost`
 */
export async function bootVm(context: Context, name: string, options: StartOptions = {}): Promise<Vm> {
  const record = await readMachine(context, name);
  using _lock = await lockMachine(context, record.name);
  const pid = await machinePid(context, record);
  if (pid !== undefined) {
    if (await letGoOn(record.name, machineDir(context, record.name))) {
      context.log.info(`machine '${record.name}' stood still: it goes on`);
      return openVm(context, record.name);
    }
    throw new UserError('vm-running', `machine '${record.name}' runs already (process ${pid})`, {
      hint: `enter it: buildkit vm ssh ${record.name}`,
    });
  }
  await refuseMounted(record.name, machineDir(context, record.name));
  const launch = mergeLaunch<StartOptions>(launchFromEnvironment(context.env), record.launch ?? {}, options);
  return await withWork(context, await bringUp(context, record, launch, true), launch);
}

/** A machine of the list goes on running when its work fails: one may look what is wrong. */
async function withWork(context: Context, vm: Vm, options: StartOptions): Promise<Vm> {
  try {
    if (options.waitMessage !== undefined) await waitForMessage(context, vm, options.waitMessage);
    await doFirstWork(context, vm, options);
    return vm;
  } catch (error) {
    await vm[Symbol.asyncDispose]();
    throw error;
  }
}

/** @throws ToolError `vm-not-ready` */
async function waitForMessage(context: Context, vm: Vm, text: string): Promise<void> {
  using console = new ConsoleWatch(vm.consoleLog).start();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  console.onChange((all) => all.includes(text) && resolve());
  const limit = setTimeout(() => {
    const message = `machine '${vm.name}' did not say '${text}' within ${formatDuration(MESSAGE_LIMIT_MS)}`;
    reject(new ToolError('vm-not-ready', message, { command: 'console', logFile: vm.consoleLog }));
  }, MESSAGE_LIMIT_MS);
  const stop = () => reject(context.signal.reason as Error);
  context.signal.addEventListener('abort', stop, { once: true });
  try {
    await promise;
  } finally {
    clearTimeout(limit);
    context.signal.removeEventListener('abort', stop);
  }
}

/** The command line of ssh(1) for a machine that runs; `command` is for the guest's shell. @throws UserError `vm-not-running` */
export async function sshArgs(context: Context, name: string, command: readonly string[]): Promise<string[]> {
  const record = await readMachine(context, name);
  const { target, keyFile } = await sshTarget(context, record);
  const known = join(machineDir(context, record.name), 'known_hosts');
  const hostKey = target.hostKey?.split(' ').slice(0, 2).join(' ');
  const host = target.port === SSH_GUEST_PORT ? target.host : `[${target.host}]:${target.port}`;
  await writeFile(known, `${host} ${hostKey}\n`, { mode: 0o600 });
  const options = [
    `UserKnownHostsFile=${known}`,
    ...['GlobalKnownHostsFile=/dev/null', 'StrictHostKeyChecking=yes', 'IdentitiesOnly=yes', 'IdentityAgent=none'],
  ];
  return [
    ...['-F', 'none', '-i', keyFile, '-p', String(target.port)],
    ...options.flatMap((option) => ['-o', option]),
    `${target.user}@${target.host}`,
    ...(command.length === 0 ? [] : ['--', ...command]),
  ];
}

/**
 * Logs in to a machine that runs.
 * @throws UserError `vm-unknown`, `vm-not-running`
 */
export async function openVm(context: Context, name: string): Promise<Vm> {
  const record = await readMachine(context, name);
  const { running, target } = await sshTarget(context, record);
  const ssh = await Ssh.connect(target, 60_000, context.signal);
  return new Vm({ context, record, ssh, ...running, bootMs: 0, release: async () => {} });
}

type RunningFacts = Pick<VmParts, 'sshHost' | 'sshPort' | 'accel'>;

/** How to reach a running machine. @throws UserError `vm-not-running` */
async function sshTarget(
  context: Context,
  record: MachineRecord,
): Promise<{ target: SshTarget; running: RunningFacts; keyFile: string }> {
  const running = await readRun(context, record.name);
  if (!running || (await machinePid(context, record)) === undefined) {
    throw new UserError('vm-not-running', `machine '${record.name}' does not run`, {
      hint: `start it: buildkit vm start ${record.name}`,
    });
  }
  const key = await keyOfSsh(context, running.ssh);
  const { sshHost = LOOPBACK, sshPort, accel } = running;
  const at = { host: sshHost, port: sshPort, user: running.ssh?.user };
  const target = await makeTarget(context, record, at, key.privateKey);
  return { target, running: { sshHost, sshPort, accel }, keyFile: key.privateKeyFile };
}

async function makeTarget(
  context: Context,
  record: MachineRecord,
  { host, port, user = 'root' }: { readonly host: string; readonly port: number; readonly user?: string | undefined },
  privateKey: string,
): Promise<SshTarget> {
  const hostKey = (await readKey(join(machineDir(context, record.name), 'hostkey'))).publicKey;
  return { host, port, user, privateKey, hostKey };
}

/** The user's own key where one was named. */
function keyOfSsh(context: Context, ssh: LaunchOptions['ssh']): Promise<SshKey> {
  return ssh?.key === undefined ? userKey(context) : foreignKey(context, ssh.key);
}

async function bringUp(context: Context, record: MachineRecord, options: StartOptions, detached: boolean): Promise<Vm> {
  const { name } = record;
  const dir = machineDir(context, name);
  const base = await verifyBase(context, record.base.id, record.base.sha256);
  const choice = await chooseAccel(context, options.accel ?? record.accel, {
    architecture: base.architecture,
    kernel: base.bootsItself ? undefined : base.kernel,
  });
  const key = await keyOfSsh(context, options.ssh);
  const hostKey = await readKey(join(dir, 'hostkey'));
  const user = options.ssh?.user;
  const seat = await takeSeat(context, record, options);
  const net = seat ? await seatNet(seat) : userNet(record.mac);
  const hosts = [`${seat?.gateway ?? USER_NET.gateway} host.buildkit`];
  const settings = { hostname: name, authorizedKeys: [key.publicKey], nets: [net], hosts, user };
  await writeFile(join(dir, MACHINE_FILES.settings), oemString({ ...settings, hostKey }), {
    mode: 0o600,
  });
  if (base.bootsItself) {
    const seed = seedImage(
      { ...settings, instanceId: record.uuid, hostKey, machineId: machineIdOf(record) },
      new Date(record.created),
    );
    await writeFile(join(dir, MACHINE_FILES.seed), seed, { mode: 0o600 });
  }
  await startConsoleLog(dir);
  const frozen = await takeFresh(context, record, base, choice, options);
  const began = performance.now();
  const verb = frozen ? 'Resume' : 'Boot';
  return context.log.step(`${verb} machine '${name}' (${choice.accel})`, async () => {
    const parts = { record, base, choice, options, detached, seat, frozen };
    const started = await startQemu(context, parts).catch(async (error) => {
      await leaveSeat(context, seat, name);
      throw error;
    });
    try {
      const { sshHost, sshPort } = started;
      const target = await makeTarget(context, record, { host: sshHost, port: sshPort, user }, key.privateKey);
      using console = new ConsoleWatch(join(dir, MACHINE_FILES.console)).start();
      await using qmp = await connectQmp(join(dir, MACHINE_FILES.qmpSocket), started.qemu, 20_000, context.signal);
      const patient = { name, command: started.command, console, qmp, target, tellsReady: !base.bootsItself };
      const limits = { ...DEFAULT_LIMITS, ...definedOnly(options.limits ?? {}) };
      if (frozen) await goOn(context, qmp, dir, frozen, { ...settings, record, hostKey, net });
      const ssh = await (frozen ? waitForLogin : waitUntilReady)(context, patient, limits);
      const bootMs = performance.now() - began;
      context.log.detail(`machine '${name}' is ready after ${formatDuration(bootMs)}, ssh on ${sshHost}:${sshPort}`);
      const release = detached ? async () => {} : () => dropThrowAway(context, name, started.qemu);
      const vm = new Vm({ context, record, sshHost, sshPort, accel: choice.accel, bootMs, ssh, release });
      await giveFirstFiles(vm, dir);
      return vm;
    } catch (error) {
      if (choice.accel === 'kvm') await forgetAccel(context);
      await started.qemu?.[Symbol.asyncDispose]();
      await killMachine(context, record);
      await endRun(context, name);
      context.signal.throwIfAborted();
      if (!frozen) throw error;
      context.log.warn(`the frozen machine cannot go on (${(error as Error).message}): it boots instead`);
      return bringUp(context, record, options, detached);
    }
  });
}

/** A frozen guest goes on and becomes this machine. */
async function goOn(
  context: Context,
  qmp: Qmp,
  dir: string,
  frozen: Frozen,
  self: Pick<GuestSettings, 'hostname' | 'authorizedKeys' | 'hosts'> & {
    record: MachineRecord;
    hostKey: SshKey;
    net: GuestNet;
  },
): Promise<void> {
  await thaw(qmp, dir, frozen);
  const script = resumeScript({
    ...self,
    machineId: machineIdOf(self.record),
    hostKey: self.hostKey.privateKey,
    hostPublicKey: self.hostKey.publicKey,
    card: { frozen: FROZEN_NET, own: self.net },
    timeMs: context.now().getTime(),
    entropy: freshEntropy(),
  });
  await tellAgent(dir, script, AGENT_LIMIT_MS);
}

/** A place on the network that was asked for. @throws UserError `vm-no-number`, `vm-forwards`, and as `joinNetwork` does */
async function takeSeat(
  context: Context,
  record: MachineRecord,
  { network, forwards, netOptions }: StartOptions,
): Promise<NetworkSeat | undefined> {
  if (network === undefined) return undefined;
  const { name, number } = record;
  if (number === undefined) {
    throw new UserError('vm-no-number', `machine '${name}' has no number, so it has no address on a network`, {
      hint: `create it with one: buildkit vm create --name ${name} 10`,
    });
  }
  if (forwards?.length) {
    throw new UserError('vm-forwards', 'ports are forwarded on the user network only', {
      hint: 'on a bridge the machine has an address of its own: leave --port out',
    });
  }
  if (netOptions) context.log.warn('QEMU_NET_OPTS is for the user network: on a bridge it is not used');
  return joinNetwork(context, network.spec, { name, number, tap: network.tap });
}

/** The card as the guest is told of it: names are looked up where this machine does, unless the network has a server. */
async function seatNet(seat: NetworkSeat): Promise<GuestNet> {
  const servers = (await readFile('/etc/resolv.conf', 'utf8').catch(() => '')).matchAll(/^nameserver\s+([\d.]+)$/gm);
  const outside = [...servers].map(([, address]) => address!).find((address) => !address.startsWith('127.'));
  const { mac, address, prefixLength, gateway } = seat;
  return { mac, address: `${address}/${prefixLength}`, gateway, dns: seat.dns ? gateway : (outside ?? gateway) };
}

async function leaveSeat(context: Context, seat: NetworkSeat | undefined, name: string): Promise<void> {
  if (seat) await leaveNetwork({ ...context, signal: new AbortController().signal }, seat.network, name);
}

/** After a machine has ended, however it did: its files and its place on a network are given back. */
async function endRun(context: Context, name: string): Promise<void> {
  const network = (await readRun(context, name))?.network;
  if (network !== undefined) {
    await leaveNetwork({ ...context, signal: new AbortController().signal }, network, name);
  }
  await forgetRun(context, name);
}

function definedOnly<T extends object>(values: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never;
}

/** Keeps the console of the run before. */
async function startConsoleLog(dir: string): Promise<void> {
  const path = join(dir, MACHINE_FILES.console);
  await rename(path, `${path}.1`).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw error;
  });
  await writeFile(path, '', { mode: 0o600 });
}

interface Started {
  /** Of a machine that belongs to this process. */
  readonly qemu: RunningProgram | undefined;
  readonly sshHost: string;
  readonly sshPort: number;
  readonly command: string;
}

interface StartParts {
  readonly record: MachineRecord;
  readonly base: Base;
  readonly choice: AccelChoice;
  readonly options: StartOptions;
  readonly detached: boolean;
  readonly seat: NetworkSeat | undefined;
  readonly frozen: Frozen | undefined;
}

/** Picks a free port and lets QEMU take it; where another program was quicker, picks the next. */
async function startQemu(
  context: Context,
  { record, base, choice, options, detached, seat, frozen }: StartParts,
): Promise<Started> {
  const dir = machineDir(context, record.name);
  const program = qemuProgram(record.architecture);
  for (let tries = 1; ; tries += 1) {
    const { port: wantedPort, host: wantedHost = LOOPBACK } = options.ssh ?? {};
    const [sshHost, sshPort] = seat ? [seat.address, SSH_GUEST_PORT] : [wantedHost, wantedPort ?? (await freePort())];
    const ssh: Forward = { protocol: 'tcp', address: sshHost, hostPort: sshPort, guestPort: SSH_GUEST_PORT };
    const args = qemuArgs({
      name: record.name,
      folder: dir,
      uuid: record.uuid,
      architecture: record.architecture,
      accel: choice.accel,
      cpuModel: choice.cpu,
      memoryMiB: options.memory === undefined ? record.memoryMiB : mebibytes(options.memory),
      cpus: options.cpus ?? record.cpus,
      nets: [
        seat
          ? { kind: 'tap', mac: seat.mac, tap: seat.tap }
          : {
              kind: 'user',
              mac: record.mac,
              forwards: [ssh, ...(options.forwards ?? [])],
              options: options.netOptions,
            },
      ],
      diskFormat: record.disk,
      diskInterface: options.diskInterface,
      ...{ vnc: options.vnc, graphics: options.graphics, shares: options.shares, netdevs: options.netdevs },
      memory: frozen && { path: frozen.memory, shared: false, incoming: true },
      boot: base.bootsItself ? undefined : bootOf(base, record, options),
      seeded: base.bootsItself,
      detached,
      unsafeCache: record.owner !== undefined,
      snapshot: options.snapshot ?? false,
      extra: options.qemuOptions ?? [],
    });
    await writeRun(context, record.name, {
      ...(seat || options.ssh?.host ? { sshHost } : {}),
      ...(seat ? { network: seat.network } : {}),
      ...(options.ssh ? { ssh: options.ssh } : {}),
      ...{ sshPort, accel: choice.accel, started: context.now().toISOString() },
    });
    try {
      const qemu = await launch(context, dir, program, args);
      if (qemu) await settled(qemu);
      return { qemu, sshHost, sshPort, command: shellQuote([program, ...args]) };
    } catch (error) {
      await forgetRun(context, record.name);
      const raced = error instanceof ToolError && isPortTaken(error.stderrTail);
      const fixed = options.forwards?.length || options.ssh?.port !== undefined || options.netOptions;
      if (!raced || fixed || tries === PORT_TRIES) throw raced ? portTaken(error) : error;
    }
  }
}

function portTaken(error: ToolError): ToolError {
  const { command, stderrTail, status, cause } = error;
  return new ToolError('port-taken', 'a port that the machine shall have belongs to another program', {
    ...{ command, stderrTail, status, cause },
    hint: 'see who has it: ss -ltnp; choose another one, or none: a free one is then taken for ssh',
  });
}

/** The tiny initrd knows virtio disks alone, and no parameters. */
function bootOf(base: Base, record: MachineRecord, options: StartOptions): NonNullable<QemuPlan['boot']> {
  const known =
    (options.diskInterface ?? 'virtio') === 'virtio' &&
    !(options.kernelParameters ?? []).some((one) => /^(init|root|rootflags|break)(=|$)/.test(one));
  const tiny = known ? base.tinyInitrd : undefined;
  // what the disk of a clone says is its source's
  const parameters = [...kernelParameters(base, options), `systemd.machine_id=${machineIdOf(record)}`];
  return { kernel: base.kernel, initrd: tiny ?? base.initrd, parameters };
}

function machineIdOf({ uuid }: MachineRecord): string {
  return uuid.replaceAll('-', '');
}

function kernelParameters(base: Base, options: StartOptions): string[] {
  const fast = base.tinyInitrd === undefined ? [] : FAST_PARAMETERS;
  const screen = options.graphics || options.vnc !== undefined ? ['console=tty0'] : [];
  return [
    `root=UUID=${base.rootUuid}`,
    'rw',
    ...screen,
    'console=ttyS0',
    'quiet',
    ...fast,
    ...(options.kernelParameters ?? []),
  ];
}

/** A child that fails at once (a port in use, an unknown option) does so within this time. */
async function settled(qemu: RunningProgram): Promise<void> {
  await Promise.race([qemu.ended, new Promise((resolve) => setTimeout(resolve, 150))]);
}

async function dropThrowAway(context: Context, name: string, qemu: RunningProgram | undefined): Promise<void> {
  await qemu?.[Symbol.asyncDispose]();
  await destroyVm({ ...context, signal: new AbortController().signal }, name);
}

/** How a machine was brought to its end. */
export type StopMeans = 'not-running' | 'power-down' | 'quit' | 'kill';

/**
 * Stops a machine: power button (ACPI), after `timeoutMs` QEMU's quit, then a kill. Says which it took.
 * @throws UserError `vm-unknown`
 */
export async function stopVm(context: Context, name: string, timeoutMs = 60_000): Promise<StopMeans> {
  const record = await readMachine(context, name);
  using _lock = await lockMachine(context, record.name);
  const pid = await machinePid(context, record);
  if (pid === undefined) {
    await endRun(context, record.name);
    return 'not-running';
  }
  const means = await powerDown(context, record, pid, timeoutMs);
  await endRun(context, record.name);
  return means;
}

async function powerDown(context: Context, record: MachineRecord, pid: number, timeoutMs: number): Promise<StopMeans> {
  const gone = await endOf(pid);
  try {
    await using qmp = await Qmp.connect(join(machineDir(context, record.name), MACHINE_FILES.qmpSocket));
    if (timeoutMs > 0) {
      await qmp.execute('system_powerdown');
      if (await waitUntil(gone, timeoutMs)) return 'power-down';
    }
    await qmp.execute('quit').catch(() => {});
    if (await waitUntil(gone, 10_000)) return 'quit';
  } catch (error) {
    if (await gone()) return 'power-down';
    context.log.detail(`QEMU of '${record.name}' does not answer: ${(error as Error).message}`);
  }
  await killMachine(context, record);
  return 'kill';
}

async function killMachine(context: Context, record: MachineRecord): Promise<void> {
  const pid = await machinePid(context, record);
  if (pid === undefined) return;
  const gone = await endOf(pid);
  signalProcess(pid, 'SIGKILL');
  await waitUntil(gone, 10_000);
}

/**
 * Ends a machine at once and removes all that it had.
 * @throws UserError `vm-unknown`
 */
export async function destroyVm(context: Context, name: string): Promise<void> {
  const record = await readMachine(context, name);
  using _lock = await lockMachine(context, record.name);
  await killMachine(context, record);
  await releaseMount(context, record);
  await endRun(context, record.name);
  await removeMachine(context, record.name);
}

/** Removes what dead processes left: throw-away machines without an owner, half-made ones. Returns their names. */
export async function collectGarbage(context: Context): Promise<string[]> {
  const orphans = (await listVms(context)).filter((one) => one.throwAway && one.state === 'dead');
  const removed: string[] = [];
  for (const { name } of orphans) if (await destroyUnlessGone(context, name)) removed.push(name);
  const halfMade = await removeHalfMade(context);
  const networks = await collectNetworks(context, (name) => isBusy(context, name));
  const bases = (await listBases(context)).map((base) => base.id);
  const frozen = await dropStaleFrozen(context, await frozenInUse(context), bases);
  return [...removed, ...networks, ...frozen, ...Array.from({ length: halfMade }, () => 'a half-made machine')];
}

/** False when another process does it at this moment. */
async function destroyUnlessGone(context: Context, name: string): Promise<boolean> {
  try {
    await destroyVm(context, name);
    return true;
  } catch (error) {
    if (error instanceof UserError && ['locked', 'vm-unknown'].includes(error.code)) return false;
    throw error;
  }
}

/** It runs, or someone is about to start or end it. */
async function isBusy(context: Context, name: string): Promise<boolean> {
  const status = (await listVms(context)).find((one) => one.name === name);
  if (!status) return false;
  if (status.state === 'running' || (status.throwAway && status.state !== 'dead')) return true;
  try {
    using _lock = await lockMachine(context, name);
    return false;
  } catch (error) {
    if (error instanceof UserError && error.code === 'locked') return true;
    throw error;
  }
}
