import { describe, expect, it } from 'vitest';
import type { Base } from '../../../src/vm/base.ts';
import { comparePackages, describeUpdate } from '../../../src/vm/base-update.ts';

const base = (id: string) => ({ id }) as Base;

describe('comparePackages', () => {
  it('names what is newer, new and gone, and nothing else', () => {
    const before = new Map(Object.entries({ apt: '1', dpkg: '1', old: '1' }));
    const after = new Map(Object.entries({ apt: '2', dpkg: '1', fresh: '1' }));
    expect(comparePackages(before, after)).toEqual([
      { name: 'apt', from: '1', to: '2' },
      { name: 'fresh', from: undefined, to: '1' },
      { name: 'old', from: '1', to: undefined },
    ]);
    expect(comparePackages(before, before)).toEqual([]);
  });
});

describe('describeUpdate', () => {
  const update = { base: base('b.2'), former: 'b', unchanged: false, users: [], packages: [] };

  it('says what became of the former base', () => {
    expect(describeUpdate({ ...update, base: base('b'), unchanged: true })).toBe('b is as new as its source');
    expect(describeUpdate(update)).toBe('updated: b.2\nremoved: b');
    expect(describeUpdate({ ...update, users: ['web', 'db'] })).toBe('updated: b.2\nb stays for: web, db');
    expect(describeUpdate({ ...update, base: base('b') })).toBe('updated: b');
  });

  it('shows the first packages and counts the others', () => {
    const packages = Array.from({ length: 7 }, (_, at) => ({ name: `p${at}`, from: at ? '1' : undefined, to: '2' }));
    const text = describeUpdate({ ...update, packages });
    expect(text).toContain('updated: b.2 (7 packages changed)\n  p0 (new) -> 2\n  p1 1 -> 2\n');
    expect(text).toContain('\n  and 2 more\nremoved: b');
  });
});
