/** Instant clones: frozen once, resumed many times, each a machine of its own. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Context } from '../../src/core/context.ts';
import { bootVm, collectGarbage, createInstantVm, startVm, stopVm, type Vm } from '../../src/vm/vm.ts';
import { createVmWorld, type VmWorld } from '../support/vm-world.ts';

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
    machineId: await ask('cat', '/etc/machine-id'),
    hostKey: await ask('cat', '/etc/ssh/ssh_host_ed25519_key.pub'),
    random: await ask('sh', '-c', 'head -c 16 /dev/urandom | base64'),
    clock: Number(await ask('date', '+%s')),
    state: await ask('systemctl', 'is-system-running'),
  };
}

describe('instant clones', () => {
  it('are machines of their own: name, ids, keys, entropy, clock, disk', { timeout: 15 * MINUTES }, async () => {
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
    for (const key of ['machineId', 'hostKey', 'random'] as const) expect(a[key]).not.toBe(b[key]);
    for (const { clock, state } of [a, b]) {
      expect(Math.abs(clock - Date.now() / 1000)).toBeLessThan(60);
      expect(state).toBe('running');
    }
    await one.write('/root/mine', 'x');
    expect((await two.run(['cat', '/root/mine'])).exitCode).toBe(1);
    expect((await one.must(['apt-get', 'check'])).exitCode).toBe(0);
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
});
