/**
 * Finding a proxy that runs, and keeping one that another command started until all who use it are done.
 *
 * Secret: `serving.json` in the folder of the cache says where the server of it listens; `/healthz` says that it is one of ours and
 * what stands behind it. A lease is an open connection (POST /api/lease from this machine): the kernel ends it with its holder.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import { z } from 'zod';
import type { ProxyCache } from './proxy.ts';

const SERVICE = 'buildkit proxy';
const FILE = 'serving.json';
const MAX_LEASES = 256;
const BEAT_MS = 20_000;
const PROBE_MS = 3000;

const servingSchema = z.object({ urls: z.array(z.string()), forCommand: z.boolean() });
export type Serving = z.infer<typeof servingSchema>;

export function noteServing(dir: string, serving: Serving): void {
  try {
    writeFileSync(join(dir, FILE), `${JSON.stringify(serving)}\n`);
  } catch {
    // a read-only cache is served, too; others find the server by its configured address
  }
}

export function forgetServing(dir: string): void {
  try {
    rmSync(join(dir, FILE), { force: true });
  } catch {
    // what it says is asked for anyhow before it is believed
  }
}

/** Where the server of a cache listens or listened: `probe` tells. */
export function readServing(dir: string): Serving | undefined {
  try {
    return servingSchema.parse(JSON.parse(readFileSync(join(dir, FILE), 'utf8')));
  } catch {
    return undefined;
  }
}

const healthSchema = z.object({
  service: z.literal(SERVICE),
  status: z.string(),
  offline: z.boolean(),
  /** What is behind /npm/ and /pypi/simple/; empty: nothing. */
  npmRegistry: z.string(),
  pypiIndex: z.string(),
});
export type ProxyHealth = z.infer<typeof healthSchema>;

export function healthOf(cache: ProxyCache): ProxyHealth {
  const { npmRegistry, pypiIndex } = cache.settings;
  // an address with a password is nobody's business
  const shown = (url: string) => (URL.parse(url)?.username ? '' : url);
  return {
    ...{ service: SERVICE, status: 'ok', offline: cache.offline },
    ...{ npmRegistry: shown(npmRegistry), pypiIndex: shown(pypiIndex) },
  };
}

/** What the proxy at `url` says of itself; undefined when nobody answers or it is no buildkit. */
export async function probe(url: string, signal: AbortSignal): Promise<ProxyHealth | undefined> {
  try {
    const response = await fetch(`${url}/healthz`, {
      redirect: 'error',
      signal: AbortSignal.any([signal, AbortSignal.timeout(PROBE_MS)]),
    });
    return healthSchema.parse(await response.json());
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}

export interface Leases {
  answer(request: IncomingMessage, response: ServerResponse): void;
  count(): number;
  /** Resolves when nobody holds one. */
  unused(): Promise<void>;
}

export function createLeases(): Leases {
  const held = new Set<ServerResponse>();
  let waiting: (() => void)[] = [];
  return {
    count: () => held.size,
    unused: () => (held.size === 0 ? Promise.resolve() : new Promise((resolve) => waiting.push(resolve))),
    answer(request, response) {
      const own = /^(?:::ffff:)?127\.|^::1$/.test(request.socket.remoteAddress ?? '');
      // a page in a browser cannot send this header without being asked first
      if (!own || request.headers['x-buildkit'] !== 'lease' || held.size >= MAX_LEASES) {
        response.writeHead(403, { 'Content-Length': 0, Connection: 'close' }).end();
        return;
      }
      request.resume();
      response.writeHead(200, { 'Content-Type': 'text/plain' });
      held.add(response);
      const beat = setInterval(() => response.write('.'), BEAT_MS).unref();
      response.write('.');
      response.once('close', () => {
        clearInterval(beat);
        held.delete(response);
        if (held.size > 0) return;
        for (const go of waiting) go();
        waiting = [];
      });
    },
  };
}

/** Keeps the proxy at `url` alive until it is disposed. Undefined: it is about to end. */
export async function takeLease(url: string): Promise<AsyncDisposable | undefined> {
  const end = new AbortController();
  try {
    const response = await fetch(`${url}/api/lease`, {
      method: 'POST',
      headers: { 'x-buildkit': 'lease' },
      signal: end.signal,
    });
    const reader = response.body?.getReader();
    if (response.status !== 200 || !reader) return undefined;
    const drained = (async () => {
      while (!(await reader.read()).done);
    })().catch(() => {}); // ended by us, or with the server
    return {
      async [Symbol.asyncDispose]() {
        end.abort();
        await drained;
      },
    };
  } catch {
    return undefined;
  }
}
