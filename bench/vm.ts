/**
 * `node bench/vm.ts [ROUNDS]`: how soon a machine can be worked in. The plain recipe (QEMU and ssh as anyone would start them),
 * ours to a settled system, an instant clone to a working `run true`, four clones at once; what `vm create` costs; and on one and the
 * same image with a boot loader, autopkgtest's qemu runner beside ours, both to a working `true`. In turns, under the acceleration
 * that this machine has, with the CPU seconds of QEMU. The plain recipe boots a base of `--plain`. The runner is Debian's package
 * autopkgtest. BUILDKIT_TEST_STATE names a state folder whose base is used.
 */
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Context } from '../src/core/context.ts';
import { scratchFolder } from '../src/core/files.ts';
import { silentLog } from '../src/core/log.ts';
import { run, start } from '../src/core/run.ts';
import { chooseAccel } from '../src/vm/accel.ts';
import { type Base, buildBase, removeBase } from '../src/vm/base.ts';
import { buildDisk } from '../src/vm/disk-build.ts';
import { parseTarget } from '../src/vm/disk-target.ts';
import { fetchBase } from '../src/vm/fetch-base.ts';
import { oemString } from '../src/vm/guest.ts';
import { userKey } from '../src/vm/key.ts';
import { createVm, machineStatus, readMachine } from '../src/vm/machine.ts';
import { freePort } from '../src/vm/port.ts';
import { accelArgs, userNet } from '../src/vm/qemu.ts';
import { destroyVm, startVm } from '../src/vm/vm.ts';

const MAC = '52:54:00:00:00:01';

/** What a person would type: an overlay, QEMU, and ssh tried again and again. */
async function plainBoot(context: Context, base: Base, folder: string): Promise<number> {
  await mkdir(folder, { recursive: true });
  const key = await userKey(context);
  const settings = { hostname: 'plain', authorizedKeys: [key.publicKey], nets: [userNet(MAC)], hosts: [] };
  await writeFile(join(folder, 'settings'), oemString(settings));
  const disk = join(folder, 'disk.qcow2');
  await run({}, 'qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', base.disk, disk]);
  const choice = await chooseAccel(context, 'auto', base);
  const port = await freePort();
  await using qemu = start(
    {},
    'qemu-system-x86_64',
    [
      ...accelArgs(choice.accel, 'amd64', choice.cpu),
      ...['-m', '1024M', '-smp', '2', '-display', 'none', '-serial', 'null'],
      ...['-drive', `file=${disk},if=virtio,format=qcow2`, '-smbios', `type=11,path=${join(folder, 'settings')}`],
      ...['-netdev', `user,id=n,hostfwd=tcp:127.0.0.1:${port}-:22`, '-device', `virtio-net-pci,netdev=n,mac=${MAC}`],
      ...['-kernel', base.kernel, '-initrd', base.initrd, '-append', `root=UUID=${base.rootUuid} rw console=ttyS0`],
    ],
    { stdio: { stdin: 'ignore', stdout: 'ignore' } },
  );
  const options = ['-o', 'StrictHostKeyChecking=no', '-o', 'UserKnownHostsFile=/dev/null', '-o', 'ConnectTimeout=5'];
  const ssh = ['-F', 'none', '-i', key.privateKeyFile, '-p', String(port), ...options, 'root@127.0.0.1', 'true'];
  for (;;) {
    const tried = await run({}, 'ssh', ssh, { okExitCodes: [255] });
    if (tried.exitCode === 0) break;
    await sleep(200);
  }
  const cpu = await cpuSeconds(qemu.pid);
  qemu.kill('SIGKILL');
  return cpu;
}

const SHELL_UNIT = `[Service]
ExecStart=/bin/sh
StandardInput=tty-fail
StandardOutput=tty
StandardError=tty
TTYPath=/dev/hvc1
# the device comes late
Restart=always
RestartSec=1
[Unit]
StartLimitIntervalSec=0
`;

/** An image that boots by itself, with the root shell on hvc1 and the 9p that autopkgtest's runner asks of one. */
async function makeImage(context: Context, folder: string): Promise<string> {
  const units = join(folder, 'overlay/etc/systemd/system');
  await mkdir(join(units, 'multi-user.target.wants'), { recursive: true });
  await writeFile(join(units, 'bench-shell.service'), SHELL_UNIT);
  await symlink('../bench-shell.service', join(units, 'multi-user.target.wants/bench-shell.service'));
  const image = join(folder, 'image.qcow2');
  const target = parseTarget(`qcow2:${image}`);
  const request = { suite: 'bookworm', size: '4G', kernelFlavour: 'generic', include: ['python3'] } as const;
  await buildDisk(context, { ...request, overlay: join(folder, 'overlay'), target });
  return image;
}

/** A QEMU for the runner under the acceleration that ours has: it would take any /dev/kvm for one that works. */
async function wrapQemu(folder: string, accel: readonly string[]): Promise<string> {
  const path = join(folder, 'qemu-system-x86_64');
  const script = `#!/bin/sh
skip=
for word do
  shift
  [ -z "$skip" ] || { skip=; continue; }
  case $word in -enable-kvm) continue ;; -cpu) skip=1; continue ;; esac
  set -- "$@" "$word"
done
PATH=/usr/local/bin:/usr/bin:/bin exec qemu-system-x86_64 "$@" ${accel.join(' ')}
`;
  await writeFile(path, script, { mode: 0o755 });
  return path;
}

/** Speaks with the runner as autopkgtest does (README.virtualisation-server). */
async function runnerBoot(image: string, folder: string, qemu: string, settled: () => void): Promise<undefined> {
  const args = ['-c', '2', '--ram-size', '1024', '--timeout-reboot', '1200', '-q', qemu, '-o', folder, image];
  await using runner = start({}, 'autopkgtest-virt-qemu', args);
  const lines = runner.stdout.setEncoding('utf8')[Symbol.asyncIterator]();
  let text = '';
  const answer = async (): Promise<string> => {
    while (!text.includes('\n')) {
      const { value, done } = await lines.next();
      if (done) {
        await runner.ended; // says why
        throw new Error("autopkgtest's runner ended");
      }
      text += value;
    }
    const [line = '', ...rest] = text.split('\n');
    text = rest.join('\n');
    if (!line.startsWith('ok')) throw new Error(`autopkgtest's runner says: ${line}`);
    return line.slice(3);
  };
  await answer();
  runner.stdin.write('open\n');
  await answer();
  runner.stdin.write('print-execute-command\n');
  const [command = ''] = (await answer()).split(' ');
  const [program = '', ...words] = command.split(',').map(decodeURIComponent);
  await run({}, program, [...words, 'true'], { timeoutMs: 600_000 });
  settled();
  runner.stdin.write('quit\n');
  await runner.exitCode;
  return undefined;
}

/** Fields utime and stime of proc(5), in hundredths of a second. */
async function cpuSeconds(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function ours(context: Context, base: Base, instant: boolean, settled: () => void): Promise<number> {
  await using vm = await startVm(context, { base: base.id, instant });
  await vm.must(['true']);
  settled();
  return await cpuSeconds((await machineStatus(context, await readMachine(context, vm.name))).pid ?? 0);
}

/** Seconds until `body` calls its argument. */
async function timed(
  body: (settled: () => void) => Promise<number | undefined>,
): Promise<[seconds: number, cpu: number]> {
  const began = performance.now();
  let seconds = 0;
  const cpu = await body(() => {
    seconds = (performance.now() - began) / 1000;
  });
  return [seconds || (performance.now() - began) / 1000, cpu ?? 0];
}

async function compare(rounds: number): Promise<void> {
  await using scratch = await scratchFolder(tmpdir(), 'bench-vm-');
  const context: Context = {
    env: process.env,
    signal: new AbortController().signal,
    log: silentLog(),
    now: () => new Date(),
    stateDir: process.env.BUILDKIT_TEST_STATE ?? join(scratch.path, 'state'),
    cacheDir: join(scratch.path, 'cache'),
    programDir: join(import.meta.dirname, '..'),
  };
  const plainBase = await buildBase(context, { suite: 'bookworm', profile: 'plain' });
  const base = await buildBase(context, { suite: 'bookworm' });
  await ours(context, base, true, () => {}); // freezes
  const image = await makeImage(context, scratch.path);
  const source = { source: image, cwd: scratch.path, digests: {}, imageDigests: {} };
  const same = await fetchBase(context, { ...source, name: 'bench-image', replace: true });
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => void (await removeBase(context, same.id, [])));
  const choice = await chooseAccel(context, 'auto', base);
  const wrapped = await wrapQemu(scratch.path, accelArgs(choice.accel, 'amd64', choice.cpu).slice(2));
  const results = new Map<string, number[]>();
  const note = async (name: string, body: (settled: () => void) => Promise<number | undefined>) => {
    const [seconds, cpu] = await timed(body);
    results.set(name, [...(results.get(name) ?? []), seconds]);
    console.log(`  ${name}: ${seconds.toFixed(2)} s, ${cpu.toFixed(1)} CPU seconds of QEMU`);
  };
  for (let round = 1; round <= rounds; round += 1) {
    console.log(`round ${round}, load ${(await readFile('/proc/loadavg', 'utf8')).split(' ', 1)[0]}`);
    await note('plain recipe, to ssh', () => plainBoot(context, plainBase, join(scratch.path, `plain${round}`)));
    await note('ours, to a settled system', (settled) => ours(context, base, false, settled));
    await note('instant clone, to run true', (settled) => ours(context, base, true, settled));
    try {
      await note('one image: autopkgtest-virt-qemu, to true', (settled) =>
        runnerBoot(image, scratch.path, wrapped, settled),
      );
    } catch (error) {
      // it gives the shell in the guest one second to answer: too little on a busy machine
      const { message, stderrTail = '' } = error as Error & { stderrTail?: string };
      console.log(`  one image: autopkgtest-virt-qemu failed: ${message} ${stderrTail}`);
    }
    await note('one image: ours, to true', (settled) => ours(context, same, false, settled));
    await note('four instant clones at once', async () => {
      return (await Promise.all([1, 2, 3, 4].map(() => ours(context, base, true, () => {})))).reduce((a, b) => a + b);
    });
    await note('create', async () => {
      await createVm(context, `bench${round}`, { base: base.id });
      return undefined;
    });
    await destroyVm(context, `bench${round}`);
  }
  const median = (values: readonly number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
  const plain = median(results.get('plain recipe, to ssh') ?? []);
  for (const [name, values] of results) {
    console.log(`${name}: median ${median(values).toFixed(2)} s, ${(median(values) / plain).toFixed(2)} of plain`);
  }
  const [theirs, own] = ['autopkgtest-virt-qemu', 'ours'].map((who) =>
    median(results.get(`one image: ${who}, to true`) ?? []),
  );
  console.log(`one image: ours takes ${((own ?? 0) / (theirs || 1)).toFixed(2)} of autopkgtest's runner`);
}

await compare(Number(process.argv[2] ?? 3));
