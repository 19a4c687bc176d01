/**
 * Networks of machines: bridge, taps, forwarding, NAT, DHCP and DNS, brought up, taken down and told about.
 *
 * Secret: that the record is written before each effect, so that everything is undone after a crash as well.
 */
import { randomBytes } from 'node:crypto';
import type { Context } from '../core/context.ts';
import { ProblemsError, UserError } from '../core/errors.ts';
import { applyAll } from './net-apply.ts';
import { netnsIsThere, readFacts, readWorld, type World } from './net-facts.ts';
import {
  holdsEntry,
  type NetEntry,
  type NetFacts,
  type NetPlan,
  type NetStep,
  planDown,
  planNet,
  withEntry,
  withoutEntry,
} from './net-plan.ts';
import { neighbourAt } from './net-probe.ts';
import {
  forget,
  forgetStale,
  type Lease,
  type NetState,
  placesOf,
  readLeases,
  readState,
  recordedNames,
  type Seat,
  takeLock,
  writeState,
} from './net-record.ts';
import type { DnsmasqPlaces } from './net-rules.ts';
import { DEFAULT_NETWORK, guestAddress, guestMac, type NetworkSpec, parsePrefix } from './net-spec.ts';

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
  /** A server of names answers on the gateway's address. */
  readonly dns: boolean;
}

export interface NetworkStatus {
  readonly name: string;
  readonly up: boolean;
  readonly bridge: string;
  readonly address: string;
  readonly uplink: string | undefined;
  readonly isolated: boolean;
  readonly dhcp: boolean;
  readonly dns: boolean;
  readonly taps: readonly { readonly name: string; readonly there: boolean; readonly vm: string | undefined }[];
  readonly leases: readonly Lease[];
  /** What is no longer as `up` left it; `vm net up` mends it. */
  readonly missing: readonly string[];
  readonly notes: readonly string[];
}

/** What `upNetwork` would do. Reads only. */
export async function previewUp(context: Context, spec: NetworkSpec): Promise<NetPlan> {
  return (await examine(context, spec)).plan;
}

/**
 * Brings the network to what `spec` says; does nothing when it is there already. On failure everything this call did is undone.
 * @throws ProblemsError `net-not-possible` with every obstacle; UserError `net-changed`, `net-elsewhere`
 */
export async function upNetwork(context: Context, spec: NetworkSpec): Promise<NetPlan> {
  using _held = await takeLock(context);
  return bringUp(context, spec, (state) => ({ ...state, automatic: false }));
}

/** What `downNetwork` would do. Reads only; empty when nothing is up. */
export async function previewDown(context: Context, name: string): Promise<readonly NetStep[]> {
  const { state, facts, others } = await recall(context, name);
  return state ? planDown(state, facts, others) : [];
}

/**
 * Takes everything back that the record of network `name` holds, and forgets it.
 * @throws UserError `net-in-use` while machines sit on it and `force` is not given
 */
export async function downNetwork(
  context: Context,
  name: string,
  options: { readonly force?: boolean } = {},
): Promise<readonly NetStep[]> {
  using _held = await takeLock(context);
  const { state } = await recall(context, name);
  if (state && state.seats.length > 0 && !options.force) {
    throw new UserError('net-in-use', `network '${name}' is in use by ${names(state.seats)}`, {
      hint: `stop them first, or add --force: ${state.seats.map(({ vm }) => `buildkit vm stop ${vm}`).join('; ')}`,
    });
  }
  return takeDown(context, name);
}

/**
 * Gives machine `vm` a tap on the network, which is brought up when it is down.
 * @throws UserError `net-seat-taken` when another machine has the tap or the number, `net-address-in-use` when somebody else
 * answers for the address, `net-changed` when the network that is up is another than the one asked for
 */
export async function joinNetwork(
  context: Context,
  spec: NetworkSpec,
  vm: { readonly name: string; readonly number: number; readonly tap?: string | undefined },
): Promise<NetworkSeat> {
  using _held = await takeLock(context);
  const tap = vm.tap ?? `qtap${vm.number}`;
  const { state } = await recall(context, spec.name);
  const rival = state?.seats.find((one) => one.vm !== vm.name && (one.tap === tap || one.number === vm.number));
  if (rival) {
    throw new UserError(
      'net-seat-taken',
      `tap '${rival.tap}', number ${rival.number} belongs to machine '${rival.vm}'`,
      {
        hint: 'choose another tap with --tap or another number',
      },
    );
  }
  // what is up stays as the user made it: a machine only adds its tap
  const base = state?.spec ?? { ...spec, taps: [] };
  refuseOther(base, spec);
  const taps = base.taps.includes(tap) ? base.taps : [...base.taps, tap];
  const former = state?.seats.find((one) => one.vm === vm.name && one.tap === tap);
  const seat: Seat = { vm: vm.name, number: vm.number, tap, ownTap: former?.ownTap ?? !base.taps.includes(tap) };
  const guests = [...base.guests.filter((guest) => guest.number !== vm.number), { number: vm.number, name: vm.name }];
  const plan = await bringUp(context, { ...base, taps, guests }, (one) => ({
    ...one,
    seats: [...one.seats.filter((other) => other.vm !== vm.name), seat],
  }));
  await refuseStranger(context, spec.name, seat);
  for (const note of plan.notes) context.log.warn(note);
  const { address: gateway, length } = parsePrefix(base.address);
  return {
    network: spec.name,
    bridge: base.bridge,
    tap,
    address: guestAddress(base, vm.number),
    mac: guestMac(base, vm.number),
    gateway,
    prefixLength: length,
    dns: base.dns,
  };
}

/** A network that is up is not what was asked for: least of all may an open one be taken for an isolated one. */
function refuseOther(up: NetworkSpec, asked: NetworkSpec): void {
  const isOther = [
    asked.isolated && !up.isolated ? 'is not isolated' : '',
    asked.uplink !== undefined && asked.uplink !== up.uplink ? `leads out by ${up.uplink ?? 'the default route'}` : '',
    asked.gateway !== undefined && asked.gateway !== up.gateway
      ? `has the gateway ${up.gateway ?? 'of its uplink'}`
      : '',
    asked.address !== DEFAULT_NETWORK.address && asked.address !== up.address ? `has ${up.address}` : '',
    asked.dhcp && !up.dhcp ? 'has no DHCP' : '',
    asked.dns && !up.dns ? 'has no DNS' : '',
  ].filter((one) => one !== '');
  if (isOther.length === 0) return;
  throw new UserError('net-changed', `network '${up.name}' is up and ${isOther.join(', ')}`, {
    hint: `leave the option out, choose another --bridge, or change the network: buildkit vm net up ${up.name} ...`,
  });
}

/** On a bridge with others on it the machine's address may be one of theirs. */
async function refuseStranger(context: Context, name: string, seat: Seat): Promise<void> {
  const { state, facts } = await recall(context, name);
  if (!state || !facts.mayAdmin) return;
  const { bridge, taps } = state.spec;
  if (!facts.links.some((link) => link.bridge === bridge && !taps.includes(link.name))) return;
  const address = guestAddress(state.spec, seat.number);
  const mac = await neighbourAt(context, bridge, address);
  if (mac === undefined || mac === guestMac(state.spec, seat.number)) return;
  await stepDown(undoContext(context), name, seat.vm);
  throw new UserError(
    'net-address-in-use',
    `${address} belongs to ${mac} on '${bridge}', which is no machine of ours`,
    {
      hint: 'give the machine another number, or its network another --address',
    },
  );
}

/** Takes the machine's tap away; a network that `joinNetwork` brought up goes down with its last machine. */
export async function leaveNetwork(context: Context, name: string, vm: string): Promise<void> {
  using _held = await takeLock(context);
  await stepDown(context, name, vm);
}

async function stepDown(context: Context, name: string, vm: string): Promise<void> {
  const { state, facts, others } = await recall(context, name);
  const seat = state?.seats.find((one) => one.vm === vm);
  if (!state || !seat) return;
  const left: NetState = { ...state, seats: state.seats.filter((one) => one !== seat) };
  if (left.automatic && left.seats.length === 0) {
    await takeDown(context, name);
    return;
  }
  const own = seat.ownTap ? state.entries.filter((entry) => entry.kind === 'tap' && entry.name === seat.tap) : [];
  for (const { apply } of planDown({ entries: own }, facts, others)) await applyAll(context, apply);
  const entries = own.reduce((rest: readonly NetEntry[], entry) => withoutEntry(rest, entry), left.entries);
  const taps = left.spec.taps.filter((tap) => !seat.ownTap || tap !== seat.tap);
  await writeState(context, { ...left, entries, spec: { ...left.spec, taps } });
}

/** All networks on record, and whether what they made is still there. */
export async function networkStatus(context: Context): Promise<NetworkStatus[]> {
  const found: NetworkStatus[] = [];
  for (const name of await recordedNames(context)) {
    const { state, facts, others, places } = await recallAnywhere(context, name);
    if (!state) continue;
    if (state.world.netns !== (await readWorld()).netns) {
      found.push(statusElsewhere(state));
      continue;
    }
    const plan = planNet({ spec: state.spec, facts, record: state, others, places, freshMac: '' });
    const { spec } = state;
    found.push({
      name,
      up: plan.steps.length === 0 && plan.problems.length === 0,
      bridge: spec.bridge,
      address: spec.address,
      uplink: spec.isolated ? undefined : (spec.uplink ?? facts.defaultUplink),
      isolated: spec.isolated,
      dhcp: spec.dhcp,
      dns: spec.dns,
      taps: spec.taps.map((tap) => ({
        name: tap,
        there: facts.links.some((link) => link.name === tap),
        vm: state.seats.find((seat) => seat.tap === tap)?.vm,
      })),
      leases: spec.dhcp ? await readLeases(places.leaseFile) : [],
      missing: [...plan.problems.map(({ message }) => message), ...plan.steps.map(({ what }) => what)],
      notes: plan.notes,
    });
  }
  return found;
}

function statusElsewhere({ spec, seats }: NetState): NetworkStatus {
  const { name, bridge, address, uplink, isolated, dhcp, dns } = spec;
  const taps = spec.taps.map((tap) => ({ name: tap, there: false, vm: seats.find((seat) => seat.tap === tap)?.vm }));
  const notes = ['it was brought up in another network namespace: only there one can see what is up'];
  return { ...{ name, up: false, bridge, address, uplink, isolated, dhcp, dns, taps }, leases: [], missing: [], notes };
}

/**
 * Puts away what no one needs: seats of machines that do not run, networks that only those kept up.
 * @returns what was done, in words
 */
export async function collectNetworks(context: Context, isBusy: (vm: string) => Promise<boolean>): Promise<string[]> {
  const done: string[] = [];
  for (const name of await recordedNames(context)) {
    try {
      done.push(...(await collectNetwork(context, name, isBusy)));
    } catch (error) {
      // brought up in another network namespace: whoever is there will do it
      if (!(error instanceof UserError && error.code === 'net-elsewhere')) throw error;
    }
  }
  return done;
}

async function collectNetwork(
  context: Context,
  name: string,
  isBusy: (vm: string) => Promise<boolean>,
): Promise<string[]> {
  const { state } = await recall(context, name);
  if (!state) {
    await forgetStale(context, name);
    return [];
  }
  const done: string[] = [];
  for (const seat of state.seats) {
    if (await isBusy(seat.vm)) continue;
    await leaveNetwork(context, name, seat.vm);
    done.push(`tap ${seat.tap} of machine '${seat.vm}'`);
  }
  // under the lock: one that is being brought up is not cut short, it is waited for
  using _held = await takeLock(context);
  const left = await readState(context, name);
  if (left && (left.seats.length > 0 || (!left.automatic && left.settled))) return done;
  await takeDown(context, name); // unless it went down with its last machine
  return [...done, `network '${name}'`];
}

async function bringUp(context: Context, spec: NetworkSpec, change: (state: NetState) => NetState): Promise<NetPlan> {
  const { plan, state } = await examine(context, spec);
  if (plan.problems.length > 0) {
    throw new ProblemsError('net-not-possible', `cannot bring network '${spec.name}' up`, plan.problems);
  }
  const fresh = { format: 1, automatic: true, settled: false, seats: [], entries: [] } as const;
  let now = change({
    ...fresh,
    ...state,
    spec: plan.spec,
    world: await readWorld(),
    complete: plan.steps.length === 0,
  });
  try {
    for (const { what, entry, apply } of plan.steps) {
      context.log.detail(what);
      if (entry) now = { ...now, entries: withEntry(now.entries, entry) };
      await writeState(context, now);
      await applyAll(context, apply);
    }
    await writeState(context, { ...now, complete: true, settled: true });
  } catch (error) {
    await rollBack(undoContext(context), now, state);
    throw error;
  }
  return plan;
}

/** Takes back what was new; what was only changed stays on record as unsure, and the next `up` puts it in place. */
async function rollBack(context: Context, now: NetState, before: NetState | undefined): Promise<void> {
  const { name } = now.spec;
  const added = now.entries.filter((entry) => !holdsEntry(before?.entries ?? [], entry));
  const facts = await readFacts(context, placesOf(context, name));
  const others = await otherRecords(context, name, now.world);
  for (const { apply } of planDown({ entries: added }, facts, others)) await applyAll(context, apply);
  if (!before) await forget(context, name);
  else {
    const entries = now.entries.filter((entry) => !added.includes(entry));
    await writeState(context, { ...before, entries, complete: false });
  }
}

async function takeDown(context: Context, name: string): Promise<readonly NetStep[]> {
  const { state, facts, others } = await recall(context, name);
  if (!state) return [];
  const steps = planDown(state, facts, others);
  let entries: readonly NetEntry[] = state.entries;
  const leaving = { ...state, complete: false, settled: false };
  await writeState(context, leaving);
  for (const { what, entry, apply } of steps) {
    context.log.detail(what);
    await applyAll(context, apply);
    if (entry) entries = withoutEntry(entries, entry);
    await writeState(context, { ...leaving, entries });
  }
  await forget(context, name);
  return steps;
}

/** What is undone must be undone on Ctrl-C as well. */
function undoContext({ signal: _aborted, ...rest }: Context): Context {
  return { ...rest, signal: new AbortController().signal };
}

interface Recalled {
  readonly state: NetState | undefined;
  readonly facts: NetFacts;
  readonly others: readonly NetState[];
  readonly places: DnsmasqPlaces;
}

async function recall(context: Context, name: string): Promise<Recalled> {
  const recalled = await recallAnywhere(context, name);
  if (recalled.state && recalled.state.world.netns !== (await readWorld()).netns) {
    throw new UserError('net-elsewhere', `network '${name}' was brought up in another network namespace`, {
      hint: 'run this in that namespace, or use another --state folder',
    });
  }
  return recalled;
}

/** The network may be one of another network namespace: then the facts are not about it. */
async function recallAnywhere(context: Context, name: string): Promise<Recalled> {
  const places = placesOf(context, name);
  const world = await readWorld();
  const facts = await readFacts(context, places);
  const state = await readState(context, name);
  if (state && (await isOver(state.world, world))) return { state: undefined, facts, others: [], places };
  return { state, facts, others: await otherRecords(context, name, world), places };
}

/** A reboot, or the end of its network namespace, took everything away. */
async function isOver(then: World, now: World): Promise<boolean> {
  return then.bootId !== now.bootId || (then.netns !== now.netns && !(await netnsIsThere(then.netns)));
}

async function examine(
  context: Context,
  asked: NetworkSpec,
): Promise<{ plan: NetPlan & { spec: NetworkSpec }; state: NetState | undefined }> {
  const { state, facts, others, places } = await recall(context, asked.name);
  const spec = withSeats(asked, state);
  if (state && (state.spec.bridge !== spec.bridge || state.spec.address !== spec.address)) {
    const { bridge, address } = state.spec;
    throw new UserError('net-changed', `network '${spec.name}' is up on ${bridge} with ${address}`, {
      hint: `take it down first: buildkit vm net down ${spec.name}; or give the new one a name of its own`,
    });
  }
  const freshMac = `52:54:00:${[...randomBytes(3)].map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`;
  return { plan: { ...planNet({ spec, facts, record: state, others, places, freshMac }), spec }, state };
}

/** Machines that sit on the network keep their taps and names, whatever a new `up` asks for. */
function withSeats(spec: NetworkSpec, state: NetState | undefined): NetworkSpec {
  const seats = state?.seats ?? [];
  const named = new Set(spec.guests.map(({ number }) => number));
  return {
    ...spec,
    taps: [...new Set([...spec.taps, ...seats.map(({ tap }) => tap)])],
    guests: [
      ...spec.guests,
      ...seats.filter(({ number }) => !named.has(number)).map(({ vm, number }) => ({ name: vm, number })),
    ],
  };
}

async function otherRecords(context: Context, name: string, world: World): Promise<NetState[]> {
  const found: NetState[] = [];
  for (const other of await recordedNames(context)) {
    const state = other === name ? undefined : await readState(context, other);
    if (state?.world.bootId === world.bootId && state.world.netns === world.netns) found.push(state);
  }
  return found;
}

function names(seats: readonly Seat[]): string {
  return seats.map(({ vm }) => `'${vm}'`).join(', ');
}
