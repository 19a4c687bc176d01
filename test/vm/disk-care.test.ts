/** The disk of a machine that does not run, with the real qemu-img on a base of a megabyte: nothing boots here. */
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { digestFile } from '../../src/core/files.ts';
import { run } from '../../src/core/run.ts';
import { changeSnapshot, exportDisk, exportLibvirt, listSnapshots } from '../../src/vm/disk-care.ts';
import { createVm, machineDir } from '../../src/vm/machine.ts';
import { planScripts, writeScripts } from '../../src/vm/scripts.ts';
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
