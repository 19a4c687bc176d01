/**
 * The archive of a target suite: which mirror it is read from, and files of it as its signed Release file says they are.
 *
 * Secret: apt's own configuration of this machine, and that nothing unsigned gets in. Ruled by apt-get(8) (indextargets),
 * DebianRepository/Format.
 */
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { RemoteError, ToolError, UserError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { run } from '../core/run.ts';
import { debianMirror, type IndexTarget, readIndexTargets } from '../deb/apt-targets.ts';
import { ARCHIVE_KEYRING } from '../deb/suites.ts';
import { workFolder } from './cache.ts';

/** Where a suite is read. */
export interface SuiteSource {
  /** For suites that this machine does not follow; default: the one it has its own packages from. */
  readonly mirror?: string | undefined;
  /** An apt proxy for it. */
  readonly proxy?: string | undefined;
}

/** What this machine's apt has; nothing where there is no apt. */
export async function aptTargets(context: Context): Promise<IndexTarget[]> {
  try {
    return await readIndexTargets(context);
  } catch (error) {
    if (error instanceof ToolError) return [];
    throw error;
  }
}

/** @throws UserError `no-mirror` */
export function siteOf(suite: string, targets: readonly IndexTarget[], { mirror }: SuiteSource): string {
  const site = mirror ?? debianMirror(targets);
  if (site !== undefined) return `${site.replace(/\/$/, '')}/dists/${suite}`;
  throw new UserError('no-mirror', `buildkit does not know where to read what ${suite} has`, {
    hint: 'name a mirror: --mirror URL',
  });
}

/** The digests in a suite's InRelease, whose signature gpgv has checked. */
export interface SignedRelease {
  /** 'main/Contents-amd64.gz' -> SHA256. @throws RemoteError `no-such-index` */
  digestOf(name: string): string;
  /** Fetches that file of the suite to `target`; it is as signed, or nothing. */
  fetch(name: string, target: string): Promise<void>;
}

/** @throws UserError `no-keyring`; RemoteError; ToolError when the signature is wrong */
export async function readSignedRelease(
  context: Context,
  dist: string,
  { proxy }: SuiteSource,
): Promise<SignedRelease> {
  const { download } = await import('../core/http.ts'); // its client is large: loaded for those who need it
  await using scratch = await workFolder(context);
  const signed = join(scratch.path, 'InRelease');
  await download(context, `${dist}/InRelease`, signed, { maxBytes: 16_000_000, proxy });
  if (!(await exists(ARCHIVE_KEYRING))) {
    throw new UserError('no-keyring', `'${ARCHIVE_KEYRING}' is missing: the suite's list cannot be trusted`, {
      hint: 'apt-get install debian-archive-keyring',
    });
  }
  const { stdout: release } = await run(context, 'gpgv', ['--keyring', ARCHIVE_KEYRING, '--output', '-', signed]);
  const digestOf = (name: string): string => {
    const sha256 = new RegExp(`^ ([0-9a-f]{64})\\s+\\d+ ${name.replaceAll('.', '\\.')}$`, 'm').exec(release)?.[1];
    if (sha256 !== undefined) return sha256;
    throw new RemoteError('no-such-index', `the suite has no '${name}'`, { url: `${dist}/InRelease` });
  };
  return {
    digestOf,
    fetch: async (name, target) => {
      await download(context, `${dist}/${name}`, target, { sha256: digestOf(name), proxy });
    },
  };
}
