/**
 * Making what is in the suites visible to clients.
 *
 * Secret: when there is something to publish at all, which dates and keys a generation gets, and what lies beside it for people
 * who set up a client: the public key and a `.sources` entry per suite.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf, UserError } from '../core/errors.ts';
import { writeFileAtomic } from '../core/files.ts';
import type { KeyInfo } from '../deb/openpgp.ts';
import { formatSource } from '../deb/sources.ts';
import { BlockCache } from './blocks.ts';
import type { Generation } from './catalog.ts';
import { applyGeneration, type PlannedSuite, planDates, recoverPublish, type SignedRelease } from './generation.ts';
import { findSuite, lockPublish, type RepoHandle } from './handle.ts';
import { generationId, type ReleaseDates, renderRelease } from './indexes.ts';
import { daysLeft, type PassphraseSource } from './keys.ts';
import { checkUrl, type RepositorySettings, type SuiteSettings } from './settings.ts';
import { openSigning, resolveKey, type Signing } from './signing.ts';
import { planSuite } from './suite-indexes.ts';

/** Dates may run ahead of the clock by this much when publishes follow each other faster than once a second; apt takes 10 s. */
const MAX_AHEAD_SECONDS = 2;
/** A generation dated later than this ahead of the clock means that the clock is, or was, wrong; less is waited for. */
const CLOCK_TOLERANCE_SECONDS = 30;
const WARN_KEY_DAYS = 30;

const KEY_FILE_ARMORED = 'archive-key.asc';
const KEY_FILE_BINARY = 'archive-key.gpg';

export interface PublishOptions {
  /** Also when nothing changed. */
  readonly force?: boolean | undefined;
  readonly dryRun?: boolean | undefined;
  /** Sign with these keys from now on: fingerprints, their ends, or parts of user ids. */
  readonly keys?: readonly string[] | undefined;
  /** The address that clients use, from now on. */
  readonly url?: string | undefined;
  /** Bring the pages for people up to date too (default: as the settings say). */
  readonly pages?: boolean | undefined;
  readonly passphrase?: PassphraseSource | undefined;
}

export interface PublishedSuite {
  readonly suite: string;
  /** False: clients have this state already. */
  readonly published: boolean;
  /** Id of what clients see after the call; undefined where nothing ever was (dry run). */
  readonly generation: string | undefined;
  readonly packages: number;
  /** ISO 8601; undefined: never. */
  readonly validUntil: string | undefined;
}

/**
 * Publishes the named suites, or all. A suite that did not change is left alone while more than half of its time to
 * Valid-Until remains.
 * @throws UserError when a key is missing or cannot sign, or the clock went back; nothing is changed then
 */
export async function publishSuites(
  repo: RepoHandle,
  names: readonly string[],
  options: PublishOptions = {},
): Promise<PublishedSuite[]> {
  const { context, layout, catalog } = repo;
  const suites = names.length === 0 ? catalog.suites() : names.map((name) => findSuite(repo, name));
  using _ = await lockPublish(repo);
  await recoverPublish(layout, catalog);
  const settings = await chosenSettings(repo, options);
  const dates = await nextDates(repo, settings);
  // before anything is written: a key that cannot sign changes nothing
  const signing = await openSigning(repo, signingKeys(settings), options.passphrase);
  warnOfExpiry(repo, signing.keys);
  const plans = await planSuites(repo, suites, settings, signersOf(signing));
  const due = plans.filter(
    (plan) => options.force || isDue(plan, catalog.currentGeneration(plan.suite.name), context.now()),
  );
  if (!options.dryRun) {
    if (due.length > 0) await writeAndSwitch(repo, due, settings, dates, signing);
    await writeClientFiles(repo, settings, signing);
    if (settings.pages === false) await (await import('./pages.ts')).removePages(repo);
    else if (options.pages ?? true) await refreshPages(repo, signing, options.force);
  }
  return plans.map((plan) => resultOf(repo, plan, due.includes(plan)));
}

/**
 * Signs anew, with later dates, what clients see, where more than half of the time to Valid-Until is over. What was changed since
 * stays unpublished.
 * @returns the names of the suites
 */
export async function renewSuites(repo: RepoHandle, passphrase?: PassphraseSource): Promise<string[]> {
  using _ = await lockPublish(repo);
  await recoverPublish(repo.layout, repo.catalog);
  const due: PlannedSuite[] = [];
  for (const suite of repo.catalog.suites()) {
    const current = repo.catalog.currentGeneration(suite.name);
    if (!current || !isHalfOver(current, repo.context.now())) continue;
    const { change, files, fingerprint } = current;
    due.push({ suite, change, files, fingerprint, packages: 0 });
  }
  if (due.length === 0) return [];
  const settings = await chosenSettings(repo, {});
  const signing = await openSigning(repo, signingKeys(settings), passphrase);
  warnOfExpiry(repo, signing.keys);
  await writeAndSwitch(repo, due, settings, await nextDates(repo, settings), signing);
  return due.map((plan) => plan.suite.name);
}

/** Settings with what the call, or the plan of keys, decides anew; stored for the next one. */
async function chosenSettings(repo: RepoHandle, options: PublishOptions): Promise<RepositorySettings> {
  const before = repo.catalog.settings();
  const now = repo.context.now();
  const { rotation } = before;
  const isRotated = rotation !== undefined && Date.parse(rotation.at) <= now.getTime();
  const wanted = options.keys ?? (isRotated ? rotation.keys : before.keys);
  const keys = await Promise.all(wanted.map((name) => resolveKey(repo, name)));
  if (keys.length === 0) keys.push(await resolveKey(repo, undefined));
  const settings: RepositorySettings = {
    ...before,
    keys,
    rotation: options.keys || isRotated ? undefined : rotation,
    keysSince: String(keys) === String(before.keys) && before.keysSince ? before.keysSince : now.toISOString(),
    ...(options.url === undefined ? {} : { url: checkUrl(options.url) }),
  };
  if (!options.dryRun) repo.catalog.saveSettings(settings);
  return settings;
}

/** Those of now, and those that will sign alone once a planned change is through. */
export function signingKeys(settings: RepositorySettings): string[] {
  return [...new Set([...settings.keys, ...(settings.rotation?.keys ?? [])])];
}

function signersOf(signing: Signing): string[] {
  return signing.keys.map((key) => key.fingerprint);
}

/** Of the keys whose names tell it: what is known of them before anybody signs. */
export function fingerprintsIn(settings: RepositorySettings): string[] {
  const names = signingKeys(settings).map((name) => name.replace(/^gpg:/, ''));
  return names.every((name) => /^[0-9A-F]{40}$/i.test(name)) ? names : [];
}

function warnOfExpiry(repo: RepoHandle, keys: readonly KeyInfo[]): void {
  for (const key of keys) {
    const days = daysLeft(key, repo.context.now());
    if (days === undefined || days > WARN_KEY_DAYS) continue;
    repo.context.log.warn(
      `key ${key.fingerprint} expires in ${days} days, and clients will refuse the repository then: ` +
        'buildkit key extend, or plan another with buildkit repo rotate-key',
    );
  }
}

export async function nextDates(repo: RepoHandle, settings: RepositorySettings): Promise<ReleaseDates> {
  const now = repo.context.now();
  const dates = planDates(now, repo.catalog.latestDate(), settings.validDays);
  const ahead = dates.date - now.getTime() / 1000;
  if (ahead > CLOCK_TOLERANCE_SECONDS) {
    throw new UserError(
      'clock-behind',
      'the latest generation is dated in the future: the clock of this machine went back',
      {
        hint: `set the clock (it says ${now.toISOString()}; the latest generation is ${generationId(dates.date - 1)})`,
      },
    );
  }
  if (ahead > 2 * MAX_AHEAD_SECONDS) {
    repo.context.log.warn(`the clock went back by ${Math.ceil(ahead)} seconds: waiting until it has caught up`);
  }
  if (ahead > MAX_AHEAD_SECONDS)
    await sleep((ahead - MAX_AHEAD_SECONDS) * 1000, undefined, { signal: repo.context.signal });
  return dates;
}

export async function planSuites(
  repo: RepoHandle,
  suites: readonly SuiteSettings[],
  settings: RepositorySettings,
  signers: readonly string[] = fingerprintsIn(settings),
): Promise<PlannedSuite[]> {
  using cache = await BlockCache.open(repo.layout.blocks);
  const facts = { change: repo.catalog.latestChange(), keys: signingKeys(settings), signers, repository: settings };
  const plans: PlannedSuite[] = [];
  for (const suite of suites) plans.push(await planSuite(repo.context, repo.layout, repo.catalog, cache, suite, facts));
  return plans;
}

/** New contents or settings, or half of the time to Valid-Until is over. */
function isDue(plan: PlannedSuite, current: Generation | undefined, now: Date): boolean {
  if (current === undefined || current.fingerprint !== plan.fingerprint) return true;
  return isHalfOver(current, now);
}

function isHalfOver({ date, validUntil }: Generation, now: Date): boolean {
  return validUntil !== undefined && now.getTime() / 1000 > (date + validUntil) / 2;
}

async function writeAndSwitch(
  repo: RepoHandle,
  due: readonly PlannedSuite[],
  settings: RepositorySettings,
  dates: ReleaseDates,
  signing: Signing,
): Promise<void> {
  const suites: { plan: PlannedSuite; signed: SignedRelease }[] = [];
  for (const plan of due) {
    const release = renderRelease(settings, plan.suite, plan.files, dates, signersOf(signing));
    suites.push({ plan, signed: await signing.sign(release) });
  }
  const others = otherGenerations(
    repo,
    due.map((plan) => plan.suite.name),
  );
  await applyGeneration(repo.layout, repo.catalog, { ...dates, id: generationId(dates.date), suites, others });
}

/** Suites that are not published anew belong to the snapshot as they are. */
export function otherGenerations(repo: RepoHandle, published: readonly string[]): ReadonlyMap<string, string> {
  const others = new Map<string, string>();
  for (const { name } of repo.catalog.suites()) {
    const current = published.includes(name) ? undefined : repo.catalog.currentGeneration(name);
    if (current) others.set(name, current.id);
  }
  return others;
}

function resultOf(repo: RepoHandle, plan: PlannedSuite, published: boolean): PublishedSuite {
  const current = repo.catalog.currentGeneration(plan.suite.name);
  return {
    suite: plan.suite.name,
    published,
    generation: current?.id,
    packages: plan.packages,
    validUntil: current?.validUntil === undefined ? undefined : new Date(current.validUntil * 1000).toISOString(),
  };
}

/** The public key, in both forms, and a `.sources` entry per suite where the address is known. */
export async function writeClientFiles(
  repo: RepoHandle,
  settings: RepositorySettings,
  signing: Signing,
): Promise<void> {
  await writeIfChanged(join(repo.layout.public, KEY_FILE_BINARY), Buffer.from(signing.binary));
  await writeIfChanged(join(repo.layout.public, KEY_FILE_ARMORED), Buffer.from(signing.armored));
  if (settings.url === undefined) return;
  for (const suite of repo.catalog.suites()) {
    const text = formatEntry(suite, settings.url, signing.armored);
    await writeIfChanged(join(repo.layout.public, `${suite.name}.sources`), Buffer.from(text));
  }
}

/** Pages are for people: what clients need is there already, so that their failure is no failure of the publish. */
async function refreshPages(repo: RepoHandle, signing: Signing, force: boolean | undefined): Promise<void> {
  const { updatePages } = await import('./pages.ts');
  const sources = async (suite: SuiteSettings, url: string) => formatEntry(suite, url, signing.armored);
  const options = { force, sources };
  try {
    await updatePages(repo, options);
  } catch (error) {
    if (repo.context.signal.aborted) throw error;
    repo.context.log.warn(`the pages for people were not written: ${(error as Error).message}`);
  }
}

async function writeIfChanged(path: string, content: Buffer): Promise<void> {
  try {
    if ((await readFile(path)).equals(content)) return;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
  await writeFileAtomic(path, content, { mode: 0o644 });
}

export interface SourcesOptions {
  /** Default: the address stored in the repository. */
  readonly url?: string | undefined;
  /** Path of the key on the client; default: the key itself stands in the entry. */
  readonly signedBy?: string | undefined;
}

/** The deb822 `.sources` entry of a suite (sources.list(5)). @throws UserError `no-url`, `no-key` */
export async function sourcesEntry(repo: RepoHandle, suite: SuiteSettings, options: SourcesOptions): Promise<string> {
  const settings = repo.catalog.settings();
  const url = options.url === undefined ? settings.url : checkUrl(options.url);
  if (url === undefined) {
    throw new UserError('no-url', 'the repository does not know its address', {
      hint: 'name it: --url https://apt.example.org/',
    });
  }
  const keys = signingKeys(settings);
  const names = keys.length > 0 ? keys : [await resolveKey(repo, undefined)];
  return formatEntry(suite, url, options.signedBy ?? (await openSigning(repo, names)).armored);
}

function formatEntry(suite: SuiteSettings, url: string, signedBy: string): string {
  return formatSource({
    types: ['deb'],
    uris: [url],
    suites: [suite.name],
    components: suite.components,
    // apt fetches every architecture named here, so that several would burden each client with all of them
    ...(suite.architectures.length === 1 ? { architectures: suite.architectures } : {}),
    signedBy,
  });
}
