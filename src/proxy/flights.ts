/**
 * Single flight: at most one fetch of a file at a time, whoever asks; what it brings goes into the store.
 *
 * Secret: when two requests mean one fetch (the same digest, else the same key), and what is written down of it. Mirrors that
 * sent wrong bytes for a file moments ago are asked last.
 */
import type { Blobs } from './blobs.ts';
import type { Validators } from './heads.ts';
import type { Digest } from './policy.ts';
import type { Store, StoredUrl, Verified } from './store.ts';
import { type Expected, type Source, Transfer } from './transfer.ts';
import type { Upstream } from './upstream.ts';

export interface FlightPlan {
  /** Of the address in the store; undefined: only the object is kept. */
  readonly key: string | undefined;
  readonly sources: readonly Source[];
  readonly expected: Expected;
  readonly verified: Verified;
  readonly validators?: Validators | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly maxBytes?: number | undefined;
  readonly contentType?: string | undefined;
  /** What it must be after all, asked when a body of unknown digest begins to come. */
  readonly confirm?: (() => Promise<Confirmed | undefined>) | undefined;
  /** Told apart from other flights by this instead of key or digest. */
  readonly flightKey?: string | undefined;
}

export interface Confirmed {
  readonly expected: Expected;
  readonly verified: Verified;
}

export interface FlightReport {
  /** Upstream bodies that were wrong. */
  bad(url: string, reason: string): void;
  stored(key: string | undefined, sha256: string, size: number): void;
  diskTrouble(error: unknown): void;
}

export interface Flights {
  /** Joins the fetch that is under way, or starts one. */
  fetch(plan: FlightPlan): { transfer: Transfer; joined: boolean };
  current(): readonly Transfer[];
  /** Waits until no fetch is under way. */
  settled(): Promise<void>;
}

interface Flight {
  readonly transfer: Transfer;
  verified: Verified;
}

const LARGEST = 32 * 1024 * 1024 * 1024;
const BAD_MIRROR_MS = 120_000;
const DISTRUSTED = 1000;

export function createFlights(parts: {
  readonly store: Store;
  readonly blobs: Blobs;
  readonly upstream: Upstream;
  readonly signal: AbortSignal;
  /** Milliseconds, monotonic. */
  readonly clock: () => number;
  /** Seconds since the epoch. */
  readonly now: () => number;
  readonly report: FlightReport;
}): Flights {
  const { store, blobs, upstream, report } = parts;
  const active = new Map<string, Flight>();
  const distrusted = new Map<string, number>();

  function rank(sources: readonly Source[]): Source[] {
    const weight = ({ url }: Source) =>
      (upstream.isDown(url) ? 2 : 0) + ((distrusted.get(url) ?? 0) > parts.clock() ? 1 : 0);
    return [...sources].sort((a, b) => weight(a) - weight(b));
  }

  /** A fetch of this address that began before its digest was known: held to it from now on, where that is possible. */
  function tightened(plan: FlightPlan, flight: string): Flight | undefined {
    if (plan.key === undefined || plan.flightKey !== undefined || plan.expected.digests.length === 0) return undefined;
    const loose = active.get(flightKeyOf(plan.key, []));
    if (!loose?.transfer.expect(plan.expected)) return undefined;
    loose.verified = plan.verified;
    active.set(flight, loose);
    return loose;
  }

  async function confirm(ask: NonNullable<FlightPlan['confirm']>, flight: string): Promise<Expected | undefined> {
    const confirmed = await ask();
    const own = active.get(flight);
    if (!confirmed || !own) return undefined;
    own.verified = confirmed.verified;
    const byDigest = flightKeyOf(undefined, confirmed.expected.digests);
    if (!active.has(byDigest)) active.set(byDigest, own);
    return confirmed.expected;
  }

  return {
    current: () => [...new Set([...active.values()].map(({ transfer }) => transfer))],
    async settled() {
      while (active.size > 0) await Promise.allSettled([...active.values()].map(({ transfer }) => transfer.done));
    },
    fetch(plan) {
      const flight = plan.flightKey ?? flightKeyOf(plan.key, plan.expected.digests);
      const under = active.get(flight) ?? tightened(plan, flight);
      if (under) return { transfer: under.transfer, joined: true };
      const partial = plan.validators ? undefined : safely(() => store.partial(flight), undefined);
      const transfer = new Transfer(
        {
          key: flight,
          sources: rank(plan.sources),
          expected: plan.expected,
          validators: plan.validators,
          headers: plan.headers,
          maxBytes: plan.maxBytes ?? LARGEST,
          confirm: plan.confirm && (() => confirm(plan.confirm!, flight)),
          partial: usable(partial, plan.expected) ? partial : undefined,
        },
        {
          upstream,
          blobs,
          signal: parts.signal,
          events: {
            onPartial: ({ file, url, size, digest, etag, lastModified }) =>
              safely(
                () => store.putPartial({ key: flight, file, url, size, digest, etag, lastModified }, parts.now()),
                undefined,
              ),
            onBad(url, reason) {
              if (distrusted.size > DISTRUSTED) distrusted.clear();
              distrusted.set(url, parts.clock() + BAD_MIRROR_MS);
              report.bad(url, reason);
            },
            onDiskTrouble: (error) => report.diskTrouble(error),
            onStored(outcome) {
              const now = parts.now();
              try {
                store.transaction(() => {
                  store.putObject(outcome.sha256, outcome.size, outcome.mtimeMs ?? 0, now);
                  if (plan.key !== undefined)
                    store.putUrl(urlRow(plan, plan.key, active.get(flight)?.verified ?? plan.verified, outcome, now));
                  store.dropPartial(flight);
                });
              } catch (error) {
                report.diskTrouble(error);
              }
              report.stored(plan.key, outcome.sha256, outcome.size);
            },
          },
        },
      );
      active.set(flight, { transfer, verified: plan.verified });
      const forget = () => {
        for (const [key, one] of active) if (one.transfer === transfer) active.delete(key);
      };
      void transfer.done.finally(forget).catch(() => {});
      return { transfer, joined: false };
    },
  };

  function safely<T>(body: () => T, otherwise: T): T {
    try {
      return body();
    } catch (error) {
      report.diskTrouble(error);
      return otherwise;
    }
  }
}

function urlRow(
  plan: FlightPlan,
  key: string,
  verified: Verified,
  outcome: {
    readonly sha256: string;
    readonly etag: string | undefined;
    readonly lastModified: number | undefined;
    readonly source: string;
  },
  now: number,
): StoredUrl {
  return {
    key,
    sha256: outcome.sha256,
    etag: outcome.etag,
    lastModified: outcome.lastModified,
    contentType: plan.contentType,
    source: outcome.source,
    fetchedAt: now,
    checkedAt: now,
    verified,
  };
}

/** By digest where one is known: the same file at two addresses is one fetch. */
function flightKeyOf(key: string | undefined, digests: readonly Digest[]): string {
  const best = digests.find((digest) => digest.algorithm === 'sha256') ?? digests[0];
  return best ? `${best.algorithm}:${best.hex}` : `url:${key ?? ''}`;
}

function usable(
  partial:
    | { readonly digest: string | undefined; readonly size: number | undefined; readonly file: string }
    | undefined,
  expected: Expected,
): boolean {
  if (!partial) return false;
  if (expected.size !== undefined && partial.size !== undefined && partial.size !== expected.size) return false;
  return (
    expected.digests.length === 0 ||
    partial.digest === undefined ||
    expected.digests.some(({ algorithm, hex }) => `${algorithm}:${hex}` === partial.digest)
  );
}
