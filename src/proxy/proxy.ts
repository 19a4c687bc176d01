/**
 * The door of the apt cache: its parts put together, opened and closed; one request in, the right bytes out.
 *
 * Secret: the life of a cache. Which parts there are and what they tell each other; the lock that keeps a second server out; what
 * is written down every few seconds, and what is doubted after an unclean end.
 */
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { type Lock, lock } from '../core/db.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { type Absent, createAbsent } from './absent.ts';
import { type Answerer, createAnswerer } from './answer.ts';
import { type Backends, createBackends, type Location } from './backends.ts';
import { type Blobs, openBlobs } from './blobs.ts';
import { type Facts, openFacts } from './facts.ts';
import { createFiles, type Files } from './files.ts';
import { type Ask, Finder, type Found } from './find.ts';
import { createFlights, type Flights } from './flights.ts';
import { readServing } from './leases.ts';
import { type Counter, createMetrics, type Metrics } from './metrics.ts';
import type { Client } from './pins.ts';
import { contentType } from './policy.ts';
import { createRouter, type Route } from './routes.ts';
import { Sender } from './send.ts';
import type { ProxySettings } from './settings.ts';
import { openStore, type Store } from './store.ts';
import { Suites } from './suites.ts';
import type { Expected } from './transfer.ts';
import { createUpstream, type Upstream } from './upstream.ts';

const PUBLISH_WAIT_MS = 10_000;
const HOUSEKEEPING_MS = 1000;
const FLUSH_EVERY = 5;
/** Objects stored this long before an unclean end are read again before they are served, in seconds. */
const DOUBTFUL_SECONDS = 600;
/** A body may come to nothing, or be there at last, while a client waits: it is looked up again this often. */
const ROUNDS = 4;

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
  readonly #absent: Absent;
  readonly #router: (request: IncomingMessage) => Route;
  readonly #finder: Finder;
  readonly #sender: Sender;
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
    const publishWaitMs = parts.publishWaitMs ?? PUBLISH_WAIT_MS;
    this.#absent = createAbsent(clock, publishWaitMs);
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
          if (key !== undefined) this.#absent.drop(key);
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
      publishWaitMs,
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
    const { store, files, flights, suites, backends, answerer, via } = this;
    const shared = { store, files, suites, absent: this.#absent, offline: () => this.offline, now: () => this.#now };
    this.#router = createRouter({ backends, hasView: (name) => suites.hasView(name), frozen: settings.frozen, via });
    this.#finder = new Finder({ ...shared, flights, onlyVerified: settings.onlyVerified });
    this.#sender = new Sender({
      ...shared,
      answerer,
      metrics: this.metrics,
      stopped: () => this.#closed,
      diskTrouble: (error) => this.#diskTrouble(error),
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
    const held = parts.serving === false ? undefined : await lockForServing(settings.dir);
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
        this.#sender.forget();
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
  }

  /** Answers from memory when nothing has to be decided; false: go the long way. */
  answerHot(request: IncomingMessage, response: ServerResponse): boolean {
    return this.#sender.answerHot(request, response);
  }

  /** What a request target means. */
  route(request: IncomingMessage): Route {
    return this.#router(request);
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
      for (let round = 0; round < ROUNDS; ) {
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
    this.#sender.unavailable(response, key, reason);
  }

  noteMissing(key: string): void {
    this.#sender.noteMissing(key);
  }

  /** Sends what was found. False: look again. */
  send(request: IncomingMessage, response: ServerResponse, found: Found, type: string, key: string): Promise<boolean> {
    return this.#sender.send(request, response, found, type, key);
  }

  /** Finds the file of a location, or starts to fetch it. */
  find(location: Location, client: Client, view: string | undefined): Promise<Found> {
    return this.#finder.find(location, client, view);
  }

  /** Something that may change and that no Release names: asked for again when it is older than `maxAge`. */
  findChanging(ask: Ask, maxAge: number): Promise<Found> {
    return this.#finder.findChanging(ask, maxAge);
  }

  /** Something whose digest is known from elsewhere (npm, PyPI). */
  findDigest(ask: Ask, expected: Expected, why: string): Promise<Found> {
    return this.#finder.findDigest(ask, expected, why);
  }

  /** Drops hot routes: after something was evicted or dropped. */
  forgetHot(): void {
    this.#sender.forget();
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

  #quietly(body: () => void): void {
    try {
      body();
    } catch (error) {
      this.#diskTrouble(error);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function lockForServing(dir: string): Promise<Lock> {
  try {
    return await lock(join(dir, 'serve.lock'));
  } catch (error) {
    if (!(error instanceof UserError) || error.code !== 'locked') throw error;
    const urls = readServing(dir)?.urls.join(' and ');
    throw new UserError('locked', `the cache '${dir}' is served already${urls ? `, at ${urls}` : ''}`, {
      hint: 'use that one, or give this one a folder of its own: --cache DIR',
      cause: error,
    });
  }
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
