import { describe, expect, it } from 'vitest';
import { refuseOldVersions, versionProblems } from '../../../src/pkg/published.ts';

const there = (version: string, architecture = 'all', sha256 = `of ${version}`) => ({
  name: 'python3-flask',
  version,
  architecture,
  sha256,
});
const wanted = (version: string, sha256?: string, architecture = 'all') => ({
  name: 'python3-flask',
  version,
  architecture,
  sha256,
});
const codes = (...args: Parameters<typeof versionProblems>) => versionProblems(...args).map((one) => one.code);

describe('versionProblems', () => {
  it('takes what sorts above, what is new, and the same bytes again', () => {
    const published = [there('2.2.5-1~deb12'), there('3.1.0-1~deb12')];
    expect(codes([wanted('3.1.0-2~deb12')], published)).toEqual([]);
    expect(codes([wanted('2.2.5-1~deb12', 'of 2.2.5-1~deb12')], published)).toEqual([]);
    expect(codes([{ name: 'other', version: '0.1' }], published)).toEqual([]);
  });

  it('names both versions where one goes back, by the order of dpkg', () => {
    const [problem] = versionProblems([wanted('3.1~rc1-1~deb12')], [there('3.1-1~deb12')]);
    expect(problem).toMatchObject({ code: 'version-goes-back', subject: 'python3-flask' });
    expect(problem!.message).toContain("'python3-flask' 3.1~rc1-1~deb12 sorts below 3.1-1~deb12");
    expect(codes([wanted('9.0-1~deb12')], [there('1:1.0-1~deb12')])).toEqual(['version-goes-back']);
  });

  it('refuses other bytes for a version only once the bytes are known', () => {
    expect(codes([wanted('1.0-1')], [there('1.0-1')])).toEqual([]);
    expect(codes([wanted('1.0-1', 'other')], [there('1.0-1')])).toEqual(['version-exists']);
  });

  it('compares those that one machine could install', () => {
    expect(codes([wanted('1.0-1', 'x', 'arm64')], [there('2.0-1', 'amd64')])).toEqual([]);
    expect(codes([wanted('1.0-1', 'x', 'amd64')], [there('2.0-1', 'all')])).toEqual(['version-goes-back']);
  });
});

it('refuseOldVersions reports every package at once, and nothing without a repository', () => {
  expect(() => refuseOldVersions([wanted('1.0-1')], undefined)).not.toThrow();
  expect(() => refuseOldVersions([wanted('1.0-1'), wanted('1.5-1')], [there('2.0-1')])).toThrow(
    expect.objectContaining({ code: 'version-not-above', problems: [expect.anything(), expect.anything()] }),
  );
});
