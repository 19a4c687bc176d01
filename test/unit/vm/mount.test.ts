import { describe, expect, it } from 'vitest';
import { copyArgs, planClone } from '../../../src/vm/clone.ts';
import type { MachineRecord } from '../../../src/vm/machine.ts';
import { chooseRoot, exportArgs, mountArgs } from '../../../src/vm/mount.ts';

const table = (...partitions: object[]) => JSON.stringify({ partitiontable: { sectorsize: 512, partitions } });

describe('mounting a disk', () => {
  it('finds the root: by name, else the largest, else the whole disk', () => {
    const swap = { start: 2048, size: 9000, type: 'S' };
    expect(chooseRoot(table(swap, { start: 16384, size: 100, name: 'root', type: 'L' }))).toEqual({
      offset: 16384 * 512,
      size: 100 * 512,
    });
    expect(chooseRoot(table({ start: 1, size: 2, type: 'B' }, swap)).offset).toBe(2048 * 512);
    expect(chooseRoot(undefined)).toEqual({ offset: 0, size: undefined });
    expect(() => chooseRoot(table())).toThrowError(expect.objectContaining({ code: 'vm-mount-none' }));
  });

  it('leaves the journal alone where nothing may be written', () => {
    expect(mountArgs('/v', '/d', { offset: 512, size: 1024 }, false)).toEqual([
      ...['-o', 'loop,offset=512,sizelimit=1024,ro,noload,nosuid,nodev', '--', '/v', '/d'],
    ]);
    expect(mountArgs('/v', '/d', { offset: 0, size: undefined }, true)[1]).toBe('loop,offset=0,rw,nosuid,nodev');
  });

  it('names files with commas without harm', () => {
    const args = exportArgs('/a,b/disk.qcow2', '/a,b/view', '/a,b/pid', false);
    expect(JSON.parse(args[4]!)).toMatchObject({ filename: '/a,b/disk.qcow2', 'read-only': true });
    expect(JSON.parse(args.at(-1)!)).toMatchObject({ mountpoint: '/a,b/view', writable: false });
  });
});

describe('a clone', () => {
  const source = {
    ...{ format: 1, name: 'web', number: 12, uuid: 'u1', base: { id: 'b', sha256: 's' }, architecture: 'amd64' },
    ...{ memoryMiB: 512, cpus: 2, accel: 'tcg', mac: 'm1', created: 'c1', creator: { pid: 1, user: 'a' } },
    ...{ owner: { pid: 1, startTicks: 2, bootId: 'x' }, frozen: 'k' },
    launch: {
      graphics: true,
      forwards: [{ protocol: 'tcp', address: '127.0.0.1', hostPort: 80, guestPort: 80 }],
      ssh: { port: 2222, user: 'admin' },
    },
  } as unknown as MachineRecord;
  const made = { uuid: 'u2', mac: 'm2', created: 'c2', creator: { pid: 2, user: 'b' } };

  it('has what the source has, but its identity, its ports and its owner', () => {
    expect(planClone(source, { name: 'copy', number: undefined }, made)).toEqual({
      ...{ format: 1, name: 'copy', uuid: 'u2', base: { id: 'b', sha256: 's' }, architecture: 'amd64' },
      ...{
        memoryMiB: 512,
        cpus: 2,
        accel: 'tcg',
        mac: 'm2',
        created: 'c2',
        creator: { pid: 2, user: 'b' },
        frozen: 'k',
      },
      launch: { graphics: true, ssh: { user: 'admin' } },
    });
  });

  it('of a kept state keeps the base below it', () => {
    expect(copyArgs('/a', '/b', '/base', 's1')).toEqual([
      ...['qemu-img', 'convert', '-q', '-U', '-l', 'snapshot.name=s1', '-O', 'qcow2', '-B', '/base', '-F', 'qcow2'],
      ...['/a', '/b'],
    ]);
    expect(copyArgs('/a', '/b', '/base', undefined)[0]).toBe('cp');
  });
});
