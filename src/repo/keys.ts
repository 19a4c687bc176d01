/**
 * The store of signing keys: one folder, secret keys readable by their owner alone.
 *
 * Secret: how keys lie on disk (`FINGERPRINT.secret.asc`, mode 0600, below a folder of mode 0700). A key is never replaced.
 */
import { constants } from 'node:fs';
import { chmod, link, mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { explainWriteError, syncFolder, writeFileAtomic } from '../core/files.ts';
import type { KeyAlgorithm, KeyInfo, RevocationReason, RevokedKey, SigningKey } from '../deb/openpgp.ts';

const SUFFIX = '.secret.asc';

export interface NewKey {
  readonly name: string;
  readonly email: string;
  readonly algorithm: KeyAlgorithm;
  /** Length of life in seconds; undefined: never ends. */
  readonly expiresSeconds: number | undefined;
  readonly passphrase?: string | undefined;
}

/** Asked for the passphrase of a locked key; undefined: there is none to be had. */
export type PassphraseSource = (key: KeyInfo) => Promise<string | undefined>;

export class KeyStore {
  readonly #context: Context;
  readonly #folder: string;

  constructor(context: Context) {
    this.#context = context;
    this.#folder = join(context.stateDir, 'keys');
  }

  /** Oldest first. */
  async list(): Promise<KeyInfo[]> {
    const { readKey } = await import('../deb/openpgp.ts');
    const keys: KeyInfo[] = [];
    for (const fingerprint of await this.#fingerprints()) keys.push(await readKey(await this.#read(fingerprint)));
    return keys.sort((a, b) => a.created.getTime() - b.created.getTime() || (a.fingerprint < b.fingerprint ? -1 : 1));
  }

  async generate(request: NewKey): Promise<KeyInfo> {
    const { generateKey, readKey } = await import('../deb/openpgp.ts');
    const made = await generateKey({
      name: request.name,
      email: request.email,
      algorithm: request.algorithm,
      expiresSeconds: request.expiresSeconds,
      date: this.#context.now(),
      passphrase: request.passphrase,
    });
    await this.#store(made.fingerprint, made.privateKeyArmored);
    return readKey(made.privateKeyArmored);
  }

  /** Takes a secret key as gpg exports it. @throws UserError `key-public` without a secret part, `key-exists` */
  async import(exported: string | Uint8Array): Promise<KeyInfo> {
    const { readKey, armorKey } = await import('../deb/openpgp.ts');
    const key = await readKey(exported);
    if (!key.secret) {
      throw new UserError('key-public', `${key.fingerprint} is a public key: it cannot sign`, {
        hint: 'export the secret one: gpg --armor --export-secret-keys FINGERPRINT',
      });
    }
    await this.#store(key.fingerprint, await armorKey(exported));
    return key;
  }

  /**
   * The one key that `wanted` means: a fingerprint or its end (8 digits or more), or part of a user id. Without it: the only
   * key there is.
   * @throws UserError `no-key`, `key-ambiguous`
   */
  async find(wanted?: string): Promise<KeyInfo> {
    const keys = await this.list();
    const found = wanted === undefined ? keys : keys.filter((key) => isMeant(key, wanted));
    if (found.length === 1) return found[0]!;
    if (found.length === 0) {
      throw wanted === undefined
        ? new UserError('no-key', 'there is no signing key yet', {
            hint: 'make one: buildkit key generate --name "My Archive" --email archive@example.org --expires 2y',
          })
        : new UserError('no-key', `no signing key is meant by '${wanted}'`, { hint: 'see: buildkit key list' });
    }
    throw new UserError(
      'key-ambiguous',
      `${found.length} keys could be meant${wanted === undefined ? '' : ` by '${wanted}'`}`,
      {
        hint: `choose one: --key ${found.map((key) => key.fingerprint).join(' or --key ')}`,
      },
    );
  }

  /** A key with another end of its life, in its old place. Signatures that it made stay good. */
  async extend(
    fingerprint: string,
    lifetimeSeconds: number | undefined,
    passphrase?: PassphraseSource,
  ): Promise<KeyInfo> {
    const { extendKey, readKey } = await import('../deb/openpgp.ts');
    const now = this.#context.now();
    const expires = lifetimeSeconds === undefined ? undefined : new Date(now.getTime() + lifetimeSeconds * 1000);
    const extended = await extendKey(await this.#unlocked(fingerprint, passphrase), expires, { date: now });
    await writeFileAtomic(this.#path(fingerprint), extended.privateKeyArmored, { mode: 0o600 });
    return readKey(extended.privateKeyArmored);
  }

  /** The certificate that revokes a key wherever it is imported; the key in the store stays as it is. */
  async revocation(fingerprint: string, reason: RevocationReason, passphrase?: PassphraseSource): Promise<RevokedKey> {
    const { revokeKey } = await import('../deb/openpgp.ts');
    const key = await this.#unlocked(fingerprint, passphrase);
    return revokeKey(key, { date: this.#context.now(), reason });
  }

  /** The public part, as gpg --armor --export prints it. */
  async exportArmored(fingerprint: string): Promise<string> {
    const { exportPublic } = await import('../deb/openpgp.ts');
    return exportPublic(await this.#read(fingerprint), 'armored');
  }

  /** The public part, as apt takes it from a .gpg file. */
  async exportBinary(fingerprint: string): Promise<Uint8Array> {
    const { exportPublic } = await import('../deb/openpgp.ts');
    return exportPublic(await this.#read(fingerprint), 'binary');
  }

  /**
   * Keys ready to sign at `date`.
   * @throws UserError `no-key`, `key-expired`, `key-revoked`, `key-locked`
   */
  async signers(fingerprints: readonly string[], date: Date, passphrase?: PassphraseSource): Promise<SigningKey[]> {
    const { readKey } = await import('../deb/openpgp.ts');
    const signers: SigningKey[] = [];
    for (const fingerprint of fingerprints) {
      checkUsable(await readKey(await this.#read(fingerprint)), date);
      signers.push(await this.#unlocked(fingerprint, passphrase));
    }
    return signers;
  }

  /** @throws UserError `key-locked` when it is under a passphrase that nobody has */
  async #unlocked(fingerprint: string, passphrase: PassphraseSource | undefined): Promise<SigningKey> {
    const { readKey } = await import('../deb/openpgp.ts');
    const key = await this.#read(fingerprint);
    const info = await readKey(key);
    if (!info.locked) return { key };
    const secret = await passphrase?.(info);
    if (secret !== undefined) return { key, passphrase: secret };
    throw new UserError('key-locked', `key ${fingerprint} is under a passphrase`, {
      hint: 'hand it over with --passphrase-fd N or --passphrase-file FILE, or run in a terminal to be asked',
    });
  }

  #path(fingerprint: string): string {
    return join(this.#folder, fingerprint + SUFFIX);
  }

  async #fingerprints(): Promise<string[]> {
    try {
      const names = await readdir(this.#folder);
      return names.filter((name) => name.endsWith(SUFFIX)).map((name) => name.slice(0, -SUFFIX.length));
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return [];
      throw error;
    }
  }

  async #read(fingerprint: string): Promise<string> {
    try {
      return await readFile(this.#path(fingerprint), 'utf8');
    } catch (cause) {
      if (errnoOf(cause) !== 'ENOENT') throw cause;
      throw new UserError('no-key', `the secret key ${fingerprint} is not in the store`, {
        file: this.#folder,
        hint: 'bring it back with buildkit key import, or choose another with --key',
        cause,
      });
    }
  }

  /** Written aside and linked into place, so that an existing key can never be replaced. */
  async #store(fingerprint: string, armored: string): Promise<void> {
    const path = this.#path(fingerprint);
    const temporary = `${path}.new`;
    try {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      await chmod(this.#folder, 0o700);
      await rm(temporary, { force: true });
      const file = await open(temporary, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o600);
      try {
        await file.writeFile(armored);
        await file.sync();
      } finally {
        await file.close();
      }
      await link(temporary, path);
      await syncFolder(this.#folder);
    } catch (cause) {
      if (errnoOf(cause) !== 'EEXIST') throw explainWriteError(cause, path);
      throw new UserError('key-exists', `key ${fingerprint} is in the store already`, { file: path, cause });
    } finally {
      await rm(temporary, { force: true });
    }
  }
}

function isMeant(key: KeyInfo, wanted: string): boolean {
  const hex = wanted.replaceAll(/\s|^0x/gi, '').toUpperCase();
  if (/^[0-9A-F]{8,}$/.test(hex) && key.fingerprint.endsWith(hex)) return true;
  return key.userIds.some((id) => id.toLowerCase().includes(wanted.toLowerCase()));
}

/** @throws UserError `key-revoked`, `key-expired`, `key-weak` */
export function checkUsable(key: KeyInfo, date: Date): void {
  if (/^(?:dsa|elgamal|rsa(?:512|768|1024|1536)$)/i.test(key.algorithm)) {
    throw new UserError(
      'key-weak',
      `key ${key.fingerprint} is of the kind ${key.algorithm}, which apt of Debian 13 refuses`,
      {
        hint: 'make one with: buildkit key generate',
      },
    );
  }
  if (key.revoked) {
    throw new UserError('key-revoked', `key ${key.fingerprint} is revoked`, { hint: 'choose another with --key' });
  }
  if (key.expires !== undefined && key.expires <= date) {
    throw new UserError('key-expired', `key ${key.fingerprint} expired on ${key.expires.toISOString().slice(0, 10)}`, {
      hint: 'make a new one with buildkit key generate, then buildkit repo publish --key FINGERPRINT',
    });
  }
}

/** Days until a key ends; undefined: never. */
export function daysLeft(key: KeyInfo, now: Date): number | undefined {
  return key.expires === undefined ? undefined : Math.floor((key.expires.getTime() - now.getTime()) / 86_400_000);
}

/** `2y`, `18m`, `90d`, `12w` as seconds (a year has 365 days, a month 30); `never` as undefined. */
export function parseLifetime(text: string): number | undefined {
  if (text === 'never') return undefined;
  const match = /^([1-9]\d{0,4})([dwmy])$/.exec(text);
  if (!match) {
    throw new UserError('bad-lifetime', `'${text}' is no length of time`, {
      hint: "write for example 2y, 18m, 90d, 12w or 'never'",
    });
  }
  const days = { d: 1, w: 7, m: 30, y: 365 }[match[2] as 'd' | 'w' | 'm' | 'y'];
  return Number(match[1]) * days * 86_400;
}
