import { describe, expect, it } from 'vitest';
import { isArch } from '../../../src/deb/arch.ts';
import { suiteFacts, suiteMark, suiteNames } from '../../../src/deb/suites.ts';
import { compareVersions } from '../../../src/deb/version.ts';

describe('suiteMark', () => {
  it('sorts as the suites do, below the version without a mark', () => {
    const marked = suiteNames().map((suite) => `1.0-1~${suiteMark(suite)}`);
    expect(marked).toEqual(['1.0-1~deb11', '1.0-1~deb12', '1.0-1~deb13', '1.0-1~deb14', '1.0-1~deb99']);
    expect([...marked].reverse().sort(compareVersions)).toEqual(marked);
    expect(compareVersions(marked.at(-1)!, '1.0-1')).toBe(-1);
    expect(suiteMark('bookworm')).toBe('deb12');
  });
});

describe('suiteFacts', () => {
  it('knows what differs', () => {
    expect(suiteFacts('bullseye')).toMatchObject({
      python: '3.9',
      zstd: false,
      unitDir: '/lib/systemd/system',
      hasNonFreeFirmware: false,
    });
    expect(suiteFacts('bookworm')).toMatchObject({
      number: '12',
      python: '3.11',
      node: '18',
      zstd: true,
      unitDir: '/lib/systemd/system',
    });
    expect(suiteFacts('trixie')).toMatchObject({ number: '13', python: '3.13', unitDir: '/usr/lib/systemd/system' });
    for (const suite of suiteNames()) expect(suiteFacts(suite).architectures.every(isArch)).toBe(true);
  });

  it('takes suites built on one, and names that do not move', () => {
    expect(suiteFacts('bookworm-backports').codename).toBe('bookworm');
    expect(suiteFacts('trixie-staging').codename).toBe('trixie');
    expect(suiteFacts('unstable').codename).toBe('sid');
  });

  it('refuses others, with the nearest', () => {
    expect(() => suiteFacts('bokworm')).toThrow(
      expect.objectContaining({ code: 'unknown-suite', hint: "did you mean 'bookworm'?" }),
    );
    expect(() => suiteFacts('stable')).toThrow(
      expect.objectContaining({ hint: expect.stringContaining('by its codename') }),
    );
    expect(() => suiteFacts('__proto__')).toThrow(expect.objectContaining({ code: 'unknown-suite' }));
    expect(() => suiteFacts('')).toThrow(expect.objectContaining({ code: 'unknown-suite' }));
  });
});
