/**
 * What may go: generations past their time, index objects that no kept generation lists, package files that nobody can ask for.
 *
 * Secret: how long published things live. A client may hold an InRelease for as long as `keepDays` after it was replaced, and
 * at least for `keepGenerations` further generations, and finds every file that it names. What is in a suite, published or
 * not, and what a pinned generation names, stays.
 */
import { lstatSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Generation } from './catalog.ts';
import { recoverPublish } from './generation.ts';
import { lockPublish, lockWrite, type PackageFacts, type RepoHandle } from './handle.ts';
import type { Layout } from './layout.ts';
import { objectFolders, objectNames } from './objects.ts';
import type { RepositorySettings } from './settings.ts';

export interface Garbage {
  /** Ids with their suites: 'bookworm 20261121T081200Z'. */
  readonly generations: readonly string[];
  /** Index files below by-hash/. */
  readonly objects: number;
  /** Package files that go. */
  readonly packages: readonly Pick<PackageFacts, 'name' | 'version' | 'architecture' | 'filename' | 'size'>[];
  /** Left over by something that was interrupted. */
  readonly leftovers: number;
  readonly bytes: number;
}

const DAY_SECONDS = 86_400;

/**
 * The generations that are past their time. A snapshot shows every suite as it was then, so that what a kept one shows of
 * another suite stays too. Pure.
 * @param generations of all suites, newest first
 * @param now seconds since the epoch
 */
export function expiredGenerations(
  generations: readonly Generation[],
  settings: Pick<RepositorySettings, 'keepDays' | 'keepGenerations'>,
  now: number,
): Generation[] {
  const bySuite = Map.groupBy(generations, (generation) => generation.suite);
  const kept = new Set<Generation>();
  for (const ofSuite of bySuite.values()) {
    for (const [index, generation] of ofSuite.entries()) {
      const replaced = ofSuite[index - 1]?.date; // when the next newer one came
      const isYoung = replaced === undefined || now - replaced <= settings.keepDays * DAY_SECONDS;
      if (generation.pinned || isYoung || index < settings.keepGenerations) kept.add(generation);
    }
  }
  for (const { id } of [...kept]) {
    for (const ofSuite of bySuite.values()) {
      const shown = ofSuite.find((generation) => generation.id <= id);
      if (shown) kept.add(shown);
    }
  }
  return generations.filter((generation) => !kept.has(generation));
}

/** Removes what nobody can ask for any more; with `dryRun` only says what that is. */
export async function collectGarbage(
  repo: RepoHandle,
  options: { readonly dryRun?: boolean | undefined } = {},
): Promise<Garbage> {
  using _publish = await lockPublish(repo);
  using _write = await lockWrite(repo);
  const { catalog, layout } = repo;
  await recoverPublish(layout, catalog);
  const all = catalog.generations();
  const expired = expiredGenerations(all, catalog.settings(), repo.context.now().getTime() / 1000);
  const kept = all.filter((generation) => !expired.includes(generation));
  const packages = catalog
    .unreferencedPackages(kept)
    .filter((item) => sizeOf(join(layout.public, item.filename)) !== undefined);
  const objects = await unlistedObjects(layout, kept);
  const leftovers = (await readdir(layout.incoming)).map((name) => join(layout.incoming, name));
  const beside = catalog.unsharedFiles(packages.map((item) => item.id));
  const files = [...objects, ...[...packages, ...beside].map((item) => join(layout.public, item.filename))];
  const bytes = files.reduce((sum, path) => sum + (sizeOf(path) ?? 0), 0);
  if (!options.dryRun) {
    await dropGenerations(repo, expired, kept);
    for (const path of [...files, ...leftovers]) await rm(path, { recursive: true, force: true });
  }
  return {
    generations: expired.map(({ suite, id }) => `${suite} ${id}`),
    objects: objects.length,
    packages: packages.map(({ name, version, architecture, filename, size }) => ({
      name,
      version,
      architecture,
      filename,
      size,
    })),
    leftovers: leftovers.length,
    bytes,
  };
}

/** Folders first: a crash in between leaves generations without files in the catalog, which the next run drops again. */
async function dropGenerations(
  repo: RepoHandle,
  expired: readonly Generation[],
  kept: readonly Generation[],
): Promise<void> {
  const snapshots = join(repo.layout.public, 'snapshots');
  const keptIds = new Set(kept.map((generation) => generation.id));
  for (const { suite, id } of expired) {
    const path = keptIds.has(id) ? join(snapshots, id, 'dists', suite) : join(snapshots, id);
    await rm(path, { recursive: true, force: true });
  }
  repo.catalog.transaction(() => {
    for (const { suite, id } of expired) repo.catalog.dropGeneration(suite, id);
  });
}

/** Index objects that no kept generation lists. The publish lock is held: none belongs to a publish under way. */
async function unlistedObjects(layout: Layout, kept: readonly Generation[]): Promise<string[]> {
  const listed = new Set(kept.flatMap((generation) => generation.files.flatMap(objectNames)));
  const unlisted: string[] = [];
  for (const folder of objectFolders(layout)) {
    const names = await readdir(folder);
    unlisted.push(...names.filter((name) => !listed.has(name)).map((name) => join(folder, name)));
  }
  return unlisted;
}

function sizeOf(path: string): number | undefined {
  return lstatSync(path, { throwIfNoEntry: false })?.size;
}
