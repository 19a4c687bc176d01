/**
 * Signing elsewhere: what is to be signed is written out, and published when its signatures come back.
 *
 * Secret: how a generation waits. Its Release is kept in db/pending/, with the indexes in public/by-hash/, where nobody is told
 * of them; attaching checks that the signatures are of exactly that text, by the keys of the repository.
 */
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, UserError } from '../core/errors.ts';
import { writeFileAtomic } from '../core/files.ts';
import { applyGeneration, type PlannedSuite, recoverPublish, type SignedRelease } from './generation.ts';
import { findSuite, lockPublish, type RepoHandle } from './handle.ts';
import { generationId, type ReleaseDates, renderRelease } from './indexes.ts';
import { fingerprintsIn, nextDates, otherGenerations, planSuites, writeClientFiles } from './publish.ts';
import { checkSigned, type Signing } from './signing.ts';

interface Pending {
  readonly plan: PlannedSuite;
  readonly dates: ReleaseDates;
  readonly release: string;
}

const folderOf = (repo: RepoHandle) => join(repo.layout.root, 'db', 'pending');

/** Writes the Release of a suite for others to sign. @returns the path of the text */
export async function writeUnsigned(repo: RepoHandle, suiteName: string): Promise<string> {
  using _ = await lockPublish(repo);
  await recoverPublish(repo.layout, repo.catalog);
  const suite = findSuite(repo, suiteName);
  const settings = repo.catalog.settings();
  const dates = await nextDates(repo, settings);
  const [plan] = await planSuites(repo, [suite], settings);
  const release = renderRelease(settings, suite, plan!.files, dates, fingerprintsIn(settings));
  const folder = folderOf(repo);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const pending: Pending = { plan: plan!, dates, release };
  await writeFileAtomic(join(folder, `${suite.name}.json`), JSON.stringify(pending), { mode: 0o600 });
  const path = join(folder, `${suite.name}.Release`);
  await writeFileAtomic(path, release, { mode: 0o644 });
  return path;
}

export interface Attachment {
  /** The clear-signed text. */
  readonly inRelease: string;
  /** The detached signature, armored. */
  readonly releaseGpg: string;
  /** The public keys: clients get them, and signatures are checked with them. */
  readonly publicKeys: string | Uint8Array;
}

/**
 * Publishes what was signed elsewhere.
 * @returns the id of the generation
 * @throws UserError `nothing-pending`, `signature-*`; nothing is changed then
 */
export async function attachSignature(repo: RepoHandle, suiteName: string, attachment: Attachment): Promise<string> {
  using _ = await lockPublish(repo);
  await recoverPublish(repo.layout, repo.catalog);
  const suite = findSuite(repo, suiteName);
  const { plan, dates, release } = await readPending(repo, suite.name);
  const { exportPublic, readKeys } = await import('../deb/openpgp.ts');
  const binary = await exportPublic(attachment.publicKeys, 'binary');
  const signed: SignedRelease = { release, inRelease: attachment.inRelease, releaseGpg: attachment.releaseGpg };
  await checkSigned(repo, signed, binary);
  const id = generationId(dates.date);
  const others = otherGenerations(repo, [suite.name]);
  await applyGeneration(repo.layout, repo.catalog, { ...dates, id, suites: [{ plan, signed }], others });
  const signing: Signing = {
    keys: await readKeys(binary),
    armored: await exportPublic(binary, 'armored'),
    binary,
    sign: async () => signed,
  };
  await writeClientFiles(repo, repo.catalog.settings(), signing);
  for (const suffix of ['json', 'Release']) await rm(join(folderOf(repo), `${suite.name}.${suffix}`), { force: true });
  return id;
}

async function readPending(repo: RepoHandle, suite: string): Promise<Pending> {
  try {
    return JSON.parse(await readFile(join(folderOf(repo), `${suite}.json`), 'utf8')) as Pending;
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw cause;
    throw new UserError('nothing-pending', `nothing of suite '${suite}' waits for a signature`, {
      hint: `write it first: buildkit repo publish ${suite} --unsigned`,
      cause,
    });
  }
}
