/** The disk of a machine that does not run, with the real qemu-img on a base of a megabyte: nothing boots here. */
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { digestFile } from '../../src/core/files.ts';
import { run, start } from '../../src/core/run.ts';
import { cloneVm } from '../../src/vm/clone.ts';
import { changeSnapshot, exportDisk, exportLibvirt, listSnapshots } from '../../src/vm/disk-care.ts';
import { createVm, listVms, machineDir, readMachine, removeHalfMade } from '../../src/vm/machine.ts';
import { mountVm, umountVm } from '../../src/vm/mount.ts';
import { signalProcess } from '../../src/vm/process.ts';
import { planScripts, writeScripts } from '../../src/vm/scripts.ts';
import { bootVm, collectGarbage, destroyVm } from '../../src/vm/vm.ts';
import { createWorld, type World } from '../support/world.ts';

const SIZE = 1 << 20;

/** A base that holds a megabyte of one letter, and machine `web` over it. */
async function makeMachine(world: World): Promise<void> {
  const dir = join(world.context.stateDir, 'vm/bases/bookworm-tiny');
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, 'raw'), Buffer.alloc(SIZE, 'b'));
  const disk = join(dir, 'disk.qcow2');
  await run({}, 'qemu-img', ['convert', '-O', 'qcow2', join(dir, 'raw'), disk]);
  const { size, mtimeMs } = await stat(disk);
  const record = {
    ...{ format: 1, id: 'bookworm-tiny', suite: 'bookworm', architecture: 'amd64', recipe: 'r', packages: [] },
    ...{ sha256: await digestFile(disk, 'sha256'), kernelRelease: '6.1', rootUuid: 'u', virtualSize: SIZE },
    ...{ stamp: { size, mtimeMs }, created: '2026-01-01T00:00:00Z' },
  };
  await writeFile(join(dir, 'base.json'), JSON.stringify(record));
  await createVm(world.context, 'web');
}

/** Writes a megabyte of `letter` to the machine's disk. */
async function fill(world: World, letter: string): Promise<void> {
  const pattern = `write -P ${letter.charCodeAt(0)} 0 1M`;
  await run({}, 'qemu-io', ['-c', pattern, join(machineDir(world.context, 'web'), 'disk.qcow2')]);
}

async function content(world: World, file: string): Promise<string> {
  const target = join(world.path, file);
  await exportDisk(world.context, 'web', 'raw', target);
  const bytes = await readFile(target);
  expect(bytes).toHaveLength(SIZE);
  return String.fromCharCode(bytes[0]!, bytes.at(-1)!);
}

describe('the disk of a machine', () => {
  it('keeps states, goes back to them, forgets them', async () => {
    await using world = await createWorld();
    await makeMachine(world);
    const { context } = world;
    await changeSnapshot(context, 'web', 'create', 'clean');
    await fill(world, 'x');
    expect(await content(world, 'dirty.raw')).toBe('xx');
    expect((await listSnapshots(context, 'web')).map((one) => one.name)).toEqual(['clean']);
    await expect(changeSnapshot(context, 'web', 'create', 'clean')).rejects.toMatchObject({ code: 'snapshot-exists' });
    await changeSnapshot(context, 'web', 'restore', 'clean');
    expect(await content(world, 'clean.raw')).toBe('bb');
    await changeSnapshot(context, 'web', 'delete', 'clean');
    expect(await listSnapshots(context, 'web')).toEqual([]);
    await expect(changeSnapshot(context, 'web', 'restore', 'clean')).rejects.toMatchObject({
      code: 'snapshot-unknown',
    });
    expect(() => changeSnapshot(context, 'web', 'create', '-x')).toThrowError(
      expect.objectContaining({ code: 'snapshot-name' }),
    );
  });

  it('is written out whole, and never over something', async () => {
    await using world = await createWorld();
    await makeMachine(world);
    const target = join(world.path, 'alone.qcow2');
    await exportDisk(world.context, 'web', 'qcow2', target);
    const info = JSON.parse((await run({}, 'qemu-img', ['info', '--output=json', target])).stdout);
    expect(info['backing-filename']).toBeUndefined();
    await expect(exportDisk(world.context, 'web', 'qcow2', target)).rejects.toMatchObject({ code: 'target-exists' });
    const domain = join(world.path, 'web.xml');
    await exportLibvirt(world.context, 'web', domain);
    expect(await readFile(domain, 'utf8')).toMatch(/<name>web<\/name>[\s\S]*<source file=".*\/web\/disk.qcow2"\/>/);
    await expect(exportLibvirt(world.context, 'web', domain)).rejects.toMatchObject({ code: 'target-exists' });
  });
});

describe('a machine made of another one', () => {
  it('has its disk, as it is or as it was kept, in a folder of choice; the source keeps its own', async () => {
    await using world = await createWorld();
    await makeMachine(world);
    const { context } = world;
    await fill(world, 'k');
    await changeSnapshot(context, 'web', 'create', 'kept');
    await fill(world, 'n');
    const now = await cloneVm(context, 'web', '21');
    const place = join(world.path, 'place');
    await cloneVm(context, 'web', 'then', { snapshot: 'kept', directory: place });
    const first = async (name: string) => {
      const target = join(world.path, `${name}.raw`);
      await exportDisk(context, name, 'raw', target);
      return String.fromCharCode((await readFile(target))[0]!);
    };
    expect([await first('buildkit21'), await first('then'), await first('web')]).toEqual(['n', 'k', 'n']);
    const source = await readMachine(context, 'web');
    expect(now.uuid).not.toBe(source.uuid);
    expect(now.mac).toBe('52:54:00:a8:64:15');
    expect(await readdir(place)).toEqual(['then']);
    expect(await readdir(join(place, 'then'))).not.toContain('.creating');
    await expect(cloneVm(context, 'web', 'then')).rejects.toMatchObject({ code: 'vm-exists' });
    await expect(cloneVm(context, 'web', 'x', { snapshot: 'no' })).rejects.toMatchObject({ code: 'snapshot-unknown' });
    await destroyVm(context, 'then');
    expect(await readdir(place)).toEqual([]);
  });

  it('does not take a folder that is there; what a killed creation left is removed, and nothing else', async () => {
    await using world = await createWorld();
    await makeMachine(world);
    const { context } = world;
    const place = join(world.path, 'place');
    await mkdir(join(place, 'mine'), { recursive: true });
    await writeFile(join(place, 'mine/precious'), 'x');
    const options = { base: 'bookworm', directory: place };
    await expect(createVm(context, 'mine', options)).rejects.toMatchObject({ code: 'folder-exists' });
    const machines = join(context.stateDir, 'vm/machines');
    await mkdir(join(place, 'half'));
    await writeFile(join(place, 'half/.creating'), 'u-1');
    await symlink(join(place, 'half'), join(machines, '.creating-u-1'));
    await symlink(join(place, 'mine'), join(machines, '.creating-u-2'));
    expect(await removeHalfMade(context)).toBe(2);
    expect(await readdir(place)).toEqual(['mine']);
    expect(await readFile(join(place, 'mine/precious'), 'utf8')).toBe('x');
  });

  it('with a raw disk keeps no states, and needs no base below it', async () => {
    await using world = await createWorld();
    await makeMachine(world);
    const record = await createVm(world.context, 'whole', { raw: true });
    const disk = join(machineDir(world.context, 'whole'), 'disk.raw');
    expect(record.disk).toBe('raw');
    expect((await readFile(disk)).equals(Buffer.alloc(SIZE, 'b'))).toBe(true);
    await expect(changeSnapshot(world.context, 'whole', 'create', 's')).rejects.toMatchObject({ code: 'snapshot-raw' });
  });
});

describe('what others did to machines', () => {
  it('kill -9 of a creation at any moment: it is there whole, or not at all, and gc leaves nothing of it', {
    timeout: 300_000,
  }, async () => {
    await using world = await createWorld();
    await makeMachine(world);
    const { context } = world;
    const program = join(context.programDir, 'bin/buildkit');
    const args = ['--state', context.stateDir, 'vm', 'create', '30', '--base', 'bookworm-tiny'];
    const began = performance.now();
    await run({}, program, args);
    const whole = performance.now() - began;
    await destroyVm(context, '30');
    for (let part = 1; part <= 8; part += 1) {
      const creation = start({}, program, args);
      await Promise.race([sleep((whole * part) / 8), creation.exitCode]);
      signalProcess(creation.pid, 'SIGKILL'); // what it started goes on
      await creation.exitCode;
      await collectGarbage(context);
      const there = (await listVms(context)).find((one) => one.number === 30);
      const files = await readdir(join(context.stateDir, 'vm/machines'));
      expect(files.filter((name) => name.startsWith('.creating'))).toEqual([]);
      expect(files.includes('buildkit30')).toBe(there !== undefined);
      if (there === undefined) continue;
      expect(there.state).toBe('stopped');
      await run({}, 'qemu-img', ['check', '-q', join(there.dir, 'disk.qcow2')]);
      await destroyVm(context, '30');
    }
  });

  it('a base removed below a clone: it says which, and does not start; a killed freezing: gc removes what it left', async () => {
    await using world = await createWorld();
    await makeMachine(world);
    const { context } = world;
    await mkdir(join(context.stateDir, 'vm/instant/.freezing-abc'), { recursive: true });
    expect(await collectGarbage(context)).toEqual(['a half-frozen machine']);
    await rm(join(context.stateDir, 'vm/bases/bookworm-tiny'), { recursive: true });
    const gone = { code: 'base-unknown', message: expect.stringContaining('bookworm-tiny') };
    await expect(bootVm(context, 'web')).rejects.toMatchObject(gone);
    await expect(cloneVm(context, 'web', 'copy')).rejects.toMatchObject(gone);
    expect((await listVms(context)).map((one) => `${one.name} ${one.state}`)).toEqual(['web stopped']);
    await destroyVm(context, 'web');
  });
});

describe('a mounted disk', () => {
  it('is a folder, read only unless asked for; the machine neither starts nor changes meanwhile', async () => {
    await using world = await createWorld();
    await makeMachine(world);
    const { context } = world;
    const disk = join(machineDir(context, 'web'), 'disk.qcow2');
    const raw = join(world.path, 'fs.raw');
    await mkdir(join(world.path, 'tree'));
    await writeFile(join(world.path, 'tree/hello'), 'from the disk');
    await run({}, 'mke2fs', ['-q', '-F', '-t', 'ext4', '-d', join(world.path, 'tree'), raw, '4M']);
    await run({}, 'qemu-img', ['convert', '-O', 'qcow2', raw, disk]);
    const at = join(world.path, 'mnt');
    await using stack = new AsyncDisposableStack();
    stack.defer(async () => void (await umountVm(context, 'web')));
    await mountVm(context, 'web', at);
    expect(await readFile(join(at, 'hello'), 'utf8')).toBe('from the disk');
    await expect(writeFile(join(at, 'new'), 'x')).rejects.toMatchObject({ code: 'EROFS' });
    await expect(bootVm(context, 'web')).rejects.toMatchObject({ code: 'vm-mounted' });
    await expect(mountVm(context, 'web', at)).rejects.toMatchObject({ code: 'vm-mounted' });
    await expect(cloneVm(context, 'web', 'copy')).rejects.toMatchObject({ code: 'vm-mounted' });
    expect(await umountVm(context, 'web')).toBe(true);
    expect(await umountVm(context, 'web')).toBe(false);
    await mountVm(context, 'web', at, { writable: true });
    await writeFile(join(at, 'new'), 'kept');
    await umountVm(context, 'web');
    await mountVm(context, 'web', at);
    expect(await readFile(join(at, 'new'), 'utf8')).toBe('kept');
    await umountVm(context, 'web');
    expect((await readFile('/proc/mounts', 'utf8')).includes(world.path)).toBe(false);
  });
});

describe('scripts', () => {
  it('have the old names and the old order of arguments', async () => {
    await using world = await createWorld();
    await makeMachine(world);
    const echo = join(world.path, 'echo args');
    await writeFile(echo, '#!/bin/sh\nprintf "[%s]" "$@"\n', { mode: 0o755 });
    const call = async (script: string, ...args: string[]) => {
      const text = planScripts('web', echo, '/my state').get(script) ?? '';
      const { stdout, exitCode } = await run({}, 'sh', ['-c', text, script, ...args], { okExitCodes: [2] });
      return exitCode === 0 ? stdout : exitCode;
    };
    expect(await call('web-ctl', 'restart')).toBe('[--state][/my state][vm][restart][web]');
    expect(await call('web-ctl', 'destroy')).toBe(2);
    expect(await call('web-sendfile', '/remote', 'local file')).toBe(
      '[--state][/my state][vm][put][web][local file][/remote]',
    );
    expect(await call('web-getfile', '/remote', 'local')).toBe('[--state][/my state][vm][get][web][/remote][local]');
    expect(await call('web-runscript', 'a && b')).toBe('[--state][/my state][vm][run][web][--][sh][-c][a && b]');
    expect(await call('web-runscript')).toBe(2);
    const paths = await writeScripts(world.context, 'web', join(world.path, 'bin'));
    expect(paths).toHaveLength(4);
    expect((await stat(paths[0]!)).mode & 0o777).toBe(0o755);
  });
});
