import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  fstab,
  grubConfig,
  grubEarlyConfig,
  partitionOf,
  placeGrub,
  planLayout,
  sfdiskScript,
  swapHeader,
} from '../../../src/vm/disk-layout.ts';

const MIB = 1024 * 1024;
function counter() {
  let next = 0;
  return () => {
    next += 1;
    return `00000000-0000-4000-8000-${String(next).padStart(12, '0')}`;
  };
}
const LAYOUT = planLayout({ sizeBytes: 4096 * MIB, swapBytes: 256 * MIB, uefi: false }, counter());

describe('planLayout', () => {
  it('is BIOS boot, swap, root, each at a whole MiB, the root last', () => {
    expect(LAYOUT.partitions.map(({ role, number, start, sectors }) => [role, number, start, sectors])).toEqual([
      ['bios', 1, 2048, 2048],
      ['swap', 2, 4096, 524_288],
      ['root', 3, 528_384, 7_858_176],
    ]);
  });

  it('has an EFI system partition and no swap when asked so', () => {
    const layout = planLayout({ sizeBytes: 2048 * MIB, swapBytes: 0, uefi: true }, counter());
    expect(layout.partitions.map(({ role }) => role)).toEqual(['bios', 'esp', 'root']);
  });

  it('never overlaps, never reaches the backup of the table', () => {
    const sizes = fc.integer({ min: 600 * MIB, max: 1e13 });
    fc.assert(
      fc.property(sizes, fc.integer({ min: 0, max: 400 * MIB }), fc.boolean(), (sizeBytes, swapBytes, uefi) => {
        const { partitions } = planLayout({ sizeBytes, swapBytes, uefi }, counter());
        let end = 2048;
        for (const { start, sectors } of partitions) {
          expect(start).toBe(end);
          expect(start % 2048).toBe(0);
          end = start + sectors;
        }
        expect(end * 512).toBeLessThanOrEqual(sizeBytes - 33 * 512);
        expect(end * 512).toBeGreaterThan(sizeBytes - 33 * 512 - 2 * MIB);
      }),
    );
  });

  it('refuses a disk without room', () => {
    expect(() => planLayout({ sizeBytes: 300 * MIB, swapBytes: 256 * MIB, uefi: false }, counter())).toThrow(
      expect.objectContaining({ code: 'disk-too-small' }),
    );
  });
});

describe('texts', () => {
  it('tells sfdisk each partition with its type', () => {
    expect(sfdiskScript(LAYOUT)).toBe(`label: gpt
label-id: 00000000-0000-4000-8000-000000000004
unit: sectors
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, uuid=00000000-0000-4000-8000-000000000001, name="bios"
start=4096, size=524288, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F, uuid=00000000-0000-4000-8000-000000000002, name="swap"
start=528384, size=7858176, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=00000000-0000-4000-8000-000000000003, name="root"
`);
  });

  it('replaces root and swap in fstab and keeps what else is mounted', () => {
    const former = '# UNCONFIGURED FSTAB\n/dev/vda / ext4 ro 0 1\n/dev/vdb none swap sw 0 0\nshare /srv 9p ro 0 0\n';
    expect(fstab(LAYOUT, former)).toBe(
      `UUID=${LAYOUT.rootUuid} / ext4 errors=remount-ro 0 1\nUUID=${LAYOUT.swapUuid} none swap sw 0 0\nshare /srv 9p ro 0 0\n`,
    );
  });

  it('finds the root by its UUID, early and late', () => {
    expect(grubEarlyConfig(LAYOUT)).toContain(`search.fs_uuid ${LAYOUT.rootUuid} root\n`);
    expect(grubConfig(LAYOUT, '/vmlinuz', '/initrd.img', ['quiet'])).toContain(
      `  linux /vmlinuz root=UUID=${LAYOUT.rootUuid} ro quiet\n  initrd /initrd.img\n`,
    );
  });
});

describe('bytes', () => {
  it('writes the swap header', () => {
    const page = Buffer.from(swapHeader('01020304-0506-0708-090a-0b0c0d0e0f10', 256 * MIB));
    expect(page.readUInt32LE(1028)).toBe(65_535);
    expect(page.subarray(1036, 1052).toString('hex')).toBe('0102030405060708090a0b0c0d0e0f10');
    expect(page.subarray(4086).toString()).toBe('SWAPSPACE2');
  });

  it('points boot.img at core.img and core.img at its second sector, and leaves the partition table alone', () => {
    const bios = partitionOf(LAYOUT, 'bios')!;
    const core = Buffer.alloc(3 * 512, 7);
    const [boot, placed] = placeGrub(Buffer.alloc(512, 1), core, bios);
    expect(boot?.offset).toBe(0);
    expect(boot?.bytes.length).toBe(440);
    expect(Buffer.from(boot!.bytes).readBigUInt64LE(0x5c)).toBe(2048n);
    expect(placed?.offset).toBe(2048 * 512);
    expect(Buffer.from(placed!.bytes).readBigUInt64LE(500)).toBe(2049n);
    expect(core[500]).toBe(7); // what was given is not changed
  });

  it('refuses a core image larger than its partition', () => {
    const bios = partitionOf(LAYOUT, 'bios')!;
    expect(() => placeGrub(Buffer.alloc(512), Buffer.alloc(MIB + 1), bios)).toThrow(
      expect.objectContaining({ code: 'grub-too-big' }),
    );
  });
});
