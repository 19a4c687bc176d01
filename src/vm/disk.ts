/**
 * Disks that boot by themselves: GPT with a BIOS boot partition, swap and an ext4 root, GRUB in place, written by offset.
 *
 * Secret: where GRUB's images go and which of their bytes name a sector, so that no loop device and no mount is needed.
 */

/** Where a disk is written: `qcow2:FILE`, `raw:FILE`, `lv:VG/NAME`, `dev:/dev/X`. */
export type DiskTarget =
  | { readonly kind: 'qcow2' | 'raw'; readonly file: string }
  | { readonly kind: 'lv'; readonly group: string; readonly name: string }
  | { readonly kind: 'dev'; readonly device: string };

export interface DiskRequest {
  /** Folder with the root file system, owners and modes as they shall be. */
  readonly root: string;
  readonly target: DiskTarget;
  /** Bytes of the whole disk. */
  readonly sizeBytes: number;
  readonly swapBytes: number;
  /** An EFI system partition beside the BIOS one. */
  readonly uefi: boolean;
  /** Overwrite a target that holds something. */
  readonly force: boolean;
}
