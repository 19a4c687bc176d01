import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { harvest, openFacts } from '../../../src/proxy/facts.ts';
import { sha256 } from '../../support/proxy-upstream.ts';
import { createWorld } from '../../support/world.ts';

async function read(indexPath: string, content: Buffer, folder = '') {
  const world = await createWorld();
  const facts = openFacts(join(world.path, 'facts'));
  const object = { path: join(world.path, 'index'), sha256: sha256(content) };
  writeFileSync(object.path, content);
  return {
    facts,
    dir: join(world.path, 'facts'),
    index: object.sha256,
    count: (most?: number) => harvest(world.context, facts, object, indexPath, folder, most),
    async [Symbol.asyncDispose]() {
      facts[Symbol.dispose]();
      await world[Symbol.asyncDispose]();
    },
  };
}

const [A, B] = ['a'.repeat(64), 'b'.repeat(64)];

describe('what indexes say of files', () => {
  it('is found again for each of many packages', async () => {
    const text = Array.from(
      { length: 3000 },
      (_, index) =>
        `Package: p${index}\nFilename: ./pool/p${index}.deb\nSize: ${index}\nSHA256: ${sha256(String(index))}\n`,
    ).join('\n');
    await using index = await read('main/binary-amd64/Packages.gz', gzipSync(text));
    expect(await index.count()).toBe(3000);
    for (const number of [0, 1, 1500, 2999]) {
      expect(index.facts.find(index.index, `pool/p${number}.deb`)).toEqual({
        size: number,
        sha256: sha256(String(number)),
      });
    }
    expect(index.facts.find(index.index, 'pool/p3000.deb')).toBeUndefined();
  });

  it('is read of source packages and of diffs', async () => {
    const sources = `Package: x\nDirectory: pool/x\nFiles:\n ${'c'.repeat(32)} 1 x.dsc\nChecksums-Sha256:\n ${A} 10 x.dsc\n ${B} 20 x.tar.xz\nHomepage: y\n`;
    await using index = await read('main/source/Sources', Buffer.from(sources));
    expect(await index.count()).toBe(2);
    expect(index.facts.find(index.index, 'pool/x/x.tar.xz')).toEqual({ size: 20, sha256: B });
    await using diff = await read(
      'main/binary-amd64/Packages.diff/Index',
      Buffer.from(`SHA256-Download:\n ${A} 5 T-1.gz\n`),
      'dists/sid/main/binary-amd64/Packages.diff',
    );
    expect(await diff.count()).toBe(1);
    expect(diff.facts.find(diff.index, 'dists/sid/main/binary-amd64/Packages.diff/T-1.gz')).toEqual({
      size: 5,
      sha256: A,
    });
  });

  it('leaves out what is incomplete or malformed', async () => {
    const text = `Filename: a\nSize: 1\n\nFilename: b\nSHA256: ${A}\n\nFilename: c\nSize: -1\nSHA256: ${A}\n\nFilename: d\nSize: 1\nSHA256: ${'z'.repeat(64)}\n\nFilename: e\nSize: 1\nSHA256: ${B}`;
    await using index = await read('Packages', Buffer.from(text));
    expect(await index.count()).toBe(1);
    expect(index.facts.find(index.index, 'e')).toEqual({ size: 1, sha256: B });
  });

  it('ends at a hostile or a broken index: endless lines, a cut stream', async () => {
    await using line = await read('Packages.gz', gzipSync(Buffer.alloc(8 * 1024 * 1024, 'x')));
    await expect(line.count()).rejects.toMatchObject({ code: 'index-hostile' });
    expect(line.facts.has(line.index)).toBe(false);
    await using cut = await read('Packages.gz', gzipSync('Package: x\n').subarray(0, 15));
    await expect(cut.count()).rejects.toMatchObject({ code: 'deb-broken' });
  });

  it('is found wherever it lies, however many there are', async () => {
    for (const count of [1, 255, 256, 257, 5000]) {
      const names = Array.from({ length: count }, (_, index) => `pool/${count}/p${index}.deb`);
      const text = names.map((name, index) => `Filename: ${name}\nSize: ${index}\nSHA256: ${sha256(name)}\n`);
      await using index = await read('Packages', Buffer.from(text.join('\n')));
      expect(await index.count()).toBe(count);
      const found = names.filter((name, size) => {
        const file = index.facts.find(index.index, name);
        return file?.sha256 === sha256(name) && file.size === size;
      });
      expect(found).toEqual(names);
      expect(names.filter((name) => index.facts.find(index.index, `${name}x`))).toEqual([]);
    }
  });

  it('is not believed when a power cut left a part of it', async () => {
    await using index = await read('Packages', Buffer.from(`Filename: a\nSize: 1\nSHA256: ${A}\n`));
    await index.count();
    const file = join(index.dir, index.index);
    writeFileSync(file, readFileSync(file).subarray(0, -1));
    const again = openFacts(index.dir);
    expect([again.has(index.index), again.find(index.index, 'a')]).toEqual([false, undefined]);
  });

  it('ends at a source package of more files than there are', async () => {
    const line = ` ${A} 1 x\n`;
    const text = `Directory: pool\nChecksums-Sha256:\n${line.repeat(60_000)}`;
    await using index = await read('main/source/Sources', Buffer.from(text));
    await expect(index.count()).rejects.toMatchObject({ code: 'index-hostile' });
  });

  it('ends at an index that unpacks to too much, long before it is all there', async () => {
    const line = Buffer.from(`Description: ${'x'.repeat(1000)}\n`);
    const text = Buffer.concat(Array.from({ length: 40_000 }, () => line)); // 40 MB from 40 kB
    await using index = await read('main/binary-amd64/Packages.gz', gzipSync(text));
    await expect(index.count(5_000_000)).rejects.toThrow('unpacks to more than an index can be');
    expect(index.facts.has(index.index)).toBe(false);
    expect(await index.count(text.length)).toBe(0);
  });
});
