/**
 * Base images: built once by mmdebstrap, then read only below every machine's own overlay.
 *
 * Secret: the folder of a base (`STATE/vm/bases/ID`: disk, kernel, initrd, log, `base.json`), made aside and renamed in one step.
 */
import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { chmod, copyFile, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { machine, userInfo } from 'node:os';
import { dirname, extname, join } from 'node:path';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { type Lock, lock } from '../core/db.ts';
import { errnoOf, ToolError, UserError } from '../core/errors.ts';
import { digestFile, exists, syncFolder, writeFileAtomic } from '../core/files.ts';
import { formatBytes } from '../core/log.ts';
import { didYouMean } from '../core/nearest.ts';
import { hasProgram, run } from '../core/run.ts';
import { debArch } from '../deb/arch.ts';
import type { StoredCompression } from '../deb/compression.ts';
import { decompress } from '../deb/decompression.ts';
import { debianSources } from '../deb/mirror.ts';
import { suiteFacts } from '../deb/suites.ts';
import {
  type BaseRecipe,
  chooseKernel,
  type KernelFlavour,
  mke2fsArgs,
  mmdebstrapArgs,
  planRecipe,
  recipeDigest,
  sourcesFile,
} from './base-plan.ts';
import { type Customization, customizationDigest, prepareCustomization, withStage } from './customize.ts';
import { type BootProfile, customizeHook } from './guest.ts';
import { type InitrdModule, moduleName, planModules, tinyInitrd } from './tiny-initrd.ts';

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
}

const TINY_INITRD = 'initrd-tiny.img';
const BUILDING = '.building-';
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
  await removeLeftovers(context);
  if (!request.force) {
    // another process may have built it while this one waited
    const found = (await listBases(context)).findLast((base) => base.recipe === digest);
    if (found) return reuse(context, found);
  }
  return build(context, job);
}

/** What is to be built, and with what help that leaves no trace in it. */
interface Job {
  readonly recipe: BaseRecipe;
  readonly digest: string;
  readonly custom: Customization;
  readonly proxy: string | undefined;
}

async function planJob(context: Context, request: BaseRequest): Promise<Job> {
  const architecture = request.architecture ?? debArch(machine());
  const sources = await debianSources(context, request.suite, request.mirror);
  const { name = 'debian', overlay, hooks, proxy } = request;
  const { codename: suite } = suiteFacts(request.suite);
  const custom: Customization = { name, suite, architecture, overlay, hooks };
  const customization = await customizationDigest(custom);
  const kernel = request.kernelFlavour;
  const recipe = planRecipe({ ...request, architecture, customization, kernel }, sources);
  return { recipe, digest: recipeDigest(recipe), custom, proxy };
}

/**
 * Makes the root file system of `request` and hands it to `body`; it is gone afterwards, whatever happens.
 * @throws as `buildBase` does
 */
export async function withRoot<T>(
  context: Context,
  request: BaseRequest,
  body: (shop: Workshop) => Promise<T>,
): Promise<T> {
  const job = await planJob(context, request);
  using _lock = await lockBases(context, 'the build of a base image', BUILD_TIMEOUT_MS);
  await mkdir(basesDir(context), { recursive: true });
  await removeLeftovers(context);
  return await inWorkshop(context, job, body);
}

function reuse(context: Context, base: ListedBase): Base {
  context.log.detail(`base image ${base.id} of ${base.created.slice(0, 10)} is reused (${formatBytes(base.size)})`);
  return base;
}

function basesDir(context: Context): string {
  return join(context.stateDir, 'vm', 'bases');
}

function lockBases(context: Context, what: string, waitMs: number): Promise<Lock> {
  return lock(join(basesDir(context), '.lock'), { what, waitMs, signal: context.signal });
}

/** What a killed build left behind. Only with the lock held: then nobody is building. */
async function removeLeftovers(context: Context): Promise<void> {
  const names = await readdir(basesDir(context));
  for (const name of names.filter((one) => one.startsWith(BUILDING))) {
    await removeTree(context, join(basesDir(context), name));
  }
}

async function build(context: Context, job: Job): Promise<Base> {
  const { recipe, digest } = job;
  return inWorkshop(context, job, async (shop) => {
    const { scratch } = shop;
    const made = await context.log.step('Write the disk', () => writeDisk(context, recipe, shop));
    await removeTree(context, shop.root);
    const id = await freeId(context, recipe.suite, digest);
    const { mtimeMs, size } = await stat(join(scratch, 'disk.qcow2'));
    const record: BaseRecord = {
      format: 1,
      id,
      suite: recipe.suite,
      architecture: recipe.architecture,
      recipe: digest,
      packages: [...recipe.packages],
      sha256: await digestFile(join(scratch, 'disk.qcow2'), 'sha256'),
      ...made,
      virtualSize: recipe.sizeBytes,
      stamp: { size, mtimeMs },
      created: context.now().toISOString(),
    };
    await copyFile(shop.logFile, join(scratch, 'build.log'));
    await writeFileAtomic(join(scratch, 'base.json'), `${JSON.stringify(record, undefined, 2)}\n`);
    const dir = join(basesDir(context), id);
    await rename(scratch, dir);
    await syncFolder(basesDir(context));
    return toBase(dir, record, size, false);
  });
}

/** A scratch folder with the root file system in it, which is removed at the end; the log stays when something failed. */
async function inWorkshop<T>(context: Context, job: Job, body: (shop: Workshop) => Promise<T>): Promise<T> {
  const { recipe, digest } = job;
  const scratch = join(basesDir(context), `${BUILDING}${digest.slice(0, 12)}-${randomUUID().slice(0, 8)}`);
  const logFile = join(basesDir(context), `${recipe.suite}-${digest.slice(0, 12)}.log`);
  await mkdir(scratch, { recursive: true });
  await rm(logFile, { force: true });
  try {
    const builder = await chooseBuilder(context, scratch);
    const shop = { root: join(scratch, 'root'), scratch, logFile, builder };
    await context.log.step(
      `Bootstrap ${recipe.suite} (mmdebstrap, ${recipe.packages.length} packages and what they need)`,
      () => bootstrap(context, job, shop),
    );
    const result = await body(shop);
    await rm(logFile, { force: true });
    return result;
  } catch (error) {
    throw withLog(error, logFile);
  } finally {
    await removeTree(context, scratch);
  }
}

/** Says where the log of the failed build is, which stays. */
function withLog(error: unknown, logFile: string): unknown {
  if (!(error instanceof ToolError) || error.logFile !== undefined) return error;
  const { message, code, hint, command, stderrTail, status, cause } = error;
  return new ToolError(code, message, { hint, command, stderrTail, status, cause, logFile });
}

/** Who may own the files of a root file system. */
interface Builder {
  readonly mode: 'root' | 'unshare';
  /** The command line that runs `argv` as owner of what mmdebstrap makes. */
  wrap(argv: readonly string[]): readonly [program: string, ...args: string[]];
}

/** Root builds as root; others in a user namespace, whose ids newuidmap gives (subuid(5)). */
async function chooseBuilder(context: Context, scratch: string): Promise<Builder> {
  const { uid, username } = userInfo();
  if (uid === 0) return { mode: 'root', wrap: (argv) => argv as [string, ...string[]] };
  const subordinate = await readFile('/etc/subuid', 'utf8').catch(() => '');
  const hasRange = subordinate.split('\n').some((line) => [username, String(uid)].includes(line.split(':', 1)[0]!));
  if (!hasRange || !(await hasProgram(context, 'newuidmap'))) {
    throw new UserError(
      'unshare-unavailable',
      'building a base image without root needs a user namespace of your own',
      {
        hint: `as root once: apt-get install uidmap && usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username}; or build as root and point --state at the result`,
      },
    );
  }
  await refuseClosedFolder(scratch);
  await chmod(scratch, 0o777); // root of the namespace is another user here
  return { mode: 'unshare', wrap: (argv) => ['mmdebstrap', '--unshare-helper', ...argv] };
}

/** Root of the namespace is another user outside: every folder on the way must let others through. */
async function refuseClosedFolder(scratch: string): Promise<void> {
  for (let folder = dirname(scratch); folder !== '/'; folder = dirname(folder)) {
    if (((await stat(folder)).mode & 0o001) !== 0) continue;
    throw new UserError('state-closed', `building without root needs a way into '${folder}' for the user namespace`, {
      hint: `chmod o+x '${folder}', or take a folder that others may enter: --state /var/tmp/buildkit-state`,
    });
  }
}

/** Where an image is being made. */
export interface Workshop {
  readonly root: string;
  readonly scratch: string;
  readonly logFile: string;
  readonly builder: Builder;
}

async function bootstrap(context: Context, { recipe, custom, proxy }: Job, shop: Workshop): Promise<void> {
  const prepared = await prepareCustomization(context, custom, shop.scratch);
  const hookFiles = await writeHooks(shop.scratch, recipe, prepared?.hookFile);
  const sources = join(shop.scratch, 'build.sources');
  await writeFile(sources, sourcesFile(recipe));
  const args = mmdebstrapArgs(recipe, { root: shop.root, hookFiles, sourcesFile: sources }, shop.builder.mode);
  try {
    await run(context, 'mmdebstrap', args, {
      logFile: shop.logFile,
      timeoutMs: BUILD_TIMEOUT_MS,
      // what a kill leaves goes away with the scratch folder
      env: { TMPDIR: shop.scratch, ...(proxy === undefined ? {} : { http_proxy: proxy }) },
      onLine: (line) => {
        const percent = /^\s*\[?[#=>. ]*\]?\s*(\d+)(?:\.\d+)?%?/.exec(line)?.[1];
        if (percent !== undefined && line.includes('%')) context.log.progress('mmdebstrap', Number(percent), 100);
      },
    });
  } catch (error) {
    throw await withStage(error, prepared);
  }
}

/** Our files, then the user's over them, then the traces of both out. */
async function writeHooks(scratch: string, recipe: BaseRecipe, users: string | undefined): Promise<string[]> {
  const [first, last] = [join(scratch, 'hook.sh'), join(scratch, 'traces.sh')];
  await writeFile(first, recipe.hook, { mode: 0o755 });
  if (users === undefined) return [first];
  await writeFile(last, customizeHook([], recipe.profile), { mode: 0o755 });
  return [first, users, last];
}

async function writeDisk(
  context: Context,
  recipe: BaseRecipe,
  shop: Workshop,
): Promise<{ kernelRelease: string; rootUuid: string; tinyInitrd: boolean }> {
  const { root, scratch, builder, logFile } = shop;
  const boot = chooseKernel(await readdir(join(root, 'boot')));
  const as = (argv: readonly string[]) => {
    const [program, ...args] = builder.wrap(argv);
    return run(context, program, args, { logFile, timeoutMs: BUILD_TIMEOUT_MS });
  };
  // the initrd may be readable by its owner alone (umask in initramfs.conf)
  for (const [name, target] of [
    [boot.kernel, 'vmlinuz'],
    [boot.initrd, 'initrd.img'],
  ] as const) {
    await writeFile(join(scratch, target), '', { mode: 0o666 });
    await chmod(join(scratch, target), 0o666);
    await as(['cp', '--no-preserve=all', join(root, 'boot', name), join(scratch, target)]);
    await chmod(join(scratch, target), 0o444);
  }
  const tiny = recipe.profile === 'fast' && recipe.architecture === 'amd64';
  if (tiny) await writeTinyInitrd(context, join(root, 'lib/modules', boot.release), join(scratch, TINY_INITRD));
  const rootUuid = randomUUID();
  const raw = join(scratch, 'disk.raw');
  await writeFile(raw, '');
  await chmod(raw, 0o666);
  await as(['mke2fs', ...mke2fsArgs(root, raw, rootUuid, recipe.sizeBytes)]);
  const disk = join(scratch, 'disk.qcow2');
  await run(context, 'qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, disk], { logFile });
  await rm(raw);
  await chmod(disk, 0o444);
  const handle = await open(disk, 'r');
  await handle.sync();
  await handle.close();
  return { kernelRelease: boot.release, rootUuid, tinyInitrd: tiny };
}

async function writeTinyInitrd(context: Context, folder: string, target: string): Promise<void> {
  const modules: InitrdModule[] = [];
  for (const path of planModules(await readFile(join(folder, 'modules.dep'), 'utf8'))) {
    const file = join(folder, path);
    const compression = { '.xz': 'xz', '.zst': 'zstd', '.gz': 'gzip' }[extname(path)] as StoredCompression | undefined;
    const chunks: Uint8Array[] = [];
    const place = { file, member: path };
    for await (const chunk of decompress(context, compression ?? 'none', createReadStream(file), place))
      chunks.push(chunk);
    modules.push({ name: `${moduleName(path)}.ko`, bytes: Buffer.concat(chunks) });
  }
  await writeFile(target, tinyInitrd(modules), { mode: 0o444 });
}

async function freeId(context: Context, suite: string, digest: string): Promise<string> {
  const plain = `${suite}-${digest.slice(0, 12)}`;
  for (let count = 2, id = plain; ; count += 1) {
    if (!(await exists(join(basesDir(context), id)))) return id;
    id = `${plain}.${count}`;
  }
}

/** Removes a folder whose files may belong to ids of a user namespace. */
async function removeTree(context: Context, path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    if (errnoOf(error) !== 'EACCES' && errnoOf(error) !== 'EPERM') throw error;
    await run({ env: context.env }, 'mmdebstrap', ['--unshare-helper', 'rm', '-rf', '--', path]);
    await rm(path, { recursive: true, force: true });
  }
}

/** What an image from elsewhere is, once its disk lies in the scratch folder. */
export interface AdoptedBase {
  readonly suite: string;
  readonly architecture: string;
  readonly virtualSize: number;
  readonly inPlace: { readonly path: string; readonly sha256: string } | undefined;
}

/**
 * Makes a base of a disk that `body` puts at `SCRATCH/disk.qcow2`.
 * @throws UserError `base-exists` when `id` is another base
 */
export async function adoptBase(
  context: Context,
  id: string,
  from: string,
  body: (scratch: string) => Promise<AdoptedBase>,
): Promise<Base> {
  using _lock = await lockBases(context, 'the making of a base image', BUILD_TIMEOUT_MS);
  await removeLeftovers(context);
  const dir = join(basesDir(context), id);
  const there = (await listBases(context)).find((base) => base.id === id);
  if (there?.source === from) return there;
  if (there || (await exists(dir))) {
    throw new UserError(
      'base-exists',
      `there is a base '${id}' already${there?.source ? ` (from ${there.source})` : ''}`,
      {
        hint: `choose another name with --name, or remove it: buildkit vm base remove ${id}`,
      },
    );
  }
  const scratch = join(basesDir(context), `${BUILDING}${randomUUID()}`);
  await mkdir(scratch, { recursive: true });
  try {
    const { inPlace, ...made } = await body(scratch);
    const disk = join(scratch, 'disk.qcow2');
    await chmod(disk, 0o444);
    const { mtimeMs, size } = await stat(disk);
    const unknown = { recipe: '', packages: [], kernelRelease: '', rootUuid: '', tinyInitrd: false };
    const source = { from, ...(inPlace ? { inPlace: { ...inPlace, ...(await stampOf(inPlace.path)) } } : {}) };
    const record: BaseRecord = {
      ...{ format: 1, id, ...made, ...unknown, source, stamp: { size, mtimeMs } },
      sha256: await digestFile(disk, 'sha256'),
      created: context.now().toISOString(),
    };
    await writeFileAtomic(join(scratch, 'base.json'), `${JSON.stringify(record, undefined, 2)}\n`);
    await rename(scratch, dir);
    await syncFolder(basesDir(context));
    return toBase(dir, record, size, false);
  } finally {
    await removeTree(context, scratch);
  }
}

async function stampOf(path: string): Promise<{ size: number; mtimeMs: number }> {
  const { size, mtimeMs } = await stat(path);
  return { size, mtimeMs };
}

interface ListedBase extends Base {
  /** Digest of the recipe. */
  readonly recipe: string;
}

/** All finished bases, oldest first. */
export async function listBases(context: Context): Promise<ListedBase[]> {
  let names: string[];
  try {
    names = await readdir(basesDir(context));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
  const bases: ListedBase[] = [];
  for (const name of names.filter((one) => !one.startsWith('.'))) {
    const dir = join(basesDir(context), name);
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

function toBase(dir: string, record: BaseRecord, size: number, reused: boolean): ListedBase {
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
  const aside = join(basesDir(context), `${BUILDING}removed-${randomUUID().slice(0, 8)}`);
  await rename(base.dir, aside);
  await rm(aside, { recursive: true, force: true });
  return base;
}
