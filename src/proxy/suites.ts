/**
 * Snapshots of suites: a Release file and the indexes it names, handed out together or not at all.
 *
 * Secret: how old and new are kept apart. A new InRelease becomes current only when it is signed as asked, not older than the one
 * before (a mirror that lags behind is left alone), and when every index that clients have used lately is here in the version that
 * it names. Until then the old one is served with its own indexes. Whoever was given a snapshot keeps getting that snapshot's
 * indexes, on its connection and from its address, for a while. (apt-secure(8); RepositoryFormat: Acquire-By-Hash.)
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { RunContext } from '../core/context.ts';
import { BuildkitError } from '../core/errors.ts';
import type { KeyData } from '../deb/openpgp.ts';
import { addressAt, type Backend, type Location } from './backends.ts';
import type { Blobs } from './blobs.ts';
import { type Facts, harvest } from './facts.ts';
import type { Flights } from './flights.ts';
import { archiveBase, namesFiles, suiteRoots } from './policy.ts';
import { type NamedFile, parseRelease, type Release, readDetached, readInRelease } from './release.ts';
import type { Store, StoredSnapshot } from './store.ts';
import type { Outcome, Source } from './transfer.ts';

/** Who asks: indexes are handed out to match what was handed out before on the same connection, or to the same address. */
export interface Client {
  /** The connection. */
  readonly socket: object;
  readonly address: string;
}

export interface Snapshot {
  readonly row: StoredSnapshot;
  readonly backend: Backend;
  readonly release: Release;
  /** Its indexes whose facts are here. */
  readonly facts: Set<string>;
}

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
  readonly report: SuiteReport;
}

interface Suite {
  readonly backend: Backend;
  readonly root: string;
  current: Snapshot | undefined;
  checkedAt: number;
  refreshing: Promise<SuiteAnswer> | undefined;
  /** Digest of a newer Release whose indexes are not all here yet, and since when. */
  waitingFor: { readonly release: string; readonly since: number } | undefined;
  /** Monotonic; a failed refresh is not repeated before. */
  quietUntil: number;
  lastProblem: string;
}

const RELEASE_LIMIT = 32 * 1024 * 1024;
const WANTED_FOR = 30 * 86_400;
const PIN_MS = 15 * 60_000;
const PINNED_ADDRESSES = 10_000;
/** A new Release whose indexes do not appear for this long is believed all the same. */
const STUCK_SECONDS = 15 * 60;
const MAX_SUITES = 5000;
const QUIET_MS = 4000;
const HARVEST_WAIT_MS = 15_000;
/** How long a client waits for a new snapshot before it gets the one before. */
const PATIENCE_MS = 20_000;

export class Suites {
  readonly #parts: SuitesParts;
  readonly #suites = new Map<string, Suite>();
  readonly #loaded = new Map<number, Snapshot>();
  readonly #bySocket = new WeakMap<object, Map<string, number>>();
  readonly #byAddress = new Map<string, { readonly id: number; readonly until: number }>();
  readonly #views = new Map<string, Map<string, number>>();
  readonly #harvests = new Map<string, Promise<void>>();
  #harvestChain: Promise<void> = Promise.resolve();
  readonly #wantedNow = new Set<string>();

  constructor(parts: SuitesParts) {
    this.#parts = parts;
    this.reload();
  }

  /** Reads anew what another process may have changed. */
  reload(): void {
    const { store, backendOf } = this.#parts;
    this.#views.clear();
    for (const { name, snapshot } of store.frozen()) {
      const view = this.#views.get(name) ?? new Map<string, number>();
      view.set(rootKey(snapshot.backend, snapshot.root), snapshot.id);
      this.#views.set(name, view);
    }
    for (const { snapshot, checkedAt } of store.currentSnapshots()) {
      const backend = backendOf(snapshot.backend);
      if (!backend) continue;
      const suite = this.#suite(backend, snapshot.root);
      if (suite.current?.row.id === snapshot.id) continue;
      suite.current = this.#load(snapshot.id, backend);
      suite.checkedAt = checkedAt;
    }
  }

  hasView(name: string): boolean {
    return this.#views.has(name);
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
    if (answer.kind === 'snapshot') this.#pin(suite, answer.snapshot, client);
    return answer;
  }

  #frozen(backend: Backend, root: string, view: string): SuiteAnswer {
    const id = this.#views.get(view)?.get(rootKey(backend.name, root));
    const snapshot = id === undefined ? undefined : this.#load(id, backend);
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
    suite.refreshing ??= this.#refresh(suite).finally(() => {
      suite.refreshing = undefined;
    });
    const { current } = suite;
    if (!current) return suite.refreshing;
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<SuiteAnswer>((resolve) => {
      timer = setTimeout(() => resolve(have('a newer snapshot is being fetched', false)), PATIENCE_MS);
    });
    return Promise.race([suite.refreshing, patience]).finally(() => clearTimeout(timer));
  }

  async #refresh(suite: Suite): Promise<SuiteAnswer> {
    const { backend, root } = suite;
    const { now, clock, store, report } = this.#parts;
    let absent = 0;
    let agreed: 'new' | 'same' | undefined;
    let failure: { code: string; reason: string } | undefined;
    for (const mirror of backend.mirrors) {
      const found = await this.#fetchRelease(suite, mirror);
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
      const snapshot = this.#keep(suite, mirror, found);
      const trouble = await this.#stage(suite, snapshot, mirror);
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

  async #fetchRelease(suite: Suite, mirror: string): Promise<FoundRelease> {
    const row = suite.current?.row;
    const sameMirror = row?.source.startsWith(`${mirror}/`);
    const validators =
      row?.inRelease !== undefined && sameMirror ? { etag: row.etag, lastModified: row.lastModified } : undefined;
    const hasValidators = validators?.etag !== undefined || validators?.lastModified !== undefined;
    const inRelease = await this.#small(suite, mirror, 'InRelease', hasValidators ? validators : undefined);
    if (inRelease.kind === 'not-modified') return { kind: 'same' };
    if (inRelease.kind === 'stored') return this.#judge(suite, mirror, inRelease, undefined);
    if (inRelease.kind === 'failed') return inRelease;
    const release = await this.#small(suite, mirror, 'Release', undefined);
    if (release.kind !== 'stored') return release.kind === 'failed' ? release : { kind: 'absent' };
    const signature = await this.#small(suite, mirror, 'Release.gpg', undefined);
    if (signature.kind === 'failed') return signature;
    return this.#judge(suite, mirror, release, signature.kind === 'stored' ? signature : 'none');
  }

  async #judge(
    suite: Suite,
    mirror: string,
    file: Stored,
    signature: Stored | 'none' | undefined,
  ): Promise<FoundRelease> {
    const { current, backend, root } = suite;
    const isInRelease = signature === undefined;
    if (current && isInRelease && current.row.inRelease === file.sha256) return { kind: 'same' };
    if (current && !isInRelease && current.row.inRelease === undefined && current.row.release === file.sha256)
      return { kind: 'same' };
    const trust = {
      keyrings: this.#parts.keyrings,
      rule: backend.signatures,
      now: new Date(this.#parts.now() * 1000),
      file: `${mirror}/${root}/${isInRelease ? 'InRelease' : 'Release'}`,
    };
    try {
      const bytes = readFileSync(this.#parts.blobs.pathOf(file.sha256));
      const detached =
        typeof signature === 'object' ? readFileSync(this.#parts.blobs.pathOf(signature.sha256)) : undefined;
      const release = isInRelease ? await readInRelease(bytes, trust) : await readDetached(bytes, detached, trust);
      return {
        kind: 'new',
        release,
        inRelease: isInRelease ? file : undefined,
        plain: isInRelease ? undefined : file,
        signature: typeof signature === 'object' ? signature : undefined,
      };
    } catch (error) {
      if (!(error instanceof BuildkitError)) throw error;
      this.#parts.report.badSignature(trust.file, error.message);
      this.#parts.store.dropObject(file.sha256);
      this.#parts.blobs.remove(file.sha256);
      return { kind: 'failed', code: error.code, reason: `${error.message} (${mirror})` };
    }
  }

  async #small(
    suite: Suite,
    mirror: string,
    name: string,
    validators: { etag: string | undefined; lastModified: number | undefined } | undefined,
  ): Promise<Outcome> {
    const path = suite.root === '' ? name : `${suite.root}/${name}`;
    const { transfer } = this.#parts.flights.fetch({
      key: undefined,
      flightKey: `release:${mirror}/${path}`,
      sources: [{ url: addressAt(mirror, { path, query: '' }), trusted: suite.backend.trusted }],
      expected: { digests: [] },
      verified: 0,
      validators,
      maxBytes: RELEASE_LIMIT,
      headers: { 'cache-control': 'max-age=0' },
    });
    const outcome = await transfer.done;
    if (outcome.kind === 'stored' && outcome.mtimeMs === undefined) {
      return { kind: 'failed', code: 'disk', reason: 'the Release file cannot be kept on disk' };
    }
    return outcome;
  }

  #keep(suite: Suite, mirror: string, found: Extract<FoundRelease, { kind: 'new' }>): Snapshot {
    const { store, now } = this.#parts;
    const main = found.inRelease ?? found.plain!;
    const release = found.plain?.sha256 ?? this.#keepText(found.release.text);
    const row = {
      backend: suite.backend.name,
      root: suite.root,
      inRelease: found.inRelease?.sha256,
      release,
      signature: found.signature?.sha256,
      date: found.release.date,
      etag: main.etag,
      lastModified: main.lastModified,
      source: `${mirror}/`,
      signed: found.release.signers.length > 0,
      madeAt: now(),
    };
    const id = store.putSnapshot(row);
    const already = this.#loaded.get(id);
    if (already) return already;
    return this.#remember({ row: { ...row, id }, backend: suite.backend, release: found.release, facts: new Set() });
  }

  /** The signed text of an InRelease, as an object: what a client that asks for `Release` gets. */
  #keepText(text: string): string {
    const { blobs, store, now } = this.#parts;
    const bytes = Buffer.from(text);
    const sha256 = sha256Of(bytes);
    if (store.object(sha256) === undefined) store.putObject(sha256, bytes.length, blobs.write(bytes, sha256), now());
    return sha256;
  }

  #remember(snapshot: Snapshot): Snapshot {
    for (const [path, { sha256 }] of snapshot.release.files) {
      if (namesFiles(path) && this.#parts.facts.has(sha256)) snapshot.facts.add(sha256);
    }
    if (this.#loaded.size >= 128) {
      const inUse = new Set([...this.#suites.values()].map((suite) => suite.current?.row.id));
      for (const id of this.#loaded.keys()) {
        if (inUse.has(id)) continue;
        this.#loaded.delete(id);
        break;
      }
    }
    this.#loaded.set(snapshot.row.id, snapshot);
    return snapshot;
  }

  #load(id: number, backend: Backend): Snapshot | undefined {
    const already = this.#loaded.get(id);
    if (already) return already;
    const row = this.#parts.store.snapshot(id);
    if (!row) return undefined;
    try {
      const bytes = readFileSync(this.#parts.blobs.pathOf(row.release));
      if (sha256Of(bytes) !== row.release) return undefined;
      return this.#remember({
        row,
        backend,
        release: parseRelease(bytes.toString('utf8'), row.root, []),
        facts: new Set(),
      });
    } catch {
      return undefined; // its text is gone: asked upstream anew
    }
  }

  snapshotOf(id: number, backend: Backend): Snapshot | undefined {
    return this.#load(id, backend);
  }

  /** Brings the indexes that clients use; undefined when all are here, else why not. */
  async #stage(suite: Suite, snapshot: Snapshot, mirror: string): Promise<string | undefined> {
    const { store, now } = this.#parts;
    if (!suite.current) return undefined;
    const wanted = store.wanted(suite.backend.name, suite.root, now() - WANTED_FOR);
    for (const path of wanted) {
      const named = snapshot.release.files.get(path);
      if (!named || store.object(named.sha256)) continue;
      const outcome = await this.fetchIndex(snapshot, path, named, mirror).transfer.done;
      if (outcome.kind === 'stored') continue;
      const release = snapshot.row.inRelease ?? snapshot.row.release;
      if (suite.waitingFor?.release !== release) suite.waitingFor = { release, since: now() };
      if (now() - suite.waitingFor.since > STUCK_SECONDS) continue;
      return `'${path}' is not there yet${outcome.kind === 'failed' ? ` (${outcome.reason})` : ''}`;
    }
    return undefined;
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
      const key = rootKey(location.backend.name, root);
      const suite = this.#suites.get(key);
      const id = view === undefined ? this.#pinned(key, client) : this.#views.get(view)?.get(key);
      const snapshot =
        (id === undefined ? undefined : this.#load(id, location.backend)) ??
        (view === undefined ? suite?.current : undefined);
      if (!snapshot) continue;
      const path = root === '' ? location.path : location.path.slice(root.length + 1);
      const named = snapshot.release.files.get(path);
      return { snapshot, path, named };
    }
    return undefined;
  }

  /** The index with this SHA256 in any snapshot of the back end, for by-hash names. */
  byDigest(
    backend: Backend,
    folder: string,
    sha256: string,
  ): { snapshot: Snapshot; path: string; named: NamedFile } | undefined {
    for (const snapshot of this.#loaded.values()) {
      if (snapshot.backend.name !== backend.name || !`${folder}/`.startsWith(prefixOf(snapshot.row.root))) continue;
      const within = folder.slice(prefixOf(snapshot.row.root).length);
      for (const [path, named] of snapshot.release.files) {
        if (named.sha256 === sha256 && path.slice(0, Math.max(0, path.lastIndexOf('/'))) === within)
          return { snapshot, path, named };
      }
    }
    return undefined;
  }

  /** Remembers that clients use this index, so that the next snapshot waits for it, and reads what it names. */
  used(snapshot: Snapshot, path: string, named: NamedFile): void {
    const { store, now } = this.#parts;
    const key = `${rootKey(snapshot.backend.name, snapshot.row.root)}\n${path}`;
    if (!this.#wantedNow.has(key)) {
      if (this.#wantedNow.size > 10_000) this.#wantedNow.clear();
      this.#wantedNow.add(key);
      this.#quietly(() => store.want(snapshot.backend.name, snapshot.row.root, path, now()));
    }
    if (namesFiles(path) && !snapshot.facts.has(named.sha256)) void this.#harvest(snapshot, path, named.sha256);
  }

  #harvest(snapshot: Snapshot, path: string, sha256: string): Promise<void> {
    const { context, facts, blobs, store, report } = this.#parts;
    const under = this.#harvests.get(sha256);
    if (under) return under;
    const work = this.#harvestChain.then(async () => {
      try {
        if (!facts.has(sha256) && store.object(sha256)) {
          const base = archiveBase(snapshot.row.root);
          const folder = `${snapshot.row.root}/${path}`
            .slice(base === '' ? 0 : base.length + 1)
            .replace(/\/[^/]*$/, '');
          await harvest(context, facts, { path: blobs.pathOf(sha256), sha256 }, path, folder);
        }
        for (const one of this.#loaded.values()) {
          if (facts.has(sha256) && [...one.release.files.values()].some((file) => file.sha256 === sha256))
            one.facts.add(sha256);
        }
      } catch (error) {
        report.harvestFailed(path, error);
      } finally {
        this.#harvests.delete(sha256);
      }
    });
    this.#harvests.set(sha256, work);
    this.#harvestChain = work;
    return work;
  }

  /** What signed indexes say that a file of the archive must be; several when snapshots disagree, the newest first. */
  async expectedFor(
    location: Location,
    view: string | undefined,
  ): Promise<{ readonly named: NamedFile; readonly signed: boolean }[]> {
    if (this.#harvests.size > 0) {
      const before = this.#lookUp(location, view);
      if (before.length > 0) return before;
      await Promise.race([
        Promise.allSettled([...this.#harvests.values()]),
        new Promise((resolve) => setTimeout(resolve, HARVEST_WAIT_MS).unref()),
      ]);
    }
    return this.#lookUp(location, view);
  }

  #lookUp(location: Location, view: string | undefined): { named: NamedFile; signed: boolean }[] {
    const found = new Map<string, { named: NamedFile; signed: boolean; date: number }>();
    const ids = view === undefined ? undefined : new Set(this.#views.get(view)?.values());
    for (const snapshot of this.#loaded.values()) {
      if (snapshot.backend.name !== location.backend.name || (ids && !ids.has(snapshot.row.id))) continue;
      for (const path of namesWithin(location.path, snapshot.row.root)) {
        for (const index of snapshot.facts) {
          const named = this.#parts.facts.find(index, path);
          const before = named && found.get(named.sha256);
          if (!named || (before && before.date >= snapshot.release.date)) continue;
          found.set(named.sha256, {
            named,
            signed: snapshot.row.signed || before?.signed === true,
            date: snapshot.release.date,
          });
        }
      }
    }
    return [...found.values()].sort((a, b) => b.date - a.date);
  }

  /** Release.gpg for a snapshot that came as InRelease; undefined when upstream's does not sign that very text. */
  async fetchSignature(snapshot: Snapshot): Promise<string | undefined> {
    const { store, blobs, keyrings, now } = this.#parts;
    const { row, backend } = snapshot;
    const suite = this.#suite(backend, row.root);
    for (const mirror of backend.mirrors) {
      const found = await this.#small(suite, mirror, 'Release.gpg', undefined);
      if (found.kind !== 'stored') continue;
      const trust = {
        keyrings,
        rule: backend.signatures,
        now: new Date(now() * 1000),
        file: `${mirror}/${row.root}/Release.gpg`,
      };
      try {
        await readDetached(Buffer.from(snapshot.release.text), readFileSync(blobs.pathOf(found.sha256)), trust);
      } catch (error) {
        if (!(error instanceof BuildkitError)) throw error;
        continue; // of another generation: upstream is publishing
      }
      store.setSignature(row.id, found.sha256);
      this.#loaded.set(row.id, { ...snapshot, row: { ...row, signature: found.sha256 } });
      if (suite.current?.row.id === row.id) suite.current = this.#loaded.get(row.id);
      return found.sha256;
    }
    return undefined;
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

  #pin(suite: Suite, snapshot: Snapshot, client: Client): void {
    const key = rootKey(suite.backend.name, suite.root);
    const pins = this.#bySocket.get(client.socket) ?? new Map<string, number>();
    pins.set(key, snapshot.row.id);
    this.#bySocket.set(client.socket, pins);
    if (this.#byAddress.size > PINNED_ADDRESSES) this.#byAddress.clear();
    this.#byAddress.set(`${client.address}\n${key}`, { id: snapshot.row.id, until: this.#parts.clock() + PIN_MS });
  }

  #pinned(key: string, client: Client): number | undefined {
    const own = this.#bySocket.get(client.socket)?.get(key);
    if (own !== undefined) return own;
    const pin = this.#byAddress.get(`${client.address}\n${key}`);
    return pin && pin.until > this.#parts.clock() ? pin.id : undefined;
  }

  knows(backend: Backend, root: string): boolean {
    return this.#suites.get(rootKey(backend.name, root))?.current !== undefined;
  }

  #suite(backend: Backend, root: string): Suite {
    const key = rootKey(backend.name, root);
    let suite = this.#suites.get(key);
    if (!suite) {
      if (this.#suites.size > MAX_SUITES) this.#forgetEmpty();
      suite = {
        backend,
        root,
        current: undefined,
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

  /** Settles when no index is being read. */
  async settled(): Promise<void> {
    while (this.#harvests.size > 0) await Promise.allSettled([...this.#harvests.values()]);
  }
}

export interface IndexOfSnapshot {
  readonly snapshot: Snapshot;
  /** Relative to the Release file. */
  readonly path: string;
  /** Undefined: the Release file does not name it. */
  readonly named: NamedFile | undefined;
}

type Stored = Extract<Outcome, { kind: 'stored' }>;

type FoundRelease =
  | { readonly kind: 'same' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'failed'; readonly code: string; readonly reason: string }
  | {
      readonly kind: 'new';
      readonly release: Release;
      readonly inRelease: Stored | undefined;
      readonly plain: Stored | undefined;
      readonly signature: Stored | undefined;
    };

function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function rootKey(backend: string, root: string): string {
  return `${backend}\n${root}`;
}

function prefixOf(root: string): string {
  return root === '' ? '' : `${root}/`;
}

/** How the indexes of a suite may spell a path of the archive: from its base; in a flat archive from any folder above. */
function namesWithin(path: string, root: string): string[] {
  const base = archiveBase(root);
  const names: string[] = [];
  const flat = base === root;
  for (let at: string | undefined = base; at !== undefined; ) {
    if (at === '' || path.startsWith(`${at}/`)) names.push(at === '' ? path : path.slice(at.length + 1));
    if (!flat || at === '') break;
    at = at.includes('/') ? at.slice(0, at.lastIndexOf('/')) : '';
  }
  return names;
}
