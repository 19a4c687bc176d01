import { createHash } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { IndexSpec } from '../../../src/repo/blocks.ts';
import { Catalog, type CatalogPackage } from '../../../src/repo/catalog.ts';
import { contentsBlocks, netEdits } from '../../../src/repo/contents.ts';
import { layoutOf } from '../../../src/repo/layout.ts';
import { Repo } from '../../../src/repo/repo.ts';
import { SortedRuns } from '../../../src/repo/sorted-runs.ts';
import { createWorld, type World } from '../../support/world.ts';

/** Ten times what a busy machine took. */
const LIMIT_MS = 120_000;

const SPEC: IndexSpec = {
  key: { suite: 'bookworm', component: 'main', kind: 'deb', architecture: 'amd64' },
  what: 'contents',
  variant: '',
  compressions: ['gzip'],
  render: () => [],
};

/** A catalog whose packages are nothing but names, versions, sections and lists of files. */
class Bench implements Disposable {
  readonly catalog: Catalog;
  readonly #world: World;
  readonly #dir: string;
  #change = 0;

  private constructor(world: World, dir: string) {
    this.#world = world;
    this.#dir = dir;
    this.catalog = Catalog.open(layoutOf(dir).catalog, dir);
  }

  static async make(world: World): Promise<Bench> {
    const dir = join(world.path, 'repo');
    const suites = [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }];
    (await Repo.init(world.context, dir, { suites, origin: 'Example', label: 'Example' }))[Symbol.dispose]();
    return new Bench(world, dir);
  }

  [Symbol.dispose](): void {
    this.catalog[Symbol.dispose]();
  }

  get layout() {
    return layoutOf(this.#dir);
  }

  add(name: string, version: string, section: string, paths: readonly string[]): CatalogPackage {
    const list = paths.join('\n');
    // as in a repository, other files are other bytes: what a digest stands for never changes
    const sha256 = createHash('sha256')
      .update(JSON.stringify([name, version, section, list]))
      .digest('hex');
    return this.catalog.transaction(() => {
      this.catalog.saveFileList(sha256, gzipSync(list));
      const facts = { kind: 'deb' as const, name, version, architecture: 'amd64' };
      const item =
        this.catalog.findPackage(facts) ??
        this.catalog.insertPackage({
          ...facts,
          source: name,
          filename: `pool/${name}_${version}.deb`,
          size: 1,
          md5: '',
          sha1: '',
          sha256,
          sha512: '',
          control: `Package: ${name}\nSection: ${section}\n`,
        });
      this.#change = this.catalog.recordChange(new Date(0), 'test', 'add', {});
      this.catalog.addMember(this.#change, 'bookworm', 'main', item);
      return item;
    });
  }

  remove(item: CatalogPackage): void {
    this.catalog.transaction(() => {
      this.#change = this.catalog.recordChange(new Date(0), 'test', 'remove', {});
      this.catalog.removeMember(this.#change, { suite: 'bookworm', component: 'main', package: item });
    });
  }

  /** Compressed blocks as they are published, each in base64. */
  async blocks(): Promise<string[]> {
    const found: string[] = [];
    const made = contentsBlocks(this.#world.context, this.layout, this.catalog, SPEC, this.#change, undefined);
    for await (const { text, gzip } of made) {
      expect(gunzipSync(gzip!).equals(text)).toBe(true);
      found.push(Buffer.from(gzip!).toString('base64'));
    }
    return found;
  }

  async lines(): Promise<string[]> {
    const texts = (await this.blocks()).map((block) => gunzipSync(Buffer.from(block, 'base64')).toString());
    return texts
      .join('')
      .split('\n')
      .filter(Boolean)
      .map((line) => line.replace(/ +(?=\S+$)/, ' '));
  }

  async forget(): Promise<void> {
    for (const suffix of ['', '-wal', '-shm']) await rm(this.layout.contents + suffix, { force: true });
  }
}

describe('Contents', { timeout: LIMIT_MS }, () => {
  it('follow packages that come, change and go', async () => {
    await using world = await createWorld();
    using bench = await Bench.make(world);
    const one = bench.add('one', '1', 'misc', ['usr/bin/one', 'usr/share/both']);
    bench.add('two', '1', 'net', ['usr/share/both', 'usr/share/name with  spaces']);
    expect(await bench.lines()).toEqual([
      'usr/bin/one misc/one',
      'usr/share/both misc/one,net/two',
      'usr/share/name with  spaces net/two',
    ]);
    bench.add('one', '2', 'misc', ['usr/bin/one', 'usr/bin/one-more']);
    expect(await bench.lines()).toContain('usr/bin/one-more misc/one');
    bench.remove(one); // version 2 has usr/bin/one still
    expect(await bench.lines()).toEqual([
      'usr/bin/one misc/one',
      'usr/bin/one-more misc/one',
      'usr/share/both net/two',
      'usr/share/name with  spaces net/two',
    ]);
    expect(await readdir(bench.layout.incoming)).toEqual([]);
  });

  it('are the same blocks whatever way led to them', async () => {
    const name = fc.integer({ min: 0, max: 5 }).map((number) => `pkg${number}`);
    const step = fc.record({
      name,
      version: fc.integer({ min: 1, max: 3 }).map(String),
      section: fc.constantFrom('misc', 'net'),
      // names of several packages in one folder, of many blocks
      files: fc.array(fc.integer({ min: 0, max: 4000 }), { maxLength: 300 }),
      removes: fc.boolean(),
      isPublished: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
        await using world = await createWorld();
        using bench = await Bench.make(world);
        const there = new Map<string, CatalogPackage>();
        for (const { name, version, section, files, removes, isPublished } of steps) {
          const key = `${name} ${version}`;
          const before = there.get(key);
          if (removes && before) {
            bench.remove(before);
            there.delete(key);
          } else if (!before) {
            const paths = files.map((file) => `usr/share/${file % 7}/${file}`);
            there.set(key, bench.add(name, version, section, paths));
          }
          if (isPublished) await bench.blocks();
        }
        const stepwise = await bench.blocks();
        await bench.forget();
        expect(stepwise).toEqual(await bench.blocks());
      }),
      { numRuns: 15 },
    );
  });

  it('make anew only the blocks that one more package falls into', async () => {
    await using world = await createWorld();
    using bench = await Bench.make(world);
    for (let at = 0; at < 40; at += 1) {
      const paths = Array.from({ length: 500 }, (_, file) => `usr/share/pkg${at}/file-${file}`);
      bench.add(`pkg${at}`, '1', 'misc', paths);
    }
    const before = await bench.blocks();
    expect(before.length).toBeGreaterThan(20);
    bench.add('more', '1', 'misc', ['usr/share/pkg17/file-more']);
    const after = await bench.blocks();
    expect(after.filter((block) => !before.includes(block)).length).toBeLessThanOrEqual(2);
  });

  it('are made anew where the lists of what went are lost, or the cache is', async () => {
    await using world = await createWorld();
    using bench = await Bench.make(world);
    const one = bench.add('one', '1', 'misc', ['usr/bin/one']);
    bench.add('two', '1', 'misc', ['usr/bin/two']);
    await bench.blocks();
    bench.remove(one);
    using lost = new Lost(bench);
    lost.list(one.sha256);
    expect(await bench.lines()).toEqual(['usr/bin/two misc/two']);
  });

  it('take more than is sorted in memory', async () => {
    await using world = await createWorld();
    using bench = await Bench.make(world);
    const folder = 'long/'.repeat(30);
    const paths = Array.from({ length: 120_000 }, (_, at) => `${folder}${at % 1000}/file-${at}`);
    bench.add('many', '1', 'misc', paths);
    bench.add('more', '1', 'misc', paths.slice(0, 10));
    const lines = await bench.lines();
    expect(lines.map((line) => line.slice(0, line.indexOf(' ')))).toEqual(paths.toSorted());
    expect(lines.filter((line) => line.endsWith(' misc/many,misc/more'))).toHaveLength(10);
    expect(await readdir(bench.layout.incoming)).toEqual([]);
  });
});

/** Loses lists of files, as an older copy of a catalog would. */
class Lost implements Disposable {
  readonly #catalog: Catalog;
  readonly #fileList: Catalog['fileList'];

  constructor({ catalog }: Bench) {
    this.#catalog = catalog;
    this.#fileList = catalog.fileList.bind(catalog);
  }

  list(sha256: string): void {
    this.#catalog.fileList = (asked) => (asked === sha256 ? undefined : this.#fileList(asked));
  }

  [Symbol.dispose](): void {
    this.#catalog.fileList = this.#fileList;
  }
}

describe('netEdits', () => {
  it('leave out what stays as it was', () => {
    const lines = ['a\0net/x\0-', 'b\0net/x\0+', 'b\0net/x\0-', 'b\0net/y\0+', 'c\0net/x\0+', 'c\0net/x\0+'];
    expect([...netEdits(lines)]).toEqual([
      { path: 'a', gone: ['net/x'], come: [] },
      { path: 'b', gone: [], come: ['net/y'] },
      { path: 'c', gone: [], come: ['net/x'] },
    ]);
  });
});

describe('SortedRuns', { timeout: LIMIT_MS }, () => {
  it('give every line in order, from memory or from disk', async () => {
    await using world = await createWorld();
    const text = fc.string({ unit: 'binary' }).map((one) => one.replaceAll(/[\n\ud800-\udfff]/g, '€'));
    await fc.assert(
      fc.asyncProperty(fc.array(text), fc.integer({ min: 1, max: 200 }), async (lines, size) => {
        await using runs = new SortedRuns(world.path, size);
        for (const line of lines) await runs.add(line);
        expect(runs.isSmall).toBe(lines.join('').length < size);
        expect([...runs.sorted()]).toEqual([...lines].sort());
        expect([...runs.sorted()]).toEqual([...lines].sort());
      }),
    );
    expect(await readdir(world.path)).not.toContainEqual(expect.stringMatching(/^runs-/));
  });
});
