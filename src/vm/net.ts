/**
 * Networks of machines: bridge, taps, forwarding, NAT, DHCP and DNS, brought up, taken down and told about.
 *
 * Secret: the record that is written before each effect, by which everything is undone after a crash as well, and by which
 * things of others are told from ours.
 */
import type { Context } from '../core/context.ts';
import type { NetworkSpec } from './net-spec.ts';

/** What a machine needs to sit on a network: its tap, for `-netdev tap,ifname=TAP,script=no,downscript=no`. */
export interface NetworkSeat {
  readonly network: string;
  readonly bridge: string;
  readonly tap: string;
  /** Of the machine, from its number. */
  readonly address: string;
  readonly mac: string;
  /** Address of the host on the bridge: gateway, DNS, `host.buildkit`. */
  readonly gateway: string;
  readonly prefixLength: number;
}

export interface Networks {
  /** Brings the network up when it is down and gives machine `vm` a tap on it. */
  join(context: Context, spec: NetworkSpec, vm: { name: string; number: number; tap?: string }): Promise<NetworkSeat>;
  /** Takes the tap away; a network that `join` brought up goes down with its last machine. */
  leave(context: Context, network: string, vm: string): Promise<void>;
}
