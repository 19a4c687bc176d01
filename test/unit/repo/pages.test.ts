import { existsSync } from 'node:fs';
import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { Catalog, type CatalogPackage, type NewPackage } from '../../../src/repo/catalog.ts';
import { KeyStore } from '../../../src/repo/keys.ts';
import { layoutOf } from '../../../src/repo/layout.ts';
import { type PagesReport, updatePages } from '../../../src/repo/pages.ts';
import { Repo } from '../../../src/repo/repo.ts';
import { createWorld, type World } from '../../support/world.ts';

const NOW = new Date('2026-11-21T08:12:05Z');

/** A repository whose generations come and go without indexes and keys. */
class Bench implements Disposable {
  readonly catalog: Catalog;
  readonly #world: World;
  readonly #dir: string;
  #seconds = NOW.getTime() / 1000;
  #change = 0;

  private constructor(world: World, dir: string) {
    this.#world = world;
    this.#dir = dir;
    this.catalog = Catalog.open(layoutOf(dir).catalog, dir);
  }

  static async make(world: World): Promise<Bench> {
    const dir = join(world.path, 'repo');
    const suites = ['bookworm', 'trixie'].map((name) => ({ name, components: ['main'], architectures: ['amd64'] }));
    const repo = await Repo.init(world.context, dir, { suites, origin: 'Example', label: 'Example' });
    repo[Symbol.dispose]();
    return new Bench(world, dir);
  }

  [Symbol.dispose](): void {
    this.catalog[Symbol.dispose]();
  }

  add(suite: string, ...items: readonly NewPackage[]): CatalogPackage[] {
    return this.catalog.transaction(() => {
      this.#change = this.catalog.recordChange(NOW, 'test', 'add', {});
      return items.map((item) => {
        const found = this.catalog.findPackage(item) ?? this.catalog.insertPackage(item);
        this.catalog.addMember(this.#change, suite, 'main', found);
        return found;
      });
    });
  }

  remove(suite: string, item: CatalogPackage): void {
    this.catalog.transaction(() => {
      this.#change = this.catalog.recordChange(NOW, 'test', 'remove', {});
      this.catalog.removeMember(this.#change, { suite, component: 'main', package: item });
    });
  }

  /** Shows clients what is in these suites now. */
  switch(...suites: readonly string[]): void {
    const date = this.#seconds++;
    const id = new Date(date * 1000).toISOString().replaceAll(/[-:]|\.\d+/g, '');
    for (const suite of suites) {
      const facts = { id, suite, change: this.#change, fingerprint: '', format: 1, date, files: [], pinned: false };
      this.catalog.proposeGeneration({ ...facts, validUntil: undefined });
      this.catalog.settleGeneration(suite, id);
    }
  }

  pages(options: { force?: boolean } = {}): Promise<PagesReport> {
    const { context } = this.#world;
    const handle = {
      context,
      dir: this.#dir,
      layout: layoutOf(this.#dir),
      catalog: this.catalog,
      keys: new KeyStore(context),
    };
    return updatePages(handle, { ...options, sources: async (suite, url) => `URIs: ${url}\nSuites: ${suite.name}\n` });
  }

  path(name: string): string {
    return join(this.#dir, 'public', name);
  }

  read(name: string): Promise<string> {
    return readFile(this.path(name), 'utf8');
  }

  get state(): string {
    return join(this.#dir, 'db', 'pages.sqlite');
  }
}

function item(name: string, version = '1.0', fields = ''): NewPackage {
  return {
    kind: 'deb',
    name,
    version,
    architecture: 'amd64',
    source: name,
    filename: `pool/main/${name}_${version}_amd64.deb`,
    size: 1000,
    md5: '1'.repeat(32),
    sha1: '2'.repeat(40),
    sha256: `${name}${version}`.padEnd(64, '0'),
    sha512: '4'.repeat(128),
    control: `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\n${fields}Description: about ${name}\n`,
  };
}

const page = (name: string) => `pages/bookworm/packages/${name}.html`;

describe('the pages of a repository', () => {
  it('are written once, and again only where something changed', async () => {
    await using world = await createWorld(NOW);
    using bench = await Bench.make(world);
    bench.add('bookworm', item('hello', '1.0', 'Depends: libhello, missing\n'), item('other'));
    bench.switch('bookworm');
    // style, script, front page; suite, feed, two packages
    expect(await bench.pages()).toEqual({ written: 7, removed: 0 });
    expect(await readdir(bench.path('pages'))).toEqual(['bookworm']);
    expect((await stat(bench.path(page('hello')))).mode & 0o777).toBe(0o644);
    expect(await bench.read('pages/bookworm/index.html')).toContain('URIs: https://apt.example.org/');
    expect(await bench.pages()).toEqual({ written: 0, removed: 0 });
    const before = await bench.read(page('other'));
    bench.add('bookworm', item('hello', '2.0', 'Depends: libhello\n'));
    expect(await bench.pages()).toEqual({ written: 0, removed: 0 }); // not published yet
    bench.switch('bookworm');
    // the package, the suite, its feed, and the front page, which says the date too
    expect(await bench.pages()).toEqual({ written: 4, removed: 0 });
    expect(await bench.read(page('hello'))).toContain('<span class="version">2.0</span>');
    expect(await bench.read(page('other'))).toBe(before);
    expect((await bench.pages({ force: true })).written).toBe(2);
  });

  it('link what has a page, and no longer what has none', async () => {
    await using world = await createWorld(NOW);
    using bench = await Bench.make(world);
    bench.add('bookworm', item('hello', '1.0', 'Depends: libhello\n'));
    bench.switch('bookworm');
    await bench.pages();
    const link = '<a href="libhello.html">libhello</a>';
    expect(await bench.read(page('hello'))).not.toContain(link);
    const [library] = bench.add('bookworm', item('libhello'));
    bench.switch('bookworm');
    await bench.pages();
    expect(await bench.read(page('hello'))).toContain(link);
    bench.remove('bookworm', library!);
    bench.switch('bookworm');
    expect((await bench.pages()).removed).toBe(1);
    expect(existsSync(bench.path(page('libhello')))).toBe(false);
    expect(await bench.read(page('hello'))).not.toContain(link);
    expect(await bench.read('pages/bookworm/index.html')).not.toContain('libhello');
  });

  it('cut a long suite, and write only the part that changed', async () => {
    await using world = await createWorld(NOW);
    using bench = await Bench.make(world);
    const names = Array.from({ length: 255 }, (_, index) => String(index).padStart(3, '0'));
    bench.add('bookworm', ...names.flatMap((name) => [item(`a${name}`), item(`b${name}`)]));
    bench.switch('bookworm');
    await bench.pages();
    expect(await readdir(bench.path('pages/bookworm/list'))).toEqual(['a.html', 'b.html']);
    expect((await bench.read('pages/bookworm/search.txt')).split('\n')).toHaveLength(511);
    const other = await stat(bench.path('pages/bookworm/list/b.html'));
    bench.add('bookworm', item('a-new'));
    bench.switch('bookworm');
    await bench.pages();
    expect((await stat(bench.path('pages/bookworm/list/b.html'))).ino).toBe(other.ino);
    expect(await bench.read('pages/bookworm/list/a.html')).toContain('a-new');
    expect(await bench.read('pages/bookworm/search.txt')).toContain('a-new\t1.0\tabout a-new\n');
    expect(await bench.read('pages/bookworm/index.html')).toContain('<small>256</small>');
    for (const member of [...bench.catalog.members({ suite: 'bookworm' })]) {
      if (member.package.name.startsWith('b')) bench.remove('bookworm', member.package);
    }
    bench.switch('bookworm');
    await bench.pages();
    expect(existsSync(bench.path('pages/bookworm/list'))).toBe(false);
    expect(existsSync(bench.path('pages/bookworm/search.txt'))).toBe(false);
    expect((await readdir(bench.path('pages/bookworm/packages'))).length).toBe(256);
  });

  it('come again when their state is lost or unreadable, and drop what they did not make', async () => {
    await using world = await createWorld(NOW);
    using bench = await Bench.make(world);
    bench.add('bookworm', item('hello'), item('index'));
    const [gone] = bench.add('trixie', item('gone'));
    bench.switch('bookworm', 'trixie');
    await bench.pages();
    bench.remove('trixie', gone!);
    bench.switch('trixie');
    for (const suffix of ['', '-wal', '-shm']) await rm(bench.state + suffix, { force: true });
    await rm(bench.path(page('hello')));
    await bench.pages();
    expect(await readdir(bench.path('pages/bookworm/packages'))).toEqual(['hello.html', 'index.html']);
    expect(await readdir(bench.path('pages/trixie/packages'))).toEqual([]);
    expect(await bench.read('pages/trixie/index.html')).toContain('Nothing is in this suite yet.');
  });

  it('show files where lists were made for Contents', async () => {
    await using world = await createWorld(NOW);
    using bench = await Bench.make(world);
    const [hello] = bench.add('bookworm', item('hello'));
    bench.switch('bookworm');
    await bench.pages();
    bench.catalog.saveFileList(hello!.sha256, gzipSync('usr/share/hello\nusr/bin/hello'));
    expect(await bench.pages()).toEqual({ written: 0, removed: 0 });
    const suite = bench.catalog.suites().find((one) => one.name === 'bookworm')!;
    bench.catalog.saveSuite({ ...suite, contents: true });
    await bench.pages();
    expect(await bench.read(page('hello'))).toContain('<pre>/usr/bin/hello\n/usr/share/hello</pre>');
  });
});
