/** The door of the repository: packages in and out of suites, publishing, and what clients need to find it. */
import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { explainWriteError } from '../core/files.ts';
import type { BinaryPackage } from '../deb/package.ts';
import type { AddOptions, AddResult } from './add.ts';
import { Catalog, type CountedChange, type Member, type TokenFacts, type TokenRole } from './catalog.ts';
import type { CheckReport } from './check.ts';
import type { CloneOptions, CloneResult } from './clone.ts';
import type { Attachment } from './detached.ts';
import type { ExportRequest, ExportResult } from './export-debs.ts';
import type { Garbage } from './gc.ts';
import { factsOfMember, findSuite, lockPublish, lockWrite, type PackageFacts, type RepoHandle } from './handle.ts';
import {
  type ChangeRequest,
  diffGenerations,
  type GenerationFacts,
  listChanges,
  listGenerations,
  pinGeneration,
  rollBack,
  type SuiteDifference,
  undoChange,
} from './history.ts';
import type { ImportRequest, ImportResult } from './import.ts';
import { KeyStore, type PassphraseSource } from './keys.ts';
import { layoutOf } from './layout.ts';
import type { OverrideFile } from './overrides.ts';
import type { TransferRequest, TransferResult, TransferVerb } from './promote.ts';
import type { PublishedSuite, PublishOptions, SourcesOptions } from './publish.ts';
import type { PackageFilter } from './query.ts';
import type { RetainRequest } from './retain.ts';
import type { KeyStatus } from './rotation.ts';
import {
  checkRepository,
  checkSuite,
  DEFAULT_KEEP_DAYS,
  DEFAULT_KEEP_GENERATIONS,
  DEFAULT_VALID_DAYS,
  type RepositorySettings,
  type SuiteSettings,
} from './settings.ts';
import { checkToken, createToken, revokeToken, type TokenRequest } from './tokens.ts';

export interface InitRequest {
  readonly suites: readonly SuiteSettings[];
  readonly origin: string;
  readonly label: string;
  readonly description?: string | undefined;
  /** Where clients find it; may be told later. */
  readonly url?: string | undefined;
  /** Keys to sign with: fingerprints, their ends, or parts of user ids. Default: the only key there is when it is published. */
  readonly keys?: readonly string[] | undefined;
  readonly validDays?: number | undefined;
}

export interface RemoveOptions {
  /** Default: wherever it is. */
  readonly component?: string | undefined;
  readonly dryRun?: boolean | undefined;
  /** For the history. */
  readonly who?: string | undefined;
}

/** What is undefined stays as it is. */
type Change<T> = { readonly [K in keyof T]?: T[K] | undefined };

/** An open repository. `using` it closes its database. */
export class Repo implements Disposable {
  readonly #handle: RepoHandle;

  private constructor(context: Context, root: string, catalog: Catalog) {
    this.#handle = { context, dir: root, layout: layoutOf(root), catalog, keys: new KeyStore(context) };
  }

  /** @throws UserError `repository-exists`, or for a name that no suite can have; nothing is made then */
  static async init(context: Context, dir: string, request: InitRequest): Promise<Repo> {
    const root = resolve(dir);
    const settings = await initialSettings(context, request);
    const suites = request.suites.map(checkSuite);
    if (suites.length === 0)
      throw new UserError('no-suite', 'a repository needs a suite', { hint: '--suite bookworm' });
    const layout = layoutOf(root);
    try {
      for (const folder of [layout.incoming, join(root, 'db')]) await mkdir(folder, { recursive: true, mode: 0o700 });
      for (const folder of ['pool', 'dists', 'snapshots', 'by-hash/SHA256']) {
        await mkdir(join(layout.public, folder), { recursive: true });
      }
    } catch (cause) {
      throw explainWriteError(cause, root);
    }
    return new Repo(context, root, Catalog.create(layout.catalog, root, settings, suites));
  }

  /** @throws UserError `no-repository` */
  static async open(context: Context, dir: string): Promise<Repo> {
    const root = resolve(dir);
    return new Repo(context, root, Catalog.open(layoutOf(root).catalog, root));
  }

  [Symbol.dispose](): void {
    this.#handle.catalog[Symbol.dispose]();
  }

  get dir(): string {
    return this.#handle.dir;
  }

  /** What any web server may serve. */
  get publicDir(): string {
    return this.#handle.layout.public;
  }

  settings(): RepositorySettings {
    return this.#handle.catalog.settings();
  }

  suites(): SuiteSettings[] {
    return this.#handle.catalog.suites();
  }

  /** Changes what the repository says of itself; undefined values stay. Clients see it with the next publish. */
  async saveSettings(change: Change<RepositorySettings>): Promise<RepositorySettings> {
    using _ = await lockPublish(this.#handle);
    const known = Object.entries(change).filter(([, value]) => value !== undefined);
    const settings = checkRepository({ ...this.settings(), ...Object.fromEntries(known) });
    this.#handle.catalog.saveSettings(settings);
    return settings;
  }

  /** Changes a suite, or makes it with what the first one has. Clients see it with the next publish. */
  async saveSuite(
    name: string,
    change: Change<SuiteSettings>,
    components: readonly string[] = [],
    architectures: readonly string[] = [],
  ): Promise<SuiteSettings> {
    using _ = await lockPublish(this.#handle);
    const suites = this.suites();
    const before = suites.find((suite) => suite.name === name);
    const model = before ?? { name, components: suites[0]!.components, architectures: suites[0]!.architectures };
    const known = Object.entries(change).filter(([, value]) => value !== undefined);
    const settings = checkSuite({
      ...model,
      ...Object.fromEntries(known),
      components: [...(before || components.length === 0 ? model.components : []), ...components],
      architectures: [...(before || architectures.length === 0 ? model.architectures : []), ...architectures],
    });
    this.#handle.catalog.transaction(() => this.#handle.catalog.saveSuite(settings));
    return settings;
  }

  /**
   * Says of packages of a suite what stands in place of their own fields, in place of what was said before; no files: nothing.
   * @returns of how many packages @throws UserError `bad-override`
   */
  async saveOverrides(name: string, files: readonly OverrideFile[]): Promise<number> {
    const { digestOverrides, parseOverrides } = await import('./overrides.ts');
    const { catalog } = this.#handle;
    const overrides = parseOverrides(files);
    using _ = await lockPublish(this.#handle);
    const suite = findSuite(this.#handle, name);
    catalog.transaction(() => {
      catalog.saveOverrides(suite.name, overrides);
      catalog.saveSuite({ ...suite, overrides: digestOverrides(overrides) });
    });
    return overrides.size;
  }

  /**
   * Adds .deb and .udeb files, and those in folders. A file that cannot be taken is told in `refused` and, unless
   * `allOrNothing`, changes nothing for the others.
   */
  async add(suite: string, paths: readonly string[], options: AddOptions = {}): Promise<AddResult> {
    const { addPackages } = await import('./add.ts');
    return addPackages(this.#handle, suite, paths, options);
  }

  /**
   * Takes packages out of a suite: `name` (every version) or `name=version`. Their files stay in the pool.
   * @throws UserError `no-such-package` when one of them is not there; nothing is changed then
   */
  async remove(suiteName: string, specs: readonly string[], options: RemoveOptions = {}): Promise<PackageFacts[]> {
    const suite = findSuite(this.#handle, suiteName).name;
    const { removePackages } = await import('./remove.ts');
    using _ = options.dryRun ? undefined : await lockWrite(this.#handle);
    return removePackages(this.#handle, suite, specs, options);
  }

  /** What is in one suite, or in all, published or not; all of it, or what a filter means. */
  list(suiteName?: string, filter?: PackageFilter): PackageFacts[] {
    return [...this.members(suiteName, filter)].map(factsOfMember);
  }

  /** Like `list`, with the control file of each. */
  *members(suiteName?: string, filter?: PackageFilter): Generator<Member> {
    const suite = suiteName === undefined ? undefined : findSuite(this.#handle, suiteName).name;
    for (const member of this.#handle.catalog.members({ suite })) if (filter?.(member) ?? true) yield member;
  }

  /** What clients see of a suite now. */
  published(suiteName: string, filter?: PackageFilter): PackageFacts[] {
    const suite = findSuite(this.#handle, suiteName).name;
    const current = this.#handle.catalog.currentGeneration(suite);
    const members = current ? [...this.#handle.catalog.membersAt(suite, current.change)] : [];
    return members.filter((member) => filter?.(member) ?? true).map(factsOfMember);
  }

  /** Packages of another repository into a suite of this one. */
  async import(request: ImportRequest): Promise<ImportResult> {
    const { importPackages } = await import('./import.ts');
    return importPackages(this.#handle, request);
  }

  /** All of it once more, without private keys and tokens. */
  async clone(to: string, options: CloneOptions = {}): Promise<CloneResult> {
    const { cloneRepository } = await import('./clone.ts');
    return cloneRepository(this.#handle, to, options);
  }

  /** Packages of a suite as files. */
  async exportDebs(suite: string, folder: string, request: ExportRequest = {}): Promise<ExportResult> {
    const { exportPackages } = await import('./export-debs.ts');
    return exportPackages(this.#handle, suite, folder, request);
  }

  /** The same bytes in another suite; see promote.ts for what the verbs mean. */
  async transfer(verb: TransferVerb, request: TransferRequest): Promise<TransferResult> {
    const { transfer } = await import('./promote.ts');
    using _ = await lockWrite(this.#handle);
    return transfer(this.#handle, verb, request);
  }

  /** Takes old versions out of a suite. */
  async retain(suite: string, request: RetainRequest): Promise<SuiteDifference> {
    const { retain } = await import('./retain.ts');
    using _ = await lockWrite(this.#handle);
    return retain(this.#handle, suite, request);
  }

  /** What was changed, by whom and when, newest first. */
  history(suite?: string, limit = 50): CountedChange[] {
    return listChanges(this.#handle, suite, limit);
  }

  /** Takes one change back; default: the latest. */
  async undo(change?: number, request: ChangeRequest = {}): Promise<SuiteDifference & { readonly undone: number }> {
    using _ = await lockWrite(this.#handle);
    return undoChange(this.#handle, change, request);
  }

  /** Newest first. */
  generations(suite?: string): GenerationFacts[] {
    return listGenerations(this.#handle, suite);
  }

  /** What happened between two generations; without the second: up to now, published or not. */
  diff(suite: string, from: string, to?: string): SuiteDifference {
    return diffGenerations(this.#handle, suite, from, to);
  }

  /** Makes a suite what it was in a generation; `publish` shows it to clients. */
  async rollBack(suite: string, generation: string, request: ChangeRequest = {}): Promise<SuiteDifference> {
    using _ = await lockWrite(this.#handle);
    return rollBack(this.#handle, suite, generation, request);
  }

  /** Keeps a generation for ever, or no longer. */
  pin(suite: string, generation: string, pinned: boolean): GenerationFacts {
    return pinGeneration(this.#handle, suite, generation, pinned);
  }

  /**
   * Looks at every file that clients may ask for now. `repair` makes links and indexes anew and publishes them; packages whose
   * files are broken must be added again.
   */
  async check(
    options: { readonly repair?: boolean; readonly passphrase?: PassphraseSource } = {},
  ): Promise<CheckReport> {
    const { checkRepo } = await import('./check.ts');
    const report = await checkRepo(this.#handle, options);
    if (!options.repair || !report.needsPublish) return report;
    await this.publish([], { force: true, passphrase: options.passphrase });
    return checkRepo(this.#handle);
  }

  /** Removes what nobody can ask for any more. */
  async collectGarbage(options: { readonly dryRun?: boolean | undefined } = {}): Promise<Garbage> {
    const { collectGarbage } = await import('./gc.ts');
    return collectGarbage(this.#handle, options);
  }

  /** Makes what is in the suites (all of them, or those named) visible to clients. */
  async publish(suites: readonly string[] = [], options: PublishOptions = {}): Promise<PublishedSuite[]> {
    const { publishSuites } = await import('./publish.ts');
    return publishSuites(this.#handle, suites, options);
  }

  /** Signs anew what clients see, where more than half of its time is over. @returns the names of the suites */
  async renew(passphrase?: PassphraseSource): Promise<string[]> {
    const { renewSuites } = await import('./publish.ts');
    return renewSuites(this.#handle, passphrase);
  }

  /** Lets somebody write over HTTP. @returns the token: it is shown this once, only its digest is kept */
  createToken(request: TokenRequest): string {
    return createToken(this.#handle, request);
  }

  /** Who may write over HTTP. */
  tokens(): TokenFacts[] {
    return this.#handle.catalog.tokens();
  }

  /** @throws UserError `no-such-token` */
  revokeToken(name: string): void {
    revokeToken(this.#handle, name);
  }

  /** @throws UserError `not-allowed` */
  checkToken(token: string | undefined, suite: string, role: TokenRole): TokenFacts {
    return checkToken(this.#handle, token, suite, role);
  }

  /** Which keys sign, which of them will go and when. */
  async keyStatus(): Promise<KeyStatus[]> {
    const { keyStatus } = await import('./rotation.ts');
    return keyStatus(this.#handle);
  }

  /** From the next publish on this key signs too, and alone once `overlapDays` are over. */
  async rotateKey(key: string, overlapDays: number): Promise<RepositorySettings> {
    const { planRotation } = await import('./rotation.ts');
    using _ = await lockPublish(this.#handle);
    return planRotation(this.#handle, key, overlapDays);
  }

  /** Builds the package that brings the public keys to clients. */
  async keyringDeb(folder: string): Promise<BinaryPackage> {
    const { buildKeyringDeb } = await import('./rotation.ts');
    return buildKeyringDeb(this.#handle, folder);
  }

  /** Writes what somebody else is to sign. @returns the path of the text */
  async writeUnsigned(suite: string): Promise<string> {
    const { writeUnsigned } = await import('./detached.ts');
    return writeUnsigned(this.#handle, suite);
  }

  /** Publishes what somebody else has signed. @returns the id of the generation */
  async attachSignature(suite: string, attachment: Attachment): Promise<string> {
    const { attachSignature } = await import('./detached.ts');
    return attachSignature(this.#handle, suite, attachment);
  }

  /** The deb822 `.sources` entry of a suite; default: the first. */
  async sources(suiteName?: string, options: SourcesOptions = {}): Promise<string> {
    const suite = suiteName === undefined ? this.suites()[0]! : findSuite(this.#handle, suiteName);
    const { sourcesEntry } = await import('./publish.ts');
    return sourcesEntry(this.#handle, suite, options);
  }
}

async function initialSettings(context: Context, request: InitRequest): Promise<RepositorySettings> {
  const store = new KeyStore(context);
  const keys: string[] = [];
  for (const key of request.keys ?? [])
    keys.push(/^(?:gpg|command):/.test(key) ? key : (await store.find(key)).fingerprint);
  return checkRepository({
    origin: request.origin,
    label: request.label,
    description: request.description,
    url: request.url,
    keys,
    validDays: request.validDays ?? DEFAULT_VALID_DAYS,
    keepDays: DEFAULT_KEEP_DAYS,
    keepGenerations: DEFAULT_KEEP_GENERATIONS,
  });
}
