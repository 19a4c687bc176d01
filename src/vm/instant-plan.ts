/**
 * What an instant clone needs besides QEMU: when a frozen machine may be used, and how a resumed one becomes itself. Pure.
 *
 * Secret: the agent, a few lines of sh that the frozen guest is caught waiting in (on its second serial line), and the script
 * that it is sent after the resume: right clock, fresh entropy, its own name, machine-id and host key.
 */
import { createHash } from 'node:crypto';

/** Everything that must be the same for a frozen machine to be resumed. */
export interface FrozenShape {
  readonly baseSha256: string;
  readonly architecture: string;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly accel: 'kvm' | 'tcg';
  readonly cpuModel: string | undefined;
  /** What `qemu-system-x86_64 --version` says. */
  readonly qemu: string;
  /** Model and flags, from /proc/cpuinfo. */
  readonly hostCpu: string;
  readonly kernelParameters: readonly string[];
}

/** Changes whenever what is frozen, or how, changes. */
const FORMAT = 1;

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

/** Runs in the guest that is frozen: takes one script by its length, runs it, says how it ended. */
export const AGENT_SCRIPT = `stty raw -echo
read -r length
head -c "$length" >/run/buildkit-resume
sh /run/buildkit-resume >/run/buildkit-resume.log 2>&1
echo "buildkit-resumed $?"
[ -s /run/buildkit-resume.log ] && head -c 2000 /run/buildkit-resume.log
echo buildkit-end
rm -f /run/buildkit-resume
`;

/** Starts the agent so that nothing but the freezing ends its wait; the script comes on stdin. */
export const AGENT_START = `umask 077
cat >/run/buildkit-agent
setsid sh -c 'exec sh /run/buildkit-agent </dev/ttyS1 >/dev/ttyS1 2>/dev/null' &
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
  /** Milliseconds since the epoch. */
  readonly timeMs: number;
  /** 64 bytes. */
  readonly entropy: Uint8Array;
}

/** RNDADDENTROPY and RNDRESEEDCRNG of random(4), by perl, which is essential in Debian. */
const RESEED = `perl -MMIME::Base64 -e '
my $bytes = decode_base64($ARGV[0]);
open(my $random, "+<", "/dev/random") or die;
ioctl($random, 0x40085203, pack("iia*", 8 * length($bytes), length($bytes), $bytes)) or die;
ioctl($random, 0x5207, 0) or die;
'`;

/** What the agent runs. sshd takes up its new key by a hang-up; the journal moves to the new machine-id in its own time. */
export function resumeScript(identity: ResumedIdentity): string {
  const { hostname, machineId, hostKey, hostPublicKey, authorizedKeys, hosts, timeMs, entropy } = identity;
  const file = (path: string, mode: string, content: string) =>
    `echo ${Buffer.from(content).toString('base64')} | base64 -d >${path}.new && chmod ${mode} ${path}.new && mv -f ${path}.new ${path} || failed=1`;
  const etcHosts = [
    '127.0.0.1 localhost',
    '::1 localhost ip6-localhost ip6-loopback',
    `127.0.1.1 ${hostname}`,
    ...hosts,
  ];
  return [
    'failed=0',
    'umask 077',
    `date -u -s @${(timeMs / 1000).toFixed(3)} >/dev/null || failed=1`,
    `${RESEED.trim()} ${Buffer.from(entropy).toString('base64')} || failed=1`,
    `echo ${hostname} >/proc/sys/kernel/hostname`,
    file('/etc/hostname', '644', `${hostname}\n`),
    file('/etc/hosts', '644', `${etcHosts.join('\n')}\n`),
    file('/etc/machine-id', '444', `${machineId}\n`),
    file('/root/.ssh/authorized_keys', '600', `${authorizedKeys.join('\n')}\n`),
    file('/etc/ssh/ssh_host_ed25519_key', '600', hostKey),
    file('/etc/ssh/ssh_host_ed25519_key.pub', '644', `${hostPublicKey}\n`),
    'kill -HUP "$(cat /run/sshd.pid)" || failed=1',
    '(sleep 1; systemctl --no-block restart systemd-journald) >/dev/null 2>&1 &',
    'exit $failed',
    '',
  ].join('\n');
}

/** What the agent said: undefined while it has not finished. */
export function parseAgentAnswer(text: string): { readonly exitCode: number; readonly output: string } | undefined {
  const match = /buildkit-resumed (\d+)\r?\n([\s\S]*?)buildkit-end/.exec(text);
  return match ? { exitCode: Number(match[1]), output: match[2]?.trim() ?? '' } : undefined;
}
