/**
 * Packages of a suite as plain files, for those who want files and no repository.
 *
 * Secret: how the names of files stay apart: Debian leaves the epoch out of them; where two would meet, the epoch comes in as apt
 * writes it in its own archive folder (`1%3a2.0`). The manifest is what sha256sum(1) reads.
 */
import { constants, copyFile, link, lstat, mkdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { errnoOf, UserError } from '../core/errors.ts';
import { digestFile, explainWriteError, writeFileAtomic } from '../core/files.ts';
import { parseVersion } from '../deb/version.ts';
import type { Member } from './catalog.ts';
import { findSuite, type RepoHandle } from './handle.ts';
import type { PackageFilter } from './query.ts';

export interface ExportRequest {
  readonly filter?: PackageFilter | undefined;
  /** Sources with their files too. */
  readonly sources?: boolean | undefined;
  /** What clients see now, in place of what is in the suite. */
  readonly published?: boolean | undefined;
  /** Files of their own, in place of hard links. */
  readonly copy?: boolean | undefined;
}

export interface ExportedFile {
  /** In the folder. */
  readonly file: string;
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly component: string;
  readonly size: number;
  readonly sha256: string;
}

export interface ExportResult {
  readonly files: readonly ExportedFile[];
  readonly linked: number;
  readonly copied: number;
  /** There already, with the same bytes. */
  readonly unchanged: number;
}

const MANIFEST = 'SHA256SUMS';

/** @throws UserError `file-differs`, `package-missing`; what was written until then stays */
export async function exportPackages(
  repo: RepoHandle,
  suiteName: string,
  folder: string,
  request: ExportRequest = {},
): Promise<ExportResult> {
  const suite = findSuite(repo, suiteName).name;
  const current = request.published ? repo.catalog.currentGeneration(suite) : undefined;
  if (request.published && !current) throw new UserError('not-published', `'${suite}' was never published`);
  const members = current ? repo.catalog.membersAt(suite, current.change) : repo.catalog.members({ suite });
  const wanted = [...members].filter(
    (member) => (request.sources || member.package.kind !== 'dsc') && (request.filter?.(member) ?? true),
  );
  const counts = { linked: 0, copied: 0, unchanged: 0 };
  const files = plannedFiles(repo, wanted);
  await mkdir(folder, { recursive: true });
  for (const [index, { from, ...file }] of files.entries()) {
    repo.context.signal.throwIfAborted();
    counts[await place(join(repo.layout.public, from), join(folder, file.file), file, request.copy ?? false)] += 1;
    repo.context.log.progress('exporting packages', index + 1, files.length);
  }
  const exported = files.map(({ from: _, ...file }) => file);
  const lines = exported.map(({ sha256, file }) => `${sha256}  ${file}\n`);
  await writeFileAtomic(join(folder, MANIFEST), lines.join(''));
  return { files: exported, ...counts };
}

interface PlannedFile extends ExportedFile {
  /** Below public/. */
  readonly from: string;
}

/** Every file under a name of its own; sorted by name. */
function plannedFiles(repo: RepoHandle, members: readonly Member[]): PlannedFile[] {
  const files = new Map<string, PlannedFile>();
  for (const { component, package: item } of members) {
    const { name, version, architecture } = item;
    const beside = item.kind === 'dsc' ? repo.catalog.packageFiles(item.id) : [];
    for (const one of [item, ...beside]) {
      const plain = basename(one.filename);
      const taken = files.get(plain);
      if (taken?.sha256 === one.sha256) continue; // in two sections, or listed by two sources
      const file = taken === undefined ? plain : withEpoch(plain, version);
      if (taken !== undefined && files.get(file) !== undefined) continue;
      const { size, sha256, filename: from } = one;
      files.set(file, { file, name, version, architecture, component, size, sha256, from });
    }
  }
  return [...files.values()].sort((a, b) => (a.file < b.file ? -1 : 1));
}

function withEpoch(file: string, version: string): string {
  return file.replace(/^([^_]+)_/, `$1_${parseVersion(version).epoch}%3a`);
}

async function place(
  from: string,
  to: string,
  file: { readonly size: number; readonly sha256: string },
  copy: boolean,
): Promise<'linked' | 'copied' | 'unchanged'> {
  try {
    const there = await lstat(to).catch(ignoreMissing);
    if (there?.isFile() && there.size === file.size && (await digestFile(to, 'sha256')) === file.sha256)
      return 'unchanged';
    if (there) {
      throw new UserError('file-differs', `'${to}' is there already, and is something else`, {
        hint: 'choose an empty folder, or move it away',
      });
    }
    if (!copy && (await isLinked(from, to))) return 'linked';
    await copyFile(from, `${to}.part`, constants.COPYFILE_FICLONE);
    await rename(`${to}.part`, to);
    return 'copied';
  } catch (cause) {
    await rm(`${to}.part`, { force: true });
    if (errnoOf(cause) !== 'ENOENT') throw explainWriteError(cause, to);
    throw new UserError('package-missing', `the pool has no file '${from}'`, {
      hint: 'see what else is missing: buildkit repo check',
      cause,
    });
  }
}

function ignoreMissing(error: unknown): undefined {
  if (errnoOf(error) !== 'ENOENT') throw error;
}

async function isLinked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'EOPNOTSUPP'].includes(errnoOf(error) ?? '')) return false;
    throw error;
  }
}
