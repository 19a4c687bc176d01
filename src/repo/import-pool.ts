/**
 * Packages of a pool that no index describes, or whose books only aptly reads.
 *
 * Secret: how names are told where aptly keeps files by digest, and which section a file of a pool belongs to: Debian's layout is
 * `pool/SECTION/...`; where there is no such folder, the first section of ours.
 */
import { mkdir, readdir, readFile, symlink } from 'node:fs/promises';
import { basename, join, sep } from 'node:path';
import { BuildkitError, errnoOf, UserError } from '../core/errors.ts';
import { readDebs } from '../deb/archive.ts';
import { addPackages, type Refusal } from './add.ts';
import { admit } from './admit.ts';
import type { Member } from './catalog.ts';
import { type RepoHandle, scratchOf } from './handle.ts';
import type { ImportedPackage, ImportRequest, ImportResult } from './import.ts';
import type { ImportSource } from './import-source.ts';
import type { SuiteSettings } from './settings.ts';
import { readSource } from './source-package.ts';

const BATCH = 500;

type PoolSource = Extract<ImportSource, { kind: 'pool' }>;

/** Takes every package below a folder. Nobody vouches for them but whoever runs the command, as with `repo add`. */
export async function importPool(
  repo: RepoHandle,
  suite: SuiteSettings,
  source: PoolSource,
  request: ImportRequest,
): Promise<ImportResult> {
  const files = await packageFiles(source);
  if (files.length === 0) {
    throw new UserError('no-packages', `there is no package below '${source.folder}'`, {
      hint: 'name a folder with .deb files, a published repository, a root of aptly or a base of reprepro',
    });
  }
  const sectionOf = (path: string) => {
    const section = sectionThere(path.slice(source.folder.length));
    if (request.components && (section === undefined || !request.components.includes(section))) return undefined;
    return section !== undefined && suite.components.includes(section) ? section : suite.components[0]!;
  };
  const sections = Map.groupBy(files, sectionOf);
  sections.delete(undefined);
  const added: ImportedPackage[] = [];
  const refused: Refusal[] = [];
  let unchanged = 0;
  let done = 0;
  for (const [component, ofSection] of sections) {
    for (let from = 0; from < ofSection.length; from += BATCH) {
      repo.context.signal.throwIfAborted();
      const batch = ofSection.slice(from, from + BATCH);
      await using scratch = await scratchOf(repo, 'import-');
      const named = source.isAptly ? await underTheirNames(source.folder, batch, scratch.path) : batch;
      const chosen = request.filter ? await filtered(repo, named, request, suite.name, component!) : named;
      if (chosen.length > 0) {
        const options = { component: component!, who: request.who, dryRun: request.dryRun };
        const result = await addPackages(repo, suite.name, chosen, options);
        added.push(...result.added);
        unchanged += result.unchanged.length;
        refused.push(...result.refused);
      }
      done += batch.length;
      repo.context.log.progress('importing packages', done, files.length);
    }
  }
  return { added, unchanged, refused };
}

async function packageFiles(source: PoolSource): Promise<string[]> {
  const entries = await readdir(source.folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory() && /\.(?:u?deb|dsc)$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** `pool/SECTION/h/hello/...`, wherever that begins. */
function sectionThere(path: string): string | undefined {
  const segments = path.split(sep).filter((segment) => segment !== '');
  const at = segments.indexOf('pool');
  const name = at >= 0 ? segments[at + 1] : segments.length >= 4 ? segments[0] : undefined;
  return name?.endsWith('deb') || name?.endsWith('.dsc') ? undefined : name;
}

/** Links of the names that the files had before aptly put their digest in front; what a .dsc lists comes beside it. */
async function underTheirNames(pool: string, files: readonly string[], scratch: string): Promise<string[]> {
  const named: string[] = [];
  for (const [index, path] of files.entries()) {
    const folder = join(scratch, String(index));
    await mkdir(folder);
    const own = join(folder, basename(path).replace(/^[0-9a-f]{28}_/, ''));
    await symlink(path, own);
    named.push(own);
    if (!own.endsWith('.dsc')) continue;
    const listed = (await readFile(path, 'utf8')).matchAll(/^ ([0-9a-f]{64}) \d+ ([A-Za-z0-9][^\s/]*)$/gm);
    for (const [, digest = '', name = ''] of listed) {
      const there = join(pool, digest.slice(0, 2), digest.slice(2, 4), `${digest.slice(4, 32)}_${name}`);
      await symlink(there, join(folder, name)).catch(ignoreTwice);
    }
  }
  return named;
}

/** A list may name a file twice; its digests are checked later. */
function ignoreTwice(error: unknown): void {
  if (errnoOf(error) !== 'EEXIST') throw error;
}

async function filtered(
  repo: RepoHandle,
  files: readonly string[],
  request: ImportRequest,
  suite: string,
  component: string,
): Promise<string[]> {
  const chosen: string[] = [];
  // what cannot be read is left to `add`, which says why
  const consider = async (path: string, read: () => Promise<Omit<Member['package'], 'id' | 'filename'>>) => {
    try {
      const item = { ...(await read()), id: 0, filename: basename(path) };
      if (request.filter?.({ suite, component, package: item }) ?? true) chosen.push(path);
    } catch (error) {
      if (!(error instanceof BuildkitError) || error.exitCode !== 1) throw error;
      chosen.push(path);
    }
  };
  const debs = files.filter((path) => !path.endsWith('.dsc'));
  for await (const result of readDebs(repo.context, debs)) {
    await consider(result.path, async () => {
      if ('error' in result) throw result.error;
      return admit(result.info.package, result.path.endsWith('.udeb') ? 'udeb' : 'deb');
    });
  }
  for (const path of files.filter((one) => one.endsWith('.dsc'))) {
    await consider(path, async () => (await readSource(path)).item);
  }
  return chosen;
}
