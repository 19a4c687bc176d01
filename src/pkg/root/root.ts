/**
 * Build roots: one small Debian for each suite and architecture, made once by mmdebstrap, then read only below every clone.
 *
 * Secret: the folder of roots (`STATE/roots/ID`: tree, root.json, log), made aside and renamed in one step. The id holds the
 * digest of its sources and of every package and version in it: another state of the mirror is another root.
 */
import { createHash, randomUUID } from 'node:crypto';
import { chmod, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { machine, userInfo } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import type { Context } from '../../core/context.ts';
import { type Lock, lock } from '../../core/db.ts';
import { errnoOf, ToolError, UserError } from '../../core/errors.ts';
import { exists, syncFolder, writeFileAtomic } from '../../core/files.ts';
import { didYouMean } from '../../core/nearest.ts';
import { hasProgram, run } from '../../core/run.ts';
import { debArch } from '../../deb/arch.ts';
import { debianSources } from '../../deb/mirror.ts';
import { type AptSource, formatSource } from '../../deb/sources.ts';
import { suiteFacts } from '../../deb/suites.ts';
import { asOwner, BUILDER, type Rights, runInside } from './enter.ts';
import { refuseForeign } from './foreign.ts';

/** Raised when roots are made in another way. */
const FORMAT = 1;
const BUILDING = '.building-';
const BUILD_TIMEOUT_MS = 30 * 60_000;

const recordSchema = z.object({
  format: z.literal(FORMAT),
  id: z.string(),
  suite: z.string(),
  architecture: z.string(),
  /** What apt in it reads, as deb822 text. */
  sources: z.string(),
  /** NAME=VERSION of everything in it, sorted. */
  packages: z.array(z.string()),
  created: z.string(),
  /** How a build gets its own: overlayfs where the kernel lets us, else by copying. */
  clone: z.enum(['overlay', 'copy']),
  rights: z.enum(['root', 'user']),
});

export interface BuildRoot extends z.infer<typeof recordSchema> {
  readonly dir: string;
}

export interface RootRequest {
  /** Codename. */
  readonly suite: string;
  /** Debian's name; default: this machine's. */
  readonly architecture?: string | undefined;
  /** URL; default: the mirrors in this machine's apt configuration. */
  readonly mirror?: string | undefined;
  /** URL of an apt proxy; default: that of this machine's apt. Nothing of it stays in the root. */
  readonly proxy?: string | undefined;
}

export function rootsDir(context: Context): string {
  return join(context.stateDir, 'roots');
}

/** The root of a suite and architecture, made when there is none. @throws as `updateRoot` does */
export async function createRoot(context: Context, request: RootRequest): Promise<{ root: BuildRoot; made: boolean }> {
  const found = await findRoot(context, request.suite, request.architecture);
  if (found) return { root: found, made: false };
  using _lock = await lockRoots(context);
  // another process may have made it while this one waited
  const other = await findRoot(context, request.suite, request.architecture);
  if (other) return { root: other, made: false };
  return { root: await build(context, request), made: true };
}

/**
 * Makes the root anew from what the mirror has now. The one before goes as soon as nobody builds in it.
 * @throws UserError `unknown-suite`, `mirror-unknown`, `root-rights`; ToolError when a program fails
 */
export async function updateRoot(context: Context, request: RootRequest): Promise<{ root: BuildRoot; made: boolean }> {
  using _lock = await lockRoots(context);
  const before = await findRoot(context, request.suite, request.architecture);
  const root = await build(context, request);
  return { root, made: root.id !== before?.id };
}

/** The newest root for a suite; undefined when there is none. */
export async function findRoot(
  context: Context,
  suite: string,
  architecture = debArch(machine()),
): Promise<BuildRoot | undefined> {
  const { codename } = suiteFacts(suite);
  const fits = (one: BuildRoot) => one.suite === codename && one.architecture === architecture;
  return (await listRoots(context)).findLast(fits);
}

/** All roots, the oldest first. */
export async function listRoots(context: Context): Promise<BuildRoot[]> {
  const dir = rootsDir(context);
  const roots: BuildRoot[] = [];
  for (const name of await namesIn(dir)) {
    if (name.startsWith('.') || name === 'clones') continue;
    const read = recordSchema.safeParse(await readRecord(join(dir, name, 'root.json')));
    if (read.success) roots.push({ ...read.data, dir: join(dir, name) });
  }
  return roots.sort((a, b) => (a.created < b.created ? -1 : 1));
}

/** @throws UserError `no-such-root` */
export async function getRoot(context: Context, word: string): Promise<BuildRoot> {
  const roots = await listRoots(context);
  const found = roots.findLast((one) => [one.id, `${one.suite}-${one.architecture}`, one.suite].includes(word));
  if (found) return found;
  const known = roots.map((one) => one.id);
  throw new UserError('no-such-root', `there is no build root '${word}'`, {
    hint:
      didYouMean(word, known) ??
      (known.length > 0 ? `there are: ${known.join(', ')}` : 'make one: buildkit pkg root create'),
  });
}

/** Deletes a root that nobody builds in. @param inUse ids of roots that live clones stand on */
export async function removeRoot(context: Context, root: BuildRoot, inUse: ReadonlySet<string>): Promise<void> {
  using _lock = await lockRoots(context);
  if (inUse.has(root.id)) {
    throw new UserError('root-in-use', `a build is under way in '${root.id}'`, { hint: 'wait until it has finished' });
  }
  await dropRoot(context, root);
}

/** What was replaced and is not built in any more. Only with the lock held. */
export async function dropReplaced(context: Context, inUse: ReadonlySet<string>): Promise<void> {
  const roots = await listRoots(context);
  const newest = new Map(roots.map((one) => [`${one.suite} ${one.architecture}`, one.id]));
  for (const root of roots) {
    if (newest.get(`${root.suite} ${root.architecture}`) === root.id || inUse.has(root.id)) continue;
    await dropRoot(context, root);
  }
}

async function dropRoot(context: Context, root: BuildRoot): Promise<void> {
  const aside = join(rootsDir(context), `${BUILDING}${root.id}-${randomUUID().slice(0, 8)}`);
  await rename(root.dir, aside); // half of a root must never look like one
  await removeTree(context, root.rights, aside);
}

export function lockRoots(context: Context): Promise<Lock> {
  return lock(join(rootsDir(context), '.lock'), {
    what: 'the folder of build roots',
    waitMs: BUILD_TIMEOUT_MS,
    signal: context.signal,
  });
}

/** What a killed command left. Only with the lock held: then nobody is making a root. */
export async function removeLeftovers(context: Context): Promise<void> {
  const dir = rootsDir(context);
  for (const name of await namesIn(dir)) {
    if (name.startsWith(BUILDING)) await removeTree(context, await ownRights(context), join(dir, name));
  }
}

/** Deletes files that may belong to ids of a user namespace. */
export async function removeTree(context: Context, rights: Rights, path: string): Promise<void> {
  if (rights === 'root') return await rm(path, { recursive: true, force: true, maxRetries: 3 });
  const [program = '', ...args] = asOwner(rights, ['rm', '-rf', '--one-file-system', '--', path]);
  await run({ ...context, signal: AbortSignal.timeout(BUILD_TIMEOUT_MS) }, program, args);
}

/**
 * Why no root can be made or entered here; undefined: it can.
 */
export async function whyNoRoots(context: Context): Promise<{ reason: string; hint: string } | undefined> {
  if (!(await hasProgram(context, 'mmdebstrap'))) {
    return { reason: 'mmdebstrap is not installed', hint: 'apt-get install mmdebstrap' };
  }
  if (!(await hasProgram(context, 'ip'))) {
    return { reason: 'there is no program ip', hint: 'apt-get install iproute2' };
  }
  if (userInfo().uid === 0) return undefined;
  const { username, uid } = userInfo();
  const subordinate = await readFile('/etc/subuid', 'utf8').catch(() => '');
  const hasRange = subordinate.split('\n').some((line) => [username, String(uid)].includes(line.split(':', 1)[0]!));
  if (hasRange && (await hasProgram(context, 'newuidmap'))) return undefined;
  return {
    reason: 'you are not root and have no user namespace of your own',
    hint: `as root once: apt-get install uidmap && usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${username}`,
  };
}

async function ownRights(context: Context): Promise<Rights> {
  if (userInfo().uid === 0) return 'root';
  const problem = await whyNoRoots(context);
  if (problem) throw new UserError('root-rights', `no build root: ${problem.reason}`, { hint: problem.hint });
  return 'user';
}

/** Only with the lock held. */
async function build(context: Context, request: RootRequest): Promise<BuildRoot> {
  const { codename: suite } = suiteFacts(request.suite);
  const architecture = request.architecture ?? debArch(machine());
  const sources = await debianSources(context, suite, request.mirror);
  refuseLocal(sources);
  await refuseForeign(architecture);
  const rights = await ownRights(context);
  await mkdir(rootsDir(context), { recursive: true });
  await removeLeftovers(context);
  const scratch = join(rootsDir(context), `${BUILDING}${suite}-${architecture}-${randomUUID().slice(0, 8)}`);
  const logFile = join(rootsDir(context), `${suite}-${architecture}.log`);
  await mkdir(scratch);
  await rm(logFile, { force: true });
  try {
    await context.log.step(`Make the build root of ${suite} (${architecture})`, () =>
      bootstrap(context, { suite, architecture, sources, rights, scratch, logFile, request }),
    );
    const clone = await chooseClone(context, rights, scratch);
    const packages = await packagesIn(scratch);
    const text = sources.map(formatSource).join('\n');
    const digest = createHash('sha256')
      .update(JSON.stringify([FORMAT, text, packages]))
      .digest('hex');
    const id = `${suite}-${architecture}-${digest.slice(0, 12)}`;
    const dir = join(rootsDir(context), id);
    const [record] = [
      {
        format: FORMAT,
        id,
        suite,
        architecture,
        sources: text,
        packages,
        created: context.now().toISOString(),
        clone,
        rights,
      },
    ] as const;
    await writeFileAtomic(join(scratch, 'root.json'), `${JSON.stringify(record, undefined, 1)}\n`);
    await rm(logFile, { force: true });
    if (await exists(join(dir, 'root.json'))) {
      // the mirror has nothing new: only the day is noted
      await rename(join(scratch, 'root.json'), join(dir, 'root.json'));
    } else {
      await rename(scratch, dir);
      await syncFolder(rootsDir(context));
    }
    return { ...record, dir };
  } finally {
    await removeTree(context, rights, scratch);
  }
}

/** What apt inside could not reach. */
function refuseLocal(sources: readonly AptSource[]): void {
  const local = sources.flatMap((one) => one.uris).find((uri) => !/^https?:/.test(uri));
  if (local === undefined) return;
  throw new UserError('mirror-unknown', `a build root cannot read '${local}'`, {
    hint: 'name a mirror that is served over HTTP: --mirror URL',
  });
}

interface Bootstrap {
  readonly suite: string;
  readonly architecture: string;
  readonly sources: readonly AptSource[];
  readonly rights: Rights;
  readonly scratch: string;
  readonly logFile: string;
  readonly request: RootRequest;
}

async function bootstrap(context: Context, job: Bootstrap): Promise<void> {
  const { scratch, logFile, rights } = job;
  const hook = join(scratch, 'hook.sh');
  const sources = join(scratch, 'build.sources');
  await writeFile(hook, HOOK, { mode: 0o755 });
  await writeFile(sources, job.sources.map(formatSource).join('\n'));
  const argv = bootstrapArgs(job, { tree: join(scratch, 'tree'), hook, sources });
  // mounts of a killed mmdebstrap go with its namespace
  const namespaces = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const [program = '', ...args] = asOwner(rights, [...namespaces, ...argv]);
  const proxy = job.request.proxy ?? (await aptProxy(context));
  try {
    await run(context, program, args, {
      logFile,
      timeoutMs: BUILD_TIMEOUT_MS,
      env: { TMPDIR: scratch, ...(proxy === undefined ? {} : { http_proxy: proxy }) },
    });
  } catch (error) {
    throw error instanceof ToolError ? noBootstrap(error, job) : error;
  }
  await rm(hook);
  await rm(sources);
  // mmdebstrap removes its own at the end, whoever wrote it
  const policy = join(scratch, 'tree/usr/sbin/policy-rc.d');
  await writeFile(policy, '#!/bin/sh\nexit 101\n');
  await chmod(policy, 0o755);
}

function noBootstrap(error: ToolError, { suite, architecture, logFile }: Bootstrap): ToolError {
  const said = error.stderrTail
    .split('\n')
    .filter((line) => /^[EW]: |rror/.test(line))
    .slice(0, 6);
  const what = `mmdebstrap makes no build root of ${suite} for ${architecture}:\n`;
  return new ToolError(error.code, what + said.map((line) => `  ${line}`).join('\n'), {
    command: error.command,
    stderrTail: error.stderrTail,
    status: error.status,
    logFile,
    hint: `the whole log: ${logFile}`,
    cause: error,
  });
}

/** `mmdebstrap ...`, as root or as root of a user namespace. Pure. */
export function bootstrapArgs(
  job: Pick<Bootstrap, 'suite' | 'architecture' | 'sources'>,
  places: { readonly tree: string; readonly hook: string; readonly sources: string },
): string[] {
  const https = job.sources.some((one) => one.uris.some((uri) => uri.startsWith('https:')));
  return [
    ...['mmdebstrap', '--mode=root', '--variant=buildd', '--format=directory'],
    `--architectures=${job.architecture}`,
    `--include=${['fakeroot', ...(https ? ['ca-certificates'] : [])].join(',')}`,
    // Build-Depends of the first build need no apt-get update
    '--skip=cleanup/apt/lists',
    '--skip=output/dev',
    `--customize-hook=${places.hook}`,
    ...[job.suite, places.tree, places.sources],
  ];
}

/** Nobody writes to a root but clones; dpkg need not be safe against a loss of power there. */
const HOOK = `#!/bin/sh
set -eu
umask 022
cd "$1"
printf 'force-unsafe-io\\n' >etc/dpkg/dpkg.cfg.d/buildkit
printf 'APT::Install-Recommends "false";\\nAPT::Keep-Downloaded-Packages "false";\\nAcquire::Languages "none";\\n' >etc/apt/apt.conf.d/90buildkit
printf '127.0.0.1 localhost buildkit\\n::1 localhost\\n' >etc/hosts
printf 'buildkit\\n' >etc/hostname
rm -f etc/resolv.conf
: >etc/resolv.conf
printf '${BUILDER.name}:x:${BUILDER.id}:${BUILDER.id}::/nonexistent:/bin/sh\\n' >>etc/passwd
printf '${BUILDER.name}:x:${BUILDER.id}:\\n' >>etc/group
mkdir -p build
`;

/** A proxy that this machine's apt uses. */
export async function aptProxy(context: Context): Promise<string | undefined> {
  try {
    const { stdout } = await run(context, 'apt-config', ['shell', 'PROXY', 'Acquire::http::Proxy']);
    const url = /^PROXY='(.*)'$/m.exec(stdout)?.[1];
    return url === undefined || !/^https?:\/\//.test(url) ? undefined : url;
  } catch (error) {
    if (error instanceof ToolError) return undefined;
    throw error;
  }
}

async function chooseClone(context: Context, rights: Rights, scratch: string): Promise<'overlay' | 'copy'> {
  const parts = ['upper', 'work', 'root', 'build'].map((name) => join(scratch, 'probe', name));
  for (const part of parts) await mkdir(part, { recursive: true });
  try {
    await runInside(
      context,
      { rights, rootsDir: scratch, clone: 'probe', lowers: ['tree'] },
      { user: 'root', script: ': >/build/x; rm /etc/hostname; : >/etc/probe' },
    );
    return 'overlay';
  } catch (error) {
    if (!(error instanceof ToolError)) throw error;
    context.log.detail(`no overlay here, clones are copies: ${error.stderrTail.trim()}`);
    return 'copy';
  } finally {
    await removeTree(context, rights, join(scratch, 'probe'));
  }
}

async function packagesIn(scratch: string): Promise<string[]> {
  const status = await readFile(join(scratch, 'tree/var/lib/dpkg/status'), 'utf8');
  return status
    .split(/\n\n+/)
    .flatMap((entry) => {
      const name = /^Package: (.*)$/m.exec(entry)?.[1];
      const version = /^Version: (.*)$/m.exec(entry)?.[1];
      return name === undefined || version === undefined ? [] : [`${name}=${version}`];
    })
    .sort();
}

async function namesIn(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

async function readRecord(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch {
    return undefined; // half a folder, or another's
  }
}
