/** Package relations on real data, and against dpkg's own Dpkg::Deps. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { readParagraphs } from '../../src/deb/control.ts';
import {
  type Candidate,
  formatRelations,
  indexCandidates,
  parseRelations,
  type Relation,
  type RelationGroup,
  reduceRelations,
  satisfies,
  simplifyRelations,
} from '../../src/deb/relation.ts';
import { openPackagesIndex } from '../support/packages-index.ts';
import { createWorld } from '../support/world.ts';

const RELATION_FIELDS = new Set(
  'Depends Pre-Depends Recommends Suggests Enhances Breaks Conflicts Provides Replaces Built-Using'.split(' '),
);

/**
 * Reads one JSON case a line; prints what Dpkg::Deps makes of it: the reduced list, the simplified one, and whether packages satisfy it.
 */
const DPKG_DEPS = String.raw`
use strict; use warnings;
use JSON::PP;
use Dpkg::Deps;
while (my $line = <STDIN>) {
  my $case = decode_json($line);
  my %options = (host_arch => $case->{architecture}, build_arch => $case->{architecture}, build_profiles => $case->{profiles}, build_dep => 1);
  my $reduced = deps_parse($case->{text}, %options, reduce_restrictions => 1) // die "dpkg cannot parse $case->{text}";
  my $simple = deps_parse($case->{alternatives}, %options) // die;
  $simple->simplify_deps(Dpkg::Deps::KnownFacts->new());
  my $facts = Dpkg::Deps::KnownFacts->new();
  for my $p (@{$case->{packages}}) {
    $facts->add_installed_package($p->{name}, $p->{version}, $p->{architecture}, $p->{multiArch} // 'no');
    for my $provided (@{$p->{provided} // []}) {
      $facts->add_provided_package($provided->{name}, $provided->{version} ? ('=', $provided->{version}) : (undef, undef), $p->{name});
    }
  }
  my $met = $reduced->get_evaluation($facts);
  print encode_json([$reduced->output(), $simple->output(), $reduced->is_empty() || $met ? JSON::PP::true : JSON::PP::false]), "\n";
}
`;

const version = fc.constantFrom('1', '1.0', '1.0-1', '2~', '2', '1:0');
const operator = fc.constantFrom('<<', '<=', '=', '>=', '>>');
const name = fc.constantFrom('a1', 'b2', 'c3', 'virtual');
const relation: fc.Arbitrary<Relation> = fc
  .record({
    name,
    qualifier: fc.option(fc.constantFrom('any', 'native', 'i386'), { freq: 6, nil: undefined }),
    version: fc.option(fc.record({ operator, version }), { nil: undefined }),
    architectures: fc.option(
      fc.constantFrom(['amd64'], ['linux-any', 'hurd-any'], ['!amd64', '!i386'], ['any-arm64'], ['!linux-any']),
      {
        freq: 3,
        nil: undefined,
      },
    ),
    profiles: fc.option(
      fc.constantFrom([['nocheck']], [['!nocheck']], [['!nocheck', 'cross'], ['stage1']], [['stage1'], ['!cross']]),
      {
        freq: 3,
        nil: undefined,
      },
    ),
  })
  .map(
    (made) =>
      Object.fromEntries(Object.entries(made).filter(([, value]) => value !== undefined)) as unknown as Relation,
  );
const groups = fc.array(fc.array(relation, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 4 });

interface Provided {
  readonly name: string;
  readonly version: string | undefined;
}

const packages = fc.uniqueArray(
  fc.record({
    name: fc.constantFrom('a1', 'b2', 'c3'),
    version,
    architecture: fc.constantFrom('amd64', 'amd64', 'all', 'i386'),
    multiArch: fc.constantFrom(undefined, 'same', 'foreign', 'allowed'),
    provided: fc.array(fc.record({ name, version: fc.option(version, { nil: undefined }) }), { maxLength: 2 }),
  }),
  { selector: (each) => each.name, maxLength: 3 },
);

const testCase = fc.record({
  groups,
  architecture: fc.constantFrom('amd64', 'arm64', 'hurd-i386'),
  profiles: fc.subarray(['nocheck', 'cross', 'stage1']),
  packages,
});

/** Dpkg::Deps takes what a package of any architecture provides: those are made ones of every architecture here. */
function candidatesOf(
  made: readonly {
    name: string;
    version: string;
    architecture: string;
    multiArch: string | undefined;
    provided: Provided[];
  }[],
): Candidate[] {
  return made.flatMap(({ provided, ...candidate }) => {
    const provides = provided
      .map((each) => (each.version === undefined ? each.name : `${each.name} (= ${each.version})`))
      .join(', ');
    return [candidate, { name: `${candidate.name}-provider`, version: '1', architecture: 'all', provides }];
  });
}

/** Here Dpkg::Deps is laxer than dpkg itself: it takes `Provides: virtual` for `virtual:any`. */
function asksQualifiedVirtual(each: {
  groups: readonly RelationGroup[];
  packages: readonly { provided: readonly Provided[] }[];
}): boolean {
  const provided = new Set(each.packages.flatMap((made) => made.provided.map((one) => one.name)));
  return each.groups.flat().some((one) => one.qualifier !== undefined && provided.has(one.name));
}

/**
 * What both simplify alike: without restrictions (where dpkg leaves out too much: `a [amd64] | b, a [amd64]` to `a [amd64]`), and
 * alternatives already simplified (which dpkg leaves as they are).
 */
function simpleAlternatives(groups: readonly RelationGroup[]): RelationGroup[] {
  const plain = groups.map((group) => group.map(({ architectures, profiles, ...rest }) => rest));
  return plain.flatMap((group) => simplifyRelations([group]));
}

const inAnyOrder = (list: readonly RelationGroup[]) => list.map((group) => formatRelations([group])).sort();

describe('relations', () => {
  it('reads every relation of a Packages index, and prints it back', { timeout: 300_000 }, async () => {
    await using world = await createWorld();
    await using index = await openPackagesIndex(world.context, world.path);
    let count = 0;
    const wrong: string[] = [];
    for await (const paragraph of readParagraphs(index.stdout)) {
      for (const field of paragraph.fields) {
        if (!RELATION_FIELDS.has(field.name)) continue;
        count += 1;
        const usual = field.value
          .replace(/\s+/g, ' ')
          .replace(/ ?,\s*/g, ', ')
          .replace(/ ?\| ?/g, ' | ')
          .replace(/,? ?$/, '');
        if (formatRelations(parseRelations(field.value)) !== usual) wrong.push(field.value);
      }
    }
    await index.ended;
    expect(wrong).toEqual([]);
    expect(count).toBeGreaterThan(80_000);
  });

  it('reduces, simplifies and solves as Dpkg::Deps', { timeout: 120_000 }, async () => {
    const cases = fc.sample(testCase, { numRuns: 5000, seed: 20_261_121 });
    const input = cases.map((each) => {
      const alternatives = formatRelations(simpleAlternatives(each.groups));
      return `${JSON.stringify({ ...each, text: formatRelations(each.groups), alternatives })}\n`;
    });
    const { stdout } = await run({}, 'perl', ['-e', DPKG_DEPS], { input: input.join('') });
    const answers = stdout.split('\n').slice(0, -1);
    expect(answers).toHaveLength(cases.length);
    let met = 0;
    for (const [number, each] of cases.entries()) {
      const [reduced, simple, satisfied] = JSON.parse(answers[number]!) as [string, string, boolean];
      const ours = reduceRelations(each.groups, each);
      const text = formatRelations(each.groups);
      expect([text, each.architecture, each.profiles, formatRelations(ours)]).toEqual([
        text,
        each.architecture,
        each.profiles,
        reduced,
      ]);
      const simplified = simplifyRelations(simpleAlternatives(each.groups));
      const theirs = parseRelations(simple);
      // they do not see that `a (>= 2) | a (<< 1)` says `a`
      expect([text, inAnyOrder(simplified)]).toEqual([text, inAnyOrder(simplifyRelations(theirs))]);
      expect(inAnyOrder(theirs)).toEqual(expect.arrayContaining(inAnyOrder(simplified)));
      if (asksQualifiedVirtual(each)) continue;
      const index = indexCandidates(candidatesOf(each.packages));
      expect([text, each, satisfies(ours, index, each)]).toEqual([text, each, satisfied]);
      if (satisfied) met += 1;
    }
    expect(met).toBeGreaterThan(300);
    expect(met).toBeLessThan(4500);
  });
});
