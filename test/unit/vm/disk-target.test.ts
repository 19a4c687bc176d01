import { describe, expect, it } from 'vitest';
import {
  decideTarget,
  lvcreateArgs,
  lvremoveArgs,
  parseTarget,
  type TargetFacts,
  useOf,
} from '../../../src/vm/disk-target.ts';

describe('parseTarget', () => {
  it.each([
    ['qcow2:a/b:c.qcow2', { kind: 'qcow2', file: 'a/b:c.qcow2' }],
    ['raw:disk', { kind: 'raw', file: 'disk' }],
    ['lv:vg0/web-1', { kind: 'lv', group: 'vg0', name: 'web-1' }],
    ['dev:/dev/sdb', { kind: 'dev', device: '/dev/sdb' }],
  ])('reads %s', (text, expected) => {
    expect(parseTarget(text)).toEqual(expected);
  });

  it.each(['', 'disk.qcow2', 'qcow2:', 'lv:vg', 'lv:vg/-x', 'lv:../x', 'lv:a/b/c', 'dev:sdb', 'dev:/dev/', 'vmdk:x'])(
    'refuses %j',
    (text) => {
      expect(() => parseTarget(text)).toThrow(expect.objectContaining({ code: 'disk-target' }));
    },
  );
});

const FILE = parseTarget('qcow2:/d/x.qcow2');
const LV = parseTarget('lv:vg0/web');
const DEV = parseTarget('dev:/dev/sdb');
const MISSING: TargetFacts = { path: '/d/x', kind: 'missing', sizeBytes: 0, holds: undefined, inUse: undefined };
const BLANK: TargetFacts = { ...MISSING, kind: 'block', sizeBytes: 5e9 };
const options = { sizeBytes: undefined, defaultBytes: 8e9, force: false };
const code = (call: () => unknown) => {
  try {
    call();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return undefined;
};

describe('decideTarget', () => {
  it('makes what is missing, but no device', () => {
    expect(decideTarget(FILE, MISSING, options)).toEqual({ action: 'create', sizeBytes: 8e9 });
    expect(decideTarget(LV, MISSING, { ...options, sizeBytes: 4e9 })).toEqual({ action: 'create', sizeBytes: 4e9 });
    expect(code(() => decideTarget(DEV, MISSING, options))).toBe('disk-target');
  });

  it('takes a blank device as large as it is', () => {
    expect(decideTarget(DEV, BLANK, { ...options, sizeBytes: 4e9 })).toEqual({ action: 'reuse', sizeBytes: 5e9 });
    expect(decideTarget(LV, BLANK, options)).toEqual({ action: 'reuse', sizeBytes: 5e9 });
    expect(code(() => decideTarget(DEV, BLANK, { ...options, sizeBytes: 6e9 }))).toBe('disk-too-small');
  });

  it('overwrites what holds something only by force, and never what is in use', () => {
    const full = { ...BLANK, holds: 'ext4' };
    expect(code(() => decideTarget(DEV, full, options))).toBe('disk-holds-data');
    expect(decideTarget(DEV, full, { ...options, force: true }).action).toBe('reuse');
    const used = { ...full, inUse: 'sdb1 is mounted on /srv' };
    expect(code(() => decideTarget(DEV, used, { ...options, force: true }))).toBe('disk-in-use');
    const file: TargetFacts = { ...MISSING, kind: 'file', sizeBytes: 10, holds: 'a file of 10 B' };
    expect(code(() => decideTarget(FILE, file, options))).toBe('disk-holds-data');
    expect(decideTarget(FILE, { ...file, holds: undefined }, options).action).toBe('create');
  });

  it('does not take a device for a file, nor a folder for either', () => {
    expect(code(() => decideTarget(FILE, BLANK, options))).toBe('disk-target');
    expect(code(() => decideTarget(DEV, { ...MISSING, kind: 'file' }, options))).toBe('disk-target');
    expect(code(() => decideTarget(FILE, { ...MISSING, kind: 'other' }, options))).toBe('disk-target');
  });
});

describe('useOf', () => {
  const disk = { name: 'sdb', type: 'disk', mountpoints: [null] };
  const swaps = 'Filename Type Size\n/dev/sdc1 partition 1 0 -2\n';
  it.each([
    [disk, undefined],
    [{ ...disk, mountpoints: ['/mnt'] }, 'sdb is mounted on /mnt'],
    [{ ...disk, children: [{ name: 'sdb1', type: 'part', mountpoints: ['/srv'] }] }, 'sdb1 is mounted on /srv'],
    [{ ...disk, children: [{ name: 'sdc1', type: 'part', mountpoints: [null] }] }, 'sdc1 is swap'],
    [{ ...disk, mountpoints: ['[SWAP]'] }, 'sdb is swap'],
    [{ ...disk, children: [{ name: 'vg-a', type: 'lvm' }] }, 'vg-a (lvm) is built upon it'],
    [
      { ...disk, children: [{ name: 'sdb1', type: 'part', children: [{ name: 'md0', type: 'raid1' }] }] },
      'md0 (raid1) is built upon it',
    ],
  ])('%#', (device, expected) => {
    expect(useOf(device, swaps)).toBe(expected);
  });
});

describe('lvm', () => {
  it('makes a volume of whole KiB without asking, and removes just that one', () => {
    const target = { kind: 'lv', group: 'vg0', name: 'web' } as const;
    expect(lvcreateArgs(target, 1025)).toEqual([
      '--yes',
      '--wipesignatures',
      'y',
      '--size',
      '2k',
      '--name',
      'web',
      'vg0',
    ]);
    expect(lvremoveArgs(target)).toEqual(['--yes', 'vg0/web']);
  });
});
