/**
 * The door of the apt cache: one request in, the right bytes out.
 *
 * Secret: the order in which a request is decided: what it means, what it must be (a digest that a signed index names, a
 * snapshot, or just an address), whether that is here, under way or to be fetched, and what is said when it cannot be had.
 */
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { type Lock, lock } from '../core/db.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { type Answerer, createAnswerer, type TransferHead } from './answer.ts';
import { addressAt, type Backends, createBackends, type Location } from './backends.ts';
import { type Blobs, openBlobs } from './blobs.ts';
import { type Facts, openFacts } from './facts.ts';
import { createFiles, type Files, type OpenFile } from './files.ts';
import { type Confirmed, createFlights, type Flights } from './flights.ts';
import { type Counter, createMetrics, type Metrics } from './metrics.ts';
import type { NamedBy } from './named.ts';
import type { Client } from './pins.ts';
import { classify, contentType, type Digest, guessSuiteRoot } from './policy.ts';
import type { NamedFile } from './release.ts';
import type { ProxySettings } from './settings.ts';
import type { Snapshot } from './snapshots.ts';
import { openStore, type Store, type StoredUrl, type Verified } from './store.ts';
import { Suites } from './suites.ts';
import { npmSpelling, parseTarget } from './target.ts';
import type { Expected, Outcome, Source, Transfer } from './transfer.ts';
import { createUpstream, type Upstream } from './upstream.ts';

/** Where a request goes: to the cache, to own pages, or nowhere. */
export type Route =
  | { readonly kind: 'file'; readonly location: Location; readonly view: string | undefined }
  | { readonly kind: 'local'; readonly path: string; readonly query: string }
  | { readonly kind: 'refused'; readonly status: number; readonly reason: string };

interface FoundFile {
  readonly kind: 'file';
  readonly file: OpenFile;
  readonly cache: string;
  readonly why: string;
  readonly fetchedAt: number;
  readonly lastModified: number | undefined;
  readonly immutable: boolean;
}

/** A file that is about to be sent: here, or on its way. */
export type Found =
  | FoundFile
  | {
      readonly kind: 'transfer';
      readonly transfer: Transfer;
      readonly joined: boolean;
      readonly why: string;
      readonly immutable: boolean;
      readonly before: StoredUrl | undefined;
      /** It is an index by path of this snapshot: upstream may be about to have it. */
      readonly index?: { readonly snapshot: Snapshot; readonly named: NamedFile };
    }
  | { readonly kind: 'none'; readonly status: number; readonly reason: string };

interface HotRoute {
  readonly file: OpenFile;
  readonly contentType: string;
  readonly why: string;
  readonly fetchedAt: number;
  readonly lastModified: number | undefined;
}

/** What a lookup asks for, once its address is known. */
interface Ask {
  readonly key: string;
  readonly sources: readonly Source[];
  readonly contentType: string;
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

const UNVERIFIED = 'unverified: no signed index here names it';
const CHECKED = 'checked against a signed index';
const HOT_ROUTES = 20_000;
const ABSENT_MS = 10_000;
const PUBLISH_WAIT_MS = 10_000;
const PUBLISH_POLL_MS = 500;
const HOUSEKEEPING_MS = 1000;
const FLUSH_EVERY = 5;
/** Objects stored this long before an unclean end are read again before they are served, in seconds. */
const DOUBTFUL_SECONDS = 600;

export interface ProxyParts {
  /** For tests: how names become addresses. */
  readonly lookup?: Parameters<typeof createUpstream>[0]['lookup'];
  /** For tests: how long a client waits for upstream to finish publishing. */
  readonly publishWaitMs?: number;
  /** False: for looking and housekeeping beside a running server. */
  readonly serving?: boolean;
}

export class ProxyCache implements AsyncDisposable {
  readonly settings: ProxySettings;
  readonly backends: Backends;
  readonly store: Store;
  readonly blobs: Blobs;
  readonly facts: Facts;
  readonly files: Files;
  readonly flights: Flights;
  readonly suites: Suites;
  readonly upstream: Upstream;
  readonly metrics: Metrics;
  readonly answerer: Answerer;
  readonly context: Context;
  readonly via: string;
  offline: boolean;
  readonly #lock: Lock | undefined;
  readonly #stop = new AbortController();
  readonly #hot = new Map<string, HotRoute>();
  readonly #absent = new Map<string, number>();
  /** Indexes that are waited for, and how long (monotonic). */
  readonly #publishing = new Map<string, number>();
  readonly #publishWaitMs: number;
  readonly #timer: NodeJS.Timeout | undefined;
  #dataVersion: number;
  #ticks = 0;
  #diskWarned = 0;
  #now: number;
  #closed = false;

  private constructor(context: Context, settings: ProxySettings, parts: ProxyParts, held: Lock | undefined) {
    const clock = () => performance.now();
    this.context = context;
    this.settings = settings;
    this.offline = settings.offline;
    this.#lock = held;
    this.#publishWaitMs = parts.publishWaitMs ?? PUBLISH_WAIT_MS;
    this.#now = Math.floor(context.now().getTime() / 1000);
    const now = () => Math.floor(context.now().getTime() / 1000);
    this.backends = createBackends({ own: settings.backends, hosts: settings.hosts, maxAge: settings.maxAge });
    this.blobs = openBlobs(settings.dir);
    this.store = openStore(join(settings.dir, 'cache.db'));
    this.via = `buildkit-${this.#identity()}`;
    this.facts = openFacts(join(settings.dir, 'facts'));
    this.metrics = createMetrics(this.store.counters());
    this.files = createFiles(this.blobs, this.store, clock, () => this.metrics.add('healed'));
    this.answerer = createAnswerer(this.files, this.via);
    this.upstream = createUpstream({
      innerHosts: settings.innerHosts,
      clock,
      via: this.via,
      ...(parts.lookup ? { lookup: parts.lookup } : {}),
    });
    this.flights = createFlights({
      store: this.store,
      blobs: this.blobs,
      upstream: this.upstream,
      signal: this.#stop.signal,
      clock,
      now,
      report: {
        bad: (url, reason) => this.#trouble('bad_bodies', `${url}: ${reason}; not served to its end, not kept`),
        stored: (key, _sha256, size) => {
          this.metrics.add('bytes_fetched', size);
          if (key !== undefined) this.#absent.delete(key);
        },
        diskTrouble: (error) => this.#diskTrouble(error),
      },
    });
    this.suites = new Suites({
      context,
      store: this.store,
      blobs: this.blobs,
      facts: this.facts,
      flights: this.flights,
      keyrings: readKeyrings(settings.keyrings),
      now,
      clock,
      offline: () => this.offline,
      publishWaitMs: this.#publishWaitMs,
      backendOf: (name) => this.backends.byKey(`${name}/`)?.backend,
      report: {
        badSignature: (url, reason) => this.#trouble('bad_signatures', `${url}: ${reason}`),
        staleMirror: (url) =>
          this.#trouble('stale_mirrors', `${url} is behind: its Release is older than the one here`),
        publishing: (root, reason) => this.#trouble('held_snapshots', `'${root}': upstream is publishing: ${reason}`),
        harvestFailed: (index, error) =>
          this.#trouble('harvest_failures', `'${index}' cannot be read: ${(error as Error).message}`),
      },
    });
    this.#dataVersion = this.store.dataVersion();
    if (parts.serving === false) return;
    this.#timer = setInterval(() => this.#keepHouse(), HOUSEKEEPING_MS);
    this.#timer.unref();
    this.blobs.sweep();
    if (this.store.state('clean') === 'no') this.#doubtRecent();
    this.store.setState('clean', 'no');
  }

  /**
   * Opens the cache in `settings.dir`, for serving or (`serving: false`) for work beside a server.
   * @throws UserError `locked` when another server has it, and as `createBackends`, `openStore`
   */
  static async open(context: Context, settings: ProxySettings, parts: ProxyParts = {}): Promise<ProxyCache> {
    const held =
      parts.serving === false
        ? undefined
        : await lock(join(settings.dir, 'serve.lock'), { what: `the cache '${settings.dir}'` });
    try {
      return new ProxyCache(context, settings, parts, held);
    } catch (error) {
      held?.[Symbol.dispose]();
      throw error;
    }
  }

  /** Stays the same for one cache: a request that comes back with it went in a circle. */
  #identity(): string {
    let id = this.store.state('id');
    if (id === undefined) {
      id = crypto.randomUUID().slice(0, 8);
      this.store.setState('id', id);
    }
    return id;
  }

  #trouble(counter: Counter, line: string): void {
    this.metrics.add(counter);
    this.context.log.warn(line);
  }

  #diskTrouble(error: unknown): void {
    this.metrics.add('disk_trouble');
    if (this.#diskWarned > performance.now()) return;
    this.#diskWarned = performance.now() + 60_000;
    this.context.log.warn(
      `the cache cannot be written (${errnoOf(error) ?? (error as Error).message}): clients are served, nothing is kept`,
    );
  }

  #doubtRecent(): void {
    this.store.doubtSince(this.#now - DOUBTFUL_SECONDS);
  }

  #keepHouse(): void {
    this.#ticks += 1;
    this.#now = Math.floor(this.context.now().getTime() / 1000);
    try {
      const version = this.store.dataVersion();
      if (version !== this.#dataVersion) {
        this.#dataVersion = version;
        this.#hot.clear();
        this.files.forgetAll();
        this.suites.reload();
      }
      if (this.#ticks % FLUSH_EVERY === 0) this.flush();
    } catch (error) {
      this.#diskTrouble(error);
    }
  }

  /** Writes use counts and counters down. */
  flush(): void {
    const uses = this.files.takeUses();
    if (uses.size > 0) this.store.touchObjects(uses, this.#now);
    const changes = this.metrics.takeChanges();
    if (changes.size > 0) this.store.addCounters(changes);
    if (this.#absent.size > 10_000) this.#absent.clear();
  }

  /** Answers from memory when nothing has to be decided; false: go the long way. */
  answerHot(request: IncomingMessage, response: ServerResponse): boolean {
    const route = this.#hot.get(request.url ?? '');
    if (route === undefined || (request.method !== 'GET' && request.method !== 'HEAD')) return false;
    if (request.headers['proxy-authorization'] !== undefined || hasBody(request)) return false;
    if (!this.files.stillGood(route.file)) {
      this.#hot.delete(request.url!);
      return false;
    }
    const { metrics } = this;
    metrics.add('requests');
    metrics.add('hits');
    this.answerer.file(
      request,
      response,
      route.file,
      {
        contentType: route.contentType,
        lastModified: route.lastModified,
        cache: 'HIT',
        why: route.why,
        age: Math.max(0, this.#now - route.fetchedAt),
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

  /** What a request target means. Proxy requests and own pages are told apart here, before anything is routed. */
  route(request: IncomingMessage): Route {
    const target = parseTarget(npmSpelling(request.url ?? ''));
    if (target.form === 'bad') return { kind: 'refused', status: 400, reason: target.reason };
    const via = request.headers.via;
    if (via?.includes(this.via)) return { kind: 'refused', status: 508, reason: 'this request went in a circle' };
    const view = viewOf(request) ?? this.settings.frozen;
    if (view !== undefined && !this.suites.hasView(view)) {
      return { kind: 'refused', status: 404, reason: `there is no frozen view '${view}'` };
    }
    if (target.form === 'absolute') {
      const location = this.backends.byAuthority(target.authority, target.path, target.query);
      if (location) return { kind: 'file', location, view };
      return {
        kind: 'refused',
        status: 403,
        reason: `'${target.authority.host}' is not on the list of upstreams (--allow-host)`,
      };
    }
    const frozen = /^frozen\/([^/]+)\/(.*)$/.exec(target.path);
    if (frozen) {
      const location = this.backends.byPath(frozen[2]!, target.query);
      if (!location || !this.suites.hasView(frozen[1]!))
        return { kind: 'refused', status: 404, reason: 'there is no such frozen view' };
      return { kind: 'file', location, view: frozen[1]! };
    }
    const location = this.backends.byPath(target.path, target.query);
    return location ? { kind: 'file', location, view } : { kind: 'local', path: target.path, query: target.query };
  }

  /** Answers a request for a file. Never throws: what goes wrong becomes an answer. */
  async answer(
    request: IncomingMessage,
    response: ServerResponse,
    location: Location,
    view: string | undefined,
  ): Promise<void> {
    this.metrics.add('requests');
    const client: Client = { socket: request.socket, address: request.socket.remoteAddress ?? '' };
    try {
      // a body may come to nothing, or be there at last, while a client waits: it is looked up again, a few times
      for (let round = 0; round < 4; ) {
        const found = await this.find(location, client, view);
        if (response.destroyed) return;
        if (await this.send(request, response, found, contentType(location.path), location.key)) return;
        if (found.kind !== 'transfer' || !found.index) round += 1;
      }
      this.unavailable(response, location.key, 'the file changes upstream while it is fetched: try again');
    } catch (error) {
      this.context.log.warn(`${location.key}: ${(error as Error).stack ?? String(error)}`);
      if (response.headersSent) response.destroy();
      else this.answerer.text(response, 500, 'this is a bug in buildkit: the log says more');
    }
  }

  unavailable(response: ServerResponse, key: string, reason: string): void {
    this.metrics.add('unavailable');
    if (this.offline) this.noteMissing(key);
    this.answerer.text(response, 503, `cannot get it: ${reason}`, {
      'Retry-After': '5',
      'X-Cache': 'ERROR',
      'X-Cache-Why': headerText(reason),
    });
  }

  noteMissing(key: string): void {
    try {
      this.store.noteMissing(key, this.#now);
    } catch (error) {
      this.#diskTrouble(error);
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
    const { metrics } = this;
    const head: TransferHead = {
      contentType: type,
      cache: joined ? 'JOIN' : 'MISS',
      why: (now) => headerText(whyOf(found, now)),
      immutable: found.immutable,
    };
    const sent = await this.answerer.transfer(request, response, transfer, head, {
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

  #sendFile(
    request: IncomingMessage,
    response: ServerResponse,
    found: Extract<Found, { kind: 'file' }>,
    type: string,
  ): void {
    const { metrics } = this;
    const { file, cache, why, fetchedAt, lastModified, immutable } = found;
    const asked = cache === 'MISS' || cache === 'JOIN';
    metrics.add(
      cache === 'MISS'
        ? 'misses'
        : cache === 'JOIN'
          ? 'joins'
          : cache === 'REVALIDATED'
            ? 'revalidated'
            : cache === 'STALE'
              ? 'stale'
              : 'hits',
    );
    const head = {
      contentType: type,
      lastModified,
      cache,
      why: headerText(why),
      age: Math.max(0, this.#now - fetchedAt),
      immutable,
    };
    this.answerer.file(request, response, file, head, {
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
    found: Extract<Found, { kind: 'transfer' }>,
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
          bytes !== undefined && mtimeMs !== undefined ? this.files.remember(sha256, bytes, mtimeMs) : undefined;
        const file = kept ?? (await this.files.open(sha256));
        if (!file) return false;
        const cache = joined ? 'JOIN' : 'MISS';
        this.#sendFile(
          request,
          response,
          { kind: 'file', file, cache, why, fetchedAt: this.#now, lastModified: outcome.lastModified, immutable },
          type,
        );
        return true;
      }
      case 'not-modified': {
        const file = before && (await this.files.open(before.sha256));
        if (!file) return false;
        this.#quietly(() => this.store.touchUrl(before.key, this.#now));
        const { fetchedAt, lastModified } = before;
        this.#sendFile(
          request,
          response,
          {
            kind: 'file',
            file,
            cache: 'REVALIDATED',
            why: 'upstream says that it did not change',
            fetchedAt,
            lastModified,
            immutable: false,
          },
          type,
        );
        return true;
      }
      case 'absent':
        if (this.#absent.size < 10_000)
          this.#absent.set(found.index ? indexKey(key, found.index.named) : key, performance.now() + ABSENT_MS);
        this.#sayNone(response, { status: 404, reason: 'upstream has no such file' }, key);
        return true;
      case 'failed': {
        const file = before && (await this.files.open(before.sha256));
        if (file && outcome.code !== 'body-bad') {
          const { fetchedAt, lastModified } = before;
          this.#sendFile(
            request,
            response,
            {
              kind: 'file',
              file,
              cache: 'STALE',
              why: `upstream: ${outcome.reason}`,
              fetchedAt,
              lastModified,
              immutable: false,
            },
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
  async #waitForPublisher(
    index: { readonly snapshot: Snapshot; readonly named: NamedFile },
    key: string,
  ): Promise<boolean> {
    const name = indexKey(key, index.named);
    const now = performance.now();
    let until = this.#publishing.get(name);
    if (until === undefined || until + ABSENT_MS < now) {
      if (this.#publishing.size > 1000) this.#publishing.clear();
      until = now + this.#publishWaitMs;
      this.#publishing.set(name, until);
    }
    if (now > until || this.offline || this.#closed) return false;
    if (!(await this.suites.isStillUpstream(index.snapshot))) return false;
    await new Promise((resolve) => setTimeout(resolve, PUBLISH_POLL_MS));
    return true;
  }

  #sayNone(response: ServerResponse, { status, reason }: { status: number; reason: string }, key: string): void {
    if (status === 503) {
      this.unavailable(response, key, reason);
      return;
    }
    this.metrics.add(status === 404 ? 'absent' : status === 403 ? 'refused' : 'unavailable');
    this.answerer.text(response, status, reason, { 'X-Cache': 'ERROR', 'X-Cache-Why': headerText(reason) });
  }

  #quietly(body: () => void): void {
    try {
      body();
    } catch (error) {
      this.#diskTrouble(error);
    }
  }

  /** Finds the file of a location, or starts to fetch it. */
  async find(location: Location, client: Client, view: string | undefined): Promise<Found> {
    const kind = classify(location.path);
    if (location.query !== '') return this.findChanging(this.#ask(location), location.backend.maxAge);
    if (kind.kind === 'release') return this.#findRelease(location, kind.root, kind.file, client, view);
    if (kind.kind === 'by-hash') return this.#findByHash(location, kind.digest, kind.folder);
    if (kind.kind === 'changing') {
      const index = await this.#findIndex(location, client, view);
      if (index) return index;
    }
    const expected = await this.suites.expectedFor(location, view);
    if (expected.length > 0) return this.#findNamed(location, expected);
    if (kind.kind === 'changing') return this.findChanging(this.#ask(location), location.backend.maxAge);
    return this.#findUnnamed(location);
  }

  #ask(location: Location): Ask {
    const { trusted } = location.backend;
    const sources = location.backend.mirrors.map((mirror) => ({ url: addressAt(mirror, location), trusted }));
    return { key: location.key, sources, contentType: contentType(location.path) };
  }

  async #findRelease(
    location: Location,
    root: string,
    file: 'InRelease' | 'Release' | 'Release.gpg',
    client: Client,
    view: string | undefined,
  ): Promise<Found> {
    if (this.#isAbsent(location.key)) return absentAgain();
    const answer = await this.suites.forRelease(location.backend, root, client, view);
    if (answer.kind === 'absent') {
      this.#absent.set(location.key, performance.now() + ABSENT_MS);
      return { kind: 'none', status: 404, reason: 'upstream has no such file' };
    }
    if (answer.kind === 'failed') {
      const refused = answer.code.startsWith('signature-') || answer.code === 'release-syntax';
      return {
        kind: 'none',
        status: answer.code === 'upstream-refused' ? 403 : refused ? 502 : 503,
        reason: answer.reason,
      };
    }
    const { row, release } = answer.snapshot;
    const sha256 =
      file === 'InRelease'
        ? row.inRelease
        : file === 'Release'
          ? row.release
          : await this.#signatureOf(answer.snapshot);
    if (sha256 === undefined)
      return { kind: 'none', status: 404, reason: `this suite has no ${file} that goes with its other files` };
    const opened = await this.files.open(sha256);
    if (!opened) return { kind: 'none', status: 503, reason: 'the Release file vanished from the cache: try again' };
    return {
      kind: 'file',
      file: opened,
      cache: !answer.fresh
        ? 'STALE'
        : answer.asked === 'new'
          ? 'MISS'
          : answer.asked === 'same'
            ? 'REVALIDATED'
            : 'HIT',
      why: answer.why,
      fetchedAt: answer.checkedAt,
      lastModified: row.lastModified ?? release.date,
      immutable: false,
    };
  }

  /** Release.gpg of a snapshot that came as InRelease: fetched, and served only when it signs that very text. */
  async #signatureOf(snapshot: Snapshot): Promise<string | undefined> {
    if (snapshot.row.signature !== undefined || this.offline) return snapshot.row.signature;
    return this.suites.fetchSignature(snapshot);
  }

  async #findByHash(location: Location, digest: Digest, folder: string): Promise<Found> {
    const sha256 = digest.algorithm === 'sha256' ? digest.hex : this.store.url(location.key)?.sha256;
    const file = sha256 === undefined ? undefined : await this.files.open(sha256);
    const known = sha256 === undefined ? undefined : this.suites.byDigest(location.backend, folder, sha256);
    if (known) this.suites.used(known.snapshot, known.path, known.named);
    if (file) return this.#hit(file, 'its name is its digest');
    if (this.offline) return this.#offlineNone();
    if (known) {
      const { transfer, joined } = this.suites.fetchIndex(known.snapshot, known.path, known.named);
      this.#usedWhenStored(transfer, known);
      return { kind: 'transfer', transfer, joined, why: 'its name is its digest', immutable: true, before: undefined };
    }
    if (this.#isAbsent(location.key)) return absentAgain();
    const ask = this.#ask(location);
    return this.#fetch(ask, { digests: [digest] }, 2, 'its name is its digest');
  }

  #usedWhenStored(
    transfer: Transfer,
    index: { readonly snapshot: Snapshot; readonly path: string; readonly named: NamedFile },
  ): void {
    void transfer.done
      .then((outcome) => {
        if (outcome.kind === 'stored' && outcome.mtimeMs !== undefined)
          this.suites.used(index.snapshot, index.path, index.named);
      })
      .catch(() => {});
  }

  async #findIndex(location: Location, client: Client, view: string | undefined): Promise<Found | undefined> {
    let index = this.suites.indexFor(location, client, view);
    const guess = guessSuiteRoot(location.path);
    if (!index && guess !== undefined && view === undefined && !this.suites.knows(location.backend, guess)) {
      await this.suites.forRelease(location.backend, guess, client, view);
      index = this.suites.indexFor(location, client, view);
    }
    if (!index?.named)
      return view === undefined || index
        ? undefined
        : { kind: 'none', status: 404, reason: `not in the frozen view '${view}'` };
    const { snapshot, path, named } = index;
    const why = `named by the ${snapshot.row.signed ? 'signed ' : ''}Release of ${new Date(snapshot.release.date * 1000).toISOString()}`;
    const file = await this.files.open(named.sha256);
    if (file) {
      this.suites.used(snapshot, path, named);
      // by path it is another object after the next Release: never a hot route
      return {
        kind: 'file',
        file,
        cache: 'HIT',
        why,
        fetchedAt: this.store.object(named.sha256)?.storedAt ?? this.#now,
        lastModified: undefined,
        immutable: false,
      };
    }
    if (this.offline) return this.#offlineNone();
    if (this.#isAbsent(indexKey(location.key, named))) return absentAgain();
    const { transfer, joined } = this.suites.fetchIndex(snapshot, path, named);
    this.#usedWhenStored(transfer, { snapshot, path, named });
    return { kind: 'transfer', transfer, joined, why, immutable: false, before: undefined, index: { snapshot, named } };
  }

  async #findNamed(location: Location, expected: readonly NamedBy[]): Promise<Found> {
    for (const { named, signed } of expected) {
      const file = await this.files.open(named.sha256);
      if (file)
        return this.#hit(file, signed ? 'its digest is that of a signed index' : 'its digest is that of an index');
    }
    if (this.offline) return this.#offlineNone();
    if (this.#isAbsent(location.key)) return absentAgain();
    const [{ signed }] = expected as [NamedBy];
    const { expected: first, verified } = expectationOf(expected)!;
    const why = signed ? CHECKED : 'checked against an index without a known signer';
    return this.#fetch(this.#ask(location), first, verified, why);
  }

  /** A package file that no index here names, nor one that upstream has now: served, but marked as such. */
  async #findUnnamed(location: Location): Promise<Found> {
    const named = await this.suites.seekNamed(location);
    if (named.length > 0) return this.#findNamed(location, named);
    const row = this.store.url(location.key);
    const file = row && (await this.files.open(row.sha256));
    if (this.settings.onlyVerified && row?.verified !== 2) {
      return {
        kind: 'none',
        status: 403,
        reason: 'no signed index here names it (run apt-get update through the proxy first)',
      };
    }
    if (file) {
      const why = row.verified > 0 ? 'it was checked when it was fetched' : UNVERIFIED;
      // an index may name it yet: such an answer is never given without looking again
      return { ...this.#hit(file, why, row.lastModified), immutable: row.verified > 0 };
    }
    if (this.offline) return this.#offlineNone();
    if (this.#isAbsent(location.key)) return absentAgain();
    const { transfer, joined } = this.flights.fetch({
      ...this.#ask(location),
      expected: { digests: [] },
      verified: 0,
      confirm: async () => expectationOf(await this.suites.seekNamed(location)),
    });
    return { kind: 'transfer', transfer, joined, why: UNVERIFIED, immutable: false, before: undefined };
  }

  /** Something that may change and that no Release names: asked for again when it is older than `maxAge`. */
  async findChanging(ask: Ask, maxAge: number): Promise<Found> {
    const row = this.store.url(ask.key);
    const file = row && (await this.files.open(row.sha256));
    const here = (cache: string, why: string): Found => ({
      kind: 'file',
      file: file!,
      cache,
      why,
      fetchedAt: row!.fetchedAt,
      lastModified: row!.lastModified,
      immutable: false,
    });
    if (file && this.offline) return here('HIT', 'offline');
    if (file && this.#now - row.checkedAt < maxAge) return here('HIT', 'checked moments ago');
    if (this.offline) return this.#offlineNone();
    if (this.#isAbsent(ask.key)) return absentAgain();
    const validators = file ? { etag: row.etag, lastModified: row.lastModified } : undefined;
    const checkable = validators?.etag !== undefined || validators?.lastModified !== undefined;
    const { transfer, joined } = this.flights.fetch({
      key: ask.key,
      sources: ask.sources,
      expected: { digests: [] },
      verified: 0,
      validators: checkable ? validators : undefined,
      headers: ask.headers,
      contentType: ask.contentType,
    });
    await transfer.accepted;
    return { kind: 'transfer', transfer, joined, why: 'it may change: asked upstream', immutable: false, before: row };
  }

  /** Something whose digest is known from elsewhere (npm, PyPI). */
  async findDigest(ask: Ask, expected: Expected, why: string): Promise<Found> {
    const row = this.store.url(ask.key);
    const sha256 =
      expected.digests.find((digest) => digest.algorithm === 'sha256')?.hex ?? (row?.verified ? row.sha256 : undefined);
    const file = sha256 === undefined ? undefined : await this.files.open(sha256);
    if (file) return this.#hit(file, why);
    if (this.offline) return this.#offlineNone();
    if (this.#isAbsent(ask.key)) return absentAgain();
    return this.#fetch(ask, expected, expected.digests.length > 0 ? 2 : 0, why);
  }

  #fetch(ask: Ask, expected: Expected, verified: Verified, why: string): Found {
    const { transfer, joined } = this.flights.fetch({
      key: ask.key,
      sources: ask.sources,
      expected,
      verified,
      contentType: ask.contentType,
      headers: ask.headers,
    });
    return { kind: 'transfer', transfer, joined, why, immutable: true, before: undefined };
  }

  #hit(file: OpenFile, why: string, lastModified?: number): FoundFile {
    const fetchedAt = this.store.object(file.sha256)?.storedAt ?? this.#now;
    return { kind: 'file', file, cache: 'HIT', why, fetchedAt, lastModified, immutable: true };
  }

  #offlineNone(): Found {
    return { kind: 'none', status: 503, reason: 'the proxy is offline and this file is not in the cache' };
  }

  #isAbsent(key: string): boolean {
    const until = this.#absent.get(key);
    if (until === undefined) return false;
    if (until > performance.now()) return true;
    this.#absent.delete(key);
    return false;
  }

  /** Drops hot routes: after something was evicted or dropped. */
  forgetHot(): void {
    this.#hot.clear();
    this.#absent.clear();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    this.#stop.abort(new Error('the proxy is stopping'));
    await this.flights.settled();
    await this.suites.stop();
    await this.upstream.close();
    this.#quietly(() => this.flush());
    if (this.#timer !== undefined) this.#quietly(() => this.store.setState('clean', 'yes'));
    this.files[Symbol.dispose]();
    this.facts[Symbol.dispose]();
    this.store[Symbol.dispose]();
    this.#lock?.[Symbol.dispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function indexKey(key: string, { sha256 }: NamedFile): string {
  return `${key}\n${sha256}`;
}

/** What a file must be, when indexes name it: by the newest of them. */
function expectationOf(named: readonly NamedBy[]): Confirmed | undefined {
  const [first] = named;
  if (!first) return undefined;
  const { size, sha256 } = first.named;
  return { expected: { size, digests: [{ algorithm: 'sha256', hex: sha256 }] }, verified: first.signed ? 2 : 1 };
}

/** A fetch that began without a digest may have been given one since. */
function whyOf(found: Extract<Found, { kind: 'transfer' }>, transfer: Transfer): string {
  return found.why === UNVERIFIED && transfer.expectedSha256 !== undefined ? CHECKED : found.why;
}

function absentAgain(): Found {
  return { kind: 'none', status: 404, reason: 'upstream had no such file moments ago' };
}

/** A GET with a body is nothing that apt sends, and a way to smuggle a second request past somebody. */
export function hasBody(request: IncomingMessage): boolean {
  const { headers } = request;
  return (
    headers['transfer-encoding'] !== undefined ||
    (headers['content-length'] !== undefined && headers['content-length'] !== '0')
  );
}

/** The user name of proxy credentials names a frozen view: `Acquire::http::Proxy "http://NAME@host:9999"`. */
function viewOf(request: IncomingMessage): string | undefined {
  const match = /^Basic ([A-Za-z0-9+/=]{1,200})$/i.exec(request.headers['proxy-authorization'] ?? '');
  const name = match && Buffer.from(match[1]!, 'base64').toString('utf8').split(':')[0];
  return name && /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name) ? name : undefined;
}

/** For a header: one line of printable ASCII. */
export function headerText(text: string): string {
  return text.replace(/[^\u0020-\u007e]+/g, '?').slice(0, 300);
}

function readKeyrings(paths: readonly string[]): Uint8Array[] {
  return paths.flatMap((path) => {
    try {
      return [readFileSync(path)];
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw new UserError('proxy-keyring', `the keyring '${path}' cannot be read`, { file: path, cause: error });
    }
  });
}
