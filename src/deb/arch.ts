/**
 * Architectures: names, wildcards, and what the rest of the world calls them.
 *
 * Secret: dpkg's cputable, ostable, abitable and tupletable (dpkg 1.21 to 1.22, dpkg-architecture(1), Policy 11.1): an architecture is a
 * tuple ABI-libc-OS-CPU, and a wildcard is such a tuple with `any` in it.
 */
import { UserError } from '../core/errors.ts';
import { didYouMean } from '../core/nearest.ts';

/** Debian's name of a CPU and the GNU one, where it is another. */
const GNU_CPU: Readonly<Record<string, string>> = {
  amd64: 'x86_64',
  arm64: 'aarch64',
  armeb: 'armeb',
  i386: 'i686',
  loong64: 'loongarch64',
  mipsr6: 'mipsisa32r6',
  mipsr6el: 'mipsisa32r6el',
  mips64r6: 'mipsisa64r6',
  mips64r6el: 'mipsisa64r6el',
  powerpcel: 'powerpcle',
  ppc64: 'powerpc64',
  ppc64el: 'powerpc64le',
};

const CPUS =
  'alpha amd64 arc armeb arm arm64 avr32 hppa loong64 i386 ia64 m32r m68k mips mipsel mipsr6 mipsr6el mips64 mips64el mips64r6 mips64r6el nios2 or1k powerpc powerpcel ppc64 ppc64el riscv64 s390 s390x sh3 sh3eb sh4 sh4eb sparc sparc64 tilegx'.split(
    ' ',
  );

/** dpkg's tupletable: tuple and architecture; `<cpu>` stands for every CPU. The first line that fits counts. */
const TUPLES: readonly (readonly [tuple: string, architecture: string])[] = [
  ['eabi-uclibc-linux-arm', 'uclibc-linux-armel'],
  ['base-uclibc-linux-<cpu>', 'uclibc-linux-<cpu>'],
  ['eabihf-musl-linux-arm', 'musl-linux-armhf'],
  ['base-musl-linux-<cpu>', 'musl-linux-<cpu>'],
  ['ilp32-gnu-linux-arm64', 'arm64ilp32'],
  ['eabihf-gnu-linux-arm', 'armhf'],
  ['eabi-gnu-linux-arm', 'armel'],
  ['abin32-gnu-linux-mips64r6el', 'mipsn32r6el'],
  ['abin32-gnu-linux-mips64r6', 'mipsn32r6'],
  ['abin32-gnu-linux-mips64el', 'mipsn32el'],
  ['abin32-gnu-linux-mips64', 'mipsn32'],
  ['abi64-gnu-linux-mips64r6el', 'mips64r6el'],
  ['abi64-gnu-linux-mips64r6', 'mips64r6'],
  ['abi64-gnu-linux-mips64el', 'mips64el'],
  ['abi64-gnu-linux-mips64', 'mips64'],
  ['spe-gnu-linux-powerpc', 'powerpcspe'],
  ['x32-gnu-linux-amd64', 'x32'],
  ['base-gnu-linux-<cpu>', '<cpu>'],
  ['eabihf-gnu-kfreebsd-arm', 'kfreebsd-armhf'],
  ['base-gnu-kfreebsd-<cpu>', 'kfreebsd-<cpu>'],
  ['base-gnu-knetbsd-<cpu>', 'knetbsd-<cpu>'],
  ['base-gnu-kopensolaris-<cpu>', 'kopensolaris-<cpu>'],
  ['base-gnu-hurd-<cpu>', 'hurd-<cpu>'],
  ['base-bsd-dragonflybsd-<cpu>', 'dragonflybsd-<cpu>'],
  ['base-bsd-freebsd-<cpu>', 'freebsd-<cpu>'],
  ['base-bsd-openbsd-<cpu>', 'openbsd-<cpu>'],
  ['base-bsd-netbsd-<cpu>', 'netbsd-<cpu>'],
  ['base-bsd-darwin-<cpu>', 'darwin-<cpu>'],
  ['base-sysv-aix-<cpu>', 'aix-<cpu>'],
  ['base-sysv-solaris-<cpu>', 'solaris-<cpu>'],
  ['eabi-uclibc-uclinux-arm', 'uclinux-armel'],
  ['base-uclibc-uclinux-<cpu>', 'uclinux-<cpu>'],
  ['base-tos-mint-m68k', 'mint-m68k'],
];

/** dpkg's ostable: the GNU system of ABI-libc-OS. */
const GNU_SYSTEM: Readonly<Record<string, string>> = {
  'eabi-uclibc-linux': 'linux-uclibceabi',
  'base-uclibc-linux': 'linux-uclibc',
  'eabihf-musl-linux': 'linux-musleabihf',
  'base-musl-linux': 'linux-musl',
  'eabihf-gnu-linux': 'linux-gnueabihf',
  'eabi-gnu-linux': 'linux-gnueabi',
  'abin32-gnu-linux': 'linux-gnuabin32',
  'abi64-gnu-linux': 'linux-gnuabi64',
  'spe-gnu-linux': 'linux-gnuspe',
  'x32-gnu-linux': 'linux-gnux32',
  'ilp32-gnu-linux': 'linux-gnu_ilp32',
  'base-gnu-linux': 'linux-gnu',
  'eabihf-gnu-kfreebsd': 'kfreebsd-gnueabihf',
  'base-gnu-kfreebsd': 'kfreebsd-gnu',
  'base-gnu-knetbsd': 'knetbsd-gnu',
  'base-gnu-kopensolaris': 'kopensolaris-gnu',
  'base-gnu-hurd': 'gnu',
  'base-bsd-darwin': 'darwin',
  'base-bsd-dragonflybsd': 'dragonflybsd',
  'base-bsd-freebsd': 'freebsd',
  'base-bsd-netbsd': 'netbsd',
  'base-bsd-openbsd': 'openbsd',
  'base-sysv-aix': 'aix',
  'base-sysv-solaris': 'solaris',
  'eabi-uclibc-uclinux': 'uclinux-uclibceabi',
  'base-uclibc-uclinux': 'uclinux-uclibc',
  'base-tos-mint': 'mint',
};

/** What `uname -m` and Node's `process.arch` say, where Debian has another name. */
const DEBIAN_NAME: Readonly<Record<string, string>> = {
  x64: 'amd64',
  x86_64: 'amd64',
  aarch64: 'arm64',
  arm: 'armhf',
  armv7l: 'armhf',
  armv6l: 'armel',
  armv5tel: 'armel',
  ia32: 'i386',
  i486: 'i386',
  i586: 'i386',
  i686: 'i386',
  loongarch64: 'loong64',
  ppc64: 'ppc64el', // Node's only 64 bit PowerPC port on Linux is little endian
  ppc64le: 'ppc64el',
  s390: 's390x',
};

type Tuple = readonly [abi: string, libc: string, os: string, cpu: string];

/** True for `all` and every architecture that dpkg knows; false for wildcards and `source`. */
export function isArch(name: string): boolean {
  return name === 'all' || tupleOf(name) !== undefined;
}

/** True for `any`, `linux-any`, `any-amd64`, `gnu-any-any` and the like. */
export function isArchWildcard(name: string): boolean {
  return name.split('-').includes('any') && wildcardTuple(name) !== undefined;
}

/**
 * True when `wildcard` (which may be a plain architecture) means `architecture`, as `dpkg-architecture --is`.
 * `all` is meant by `all` alone.
 */
export function archMatches(wildcard: string, architecture: string): boolean {
  if (wildcard === architecture) return true;
  const wanted = wildcardTuple(wildcard);
  const tuple = tupleOf(architecture);
  return (
    wanted !== undefined &&
    tuple !== undefined &&
    wanted.every((part, index) => part === 'any' || part === tuple[index])
  );
}

/**
 * The GNU system type, as `dpkg-architecture -q DEB_HOST_GNU_TYPE`: `amd64` -> `x86_64-linux-gnu`, `i386` -> `i686-linux-gnu`.
 * @throws UserError `unknown-architecture`
 */
export function gnuTriplet(architecture: string): string {
  const tuple = tupleOf(architecture);
  const system = tuple === undefined ? undefined : GNU_SYSTEM[tuple.slice(0, 3).join('-')];
  if (tuple === undefined || system === undefined) throw unknownArch(architecture);
  const [, , , cpu] = tuple;
  return `${GNU_CPU[cpu] ?? cpu}-${system}`;
}

/**
 * The name of the library folders below /usr/lib, as `dpkg-architecture -q DEB_HOST_MULTIARCH`: `i386` -> `i386-linux-gnu`.
 * @throws UserError `unknown-architecture`
 */
export function multiarchTriplet(architecture: string): string {
  return gnuTriplet(architecture).replace(/^i[4-7]86-/, 'i386-');
}

/**
 * Debian's name for what `process.arch` or `uname -m` calls a machine: `x64` and `x86_64` -> `amd64`.
 * @throws UserError `unknown-architecture`
 */
export function debArch(machine: string): string {
  const name = Object.hasOwn(DEBIAN_NAME, machine) ? DEBIAN_NAME[machine]! : machine;
  if (name === 'all' || tupleOf(name) === undefined) throw unknownArch(machine);
  return name;
}

function unknownArch(name: string): UserError {
  return new UserError('unknown-architecture', `'${name}' is not an architecture that Debian knows`, {
    hint: didYouMean(name, [
      'all',
      'amd64',
      'arm64',
      'armhf',
      'armel',
      'i386',
      'ppc64el',
      'riscv64',
      's390x',
      'mips64el',
      'loong64',
    ]),
  });
}

function tupleOf(architecture: string): Tuple | undefined {
  const cpu = architecture.slice(architecture.lastIndexOf('-') + 1);
  for (const [tuple, name] of TUPLES) {
    if (name === architecture) return tuple.split('-') as unknown as Tuple;
    if (name.endsWith('<cpu>') && CPUS.includes(cpu) && name.replace('<cpu>', cpu) === architecture) {
      return tuple.replace('<cpu>', cpu).split('-') as unknown as Tuple;
    }
  }
  return undefined;
}

/** Fills a short wildcard up from the left, as dpkg does: `linux-any` is `any-any-linux-any`. A plain name is its own tuple. */
function wildcardTuple(name: string): Tuple | undefined {
  const parts = name.split('-');
  if (!parts.includes('any')) return tupleOf(name);
  if (parts.length > 4) return undefined;
  const padding = Array.from({ length: 4 - parts.length }, () => 'any');
  return [...padding, ...parts] as unknown as Tuple;
}
