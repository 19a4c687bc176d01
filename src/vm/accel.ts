/**
 * KVM or emulation: whether /dev/kvm can really run a guest.
 *
 * Secret: the probe. There are machines where /dev/kvm opens, answers its API version and makes a VM, and the guest then dies
 * with `KVM internal error ... emulation failure`, QEMU staying alive. So the very kernel that will be used is booted without a
 * root disk: QMP's `internal-error` means that KVM lies, a panic for want of a root means that it works.
 */
import { constants } from 'node:fs';
import { access, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { errnoOf, ToolError, UserError } from '../core/errors.ts';
import { scratchFolder, writeFileAtomic } from '../core/files.ts';
import { start } from '../core/run.ts';
import { connectQmp } from './launch.ts';
import { readBootId } from './process.ts';
import { type Accel, accelArgs, qemuProgram } from './qemu.ts';

export type WantedAccel = 'auto' | Accel;

export interface AccelChoice {
  readonly accel: Accel;
  /** CPU model for `-cpu`; QEMU's own choice when absent. */
  readonly cpu?: string | undefined;
  /** Why, in words for the user. */
  readonly reason: string;
}

interface Verdict {
  readonly works: boolean;
  readonly cpu?: string | undefined;
  readonly reason: string;
}

/** What is booted: a kernel file and Debian's name of its architecture. */
export interface ProbedKernel {
  readonly kernel: string;
  readonly architecture: string;
}

/** A kernel that runs says so within a second; one that hangs (that kind of lie exists too) never does. */
const PROBE_LIMIT_MS = 6000;
const DEVICE = '/dev/kvm';

const memorySchema = z.object({
  bootId: z.string(),
  /** Verdicts by kernel: architecture, size and date of the file. */
  verdicts: z.record(z.string(), z.object({ works: z.boolean(), cpu: z.string().optional(), reason: z.string() })),
});
type Memory = z.infer<typeof memorySchema>;

/**
 * Settles `auto` for a kernel, from memory when this boot has tried it before; says what was found.
 * @throws UserError `kvm-unavailable` when `kvm` is demanded and cannot be opened
 */
export async function chooseAccel(
  context: Context,
  wanted: WantedAccel,
  image: { readonly kernel: string | undefined; readonly architecture: string },
): Promise<AccelChoice> {
  if (wanted === 'tcg') return { accel: 'tcg', reason: 'asked for' };
  const denied = await whyNoDevice();
  if (wanted === 'kvm') {
    if (denied === undefined) return { accel: 'kvm', cpu: 'host', reason: 'asked for' };
    throw new UserError('kvm-unavailable', `KVM cannot be used: ${denied}`, {
      hint: 'use emulation: --accel tcg, or --accel auto',
    });
  }
  if (denied !== undefined) return tell(context, { accel: 'tcg', reason: denied });
  if (image.kernel === undefined) return tell(context, (await knownAccel(context)) ?? UNTRIED);
  const kernel = { ...image, kernel: image.kernel };
  const key = await kernelKey(kernel);
  const bootId = await readBootId();
  const memory = await readMemory(context, bootId);
  const known = memory.verdicts[key];
  if (known) return tell(context, choiceOf(known, 'found earlier'));
  const verdict = await context.log.step('Try whether /dev/kvm runs a guest', () => probeKvm(context, kernel));
  await remember(context, { bootId, verdicts: { ...memory.verdicts, [key]: verdict } });
  return tell(context, choiceOf(verdict, 'tried just now'));
}

/** An image that boots by itself has no kernel apart to try. */
const UNTRIED: AccelChoice = {
  accel: 'tcg',
  reason:
    'nothing was tried yet: no machine of a built base was started since this one booted (or force it: --accel kvm)',
};

function choiceOf(verdict: Verdict, when: string): AccelChoice {
  const reason = `${verdict.reason} (${when})`;
  return verdict.works ? { accel: 'kvm', cpu: verdict.cpu, reason } : { accel: 'tcg', reason };
}

function tell(context: Context, choice: AccelChoice): AccelChoice {
  if (choice.accel === 'tcg')
    context.log.info(`no KVM: ${choice.reason}; the machine is emulated (tcg), which is slower`);
  else context.log.detail(`KVM is used: ${choice.reason}`);
  return choice;
}

/** Forgets what was found, after a machine died under KVM in spite of it. */
export async function forgetAccel(context: Context): Promise<void> {
  await remember(context, { bootId: await readBootId(), verdicts: {} });
}

/** What this boot knows of KVM, for `doctor`; nothing is tried. */
export async function knownAccel(context: Context): Promise<AccelChoice | undefined> {
  const denied = await whyNoDevice();
  if (denied !== undefined) return { accel: 'tcg', reason: denied };
  const verdicts = Object.values((await readMemory(context, await readBootId())).verdicts);
  const verdict = verdicts.find((one) => !one.works) ?? verdicts[0];
  return verdict && choiceOf(verdict, 'found earlier');
}

async function whyNoDevice(): Promise<string | undefined> {
  try {
    await access(DEVICE, constants.R_OK | constants.W_OK);
    return undefined;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return `this machine has no ${DEVICE}`;
    return `no right to open ${DEVICE} (be in the group kvm)`;
  }
}

async function kernelKey({ kernel, architecture }: ProbedKernel): Promise<string> {
  const { size, mtimeMs } = await stat(kernel);
  return `${architecture}-${size}-${Math.floor(mtimeMs)}`;
}

function memoryFile(context: Context): string {
  return join(context.stateDir, 'vm', 'accel.json');
}

async function readMemory(context: Context, bootId: string): Promise<Memory> {
  const nothing = { bootId, verdicts: {} };
  try {
    const memory = memorySchema.safeParse(JSON.parse(await readFile(memoryFile(context), 'utf8')));
    return memory.success && memory.data.bootId === bootId ? memory.data : nothing;
  } catch {
    return nothing; // it can always be found out anew
  }
}

function remember(context: Context, memory: Memory): Promise<void> {
  return writeFileAtomic(memoryFile(context), `${JSON.stringify(memory, undefined, 2)}\n`);
}

/**
 * Boots the kernel under KVM without a root disk, as this machine's CPU and, where QEMU fails at that (nested virtualisation
 * that lacks some of its registers), as QEMU's plain one. Takes a second or two; at most 12 s.
 */
async function probeKvm(context: Context, kernel: ProbedKernel): Promise<Verdict> {
  const asHost = await probeOnce(context, kernel, 'host');
  if (asHost.works || asHost.guestDied) return asHost;
  const plain = await probeOnce(context, kernel, undefined);
  return plain.works || plain.guestDied ? plain : asHost;
}

async function probeOnce(
  context: Context,
  kernel: ProbedKernel,
  cpu: string | undefined,
): Promise<Verdict & { readonly guestDied?: boolean }> {
  await using scratch = await scratchFolder(join(context.stateDir, 'vm'), '.probe-');
  await using qemu = start(context, 'setpriv', ['--pdeathsig', 'KILL', '--', ...probeArgs(kernel, cpu)], {
    cwd: scratch.path,
    timeoutMs: PROBE_LIMIT_MS + 5000,
    stdio: { stdin: 'ignore', stdout: 'ignore' },
  });
  const outcome = { ended: false, failure: undefined as unknown };
  qemu.ended
    .catch((error: unknown) => {
      outcome.failure = error;
    })
    .finally(() => {
      outcome.ended = true;
    });
  const booted = async () =>
    /Kernel panic|Linux version/.test(await readFile(join(scratch.path, 'console.log'), 'utf8').catch(() => ''));
  const works = { works: true, cpu, reason: 'KVM runs this kernel' };
  try {
    await using qmp = await connectQmp(join(scratch.path, 'qmp.sock'), qemu, 10_000, context.signal);
    const limit = performance.now() + PROBE_LIMIT_MS;
    while (!outcome.ended && performance.now() < limit) {
      if ((await qmp.status()) === 'internal-error') {
        return {
          works: false,
          guestDied: true,
          reason: '/dev/kvm opens, but the guest dies in it (KVM internal error)',
        };
      }
      if (await booted()) return works;
      await sleep(25);
    }
  } catch (error) {
    context.signal.throwIfAborted();
    outcome.failure ??= error;
  }
  if (await booted()) return works;
  return { works: false, reason: explainFailure(outcome.failure) };
}

function explainFailure(failure: unknown): string {
  if (!(failure instanceof ToolError)) return '/dev/kvm opens, but a guest in it hangs';
  const line = failure.stderrTail.trim().split('\n').at(-1) ?? '';
  return line === '' ? failure.message : `QEMU cannot use KVM: ${line.replace(/^\S+: /, '')}`;
}

function probeArgs({ kernel, architecture }: ProbedKernel, cpu: string | undefined): string[] {
  return [
    qemuProgram(architecture),
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-m', '256M', '-smp', '1'],
    ...accelArgs('kvm', architecture, cpu),
    ...['-chardev', 'socket,id=qmp,path=qmp.sock,server=on,wait=off', '-mon', 'chardev=qmp,mode=control'],
    ...['-serial', 'file:console.log'],
    ...['-kernel', kernel, '-append', 'console=ttyS0 earlyprintk=ttyS0 panic=-1'],
  ];
}
