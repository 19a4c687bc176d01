/** Base images from elsewhere and disks that boot by themselves: what `vm base` takes beside the plain build. */
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { UsageError } from '../core/errors.ts';
import { formatBytes } from '../core/log.ts';
import type { BaseRequest } from '../vm/base.ts';
import type { Digests } from '../vm/fetch-verify.ts';
import type { Cli, CommandContext, Output } from './command.ts';

export interface BuildFlags extends Partial<BaseRequest> {
  /** `qcow2:FILE`, `raw:FILE`, `lv:VG/NAME`, `dev:/dev/X` */
  readonly target?: string;
  readonly swap?: string;
  readonly uefi?: boolean;
  readonly plain?: boolean;
  readonly kernel?: 'cloud' | 'generic';
}

/** What `vm base build` takes for images of the user's own making. */
export function addBuildOptions(build: Command): Command {
  return addFromStage(build)
    .option(
      '--proxy <url>',
      "apt proxy for the build alone; 'auto': find or start one; default: proxy.use of buildkit.yaml",
    )
    .option('--overlay <dir>', 'files laid over the root; %DISTR% %HOSTNAME% %ARCH% are filled in')
    .option('--hooks <dir>', 'postunpack, install.sh, install-custom.sh, postconfig')
    .option('--name <hostname>', 'for %HOSTNAME% and hooks', hostName)
    .option('--target <place>', 'write a bootable disk there instead: qcow2:FILE, raw:FILE, lv:GROUP/NAME, dev:/dev/X')
    .addOption(new Option('--swap <size>', 'swap partition of the bootable disk, for example 512M'))
    .option('--uefi', 'EFI system partition on the bootable disk, beside BIOS');
}

/** Paths made absolute; flags that belong to --target refused without it. */
export function buildRequest(cx: CommandContext, flags: BuildFlags): BuildFlags {
  if (flags.target === undefined && (flags.swap !== undefined || flags.uefi)) {
    throw new UsageError('--swap and --uefi are for a bootable disk', { hint: 'add --target qcow2:FILE' });
  }
  const { overlay, hooks, plain, kernel: kernelFlavour, ...others } = flags;
  return {
    ...others,
    ...(plain ? { profile: 'plain' as const } : {}),
    ...(kernelFlavour === undefined ? {} : { kernelFlavour }),
    ...(overlay === undefined ? {} : { overlay: resolve(cx.cwd, overlay) }),
    ...(hooks === undefined ? {} : { hooks: resolve(cx.cwd, hooks) }),
  };
}

/** `vm base build --target`. @param flags of them, what was said on the command line */
export async function buildToTarget(
  cx: CommandContext,
  request: BuildFlags & { readonly suite: string; readonly target: string },
  flags: BuildFlags,
): Promise<Output> {
  const { parseTarget } = await import('../vm/disk-target.ts');
  const { buildDisk } = await import('../vm/disk-build.ts');
  const target = parseTarget(request.target);
  const isFile = 'file' in target;
  const placed = isFile ? { ...target, file: resolve(cx.cwd, target.file) } : target;
  // the size of the configuration is for files: a device is taken as it is
  const size = flags.size ?? (isFile ? request.size : undefined);
  const disk = await buildDisk(cx, { ...request, size, target: placed });
  return {
    data: disk,
    text: `written: ${disk.path} (${disk.format}, ${formatBytes(disk.sizeBytes)}, boots by itself)`,
  };
}

function hostName(value: string): string {
  if (/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(value)) return value;
  throw new UsageError(`'${value}' is no host name`, { hint: 'use lower case letters, digits and -' });
}

interface FetchFlags {
  readonly name?: string;
  readonly suite?: string;
  readonly md5?: string;
  readonly sha256?: string;
  readonly sha512?: string;
  readonly imageMd5?: string;
  readonly imageSha256?: string;
  readonly imageSha512?: string;
  readonly signature?: string;
}

/** Adds `fetch` and `update` to `vm base`. */
export function addBaseFetch(base: Command, cli: Cli): void {
  addBaseUpdate(base, cli);
  base
    .command('fetch <source>')
    .description('make a base of an image from elsewhere: URL, file or block device; gz, xz, zst, raw or qcow2')
    .option('--name <base>', 'its id; default: from the name of the file')
    .option('--suite <codename>', 'what is in it, so that machines can ask for it by suite')
    .option('--md5 <hex>', 'of what is downloaded')
    .option('--sha256 <hex>', 'of what is downloaded')
    .option('--sha512 <hex>', 'of what is downloaded')
    .option('--image-md5 <hex>', 'of the image after unpacking')
    .option('--image-sha256 <hex>', 'of the image after unpacking')
    .option('--image-sha512 <hex>', 'of the image after unpacking')
    .option('--signature <keyring>', 'keys of the publisher, whose signature must lie beside the image')
    .action(
      cli.action(async (cx, source: string, flags: FetchFlags) => {
        const { fetchBase } = await import('../vm/fetch-base.ts');
        const { name, suite, signature: keyring } = flags;
        const digests = given({ md5: flags.md5, sha256: flags.sha256, sha512: flags.sha512 });
        const { imageMd5: md5, imageSha256: sha256, imageSha512: sha512 } = flags;
        const imageDigests = given({ md5, sha256, sha512 });
        const made = await fetchBase(cx, { source, cwd: cx.cwd, name, suite, keyring, digests, imageDigests });
        const done = made.reused ? 'there already' : 'made';
        return { data: made, text: `${done}: ${made.id} (${formatBytes(made.virtualSize)}, from ${made.source})` };
      }),
    );
}

interface UpdateFlags {
  readonly proxy?: string;
  readonly fromStage?: BaseRequest['fromStage'];
}

/** Adds `update` to `vm base`. */
function addBaseUpdate(base: Command, cli: Cli): void {
  const update = base
    .command('update <base>')
    .description('make a base anew as its suite or source is now; machines of the old one stay with it')
    .option('--proxy <url>', "apt proxy for the build; 'auto': find or start one; default: proxy.use of buildkit.yaml");
  addFromStage(update).action(
    cli.action(async (cx, id: string, flags: UpdateFlags) => {
      const { proxy: config } = await cx.config();
      const { useProxy } = await import('../release/proxy-use.ts');
      const { describeUpdate, updateBase } = await import('../vm/base-update.ts');
      const { listVms } = await import('../vm/machine.ts');
      const usersOf = async (of: string) =>
        (await listVms(cx)).filter((one) => one.base === of).map(({ name }) => name);
      await using proxy = await useProxy(cx, { wanted: flags.proxy, workspaceDir: cx.workspaceDir, config });
      const updated = await updateBase(cx, id, { usersOf, proxy: proxy?.url, fromStage: flags.fromStage });
      return { data: updated, text: describeUpdate(updated) };
    }),
  );
}

function addFromStage(command: Command): Command {
  const help = 'go on with the work that a failed build of the same plan left (vm gc removes it)';
  const stages = ['bootstrap', 'postunpack', 'overlay', 'install.sh', 'install-custom.sh', 'postconfig', 'disk'];
  return command.addOption(new Option('--from-stage <stage>', help).choices(stages));
}

function given(digests: Readonly<Record<keyof Digests, string | undefined>>): Digests {
  return Object.fromEntries(Object.entries(digests).filter(([, value]) => value !== undefined));
}
