/** Where a source is built: in a clone of its suite's root, or on this machine. `auto` says which, and why. */
import type { Context } from '../../core/context.ts';
import { UserError } from '../../core/errors.ts';
import { type BuildRoot, createRoot, findRoot, type RootRequest, whyNoRoots } from './root.ts';

export type Isolation = 'auto' | 'root' | 'host';

export type Place =
  | { readonly kind: 'root'; readonly id: string; readonly root: BuildRoot }
  | { readonly kind: 'host'; readonly id: 'host' };

const HOST: Place = { kind: 'host', id: 'host' };

/**
 * @param whenMissing what `auto` does where there is no root yet but could be one
 * @throws UserError `root-rights` when a root is wanted and cannot be
 */
export async function choosePlace(
  context: Context,
  isolation: Isolation,
  request: RootRequest,
  whenMissing: 'make' | 'host',
): Promise<Place> {
  if (isolation === 'host') return HOST;
  const found = await findRoot(context, request.suite, request.architecture);
  if (found) return inRoot(found);
  const problem = await whyNoRoots(context);
  if (isolation === 'root' || (problem === undefined && whenMissing === 'make')) {
    if (problem) throw new UserError('root-rights', `no build root: ${problem.reason}`, { hint: problem.hint });
    return inRoot((await createRoot(context, request)).root);
  }
  context.log.detail(`built on this machine: ${problem?.reason ?? `there is no build root of ${request.suite}`}`);
  return HOST;
}

/** Whether `choosePlace` would choose a root, and the id of the one that is there already. Makes nothing. */
export async function expectPlace(
  context: Context,
  isolation: Isolation,
  request: RootRequest,
  whenMissing: 'make' | 'host',
): Promise<{ readonly kind: Place['kind']; readonly id: string | undefined }> {
  if (isolation === 'host') return HOST;
  const found = await findRoot(context, request.suite, request.architecture);
  if (found) return { kind: 'root', id: found.id };
  if (isolation === 'root') return { kind: 'root', id: undefined };
  const makes = whenMissing === 'make' && (await whyNoRoots(context)) === undefined;
  return makes ? { kind: 'root', id: undefined } : HOST;
}

function inRoot(root: BuildRoot): Place {
  return { kind: 'root', id: root.id, root };
}
