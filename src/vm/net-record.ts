/**
 * What is on record of the networks that are up, and the files of each.
 *
 * Secret: where it lies (`STATE/vm/net/NAME.json`, dnsmasq's files in `STATE/vm/net/NAME`) and that there is one writer at a time
 * (`STATE/vm/net/lock`).
 */
import { mkdir, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { type Lock, lock } from '../core/db.ts';
import { errnoOf } from '../core/errors.ts';
import { namesIn, readIfThere, writeFileAtomic } from '../core/files.ts';
import type { World } from './net-facts.ts';
import type { NetEntry } from './net-plan.ts';
import type { DnsmasqPlaces } from './net-rules.ts';
import type { NetworkSpec } from './net-spec.ts';

/** A machine on the network. */
export interface Seat {
  readonly vm: string;
  readonly number: number;
  readonly tap: string;
  /** The tap came with the machine and goes with it; otherwise it is the network's own. */
  readonly ownTap: boolean;
}

export interface NetState {
  readonly format: 1;
  readonly spec: NetworkSpec;
  readonly world: World;
  /** Brought up by a machine's start: goes down with the last one. */
  readonly automatic: boolean;
  readonly seats: readonly Seat[];
  readonly entries: readonly NetEntry[];
  /** False from before the first effect until after the last. */
  readonly complete: boolean;
  /** It was complete once, and nobody has begun to take it down: a later `up` that was cut short takes nothing away. */
  readonly settled: boolean;
}

export interface Lease {
  readonly mac: string;
  readonly address: string;
  readonly name: string;
}

function folder(context: Context): string {
  return join(context.stateDir, 'vm', 'net');
}

export function placesOf(context: Context, name: string): DnsmasqPlaces {
  const at = join(folder(context), name);
  return {
    conf: join(at, 'dnsmasq.conf'),
    pidFile: join(at, 'dnsmasq.pid'),
    leaseFile: join(at, 'leases'),
    logFile: join(at, 'dnsmasq.log'),
  };
}

export async function takeLock(context: Context): Promise<Lock> {
  const options = { waitMs: 30_000, what: 'the record of networks', signal: context.signal };
  return lock(join(folder(context), 'lock'), options);
}

export async function recordedNames(context: Context): Promise<string[]> {
  const files = await namesIn(folder(context));
  return files.flatMap((file) => (/^[a-z][a-z0-9-]*\.json$/.test(file) ? [file.slice(0, -5)] : [])).sort();
}

export async function readState(context: Context, name: string): Promise<NetState | undefined> {
  const text = await readIfThere(join(folder(context), `${name}.json`));
  return text === undefined ? undefined : (JSON.parse(text) as NetState);
}

export async function writeState(context: Context, state: NetState): Promise<void> {
  await mkdir(join(folder(context), state.spec.name), { recursive: true });
  await writeFileAtomic(join(folder(context), `${state.spec.name}.json`), `${JSON.stringify(state, null, 2)}\n`);
}

export async function forget(context: Context, name: string): Promise<void> {
  await rm(join(folder(context), `${name}.json`), { force: true });
  try {
    await rmdir(join(folder(context), name));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' && errnoOf(error) !== 'ENOTEMPTY') throw error;
  }
}

/** After a reboot only files are left. */
export async function forgetStale(context: Context, name: string): Promise<void> {
  await rm(join(folder(context), name), { recursive: true, force: true });
  await forget(context, name);
}

/** dnsmasq's lease file: expiry, MAC, address, name, client id. */
export async function readLeases(path: string): Promise<Lease[]> {
  const text = (await readIfThere(path)) ?? '';
  return text
    .split('\n')
    .map((line) => line.split(' '))
    .flatMap(([, mac, address, name]) => (mac && address && name ? [{ mac, address, name }] : []));
}
