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
  /** OpenSSH private key of the host, PEM; the guest makes its own when absent. */
  readonly hostKey?: string | undefined;
  readonly nets: readonly GuestNet[];
  /** Lines for /etc/hosts: address and names. */
  readonly hosts: readonly string[];
}

/** Printed on the serial console once sshd listens. */
export const SSH_UP_LINE = 'buildkit: ssh is up';

const SETTING = 'buildkit.';

/** Content of the file that `-smbios type=11,path=FILE` puts into one OEM string; holds a private key: mode 0600. */
export function oemString(settings: GuestSettings): string {
  const { hostname, authorizedKeys, hostKey, nets, hosts } = settings;
  const lines = [
    // the first line stands right behind the binary header of its table: nothing is to be read from it
    'buildkit',
    `${SETTING}hostname=${hostname}`,
    ...authorizedKeys.map((key) => `${SETTING}key=${key.trim()}`),
    ...(hostKey === undefined ? [] : [`${SETTING}hostkey=${Buffer.from(hostKey).toString('base64')}`]),
    ...nets.map((net) => `${SETTING}net=${net.mac} ${net.address} ${net.gateway} ${net.dns}`),
    ...hosts.map((line) => `${SETTING}host=${line}`),
  ];
  return lines.join('\n');
}

const SETUP_SCRIPT = `#!/bin/sh
# Takes over what buildkit says about this machine: OEM strings "buildkit.NAME=VALUE" in its SMBIOS tables.
set -u
umask 022
keys=/root/.ssh/authorized_keys
network=/run/systemd/network
count=0
hosts='127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback'
authorized=''

replace() { # FILE MODE, content on stdin
  cat >"$1.buildkit" && chmod "$2" "$1.buildkit" && mv -f "$1.buildkit" "$1"
}

take() { # NAME VALUE
  case $1 in
    hostname)
      hosts="$hosts
127.0.1.1 $2"
      [ "$(cat /etc/hostname 2>/dev/null)" = "$2" ] || echo "$2" >/etc/hostname
      echo "$2" >/proc/sys/kernel/hostname ;;
    key) authorized="$authorized$2
" ;;
    hostkey)
      file=/etc/ssh/ssh_host_ed25519_key
      echo "$2" | base64 -d | (umask 077 && cat >"$file.new")
      if cmp -s "$file.new" "$file"; then rm "$file.new"; else
        mv -f "$file.new" "$file"
        ssh-keygen -q -y -f "$file" >"$file.pub"
      fi ;;
    net)
      set -- $2
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
      [ $count -gt 0 ] || [ -z "\${4-}" ] || echo "nameserver $4" | replace /etc/resolv.conf 644
      count=$((count + 1)) ;;
    host) hosts="$hosts
$2" ;;
  esac
}

settings=$(tr '\\000' '\\n' </sys/firmware/dmi/tables/DMI 2>/dev/null | grep -a '^buildkit\\.')
while IFS='=' read -r name value; do
  [ -n "$name" ] && take "\${name#buildkit.}" "$value"
done <<END
$settings
END
if [ -n "$settings" ]; then
  echo "$hosts" | replace /etc/hosts 644
fi
if [ -n "$authorized" ]; then
  mkdir -p -m 700 /root/.ssh
  printf %s "$authorized" | replace "$keys" 600
fi
ls /etc/ssh/ssh_host_*_key >/dev/null 2>&1 || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
exit 0
`;

const SETUP_UNIT = `[Unit]
Description=Name, keys and address from buildkit
DefaultDependencies=no
After=local-fs.target systemd-remount-fs.service systemd-tmpfiles-setup.service
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

/** Files that every base has beside its packages. */
export function guestFiles(sources: readonly AptSource[]): GuestFile[] {
  return [
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
export function customizeHook(files: readonly GuestFile[]): string {
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
    `chroot "$1" systemctl --quiet enable ${ENABLED_UNITS.join(' ')}`,
    `chroot "$1" systemctl --quiet mask ${MASKED_UNITS.join(' ')}`,
    // Debian locks the account of root in fresh systems; keys shall work, passwords shall not
    'chroot "$1" usermod -p "*" root',
    'rm -f "$1"/etc/ssh/ssh_host_* "$1"/var/lib/systemd/random-seed "$1"/var/lib/dbus/machine-id',
    ': >"$1"/etc/machine-id',
    'find "$1"/var/log -type f -delete',
    '',
  ].join('\n');
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
