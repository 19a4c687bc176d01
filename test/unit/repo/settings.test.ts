import { describe, expect, it } from 'vitest';
import { checkSuite, compressionsOf, parseCompressions, parseHashes } from '../../../src/repo/settings.ts';

const SUITE = { name: 'bookworm', components: ['main'], architectures: ['amd64'] };

describe('what a suite may be set to', () => {
  it('names the forms of indexes as users do, each once', () => {
    expect(parseCompressions(['xz', 'plain', 'ZST', 'zstd', 'gz'])).toEqual(['none', 'gzip', 'xz', 'zstd']);
    expect(compressionsOf(SUITE)).toEqual(['none', 'gzip', 'xz']);
    expect(() => parseCompressions(['bz2'])).toThrow(/'bz2' is no form/);
    expect(() => parseCompressions(['constructor'])).toThrow(/is no form/);
  });

  it('names digests; sha256 is always there', () => {
    expect(parseHashes(['sha512', 'MD5', 'sha256'])).toEqual(['MD5Sum', 'SHA512']);
    expect(parseHashes(['none'])).toEqual([]);
    expect(() => parseHashes(['sha1'])).toThrow(/'sha1' is no digest/);
  });

  it.each([{ compressions: [] }, { pdiffs: -1 }, { pdiffs: 1.5 }, { pdiffs: 1000 }])('refuses %j', (wrong) => {
    expect(() => checkSuite({ ...SUITE, ...wrong })).toThrow(expect.objectContaining({ code: 'bad-value' }));
  });
});
