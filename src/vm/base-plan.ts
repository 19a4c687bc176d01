/**
 * How a base image is made, as plain values: the recipe that names it, and the command lines.
 *
 * Secret: which packages make a machine that can be tested in (mmdebstrap(1), mke2fs(8)).
 */
import { createHash } from 'node:crypto';
import { UserError } from '../core/errors.ts';
import type { AptSource } from '../deb/sources.ts';
import { formatSource } from '../deb/sources.ts';
import { suiteFacts } from '../deb/suites.ts';
import { type BootProfile, customizeHook, guestFiles } from './guest.ts';
import { parseSize } from './size.ts';

/** Everything that decides the content of a base image, but for the day: mirrors move on. */
export interface BaseRecipe {
  readonly suite: string;
  readonly architecture: string;
  readonly sources: readonly AptSource[];
  /** Sorted. */
  readonly packages: readonly string[];
  readonly sizeBytes: number;
  /** The script that mmdebstrap runs last. */
  readonly hook: string;
  readonly profile: BootProfile;
  /** Digest of overlay and hooks; absent when there are none. */
  readonly customization?: string;
}

/** `cloud` has few drivers and a small initrd; `generic` has all, among them 9p for shared folders. */
export type KernelFlavour = 'cloud' | 'generic';
const ARCHITECTURES = ['amd64', 'arm64'];

function kernelPackage(flavour: KernelFlavour, architecture: string): string {
  return flavour === 'cloud' ? `linux-image-cloud-${architecture}` : `linux-image-${architecture}`;
}

/**
 * systemd, udev and dbus because packages talk to them; ssh because buildkit does; iproute2, netbase and ca-certificates
 * because a machine without them resembles none.
 */
const PACKAGES = ['ca-certificates', 'dbus', 'iproute2', 'netbase', 'openssh-server', 'systemd-sysv', 'udev'];
const DEFAULT_SIZE = '8G';
const MINIMUM_BYTES = 2 ** 30;

export interface RecipeRequest {
  readonly suite: string;
  readonly architecture: string;
  readonly size?: string | undefined;
  readonly include?: readonly string[] | undefined;
  readonly customization?: string | undefined;
  /** Default: fast. */
  readonly profile?: BootProfile | undefined;
  /** Default: cloud. */
  readonly kernel?: KernelFlavour | undefined;
}

/** @throws UserError `unknown-suite`, `vm-architecture`, `size`, `package-name` */
export function planRecipe(request: RecipeRequest, sources: readonly AptSource[]): BaseRecipe {
  const { codename } = suiteFacts(request.suite);
  const { profile = 'fast' } = request;
  if (!ARCHITECTURES.includes(request.architecture)) {
    throw new UserError('vm-architecture', `buildkit has no machine for architecture '${request.architecture}'`, {
      hint: `known: ${ARCHITECTURES.join(', ')}`,
    });
  }
  const kernel = kernelPackage(request.kernel ?? 'cloud', request.architecture);
  const include = request.include ?? [];
  const bad = include.find((name) => !/^[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?(=[A-Za-z0-9.+~:-]+)?$/.test(name));
  if (bad !== undefined) throw new UserError('package-name', `'${bad}' is no name of a Debian package`);
  const sizeBytes = parseSize(request.size ?? DEFAULT_SIZE);
  if (sizeBytes < MINIMUM_BYTES) throw new UserError('size', `'${request.size}' is too small: a machine needs 1G`);
  return {
    suite: codename,
    architecture: request.architecture,
    sources,
    packages: [...new Set([...PACKAGES, kernel, ...include])].sort(),
    sizeBytes,
    hook: customizeHook(guestFiles(sources, profile), profile),
    profile,
    ...(request.customization === undefined ? {} : { customization: request.customization }),
  };
}

/** Names the recipe: two requests with the same digest share one base. */
export function recipeDigest(recipe: BaseRecipe): string {
  return createHash('sha256').update(JSON.stringify(recipe)).digest('hex');
}

export interface BuildPlaces {
  /** Folder that mmdebstrap makes or goes on with. */
  readonly root: string;
  /** The program that it runs at the end. */
  readonly hookFile: string;
  readonly sourcesFile: string;
}

/** What mmdebstrap reads its sources from. */
export function sourcesFile(recipe: BaseRecipe): string {
  return recipe.sources.map(formatSource).join('\n');
}

/** `mmdebstrap ...` for a folder with owners and modes as they shall be; run as root, or as root of a user namespace. */
export function mmdebstrapArgs(recipe: BaseRecipe, places: BuildPlaces): string[] {
  return [
    '--mode=root',
    '--variant=minbase',
    '--format=directory',
    `--architectures=${recipe.architecture}`,
    `--include=${recipe.packages.join(',')}`,
    // the guest's first apt-get update then asks only what changed
    '--skip=cleanup/apt/lists',
    `--customize-hook=${places.hookFile}`,
    recipe.suite,
    places.root,
    places.sourcesFile,
  ];
}

/** `mmdebstrap ...` that does nothing but run a hook in a root that is there, with all that it prepares for hooks. */
export function stageArgs(recipe: BaseRecipe, places: BuildPlaces): string[] {
  return [
    '--quiet',
    '--mode=root',
    '--variant=custom',
    '--format=directory',
    `--architectures=${recipe.architecture}`,
    // without its setup, its cleanup would clean this machine's own apt
    '--skip=check/empty,check/signed-by,setup,update,cleanup',
    `--customize-hook=${places.hookFile}`,
    recipe.suite,
    places.root,
    places.sourcesFile,
  ];
}

/** An ext4 file system with the content of `root`, its inode tables written now instead of in the guest's first minutes. */
export function mke2fsArgs(root: string, image: string, uuid: string, sizeBytes: number): string[] {
  return [
    ...['-q', '-F', '-t', 'ext4', '-L', 'root', '-U', uuid, '-m', '1'],
    ...[
      '-E',
      'lazy_itable_init=0,lazy_journal_init=0,nodiscard',
      '-d',
      root,
      image,
      `${Math.floor(sizeBytes / 1024)}k`,
    ],
  ];
}

/** The newest of the kernels in /boot, by name as Debian writes them. @throws UserError `base-no-kernel` */
export function chooseKernel(names: readonly string[]): { release: string; kernel: string; initrd: string } {
  const releases = names
    .flatMap((name) => (name.startsWith('vmlinuz-') ? [name.slice('vmlinuz-'.length)] : []))
    .filter((release) => names.includes(`initrd.img-${release}`))
    .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const release = releases.at(-1);
  if (release === undefined) {
    throw new UserError('base-no-kernel', 'no kernel with an initrd was installed', {
      hint: 'see the log of the build',
    });
  }
  return { release, kernel: `vmlinuz-${release}`, initrd: `initrd.img-${release}` };
}
