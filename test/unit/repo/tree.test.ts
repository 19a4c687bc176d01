import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { suitesIn } from '../../../src/repo/tree.ts';

describe('suitesIn', () => {
  it('finds the suites of a tree, each folder once, also below others, and a flat one', async () => {
    const tree = await mkdtemp(join(tmpdir(), 'buildkit-suites-'));
    try {
      for (const name of ['dists/bookworm', 'dists/old/updates', 'snapshots/1/dists/x', 'dists/empty']) {
        await mkdir(join(tree, name), { recursive: true });
      }
      await writeFile(join(tree, 'dists/bookworm/InRelease'), '');
      await writeFile(join(tree, 'dists/old/updates/Release'), '');
      await symlink('bookworm', join(tree, 'dists/stable'));
      expect(await suitesIn(tree)).toEqual(['bookworm', 'old/updates']);
      await writeFile(join(tree, 'Release'), '');
      expect(await suitesIn(tree)).toEqual(['./', 'bookworm', 'old/updates']);
      expect(await suitesIn(join(tree, 'dists/empty'))).toEqual([]);
    } finally {
      await rm(tree, { recursive: true });
    }
  });
});
