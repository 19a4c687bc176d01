/**
 * Packages into a suite: read, check, copy aside, then all of the call (of a large one: thousands) in one transaction.
 *
 * Secret: the order that makes a crash and a race harmless. Files are staged and durable before the lock is taken; inside the
 * transaction, whose writer is alone, each goes to its place by rename and is catalogued. A crash before the commit leaves at
 * most pool files that no index names, and the next add of the same package puts its own in their place.
 */
import { readdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { BuildkitError, errnoOf, UserError } from '../core/errors.ts';
import { digestFile } from '../core/files.ts';
import { admit, checkFits } from './admit.ts';
import type { CatalogPackage, NewPackage, PackageFile } from './catalog.ts';
import {
  factsOf,
  findComponent,
  findSuite,
  lockWrite,
  type PackageFacts,
  type RepoHandle,
  scratchOf,
} from './handle.ts';
import { type FileState, fileState, isInPool, poolPath, putStaged, stage, syncStaged } from './pool.ts';
import type { SuiteSettings } from './settings.ts';
import { type ListedFile, readChanges, readSource } from './source-package.ts';

export interface AddOptions {
  /** Default: the first component of the suite. */
  readonly component?: string | undefined;
  /** One refused file refuses the call. */
  readonly allOrNothing?: boolean | undefined;
  readonly dryRun?: boolean | undefined;
  /** For the history. */
  readonly who?: string | undefined;
}

export interface Refusal {
  readonly file: string;
  /** Stable, kebab-case. */
  readonly code: string;
  readonly message: string;
  readonly hint?: string | undefined;
}

export interface AddResult {
  readonly added: readonly PackageFacts[];
  /** In the suite already, with the same bytes. */
  readonly unchanged: readonly PackageFacts[];
  /** Not added; everything else was, unless `allOrNothing`. */
  readonly refused: readonly Refusal[];
}

const PACKAGE_FILE = /\.(?:u?deb|dsc)$/;

const COPIES_AT_ONCE = 8;

/** Each part of a large call is a change of its own. */
const FILES_PER_TRANSACTION = 5000;

interface Candidate {
  readonly path: string;
  /** Of the file when it was read. */
  readonly state: FileState;
  readonly item: Omit<NewPackage, 'filename'>;
  /** What a .dsc lists. */
  readonly files?: readonly ListedFile[];
}

interface Read {
  readonly candidates: readonly Candidate[];
  readonly refused: readonly Refusal[];
}

/**
 * Adds .deb and .udeb files and those in folders. What cannot be taken is told in `refused`.
 * @throws UserError for an unknown suite or component, or a path that is not there; nothing is changed then
 */
export async function addPackages(
  repo: RepoHandle,
  suiteName: string,
  paths: readonly string[],
  options: AddOptions = {},
): Promise<AddResult> {
  const suite = findSuite(repo, suiteName);
  const component = findComponent(suite, options.component);
  const files = await packageFiles(repo, paths);
  const result = { added: [] as PackageFacts[], unchanged: [] as PackageFacts[], refused: [] as Refusal[] };
  // one transaction, where the whole call depends on each file; else memory does not grow with the number of files
  const step = options.allOrNothing ? Math.max(files.length, 1) : FILES_PER_TRANSACTION;
  for (let from = 0; from < files.length; from += step) {
    const part = await addSome(repo, suite, component, files.slice(from, from + step), options);
    result.added.push(...part.added);
    result.unchanged.push(...part.unchanged);
    result.refused.push(...part.refused);
    repo.context.log.progress('adding packages', Math.min(from + step, files.length), files.length);
  }
  return result;
}

async function addSome(
  repo: RepoHandle,
  suite: SuiteSettings,
  component: string,
  files: readonly string[],
  options: AddOptions,
): Promise<AddResult> {
  if (options.dryRun) {
    return settle(repo, suite, component, await readCandidates(repo, suite, files, async () => {}), options, undefined);
  }
  await using scratch = await scratchOf(repo, 'add-');
  const stager = createStager(repo, scratch.path);
  const read = await readCandidates(repo, suite, files, stager.take);
  const staged = await stager.finish();
  using _ = await lockWrite(repo);
  return settle(
    repo,
    suite,
    component,
    { ...read, refused: [...read.refused, ...staged.refused] },
    options,
    staged.files,
  );
}

/**
 * The files meant, each once: folders stand for every .deb, .udeb and .dsc below them, in the order of their names; a .changes
 * stands for what it lists.
 */
async function packageFiles(repo: RepoHandle, paths: readonly string[]): Promise<string[]> {
  const files = new Set<string>();
  for (const given of paths) {
    const path = resolve(given);
    if (!(await isFolder(path, given))) {
      const listed = path.endsWith('.changes') ? await readChanges(repo.context, path, repo.layout.uploaders) : [path];
      for (const file of listed) if (!path.endsWith('.changes') || PACKAGE_FILE.test(file)) files.add(file);
      continue;
    }
    const entries = await readdir(path, { recursive: true, withFileTypes: true });
    const found = entries
      .filter((entry) => !entry.isDirectory() && PACKAGE_FILE.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name))
      .sort();
    if (found.length === 0) {
      throw new UserError('no-packages', `there is no .deb file in '${given}'`);
    }
    for (const file of found) files.add(file);
  }
  return [...files];
}

async function isFolder(path: string, given: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT' && errnoOf(cause) !== 'ENOTDIR') throw cause;
    throw new UserError('no-such-file', `there is no file or folder '${given}'`, { cause });
  }
}

/** @param onCandidate called with each good one as soon as it is read; awaited */
async function readCandidates(
  repo: RepoHandle,
  suite: SuiteSettings,
  files: readonly string[],
  onCandidate: (candidate: Candidate) => Promise<void>,
): Promise<Read> {
  const { readDebs } = await import('../deb/archive.ts');
  const states = new Map<string, FileState>();
  async function* noted(): AsyncGenerator<string> {
    for (const path of files.filter((file) => !file.endsWith('.dsc'))) {
      states.set(path, await fileState(path));
      yield path;
    }
  }
  const candidates: Candidate[] = [];
  const refused: Refusal[] = [];
  const consider = async (path: string, read: () => Promise<Candidate>) => {
    repo.context.signal.throwIfAborted();
    try {
      const candidate = await read();
      checkFits(candidate.item, suite, path);
      candidates.push(candidate);
      await onCandidate(candidate);
    } catch (error) {
      refused.push(refusalOf(path, error));
    }
  };
  for await (const result of readDebs(repo.context, noted())) {
    await consider(result.path, async () => {
      if ('error' in result) throw result.error;
      const item = admit(result.info.package, result.path.endsWith('.udeb') ? 'udeb' : 'deb');
      return { path: result.path, state: states.get(result.path)!, item };
    });
  }
  for (const path of files.filter((file) => file.endsWith('.dsc'))) {
    await consider(path, async () => ({ path, state: await fileState(path), ...(await readSource(path)) }));
  }
  return { candidates, refused };
}

function refusalOf(file: string, error: unknown): Refusal {
  if (!(error instanceof BuildkitError) || error.exitCode !== 1) throw error;
  return { file, code: error.code, message: error.message, hint: error.hint };
}

interface Stager {
  /** Begins to copy a file aside, unless the pool has it; returns when there is room for another. */
  readonly take: (candidate: Candidate) => Promise<void>;
  /** Resolves when all are copied and durable. */
  readonly finish: () => Promise<{
    readonly files: ReadonlyMap<Candidate, string>;
    readonly refused: readonly Refusal[];
  }>;
}

/** Copying goes on beside reading: creating files takes most of the time of a large add. */
function createStager(repo: RepoHandle, folder: string): Stager {
  const files = new Map<Candidate, string>();
  const refused: Refusal[] = [];
  const running = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | undefined;
  let count = 0;
  const copy = async (candidate: Candidate, path: string) => {
    try {
      await stage(candidate.path, path, candidate.state);
      for (const [index, file] of (candidate.files ?? []).entries()) {
        await stage(file.path, `${path}.${index}`, await fileState(file.path));
        await checkCopy(file, `${path}.${index}`);
      }
      files.set(candidate, path);
    } catch (error) {
      try {
        refused.push(refusalOf(candidate.path, error));
      } catch {
        failure ??= { error };
      }
    }
  };
  return {
    async take(candidate) {
      const known = repo.catalog.findPackage(candidate.item);
      if (known?.sha256 === candidate.item.sha256 && isStored(repo, known)) return;
      count += 1;
      const job = copy(candidate, join(folder, String(count))).finally(() => running.delete(job));
      running.add(job);
      if (running.size >= COPIES_AT_ONCE) await Promise.race(running);
    },
    async finish() {
      await Promise.all(running);
      if (failure) throw failure.error;
      const beside = [...files].flatMap(([{ files: listed = [] }, path]) =>
        listed.map((_, index) => `${path}.${index}`),
      );
      await syncStaged(repo.context, folder, [...files.values(), ...beside]);
      return { files, refused };
    },
  };
}

/** The one transaction of a call. `staged` undefined: only says what would happen. */
function settle(
  repo: RepoHandle,
  suite: SuiteSettings,
  component: string,
  read: Read,
  options: AddOptions,
  staged: ReadonlyMap<Candidate, string> | undefined,
): AddResult {
  const { catalog, layout } = repo;
  return catalog.transaction(() => {
    const { accepted, refused } = refuseOtherBytes(repo, component, read);
    if (options.allOrNothing && refused.length > 0) return { added: [], unchanged: [], refused };
    const added: PackageFacts[] = [];
    const unchanged: PackageFacts[] = [];
    let change: number | undefined;
    for (const candidate of accepted) {
      const catalogued = catalog.findPackage(candidate.item);
      const known = catalogued?.sha256 === candidate.item.sha256 ? catalogued : undefined;
      const filename =
        catalogued?.filename ?? poolPath(component, candidate.item, (path) => catalog.isFilenameTaken(path));
      const facts = factsOf(suite.name, component, { ...candidate.item, filename });
      if (staged && !(known && isStored(repo, known))) {
        const stagedPath = staged.get(candidate);
        if (stagedPath === undefined) {
          refused.push(vanished(candidate));
          continue;
        }
        putStaged(layout.public, stagedPath, filename);
        for (const [index, file] of (candidate.files ?? []).entries()) {
          putStaged(layout.public, `${stagedPath}.${index}`, besideFile(filename, file.name));
        }
      }
      if (known && catalog.isMember(suite.name, component, known)) {
        unchanged.push(facts);
        continue;
      }
      added.push(facts);
      if (!staged) continue;
      change ??= catalog.recordChange(repo.context.now(), options.who ?? 'unknown', 'add', {
        suite: suite.name,
        component,
      });
      const item = { ...candidate.item, filename };
      const fresh = () => (catalogued ? catalog.replacePackage(catalogued.id, item) : catalog.insertPackage(item));
      const stored = known ?? fresh();
      if (candidate.files)
        catalog.savePackageFiles(
          stored.id,
          candidate.files.map((file) => poolFile(filename, file)),
        );
      catalog.addMember(change, suite.name, component, stored);
    }
    return { added, unchanged, refused };
  });
}

/** The pool has all of its files. */
function isStored(repo: RepoHandle, item: CatalogPackage): boolean {
  return [item, ...repo.catalog.packageFiles(item.id)].every((file) => isInPool(repo.layout.public, file));
}

/** The place of a file that a .dsc lists: beside it. */
function besideFile(filename: string, name: string): string {
  return `${filename.replace(/\/[^/]*$/, '')}/${name}`;
}

function poolFile(filename: string, file: ListedFile): PackageFile {
  return { filename: besideFile(filename, file.name), size: file.size, sha256: file.sha256 };
}

/** It was digested before it was copied. @throws UserError `file-changed` */
async function checkCopy(file: ListedFile, copy: string): Promise<void> {
  if ((await digestFile(copy, 'sha256')) === file.sha256) return;
  throw new UserError('file-changed', `'${file.name}' was changed while it was read`, { file: file.path });
}

/** The pool had it while files were staged, and has not any more. */
function vanished(candidate: Candidate): Refusal {
  return {
    file: candidate.path,
    code: 'pool-changed',
    message: `${candidate.item.name} was removed from the pool meanwhile`,
    hint: 'add it again',
  };
}

function otherBytes(candidate: Candidate, what: string): Refusal {
  return {
    file: candidate.path,
    code: 'package-changed',
    message: `${what} is known with other bytes`,
    hint: 'give the changed package a new version: clients and mirrors keep what they have under the old one',
  };
}

/** Bytes under one name, version and architecture never change: neither those in the catalog nor within a call. */
function refuseOtherBytes(
  repo: RepoHandle,
  component: string,
  read: Read,
): { accepted: Candidate[]; refused: Refusal[] } {
  const refused = [...read.refused];
  const refusedFiles = new Set(refused.map((refusal) => refusal.file));
  const first = new Map<string, Candidate>();
  const beside = new Map<string, string>();
  const accepted: Candidate[] = [];
  for (const candidate of read.candidates) {
    if (refusedFiles.has(candidate.path)) continue; // changed while it was copied
    const { kind, name, version, architecture, sha256 } = candidate.item;
    const identity = `${name}_${version}_${architecture}.${kind}`;
    const catalogued = repo.catalog.findPackage(candidate.item);
    // removed before anybody could see it: its name is free again
    const isFree = catalogued && catalogued.sha256 !== sha256 && repo.catalog.isReplaceable(catalogued.id);
    const known = (isFree ? undefined : catalogued) ?? first.get(identity)?.item;
    if (known !== undefined && known.sha256 !== sha256) {
      refused.push(otherBytes(candidate, `${name} ${version} (${architecture})`));
      continue;
    }
    const filename = catalogued?.filename ?? poolPath(component, candidate.item);
    const clash = candidate.files?.find((file) => {
      const path = besideFile(filename, file.name);
      const before = repo.catalog.findFile(path)?.sha256 ?? beside.get(path) ?? file.sha256;
      beside.set(path, before);
      return before !== file.sha256;
    });
    if (clash) {
      refused.push(otherBytes(candidate, `'${clash.name}'`));
      continue;
    }
    if (first.has(identity)) continue; // the same package twice in the call
    first.set(identity, candidate);
    accepted.push(candidate);
  }
  return { accepted, refused };
}
