/** `buildkit vm`: base images and machines. */
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { UsageError } from '../core/errors.ts';
import { formatBytes, formatDuration } from '../core/log.ts';
import type { Base } from '../vm/base.ts';
import { type LaunchOptions, parseCopy, parseForward, parseShare, parseVnc } from '../vm/launch-options.ts';
import type { MachineOptions, MachineStatus } from '../vm/machine.ts';
import type { StartOptions, StopMeans } from '../vm/vm.ts';
import { type Cli, type CommandContext, type Output, table } from './command.ts';
import { addVmDiskCommands } from './vm-disk.ts';
import { addBaseFetch, addBuildOptions, type BuildFlags, buildRequest, buildToTarget } from './vm-fetch.ts';
import { addVmMakeCommands } from './vm-make.ts';
import { addBridgeOptions, addVmNetCommands, type BridgeFlags, networkChoice } from './vm-net.ts';
import { addVmScreenCommands } from './vm-screen.ts';
import { addVmSshConfigCommands } from './vm-ssh-config.ts';
import { addVmTestCommand } from './vm-test.ts';

export function addVmCommands(program: Command, cli: Cli): void {
  const vm = program.command('vm').description('base images and machines');
  addBase(vm.command('base').description('images that machines are clones of'), cli);
  addCreate(vm, cli);
  addVmMakeCommands(vm, cli);
  addStart(vm, cli);
  addStop(vm, cli);
  addLists(vm, cli);
  addInside(vm, cli);
  addVmTestCommand(vm, cli);
  addVmDiskCommands(vm, cli);
  addVmNetCommands(vm, cli);
  addVmSshConfigCommands(vm, cli);
  addVmScreenCommands(vm, cli);
}

/** `-m`, `-c`, `--accel`, as every row that boots a machine takes them. */
export function addSizeOptions(command: Command): Command {
  return command
    .option('-m, --memory <size>', 'for example 512M or 2G; default: vm.memory of buildkit.yaml')
    .option('-c, --cpus <count>', 'default: vm.cpus of buildkit.yaml', count)
    .addOption(new Option('--accel <kind>', 'default: vm.accel of buildkit.yaml').choices(['auto', 'kvm', 'tcg']));
}

function addBase(base: Command, cli: Cli): void {
  addBaseFetch(base, cli);
  addBuildOptions(base.command('build'))
    .description('build a base image with mmdebstrap, once; a second call finds it')
    .option('--suite <codename>', 'default: suite of buildkit.yaml')
    .option('--size <size>', 'of the virtual disk; default: vm.base.size of buildkit.yaml')
    .option('--include <packages...>', 'Debian packages beside the minimum')
    .option('--mirror <url>', "default: the mirrors in this machine's apt configuration")
    .option(
      '--plain',
      'boot as Debian does; default: masked timers, gettys and others, an initrd of its own: twice as fast',
    )
    .addOption(
      new Option('--kernel <flavour>', 'generic has all drivers, and 9p for vm start --share (default: cloud)').choices(
        ['cloud', 'generic'],
      ),
    )
    .option('--force', 'build anew even if there is one')
    .action(
      cli.action(async (cx, flags: BuildFlags) => {
        const { suite, vm, proxy: config } = await cx.config();
        const { useProxy } = await import('../release/proxy-use.ts');
        await using proxy = await useProxy(cx, { wanted: flags.proxy, workspaceDir: cx.workspaceDir, config });
        const { target, ...options } = buildRequest(cx, { ...flags, proxy: proxy?.url });
        if (target !== undefined) return await buildToTarget(cx, { suite, ...vm.base, ...options, target }, flags);
        const { buildBase } = await import('../vm/base.ts');
        const made = await buildBase(cx, { suite, ...vm.base, ...options });
        return { data: made, text: `${made.reused ? 'there already' : 'built'}: ${made.id} (${describeBase(made)})` };
      }),
    );
  base
    .command('list')
    .description('base images, oldest first')
    .action(
      cli.action(async (cx) => {
        const { listBases } = await import('../vm/base.ts');
        const found = await listBases(cx);
        return { data: found, text: table(found.map((one) => [one.id, describeBase(one)])) };
      }),
    );
  base
    .command('show <base>')
    .description('all that is known of a base: by its id, or the newest of a suite')
    .action(
      cli.action(async (cx, id: string) => {
        const { findBase } = await import('../vm/base.ts');
        const found = await findBase(cx, id);
        return { data: found, text: table(Object.entries(found).map(([key, value]) => [key, String(value)])) };
      }),
    );
  base
    .command('remove <base>')
    .description('remove a base that no machine needs')
    .action(
      cli.action(async (cx, id: string) => {
        const { findBase, removeBase } = await import('../vm/base.ts');
        const { listVms } = await import('../vm/machine.ts');
        const base = await findBase(cx, id);
        const users = (await listVms(cx)).filter((one) => one.base === base.id).map((one) => one.name);
        const removed = await removeBase(cx, base.id, users);
        return { data: removed, text: `removed: ${removed.id}` };
      }),
    );
}

function describeBase(base: Base): string {
  if (base.source !== undefined) return `from ${base.source}, ${base.suite || 'unknown suite'} ${base.architecture}`;
  const { suite, architecture, kernelRelease, created } = base;
  return `${suite} ${architecture}, Linux ${kernelRelease}, ${formatBytes(base.size)}, built ${created.slice(0, 16)}Z`;
}

interface CreateFlags extends Omit<MachineOptions, 'directory'> {
  readonly directory?: string;
  readonly add?: readonly string[];
  readonly kernel?: 'cloud' | 'generic';
  readonly instant?: boolean;
  readonly proxy?: string;
}

function addCreate(vm: Command, cli: Cli): void {
  addSizeOptions(
    vm
      .command('create <name-or-number>')
      .description('make a machine: a clone of a base; number 10 is called buildkit10')
      .option('--name <name>', 'of a machine with a number')
      .option('--instant', 'its first start goes on from a frozen machine instead of booting, on a bridge too')
      .option('--base <base>', 'id or suite; default: suite of buildkit.yaml')
      .option('-o, --directory <dir>', 'make its folder there (DIR/NAME) instead of in the state folder')
      .option('--add <package>', 'a base with that Debian package, built when there is none; may be repeated', collect)
      .addOption(
        new Option('--kernel <flavour>', 'of the base that --add builds; generic has 9p, for start --share').choices([
          'cloud',
          'generic',
        ]),
      )
      .option('--raw', 'a whole raw copy of the base as its disk instead of an overlay')
      .option(
        '--proxy <url>',
        "apt proxy of the machine, direct while it is down; on a bridge it must listen on the bridge's address; 'auto': one that runs, else where proxy serve would listen",
      ),
  ).action(
    cli.action(async (cx, nameOrNumber: string, flags: CreateFlags) => {
      const { instant, proxy: wanted, add, kernel: _kernel, directory: place, ...options } = flags;
      const { suite, vm, proxy: config } = await cx.config();
      const { proxyForGuest } = await import('../release/proxy-use.ts');
      const files = await proxyForGuest(cx, { wanted, workspaceDir: cx.workspaceDir, config });
      const { createVm, machineDir } = await import('../vm/machine.ts');
      const { createInstantVm } = await import('../vm/vm.ts');
      const create = instant ? createInstantVm : createVm;
      const { memory, cpus, accel } = vm;
      const base = add === undefined ? suite : await baseWith(cx, add, flags);
      const directory = place && resolve(cx.cwd, place);
      const wishes = { memory, cpus, accel, files, ...options, directory };
      const made = await create(cx, nameOrNumber, { base, ...wishes, ...(add ? { base } : {}) });
      const dir = machineDir(cx, made.name);
      return { data: { ...made, dir }, text: `created: ${made.name} (base ${made.base.id}, ${dir})` };
    }),
  );
}

/** Id of the base with these packages too; found again by its recipe. @throws UsageError */
async function baseWith(cx: CommandContext, add: readonly string[], flags: CreateFlags): Promise<string> {
  const { suite: usual, vm, proxy: config } = await cx.config();
  const suite = flags.base ?? usual;
  if (suite.includes('-')) {
    throw new UsageError(`'${suite}' is a base that is there: no package can be added to it`, {
      hint: 'name a suite with --base, or leave --add out',
    });
  }
  const { useProxy } = await import('../release/proxy-use.ts');
  const { buildBase } = await import('../vm/base.ts');
  await using proxy = await useProxy(cx, { wanted: flags.proxy, workspaceDir: cx.workspaceDir, config });
  const include = [...vm.base.include, ...add];
  const { kernel: kernelFlavour } = flags;
  return (await buildBase(cx, { suite, ...vm.base, include, kernelFlavour, proxy: proxy?.url })).id;
}

interface StartFlags extends BridgeFlags {
  readonly memory?: string;
  readonly cpus?: number;
  readonly accel?: 'auto' | 'kvm' | 'tcg';
  readonly port?: LaunchOptions['forwards'];
  readonly snapshot?: boolean;
  readonly vnc?: string;
  readonly graphics?: boolean;
  readonly share?: readonly string[];
  readonly copyFile?: readonly string[];
  readonly execOnBoot?: readonly string[];
  readonly waitMessage?: string;
}

function addStart(vm: Command, cli: Cli): void {
  const row = (name: string, description: string) =>
    addSizeOptions(
      addBridgeOptions(
        vm
          .command(`${name} <name> [qemu-args...]`)
          .description(description)
          .option(
            '-p, --port <[tcp|udp:]host:guest>',
            'lead a port of 127.0.0.1 into the machine; may be repeated',
            forward,
          )
          .option('--snapshot', 'forget all that is written when the machine stops')
          .option('--vnc <addr:number>', 'show its screen by VNC, for example 127.0.0.1:1', parseVnc)
          .option('--graphics', 'give it a screen, for vm screenshot')
          .option(
            '--share <dir:tag[:rw]>',
            'lend it a folder, read only unless rw, at /mnt/TAG; may be repeated',
            collect,
          )
          .option('--copy-file <src:dst>', 'copy a file or folder in when it is ready; may be repeated', collect)
          .option('--exec-on-boot <command>', 'run by sh inside when it is ready; may be repeated', collect)
          .option('--wait-message <text>', 'wait until its console has said that')
          .addHelpText('after', START_HELP),
      ),
    );
  row('start', 'boot a machine and wait until it is ready; it goes on when this command ends').action(
    cli.action((cx, name: string, qemuArgs: string[], flags: StartFlags) => start(cx, name, qemuArgs, flags)),
  );
  row('restart', 'stop a machine, then start it').action(
    cli.action(async (cx, name: string, qemuArgs: string[], flags: StartFlags) => {
      const { stopVm } = await import('../vm/vm.ts');
      cx.log.info(stopText(name, await stopVm(cx, name)));
      return start(cx, name, qemuArgs, flags);
    }),
  );
}

const START_HELP = `
Words after -- go to QEMU as they are. From the environment, as NixOS's run-HOST-vm scripts read it:
  QEMU_OPTS           more words for QEMU
  QEMU_NET_OPTS       more for -netdev user, hostfwd=tcp::8080-:80 for example
  QEMU_KERNEL_PARAMS  more for the kernel's command line
  SHARED_DIR          a folder for /tmp/shared of the machine, to read and write
A machine that stands still since its disk found no room here is told to go on.`;

async function start(cx: CommandContext, name: string, qemuArgs: string[], flags: StartFlags): Promise<Output> {
  const { bootVm } = await import('../vm/vm.ts');
  const { port, memory, cpus, accel: wanted, snapshot, vnc, graphics, execOnBoot, waitMessage } = flags;
  const at = (path: string) => resolve(cx.cwd, path);
  const network = await networkChoice(cx, flags);
  const options: StartOptions = {
    ...{ memory, cpus, accel: wanted, snapshot, network },
    ...{ vnc, graphics, execOnBoot, waitMessage, forwards: port, qemuOptions: qemuArgs },
    shares: flags.share?.map((one) => parseShare(one, at)),
    copyFiles: flags.copyFile?.map((one) => parseCopy(one, at)),
  };
  await using vm = await bootVm(cx, name, options);
  const { sshHost, sshPort, accel, bootMs, consoleLog } = vm;
  const facts = { name: vm.name, sshHost, sshPort, accel, bootMs: Math.round(bootMs), consoleLog };
  const text = `${vm.name} is ready after ${formatDuration(bootMs)} (${accel}), ssh on ${sshHost}:${sshPort}\nenter it: buildkit vm ssh ${vm.name}`;
  return { data: facts, text };
}

function addStop(vm: Command, cli: Cli): void {
  vm.command('stop <name>')
    .description('power the machine down; after a while quit QEMU, then kill it')
    .option('--timeout <seconds>', 'for the guest to shut down', count, 60)
    .action(
      cli.action(async (cx, name: string, { timeout }: { timeout: number }) => {
        const { stopVm } = await import('../vm/vm.ts');
        const means = await stopVm(cx, name, timeout * 1000);
        return { data: { name, means }, text: stopText(name, means) };
      }),
    );
  vm.command('destroy <names...>')
    .description('end machines at once and remove all that they had')
    .action(
      cli.action(async (cx, names: string[]) => {
        const { destroyVm } = await import('../vm/vm.ts');
        for (const name of names) await destroyVm(cx, name);
        return { data: names, text: names.map((name) => `destroyed: ${name}`).join('\n') };
      }),
    );
  vm.command('gc')
    .description(
      'remove what dead processes left (throw-away machines, half-made ones) and what failed base builds kept',
    )
    .action(
      cli.action(async (cx) => {
        const { collectGarbage } = await import('../vm/vm.ts');
        const { collectBaseGarbage } = await import('../vm/base.ts');
        const removed = [...(await collectGarbage(cx)), ...(await collectBaseGarbage(cx))];
        return { data: removed, text: removed.length === 0 ? 'nothing to remove' : `removed: ${removed.join(', ')}` };
      }),
    );
}

function stopText(name: string, means: StopMeans): string {
  const texts: Record<StopMeans, string> = {
    'not-running': `${name} did not run`,
    'power-down': `${name} is stopped (it shut down)`,
    quit: `${name} is stopped (it did not shut down in time: QEMU was told to quit)`,
    kill: `${name} is stopped (QEMU did not answer and was killed)`,
  };
  return texts[means];
}

function addLists(vm: Command, cli: Cli): void {
  vm.command('list')
    .description('machines and what is true of them now: running, stopped, dead, paused (no room for their disk, say)')
    .action(
      cli.action(async (cx) => {
        const { listVms } = await import('../vm/machine.ts');
        const found = await Promise.all((await listVms(cx)).map(withStandstill));
        return { data: found, text: table(found.map(listRow)) };
      }),
    );
  vm.command('status <name>')
    .description('one machine; exit 0 when it runs, 1 when it does not')
    .action(
      cli.action(async (cx, name: string) => {
        const { machineStatus, readMachine } = await import('../vm/machine.ts');
        const status = await withStandstill(await machineStatus(cx, await readMachine(cx, name)));
        const lines = Object.entries(status).filter(([, value]) => value !== undefined);
        return {
          data: status,
          text: table(lines.map(([key, value]) => [key, String(value)])),
          exitCode: status.state === 'running' ? 0 : 1,
        };
      }),
    );
}

/** Says of a running machine why its guest does not run, where that is so. */
async function withStandstill(one: MachineStatus): Promise<MachineStatus & { readonly paused?: string }> {
  if (one.state !== 'running') return one;
  const { findStandstill } = await import('../vm/standstill.ts');
  const paused = await findStandstill(one.dir);
  return paused === undefined ? one : { ...one, paused };
}

function listRow(one: MachineStatus & { readonly paused?: string }): string[] {
  const where = one.sshPort === undefined ? '' : `ssh ${one.sshHost}:${one.sshPort}, ${one.accel}, process ${one.pid}`;
  const state = one.paused === undefined ? one.state : `paused: ${one.paused}`;
  return [one.name, state, one.base, `${one.memoryMiB}M ${one.cpus} CPU`, one.throwAway ? 'throw-away' : '', where];
}

function addInside(vm: Command, cli: Cli): void {
  vm.command('ssh <name> [command...]')
    .description('log in; a command is for the shell of the machine')
    .action(
      cli.action(async (cx, name: string, command: string[]) => {
        const { sshArgs } = await import('../vm/vm.ts');
        const { runInteractive } = await import('../core/run.ts');
        const exitCode = await runInteractive(cx, 'ssh', await sshArgs(cx, name, command));
        return { data: { exitCode }, text: '', exitCode };
      }),
    );
  vm.command('run <name> <command...>')
    .description('run a program in the machine (after --); input, output, signals and exit code are passed on')
    .option('--timeout <seconds>', 'kill it then', count)
    .action(cli.action((cx, name: string, command: string[], flags: RunFlags) => runInside(cx, name, command, flags)));
  vm.command('put <name> <local> <remote>')
    .description('copy a file, or the content of a folder, into the machine, with modes')
    .action(
      cli.action(async (cx, name: string, local: string, remote: string) => {
        const { openVm } = await import('../vm/vm.ts');
        const { putTree } = await import('../vm/transfer.ts');
        await using machine = await openVm(cx, name);
        await putTree(cx, machine, resolve(cx.cwd, local), remote);
        return { data: { name, local, remote }, text: '' };
      }),
    );
  vm.command('get <name> <remote> <local>')
    .description('copy a file, or the content of a folder, out of the machine, with modes')
    .action(
      cli.action(async (cx, name: string, remote: string, local: string) => {
        const { openVm } = await import('../vm/vm.ts');
        const { getTree } = await import('../vm/transfer.ts');
        await using machine = await openVm(cx, name);
        await getTree(cx, machine, remote, local.endsWith('/') ? `${resolve(cx.cwd, local)}/` : resolve(cx.cwd, local));
        return { data: { name, remote, local }, text: '' };
      }),
    );
}

interface RunFlags {
  readonly timeout?: number;
}

async function runInside(cx: CommandContext, name: string, command: string[], flags: RunFlags): Promise<Output> {
  const { openVm } = await import('../vm/vm.ts');
  await using machine = await openVm(cx, name);
  const { exitCode, stdout, stderr } = await machine.run(command, {
    mark: crypto.randomUUID(),
    timeoutMs: flags.timeout === undefined ? undefined : flags.timeout * 1000,
    discard: !cx.json,
    stdin: process.stdin.isTTY ? undefined : process.stdin,
    onOutput: (chunk, stream) => {
      if (cx.json) return;
      if (stream === 'stdout') cx.writeOut(chunk);
      else process.stderr.write(chunk);
    },
  });
  process.stdin.unpipe().pause(); // a pipe that nobody closes would keep this process
  return { data: { exitCode, stdout, stderr }, text: '', exitCode, passedOn: true };
}

function count(value: string): number {
  if (!/^\d{1,6}$/.test(value)) throw new UsageError(`'${value}' is no number`);
  return Number(value);
}

function forward(value: string, former: NonNullable<LaunchOptions['forwards']> = []): LaunchOptions['forwards'] {
  return [...former, parseForward(value)];
}

function collect(value: string, former: readonly string[] = []): string[] {
  return [...former, value];
}
