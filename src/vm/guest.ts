/**
 * What buildkit puts into a machine so that it takes its name, keys and address at boot, and says when ssh is up.
 *
 * Secret: how settings get in: SMBIOS OEM strings (DSP0134, type 11) that QEMU reads from a file, so that they are on no
 * command line; the guest reads them as root from /sys/firmware/dmi/tables/DMI, with any boot loader and without a module.
 */

import type { AptSource } from '../deb/sources.ts';
import { formatSource } from '../deb/sources.ts';

/** A file of the guest, owned by root. */
export interface GuestFile {
  /** Absolute. */
  readonly path: string;
  readonly mode: number;
  readonly content: string;
}

/** One network card and its fixed address. */
export interface GuestNet {
  readonly mac: string;
  /** `10.0.2.15/24` */
  readonly address: string;
  readonly gateway: string;
  readonly dns: string;
}

/** What makes one machine differ from another of the same base. */
export interface GuestSettings {
  readonly hostname: string;
  /** Lines of authorized_keys for root. */
  readonly authorizedKeys: readonly string[];
  /** Of the host, OpenSSH's formats; the guest makes its own when absent. */
  readonly hostKey?: { readonly privateKey: string; readonly publicKey: string } | undefined;
  /** Whom the keys are for; made when there is none. Default: root. */
  readonly user?: string | undefined;
  readonly nets: readonly GuestNet[];
  /** Lines for /etc/hosts: address and names. */
  readonly hosts: readonly string[];
}

/** Printed on the serial console once sshd listens. */
export const SSH_UP_LINE = 'buildkit: ssh is up';

const SETTING = 'buildkit.';

/** Content of the file that `-smbios type=11,path=FILE` puts into one OEM string; holds a private key: mode 0600. */
export function oemString(settings: GuestSettings): string {
  const { hostname, authorizedKeys, hostKey, nets, hosts, user } = settings;
  const lines = [
    // the first line stands right behind the binary header of its table: nothing is to be read from it
    'buildkit',
    `${SETTING}hostname=${hostname}`,
    ...authorizedKeys.map((key) => `${SETTING}key=${key.trim()}`),
    ...(user === undefined ? [] : [`${SETTING}user=${user}`]),
    ...(hostKey === undefined
      ? []
      : [
          `${SETTING}hostpub=${hostKey.publicKey}`,
          `${SETTING}hostkey=${Buffer.from(hostKey.privateKey).toString('base64')}`,
        ]),
    ...nets.map((net) => `${SETTING}net=${net.mac} ${net.address} ${net.gateway} ${net.dns}`),
    ...hosts.map((line) => `${SETTING}host=${line}`),
  ];
  return lines.join('\n');
}

const SETUP_SCRIPT = `#!/bin/sh
# Takes over what buildkit says about this machine: OEM strings "buildkit.NAME=VALUE" in its SMBIOS tables.
# Written for an emulated CPU: each program that is started costs it a tenth of a second.
set -u
umask 022
network=/run/systemd/network
count=0
hosts='127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
'
authorized=''
login=root
line=''

card() { # MAC: its interface, when the driver is there already
  for interface in /sys/class/net/*; do
    read -r found <"$interface/address" || continue
    [ "$found" != "$1" ] || { interface=\${interface##*/}; return 0; }
  done
  return 1
}

take() { # NAME VALUE
  case $1 in
    hostname)
      hosts="\${hosts}127.0.1.1 $2
"
      read -r line </etc/hostname || :
      [ "$line" = "$2" ] || echo "$2" >/etc/hostname
      echo "$2" >/proc/sys/kernel/hostname ;;
    user) login=$2 ;;
    key) authorized="$authorized$2
" ;;
    hostpub) public=$2 ;;
    hostkey)
      file=/etc/ssh/ssh_host_ed25519_key
      line=''
      [ ! -f "$file.pub" ] || read -r line <"$file.pub" || :
      [ "$line" = "$public" ] || {
        rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
        echo "$2" | (umask 077 && base64 -d >"$file")
        echo "$public" >"$file.pub"
      } ;;
    net)
      set -- $2
      if [ -e /usr/lib/buildkit/fast ] && card "$1"; then
        ip -batch - <<END
link set $interface up
address add $2 dev $interface
\${3:+route add default via $3}
END
      else
        mkdir -p "$network"
        cat >"$network/10-buildkit-$count.network" <<END
[Match]
MACAddress=$1
[Network]
Address=$2
\${3:+Gateway=$3}
\${4:+DNS=$4}
IPv6AcceptRA=no
LinkLocalAddressing=no
END
        manager=systemd-networkd.service
      fi
      [ $count -gt 0 ] || [ -z "\${4-}" ] || echo "nameserver $4" >/etc/resolv.conf
      count=$((count + 1)) ;;
    host) hosts="$hosts$2
" ;;
  esac
}

manager=''
public=''
settings=$(tr '\\000' '\\n' </sys/firmware/dmi/tables/DMI 2>/dev/null | grep -a '^buildkit\\.')
while IFS='=' read -r name value; do
  [ -n "$name" ] && take "\${name#buildkit.}" "$value"
done <<END
$settings
END
if [ -n "$settings" ]; then
  printf %s "$hosts" >/etc/hosts
else
  manager=systemd-networkd.service
fi
if [ -n "$authorized" ]; then
  if [ "$login" = root ]; then home=/root; else
    id "$login" >/dev/null 2>&1 || useradd -m -s /bin/bash -p '*' "$login"
    home=$(getent passwd "$login" | cut -d: -f6)
  fi
  [ -d "$home/.ssh" ] || mkdir -m 700 "$home/.ssh"
  (umask 077 && printf %s "$authorized" >"$home/.ssh/authorized_keys")
  [ "$login" = root ] || chown -R "$login": "$home/.ssh"
fi
set -- /etc/ssh/ssh_host_*_key
[ -e "$1" ] || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
# where nothing of the fast profile is, it is started anyhow
[ -z "$manager" ] || [ ! -e /usr/lib/buildkit/fast ] || systemctl --no-block start "$manager"
exit 0
`;

const SETUP_UNIT = `[Unit]
Description=Name, keys and address from buildkit
DefaultDependencies=no
After=local-fs.target systemd-remount-fs.service
Before=systemd-networkd.service network-pre.target ssh.service sysinit.target
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/buildkit/guest-setup

[Install]
WantedBy=sysinit.target
`;

const READY_UNIT = `[Unit]
Description=Tell buildkit that ssh is up
After=ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo "${SSH_UP_LINE}" >/dev/ttyS0'

[Install]
WantedBy=multi-user.target
`;

/** A machine started without settings (by plain QEMU, say) asks for an address. */
const DHCP_NETWORK = `[Match]
Name=en* eth*
[Network]
DHCP=yes
`;

/** Timers that start apt by themselves would fight with a test for dpkg's lock. */
const MASKED_UNITS: readonly string[] = ['apt-daily.timer', 'apt-daily-upgrade.timer'];
const ENABLED_UNITS: readonly string[] = [
  'systemd-networkd.service',
  'buildkit-guest.service',
  'buildkit-ready.service',
];

/**
 * `fast`: without what only costs a machine for tests time at its start, under emulation half of it. `plain`: as Debian
 * installs it.
 */
export type BootProfile = 'fast' | 'plain';

/**
 * Nobody logs in on a console of a machine for tests, and no timer shall wake up in the middle of one. Modules that the masked
 * modprobe@ units load come by themselves when they are used; logind and udev stay: the power button needs them.
 */
const FAST_MASKED: readonly string[] = [
  ...['getty.target', 'getty@tty1.service', 'serial-getty@ttyS0.service', 'getty-static.service'],
  ...['e2scrub_all.timer', 'e2scrub_reap.service', 'fstrim.timer', 'dpkg-db-backup.timer', 'logrotate.timer'],
  ...['systemd-tmpfiles-clean.timer', 'systemd-pstore.service', 'systemd-journal-flush.service'],
  ...['systemd-update-utmp.service', 'systemd-update-utmp-runlevel.service', 'systemd-network-generator.service'],
  ...['systemd-networkd-wait-online.service', 'systemd-binfmt.service', 'systemd-machine-id-commit.service'],
  ...['dev-hugepages.mount', 'dev-mqueue.mount', 'sys-kernel-debug.mount', 'sys-kernel-tracing.mount'],
  ...['sys-fs-fuse-connections.mount', 'sys-kernel-config.mount', 'proc-sys-fs-binfmt_misc.automount'],
  ...['configfs', 'dm_mod', 'drm', 'efi_pstore', 'fuse', 'loop'].map((module) => `modprobe@${module}.service`),
];

/** Kernel parameters that go with it: no loading of modules for a CPU's extras, names of cards that udev does not change. */
export const FAST_PARAMETERS: readonly string[] = [
  ...['net.ifnames=0', 'modprobe.blacklist=kvm_amd,kvm_intel,efi_pstore'],
  ...['mitigations=off', 'random.trust_cpu=on', 'tsc=reliable', 'no_timer_check', 'nokaslr', 'audit=0'],
  ...['loglevel=3', 'systemd.show_status=0'],
];

/** Its address is set by guest-setup; sshd needs no trial run of itself first. */
const FAST_FILES: readonly GuestFile[] = [
  { path: '/usr/lib/buildkit/fast', mode: 0o644, content: '' },
  { path: '/etc/systemd/system/ssh.service.d/buildkit.conf', mode: 0o644, content: '[Service]\nExecStartPre=\n' },
];

/** Files that every base has beside its packages. */
export function guestFiles(sources: readonly AptSource[], profile: BootProfile): GuestFile[] {
  return [
    ...(profile === 'fast' ? FAST_FILES : []),
    { path: '/usr/lib/buildkit/guest-setup', mode: 0o755, content: SETUP_SCRIPT },
    { path: '/etc/systemd/system/buildkit-guest.service', mode: 0o644, content: SETUP_UNIT },
    { path: '/etc/systemd/system/buildkit-ready.service', mode: 0o644, content: READY_UNIT },
    { path: '/etc/systemd/network/80-buildkit-dhcp.network', mode: 0o644, content: DHCP_NETWORK },
    { path: '/etc/apt/sources.list.d/debian.sources', mode: 0o644, content: sources.map(formatSource).join('\n') },
    // 6 MB of translated descriptions, fetched and parsed at the first update, serve no machine here
    { path: '/etc/apt/apt.conf.d/90buildkit', mode: 0o644, content: 'Acquire::Languages "none";\n' },
    { path: '/etc/hostname', mode: 0o644, content: 'debian\n' },
    { path: '/etc/hosts', mode: 0o644, content: '127.0.0.1 localhost debian\n::1 localhost\n' },
    { path: '/etc/resolv.conf', mode: 0o644, content: 'nameserver 10.0.2.3\n' },
    { path: '/etc/fstab', mode: 0o644, content: '' },
  ];
}

/**
 * The hook that mmdebstrap runs when all packages are configured ($1 is the root folder): our files in, traces out. Runs as
 * root, or as root of mmdebstrap's user namespace, so that owners are right in both.
 */
export function customizeHook(files: readonly GuestFile[], profile: BootProfile): string {
  const enabled = ENABLED_UNITS.filter((unit) => profile === 'plain' || unit !== 'systemd-networkd.service');
  const masked = [...MASKED_UNITS, ...(profile === 'fast' ? FAST_MASKED : [])];
  const writes = files.flatMap((file) => {
    const target = `"$1"${quote(file.path)}`;
    return [
      `rm -f ${target}`,
      `mkdir -p "$(dirname ${target})"`,
      `base64 -d >${target} <<'END'`,
      ...(Buffer.from(file.content)
        .toString('base64')
        .match(/.{1,76}/g) ?? []),
      'END',
      `chmod ${file.mode.toString(8)} ${target}`,
      `chown 0:0 ${target}`,
    ];
  });
  return [
    '#!/bin/sh',
    'set -eu',
    ...writes,
    'rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/0000*',
    `chroot "$1" systemctl --quiet enable ${enabled.join(' ')}`,
    `chroot "$1" systemctl --quiet mask ${masked.join(' ')}`,
    // Debian locks the account of root in fresh systems; keys shall work, passwords shall not
    'chroot "$1" usermod -p "*" root',
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/var/lib/systemd/random-seed "$1"/var/lib/dbus/machine-id',
    ': >"$1"/etc/machine-id',
    'find "$1"/var/log -type f -delete',
    '',
  ].join('\n');
}

/** The same, when what a user adds has run since: its traces, and what it let apt and others leave. */
export function finishHook(profile: BootProfile): string {
  return [
    customizeHook([], profile).trimEnd(),
    'chroot "$1" apt-get clean',
    'rm -f "$1"/var/cache/ldconfig/aux-cache',
    'find "$1"/tmp "$1"/run -xdev -mindepth 1 -not -path "$1"/run/lock -delete',
    '',
  ].join('\n');
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
