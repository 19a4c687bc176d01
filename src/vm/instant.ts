/**
 * Instant clones: a machine is booted once and frozen, its memory in a file, the state of its devices beside it, its disk below;
 * any number of machines go on from there in a second or two.
 *
 * Secret: QEMU's migration with `x-ignore-shared`: memory that lies in a shared file is left where it is, so that the stream
 * holds devices alone (half a megabyte), and clones map the file privately. `STATE/vm/instant/KEY` holds what is frozen.
 */
import { randomBytes } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { chmod, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { type Lock, lock } from '../core/db.ts';
import { ToolError, UserError } from '../core/errors.ts';
import { exists, namesIn, scratchFolder, syncFolder, writeFileAtomic } from '../core/files.ts';
import { run, shellQuote } from '../core/run.ts';
import type { AccelChoice } from './accel.ts';
import type { Base } from './base.ts';
import { ConsoleWatch, plainText } from './console.ts';
import { oemString } from './guest.ts';
import { AGENT_SCRIPT, AGENT_START, type FrozenShape, frozenKey, hostCpuOf, parseAgentAnswer } from './instant-plan.ts';
import { makeKey, userKey } from './key.ts';
import { connectQmp, launch } from './launch.ts';
import { freePort } from './port.ts';
import { type Forward, MACHINE_FILES, qemuArgs, qemuProgram, userNet } from './qemu.ts';
import { connectUnix, type Qmp } from './qmp.ts';
import { DEFAULT_LIMITS, waitUntilReady } from './wait.ts';

/** A frozen machine. */
export interface Frozen {
  readonly key: string;
  readonly dir: string;
  /** Below the disks of its clones. */
  readonly disk: string;
  readonly memory: string;
  readonly state: string;
}

export interface Shape {
  readonly base: Base;
  readonly choice: AccelChoice;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly kernelParameters: readonly string[];
}

/** The card of a machine while it is frozen: a resumed one gets its own. */
export const FROZEN_NET = userNet('52:54:00:fe:fe:fe');
const NETDEV = 'net0';
const FREEZING = '.freezing-';
const STREAM_LIMIT_MS = 60_000;

function instantDir(context: Context): string {
  return join(context.stateDir, 'vm', 'instant');
}

function toFrozen(context: Context, key: string): Frozen {
  const dir = join(instantDir(context), key);
  const [disk, memory, state] = [MACHINE_FILES.disk, 'memory', 'state'].map((name) => join(dir, name)) as [
    string,
    string,
    string,
  ];
  return { key, dir, disk, memory, state };
}

/** Names what would be frozen for `shape` on this machine, as it is now. */
export async function keyOf(context: Context, shape: Shape): Promise<string> {
  const { base, choice, memoryMiB, cpus, kernelParameters } = shape;
  const facts: FrozenShape = {
    ...{ baseSha256: base.sha256, architecture: base.architecture, memoryMiB, cpus, kernelParameters },
    ...{ accel: choice.accel, cpuModel: choice.cpu },
    qemu: await programStamp(context, qemuProgram(base.architecture)),
    hostCpu: hostCpuOf(await readFile('/proc/cpuinfo', 'utf8')),
  };
  return frozenKey(facts);
}

/** Which QEMU it is; asking it for its version would take longer than reading that. */
async function programStamp(context: Context, program: string): Promise<string> {
  for (const folder of (context.env.PATH ?? '').split(':')) {
    const facts = await stat(join(folder, program)).catch(() => undefined);
    if (facts?.isFile()) return `${join(folder, program)} ${facts.size} ${facts.mtimeMs}`;
  }
  return program;
}

/** What is frozen under `key`, if it is. */
export async function findFrozen(context: Context, key: string): Promise<Frozen | undefined> {
  const frozen = toFrozen(context, key);
  return (await exists(join(frozen.dir, 'instant.json'))) ? frozen : undefined;
}

/**
 * The frozen machine of `shape`: an existing one, else one that is booted and frozen now.
 * @throws ToolError `vm-not-ready`, `vm-lost`
 */
export async function freeze(context: Context, shape: Shape): Promise<Frozen> {
  const key = await keyOf(context, shape);
  const found = await findFrozen(context, key);
  if (found) return found;
  using _lock = await lockInstant(context, 15 * 60_000);
  await removeHalfFrozen(context);
  const meanwhile = await findFrozen(context, key);
  if (meanwhile) return meanwhile;
  return context.log.step('Boot a machine and freeze it for instant clones', () => bootAndFreeze(context, shape, key));
}

async function lockInstant(context: Context, waitMs: number): Promise<Lock> {
  const path = join(instantDir(context), '.lock');
  return lock(path, { what: 'the frozen machines', waitMs, signal: context.signal });
}

/** What a killed freezing left; its QEMU went with the process. Only while the lock is held. */
async function removeHalfFrozen(context: Context): Promise<string[]> {
  const found = (await readdir(instantDir(context))).filter((name) => name.startsWith(FREEZING));
  for (const name of found) await rm(join(instantDir(context), name), { recursive: true, force: true });
  return found.map(() => 'a half-frozen machine');
}

async function bootAndFreeze(context: Context, shape: Shape, key: string): Promise<Frozen> {
  await using scratch = await scratchFolder(instantDir(context), FREEZING);
  const dir = scratch.path;
  const { base } = shape;
  const user = await userKey(context);
  const host = await makeKey(context, join(dir, 'hostkey'), 'frozen');
  const settings = { hostname: 'frozen', authorizedKeys: [user.publicKey], nets: [FROZEN_NET], hosts: [] };
  const privately = { mode: 0o600 };
  await writeFile(join(dir, MACHINE_FILES.settings), oemString({ ...settings, hostKey: host }), privately);
  await writeFile(join(dir, MACHINE_FILES.console), '', privately);
  await run(context, 'qemu-img', [
    ...['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base.disk],
    join(dir, MACHINE_FILES.disk),
  ]);
  const port = await freePort();
  const forwards: Forward[] = [{ protocol: 'tcp', address: '127.0.0.1', hostPort: port, guestPort: 22 }];
  const args = qemuArgs({
    ...{
      name: `frozen-${key}`,
      folder: dir,
      uuid: '00000000-0000-4000-8000-000000000000',
      architecture: base.architecture,
    },
    ...{ accel: shape.choice.accel, cpuModel: shape.choice.cpu, memoryMiB: shape.memoryMiB, cpus: shape.cpus },
    nets: [{ kind: 'user', mac: FROZEN_NET.mac, forwards }],
    boot: { kernel: base.kernel, initrd: base.tinyInitrd ?? base.initrd, parameters: shape.kernelParameters },
    ...{ seeded: false, detached: false, unsafeCache: true, snapshot: false, extra: [] },
    memory: { path: 'memory', shared: true, incoming: false },
  });
  const program = qemuProgram(base.architecture);
  await using qemu = (await launch(context, dir, program, args))!;
  await using qmp = await connectQmp(join(dir, MACHINE_FILES.qmpSocket), qemu, 20_000, context.signal);
  using console = new ConsoleWatch(join(dir, MACHINE_FILES.console)).start();
  const target = { host: '127.0.0.1', port, user: 'root', privateKey: user.privateKey, hostKey: host.publicKey };
  const patient = { name: 'frozen', command: shellQuote([program, ...args]), console, qmp, target, tellsReady: true };
  {
    using ssh = await waitUntilReady(context, patient, DEFAULT_LIMITS);
    const started = await ssh.exec(['sh', '-c', AGENT_START], { stdin: AGENT_SCRIPT, timeoutMs: 60_000 });
    if (started.exitCode !== 0) throw new ToolError('instant-agent', started.stderr, { command: 'AGENT_START' });
    // the agent reads by now: it was started before sync came back; its own start takes no ssh
    await ssh.exec(['sh', '-c', 'until grep -q buildkit-agent /proc/[0-9]*/cmdline; do sleep 0.1; done; sleep 0.5'], {
      timeoutMs: 60_000,
    });
  }
  await qmp.execute('stop');
  // a user network would be part of the state: without it, a clone may sit on a tap as well
  await qmp.execute('netdev_del', { id: NETDEV });
  await saveState(qmp, dir);
  await qmp.execute('quit').catch(() => {}); // it answers, or is gone before it does
  await qemu.ended.catch(() => {});
  return await finish(context, dir, key, shape); // before the scratch folder goes
}

/** QEMU writes to a socket of ours, since the seccomp filter lets it start no program, and old ones write no file. */
async function saveState(qmp: Qmp, dir: string): Promise<void> {
  await setCapabilities(qmp);
  const folder = await open(dir, 'r');
  try {
    const server = createServer();
    const saved = new Promise<void>((resolve, reject) => {
      server.once('connection', (socket) => {
        pipeline(socket, createWriteStream(join(dir, 'state'), { mode: 0o600 })).then(resolve, reject);
      });
      server.once('error', reject);
    });
    await new Promise<void>((resolve) =>
      server.listen(`/proc/self/fd/${folder.fd}/${MACHINE_FILES.stateSocket}`, resolve),
    );
    const done = migrationEnd(qmp);
    await qmp.execute('migrate', { uri: `unix:${MACHINE_FILES.stateSocket}` });
    await Promise.all([saved, done]);
    server.close();
  } finally {
    await folder.close();
  }
}

async function setCapabilities(qmp: Qmp): Promise<void> {
  const capabilities = ['x-ignore-shared', 'events'].map((capability) => ({ capability, state: true }));
  await qmp.execute('migrate-set-capabilities', { capabilities });
}

/** Settles with the migration that is about to begin. */
function migrationEnd(qmp: Qmp): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (error?: Error) => {
      stop();
      clearTimeout(timer);
      if (error) reject(error);
      else resolve();
    };
    const stop = qmp.onEvent(({ event, data }) => {
      if (event !== 'MIGRATION') return;
      if (data.status === 'completed') end();
      if (data.status === 'failed') end(new Error('QEMU refused the state of the frozen machine'));
    });
    const timer = setTimeout(() => end(new Error('the state of the machine does not move')), STREAM_LIMIT_MS);
    void qmp.closed.then(() => end(new Error('QEMU ended')));
  });
}

async function finish(context: Context, dir: string, key: string, shape: Shape): Promise<Frozen> {
  for (const name of await readdir(dir)) {
    if (![MACHINE_FILES.disk, 'memory', 'state'].includes(name)) await rm(join(dir, name), { force: true });
    else await chmod(join(dir, name), 0o400);
  }
  const record: z.infer<typeof recordSchema> = { format: 1, key, base: shape.base.id, slot: slotOf(shape) };
  await writeFileAtomic(join(dir, 'instant.json'), `${JSON.stringify(record)}\n`);
  const frozen = toFrozen(context, key);
  await rename(dir, frozen.dir);
  await syncFolder(instantDir(context));
  return frozen;
}

/** Gives a QEMU that waits (`-incoming defer`) the frozen state and lets the guest go on. */
export async function thaw(qmp: Qmp, machineDir: string, frozen: Frozen): Promise<void> {
  await setCapabilities(qmp);
  const loaded = migrationEnd(qmp);
  loaded.catch(() => {}); // the error of what comes before it is told
  // a detached QEMU has left the folder, and the folder's own name may be too long for a socket: it goes by our descriptor
  const place = await open(machineDir, 'r');
  try {
    await qmp.execute('migrate-incoming', {
      uri: `unix:/proc/${process.pid}/fd/${place.fd}/${MACHINE_FILES.stateSocket}`,
    });
    const { socket, folder } = await connectUnix(join(machineDir, MACHINE_FILES.stateSocket));
    try {
      await Promise.all([pipeline(createReadStream(frozen.state), socket), loaded]);
    } finally {
      socket.destroy();
      await folder.close();
    }
  } finally {
    await place.close();
    await rm(join(machineDir, MACHINE_FILES.stateSocket), { force: true });
  }
  await qmp.execute('set_link', { name: NETDEV, up: true });
  await qmp.execute('cont');
}

/**
 * Has the agent of a resumed guest run `script`.
 * @throws ToolError `instant-agent`
 */
export async function tellAgent(machineDir: string, script: string, limitMs: number): Promise<void> {
  const { socket, folder } = await connectUnix(join(machineDir, MACHINE_FILES.agentSocket));
  try {
    socket.setEncoding('utf8');
    socket.write(`${Buffer.byteLength(script)}\n${script}`);
    const answer = await new Promise<ReturnType<typeof parseAgentAnswer>>((resolve) => {
      let text = '';
      const timer = setTimeout(() => resolve(undefined), limitMs);
      socket.on('data', (chunk: string) => {
        text = (text + chunk).slice(-64 * 1024);
        const found = parseAgentAnswer(text);
        if (found) {
          clearTimeout(timer);
          resolve(found);
        }
      });
      socket.on('error', () => resolve(undefined));
    });
    if (answer?.exitCode === 0) return;
    const why = answer ? `failed: ${plainText(answer.output)}` : `did not answer within ${limitMs / 1000} s`;
    throw new ToolError('instant-agent', `the agent of the resumed machine ${why}`, { command: 'resume' });
  } finally {
    socket.destroy();
    await folder.close();
  }
}

/** For `resumeScript`. */
export function freshEntropy(): Uint8Array {
  return randomBytes(64);
}

const recordSchema = z.object({
  format: z.literal(1),
  key: z.string(),
  base: z.string(),
  /** What the user chose: of one slot only the newest is of use, the others are of another QEMU, CPU or base. */
  slot: z.string(),
});

function slotOf({ base, choice, memoryMiB, cpus, kernelParameters }: Shape): string {
  return [base.suite, memoryMiB, cpus, choice.accel, ...kernelParameters.slice(1)].join(' ');
}

/**
 * Removes frozen machines that no machine's disk lies over and that can never be resumed again: their base has gone, or a newer
 * one has taken their place; and what a killed freezing left. Does nothing while another process freezes one.
 * @param users keys that machines need
 * @returns what was removed
 */
export async function dropStaleFrozen(
  context: Context,
  users: readonly string[],
  bases: readonly string[],
): Promise<string[]> {
  const names = await namesIn(instantDir(context));
  if (names.length === 0) return [];
  using held = await lockInstant(context, 0).catch((error: unknown) => {
    if (error instanceof UserError && error.code === 'locked') return undefined;
    throw error;
  });
  if (held === undefined) return [];
  const dropped = await removeHalfFrozen(context);
  const slots = new Set<string>();
  for (const { key, record } of await readFrozen(context, names)) {
    const stale = record === undefined || !bases.includes(record.base) || slots.has(record.slot);
    if (record) slots.add(record.slot);
    if (!stale || users.includes(key)) continue;
    await rm(join(instantDir(context), key), { recursive: true, force: true });
    dropped.push(`frozen machine ${key}`);
  }
  return dropped;
}

/** Newest first. */
async function readFrozen(
  context: Context,
  names: readonly string[],
): Promise<{ key: string; record: z.infer<typeof recordSchema> | undefined }[]> {
  const found = [];
  for (const key of names.filter((name) => !name.startsWith('.'))) {
    const file = join(instantDir(context), key, 'instant.json');
    const text = await readFile(file, 'utf8').catch(() => 'null');
    const age = await stat(file).then(
      (facts) => facts.mtimeMs,
      () => 0,
    );
    found.push({ key, age, record: recordSchema.safeParse(JSON.parse(text)).data });
  }
  return found.sort((a, b) => b.age - a.age);
}
