/** Versions and ranges against the judges: `packaging` in pip for Python's order, Dpkg::Version for Debian's. One process each. */
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { compareVersions } from '../../src/deb/version.ts';
import { comparePep440, debianUpstream, type PepVersion, parsePep440 } from '../../src/pkg/python/pep440.ts';
import { accepts, debianRange, parseSpecifiers } from '../../src/pkg/python/specifier.ts';

/** Small, seeded: the same samples on every machine. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function randomVersion(next: (below: number) => number): string {
  const pick = <T>(values: readonly T[]): T => values[next(values.length)]!;
  const number = () => String(pick([0, 0, 1, 1, 2, 3, 9, 10, 11, 2024]));
  const release = Array.from({ length: 1 + next(4) }, number).join('.');
  const epoch = next(20) === 0 ? `${1 + next(2)}!` : '';
  const pre = next(3) === 0 ? `${pick(['a', 'b', 'rc'])}${next(12)}` : '';
  const post = next(5) === 0 ? `.post${next(12)}` : '';
  const dev = next(6) === 0 ? `.dev${next(12)}` : '';
  const local = next(12) === 0 ? `+${pick(['abc', '1', '12', 'ubuntu.1', 'g1a2b', 'cpu'])}` : '';
  return `${epoch}${release}${pre}${post}${dev}${local}`;
}

/** A neighbour of a version, so that many pairs are close to each other. */
function randomPair(next: (below: number) => number): [string, string] {
  const a = randomVersion(next);
  if (next(2) === 0) return [a, randomVersion(next)];
  const base = /^(?:\d+!)?\d+(?:\.\d+)*/.exec(a)![0];
  const tail = randomVersion(next).replace(/^(?:\d+!)?\d+(?:\.\d+)*/, '');
  return [a, `${base}${next(4) === 0 ? '.0' : ''}${tail}`];
}

async function python(program: string, lines: readonly string[]): Promise<string[]> {
  const { stdout } = await run({}, '/usr/bin/python3', ['-c', program], {
    input: lines.join('\n'),
    timeoutMs: 120_000,
  });
  return stdout.trimEnd().split('\n');
}

const COMPARE = `
import sys
from pip._vendor.packaging.version import Version
for line in sys.stdin:
    a, b = map(Version, line.split())
    print((a > b) - (a < b))
`;

const CONTAINS = `
import sys
from pip._vendor.packaging.specifiers import SpecifierSet
for line in sys.stdin:
    s, v = line.rstrip("\\n").split("\\t")
    print(int(SpecifierSet(s).contains(v, prereleases=True)))
`;

/** packaging before 24.0, which Debian 12's pip has, forgets epochs and short releases with suffixes where the range is a prefix. */
function oldJudgeErrs(spec: string, version: string): boolean {
  const prefix = spec.endsWith('.*') || spec.startsWith('~=');
  const count = (text: string) =>
    /\d+(?:\.\d+)*(?=[^!\d.]|$|\.\D)/.exec(text.replace(/^\D*\d+!/, ''))![0].split('.').length;
  const suffixed = /(?:a|b|rc|post|dev|\+)/.test(version);
  return prefix && suffixed && (/!/.test(spec + version) || count(version) < count(spec));
}

const DPKG =
  'use Dpkg::Version; while (<STDIN>) { chomp; my ($x, $y) = split / /; print version_compare($x, $y), "\\n" }';

describe('PEP 440 and Debian versions', () => {
  it('keeps the order of 200,000 pairs, at most 0.2 % wrong', async () => {
    const next = random(20261121);
    const pairs = Array.from({ length: 200_000 }, () => randomPair(next));
    const parsed = pairs.map((pair) => pair.map((text) => parsePep440(text)!) as [PepVersion, PepVersion]);
    const debian = parsed.map(([a, b]) => `${debianUpstream(a)}-1~deb12 ${debianUpstream(b)}-1~deb12`);
    const [judge, dpkg] = await Promise.all([
      python(
        COMPARE,
        pairs.map((pair) => pair.join(' ')),
      ),
      run({}, 'perl', ['-e', DPKG], { input: debian.join('\n'), timeoutMs: 150_000 }),
    ]);
    const dpkgSays = dpkg.stdout.trimEnd().split('\n').map(Number);
    expect(judge).toHaveLength(200_000);
    expect(dpkgSays).toHaveLength(200_000);
    const ours = parsed.filter(([a, b], index) => comparePep440(a, b) !== Number(judge[index]));
    expect(ours.slice(0, 5)).toEqual([]);
    const wrong = pairs.filter((_, index) => dpkgSays[index] !== Number(judge[index]));
    expect(wrong.length / pairs.length).toBeLessThan(0.002);
    // what is wrong is wrong for the one known reason: numbers against words in local labels
    expect(wrong.filter(([a, b]) => !(a.includes('+') && b.includes('+')))).toEqual([]);
  });

  it('translates ranges so that the same versions are taken: 60,000 samples', async () => {
    const next = random(42);
    const operators = ['==', '!=', '<=', '>=', '<', '>', '~=', '==*', '!=*'] as const;
    const samples = Array.from({ length: 60_000 }, () => {
      const [bound, version] = randomPair(next);
      const operator = operators[next(operators.length)]!;
      const plain = bound.replace(/\+.*/, '');
      const release = /^(?:\d+!)?\d+(?:\.\d+)*/.exec(bound)![0];
      if (operator.endsWith('*')) return { spec: `${operator.slice(0, 2)}${release}.*`, version };
      if (operator === '~=')
        return { spec: `~=${/\./.test(plain) && /\d\.\d/.test(release) ? plain : `${release}.1`}`, version };
      return { spec: `${operator}${/==|!=/.test(operator) ? bound : plain}`, version };
    });
    const judge = await python(
      CONTAINS,
      samples.map(({ spec, version }) => `${spec}\t${version}`),
    );
    const pure: string[] = [];
    const debian: string[] = [];
    let warned = 0;
    for (const [index, { spec, version }] of samples.entries()) {
      if (oldJudgeErrs(spec, version)) continue;
      const clauses = parseSpecifiers(spec);
      const parsed = parsePep440(version)!;
      const expected = judge[index] === '1';
      if (accepts(clauses, parsed) !== expected) pure.push(`${spec} ${version} ${expected}`);
      const here = `${debianUpstream(parsed)}-1~deb12`;
      const range = debianRange(clauses);
      const inRange = range.groups.every((group) =>
        group.some(({ relation, version: bound }) => {
          const sign = compareVersions(here, bound);
          return relation === '<<' ? sign < 0 : sign >= 0;
        }),
      );
      if (inRange === expected) continue;
      if (range.warnings.length > 0 && inRange) warned += 1;
      else debian.push(`${spec} ${version} ${expected}`);
    }
    expect(pure.slice(0, 20)).toEqual([]);
    expect(debian.slice(0, 30)).toEqual([]);
    expect(warned).toBeLessThan(samples.length * 0.01);
  });
});
