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
import type { ClosurePackage } from './python/closure.ts';
import { extraPackage, type PackageFacts, pythonPackage, wheelDate } from './python/package.ts';
import { openWheel, type Wheel } from './python/wheel.ts';

/** A day for wheels that name none; 2016-01-01 as flit has it. */
const NO_DATE = 1_451_606_400;

export interface Job {
  readonly planned: ClosurePackage;
  readonly facts: Omit<PackageFacts, 'sourceDateEpoch'>;
  readonly compression: Compression;
  /** As far as it is known without opening the wheel. */
  readonly wheelSha256: string | undefined;
  /** Seconds; undefined: the date of the wheel's newest file. */
  readonly sourceDateEpoch: number | undefined;
}

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

/** @param vendored wheel files of what the package carries inside */
export async function buildJob(
  context: Context,
  job: Job,
  wheelPath: string,
  vendored: readonly string[] = [],
): Promise<Built> {
  const wheelSha256 = job.wheelSha256 ?? (await digestFile(wheelPath, 'sha256'));
  const { service, suite, ...facts } = job.facts;
  const key = keyOf([
    'deb',
    wheelSha256,
    basename(wheelPath),
    facts,
    suite.codename,
    job.planned.extra ?? null,
    job.compression,
    job.sourceDateEpoch ?? null,
    await Promise.all(vendored.map((path) => digestFile(path, 'sha256'))),
    service === undefined ? null : { ...service, entries: service.entries.map(describeEntry) },
  ]);
  const cached = await readCached(context, key);
  if (cached) return cached;
  context.log.detail(`build ${facts.name} ${facts.version}`);
  return produce(context, job, wheelPath, vendored, key);
}

function describeEntry(entry: { readonly path: string; readonly mode: number; readonly source?: unknown }): unknown {
  const source = entry.source as { readonly data?: Uint8Array | string } | undefined;
  return [entry.path, entry.mode, Buffer.from(source?.data ?? '').toString('base64')];
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
  job: Job,
  wheelPath: string,
  vendoredPaths: readonly string[],
  key: string,
): Promise<Built> {
  await using scratch = await workFolder(context);
  const folder = join(scratch.path, 'deb');
  await mkdir(folder);
  using wheels = await openWheels([wheelPath, ...vendoredPaths]);
  const [wheel, ...vendored] = wheels.list as [Wheel, ...Wheel[]];
  const sourceDateEpoch = job.sourceDateEpoch ?? wheelDate(wheel, NO_DATE);
  const facts: PackageFacts = { ...job.facts, sourceDateEpoch };
  const { extra } = job.planned;
  const { spec, architecture, warnings } =
    extra === undefined
      ? await pythonPackage(wheel, facts, vendored)
      : { spec: extraPackage(facts, wheel.metadata.name, extra), architecture: 'all', warnings: [] };
  const path = join(folder, debFileName(facts.name, facts.version, architecture));
  const {
    path: _,
    control,
    ...digests
  } = await writeDeb(context, path, spec, {
    compression: job.compression,
    sourceDateEpoch,
  });
  const paths = pathsOf(spec);
  const notes: Notes = { package: { ...digests, control: formatParagraph(control) }, paths, warnings };
  await writeFile(join(folder, 'notes.json'), JSON.stringify(notes));
  const kept = await keepFiles(context, 'debs', key, folder);
  return { package: { ...digests, control, path: kept.find((file) => file.endsWith('.deb'))! }, paths, warnings };
}

async function openWheels(paths: readonly string[]): Promise<{ readonly list: Wheel[] } & Disposable> {
  const list: Wheel[] = [];
  const close = () => {
    for (const wheel of list) wheel[Symbol.dispose]();
  };
  try {
    for (const path of paths) list.push(await openWheel(path));
  } catch (error) {
    close();
    throw error;
  }
  return { list, [Symbol.dispose]: close };
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
