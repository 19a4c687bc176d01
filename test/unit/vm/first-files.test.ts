import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { giveFirstFiles, keepFirstFiles } from '../../../src/vm/first-files.ts';

function machine(fails = false) {
  const done: string[] = [];
  return {
    done,
    must: async (argv: readonly string[]) => {
      done.push(argv.join(' '));
      return { exitCode: 0, stdout: '', stderr: '' } as never;
    },
    write: async (path: string, content: string, mode?: number) => {
      if (fails) throw new Error('lost');
      done.push(`${path} ${mode?.toString(8)} ${content}`);
    },
  };
}

describe('files of the first start', () => {
  it('are written once, folders first, and not forgotten where it failed', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'buildkit-first-files-'));
    try {
      await giveFirstFiles(machine(), dir);
      await keepFirstFiles(dir, []);
      expect(await readdir(dir)).toEqual([]);
      await keepFirstFiles(dir, [{ path: '/etc/apt/apt.conf.d/30x', mode: 0o644, text: 'line;' }]);
      await expect(giveFirstFiles(machine(true), dir)).rejects.toThrow('lost');
      const good = machine();
      await giveFirstFiles(good, dir);
      expect(good.done).toEqual(['mkdir -p -- /etc/apt/apt.conf.d', '/etc/apt/apt.conf.d/30x 644 line;']);
      const again = machine();
      await giveFirstFiles(again, dir);
      expect(again.done).toEqual([]);
      await writeFile(join(dir, 'first-files.json'), '{"not":"a list"}');
      await expect(giveFirstFiles(machine(), dir)).rejects.toThrow();
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});
