/**
 * What a file is, told from its first bytes, and whether an image may be trusted with a machine.
 *
 * Secret: magic numbers, and the fields of a qcow2 header (qemu: docs/interop/qcow2.txt) that make QEMU open other files.
 */
import { UserError } from '../core/errors.ts';

export type Packing = 'gz' | 'xz' | 'zst';
export type FileKind = Packing | 'qcow2' | 'raw';

/** As many bytes as `kindOf` and `checkQcow2` look at. */
export const HEAD_BYTES = 4096;

const MAGIC: readonly (readonly [FileKind, string])[] = [
  ['gz', '1f8b'],
  ['xz', 'fd377a585a00'],
  ['zst', '28b52ffd'],
  ['qcow2', '514649fb'],
];
/** Told, so that the message can say what it is. */
const FOREIGN: readonly (readonly [string, string])[] = [
  ['4b444d56', 'a VMware disk'],
  ['7668647866696c65', 'a Hyper-V disk (vhdx)'],
  ['636f6e6563746978', 'a Virtual PC disk (vhd)'],
  ['3c3c3c20', 'a VirtualBox disk'],
  ['425a68', 'packed with bzip2'],
  ['504b0304', 'a zip archive'],
  ['377abcaf271c', 'a 7z archive'],
];

/**
 * The kind of a file by its first `HEAD_BYTES` bytes; what bears no mark is a raw disk.
 * @throws UserError `image-kind` for other formats of disks and for web pages
 */
export function kindOf(head: Uint8Array, name: string): FileKind {
  const hex = Buffer.from(head.subarray(0, 16)).toString('hex');
  const known = MAGIC.find(([, magic]) => hex.startsWith(magic));
  if (known) return known[0];
  const foreign = FOREIGN.find(([magic]) => hex.startsWith(magic))?.[1];
  const text = Buffer.from(head.subarray(0, 512)).toString('latin1').trimStart().toLowerCase();
  const page = /^<(!doctype html|html|\?xml)/.test(text) ? 'a web page' : undefined;
  const what = foreign ?? page ?? (head.length === 0 ? 'empty' : undefined);
  if (what === undefined) return 'raw';
  throw new UserError('image-kind', `'${name}' is no disk image that buildkit takes: it is ${what}`, {
    hint: page
      ? 'see that the URL is that of the image itself'
      : `make it one: qemu-img convert -O qcow2 FILE image.qcow2`,
  });
}

const DATA_FILE_BIT = 0x4;

/**
 * Bytes of the virtual disk.
 * @throws UserError `image-foreign-file` when QEMU would read other files of this machine because of it, `image-kind`
 */
export function checkQcow2(head: Uint8Array, name: string): number {
  const header = Buffer.from(head.buffer, head.byteOffset, head.length);
  if (header.length < 104) throw new UserError('image-kind', `'${name}' is cut off: a qcow2 image has a longer header`);
  const version = header.readUInt32BE(4);
  const backing = header.readBigUInt64BE(8) !== 0n;
  const dataFile = version >= 3 && (header.readUInt32BE(76) & DATA_FILE_BIT) !== 0;
  if (backing || dataFile) {
    throw new UserError('image-foreign-file', `image '${name}' names another file of this machine to read from`, {
      hint: 'an image from elsewhere must stand alone; flatten one of your own: qemu-img convert -O qcow2 FILE image.qcow2',
    });
  }
  return Number(header.readBigUInt64BE(24));
}
