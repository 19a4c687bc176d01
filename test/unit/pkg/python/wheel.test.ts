import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openWheel, parseWheelName } from '../../../../src/pkg/python/wheel.ts';
import { type WheelSpec, writeWheel, type ZipEntry } from '../../../support/python-wheel.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-wheel-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const good: WheelSpec = {
  name: 'demo',
  version: '1.0',
  files: { 'demo/__init__.py': 'x = 1\n' },
  metadata: ['License-Expression: MIT'],
};
const withEntry = (entry: ZipEntry) => writeWheel(folder, { ...good, extra: [entry] });

describe('openWheel', () => {
  it('reads files, metadata and tags', async () => {
    using wheel = await openWheel(await writeWheel(folder, good));
    expect(wheel).toMatchObject({
      pure: true,
      distInfo: 'demo-1.0.dist-info',
      dataDir: 'demo-1.0.data',
      metadata: { name: 'demo', licence: 'MIT' },
    });
    const file = wheel.files.find((one) => one.path === 'demo/__init__.py')!;
    expect((await file.read()).toString()).toBe('x = 1\n');
    expect(new Date(file.mtime * 1000).toISOString()).toBe('2020-02-03T12:00:00.000Z');
  });

  it.each([
    ['../evil.py', 'relative path'],
    ['demo/../../evil.py', 'relative path'],
    ['/etc/passwd', 'absolute'],
    ['C:/windows', 'absolute'],
    ['demo\\evil.py', 'characters'],
    ['demo/\u0007bell.py', 'characters'],
    ['demo//x.py', 'no plain name'],
    ['./demo/x.py', 'no plain name'],
    ['demo/__init__.py', 'twice'],
  ])('refuses the name %j', async (name, why) => {
    await expect(openWheel(await withEntry({ name, data: 'x' }))).rejects.toMatchObject({
      code: 'wheel-unsafe',
      message: expect.stringContaining(why),
    });
  });

  it('refuses links and encrypted files', async () => {
    await expect(
      openWheel(await withEntry({ name: 'demo/link', data: '/etc/shadow', mode: 0o120777 })),
    ).rejects.toMatchObject({
      message: expect.stringContaining('no regular file'),
    });
    await expect(openWheel(await withEntry({ name: 'demo/secret', data: 'x', flags: 0x801 }))).rejects.toMatchObject({
      message: expect.stringContaining('encrypted'),
    });
  });

  it('refuses a bomb by its headers, before it unpacks it', async () => {
    const bomb = { name: 'demo/bomb', data: Buffer.alloc(90 * 1024 * 1024) };
    await expect(openWheel(await withEntry(bomb))).rejects.toMatchObject({
      code: 'wheel-unsafe',
      message: expect.stringContaining('times its size'),
    });
  });

  it.each([
    ['a wrong checksum', { crc: 1 }],
    ['a size that is too small', { size: 1 }],
    ['a size that is too large', { size: 1000 }],
  ])('refuses %s', async (_, lie) => {
    await expect(openWheel(await withEntry({ name: 'demo/lie', data: 'content', ...lie }))).rejects.toMatchObject({
      code: 'wheel-broken',
    });
  });

  it('refuses a wheel at whatever byte it is cut', async () => {
    const path = await writeWheel(folder, good);
    const whole = await readFile(path);
    for (let size = 0; size < whole.length; size += 37) {
      await writeFile(path, whole);
      await truncate(path, size);
      await expect(openWheel(path)).rejects.toMatchObject({ exitCode: 1, file: path });
    }
  });

  it.each([
    ['demo/__init__.py,sha256=AAAA,6\ndemo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\n', 'other content'],
    [
      'demo/__init__.py,,\ndemo/gone.py,sha256=AAAA,1\ndemo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\n',
      'missing',
    ],
    ['demo-1.0.dist-info/METADATA,,\ndemo-1.0.dist-info/WHEEL,,\n', 'not listed'],
  ])('refuses a RECORD that disagrees', async (record, why) => {
    await expect(openWheel(await writeWheel(folder, { ...good, record }))).rejects.toMatchObject({
      code: 'wheel-record',
      message: expect.stringContaining(why),
    });
  });

  it('refuses a second dist-info folder', async () => {
    await expect(openWheel(await withEntry({ name: 'other-1.dist-info/METADATA', data: 'x' }))).rejects.toMatchObject({
      code: 'wheel-broken',
    });
  });
});

describe('parseWheelName', () => {
  it('reads tags, with and without build number', () => {
    expect(parseWheelName('/a-b/x_y-1.0-1-cp311.cp312-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl')).toEqual({
      name: 'x_y',
      version: '1.0',
      pythons: ['cp311', 'cp312'],
      abis: ['abi3'],
      platforms: ['manylinux_2_17_x86_64', 'manylinux2014_x86_64'],
    });
  });

  it.each(['x.whl', 'x-1.0.whl', 'x-1.0-py3-none-any.zip', 'a-b-c-d-e-f-g.whl'])('refuses %s', (name) => {
    expect(() => parseWheelName(name)).toThrow(expect.objectContaining({ code: 'wheel-name' }));
  });
});
