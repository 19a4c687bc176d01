import { describe, expect, it } from 'vitest';
import { didYouMean, nearest } from '../../../src/core/nearest.ts';

describe('did you mean', () => {
  it.each([
    ['orgin', 'origin'],
    ['serev', 'serve'],
    ['bokworm', 'bookworm'],
    ['REPO', 'repo'],
  ])('%s -> %s', (word, meant) => {
    expect(nearest(word, ['origin', 'serve', 'bookworm', 'repo', 'trixie'])).toBe(meant);
  });

  it('does not guess wildly, and lists a few known words instead', () => {
    expect(nearest('xyz', ['origin', 'serve'])).toBeUndefined();
    expect(didYouMean('xyz', ['origin', 'serve'])).toBe('known: origin, serve');
    expect(didYouMean('xyz', [])).toBeUndefined();
  });
});
