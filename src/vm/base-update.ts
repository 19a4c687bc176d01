/**
 * A base as its suite or its source is now.
 *
 * Secret: that nothing changes below a machine's disk: a built base is made anew beside the old one, which goes only when no
 * machine lies over it; a fetched one keeps its name, so it is replaced whole, and only when no machine does.
 */
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import {
  type Base,
  type BaseOrigin,
  type BaseRequest,
  buildBase,
  findBase,
  originOf,
  packagesOf,
  removeBase,
} from './base.ts';
import { fetchBase } from './fetch-base.ts';

export interface UpdateOptions {
  /** Names of the machines whose disks lie over a base. */
  readonly usersOf: (id: string) => Promise<readonly string[]>;
  /** URL of an apt proxy for the build. */
  readonly proxy?: string | undefined;
  readonly fromStage?: BaseRequest['fromStage'];
}

export interface PackageChange {
  readonly name: string;
  /** Absent: it is new. */
  readonly from?: string | undefined;
  /** Absent: it is gone. */
  readonly to?: string | undefined;
}

export interface BaseUpdate {
  /** The base as it is now. */
  readonly base: Base;
  /** Id of the one that was there. */
  readonly former: string;
  /** There was nothing newer: `base` is the former one. */
  readonly unchanged: boolean;
  /** Machines for which the former one stays. */
  readonly users: readonly string[];
  /** Of a built base. */
  readonly packages: readonly PackageChange[];
}

/**
 * @param name id of a base, or a suite for its newest one
 * @throws UserError `base-unknown`, `base-no-recipe`, `base-in-use`, `base-pinned`, and as `buildBase` and `fetchBase` do
 */
export async function updateBase(context: Context, name: string, options: UpdateOptions): Promise<BaseUpdate> {
  const base = await findBase(context, name);
  const origin = await originOf(base);
  if (origin === undefined) {
    throw new UserError('base-no-recipe', `of base '${base.id}' is not known how it was made`, {
      hint: `build it anew: buildkit vm base build --suite ${base.suite} --force`,
    });
  }
  if (origin.kind === 'built') return rebuild(context, base, origin.request, options);
  return refetch(context, base, origin, options);
}

async function rebuild(
  context: Context,
  former: Base,
  request: BaseRequest,
  { usersOf, proxy, fromStage }: UpdateOptions,
): Promise<BaseUpdate> {
  const made = await buildBase(context, { ...request, proxy, fromStage, force: true });
  const packages = comparePackages(await packagesOf(former), await packagesOf(made));
  // a hook may have fetched what no list of packages shows
  if (packages.length === 0 && made.recipe === former.recipe && request.hooks === undefined) {
    await removeBase(context, made.id, []);
    return { base: former, former: former.id, unchanged: true, users: [], packages };
  }
  const users = await usersOf(former.id);
  if (users.length === 0) await removeBase(context, former.id, []);
  return { base: made, former: former.id, unchanged: false, users, packages };
}

/** What differs, by name. Pure. */
export function comparePackages(
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
): PackageChange[] {
  return [...new Set([...before.keys(), ...after.keys()])]
    .sort()
    .map((name) => ({ name, from: before.get(name), to: after.get(name) }))
    .filter(({ from, to }) => from !== to);
}

async function refetch(
  context: Context,
  former: Base,
  { from, checks }: Extract<BaseOrigin, { readonly kind: 'fetched' }>,
  { usersOf }: UpdateOptions,
): Promise<BaseUpdate> {
  const { id, suite, architecture } = former;
  const pinned = Object.keys({ ...checks?.digests, ...checks?.imageDigests });
  if (pinned.length > 0) {
    throw new UserError(
      'base-pinned',
      `base '${id}' was fetched with its ${pinned.join(' and ')}: nothing newer can match`,
      {
        hint: `fetch the newer image with its own digest and another name: buildkit vm base fetch ${from} --name NAME`,
      },
    );
  }
  const users = await usersOf(id);
  if (users.length > 0) {
    throw new UserError('base-in-use', `base '${id}' is below the disks of: ${users.join(', ')}`, {
      hint: `fetch the newer image beside it: buildkit vm base fetch ${from} --name NAME`,
    });
  }
  const base = await fetchBase(context, {
    ...{ source: from, cwd: '/', name: id, suite, architecture, replace: true },
    ...{ digests: {}, imageDigests: {}, keyring: checks?.keyring },
  });
  return { base, former: id, unchanged: base.reused, users: [], packages: [] };
}

/** In a sentence, for people. */
export function describeUpdate({ base, former, unchanged, users, packages }: BaseUpdate): string {
  if (unchanged) return `${former} is as new as its source`;
  const some = packages.slice(0, 5).map(({ name, from, to }) => `  ${name} ${from ?? '(new)'} -> ${to ?? '(gone)'}`);
  const more = packages.length > some.length ? [`  and ${packages.length - some.length} more`] : [];
  const count = packages.length === 0 ? '' : ` (${packages.length} packages changed)`;
  const old =
    base.id === former ? [] : [users.length > 0 ? `${former} stays for: ${users.join(', ')}` : `removed: ${former}`];
  return [`updated: ${base.id}${count}`, ...some, ...more, ...old].join('\n');
}
