/**
 * Base images: built once by mmdebstrap, then read only below every machine's own overlay.
 *
 * Secret: the folder of a base (`STATE/vm/bases/ID`: disk, kernel, initrd, log, `base.json`), made aside and renamed in one step.
 */
import { chmod, copyFile, mkdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { machine } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { type Lock, lock } from '../core/db.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { digestFile, exists, namesIn, readIfThere, syncFolder, writeFileAtomic } from '../core/files.ts';
import { formatBytes } from '../core/log.ts';
import { didYouMean } from '../core/nearest.ts';
import { debArch } from '../deb/arch.ts';
import { getField, parseControl } from '../deb/control.ts';
import { debianSources } from '../deb/mirror.ts';
import { suiteFacts } from '../deb/suites.ts';
import { TINY_INITRD, writeImage } from './base-image.ts';
import { removeTree } from './base-owner.ts';
import { type KernelFlavour, planRecipe, recipeDigest } from './base-plan.ts';
import {
  ASIDE,
  newScratch,
  noteRestore,
  type RootJob,
  removeKept,
  removeLeftovers,
  type Workshop,
  withWorkshop,
} from './base-root.ts';
import { planStages, type StageName } from './base-stages.ts';
import { type Customization, customizationDigest, customizationParts } from './customize.ts';
import type { BootProfile } from './guest.ts';

/** A finished base image. */
export interface Base {
  /** `bookworm-3f9a0c12ab34`: suite and the start of the recipe's digest. */
  readonly id: string;
  readonly suite: string;
  /** Debian's name, `amd64`. */
  readonly architecture: string;
  readonly dir: string;
  /** qcow2; never opened for writing. */
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
  /** Loads virtio and mounts /dev/vda, nothing else; of bases for a fast start. */
  readonly tinyInitrd: string | undefined;
  /** Of the disk: what ties overlays to it. */
  readonly sha256: string;
  /** `6.1.0-39-cloud-amd64` */
  readonly kernelRelease: string;
  /** UUID of the root file system. */
  readonly rootUuid: string;
  /** Bytes of the virtual disk. */
  readonly virtualSize: number;
  /** Bytes on this machine's disk. */
  readonly size: number;
  /** ISO 8601. */
  readonly created: string;
  readonly logFile: string;
  /** By its own loader, seeded by NoCloud: an image from elsewhere. Otherwise by `kernel` and `initrd`. */
  readonly bootsItself: boolean;
  /** Where an image from elsewhere came from. */
  readonly source: string | undefined;
  /** An earlier run made it. */
  readonly reused: boolean;
  /** Digest of the recipe; empty of an image from elsewhere. */
  readonly recipe: string;
}

export interface BaseRequest {
  readonly suite: string;
  /** Debian's name; default: this machine's. */
  readonly architecture?: string | undefined;
  /** `8G`, `8192M`; default 8G. */
  readonly size?: string | undefined;
  /** `fast` (default): a machine for tests, without what only costs time at its start; `plain`: as Debian installs it. */
  readonly profile?: BootProfile | undefined;
  /** `cloud` (default), or `generic`: larger, with all drivers and 9p for shared folders. */
  readonly kernelFlavour?: KernelFlavour | undefined;
  /** Packages beside the minimum. */
  readonly include?: readonly string[] | undefined;
  /** URL; default: the mirrors in this machine's apt configuration. */
  readonly mirror?: string | undefined;
  /** Build anew even if there is one: the machines of the old one stay with it. */
  readonly force?: boolean | undefined;
  /** URL of an apt proxy for the build alone: nothing of it stays in the image. */
  readonly proxy?: string | undefined;
  /** Folder laid over the root file system (see customize.ts). */
  readonly overlay?: string | undefined;
  /** Folder with hooks (see customize.ts). */
  readonly hooks?: string | undefined;
  /** Host name, for tokens and hooks; default `debian`. */
  readonly name?: string | undefined;
  /** Go on from there with the work that a build of the same plan left when it failed. */
  readonly fromStage?: StageName | undefined;
}

const PACKAGE_LIST = 'packages.list';
const BUILD_TIMEOUT_MS = 30 * 60_000;

const recordSchema = z.object({
  format: z.literal(1),
  id: z.string(),
  suite: z.string(),
  architecture: z.string(),
  recipe: z.string(),
  tinyInitrd: z.boolean().default(false),
  packages: z.array(z.string()),
  sha256: z.string(),
  kernelRelease: z.string(),
  rootUuid: z.string(),
  virtualSize: z.number(),
  /** Of the disk file when its digest was taken: what has not changed need not be read again. */
  stamp: z.object({ size: z.number(), mtimeMs: z.number() }),
  created: z.string(),
  /** Of an image from elsewhere. */
  source: z
    .object({
      from: z.string(),
      /** The user's own file or device, over which the disk is a thin layer. */
      inPlace: z.object({ path: z.string(), sha256: z.string(), size: z.number(), mtimeMs: z.number() }).optional(),
      /** What it had to be, by digests and the publisher's keys. */
      checks: z
        .object({
          digests: z.record(z.string(), z.string()),
          imageDigests: z.record(z.string(), z.string()),
          keyring: z.string().optional(),
        })
        .optional(),
    })
    .optional(),
  /** Of one that was built: what was asked for. */
  request: z
    .object({
      suite: z.string(),
      architecture: z.string(),
      size: z.string().optional(),
      profile: z.enum(['fast', 'plain']).optional(),
      kernelFlavour: z.enum(['cloud', 'generic']).optional(),
      include: z.array(z.string()).optional(),
      mirror: z.string().optional(),
      overlay: z.string().optional(),
      hooks: z.string().optional(),
      name: z.string().optional(),
    })
    .optional(),
});
type BaseRecord = z.infer<typeof recordSchema>;

/**
 * The base image for `request`: an existing one of the same recipe, else a new one.
 * @throws UserError `unknown-suite`, `mirror-unknown`, `unshare-unavailable`; ToolError when a program fails
 */
export async function buildBase(context: Context, request: BaseRequest): Promise<Base> {
  const job = await planJob(context, request);
  const { digest } = job;
  if (!request.force) {
    const found = (await listBases(context)).findLast((base) => base.recipe === digest);
    if (found) return reuse(context, found);
  }
  using _lock = await lockBases(context, 'the build of a base image', BUILD_TIMEOUT_MS);
  await removeLeftovers(context, basesDirOf(context));
  if (!request.force) {
    // another process may have built it while this one waited
    const found = (await listBases(context)).findLast((base) => base.recipe === digest);
    if (found) return reuse(context, found);
  }
  return build(context, job);
}

interface Job extends RootJob {
  readonly digest: string;
  readonly request: BaseRequest;
}

async function planJob(context: Context, request: BaseRequest, kind: 'base' | 'disk' = 'base'): Promise<Job> {
  const architecture = request.architecture ?? debArch(machine());
  const sources = await debianSources(context, request.suite, request.mirror);
  const { name = 'debian', overlay, hooks, proxy, fromStage } = request;
  const { codename: suite } = suiteFacts(request.suite);
  const custom: Customization = { name, suite, architecture, overlay, hooks };
  const parts = await customizationParts(custom);
  const kernel = request.kernelFlavour;
  const recipe = planRecipe({ ...request, architecture, customization: customizationDigest(parts), kernel }, sources);
  const stages = planStages(recipe, kind, parts);
  return { recipe, digest: recipeDigest(recipe), custom, stages, fromStage, proxy, request };
}

/**
 * Makes the root file system of `request` and hands it to `body`; it is gone afterwards, unless something failed.
 * @throws as `buildBase` does
 */
export async function withRoot<T>(
  context: Context,
  request: BaseRequest,
  body: (shop: Workshop) => Promise<T>,
): Promise<T> {
  const job = await planJob(context, request, 'disk');
  using _lock = await lockBases(context, 'the build of a base image', BUILD_TIMEOUT_MS);
  const basesDir = basesDirOf(context);
  await removeLeftovers(context, basesDir);
  return await withWorkshop(context, basesDir, job, body);
}

/** Removes what dead and failed builds left, unless one is under way. @returns what it was, in words */
export async function collectBaseGarbage(context: Context): Promise<string[]> {
  const basesDir = basesDirOf(context);
  if (!(await exists(basesDir))) return [];
  try {
    using _lock = await lockBases(context, 'the base images', 0);
    const halfMade = await removeLeftovers(context, basesDir);
    const kept = await removeKept(context, basesDir);
    return [...Array.from({ length: halfMade }, () => 'a half-made base image'), ...kept];
  } catch (error) {
    if (error instanceof UserError && error.code === 'locked') return [];
    throw error;
  }
}

function reuse(context: Context, base: Base): Base {
  context.log.detail(`base image ${base.id} of ${base.created.slice(0, 10)} is reused (${formatBytes(base.size)})`);
  return base;
}

function basesDirOf(context: Context): string {
  return join(context.stateDir, 'vm', 'bases');
}

function lockBases(context: Context, what: string, waitMs: number): Promise<Lock> {
  return lock(join(basesDirOf(context), '.lock'), { what, waitMs, signal: context.signal });
}

async function build(context: Context, job: Job): Promise<Base> {
  const { recipe, digest } = job;
  const basesDir = basesDirOf(context);
  return withWorkshop(context, basesDir, job, async (shop) => {
    const made = join(shop.scratch, 'base');
    await mkdir(made);
    const written = await context.log.step('Write the disk', () => writeImage(context, recipe, shop, made));
    const id = await freeId(context, recipe.suite, digest);
    const { mtimeMs, size } = await stat(join(made, 'disk.qcow2'));
    const record: BaseRecord = {
      format: 1,
      id,
      suite: recipe.suite,
      architecture: recipe.architecture,
      recipe: digest,
      packages: [...recipe.packages],
      sha256: await digestFile(join(made, 'disk.qcow2'), 'sha256'),
      ...written,
      virtualSize: recipe.sizeBytes,
      stamp: { size, mtimeMs },
      created: context.now().toISOString(),
      request: wishesOf(job),
    };
    await writeFileAtomic(join(made, PACKAGE_LIST), await installedPackages(shop.root));
    await copyFile(shop.logFile, join(made, 'build.log'));
    await writeFileAtomic(join(made, 'base.json'), `${JSON.stringify(record, undefined, 2)}\n`);
    const dir = join(basesDir, id);
    await rename(made, dir);
    await syncFolder(basesDir);
    return toBase(dir, record, size, false);
  });
}

/** What is left of a request when it is done again at another time. */
function wishesOf({ recipe, request }: Job): NonNullable<BaseRecord['request']> {
  const { size, profile, kernelFlavour, include, mirror, overlay, hooks, name } = request;
  const wishes = { size, profile, kernelFlavour, include, mirror, overlay, hooks, name };
  const given = Object.fromEntries(Object.entries(wishes).filter(([, value]) => value !== undefined));
  return { ...given, suite: recipe.suite, architecture: recipe.architecture };
}

/** `NAME VERSION` of each package of a root, sorted. */
async function installedPackages(root: string): Promise<string> {
  const status = parseControl(await readFile(join(root, 'var/lib/dpkg/status'), 'utf8'));
  const lines = status
    .filter((one) => getField(one, 'Status')?.endsWith(' installed'))
    .map((one) => `${getField(one, 'Package')} ${getField(one, 'Version')}\n`);
  return lines.sort().join('');
}

async function freeId(context: Context, suite: string, digest: string): Promise<string> {
  const plain = `${suite}-${digest.slice(0, 12)}`;
  for (let count = 2, id = plain; ; count += 1) {
    if (!(await exists(join(basesDirOf(context), id)))) return id;
    id = `${plain}.${count}`;
  }
}

/** What an image from elsewhere is, once its disk lies in the scratch folder. */
export interface AdoptedBase {
  readonly suite: string;
  readonly architecture: string;
  readonly virtualSize: number;
  readonly inPlace: { readonly path: string; readonly sha256: string } | undefined;
  readonly checks: NonNullable<BaseRecord['source']>['checks'];
}

/**
 * Makes a base of a disk that `body` puts at `SCRATCH/disk.qcow2`.
 * @param replace a base of that id may be there: the new one takes its place, unless it is the same
 * @throws UserError `base-exists` when `id` is another base
 */
export async function adoptBase(
  context: Context,
  id: string,
  from: string,
  body: (scratch: string) => Promise<AdoptedBase>,
  replace = false,
): Promise<Base> {
  using _lock = await lockBases(context, 'the making of a base image', BUILD_TIMEOUT_MS);
  await removeLeftovers(context, basesDirOf(context));
  const dir = join(basesDirOf(context), id);
  const there = (await listBases(context)).find((base) => base.id === id);
  if (there?.source === from && !replace) return there;
  if (!(there && replace) && (await exists(dir))) {
    throw new UserError(
      'base-exists',
      `there is a base '${id}' already${there?.source ? ` (from ${there.source})` : ''}`,
      {
        hint: `choose another name with --name, or remove it: buildkit vm base remove ${id}`,
      },
    );
  }
  const scratch = await newScratch(basesDirOf(context), id);
  try {
    const { inPlace, checks, ...made } = await body(scratch);
    const disk = join(scratch, 'disk.qcow2');
    await chmod(disk, 0o444);
    const { mtimeMs, size } = await stat(disk);
    const unknown = { recipe: '', packages: [], kernelRelease: '', rootUuid: '', tinyInitrd: false };
    const below = inPlace ? { inPlace: { ...inPlace, ...(await stampOf(inPlace.path)) } } : {};
    const source = { from, ...below, ...(checks ? { checks } : {}) };
    const record: BaseRecord = {
      ...{ format: 1, id, ...made, ...unknown, source, stamp: { size, mtimeMs } },
      sha256: await digestFile(disk, 'sha256'),
      created: context.now().toISOString(),
    };
    if (there?.sha256 === record.sha256 && below.inPlace?.sha256 === (await readRecord(dir))?.source?.inPlace?.sha256) {
      return there;
    }
    await writeFileAtomic(join(scratch, 'base.json'), `${JSON.stringify(record, undefined, 2)}\n`);
    if (there) await putAside(context, dir);
    await rename(scratch, dir);
    await syncFolder(basesDirOf(context));
    return toBase(dir, record, size, false);
  } finally {
    await removeTree(context, scratch);
    await removeLeftovers(context, basesDirOf(context));
  }
}

/** Takes a base out of the list; a killed process leaves the old one in its place, or the new one. */
async function putAside(context: Context, dir: string): Promise<void> {
  const aside = await newScratch(basesDirOf(context), 'replaced');
  await noteRestore(aside, dir);
  await rename(dir, join(aside, ASIDE));
}

async function stampOf(path: string): Promise<{ size: number; mtimeMs: number }> {
  const { size, mtimeMs } = await stat(path);
  return { size, mtimeMs };
}

/** How a base came about, so that it can be made again as its source is now; undefined: it was not noted. */
export type BaseOrigin =
  | { readonly kind: 'built'; readonly request: BaseRequest }
  | { readonly kind: 'fetched'; readonly from: string; readonly checks: AdoptedBase['checks'] };

export async function originOf(base: Base): Promise<BaseOrigin | undefined> {
  const record = await readRecord(base.dir);
  if (record?.source) return { kind: 'fetched', from: record.source.from, checks: record.source.checks };
  return record?.request ? { kind: 'built', request: record.request } : undefined;
}

/** Version of each package in a base that was built; empty where it was not noted. */
export async function packagesOf(base: Base): Promise<ReadonlyMap<string, string>> {
  const lines = ((await readIfThere(join(base.dir, PACKAGE_LIST))) ?? '').split('\n').filter(Boolean);
  return new Map(lines.map((line) => line.split(' ', 2) as [string, string]));
}

/** All finished bases, oldest first. */
export async function listBases(context: Context): Promise<Base[]> {
  const names = await namesIn(basesDirOf(context));
  const bases: Base[] = [];
  for (const name of names.filter((one) => !one.startsWith('.'))) {
    const dir = join(basesDirOf(context), name);
    const record = await readRecord(dir);
    if (record) bases.push(toBase(dir, record, (await stat(join(dir, 'disk.qcow2'))).size, true));
  }
  return bases.sort((a, b) => (a.created < b.created ? -1 : 1));
}

async function readRecord(dir: string): Promise<BaseRecord | undefined> {
  let text: string;
  try {
    text = await readFile(join(dir, 'base.json'), 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return undefined;
    throw error;
  }
  try {
    return recordSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new UserError('base-damaged', `the record of base image '${dir}' cannot be read`, {
      file: join(dir, 'base.json'),
      hint: `remove the folder, then build the base anew`,
      cause,
    });
  }
}

function toBase(dir: string, record: BaseRecord, size: number, reused: boolean): Base {
  const { id, suite, architecture, sha256, kernelRelease, rootUuid, virtualSize, created, recipe } = record;
  return {
    ...{ id, suite, architecture, sha256, kernelRelease, rootUuid, virtualSize, created, recipe, dir, size, reused },
    disk: join(dir, 'disk.qcow2'),
    kernel: join(dir, 'vmlinuz'),
    initrd: join(dir, 'initrd.img'),
    tinyInitrd: record.tinyInitrd ? join(dir, TINY_INITRD) : undefined,
    logFile: join(dir, 'build.log'),
    bootsItself: record.source !== undefined,
    source: record.source?.from,
  };
}

/**
 * A base by its id or, for a suite, the newest of it.
 * @throws UserError `base-unknown`
 */
export async function findBase(context: Context, idOrSuite: string): Promise<Base> {
  const bases = await listBases(context);
  const found =
    bases.find((base) => base.id === idOrSuite) ??
    bases.findLast((base) => base.suite === suiteFactsOrNothing(idOrSuite));
  if (found) return found;
  throw new UserError('base-unknown', `there is no base image '${idOrSuite}'`, {
    hint:
      didYouMean(
        idOrSuite,
        bases.map((base) => base.id),
      ) ?? `build it: buildkit vm base build --suite ${idOrSuite}`,
  });
}

function suiteFactsOrNothing(suite: string): string | undefined {
  try {
    return suiteFacts(suite).codename;
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}

/**
 * Checks that the base still has the bytes that an overlay was made for (the stale-disk trap).
 * @throws UserError `base-changed`
 */
export async function verifyBase(context: Context, id: string, sha256: string): Promise<Base> {
  const base = await findBase(context, id);
  const record = await readRecord(base.dir);
  const { size, mtimeMs } = await stat(base.disk);
  const touched = record?.stamp.size !== size || record.stamp.mtimeMs !== mtimeMs;
  const found = touched ? await digestFile(base.disk, 'sha256') : base.sha256;
  if (found === sha256 && (await isUnchanged(record?.source?.inPlace))) return base;
  throw new UserError('base-changed', `base image '${id}' is not the one that this machine's disk was made for`, {
    file: base.disk,
    hint: 'its disk would read as garbage: destroy the machine and create it anew',
  });
}

/** The user's own file below a thin layer; a device keeps no date of its last change, so it is read. */
async function isUnchanged(
  below: { path: string; sha256: string; size: number; mtimeMs: number } | undefined,
): Promise<boolean> {
  if (below === undefined) return true;
  const now = await stat(below.path).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (now?.isFile() && now.size === below.size && now.mtimeMs === below.mtimeMs) return true;
  return now !== undefined && (await digestFile(below.path, 'sha256')) === below.sha256;
}

/**
 * Removes a base that no machine needs; `users` are the machines whose disks lie over it.
 * @throws UserError `base-unknown`, `base-in-use`
 */
export async function removeBase(context: Context, id: string, users: readonly string[]): Promise<Base> {
  const base = await findBase(context, id);
  if (users.length > 0) {
    throw new UserError('base-in-use', `base image '${base.id}' is below the disks of: ${users.join(', ')}`, {
      hint: `destroy them first: ${users.map((name) => `buildkit vm destroy ${name}`).join('; ')}`,
    });
  }
  using _lock = await lockBases(context, 'the base images', 0);
  const aside = await newScratch(basesDirOf(context), 'removed');
  await rename(base.dir, join(aside, ASIDE));
  await rm(aside, { recursive: true, force: true });
  return base;
}
