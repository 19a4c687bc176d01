/**
 * From a planned package to its .deb: made once per digest of everything that goes into it, then placed.
 *
 * Secret: what decides the bytes of a package (the key), and that a file name_version_arch.deb never gets other bytes.
 */

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { digestFile, exists, explainWriteError } from '../core/files.ts';
import { type DebSpec, writeDeb } from '../deb/archive.ts';
import type { Compression } from '../deb/compression.ts';
import { formatParagraph, getField, type Paragraph, parseParagraph, setField } from '../deb/control.ts';
import { type BinaryPackage, debFileName } from '../deb/package.ts';
import { cachedFiles, forget, keepFiles, keyOf, workFolder } from './cache.ts';
import { splitDebugSymbols } from './debug-symbols.ts';
import { type Explanation, explain, keepLastParts, lastParts } from './explain.ts';
import type { PackageJob } from './job.ts';
import { type Finding, lint, lintInputOf } from './lint.ts';
import { placeFile } from './place.ts';
import type { Component } from './sbom.ts';

export interface Built {
  readonly package: BinaryPackage;
  /** Debug symbols of what was compiled here. */
  readonly debug: BinaryPackage | undefined;
  /** Every file and link that it installs, sorted; no folders. */
  readonly paths: readonly string[];
  readonly warnings: readonly string[];
  readonly components: readonly Component[];
  /** Seconds since the epoch. */
  readonly date: number;
  readonly explanation: Explanation;
}

export interface ProduceOptions {
  readonly compression: Compression;
  /** Codename and architecture: what tells this series of builds from others. */
  readonly line: string;
  /** Fields to which relations are added: 'Conflicts' to names. */
  readonly relations?: ExtraRelations | undefined;
}

/** By field name. */
export type ExtraRelations = Readonly<Partial<Record<'Conflicts' | 'Replaces', readonly string[]>>>;

type NotedPackage = Omit<BinaryPackage, 'path' | 'control'> & { readonly control: string };

interface Notes extends Omit<Built, 'package' | 'debug' | 'explanation'> {
  readonly package: NotedPackage;
  readonly debug?: NotedPackage | undefined;
}

/** Makes a package, or finds it made: the key says what went into it. */
export async function buildJob(context: Context, job: PackageJob, options: ProduceOptions): Promise<Built> {
  const { compression, relations } = options;
  const key =
    job.key === undefined
      ? undefined
      : keyOf(['deb', job.key, job.name, job.version, compression, ...(relations === undefined ? [] : [relations])]);
  const cached = key === undefined ? undefined : await readCached(context, key);
  const parts = job.parts && { ...job.parts, compression, ...(relations && { relations: JSON.stringify(relations) }) };
  const last = cached ? undefined : await lastParts(context, job.name, options.line);
  const explanation = explain(cached ? 'reused' : 'built', parts, last);
  if (cached) return { ...cached, explanation };
  context.log.detail(`build ${job.name} ${job.version} (${explanation.why})`);
  const built = await produce(context, job, options, key);
  if (parts !== undefined) await keepLastParts(context, job.name, options.line, parts);
  return { ...built, explanation };
}

async function readCached(context: Context, key: string): Promise<Omit<Built, 'explanation'> | undefined> {
  const files = await cachedFiles(context, 'debs', key);
  const file = files?.find((one) => one.endsWith('notes.json'));
  if (files === undefined || file === undefined) return undefined;
  const notes = JSON.parse(await readFile(file, 'utf8')) as Notes;
  const packages = await Promise.all([notes.package, notes.debug].map((one) => one && readNoted(files, one)));
  const [main, debug] = packages;
  if (main !== undefined && (notes.debug === undefined || debug !== undefined))
    return { ...notes, package: main, debug };
  context.log.warn(`the cached '${notes.package.name}' is damaged: it is built again`);
  await forget(context, 'debs', key);
  return undefined;
}

/** undefined: it is not there, or not as it was written. */
async function readNoted(files: readonly string[], noted: NotedPackage): Promise<BinaryPackage | undefined> {
  const name = debFileName(noted.name, noted.version, noted.architecture);
  const path = files.find((file) => basename(file) === name);
  if (path === undefined || (await digestFile(path, 'sha256')) !== noted.sha256) return undefined;
  return { ...noted, path, control: parseParagraph(noted.control) };
}

async function produce(
  context: Context,
  job: PackageJob,
  options: ProduceOptions,
  key: string | undefined,
): Promise<Omit<Built, 'explanation'>> {
  await using scratch = await workFolder(context);
  const folder = join(scratch.path, 'deb');
  await mkdir(folder);
  const made = await job.make();
  try {
    const date = made.sourceDateEpoch ?? job.sourceDateEpoch;
    if (date === undefined) throw new Error(`nothing says when '${job.name}' is from`);
    const related = { ...made.spec, control: withRelations(made.spec.control, options.relations) };
    const {
      spec,
      debug,
      warnings: more,
    } = made.isCompiledHere === undefined
      ? { spec: related, debug: undefined, warnings: [] }
      : await splitDebugSymbols(context, related, made.isCompiledHere, join(scratch.path, 'split'));
    const write = async (one: DebSpec, name: string): Promise<BinaryPackage> => {
      const path = join(folder, debFileName(name, job.version, made.architecture));
      return writeDeb(context, path, one, { compression: options.compression, sourceDateEpoch: date });
    };
    const written = await write(spec, job.name);
    const symbols = debug && (await write(debug, `${job.name}-dbgsym`));
    const warnings = [...made.warnings, ...more, ...lint(lintInputOf(spec)).map(asWarning)];
    const facts = { paths: pathsOf(spec), warnings, components: made.components ?? [], date };
    const notes: Notes = { ...facts, package: noted(written), debug: symbols && noted(symbols) };
    await writeFile(join(folder, 'notes.json'), JSON.stringify(notes));
    // without a key known beforehand, the bytes themselves are the key
    const kept = await keepFiles(context, 'debs', key ?? keyOf(['bytes', written.sha256]), folder);
    const placed = (one: BinaryPackage) => ({
      ...one,
      path: kept.find((file) => basename(file) === basename(one.path))!,
    });
    return { ...facts, package: placed(written), debug: symbols && placed(symbols) };
  } finally {
    made[Symbol.dispose]?.();
  }
}

function noted({ path: _, control, ...digests }: BinaryPackage): NotedPackage {
  return { ...digests, control: formatParagraph(control) };
}

function withRelations(control: Paragraph, relations: ExtraRelations | undefined): Paragraph {
  let more = control;
  for (const [field, names] of Object.entries(relations ?? {})) {
    more = setField(more, field, [getField(more, field), ...names].filter(Boolean).join(', '));
  }
  return more;
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

/**
 * Puts the packages into `outDir`, each whole; one that is there with the same bytes stays.
 * @throws UserError `version-exists` before anything is written, when one is there with other bytes
 */
export async function placePackages(
  context: Context,
  built: readonly BinaryPackage[],
  outDir: string,
): Promise<{ packages: BinaryPackage[]; written: number; kept: number }> {
  const packages: BinaryPackage[] = [];
  const missing: [from: string, to: string][] = [];
  for (const one of built) {
    const path = join(outDir, basename(one.path));
    packages.push({ ...one, path });
    if (!(await exists(path))) missing.push([one.path, path]);
    else if ((await digestFile(path, 'sha256')) !== one.sha256) throw otherBytes(path, one);
  }
  try {
    await mkdir(outDir, { recursive: true });
    for (const [from, to] of missing) {
      context.signal.throwIfAborted();
      await placeFile(from, to);
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
