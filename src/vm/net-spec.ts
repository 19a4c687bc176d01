/**
 * What a network of machines is: its names, its addresses and what may pass, as plain data.
 *
 * Secret: the number scheme (number 10 is 192.168.100.10 and has its MAC from that address) and the limits of Linux names
 * (IFNAMSIZ 16, RFC 1123 host names).
 */
import { isIPv4 } from 'node:net';
import { type Problem, UserError } from '../core/errors.ts';

/** A machine known to the network's DHCP and DNS by more than its number. */
export interface NetworkGuest {
  /** Last octet of its address. */
  readonly number: number;
  /** `web` answers as `web.vm.buildkit`. */
  readonly name: string;
}

export interface NetworkSpec {
  /** Names the state file and the nft table: lower case letters, digits and `-`. */
  readonly name: string;
  readonly bridge: string;
  /** The host's address on the bridge and the prefix length, `192.168.100.254/24`. */
  readonly address: string;
  /** Tap devices made with the network; machines may add theirs with `joinNetwork`. */
  readonly taps: readonly string[];
  /** User id that may open the taps without rights; who makes them when absent. */
  readonly tapOwner?: number | undefined;
  /** The interface that leads out; that of the default route when absent. */
  readonly uplink?: string | undefined;
  /** The next hop beyond it; that of its own default route when absent. */
  readonly gateway?: string | undefined;
  /** No way out: guests reach `ports` on the bridge address, DHCP and DNS, nothing else. */
  readonly isolated: boolean;
  /** TCP ports of the bridge address that an isolated guest reaches (proxy, repository). */
  readonly ports: readonly number[];
  /** Static leases from the number scheme. */
  readonly dhcp: boolean;
  /** `NAME.vm.buildkit`, `buildkit10.vm.buildkit` and `host.buildkit`. */
  readonly dns: boolean;
  readonly guests: readonly NetworkGuest[];
}

/** What `vm net up` makes when nothing is said: proxy on 9999, repository on 8080. */
export const DEFAULT_NETWORK: NetworkSpec = {
  name: 'default',
  bridge: 'br0',
  address: '192.168.100.254/24',
  taps: ['qtap0'],
  isolated: false,
  ports: [9999, 8080],
  dhcp: false,
  dns: false,
  guests: [],
};

export interface Ipv4Prefix {
  /** The host part kept: `192.168.100.254`. */
  readonly address: string;
  readonly length: number;
  /** With the host part zero: `192.168.100.0`. */
  readonly network: string;
}

/** Reads `192.168.100.254/24`. @throws UserError `net-address` */
export function parsePrefix(text: string): Ipv4Prefix {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  const octets = match?.slice(1, 5).map(Number) ?? [];
  const length = Number(match?.[5]);
  if (!match || octets.some((octet) => octet > 255) || length < 8 || length > 24) {
    throw new UserError('net-address', `'${text}' is no address with a prefix length`, {
      hint: 'write it like 192.168.100.254/24; machines are numbered by the last octet, so 24 is the longest prefix',
    });
  }
  const value = toNumber(octets);
  return { address: octets.join('.'), length, network: fromNumber(value - (value % 2 ** (32 - length))) };
}

function toNumber(octets: readonly number[]): number {
  return octets.reduce((sum, octet) => sum * 256 + octet, 0);
}

function fromNumber(value: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.');
}

/** True when the two networks share an address. */
export function overlaps(a: Ipv4Prefix, b: Ipv4Prefix): boolean {
  const size = 2 ** (32 - Math.min(a.length, b.length));
  const [first, second] = [a, b].map((one) => toNumber(one.network.split('.').map(Number)));
  return Math.floor((first ?? 0) / size) === Math.floor((second ?? 0) / size);
}

/** Address of machine `number`: 10 is `192.168.100.10` in the default network. @throws UserError `vm-number` */
export function guestAddress(network: Pick<NetworkSpec, 'address'>, number: number): string {
  const prefix = parsePrefix(network.address);
  if (!Number.isInteger(number) || number < 2 || number > 253) {
    throw new UserError('vm-number', `a machine's number is between 2 and 253, not '${number}'`, {
      hint: '0, 1, 254 and 255 belong to the network and the host',
    });
  }
  return [...prefix.address.split('.').slice(0, 3), number].join('.');
}

/** QEMU's prefix 52:54:00 and the last three octets of the address: unique on every network of this host. */
export function guestMac(network: Pick<NetworkSpec, 'address'>, number: number): string {
  const octets = guestAddress(network, number).split('.').slice(1).map(Number);
  return ['52', '54', '00', ...octets.map((octet) => octet.toString(16).padStart(2, '0'))].join(':');
}

/** Everything that is wrong with a network's description, before anything of the machine is looked at. */
export function checkNetwork(spec: NetworkSpec): Problem[] {
  const problems: Problem[] = [];
  const say = (code: string, message: string, hint: string) =>
    problems.push({ code, message, hint, subject: spec.name });
  if (!/^[a-z][a-z0-9-]{0,30}$/.test(spec.name)) {
    say('net-name', `'${spec.name}' is no name for a network`, 'use lower case letters, digits and -, a letter first');
  }
  for (const name of [spec.bridge, ...spec.taps, ...(spec.uplink === undefined ? [] : [spec.uplink])]) {
    // shorter than IFNAMSIZ and free of what would mean something to ip, nft or dnsmasq (* is its wildcard)
    if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/.test(name) || name === 'all' || name === 'default') {
      say('net-interface-name', `'${name}' is no name for an interface`, 'use at most 15 letters, digits, _, . and -');
    }
  }
  if (new Set([spec.bridge, ...spec.taps]).size !== spec.taps.length + 1) {
    say('net-interface-name', 'two interfaces of the network have the same name', 'give each tap a name of its own');
  }
  const host = parsePrefix(spec.address).address.split('.').at(-1);
  if (host !== '1' && host !== '254') {
    say('net-address', `the host's address ends in ${host}, which may be a machine's`, 'let it end in .254 or .1');
  }
  if (spec.gateway !== undefined && (spec.uplink === undefined || !isIPv4(spec.gateway))) {
    const message = spec.uplink === undefined ? 'a gateway needs its uplink' : `'${spec.gateway}' is no IPv4 address`;
    say('net-uplink', message, 'for example: --uplink eth1 --gateway 198.51.100.1');
  }
  for (const port of spec.ports.filter((one) => !Number.isInteger(one) || one < 1 || one > 65535)) {
    say('net-port', `'${port}' is no port`, 'ports are 1 to 65535');
  }
  for (const guest of spec.guests) {
    if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(guest.name)) {
      say('net-guest', `'${guest.name}' is no host name`, 'use lower case letters, digits and -');
    }
    if (guest.number < 2 || guest.number > 253) {
      say('vm-number', `machine '${guest.name}' has number ${guest.number}`, 'numbers are 2 to 253');
    }
  }
  return problems;
}
