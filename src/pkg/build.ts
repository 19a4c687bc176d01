/**
 * The door of pkg: source -> .deb files of it and of everything that it needs.
 *
 * Reads top to bottom: inputs -> closure -> plan -> one .deb for each package, in parallel.
 */
import type { Context } from '../core/context.ts';
import type { Compression } from '../deb/compression.ts';
import type { BinaryPackage } from '../deb/package.ts';

export interface BuildRequest {
  /** Folders and requirements as the user wrote them: '.', 'flask', 'flask>=3', 'pypi:flask==3.1.3', 'x.whl'. */
  readonly inputs: readonly string[];
  /** What relative folders refer to. */
  readonly cwd: string;
  /** Codename: 'bookworm'. */
  readonly suite: string;
  /** Where the .deb files go; made when missing. */
  readonly outDir: string;
  /** Debian architecture; default: this machine's. */
  readonly architecture?: string;
  /** The Debian revision before the suite mark; default '1'. */
  readonly packagingVersion?: string;
  /** "Name <mail>"; default: from the project, DEBFULLNAME and DEBEMAIL, or git. */
  readonly maintainer?: string | undefined;
  /** Default 'xz'. */
  readonly compression?: Compression;
}

export interface PlannedPackage {
  /** Debian's name. */
  readonly name: string;
  /** Debian's version, whole. */
  readonly version: string;
  readonly architecture: string;
  /** Where it comes from: 'pypi:flask==3.1.3', a folder. */
  readonly source: string;
  /** 'asked for', 'needed by python3-flask'. */
  readonly why: string;
  readonly decision: 'build';
}

export interface BuildPlan {
  readonly packages: readonly PlannedPackage[];
}

export interface BuildResult {
  /** Every package of the closure, those asked for first. */
  readonly packages: readonly BinaryPackage[];
  /** Names of the packages that the inputs stand for: what a test machine should install. */
  readonly asked: readonly string[];
  /** How many were built now; the others were there, byte for byte. */
  readonly built: number;
  readonly reused: number;
}

/** Resolves the closure and says what `buildPackages` would build. Writes nothing outside the cache. */
export declare function planBuild(context: Context, request: BuildRequest): Promise<BuildPlan>;

/**
 * Builds every package of the closure into `outDir`.
 * @throws UserError for a closure that cannot be, for names and files that clash, for sources that do not build
 */
export declare function buildPackages(context: Context, request: BuildRequest): Promise<BuildResult>;
