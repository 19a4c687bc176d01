/**
 * OpenPGP keys and signatures as apt and gpgv of Debian 12 and 13 take them. Sole user of openpgp.js, which is loaded at first use
 * (it takes a tenth of a second).
 *
 * Secret: which keys those programs accept (tried: Ed25519 in its old "legacy" form, RSA, NIST curves; not the new v4 Ed25519 and
 * v6 keys, which gpgv 2.2 refuses), the framing of clear-signed text (RFC 9580 section 7) and its traps: openpgp.js writes CRLF,
 * ignores blanks at the end of a line, and takes a key that expired after it signed, which gpgv and apt do not.
 */
import type { Key, PrivateKey, PublicKey, VerifyMessageResult } from 'openpgp';
import { UserError } from '../core/errors.ts';
import { printable } from '../core/log.ts';
import { type Paragraph, type ParseOptions, parseControl } from './control.ts';
import type { KeyData, SigningKey } from './openpgp-keys.ts';
import {
  CONFIG,
  explained,
  isArmored,
  loadKeys,
  loadPublicKeys,
  openSecret,
  toBytes,
  toText,
  unixLines,
  unlockAll,
} from './openpgp-keys.ts';

export type { KeyData, SigningKey } from './openpgp-keys.ts';

export type KeyAlgorithm = 'ed25519' | 'rsa4096';

export interface GenerateKeyOptions {
  readonly name: string;
  readonly email: string;
  readonly algorithm?: KeyAlgorithm;
  readonly expiresSeconds?: number | undefined;
  /** Creation time. */
  readonly date: Date;
  readonly passphrase?: string | undefined;
}

export interface GeneratedKey {
  /** 40 upper case hex digits. */
  readonly fingerprint: string;
  readonly privateKeyArmored: string;
  readonly publicKeyArmored: string;
}

/** Signatures made before a key was superseded or retired stay good for gpg; after `compromised` none is. */
export type RevocationReason = 'unspecified' | 'superseded' | 'compromised' | 'retired';

export interface RevokedKey {
  readonly fingerprint: string;
  readonly publicKeyArmored: string;
  readonly certificateArmored: string;
}

export interface KeyInfo {
  /** 40 upper case hex digits. */
  readonly fingerprint: string;
  /** The last 16 of them. */
  readonly keyId: string;
  readonly userIds: readonly string[];
  /** As gpg calls it: `ed25519`, `rsa4096`, `nistp256`, ... */
  readonly algorithm: string;
  readonly created: Date;
  /** undefined: never. */
  readonly expires?: Date | undefined;
  readonly revoked: boolean;
  /** It holds the secret part. */
  readonly secret: boolean;
  /** The secret part is under a passphrase. */
  readonly locked: boolean;
}

export interface Signer {
  /** Of the primary key, 40 upper case hex digits. */
  readonly fingerprint: string;
  readonly signedAt: Date;
}

export interface SignOptions {
  /** The time of the signature: with the same date, key and text an Ed25519 or RSA key gives the same bytes. */
  readonly date: Date;
}

export interface VerifyOptions {
  /** The time at which keys and signatures must be valid. */
  readonly date: Date;
  /** For messages. */
  readonly file?: string | undefined;
}

export interface Verified {
  /** Those whose signature is good, in the order of the signatures. */
  readonly signers: readonly Signer[];
}

/**
 * Makes a key that signs and certifies, without a subkey.
 * @throws UserError `key-user-id` for a name or an address that no key can carry
 */
export async function generateKey(options: GenerateKeyOptions): Promise<GeneratedKey> {
  const { generateKey: generate } = await import('openpgp');
  refuseBadUserId(options.name, options.email);
  const kind =
    options.algorithm === 'rsa4096'
      ? ({ type: 'rsa', rsaBits: 4096 } as const)
      : ({ type: 'ecc', curve: 'ed25519Legacy' } as const);
  const made = await generate({
    ...kind,
    userIDs: [{ name: options.name, email: options.email }],
    subkeys: [],
    date: options.date,
    ...(options.expiresSeconds === undefined ? {} : { keyExpirationTime: options.expiresSeconds }),
    ...(options.passphrase === undefined ? {} : { passphrase: options.passphrase }),
    format: 'object',
    config: CONFIG,
  });
  return keyPair(made.privateKey);
}

/**
 * The same key with another date of expiry; undefined: never. Signatures that it made before stay good. An expired key may be extended.
 * @throws UserError `key-expiry` when the date is not after `options.date`; `key-passphrase`, `key-not-secret`, ...
 */
export async function extendKey(
  signingKey: SigningKey,
  expires: Date | undefined,
  options: SignOptions,
): Promise<GeneratedKey> {
  const { reformatKey } = await import('openpgp');
  const key = await openSecret(signingKey);
  const created = key.getCreationTime();
  const old = key.toPublic();
  if (expires !== undefined && expires <= options.date) {
    throw new UserError('key-expiry', `a key cannot end at ${expires.toISOString()}: that is past`);
  }
  const { passphrase } = signingKey;
  const changed = await explained('key-cannot-extend', 'the key cannot be given another date of expiry', {}, () =>
    reformatKey({
      privateKey: key,
      userIDs: key.getUserIDs().map((name) => ({ name })),
      keyExpirationTime: expires === undefined ? 0 : Math.floor((expires.getTime() - created.getTime()) / 1000),
      date: options.date,
      ...(passphrase === undefined ? {} : { passphrase }),
      format: 'object',
      config: CONFIG,
    }),
  );
  // what it signed before was signed under its old certification, which must stay to be found
  return keyPair(await changed.privateKey.update(old, options.date));
}

/**
 * The public key with its revocation, and the bare certificate that revokes it wherever it is imported (to be made early and kept away).
 * @throws UserError `key-passphrase`, `key-not-secret`, ...
 */
export async function revokeKey(
  signingKey: SigningKey,
  options: SignOptions & { readonly reason?: RevocationReason; readonly text?: string },
): Promise<RevokedKey> {
  const { enums, revokeKey: revoke } = await import('openpgp');
  const key = await openSecret(signingKey);
  const flags = {
    unspecified: enums.reasonForRevocation.noReason,
    superseded: enums.reasonForRevocation.keySuperseded,
    compromised: enums.reasonForRevocation.keyCompromised,
    retired: enums.reasonForRevocation.keyRetired,
  } satisfies Record<RevocationReason, number>;
  const revoked = await revoke({
    key,
    reasonForRevocation: { flag: flags[options.reason ?? 'unspecified'], string: options.text ?? '' },
    date: options.date,
    format: 'object',
    config: CONFIG,
  });
  const certificate = await revoked.publicKey.getRevocationCertificate(options.date);
  return {
    fingerprint: key.getFingerprint().toUpperCase(),
    publicKeyArmored: unixLines(revoked.publicKey.armor()),
    certificateArmored: unixLines(String(certificate)),
  };
}

/**
 * What a key says of itself.
 * @throws UserError `key-unreadable`, `key-several`
 */
export async function readKey(data: KeyData): Promise<KeyInfo> {
  const [only, second] = await readKeys(data);
  if (second !== undefined) {
    throw new UserError('key-several', 'there is more than one key in it', {
      hint: 'export the one key: gpg --armor --export FINGERPRINT',
    });
  }
  return only!;
}

/**
 * Every key of a keyring.
 * @throws UserError `key-unreadable` also when there is none
 */
export async function readKeys(data: KeyData): Promise<KeyInfo[]> {
  return Promise.all((await loadKeys(data)).map(describeKey));
}

/** The public part of a key or of a whole keyring. */
export async function exportPublic(data: KeyData, format: 'armored'): Promise<string>;
export async function exportPublic(data: KeyData, format: 'binary'): Promise<Uint8Array>;
export async function exportPublic(data: KeyData, format: 'armored' | 'binary'): Promise<string | Uint8Array> {
  const { armor, enums } = await import('openpgp');
  const keys = await loadKeys(data);
  const binary = Buffer.concat(keys.map((key) => key.toPublic().write()));
  return format === 'binary'
    ? new Uint8Array(binary)
    : unixLines(armor(enums.armor.publicKey, new Uint8Array(binary), undefined, undefined, undefined, true));
}

/** The same key, its secret part included, as armored text. */
export async function armorKey(data: KeyData): Promise<string> {
  const [key, second] = await loadKeys(data);
  if (key === undefined || second !== undefined)
    throw new UserError('key-several', 'there is not exactly one key in it');
  return unixLines(key.armor());
}

/**
 * Signs a text for InRelease: readable, the signature below it. Several keys sign one text (key rotation).
 * `gpgv --output` gives back exactly `text`.
 * @throws UserError `sign-text`, `key-expired`, `key-passphrase`, `key-unsupported`, `key-not-secret`, ...
 */
export async function clearSign(text: string, keys: readonly SigningKey[], options: SignOptions): Promise<string> {
  const { createCleartextMessage, sign } = await import('openpgp');
  if (/[ \t\r](?:\n|$)/.test(text) || !text.endsWith('\n')) {
    throw new UserError('sign-text', 'a text to be signed ends with a newline and has no blanks at the end of a line', {
      hint: 'a clear signature does not cover blanks at the end of a line (RFC 9580 section 7.2)',
    });
  }
  const signingKeys = await unlockAll(keys, options.date);
  // the line break before the signature is not part of what is signed, but gpgv gives it back
  const message = await createCleartextMessage({ text: text.slice(0, -1) });
  const signed = await sign({ message, signingKeys, date: options.date, config: CONFIG });
  return unixLines(signed);
}

/** A detached signature, for Release.gpg: armored, or binary where `armor` is false. */
export async function detachSign(
  data: string | Uint8Array,
  keys: readonly SigningKey[],
  options: SignOptions & { readonly armor: false },
): Promise<Uint8Array>;
export async function detachSign(
  data: string | Uint8Array,
  keys: readonly SigningKey[],
  options: SignOptions & { readonly armor?: true },
): Promise<string>;
export async function detachSign(
  data: string | Uint8Array,
  keys: readonly SigningKey[],
  options: SignOptions & { readonly armor?: boolean },
): Promise<string | Uint8Array> {
  const { createMessage, sign } = await import('openpgp');
  const signingKeys = await unlockAll(keys, options.date);
  const message = await createMessage({ binary: toBytes(data) });
  const common = { message, signingKeys, detached: true, date: options.date, config: CONFIG } as const;
  if (options.armor === false) return new Uint8Array((await sign({ ...common, format: 'binary' })) as Uint8Array);
  return unixLines((await sign({ ...common, format: 'armored' })) as string);
}

/**
 * The text that one of these keys signed, and nothing else: anything outside of the signature is refused.
 * As in apt, one good signature is enough, those of unknown keys do not count, and one bad signature spoils it.
 * @throws UserError `signature-missing`, `signature-framing`, `signature-bad`, `signature-unknown-key`, `signature-expired`
 */
export async function verifyClearSigned(
  signed: string | Uint8Array,
  publicKeys: readonly KeyData[],
  options: VerifyOptions,
): Promise<Verified & { readonly text: string }> {
  const { readCleartextMessage, verify } = await import('openpgp');
  const cleartextMessage = clearSignedFrame(toText(signed, options), options);
  const message = await explained('signature-framing', 'the clear-signed text cannot be read', options, () =>
    readCleartextMessage({ cleartextMessage, config: CONFIG }),
  );
  const verificationKeys = await loadPublicKeys(publicKeys);
  const { signatures } = await verify({ message, verificationKeys, date: options.date, config: CONFIG });
  const signers = await goodSigners(signatures, verificationKeys, options);
  return { text: `${unixLines(message.getText())}\n`, signers };
}

/**
 * Checks a detached signature (armored or binary) of `data`; the rules are those of `verifyClearSigned`.
 */
export async function verifyDetached(
  data: string | Uint8Array,
  signature: string | Uint8Array,
  publicKeys: readonly KeyData[],
  options: VerifyOptions,
): Promise<Verified> {
  const { createMessage, readSignature, verify } = await import('openpgp');
  const read = await explained('signature-framing', 'the signature cannot be read', options, () =>
    isArmored(signature)
      ? readSignature({ armoredSignature: toText(signature, options), config: CONFIG })
      : readSignature({ binarySignature: toBytes(signature), config: CONFIG }),
  );
  const message = await createMessage({ binary: toBytes(data) });
  const verificationKeys = await loadPublicKeys(publicKeys);
  const { signatures } = await verify({
    message,
    signature: read,
    verificationKeys,
    date: options.date,
    format: 'binary',
    config: CONFIG,
  });
  return { signers: await goodSigners(signatures, verificationKeys, options) };
}

/**
 * The paragraphs of a clear-signed deb822 text (InRelease, .dsc, .changes), of the signed part only.
 * @throws UserError as `verifyClearSigned`, and `control-syntax` for what was signed
 */
export async function readSigned(
  signed: string | Uint8Array,
  publicKeys: readonly KeyData[],
  options: VerifyOptions & ParseOptions,
): Promise<Verified & { readonly paragraphs: readonly Paragraph[]; readonly text: string }> {
  const verified = await verifyClearSigned(signed, publicKeys, options);
  return { ...verified, paragraphs: parseControl(verified.text, options) };
}

const BEGIN_SIGNED = '-----BEGIN PGP SIGNED MESSAGE-----';
const BEGIN_SIGNATURE = '-----BEGIN PGP SIGNATURE-----';
const END_SIGNATURE = '-----END PGP SIGNATURE-----';

/** The text when it is one clear-signed message from its first to its last line; readers must not see what the signature does not cover. */
function clearSignedFrame(text: string, options: VerifyOptions): string {
  const { file } = options;
  const lines = unixLines(text)
    .split('\n')
    .map((line) => line.trimEnd());
  const begin = lines.indexOf(BEGIN_SIGNED);
  if (begin < 0) {
    throw new UserError('signature-missing', 'the text is not signed', {
      file,
      hint: `a clear-signed text starts with '${BEGIN_SIGNED}'`,
    });
  }
  if (begin > 0) throw new UserError('signature-framing', 'there is text above the signed part', { file, line: 1 });
  const end = lines.indexOf(END_SIGNATURE);
  if (end < 0)
    throw new UserError('signature-framing', 'the signature has no end: the file is cut off', {
      file,
      line: lines.length,
    });
  const trailing = lines.findIndex((line, index) => index > end && line !== '');
  if (trailing >= 0)
    throw new UserError('signature-framing', 'there is text below the signature', { file, line: trailing + 1 });
  for (const mark of [BEGIN_SIGNED, BEGIN_SIGNATURE]) {
    const second = lines.indexOf(mark, lines.indexOf(mark) + 1);
    if (second > 0)
      throw new UserError('signature-framing', 'there is more than one signed part', { file, line: second + 1 });
  }
  return text;
}

async function goodSigners(
  results: VerifyMessageResult['signatures'],
  keys: readonly PublicKey[],
  options: VerifyOptions,
): Promise<Signer[]> {
  const good: Signer[] = [];
  const reasons: { code: string; message: string; cause?: unknown }[] = [];
  for (const result of results) {
    const id = result.keyID.toHex().toUpperCase();
    const key = keys.find((candidate) => candidate.getKeys(result.keyID).length > 0);
    if (key === undefined) {
      reasons.push({
        code: 'signature-unknown-key',
        message: `it is signed by the key ${id}, which is not among the given ones`,
      });
      continue;
    }
    const fingerprint = key.getFingerprint().toUpperCase();
    try {
      await result.verified;
      await key.getSigningKey(result.keyID, options.date); // expired or revoked since it signed
      const { packets } = await result.signature;
      good.push({ fingerprint, signedAt: packets[0]?.created ?? options.date });
    } catch (cause) {
      const reason = refusal(fingerprint, cause);
      if (reason.code === 'signature-bad')
        throw new UserError(reason.code, reason.message, { file: options.file, cause });
      reasons.push(reason);
    }
  }
  if (good.length > 0) return good;
  const why = reasons.find((reason) => reason.code !== 'signature-unknown-key') ?? reasons[0];
  throw new UserError(why?.code ?? 'signature-missing', why?.message ?? 'there is no signature in it', {
    file: options.file,
    cause: why?.cause,
  });
}

/** openpgp.js has no error codes: these are its messages that tell a signature of no use from a forged one. */
function refusal(fingerprint: string, cause: unknown): { code: string; message: string; cause: unknown } {
  const message = cause instanceof Error ? cause.message : String(cause);
  const kinds: readonly (readonly [RegExp, string, string])[] = [
    [/revoked/i, 'signature-key-revoked', `its key ${fingerprint} is revoked`],
    [/key is expired|Subkey is expired/i, 'signature-expired', `its key ${fingerprint} has expired`],
    [/signature is expired/i, 'signature-expired', `the signature of ${fingerprint} has expired`],
    [/in the future/i, 'signature-future', `the signature of ${fingerprint} is from the future: check the clock`],
    [
      /insecure|rejected|not allowed|does not satisfy|shorter than/i,
      'signature-weak',
      `the signature of ${fingerprint} uses a weak algorithm`,
    ],
    [
      /signing key packet/i,
      'signature-unknown-key',
      `the key ${fingerprint} may not sign, or has no valid self-signature`,
    ],
  ];
  const [, code, text] = kinds.find(([pattern]) => pattern.test(message)) ?? [
    undefined,
    'signature-bad',
    `the signature of ${fingerprint} does not fit the text: one of them was changed`,
  ];
  return { code, message: text, cause };
}

function keyPair(key: PrivateKey): GeneratedKey {
  return {
    fingerprint: key.getFingerprint().toUpperCase(),
    privateKeyArmored: unixLines(key.armor()),
    publicKeyArmored: unixLines(key.toPublic().armor()),
  };
}

async function describeKey(key: Key): Promise<KeyInfo> {
  const fingerprint = key.getFingerprint().toUpperCase();
  const expires = await key.getExpirationTime();
  return {
    fingerprint,
    keyId: fingerprint.slice(-16),
    userIds: key.getUserIDs(),
    algorithm: algorithmName(key),
    created: key.getCreationTime(),
    ...(expires instanceof Date ? { expires } : {}),
    revoked: await isRevoked(key),
    secret: key.isPrivate(),
    locked: key.isPrivate() && !key.isDecrypted(),
  };
}

/** Whatever the date of the revocation: openpgp.js would ask the clock. */
async function isRevoked(key: Key): Promise<boolean> {
  const dates = key.revocationSignatures.map((signature) => signature.created?.getTime() ?? 0);
  return dates.length > 0 && key.isRevoked(undefined, undefined, new Date(Math.max(...dates)));
}

/** `ed25519`, `rsa4096`, `nistp256`: as gpg prints it. */
function algorithmName(key: Key): string {
  const { algorithm, bits, curve } = key.getAlgorithmInfo();
  if (bits !== undefined) return `${algorithm.startsWith('rsa') ? 'rsa' : algorithm}${bits}`;
  return (curve ?? algorithm).replace(/Legacy$/, '').toLowerCase();
}

function refuseBadUserId(name: string, email: string): void {
  if (name.trim() === '' || /[<>()\u0000-\u001f\u007f]/.test(name)) {
    throw new UserError('key-user-id', `'${printable(name)}' cannot be the name in a key`, {
      hint: 'it must not be empty or hold < > ( )',
    });
  }
  if (!/^[^\s<>()@\u0000-\u001f\u007f]+@[^\s<>()@\u0000-\u001f\u007f]+$/.test(email)) {
    throw new UserError('key-user-id', `'${printable(email)}' is not a mail address`, {
      hint: 'as in: releases@example.org',
    });
  }
}
