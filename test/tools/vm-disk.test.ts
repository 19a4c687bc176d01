/** Bootable disks, read back by sfdisk, sgdisk, blkid, e2fsck, debugfs and mtools; targets by files and loop devices. */
import { chmod, mkdir, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { type DiskRequest, writeDisk } from '../../src/vm/disk.ts';
import { parseTarget } from '../../src/vm/disk-target.ts';
import { createWorld, type World } from '../support/world.ts';

const MIB = 1024 * 1024;
let world: World;
let folder: string;
let tree: string;
beforeAll(async () => {
  world = await createWorld();
  folder = world.path;
  tree = join(folder, 'tree');
  await mkdir(join(tree, 'boot'), { recursive: true });
  await mkdir(join(tree, 'etc'));
  for (const name of ['vmlinuz-6.1.0-9', 'initrd.img-6.1.0-9', 'vmlinuz-6.1.0-10', 'initrd.img-6.1.0-10']) {
    await writeFile(join(tree, 'boot', name), name);
  }
  await writeFile(join(tree, 'etc/shadow'), 'secret', { mode: 0o640 });
  await run({}, 'chown', ['0:42', join(tree, 'etc/shadow')]);
  await writeFile(join(tree, 'etc/setuid'), 'x');
  await chmod(join(tree, 'etc/setuid'), 0o4755);
  await symlink('/etc/shadow', join(tree, 'etc/link'));
});
afterAll(() => world[Symbol.asyncDispose]());

const write = (target: string, more: Partial<DiskRequest> = {}) =>
  writeDisk(world.context, {
    root: tree,
    target: parseTarget(target),
    sizeBytes: 512 * MIB,
    swapBytes: 32 * MIB,
    uefi: false,
    force: false,
    ...more,
  });

async function loop(file: string, bytes: number): Promise<{ device: string } & AsyncDisposable> {
  await writeFile(file, '');
  await truncate(file, bytes);
  const device = (await run({}, 'losetup', ['--find', '--show', file])).stdout.trim();
  return {
    device,
    async [Symbol.asyncDispose]() {
      await run({}, 'losetup', ['--detach', device]);
    },
  };
}

describe('a written disk', () => {
  it('is read back by the real tools: table, swap, root with owners and modes, EFI partition', async () => {
    const file = join(folder, 'a.raw');
    const disk = await write(`raw:${file}`, { uefi: true });
    expect((await stat(file)).size).toBe(512 * MIB);
    expect((await run({}, 'sgdisk', ['--verify', file])).stdout).toContain('No problems found');
    const table = JSON.parse((await run({}, 'sfdisk', ['--json', file])).stdout).partitiontable;
    expect(table.partitions.map(({ name, start, size }: never) => [name, start, size])).toEqual(
      disk.partitions.map(({ role, start, sectors }) => [role, start, sectors]),
    );
    const offset = (role: string) => disk.partitions.find((one) => one.role === role)!.start * 512;
    const probe = async (role: string) =>
      (await run({}, 'blkid', ['-p', '-o', 'export', '--offset', String(offset(role)), file])).stdout;
    expect(await probe('swap')).toContain('TYPE=swap');
    expect(await probe('root')).toContain(`UUID=${disk.rootUuid}\n`);
    await run({}, 'e2fsck', ['-fn', `${file}?offset=${offset('root')}`]);
    const debugfs = async (command: string) =>
      (await run({}, 'debugfs', ['-R', command, `${file}?offset=${offset('root')}`])).stdout;
    expect(await debugfs('stat /etc/shadow')).toMatch(/Mode: {2}0640[\s\S]*Group: {4}42/);
    expect(await debugfs('stat /etc/setuid')).toContain('Mode:  04755');
    expect(await debugfs('stat /etc/link')).toContain('Fast link dest: "/etc/shadow"');
    expect(await debugfs('stat /')).toMatch(/User: {5}0 {3}Group: {5}0/);
    expect(await debugfs('cat /boot/grub/grub.cfg')).toContain('linux /boot/vmlinuz-6.1.0-10 root=UUID=');
    expect(await debugfs('cat /etc/fstab')).toContain(`UUID=${disk.rootUuid} / ext4`);
    const listing = await run({}, 'mdir', ['-b', '-i', `${file}@@${offset('esp')}`, '::/EFI/BOOT']);
    expect(listing.stdout.trim()).toBe('::/EFI/BOOT/BOOTX64.EFI');
    // GRUB is where the table is not
    const start = await readFile(file).then((bytes) => bytes.subarray(0, 512));
    expect([start.includes('GRUB'), start.readUInt16LE(510)]).toEqual([true, 0xaa55]);
  });

  it('is a whole qcow2 file; one that is there is overwritten only by force', async () => {
    const file = join(folder, 'b.qcow2');
    await write(`qcow2:${file}`);
    expect(JSON.parse((await run({}, 'qemu-img', ['info', '--output=json', file])).stdout)).toMatchObject({
      format: 'qcow2',
      'virtual-size': 512 * MIB,
    });
    await run({}, 'qemu-img', ['check', file]);
    await expect(write(`qcow2:${file}`)).rejects.toMatchObject({ code: 'disk-holds-data' });
    await write(`qcow2:${file}`, { force: true, sizeBytes: 600 * MIB });
    expect((await run({}, 'qemu-img', ['info', file])).stdout).toContain('600 MiB');
  });

  it('leaves nothing when the tree does not fit', async () => {
    const out = join(folder, 'full');
    await mkdir(out);
    const big = join(tree, 'big');
    await writeFile(big, Buffer.alloc(200 * MIB, 1));
    try {
      await expect(write(`raw:${out}/x.raw`, { sizeBytes: 200 * MIB })).rejects.toMatchObject({ code: 'tool-failed' });
    } finally {
      await rm(big);
    }
    expect(await readdir(out)).toEqual([]);
  });

  it('needs a kernel', async () => {
    const empty = join(folder, 'empty');
    await mkdir(empty);
    await expect(write(`raw:${join(folder, 'c.raw')}`, { root: empty })).rejects.toMatchObject({
      code: 'disk-no-kernel',
    });
  });
});

describe('a device', () => {
  it('is taken whole when blank, refused when it holds something, overwritten by force', async () => {
    await using at = await loop(join(folder, 'dev.img'), 300 * MIB);
    const target = `dev:${at.device}`;
    await expect(write(target, { sizeBytes: 301 * MIB })).rejects.toMatchObject({ code: 'disk-too-small' });
    const disk = await write(target, { sizeBytes: undefined });
    expect(disk).toMatchObject({ reused: true, sizeBytes: 300 * MIB, path: at.device });
    // the backup of the table is at the device's end: nothing for sgdisk to mend
    expect((await run({}, 'sgdisk', ['--verify', at.device])).stdout).toContain('No problems found');
    await expect(write(target, { sizeBytes: undefined })).rejects.toMatchObject({
      code: 'disk-holds-data',
      message: expect.stringContaining('gpt'),
    });
    await write(target, { sizeBytes: undefined, force: true });
  });

  it('is blank again when the writing ends too early, and the next disk is written to it', async () => {
    await using at = await loop(join(folder, 'half.img'), 300 * MIB);
    const target = `dev:${at.device}`;
    const programs = join(folder, 'early');
    await mkdir(programs);
    const real = (await run({}, 'sh', ['-c', 'command -v qemu-img'])).stdout.trim();
    await writeFile(join(programs, 'qemu-img'), `#!/bin/sh\n${real} "$@"\nexit 1\n`, { mode: 0o755 });
    const context = { ...world.context, env: { ...world.context.env, PATH: `${programs}:${process.env.PATH}` } };
    const request = { root: tree, target: parseTarget(target), swapBytes: 32 * MIB, uefi: true, force: false };
    await expect(writeDisk(context, request)).rejects.toMatchObject({ code: 'tool-failed' });
    expect(await write(target, { sizeBytes: undefined })).toMatchObject({ reused: true });
    expect((await run({}, 'sgdisk', ['--verify', at.device])).stdout).toContain('No problems found');
  });

  it('is never touched while it is mounted, even by force', async () => {
    await using at = await loop(join(folder, 'used.img'), 300 * MIB);
    await run({}, 'mke2fs', ['-q', '-t', 'ext4', at.device]);
    const mountPoint = join(folder, 'mnt');
    await mkdir(mountPoint);
    await run({}, 'mount', [at.device, mountPoint]);
    try {
      await expect(write(`dev:${at.device}`, { sizeBytes: undefined, force: true })).rejects.toMatchObject({
        code: 'disk-in-use',
        message: expect.stringContaining(`mounted on ${mountPoint}`),
      });
      await expect(write(`raw:${join(folder, 'used.img')}`, { force: true })).rejects.toMatchObject({
        code: 'disk-in-use',
      });
    } finally {
      await run({}, 'umount', [mountPoint]);
    }
  });

  // without device-mapper there is no LVM: its programs are stood in for, the volume is a loop device
  it('is made as a logical volume when missing, removed again when the disk cannot be written', async () => {
    await using at = await loop(join(folder, 'lv.img'), 300 * MIB);
    const group = basename(folder);
    const programs = join(folder, 'lvm');
    await mkdir(programs);
    const lvcreate = `#!/bin/sh\necho "$@" >>${programs}/log\nmkdir -p /dev/${group} && ln -s ${at.device} /dev/${group}/web\n`;
    const lvremove = `#!/bin/sh\necho "$@" >>${programs}/log\nrm /dev/${group}/web\n`;
    await writeFile(join(programs, 'lvcreate'), lvcreate, { mode: 0o755 });
    await writeFile(join(programs, 'lvremove'), lvremove, { mode: 0o755 });
    const context = { ...world.context, env: { ...world.context.env, PATH: `${programs}:${process.env.PATH}` } };
    const request = { swapBytes: 0, uefi: false, force: false, target: parseTarget(`lv:${group}/web`) };
    try {
      const missing = join(folder, 'no-such-tree');
      const failed = writeDisk(context, { ...request, root: missing, sizeBytes: 300 * MIB });
      await expect(failed).rejects.toMatchObject({ code: 'disk-no-kernel' });
      const disk = await writeDisk(context, { ...request, root: tree, sizeBytes: 300 * MIB });
      expect(disk).toMatchObject({ path: `/dev/${group}/web`, sizeBytes: 300 * MIB });
      expect((await run({}, 'sgdisk', ['--verify', at.device])).stdout).toContain('No problems found');
      const made = `--yes --wipesignatures y --size ${300 * 1024}k --name web ${group}`;
      const log = `${made}\n--yes ${group}/web\n${made}\n`;
      expect(await readFile(join(programs, 'log'), 'utf8')).toBe(log);
      // one that is there: not without force when it holds something, then as it is, never too small, never removed
      const again = { ...request, root: tree, sizeBytes: undefined };
      await expect(writeDisk(context, again)).rejects.toMatchObject({ code: 'disk-holds-data' });
      await expect(writeDisk(context, { ...again, force: true, sizeBytes: 400 * MIB })).rejects.toMatchObject({
        code: 'disk-too-small',
      });
      await expect(writeDisk(context, { ...again, force: true, root: missing })).rejects.toMatchObject({
        code: 'disk-no-kernel',
      });
      expect(await writeDisk(context, { ...again, force: true })).toMatchObject({ reused: true, sizeBytes: 300 * MIB });
      expect(await readFile(join(programs, 'log'), 'utf8')).toBe(log);
    } finally {
      await rm(`/dev/${group}`, { recursive: true, force: true });
    }
  });

  it('must be one', async () => {
    await expect(write('dev:/dev/null')).rejects.toMatchObject({ code: 'disk-target' });
    await expect(write('dev:/dev/no-such-device')).rejects.toMatchObject({ code: 'disk-target' });
  });
});
