/** Instant clones: frozen once, resumed many times, each a machine of its own. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Context } from '../../src/core/context.ts';
import { run, start } from '../../src/core/run.ts';
import { listVms, readMachine } from '../../src/vm/machine.ts';
import { signalProcess } from '../../src/vm/process.ts';
import { bootVm, collectGarbage, createInstantVm, destroyVm, startVm, stopVm, type Vm } from '../../src/vm/vm.ts';
import { makeNamespace } from '../support/netns.ts';
import { publishedRepo } from '../support/published-repo.ts';
import { createVmWorld, type VmWorld } from '../support/vm-world.ts';
import { createWorld } from '../support/world.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
const MINUTES = 60_000;
const SPEC = { instant: true, memory: '512M' } as const;

let world: VmWorld;
let context: Context;

beforeAll(async () => {
  world = await createVmWorld();
  context = world.context;
}, 20 * MINUTES);

afterAll(() => world?.[Symbol.asyncDispose]());

async function facts(vm: Vm) {
  const ask = async (...argv: string[]) => (await vm.must(argv)).stdout.trim();
  return {
    hostname: await ask('hostname'),
    mac: await ask('cat', '/sys/class/net/eth0/address'),
    linkLocal: await ask('ip', '-6', '-o', 'address', 'show', 'dev', 'eth0', 'scope', 'link'),
    machineId: await ask('cat', '/etc/machine-id'),
    hostKey: await ask('cat', '/etc/ssh/ssh_host_ed25519_key.pub'),
    random: await ask('sh', '-c', 'head -c 16 /dev/urandom | base64'),
    clock: Number(await ask('date', '+%s')),
    state: await ask('systemctl', 'is-system-running'),
  };
}

describe('instant clones', () => {
  it('are machines of their own: name, ids, keys, card, port, entropy, clock, disk', {
    timeout: 15 * MINUTES,
  }, async () => {
    {
      await using first = await startVm(context, SPEC); // freezes
      expect(first.bootMs).toBeGreaterThan(0);
    }
    world.said.length = 0;
    const pair = await Promise.all([startVm(context, SPEC), startVm(context, SPEC)]);
    await using one = pair[0];
    await using two = pair[1];
    expect(world.said.join('')).not.toContain('freeze it');
    expect(world.said.filter((line) => line.includes('✓ Resume machine'))).toHaveLength(2);
    const [a, b] = [await facts(one), await facts(two)];
    expect(a.hostname).toBe(one.name);
    expect(b.hostname).toBe(two.name);
    for (const key of ['machineId', 'hostKey', 'random', 'linkLocal'] as const) expect(a[key]).not.toBe(b[key]);
    expect(a.mac).toBe((await readMachine(context, one.name)).mac);
    expect(b.mac).toBe((await readMachine(context, two.name)).mac);
    expect([a.mac, one.sshPort]).not.toEqual([b.mac, two.sshPort]);
    for (const { clock, state } of [a, b]) {
      expect(Math.abs(clock - Date.now() / 1000)).toBeLessThan(60);
      expect(state).toBe('running');
    }
    await one.write('/root/mine', 'x');
    expect((await two.run(['cat', '/root/mine'])).exitCode).toBe(1);
    expect((await one.must(['apt-get', 'check'])).exitCode).toBe(0);
  });

  it('sit on a bridge with the address and the MAC of their number', { timeout: 15 * MINUTES }, async () => {
    await using host = await makeNamespace('instant');
    const before = await host.snapshot();
    const vm = (...args: string[]) =>
      host.run(BUILDKIT, ['--state', context.stateDir, 'vm', ...args], { timeoutMs: 10 * MINUTES });
    await vm('create', '78', '--instant', '-m', '512M');
    const started = await vm('start', '78', '--bridge', 'br0', '--isolated');
    expect(started.stderr).toContain("✓ Resume machine 'buildkit78'");
    expect(started.stdout).toContain('ssh on 192.168.100.78:22');
    const inside = await vm('run', '78', '--', 'sh', '-c', 'ip -4 -br address show eth0; ip route; cat /etc/hosts');
    expect(inside.stdout).toMatch(/^eth0 +UP +192\.168\.100\.78\/24 \n/);
    expect(inside.stdout).toMatch(/^default via 192\.168\.100\.254 dev eth0/m);
    expect(inside.stdout).toMatch(/^192\.168\.100\.254 host\.buildkit$/m);
    expect(inside.stdout).not.toContain('10.0.2.');
    expect((await host.run('ip', ['neigh', 'show', '192.168.100.78'])).stdout).toContain('52:54:00:a8:64:4e');
    const stopped = await vm('stop', '78', '--timeout', '0');
    expect(stopped.stdout).toBe('78 is stopped (it did not shut down in time: QEMU was told to quit)\n');
    await vm('destroy', '78');
    expect(await host.snapshot()).toBe(before);
  });

  it('stand still when their disk has no room, say so, and go on when there is room', {
    timeout: 15 * MINUTES,
  }, async () => {
    const small = join(world.folder, 'small');
    await mkdir(small);
    await run({}, 'mount', ['-t', 'tmpfs', '-o', 'size=64m', 'small', small]);
    await using stack = new AsyncDisposableStack();
    stack.defer(async () => void (await run({}, 'umount', [small])));
    stack.defer(() => destroyVm(context, 'tight'));
    await createInstantVm(context, 'tight', { memory: '512M', directory: small });
    {
      await using vm = await bootVm(context, 'tight');
      const filled = vm.run(['dd', 'if=/dev/urandom', 'of=/root/full', 'bs=1M', 'count=100', 'conv=fsync']);
      await expect(filled).rejects.toMatchObject({
        code: 'guest-paused',
        message: "machine 'tight' stands still: its disk cannot be written: no room left on this machine",
      });
    }
    const cli = (...args: string[]) =>
      run({}, BUILDKIT, ['--state', context.stateDir, 'vm', ...args], { okExitCodes: [3], timeoutMs: 10 * MINUTES });
    expect((await cli('list')).stdout).toMatch(/^tight +paused: its disk cannot be written/m);
    expect(await cli('start', 'tight')).toMatchObject({ exitCode: 3, stderr: expect.stringContaining('stands still') });
    await run({}, 'mount', ['-o', 'remount,size=512m', small]);
    expect(await cli('start', 'tight')).toMatchObject({ exitCode: 0, stderr: expect.stringContaining('it goes on') });
    expect((await cli('run', 'tight', '--', 'sh', '-c', 'sync; echo whole')).stdout).toBe('whole\n');
  });

  it('started by a buildkit that is killed meanwhile are in the list, and stop ends them', {
    timeout: 15 * MINUTES,
  }, async () => {
    await createInstantVm(context, 'half', { memory: '512M' });
    const state = async () => (await listVms(context)).find((one) => one.name === 'half')?.state;
    const starting = start({}, BUILDKIT, ['--state', context.stateDir, 'vm', 'start', 'half']);
    await expect.poll(state, { timeout: 2 * MINUTES, interval: 10 }).toBe('running');
    signalProcess(starting.pid, 'SIGKILL');
    await starting.exitCode;
    expect(await state()).toBe('running');
    expect(await stopVm(context, 'half', 0)).toBe('quit');
    expect(await state()).toBe('stopped');
    await destroyVm(context, 'half');
  });

  it('of the list boot as ever after their first run, from the disk that they left', {
    timeout: 15 * MINUTES,
  }, async () => {
    await createInstantVm(context, 77, { memory: '512M' });
    world.said.length = 0;
    {
      await using vm = await bootVm(context, '77');
      await vm.write('/root/kept', 'here');
      await vm.must(['sync']);
    }
    expect(world.said.join('')).toContain("✓ Resume machine 'buildkit77'");
    expect(await collectGarbage(context)).not.toContainEqual(expect.stringContaining('frozen'));
    expect(await stopVm(context, '77', 2 * MINUTES)).toBe('power-down');
    await using again = await bootVm(context, '77');
    expect(world.said.join('')).toContain("✓ Boot machine 'buildkit77'");
    expect((await again.must(['cat', '/root/kept'])).stdout).toBe('here');
    expect((await again.must(['hostname'])).stdout).toBe('buildkit77\n');
  });

  it('serve vm test, which starts a proxy for the time of the test', { timeout: 20 * MINUTES }, async () => {
    await using own = await createWorld();
    const keys = { ...own.context, stateDir: context.stateDir };
    (await publishedRepo({ ...own, context: keys }, 'greeting'))[Symbol.dispose]();
    const config = { vm: { memory: '512M' }, proxy: { dir: 'cache', listen: ['127.0.0.1:1'] } };
    await writeFile(join(own.path, 'buildkit.yaml'), JSON.stringify(config));
    const buildkit = (...args: string[]) =>
      run({}, BUILDKIT, ['-C', own.path, '--state', context.stateDir, ...args], {
        okExitCodes: [1],
        timeoutMs: 18 * MINUTES,
      });
    const tested = await buildkit('vm', 'test', 'greeting', '--instant', '--proxy', 'auto', '--json');
    expect(tested.stderr).not.toMatch(/^error/m);
    expect(JSON.parse(tested.stdout)).toMatchObject({ passed: true, packages: [{ name: 'greeting' }] });
    expect(tested.stderr).toContain('started for this command');
    // the base was there: only apt in the machine asked for anything
    const { stdout } = await buildkit('proxy', 'ls', '--json');
    expect(stdout).toMatch(/dists\/bookworm\/InRelease/);
    expect(stdout).not.toContain('greeting');
  });
});
