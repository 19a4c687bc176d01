/**
 * The pages of a repository for people: static files below public/ that any web server or bucket serves.
 *
 * ```
 * index.html   pages.css   pages.js      pages/SUITE/index.html, feed.atom, packages/NAME.html
 *                                        sources.html, sources/NAME.html; for long suites: list/PREFIX.html, search.txt
 * ```
 * Secret: which pages must be written anew after a publish: those of names that came or went, and of packages that speak of a
 * name which has a page now, or has none any more. They show what clients see, not what was added since, and nothing depends on
 * them. Each is replaced by a rename; they are not synced to the disk one by one, since `publish --force` makes all of them anew.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fchmodSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { errnoOf } from '../core/errors.ts';
import { explainWriteError } from '../core/files.ts';
import { getField, parseParagraph } from '../deb/control.ts';
import type { CatalogPackage, Generation, PublishedPackage } from './catalog.ts';
import { unpackList } from './file-list.ts';
import type { RepoHandle } from './handle.ts';
import { readChangelog } from './pages-changelog.ts';
import { renderFeed } from './pages-feed.ts';
import { synopsisOf } from './pages-html.ts';
import {
  groupNames,
  type ListedPackage,
  type ListPart,
  namesInRelations,
  newestFirst,
  type PageFiles,
  packagePage,
  pageFiles,
} from './pages-model.ts';
import { sourcePage } from './pages-sources.ts';
import { PagesState, sourceKey } from './pages-state.ts';
import { SCRIPT, STYLE, UNKNOWN_URL } from './pages-style.ts';
import {
  type Arrival,
  type RepositoryView,
  renderFrontPage,
  renderListPage,
  renderPackagePage,
  renderSearchIndex,
  renderSourceList,
  renderSourcePage,
  renderSuitePage,
} from './pages-views.ts';
import type { RepositorySettings, SuiteSettings } from './settings.ts';

/** Raised whenever a page of a package or a list looks different from the same facts. */
const PAGES_FORMAT = 2;
/** Pages between two looks at whether the user gave up. */
const BATCH_PAGES = 100;
const FEED_ENTRIES = 50;
const SHOWN_ARRIVALS = 8;
/**
 * Changelogs are read from the packages themselves. Of more new names than this in one publish that would take too long; a suite with
 * Contents has every package read anyway.
 */
const MAX_CHANGELOGS = 200;

export interface PagesReport {
  /** Pages written because what they show changed. */
  readonly written: number;
  readonly removed: number;
}

export interface PagesOptions {
  /** Every page anew, also where nothing changed. */
  readonly force?: boolean | undefined;
  /** The `.sources` entry of a suite for this address, with the key in it. */
  readonly sources: (suite: SuiteSettings, url: string) => Promise<string>;
}

/** Takes away every page there is. The caller holds the publish lock. */
export async function removePages(repo: RepoHandle): Promise<void> {
  const folder = new PagesFolder(repo.layout.public);
  for (const path of ['index.html', 'pages', 'pages.css', 'pages.js']) folder.remove(path);
  for (const suffix of ['', '-wal', '-shm']) folder.remove(`../db/pages.sqlite${suffix}`);
}

/** Brings the pages in line with what clients see. The caller holds the publish lock. */
export async function updatePages(repo: RepoHandle, options: PagesOptions): Promise<PagesReport> {
  using state = await PagesState.open(join(dirname(repo.layout.catalog), 'pages.sqlite'));
  const settings = repo.catalog.settings();
  const folder = new PagesFolder(repo.layout.public);
  folder.write('pages.css', STYLE);
  folder.write('pages.js', SCRIPT);
  const published: { suite: SuiteSettings; generation: Generation }[] = [];
  for (const suite of repo.catalog.suites()) {
    const generation = repo.catalog.currentGeneration(suite.name);
    if (generation) published.push({ suite, generation });
  }
  const front = [];
  for (const { suite, generation } of published) {
    const update = new SuiteUpdate(repo, state, folder, viewOf(settings), suite, generation);
    const packages = await update.run(options);
    front.push({ ...suite, packages, date: new Date(generation.date * 1000).toISOString() });
  }
  folder.write('index.html', renderFrontPage(viewOf(settings), front));
  folder.keepOnly('pages', new Set(published.map(({ suite }) => suite.name)));
  return { written: folder.written, removed: folder.removed };
}

function viewOf(settings: RepositorySettings): RepositoryView {
  const { label, origin, description, url, keys } = settings;
  return { label, origin, description, url, fingerprints: keys };
}

/** One suite's pages on their way to one generation. */
class SuiteUpdate {
  readonly #repo: RepoHandle;
  readonly #state: PagesState;
  readonly #folder: PagesFolder;
  readonly #view: RepositoryView;
  readonly #suite: SuiteSettings;
  readonly #generation: Generation;
  readonly #base: string;

  constructor(
    repo: RepoHandle,
    state: PagesState,
    folder: PagesFolder,
    view: RepositoryView,
    suite: SuiteSettings,
    generation: Generation,
  ) {
    this.#repo = repo;
    this.#state = state;
    this.#folder = folder;
    this.#view = view;
    this.#suite = suite;
    this.#generation = generation;
    this.#base = `pages/${suite.name}`;
  }

  /** Returns how many packages there are, each name counted once. */
  async run(options: PagesOptions): Promise<number> {
    const { name } = this.#suite;
    const { change } = this.#generation;
    const look = this.#look();
    const known = this.#state.suite(name);
    const isUsable = !options.force && known !== undefined && known.look === look && known.change <= change;
    const touched = isUsable ? this.#repo.catalog.namesTouched(name, known.change, change) : undefined;
    const sources = await this.#noteSources(touched);
    if (touched === undefined) await this.#renewAll();
    else if (touched.length > 0) await this.#renew(touched, sources.mentioning);
    this.#writeSources(sources.names);
    const list = this.#writeLists(touched);
    await this.#writeFront(list, options);
    this.#state.saveSuite(name, { change, look });
    return countOf(list);
  }

  /** Of what shows on every page. */
  #look(): string {
    const empty = renderListPage(this.#view, this.#suite, '', []);
    return createHash('sha256')
      .update(JSON.stringify([PAGES_FORMAT, empty, this.#suite.contents ?? false]))
      .digest('hex');
  }

  /**
   * Notes which sources there are, before pages of packages link to them.
   * @returns those whose pages are to be written or removed, and packages whose pages link to one that came or went
   */
  async #noteSources(
    touched: readonly string[] | undefined,
  ): Promise<{ readonly names: readonly string[]; readonly mentioning: readonly string[] }> {
    const { name: suite, components } = this.#suite;
    if (touched === undefined) {
      this.#state.transaction(() => this.#state.forget(suite));
      const names = this.#repo.catalog.namesAt(suite, components, this.#generation.change, 'source');
      this.#state.transaction(() => {
        for (const name of names) this.#state.saveSource(suite, name, '', []);
      });
      return { names, mentioning: [] };
    }
    const names = new Set<string>();
    const mentioning: string[] = [];
    for (const name of touched) {
      const isThere = this.#sources(name).length > 0;
      if (isThere || this.#state.hasSource(suite, name)) names.add(name);
      for (const other of this.#state.mentioning(suite, name)) if (other.startsWith('src:')) names.add(other.slice(4));
      if (isThere === this.#state.hasSource(suite, name)) continue;
      mentioning.push(...this.#state.mentioning(suite, sourceKey(name)));
      if (isThere) this.#state.saveSource(suite, name, '', []);
      else this.#state.dropSource(suite, name);
    }
    return { names: [...names], mentioning };
  }

  #sources(name: string): PublishedPackage[] {
    const { name: suite, components } = this.#suite;
    return this.#repo.catalog.versionsAt(suite, components, name, this.#generation.change, 'source');
  }

  #writeSources(names: readonly string[]): void {
    const { name: suite } = this.#suite;
    const folder = `${this.#base}/sources`;
    if (names.length === 0 && this.#state.sources(suite).length > 0) return;
    this.#state.transaction(() => {
      for (const name of names) {
        const versions = this.#sources(name);
        if (versions.length === 0) {
          this.#folder.remove(`${folder}/${name}.html`);
          continue;
        }
        const page = sourcePage(versions, (id) => this.#repo.catalog.packageFiles(id));
        const text = renderSourcePage(this.#view, this.#suite, page, (other) => this.#state.has(suite, other));
        this.#folder.replace(`${folder}/${name}.html`, text);
        this.#state.saveSource(suite, name, page.version, page.binaries);
      }
    });
    const all = this.#state.sources(suite);
    const list = `${this.#base}/sources.html`;
    if (all.length > 0) this.#folder.write(list, renderSourceList(this.#view, this.#suite, all));
    else this.#folder.remove(list);
    this.#folder.keepOnly(folder, new Set(all.map(({ name }) => `${name}.html`)));
  }

  async #renewAll(): Promise<void> {
    const names = this.#repo.catalog.namesAt(this.#suite.name, this.#suite.components, this.#generation.change);
    const known = new Set(names);
    await this.#writePackages(names, (name) => known.has(name));
    this.#folder.keepOnly(`${this.#base}/packages`, new Set(names.map((name) => `${name}.html`)));
  }

  /**
   * @param touched names of which something came or went
   * @param linking packages whose pages link to sources that came or went
   */
  async #renew(touched: readonly string[], linking: readonly string[]): Promise<void> {
    const { name: suite } = this.#suite;
    const named = new Set([...touched, ...linking]);
    const there = new Map<string, boolean>();
    for (const name of touched) {
      const isThere = this.#versions(name).length > 0;
      there.set(name, isThere);
      if (isThere === this.#state.has(suite, name)) continue;
      for (const other of this.#state.mentioning(suite, name)) if (!other.startsWith('src:')) named.add(other);
    }
    for (const [name, isThere] of there) {
      if (isThere) continue;
      named.delete(name);
      this.#state.dropPackage(suite, name);
      this.#folder.remove(`${this.#base}/packages/${name}.html`);
    }
    await this.#writePackages([...named], (name) => there.get(name) ?? this.#state.has(suite, name));
  }

  /** @param isKnown whether a name has a page when this is done */
  async #writePackages(names: readonly string[], isKnown: (name: string) => boolean): Promise<void> {
    const withChangelogs = this.#suite.contents || names.length <= MAX_CHANGELOGS;
    for (let at = 0; at < names.length; at += BATCH_PAGES) {
      await setImmediate();
      this.#repo.context.signal.throwIfAborted();
      const batch = names.slice(at, at + BATCH_PAGES);
      if (withChangelogs) await this.#readChangelogs(batch);
      this.#state.transaction(() => {
        for (const name of batch) this.#writePackage(name, isKnown);
      });
    }
  }

  /** Those that are not known yet. */
  async #readChangelogs(names: readonly string[]): Promise<void> {
    const texts = new Map<string, string>();
    for (const name of names) {
      const newest = newestFirst(this.#versions(name))[0]?.package;
      if (!newest || this.#state.changelog(newest.sha256) !== undefined) continue;
      // unpacking takes a process: not where the list of files is known and has none
      const prefix = `usr/share/doc/${newest.name}/changelog`;
      const mayHave = this.#fileList(newest)?.includes(prefix) ?? true;
      const text = mayHave ? await readChangelog(this.#repo.context, this.#repo.layout.public, newest) : '';
      texts.set(newest.sha256, text);
    }
    this.#state.transaction(() => {
      for (const [sha256, text] of texts) this.#state.saveChangelog(sha256, text);
    });
  }

  #writePackage(name: string, isKnown: (name: string) => boolean): void {
    const { name: suite } = this.#suite;
    const page = packagePage(
      this.#versions(name),
      (item) => this.#files(item),
      (item) => this.#state.changelog(item.sha256) ?? '',
    );
    const isSource = (source: string) => this.#state.hasSource(suite, source);
    const isOther = (other: string) => other !== name && isKnown(other);
    const text = renderPackagePage(this.#view, this.#suite, page, isOther, isSource);
    this.#folder.replace(`${this.#base}/packages/${name}.html`, text);
    const source = sourceKey(page.versions[0]!.package.source);
    this.#state.savePackage(suite, page, [...namesInRelations(page), source]);
  }

  #versions(name: string): PublishedPackage[] {
    const { name: suite, components } = this.#suite;
    return this.#repo.catalog.versionsAt(suite, components, name, this.#generation.change);
  }

  #files(item: CatalogPackage): PageFiles | undefined {
    const list = this.#fileList(item);
    return list && pageFiles(list);
  }

  #fileList(item: CatalogPackage): Buffer | undefined {
    const packed = this.#suite.contents ? this.#repo.catalog.fileList(item.sha256) : undefined;
    return packed && unpackList(packed);
  }

  /** Every package, or the parts of a long list, whose pages are written. @param touched undefined: all */
  #writeLists(touched: readonly string[] | undefined): SuiteList {
    const { name: suite } = this.#suite;
    const before = this.#state.lists(suite);
    if (touched?.length === 0 && before.length > 0) return { parts: before };
    const packages = this.#state.packages(suite);
    const groups = groupNames(packages.map((one) => one.name));
    if (groups.every((group) => group.prefix === '')) {
      this.#state.saveLists(suite, []);
      this.#folder.remove(`${this.#base}/list`);
      this.#folder.remove(`${this.#base}/search.txt`);
      return { packages };
    }
    const known = new Set(before.map((part) => part.prefix));
    for (const { prefix, from, to } of groups) {
      const isSame = touched !== undefined && known.has(prefix) && !touched.some((name) => name.startsWith(prefix));
      if (isSame) continue;
      const text = renderListPage(this.#view, this.#suite, prefix, packages.slice(from, to));
      this.#folder.write(`${this.#base}/list/${prefix}.html`, text);
    }
    const parts = groups.map(({ prefix, from, to }) => ({ prefix, count: to - from }));
    this.#folder.keepOnly(`${this.#base}/list`, new Set(parts.map(({ prefix }) => `${prefix}.html`)));
    this.#folder.replace(`${this.#base}/search.txt`, renderSearchIndex(packages));
    this.#state.transaction(() => this.#state.saveLists(suite, parts));
    return { parts };
  }

  async #writeFront(list: SuiteList, options: PagesOptions): Promise<void> {
    const { date, validUntil, change } = this.#generation;
    const iso = (seconds: number) => new Date(seconds * 1000).toISOString();
    const state = {
      packages: countOf(list),
      date: iso(date),
      validUntil: validUntil === undefined ? undefined : iso(validUntil),
      sources: await options.sources(this.#suite, this.#view.url ?? UNKNOWN_URL),
      sourcePackages: this.#state.sources(this.#suite.name).length,
    };
    const arrivals = this.#repo.catalog.latestArrivals(this.#suite.name, change, FEED_ENTRIES).map(arrivalOf);
    const shown = [...Map.groupBy(arrivals, (one) => one.name).values()].map((same) => same[0]!);
    const front = renderSuitePage(this.#view, this.#suite, state, list, shown.slice(0, SHOWN_ARRIVALS));
    this.#folder.write(`${this.#base}/index.html`, front);
    this.#folder.write(`${this.#base}/feed.atom`, renderFeed(this.#view, this.#suite, arrivals, state.date));
  }
}

/** What the page of a suite lists. */
type SuiteList = { readonly packages: readonly ListedPackage[] } | { readonly parts: readonly ListPart[] };

function countOf(list: SuiteList): number {
  return 'packages' in list ? list.packages.length : list.parts.reduce((sum, part) => sum + part.count, 0);
}

function arrivalOf({ package: item, addedAt }: PublishedPackage): Arrival {
  const { name, version, architecture } = item;
  const synopsis = synopsisOf(getField(parseParagraph(item.control), 'Description') ?? '');
  return { name, version, architecture, synopsis, addedAt };
}

/** Files below public/, whole at every moment. */
class PagesFolder {
  readonly #root: string;
  readonly #made = new Set<string>();
  written = 0;
  removed = 0;

  constructor(root: string) {
    this.#root = root;
  }

  /** Writes it when it says something else now. */
  write(path: string, text: string): void {
    if (this.#read(path) !== text) this.replace(path, text);
  }

  #read(path: string): string | undefined {
    try {
      return readFileSync(join(this.#root, path), 'utf8');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  replace(path: string, text: string): void {
    const target = join(this.#root, path);
    const temporary = join(dirname(target), '.page.tmp'); // the publish lock is held: one writer
    try {
      if (!this.#made.has(dirname(target))) mkdirSync(dirname(target), { recursive: true });
      this.#made.add(dirname(target));
      const file = openSync(temporary, 'w', 0o644);
      try {
        writeFileSync(file, text);
        fchmodSync(file, 0o644); // the umask does not decide
      } finally {
        closeSync(file);
      }
      renameSync(temporary, target);
    } catch (cause) {
      rmSync(temporary, { force: true });
      throw explainWriteError(cause, target);
    }
    this.written += 1;
  }

  /** A page, or a folder of them; it may be gone already. */
  remove(path: string): void {
    const target = join(this.#root, path);
    if (!existsSync(target)) return;
    rmSync(target, { recursive: true, force: true });
    this.#made.delete(target);
    this.removed += 1;
  }

  /** Removes everything else from a folder. */
  keepOnly(path: string, names: ReadonlySet<string>): void {
    for (const name of this.#list(path)) if (!names.has(name)) this.remove(`${path}/${name}`);
  }

  #list(path: string): string[] {
    try {
      return readdirSync(join(this.#root, path));
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  }
}
