/**
 * Base images from elsewhere: fetched, checked before and after unpacking, or used in place.
 *
 * Secret: how a download survives a restart (RFC 9110 13.1.5 If-Range) and how a file's kind is told from its first bytes.
 */
import type { DigestName } from '../core/files.ts';

export type Digests = Readonly<Partial<Record<Exclude<DigestName, 'sha1'>, string>>>;

export interface FetchRequest {
  /** URL, file or block device. */
  readonly source: string;
  /** Where the image goes; a local image that needs no unpacking stays where it is. */
  readonly target: string;
  /** Of what is downloaded. */
  readonly digests: Digests;
  /** Of the image after unpacking. */
  readonly imageDigests: Digests;
  /** Keyring for a detached signature at `SOURCE.sig` or `.asc`, or a signed list of sums beside it. */
  readonly keyring?: string | undefined;
}

export interface FetchedImage {
  readonly path: string;
  readonly format: 'raw' | 'qcow2';
  /** The user's own file or device: never written, never removed. */
  readonly inPlace: boolean;
  /** Hex, of the image as it will be used. */
  readonly sha256: string;
}
