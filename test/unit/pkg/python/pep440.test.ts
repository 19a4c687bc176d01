import { describe, expect, it } from 'vitest';
import { comparePep440, debianUpstream, formatPep440, parsePep440 } from '../../../../src/pkg/python/pep440.ts';
import { debianRange, parseSpecifiers } from '../../../../src/pkg/python/specifier.ts';

const debian = (text: string) => debianUpstream(parsePep440(text)!);
const relations = (text: string) =>
  debianRange(parseSpecifiers(text)).groups.map((group) =>
    group.map((one) => `${one.relation} ${one.version}`).join(' | '),
  );

describe('PEP 440 to Debian', () => {
  it.each([
    ['1.0rc1', '1.0~rc1'],
    ['3.1.3', '3.1.3'],
    ['1', '1.0'],
    ['1.2.0', '1.2'],
    ['2.0.0.0', '2.0'],
    ['1!2.0', '1:2.0'],
    ['1.0.dev3', '1.0~~dev3'],
    ['1.0a1.dev3', '1.0~a1~dev3'],
    ['1.0.post2', '1.0+post2'],
    ['1.0.post2.dev1', '1.0+post2~dev1'],
    ['1.0-1', '1.0+post1'],
    ['v1.0-ALPHA_2', '1.0~a2'],
    ['1.0+Ubuntu-1', '1.0+l.ubuntu.1'],
    ['2024.10.20', '2024.10.20'],
    ['99999999999999999999.1', '99999999999999999999.1'],
  ])('%s is %s', (python, upstream) => {
    expect(debian(python)).toBe(upstream);
  });

  it.each(['', '1.0.', 'x', '1.0-beta-x', '1.0 0', '1..0', '1.0+', '1.0+a..b', '١.0'])('%j is no version', (text) => {
    expect(parsePep440(text)).toBeUndefined();
  });

  it('sorts as PEP 440 says', () => {
    const sorted = [
      '1.dev0',
      '1.0.dev456',
      '1.0a1',
      '1.0a2.dev456',
      '1.0a12.dev456',
      '1.0a12',
      '1.0b1.dev456',
      '1.0b2',
      '1.0rc1',
      '1.0',
      '1.0+abc.5',
      '1.0+abc.7',
      '1.0+5',
      '1.0.post456.dev34',
      '1.0.post456',
      '1.0.15',
      '1.1.dev1',
    ];
    const parsed = sorted.map((text) => parsePep440(text)!);
    expect(parsed.toSorted((a, b) => comparePep440(a, b)).map(formatPep440)).toEqual(parsed.map(formatPep440));
    expect(comparePep440(parsePep440('1.0')!, parsePep440('1.0.0')!)).toBe(0);
  });
});

describe('specifiers to Debian relations', () => {
  it.each([
    ['>=1.2.0', ['>= 1.2']],
    ['<2.0', ['<< 2~~']],
    ['<2.0rc1', ['<< 2.0~rc1']],
    ['>1.0', ['>= 1.0.~']],
    ['<=1.0', ['<< 1.0+post~']],
    ['==1.0', ['>= 1.0', '<< 1.0+post~']],
    ['==1.4.*', ['>= 1.4~~', '<< 1.5~~']],
    ['==1.*', ['>= 1~~', '<< 2~~']],
    ['~=1.4.2', ['>= 1.4.2', '<< 1.5~~']],
    ['~=1.4', ['>= 1.4', '<< 2~~']],
    ['!=1.5', ['<< 1.5 | >= 1.5+post~']],
    ['!=1.5.*', ['<< 1.5~~ | >= 1.6~~']],
    ['>=1,<3,!=2.1', ['>= 1.0', '<< 3~~', '<< 2.1 | >= 2.1+post~']],
    ['>=1!2', ['>= 1:2.0']],
    ['', []],
  ])('%s', (text, expected) => {
    expect(relations(text)).toEqual(expected);
  });

  it('names what Debian cannot say', () => {
    expect(debianRange(parseSpecifiers('===1.0')).warnings).toEqual([
      "'===1.0' compares texts; it is taken as '==1.0'",
    ]);
    expect(debianRange(parseSpecifiers('>1.0rc1')).warnings).toHaveLength(1);
  });
});
