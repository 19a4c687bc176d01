/**
 * Whether the folder of a repository is what its catalog says, and mending what can be mended.
 *
 * Secret: which damage can be undone. Links, index objects and generations are made from the catalog and can be made again; the
 * bytes of a package cannot, and are asked for.
 */
import { existsSync, lstatSync, readlinkSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Problem } from '../core/errors.ts';
import { digestFile } from '../core/files.ts';
import type { CatalogPackage, PackageFile } from './catalog.ts';
import { recoverPublish } from './generation.ts';
import { lockPublish, type RepoHandle } from './handle.ts';

export interface CheckReport {
  readonly problems: readonly Problem[];
  /** Publishing anew mends the rest. */
  readonly needsPublish: boolean;
}

/** Looks at every file that clients may ask for now. */
export async function checkRepo(
  repo: RepoHandle,
  options: { readonly repair?: boolean | undefined } = {},
): Promise<CheckReport> {
  using _ = await lockPublish(repo);
  await recoverPublish(repo.layout, repo.catalog);
  const pool = await checkPool(repo, options.repair ?? false);
  const published = await checkPublished(repo, options.repair ?? false);
  return { problems: [...pool, ...published], needsPublish: published.length > 0 };
}

/** Files with other bytes are put aside by `repair`: no client would take them, and `repo add` puts the right ones in their place. */
async function checkPool(repo: RepoHandle, repair: boolean): Promise<Problem[]> {
  const items = new Map<number, CatalogPackage>();
  for (const member of repo.catalog.members()) items.set(member.package.id, member.package);
  const problems: Problem[] = [];
  for (const item of items.values()) {
    for (const file of [item, ...repo.catalog.packageFiles(item.id)]) {
      repo.context.signal.throwIfAborted();
      const fault = await faultOf(repo, file);
      if (fault === undefined) continue;
      const path = join(repo.layout.public, file.filename);
      if (repair && existsSync(path)) await rename(path, join(repo.layout.incoming, `damaged-${file.sha256}`));
      problems.push({
        code: 'pool-file',
        message: `${file.filename} ${fault}`,
        subject: item.name,
        hint: `buildkit repo check --repair, then add ${item.name} ${item.version} again`,
      });
    }
  }
  return problems;
}

async function faultOf(repo: RepoHandle, file: PackageFile): Promise<string | undefined> {
  const path = join(repo.layout.public, file.filename);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found?.isFile()) return 'is not there';
  if (found.size !== file.size) return `has ${found.size} bytes instead of ${file.size}`;
  return (await digestFile(path, 'sha256')) === file.sha256 ? undefined : 'holds other bytes than it was added with';
}

/** Links and index objects of what clients see. Broken objects are removed by `repair`, so that a publish makes them anew. */
async function checkPublished(repo: RepoHandle, repair: boolean): Promise<Problem[]> {
  const { layout, catalog } = repo;
  const problems: Problem[] = [];
  const note = (code: string, message: string, subject: string) =>
    problems.push({ code, message, subject, hint: 'buildkit repo check --repair makes it anew' });
  for (const { name } of catalog.suites()) {
    const current = catalog.currentGeneration(name);
    if (!current) continue;
    const target = `../snapshots/${current.id}/dists/${name}`;
    if (linkOf(join(layout.public, 'dists', name)) !== target)
      note('suite-link', `dists/${name} does not lead to ${target}`, name);
    for (const file of current.files) {
      if (file.onlyListed) continue;
      const object = `by-hash/SHA256/${file.sha256}`;
      const fault = await faultOf(repo, { filename: object, size: file.size, sha256: file.sha256 });
      if (fault === undefined) continue;
      note('index-object', `${object} (${name} ${file.path}) ${fault}`, name);
      if (repair) await rm(join(layout.public, object), { force: true });
    }
  }
  return problems;
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined; // no link, or nothing: both are told
  }
}
