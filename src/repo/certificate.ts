/**
 * The certificate of a server in two PEM files, renewed by somebody else (certbot, acme.sh) while the server runs.
 *
 * Secret: when a changed pair is taken: once both files belong together. Until then, and when they cannot be read, the server goes
 * on with what it has, and says so.
 */
import { readFile, stat } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { UserError } from '../core/errors.ts';

export interface CertificateFiles {
  /** PEM, the chain after the certificate. */
  readonly cert: string;
  readonly key: string;
}

export interface CertificatePair {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** @throws UserError `bad-certificate` */
export async function readCertificate(files: CertificateFiles): Promise<CertificatePair> {
  try {
    const [cert, key] = await Promise.all([readFile(files.cert), readFile(files.key)]);
    createSecureContext({ cert, key });
    return { cert, key };
  } catch (cause) {
    throw new UserError('bad-certificate', `cannot serve with this certificate: ${(cause as Error).message}`, {
      file: files.cert,
      hint: 'both files are PEM, the key belongs to the first certificate, and the server may read them',
      cause,
    });
  }
}

/** What tells that one of the files was replaced or written. */
export async function certificateState(files: CertificateFiles): Promise<string> {
  const states = await Promise.all(
    [files.cert, files.key].map(async (path) => {
      const found = await stat(path).catch(() => undefined); // gone for a moment while it is replaced
      return found ? `${found.dev}:${found.ino}:${found.size}:${found.mtimeMs}` : '-';
    }),
  );
  return states.join(' ');
}
