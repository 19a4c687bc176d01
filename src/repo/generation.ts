/**
 * A generation: every index of a suite with its signed Release, made aside and switched to in one step.
 *
 * Secret: the order of writes that makes a crash harmless. Objects go to public/by-hash/ under their digest, the generation to
 * incoming/, from there by one rename to public/snapshots/ID/, and dists/SUITE is a link that one more rename turns to it. Until
 * that last rename every client sees the old generation, after it the new one, whole.
 */
import { randomBytes } from 'node:crypto';
import { link, mkdir, readlink, rename, rm, symlink } from 'node:fs/promises';
import { dirname, join, posix } from 'node:path';
import { errnoOf } from '../core/errors.ts';
import { explainWriteError, syncFolder, writeFileAtomic } from '../core/files.ts';
import type { Catalog, Generation } from './catalog.ts';
import { INDEX_FORMAT, type IndexFile } from './indexes.ts';
import type { Layout } from './layout.ts';
import { objectFolders, objectPath } from './objects.ts';
import type { SuiteSettings } from './settings.ts';

/** What a generation will hold, before it is dated and signed. */
export interface PlannedSuite {
  readonly suite: SuiteSettings;
  readonly change: number;
  readonly files: readonly IndexFile[];
  /** In the suite, each counted once. */
  readonly packages: number;
  /** Equal to that of the generation before: there is nothing new to publish. */
  readonly fingerprint: string;
}

/** Dates in seconds since the epoch. */
export function planDates(
  now: Date,
  latest: number | undefined,
  validDays: number,
): { date: number; validUntil: number | undefined } {
  // Date never stands still: it names the generation, and clients and caches compare it
  const date = Math.max(Math.floor(now.getTime() / 1000), (latest ?? -1) + 1);
  return { date, validUntil: validDays === 0 ? undefined : date + validDays * 86_400 };
}

/** Release in its three forms. */
export interface SignedRelease {
  readonly release: string;
  readonly inRelease: string;
  readonly releaseGpg: string;
}

export interface PlannedGeneration {
  readonly id: string;
  readonly date: number;
  readonly validUntil: number | undefined;
  readonly suites: readonly { readonly plan: PlannedSuite; readonly signed: SignedRelease }[];
  /** Suites that are not published anew, and the generation that each has now: they belong to the snapshot too. */
  readonly others: ReadonlyMap<string, string>;
}

/** Where dists/SUITE leads for a generation. */
function linkTarget(id: string, suite: string): string {
  return `../snapshots/${id}/dists/${suite}`;
}

/** Writes a generation and switches every suite in it. The caller holds the publish lock. */
export async function applyGeneration(layout: Layout, catalog: Catalog, generation: PlannedGeneration): Promise<void> {
  const aside = join(layout.incoming, `generation-${generation.id}`);
  await rm(aside, { recursive: true, force: true });
  try {
    await writeGeneration(layout, aside, generation);
  } catch (cause) {
    await rm(aside, { recursive: true, force: true });
    throw explainWriteError(cause, aside);
  }
  catalog.transaction(() => {
    for (const { plan } of generation.suites) catalog.proposeGeneration(generationRow(generation, plan));
  });
  const folder = join(layout.public, 'snapshots', generation.id);
  await rename(aside, folder);
  await syncFolder(dirname(folder));
  for (const { plan } of generation.suites) await switchSuite(layout, plan.suite, generation.id);
  catalog.transaction(() => {
    for (const { plan } of generation.suites) catalog.settleGeneration(plan.suite.name, generation.id);
  });
}

function generationRow(generation: PlannedGeneration, plan: PlannedSuite): Generation {
  return {
    id: generation.id,
    suite: plan.suite.name,
    change: plan.change,
    fingerprint: plan.fingerprint,
    format: INDEX_FORMAT,
    date: generation.date,
    validUntil: generation.validUntil,
    files: plan.files,
    pinned: false,
  };
}

async function writeGeneration(layout: Layout, aside: string, generation: PlannedGeneration): Promise<void> {
  await mkdir(join(aside, 'dists'), { recursive: true });
  await symlink('../../pool', join(aside, 'pool'));
  for (const [suite, id] of generation.others) await symlink(`../../${id}/dists/${suite}`, join(aside, 'dists', suite));
  for (const { plan, signed } of generation.suites) {
    const root = join(aside, 'dists', plan.suite.name);
    for (const folder of new Set(plan.files.map((file) => posix.dirname(file.path)))) {
      await mkdir(join(root, folder), { recursive: true });
      const up = '../'.repeat(folder.split('/').length + 4); // dists/SUITE below snapshots/ID
      await symlink(`${up}by-hash`, join(root, folder, 'by-hash'));
    }
    for (const file of plan.files) {
      if (!file.onlyByHash && !file.onlyListed) await link(objectPath(layout, file.sha256), join(root, file.path));
    }
    const mtime = generation.date;
    await writeFileAtomic(join(root, 'Release'), signed.release, { mode: 0o644, mtime });
    await writeFileAtomic(join(root, 'Release.gpg'), signed.releaseGpg, { mode: 0o644, mtime });
    await writeFileAtomic(join(root, 'InRelease'), signed.inRelease, { mode: 0o644, mtime });
  }
  for (const folder of objectFolders(layout)) await syncFolder(folder);
}

/** Turns dists/SUITE (and its alias) to a generation: the one step that clients see. */
async function switchSuite(layout: Layout, suite: SuiteSettings, id: string): Promise<void> {
  const dists = join(layout.public, 'dists');
  await turnLink(layout, join(dists, suite.name), linkTarget(id, suite.name));
  if (suite.alias !== undefined && suite.alias !== suite.name)
    await turnLink(layout, join(dists, suite.alias), suite.name);
  await syncFolder(dists);
}

async function turnLink(layout: Layout, path: string, target: string): Promise<void> {
  const temporary = join(layout.incoming, `link-${randomBytes(8).toString('hex')}`);
  await symlink(target, temporary);
  await rename(temporary, path);
}

/**
 * Brings the catalog in line with what a publish that was interrupted left behind: what clients see is what happened. The
 * caller holds the publish lock.
 */
export async function recoverPublish(layout: Layout, catalog: Catalog): Promise<void> {
  for (const { suite, id } of catalog.unsettledGenerations()) {
    if ((await readLink(join(layout.public, 'dists', suite))) === linkTarget(id, suite)) {
      catalog.settleGeneration(suite, id);
    } else {
      await rm(join(layout.public, 'snapshots', id, 'dists', suite), { recursive: true, force: true });
      catalog.dropGeneration(suite, id);
    }
  }
}

async function readLink(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
