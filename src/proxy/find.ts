/**
 * Finding: from a location to the file that is to be sent, here or on its way.
 *
 * Secret: the order in which it is decided what a file must be (a Release of a snapshot, a name that is a digest, an index that
 * a Release names, a digest that an index names, just an address), and whether it is here, under way or to be fetched.
 */

import type { Absent } from './absent.ts';
import { addressAt, type Location } from './backends.ts';
import type { Files, OpenFile } from './files.ts';
import type { Confirmed, Flights } from './flights.ts';
import type { NamedBy } from './named.ts';
import type { Client } from './pins.ts';
import { classify, contentType, type Digest, guessSuiteRoot } from './policy.ts';
import type { NamedFile } from './release.ts';
import type { Snapshot } from './snapshots.ts';
import type { Store, StoredUrl, Verified } from './store.ts';
import type { Suites } from './suites.ts';
import type { Expected, Source, Transfer } from './transfer.ts';

export interface FoundFile {
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
  | FoundTransfer
  | { readonly kind: 'none'; readonly status: number; readonly reason: string };

export interface FoundTransfer {
  readonly kind: 'transfer';
  readonly transfer: Transfer;
  readonly joined: boolean;
  readonly why: string;
  readonly immutable: boolean;
  readonly before: StoredUrl | undefined;
  /** It is an index by path of this snapshot: upstream may be about to have it. */
  readonly index?: { readonly snapshot: Snapshot; readonly named: NamedFile };
}

/** What a lookup asks for, once its address is known. */
export interface Ask {
  readonly key: string;
  readonly sources: readonly Source[];
  readonly contentType: string;
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

const UNVERIFIED = 'unverified: no signed index here names it';
const CHECKED = 'checked against a signed index';

export interface FinderParts {
  readonly store: Store;
  readonly files: Files;
  readonly flights: Flights;
  readonly suites: Suites;
  readonly absent: Absent;
  /** Refuses files that no signed index names. */
  readonly onlyVerified: boolean;
  readonly offline: () => boolean;
  /** Seconds since the epoch. */
  readonly now: () => number;
}

export class Finder {
  readonly #parts: FinderParts;

  constructor(parts: FinderParts) {
    this.#parts = parts;
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
    const expected = await this.#parts.suites.expectedFor(location, view);
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
    if (this.#parts.absent.has(location.key)) return absentAgain();
    const answer = await this.#parts.suites.forRelease(location.backend, root, client, view);
    if (answer.kind === 'absent') {
      this.#parts.absent.note(location.key);
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
    const opened = await this.#parts.files.open(sha256);
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
    if (snapshot.row.signature !== undefined || this.#parts.offline()) return snapshot.row.signature;
    return this.#parts.suites.fetchSignature(snapshot);
  }

  async #findByHash(location: Location, digest: Digest, folder: string): Promise<Found> {
    const sha256 = digest.algorithm === 'sha256' ? digest.hex : this.#parts.store.url(location.key)?.sha256;
    const file = sha256 === undefined ? undefined : await this.#parts.files.open(sha256);
    const known = sha256 === undefined ? undefined : this.#parts.suites.byDigest(location.backend, folder, sha256);
    if (known) this.#parts.suites.used(known.snapshot, known.path, known.named);
    if (file) return this.#hit(file, 'its name is its digest');
    if (this.#parts.offline()) return this.#offlineNone();
    if (known) {
      const { transfer, joined } = this.#parts.suites.fetchIndex(known.snapshot, known.path, known.named);
      this.#usedWhenStored(transfer, known);
      return { kind: 'transfer', transfer, joined, why: 'its name is its digest', immutable: true, before: undefined };
    }
    if (this.#parts.absent.has(location.key)) return absentAgain();
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
          this.#parts.suites.used(index.snapshot, index.path, index.named);
      })
      .catch(() => {});
  }

  async #findIndex(location: Location, client: Client, view: string | undefined): Promise<Found | undefined> {
    let index = this.#parts.suites.indexFor(location, client, view);
    const guess = guessSuiteRoot(location.path);
    if (!index && guess !== undefined && view === undefined && !this.#parts.suites.knows(location.backend, guess)) {
      await this.#parts.suites.forRelease(location.backend, guess, client, view);
      index = this.#parts.suites.indexFor(location, client, view);
    }
    if (!index?.named)
      return view === undefined || index
        ? undefined
        : { kind: 'none', status: 404, reason: `not in the frozen view '${view}'` };
    const { snapshot, path, named } = index;
    const why = `named by the ${snapshot.row.signed ? 'signed ' : ''}Release of ${new Date(snapshot.release.date * 1000).toISOString()}`;
    const file = await this.#parts.files.open(named.sha256);
    if (file) {
      this.#parts.suites.used(snapshot, path, named);
      // by path it is another object after the next Release: never a hot route
      return {
        kind: 'file',
        file,
        cache: 'HIT',
        why,
        fetchedAt: this.#parts.store.object(named.sha256)?.storedAt ?? this.#parts.now(),
        lastModified: undefined,
        immutable: false,
      };
    }
    if (this.#parts.offline()) return this.#offlineNone();
    if (this.#parts.absent.has(indexKey(location.key, named))) return absentAgain();
    const { transfer, joined } = this.#parts.suites.fetchIndex(snapshot, path, named);
    this.#usedWhenStored(transfer, { snapshot, path, named });
    return { kind: 'transfer', transfer, joined, why, immutable: false, before: undefined, index: { snapshot, named } };
  }

  async #findNamed(location: Location, expected: readonly NamedBy[]): Promise<Found> {
    for (const { named, signed } of expected) {
      const file = await this.#parts.files.open(named.sha256);
      if (file)
        return this.#hit(file, signed ? 'its digest is that of a signed index' : 'its digest is that of an index');
    }
    if (this.#parts.offline()) return this.#offlineNone();
    if (this.#parts.absent.has(location.key)) return absentAgain();
    const [{ signed }] = expected as [NamedBy];
    const { expected: first, verified } = expectationOf(expected)!;
    const why = signed ? CHECKED : 'checked against an index without a known signer';
    return this.#fetch(this.#ask(location), first, verified, why);
  }

  /** A package file that no index here names, nor one that upstream has now: served, but marked as such. */
  async #findUnnamed(location: Location): Promise<Found> {
    const named = await this.#parts.suites.seekNamed(location);
    if (named.length > 0) return this.#findNamed(location, named);
    const row = this.#parts.store.url(location.key);
    const file = row && (await this.#parts.files.open(row.sha256));
    if (this.#parts.onlyVerified && row?.verified !== 2) {
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
    if (this.#parts.offline()) return this.#offlineNone();
    if (this.#parts.absent.has(location.key)) return absentAgain();
    const { transfer, joined } = this.#parts.flights.fetch({
      ...this.#ask(location),
      expected: { digests: [] },
      verified: 0,
      confirm: async () => expectationOf(await this.#parts.suites.seekNamed(location)),
    });
    return { kind: 'transfer', transfer, joined, why: UNVERIFIED, immutable: false, before: undefined };
  }

  /** Something that may change and that no Release names: asked for again when it is older than `maxAge`. */
  async findChanging(ask: Ask, maxAge: number): Promise<Found> {
    const row = this.#parts.store.url(ask.key);
    const file = row && (await this.#parts.files.open(row.sha256));
    const here = (cache: string, why: string): Found => ({
      kind: 'file',
      file: file!,
      cache,
      why,
      fetchedAt: row!.fetchedAt,
      lastModified: row!.lastModified,
      immutable: false,
    });
    if (file && this.#parts.offline()) return here('HIT', 'offline');
    if (file && this.#parts.now() - row.checkedAt < maxAge) return here('HIT', 'checked moments ago');
    if (this.#parts.offline()) return this.#offlineNone();
    if (this.#parts.absent.has(ask.key)) return absentAgain();
    const validators = file ? { etag: row.etag, lastModified: row.lastModified } : undefined;
    const checkable = validators?.etag !== undefined || validators?.lastModified !== undefined;
    const { transfer, joined } = this.#parts.flights.fetch({
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
    const row = this.#parts.store.url(ask.key);
    const sha256 =
      expected.digests.find((digest) => digest.algorithm === 'sha256')?.hex ?? (row?.verified ? row.sha256 : undefined);
    const file = sha256 === undefined ? undefined : await this.#parts.files.open(sha256);
    if (file) return this.#hit(file, why);
    if (this.#parts.offline()) return this.#offlineNone();
    if (this.#parts.absent.has(ask.key)) return absentAgain();
    return this.#fetch(ask, expected, expected.digests.length > 0 ? 2 : 0, why);
  }

  #fetch(ask: Ask, expected: Expected, verified: Verified, why: string): Found {
    const { transfer, joined } = this.#parts.flights.fetch({
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
    const fetchedAt = this.#parts.store.object(file.sha256)?.storedAt ?? this.#parts.now();
    return { kind: 'file', file, cache: 'HIT', why, fetchedAt, lastModified, immutable: true };
  }

  #offlineNone(): Found {
    return { kind: 'none', status: 503, reason: 'the proxy is offline and this file is not in the cache' };
  }
}

/** Of an index as one Release names it. */
export function indexKey(key: string, { sha256 }: NamedFile): string {
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
export function whyOf(found: FoundTransfer, transfer: Transfer): string {
  return found.why === UNVERIFIED && transfer.expectedSha256 !== undefined ? CHECKED : found.why;
}

function absentAgain(): Found {
  return { kind: 'none', status: 404, reason: 'upstream had no such file moments ago' };
}
