/**
 * Key material in and out of openpgp.js: keyrings in any of their forms, unlocked and fit to sign. Below `openpgp.ts`.
 *
 * Secret: how keys come (binary, armored, armored blocks one after the other, under a passphrase, without their primary part), which kinds
 * Debian 12 refuses, and what openpgp.js says when something is wrong with one.
 */
import { isUtf8 } from 'node:buffer';
import type { Key, PartialConfig, PrivateKey, PublicKey } from 'openpgp';
import { UserError } from '../core/errors.ts';
import { printable } from '../core/log.ts';

/** A key to sign with: as exported (armored or binary), and its passphrase where it has one. */
export interface SigningKey {
  readonly key: string | Uint8Array;
  readonly passphrase?: string | undefined;
}

/** One or more public keys: a binary keyring or armored text. */
export type KeyData = string | Uint8Array;

/** Same input, same signature: openpgp.js otherwise adds a random notation. */
export const CONFIG: PartialConfig = { nonDeterministicSignaturesViaNotation: false };

/** As openpgp.js names algorithms and curves. gpgv 2.2 of Debian 12 knows none of these. */
const NOT_IN_DEBIAN_12 = new Set(['ed25519', 'ed448', 'x25519', 'x448']);

export async function loadKeys(data: KeyData): Promise<Key[]> {
  const openpgp = await import('openpgp');
  return explained(
    'key-unreadable',
    'there is no OpenPGP key that can be read in it',
    { hint: 'export one with: gpg --armor --export' },
    async () => {
      if (!isArmored(data)) return await openpgp.readKeys({ binaryKeys: toBytes(data), config: CONFIG });
      const blocks =
        toText(data, {}).match(
          /-----BEGIN PGP (?:PUBLIC|PRIVATE) KEY BLOCK-----[\s\S]*?-----END PGP (?:PUBLIC|PRIVATE) KEY BLOCK-----/g,
        ) ?? [];
      if (blocks.length === 0) throw new Error('no armored key block');
      const keys = await Promise.all(blocks.map((block) => openpgp.readKeys({ armoredKeys: block, config: CONFIG })));
      return keys.flat();
    },
  );
}

export async function loadPublicKeys(keys: readonly KeyData[]): Promise<PublicKey[]> {
  const loaded = await Promise.all(keys.map(loadKeys));
  return loaded.flat().map((key) => key.toPublic());
}

export async function unlockAll(keys: readonly SigningKey[], date: Date): Promise<PrivateKey[]> {
  if (keys.length === 0)
    throw new UserError('key-none', 'there is no key to sign with', { hint: 'make one: buildkit key generate' });
  return Promise.all(keys.map((key) => unlock(key, date)));
}

/** The secret key without its passphrase, whether or not it is still good. */
export async function openSecret({ key: data, passphrase }: SigningKey): Promise<PrivateKey> {
  const [key, second] = await loadKeys(data);
  if (key === undefined || second !== undefined)
    throw new UserError('key-several', 'there is not exactly one key in it');
  if (!key.isPrivate()) {
    throw new UserError('key-not-secret', `${nameOf(key)} is a public key: it cannot sign`, {
      hint: 'export the secret part: gpg --armor --export-secret-keys',
    });
  }
  return key.isDecrypted() ? key : decrypt(key, passphrase);
}

async function unlock(signingKey: SigningKey, date: Date): Promise<PrivateKey> {
  const key = await openSecret(signingKey);
  if (key.keyPacket.version !== 4 || NOT_IN_DEBIAN_12.has(key.getAlgorithmInfo().algorithm)) {
    throw new UserError('key-unsupported', `${nameOf(key)} is of a kind that gpgv of Debian 12 refuses`, {
      hint: 'make one with: buildkit key generate',
    });
  }
  try {
    await key.getSigningKey(undefined, date);
  } catch (cause) {
    throw cannotSign(nameOf(key), cause);
  }
  return key;
}

function nameOf(key: Key): string {
  return `the key ${key.getFingerprint().toUpperCase()}`;
}

async function decrypt(key: PrivateKey, passphrase: string | undefined): Promise<PrivateKey> {
  if (passphrase === undefined)
    throw new UserError('key-passphrase', `${nameOf(key)} has a passphrase, and none was given`);
  const { decryptKey } = await import('openpgp');
  try {
    return await decryptKey({ privateKey: key, passphrase, config: CONFIG });
  } catch (cause) {
    throw new UserError('key-passphrase', `the passphrase is not that of ${nameOf(key)}`, { cause });
  }
}

function cannotSign(name: string, cause: unknown): UserError {
  const message = cause instanceof Error ? cause.message : String(cause);
  if (/expired/i.test(message)) {
    return new UserError('key-expired', `${name} has expired: apt would refuse what it signs`, {
      hint: 'give it a new expiry date, or make a new key',
      cause,
    });
  }
  if (/revoked/i.test(message))
    return new UserError('key-revoked', `${name} is revoked`, { hint: 'make a new key', cause });
  return new UserError('key-cannot-sign', `${name} cannot sign: ${printable(message)}`, { cause });
}

/** Runs `body`; whatever openpgp.js throws becomes a UserError. */
export async function explained<T>(
  code: string,
  message: string,
  details: { readonly file?: string | undefined; readonly hint?: string | undefined },
  body: () => Promise<T>,
): Promise<T> {
  try {
    return await body();
  } catch (cause) {
    throw new UserError(code, message, { file: details.file, hint: details.hint, cause });
  }
}

export function isArmored(data: string | Uint8Array): boolean {
  return typeof data === 'string' || Buffer.from(data.subarray(0, 4096)).toString('latin1').includes('-----BEGIN PGP ');
}

export function toBytes(data: string | Uint8Array): Uint8Array {
  return typeof data === 'string' ? new TextEncoder().encode(data) : data;
}

export function toText(data: string | Uint8Array, options: { readonly file?: string | undefined }): string {
  if (typeof data === 'string') return data;
  if (!isUtf8(data)) throw new UserError('signature-framing', 'the text is not UTF-8', { file: options.file });
  return Buffer.from(data).toString('utf8');
}

export function unixLines(text: string): string {
  return text.replaceAll('\r\n', '\n');
}
