/** Machines for real: a base image built once, clones of it booted, killed, found dead, removed. */
import { access, chmod, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Context } from '../../src/core/context.ts';
import { type RunOptions, run, start } from '../../src/core/run.ts';
import { bootVm, collectGarbage, createVm, destroyVm, listVms, openVm, startVm, stopVm } from '../../src/index.ts';
import { chooseAccel } from '../../src/vm/accel.ts';
import { type Base, buildBase, listBases } from '../../src/vm/base.ts';
import { machineDir } from '../../src/vm/machine.ts';
import { freePort } from '../../src/vm/port.ts';
import { accelArgs } from '../../src/vm/qemu.ts';
import { Ssh } from '../../src/vm/ssh.ts';
import { getTree, putTree } from '../../src/vm/transfer.ts';
import { createVmWorld, type VmWorld } from '../support/vm-world.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const MINUTES = 60_000;

let world: VmWorld;
let context: Context;
let folder: string;
let base: Base;

beforeAll(async () => {
  // a deep folder: sockets must work there too
  world = await createVmWorld(join('state', 'd'.repeat(100)));
  ({ context, folder, base } = world);
}, 20 * MINUTES);

afterAll(() => world?.[Symbol.asyncDispose]());

/** The program as a user runs it. */
function buildkit(...args: string[]) {
  return buildkitWith({}, ...args);
}

function buildkitWith(options: RunOptions, ...args: string[]) {
  return run({}, join(ROOT, 'bin/buildkit'), ['--state', context.stateDir, ...args], {
    cwd: folder,
    okExitCodes: [1, 2, 3, 4, 7, 70],
    timeoutMs: 20 * MINUTES,
    ...options,
  });
}

/** The program under way, with all that it has printed so far. */
function underWay(...args: string[]) {
  const program = start({}, join(ROOT, 'bin/buildkit'), ['--state', context.stateDir, ...args], { cwd: folder });
  const output = { text: '' };
  program.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    output.text += chunk;
  });
  const says = (text: string) => expect.poll(() => output.text, { timeout: 2 * MINUTES }).toContain(text);
  return { program, output, says };
}

/** Boots an image by its own boot loader from an NVMe disk, with a card that it was never told of, and asks it something. */
async function askOnNvme(image: string, question: string): Promise<string> {
  const [choice, port] = [await chooseAccel(context, 'auto', base), await freePort()];
  await using qemu = start({}, 'qemu-system-x86_64', [
    ...['-nodefaults', '-no-user-config', '-display', 'none', ...accelArgs(choice.accel, 'amd64', choice.cpu)],
    ...['-m', '512M', '-smp', '2', '-drive', `if=none,id=disk,file=${image},format=raw,snapshot=on`],
    ...['-device', 'nvme,drive=disk,serial=vol1', '-serial', `file:${image}.console`],
    ...['-netdev', `user,id=n,hostfwd=tcp:127.0.0.1:${port}-:22`, '-device', 'virtio-net-pci,netdev=n,romfile='],
  ]);
  const privateKey = await readFile(join(context.stateDir, 'vm/key/id_ed25519'), 'utf8');
  const gone = qemu.exitCode.then((code) => Promise.reject(new Error(`QEMU ended with ${code}`)));
  gone.catch(() => {});
  for (;;) {
    const target = { host: '127.0.0.1', port, user: 'root', privateKey };
    const ssh = await Promise.race([Ssh.connect(target, 60_000).catch(() => undefined), gone]);
    if (ssh === undefined) {
      await sleep(500);
      continue;
    }
    const { stdout } = await ssh.exec(['sh', '-c', question]);
    ssh[Symbol.dispose]();
    return stdout;
  }
}

async function names(): Promise<string[]> {
  return (await listVms(context)).map((one) => `${one.name} ${one.state}`);
}

describe('a base image', () => {
  it('is built once, found again, and holds no identity', async () => {
    const again = await buildBase(context, { suite: 'bookworm' });
    expect(again).toMatchObject({ id: base.id, sha256: base.sha256, reused: true });
    expect((await listBases(context)).filter((one) => one.id === base.id)).toHaveLength(1);
    const raw = join(folder, 'base.raw');
    await run({}, 'qemu-img', ['convert', '-O', 'raw', base.disk, raw]);
    const inside = async (command: string) => (await run({}, 'debugfs', ['-R', command, raw])).stdout;
    expect(await inside('cat /etc/machine-id')).toBe('');
    expect(await inside('ls /etc/ssh')).not.toContain('ssh_host');
    expect(await inside('ls /usr/sbin')).not.toContain('policy-rc.d');
    expect(await inside('ls /var/log')).not.toMatch(/\.log/);
    expect(await inside('stat /usr/bin/dpkg')).toMatch(/User:\s+0\s+Group:\s+0/);
    await rm(raw);
  });

  it('leaves nothing when a build fails, but its log', async () => {
    const before = await listBases(context);
    await expect(buildBase(context, { suite: 'bookworm', mirror: 'http://127.0.0.1:9/debian' })).rejects.toMatchObject({
      code: 'base-stage-failed',
      logFile: expect.stringMatching(/bookworm-\w+\.log$/),
    });
    expect(await listBases(context)).toEqual(before);
    const { stdout } = await run({}, 'find', [join(context.stateDir, 'vm/bases'), '-name', '.building-*']);
    expect(stdout).toBe('');
  });
});

describe('acceleration', () => {
  it('is settled within seconds by booting the kernel, and remembered for this boot', async () => {
    const began = performance.now();
    const first = await chooseAccel(context, 'auto', base);
    expect(performance.now() - began).toBeLessThan(20_000);
    const again = performance.now();
    const second = await chooseAccel(context, 'auto', base);
    expect(performance.now() - again).toBeLessThan(1000);
    expect(second.accel).toBe(first.accel);
    expect(second.reason).not.toBe('');
  });
});

describe('a throw-away machine', () => {
  it('is a clean Debian of its own, and vanishes', { timeout: 10 * MINUTES }, async () => {
    let dir = '';
    {
      await using vm = await startVm(context, { memory: '768M' });
      dir = vm.dir;
      const out: string[] = [];
      const result = await vm.run(['sh', '-c', 'echo "$0 $1"; echo err >&2; exit 7', 'a b', '$HOME'], {
        onOutput: (chunk, stream) => out.push(`${stream}: ${chunk}`),
      });
      expect(result).toEqual({ exitCode: 7, stdout: 'a b $HOME\n', stderr: 'err\n' });
      expect(out.sort()).toEqual(['stderr: err\n', 'stdout: a b $HOME\n']);
      expect((await vm.run(['sh', '-c', 'kill -TERM $$'])).exitCode).toBe(143);
      await expect(vm.run(['sleep', '60'], { timeoutMs: 500 })).rejects.toMatchObject({ code: 'guest-timeout' });

      expect((await vm.must(['cat', '/etc/hostname'])).stdout).toBe(`${vm.name}\n`);
      expect((await vm.must(['cat', '/etc/machine-id'])).stdout).toMatch(/^[0-9a-f]{32}\n$/);
      expect((await vm.must(['getent', 'hosts', 'host.buildkit'])).stdout).toContain('10.0.2.2');
      expect((await vm.run(['systemctl', 'is-system-running'])).stdout).toBe('running\n');

      const local = join(folder, 'file');
      await writeFile(local, Buffer.from([0, 1, 2, 255]));
      await chmod(local, 0o750);
      await vm.put(local, '/root/file');
      await vm.get('/root/file', join(folder, 'back'));
      expect(await readFile(join(folder, 'back'))).toEqual(Buffer.from([0, 1, 2, 255]));
      expect((await vm.must(['stat', '-c', '%a', '/root/file'])).stdout).toBe('750\n');
      await expect(vm.must(['cat', '/nowhere'])).rejects.toMatchObject({ code: 'guest-command-failed' });

      const tree = join(folder, 'tree');
      await mkdir(join(tree, 'sub dir'), { recursive: true });
      await writeFile(join(tree, 'sub dir/x'), 'x', { mode: 0o600 });
      await symlink('sub dir/x', join(tree, 'link'));
      await putTree(context, vm, tree, '/root/tree');
      await getTree(context, vm, '/root/tree', join(folder, 'tree-back'));
      const listed = await vm.must(['sh', '-c', 'cd /root/tree && find . -printf "%P %y %m %l\\n" | sort']);
      expect(listed.stdout).toMatch(/^link l 777 sub dir\/x$/m);
      expect(listed.stdout).toMatch(/^sub dir\/x f 600 $/m);
      expect(await readFile(join(folder, 'tree-back/link'), 'utf8')).toBe('x');

      const privateKey = await readFile(join(context.stateDir, 'vm/key/id_ed25519'), 'utf8');
      const target = { host: '127.0.0.1', port: vm.sshPort, user: 'root', privateKey };
      const foreign = (await readFile(join(context.stateDir, 'vm/key/id_ed25519.pub'), 'utf8')).trim();
      await expect(Ssh.connect({ ...target, hostKey: foreign }, 20_000)).rejects.toThrow(/verification/);

      expect(await names()).toContain(`${vm.name} running`);
    }
    await expect(access(dir)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('ends the waiting at once when its kernel panics, with the end of the console', {
    timeout: 5 * MINUTES,
  }, async () => {
    const lost = startVm(context, { name: 'panics', kernelParameters: ['init=/bin/false'], memory: '512M' });
    await expect(lost).rejects.toMatchObject({
      code: 'vm-lost',
      message: expect.stringContaining('the kernel of the guest panicked'),
      stderrTail: expect.stringContaining('Kernel panic'),
      logFile: expect.stringContaining('panics.log'),
    });
    expect(await names()).not.toContainEqual(expect.stringContaining('panics'));
  });

  it('dies with the process that it belongs to', { timeout: 5 * MINUTES }, async () => {
    const owner = start({}, process.execPath, [
      fileURLToPath(import.meta.resolve('../support/vm-owner.ts')),
      context.stateDir,
      'owned',
    ]);
    await new Promise((resolve) => owner.stdout.once('data', resolve));
    process.kill(owner.pid, 'SIGKILL');
    await owner.exitCode;
    await expect.poll(names, { timeout: 10_000 }).toContain('owned dead');
    expect(await collectGarbage(context)).toContain('owned');
    expect(await names()).not.toContain('owned dead');
  });
});

describe('machines of the list', () => {
  it('of two creations of one number one wins, and the other says who', async () => {
    const results = await Promise.all([buildkit('vm', 'create', '20'), buildkit('vm', 'create', '20')]);
    expect(results.map((one) => one.exitCode).sort()).toEqual([0, 1]);
    const loser = results.find((one) => one.exitCode === 1);
    expect(loser?.stderr).toMatch(/there is a machine 'buildkit20' already \(made .* by \w+, process \d+\)/);
    await expect(createVm(context, 20, { name: 'other' })).rejects.toMatchObject({ code: 'vm-number-taken' });
    await destroyVm(context, '20');
  });

  it('refuse a base that is not the one their disk was made for', async () => {
    await createVm(context, 'stale');
    const file = join(machineDir(context, 'stale'), 'machine.json');
    await writeFile(file, (await readFile(file, 'utf8')).replace(base.sha256, '0'.repeat(64)));
    await expect(bootVm(context, 'stale')).rejects.toMatchObject({ code: 'base-changed' });
    const removal = await buildkit('vm', 'base', 'remove', base.id);
    expect(removal.exitCode).toBe(1);
    expect(removal.stderr).toContain('stale');
    await destroyVm(context, 'stale');
  });

  it('two at once outlive the command, pass exit codes on, are found dead after kill -9 and removed', {
    timeout: 15 * MINUTES,
  }, async () => {
    await createVm(context, 10, { memory: '512M' });
    await run({}, 'ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(folder, 'id_web')]);
    const definition = {
      ...{ name: 'web', base: base.id, memory: '512M', cpus: 1, 'disk-interface': 'scsi', netdev: ['user,id=net9'] },
      ssh: { user: 'admin', key: 'id_web', host: '127.0.0.2' },
    };
    await writeFile(join(folder, 'web.yaml'), JSON.stringify(definition));
    expect(await buildkit('vm', 'define', 'web.yaml')).toMatchObject({ exitCode: 0 });
    const started = await Promise.all([buildkit('vm', 'start', '10'), buildkit('vm', 'start', 'web', '--json')]);
    for (const one of started) expect(one).toMatchObject({ exitCode: 0 });
    expect(await names()).toEqual(['buildkit10 running', 'web running']);
    expect((await buildkit('vm', 'start', 'web')).stderr).toContain("machine 'web' runs already");

    const inside = await buildkit('vm', 'run', 'web', '--', 'sh', '-c', 'hostname; echo err >&2; exit 7');
    expect(inside).toEqual({ exitCode: 7, stdout: 'web\n', stderr: 'err\n' });
    expect(JSON.parse(started[1]!.stdout)).toMatchObject({ sshHost: '127.0.0.2' });
    const defined = await buildkit(
      'vm',
      'run',
      'web',
      '--',
      'sh',
      '-c',
      'id -un; nproc; ls /sys/class/net; ls /dev/sda',
    );
    expect(defined.stdout).toMatch(/^admin\n1\neth0\neth1\nlo\n\/dev\/sda\n$/);
    const login = await buildkit('vm', 'ssh', '10', '--', 'hostname');
    expect(login).toMatchObject({ exitCode: 0, stdout: 'buildkit10\n' });
    const ids = await Promise.all(
      ['10', 'web'].map(async (name) => {
        await using vm = await openVm(context, name);
        return (await vm.must(['cat', '/etc/machine-id'])).stdout;
      }),
    );
    expect(new Set(ids).size).toBe(2);

    const pid = (await listVms(context)).find((one) => one.number === 10)?.pid;
    process.kill(pid!, 'SIGKILL');
    await expect.poll(names, { timeout: 10_000 }).toEqual(['buildkit10 dead', 'web running']);
    expect((await buildkit('vm', 'list')).stdout).toMatch(/^buildkit10 +dead/m);
    expect(await buildkit('vm', 'run', '10', '--', 'true')).toMatchObject({ exitCode: 1 });
    expect(await buildkit('vm', 'destroy', '10')).toMatchObject({ exitCode: 0 });

    expect(await stopVm(context, 'web', 5 * MINUTES)).toBe('power-down');
    expect(await names()).toEqual(['web stopped']);
  });

  it('are exported for EC2: the image boots by itself, from NVMe, with an identity of its own', {
    timeout: 15 * MINUTES,
  }, async () => {
    const image = join(folder, 'web.raw');
    const exported = await buildkit('vm', 'export', 'web', '--ami', image, '--bucket', 'images', '--json');
    const { files } = JSON.parse(exported.stdout);
    expect(files).toEqual([image, `${image}.import-snapshot.json`, `${image}.register-image.json`]);
    const container = JSON.parse(await readFile(files[1], 'utf8')).DiskContainer;
    expect(container).toMatchObject({ Format: 'RAW', UserBucket: { S3Bucket: 'images', S3Key: 'web.raw' } });
    expect(JSON.parse(await readFile(files[2], 'utf8'))).toMatchObject({
      ...{ Name: 'web', Architecture: 'x86_64', VirtualizationType: 'hvm', EnaSupport: true, BootMode: 'legacy-bios' },
      BlockDeviceMappings: [{ DeviceName: '/dev/xvda', Ebs: { SnapshotId: 'SNAPSHOT' } }],
    });
    const hostKey = await readFile(join(machineDir(context, 'web'), 'hostkey.pub'), 'utf8');
    const facts = await askOnNvme(
      image,
      'findmnt -no SOURCE /; hostname; /sbin/modinfo -n ena; cat /etc/ssh/ssh_host_ed25519_key.pub /proc/cmdline; systemctl is-system-running --wait',
    );
    expect(facts).toMatch(/^\/dev\/nvme0n1p2\nweb\n\/lib\/modules\/\S+\/ena\.ko\n/);
    expect(facts).not.toContain(hostKey.split(' ')[1]);
    expect(facts).toContain(`root=UUID=${base.rootUuid} ro console=tty0 console=ttyS0,115200n8`);
    expect(facts).toMatch(/\nrunning\n$/);
    const again = await buildkit('vm', 'export', 'web', '--ami', image);
    expect(again).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('is there already') });
    await destroyVm(context, 'web');
    expect(await names()).toEqual([]);
  });
});

describe('a machine with all drivers', () => {
  it('has what creation, start and environment said; its console, screen and programs are within reach', {
    timeout: 40 * MINUTES,
  }, async () => {
    for (const name of ['ro', 'rw', 'lent']) await mkdir(join(folder, name));
    for (const name of ['ro/file', 'lent/file', 'copied']) await writeFile(join(folder, name), `from ${name}\n`);
    const size = ['-m', '512M'];
    const made = await buildkit('vm', 'create', 'full', '--kernel', 'generic', '--add', 'tree', ...size, '--json');
    expect(made.exitCode).toBe(0);
    const disk = join(machineDir(context, 'full'), 'disk.qcow2');
    const before = await readFile(disk);
    const env = {
      QEMU_OPTS: '-device virtio-balloon-pci',
      QEMU_NET_OPTS: 'hostfwd=tcp:127.0.0.1:0-:8088',
      QEMU_KERNEL_PARAMS: 'buildkit.mark=7 buildkit.more',
      SHARED_DIR: join(folder, 'lent'),
    };
    const began = await buildkitWith(
      { env },
      ...['vm', 'start', 'full', '--snapshot', '--graphics', '--share', 'ro:data', '--share', 'rw:work:rw'],
      ...['--copy-file', 'copied:/root/copied', '--exec-on-boot', 'cat /root/copied >/root/booted'],
      ...['--', '-device', 'virtio-keyboard-pci'],
    );
    expect(began).toMatchObject({ exitCode: 0 });
    const inside = async (script: string) => (await buildkit('vm', 'run', 'full', '--', 'sh', '-c', script)).stdout;
    const facts = await inside(`cat /mnt/data/file; touch /mnt/data/new 2>/dev/null && echo written
      cat /tmp/shared/file /root/booted; echo answer >/mnt/work/file; tree --version | cut -c-4
      grep -o 'buildkit.mark=7 buildkit.more' /proc/cmdline; sort -u /sys/bus/virtio/devices/*/device | tr '\\n' ' '`);
    const lines = facts.split('\n');
    expect(lines.slice(0, 3)).toEqual(['from ro/file', 'from lent/file', 'from copied']);
    expect(lines.slice(3, 5)).toEqual(['tree', 'buildkit.mark=7 buildkit.more']);
    expect(lines[5]).toMatch(/0x0005.*0x0012/); // balloon and keyboard
    expect(await readFile(join(folder, 'rw/file'), 'utf8')).toBe('answer\n');
    const { pid } = JSON.parse((await buildkit('vm', 'status', 'full', '--json')).stdout);
    expect(await readFile(`/proc/${pid}/cmdline`, 'utf8')).toContain(',hostfwd=tcp:127.0.0.1:0-:8088\0');

    const words = ['vm', 'run', 'full', '--', 'sh', '-c'];
    const fed = await buildkitWith({ input: 'through\n' }, ...words, 'cat; exit 3');
    expect(fed).toMatchObject({ stdout: 'through\n', exitCode: 3 });
    const stopped = underWay(...words, 'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.2; done');
    await stopped.says('ready');
    process.kill(stopped.program.pid, 'SIGINT');
    expect(await stopped.program.exitCode).toBe(9);
    expect(stopped.output.text).toBe('ready\ncaught\n');

    await inside(`stty raw -echo </dev/ttyS0
      setsid sh -c 'head -c 6 </dev/ttyS0 >/root/typed; printf "before \\033]0;title\\007\\033[31mred\\033[0m after\\n" >/dev/ttyS0' >/dev/null 2>&1 </dev/null &`);
    const console = underWay('vm', 'console', 'full');
    console.program.stdin.write('hello\n');
    await console.says('before \u001b[31mred\u001b[0m after');
    console.program.stdin.write('\u001d');
    expect(await console.program.exitCode).toBe(0);
    expect(console.output.text).not.toContain('title');
    expect(await inside('cat /root/typed; echo later >/dev/ttyS0')).toBe('hello\n');
    const log = () => readFile(join(machineDir(context, 'full'), 'console.log'), 'utf8');
    await expect.poll(log, { timeout: MINUTES }).toMatch(/before [\s\S]*later/);

    expect((await buildkit('vm', 'screenshot', 'full', 'shot.png')).exitCode).toBe(0);
    const shot = await readFile(join(folder, 'shot.png'));
    expect(shot.subarray(1, 4).toString()).toBe('PNG');
    expect(shot.readUInt32BE(16)).toBeGreaterThanOrEqual(640);

    process.kill(pid, 'SIGSTOP');
    const ended = await buildkit('vm', 'stop', 'full', '--timeout', '1');
    expect(ended.stdout).toBe('full is stopped (QEMU did not answer and was killed)\n');
    expect(before.equals(await readFile(disk))).toBe(true); // what was written is forgotten
    await destroyVm(context, 'full');
    const removed = await buildkit('vm', 'base', 'remove', JSON.parse(made.stdout).base.id);
    expect(removed.exitCode).toBe(0);
  });
});
