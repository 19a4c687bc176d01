/**
 * What a machine is started with: what was said for this start, over what its definition says, over the variables that NixOS's
 * `run-HOST-vm` scripts read (nixos/modules/virtualisation/qemu-vm.nix). Pure.
 *
 * Secret: how the three are put together: single values replace one another, lists are joined.
 */
import { z } from 'zod';
import { UserError } from '../core/errors.ts';

const forwardSchema = z.object({
  protocol: z.enum(['tcp', 'udp']),
  address: z.string(),
  hostPort: z.int().min(1).max(65535),
  guestPort: z.int().min(1).max(65535),
});

const shareSchema = z.object({
  /** A folder of this machine, absolute. */
  dir: z.string(),
  /** It is mounted at /mnt/TAG; `shared` at /tmp/shared. */
  tag: z.string(),
  writable: z.boolean(),
});
export type Share = Readonly<z.infer<typeof shareSchema>>;

/** What a definition keeps for every start of its machine. */
export const launchSchema = z.object({
  diskInterface: z.enum(['virtio', 'scsi', 'ide']).optional(),
  /** Writes go to a temporary file and vanish at the end. */
  snapshot: z.boolean().optional(),
  /** `127.0.0.1:1`: address and number of a display. */
  vnc: z.string().optional(),
  /** A screen, for screenshots; vnc has one anyhow. */
  graphics: z.boolean().optional(),
  /** Ports of this machine to lead into the guest; ssh has one anyhow. */
  forwards: z.array(forwardSchema).readonly().optional(),
  /** More cards, each as QEMU's -netdev takes it, with an id. */
  netdevs: z.array(z.string()).readonly().optional(),
  /** Added to the user network, as QEMU's -netdev user takes it. */
  netOptions: z.string().optional(),
  shares: z.array(shareSchema).readonly().optional(),
  ssh: z
    .object({
      /** Of this machine; default: a free one. */
      port: z.int().min(1).max(65535).optional(),
      /** File of a private key; default: the one of this state folder. */
      key: z.string().optional(),
      /** Default: root. */
      user: z.string().optional(),
      /** Address of this machine on which the port is; default 127.0.0.1. */
      host: z.string().optional(),
    })
    .optional(),
  /** Copied in when the machine is ready. */
  copyFiles: z
    .array(z.object({ from: z.string(), to: z.string() }))
    .readonly()
    .optional(),
  /** Run by sh inside when the machine is ready; each must succeed. */
  execOnBoot: z.array(z.string()).readonly().optional(),
  /** Added to QEMU's command line as they are. */
  qemuOptions: z.array(z.string()).readonly().optional(),
  /** Added to the kernel's command line. */
  kernelParameters: z.array(z.string()).readonly().optional(),
});
export type LaunchOptions = Readonly<z.infer<typeof launchSchema>>;

const LISTS = [
  ...(['forwards', 'netdevs', 'shares', 'copyFiles', 'execOnBoot', 'qemuOptions', 'kernelParameters'] as const),
];

/** The later ones win; lists are joined in order. */
export function mergeLaunch<T extends LaunchOptions>(...layers: readonly T[]): T {
  const merged: Record<string, unknown> = {};
  for (const layer of layers) {
    for (const [name, value] of Object.entries(layer)) if (value !== undefined) merged[name] = value;
  }
  for (const name of LISTS) {
    const all = layers.flatMap((layer) => (layer[name] ?? []) as readonly unknown[]);
    if (all.length > 0) merged[name] = all;
  }
  return merged as T;
}

/** `QEMU_OPTS`, `QEMU_NET_OPTS`, `QEMU_KERNEL_PARAMS`, `SHARED_DIR`. */
export function launchFromEnvironment(env: Readonly<Record<string, string | undefined>>): LaunchOptions {
  const words = (name: string) => (env[name] ?? '').split(/\s+/).filter((word) => word !== '');
  const [qemuOptions, kernelParameters] = [words('QEMU_OPTS'), words('QEMU_KERNEL_PARAMS')];
  const { QEMU_NET_OPTS: netOptions, SHARED_DIR: dir } = env;
  return {
    ...(qemuOptions.length > 0 ? { qemuOptions } : {}),
    ...(kernelParameters.length > 0 ? { kernelParameters } : {}),
    ...(netOptions ? { netOptions } : {}),
    ...(dir ? { shares: [{ dir, tag: 'shared', writable: true }] } : {}),
  };
}

/** `8080:80`, `udp:5353:53`, `127.0.0.2:8080:80`, `tcp:8080:80`. @throws UserError `forward` */
export function parseForward(text: string): NonNullable<LaunchOptions['forwards']>[number] {
  const match = /^(?:(tcp|udp):)?(?:(\d+\.\d+\.\d+\.\d+):)?(\d{1,5}):(\d{1,5})$/.exec(text);
  const [hostPort, guestPort] = [Number(match?.[3]), Number(match?.[4])];
  if (!match || !isPort(hostPort) || !isPort(guestPort)) {
    throw new UserError('forward', `'${text}' is no pair of ports`, { hint: 'write HOST:GUEST, for example 8080:80' });
  }
  const protocol = match[1] === 'udp' ? 'udp' : 'tcp';
  return { protocol, address: match[2] ?? '127.0.0.1', hostPort, guestPort };
}

function isPort(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= 65_535;
}

/** `DIR:TAG` or `DIR:TAG:rw`; read only unless said otherwise. @throws UserError `share` */
export function parseShare(text: string, absolute: (dir: string) => string): Share {
  const match = /^(.+?):([A-Za-z0-9_][A-Za-z0-9_.-]{0,30})(?::(ro|rw))?$/.exec(text);
  if (!match) {
    throw new UserError('share', `'${text}' is no folder to share`, {
      hint: 'write DIR:TAG, or DIR:TAG:rw where the machine may write; it is mounted at /mnt/TAG',
    });
  }
  return { dir: absolute(match[1]!), tag: match[2]!, writable: match[3] === 'rw' };
}

/** `SRC:DST`. @throws UserError `copy-file` */
export function parseCopy(text: string, absolute: (path: string) => string): { from: string; to: string } {
  const match = /^(.+):(\/.*)$/.exec(text);
  if (!match) {
    throw new UserError('copy-file', `'${text}' does not say what goes where`, {
      hint: 'write SRC:DST, with DST absolute in the machine',
    });
  }
  return { from: absolute(match[1]!), to: match[2]! };
}

/** `127.0.0.1:1`, `:1`. @throws UserError `vnc` */
export function parseVnc(text: string): string {
  const match = /^([A-Za-z0-9.-]*):(\d{1,3})$/.exec(text);
  if (match) return `${match[1] || '127.0.0.1'}:${match[2]}`;
  throw new UserError('vnc', `'${text}' is no display`, {
    hint: 'write ADDRESS:NUMBER, for example 127.0.0.1:1 for port 5901',
  });
}

/** Where a shared folder is in the machine. */
export function mountPoint({ tag }: Share): string {
  return tag === 'shared' ? '/tmp/shared' : `/mnt/${tag}`;
}
