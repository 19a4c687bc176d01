/**
 * The files of a base image, made of its root: disk, kernel and initrds.
 *
 * Secret: which kernel is taken, and that the disk is one ext4 file system without partitions, since the kernel comes from outside.
 */
import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, copyFile, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { run } from '../core/run.ts';
import type { StoredCompression } from '../deb/compression.ts';
import { decompress } from '../deb/decompression.ts';
import { type BaseRecipe, chooseKernel, mke2fsArgs } from './base-plan.ts';
import type { Workshop } from './base-root.ts';
import { type InitrdModule, moduleName, planModules, tinyInitrd } from './tiny-initrd.ts';

export const TINY_INITRD = 'initrd-tiny.img';
const TIMEOUT_MS = 30 * 60_000;

export interface WrittenImage {
  readonly kernelRelease: string;
  readonly rootUuid: string;
  readonly tinyInitrd: boolean;
}

/** Writes `disk.qcow2`, `vmlinuz`, `initrd.img` and, for a fast start, the tiny initrd into `folder`. */
export async function writeImage(
  context: Context,
  recipe: BaseRecipe,
  { root, owner, logFile }: Workshop,
  folder: string,
): Promise<WrittenImage> {
  const boot = chooseKernel(await readdir(join(root, 'boot')));
  const as = (argv: readonly string[]) => {
    const [program, ...args] = owner.wrap(argv);
    return run(context, program, args, { logFile, timeoutMs: TIMEOUT_MS });
  };
  for (const [name, target] of [
    [boot.kernel, 'vmlinuz'],
    [boot.initrd, 'initrd.img'],
  ] as const) {
    await copyFile(join(root, 'boot', name), join(folder, target));
    // the initrd may be readable by its owner alone (umask in initramfs.conf)
    await chmod(join(folder, target), 0o444);
  }
  const tiny = recipe.profile === 'fast' && recipe.architecture === 'amd64';
  if (tiny) await writeTinyInitrd(context, join(root, 'lib/modules', boot.release), join(folder, TINY_INITRD));
  const rootUuid = randomUUID();
  const raw = join(folder, 'disk.raw');
  await writeFile(raw, '');
  await as(['mke2fs', ...mke2fsArgs(root, raw, rootUuid, recipe.sizeBytes)]);
  const disk = join(folder, 'disk.qcow2');
  await as(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, disk]);
  await rm(raw);
  await chmod(disk, 0o444);
  const handle = await open(disk, 'r');
  await handle.sync();
  await handle.close();
  return { kernelRelease: boot.release, rootUuid, tinyInitrd: tiny };
}

async function writeTinyInitrd(context: Context, folder: string, target: string): Promise<void> {
  const modules: InitrdModule[] = [];
  for (const path of planModules(await readFile(join(folder, 'modules.dep'), 'utf8'))) {
    const file = join(folder, path);
    const compression = { '.xz': 'xz', '.zst': 'zstd', '.gz': 'gzip' }[extname(path)] as StoredCompression | undefined;
    const chunks: Uint8Array[] = [];
    const place = { file, member: path };
    for await (const chunk of decompress(context, compression ?? 'none', createReadStream(file), place))
      chunks.push(chunk);
    modules.push({ name: `${moduleName(path)}.ko`, bytes: Buffer.concat(chunks) });
  }
  await writeFile(target, tinyInitrd(modules), { mode: 0o444 });
}
