import { describe, expect, it } from 'vitest';
import { archMatches, debArch, gnuTriplet, isArch, isArchWildcard, multiarchTriplet } from '../../../src/deb/arch.ts';

describe('architectures', () => {
  it('knows names from wildcards and nonsense', () => {
    for (const name of [
      'all',
      'amd64',
      'arm64',
      'armhf',
      'armel',
      'i386',
      'riscv64',
      'hurd-i386',
      'kfreebsd-amd64',
      'x32',
      'musl-linux-amd64',
    ]) {
      expect([name, isArch(name), isArchWildcard(name)]).toEqual([name, true, false]);
    }
    for (const name of ['any', 'linux-any', 'any-amd64', 'gnu-any-any', 'base-gnu-linux-any']) {
      expect([name, isArch(name), isArchWildcard(name)]).toEqual([name, false, true]);
    }
    for (const name of [
      '',
      'source',
      'AMD64',
      'amd46',
      'x86_64',
      '__proto__',
      'a-b-c-d-any',
      'amd64\n',
      'linux-amd64',
    ]) {
      expect([name, isArch(name), isArchWildcard(name)]).toEqual([name, false, false]);
    }
  });

  it.each([
    ['any', 'amd64', true],
    ['any', 'all', false],
    ['all', 'all', true],
    ['all', 'amd64', false],
    ['amd64', 'amd64', true],
    ['amd64', 'arm64', false],
    ['linux-any', 'armhf', true],
    ['linux-any', 'hurd-i386', false],
    ['any-amd64', 'kfreebsd-amd64', true],
    ['any-amd64', 'x32', true],
    ['any-arm', 'armhf', true],
    ['gnu-any-any', 'musl-linux-amd64', false],
    ['nonsense', 'amd64', false],
  ])('%s means %s: %s', (wildcard, architecture, expected) => {
    expect(archMatches(wildcard, architecture)).toBe(expected);
  });

  it('gives GNU names', () => {
    expect(gnuTriplet('amd64')).toBe('x86_64-linux-gnu');
    expect(gnuTriplet('armhf')).toBe('arm-linux-gnueabihf');
    expect(gnuTriplet('i386')).toBe('i686-linux-gnu');
    expect(multiarchTriplet('i386')).toBe('i386-linux-gnu');
    expect(multiarchTriplet('ppc64el')).toBe('powerpc64le-linux-gnu');
    expect(() => gnuTriplet('all')).toThrow("'all' is not an architecture that Debian knows");
  });

  it('turns what Node and uname say into what Debian says', () => {
    const names = [
      'x64',
      'x86_64',
      'aarch64',
      'arm64',
      'arm',
      'armv7l',
      'ia32',
      'i686',
      'ppc64',
      'ppc64le',
      's390x',
      'riscv64',
      'loong64',
      'amd64',
    ];
    expect(names.map(debArch)).toEqual(
      'amd64 amd64 arm64 arm64 armhf armhf i386 i386 ppc64el ppc64el s390x riscv64 loong64 amd64'.split(' '),
    );
    expect(() => debArch('amd46')).toThrow(
      expect.objectContaining({ code: 'unknown-architecture', hint: "did you mean 'amd64'?" }),
    );
    expect(() => debArch('all')).toThrow('is not an architecture');
    expect(() => debArch('__proto__')).toThrow('is not an architecture');
  });
});
