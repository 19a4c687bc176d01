import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { identify, listVms, machineDir, readMachine } from '../../../src/vm/machine.ts';
import { identityOf, isAlive, pidWithArgument } from '../../../src/vm/process.ts';
import { parseSize } from '../../../src/vm/size.ts';
import { createWorld, type World } from '../../support/world.ts';

describe('identify', () => {
  it('gives numbers the usual name', () => {
    expect(identify('10')).toEqual({ name: 'buildkit10', number: 10 });
    expect(identify(10, 'web')).toEqual({ name: 'web', number: 10 });
    expect(identify('web')).toEqual({ name: 'web', number: undefined });
  });

  it.each(['0', '1', '254', '255', '300'])('refuses number %s', (number) => {
    expect(() => identify(number)).toThrowError(expect.objectContaining({ code: 'vm-number' }));
  });

  it.each(['', 'Web', '-web', 'web-', '../x', 'a.b', 'a'.repeat(64)])('refuses name %j', (name) => {
    expect(() => identify(name || ' ')).toThrowError(expect.objectContaining({ code: 'vm-name' }));
  });
});

describe('parseSize', () => {
  it.each([
    ['512M', 512 * 2 ** 20],
    ['2g', 2 * 2 ** 30],
    ['4096K', 4096 * 1024],
    ['1GiB', 2 ** 30],
  ])('reads %s', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each(['', '0M', '12', '1.5G', '-1G', '9999999999G'])('refuses %j', (text) => {
    expect(() => parseSize(text)).toThrowError(expect.objectContaining({ code: 'size' }));
  });
});

const UUID = '3f9a0c12-0000-4000-8000-00000000000';

async function record(world: World, name: string, index: number, more: object = {}): Promise<string> {
  const dir = machineDir(world.context, name);
  await mkdir(dir, { recursive: true });
  const machine = {
    ...{ format: 1, name, uuid: UUID + index, base: { id: 'b', sha256: 's' }, architecture: 'amd64' },
    ...{ memoryMiB: 512, cpus: 1, accel: 'auto', mac: 'm', created: '2026-01-01T00:00:00Z' },
    creator: { pid: 1, user: 'me' },
    ...more,
  };
  await writeFile(join(dir, 'machine.json'), JSON.stringify(machine));
  return dir;
}

const RUN = JSON.stringify({ sshPort: 2222, accel: 'tcg', started: '2026-01-01T00:00:00Z' });

describe('listVms', () => {
  it('tells what is true, not what was written', async () => {
    await using world = await createWorld();
    const child = spawn('sleep', ['60'], { argv0: `${UUID}2` });
    try {
      await record(world, 'stopped', 1);
      const running = await record(world, 'running', 2);
      await writeFile(join(running, 'run.json'), RUN);
      await writeFile(join(running, 'pid'), String(child.pid));
      const killed = await record(world, 'killed', 3);
      await writeFile(join(killed, 'run.json'), RUN);
      await writeFile(join(killed, 'pid'), '999999999');
      const reused = await record(world, 'reused', 4);
      await writeFile(join(reused, 'run.json'), RUN);
      await writeFile(join(reused, 'pid'), String(child.pid)); // another program has the number now
      await record(world, 'orphan', 5, { owner: { pid: 1, startTicks: -5, bootId: 'another boot' } });
      const list = await listVms(world.context);
      expect(list.map((one) => `${one.name} ${one.state} ${one.sshPort ?? '-'}`)).toEqual([
        'killed dead -',
        'orphan dead -',
        'reused dead -',
        'running running 2222',
        'stopped stopped -',
      ]);
      expect(list.find((one) => one.name === 'orphan')?.throwAway).toBe(true);
    } finally {
      child.kill();
    }
  });

  it('is empty where nothing was ever made', async () => {
    await using world = await createWorld();
    expect(await listVms(world.context)).toEqual([]);
  });
});

describe('readMachine', () => {
  it('finds by name and by number, and proposes the nearest', async () => {
    await using world = await createWorld();
    await record(world, 'buildkit10', 1, { number: 10 });
    await record(world, 'web', 2, { number: 11 });
    expect((await readMachine(world.context, '10')).name).toBe('buildkit10');
    expect((await readMachine(world.context, '11')).name).toBe('web');
    await expect(readMachine(world.context, 'wep')).rejects.toMatchObject({
      code: 'vm-unknown',
      hint: expect.stringContaining('web'),
    });
    await expect(readMachine(world.context, '../machines/web')).rejects.toMatchObject({ code: 'vm-unknown' });
  });
});

describe('processes', () => {
  it('knows itself and none that has gone', async () => {
    const own = await identityOf(process.pid);
    expect(await isAlive(own)).toBe(true);
    expect(await isAlive({ ...own, startTicks: own.startTicks + 1 })).toBe(false);
    expect(await isAlive({ ...own, bootId: 'x' })).toBe(false);
  });

  it('finds no machine without a pid file', async () => {
    expect(await pidWithArgument('/nowhere/pid', UUID)).toBeUndefined();
  });
});
