import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import {
  AGENT_SCRIPT,
  type FrozenShape,
  frozenKey,
  hostCpuOf,
  parseAgentAnswer,
  type ResumedIdentity,
  resumeScript,
} from '../../../src/vm/instant-plan.ts';
import { userNet } from '../../../src/vm/qemu.ts';

const shape: FrozenShape = {
  ...{ baseSha256: 'a', architecture: 'amd64', memoryMiB: 1024, cpus: 2, accel: 'tcg', cpuModel: undefined },
  ...{ qemu: 'QEMU emulator version 7.2.22', hostCpu: 'model name : X', kernelParameters: ['rw'] },
};

describe('frozenKey', () => {
  it('changes with everything that memory and devices depend on', () => {
    const others: FrozenShape[] = [
      { ...shape, baseSha256: 'b' },
      { ...shape, memoryMiB: 512 },
      { ...shape, cpus: 1 },
      { ...shape, accel: 'kvm' },
      { ...shape, cpuModel: 'host' },
      { ...shape, qemu: 'QEMU emulator version 10.0.0' },
      { ...shape, hostCpu: 'model name : Y' },
      { ...shape, kernelParameters: ['rw', 'quiet'] },
    ];
    expect(new Set([shape, ...others].map(frozenKey)).size).toBe(others.length + 1);
    expect(frozenKey({ ...shape })).toBe(frozenKey(shape));
  });

  it('knows a CPU by model and flags, whatever its clock says', () => {
    const cpu = (mhz: number) =>
      `processor\t: 0\nmodel name\t: Fast One\ncpu MHz\t\t: ${mhz}\nflags\t\t: fpu vme\n\nprocessor\t: 1\nmodel name\t: x\n`;
    expect(hostCpuOf(cpu(1000))).toBe('model name : Fast One\nflags : fpu vme');
    expect(hostCpuOf(cpu(2000))).toBe(hostCpuOf(cpu(1000)));
  });
});

describe('resumeScript', () => {
  const identity: ResumedIdentity = {
    ...{
      hostname: 'web',
      machineId: '0123456789abcdef0123456789abcdef',
      hostKey: 'KEY\n',
      hostPublicKey: 'ssh-ed25519 A',
    },
    ...{ authorizedKeys: ['ssh-ed25519 B'], hosts: ['10.0.2.2 host.buildkit'], timeMs: 1_800_000_000_250 },
    card: { frozen: userNet('52:54:00:fe:fe:fe'), own: userNet('52:54:00:00:00:0a') },
    entropy: new Uint8Array(64).fill(7),
  };
  const script = resumeScript(identity);
  const written = (path: string) => {
    const content = new RegExp(`^put\\('${path}', 0\\d+, '(.*)'\\);$`, 'm').exec(script)?.[1] ?? '';
    return Buffer.from(content, 'base64').toString();
  };

  it('sets clock, entropy, names and keys, before sshd takes them up', () => {
    expect(script).toContain("pack('qq', 1800000000, 250000000)");
    expect(script).toContain(Buffer.from(identity.entropy).toString('base64'));
    expect(written('/etc/hostname')).toBe('web\n');
    expect(written('/etc/machine-id')).toBe('0123456789abcdef0123456789abcdef\n');
    expect(written('/etc/hosts')).toContain('127.0.1.1 web\n10.0.2.2 host.buildkit\n');
    expect(written('/etc/ssh/ssh_host_ed25519_key')).toBe('KEY\n');
    expect(script.indexOf("kill('HUP'")).toBeGreaterThan(script.indexOf('/etc/ssh/ssh_host_ed25519_key.pub'));
  });

  const onBridge = resumeScript({
    ...identity,
    card: {
      frozen: userNet('52:54:00:fe:fe:fe'),
      own: { mac: '52:54:00:a8:64:0a', address: '192.168.100.10/24', gateway: '192.168.100.254', dns: '192.0.2.53' },
    },
  });

  it('gives the card its own MAC, and another address where it sits elsewhere', () => {
    expect(script).toContain("ioctl($socket, 0x8924, pack('a16SH12x16', $card, 1, '52540000000a'))");
    expect(script).not.toMatch(/0x8916|0x890b|resolv\.conf/);
    expect(script.indexOf('arp_notify')).toBeGreaterThan(0); // a network that has to ask loses the first connection
    expect(script.indexOf('arp_notify')).toBeLessThan(script.indexOf('0x8924'));
    for (const part of ["2, 'c0a8640a'", "2, 'ffffff00'", "2, 2, 'c0a864fe', 2, 3"]) expect(onBridge).toContain(part);
    const packs = onBridge.match(/pack\('[^']+', [^()]+\)(?=\)\))/g) ?? [];
    const lengths = `my $card = 'eth0'; print join ' ', map { length } ${packs.join(', ')}`;
    // struct ifreq three times, struct rtentry
    expect(execFileSync('perl', ['-e', lengths], { encoding: 'utf8' })).toBe('40 40 40 120');
  });

  it('is perl that the agent can read', () => {
    const check = `my $code = "sub { $ARGV[0] }"; eval($code) or die $@;`;
    const subs = AGENT_SCRIPT.slice(0, AGENT_SCRIPT.indexOf("my $line = ''"));
    for (const one of [script, onBridge]) execFileSync('perl', ['-e', `${subs}\n${check}`, one], { stdio: 'pipe' });
    execFileSync('perl', ['-c', '-e', AGENT_SCRIPT], { stdio: 'pipe' });
  });
});

describe('parseAgentAnswer', () => {
  it('waits for the end', () => {
    expect(parseAgentAnswer('buildkit-resumed 0\n')).toBeUndefined();
    expect(parseAgentAnswer('buildkit-resumed 0\nbuildkit-end\n')).toEqual({ exitCode: 0, output: '' });
    expect(parseAgentAnswer('x\nbuildkit-resumed 1\nno date\nbuildkit-end')).toEqual({
      exitCode: 1,
      output: 'no date',
    });
  });
});
