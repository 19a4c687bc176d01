/** Which Debian package brings which program, so that a missing one is met early and with the line that mends it. */

const PACKAGE_OF: Readonly<Record<string, string>> = {
  alien: 'alien',
  apt: 'apt',
  'apt-cacher-ng': 'apt-cacher-ng',
  'apt-cache': 'apt',
  'apt-config': 'apt',
  'apt-get': 'apt',
  'apt-ftparchive': 'apt-utils',
  ar: 'binutils',
  blkid: 'util-linux',
  bzip2: 'bzip2',
  aptly: 'aptly',
  chromium: 'chromium',
  cpio: 'cpio',
  curl: 'curl',
  debugfs: 'e2fsprogs',
  dnsmasq: 'dnsmasq-base',
  debmirror: 'debmirror',
  'dose-debcheck': 'dose-distcheck',
  dpkg: 'dpkg',
  'dpkg-buildpackage': 'dpkg-dev',
  'dpkg-deb': 'dpkg',
  dput: 'dput',
  'dpkg-shlibdeps': 'dpkg-dev',
  fakeroot: 'fakeroot',
  gcc: 'gcc',
  git: 'git',
  gpg: 'gpg',
  gpgv: 'gpgv',
  'grub-mkimage': 'grub-common',
  ip: 'iproute2',
  lintian: 'lintian',
  losetup: 'mount',
  lsblk: 'util-linux',
  lvcreate: 'lvm2',
  mcopy: 'mtools',
  mformat: 'mtools',
  mke2fs: 'e2fsprogs',
  mmd: 'mtools',
  mmdebstrap: 'mmdebstrap',
  newuidmap: 'uidmap',
  nft: 'nftables',
  nginx: 'nginx',
  objcopy: 'binutils',
  objdump: 'binutils',
  openssl: 'openssl',
  python3: 'python3',
  'qemu-img': 'qemu-utils',
  'qemu-system-aarch64': 'qemu-system-arm',
  'qemu-system-x86_64': 'qemu-system-x86',
  setpriv: 'util-linux',
  sfdisk: 'fdisk',
  reprepro: 'reprepro',
  rpm: 'rpm',
  rpmbuild: 'rpm',
  squid: 'squid',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
  'systemd-socket-activate': 'systemd',
  tar: 'tar',
  unshare: 'util-linux',
  wrk: 'wrk',
  xz: 'xz-utils',
  zstd: 'zstd',
};

/** The Debian package that ships `program`, if the table has it. */
function debianPackageOf(program: string): string | undefined {
  const name = program.slice(program.lastIndexOf('/') + 1);
  return Object.hasOwn(PACKAGE_OF, name) ? PACKAGE_OF[name] : undefined;
}

/** "needs qemu-img: apt-get install qemu-utils" */
export function missingProgramHint(program: string): string {
  const debianPackage = debianPackageOf(program);
  return debianPackage === undefined
    ? `put '${program}' on the PATH, then run the command again`
    : `apt-get install ${debianPackage}`;
}
