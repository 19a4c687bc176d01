/** Who asks for whom within a suite (Policy 7.2). */
import { UserError } from '../core/errors.ts';
import { getField } from '../deb/control.ts';
import {
  type CandidateIndex,
  formatRelation,
  indexCandidates,
  parseRelations,
  type RelationGroup,
  satisfiers,
} from '../deb/relation.ts';
import type { Member } from './catalog.ts';
import { stanzaOf } from './query.ts';

export interface Dependency {
  readonly package: string;
  readonly version: string;
  /** 'Depends', 'Recommends', ... */
  readonly field: string;
  /** Alternatives joined by ' | '. */
  readonly relation: string;
  /** Packages of the suite that meet it, as name=version. */
  readonly metBy: readonly string[];
}

const FIELDS = ['Pre-Depends', 'Depends', 'Recommends', 'Suggests'] as const;

function indexOf(members: readonly Member[]): CandidateIndex {
  return indexCandidates(
    members.map((member) => {
      const { name, version, architecture } = member.package;
      return { name, version, architecture, provides: getField(stanzaOf(member), 'Provides') };
    }),
  );
}

function* relationsOf(member: Member): Generator<{ field: string; group: RelationGroup }> {
  const stanza = stanzaOf(member);
  for (const field of FIELDS) {
    for (const group of parseRelations(getField(stanza, field) ?? '')) yield { field, group };
  }
}

function describe(member: Member, field: string, group: RelationGroup, index: CandidateIndex): Dependency {
  const found = group.flatMap((relation) => satisfiers(relation, index));
  return {
    package: member.package.name,
    version: member.package.version,
    field,
    relation: group.map(formatRelation).join(' | '),
    metBy: [...new Set(found.map((candidate) => `${candidate.name}=${candidate.version}`))],
  };
}

/** @throws UserError `no-such-package` */
export function dependencies(members: readonly Member[], name: string): Dependency[] {
  const index = indexOf(members);
  const named = members.filter((member) => member.package.name === name);
  if (named.length === 0) throw new UserError('no-such-package', `the suite has no package '${name}'`);
  return named.flatMap((member) =>
    [...relationsOf(member)].map(({ field, group }) => describe(member, field, group, index)),
  );
}

/** Packages that ask for `name`, or for something that it provides. */
export function reverseDependencies(members: readonly Member[], name: string): Dependency[] {
  const index = indexOf(members.filter((member) => member.package.name === name));
  const found: Dependency[] = [];
  for (const member of members) {
    for (const { field, group } of relationsOf(member)) {
      const isMeant = group.some((relation) => relation.name === name || satisfiers(relation, index).length > 0);
      if (isMeant) found.push(describe(member, field, group, index));
    }
  }
  return found;
}
