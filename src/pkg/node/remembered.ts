/**
 * Plans of npm trees, remembered: for ever where a lock says the same thing for ever, else as long as pip keeps a page of its index.
 *
 * Secret: what makes two questions the same one, and that a remembered plan is only resolved again when a package of it must be made.
 */
import { join } from 'node:path';
import type { Context } from '../../core/context.ts';
import { UserError } from '../../core/errors.ts';
import { digestFile, exists } from '../../core/files.ts';
import { cachedValue, keepValue, keyOf } from '../cache.ts';
import type { PackageJob } from '../job.ts';
import { projectChanges } from '../project-changelog.ts';
import { sourceDate } from '../source-date.ts';
import type { NodeBuild, NodeBuildOptions, NodeInput } from './builder.ts';
import { readNpmOptions } from './npmrc.ts';
import { digestTree } from './project.ts';
import { neededSiblings } from './workspaces.ts';

const FRESH_MS = 10 * 60 * 1000;

interface Kept {
  readonly at: number;
  readonly author: string | undefined;
  readonly maintainer: string;
  readonly jobs: readonly (Omit<PackageJob, 'make'> & { readonly key: string })[];
  readonly warnings: readonly string[];
  readonly table: NodeBuild['table'];
  readonly edges: NodeBuild['edges'];
}

/** The plan for a question that was answered already, or what `prepare` gives, which is then remembered. */
export async function rememberNode(
  context: Context,
  input: NodeInput,
  options: NodeBuildOptions,
  prepare: () => Promise<NodeBuild>,
): Promise<NodeBuild> {
  const { refresh, maintainer: _, ...plain } = options;
  const folder = input.kind === 'project' ? input.folder : undefined;
  const question = keyOf([plain, input, await contentOf(context, input), await readNpmOptions(context, folder)]);
  const kept = refresh ? undefined : ((await cachedValue(context, 'npm-plans', question)) as Kept | undefined);
  if (kept !== undefined && (await isGood(context, kept, input, options))) return fromKept(kept, prepare);
  const build = await prepare();
  const jobs = build.jobs.flatMap(({ make: __, key, ...job }) => (key === undefined ? [] : [{ ...job, key }]));
  if (jobs.length === build.jobs.length) {
    const { warnings, edges, author, table } = build;
    const value = { at: context.now().getTime(), author, maintainer: build.maintainer, jobs, warnings, edges, table };
    await keepValue(context, 'npm-plans', question, value satisfies Kept);
  }
  return build;
}

/** With date and tags: a later commit of the same content is another package. */
async function contentOf(context: Context, input: NodeInput): Promise<string | undefined> {
  if (input.kind === 'project') {
    const siblings = [...(await neededSiblings(input.folder)).values()];
    const contents = await Promise.all([input.folder, ...siblings].map(digestTree));
    const past = await projectChanges(context, input.folder, { name: 'any', version: '' });
    return keyOf([...contents, await sourceDate(context, input.folder), past]);
  }
  return input.spec.startsWith('/') ? digestFile(input.spec, 'sha256') : undefined;
}

async function isGood(context: Context, kept: Kept, input: NodeInput, options: NodeBuildOptions): Promise<boolean> {
  if ((await options.maintainer(kept.author)) !== kept.maintainer) return false;
  const age = context.now().getTime() - kept.at;
  if (age >= 0 && age < FRESH_MS) return true;
  const { deps, present } = options.policy ?? {};
  const asksSuite = deps === 'auto' || deps === 'distro' || Boolean(present?.length);
  return !asksSuite && input.kind === 'project' && (await hasLock(input.folder));
}

async function hasLock(folder: string): Promise<boolean> {
  return (await exists(join(folder, 'package-lock.json'))) || (await exists(join(folder, 'npm-shrinkwrap.json')));
}

function fromKept(kept: Kept, prepare: () => Promise<NodeBuild>): NodeBuild {
  let fresh: Promise<NodeBuild> | undefined;
  const jobs = kept.jobs.map(
    (job): PackageJob => ({
      ...job,
      async make() {
        fresh ??= prepare();
        const same = (await fresh).jobs.find((one) => one.name === job.name);
        if (same?.key === job.key) return same.make();
        throw new UserError('npm-moved', `what '${job.name}' needs has changed in the registry since it was planned`, {
          hint: 'run the command again with --refresh',
        });
      },
    }),
  );
  return {
    ...kept,
    jobs,
    async [Symbol.asyncDispose]() {
      await (await fresh?.catch(() => undefined))?.[Symbol.asyncDispose]();
    },
  };
}
