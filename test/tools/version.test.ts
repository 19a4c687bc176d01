/** Debian's version order against the real dpkg. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { compareVersions, isVersion } from '../../src/deb/version.ts';
import { debVersion, versionPair } from '../support/versions.ts';

const PAIRS = 100_000;

/** Prints the lines of stdin that dpkg does not agree with; one process per pair, so the shell loops as tightly as it can. */
const COMPARE =
  'while read -r a operator b; do dpkg --compare-versions "$a" "$operator" "$b" || echo "$a $operator $b"; done';
const VALIDATE =
  'while read -r version; do dpkg --validate-version "$version" 2>/dev/null && echo "$version"; done; true';

function operator(a: string, b: string): string {
  const order = compareVersions(a, b);
  return order < 0 ? 'lt' : order > 0 ? 'gt' : 'eq';
}

it('orders 100,000 generated pairs as dpkg --compare-versions', { timeout: 600_000 }, async () => {
  const pairs = fc.sample(versionPair, { numRuns: PAIRS, seed: 20_261_121 });
  const lines = pairs.map(([a, b]) => `${a} ${operator(a, b)} ${b}\n`);
  for (const name of ['lt', 'gt', 'eq'])
    expect(lines.filter((line) => line.includes(` ${name} `)).length).toBeGreaterThan(500);
  const half = lines.length / 2;
  const chunks = [lines.slice(0, half), lines.slice(half)];
  const results = await Promise.all(chunks.map((chunk) => run({}, 'sh', ['-c', COMPARE], { input: chunk.join('') })));
  expect(results.map((result) => [result.stdout, result.stderr])).toEqual([
    ['', ''],
    ['', ''],
  ]);
});

it('tells versions from other texts as dpkg --validate-version', { timeout: 120_000 }, async () => {
  // blanks around a version and epochs like +1 are left out: dpkg takes them, buildkit does not (see src/deb/version.ts)
  const text = fc.stringMatching(/^[0-9a-z.:~_+-]{1,9}$/).filter((each) => !/^[+-]/.test(each));
  const texts = [...new Set(fc.sample(fc.oneof(text, debVersion), { numRuns: 4000, seed: 20_261_121 }))];
  const { stdout } = await run({}, 'sh', ['-c', VALIDATE], { input: texts.map((each) => `${each}\n`).join('') });
  const valid = texts.filter(isVersion);
  expect(stdout.split('\n').slice(0, -1)).toEqual(valid);
  expect(valid.length).toBeGreaterThan(500);
  expect(valid.length).toBeLessThan(texts.length - 500);
});
