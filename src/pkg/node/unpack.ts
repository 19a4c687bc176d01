/**
 * A resolved tree as files: every module fetched, looked through and unpacked below its folder of node_modules.
 *
 * Secret: pacote (sole user of it), and in which order and how many at once: npm itself starts all of a tree together, which takes
 * memory with its size. A tarball is unpacked only when all of it has been looked through, and only if it is the same one then.
 */
import { createHash } from 'node:crypto';
import { chmod, mkdir, symlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import pLimit from 'p-limit';
import type { Context, RunContext } from '../../core/context.ts';
import { errnoOf } from '../../core/errors.ts';
import { printable } from '../../core/log.ts';
import { type NodeModule, resolveTree } from './arborist.ts';
import { checkOut, type GitSource, preparations } from './git-source.ts';
import { isAllowed, runScripts, type ScriptRequest } from './install-scripts.ts';
import { programsOf } from './manifest.ts';
import { clientOptions, guarded, type TreeRequest } from './npm-client.ts';
import { inspectTarball } from './tarball.ts';
import { hostTarget } from './target.ts';

const FETCHES_AT_ONCE = 8;

/**
 * Unpacks everything below the folder of the request.
 * @param scripts who may run `prepare`, for packages from git
 * @returns warnings
 * @throws UserError `unsafe-tarball`, `broken-tarball`, `install-script`; RemoteError
 */
export async function unpackTree(
  context: Context,
  request: TreeRequest,
  modules: readonly NodeModule[],
  scripts: ScriptRequest,
): Promise<string[]> {
  const wanted = modules.filter((one) => one.source !== undefined);
  const warnings: string[] = [];
  let done = 0;
  const unpackOne = async (module: NodeModule) => {
    context.signal.throwIfAborted();
    const folder = join(request.folder, module.location);
    const { source } = module;
    if (source?.kind === 'tarball') await unpackTarball(context, request, module, source.spec, folder);
    else if (source?.kind === 'folder') await packFolder(context, request, source.path, folder);
    else if (source !== undefined) warnings.push(...(await unpackCommit(context, request, module, source, scripts)));
    done += 1;
    context.log.progress('npm packages', done, wanted.length);
  };
  // a package is emptied before it is filled: those inside of it come later
  for (const [, level] of [...Map.groupBy(wanted, depthOf)].sort(([a], [b]) => a - b)) {
    await guarded(context, request, () => allOrFirstError(level, unpackOne));
  }
  await linkPrograms(request.folder, modules);
  return warnings.sort();
}

/** Starts no more when one fails, but waits for those under way: whoever removes the folder must not find others still writing into it. */
async function allOrFirstError<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const limit = pLimit(FETCHES_AT_ONCE);
  let failure: { readonly reason: unknown } | undefined;
  const one = async (item: T) => {
    try {
      if (failure === undefined) await work(item);
    } catch (reason) {
      failure ??= { reason };
    }
  };
  await Promise.all(items.map((item) => limit(() => one(item))));
  if (failure !== undefined) throw failure.reason;
}

function depthOf({ location }: NodeModule): number {
  return location.split('/node_modules/').length;
}

/**
 * Copies what `npm pack` would take of a folder into `target`. No script runs.
 * @throws UserError `npm-input`
 */
export async function packFolder(
  context: RunContext,
  request: TreeRequest,
  folder: string,
  target: string,
): Promise<void> {
  const [{ default: Arborist }, { default: pacote }] = await Promise.all([
    import('@npmcli/arborist'),
    import('pacote'),
  ]);
  const options = { ...clientOptions(context, request), Arborist };
  await guarded(context, request, () => pacote.extract(`file:${folder}`, target, options));
}

async function unpackTarball(
  context: RunContext,
  request: TreeRequest,
  module: NodeModule,
  spec: string,
  folder: string,
): Promise<void> {
  const { default: pacote } = await import('pacote');
  const known = module.integrity === undefined ? {} : { integrity: module.integrity };
  const options = { ...clientOptions(context, request), ...known };
  const name = `${module.name}@${module.version}`;
  const seen = await pacote.tarball.stream(
    spec,
    async (stream) => {
      const digest = createHash('sha512');
      await inspectTarball(digested(stream as AsyncIterable<Uint8Array>, digest), name);
      return `sha512-${digest.digest('base64')}`;
    },
    options,
  );
  await pacote.extract(spec, folder, { ...options, integrity: module.integrity ?? seen });
}

async function* digested(
  stream: AsyncIterable<Uint8Array>,
  digest: ReturnType<typeof createHash>,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    digest.update(chunk);
    yield chunk;
  }
}

/** As npm does with packages from git: what `prepare` makes belongs to the package. */
async function unpackCommit(
  context: Context,
  request: TreeRequest,
  module: NodeModule,
  source: GitSource,
  scripts: ScriptRequest,
): Promise<string[]> {
  const clone = join(dirname(request.folder), 'git', source.commit, module.name);
  const folder = await checkOut(context, source, clone);
  const steps = await preparations(folder);
  const shown = printable(`${module.name}@${module.version}`);
  const target = join(request.folder, module.location);
  if (steps.length === 0 || !isAllowed(scripts.policy, module)) {
    await packFolder(context, request, folder, target);
    if (steps.length === 0) return [];
    const commands = steps.map(([event, command]) => `${event}: ${printable(command.slice(0, 100))}`).join('; ');
    return [`'${shown}' comes from git and was not prepared (${commands}); allow it by name if it needs that`];
  }
  await context.log.step(`Prepare ${shown}`, async () => {
    // its tools run here, whatever the target is
    const tools: TreeRequest = { ...request, folder, add: [], target: hostTarget(), dev: true };
    const here = { ...scripts, folder, target: tools.target };
    await unpackTree(context, tools, await resolveTree(context, tools), here);
    await runScripts(context, here, { ...module, location: '' }, steps, false);
  });
  await packFolder(context, request, folder, target);
  return [];
}

/** `node_modules/.bin`: scripts start programs by these. */
async function linkPrograms(root: string, modules: readonly NodeModule[]): Promise<void> {
  for (const { name, location, manifest } of modules) {
    if (location === '') continue;
    const bin = join(root, location.slice(0, location.length - name.length - 1), '.bin');
    for (const [command, path] of programsOf(name, manifest)) {
      const program = join(root, location, path);
      const link = join(bin, command);
      await mkdir(bin, { recursive: true });
      try {
        await chmod(program, 0o755);
        await symlink(relative(bin, program), link);
      } catch (error) {
        // not in the tarball, or another package was first, as with npm
        if (!['ENOENT', 'ENOTDIR', 'EEXIST'].includes(errnoOf(error) ?? '')) throw error;
      }
    }
  }
}
