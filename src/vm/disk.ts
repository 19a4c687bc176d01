/**
 * Disks that boot by themselves: GPT with a BIOS boot partition, swap and an ext4 root, GRUB in place, written by offset.
 *
 * Secret: that no loop device and no mount is needed: mke2fs fills the root at its offset, GRUB's and swap's few sectors are
 * computed, the EFI partition is made by mtools; the finished image then goes to its place in one step.
 */
import { randomUUID } from 'node:crypto';
import { open, readFile, readlink, rename, stat, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { namesIn, readIfThere, scratchFolder } from '../core/files.ts';
import { run } from '../core/run.ts';
import {
  type DiskLayout,
  fstab,
  grubConfig,
  grubEarlyConfig,
  type Partition,
  type Placed,
  partitionOf,
  placeGrub,
  planLayout,
  SECTOR,
  sfdiskScript,
  swapHeader,
} from './disk-layout.ts';
import {
  type DiskTarget,
  decideTarget,
  examineTarget,
  lvcreateArgs,
  lvremoveArgs,
  pathOf,
  type TargetDecision,
} from './disk-target.ts';

export interface DiskRequest {
  /** Folder with the root file system, owners and modes as they shall be; fstab and grub.cfg are written into it. */
  readonly root: string;
  readonly target: DiskTarget;
  /** Bytes of the whole disk; undefined: a device as it is, else 8 GiB. */
  readonly sizeBytes?: number | undefined;
  /** 0: no swap partition. */
  readonly swapBytes: number;
  /** An EFI system partition beside the BIOS one: the disk boots both ways. */
  readonly uefi: boolean;
  /** Overwrite a target that holds something. */
  readonly force: boolean;
  /** Puts a command in front that runs it as owner of `root`'s files. */
  readonly wrap?: ((argv: readonly string[]) => readonly [program: string, ...args: string[]]) | undefined;
  /** Told of the folder that holds the unfinished disk, for the case that nobody is left to remove it. */
  readonly onScratch?: ((folder: string) => Promise<void>) | undefined;
  /** Instead of the name in the tree. */
  readonly hostname?: string | undefined;
  /** Added to the kernel's command line; default: console on screen and serial line. */
  readonly kernelArgs?: readonly string[] | undefined;
}

export interface WrittenDisk {
  readonly path: string;
  readonly format: 'qcow2' | 'raw';
  readonly sizeBytes: number;
  readonly rootUuid: string;
  readonly partitions: readonly Partition[];
  /** The target was there and blank, or overwritten by force. */
  readonly reused: boolean;
}

export interface DiskPlan {
  readonly path: string;
  readonly decision: TargetDecision;
  readonly layout: DiskLayout;
}

const MIB = 1024 ** 2;
/** Of a GPT, at the end of a disk: 32 sectors of entries and the header. */
const BACKUP_TABLE = 33 * SECTOR;
const DEFAULT_BYTES = 8 * 1024 ** 3;
const CONSOLES = ['console=tty0', 'console=ttyS0,115200'];
const GRUB_DIR = '/usr/lib/grub';
const GRUB_MODULES = [
  ...['part_gpt', 'ext2', 'search', 'search_fs_uuid', 'normal', 'configfile', 'linux', 'gzio'],
  ...['echo', 'test', 'ls', 'cat', 'serial', 'terminal', 'minicmd', 'reboot', 'halt'],
];

/** The same features on every host, so that GRUB and the e2fsck of an older suite can read what a newer mke2fs writes. */
const MKE2FS_CONF = `[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
default_mntopts = acl,user_xattr
enable_periodic_fsck = 0
blocksize = 4096
inode_size = 256
inode_ratio = 16384
[fs_types]
ext4 = {
  features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
}
`;

/**
 * What `writeDisk` would do. Reads only.
 * @throws UserError as `decideTarget` and `planLayout` do
 */
export async function planDisk(
  context: Context,
  request: Omit<DiskRequest, 'root' | 'wrap' | 'onScratch'>,
): Promise<DiskPlan> {
  const facts = await examineTarget(context, request.target);
  const { sizeBytes, force, swapBytes, uefi } = request;
  const decision = decideTarget(request.target, facts, { sizeBytes, defaultBytes: DEFAULT_BYTES, force });
  const layout = planLayout({ sizeBytes: decision.sizeBytes, swapBytes, uefi }, randomUUID);
  return { path: facts.path, decision, layout };
}

/**
 * Writes the disk. A file appears whole or not at all; a device is written last, when everything else has succeeded.
 * @throws UserError as `planDisk` does, `disk-no-kernel`, `grub-missing`; ToolError when a program fails
 */
export async function writeDisk(context: Context, request: DiskRequest): Promise<WrittenDisk> {
  await planDisk(context, request); // refuse before anything is made
  await using undo = new AsyncDisposableStack();
  await createVolume(context, request, undo);
  const { path, decision, layout } = await planDisk(context, request);
  const { target } = request;
  const isFile = target.kind === 'qcow2' || target.kind === 'raw';
  await using scratch = await scratchFolder(isFile ? dirname(path) : context.cacheDir, '.buildkit-disk-');
  await request.onScratch?.(scratch.path);
  const raw = join(scratch.path, 'disk.raw');
  await prepareTree(context, request, layout);
  await makeImage(context, request, layout, raw, scratch.path);
  await deliver(context, target, raw, path, scratch.path);
  undo.move(); // the volume stays
  return {
    path,
    format: target.kind === 'qcow2' ? 'qcow2' : 'raw',
    sizeBytes: layout.sizeBytes,
    rootUuid: layout.rootUuid,
    partitions: layout.partitions,
    reused: decision.action === 'reuse',
  };
}

/** A missing logical volume is made first: its size, rounded to extents, decides the layout. */
async function createVolume(context: Context, request: DiskRequest, undo: AsyncDisposableStack): Promise<void> {
  const { target } = request;
  if (target.kind !== 'lv' || (await examineTarget(context, target)).kind !== 'missing') return;
  await run(context, 'lvcreate', lvcreateArgs(target, request.sizeBytes ?? DEFAULT_BYTES), { timeoutMs: 60_000 });
  undo.defer(async () => {
    const { signal: _aborted, ...calm } = context; // also on Ctrl-C
    await run(calm, 'lvremove', lvremoveArgs(target), { timeoutMs: 60_000 });
  });
}

async function prepareTree(context: Context, request: DiskRequest, layout: DiskLayout): Promise<void> {
  const { root } = request;
  const { kernel, initrd } = await findKernel(root);
  const config = grubConfig(layout, kernel, initrd, request.kernelArgs ?? CONSOLES);
  await writeAsOwner(context, request, join(root, 'boot/grub/grub.cfg'), config);
  const table = fstab(layout, (await readIfThere(join(root, 'etc/fstab'))) ?? '');
  await writeAsOwner(context, request, join(root, 'etc/fstab'), table);
  const { hostname } = request;
  if (hostname === undefined) return;
  await writeAsOwner(context, request, join(root, 'etc/hostname'), `${hostname}\n`);
  await writeAsOwner(
    context,
    request,
    join(root, 'etc/hosts'),
    `127.0.0.1 localhost\n127.0.1.1 ${hostname}\n::1 localhost\n`,
  );
}

async function writeAsOwner(context: Context, { wrap }: DiskRequest, path: string, text: string): Promise<void> {
  const script = 'umask 022; mkdir -p "$(dirname "$1")" && cat >"$1"';
  const argv = ['sh', '-c', script, 'sh', path] as const;
  const [program, ...args] = wrap?.(argv) ?? argv;
  await run(context, program, args, { input: text });
}

/**
 * Kernel and initrd as GRUB shall name them: Debian's links where they are, else the newest pair in /boot.
 * @throws UserError `disk-no-kernel`
 */
async function findKernel(root: string): Promise<{ kernel: string; initrd: string }> {
  const names = new Set(await namesIn(join(root, 'boot')));
  const linked = async (link: string) => {
    const target = await linkTarget(join(root, link));
    return target !== undefined && names.has(basename(target)) ? `/${link}` : undefined;
  };
  const [kernel, initrd] = [await linked('vmlinuz'), await linked('initrd.img')];
  if (kernel && initrd) return { kernel, initrd };
  const newest = [...names]
    .flatMap((name) => (name.startsWith('vmlinuz-') ? [name.slice('vmlinuz-'.length)] : []))
    .filter((release) => names.has(`initrd.img-${release}`))
    .toSorted((a, b) => b.localeCompare(a, 'en', { numeric: true }))[0];
  if (newest !== undefined) return { kernel: `/boot/vmlinuz-${newest}`, initrd: `/boot/initrd.img-${newest}` };
  throw new UserError('disk-no-kernel', 'the root file system has no kernel with an initrd in /boot', {
    hint: 'include a kernel package, for example --include linux-image-cloud-amd64',
  });
}

async function linkTarget(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'EINVAL') return undefined;
    throw error;
  }
}

async function makeImage(
  context: Context,
  request: DiskRequest,
  layout: DiskLayout,
  raw: string,
  scratch: string,
): Promise<void> {
  await writeFile(raw, '');
  await truncate(raw, layout.sizeBytes);
  await makePartitions(context, layout, raw);
  await makeRoot(context, request, layout, raw, scratch);
  await placeBoot(context, layout, raw, scratch);
}

/** Writes the table of partitions. */
export async function makePartitions(context: Context, layout: DiskLayout, raw: string): Promise<void> {
  await run(context, 'sfdisk', ['--quiet', '--no-reread', '--no-tell-kernel', raw], { input: sfdiskScript(layout) });
}

/** Writes all but the root file system: GRUB, swap, the EFI partition. */
export async function placeBoot(context: Context, layout: DiskLayout, raw: string, scratch: string): Promise<void> {
  const placed = await biosGrub(context, layout, scratch);
  const swap = partitionOf(layout, 'swap');
  if (swap) {
    placed.push({ offset: swap.start * SECTOR, bytes: swapHeader(layout.swapUuid, swap.sectors * SECTOR) });
  }
  const esp = partitionOf(layout, 'esp');
  if (esp) placed.push({ offset: esp.start * SECTOR, bytes: await espImage(context, layout, esp, scratch) });
  await place(raw, placed);
}

async function makeRoot(
  context: Context,
  { root: tree, wrap }: DiskRequest,
  layout: DiskLayout,
  raw: string,
  scratch: string,
): Promise<void> {
  const root = partitionOf(layout, 'root')!;
  const config = join(scratch, 'mke2fs.conf');
  await writeFile(config, MKE2FS_CONF);
  // inode tables are written now instead of in the first minutes of each machine
  const extended = `offset=${root.start * SECTOR},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard`;
  const options = [
    '-q',
    '-F',
    '-t',
    'ext4',
    '-d',
    tree,
    '-L',
    'root',
    '-U',
    layout.rootUuid,
    '-m',
    '1',
    '-E',
    extended,
  ];
  const argv = ['mke2fs', ...options, raw, `${(root.sectors * SECTOR) / 1024}k`] as const;
  const [program, ...args] = wrap?.(argv) ?? argv;
  await run(context, program, args, { env: { MKE2FS_CONFIG: config }, timeoutMs: 3_600_000 });
}

async function biosGrub(context: Context, layout: DiskLayout, scratch: string): Promise<Placed[]> {
  const core = join(scratch, 'core.img');
  await makeGrub(context, 'i386-pc', layout, core, scratch, ['biosdisk']);
  const bios = partitionOf(layout, 'bios')!;
  return placeGrub(await readFile(join(GRUB_DIR, 'i386-pc/boot.img')), await readFile(core), bios);
}

async function makeGrub(
  context: Context,
  format: 'i386-pc' | 'x86_64-efi',
  layout: DiskLayout,
  output: string,
  scratch: string,
  modules: readonly string[],
): Promise<void> {
  const folder = join(GRUB_DIR, format);
  const names = await namesIn(folder);
  if (!names.includes('normal.mod')) {
    const debianPackage = format === 'i386-pc' ? 'grub-pc-bin' : 'grub-efi-amd64-bin';
    throw new UserError('grub-missing', `GRUB for ${format} is not installed`, {
      hint: `apt-get install ${debianPackage}`,
    });
  }
  const early = join(scratch, `early-${format}.cfg`);
  await writeFile(early, grubEarlyConfig(layout));
  const options = ['-O', format, '-d', folder, '-o', output, '-c', early, '-p', '/boot/grub'];
  await run(context, 'grub-mkimage', [...options, ...modules, ...GRUB_MODULES], { timeoutMs: 120_000 });
}

/** A FAT file system with GRUB at the place where firmware looks without being told (UEFI 2.10, 3.5.1.1). */
async function espImage(context: Context, layout: DiskLayout, esp: Partition, scratch: string): Promise<Uint8Array> {
  const program = join(scratch, 'BOOTX64.EFI');
  await makeGrub(context, 'x86_64-efi', layout, program, scratch, ['fat']);
  const image = join(scratch, 'esp.img');
  await writeFile(image, '');
  await truncate(image, esp.sectors * SECTOR);
  await run(context, 'mformat', ['-i', image, '-F', '-v', 'EFI', '::']);
  await run(context, 'mmd', ['-i', image, '::/EFI', '::/EFI/BOOT']);
  await run(context, 'mcopy', ['-i', image, program, '::/EFI/BOOT/BOOTX64.EFI']);
  return readFile(image);
}

async function place(raw: string, placed: readonly Placed[]): Promise<void> {
  const file = await open(raw, 'r+');
  try {
    for (const { offset, bytes } of placed) {
      for (let at = 0; at < bytes.length; at += 65_536) {
        const part = bytes.subarray(at, at + 65_536);
        if (part.some((byte) => byte !== 0)) await file.write(part, 0, part.length, offset + at); // holes stay holes
      }
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

async function deliver(
  context: Context,
  target: DiskTarget,
  raw: string,
  path: string,
  scratch: string,
): Promise<void> {
  if (target.kind === 'raw') {
    await rename(raw, path);
    return;
  }
  if (target.kind === 'qcow2') {
    const finished = join(scratch, 'disk.qcow2');
    await run(context, 'qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, finished], { timeoutMs: 3_600_000 });
    await rename(finished, path);
    return;
  }
  await deliverToDevice(context, raw, pathOf(target));
}

/** The table goes last: a device that was written in part looks blank, and the next build may take it. */
async function deliverToDevice(context: Context, raw: string, device: string): Promise<void> {
  const { size } = await stat(raw);
  const ends = [await takeOut(raw, 0, MIB), await takeOut(raw, size - BACKUP_TABLE, BACKUP_TABLE)];
  await run(context, 'qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', raw, device], { timeoutMs: 3_600_000 });
  await run(context, 'blockdev', ['--flushbufs', device]);
  const file = await open(device, 'r+');
  try {
    for (const { offset, bytes } of ends.toReversed()) await file.write(bytes, 0, bytes.length, offset);
    await file.sync();
  } finally {
    await file.close();
  }
  await run(context, 'blockdev', ['--flushbufs', device]);
}

/** Reads a part of a file and leaves zeros there. */
async function takeOut(path: string, offset: number, length: number): Promise<Placed> {
  const file = await open(path, 'r+');
  try {
    const bytes = Buffer.alloc(length);
    await file.read(bytes, 0, length, offset);
    await file.write(Buffer.alloc(length), 0, length, offset);
    return { offset, bytes };
  } finally {
    await file.close();
  }
}
