/**
 * Whether what a suite holds can be installed from it.
 *
 * Secret: what counts as a dependency of the distribution below. A repository seldom holds everything; what is not in it is
 * taken to come from the distribution, unless the caller names what that distribution has. Ruled by Policy 7.2.
 */
import type { Problem } from '../core/errors.ts';
import { getField, type Paragraph, parseParagraph } from '../deb/control.ts';
import {
  type Candidate,
  formatRelation,
  indexCandidates,
  parseRelations,
  type RelationGroup,
  reduceRelations,
  unsatisfied,
} from '../deb/relation.ts';

/** Packages from elsewhere that dependencies may be met by: stanzas of a Packages index. */
export type BasePackages = readonly Paragraph[];

interface Known extends Candidate {
  readonly id: string;
  readonly needs: readonly string[];
}

function knownOf(stanza: Paragraph): Known {
  const field = (name: string) => getField(stanza, name);
  const name = field('Package') ?? '';
  const version = field('Version') ?? '';
  const architecture = field('Architecture') ?? '';
  return {
    id: `${name}_${version}_${architecture}`,
    name,
    version,
    architecture,
    multiArch: field('Multi-Arch'),
    provides: field('Provides'),
    needs: ['Pre-Depends', 'Depends'].flatMap((relation) => field(relation) ?? []),
  };
}

/** A package as it is asked about: a catalogued one, or a stanza of somebody's index. */
export interface ClosurePackage {
  readonly kind: string;
  readonly name: string;
  readonly control?: string;
  readonly stanza?: Paragraph;
}

export interface ClosureRequest {
  /** What will be in the suite. */
  readonly suite: readonly ClosurePackage[];
  /** Whose dependencies are asked about; default: all of `suite`. */
  readonly checked?: readonly ClosurePackage[] | undefined;
  readonly architectures: readonly string[];
  /** All that the distribution has; undefined: unknown, and trusted for every name that `elsewhere` does not have. */
  readonly base?: BasePackages | undefined;
  /** Packages that are known but not in the suite: a dependency on one of these cannot be met by the distribution. */
  readonly elsewhere?: readonly ClosurePackage[] | undefined;
}

/** Dependencies that nothing meets, for each architecture of the suite. */
export function checkClosure(request: ClosureRequest): Problem[] {
  const parse = (item: ClosurePackage) => knownOf(item.stanza ?? parseParagraph(item.control ?? ''));
  const suite = request.suite.filter((item) => item.kind === 'deb').map(parse);
  const checked = request.checked?.filter((item) => item.kind === 'deb').map(parse) ?? suite;
  const base = request.base?.map(knownOf);
  const elsewhere = new Set(request.elsewhere?.map((item) => item.name));
  const problems = new Map<string, Problem>();
  for (const architecture of request.architectures) {
    const fits = (item: Candidate) => item.architecture === architecture || item.architecture === 'all';
    const index = indexCandidates([...suite, ...(base ?? [])].filter(fits));
    for (const item of checked.filter(fits)) {
      for (const group of missing(item, index, architecture)) {
        // a name that no part of this repository knows is left to the distribution
        if (base === undefined && !group.every((relation) => elsewhere.has(relation.name) || index.has(relation.name)))
          continue;
        const relation = group.map(formatRelation).join(' | ');
        problems.set(`${item.id} ${relation}`, {
          code: 'unmet-dependency',
          message: `${item.name} ${item.version} (${item.architecture}) needs ${relation}, which nothing there meets`,
          subject: item.name,
        });
      }
    }
  }
  return [...problems.values()];
}

function missing(item: Known, index: ReturnType<typeof indexCandidates>, architecture: string): RelationGroup[] {
  return item.needs.flatMap((text) => {
    const groups = reduceRelations(parseRelations(text), { architecture });
    return unsatisfied(groups, index, { architecture });
  });
}
