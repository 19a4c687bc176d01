/**
 * What a suite of a repository has already: a version never goes back, and what has a version keeps its bytes (Policy 3.2.2).
 *
 * Secret: when a new package may stand beside or above a published one. The list is handed over as plain values.
 */
import { type Problem, ProblemsError } from '../core/errors.ts';
import { compareVersions } from '../deb/version.ts';

export interface PublishedPackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly sha256: string;
}

interface NewPackage {
  readonly name: string;
  readonly version: string;
  /** Absent as long as it is not built. */
  readonly architecture?: string | undefined;
  readonly sha256?: string | undefined;
}

/** One for each package that the suite's clients would not get: they have a later version, or this one with other bytes. */
export function versionProblems(wanted: readonly NewPackage[], published: readonly PublishedPackage[]): Problem[] {
  const byName = Map.groupBy(published, (one) => one.name);
  return wanted.flatMap((one) => {
    const there = (byName.get(one.name) ?? []).filter((other) => shareMachines(one.architecture, other.architecture));
    const problem = problemOf(one, there);
    return problem === undefined ? [] : [problem];
  });
}

function shareMachines(mine: string | undefined, other: string): boolean {
  return mine === undefined || mine === 'all' || other === 'all' || mine === other;
}

function problemOf(one: NewPackage, there: readonly PublishedPackage[]): Problem | undefined {
  const same = there.filter((other) => compareVersions(other.version, one.version) === 0);
  // what is there already may be built again, also when later ones came since
  if (same.length > 0) {
    if (one.sha256 === undefined || same.some((other) => other.sha256 === one.sha256)) return undefined;
    return {
      code: 'version-exists',
      message: `'${one.name}' ${one.version} is in the repository with other content`,
      subject: one.name,
      hint: 'what has a version keeps its bytes',
    };
  }
  const newest = there.reduce<PublishedPackage | undefined>(
    (best, other) => (best === undefined || compareVersions(other.version, best.version) > 0 ? other : best),
    undefined,
  );
  if (newest === undefined || compareVersions(one.version, newest.version) > 0) return undefined;
  return {
    code: 'version-goes-back',
    message: `'${one.name}' ${one.version} sorts below ${newest.version}, which the repository has: apt would not take it`,
    subject: one.name,
    hint: `give it a version above ${newest.version}`,
  };
}

/** @throws ProblemsError `version-not-above` */
export function refuseOldVersions(
  wanted: readonly NewPackage[],
  published: readonly PublishedPackage[] | undefined,
): void {
  const problems = published === undefined ? [] : versionProblems(wanted, published);
  if (problems.length === 0) return;
  throw new ProblemsError('version-not-above', 'what the repository has is newer, or other', problems, {
    hint: 'raise the version, or its last part by --packaging-version (pkg.packaging-version in buildkit.yaml)',
  });
}
