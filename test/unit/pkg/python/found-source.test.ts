import { describe, expect, it } from 'vitest';
import { isStatic } from '../../../../src/pkg/python/found-source.ts';

const info = (layout: string, ...lines: string[]) =>
  [
    `Metadata-Version: ${layout}`,
    'Name: one',
    'Version: 1.0',
    ...lines,
    '',
    'A long text',
    'Dynamic: Requires-Dist',
  ].join('\n');

describe('PKG-INFO of a source (PEP 643)', () => {
  it.each([
    ['2.2', []],
    ['2.10', []],
    ['3.0', []],
    ['2.4', ['Dynamic: Description', 'Dynamic: License-File', 'Requires-Dist: two']],
  ])('is believed: %s %j', (layout, lines) => {
    expect(isStatic(info(layout, ...lines))).toBe(true);
  });

  it.each([
    ['1.2', []],
    ['2.1', []],
    ['2.2', ['Dynamic: Requires-Dist']],
    ['2.2', ['Dynamic: Description', 'dynamic: REQUIRES-PYTHON']],
    ['2.3', ['Dynamic: provides-extra']],
    ['nonsense', []],
  ])('is not: %s %j', (layout, lines) => {
    expect(isStatic(info(layout, ...lines))).toBe(false);
  });

  it('is not without a name or version', () => {
    expect(isStatic('Metadata-Version: 2.2\nName: one\n')).toBe(false);
    expect(isStatic('')).toBe(false);
  });
});
