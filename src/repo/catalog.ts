/**
 * What the repository knows: settings, packages, which package is in which suite, and every change ever made.
 *
 * Secret: all SQL of the catalog. Membership is kept as intervals (`added` .. `removed`, both numbers of changes), so that the
 * contents of a suite at any earlier change can be told without ever having been copied.
 */
import { existsSync } from 'node:fs';
import { type Database, openDatabase, type SqlRow } from '../core/db.ts';
import { UserError } from '../core/errors.ts';
import type { IndexFile } from './indexes.ts';
import type { Override, Overrides } from './overrides.ts';
import type { RepositorySettings, SuiteSettings } from './settings.ts';

/** Binary packages, those of the installer, and sources. */
export type PackageKind = 'deb' | 'udeb' | 'dsc';

/** What the pages for people show. */
const SHOWN_KINDS = { binary: "('deb', 'udeb')", source: "('dsc')" } as const;
type ShownKinds = keyof typeof SHOWN_KINDS;

/** A package as it is to be catalogued; `control` is the stanza without Filename, Size and digests. */
export interface NewPackage {
  readonly kind: PackageKind;
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly source: string;
  /** Below public/: 'pool/main/h/hello/hello_1.0_all.deb'. */
  readonly filename: string;
  readonly size: number;
  readonly md5: string;
  readonly sha1: string;
  readonly sha256: string;
  readonly sha512: string;
  readonly control: string;
}

export interface CatalogPackage extends NewPackage {
  readonly id: number;
}

/** `upload` adds packages, `publish` also makes them visible. */
export type TokenRole = 'upload' | 'publish';

/** Somebody who may write over HTTP. */
export interface TokenFacts {
  readonly name: string;
  /** Empty: every suite. */
  readonly suites: readonly string[];
  readonly role: TokenRole;
  /** ISO 8601. */
  readonly created: string;
}

/** A pool file that belongs to a source. */
export interface PackageFile {
  /** Below public/. */
  readonly filename: string;
  readonly size: number;
  readonly sha256: string;
}

/** A package in a suite. */
export interface Member {
  readonly suite: string;
  readonly component: string;
  readonly package: CatalogPackage;
}

/** A package in a suite, and since when. */
export interface PublishedPackage {
  readonly component: string;
  /** ISO 8601, UTC. */
  readonly addedAt: string;
  readonly package: CatalogPackage;
}

export interface Change {
  readonly id: number;
  /** ISO 8601, UTC. */
  readonly at: string;
  readonly who: string;
  readonly action: string;
  readonly detail: unknown;
}

export interface CountedChange extends Change {
  readonly added: number;
  readonly removed: number;
}

export interface Generation {
  /** '20261121T081200Z': the Date of its Release. */
  readonly id: string;
  readonly suite: string;
  /** The last change that it holds. */
  readonly change: number;
  /** Of everything in Release but its dates: equal means nothing new to publish. */
  readonly fingerprint: string;
  /** INDEX_FORMAT with which it was made. */
  readonly format: number;
  /** Seconds since the epoch. */
  readonly date: number;
  /** Seconds since the epoch; undefined: never. */
  readonly validUntil: number | undefined;
  /** What its Release lists. */
  readonly files: readonly IndexFile[];
  readonly pinned: boolean;
}

/** Which part of a suite an index is of. */
export interface IndexKey {
  readonly suite: string;
  readonly component: string;
  readonly kind: PackageKind;
  /** '*': of every architecture. */
  readonly architecture: string;
}

const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE repository (one INTEGER PRIMARY KEY CHECK (one = 1), settings TEXT NOT NULL) STRICT;
  CREATE TABLE suites (name TEXT PRIMARY KEY, settings TEXT NOT NULL) STRICT, WITHOUT ROWID;
  CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL, detail TEXT NOT NULL
  ) STRICT;
  CREATE TABLE packages (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL, architecture TEXT NOT NULL,
    source TEXT NOT NULL, filename TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
    md5 TEXT NOT NULL, sha1 TEXT NOT NULL, sha256 TEXT NOT NULL, sha512 TEXT NOT NULL, control TEXT NOT NULL,
    published INTEGER NOT NULL DEFAULT 0,
    UNIQUE (name, version, architecture, kind)
  ) STRICT;
  CREATE TABLE members (
    id INTEGER PRIMARY KEY, suite TEXT NOT NULL, component TEXT NOT NULL, kind TEXT NOT NULL, architecture TEXT NOT NULL,
    name TEXT NOT NULL, package INTEGER NOT NULL REFERENCES packages (id),
    added INTEGER NOT NULL REFERENCES changes (id), removed INTEGER REFERENCES changes (id)
  ) STRICT;
  CREATE UNIQUE INDEX members_now ON members (suite, component, kind, name, package) WHERE removed IS NULL;
  CREATE INDEX members_by_name ON members (suite, component, kind, name);
  CREATE INDEX members_added ON members (added);
  CREATE INDEX members_removed ON members (removed) WHERE removed IS NOT NULL;
  CREATE INDEX members_package ON members (package);
  CREATE TABLE generations (
    id TEXT NOT NULL, suite TEXT NOT NULL, change INTEGER NOT NULL, fingerprint TEXT NOT NULL, format INTEGER NOT NULL,
    date INTEGER NOT NULL,
    valid_until INTEGER, files TEXT NOT NULL, pinned INTEGER NOT NULL DEFAULT 0, settled INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (suite, id)
  ) STRICT, WITHOUT ROWID;
  `,
  `
  CREATE TABLE package_files (
    package INTEGER NOT NULL REFERENCES packages (id), filename TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (package, filename)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX package_files_name ON package_files (filename);
  `,
  `
  CREATE TABLE file_lists (sha256 TEXT PRIMARY KEY, paths BLOB NOT NULL) STRICT, WITHOUT ROWID;
  `,
  `
  CREATE TABLE tokens (
    name TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, suites TEXT NOT NULL, role TEXT NOT NULL, created TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
  `
  CREATE TABLE overrides (suite TEXT NOT NULL, key TEXT NOT NULL, override TEXT NOT NULL, PRIMARY KEY (suite, key))
  STRICT, WITHOUT ROWID;
  `,
];

const PACKAGE_COLUMNS =
  'p.id, p.kind, p.name, p.version, p.architecture, p.source, p.filename, p.size, p.md5, p.sha1, p.sha256, p.sha512, p.control';

export class Catalog implements Disposable {
  readonly #db: Database;

  private constructor(db: Database) {
    this.#db = db;
  }

  /** @throws UserError `no-repository` when there is none at `path` */
  static open(path: string, root: string): Catalog {
    if (!existsSync(path)) {
      throw new UserError('no-repository', `'${root}' holds no repository`, {
        hint: `make one: buildkit repo init '${root}' --suite bookworm --component main --arch amd64`,
      });
    }
    const catalog = new Catalog(openDatabase(path, MIGRATIONS));
    if (catalog.#db.get('SELECT 1 FROM repository') !== undefined) return catalog;
    catalog[Symbol.dispose]();
    throw new UserError('no-repository', `the repository in '${root}' was never finished`, {
      hint: `run it again: buildkit repo init '${root}' --suite bookworm --component main --arch amd64`,
    });
  }

  /** Makes the database (or finishes one whose making was interrupted). @throws UserError `repository-exists` */
  static create(path: string, root: string, settings: RepositorySettings, suites: readonly SuiteSettings[]): Catalog {
    const catalog = new Catalog(openDatabase(path, MIGRATIONS));
    try {
      catalog.transaction(() => {
        if (catalog.#db.get('SELECT 1 FROM repository') !== undefined) {
          throw new UserError('repository-exists', `'${root}' holds a repository already`, {
            hint: 'choose another folder; nothing was changed',
          });
        }
        catalog.#db.run('INSERT INTO repository (one, settings) VALUES (1, ?)', JSON.stringify(settings));
        for (const suite of suites) catalog.saveSuite(suite);
      });
      return catalog;
    } catch (error) {
      catalog[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#db[Symbol.dispose]();
  }

  /** Writes all of it, as it is at this moment, to a new file. */
  copyTo(path: string): void {
    this.#db.run('VACUUM INTO ?', path);
  }

  /** Runs `body` as the only writer; waits for others. */
  transaction<T>(body: () => T): T {
    return this.#db.transaction(body);
  }

  settings(): RepositorySettings {
    return JSON.parse(String(this.#db.get('SELECT settings FROM repository')?.settings)) as RepositorySettings;
  }

  saveSettings(settings: RepositorySettings): void {
    this.#db.run('UPDATE repository SET settings = ?', JSON.stringify(settings));
  }

  suites(): SuiteSettings[] {
    return this.#db
      .all('SELECT settings FROM suites ORDER BY name')
      .map((row) => JSON.parse(String(row.settings)) as SuiteSettings);
  }

  saveSuite(settings: SuiteSettings): void {
    this.#db.run(
      'INSERT INTO suites (name, settings) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET settings = excluded.settings',
      settings.name,
      JSON.stringify(settings),
    );
  }

  /** Starts an entry of the history; its number marks what is added and removed with it. */
  recordChange(at: Date, who: string, action: string, detail: unknown): number {
    return Number(
      this.#db.get(
        'INSERT INTO changes (at, who, action, detail) VALUES (?, ?, ?, ?) RETURNING id',
        at.toISOString(),
        who,
        action,
        JSON.stringify(detail),
      )?.id,
    );
  }

  /** Number of the latest change; 0 when there was none. */
  latestChange(): number {
    return Number(this.#db.get('SELECT coalesce(max(id), 0) AS id FROM changes')?.id);
  }

  findPackage(identity: Pick<NewPackage, 'kind' | 'name' | 'version' | 'architecture'>): CatalogPackage | undefined {
    const row = this.#db.get(
      `SELECT ${PACKAGE_COLUMNS} FROM packages p WHERE name = ? AND version = ? AND architecture = ? AND kind = ?`,
      identity.name,
      identity.version,
      identity.architecture,
      identity.kind,
    );
    return row && packageOf(row);
  }

  isFilenameTaken(filename: string): boolean {
    return this.#db.get('SELECT 1 FROM packages WHERE filename = ?', filename) !== undefined;
  }

  insertPackage(item: NewPackage): CatalogPackage {
    const row = this.#db.get(
      `INSERT INTO packages (kind, name, version, architecture, source, filename, size, md5, sha1, sha256, sha512, control)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
      item.kind,
      item.name,
      item.version,
      item.architecture,
      item.source,
      item.filename,
      item.size,
      item.md5,
      item.sha1,
      item.sha256,
      item.sha512,
      item.control,
    );
    return { ...item, id: Number(row?.id) };
  }

  /** True for a package that is in no suite and that no generation ever held. Any other stands for its bytes for ever. */
  isReplaceable(id: number): boolean {
    return (
      this.#db.get(
        `SELECT 1 FROM packages p WHERE id = ? AND published = 0
           AND NOT EXISTS (SELECT 1 FROM members m WHERE m.package = p.id AND m.removed IS NULL)`,
        id,
      ) !== undefined
    );
  }

  /** Gives a replaceable package other bytes. It keeps its id: what notices changed names still sees when it came and went. */
  replacePackage(id: number, item: NewPackage): CatalogPackage {
    this.#db.run(
      `UPDATE packages SET source = ?, filename = ?, size = ?, md5 = ?, sha1 = ?, sha256 = ?, sha512 = ?, control = ?
       WHERE id = ?`,
      item.source,
      item.filename,
      item.size,
      item.md5,
      item.sha1,
      item.sha256,
      item.sha512,
      item.control,
      id,
    );
    return { ...item, id };
  }

  isMember(suite: string, component: string, item: CatalogPackage): boolean {
    return (
      this.#db.get(
        'SELECT 1 FROM members WHERE suite = ? AND component = ? AND kind = ? AND name = ? AND package = ? AND removed IS NULL',
        suite,
        component,
        item.kind,
        item.name,
        item.id,
      ) !== undefined
    );
  }

  addMember(change: number, suite: string, component: string, item: CatalogPackage): void {
    this.#db.run(
      'INSERT INTO members (suite, component, kind, architecture, name, package, added) VALUES (?, ?, ?, ?, ?, ?, ?)',
      suite,
      component,
      item.kind,
      item.architecture,
      item.name,
      item.id,
      change,
    );
  }

  removeMember(change: number, member: Member): void {
    this.#db.run(
      `UPDATE members SET removed = ?
       WHERE suite = ? AND component = ? AND kind = ? AND name = ? AND package = ? AND removed IS NULL`,
      change,
      member.suite,
      member.component,
      member.package.kind,
      member.package.name,
      member.package.id,
    );
  }

  /** What is in the suites now, by suite, component, name; versions of a name in the order in which they came. */
  *members(filter: { suite?: string | undefined; name?: string | undefined } = {}): Generator<Member> {
    const rows = this.#db.iterate(
      `SELECT m.suite AS member_suite, m.component AS member_component, ${PACKAGE_COLUMNS}
       FROM members m JOIN packages p ON p.id = m.package
       WHERE m.removed IS NULL AND (?1 IS NULL OR m.suite = ?1) AND (?2 IS NULL OR m.name = ?2)
       ORDER BY m.suite, m.component, m.kind, m.name, m.id`,
      filter.suite ?? null,
      filter.name ?? null,
    );
    for (const row of rows) yield memberOf(row);
  }

  /** What was in a suite right after `change`. */
  *membersAt(suite: string, change: number): Generator<Member> {
    const rows = this.#db.iterate(
      `SELECT m.suite AS member_suite, m.component AS member_component, ${PACKAGE_COLUMNS}
       FROM members m JOIN packages p ON p.id = m.package
       WHERE m.suite = ? AND m.added <= ? AND (m.removed IS NULL OR m.removed > ?)
       ORDER BY m.component, m.kind, m.name, m.id`,
      suite,
      change,
      change,
    );
    for (const row of rows) yield memberOf(row);
  }

  /** The names in a suite right after `change`, sorted. */
  namesAt(suite: string, components: readonly string[], change: number, kinds: ShownKinds = 'binary'): string[] {
    return this.#db
      .all(
        `SELECT DISTINCT name FROM members
         WHERE suite = ?1 AND component IN (SELECT value FROM json_each(?2)) AND kind IN ${SHOWN_KINDS[kinds]}
           AND added <= ?3 AND (removed IS NULL OR removed > ?3) ORDER BY name`,
        suite,
        JSON.stringify(components),
        change,
      )
      .map((row) => String(row.name));
  }

  /** Names of which something came or went after `since`, up to `until`; sorted. */
  namesTouched(suite: string, since: number, until: number): string[] {
    return this.#db
      .all(
        `SELECT name FROM members INDEXED BY members_added WHERE suite = ?1 AND added > ?2 AND added <= ?3
         UNION SELECT name FROM members INDEXED BY members_removed WHERE suite = ?1 AND removed > ?2 AND removed <= ?3
         ORDER BY name`,
        suite,
        since,
        until,
      )
      .map((row) => String(row.name));
  }

  /** Everything of one name that was in a suite right after `change`. */
  versionsAt(
    suite: string,
    components: readonly string[],
    name: string,
    change: number,
    kinds: ShownKinds = 'binary',
  ): PublishedPackage[] {
    return this.#db
      .all(
        `SELECT m.component AS member_component, c.at AS added_at, ${PACKAGE_COLUMNS}
         FROM members m INDEXED BY members_by_name JOIN packages p ON p.id = m.package JOIN changes c ON c.id = m.added
         WHERE m.suite = ?1 AND m.component IN (SELECT value FROM json_each(?2)) AND m.kind IN ${SHOWN_KINDS[kinds]}
           AND m.name = ?3 AND m.added <= ?4 AND (m.removed IS NULL OR m.removed > ?4) ORDER BY m.id`,
        suite,
        JSON.stringify(components),
        name,
        change,
      )
      .map(publishedOf);
  }

  /** What came last of what was in a suite right after `change`, newest first. */
  latestArrivals(suite: string, change: number, limit: number): PublishedPackage[] {
    return this.#db
      .all(
        `SELECT m.component AS member_component, c.at AS added_at, ${PACKAGE_COLUMNS}
         FROM members m NOT INDEXED CROSS JOIN packages p ON p.id = m.package CROSS JOIN changes c ON c.id = m.added
         WHERE m.suite = ?1 AND m.kind IN ${SHOWN_KINDS.binary} AND m.added <= ?2 AND (m.removed IS NULL OR m.removed > ?2)
         ORDER BY m.id DESC LIMIT ?3`,
        suite,
        change,
        limit,
      )
      .map(publishedOf);
  }

  /** Newest first, with how many packages each put into suites and took out. */
  changes(filter: { suite?: string | undefined; limit?: number | undefined } = {}): CountedChange[] {
    return this.#db
      .all(
        `SELECT c.id, c.at, c.who, c.action, c.detail,
           (SELECT count(*) FROM members m WHERE m.added = c.id) AS added,
           (SELECT count(*) FROM members m WHERE m.removed = c.id) AS removed
         FROM changes c
         WHERE ?1 IS NULL OR EXISTS (SELECT 1 FROM members m WHERE (m.added = c.id OR m.removed = c.id) AND m.suite = ?1)
         ORDER BY c.id DESC LIMIT ?2`,
        filter.suite ?? null,
        filter.limit ?? -1,
      )
      .map((row) => ({ ...changeOf(row), added: Number(row.added), removed: Number(row.removed) }));
  }

  findChange(id: number): Change | undefined {
    const row = this.#db.get('SELECT id, at, who, action, detail FROM changes WHERE id = ?', id);
    return row && changeOf(row);
  }

  /** What a change put into suites and took out of them. */
  effectsOf(change: number): { readonly added: readonly Member[]; readonly removed: readonly Member[] } {
    const rows = (column: 'added' | 'removed') =>
      this.#db
        .all(
          `SELECT m.suite AS member_suite, m.component AS member_component, ${PACKAGE_COLUMNS}
           FROM members m JOIN packages p ON p.id = m.package WHERE m.${column} = ? ORDER BY m.id`,
          change,
        )
        .map(memberOf);
    return { added: rows('added'), removed: rows('removed') };
  }

  /** When each package came into a suite where it still is: ISO 8601 by package id. */
  memberDates(suite: string): ReadonlyMap<number, string> {
    const rows = this.#db.all(
      'SELECT m.package, c.at FROM members m JOIN changes c ON c.id = m.added WHERE m.suite = ? AND m.removed IS NULL',
      suite,
    );
    return new Map(rows.map((row) => [Number(row.package), String(row.at)]));
  }

  /** Packages that are in no suite now and in none of these generations: nobody can ask for their files. */
  unreferencedPackages(kept: readonly Pick<Generation, 'suite' | 'change'>[]): CatalogPackage[] {
    const states = JSON.stringify(kept.map(({ suite, change }) => ({ suite, change })));
    return this.#db
      .all(
        `SELECT ${PACKAGE_COLUMNS} FROM packages p
         WHERE NOT EXISTS (SELECT 1 FROM members m WHERE m.package = p.id AND m.removed IS NULL)
           AND NOT EXISTS (
             SELECT 1 FROM members m JOIN json_each(?) g ON m.suite = g.value ->> 'suite'
             WHERE m.package = p.id AND m.added <= g.value ->> 'change' AND m.removed > g.value ->> 'change')
         ORDER BY p.filename`,
        states,
      )
      .map(packageOf);
  }

  countMembers(suite: string): number {
    const sql = 'SELECT count(*) AS n FROM members INDEXED BY members_now WHERE suite = ? AND removed IS NULL';
    return Number(this.#db.get(sql, suite)?.n);
  }

  /**
   * Packages of one index as it was at `change`, whose names lie in [from, to), by name; `to` undefined: to the end.
   * Packages for `all` count for each architecture.
   */
  *indexRange(key: IndexKey, from: string, to: string | undefined, change: number): Generator<CatalogPackage> {
    const rows = this.#db.iterate(
      `SELECT ${PACKAGE_COLUMNS} FROM members m JOIN packages p ON p.id = m.package
       WHERE m.suite = ?1 AND m.component = ?2 AND m.kind = ?3 AND m.name >= ?4 AND m.name < ?5
         AND (?6 = '*' OR m.architecture IN (?6, 'all')) AND m.added <= ?7 AND (m.removed IS NULL OR m.removed > ?7)
       ORDER BY m.name`,
      key.suite,
      key.component,
      key.kind,
      from,
      to ?? '\u{10ffff}',
      key.architecture,
      change,
    );
    for (const row of rows) yield packageOf(row);
  }

  /** Names whose place in this index changed after `change`. */
  namesChangedSince(key: IndexKey, change: number): string[] {
    return this.#db
      .all(
        `SELECT name FROM members INDEXED BY members_added
         WHERE added > ?1 AND suite = ?2 AND component = ?3 AND kind = ?4 AND (?5 = '*' OR architecture IN (?5, 'all'))
         UNION SELECT name FROM members INDEXED BY members_removed
         WHERE removed > ?1 AND suite = ?2 AND component = ?3 AND kind = ?4 AND (?5 = '*' OR architecture IN (?5, 'all'))
         ORDER BY name`,
        change,
        key.suite,
        key.component,
        key.kind,
        key.architecture,
      )
      .map((row) => String(row.name));
  }

  /** Whether a component holds installer packages or sources: only then it has indexes of them. */
  hasKind(suite: string, component: string, kind: PackageKind): boolean {
    return (
      this.#db.get(
        'SELECT 1 FROM members WHERE suite = ? AND component = ? AND kind = ? AND removed IS NULL LIMIT 1',
        suite,
        component,
        kind,
      ) !== undefined
    );
  }

  /** Files of a source beside its .dsc. Sources may share one. */
  packageFiles(id: number): PackageFile[] {
    return this.#db.all('SELECT filename, size, sha256 FROM package_files WHERE package = ?', id).map(packageFileOf);
  }

  /** What the suite says of a package in place of its own fields. */
  findOverride(suite: string, key: string): Override | undefined {
    const row = this.#db.get('SELECT override FROM overrides WHERE suite = ? AND key = ?', suite, key);
    return row && (JSON.parse(String(row.override)) as Override);
  }

  /** In place of those that the suite had. */
  saveOverrides(suite: string, overrides: Overrides): void {
    this.#db.run('DELETE FROM overrides WHERE suite = ?', suite);
    for (const [key, override] of overrides) {
      this.#db.run(
        'INSERT INTO overrides (suite, key, override) VALUES (?, ?, ?)',
        suite,
        key,
        JSON.stringify(override),
      );
    }
  }

  tokens(): TokenFacts[] {
    return this.#db.all('SELECT name, suites, role, created FROM tokens ORDER BY name').map(tokenOf);
  }

  findToken(hash: string): TokenFacts | undefined {
    const row = this.#db.get('SELECT name, suites, role, created FROM tokens WHERE hash = ?', hash);
    return row && tokenOf(row);
  }

  insertToken(token: TokenFacts, hash: string): void {
    this.#db.run(
      'INSERT INTO tokens (name, hash, suites, role, created) VALUES (?, ?, ?, ?, ?)',
      token.name,
      hash,
      JSON.stringify(token.suites),
      token.role,
      token.created,
    );
  }

  /** Returns false when there is none. */
  deleteToken(name: string): boolean {
    return this.#db.run('DELETE FROM tokens WHERE name = ?', name) > 0;
  }

  /** The compressed list of what a package installs, by the digest of the package. */
  fileList(sha256: string): Uint8Array | undefined {
    return this.#db.get('SELECT paths FROM file_lists WHERE sha256 = ?', sha256)?.paths as Uint8Array | undefined;
  }

  saveFileList(sha256: string, paths: Uint8Array): void {
    this.#db.run('INSERT OR REPLACE INTO file_lists (sha256, paths) VALUES (?, ?)', sha256, paths);
  }

  /** Files of these sources that no other source lists. */
  unsharedFiles(ids: readonly number[]): PackageFile[] {
    return this.#db
      .all(
        `SELECT DISTINCT filename, size, sha256 FROM package_files f
         WHERE package IN (SELECT value FROM json_each(?1)) AND NOT EXISTS (
           SELECT 1 FROM package_files o WHERE o.filename = f.filename AND o.package NOT IN (SELECT value FROM json_each(?1)))`,
        JSON.stringify(ids),
      )
      .map(packageFileOf);
  }

  /** What the catalog says of a pool file that belongs to a source. */
  findFile(filename: string): PackageFile | undefined {
    const row = this.#db.get('SELECT filename, size, sha256 FROM package_files WHERE filename = ? LIMIT 1', filename);
    return row && packageFileOf(row);
  }

  savePackageFiles(id: number, files: readonly PackageFile[]): void {
    this.#db.run('DELETE FROM package_files WHERE package = ?', id);
    for (const file of files) {
      this.#db.run(
        'INSERT INTO package_files (package, filename, size, sha256) VALUES (?, ?, ?, ?)',
        id,
        file.filename,
        file.size,
        file.sha256,
      );
    }
  }

  /** Newest first. */
  generations(suite?: string): Generation[] {
    return this.#db
      .all(
        'SELECT * FROM generations WHERE settled = 1 AND (?1 IS NULL OR suite = ?1) ORDER BY id DESC, suite',
        suite ?? null,
      )
      .map(generationOf);
  }

  currentGeneration(suite: string): Generation | undefined {
    const row = this.#db.get(
      'SELECT * FROM generations WHERE settled = 1 AND suite = ? ORDER BY id DESC LIMIT 1',
      suite,
    );
    return row && generationOf(row);
  }

  /** Seconds since the epoch of the latest generation of any suite; undefined when there is none. */
  latestDate(): number | undefined {
    const date = this.#db.get('SELECT max(date) AS date FROM generations')?.date;
    return date === null || date === undefined ? undefined : Number(date);
  }

  /** Notes a generation before it is switched to. Until `settleGeneration` it may or may not have become the current one. */
  proposeGeneration(generation: Generation): void {
    this.#db.run(
      `INSERT INTO generations (id, suite, change, fingerprint, format, date, valid_until, files, pinned, settled)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0)`,
      generation.id,
      generation.suite,
      generation.change,
      generation.fingerprint,
      generation.format,
      generation.date,
      generation.validUntil ?? null,
      JSON.stringify(generation.files),
    );
  }

  /** Clients see it: from now on its packages are what they are. */
  settleGeneration(suite: string, id: string): void {
    this.#db.run(
      `UPDATE packages SET published = 1 WHERE published = 0 AND id IN (
         SELECT m.package FROM members m INDEXED BY members_added JOIN generations g ON g.suite = m.suite AND g.id = ?2
         WHERE m.suite = ?1 AND m.added <= g.change AND (m.removed IS NULL OR m.removed > g.change)
           AND m.added > coalesce(
             (SELECT max(change) FROM generations b WHERE b.suite = ?1 AND b.settled = 1 AND b.id < ?2), 0))`,
      suite,
      id,
    );
    this.#db.run('UPDATE generations SET settled = 1 WHERE suite = ? AND id = ?', suite, id);
  }

  /** Those whose switch was interrupted. */
  unsettledGenerations(): Generation[] {
    return this.#db.all('SELECT * FROM generations WHERE settled = 0').map(generationOf);
  }

  findGeneration(suite: string, id: string): Generation | undefined {
    const row = this.#db.get('SELECT * FROM generations WHERE settled = 1 AND suite = ? AND id = ?', suite, id);
    return row && generationOf(row);
  }

  pinGeneration(suite: string, id: string, pinned: boolean): void {
    this.#db.run('UPDATE generations SET pinned = ? WHERE suite = ? AND id = ?', pinned ? 1 : 0, suite, id);
  }

  dropGeneration(suite: string, id: string): void {
    this.#db.run('DELETE FROM generations WHERE suite = ? AND id = ?', suite, id);
  }
}

function tokenOf(row: SqlRow): TokenFacts {
  return {
    name: String(row.name),
    suites: JSON.parse(String(row.suites)) as string[],
    role: row.role as TokenRole,
    created: String(row.created),
  };
}

function packageFileOf(row: SqlRow): PackageFile {
  return { filename: String(row.filename), size: Number(row.size), sha256: String(row.sha256) };
}

function memberOf(row: SqlRow): Member {
  return { suite: String(row.member_suite), component: String(row.member_component), package: packageOf(row) };
}

function publishedOf(row: SqlRow): PublishedPackage {
  return { component: String(row.member_component), addedAt: String(row.added_at), package: packageOf(row) };
}

function changeOf(row: SqlRow): Change {
  return {
    id: Number(row.id),
    at: String(row.at),
    who: String(row.who),
    action: String(row.action),
    detail: JSON.parse(String(row.detail)) as unknown,
  };
}

function packageOf(row: SqlRow): CatalogPackage {
  return {
    id: Number(row.id),
    kind: row.kind as PackageKind,
    name: String(row.name),
    version: String(row.version),
    architecture: String(row.architecture),
    source: String(row.source),
    filename: String(row.filename),
    size: Number(row.size),
    md5: String(row.md5),
    sha1: String(row.sha1),
    sha256: String(row.sha256),
    sha512: String(row.sha512),
    control: String(row.control),
  };
}

function generationOf(row: SqlRow): Generation {
  return {
    id: String(row.id),
    suite: String(row.suite),
    change: Number(row.change),
    fingerprint: String(row.fingerprint),
    format: Number(row.format),
    date: Number(row.date),
    validUntil: row.valid_until === null ? undefined : Number(row.valid_until),
    files: JSON.parse(String(row.files)) as IndexFile[],
    pinned: row.pinned === 1,
  };
}
