/**
 * Base images: built once by mmdebstrap, then read only below every machine's own overlay.
 *
 * Secret: the folder of a base (`STATE/vm/bases/ID`: disk, kernel, initrd, log, `base.json`), made aside and renamed in one step.
 */
import type { Context } from '../core/context.ts';

/** A finished base image. */
export interface Base {
  /** `bookworm-3f9a0c12ab34`: suite and the start of the recipe's digest. */
  readonly id: string;
  readonly suite: string;
  /** Debian's name, `amd64`. */
  readonly architecture: string;
  readonly dir: string;
  /** qcow2; never opened for writing. */
  readonly disk: string;
  readonly kernel: string;
  readonly initrd: string;
  /** Of the disk: what ties overlays to it. */
  readonly sha256: string;
  /** `6.1.0-39-cloud-amd64` */
  readonly kernelRelease: string;
  /** UUID of the root file system. */
  readonly rootUuid: string;
  /** Bytes of the virtual disk. */
  readonly virtualSize: number;
  /** Bytes on this machine's disk. */
  readonly size: number;
  /** ISO 8601. */
  readonly created: string;
  readonly logFile: string;
  /** An earlier run made it. */
  readonly reused: boolean;
}

export interface BaseRequest {
  readonly suite: string;
  /** Debian's name; default: this machine's. */
  readonly architecture?: string | undefined;
  /** `8G`, `8192M`; default 8G. */
  readonly size?: string | undefined;
  /** Packages beside the minimum. */
  readonly include?: readonly string[] | undefined;
  /** URL; default: the mirrors in this machine's apt configuration. */
  readonly mirror?: string | undefined;
  /** Build anew even if there is one. */
  readonly force?: boolean | undefined;
}

/**
 * The base image for `request`: an existing one of the same recipe, else a new one.
 * @throws UserError `suite-unknown`, `mirror-unknown`; ToolError when mmdebstrap fails
 */
export function buildBase(_context: Context, _request: BaseRequest): Promise<Base> {
  throw new Error('under way');
}
