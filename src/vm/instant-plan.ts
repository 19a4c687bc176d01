/**
 * What an instant clone needs besides QEMU: when a frozen machine may be used, and how a resumed one becomes itself. Pure.
 *
 * Secret: the agent, a few lines of perl (essential in Debian) that the frozen guest is caught waiting in, on its second serial
 * line, and the program that it is sent after the resume: right clock, fresh entropy, its own name, machine-id, host key, MAC
 * and address (netdevice(7)). It starts no process, each of which costs an emulated CPU a tenth of a second.
 */
import { createHash } from 'node:crypto';
import type { GuestNet } from './guest.ts';

/** Everything that must be the same for a frozen machine to be resumed. */
export interface FrozenShape {
  readonly baseSha256: string;
  readonly architecture: string;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly accel: 'kvm' | 'tcg';
  readonly cpuModel: string | undefined;
  /** Path, size and date of the program. */
  readonly qemu: string;
  /** Model and flags, from /proc/cpuinfo. */
  readonly hostCpu: string;
  readonly kernelParameters: readonly string[];
}

/** Changes whenever what is frozen, or how, changes. */
const FORMAT = 3;

export function frozenKey(shape: FrozenShape): string {
  const { baseSha256, architecture, memoryMiB, cpus, accel, cpuModel = '', qemu, hostCpu, kernelParameters } = shape;
  const parts = [FORMAT, baseSha256, architecture, memoryMiB, cpus, accel, cpuModel, qemu, hostCpu, kernelParameters];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 16);
}

/** Model and flags of the first CPU, from the text of /proc/cpuinfo. */
export function hostCpuOf(cpuinfo: string): string {
  const first = cpuinfo.split('\n\n', 1)[0] ?? '';
  const lines = first
    .split('\n')
    .filter((line) => /^(?:model name|flags|Features|CPU implementer|CPU part)\s*:/.test(line));
  return lines.map((line) => line.replace(/\s+/g, ' ')).join('\n');
}

/** Runs in the guest that is frozen: takes one program by its length, runs it, says what failed. */
export const AGENT_SCRIPT = `use strict;
use MIME::Base64;
$| = 1;
our $failed = '';
sub want {
  my ($size) = @_;
  my $bytes = '';
  while (length($bytes) < $size) {
    sysread(STDIN, $bytes, $size - length($bytes), length($bytes)) or exit 1;
  }
  return $bytes;
}
sub check {
  my ($what, $ok) = @_;
  $failed .= "$what: $!\\n" unless $ok;
}
sub put {
  my ($path, $mode, $content) = @_;
  my $file;
  check($path, open($file, '>', "$path.new") && print($file decode_base64($content)) && close($file)
    && chmod($mode, "$path.new") && rename("$path.new", $path));
}
my $line = '';
$line .= want(1) until $line =~ /\\n/;
eval(want(int($line)) . ';1') or $failed .= $@;
print 'buildkit-resumed ', ($failed eq '' ? 0 : 1), "\\n", substr($failed, 0, 2000), "buildkit-end\\n";
# the journal moves to the new machine-id once whoever waited has logged in
close(STDOUT);
sleep 5;
exec 'systemctl', '--no-block', 'restart', 'systemd-journald';
`;

/** Starts the agent so that nothing but the freezing ends its wait; the script comes on stdin. */
export const AGENT_START = `umask 077
cat >/run/buildkit-agent
stty raw -echo </dev/ttyS1
setsid sh -c 'exec perl /run/buildkit-agent </dev/ttyS1 >/dev/ttyS1 2>/dev/null' &
sync
echo 3 >/proc/sys/vm/drop_caches
`;

export interface ResumedIdentity {
  readonly hostname: string;
  /** 32 hex digits. */
  readonly machineId: string;
  readonly hostKey: string;
  readonly hostPublicKey: string;
  readonly authorizedKeys: readonly string[];
  readonly hosts: readonly string[];
  /** The card as it was frozen and as it shall be. */
  readonly card: { readonly frozen: GuestNet; readonly own: GuestNet };
  /** Milliseconds since the epoch. */
  readonly timeMs: number;
  /** 64 bytes. */
  readonly entropy: Uint8Array;
}

/** What the agent runs. sshd takes up its new key by a hang-up. */
export function resumeScript(identity: ResumedIdentity): string {
  const { hostname, machineId, hostKey, hostPublicKey, authorizedKeys, hosts, card, timeMs, entropy } = identity;
  const base64 = (content: string | Uint8Array) => Buffer.from(content).toString('base64');
  const file = (path: string, mode: string, content: string) => `put('${path}', 0${mode}, '${base64(content)}');`;
  const etcHosts = [
    '127.0.0.1 localhost',
    '::1 localhost ip6-localhost ip6-loopback',
    `127.0.1.1 ${hostname}`,
    ...hosts,
  ];
  const [seconds, nanoseconds] = [Math.floor(timeMs / 1000), Math.floor(timeMs % 1000) * 1_000_000];
  return [
    'umask 077; my ($random, $name, $pid);',
    // clock_settime(2), RNDADDENTROPY and RNDRESEEDCRNG of random(4)
    `my $time = pack('qq', ${seconds}, ${nanoseconds});`,
    "check('clock', syscall(227, 0, $time) == 0);",
    `my $bytes = decode_base64('${base64(entropy)}');`,
    "check('random', open($random, '+<', '/dev/random')",
    "  && ioctl($random, 0x40085203, pack('iia*', 8 * length($bytes), length($bytes), $bytes)) && ioctl($random, 0x5207, 0));",
    ...cardScript(card.frozen, card.own),
    // a plain base has a manager of networks, which reads this when it is started anew
    `-d '/run/systemd/network' and ${file(NETWORK_FILE, '644', networkText(card.own))}`,
    ...(card.own.dns === card.frozen.dns ? [] : [file('/etc/resolv.conf', '644', `nameserver ${card.own.dns}\n`)]),
    `check('hostname', open($name, '>', '/proc/sys/kernel/hostname') && print($name '${hostname}') && close($name));`,
    file('/etc/hostname', '644', `${hostname}\n`),
    file('/etc/hosts', '644', `${etcHosts.join('\n')}\n`),
    file('/etc/machine-id', '444', `${machineId}\n`),
    file('/root/.ssh/authorized_keys', '600', `${authorizedKeys.join('\n')}\n`),
    file('/etc/ssh/ssh_host_ed25519_key', '600', hostKey),
    file('/etc/ssh/ssh_host_ed25519_key.pub', '644', `${hostPublicKey}\n`),
    "check('sshd', open($pid, '<', '/run/sshd.pid') && kill('HUP', int(<$pid>)));",
    '',
  ].join('\n');
}

/**
 * SIOCSIFHWADDR, SIOCSIFADDR, SIOCSIFNETMASK and SIOCADDRT, with the structures of a 64-bit kernel: ip(8) would be a process. The kernel
 * drops the old address and its routes with the new address. IPv6 is switched off and on, since its address is made of the MAC.
 */
function cardScript(frozen: GuestNet, own: GuestNet): string[] {
  const [address = '', length = ''] = own.address.split('/');
  const mask = (2 ** 32 - 2 ** (32 - Number(length))).toString(16).padStart(8, '0');
  const setAddress = (ioctl: string, hex: string) =>
    `check('address', ioctl($socket, ${ioctl}, pack('a16Sx2H8x16', $card, 2, '${hex}')));`;
  const route = `pack('x8Sx14Sx2H8x8Sx14Sx62', 2, 2, '${hexOf(own.gateway)}', 2, 3)`;
  return [
    'my ($folder, $address, $card, $socket);',
    "check('cards', opendir($folder, '/sys/class/net'));",
    'for my $one (readdir($folder)) {',
    `  $card = $one if open($address, '<', "/sys/class/net/$one/address") && <$address> eq "${frozen.mac}\\n";`,
    '}',
    "check('card', $card && socket($socket, 2, 2, 0));",
    // the new MAC is told to the network: QEMU's would ask for it, lose what it asks for, and try again after six seconds
    'open($address, \'>\', "/proc/sys/net/ipv4/conf/$card/arp_notify") && print($address 1) && close($address);',
    `check('MAC', ioctl($socket, 0x8924, pack('a16SH12x16', $card, 1, '${own.mac.replaceAll(':', '')}')));`,
    ...(own.address === frozen.address ? [] : [setAddress('0x8916', hexOf(address)), setAddress('0x891c', mask)]),
    ...(own.address === frozen.address || own.gateway === ''
      ? []
      : [`check('route', ioctl($socket, 0x890b, ${route}));`]),
    'for my $value (1, 0) {',
    '  open($address, \'>\', "/proc/sys/net/ipv6/conf/$card/disable_ipv6") && print($address $value) && close($address);',
    '}',
  ];
}

/** What guest-setup has written for the frozen card. */
const NETWORK_FILE = '/run/systemd/network/10-buildkit-0.network';

function networkText({ mac, address, gateway, dns }: GuestNet): string {
  const lines = [`Address=${address}`, ...(gateway === '' ? [] : [`Gateway=${gateway}`]), `DNS=${dns}`];
  return ['[Match]', `MACAddress=${mac}`, '[Network]', ...lines, 'IPv6AcceptRA=no', 'LinkLocalAddressing=no', ''].join(
    '\n',
  );
}

/** Of an address in dotted quads. */
function hexOf(address: string): string {
  return address
    .split('.')
    .map((octet) => Number(octet).toString(16).padStart(2, '0'))
    .join('');
}

/** What the agent said: undefined while it has not finished. */
export function parseAgentAnswer(text: string): { readonly exitCode: number; readonly output: string } | undefined {
  const match = /buildkit-resumed (\d+)\r?\n([\s\S]*?)buildkit-end/.exec(text);
  return match ? { exitCode: Number(match[1]), output: match[2]?.trim() ?? '' } : undefined;
}
