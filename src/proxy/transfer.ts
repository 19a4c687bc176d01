/**
 * One fetch for many clients: an upstream body that goes to disk and to everyone who asked, at once.
 *
 * Secret: what may be released when. With a digest expected, the last 64 KiB stay back until the whole body fits it; a body that
 * does not fit is never released to its end and never stored, and the next mirror is asked. A cut body goes on by Range with
 * If-Range (RFC 9110 13.1.5, 14); where the server cannot promise that the file is the same, what comes again is compared with
 * what is there, so that old and new are never joined. When the disk refuses, the body lives in memory, as far as its readers need.
 */
import { createHash, type Hash } from 'node:crypto';
import { closeSync, createReadStream, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { BuildkitError, RemoteError } from '../core/errors.ts';
import type { Blobs } from './blobs.ts';
import type { Digest, HashName } from './policy.ts';
import { parseHttpDate } from './range.ts';
import type { Flow, Head, Upstream } from './upstream.ts';

const HELD_BACK = 64 * 1024;
/** Bodies up to this size never touch the disk before they are whole. */
const SMALL = 256 * 1024;
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

/** What an earlier answer left for the next request. */
export interface Validators {
  readonly etag?: string | undefined;
  readonly lastModified?: number | undefined;
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
  received = 0;
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
  readonly #blobs: Blobs;
  readonly #events: TransferEvents;
  readonly #signal: AbortSignal;
  readonly #readers = new Set<Reader>();
  #hashes = new Map<HashName, Hash>();
  #etag: string | undefined;
  #memory: Buffer[] = [];
  #memoryStart = 0;
  /** Where memory began: below it the disk has everything. */
  #memoryFirst = 0;
  #file: { fd: number; name: string } | undefined;
  #diskRefuses = false;
  #flow: Flow | undefined;
  #paused = false;
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
    this.#blobs = parts.blobs;
    this.#events = parts.events;
    this.#signal = parts.signal;
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

  get readers(): number {
    return this.#readers.size;
  }

  /** False when the bytes from `position` on are no longer here (only when the disk refuses). */
  attach(reader: Reader): boolean {
    const forgotten = this.#memoryStart > this.#memoryFirst;
    if (forgotten && reader.position < this.#memoryStart) return false;
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
    if (this.#file && position < this.#diskEnd()) {
      return readSync(this.#file.fd, into, 0, Math.min(wanted, this.#diskEnd() - position), position);
    }
    return this.#readMemory(into, position, wanted);
  }

  /** How far the file on disk goes; what follows is in memory. */
  #diskEnd(): number {
    return this.#diskRefuses ? this.#memoryFirst : this.received;
  }
  #readMemory(into: Buffer, position: number, wanted: number): number {
    let at = this.#memoryStart;
    let copied = 0;
    for (const chunk of this.#memory) {
      if (position + copied < at + chunk.length && copied < wanted) {
        const from = position + copied - at;
        copied += chunk.copy(into, copied, from, Math.min(chunk.length, from + wanted - copied));
      }
      at += chunk.length;
      if (copied >= wanted) break;
    }
    if (this.#diskRefuses) queueMicrotask(() => this.#forget());
    return copied;
  }

  /** In memory only what the slowest reader still needs. */
  #forget(): void {
    if (!this.#diskRefuses) return;
    let needed = this.released;
    for (const reader of this.#readers) needed = Math.min(needed, reader.position);
    while (this.#memory.length > 0 && this.#memoryStart + this.#memory[0]!.length <= needed && this.received > SMALL) {
      this.#memoryStart += this.#memory.shift()!.length;
    }
    this.#throttle();
  }

  #throttle(): void {
    const held = this.received - this.#memoryStart;
    const tooMuch = this.#diskRefuses && held > MEMORY_WINDOW && this.#readers.size > 0;
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
    const stalledAt = this.#memoryStart;
    setTimeout(() => {
      if (!this.#paused || this.#memoryStart !== stalledAt) return;
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
      const fd = openSync(this.#blobs.partialPath(partial.file), 'r+');
      const { size } = fstatSync(fd);
      if (size === 0 || (this.size !== undefined && size >= this.size)) {
        closeSync(fd);
        return;
      }
      for await (const chunk of createReadStream('', { fd, autoClose: false, start: 0, highWaterMark: 1 << 18 })) {
        for (const hash of this.#hashes.values()) hash.update(chunk as Buffer);
        this.received += (chunk as Buffer).length;
      }
      this.#file = { fd, name: partial.file };
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
    const headers = this.#requestHeaders(source);
    try {
      const end = await this.#upstream.get(
        source.url,
        { headers, trusted: source.trusted, signal: this.#signal },
        {
          onHead: (head, flow) => {
            const verdict = this.#judgeHead(head, headers);
            if (verdict !== 'take') {
              declined = verdict;
              return false;
            }
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

  #requestHeaders(source: Source): Record<string, string> {
    const headers: Record<string, string> = { ...this.#plan.headers };
    if (this.received > 0) {
      const strong = this.#etag !== undefined && !this.#etag.startsWith('W/') ? this.#etag : undefined;
      const date = this.lastModified === undefined ? undefined : new Date(this.lastModified * 1000).toUTCString();
      const sameServer = this.#sourceOfPartial === source.url;
      const promise = sameServer ? (strong ?? date) : undefined;
      if (promise !== undefined) headers['if-range'] = promise;
      if (promise !== undefined || this.#expected.digests.length > 0) headers.range = `bytes=${this.received}-`;
    } else if (this.#plan.validators) {
      const { etag, lastModified } = this.#plan.validators;
      if (etag !== undefined) headers['if-none-match'] = etag;
      if (lastModified !== undefined) headers['if-modified-since'] = new Date(lastModified * 1000).toUTCString();
    }
    return headers;
  }

  #judgeHead(head: Head, asked: Record<string, string>): 'take' | Outcome | 'again' {
    const { status } = head;
    if (status === 304 && this.#plan.validators) return { kind: 'not-modified', source: head.url };
    if (status === 404 || status === 410) return { kind: 'absent', status: 404 };
    if (status === 416 && asked.range !== undefined) {
      this.#restart(); // shorter than what is here: another file
      return 'again';
    }
    if (status !== 200 && status !== 206) {
      return { kind: 'failed', code: 'upstream-status', reason: `the server answered ${status}` };
    }
    const encoding = single(head.headers['content-encoding']);
    if (encoding !== undefined && encoding !== 'identity') {
      return { kind: 'failed', code: 'upstream-status', reason: `the server sent it in encoding '${encoding}'` };
    }
    return status === 206 ? this.#judgePart(head, asked) : this.#judgeWhole(head);
  }

  #judgePart(head: Head, asked: Record<string, string>): 'take' | Outcome | 'again' {
    const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(single(head.headers['content-range']) ?? '');
    const fits =
      asked.range !== undefined &&
      match !== null &&
      Number(match[1]) === this.received &&
      (match[3] === '*' || this.size === undefined || Number(match[3]) === this.size);
    const etag = single(head.headers.etag);
    const sameTag =
      asked['if-range'] === undefined || etag === undefined || this.#etag === undefined || etag === this.#etag;
    if (!fits || !sameTag) {
      this.#restart();
      return 'again';
    }
    if (match[3] !== '*') this.size = Number(match[3]);
    return 'take';
  }

  #judgeWhole(head: Head): 'take' | Outcome | 'again' {
    const text = single(head.headers['content-length']);
    const length = text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
    const { maxBytes } = this.#plan;
    const expected = this.#expected;
    if (length !== undefined && expected.size !== undefined && length !== expected.size) {
      const reason = `it is ${length} bytes long instead of ${expected.size}`;
      this.#events.onBad(head.url, reason);
      return { kind: 'failed', code: 'body-bad', reason };
    }
    if ((length ?? 0) > maxBytes) return { kind: 'failed', code: 'too-large', reason: `it is ${length} bytes long` };
    if (this.received > 0) {
      if (this.size !== undefined && length !== undefined && length !== this.size) this.#restart();
      this.#compared = 0; // it starts anew: hold it against what is here
    }
    if (this.received === 0) {
      this.size = expected.size ?? length;
      this.#etag = single(head.headers.etag);
      const date = single(head.headers['last-modified']);
      this.lastModified = date === undefined ? undefined : parseHttpDate(date);
      this.#sourceOfPartial = this.source;
    }
    return 'take';
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
    this.#keep(fresh);
    this.received += fresh.length;
    this.#compared = this.received;
    this.#release();
    this.#throttle();
  }

  #release(): void {
    if (this.#unconfirmed || this.#condemned) return;
    const held = this.#expected.digests.length > 0 ? HELD_BACK : 0;
    if (this.received - held <= this.released) return;
    this.released = this.received - held;
    this.#wake();
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
    const released = this.released;
    this.released = this.received;
    const got = this.read(here, position, bytes.length);
    this.released = released;
    return got === bytes.length && here.equals(bytes);
  }

  #keep(chunk: Buffer): void {
    const small = this.received + chunk.length <= SMALL && (this.size === undefined || this.size <= SMALL);
    if (this.#file === undefined && !small && !this.#diskRefuses) this.#spill();
    if (this.#file === undefined || this.#diskRefuses) {
      this.#memory.push(Buffer.from(chunk));
      return;
    }
    try {
      for (let offset = 0; offset < chunk.length; ) {
        offset += writeSync(this.#file.fd, chunk, offset, chunk.length - offset, this.received + offset);
      }
    } catch (error) {
      this.#refuseDisk(error);
      this.#memory.push(Buffer.from(chunk));
    }
  }

  /** From memory to a file: it is larger than what is worth keeping there. */
  #spill(): void {
    const name = partialName(this.key);
    try {
      const fd = openSync(this.#blobs.partialPath(name), 'w+');
      this.#file = { fd, name };
      let at = 0;
      for (const part of this.#memory) {
        for (let offset = 0; offset < part.length; )
          offset += writeSync(fd, part, offset, part.length - offset, at + offset);
        at += part.length;
      }
      this.#memory = [];
      this.#memoryStart = this.received;
      this.#memoryFirst = this.received;
      this.#events.onPartial({
        file: name,
        url: this.source,
        size: this.size,
        etag: this.#etag,
        lastModified: this.lastModified,
        digest: this.#expected.digests.map(({ algorithm, hex }) => `${algorithm}:${hex}`)[0],
      });
    } catch (error) {
      if (this.#memory.length > 0 || this.received === 0) {
        this.#closeFile();
        this.#memoryStart = 0;
      }
      this.#refuseDisk(error);
    }
  }

  #refuseDisk(error: unknown): void {
    this.#diskRefuses = true;
    if (this.#file !== undefined) {
      this.#memoryStart = this.received;
      this.#memoryFirst = this.received;
    }
    this.#events.onDiskTrouble(error);
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
    const bytes = this.#file === undefined && this.received <= SMALL ? this.#joined() : undefined;
    const outcome = {
      kind: 'stored',
      sha256,
      size: this.received,
      source: source.url,
      etag: this.#etag,
      lastModified: this.lastModified,
      mtimeMs: verified || endIsSure ? this.#store(sha256, bytes) : undefined,
      verified,
      bytes,
    } as const;
    this.size = this.received;
    if (outcome.mtimeMs !== undefined) this.#events.onStored(outcome);
    return outcome;
  }

  #joined(): Buffer {
    return this.#memory.length === 1 ? this.#memory[0]! : Buffer.concat(this.#memory);
  }

  #store(sha256: string, bytes: Buffer | undefined): number | undefined {
    if (this.#diskRefuses) return undefined;
    try {
      if (this.#file) return this.#blobs.adopt(this.#blobs.partialPath(this.#file.name), sha256);
      return this.#blobs.write(bytes ?? this.#joined(), sha256);
    } catch (error) {
      this.#events.onDiskTrouble(error);
      return undefined;
    }
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
    this.received = 0;
    this.released = 0;
    this.#compared = 0;
    this.#condemned = false;
    this.size = this.#expected.size;
    this.#etag = undefined;
    this.lastModified = undefined;
    this.#memory = [];
    this.#memoryStart = 0;
    this.#memoryFirst = 0;
    this.#freshHashes();
    if (this.#file) {
      try {
        ftruncateSync(this.#file.fd, 0);
      } catch (error) {
        this.#closeFile();
        this.#refuseDisk(error);
      }
    }
  }

  #freshHashes(): void {
    const names = new Set<HashName>(['sha256', ...this.#expected.digests.map((digest) => digest.algorithm)]);
    this.#hashes = new Map([...names].map((name) => [name, createHash(name)]));
  }

  #closeFile(): void {
    if (this.#file) closeSync(this.#file.fd);
    this.#file = undefined;
  }

  #finish(outcome: Outcome): Outcome {
    this.outcome = outcome;
    this.#accept();
    if (outcome.kind === 'stored') this.released = this.received;
    const keepPartial = outcome.kind === 'failed' && this.received > 0;
    if (this.#file && !keepPartial && outcome.kind !== 'stored') this.#blobs.removePartial(this.#file.name);
    this.#wake();
    if (this.#readers.size === 0) this.#closeFile();
    else this.#closeWhenLeft();
    return outcome;
  }

  /** The file stays open until the last reader has what it needs. */
  #closeWhenLeft(): void {
    const detach = this.detach.bind(this);
    this.detach = (reader) => {
      detach(reader);
      if (this.#readers.size === 0) this.#closeFile();
    };
  }

  #wake(): void {
    for (const reader of [...this.#readers]) reader.wake();
  }
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

/** Of the partial file of a key. */
function partialName(key: string): string {
  return createHash('sha256').update(key).digest('hex').slice(0, 40);
}
