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

const program = (name: string): Probe => ({ program: name });
const python = (module: string): Probe => ({ python: module });
const file = (path: string): Probe => ({ file: path });

/** @param what does not work without the packages, each with what shows that it is there */
function needed(since: DoctorGoal, what: string, packages: Readonly<Record<string, Probe>>): Requirement[] {
  return Object.entries(packages).map(([name, probe]) => ({ package: name, probe, needed: what, since }));
}

const REQUIREMENTS: readonly Requirement[] = [
  ...needed('use', 'finding the Debian mirror', { apt: program('apt-get') }),
  ...needed('use', 'shared library dependencies (pkg build)', {
    'dpkg-dev': program('dpkg-shlibdeps'),
    binutils: program('objdump'),
  }),
  ...needed('use', '.deb files and indexes', { 'xz-utils': program('xz') }),
  ...needed('use', 'Python packages (pkg build)', { python3: program('/usr/bin/python3') }),
  ...needed('use', 'resolving Python dependencies (pkg build)', { 'python3-pip': python('pip') }),
  ...needed('use', 'build roots (pkg root), base images (vm base build)', { mmdebstrap: program('mmdebstrap') }),
  ...needed('use', 'base images (vm base build)', { e2fsprogs: program('mke2fs') }),
  ...needed('use', 'disks of machines (vm)', { 'qemu-utils': program('qemu-img') }),
  ...needed('use', 'machines (vm)', { 'qemu-system-x86': program('qemu-system-x86_64') }),
  ...needed('use', 'reaching machines (vm)', { 'openssh-client': program('ssh-keygen') }),
  ...needed('use', 'large zstd packages (pkg build)', { zstd: program('zstd') }),
  ...needed('use', 'build roots (pkg root), networks of machines (vm net)', { iproute2: program('ip') }),
  ...needed('test', 'version control', { git: program('git') }),
  ...needed('test', 'comparing indexes (tests)', { 'apt-utils': program('apt-ftparchive') }),
  ...needed('test', 'mirroring what is published (tests)', {
    aptly: program('aptly'),
    reprepro: program('reprepro'),
    debmirror: program('debmirror'),
  }),
  ...needed('test', 'checking closure (tests)', { 'dose-distcheck': program('dose-debcheck') }),
  ...needed('test', 'looking at pages (tests)', { chromium: program('chromium') }),
  ...needed('test', 'uploading (tests)', { dput: program('dput') }),
  ...needed('test', 'making certificates (tests)', { openssl: program('openssl') }),
  ...needed('test', 'checking signatures (tests)', { gpgv: program('gpgv') }),
  ...needed('test', 'checking keys (tests)', { gpg: program('gpg'), 'gpg-agent': program('gpg-agent') }),
  ...needed('test', 'pkg build --rpm (tests)', { alien: program('alien'), rpm: program('rpmbuild') }),
  ...needed('test', 'building exported source trees (tests)', { fakeroot: program('fakeroot') }),
  ...needed('test', 'compiling add-ons (pkg build), tests', { gcc: program('gcc') }),
  ...needed('test', 'checking packages (tests)', { lintian: program('lintian') }),
  ...needed('test', 'reading old packages (tests)', { bzip2: program('bzip2') }),
  ...needed('test', 'networks of machines (vm net)', { nftables: program('nft') }),
  ...needed('test', 'DHCP and DNS (vm net up --dhcp --dns)', { 'dnsmasq-base': program('dnsmasq') }),
  ...needed('test', 'asking for leases (tests)', { udhcpc: program('udhcpc') }),
  ...needed('test', 'bootable disks (vm base build --target)', { fdisk: program('sfdisk') }),
  ...needed('test', 'bootable disks', {
    'grub-common': program('grub-mkimage'),
    'grub-pc-bin': file('/usr/lib/grub/i386-pc/boot.img'),
  }),
  ...needed('test', 'bootable disks (--uefi)', {
    'grub-efi-amd64-bin': file('/usr/lib/grub/x86_64-efi/normal.mod'),
    mtools: program('mformat'),
  }),
  ...needed('test', 'booting by UEFI (tests)', { ovmf: file('/usr/share/OVMF/OVMF_CODE.fd') }),
  ...needed('test', 'checking partition tables (tests)', { gdisk: program('sgdisk') }),
  ...needed('test', 'reading seeds (tests)', {
    genisoimage: program('isoinfo'),
    'libarchive-tools': program('bsdtar'),
    xorriso: program('xorriso'),
  }),
  ...needed('test', 'handing sockets over (tests of proxy serve)', { systemd: program('systemd-socket-activate') }),
  ...needed('test', 'importing its cache (tests), comparing caches (bench/proxy)', {
    'apt-cacher-ng': file('/usr/sbin/apt-cacher-ng'),
  }),
  ...needed('bench', 'comparing caches (bench/proxy)', {
    curl: program('curl'),
    wrk: program('wrk'),
    nginx: file('/usr/sbin/nginx'),
    squid: file('/usr/sbin/squid'),
  }),
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
