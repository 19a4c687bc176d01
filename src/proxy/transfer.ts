/**
 * One fetch for many clients: an upstream body that goes to disk and to everyone who asked, at once.
 *
 * Secret: what may be released when. With a digest expected, the last 64 KiB stay back until the whole body fits it; a body that
 * does not fit is never released to its end and never stored, and the next mirror is asked. A cut body goes on where it was cut;
 * where the server cannot promise that the file is the same, what comes again is compared with what is there, so that old and new
 * are never joined. When the disk refuses, no more is kept than its readers need.
 */
import { createHash, type Hash } from 'node:crypto';
import { BuildkitError, RemoteError } from '../core/errors.ts';
import type { Blobs } from './blobs.ts';
import { Body } from './body.ts';
import { judgeHead, type Progress, requestHeaders, type Validators, type Verdict } from './heads.ts';
import type { Digest, HashName } from './policy.ts';
import type { Flow, Head, Upstream } from './upstream.ts';

const HELD_BACK = 64 * 1024;
/** What a body may hold in memory beyond its slowest reader when the disk refuses. */
const MEMORY_WINDOW = 8 * 1024 * 1024;
/** How long such a body waits for a reader that takes nothing while others wait. */
const STALL_MS = 3000;
const TRIES_PER_SOURCE = 3;
const MAX_TRIES = 60;

export interface Source {
  readonly url: string;
  readonly trusted: boolean;
}

/** What is known of the file before it is fetched. */
export interface Expected {
  readonly size?: number | undefined;
  readonly digests: readonly Digest[];
}

export interface StoredPartial extends Validators {
  readonly file: string;
  readonly url: string;
  readonly size: number | undefined;
  readonly digest: string | undefined;
}

export type Outcome =
  | {
      readonly kind: 'stored';
      readonly sha256: string;
      readonly size: number;
      readonly source: string;
      readonly etag: string | undefined;
      readonly lastModified: number | undefined;
      /** Undefined: the bytes could not be kept (disk full, or the end could not be told from a cut). */
      readonly mtimeMs: number | undefined;
      readonly verified: boolean;
      /** The whole body, when it was small enough to stay in memory. */
      readonly bytes: Buffer | undefined;
    }
  | { readonly kind: 'not-modified'; readonly source: string }
  | { readonly kind: 'absent'; readonly status: number }
  | { readonly kind: 'failed'; readonly code: string; readonly reason: string };

export interface TransferPlan {
  readonly key: string;
  readonly sources: readonly Source[];
  readonly expected: Expected;
  /** Of what is in the cache: asks whether it changed. */
  readonly validators?: Validators | undefined;
  readonly partial?: StoredPartial | undefined;
  /** Larger bodies are refused. */
  readonly maxBytes: number;
  /**
   * Asked when a body of unknown digest begins to come: what it must be after all. Until this settles nothing of it is released.
   */
  readonly confirm?: (() => Promise<Expected | undefined>) | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

export interface TransferEvents {
  /** A file under way that a restart can go on with. */
  onPartial(partial: StoredPartial): void;
  /** A body that was not what it had to be. */
  onBad(url: string, reason: string): void;
  /** Called in the same tick in which the body is known to be right, before its end is released. */
  onStored(outcome: Extract<Outcome, { kind: 'stored' }>): void;
  onDiskTrouble(error: unknown): void;
}

/** Someone who is fed. */
export interface Reader {
  /** More is released, or it ended. */
  wake(): void;
  /** The bytes so far were of another file: give up. */
  cut(reason: string): void;
  /** Next byte that it needs. */
  readonly position: number;
  /** A head with a length went out. */
  readonly committed: boolean;
  /** Bytes of the body went out. */
  readonly begun: boolean;
}

class Restart extends Error {}

export class Transfer {
  readonly key: string;
  readonly done: Promise<Outcome>;
  /** Settles when a body begins to come, or with `done`. */
  readonly accepted: Promise<void>;
  #accept: () => void = () => {};
  outcome: Outcome | undefined;
  size: number | undefined;
  lastModified: number | undefined;
  released = 0;
  /** Another one when the bytes so far turned out to be of another file. */
  content: object = {};
  /** The address that is asked now. */
  source = '';
  readonly #plan: TransferPlan;
  #expected: Expected;
  /** Under way: whether a digest is known is being found out. */
  #confirming: Promise<void> | undefined;
  #unconfirmed = false;
  /** What comes is known to be wrong. */
  #condemned = false;
  readonly #upstream: Upstream;
  readonly #body: Body;
  readonly #events: TransferEvents;
  readonly #signal: AbortSignal;
  readonly #readers = new Set<Reader>();
  #hashes = new Map<HashName, Hash>();
  #etag: string | undefined;
  #flow: Flow | undefined;
  #paused = false;
  #waking: NodeJS.Immediate | undefined;
  #compared = 0;
  #sourceOfPartial = '';

  constructor(
    plan: TransferPlan,
    parts: { upstream: Upstream; blobs: Blobs; events: TransferEvents; signal: AbortSignal },
  ) {
    this.#plan = plan;
    this.#expected = plan.expected;
    this.key = plan.key;
    this.size = plan.expected.size;
    this.#upstream = parts.upstream;
    this.#events = parts.events;
    this.#signal = parts.signal;
    this.#body = new Body(parts.blobs, partialName(plan.key), {
      onFile: (name) => this.#notePartial(name),
      onDiskTrouble: parts.events.onDiskTrouble,
    });
    this.#freshHashes();
    this.accepted = new Promise((resolve) => {
      this.#accept = resolve;
    });
    this.done = this.#run().then((outcome) => this.#finish(outcome));
  }

  /** The sha256 that the body must have, when it is known beforehand. */
  get expectedSha256(): string | undefined {
    return this.#expected.digests.find((digest) => digest.algorithm === 'sha256')?.hex;
  }

  /**
   * From now on the body must be `expected`, although it began without: its end stays back until it fits.
   * False when it is too late for that, or when this body is of another length: then it needs a fetch of its own.
   */
  expect(expected: Expected): boolean {
    if (this.outcome !== undefined || this.#expected.digests.length > 0) return false;
    if (expected.digests.some(({ algorithm }) => !this.#hashes.has(algorithm))) return false;
    if (this.received > 0 && this.size !== undefined) {
      if (expected.size !== undefined && expected.size !== this.size) return false;
      if (this.released >= this.size) return false;
    }
    this.#expected = expected;
    if (this.received === 0) this.size = expected.size ?? this.size;
    return true;
  }

  get received(): number {
    return this.#body.length;
  }

  get readers(): number {
    return this.#readers.size;
  }

  /** False when the bytes from `position` on are no longer here (only when the disk refuses). */
  attach(reader: Reader): boolean {
    if (!this.#body.has(reader.position)) return false;
    this.#readers.add(reader);
    return true;
  }

  detach(reader: Reader): void {
    this.#readers.delete(reader);
    this.#throttle();
  }

  /** Copies up to `length` released bytes from `position` on. Returns how many. */
  read(into: Buffer, position: number, length: number): number {
    const wanted = Math.min(length, this.released - position);
    if (wanted <= 0) return 0;
    const copied = this.#body.read(into, position, wanted);
    if (this.#body.diskRefuses) queueMicrotask(() => this.#forget());
    return copied;
  }

  /** In memory only what the slowest reader still needs. */
  #forget(): void {
    if (!this.#body.diskRefuses) return;
    let needed = this.released;
    for (const reader of this.#readers) needed = Math.min(needed, reader.position);
    this.#body.forgetBelow(needed);
    this.#throttle();
  }

  #throttle(): void {
    const tooMuch = this.#body.held > MEMORY_WINDOW && this.#readers.size > 0;
    if (tooMuch && !this.#paused) {
      this.#paused = true;
      this.#flow?.pause();
      this.#watchStall();
    } else if (!tooMuch && this.#paused) {
      this.#paused = false;
      this.#flow?.resume();
    }
  }

  /** Memory is full, and the disk refuses: who takes nothing while others have taken all there is, is let go. */
  #watchStall(): void {
    const stalledAt = this.#body.memoryStart;
    setTimeout(() => {
      if (!this.#paused || this.#body.memoryStart !== stalledAt) return;
      const readers = [...this.#readers];
      const laggards = readers.filter((reader) => reader.position < this.released);
      if (laggards.length < readers.length) {
        for (const reader of laggards) {
          this.#readers.delete(reader);
          reader.cut('it takes nothing, and there is no disk to keep it on');
        }
        this.#forget();
      } else this.#watchStall();
    }, STALL_MS).unref();
  }

  async #run(): Promise<Outcome> {
    await this.#takeUpPartial();
    let failure: Outcome | undefined;
    let absent: Outcome | undefined;
    let tries = 0;
    for (const source of this.#plan.sources) {
      let idle = 0;
      while (idle < TRIES_PER_SOURCE && tries < MAX_TRIES && !this.#signal.aborted) {
        const before = this.received;
        const outcome = await this.#try(source);
        tries += 1;
        if (outcome === 'again') {
          idle = this.received > before ? 0 : idle + 1;
          failure = { kind: 'failed', code: 'upstream-cut', reason: 'the server ends its answer too early' };
          continue;
        }
        if (outcome.kind === 'stored' || outcome.kind === 'not-modified') return outcome;
        if (outcome.kind === 'absent') absent = outcome;
        else failure = outcome;
        break;
      }
    }
    // a mirror that fails says nothing about the file: only when all that were asked say no, it does not exist
    return failure ?? absent ?? { kind: 'failed', code: 'upstream-unreachable', reason: 'there is no mirror to ask' };
  }

  async #takeUpPartial(): Promise<void> {
    const { partial } = this.#plan;
    if (!partial) return;
    try {
      const limit = this.size ?? Number.POSITIVE_INFINITY;
      const taken = await this.#body.takeUp(partial.file, limit, (chunk) => {
        for (const hash of this.#hashes.values()) hash.update(chunk);
      });
      if (!taken) return;
      this.#etag = partial.etag;
      this.lastModified = partial.lastModified;
      this.size ??= partial.size;
      this.#sourceOfPartial = partial.url;
    } catch {
      this.#restart(); // it is gone: begin anew
    }
  }

  async #try(source: Source): Promise<Outcome | 'again'> {
    this.source = source.url;
    this.#compared = this.received;
    let declined: Outcome | 'again' | undefined;
    let endIsSure = false;
    const asked = requestHeaders(this.#progress(source), this.#plan.validators);
    const headers = { ...this.#plan.headers, ...asked };
    try {
      const end = await this.#upstream.get(
        source.url,
        { headers, trusted: source.trusted, signal: this.#signal },
        {
          onHead: (head, flow) => {
            declined = this.#heed(judgeHead(head, headers, this.#progress(source)), head);
            if (declined !== undefined) return false;
            this.#flow = flow;
            this.#accept();
            this.#confirm();
            endIsSure = head.headers['content-length'] !== undefined || head.headers['transfer-encoding'] !== undefined;
            return true;
          },
          onData: (chunk) => this.#take(chunk),
        },
      );
      if (end === 'declined') return declined ?? 'again';
      await this.#confirming;
      return this.#complete(source, endIsSure);
    } catch (error) {
      if (error instanceof Restart) return 'again';
      if (!(error instanceof BuildkitError)) {
        if (this.#signal.aborted) return { kind: 'failed', code: 'stopped', reason: 'the proxy is stopping' };
        throw error;
      }
      if (error.code === 'upstream-cut') return 'again';
      if (error.code === 'body-bad') {
        this.#reject(source.url, error.message);
        return { kind: 'failed', code: 'body-bad', reason: error.message };
      }
      return { kind: 'failed', code: error.code, reason: error.message };
    } finally {
      this.#flow = undefined;
      this.#paused = false;
    }
  }

  #progress(source: Source): Progress {
    return {
      received: this.received,
      size: this.size,
      expectedSize: this.#expected.size,
      hasDigest: this.#expected.digests.length > 0,
      sameServer: this.#sourceOfPartial === source.url,
      maxBytes: this.#plan.maxBytes,
      etag: this.#etag,
      lastModified: this.lastModified,
    };
  }

  /** Undefined: the body is wanted. */
  #heed(verdict: Verdict, head: Head): Outcome | 'again' | undefined {
    switch (verdict.kind) {
      case 'not-modified':
        return { kind: 'not-modified', source: head.url };
      case 'absent':
        return { kind: 'absent', status: 404 };
      case 'failed':
        if (verdict.code === 'body-bad') this.#events.onBad(head.url, verdict.reason);
        return verdict;
      case 'another':
        this.#restart();
        return 'again';
      case 'rest':
        this.size = verdict.size ?? this.size;
        return undefined;
      case 'whole':
        if (verdict.anew) this.#restart();
        this.#compared = 0; // it starts anew: held against what is here
        if (this.received > 0) return undefined;
        this.size = verdict.size;
        this.#etag = verdict.etag;
        this.lastModified = verdict.lastModified;
        this.#sourceOfPartial = this.source;
        return undefined;
    }
  }

  #take(chunk: Buffer): void {
    if (this.#condemned) throw new RemoteError('body-bad', 'its length is not what it has to be', { url: this.source });
    let fresh = chunk;
    if (this.#compared < this.received) {
      const overlap = Math.min(chunk.length, this.received - this.#compared);
      if (!this.#sameAsHere(chunk.subarray(0, overlap), this.#compared)) {
        this.#restart();
        throw new Restart();
      }
      this.#compared += overlap;
      fresh = chunk.subarray(overlap);
      if (fresh.length === 0) return;
    }
    const limit = this.size ?? this.#plan.maxBytes;
    if (this.received + fresh.length > limit) {
      throw new RemoteError('body-bad', `it is longer than ${limit} bytes`, { url: this.source });
    }
    for (const hash of this.#hashes.values()) hash.update(fresh);
    this.#body.append(fresh, this.size);
    this.#compared = this.received;
    this.#release();
    this.#throttle();
  }

  #release(): void {
    if (this.#unconfirmed || this.#condemned) return;
    const held = this.#expected.digests.length > 0 ? HELD_BACK : 0;
    if (this.received - held <= this.released) return;
    const first = this.released === 0;
    this.released = this.received - held;
    if (first) this.#wake();
    else this.#wakeSoon();
  }

  /** Once for all that the connection has to give at this moment: large pieces are sent for much less than small ones. */
  #wakeSoon(): void {
    this.#waking ??= setImmediate(() => {
      this.#waking = undefined;
      this.#wake();
    });
  }

  #confirm(): void {
    const { confirm } = this.#plan;
    if (!confirm || this.#confirming || this.#expected.digests.length > 0) return;
    this.#unconfirmed = true;
    this.#confirming = confirm()
      .catch(() => undefined)
      .then((expected) => {
        this.#unconfirmed = false;
        if (expected && this.#expected.digests.length === 0 && !this.expect(expected)) {
          this.#expected = expected; // it is of another length: nothing of it was released
          this.#condemned = true;
        }
        if (this.outcome === undefined) this.#release();
      });
  }

  #sameAsHere(bytes: Buffer, position: number): boolean {
    const here = Buffer.allocUnsafe(bytes.length);
    const got = this.#body.read(here, position, bytes.length);
    return got === bytes.length && here.equals(bytes);
  }

  #notePartial(file: string): void {
    this.#events.onPartial({
      file,
      url: this.source,
      size: this.size,
      etag: this.#etag,
      lastModified: this.lastModified,
      digest: this.#expected.digests.map(({ algorithm, hex }) => `${algorithm}:${hex}`)[0],
    });
  }

  #complete(source: Source, endIsSure: boolean): Outcome | 'again' {
    if (this.size !== undefined && this.received < this.size) return 'again';
    if (this.#compared < this.received) {
      this.#restart(); // what came again is shorter than what was here
      return 'again';
    }
    const sha256 = this.#hashes.get('sha256')!.copy().digest('hex');
    for (const { algorithm, hex } of this.#expected.digests) {
      const found = algorithm === 'sha256' ? sha256 : this.#hashes.get(algorithm)!.copy().digest('hex');
      if (found !== hex) {
        const reason = `its ${algorithm} is ${found} instead of ${hex}`;
        this.#reject(source.url, reason);
        return { kind: 'failed', code: 'body-bad', reason };
      }
    }
    const verified = this.#expected.digests.length > 0;
    if (verified) {
      // whoever waits for the end gets it before the disk does its part: nobody else runs between the two
      this.size = this.received;
      this.released = this.received;
      this.#wake();
    }
    const bytes = this.#body.bytes();
    const outcome = {
      kind: 'stored',
      sha256,
      size: this.received,
      source: source.url,
      etag: this.#etag,
      lastModified: this.lastModified,
      mtimeMs: verified || endIsSure ? this.#body.store(sha256, bytes) : undefined,
      verified,
      bytes,
    } as const;
    this.size = this.received;
    if (outcome.mtimeMs !== undefined) this.#events.onStored(outcome);
    return outcome;
  }

  /** Wrong bytes: whoever has some of them is cut off, the rest waits for the next mirror. */
  #reject(url: string, reason: string): void {
    this.#events.onBad(url, reason);
    this.#restart();
  }

  #restart(): void {
    for (const reader of [...this.#readers]) {
      const sizeKept = this.size === this.#expected.size;
      if (reader.committed && (reader.begun || !sizeKept)) {
        this.#readers.delete(reader);
        reader.cut('the upstream file is not what it was');
      }
    }
    this.content = {};
    this.#body.restart();
    this.released = 0;
    this.#compared = 0;
    this.#condemned = false;
    this.size = this.#expected.size;
    this.#etag = undefined;
    this.lastModified = undefined;
    this.#freshHashes();
  }

  #freshHashes(): void {
    const names = new Set<HashName>(['sha256', ...this.#expected.digests.map((digest) => digest.algorithm)]);
    this.#hashes = new Map([...names].map((name) => [name, createHash(name)]));
  }

  #finish(outcome: Outcome): Outcome {
    this.outcome = outcome;
    this.#accept();
    if (outcome.kind === 'stored') this.released = this.received;
    const keepPartial = outcome.kind === 'failed' && this.received > 0;
    if (!keepPartial && outcome.kind !== 'stored') this.#body.removePartial();
    this.#wake();
    if (this.#readers.size === 0) this.#body.close();
    else this.#closeWhenLeft();
    return outcome;
  }

  /** The file stays open until the last reader has what it needs. */
  #closeWhenLeft(): void {
    const detach = this.detach.bind(this);
    this.detach = (reader) => {
      detach(reader);
      if (this.#readers.size === 0) this.#body.close();
    };
  }

  #wake(): void {
    for (const reader of [...this.#readers]) reader.wake();
  }
}

/** Of the partial file of a key. */
function partialName(key: string): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 40);
}
