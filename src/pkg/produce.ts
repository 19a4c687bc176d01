/**
 * From a planned package to its .deb: made once per digest of everything that goes into it, then placed.
 *
 * Secret: what decides the bytes of a package (the key), and that a file name_version_arch.deb never gets other bytes.
 */

import { constants } from 'node:fs';
import { copyFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { digestFile, exists, explainWriteError } from '../core/files.ts';
import { type DebSpec, writeDeb } from '../deb/archive.ts';
import type { Compression } from '../deb/compression.ts';
import { formatParagraph, parseParagraph } from '../deb/control.ts';
import { type BinaryPackage, debFileName } from '../deb/package.ts';
import { cachedFiles, forget, keepFiles, keyOf, workFolder } from './cache.ts';
import type { PackageJob } from './job.ts';
import { type Finding, lint, lintInputOf } from './lint.ts';

export interface Built {
  readonly package: BinaryPackage;
  /** Every file and link that it installs, sorted; no folders. */
  readonly paths: readonly string[];
  readonly warnings: readonly string[];
}

interface Notes {
  readonly package: Omit<BinaryPackage, 'path' | 'control'> & { readonly control: string };
  readonly paths: readonly string[];
  readonly warnings: readonly string[];
}

/** Makes a package, or finds it made: the key says what went into it. */
export async function buildJob(context: Context, job: PackageJob, compression: Compression): Promise<Built> {
  const key = job.key === undefined ? undefined : keyOf(['deb', job.key, job.name, job.version, compression]);
  const cached = key === undefined ? undefined : await readCached(context, key);
  if (cached) return cached;
  context.log.detail(`build ${job.name} ${job.version}`);
  return produce(context, job, compression, key);
}

async function readCached(context: Context, key: string): Promise<Built | undefined> {
  const files = await cachedFiles(context, 'debs', key);
  const path = files?.find((file) => file.endsWith('.deb'));
  const notes = files?.find((file) => file.endsWith('notes.json'));
  if (path === undefined || notes === undefined) return undefined;
  const { package: kept, paths, warnings } = JSON.parse(await readFile(notes, 'utf8')) as Notes;
  if ((await digestFile(path, 'sha256')) !== kept.sha256) {
    context.log.warn(`the cached '${basename(path)}' is damaged: it is built again`);
    await forget(context, 'debs', key);
    return undefined;
  }
  return { package: { ...kept, path, control: parseParagraph(kept.control) }, paths, warnings };
}

async function produce(
  context: Context,
  job: PackageJob,
  compression: Compression,
  key: string | undefined,
): Promise<Built> {
  await using scratch = await workFolder(context);
  const folder = join(scratch.path, 'deb');
  await mkdir(folder);
  const made = await job.make();
  try {
    const sourceDateEpoch = made.sourceDateEpoch ?? job.sourceDateEpoch;
    if (sourceDateEpoch === undefined) throw new Error(`nothing says when '${job.name}' is from`);
    const path = join(folder, debFileName(job.name, job.version, made.architecture));
    const written = await writeDeb(context, path, made.spec, { compression, sourceDateEpoch });
    const { path: _, control, ...digests } = written;
    const paths = pathsOf(made.spec);
    const warnings = [...made.warnings, ...lint(lintInputOf(made.spec)).map(asWarning)];
    const notes: Notes = { package: { ...digests, control: formatParagraph(control) }, paths, warnings };
    await writeFile(join(folder, 'notes.json'), JSON.stringify(notes));
    // without a key known beforehand, the bytes themselves are the key
    const kept = await keepFiles(context, 'debs', key ?? keyOf(['bytes', digests.sha256]), folder);
    return {
      package: { ...digests, control, path: kept.find((file) => file.endsWith('.deb'))! },
      paths,
      warnings,
    };
  } finally {
    made[Symbol.dispose]?.();
  }
}

function asWarning(finding: Finding): string {
  return `${finding.subject}: ${finding.message} (${/^\d/.test(finding.policy) ? 'Policy ' : ''}${finding.policy})`;
}

function pathsOf(spec: DebSpec): string[] {
  const paths: string[] = [];
  for (const entry of spec.entries as Iterable<{ path: string; type: string }>)
    if (entry.type !== 'dir') paths.push(entry.path);
  return paths.sort();
}

export interface Clash {
  readonly path: string;
  readonly owners: readonly string[];
}

/** Files that two packages of one plan would both own (Policy 7.6: dpkg refuses the second). */
export function findClashes(built: readonly Pick<Built, 'package' | 'paths'>[]): Clash[] {
  const owners = new Map<string, string[]>();
  for (const one of built) {
    for (const path of one.paths) {
      const known = owners.get(path);
      if (known) known.push(one.package.name);
      else owners.set(path, [one.package.name]);
    }
  }
  return [...owners].filter(([, names]) => names.length > 1).map(([path, names]) => ({ path, owners: names.sort() }));
}

/**
 * Puts the packages into `outDir`, each whole; one that is there with the same bytes stays.
 * @throws UserError `version-exists` before anything is written, when one is there with other bytes
 */
export async function placePackages(
  context: Context,
  built: readonly Built[],
  outDir: string,
): Promise<{ packages: BinaryPackage[]; written: number; kept: number }> {
  const packages: BinaryPackage[] = [];
  const missing: [from: string, to: string][] = [];
  for (const { package: one } of built) {
    const path = join(outDir, basename(one.path));
    packages.push({ ...one, path });
    if (!(await exists(path))) missing.push([one.path, path]);
    else if ((await digestFile(path, 'sha256')) !== one.sha256) throw otherBytes(path, one);
  }
  try {
    await mkdir(outDir, { recursive: true });
    for (const [from, to] of missing) {
      context.signal.throwIfAborted();
      const temporary = join(outDir, `.${basename(to)}.tmp`);
      await rm(temporary, { force: true });
      await copyFile(from, temporary, constants.COPYFILE_FICLONE);
      await rename(temporary, to);
    }
  } catch (cause) {
    throw explainWriteError(cause, outDir);
  }
  return { packages, written: missing.length, kept: built.length - missing.length };
}

function otherBytes(path: string, one: BinaryPackage): UserError {
  return new UserError('version-exists', `'${one.name}' ${one.version} is there already, with other content`, {
    file: path,
    hint: 'what has a version keeps its bytes: raise the version of the project, or --packaging-version; or remove that file if nobody has it yet',
  });
}
