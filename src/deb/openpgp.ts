/**
 * OpenPGP keys and signatures as apt and gpgv of Debian 12 and 13 take them. The only module that knows openpgp.js.
 */

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

/** A key to sign with: as exported (armored or binary), and its passphrase where it has one. */
export interface SigningKey {
  readonly key: string | Uint8Array;
  readonly passphrase?: string | undefined;
}

export interface Signer {
  /** Of the primary key, 40 upper case hex digits. */
  readonly fingerprint: string;
  readonly signedAt: Date;
}
