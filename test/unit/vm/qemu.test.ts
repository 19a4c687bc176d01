import { describe, expect, it } from 'vitest';
import { accelArgs, isPortTaken, type QemuPlan, qemuArgs, qemuProgram, userNet } from '../../../src/vm/qemu.ts';

const plan: QemuPlan = {
  name: 'web',
  folder: '/m/web',
  uuid: '3f9a0c12-0000-4000-8000-000000000001',
  architecture: 'amd64',
  accel: 'tcg',
  memoryMiB: 1024,
  cpus: 2,
  nets: [
    {
      kind: 'user',
      mac: '52:54:00:00:00:0a',
      forwards: [{ protocol: 'tcp', address: '127.0.0.1', hostPort: 2222, guestPort: 22 }],
    },
  ],
  boot: { kernel: '/bases/b/vmlinuz', initrd: '/bases/b/initrd.img', parameters: ['root=UUID=x', 'rw'] },
  seeded: false,
  detached: false,
  unsafeCache: true,
  snapshot: false,
  extra: [],
};

/** The value behind each occurrence of an option. */
function values(args: readonly string[], option: string): string[] {
  return args.flatMap((word, index) => (word === option ? [args[index + 1]!] : []));
}

describe('qemuArgs', () => {
  it('is this command line', () => {
    expect(qemuArgs(plan)).toEqual(
      [
        '-name buildkit-web -uuid 3f9a0c12-0000-4000-8000-000000000001 -nodefaults -no-user-config -display none',
        '-machine q35 -accel tcg,thread=multi -m 1024M -smp 2',
        '-sandbox on,obsolete=deny,resourcecontrol=deny,elevateprivileges=deny,spawn=deny -pidfile pid',
        '-chardev socket,id=qmp,path=qmp.sock,server=on,wait=off -mon chardev=qmp,mode=control',
        '-chardev socket,id=serial,path=console.sock,server=on,wait=off,logfile=console.log,logappend=on',
        '-serial chardev:serial -device virtio-rng-pci',
        '-drive if=none,id=disk,file=/m/web/disk.qcow2,format=qcow2,cache=unsafe,discard=unmap,werror=enospc,rerror=report',
        '-device virtio-blk-pci,drive=disk,serial=root',
        '-netdev user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:2222-:22',
        '-device virtio-net-pci,netdev=net0,mac=52:54:00:00:00:0a,romfile=',
        '-smbios type=11,path=settings -kernel /bases/b/vmlinuz -initrd /bases/b/initrd.img',
      ]
        .join(' ')
        .split(' ')
        .concat('-append', 'root=UUID=x rw'),
    );
  });

  it('runs apart with filters that let it', () => {
    const args = qemuArgs({ ...plan, detached: true, unsafeCache: false });
    expect(args).toContain('-daemonize');
    expect(values(args, '-sandbox')).toEqual(['on,obsolete=deny,resourcecontrol=deny']);
    expect(values(args, '-drive')[0]).toContain('cache=writeback');
  });

  it('has the disk, the screen, the cards and the folders that a definition asks for', () => {
    const scsi = qemuArgs({ ...plan, diskInterface: 'scsi', diskFormat: 'raw' });
    expect(values(scsi, '-device')).toEqual(expect.arrayContaining(['scsi-hd,bus=scsi.0,drive=disk,serial=root']));
    expect(values(scsi, '-drive')[0]).toContain('file=/m/web/disk.raw,format=raw');
    expect(values(qemuArgs({ ...plan, diskInterface: 'ide' }), '-device')).toContain(
      'ide-hd,bus=ide.0,drive=disk,serial=root',
    );
    expect(values(qemuArgs({ ...plan, graphics: true }), '-device')).toContain('VGA');
    const shown = qemuArgs({ ...plan, vnc: '127.0.0.1:1', netdevs: ['user,id=net9'] });
    expect(values(shown, '-vnc')).toEqual(['127.0.0.1:1']);
    expect(values(shown, '-device')).toEqual(expect.arrayContaining(['VGA', 'virtio-net-pci,netdev=net9,romfile=']));
    expect(() => qemuArgs({ ...plan, netdevs: ['user'] })).toThrowError(expect.objectContaining({ code: 'netdev' }));
    const shares = [
      { dir: '/a,b', tag: 'ro', writable: false },
      { dir: '/c', tag: 'rw', writable: true },
    ];
    const lent = qemuArgs({ ...plan, shares });
    expect(values(lent, '-fsdev')).toEqual([
      'local,id=share0,path=/a,,b,security_model=none,readonly=on',
      'local,id=share1,path=/c,security_model=none',
    ]);
    expect(values(lent, '-device')).toContain('virtio-9p-pci,fsdev=share0,mount_tag=ro');
    const nets = [{ ...plan.nets[0]!, options: 'hostfwd=tcp::8080-:80' }] as QemuPlan['nets'];
    expect(values(qemuArgs({ ...plan, nets }), '-netdev')[0]).toMatch(/:22,hostfwd=tcp::8080-:80$/);
  });

  it('doubles commas, which QEMU takes for the end of a value', () => {
    const args = qemuArgs({ ...plan, boot: { kernel: '/a,b/vmlinuz', initrd: 'i', parameters: [] } });
    expect(values(args, '-kernel')).toEqual(['/a,,b/vmlinuz']);
  });

  it('lets an image from elsewhere boot by itself, with its seed beside it', () => {
    const args = qemuArgs({ ...plan, boot: undefined, seeded: true });
    expect(values(args, '-kernel')).toEqual([]);
    expect(values(args, '-drive').at(-1)).toBe('if=none,id=seed,file=seed.iso,format=raw,readonly=on');
  });

  it('puts a tap and the extra words in', () => {
    const args = qemuArgs({ ...plan, nets: [{ kind: 'tap', mac: 'm', tap: 'qtap0' }], extra: ['-vnc', ':1'] });
    expect(values(args, '-netdev')).toEqual(['tap,id=net0,ifname=qtap0,script=no,downscript=no']);
    expect(args.slice(-2)).toEqual(['-vnc', ':1']);
  });

  it('goes on from a file of memory, with a line for the agent', () => {
    const args = qemuArgs({ ...plan, memory: { path: '/f/memory', shared: false, incoming: true } });
    expect(values(args, '-object')).toEqual(['memory-backend-file,id=ram,size=1024M,mem-path=/f/memory,share=off']);
    expect(values(args, '-serial')).toEqual(['chardev:serial', 'chardev:agent']);
    expect(values(args, '-incoming')).toEqual(['defer']);
  });

  it('knows machine and CPU of each architecture', () => {
    expect(accelArgs('kvm', 'amd64', 'host')).toEqual(['-machine', 'q35', '-accel', 'kvm', '-cpu', 'host']);
    expect(accelArgs('tcg', 'arm64')).toEqual(['-machine', 'virt', '-accel', 'tcg,thread=multi', '-cpu', 'max']);
    expect(qemuProgram('arm64')).toBe('qemu-system-aarch64');
    expect(qemuProgram('amd64')).toBe('qemu-system-x86_64');
  });

  it('tells a port in use from other failures', () => {
    expect(isPortTaken("qemu: Could not set up host forwarding rule 'tcp:127.0.0.1:22-:22'")).toBe(true);
    expect(isPortTaken('qemu: could not open disk image')).toBe(false);
  });

  it('has the addresses of the user network', () => {
    expect(userNet('m')).toEqual({ mac: 'm', address: '10.0.2.15/24', gateway: '10.0.2.2', dns: '10.0.2.3' });
  });
});
