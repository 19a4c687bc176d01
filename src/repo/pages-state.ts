/**
 * What the pages show now, so that the next publish writes only those that change.
 *
 * Secret: the SQL of this cache. It may be deleted at any time: every page is made anew then.
 */
import type { Database } from '../core/db.ts';
import { openCache } from './cache-file.ts';
import type { ListedPackage, ListPart } from './pages-model.ts';

const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE suites (suite TEXT PRIMARY KEY, change INTEGER NOT NULL, look TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE packages (
    suite TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, synopsis TEXT NOT NULL, PRIMARY KEY (suite, name)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE mentions (
    suite TEXT NOT NULL, target TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (suite, target, name)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX mentions_by_name ON mentions (suite, name);
  CREATE TABLE lists (
    suite TEXT NOT NULL, prefix TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (suite, prefix)
  ) STRICT, WITHOUT ROWID;
  `,
  `
  CREATE TABLE sources (
    suite TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, PRIMARY KEY (suite, name)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE changelogs (sha256 TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT, WITHOUT ROWID;
  `,
];

/** The state of a suite's pages: the last change they show, and a digest of what else shows on each. */
interface SuiteState {
  readonly change: number;
  readonly look: string;
}

/** How mentions tell a source from a package of its name. */
export function sourceKey(name: string): string {
  return `src:${name}`;
}

export class PagesState implements Disposable {
  readonly #db: Database;

  private constructor(db: Database) {
    this.#db = db;
    db.exec('PRAGMA synchronous = NORMAL'); // the last pages may be made twice after a power cut: no harm
  }

  static async open(path: string): Promise<PagesState> {
    return new PagesState(await openCache(path, MIGRATIONS));
  }

  [Symbol.dispose](): void {
    this.#db[Symbol.dispose]();
  }

  transaction<T>(body: () => T): T {
    return this.#db.transaction(body);
  }

  suite(suite: string): SuiteState | undefined {
    const row = this.#db.get('SELECT change, look FROM suites WHERE suite = ?', suite);
    return row && { change: Number(row.change), look: String(row.look) };
  }

  saveSuite(suite: string, state: SuiteState): void {
    this.#db.run(
      `INSERT INTO suites (suite, change, look) VALUES (?, ?, ?)
       ON CONFLICT (suite) DO UPDATE SET change = excluded.change, look = excluded.look`,
      suite,
      state.change,
      state.look,
    );
  }

  /** Nothing of a suite is known any more. */
  forget(suite: string): void {
    for (const table of ['suites', 'packages', 'mentions', 'lists', 'sources']) {
      this.#db.run(`DELETE FROM ${table} WHERE suite = ?`, suite);
    }
  }

  /** By name. */
  packages(suite: string): ListedPackage[] {
    return this.#db
      .all('SELECT name, version, synopsis FROM packages WHERE suite = ? ORDER BY name', suite)
      .map((row) => ({ name: String(row.name), version: String(row.version), synopsis: String(row.synopsis) }));
  }

  /** @param mentions names that its page speaks of */
  savePackage(suite: string, { name, version, synopsis }: ListedPackage, mentions: readonly string[]): void {
    this.#db.run(
      `INSERT INTO packages (suite, name, version, synopsis) VALUES (?, ?, ?, ?)
       ON CONFLICT (suite, name) DO UPDATE SET version = excluded.version, synopsis = excluded.synopsis`,
      suite,
      name,
      version,
      synopsis,
    );
    this.#saveMentions(suite, name, mentions);
  }

  #saveMentions(suite: string, name: string, targets: readonly string[]): void {
    this.#db.run('DELETE FROM mentions WHERE suite = ? AND name = ?', suite, name);
    for (const target of targets) {
      this.#db.run('INSERT INTO mentions (suite, target, name) VALUES (?, ?, ?)', suite, target, name);
    }
  }

  /** By name. */
  sources(suite: string): { readonly name: string; readonly version: string }[] {
    return this.#db
      .all('SELECT name, version FROM sources WHERE suite = ? ORDER BY name', suite)
      .map((row) => ({ name: String(row.name), version: String(row.version) }));
  }

  hasSource(suite: string, name: string): boolean {
    return this.#db.get('SELECT 1 FROM sources WHERE suite = ? AND name = ?', suite, name) !== undefined;
  }

  /** @param binaries names of packages that its page speaks of */
  saveSource(suite: string, name: string, version: string, binaries: readonly string[]): void {
    this.#db.run('INSERT OR REPLACE INTO sources (suite, name, version) VALUES (?, ?, ?)', suite, name, version);
    this.#saveMentions(suite, sourceKey(name), binaries);
  }

  dropSource(suite: string, name: string): void {
    this.#db.run('DELETE FROM sources WHERE suite = ? AND name = ?', suite, name);
    this.#saveMentions(suite, sourceKey(name), []);
  }

  /** What `saveChangelog` was given for these bytes. */
  changelog(sha256: string): string | undefined {
    const row = this.#db.get('SELECT text FROM changelogs WHERE sha256 = ?', sha256);
    return row && String(row.text);
  }

  saveChangelog(sha256: string, text: string): void {
    this.#db.run('INSERT OR REPLACE INTO changelogs (sha256, text) VALUES (?, ?)', sha256, text);
  }

  dropPackage(suite: string, name: string): void {
    this.#db.run('DELETE FROM packages WHERE suite = ? AND name = ?', suite, name);
    this.#db.run('DELETE FROM mentions WHERE suite = ? AND name = ?', suite, name);
  }

  /** Packages whose pages speak of `target`. */
  mentioning(suite: string, target: string): string[] {
    return this.#db
      .all('SELECT name FROM mentions WHERE suite = ? AND target = ?', suite, target)
      .map((row) => String(row.name));
  }

  /** True when the name has a page. */
  has(suite: string, name: string): boolean {
    return this.#db.get('SELECT 1 FROM packages WHERE suite = ? AND name = ?', suite, name) !== undefined;
  }

  /** The parts of a long list, in order; none when everything fits on one page. */
  lists(suite: string): ListPart[] {
    return this.#db
      .all('SELECT prefix, count FROM lists WHERE suite = ? ORDER BY prefix', suite)
      .map((row) => ({ prefix: String(row.prefix), count: Number(row.count) }));
  }

  saveLists(suite: string, parts: readonly ListPart[]): void {
    this.#db.run('DELETE FROM lists WHERE suite = ?', suite);
    for (const { prefix, count } of parts) {
      this.#db.run('INSERT INTO lists (suite, prefix, count) VALUES (?, ?, ?)', suite, prefix, count);
    }
  }
}
