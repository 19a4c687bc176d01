/**
 * The disk of a machine as Amazon EC2 imports it: a raw image, and the requests that make an AMI of it.
 *
 * Secret: what an instance of the Nitro kind gives a system: BIOS, NVMe disks, ENA cards, a serial console, an address by DHCP;
 * that ImportSnapshot and RegisterImage (Amazon EC2 API reference) need no more than that. The file system of a machine is put
 * behind a partition table and changed in place by debugfs(8): nothing is mounted.
 */
import { randomUUID } from 'node:crypto';
import { rename, truncate, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { ToolError, UserError } from '../core/errors.ts';
import { scratchFolder, writeFileAtomic } from '../core/files.ts';
import { run } from '../core/run.ts';
import type { Base } from './base.ts';
import { makePartitions, placeBoot } from './disk.ts';
import { refuseExisting, withDisk } from './disk-care.ts';
import { type DiskLayout, fstab, grubConfig, partitionOf, planLayout, SECTOR } from './disk-layout.ts';
import { userKey } from './key.ts';

export interface AmiOptions {
  /** Of S3, where the image is uploaded to; default: a word to be replaced. */
  readonly bucket?: string | undefined;
}

export interface AmiFiles {
  readonly image: string;
  /** For `aws ec2 import-snapshot --cli-input-json`. */
  readonly snapshotRequest: string;
  /** For `aws ec2 register-image --cli-input-json`. */
  readonly imageRequest: string;
}

const GIB = 2 ** 30;
/** As Debian's own images for EC2; a disk that is slow for a while is no broken one. */
const KERNEL_ARGS = ['console=tty0', 'console=ttyS0,115200n8', 'nvme_core.io_timeout=4294967295'];
/** Each instance makes its own. */
const IDENTITY: readonly (readonly [folder: string, ...names: string[]])[] = [
  ['/etc/ssh', ...['ed25519', 'rsa', 'ecdsa'].flatMap((kind) => [`ssh_host_${kind}_key`, `ssh_host_${kind}_key.pub`])],
  ['/var/lib/systemd', 'random-seed'],
  ['/var/lib/dbus', 'machine-id'],
];

function amiFiles(image: string): AmiFiles {
  return { image, snapshotRequest: `${image}.import-snapshot.json`, imageRequest: `${image}.register-image.json` };
}

/** The two requests, in their order. Pure. */
function amiRequests(name: string, { image }: AmiFiles, { bucket = 'BUCKET' }: AmiOptions) {
  const description = `machine '${name}' of buildkit`;
  const device = '/dev/xvda';
  return {
    snapshot: {
      Description: description,
      DiskContainer: {
        Description: description,
        Format: 'RAW',
        UserBucket: { S3Bucket: bucket, S3Key: basename(image) },
      },
    },
    image: {
      Name: name,
      Description: description,
      Architecture: 'x86_64',
      VirtualizationType: 'hvm',
      BootMode: 'legacy-bios',
      EnaSupport: true,
      RootDeviceName: device,
      BlockDeviceMappings: [
        { DeviceName: device, Ebs: { SnapshotId: 'SNAPSHOT', VolumeType: 'gp3', DeleteOnTermination: true } },
      ],
    },
  };
}

/**
 * Writes the image and the requests beside it.
 * @throws UserError `target-exists`, `vm-running`, `ami-architecture`, `disk-no-kernel`
 */
export function exportAmi(context: Context, name: string, target: string, options: AmiOptions = {}): Promise<AmiFiles> {
  const files = amiFiles(target);
  return withDisk(context, name, async (disk, record, base) => {
    if (record.architecture !== 'amd64') {
      throw new UserError('ami-architecture', `no image for EC2 is made of a machine for ${record.architecture}`);
    }
    for (const file of Object.values(files)) await refuseExisting(file);
    await using scratch = await scratchFolder(dirname(target), '.buildkit-ami-');
    const raw = join(scratch.path, 'disk.raw');
    const source = { disk, format: record.disk ?? 'qcow2' };
    if (base.bootsItself) await run(context, 'qemu-img', ['convert', '-f', source.format, '-O', 'raw', disk, raw]);
    else await makeBootable(context, source, base, raw, scratch.path);
    const requests = amiRequests(record.name, files, options);
    await writeFileAtomic(files.snapshotRequest, `${JSON.stringify(requests.snapshot, undefined, 2)}\n`);
    await writeFileAtomic(files.imageRequest, `${JSON.stringify(requests.image, undefined, 2)}\n`);
    await rename(raw, files.image);
    return files;
  });
}

/** A disk of whole GiB, as EC2 counts, whose root partition is the machine's file system. */
async function makeBootable(
  context: Context,
  source: { readonly disk: string; readonly format: string },
  base: Base,
  raw: string,
  scratch: string,
): Promise<void> {
  const { stdout } = await run(context, 'qemu-img', ['info', '--output=json', source.disk]);
  const bytes = z.object({ 'virtual-size': z.number() }).parse(JSON.parse(stdout))['virtual-size'];
  const sizeBytes = Math.ceil((bytes + 4 * 2 ** 20) / GIB) * GIB;
  const layout = {
    ...planLayout({ sizeBytes, swapBytes: 0, uefi: false }, randomUUID),
    rootUuid: base.rootUuid,
  };
  await writeFile(raw, '');
  await truncate(raw, sizeBytes);
  await makePartitions(context, layout, raw);
  const { start, sectors } = partitionOf(layout, 'root')!;
  const at = `driver=raw,offset=${start * SECTOR},size=${sectors * SECTOR},file.driver=file,file.filename=${raw.replaceAll(',', ',,')}`;
  const how = ['-n', '--target-is-zero', '-f', source.format, '--target-image-opts'];
  await run(context, 'qemu-img', ['convert', ...how, source.disk, at], { timeoutMs: 3_600_000 });
  await changeRoot(context, layout, `${raw}?offset=${start * SECTOR}`, scratch);
  await placeBoot(context, layout, raw, scratch);
}

async function changeRoot(context: Context, layout: DiskLayout, fileSystem: string, scratch: string): Promise<void> {
  const debugfs = async (...args: string[]) => (await run(context, 'debugfs', args, { cwd: scratch })).stdout;
  // 1: what a machine that did not shut down left was mended
  await run(context, 'e2fsck', ['-f', '-p', fileSystem], { okExitCodes: [1], timeoutMs: 3_600_000 });
  const [kernel, initrd] = ['/vmlinuz', '/initrd.img'] as const;
  for (const link of [kernel, initrd]) {
    if (!(await debugfs('-R', `stat ${link}`, fileSystem)).includes('Inode:')) {
      throw new UserError('disk-no-kernel', `the machine has no '${link}', the link to its kernel that Debian keeps`);
    }
  }
  const config = grubConfig(layout, kernel, initrd, KERNEL_ARGS);
  await writeFile(join(scratch, 'grub.cfg'), config);
  await writeFile(join(scratch, 'fstab'), fstab(layout, await debugfs('-R', 'cat /etc/fstab', fileSystem)));
  await writeFile(join(scratch, 'machine-id'), '');
  await writeFile(join(scratch, 'authorized_keys'), `${(await userKey(context)).publicKey.trim()}\n`);
  const keys = await debugfs('-R', 'stat /root/.ssh/authorized_keys', fileSystem);
  await writeFile(join(scratch, 'commands'), changes(keys.includes('Inode:')));
  await debugfs('-w', '-f', 'commands', fileSystem); // says nothing by its exit code
  if ((await debugfs('-R', 'cat /boot/grub/grub.cfg', fileSystem)) !== config) {
    throw new ToolError('ami-root', 'the file system of the machine does not take the files of the boot loader', {
      command: `debugfs -w ${fileSystem}`,
    });
  }
  await run(context, 'e2fsck', ['-f', '-n', fileSystem], { timeoutMs: 3_600_000 });
}

/**
 * Input of debugfs, which tells of what is not there and passes it over. Pure.
 * @param login somebody may log in; a machine that never ran knows nobody's key
 */
function changes(login: boolean): string {
  const put = (folder: string, name: string, mode: string) => [
    ...[`cd ${folder}`, `rm ${name}`, `write ${name} ${name}`, `set_inode_field ${name} mode 0100${mode}`],
    ...['uid', 'gid'].map((field) => `set_inode_field ${name} ${field} 0`),
  ];
  return [
    ...['mkdir /boot/grub', ...put('/boot/grub', 'grub.cfg', '644')],
    ...[...put('/etc', 'fstab', '644'), ...put('/etc', 'machine-id', '444')],
    ...(login ? [] : ['mkdir /root/.ssh', 'set_inode_field /root/.ssh mode 040700']),
    ...(login ? [] : put('/root/.ssh', 'authorized_keys', '600')),
    ...IDENTITY.flatMap(([folder, ...names]) => [`cd ${folder}`, ...names.map((name) => `rm ${name}`)]),
    '',
  ].join('\n');
}
