/**
 * What happened to the suites, and going back: undoing a change, returning to an earlier generation.
 *
 * Secret: going back is a change like any other. Clients refuse a Release older than the one they have, so an old state is
 * published again under a new date.
 */
import { UserError } from '../core/errors.ts';
import type { CatalogPackage, CountedChange, Generation, Member } from './catalog.ts';
import { factsOfMember, findSuite, type PackageFacts, type RepoHandle } from './handle.ts';
import { isInPool } from './pool.ts';

/** The difference between two states of a suite. */
export interface SuiteDifference {
  readonly added: readonly PackageFacts[];
  readonly removed: readonly PackageFacts[];
}

export interface GenerationFacts {
  readonly id: string;
  readonly suite: string;
  /** ISO 8601. */
  readonly date: string;
  /** ISO 8601; undefined: never. */
  readonly validUntil: string | undefined;
  /** Number of the last change in it. */
  readonly change: number;
  readonly pinned: boolean;
  /** What clients see now. */
  readonly current: boolean;
}

export function listChanges(repo: RepoHandle, suiteName: string | undefined, limit: number): CountedChange[] {
  const suite = suiteName === undefined ? undefined : findSuite(repo, suiteName).name;
  return repo.catalog.changes({ suite, limit });
}

/** Newest first. */
export function listGenerations(repo: RepoHandle, suiteName?: string): GenerationFacts[] {
  const suite = suiteName === undefined ? undefined : findSuite(repo, suiteName).name;
  const seen = new Set<string>();
  return repo.catalog.generations(suite).map((generation) => {
    const current = !seen.has(generation.suite);
    seen.add(generation.suite);
    return generationFacts(generation, current);
  });
}

function generationFacts(generation: Generation, current: boolean): GenerationFacts {
  const { id, suite, date, validUntil, change, pinned } = generation;
  const iso = (seconds: number) => new Date(seconds * 1000).toISOString();
  return {
    id,
    suite,
    date: iso(date),
    validUntil: validUntil === undefined ? undefined : iso(validUntil),
    change,
    pinned,
    current,
  };
}

/** @throws UserError `no-such-generation` */
function findGeneration(repo: RepoHandle, suite: string, id: string): Generation {
  const found = repo.catalog.findGeneration(suite, id);
  if (found) return found;
  const latest = repo.catalog.generations(suite).slice(0, 3);
  throw new UserError('no-such-generation', `suite '${suite}' has no generation '${id}'`, {
    hint: latest.length > 0 ? `the latest are ${latest.map((one) => one.id).join(', ')}` : 'nothing was published yet',
  });
}

/** What happened between two generations; without the second: up to now, published or not. */
export function diffGenerations(
  repo: RepoHandle,
  suiteName: string,
  from: string,
  to: string | undefined,
): SuiteDifference {
  const suite = findSuite(repo, suiteName).name;
  const end = to === undefined ? repo.catalog.latestChange() : findGeneration(repo, suite, to).change;
  const before = [...repo.catalog.membersAt(suite, findGeneration(repo, suite, from).change)];
  return difference(before, [...repo.catalog.membersAt(suite, end)]);
}

function keyOf(member: Member): string {
  return `${member.suite} ${member.component} ${member.package.id}`;
}

function difference(before: readonly Member[], after: readonly Member[]): SuiteDifference {
  const { added, removed } = memberDifference(before, after);
  return { added: added.map(factsOfMember), removed: removed.map(factsOfMember) };
}

/** Pure: which members came and which went. */
export function memberDifference(
  before: readonly Member[],
  after: readonly Member[],
): { readonly added: Member[]; readonly removed: Member[] } {
  const old = new Set(before.map(keyOf));
  const now = new Set(after.map(keyOf));
  return {
    added: after.filter((member) => !old.has(keyOf(member))),
    removed: before.filter((member) => !now.has(keyOf(member))),
  };
}

export interface ChangeRequest {
  readonly dryRun?: boolean | undefined;
  /** For the history. */
  readonly who?: string | undefined;
}

/**
 * Brings members in and out as one change of the history. The caller holds the write lock, and is in no transaction.
 * Members that are there (or gone) already are passed over.
 */
export function applyDifference(
  repo: RepoHandle,
  wanted: { readonly added: readonly Member[]; readonly removed: readonly Member[] },
  entry: { readonly action: string; readonly detail: unknown },
  request: ChangeRequest,
): SuiteDifference {
  const { catalog, context } = repo;
  return catalog.transaction(() => {
    const isIn = (member: Member) => catalog.isMember(member.suite, member.component, member.package);
    const added = wanted.added.filter((member) => !isIn(member));
    const removed = wanted.removed.filter(isIn);
    for (const { package: item } of added) checkPool(repo, item);
    if (!request.dryRun && added.length + removed.length > 0) {
      const change = catalog.recordChange(context.now(), request.who ?? 'unknown', entry.action, entry.detail);
      for (const member of removed) catalog.removeMember(change, member);
      for (const member of added) catalog.addMember(change, member.suite, member.component, member.package);
    }
    return { added: added.map(factsOfMember), removed: removed.map(factsOfMember) };
  });
}

/** @throws UserError `pool-file-gone` */
function checkPool(repo: RepoHandle, item: CatalogPackage): void {
  if (isInPool(repo.layout.public, item)) return;
  throw new UserError(
    'pool-file-gone',
    `the file of ${item.name} ${item.version} (${item.architecture}) is no longer in the pool`,
    {
      hint: 'add it again: buildkit repo add SUITE FILE',
    },
  );
}

/** Makes a suite what it was in a generation; to be published then. The caller holds the write lock. */
export function rollBack(repo: RepoHandle, suiteName: string, id: string, request: ChangeRequest): SuiteDifference {
  const suite = findSuite(repo, suiteName).name;
  const { change } = findGeneration(repo, suite, id);
  const now = [...repo.catalog.members({ suite })];
  const wanted = memberDifference(now, [...repo.catalog.membersAt(suite, change)]);
  return applyDifference(repo, wanted, { action: 'rollback', detail: { suite, generation: id } }, request);
}

/**
 * Takes one change back: what it added goes, what it removed comes again. Later changes stay. The caller holds the write lock.
 * @param id undefined: the latest change
 * @throws UserError `no-such-change`, `nothing-to-undo`
 */
export function undoChange(
  repo: RepoHandle,
  id: number | undefined,
  request: ChangeRequest,
): SuiteDifference & { readonly undone: number } {
  const undone = id ?? repo.catalog.latestChange();
  if (undone === 0) throw new UserError('nothing-to-undo', 'nothing was ever changed here');
  if (repo.catalog.findChange(undone) === undefined) {
    throw new UserError('no-such-change', `the history has no change ${undone}`, {
      hint: 'see: buildkit repo history',
    });
  }
  const effects = repo.catalog.effectsOf(undone);
  const entry = { action: 'undo', detail: { change: undone } };
  const done = applyDifference(repo, { added: effects.removed, removed: effects.added }, entry, request);
  if (done.added.length + done.removed.length === 0) {
    throw new UserError('nothing-to-undo', `nothing is left of change ${undone}`, {
      hint: 'see: buildkit repo history',
    });
  }
  return { ...done, undone };
}

/** Keeps a generation for ever, or no longer. */
export function pinGeneration(repo: RepoHandle, suiteName: string, id: string, pinned: boolean): GenerationFacts {
  const suite = findSuite(repo, suiteName).name;
  const generation = findGeneration(repo, suite, id);
  repo.catalog.transaction(() => repo.catalog.pinGeneration(suite, id, pinned));
  return generationFacts({ ...generation, pinned }, repo.catalog.currentGeneration(suite)?.id === id);
}
