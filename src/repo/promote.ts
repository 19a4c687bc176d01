/**
 * The same bytes in another suite: copy, move, promote.
 *
 * Secret: what "promote" does to what is there already. Copy only adds; move also takes out of the first suite; promote makes
 * the chosen names in the second suite what they are in the first, older versions gone, so that dev, uat, staging and live say
 * the same. Each is one change of the history, and can be undone.
 */
import { type Problem, ProblemsError, UserError } from '../core/errors.ts';
import type { Member } from './catalog.ts';
import { type BasePackages, checkClosure } from './closure.ts';
import { findSuite, type RepoHandle } from './handle.ts';
import { applyDifference, type ChangeRequest, memberDifference, type SuiteDifference } from './history.ts';
import type { PackageFilter } from './query.ts';
import type { SuiteSettings } from './settings.ts';

export type TransferVerb = 'copy' | 'move' | 'promote';

export interface TransferRequest extends ChangeRequest {
  readonly from: string;
  readonly to: string;
  /** Which packages of `from`; default: all. */
  readonly filter?: PackageFilter | undefined;
  /** Into this component instead of the one of the same name. */
  readonly component?: string | undefined;
  /** What the distribution has: dependencies met by nothing are problems then, not only those met in `from` alone. */
  readonly base?: BasePackages | undefined;
  /** Goes on in spite of problems. */
  readonly force?: boolean | undefined;
}

export interface TransferResult extends SuiteDifference {
  readonly problems: readonly Problem[];
}

/**
 * Transfers packages between suites. The caller holds the write lock.
 * @throws UserError `nothing-chosen`, `wrong-architecture`, `no-such-component`, `not-installable`; nothing is changed then
 */
export function transfer(repo: RepoHandle, verb: TransferVerb, request: TransferRequest): TransferResult {
  const from = findSuite(repo, request.from);
  const to = findSuite(repo, request.to);
  if (from.name === to.name) throw new UserError('same-suite', `'${from.name}' and '${to.name}' are one suite`);
  const source = [...repo.catalog.members({ suite: from.name })];
  const target = [...repo.catalog.members({ suite: to.name })];
  const chosen = source.filter((member) => request.filter?.(member) ?? true);
  if (chosen.length === 0) {
    throw new UserError('nothing-chosen', `no package of suite '${from.name}' is meant`, {
      hint: `see: buildkit repo list ${from.name}`,
    });
  }
  const arriving = chosen.map((member) => placeIn(to, member, request.component));
  const leaving = [...(verb === 'promote' ? replacedBy(arriving, target) : []), ...(verb === 'move' ? chosen : [])];
  const after = [...target, ...memberDifference(target, arriving).added].filter((member) => !leaving.includes(member));
  const problems = checkClosure({
    suite: after.map((member) => member.package),
    checked: arriving.map((member) => member.package),
    architectures: to.architectures,
    base: request.base,
    elsewhere: source.map((member) => member.package),
  });
  if (problems.length > 0 && !request.force && !request.dryRun) {
    throw new ProblemsError('not-installable', `what would be in '${to.name}' cannot all be installed`, problems, {
      hint: 'transfer what is needed too, or go on in spite of it with --force; nothing was changed',
    });
  }
  const entry = { action: verb, detail: { from: from.name, to: to.name } };
  return { ...applyDifference(repo, { added: arriving, removed: leaving }, entry, request), problems };
}

function placeIn(suite: SuiteSettings, member: Member, wanted: string | undefined): Member {
  const component = wanted ?? member.component;
  if (!suite.components.includes(component)) {
    throw new UserError('no-such-component', `suite '${suite.name}' has no component '${component}'`, {
      hint: `choose one of ${suite.components.join(', ')} with --component`,
    });
  }
  const { architecture, name } = member.package;
  if (architecture !== 'all' && !suite.architectures.includes(architecture)) {
    throw new UserError('wrong-architecture', `suite '${suite.name}' has no architecture '${architecture}' (${name})`, {
      hint: `it has ${suite.architectures.join(', ')}`,
    });
  }
  return { suite: suite.name, component, package: member.package };
}

/** Other packages of the names that arrive, in the same component. */
function replacedBy(arriving: readonly Member[], target: readonly Member[]): Member[] {
  const nameOf = (member: Member) => `${member.component} ${member.package.kind} ${member.package.name}`;
  const names = new Set(arriving.map(nameOf));
  const kept = new Set(arriving.map((member) => `${member.component} ${member.package.id}`));
  return target.filter((member) => names.has(nameOf(member)) && !kept.has(`${member.component} ${member.package.id}`));
}
