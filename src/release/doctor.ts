/**
 * What a machine needs for which job, what of it is missing, and the one apt-get line that mends it.
 *
 * The table is data; looking (starting programs) and mending (apt-get) are apart from it.
 */
import { access, constants, statfs } from 'node:fs/promises';
import type { Context } from '../core/context.ts';
import { errnoOf, ToolError, UserError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { formatBytes } from '../core/log.ts';
import { hasProgram, run } from '../core/run.ts';
import { knownAccel } from '../vm/accel.ts';

/** `use`: the commands; `quickstart`: what `npm run quickstart` needs; `test`: what `npm test` needs on top; `bench`: the peers. */
export type DoctorGoal = 'use' | 'quickstart' | 'test' | 'bench';

type Probe = { readonly program: string } | { readonly python: string } | { readonly file: string };

interface Requirement {
  readonly package: string;
  readonly probe: Probe;
  /** What does not work without it. */
  readonly needed: string;
  readonly since: DoctorGoal;
}

const GOALS: readonly DoctorGoal[] = ['use', 'quickstart', 'test', 'bench'];

const REQUIREMENTS: readonly Requirement[] = [
  { package: 'apt', probe: { program: 'apt-get' }, needed: 'finding the Debian mirror', since: 'use' },
  {
    package: 'dpkg-dev',
    probe: { program: 'dpkg-shlibdeps' },
    needed: 'shared library dependencies (pkg build)',
    since: 'use',
  },
  {
    package: 'binutils',
    probe: { program: 'objdump' },
    needed: 'shared library dependencies (pkg build)',
    since: 'use',
  },
  { package: 'xz-utils', probe: { program: 'xz' }, needed: '.deb files and indexes', since: 'use' },
  { package: 'python3', probe: { program: '/usr/bin/python3' }, needed: 'Python packages (pkg build)', since: 'use' },
  {
    package: 'python3-pip',
    probe: { python: 'pip' },
    needed: 'resolving Python dependencies (pkg build)',
    since: 'use',
  },
  {
    package: 'mmdebstrap',
    probe: { program: 'mmdebstrap' },
    needed: 'build roots (pkg root), base images (vm base build)',
    since: 'use',
  },
  { package: 'e2fsprogs', probe: { program: 'mke2fs' }, needed: 'base images (vm base build)', since: 'use' },
  { package: 'qemu-utils', probe: { program: 'qemu-img' }, needed: 'disks of machines (vm)', since: 'use' },
  { package: 'qemu-system-x86', probe: { program: 'qemu-system-x86_64' }, needed: 'machines (vm)', since: 'use' },
  { package: 'openssh-client', probe: { program: 'ssh-keygen' }, needed: 'reaching machines (vm)', since: 'use' },
  { package: 'git', probe: { program: 'git' }, needed: 'version control', since: 'test' },
  { package: 'apt-utils', probe: { program: 'apt-ftparchive' }, needed: 'comparing indexes (tests)', since: 'test' },
  { package: 'aptly', probe: { program: 'aptly' }, needed: 'mirroring what is published (tests)', since: 'test' },
  { package: 'reprepro', probe: { program: 'reprepro' }, needed: 'mirroring what is published (tests)', since: 'test' },
  {
    package: 'debmirror',
    probe: { program: 'debmirror' },
    needed: 'mirroring what is published (tests)',
    since: 'test',
  },
  { package: 'dose-distcheck', probe: { program: 'dose-debcheck' }, needed: 'checking closure (tests)', since: 'test' },
  { package: 'chromium', probe: { program: 'chromium' }, needed: 'looking at pages (tests)', since: 'test' },
  { package: 'dput', probe: { program: 'dput' }, needed: 'uploading (tests)', since: 'test' },
  { package: 'openssl', probe: { program: 'openssl' }, needed: 'making certificates (tests)', since: 'test' },
  { package: 'gpgv', probe: { program: 'gpgv' }, needed: 'checking signatures (tests)', since: 'test' },
  { package: 'gpg', probe: { program: 'gpg' }, needed: 'checking keys (tests)', since: 'test' },
  { package: 'gpg-agent', probe: { program: 'gpg-agent' }, needed: 'checking keys (tests)', since: 'test' },
  { package: 'alien', probe: { program: 'alien' }, needed: 'pkg build --rpm (tests)', since: 'test' },
  {
    package: 'fakeroot',
    probe: { program: 'fakeroot' },
    needed: 'building exported source trees (tests)',
    since: 'test',
  },
  { package: 'gcc', probe: { program: 'gcc' }, needed: 'compiling add-ons (pkg build), tests', since: 'test' },
  { package: 'rpm', probe: { program: 'rpmbuild' }, needed: 'pkg build --rpm (tests)', since: 'test' },
  { package: 'lintian', probe: { program: 'lintian' }, needed: 'checking packages (tests)', since: 'test' },
  { package: 'zstd', probe: { program: 'zstd' }, needed: 'large zstd packages (pkg build)', since: 'use' },
  { package: 'bzip2', probe: { program: 'bzip2' }, needed: 'reading old packages (tests)', since: 'test' },
  {
    package: 'iproute2',
    probe: { program: 'ip' },
    needed: 'build roots (pkg root), networks of machines (vm net)',
    since: 'use',
  },
  { package: 'nftables', probe: { program: 'nft' }, needed: 'networks of machines (vm net)', since: 'test' },
  {
    package: 'dnsmasq-base',
    probe: { program: 'dnsmasq' },
    needed: 'DHCP and DNS (vm net up --dhcp --dns)',
    since: 'test',
  },
  { package: 'udhcpc', probe: { program: 'udhcpc' }, needed: 'asking for leases (tests)', since: 'test' },
  { package: 'fdisk', probe: { program: 'sfdisk' }, needed: 'bootable disks (vm base build --target)', since: 'test' },
  { package: 'grub-common', probe: { program: 'grub-mkimage' }, needed: 'bootable disks', since: 'test' },
  {
    package: 'grub-pc-bin',
    probe: { file: '/usr/lib/grub/i386-pc/boot.img' },
    needed: 'bootable disks',
    since: 'test',
  },
  {
    package: 'grub-efi-amd64-bin',
    probe: { file: '/usr/lib/grub/x86_64-efi/normal.mod' },
    needed: 'bootable disks (--uefi)',
    since: 'test',
  },
  { package: 'mtools', probe: { program: 'mformat' }, needed: 'bootable disks (--uefi)', since: 'test' },
  {
    package: 'ovmf',
    probe: { file: '/usr/share/OVMF/OVMF_CODE.fd' },
    needed: 'booting by UEFI (tests)',
    since: 'test',
  },
  { package: 'gdisk', probe: { program: 'sgdisk' }, needed: 'checking partition tables (tests)', since: 'test' },
  { package: 'genisoimage', probe: { program: 'isoinfo' }, needed: 'reading seeds (tests)', since: 'test' },
  { package: 'libarchive-tools', probe: { program: 'bsdtar' }, needed: 'reading seeds (tests)', since: 'test' },
  { package: 'xorriso', probe: { program: 'xorriso' }, needed: 'reading seeds (tests)', since: 'test' },
  {
    package: 'systemd',
    probe: { program: 'systemd-socket-activate' },
    needed: 'handing sockets over (tests of proxy serve)',
    since: 'test',
  },
  { package: 'curl', probe: { program: 'curl' }, needed: 'comparing caches (bench/proxy)', since: 'bench' },
  { package: 'wrk', probe: { program: 'wrk' }, needed: 'comparing caches (bench/proxy)', since: 'bench' },
  {
    package: 'nginx',
    probe: { file: '/usr/sbin/nginx' },
    needed: 'comparing caches (bench/proxy)',
    since: 'bench',
  },
  { package: 'squid', probe: { file: '/usr/sbin/squid' }, needed: 'comparing caches (bench/proxy)', since: 'bench' },
  {
    package: 'apt-cacher-ng',
    probe: { file: '/usr/sbin/apt-cacher-ng' },
    needed: 'importing its cache (tests), comparing caches (bench/proxy)',
    since: 'test',
  },
];

export interface Finding {
  readonly name: string;
  readonly status: 'ok' | 'missing' | 'warning';
  readonly detail: string;
  /** Debian package that mends it. */
  readonly package?: string;
}

/** The requirements of a goal: each goal includes those before it. Pure. */
function requirementsFor(goal: DoctorGoal): readonly Requirement[] {
  const last = GOALS.indexOf(goal);
  return REQUIREMENTS.filter((one) => GOALS.indexOf(one.since) <= last);
}

/** Every finding about this machine, good and bad. */
export async function checkMachine(context: Context, goal: DoctorGoal): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const requirement of requirementsFor(goal)) {
    const name = nameOf(requirement.probe);
    const there = await probe(context, requirement.probe);
    findings.push({
      name,
      status: there ? 'ok' : 'missing',
      detail: there ? requirement.needed : `${requirement.needed} needs it`,
      package: requirement.package,
    });
  }
  findings.push(await checkKvm(context), await checkRights(context), await checkRoom(context));
  return findings;
}

function nameOf(what: Probe): string {
  if ('program' in what) return what.program;
  return 'file' in what ? what.file : `python3 -m ${what.python}`;
}

async function probe(context: Context, what: Probe): Promise<boolean> {
  if ('file' in what) return exists(what.file);
  if ('program' in what) return hasProgram(context, what.program);
  try {
    // Debian's own interpreter: one that comes first in PATH may be another version than the target's
    await run(context, '/usr/bin/python3', ['-c', `import ${what.python}`]);
    return true;
  } catch (error) {
    if (error instanceof ToolError) return false;
    throw error;
  }
}

async function checkKvm(context: Context): Promise<Finding> {
  try {
    await access('/dev/kvm', constants.R_OK | constants.W_OK);
    const known = await knownAccel(context);
    if (known?.accel === 'tcg') {
      return { name: '/dev/kvm', status: 'warning', detail: `${known.reason}: machines run under emulation` };
    }
    if (known) return { name: '/dev/kvm', status: 'ok', detail: known.reason };
    return {
      name: '/dev/kvm',
      status: 'ok',
      detail: 'opens; the first machine that starts tells whether it can run a guest',
    };
  } catch (error) {
    const reason = errnoOf(error) === 'ENOENT' ? 'is not there' : 'cannot be opened (is your user in the group kvm?)';
    return {
      name: '/dev/kvm',
      status: 'warning',
      detail: `${reason}: machines run under emulation, several times slower`,
    };
  }
}

async function checkRights(context: Context): Promise<Finding> {
  if (process.getuid?.() === 0) return { name: 'rights', status: 'ok', detail: 'root' };
  const mapped = await hasProgram(context, 'newuidmap');
  return mapped
    ? { name: 'rights', status: 'ok', detail: 'not root: base images are built in a user namespace' }
    : {
        name: 'rights',
        status: 'warning',
        detail: 'not root and no newuidmap: vm base build needs one of them',
        package: 'uidmap',
      };
}

async function checkRoom(context: Context): Promise<Finding> {
  let folder = context.stateDir;
  for (;;) {
    try {
      const facts = await statfs(folder);
      const free = facts.bavail * facts.bsize;
      const enough = free > 4e9;
      return {
        name: 'room',
        status: enough ? 'ok' : 'warning',
        detail: `${formatBytes(free)} free for ${context.stateDir}${enough ? '' : ': a base image and its machines want 4 GB'}`,
      };
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT' || folder === '/') throw error;
      folder = folder.slice(0, folder.lastIndexOf('/')) || '/';
    }
  }
}

/** Debian packages that the missing findings name, sorted, each once. */
export function missingPackages(findings: readonly Finding[]): string[] {
  const names = findings.flatMap((one) => (one.status === 'missing' && one.package !== undefined ? [one.package] : []));
  return [...new Set(names)].sort();
}

/** The line that installs `packages`, without recommended ones, waiting for another apt that is at work. */
export function aptGetInstallArgs(packages: readonly string[]): string[] {
  return ['install', '-y', '--no-install-recommends', '-o', 'DPkg::Lock::Timeout=300', ...packages];
}

/**
 * Installs Debian packages with apt-get, as root or through sudo, showing the line.
 * @throws UserError `packages-missing` with the line to paste where there are no rights
 */
export async function installPackages(context: Context, packages: readonly string[]): Promise<void> {
  if (packages.length === 0) return;
  const root = process.getuid?.() === 0;
  const args = aptGetInstallArgs(packages);
  if (!root && !(await canSudo(context))) {
    throw new UserError('packages-missing', `these Debian packages are missing: ${packages.join(' ')}`, {
      hint: `as root: apt-get update && apt-get ${args.join(' ')} (or run 'sudo -v' first, then this again)`,
    });
  }
  const [program, prefix] = root ? ['apt-get', []] : ['sudo', ['apt-get']];
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  await context.log.step(`${program} ${[...prefix, ...args].join(' ')}`, async () => {
    await run(context, program, [...prefix, 'update', '-qq'], { env, timeoutMs: 600_000 });
    await run(context, program, [...prefix, ...args], { env, timeoutMs: 1_800_000 });
  });
}

/** True when sudo works without asking (a question could not be seen behind the narration). */
async function canSudo(context: Context): Promise<boolean> {
  try {
    await run(context, 'sudo', ['-n', 'true']);
    return true;
  } catch (error) {
    if (error instanceof ToolError) return false;
    throw error;
  }
}
