/**
 * .rpm files of built packages, for those who must have them too.
 *
 * Secret: alien's command line and the names that it gives (alien(1p)); it needs to be root, and works in the folder it is run in.
 */
import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { run } from '../core/run.ts';
import type { BinaryPackage } from '../deb/package.ts';
import { workFolder } from './cache.ts';
import { placeFile } from './place.ts';

const LIMIT_MS = 20 * 60 * 1000;
/** rpm's words for Debian's architectures; rpm refuses to build for what it does not know. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  all: 'noarch',
  amd64: 'x86_64',
  arm64: 'aarch64',
  armhf: 'armv7hl',
  i386: 'i386',
  ppc64el: 'ppc64le',
  s390x: 's390x',
  riscv64: 'riscv64',
};

/** @returns the .rpm file in `outDir`. @throws UserError `rpm-rights`; ToolError where alien is missing or fails */
export async function makeRpm(context: Context, one: BinaryPackage, outDir: string): Promise<string> {
  if (process.getuid?.() !== 0) {
    throw new UserError('rpm-rights', 'alien must be root to keep the owners of files', {
      hint: 'run the command as root, or in fakeroot',
    });
  }
  await using scratch = await workFolder(context);
  await copyFile(one.path, join(scratch.path, basename(one.path)));
  const target = ARCHITECTURES[one.architecture] ?? one.architecture;
  const args = ['--to-rpm', '--scripts', '--keep-version', `--target=${target}`, basename(one.path)];
  await run(context, 'alien', args, { cwd: scratch.path, timeoutMs: LIMIT_MS, env: { HOME: scratch.path } });
  const made = (await readdir(scratch.path)).find((name) => name.endsWith('.rpm'));
  if (made === undefined) throw new UserError('rpm-missing', `alien made no .rpm of '${one.name}'`);
  await mkdir(outDir, { recursive: true });
  const path = join(outDir, made);
  await placeFile(join(scratch.path, made), path);
  return path;
}
