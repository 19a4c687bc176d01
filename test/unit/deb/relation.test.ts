// biome-ignore-all lint/suspicious/noTemplateCurlyInString: substvars look like templates
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import {
  type Candidate,
  formatRelations,
  implies,
  indexCandidates,
  parseRelations,
  type Relation,
  type RelationGroup,
  reduceRelations,
  satisfiers,
  satisfies,
  simplifyRelations,
  unsatisfied,
  versionFits,
} from '../../../src/deb/relation.ts';
import { debVersion } from '../../support/versions.ts';

function only(text: string): Relation {
  const relation = parseRelations(text)[0]?.[0];
  if (relation === undefined) throw new Error(`no relation in '${text}'`);
  return relation;
}

function candidate(name: string, version: string, more: Partial<Candidate> = {}): Candidate {
  return { name, version, architecture: 'amd64', ...more };
}

describe('parseRelations', () => {
  it('reads all that Policy 7.1 has', () => {
    expect(
      parseRelations('a1:any (>= 1:2~) [amd64 linux-any] <!nocheck cross> <stage1> | b2,\n c3:native [!i386 !any-arm]'),
    ).toEqual([
      [
        {
          name: 'a1',
          qualifier: 'any',
          version: { operator: '>=', version: '1:2~' },
          architectures: ['amd64', 'linux-any'],
          profiles: [['!nocheck', 'cross'], ['stage1']],
        },
        { name: 'b2' },
      ],
      [{ name: 'c3', qualifier: 'native', architectures: ['!i386', '!any-arm'] }],
    ]);
  });

  it('keeps substvars, wherever they stand', () => {
    const text =
      '${misc:Depends}, lib-${x} (= ${binary:Version}), python3-${shlibs:Depends}a, a1 (>= ${V}~), ${a} | ${b:c}';
    expect(formatRelations(parseRelations(text))).toBe(text);
    expect(parseRelations(text)[0]).toEqual([{ name: '${misc:Depends}' }]);
  });

  it('needs no blanks, and skips empty parts as dpkg does', () => {
    expect(formatRelations(parseRelations(' ,a1(>=1)[amd64]<!x>|b2:any( << 2 ),, \n\tc3\n ,'))).toBe(
      'a1 (>= 1) [amd64] <!x> | b2:any (<< 2), c3',
    );
    expect(parseRelations('')).toEqual([]);
    expect(parseRelations(' \n , ')).toEqual([]);
  });

  it.each([
    ['a1 (> 1)', 5, "'>' is not a relation"],
    ['a1 (< 1)', 5, "'<' is not a relation"],
    ['a1 (== 1)', 6, 'a version is expected'],
    ['a1 (1)', 5, 'one of << <= = >= >> is expected'],
    ['a1 (>= 1', 9, "')' is expected at the end"],
    ['a1 (>= v1)', 8, "'v1' is not a Debian version"],
    ['a1 b2', 4, "'b' is not expected here"],
    ['a1 | , b2', 6, 'a package name is expected'],
    ['| a1', 1, 'a package name is expected'],
    ['A1', 1, 'a package name is expected'],
    ['a', 1, 'too short'],
    ['a1_', 3, "'_' is not expected here"],
    ['a1 [amd64 !i386]', 17, "mixes architectures with and without '!'"],
    ['a1 []', 5, 'an architecture is expected'],
    ['a1 [amd64', 10, "an architecture or ']' is expected at the end"],
    ['a1 <>', 5, 'a build profile is expected'],
    ['a1:', 3, "':' is not expected here"],
    ['a1 (>= ${x)', 8, 'a version is expected'],
    ['ok, \n  a1 (>> 1', 11, "')' is expected"],
  ])('refuses %j at column %i', (text, column, message) => {
    let found: unknown;
    try {
      parseRelations(text, { file: 'debian/control', line: 10 });
    } catch (error) {
      found = error;
    }
    expect(found).toBeInstanceOf(UserError);
    expect(found).toMatchObject({
      code: 'relation-syntax',
      file: 'debian/control',
      line: text.includes('\n') ? 11 : 10,
      column,
    });
    expect((found as UserError).message).toContain(message);
  });

  it('prints what it reads back the same', () => {
    const name = fc.constantFrom('a1', 'libc6', 'g++', '0ad', 'x-${v}', '${misc:Depends}');
    const relation: fc.Arbitrary<Relation> = fc.record(
      {
        name,
        qualifier: fc.constantFrom('any', 'native', 'amd64'),
        version: fc.record({ operator: fc.constantFrom('<<', '<=', '=', '>=', '>>'), version: debVersion }),
        architectures: fc.constantFrom(['amd64'], ['linux-any', 'i386'], ['!amd64', '!i386']),
        profiles: fc.constantFrom([['nocheck']], [['!nocheck', 'cross'], ['stage1']]),
      },
      { requiredKeys: ['name'] },
    );
    const groups = fc.array(fc.array(relation, { minLength: 1, maxLength: 3 }), { maxLength: 4 });
    fc.assert(
      fc.property(groups, (made) => {
        expect(parseRelations(formatRelations(made))).toEqual(made);
      }),
    );
  });

  it('ends on any text, in time', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[a-c1 ,|():<>=![\]${}~.\n-]{0,30}$/), (text) => {
        try {
          const read = parseRelations(text);
          expect(parseRelations(formatRelations(read))).toEqual(read);
        } catch (error) {
          expect(error).toBeInstanceOf(UserError);
        }
      }),
      { numRuns: 3000 },
    );
    expect(() => parseRelations(`a1 (>= ${'1'.repeat(1_000_000)}`)).toThrow(UserError);
    expect(parseRelations('a1,'.repeat(200_000))).toHaveLength(200_000);
  });
});

describe('reduceRelations', () => {
  const text =
    'a1 [amd64], b2 [!amd64], c3 [linux-any] <!nocheck>, d4 <cross stage1> <pkg.x>, e5 [i386] | f6, ${misc:Depends}';
  it.each([
    ['amd64', [], 'a1, c3, f6, ${misc:Depends}'],
    ['amd64', ['nocheck'], 'a1, f6, ${misc:Depends}'],
    ['i386', ['cross'], 'b2, c3, e5 | f6, ${misc:Depends}'],
    ['hurd-i386', ['cross', 'stage1'], 'b2, d4, f6, ${misc:Depends}'],
    ['amd64', ['pkg.x'], 'a1, c3, d4, f6, ${misc:Depends}'],
  ])('for %s with %j', (architecture, profiles, expected) => {
    expect(formatRelations(reduceRelations(parseRelations(text), { architecture, profiles }))).toBe(expected);
  });
});

describe('simplifyRelations', () => {
  it.each([
    ['a1, a1', 'a1'],
    ['a1, a1 (>= 2), a1 | b2', 'a1 (>= 2)'],
    ['a1 (>= 1), a1 (>= 2), a1 (<< 3)', 'a1 (>= 2), a1 (<< 3)'],
    ['a1 (>> 1), a1 (>= 1)', 'a1 (>> 1)'],
    ['a1 (= 1), a1 (>= 1), a1 (<= 1)', 'a1 (= 1)'],
    ['a1 | a1 (>= 2)', 'a1'],
    ['a1 (>= 2) | a1', 'a1 (>= 2) | a1'],
    ['a1:any, a1', 'a1:any, a1'],
    ['a1 [amd64], a1', 'a1'],
    ['a1 [amd64], a1 (>= 2) [amd64]', 'a1 (>= 2) [amd64]'],
    // elsewhere than on amd64 b2 is asked for
    ['a1 [amd64] | b2, a1 [amd64]', 'a1 [amd64] | b2, a1 [amd64]'],
    ['a1 [amd64] | b2 [amd64], a1 [amd64]', 'a1 [amd64]'],
    ['a1 [amd64] | a1 (>= 2)', 'a1 [amd64] | a1 (>= 2)'],
    ['a1 | a1 (>= 2) [amd64]', 'a1'],
    ['a1, a1 [amd64] | b2', 'a1, a1 [amd64] | b2'],
    ['a1, a1 [amd64] | b2 [amd64]', 'a1'],
    ['a1 (>= ${V}), a1 (>= 1), a1 (>= ${V})', 'a1 (>= ${V}), a1 (>= 1)'],
    ['a1 | b2, b2 | a1', 'a1 | b2'],
  ])('%s is %s', (text, expected) => {
    expect(formatRelations(simplifyRelations(parseRelations(text)))).toBe(expected);
  });

  it('never changes what satisfies it', () => {
    const version = fc.constantFrom('1', '1.0', '2', '2~', '3');
    const operator = fc.constantFrom('<<' as const, '<=' as const, '=' as const, '>=' as const, '>>' as const);
    const relation: fc.Arbitrary<Relation> = fc.record(
      {
        name: fc.constantFrom('a1', 'b2'),
        version: fc.record({ operator, version }),
        architectures: fc.constantFrom(['amd64'], ['!amd64'], ['linux-any']),
        profiles: fc.constantFrom([['nocheck']], [['!nocheck']]),
      },
      { requiredKeys: ['name'] },
    );
    const groups = fc.array(fc.array(relation, { minLength: 1, maxLength: 3 }), { maxLength: 5 });
    // one version of a package is installed at a time: implication holds for that only
    const packages = fc.uniqueArray(fc.record({ name: fc.constantFrom('a1', 'b2'), version }), {
      selector: (each) => each.name,
    });
    const here = fc.record({
      architecture: fc.constantFrom('amd64', 'i386', 'hurd-i386'),
      profiles: fc.subarray(['nocheck']),
    });
    fc.assert(
      fc.property(groups, packages, here, (made, found, options) => {
        const index = indexCandidates(found.map((each) => candidate(each.name, each.version)));
        const simple = simplifyRelations(made);
        expect(satisfies(reduceRelations(simple, options), index)).toBe(
          satisfies(reduceRelations(made, options), index),
        );
        expect(simplifyRelations(simple)).toEqual(simple);
      }),
      { numRuns: 10_000 },
    );
  });

  it('implies only what holds for every version', () => {
    const version = fc.constantFrom('1', '1~', '1-1', '2', '2.0', '3');
    const restriction = fc.record({
      operator: fc.constantFrom('<<' as const, '<=' as const, '=' as const, '>=' as const, '>>' as const),
      version,
    });
    fc.assert(
      fc.property(restriction, restriction, debVersion, (a, b, tried) => {
        if (!implies({ name: 'a1', version: a }, { name: 'a1', version: b })) return;
        if (versionFits(tried, a)) expect(versionFits(tried, b)).toBe(true);
      }),
      { numRuns: 5000 },
    );
  });
});

describe('satisfies', () => {
  const packages = [
    candidate('libc6', '2.36-9', { multiArch: 'same' }),
    candidate('libc6', '2.36-9', { architecture: 'i386', multiArch: 'same' }),
    candidate('python3', '3.11.2-1', { multiArch: 'allowed' }),
    candidate('tzdata', '2024a-0', { architecture: 'all', multiArch: 'foreign' }),
    candidate('make', '4.3-4', { architecture: 'arm64', multiArch: 'foreign' }),
    candidate('exim4', '4.96-15', { architecture: 'all', provides: 'mail-transport-agent' }),
    candidate('python3-lib', '1.0-1', {
      architecture: 'all',
      provides: 'python3-old (= 2.5), python3-old (= 3), virtual-thing (= 1), odd-thing (>= 1), colon:any',
    }),
  ];
  const index = indexCandidates(packages);

  it.each([
    ['libc6', true],
    ['libc6 (>= 2.36)', true],
    ['libc6 (>= 2.37)', false],
    ['libc6 (<< 2.36-9)', false],
    ['libc6 (<= 2.36-9)', true],
    ['libc6 (= 2.36-9)', true],
    ['libc6 (>> 2.36-9)', false],
    ['nothing', false],
    ['nothing | libc6', true],
    ['nothing, libc6', false],
    ['mail-transport-agent', true],
    ['mail-transport-agent (>= 1)', false],
    ['virtual-thing (>= 1)', true],
    ['virtual-thing (>> 1)', false],
    ['python3-old (= 2.5)', true],
    ['python3-old (>= 3)', true],
    ['python3-old (>= 4)', false],
    ['odd-thing', false],
    ['', true],
    ['constructor', false],
  ])('%s: %s', (text, expected) => {
    expect(satisfies(parseRelations(text), index)).toBe(expected);
  });

  it.each([
    ['amd64', 'libc6', true],
    ['i386', 'libc6', true],
    ['arm64', 'libc6', false],
    ['arm64', 'tzdata', true],
    ['amd64', 'make', true],
    ['amd64', 'python3:any', true],
    ['arm64', 'python3:any', true],
    ['arm64', 'python3', false],
    ['amd64', 'libc6:any', false],
    ['amd64', 'libc6:i386', true],
    ['amd64', 'libc6:arm64', false],
    ['amd64', 'make:native', false],
    ['amd64', 'virtual-thing:any', false],
    ['amd64', 'colon:any', true],
    ['arm64', 'virtual-thing', true],
    ['amd64', 'libc6:native', true],
    ['amd64', 'nothing [i386]', true],
    ['i386', 'nothing [i386]', false],
  ])('on %s %s: %s', (architecture, text, expected) => {
    expect(satisfies(parseRelations(text), index, { architecture })).toBe(expected);
  });

  it('names who satisfies, and what nobody does', () => {
    expect(satisfiers(only('python3-old'), index).map((each) => each.name)).toEqual(['python3-lib']);
    const left: RelationGroup[] = unsatisfied(parseRelations('libc6, nothing (>= 1) | none, gone'), index);
    expect(formatRelations(left)).toBe('nothing (>= 1) | none, gone');
  });
});
