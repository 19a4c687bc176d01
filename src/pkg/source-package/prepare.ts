/** Debian source packages of one request: read, planned, built one after the other, and their files put where they were asked for. */
import { mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Context } from '../../core/context.ts';
import { UserError } from '../../core/errors.ts';
import { digestFile, exists, explainWriteError } from '../../core/files.ts';
import { readDeb } from '../../deb/archive.ts';
import type { BinaryPackage } from '../../deb/package.ts';
import type { PlannedDependency } from '../job.ts';
import { placeFile } from '../place.ts';
import { choosePlace, type Isolation } from '../root/choose.ts';
import { refuseForeignHere } from '../root/foreign.ts';
import { buildSource } from './build.ts';
import { type DebianSource, readSourceFolder, readSourceList } from './read.ts';

export interface SourceInput {
  /** A folder with debian/, or a .dsc file; absolute. */
  readonly path: string;
  readonly kind: 'folder' | 'list';
}

export interface SourceRequest {
  readonly suite: string;
  readonly architecture?: string | undefined;
  readonly outDir: string;
  /** Default 'auto': in a root wherever one can be. */
  readonly isolation?: Isolation | undefined;
  readonly network?: boolean | undefined;
  readonly proxy?: string | undefined;
  readonly mirror?: string | undefined;
  readonly timeLimitMs?: number | undefined;
}

export function readSources(
  context: Context,
  inputs: readonly SourceInput[],
  outDir: string,
): Promise<readonly DebianSource[]> {
  const read = ({ path, kind }: SourceInput) =>
    kind === 'list' ? readSourceList(path) : readSourceFolder(context, path, outDir);
  return Promise.all(inputs.map(read));
}

export function planSources(sources: readonly DebianSource[]): (PlannedDependency & { readonly source: string })[] {
  return sources.flatMap(({ name, version, binaries }) =>
    binaries.map((binary) => ({
      name: binary,
      version,
      decision: 'build' as const,
      why: 'asked for',
      source: `the Debian source '${name}'`,
    })),
  );
}

export interface BuiltSources {
  /** Debug symbols last. */
  readonly packages: readonly BinaryPackage[];
  /** Without debug symbols. */
  readonly asked: readonly string[];
  readonly built: number;
  readonly reused: number;
  /** Everything placed: .changes, .buildinfo, .dsc, tarballs, packages. */
  readonly files: readonly string[];
}

/** @throws UserError `source-does-not-build`, `build-depends`, `version-exists`, `root-rights`; ToolError */
export async function buildSources(
  context: Context,
  sources: readonly DebianSource[],
  request: SourceRequest,
): Promise<BuiltSources> {
  if (sources.length === 0) return { packages: [], asked: [], built: 0, reused: 0, files: [] };
  const place = await choosePlace(context, request.isolation ?? 'auto', request, 'make');
  if (place.kind === 'host') refuseForeignHere(request.architecture);
  const packages: BinaryPackage[] = [];
  const files: string[] = [];
  let built = 0;
  for (const source of sources) {
    const made = await buildSource(context, source, { ...request, place });
    const placed = await placeFiles(made.files, request.outDir);
    files.push(...placed);
    const debs = placed.filter((file) => file.endsWith('.deb'));
    for (const deb of debs) packages.push((await readDeb(context, deb)).package);
    if (made.built) built += debs.length;
  }
  const isDebug = (name: string) => name.endsWith('-dbgsym');
  packages.sort((a, b) => Number(isDebug(a.name)) - Number(isDebug(b.name)));
  const asked = packages.map((one) => one.name).filter((name) => !isDebug(name));
  return { packages, asked, built, reused: packages.length - built, files };
}

/**
 * Copies results, each whole. A list (.changes, .buildinfo) names the day of its build and is replaced; what it lists keeps its bytes.
 * @throws UserError `version-exists` before anything is written
 */
async function placeFiles(files: readonly string[], outDir: string): Promise<string[]> {
  const missing: [from: string, to: string][] = [];
  const placed: string[] = [];
  for (const from of files) {
    const to = join(outDir, basename(from));
    placed.push(to);
    if (!(await exists(to)) || /\.(changes|buildinfo)$/.test(to)) missing.push([from, to]);
    else if ((await digestFile(to, 'sha256')) !== (await digestFile(from, 'sha256'))) throw otherBytes(to);
  }
  try {
    await mkdir(outDir, { recursive: true });
    for (const [from, to] of missing) await placeFile(from, to);
  } catch (cause) {
    throw explainWriteError(cause, outDir);
  }
  return placed;
}

function otherBytes(path: string): UserError {
  return new UserError('version-exists', `'${basename(path)}' is there already, with other content`, {
    file: path,
    hint: 'what has a version keeps its bytes: add an entry to debian/changelog; or remove that file if nobody has it yet',
  });
}
