/**
 * Release files: what they name, when they were made, and whether a key of the distribution signed them.
 *
 * Secret: the fields of Release (Debian wiki, RepositoryFormat; apt-secure(8)) and what a signature is worth here. Signatures are
 * checked with openpgp.js in this process, not with gpgv: the same code runs where only sqv is installed (Debian 13), no process
 * per refresh, and the text that is used is the signed text itself. As in apt, one good signature of a known key is enough.
 */
import { UserError } from '../core/errors.ts';
import { getField, parseParagraph } from '../deb/control.ts';
import { type KeyData, verifyClearSigned, verifyDetached } from '../deb/openpgp.ts';
import type { SignatureRule } from './backends.ts';

export interface NamedFile {
  readonly size: number;
  /** Lower case hex. */
  readonly sha256: string;
}

export interface Release {
  /** The text that is (or would be) signed: what a file `Release` holds. */
  readonly text: string;
  /** Seconds since the epoch. */
  readonly date: number;
  /** Seconds since the epoch. */
  readonly validUntil: number | undefined;
  readonly byHash: boolean;
  /** Path relative to the Release file to what it must be. */
  readonly files: ReadonlyMap<string, NamedFile>;
  /** Fingerprints of those whose signature is good; empty: unverified. */
  readonly signers: readonly string[];
}

export interface Trust {
  readonly keyrings: readonly KeyData[];
  readonly rule: SignatureRule;
  readonly now: Date;
  /** For messages. */
  readonly file: string;
}

/** Codes of `deb/openpgp` that say "nobody whom I know signed it", not "somebody changed it". */
const UNKNOWN_SIGNER = new Set(['signature-missing', 'signature-unknown-key', 'signature-expired']);

/**
 * Reads an InRelease file and checks its signature.
 * @throws UserError `signature-*` when the rule asks for a good signature or when one is bad, `release-syntax`
 */
export async function readInRelease(bytes: Uint8Array, trust: Trust): Promise<Release> {
  try {
    const verified = await verifyClearSigned(bytes, trust.keyrings, { date: trust.now, file: trust.file });
    return parseRelease(verified.text, trust.file, signersOf(verified));
  } catch (error) {
    if (trust.rule === 'require' || !isUnknownSigner(error)) throw error;
    return parseRelease(clearText(Buffer.from(bytes).toString('utf8')), trust.file, []);
  }
}

/** The same for a Release file with its Release.gpg beside it (undefined: there is none). */
export async function readDetached(
  bytes: Uint8Array,
  signature: Uint8Array | undefined,
  trust: Trust,
): Promise<Release> {
  const text = Buffer.from(bytes).toString('utf8');
  try {
    if (signature === undefined)
      throw new UserError('signature-missing', 'there is no Release.gpg', { file: trust.file });
    const verified = await verifyDetached(bytes, signature, trust.keyrings, { date: trust.now, file: trust.file });
    return parseRelease(text, trust.file, signersOf(verified));
  } catch (error) {
    if (trust.rule === 'require' || !isUnknownSigner(error)) throw error;
    return parseRelease(text, trust.file, []);
  }
}

function isUnknownSigner(error: unknown): boolean {
  return error instanceof UserError && UNKNOWN_SIGNER.has(error.code);
}

function signersOf(verified: { readonly signers: readonly { readonly fingerprint: string }[] }): string[] {
  return verified.signers.map((signer) => signer.fingerprint);
}

/** The text inside a clear-signed frame, unchecked (RFC 9580 7: dash-escaped lines restored, headers dropped). */
function clearText(signed: string): string {
  const lines = signed.split(/\r?\n/);
  const begin = lines.indexOf('-----BEGIN PGP SIGNED MESSAGE-----');
  const blank = lines.indexOf('', begin);
  const end = lines.indexOf('-----BEGIN PGP SIGNATURE-----');
  if (begin < 0 || blank < 0 || end < blank) return signed;
  return `${lines
    .slice(blank + 1, end)
    .map((line) => line.replace(/^- /, ''))
    .join('\n')}\n`;
}

/** A Release file of more entries than this is an attack, not an archive (Debian's have about 700 each). */
const MAX_ENTRIES = 100_000;

/** Reads the text of a Release file. @throws UserError `release-syntax` */
export function parseRelease(text: string, file: string, signers: readonly string[]): Release {
  const paragraph = parseParagraph(text, { file, duplicates: 'keep' });
  const date = dateField(getField(paragraph, 'Date'));
  const section = getField(paragraph, 'SHA256');
  if (date === undefined || section === undefined) {
    throw new UserError('release-syntax', 'the Release file has no Date or no SHA256 section', { file });
  }
  const files = new Map<string, NamedFile>();
  for (const line of section.split('\n')) {
    const match = /^\s*([0-9a-fA-F]{64})\s+(\d{1,15})\s+(\S+)\s*$/.exec(line);
    if (match && !match[3]!.split('/').includes('..')) {
      files.set(match[3]!.replace(/^(?:\.\/)+/, ''), { size: Number(match[2]), sha256: match[1]!.toLowerCase() });
    }
    if (files.size > MAX_ENTRIES)
      throw new UserError('release-syntax', 'the Release file names too many files', { file });
  }
  return {
    text,
    date,
    validUntil: dateField(getField(paragraph, 'Valid-Until')),
    byHash: getField(paragraph, 'Acquire-By-Hash')?.toLowerCase() === 'yes',
    files,
    signers,
  };
}

function dateField(value: string | undefined): number | undefined {
  const ms = value === undefined ? Number.NaN : Date.parse(value);
  return Number.isNaN(ms) ? undefined : Math.floor(ms / 1000);
}
