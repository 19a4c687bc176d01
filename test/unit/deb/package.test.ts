import { describe, expect, it } from 'vitest';
import { debFileName, isPackageName } from '../../../src/deb/package.ts';

describe('isPackageName', () => {
  it.each(['hello', 'g++', '0ad', 'libstdc++6', 'python3.11', 'a1', 'x-y.z'])('takes %s', (name) => {
    expect(isPackageName(name)).toBe(true);
  });
  it.each(['', 'a', 'Hello', '-hello', '.hello', 'hel_lo', 'hello world', '../hello', 'hello\n', 'hällo'])(
    'refuses %j',
    (name) => {
      expect(isPackageName(name)).toBe(false);
    },
  );
});

describe('debFileName', () => {
  it('leaves the epoch out, as dpkg-deb does', () => {
    expect(debFileName('hello', '2.10-3', 'amd64')).toBe('hello_2.10-3_amd64.deb');
    expect(debFileName('hello', '1:2.10', 'all')).toBe('hello_2.10_all.deb');
    expect(debFileName('hello', { epoch: 3, upstream: '1~rc1', revision: '1~deb12' }, 'all')).toBe(
      'hello_1~rc1-1~deb12_all.deb',
    );
    expect(() => debFileName('hello', '../x', 'all')).toThrow('is not a Debian version');
  });
});
