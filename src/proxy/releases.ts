/**
 * Bringing a Release file from one mirror, in whichever form it has, and judging its signature.
 *
 * Secret: InRelease first, Release with Release.gpg where there is none (apt-secure(8)); that a mirror which has what is here
 * already is not read again; and that a file with a bad signature is not kept.
 */
import { readFileSync } from 'node:fs';
import { BuildkitError } from '../core/errors.ts';
import type { KeyData } from '../deb/openpgp.ts';
import { addressAt, type Backend } from './backends.ts';
import type { Blobs } from './blobs.ts';
import type { Flights } from './flights.ts';
import type { Validators } from './heads.ts';
import { type Release, readDetached, readInRelease } from './release.ts';
import type { Snapshot } from './snapshots.ts';
import type { Store } from './store.ts';
import type { Outcome } from './transfer.ts';

type Stored = Extract<Outcome, { kind: 'stored' }>;

export interface NewRelease {
  readonly kind: 'new';
  readonly release: Release;
  readonly inRelease: Stored | undefined;
  readonly plain: Stored | undefined;
  readonly signature: Stored | undefined;
}

export type FoundRelease =
  | NewRelease
  | { readonly kind: 'same' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'failed'; readonly code: string; readonly reason: string };

export interface Releases {
  /** What `mirror` has for a suite whose newest snapshot here is `current`. */
  newest(backend: Backend, root: string, mirror: string, current: Snapshot | undefined): Promise<FoundRelease>;
  /** The digest of a Release.gpg that signs the very text of a snapshot that came as InRelease. */
  signatureFor(snapshot: Snapshot): Promise<string | undefined>;
}

const LARGEST = 32 * 1024 * 1024;

export function createReleases(parts: {
  readonly store: Store;
  readonly blobs: Blobs;
  readonly flights: Flights;
  readonly keyrings: readonly KeyData[];
  /** Seconds since the epoch. */
  readonly now: () => number;
  readonly badSignature: (url: string, reason: string) => void;
}): Releases {
  const { store, blobs, flights, keyrings, now } = parts;

  async function fetch(
    backend: Backend,
    root: string,
    mirror: string,
    name: string,
    validators?: Validators,
  ): Promise<Outcome> {
    const path = root === '' ? name : `${root}/${name}`;
    const { transfer } = flights.fetch({
      key: undefined,
      flightKey: `release:${mirror}/${path}`,
      sources: [{ url: addressAt(mirror, { path, query: '' }), trusted: backend.trusted }],
      expected: { digests: [] },
      verified: 0,
      validators,
      maxBytes: LARGEST,
      headers: { 'cache-control': 'max-age=0' },
    });
    const outcome = await transfer.done;
    if (outcome.kind === 'stored' && outcome.mtimeMs === undefined) {
      return { kind: 'failed', code: 'disk', reason: 'the Release file cannot be kept on disk' };
    }
    return outcome;
  }

  function trustOf(backend: Backend, root: string, mirror: string, name: string) {
    return {
      keyrings,
      rule: backend.signatures,
      now: new Date(now() * 1000),
      file: `${mirror}/${root}/${name}`,
    };
  }

  async function judge(
    { backend, root, mirror, current }: Asked,
    file: Stored,
    signature: Stored | 'none' | undefined,
  ): Promise<FoundRelease> {
    const isInRelease = signature === undefined;
    if (current && isInRelease && current.row.inRelease === file.sha256) return { kind: 'same' };
    if (current && !isInRelease && current.row.inRelease === undefined && current.row.release === file.sha256)
      return { kind: 'same' };
    const trust = trustOf(backend, root, mirror, isInRelease ? 'InRelease' : 'Release');
    try {
      const bytes = readFileSync(blobs.pathOf(file.sha256));
      const detached = typeof signature === 'object' ? readFileSync(blobs.pathOf(signature.sha256)) : undefined;
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
      parts.badSignature(trust.file, error.message);
      store.dropObject(file.sha256);
      blobs.remove(file.sha256);
      return { kind: 'failed', code: error.code, reason: `${error.message} (${mirror})` };
    }
  }

  return {
    async newest(backend, root, mirror, current) {
      const asked = { backend, root, mirror, current };
      const row = current?.row;
      const sameMirror = row?.source.startsWith(`${mirror}/`);
      const validators =
        row?.inRelease !== undefined && sameMirror ? { etag: row.etag, lastModified: row.lastModified } : undefined;
      const hasValidators = validators?.etag !== undefined || validators?.lastModified !== undefined;
      const inRelease = await fetch(backend, root, mirror, 'InRelease', hasValidators ? validators : undefined);
      if (inRelease.kind === 'not-modified') return { kind: 'same' };
      if (inRelease.kind === 'stored') return judge(asked, inRelease, undefined);
      if (inRelease.kind === 'failed') return inRelease;
      const release = await fetch(backend, root, mirror, 'Release');
      if (release.kind !== 'stored') return release.kind === 'failed' ? release : { kind: 'absent' };
      const signature = await fetch(backend, root, mirror, 'Release.gpg');
      if (signature.kind === 'failed') return signature;
      return judge(asked, release, signature.kind === 'stored' ? signature : 'none');
    },
    async signatureFor({ row, backend, release }) {
      for (const mirror of backend.mirrors) {
        const found = await fetch(backend, row.root, mirror, 'Release.gpg');
        if (found.kind !== 'stored') continue;
        const trust = trustOf(backend, row.root, mirror, 'Release.gpg');
        try {
          await readDetached(Buffer.from(release.text), readFileSync(blobs.pathOf(found.sha256)), trust);
        } catch (error) {
          if (!(error instanceof BuildkitError)) throw error;
          continue; // of another generation: upstream is publishing
        }
        return found.sha256;
      }
      return undefined;
    },
  };
}

interface Asked {
  readonly backend: Backend;
  readonly root: string;
  readonly mirror: string;
  readonly current: Snapshot | undefined;
}
