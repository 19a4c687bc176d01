/**
 * The command line of QEMU for one machine (qemu-system(1)).
 *
 * Secret: which devices a machine has. Paths of sockets are relative to the machine's folder, in which QEMU starts, since they
 * may have only 107 bytes (unix(7)); the disk's is absolute, since a detached QEMU leaves the folder and may open it again.
 */
import { UserError } from '../core/errors.ts';
import type { GuestNet } from './guest.ts';
import type { Share } from './launch-options.ts';

export type Accel = 'kvm' | 'tcg';

/** A port of this machine that leads into the guest. */
export interface Forward {
  readonly protocol: 'tcp' | 'udp';
  readonly address: string;
  readonly hostPort: number;
  readonly guestPort: number;
}

export type QemuNet =
  | {
      readonly kind: 'user';
      readonly mac: string;
      readonly forwards: readonly Forward[];
      /** As -netdev takes them. */
      readonly options?: string | undefined;
    }
  | { readonly kind: 'tap'; readonly mac: string; readonly tap: string };

export interface QemuPlan {
  readonly name: string;
  /** The machine's, absolute. */
  readonly folder: string;
  /** Marks the process: `/proc/PID/cmdline` with this UUID is this machine and no other. */
  readonly uuid: string;
  /** Debian's name. */
  readonly architecture: string;
  readonly accel: Accel;
  readonly cpuModel?: string | undefined;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly nets: readonly QemuNet[];
  /** undefined: the disk boots by itself. */
  readonly boot:
    | { readonly kernel: string; readonly initrd: string; readonly parameters: readonly string[] }
    | undefined;
  /** A NoCloud seed lies in the machine's folder. */
  readonly seeded: boolean;
  /** Run apart from the program that starts it. */
  readonly detached: boolean;
  /** Writes to the disk may be lost when this machine loses power: right for what is thrown away. */
  readonly unsafeCache: boolean;
  /** Writes go to a temporary file and vanish at the end. */
  readonly snapshot: boolean;
  readonly diskFormat?: 'qcow2' | 'raw' | undefined;
  /** Default: virtio. */
  readonly diskInterface?: 'virtio' | 'scsi' | 'ide' | undefined;
  /** A screen; nobody sees it but by `vnc` (`127.0.0.1:1`) and screenshots. */
  readonly graphics?: boolean | undefined;
  readonly vnc?: string | undefined;
  readonly shares?: readonly Share[] | undefined;
  /** More cards, as -netdev takes them, with an id. */
  readonly netdevs?: readonly string[] | undefined;
  /** For instant clones: memory in a file, a second serial line for the guest's agent, the state of a frozen machine. */
  readonly memory?: MemoryFile | undefined;
  /** Added at the end, as they are. */
  readonly extra: readonly string[];
}

export interface MemoryFile {
  readonly path: string;
  /** Writes go to the file; otherwise they stay with the process, and many share what nobody wrote to. */
  readonly shared: boolean;
  /** Wait for the state of a machine (QMP migrate-incoming) instead of booting. */
  readonly incoming: boolean;
}

/** Files in a machine's folder. */
export const MACHINE_FILES = {
  disk: 'disk.qcow2',
  rawDisk: 'disk.raw',
  console: 'console.log',
  consoleSocket: 'console.sock',
  qmpSocket: 'qmp.sock',
  pid: 'pid',
  settings: 'settings',
  seed: 'seed.iso',
  agentSocket: 'agent.sock',
  stateSocket: 'state.sock',
} as const;

/** The user network of QEMU: addresses that never change (qemu-system(1), -netdev user). */
export const USER_NET = { address: '10.0.2.15/24', gateway: '10.0.2.2', dns: '10.0.2.3' } as const;

/** The user network's card as the guest is told of it. */
export function userNet(mac: string): GuestNet {
  return { mac, ...USER_NET };
}

/** The program that emulates `architecture`. */
export function qemuProgram(architecture: string): string {
  return architecture === 'arm64' ? 'qemu-system-aarch64' : 'qemu-system-x86_64';
}

/** @param cpu model for `-cpu`; QEMU's own choice when absent */
export function accelArgs(accel: Accel, architecture: string, cpu?: string): string[] {
  const model = cpu ?? (architecture === 'arm64' ? 'max' : undefined);
  return [
    ...['-machine', architecture === 'arm64' ? 'virt' : 'q35'],
    ...['-accel', accel === 'kvm' ? 'kvm' : 'tcg,thread=multi'],
    ...(model === undefined ? [] : ['-cpu', model]),
  ];
}

export function qemuArgs(plan: QemuPlan): string[] {
  const files = MACHINE_FILES;
  const cache = plan.unsafeCache ? 'unsafe' : 'writeback';
  return [
    ...['-name', `buildkit-${option(plan.name)}`, '-uuid', plan.uuid],
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...accelArgs(plan.accel, plan.architecture, plan.cpuModel),
    ...(plan.memory ? memoryArgs(plan.memory, plan.memoryMiB) : []),
    ...['-m', `${plan.memoryMiB}M`, '-smp', String(plan.cpus)],
    // seccomp; -daemonize itself forks and makes a session, which the stricter filters forbid
    ...[
      '-sandbox',
      `on,obsolete=deny,resourcecontrol=deny${plan.detached ? '' : ',elevateprivileges=deny,spawn=deny'}`,
    ],
    ...['-pidfile', files.pid],
    ...['-chardev', `socket,id=qmp,path=${files.qmpSocket},server=on,wait=off`, '-mon', 'chardev=qmp,mode=control'],
    '-chardev',
    `socket,id=serial,path=${files.consoleSocket},server=on,wait=off,logfile=${files.console},logappend=on`,
    ...['-serial', 'chardev:serial'],
    ...(plan.memory ? agentArgs() : []),
    ...['-device', 'virtio-rng-pci'],
    '-drive',
    // a full disk here stops the guest instead of feeding it errors; it goes on when there is room (QMP cont)
    `if=none,id=disk,file=${option(plan.folder)}/${diskFile(plan.diskFormat)},format=${plan.diskFormat ?? 'qcow2'},cache=${cache},discard=unmap,werror=enospc,rerror=report`,
    ...diskDevice(plan.diskInterface ?? 'virtio'),
    ...plan.nets.flatMap(netArgs),
    ...(plan.netdevs ?? []).flatMap(extraNetArgs),
    ...(plan.shares ?? []).flatMap(shareArgs),
    ...(plan.graphics || plan.vnc !== undefined ? ['-device', 'VGA'] : []),
    ...(plan.vnc === undefined ? [] : ['-vnc', option(plan.vnc)]),
    ...['-smbios', `type=11,path=${files.settings}`],
    ...(plan.seeded ? seedArgs() : []),
    ...(plan.boot ? bootArgs(plan.boot) : []),
    ...(plan.snapshot ? ['-snapshot'] : []),
    ...(plan.memory?.incoming ? ['-incoming', 'defer'] : []),
    ...(plan.detached ? ['-daemonize'] : []),
    ...plan.extra,
  ];
}

/** The disk in a machine's folder. */
export function diskFile(format: 'qcow2' | 'raw' = 'qcow2'): string {
  return format === 'raw' ? MACHINE_FILES.rawDisk : MACHINE_FILES.disk;
}

function diskDevice(kind: 'virtio' | 'scsi' | 'ide'): string[] {
  if (kind === 'scsi') {
    return ['-device', 'virtio-scsi-pci,id=scsi', '-device', 'scsi-hd,bus=scsi.0,drive=disk,serial=root'];
  }
  // q35's own controller (AHCI)
  if (kind === 'ide') return ['-device', 'ide-hd,bus=ide.0,drive=disk,serial=root'];
  return ['-device', 'virtio-blk-pci,drive=disk,serial=root'];
}

/** @throws UserError `netdev` */
function extraNetArgs(netdev: string): string[] {
  const id = /(?:^|,)id=([A-Za-z][\w.-]*)/.exec(netdev)?.[1];
  if (id === undefined) {
    throw new UserError('netdev', `'${netdev}' has no id`, { hint: 'write it as -netdev takes it: user,id=net9' });
  }
  return ['-netdev', netdev, '-device', `virtio-net-pci,netdev=${id},romfile=`];
}

/** What the guest cannot write to, QEMU refuses to write. */
function shareArgs({ dir, tag, writable }: Share, index: number): string[] {
  const readOnly = writable ? '' : ',readonly=on';
  return [
    ...['-fsdev', `local,id=share${index},path=${option(dir)},security_model=none${readOnly}`],
    ...['-device', `virtio-9p-pci,fsdev=share${index},mount_tag=${tag}`],
  ];
}

function bootArgs({ kernel, initrd, parameters }: NonNullable<QemuPlan['boot']>): string[] {
  return ['-kernel', option(kernel), '-initrd', option(initrd), '-append', parameters.join(' ')];
}

function memoryArgs({ path, shared }: MemoryFile, mebibytes: number): string[] {
  const share = shared ? 'on' : 'off';
  return [
    ...['-object', `memory-backend-file,id=ram,size=${mebibytes}M,mem-path=${option(path)},share=${share}`],
    ...['-machine', 'memory-backend=ram'],
  ];
}

function agentArgs(): string[] {
  const socket = `socket,id=agent,path=${MACHINE_FILES.agentSocket},server=on,wait=off`;
  return ['-chardev', socket, '-serial', 'chardev:agent'];
}

function seedArgs(): string[] {
  const drive = `if=none,id=seed,file=${MACHINE_FILES.seed},format=raw,readonly=on`;
  return ['-drive', drive, '-device', 'virtio-blk-pci,drive=seed,serial=seed'];
}

function netArgs(net: QemuNet, index: number): string[] {
  const id = `net${index}`;
  const forwards = net.kind === 'user' ? net.forwards : [];
  const backend =
    net.kind === 'user'
      ? // without a way out by IPv6 a guest that tries it first only loses time
        [
          `user,id=${id},ipv6=off`,
          ...forwards.map(forwardOption),
          ...(net.kind === 'user' && net.options ? [net.options] : []),
        ].join(',')
      : `tap,id=${id},ifname=${option(net.tap)},script=no,downscript=no`;
  // no boot from the network: its ROM costs a second
  return ['-netdev', backend, '-device', `virtio-net-pci,netdev=${id},mac=${net.mac},romfile=`];
}

function forwardOption({ protocol, address, hostPort, guestPort }: Forward): string {
  return `hostfwd=${protocol}:${address}:${hostPort}-:${guestPort}`;
}

/** QEMU ends an option's value at a comma; two commas mean one. */
function option(value: string): string {
  return value.replaceAll(',', ',,');
}

/** What QEMU's complaint about a port that another program has looks like. */
export function isPortTaken(stderr: string): boolean {
  return /Could not set up host forwarding rule|Address already in use/i.test(stderr);
}
