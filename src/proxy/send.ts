/**
 * Sending what was found, and saying why when there is nothing to send.
 *
 * Secret: what the end of a fetch means for those who waited for it (stored, unchanged, absent, failed), what is counted for
 * whom, and which answers may be given again from memory without deciding anything.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Absent } from './absent.ts';
import type { Answerer, TransferHead } from './answer.ts';
import type { Files, OpenFile } from './files.ts';
import { type Found, type FoundFile, type FoundTransfer, indexKey, whyOf } from './find.ts';
import type { Counter, Metrics } from './metrics.ts';
import { hasBody } from './routes.ts';
import type { Store, StoredUrl } from './store.ts';
import type { Suites } from './suites.ts';
import type { Outcome } from './transfer.ts';

interface HotRoute {
  readonly file: OpenFile;
  readonly contentType: string;
  readonly why: string;
  readonly fetchedAt: number;
  readonly lastModified: number | undefined;
}

const HOT_ROUTES = 20_000;
const PUBLISH_POLL_MS = 500;

export interface SenderParts {
  readonly store: Store;
  readonly files: Files;
  readonly suites: Suites;
  readonly absent: Absent;
  readonly metrics: Metrics;
  readonly answerer: Answerer;
  readonly offline: () => boolean;
  /** Seconds since the epoch. */
  readonly now: () => number;
  readonly stopped: () => boolean;
  readonly diskTrouble: (error: unknown) => void;
}

export class Sender {
  readonly #parts: SenderParts;
  readonly #hot = new Map<string, HotRoute>();

  constructor(parts: SenderParts) {
    this.#parts = parts;
  }

  /** Forgets answers from memory: after something was evicted, dropped or changed by another process. */
  forget(): void {
    this.#hot.clear();
  }

  /** Answers from memory when nothing has to be decided; false: go the long way. */
  answerHot(request: IncomingMessage, response: ServerResponse): boolean {
    const route = this.#hot.get(request.url ?? '');
    if (route === undefined || (request.method !== 'GET' && request.method !== 'HEAD')) return false;
    if (request.headers['proxy-authorization'] !== undefined || hasBody(request)) return false;
    if (!this.#parts.files.stillGood(route.file)) {
      this.#hot.delete(request.url!);
      return false;
    }
    const { metrics } = this.#parts;
    metrics.add('requests');
    metrics.add('hits');
    this.#parts.answerer.file(
      request,
      response,
      route.file,
      {
        contentType: route.contentType,
        lastModified: route.lastModified,
        cache: 'HIT',
        why: route.why,
        age: Math.max(0, this.#parts.now() - route.fetchedAt),
        immutable: true,
      },
      {
        onEnd(bytes) {
          metrics.add('bytes_out', bytes);
          metrics.add('bytes_saved', bytes);
        },
      },
    );
    return true;
  }

  unavailable(response: ServerResponse, key: string, reason: string): void {
    this.#parts.metrics.add('unavailable');
    if (this.#parts.offline()) this.noteMissing(key);
    this.#parts.answerer.text(response, 503, `cannot get it: ${reason}`, {
      'Retry-After': '5',
      'X-Cache': 'ERROR',
      'X-Cache-Why': headerText(reason),
    });
  }

  noteMissing(key: string): void {
    try {
      this.#parts.store.noteMissing(key, this.#parts.now());
    } catch (error) {
      this.#parts.diskTrouble(error);
    }
  }

  /** Sends what was found. False: look again. */
  async send(
    request: IncomingMessage,
    response: ServerResponse,
    found: Found,
    type: string,
    key: string,
  ): Promise<boolean> {
    if (found.kind === 'none') {
      this.#sayNone(response, found, key);
      return true;
    }
    if (found.kind === 'file') {
      this.#sendFile(request, response, found, type);
      return true;
    }
    const { transfer, joined } = found;
    const { metrics } = this.#parts;
    const head: TransferHead = {
      contentType: type,
      cache: joined ? 'JOIN' : 'MISS',
      why: (now) => headerText(whyOf(found, now)),
      immutable: found.immutable,
    };
    const sent = await this.#parts.answerer.transfer(request, response, transfer, head, {
      onEnd(bytes) {
        metrics.add(joined ? 'joins' : 'misses');
        metrics.add('bytes_out', bytes);
        if (joined) metrics.add('bytes_saved', bytes);
      },
    });
    if (sent || response.destroyed) return true;
    const outcome = transfer.outcome;
    if (outcome === undefined) return false;
    return this.#sendOutcome(request, response, outcome, found, type, key);
  }

  #sendFile(request: IncomingMessage, response: ServerResponse, found: FoundFile, type: string): void {
    const { metrics } = this.#parts;
    const { file, cache, why, fetchedAt, lastModified, immutable } = found;
    const asked = cache === 'MISS' || cache === 'JOIN';
    metrics.add(COUNTED[cache] ?? 'hits');
    const head = {
      contentType: type,
      lastModified,
      cache,
      why: headerText(why),
      age: Math.max(0, this.#parts.now() - fetchedAt),
      immutable,
    };
    this.#parts.answerer.file(request, response, file, head, {
      onEnd(bytes) {
        metrics.add('bytes_out', bytes);
        if (!asked || cache === 'JOIN') metrics.add('bytes_saved', bytes);
      },
    });
    if (immutable && cache === 'HIT' && request.headers['proxy-authorization'] === undefined) {
      if (this.#hot.size >= HOT_ROUTES) this.#hot.delete(this.#hot.keys().next().value!);
      this.#hot.set(request.url!, { file, contentType: type, why: head.why, fetchedAt, lastModified });
    }
  }

  async #sendOutcome(
    request: IncomingMessage,
    response: ServerResponse,
    outcome: Outcome,
    found: FoundTransfer,
    type: string,
    key: string,
  ): Promise<boolean> {
    const { before, joined, immutable } = found;
    const why = whyOf(found, found.transfer);
    const wrong = outcome.kind === 'absent' || (outcome.kind === 'failed' && outcome.code === 'body-bad');
    if (wrong && found.index && (await this.#waitForPublisher(found.index, key))) return false;
    switch (outcome.kind) {
      case 'stored': {
        const { bytes, mtimeMs, sha256 } = outcome;
        const kept =
          bytes !== undefined && mtimeMs !== undefined ? this.#parts.files.remember(sha256, bytes, mtimeMs) : undefined;
        const file = kept ?? (await this.#parts.files.open(sha256));
        if (!file) return false;
        const cache = joined ? 'JOIN' : 'MISS';
        this.#sendFile(
          request,
          response,
          {
            kind: 'file',
            file,
            cache,
            why,
            fetchedAt: this.#parts.now(),
            lastModified: outcome.lastModified,
            immutable,
          },
          type,
        );
        return true;
      }
      case 'not-modified': {
        const file = before && (await this.#parts.files.open(before.sha256));
        if (!file) return false;
        this.#quietly(() => this.#parts.store.touchUrl(before.key, this.#parts.now()));
        this.#sendBefore(
          request,
          response,
          before,
          file,
          { cache: 'REVALIDATED', why: 'upstream says that it did not change' },
          type,
        );
        return true;
      }
      case 'absent':
        this.#parts.absent.note(found.index ? indexKey(key, found.index.named) : key);
        this.#sayNone(response, { status: 404, reason: 'upstream has no such file' }, key);
        return true;
      case 'failed': {
        const file = before && (await this.#parts.files.open(before.sha256));
        if (file && outcome.code !== 'body-bad') {
          this.#sendBefore(
            request,
            response,
            before,
            file,
            { cache: 'STALE', why: `upstream: ${outcome.reason}` },
            type,
          );
          return true;
        }
        this.#sayNone(
          response,
          {
            status: outcome.code === 'upstream-refused' ? 403 : outcome.code === 'body-bad' ? 502 : 503,
            reason: outcome.reason,
          },
          key,
        );
        return true;
      }
    }
  }

  /**
   * An index that upstream does not have as its own Release names it: upstream is publishing. Waits a moment; false when there was
   * waiting enough, or when upstream has another Release by now.
   */
  async #waitForPublisher(index: NonNullable<FoundTransfer['index']>, key: string): Promise<boolean> {
    const { absent, offline, stopped } = this.#parts;
    if (!absent.mayStillCome(indexKey(key, index.named)) || offline() || stopped()) return false;
    if (!(await this.#parts.suites.isStillUpstream(index.snapshot))) return false;
    await new Promise((resolve) => setTimeout(resolve, PUBLISH_POLL_MS));
    return true;
  }

  /** What was here before upstream was asked. */
  #sendBefore(
    request: IncomingMessage,
    response: ServerResponse,
    { fetchedAt, lastModified }: StoredUrl,
    file: OpenFile,
    said: { readonly cache: string; readonly why: string },
    type: string,
  ): void {
    this.#sendFile(request, response, { kind: 'file', file, ...said, fetchedAt, lastModified, immutable: false }, type);
  }

  #sayNone(response: ServerResponse, { status, reason }: { status: number; reason: string }, key: string): void {
    if (status === 503) {
      this.unavailable(response, key, reason);
      return;
    }
    this.#parts.metrics.add(status === 404 ? 'absent' : status === 403 ? 'refused' : 'unavailable');
    this.#parts.answerer.text(response, status, reason, { 'X-Cache': 'ERROR', 'X-Cache-Why': headerText(reason) });
  }

  #quietly(body: () => void): void {
    try {
      body();
    } catch (error) {
      this.#parts.diskTrouble(error);
    }
  }
}

/** X-Cache to what is counted; all others are hits. */
const COUNTED: Readonly<Record<string, Counter>> = {
  MISS: 'misses',
  JOIN: 'joins',
  REVALIDATED: 'revalidated',
  STALE: 'stale',
};

/** For a header: one line of printable ASCII. */
export function headerText(text: string): string {
  return text.replace(/[^\u0020-\u007e]+/g, '?').slice(0, 300);
}
