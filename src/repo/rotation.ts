/**
 * From one signing key to the next, without a client that loses trust on the way.
 *
 * Secret: the plan. From now on old and new sign together, so that clients with either are content; the keyring package brings
 * the new key to them; from a date on the new key signs alone. Nothing has to be done on that date: the next publish sees to it.
 */

import { join } from 'node:path';
import { UserError } from '../core/errors.ts';
import { writeDeb } from '../deb/archive.ts';
import { paragraph } from '../deb/control.ts';
import { type BinaryPackage, debFileName } from '../deb/package.ts';
import type { RepoHandle } from './handle.ts';
import { daysLeft } from './keys.ts';
import { signingKeys } from './publish.ts';
import type { RepositorySettings } from './settings.ts';
import { openSigning, resolveKey } from './signing.ts';

export interface KeyStatus {
  readonly fingerprint: string;
  readonly algorithm: string;
  readonly userIds: readonly string[];
  /** What it does for the repository. */
  readonly role: 'signs' | 'signs, leaves' | 'signs, stays';
  /** ISO 8601; undefined: as long as it likes. */
  readonly until: string | undefined;
  /** undefined: never expires. */
  readonly daysLeft: number | undefined;
}

/** Which keys sign, which of them will go and when, and how long each lives. */
export async function keyStatus(repo: RepoHandle): Promise<KeyStatus[]> {
  const settings = repo.catalog.settings();
  const names = signingKeys(settings);
  const known = names.length > 0 ? names : [await resolveKey(repo, undefined)];
  const { keys } = await openSigning(repo, known);
  return keys.map((key, index) => {
    const stays = settings.rotation?.keys.includes(known[index]!) ?? true;
    const role = settings.rotation === undefined ? 'signs' : stays ? 'signs, stays' : 'signs, leaves';
    const { fingerprint, algorithm, userIds } = key;
    const until = stays ? undefined : settings.rotation?.at;
    return { fingerprint, algorithm, userIds, role, until, daysLeft: daysLeft(key, repo.context.now()) };
  });
}

/**
 * Plans the change to another key. It takes effect with the next publish.
 * @param overlapDays how long both sign
 * @throws UserError `key-signs-already`, `no-key`
 */
export async function planRotation(repo: RepoHandle, wanted: string, overlapDays: number): Promise<RepositorySettings> {
  const before = repo.catalog.settings();
  const next = await resolveKey(repo, wanted);
  const keys = before.keys.length > 0 ? before.keys : [await resolveKey(repo, undefined)];
  if (keys.includes(next)) {
    throw new UserError('key-signs-already', `key ${next} signs already`, {
      hint: 'make the next one: buildkit key generate',
    });
  }
  await openSigning(repo, [...keys, next]); // all of them are there and of one kind
  const at = new Date(repo.context.now().getTime() + overlapDays * 86_400_000).toISOString();
  const settings = { ...before, keys, rotation: { keys: [next], at }, keysSince: repo.context.now().toISOString() };
  repo.catalog.saveSettings(settings);
  return settings;
}

/** `Example Archive` as part of a package name. */
function slugOf(text: string): string {
  const slug = text
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '');
  return slug === '' ? 'local' : slug;
}

/**
 * Builds `ORIGIN-archive-keyring`: the public keys below /usr/share/keyrings. Its version is the date of the last change of
 * keys, so that every change is an upgrade, and the same keys give the same bytes.
 */
export async function buildKeyringDeb(repo: RepoHandle, folder: string): Promise<BinaryPackage> {
  const settings = repo.catalog.settings();
  const names = signingKeys(settings);
  const signing = await openSigning(repo, names.length > 0 ? names : [await resolveKey(repo, undefined)]);
  const since = settings.keysSince ?? repo.context.now().toISOString();
  const version = since.replaceAll(/[-:]|\.\d+Z$/g, '').replace('T', '.');
  const name = `${slugOf(settings.origin)}-archive-keyring`;
  const signer = signing.keys[0]!.userIds[0] ?? settings.origin;
  const listed = signing.keys.map((key) => ` ${key.fingerprint} ${key.userIds[0] ?? ''}`).join('\n');
  const file = (suffix: string, data: Uint8Array | string) => ({
    path: `/usr/share/keyrings/${name}.${suffix}`,
    type: 'file' as const,
    mode: 0o644,
    source: { data },
  });
  const spec = {
    control: paragraph([
      ['Package', name],
      ['Version', version],
      ['Architecture', 'all'],
      ['Maintainer', /<.+@.+>/.test(signer) ? signer : `${settings.origin} <root@localhost>`],
      ['Section', 'misc'],
      ['Priority', 'optional'],
      ['Multi-Arch', 'foreign'],
      [
        'Description',
        `OpenPGP keys of the archive ${settings.label}\n apt checks with them that packages come from ${settings.origin}:\n .\n${listed}`,
      ],
    ]),
    entries: [file('gpg', signing.binary), file('asc', signing.armored)],
  };
  const path = join(folder, debFileName(name, version, 'all'));
  return writeDeb(repo.context, path, spec, { sourceDateEpoch: Math.floor(Date.parse(since) / 1000) });
}
