/**
 * Where each part of a bootable disk lies, as numbers, and the texts and bytes that follow from it alone.
 *
 * Secret: GPT types (UEFI 2.10, 5.3), alignment to 1 MiB, the swap header of Linux (mm/swapfile.c, `SWAPSPACE2`), and which
 * bytes of GRUB's boot.img and diskboot.img name a sector (grub: boot.S, diskboot.S, util/setup.c).
 */
import { UserError } from '../core/errors.ts';

export const SECTOR = 512;
const MIB = 1024 * 1024;
const SECTORS_PER_MIB = MIB / SECTOR;
/** Backup GPT: 32 sectors of entries and the header. */
const BACKUP_SECTORS = 33;

export type PartitionRole = 'bios' | 'esp' | 'swap' | 'root';

export interface Partition {
  readonly role: PartitionRole;
  /** 1-based, as in /dev/vda1. */
  readonly number: number;
  /** In sectors of 512 bytes. */
  readonly start: number;
  readonly sectors: number;
  readonly uuid: string;
}

export interface DiskLayout {
  readonly sizeBytes: number;
  readonly diskUuid: string;
  readonly partitions: readonly Partition[];
  /** Of the file systems themselves. */
  readonly rootUuid: string;
  readonly swapUuid: string;
}

const TYPES: Readonly<Record<PartitionRole, string>> = {
  bios: '21686148-6449-6E6F-744E-656564454649',
  esp: 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B',
  swap: '0657FD6D-A4AB-43C4-84E5-0933C84B4F4F',
  root: '0FC63DAF-8483-4772-8E79-3D69D8477DE4',
};

const ESP_MIB = 64;

export interface LayoutRequest {
  /** Bytes of the whole disk. */
  readonly sizeBytes: number;
  /** 0: no swap partition. */
  readonly swapBytes: number;
  readonly uefi: boolean;
}

/**
 * BIOS boot partition, EFI system partition if asked for, swap, and the root last, so that a larger disk can grow it.
 * @param uuid gives a new UUID at each call
 * @throws UserError `disk-too-small`
 */
export function planLayout(request: LayoutRequest, uuid: () => string): DiskLayout {
  const wanted: [PartitionRole, number][] = [['bios', 1]];
  if (request.uefi) wanted.push(['esp', ESP_MIB]);
  if (request.swapBytes > 0) wanted.push(['swap', Math.ceil(request.swapBytes / MIB)]);
  let next = 1; // in MiB: the first one holds the GPT
  const partitions: Partition[] = [];
  const add = (role: PartitionRole, sectors: number) =>
    partitions.push({ role, number: partitions.length + 1, start: next * SECTORS_PER_MIB, sectors, uuid: uuid() });
  for (const [role, size] of wanted) {
    add(role, size * SECTORS_PER_MIB);
    next += size;
  }
  const endMib = Math.floor((request.sizeBytes / SECTOR - BACKUP_SECTORS) / SECTORS_PER_MIB);
  if (endMib - next < 64) {
    throw new UserError('disk-too-small', `a disk of ${request.sizeBytes} bytes has no room for a root file system`, {
      hint: 'give it more with --size, or less swap with --swap',
    });
  }
  add('root', (endMib - next) * SECTORS_PER_MIB);
  return { sizeBytes: request.sizeBytes, diskUuid: uuid(), partitions, rootUuid: uuid(), swapUuid: uuid() };
}

export function partitionOf(layout: DiskLayout, role: PartitionRole): Partition | undefined {
  return layout.partitions.find((one) => one.role === role);
}

/** Input of sfdisk(8). */
export function sfdiskScript(layout: DiskLayout): string {
  const lines = layout.partitions.map(
    ({ role, start, sectors, uuid }) =>
      `start=${start}, size=${sectors}, type=${TYPES[role]}, uuid=${uuid}, name="${role}"`,
  );
  return ['label: gpt', `label-id: ${layout.diskUuid}`, 'unit: sectors', ...lines, ''].join('\n');
}

/**
 * /etc/fstab for the disk: root and swap are ours, whatever else `former` mounts stays.
 * @param former text of the file that was there
 */
export function fstab(layout: DiskLayout, former: string): string {
  const kept = former.split('\n').filter((line) => {
    const [device = '', mountPoint, type] = line.trim().split(/\s+/);
    return device !== '' && !device.startsWith('#') && mountPoint !== '/' && type !== 'swap';
  });
  const swap = partitionOf(layout, 'swap') ? [`UUID=${layout.swapUuid} none swap sw 0 0`] : [];
  return [`UUID=${layout.rootUuid} / ext4 errors=remount-ro 0 1`, ...swap, ...kept, ''].join('\n');
}

/** First page of a swap partition. */
export function swapHeader(uuid: string, bytes: number): Uint8Array {
  const page = Buffer.alloc(4096);
  page.writeUInt32LE(1, 1024); // version
  page.writeUInt32LE(Math.floor(bytes / 4096) - 1, 1028); // last page
  page.set(Buffer.from(uuid.replaceAll('-', ''), 'hex'), 1036);
  page.write('SWAPSPACE2', 4086, 'latin1');
  return page;
}

/** Bytes that go to a place on the disk. */
export interface Placed {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/**
 * GRUB for BIOS: boot.img before the partition table, core.img in the BIOS boot partition, as grub-bios-setup places them.
 * @throws UserError `grub-too-big` when core.img does not fit
 */
export function placeGrub(bootImage: Uint8Array, coreImage: Uint8Array, bios: Partition): Placed[] {
  if (coreImage.length > bios.sectors * SECTOR || bootImage.length < SECTOR) {
    throw new UserError('grub-too-big', `GRUB's core image has ${coreImage.length} bytes and does not fit`, {
      hint: 'see that the packages grub-common and grub-pc-bin are of one version',
    });
  }
  const boot = Buffer.from(bootImage.subarray(0, 440)); // what follows is the disk's own: signature and partition table
  boot.writeBigUInt64LE(BigInt(bios.start), 0x5c);
  boot.writeUInt8(0xff, 0x64); // the drive that the BIOS names
  boot.fill(0x90, 0x66, 0x68); // hard disk: mend a BIOS that names a floppy
  const core = Buffer.from(coreImage);
  core.writeBigUInt64LE(BigInt(bios.start + 1), SECTOR - 12); // the rest follows the first sector
  return [
    { offset: 0, bytes: boot },
    { offset: bios.start * SECTOR, bytes: core },
  ];
}

/** What GRUB runs before it knows a file system of ours: built into its image. */
export function grubEarlyConfig(layout: DiskLayout): string {
  return `search.fs_uuid ${layout.rootUuid} root\nset prefix=($root)/boot/grub\n`;
}

/**
 * /boot/grub/grub.cfg. The kernel is named by its link, which Debian's kernel packages keep at the newest
 * (linux-update-symlinks), so that an upgrade needs no update-grub.
 */
export function grubConfig(layout: DiskLayout, kernel: string, initrd: string, kernelArgs: readonly string[]): string {
  const words = [`root=UUID=${layout.rootUuid}`, 'ro', ...kernelArgs].join(' ');
  return `# written by buildkit; update-grub of a GRUB package in the machine replaces it
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=1
set default=0
menuentry 'Debian GNU/Linux' {
  search.fs_uuid ${layout.rootUuid} root
  linux ${kernel} ${words}
  initrd ${initrd}
}
menuentry 'Debian GNU/Linux (rescue)' {
  search.fs_uuid ${layout.rootUuid} root
  linux ${kernel} ${words} single
  initrd ${initrd}
}
`;
}
