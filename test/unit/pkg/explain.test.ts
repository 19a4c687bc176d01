import { expect, it } from 'vitest';
import { explain, keyed } from '../../../src/pkg/explain.ts';

it('keyed keeps short parts as they are, long ones and digests as digests', () => {
  const { key, parts } = keyed({ version: '1.0', files: 'x'.repeat(100), wheels: ['a'.repeat(64)], extra: null });
  expect(key).toMatch(/^[0-9a-f]{64}$/);
  expect(parts).toEqual({
    version: '1.0',
    files: expect.stringMatching(/^#/),
    wheels: expect.stringMatching(/^#/),
    extra: 'null',
  });
  expect(keyed({ version: '1.1', files: 'x'.repeat(100), wheels: ['a'.repeat(64)], extra: null }).key).not.toBe(key);
});

it('explain names what changed, with the values where they are short', () => {
  const now = keyed({ version: '1.1', files: 'b'.repeat(99), suite: 'bookworm', extra: null }).parts;
  const last = keyed({ version: '1.0', files: 'a'.repeat(99), suite: 'bookworm', date: 5 }).parts;
  expect(explain('built', now, last).why).toBe(
    'changed: version 1.0 -> 1.1, files, date 5 -> none, extra none -> none',
  );
  expect(explain('built', now, undefined).why).toBe('never built here before');
  expect(explain('built', now, now).why).toBe('it was lost from the cache');
  expect(explain('built', undefined, undefined).why).toContain('no digest');
  expect(explain('reused', now, last)).toEqual({ outcome: 'reused', why: 'nothing that goes into it has changed' });
});
