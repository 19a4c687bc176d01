/**
 * Is it the image that was meant? Digests that the user gave, and signatures beside the image.
 *
 * Secret: where publishers put them (`IMAGE.sig|.asc|.gpg`, or `SHA512SUMS`/`SHA256SUMS` with a signature of their own, as Debian
 * and Ubuntu do) and how gpgv(1) wants its keyring.
 */
import { createHash, type Hash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { RemoteError, ToolError, UserError } from '../core/errors.ts';
import type { DigestName } from '../core/files.ts';
import { run } from '../core/run.ts';

/** Hex, by algorithm. */
export type Digests = Readonly<Partial<Record<Exclude<DigestName, 'sha1'>, string>>>;

const HEX_LENGTH = { md5: 32, sha256: 64, sha512: 128 } as const;
type DigestKey = keyof typeof HEX_LENGTH;

/** @throws UserError `digest-format` */
export function checkDigestFormat(digests: Digests): void {
  for (const [name, value] of Object.entries(digests) as [DigestKey, string | undefined][]) {
    if (value === undefined || new RegExp(`^[0-9a-fA-F]{${HEX_LENGTH[name]}}$`).test(value)) continue;
    throw new UserError('digest-format', `'${value}' is no ${name} digest`, {
      hint: `it has ${HEX_LENGTH[name]} hex digits`,
    });
  }
}

/** Several digests of one pass over the bytes. */
export interface Digester {
  update(chunk: Uint8Array): void;
  /** Hex; call once. */
  results(): Record<DigestKey, string> | Partial<Record<DigestKey, string>>;
}

/** Takes those that `wanted` names, and `always`. */
export function digester(wanted: Digests, always: readonly DigestKey[]): Digester {
  const names = [...new Set([...(Object.keys(wanted) as DigestKey[]), ...always])];
  const hashes = new Map<DigestKey, Hash>(names.map((name) => [name, createHash(name)]));
  return {
    update: (chunk) => {
      for (const hash of hashes.values()) hash.update(chunk);
    },
    results: () => Object.fromEntries([...hashes].map(([name, hash]) => [name, hash.digest('hex')])),
  };
}

/** @param what 'the download' or 'the image' @throws RemoteError `digest-mismatch` */
export function compareDigests(wanted: Digests, found: Digests, what: string, url: string): void {
  for (const [name, value] of Object.entries(wanted) as [DigestKey, string | undefined][]) {
    if (value === undefined || value.toLowerCase() === found[name]) continue;
    throw new RemoteError(
      'digest-mismatch',
      `${name} of ${what} is ${found[name]}, expected ${value}; nothing was kept`,
      {
        url,
        hint: 'see that the digest is of this very version; if it is, do not use the image',
      },
    );
  }
}

/** A signature that lies beside the image, or beside a list of digests that has the image. */
export interface SignaturePlace {
  /** Name beside the image; undefined: the image itself is signed. */
  readonly sums: 'SHA512SUMS' | 'SHA256SUMS' | undefined;
  /** Name beside the image. */
  readonly signature: string;
}

/** Where to look, in turn. @param name last part of the image's URL or path */
export function signaturePlaces(name: string): SignaturePlace[] {
  const direct = ['sig', 'asc', 'gpg', 'sign'].map((end) => ({ sums: undefined, signature: `${name}.${end}` }));
  const lists = (['SHA512SUMS', 'SHA256SUMS'] as const).flatMap((sums) =>
    ['sign', 'gpg', 'asc', 'sig'].map((end) => ({ sums, signature: `${sums}.${end}` })),
  );
  return [...direct, ...lists];
}

/** The digest of `name` in a list as sha512sum(1) writes it. */
export function digestInSums(sums: string, name: string): string | undefined {
  for (const line of sums.split('\n')) {
    const [, digest, file] = /^([0-9a-f]{64,128}) [ *](?:\.\/)?(.+)$/.exec(line.trim()) ?? [];
    if (file === name) return digest;
  }
  return undefined;
}

/**
 * Checks a signature with gpgv.
 * @param keyring binary or armored
 * @throws RemoteError `signature-bad`
 */
export async function checkSignature(
  context: Context,
  files: { readonly signed: string; readonly signature: string; readonly keyring: Uint8Array },
  scratch: string,
  url: string,
): Promise<void> {
  const keyring = join(scratch, 'keyring.gpg');
  await writeFile(keyring, dearmor(files.keyring));
  try {
    await run(context, 'gpgv', ['--keyring', keyring, files.signature, files.signed], { timeoutMs: 600_000 });
  } catch (cause) {
    if (!(cause instanceof ToolError) || cause.code !== 'tool-failed') throw cause;
    const reason =
      cause.stderrTail
        .trim()
        .split('\n')
        .at(-1)
        ?.replace(/^gpgv: /, '') ?? '';
    throw new RemoteError('signature-bad', `the signature is not good: ${reason}; nothing was kept`, {
      url,
      hint: 'see that --signature names the keyring of the publisher',
      cause,
    });
  }
}

/** The bytes inside ASCII armor (RFC 9580 section 6.2), of all blocks; what is not armored stays as it is. */
export function dearmor(keyring: Uint8Array): Uint8Array {
  const text = Buffer.from(keyring).toString('latin1');
  const blocks = [
    ...text.matchAll(/-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(?:[^\n]*:[^\n]*\n)*\s*([\s\S]*?)-----END/g),
  ];
  if (blocks.length === 0) return keyring;
  const bodies = blocks.map(([, body = '']) => body.replace(/^=\S{4}\s*$/m, '')); // without the checksum
  return Buffer.concat(bodies.map((body) => Buffer.from(body, 'base64')));
}
