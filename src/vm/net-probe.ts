/**
 * Is an address of a bridge in use? Asked as the kernel asks before it sends something.
 *
 * Secret: that a datagram to the discard port (RFC 863) makes the kernel ask by ARP, and how its answer is read from the table
 * of neighbours (ip-neighbour(8)).
 */
import { createSocket } from 'node:dgram';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { run } from '../core/run.ts';

const DISCARD = 9;
const LIMIT_MS = 10_000; // the kernel gives up after three seconds
const PAUSE_MS = 50;

const neighboursSchema = z.array(z.object({ lladdr: z.string().optional(), state: z.array(z.string()).default([]) }));

/** The MAC that answers for `address`; undefined when none does. Needs CAP_NET_ADMIN. */
export async function neighbourAt(context: Context, bridge: string, address: string): Promise<string | undefined> {
  const ip = (...args: string[]) => run(context, 'ip', args, { timeoutMs: 30_000 });
  await ip('neighbour', 'flush', 'to', address, 'dev', bridge); // what was true once
  await send(address);
  for (const end = performance.now() + LIMIT_MS; performance.now() < end; await sleep(PAUSE_MS)) {
    const { stdout } = await ip('-j', 'neighbour', 'show', 'to', address, 'dev', bridge);
    const answer = parseNeighbour(JSON.parse(stdout.trim() === '' ? '[]' : stdout));
    if (answer !== 'asking') return answer?.mac;
    context.signal.throwIfAborted();
  }
  return undefined;
}

/** @param neighbours output of `ip -j neighbour show to ADDRESS` @returns undefined: nobody answers */
export function parseNeighbour(neighbours: unknown): { readonly mac: string } | 'asking' | undefined {
  const [found] = neighboursSchema.parse(neighbours);
  if (found?.lladdr !== undefined) return { mac: found.lladdr };
  return found?.state.includes('INCOMPLETE') ? 'asking' : undefined;
}

async function send(address: string): Promise<void> {
  const socket = createSocket('udp4');
  try {
    await new Promise<void>((done) => socket.send('', DISCARD, address, () => done())); // no way there: nobody answers
  } finally {
    socket.close();
  }
}
