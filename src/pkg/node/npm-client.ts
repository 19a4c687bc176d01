/**
 * npm's libraries as buildkit uses them: what they are told, and what their errors mean.
 *
 * Secret: what they must not do here (run scripts, look at this machine's processor), and the codes of npm, make-fetch-happen and
 * @npmcli/git, which become buildkit's own.
 */
import type { RunContext } from '../../core/context.ts';
import { BuildkitError, errnoOf, RemoteError, UserError } from '../../core/errors.ts';
import { explainWriteError } from '../../core/files.ts';
import { printable } from '../../core/log.ts';
import { lastLines } from '../build-log.ts';
import type { NpmOptions } from './npmrc.ts';
import type { NodeTarget } from './target.ts';

export interface TreeRequest {
  /** Holds package.json (and a lock); node_modules is made there. */
  readonly folder: string;
  /** Further things to have: 'semver@^7', a path of a tarball. */
  readonly add: readonly string[];
  readonly npm: NpmOptions;
  readonly cacheDir: string;
  readonly target: NodeTarget;
  /** Development dependencies, too. */
  readonly dev?: boolean;
  /** What was published later does not count: an ISO date. */
  readonly before?: string | undefined;
}

/** For arborist and pacote. */
export function clientOptions(context: RunContext, request: TreeRequest): Record<string, unknown> {
  const { before, npm, target } = request;
  return {
    ...npm,
    ...(before === undefined ? {} : { before: new Date(before) }),
    path: request.folder,
    cache: request.cacheDir,
    signal: context.signal,
    ignoreScripts: true,
    installLinks: true, // a folder becomes a copy: links to this machine's folders are nothing to package
    binLinks: false,
    audit: false,
    fund: false,
    os: target.os,
    cpu: target.cpu,
    libc: target.libc,
    nodeVersion: `v${target.nodeVersion}`,
  };
}

export function platformError(name: string, version: string, target: NodeTarget): UserError {
  return new UserError('npm-platform', `'${printable(name)}' ${printable(version)} is not for ${target.architecture}`, {
    hint: `its os, cpu or libc leave out ${target.os}, ${target.cpu}, ${target.libc}`,
  });
}

interface NpmError extends Error {
  readonly code?: string;
  readonly statusCode?: number;
  readonly uri?: string;
  readonly pkgid?: string;
  readonly spec?: { readonly raw?: string };
  readonly explanation?: unknown;
  readonly required?: unknown;
  readonly wanted?: string;
  readonly versions?: readonly string[];
  readonly file?: string;
  /** Of a program that npm ran: git. */
  readonly cmd?: string;
  readonly args?: readonly string[];
  readonly stderr?: string;
}

const NETWORK = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'ESOCKETTIMEDOUT',
  'ENETUNREACH',
  'EHOSTUNREACH',
  'EPROTO',
  'ERR_SOCKET_TIMEOUT',
  'EIDLETIMEOUT',
  'ECONNECTIONTIMEOUT',
  'ERESPONSETIMEOUT',
  'ETRANSFERTIMEOUT',
  'EBADSIZE',
  'FETCH_ERROR',
  'ENOTCACHED',
]);

/** What npm throws comes out as an error of buildkit. */
export async function guarded<T>(context: RunContext, request: TreeRequest, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (cause) {
    context.signal?.throwIfAborted();
    if (cause instanceof BuildkitError || !(cause instanceof Error)) throw cause;
    throw explain(cause as NpmError, request);
  }
}

function explain(cause: NpmError, request: TreeRequest): unknown {
  const url = cause.uri ?? String(request.npm.registry ?? 'the registry');
  const what = printable(cause.message.split('\n')[0]!);
  const code = cause.code ?? '';
  const asked = printable(cause.pkgid ?? cause.spec?.raw ?? request.add.join(', '));
  const certificate = /CERT|SELF_SIGNED|UNABLE_TO_/.test(code);
  if (code === 'E404') {
    return new UserError('npm-not-found', `the registry has no '${asked.replace(/@$/, '')}'`, {
      hint: "check the spelling; a private package needs its registry in .npmrc: '@scope:registry=URL'",
      cause,
    });
  }
  if (code === 'ETARGET' || code === 'ENOVERSIONS') {
    const newest = cause.versions?.slice(-5).join(', ');
    return new UserError('npm-no-version', `no version of '${asked}' is in that range`, {
      hint: newest ? `the last published ones: ${printable(newest)}` : 'look at its versions: npm view NAME versions',
      cause,
    });
  }
  if (code === 'ERESOLVE') return unresolvable(cause);
  if (code === 'EINTEGRITY') {
    return new RemoteError(
      'digest-mismatch',
      `a tarball has other content than the lock or the registry says: ${what}`,
      {
        url,
        hint: 'nothing was kept; when it stays so, do not trust this registry',
        cause,
      },
    );
  }
  if (code === 'EBADPLATFORM') return platformError(cause.pkgid ?? request.add.join(', '), '', request.target);
  if (/^Git\w*Error$/.test(cause.constructor.name) || /^git\b/.test(cause.cmd ?? '')) return gitError(cause);
  if (
    /^EINVALID|^EUNSUPPORTEDPROTOCOL$|^ELOCKFILEVERSION$|^EJSONPARSE$|^EOVERRIDE$/.test(code) ||
    cause.name === 'JSONParseError'
  ) {
    return new UserError('npm-input', `npm cannot take this: ${what}`, { file: cause.file, cause });
  }
  if (NETWORK.has(code) || certificate || cause.statusCode !== undefined || /^E[45]\d\d$/.test(code)) {
    return new RemoteError('npm-registry', `the npm registry does not answer as it should: ${what}`, {
      url,
      status: cause.statusCode,
      hint: certificate
        ? 'name its certificate in .npmrc: cafile=PATH'
        : 'see where npm looks: npm config get registry; then run the command again',
      cause,
    });
  }
  if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'EISDIR') {
    return new UserError('npm-input', `npm cannot read a file that it needs: ${what}`, { cause });
  }
  return errnoOf(cause) === undefined ? cause : explainWriteError(cause, request.folder);
}

function gitError(cause: NpmError): RemoteError {
  const url = cause.args?.find((one) => /^[a-z+]+:|@/.test(one) && !one.startsWith('-')) ?? 'a git repository';
  const said = lastLines(cause.stderr ?? cause.message).trim();
  return new RemoteError('npm-git', `git cannot fetch what a package needs:\n  ${said}`, {
    url,
    hint: 'see that git itself can, without a question: git ls-remote URL',
    cause,
  });
}

interface Explained {
  readonly name?: string;
  readonly version?: string;
  readonly spec?: string;
  readonly from?: Explained & { readonly location?: string };
  readonly dependents?: readonly Explained[];
}

/** Both chains of a conflict: who wants what, up to the project. */
function unresolvable(cause: NpmError): UserError {
  const conflict = cause as unknown as {
    readonly edge?: Explained;
    readonly current?: Explained;
    readonly currentEdge?: Explained;
    readonly peerConflict?: { readonly peer?: Explained } | null;
  };
  const chain = (edge: Explained | undefined): string => {
    const steps: string[] = [];
    for (let at = edge, depth = 0; at !== undefined && depth < 8; depth += 1) {
      const from: Explained | undefined = at.from;
      const who = from?.name === undefined ? 'the project' : `${from.name}${from.version ? `@${from.version}` : ''}`;
      if (at.name !== undefined) steps.push(`${who} needs ${at.name}@${at.spec ?? '*'}`);
      at = from?.dependents?.[0];
    }
    return printable(steps.join('; ') || 'unknown');
  };
  const have = conflict.current;
  const chains = [
    chain(conflict.edge),
    chain(have?.dependents?.[0] ?? conflict.currentEdge ?? conflict.peerConflict?.peer),
  ];
  return new UserError('unresolvable', `two needs exclude each other:\n  ${chains.join('\n  ')}`, {
    hint: "change one of the two ranges, or accept npm's old ways: legacy-peer-deps=true in .npmrc",
    cause,
  });
}
