import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import {
  atomically,
  digestFile,
  exists,
  explainWriteError,
  scratchFolder,
  writeFileAtomic,
} from '../../../src/core/files.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-files-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('atomic writes', () => {
  it('make parents and set mode and time exactly, whatever the umask', async () => {
    const path = join(folder, 'a/b/c');
    await writeFileAtomic(path, 'text', { mode: 0o666, mtime: 1000 });
    const facts = await stat(path);
    expect([facts.mode & 0o7777, facts.mtimeMs]).toEqual([0o666, 1_000_000]);
    expect(await readFile(path, 'utf8')).toBe('text');
  });

  it('leave the old file and nothing else when the writing fails', async () => {
    const path = join(folder, 'file');
    await writeFile(path, 'old');
    await expect(
      atomically(path, {}, async (file) => {
        await file.writeFile('half');
        throw new Error('cut');
      }),
    ).rejects.toThrow('cut');
    expect(await readFile(path, 'utf8')).toBe('old');
    expect(await readdir(folder)).toEqual(['file']);
  });

  it('say what to do about a full disk', () => {
    const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
    const explained = explainWriteError(full, '/x/y');
    expect(explained).toBeInstanceOf(UserError);
    expect(explained).toMatchObject({
      code: 'cannot-write',
      cause: full,
      message: "cannot write '/x/y': no room left on the disk",
    });
    const other = new Error('x');
    expect(explainWriteError(other, '/x')).toBe(other);
  });

  it('meet a real full disk with a clear error', async () => {
    await expect(
      atomically(join(folder, 'f'), {}, async () => {
        await writeFile('/dev/full', 'x');
      }),
    ).rejects.toMatchObject({ code: 'cannot-write' });
    expect(await readdir(folder)).toEqual([]);
  });
});

describe('the rest', () => {
  it('digests, tells what exists, and removes scratch folders with all they hold', async () => {
    const path = join(folder, 'f');
    await writeFile(path, 'abc');
    expect(await digestFile(path, 'sha256')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    expect([await exists(path), await exists(join(path, 'below')), await exists(join(folder, 'no'))]).toEqual([
      true,
      false,
      false,
    ]);
    let inside = '';
    {
      await using scratch = await scratchFolder(folder);
      inside = scratch.path;
      await writeFile(join(inside, 'x'), '1');
    }
    expect(await exists(inside)).toBe(false);
  });
});
