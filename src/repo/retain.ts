/**
 * Old versions out of a suite.
 *
 * Secret: which versions may go. The newest of each name stay, and whatever a staying package asks for by exact version
 * (`Depends: lib (= 1.0)`), so that nothing that stays becomes uninstallable. Files stay for generations that name them.
 */
import { getField, parseParagraph } from '../deb/control.ts';
import { indexCandidates, parseRelations, satisfiers } from '../deb/relation.ts';
import { compareVersions } from '../deb/version.ts';
import type { Member } from './catalog.ts';
import { findSuite, type RepoHandle } from './handle.ts';
import { applyDifference, type ChangeRequest, type SuiteDifference } from './history.ts';

export interface RetainRequest extends ChangeRequest {
  /** Versions of each name and architecture that stay, newest first. */
  readonly keep: number;
  /** Only what came into the suite longer ago than this goes. */
  readonly olderThanDays?: number | undefined;
  /** Counts versions of the source instead: all packages of one source version stay or go together. */
  readonly bySource?: boolean | undefined;
}

/** Takes old versions out of a suite. The caller holds the write lock. */
export function retain(repo: RepoHandle, suiteName: string, request: RetainRequest): SuiteDifference {
  const suite = findSuite(repo, suiteName).name;
  const members = [...repo.catalog.members({ suite })];
  const dates = repo.catalog.memberDates(suite);
  const limit = repo.context.now().getTime() - (request.olderThanDays ?? 0) * 86_400_000;
  const isOld = (member: Member) => Date.parse(dates.get(member.package.id) ?? '') <= limit;
  const removed = planRetention(members, request).filter(isOld);
  const stays = neededExactly(members, removed);
  const detail = { suite, keep: request.keep };
  return applyDifference(
    repo,
    { added: [], removed: removed.filter((member) => !stays.has(member)) },
    { action: 'retain', detail },
    request,
  );
}

/** What is beyond the newest `keep` of its group. Pure. */
export function planRetention(members: readonly Member[], request: Pick<RetainRequest, 'keep' | 'bySource'>): Member[] {
  const groupOf = ({ component, package: item }: Member) =>
    request.bySource ? `${component} ${item.source}` : `${component} ${item.kind} ${item.name} ${item.architecture}`;
  const versionOf = ({ package: item }: Member) =>
    request.bySource ? sourceVersionOf(item.control, item.version) : item.version;
  return [...Map.groupBy(members, groupOf).values()].flatMap((group) => {
    const versions = [...new Set(group.map(versionOf))].sort((a, b) => compareVersions(b, a));
    const kept = new Set(versions.slice(0, request.keep));
    return group.filter((member) => !kept.has(versionOf(member)));
  });
}

/** `Source: name (version)`, else the version of the package. */
function sourceVersionOf(control: string, version: string): string {
  return /^Source: \S+ \(([^)]+)\)$/m.exec(control)?.[1] ?? version;
}

/** Those of `removed` that something which stays asks for by exact version, also at second hand. */
function neededExactly(members: readonly Member[], removed: readonly Member[]): ReadonlySet<Member> {
  const going = new Set(removed);
  const stays = new Set<Member>();
  if (going.size === 0) return stays;
  const index = indexCandidates([...going].map((member) => ({ ...candidateOf(member), member })));
  const queue = members.filter((member) => !going.has(member));
  for (let member = queue.pop(); member; member = queue.pop()) {
    for (const relation of exactRelations(member)) {
      for (const found of satisfiers(relation, index)) {
        const { member: needed } = found as typeof found & { member: Member };
        if (stays.has(needed)) continue;
        stays.add(needed);
        queue.push(needed);
      }
    }
  }
  return stays;
}

function candidateOf({ package: item }: Member) {
  const provides = /^Provides:/im.test(item.control) ? getField(parseParagraph(item.control), 'Provides') : undefined;
  return { name: item.name, version: item.version, architecture: item.architecture, provides };
}

function exactRelations({ package: item }: Member) {
  if (!/\(\s*=/.test(item.control)) return [];
  const stanza = parseParagraph(item.control);
  return ['Pre-Depends', 'Depends']
    .flatMap((name) => parseRelations(getField(stanza, name) ?? ''))
    .flat()
    .filter((relation) => relation.version?.operator === '=');
}
