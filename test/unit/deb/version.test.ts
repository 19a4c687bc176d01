import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compareVersions, formatVersion, isVersion, parseVersion } from '../../../src/deb/version.ts';
import { debVersion, versionPair } from '../../support/versions.ts';

describe('parseVersion', () => {
  it.each([
    ['1.0', 0, '1.0', ''],
    ['1:2.0-3', 1, '2.0', '3'],
    ['1.0-2-3', 0, '1.0-2', '3'],
    ['0:1.0-0', 0, '1.0', '0'],
    ['01:1', 1, '1', ''],
    ['1:2:3-4', 1, '2:3', '4'],
    ['1.0~~', 0, '1.0~~', ''],
    ['1.0.~', 0, '1.0.~', ''],
    ['1.0+post1', 0, '1.0+post1', ''],
    ['1-~', 0, '1', '~'],
    ['2147483647:1', 2147483647, '1', ''],
  ])('reads %s', (text, epoch, upstream, revision) => {
    expect(parseVersion(text)).toEqual({ epoch, upstream, revision });
    expect(isVersion(text)).toBe(true);
  });

  it.each([
    ['', 'it is empty'],
    ['1.0_1', 'the upstream version holds a character other than letters, digits and . + - ~'],
    ['v1.0', 'the upstream version does not start with a digit'],
    ['1:v1.0', 'the upstream version does not start with a digit'],
    ['1.0-', 'nothing follows the last hyphen'],
    [':1.0', 'the epoch (before the colon) is not a number'],
    ['a:1.0', 'the epoch (before the colon) is not a number'],
    ['+1:1.0', 'the epoch (before the colon) is not a number'],
    ['1:', 'there is no upstream version'],
    ['1:-1', 'there is no upstream version'],
    ['2147483648:1', 'the epoch (before the colon) is too big'],
    ['1.0 ', 'the upstream version holds a character other than letters, digits and . + - ~'],
    ['1.0-1 ', 'the revision holds a character other than letters, digits and . + ~'],
    ['1.0\n', 'the upstream version holds a character other than letters, digits and . + - ~'],
    ['1ä', 'the upstream version holds a character other than letters, digits and . + - ~'],
    ['1.0-a:b', 'the epoch (before the colon) is not a number'],
    ['1.0-1_1', 'the revision holds a character other than letters, digits and . + ~'],
  ])('refuses %j', (text, reason) => {
    expect(isVersion(text)).toBe(false);
    expect(() => parseVersion(text)).toThrow(`is not a Debian version: ${reason}`);
    expect(() => compareVersions(text, '1')).toThrow('is not a Debian version');
    expect(() => compareVersions('1', text)).toThrow('is not a Debian version');
  });

  it('prints back, the epoch in its usual form', () => {
    fc.assert(
      fc.property(debVersion, (text) => {
        expect(formatVersion(parseVersion(text))).toBe(text.replace(/^0:/, '').replace(/^0+(\d+:)/, '$1'));
      }),
    );
    expect(formatVersion({ epoch: 0, upstream: '1', revision: '' })).toBe('1');
  });
});

describe('compareVersions', () => {
  /** Each below the next: Policy 5.6.12, deb-version(7) and what buildkit itself writes. */
  const ascending = [
    ['1.0~~', '1.0~~a', '1.0~', '1.0', '1.0a', '1.0+a', '1.0.1'],
    ['1.0~rc1-1', '1.0-1~deb12', '1.0-1~deb13', '1.0-1', '1.0-1+b1', '1.0-1.1', '1.0-2', '1.0-10'],
    ['1.0~~dev1', '1.0~a1', '1.0~b1', '1.0~rc1', '1.0', '1.0+l.x', '1.0+post1', '1.0.1'],
    [
      '1',
      '1-0+',
      '1-1',
      '1.0',
      '1.00001',
      '2',
      '10',
      '9007199254740992',
      '9007199254740993',
      '0:9007199254740994',
      '1:0',
    ],
    ['1A', '1Z', '1a', '1z', '1+', '1.'],
  ];

  it.each(ascending)('%s < %s < ...', (...versions) => {
    for (const [index, version] of versions.entries()) {
      for (const [other, later] of versions.entries())
        expect([version, later, compareVersions(version, later)]).toEqual([version, later, Math.sign(index - other)]);
    }
  });

  it.each([
    ['1.0', '1.0-0'],
    ['1.0', '0:1.0'],
    ['1.0', '1.00'],
    ['1.001', '1.1'],
    ['1.0-00', '1.0'],
    ['1:1', '01:1'],
  ])('%s equals %s', (a, b) => {
    expect(compareVersions(a, b)).toBe(0);
    expect(compareVersions(b, a)).toBe(0);
    expect(compareVersions(parseVersion(a), b)).toBe(0);
  });

  it('is a total order', () => {
    fc.assert(
      fc.property(versionPair, debVersion, ([a, b], c) => {
        expect(compareVersions(a, a)).toBe(0);
        expect(compareVersions(a, b) + compareVersions(b, a)).toBe(0);
        const sorted = [a, b, c].sort(compareVersions);
        expect(compareVersions(sorted[0]!, sorted[1]!)).toBeLessThanOrEqual(0);
        expect(compareVersions(sorted[1]!, sorted[2]!)).toBeLessThanOrEqual(0);
        expect(compareVersions(sorted[0]!, sorted[2]!)).toBeLessThanOrEqual(0);
        if (compareVersions(a, b) === 0) expect(compareVersions(a, c)).toBe(compareVersions(b, c));
      }),
      { numRuns: 5000 },
    );
  });
});
