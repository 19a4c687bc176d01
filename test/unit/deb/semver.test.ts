/** npm's versions and ranges in Debian's language, held against npm's own semver. */
import fc from 'fast-check';
import semver from 'semver';
import { describe, expect, it } from 'vitest';
import { formatRelations, type RelationGroup, versionFits } from '../../../src/deb/relation.ts';
import { debianRelationsOfRange, debianUpstreamOfSemver, isSemver } from '../../../src/deb/semver.ts';
import { compareVersions, isVersion } from '../../../src/deb/version.ts';

const WORDS = ['alpha', 'beta', 'rc', 'next', 'canary', 'dev', 'pre', 'a', 'b', 'A', 'Z', 'alphabet', 'al'];
const number = fc.oneof({ weight: 6, arbitrary: fc.nat(3) }, { weight: 1, arbitrary: fc.nat(100_000) });
const release = fc.tuple(number, number, number).map((parts) => parts.join('.'));
const identifier = fc.oneof(
  fc.nat(12).map(String),
  fc.constantFrom(...WORDS),
  fc.tuple(fc.constantFrom(...WORDS), fc.nat(12)).map(([word, at]) => `${word}${at}`),
  fc.constantFrom('10a', '2a', 'a-b', '-', '--', '-1', '0a', 'a0', 'a00', 'rc10', 'rc-7670501b-20241124', '0-20250101'),
  fc.stringMatching(/^[0-9A-Za-z-]{1,6}$/).filter((text) => !/^0\d+$/.test(text)),
);
const prerelease = fc.array(identifier, { minLength: 1, maxLength: 4 }).map((ids) => `-${ids.join('.')}`);
const version = fc.tuple(release, fc.oneof(fc.constant(''), prerelease)).map((parts) => parts.join(''));

const deb = (text: string) => `${debianUpstreamOfSemver(text)}-1~deb12`;

describe('versions', () => {
  it.each([
    ['1.2.3', '1.2.3'],
    ['v1.2.3', '1.2.3'],
    ['1.2.3+build.5', '1.2.3'],
    ['1.0.0-beta.2', '1.0.0~beta~2'],
    ['1.0.0-beta', '1.0.0~beta~~'],
    ['1.0.0-0', '1.0.0~0'],
    ['1.0.0-0.3.7', '1.0.0~0.3.7'],
    ['1.0.0-rc10', '1.0.0~rc1+0~~'],
    ['1.0.0-a-b.1', '1.0.0~a~-b~1'],
    ['1.0.0-10a', '1.0.0~A~~~1+0.a~~'],
  ])('%s is %s', (npm, debian) => {
    expect(debianUpstreamOfSemver(npm)).toBe(debian);
  });

  it('orders 200,000 pairs as npm does, without one wrong', () => {
    const wrong: string[] = [];
    fc.assert(
      fc.property(version, version, (a, b) => {
        if (semver.compare(a, b) !== compareVersions(deb(a), deb(b))) wrong.push(`${a} ${b}`);
      }),
      { numRuns: 200_000, seed: 20261121 },
    );
    expect(wrong.slice(0, 5)).toEqual([]);
  });

  it('orders pre-releases of one release as npm does', () => {
    const wrong: string[] = [];
    fc.assert(
      fc.property(prerelease, prerelease, (a, b) => {
        const [left, right] = [`1.0.0${a}`, `1.0.0${b}`];
        if (semver.compare(left, right) !== compareVersions(deb(left), deb(right))) wrong.push(`${left} ${right}`);
        const upstream = debianUpstreamOfSemver(left);
        if (!isVersion(deb(left)) || compareVersions(upstream, '1.0.0') >= 0) wrong.push(left);
      }),
      { numRuns: 50_000, seed: 7 },
    );
    expect(wrong.slice(0, 5)).toEqual([]);
  });

  it.each(['', '1', '1.2', 'latest', '1.2.3.4', '1.2.x', 'a'.repeat(300)])('refuses %j', (text) => {
    expect(isSemver(text)).toBe(false);
    expect(() => debianUpstreamOfSemver(text)).toThrow(expect.objectContaining({ code: 'semver-syntax' }));
  });
});

describe('ranges', () => {
  it.each([
    ['*', ''],
    ['', ''],
    ['x', ''],
    ['>=0.0.0', ''],
    ['^1.2.3', 'x (>= 1.2.3), x (<< 2~~)'],
    ['^0.2.3', 'x (>= 0.2.3), x (<< 0.3~~)'],
    ['^0.0.3', 'x (>= 0.0.3), x (<< 0.0.4~~)'],
    ['~1.2', 'x (>= 1.2.0), x (<< 1.3~~)'],
    ['1.x', 'x (>= 1.0.0), x (<< 2~~)'],
    ['>=18', 'x (>= 18.0.0)'],
    ['>1.0.0', 'x (>= 1.0.0.~)'],
    ['<=1.2.3', 'x (<< 1.2.3.~)'],
    ['<2.0.0', 'x (<< 2~~)'],
    ['1.2.3', 'x (>= 1.2.3), x (<< 1.2.3.~)'],
    ['>=1 <3 || ^4.1', 'x (>= 1.0.0), x (<< 3~~) | x (>= 4.1.0), x (<< 5~~)'],
    ['^1 || ^1.5 || >=1.9 <2.1', 'x (>= 1.0.0), x (<< 2.1~~)'],
    ['^20.17.0 || >=22.9.0', 'x (>= 20.17.0), x (<< 21~~) | x (>= 22.9.0)'],
    ['1 || 2 || 3', 'x (>= 1.0.0), x (<< 2~~) | x (>= 2.0.0), x (<< 3~~) | x (>= 3.0.0), x (<< 4~~)'],
    ['1.2.3 - 2', 'x (>= 1.2.3), x (<< 3~~)'],
    ['^1.2.3-beta.2', 'x (>= 1.2.3~beta~2), x (<< 2~~)'],
    ['>=1.0.0-0', 'x (>= 1~~)'],
  ])('%j is %j', (range, relations) => {
    expect(formatRelations(debianRelationsOfRange('x', range).groups)).toBe(relations);
  });

  it('warns of what Debian cannot say, naming the range', () => {
    expect(debianRelationsOfRange('x', '^1.2.3-beta.2').warnings).toEqual([
      "'^1.2.3-beta.2' of 'x' takes pre-releases of 1.2.3 only; the Debian relation takes those of later versions in the range too",
    ]);
    expect(debianRelationsOfRange('x', '^1.2.3 || <0.9').warnings).toEqual([]);
  });

  it.each(['latest', 'git+https://example.org/x.git', 'a b c'])('refuses %j, which is no range', (range) => {
    expect(() => debianRelationsOfRange('x', range)).toThrow(expect.objectContaining({ code: 'semver-range' }));
  });

  it('refuses a range that no version is in', () => {
    expect(() => debianRelationsOfRange('x', '>2 <1')).toThrow(/no version is in the range '>2 <1'/);
  });

  it('takes the same versions as npm does, on both sides of every bound', () => {
    const wrong: string[] = [];
    fc.assert(
      fc.property(range, (text) => {
        const relations = translated(text);
        for (const sample of samplesAround(text)) {
          const taken = relations !== undefined && holds(relations, deb(sample));
          const isPrerelease = semver.prerelease(sample) !== null;
          // between the two answers lie the pre-releases of other releases, which no relation can leave out
          const must = semver.satisfies(sample, text);
          const may = semver.satisfies(sample, text, { includePrerelease: isPrerelease });
          if (taken ? !may : must) wrong.push(`${text} at ${sample}: ${taken ? 'taken' : 'refused'}`);
        }
      }),
      { numRuns: 6000, seed: 11 },
    );
    expect(wrong.slice(0, 5)).toEqual([]);
  });

  it('takes distribution versions of the same upstream too', () => {
    const { groups } = debianRelationsOfRange('nodejs', '>=18 <=18.20.4');
    for (const taken of ['18.20.4+dfsg-1~deb12u1', '18.13.0+dfsg1-1', '18.0.0-1nodesource1'])
      expect(holds(groups, taken)).toBe(true);
    for (const refused of ['18.20.5+dfsg-1', '16.20.2-1', '18.0.0~rc~1-1']) expect(holds(groups, refused)).toBe(false);
  });
});

const bound = fc.oneof(
  fc.tuple(fc.nat(3), fc.nat(3), fc.nat(3)).map((parts) => parts.join('.')),
  fc.tuple(fc.nat(3), fc.nat(3)).map((parts) => parts.join('.')),
  fc.nat(4).map(String),
  fc
    .tuple(fc.integer({ min: 1, max: 3 }), fc.nat(2), fc.nat(2), fc.constantFrom('rc.1', 'beta', '0'))
    .map(([a, b, c, p]) => `${a}.${b}.${c}-${p}`),
);
const comparatorText = fc
  .tuple(fc.constantFrom('>=', '>', '<', '<=', '^', '~', '='), bound)
  .map((parts) => parts.join(''));
const range = fc
  .array(
    fc.array(comparatorText, { minLength: 1, maxLength: 2 }).map((all) => all.join(' ')),
    { minLength: 1, maxLength: 3 },
  )
  .map((alternatives) => alternatives.join(' || '));

/** undefined: no version is in the range. */
function translated(text: string): RelationGroup[] | undefined {
  try {
    return debianRelationsOfRange('x', text).groups;
  } catch {
    return undefined;
  }
}

function holds(groups: readonly RelationGroup[], version: string): boolean {
  return groups.every((group) => group.some((one) => one.version === undefined || versionFits(version, one.version)));
}

/** Every release near a bound, and the pre-releases that decide: those right below and at the bounds. */
function samplesAround(text: string): string[] {
  const releases = new Set<string>();
  const exact = new Set<string>();
  for (const one of new semver.Range(text).set.flat()) {
    if (typeof one.semver === 'symbol') continue; // no bound
    const { major, minor, patch, version } = one.semver;
    exact.add(version);
    for (const [a, b, c] of [
      [0, 0, 0],
      [0, 0, 1],
      [0, 0, -1],
      [0, 1, 0],
      [0, -1, 9],
      [1, 0, 0],
      [-1, 9, 9],
    ] as const) {
      const parts = [major + a, minor + b, patch + c];
      if (parts.every((part) => part >= 0)) releases.add(parts.join('.'));
    }
  }
  return [...releases, ...exact, '0.0.0', '9.9.9'];
}
