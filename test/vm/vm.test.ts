/** Machines for real: a base image built once, clones of it booted, killed, found dead, removed. */
import { access, chmod, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Context } from '../../src/core/context.ts';
import { run, start } from '../../src/core/run.ts';
import { chooseAccel } from '../../src/vm/accel.ts';
import { type Base, buildBase, listBases } from '../../src/vm/base.ts';
import { createVm, listVms, machineDir } from '../../src/vm/machine.ts';
import { Ssh } from '../../src/vm/ssh.ts';
import { getTree, putTree } from '../../src/vm/transfer.ts';
import { bootVm, collectGarbage, destroyVm, openVm, startVm, stopVm } from '../../src/vm/vm.ts';
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
  return run({}, join(ROOT, 'bin/buildkit'), ['--state', context.stateDir, ...args], {
    cwd: folder,
    okExitCodes: [1, 2, 3, 4, 7, 70],
    timeoutMs: 10 * MINUTES,
  });
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
    await createVm(context, 'web', { memory: '512M' });
    const started = await Promise.all([buildkit('vm', 'start', '10'), buildkit('vm', 'start', 'web', '--json')]);
    for (const one of started) expect(one).toMatchObject({ exitCode: 0 });
    expect(await names()).toEqual(['buildkit10 running', 'web running']);
    expect((await buildkit('vm', 'start', 'web')).stderr).toContain("machine 'web' runs already");

    const inside = await buildkit('vm', 'run', 'web', '--', 'sh', '-c', 'hostname; echo err >&2; exit 7');
    expect(inside).toEqual({ exitCode: 7, stdout: 'web\n', stderr: 'err\n' });
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

    expect(await stopVm(context, 'web', 2 * MINUTES)).toBe('power-down');
    expect(await names()).toEqual(['web stopped']);
    await destroyVm(context, 'web');
    expect(await names()).toEqual([]);
  });
});
