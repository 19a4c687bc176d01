/**
 * Suites: which snapshot of each is current, and when the next one becomes so.
 *
 * Secret: how old and new are kept apart. A new InRelease becomes current only when it is signed as asked, not older than the one
 * before (a mirror that lags behind is left alone), and when every index that clients have used lately is here in the version that
 * it names. Until then the old one is served with its own indexes. Whoever was given a snapshot keeps getting that snapshot's
 * indexes. (apt-secure(8); RepositoryFormat: Acquire-By-Hash.)
 */
import type { RunContext } from '../core/context.ts';
import type { KeyData } from '../deb/openpgp.ts';
import { addressAt, type Backend, type Location } from './backends.ts';
import type { Blobs } from './blobs.ts';
import type { Facts } from './facts.ts';
import type { Flights } from './flights.ts';
import { atMost, createNamed, likelyIndexes, mayBeNamedFrom, type Named, type NamedBy } from './named.ts';
import { type Client, createPins, type Pins } from './pins.ts';
import { namesFiles, suiteRoots } from './policy.ts';
import type { NamedFile } from './release.ts';
import { createReleases, type Releases } from './releases.ts';
import { createSnapshots, type Snapshot, type Snapshots, suiteKey } from './snapshots.ts';
import type { Store } from './store.ts';
import type { Source } from './transfer.ts';

export type SuiteAnswer =
  | {
      readonly kind: 'snapshot';
      readonly snapshot: Snapshot;
      readonly fresh: boolean;
      readonly why: string;
      readonly checkedAt: number;
      /** Upstream was asked for this answer: it is new, or it is the same. */
      readonly asked?: 'new' | 'same';
    }
  | { readonly kind: 'absent' }
  | { readonly kind: 'failed'; readonly code: string; readonly reason: string };

export interface SuiteReport {
  badSignature(url: string, reason: string): void;
  staleMirror(url: string): void;
  publishing(root: string, reason: string): void;
  harvestFailed(index: string, error: unknown): void;
}

export interface SuitesParts {
  readonly context: RunContext;
  readonly store: Store;
  readonly blobs: Blobs;
  readonly facts: Facts;
  readonly flights: Flights;
  readonly keyrings: readonly KeyData[];
  /** Seconds since the epoch. */
  readonly now: () => number;
  /** Milliseconds, monotonic. */
  readonly clock: () => number;
  readonly offline: () => boolean;
  readonly backendOf: (name: string) => Backend | undefined;
  /** How long a client waits for upstream to finish publishing when nothing older is here to give it. */
  readonly publishWaitMs: number;
  readonly report: SuiteReport;
}

interface Suite {
  readonly backend: Backend;
  readonly root: string;
  current: Snapshot | undefined;
  /** What upstream had last, current or not yet. */
  newest: Snapshot | undefined;
  checkedAt: number;
  /** Monotonic: when upstream was asked last. */
  askedAt: number;
  refreshing: Promise<SuiteAnswer> | undefined;
  /** Digest of a newer Release whose indexes are not all here yet, and since when. */
  waitingFor: { readonly release: string; readonly since: number } | undefined;
  /** Monotonic; a failed refresh is not repeated before. */
  quietUntil: number;
  lastProblem: string;
}

const WANTED_FOR = 30 * 86_400;
/** A new Release whose indexes do not appear for this long is believed all the same. */
const STUCK_SECONDS = 15 * 60;
const MAX_SUITES = 5000;
const QUIET_MS = 4000;
/** How long a client waits for a new snapshot before it gets the one before. */
const PATIENCE_MS = 20_000;
const POLL_MS = 500;
/** How long a client waits until the indexes that could name its file were read. */
const SEEK_MS = 20_000;
/** For the sake of a file that nothing names, upstream is asked for a newer Release this often. */
const SEEK_AGAIN_MS = 10_000;

export class Suites {
  readonly #parts: SuitesParts;
  readonly #suites = new Map<string, Suite>();
  readonly #snapshots: Snapshots;
  readonly #releases: Releases;
  readonly #pins: Pins;
  readonly #named: Named;
  readonly #wantedNow = new Set<string>();
  #stopped = false;

  constructor(parts: SuitesParts) {
    this.#parts = parts;
    this.#snapshots = createSnapshots({ ...parts, inUse: () => this.#inUse() });
    this.#releases = createReleases({ ...parts, badSignature: parts.report.badSignature });
    this.#pins = createPins(parts.clock);
    this.#named = createNamed({
      ...parts,
      loaded: () => this.#snapshots.loaded(),
      fetchIndex: (snapshot, path, named) => this.fetchIndex(snapshot, path, named),
      readFailed: parts.report.harvestFailed,
    });
    this.reload();
  }

  #inUse(): Set<number> {
    const ids = [...this.#suites.values()].flatMap(({ current, newest }) => [current?.row.id, newest?.row.id]);
    return new Set(ids.filter((id) => id !== undefined));
  }

  /** Reads anew what another process may have changed. */
  reload(): void {
    const { store, backendOf } = this.#parts;
    this.#snapshots.reloadViews();
    for (const { snapshot, checkedAt } of store.currentSnapshots()) {
      const backend = backendOf(snapshot.backend);
      if (!backend) continue;
      const suite = this.#suite(backend, snapshot.root);
      if (suite.current?.row.id === snapshot.id) continue;
      suite.current = this.#snapshots.load(snapshot.id, backend);
      suite.newest = suite.current;
      suite.checkedAt = checkedAt;
    }
  }

  hasView(name: string): boolean {
    return this.#snapshots.hasView(name);
  }

  list(): {
    readonly backend: string;
    readonly root: string;
    readonly date: number;
    readonly checkedAt: number;
    readonly signed: boolean;
    readonly problem: string;
  }[] {
    return [...this.#suites.values()]
      .filter((suite) => suite.current)
      .map((suite) => ({
        backend: suite.backend.name,
        root: suite.root,
        date: suite.current!.release.date,
        checkedAt: suite.checkedAt,
        signed: suite.current!.row.signed,
        problem: suite.lastProblem,
      }));
  }

  /** The snapshot to hand out for `root`, asking upstream when it is time. */
  async forRelease(backend: Backend, root: string, client: Client, view: string | undefined): Promise<SuiteAnswer> {
    if (view !== undefined) return this.#frozen(backend, root, view);
    const suite = this.#suite(backend, root);
    const answer = await this.#fresh(suite);
    if (answer.kind === 'snapshot') this.#pins.set(client, suiteKey(backend.name, root), answer.snapshot.row.id);
    return answer;
  }

  #frozen(backend: Backend, root: string, view: string): SuiteAnswer {
    const id = this.#snapshots.inView(view, suiteKey(backend.name, root));
    const snapshot = id === undefined ? undefined : this.#snapshots.load(id, backend);
    if (!snapshot) return { kind: 'absent' };
    return { kind: 'snapshot', snapshot, fresh: true, why: `frozen as '${view}'`, checkedAt: snapshot.row.madeAt };
  }

  async #fresh(suite: Suite): Promise<SuiteAnswer> {
    const { now, clock, offline } = this.#parts;
    const have = (why: string, fresh: boolean): SuiteAnswer => ({
      kind: 'snapshot',
      snapshot: suite.current!,
      fresh,
      why,
      checkedAt: suite.checkedAt,
    });
    if (suite.current) {
      if (offline()) return have('offline: the newest snapshot that is here', true);
      if (now() - suite.checkedAt < suite.backend.maxAge) return have('checked moments ago', true);
      if (!suite.refreshing && clock() < suite.quietUntil) return have(suite.lastProblem, false);
    } else if (offline()) {
      return { kind: 'failed', code: 'offline', reason: 'the proxy is offline and this suite is not in the cache' };
    } else if (!suite.refreshing && clock() < suite.quietUntil && suite.lastProblem !== '') {
      return { kind: 'failed', code: 'upstream-unreachable', reason: suite.lastProblem };
    }
    const refreshing = this.#startRefresh(suite);
    if (!suite.current) return refreshing;
    let answer: SuiteAnswer | undefined;
    await atMost(
      PATIENCE_MS,
      refreshing.then((found) => {
        answer = found;
      }),
    );
    return answer ?? have('a newer snapshot is being fetched', false);
  }

  #startRefresh(suite: Suite): Promise<SuiteAnswer> {
    suite.refreshing ??= this.#refresh(suite).finally(() => {
      suite.refreshing = undefined;
    });
    return suite.refreshing;
  }

  async #refresh(suite: Suite): Promise<SuiteAnswer> {
    const { clock, publishWaitMs } = this.#parts;
    const until = clock() + publishWaitMs;
    for (;;) {
      const patient = clock() < until;
      const answer = await this.#askMirrors(suite, patient);
      // with nothing older to give meanwhile, the client waits for upstream to finish; at last it gets what there is
      if (answer.kind !== 'failed' || answer.code !== 'publishing' || this.#stopped || !patient) return answer;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** @param staged false: the first snapshot of a suite is taken although its indexes do not fit */
  async #askMirrors(suite: Suite, staged: boolean): Promise<SuiteAnswer> {
    const { backend, root } = suite;
    const { now, clock, store, report } = this.#parts;
    suite.askedAt = clock();
    let absent = 0;
    let agreed: 'new' | 'same' | undefined;
    let failure: { code: string; reason: string } | undefined;
    for (const mirror of backend.mirrors) {
      const found = await this.#releases.newest(backend, root, mirror, suite.current);
      if (found.kind === 'absent') {
        absent += 1;
        continue;
      }
      if (found.kind === 'failed') {
        failure = found;
        continue;
      }
      if (found.kind === 'same') {
        agreed = 'same';
        suite.newest = suite.current;
        break;
      }
      if (suite.current && found.release.date < suite.current.release.date) {
        report.staleMirror(mirror);
        failure = {
          code: 'mirror-stale',
          reason: `the mirror is behind: its Release is older than the one that is here`,
        };
        continue;
      }
      const snapshot = this.#snapshots.keep(backend, root, mirror, found);
      suite.newest = snapshot;
      const trouble = suite.current || staged ? await this.#stage(suite, snapshot, mirror) : undefined;
      if (trouble !== undefined) {
        report.publishing(root, trouble);
        failure = { code: 'publishing', reason: `upstream is publishing: ${trouble}` };
        continue;
      }
      suite.current = snapshot;
      suite.waitingFor = undefined;
      agreed = 'new';
      store.setCurrent(backend.name, root, snapshot.row.id, now());
      break;
    }
    if (agreed) {
      suite.checkedAt = now();
      suite.lastProblem = '';
      this.#quietly(() => store.setCurrent(backend.name, root, suite.current!.row.id, suite.checkedAt));
      return {
        kind: 'snapshot',
        snapshot: suite.current!,
        fresh: true,
        why: 'checked with upstream',
        asked: agreed,
        checkedAt: suite.checkedAt,
      };
    }
    if (absent > 0 && failure === undefined) return { kind: 'absent' };
    suite.quietUntil = clock() + QUIET_MS;
    suite.lastProblem = failure?.reason ?? 'upstream does not answer';
    if (!suite.current)
      return { kind: 'failed', code: failure?.code ?? 'upstream-unreachable', reason: suite.lastProblem };
    return {
      kind: 'snapshot',
      snapshot: suite.current,
      fresh: false,
      why: suite.lastProblem,
      checkedAt: suite.checkedAt,
    };
  }

  #quietly(body: () => void): void {
    try {
      body();
    } catch {
      // a database that cannot be written is told of where bytes are stored
    }
  }

  snapshotOf(id: number, backend: Backend): Snapshot | undefined {
    return this.#snapshots.load(id, backend);
  }

  /** Brings the indexes that clients use; undefined when all are here, else why not. */
  async #stage(suite: Suite, snapshot: Snapshot, mirror: string): Promise<string | undefined> {
    const { store, now } = this.#parts;
    const first = suite.current === undefined;
    // by-hash names stay when the next Release comes: whatever a first client asks for will be there
    if (first && snapshot.release.byHash) return undefined;
    const wanted = first ? likelyIndexes(snapshot) : store.wanted(suite.backend.name, suite.root, now() - WANTED_FOR);
    for (const path of wanted) {
      const named = snapshot.release.files.get(path);
      if (!named || store.object(named.sha256)) continue;
      const outcome = await this.fetchIndex(snapshot, path, named, mirror).transfer.done;
      if (outcome.kind === 'stored') continue;
      if (first && !(outcome.kind === 'failed' && outcome.code === 'body-bad')) continue; // nobody asked for it yet
      if (this.#isStuck(suite, snapshot)) continue;
      return `'${path}' is not there yet${outcome.kind === 'failed' ? ` (${outcome.reason})` : ''}`;
    }
    return undefined;
  }

  #isStuck(suite: Suite, snapshot: Snapshot): boolean {
    const now = this.#parts.now();
    const release = snapshot.row.inRelease ?? snapshot.row.release;
    if (suite.waitingFor?.release !== release) suite.waitingFor = { release, since: now };
    return now - suite.waitingFor.since > STUCK_SECONDS;
  }

  /** Starts or joins the fetch of an index in the version that the snapshot names. */
  fetchIndex(snapshot: Snapshot, path: string, named: NamedFile, first?: string) {
    const { backend } = snapshot;
    const mirrors =
      first === undefined ? backend.mirrors : [first, ...backend.mirrors.filter((mirror) => mirror !== first)];
    const full = snapshot.row.root === '' ? path : `${snapshot.row.root}/${path}`;
    const folder = full.slice(0, full.lastIndexOf('/') + 1);
    const sources: Source[] = mirrors.flatMap((mirror) => {
      const plain = { url: addressAt(mirror, { path: full, query: '' }), trusted: backend.trusted };
      const byHash = {
        ...plain,
        url: addressAt(mirror, { path: `${folder}by-hash/SHA256/${named.sha256}`, query: '' }),
      };
      return snapshot.release.byHash ? [byHash, plain] : [plain];
    });
    return this.#parts.flights.fetch({
      key: undefined,
      sources,
      expected: { size: named.size, digests: [{ algorithm: 'sha256', hex: named.sha256 }] },
      verified: snapshot.row.signed ? 2 : 1,
    });
  }

  /**
   * What a path below a known suite must be for this client: of the snapshot that it was given, else of the current one.
   * Undefined when no Release names it.
   */
  indexFor(location: Location, client: Client, view: string | undefined): IndexOfSnapshot | undefined {
    for (const root of suiteRoots(location.path)) {
      const key = suiteKey(location.backend.name, root);
      const suite = this.#suites.get(key);
      const id = view === undefined ? this.#pins.get(client, key) : this.#snapshots.inView(view, key);
      const snapshot =
        (id === undefined ? undefined : this.#snapshots.load(id, location.backend)) ??
        (view === undefined ? suite?.current : undefined);
      if (!snapshot) continue;
      const path = root === '' ? location.path : location.path.slice(root.length + 1);
      const named = snapshot.release.files.get(path);
      return { snapshot, path, named };
    }
    return undefined;
  }

  byDigest(backend: Backend, folder: string, sha256: string): ReturnType<Snapshots['byDigest']> {
    return this.#snapshots.byDigest(backend, folder, sha256);
  }

  /** Remembers that clients use this index, so that the next snapshot waits for it, and reads what it names. */
  used(snapshot: Snapshot, path: string, named: NamedFile): void {
    const { store, now } = this.#parts;
    const key = `${suiteKey(snapshot.backend.name, snapshot.row.root)}\n${path}`;
    if (!this.#wantedNow.has(key)) {
      if (this.#wantedNow.size > 10_000) this.#wantedNow.clear();
      this.#wantedNow.add(key);
      this.#quietly(() => store.want(snapshot.backend.name, snapshot.row.root, path, now()));
    }
    if (namesFiles(path) && !snapshot.facts.has(named.sha256)) void this.#named.read(snapshot, path, named.sha256);
  }

  /** What signed indexes say that a file of the archive must be; several when snapshots disagree, the newest first. */
  expectedFor(location: Location, view: string | undefined): Promise<NamedBy[]> {
    return this.#named.find(location, view === undefined ? undefined : this.#snapshots.viewIds(view));
  }

  /**
   * The same for a file that nothing here names: after asking upstream for newer Releases of the suites that could, and reading
   * the indexes of theirs that could. Bounded in time: what was under way goes on, and the next one who asks is better off.
   */
  async seekNamed(location: Location): Promise<NamedBy[]> {
    const { offline, clock } = this.#parts;
    if (offline()) return [];
    const since = clock() - Math.min(location.backend.maxAge * 1000, SEEK_AGAIN_MS);
    const suites = this.#suitesThatMayName(location);
    await atMost(
      SEEK_MS,
      Promise.all(suites.map((suite) => this.#upToDate(suite, since))).then(() => {
        const snapshots = suites.flatMap(({ newest, current }) => (newest === current ? [newest] : [newest, current]));
        return this.#named.seek(
          location,
          snapshots.filter((one) => one !== undefined),
        );
      }),
    );
    return this.#named.find(location, undefined);
  }

  #suitesThatMayName({ backend, path }: Location): Suite[] {
    const known = [...this.#suites.values()].filter((suite) => suite.backend.name === backend.name && suite.newest);
    return known.filter((suite) => mayBeNamedFrom(path, suite.root));
  }

  /** Upstream was asked for the suite after `since` (monotonic), unless it does not answer these seconds. */
  async #upToDate(suite: Suite, since: number): Promise<void> {
    if (suite.refreshing && suite.askedAt < since) await suite.refreshing;
    if (suite.askedAt >= since) {
      await suite.refreshing;
      return;
    }
    const held = suite.newest !== suite.current; // it answers, but is publishing
    if (!held && this.#parts.clock() < suite.quietUntil) return;
    await this.#startRefresh(suite);
  }

  /** False: upstream has another Release by now, so the indexes of this one will not come back. */
  async isStillUpstream(snapshot: Snapshot): Promise<boolean> {
    const suite = this.#suite(snapshot.backend, snapshot.row.root);
    await atMost(SEEK_MS, this.#upToDate(suite, this.#parts.clock()));
    return suite.newest?.row.id === snapshot.row.id;
  }

  /** Release.gpg for a snapshot that came as InRelease; undefined when upstream's does not sign that very text. */
  async fetchSignature(snapshot: Snapshot): Promise<string | undefined> {
    const sha256 = await this.#releases.signatureFor(snapshot);
    if (sha256 === undefined) return undefined;
    const signed = this.#snapshots.withSignature(snapshot, sha256);
    const suite = this.#suite(snapshot.backend, snapshot.row.root);
    if (suite.current?.row.id === snapshot.row.id) suite.current = signed;
    if (suite.newest?.row.id === snapshot.row.id) suite.newest = signed;
    return sha256;
  }

  /** Makes `names` the frozen view `name` of the suites as they are. Returns what it holds. */
  freeze(name: string): { backend: string; root: string; date: number }[] {
    const { store, now } = this.#parts;
    const held = store.currentSnapshots().map(({ snapshot }) => snapshot);
    store.freeze(
      name,
      held.map((snapshot) => snapshot.id),
      now(),
    );
    this.reload();
    return held.map(({ backend, root, date }) => ({ backend, root, date }));
  }

  knows(backend: Backend, root: string): boolean {
    return this.#suites.get(suiteKey(backend.name, root))?.current !== undefined;
  }

  #suite(backend: Backend, root: string): Suite {
    const key = suiteKey(backend.name, root);
    let suite = this.#suites.get(key);
    if (!suite) {
      if (this.#suites.size > MAX_SUITES) this.#forgetEmpty();
      suite = {
        backend,
        root,
        current: undefined,
        newest: undefined,
        askedAt: Number.NEGATIVE_INFINITY,
        checkedAt: 0,
        refreshing: undefined,
        waitingFor: undefined,
        quietUntil: 0,
        lastProblem: '',
      };
      this.#suites.set(key, suite);
    }
    return suite;
  }

  /** Clients may ask for suites that do not exist: such names are not kept for ever. */
  #forgetEmpty(): void {
    for (const [key, suite] of this.#suites) if (!suite.current && !suite.refreshing) this.#suites.delete(key);
  }

  /** Ends waiting for upstream. Settles when nothing is being asked or read. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.allSettled([...this.#suites.values()].map((suite) => suite.refreshing));
    await this.settled();
  }

  /** Settles when no index is being read. */
  settled(): Promise<void> {
    return this.#named.settled();
  }
}

export interface IndexOfSnapshot {
  readonly snapshot: Snapshot;
  /** Relative to the Release file. */
  readonly path: string;
  /** Undefined: the Release file does not name it. */
  readonly named: NamedFile | undefined;
}
