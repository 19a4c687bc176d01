/**
 * npm packages that are no release but a commit in a git repository.
 *
 * Secret: how npm writes such a place down (`git+ssh://git@host/x.git#COMMIT::path:/sub`), which addresses of the large hosts lead to
 * the same repository, and what `prepare` (npm's scripts(7)) needs: the whole source and the development dependencies.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../../core/context.ts';
import { RemoteError, ToolError } from '../../core/errors.ts';
import { printable } from '../../core/log.ts';
import { run } from '../../core/run.ts';
import { lastLines } from '../build-log.ts';
import { asTable } from './manifest.ts';

const FETCH_LIMIT_MS = 20 * 60 * 1000;

export interface GitSource {
  readonly kind: 'git';
  /** To be tried in this order. */
  readonly urls: readonly string[];
  /** Whole digest. */
  readonly commit: string;
  /** Folder of the package below the top; '' for the top itself. */
  readonly below: string;
}

/** Those that show public repositories by https to everybody, as npm knows them. */
const HOSTS = /^(?:git\+)?(?:ssh|git):\/\/(?:[\w.-]+@)?((?:github\.com|gitlab\.com|bitbucket\.org)\/.+)$/;

/** What a lock has under `resolved`; undefined: no commit is named, or by a way that git should not go. */
export function parseGitSource(resolved: string): GitSource | undefined {
  const [address = '', fragment = ''] = resolved.split(/#(.*)/s);
  const [commit = '', ...rest] = fragment.split('::');
  const url = address.replace(/^git\+/, '');
  const below =
    rest
      .find((one) => one.startsWith('path:'))
      ?.slice('path:'.length)
      .replace(/^\/+/, '') ?? '';
  if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(commit) || below.split('/').includes('..')) return undefined;
  if (!/^(https?|ssh|git|file):\/\/[^\s]+$/.test(url)) return undefined;
  const host = HOSTS.exec(address)?.[1];
  return { kind: 'git', urls: host === undefined ? [url] : [`https://${host}`, url], commit, below };
}

/**
 * Puts the commit into `folder`, which is made; without its history.
 * @returns the folder of the package in it
 * @throws RemoteError `npm-git`
 */
export async function checkOut(context: Context, source: GitSource, folder: string): Promise<string> {
  let failure: unknown;
  for (const url of source.urls) {
    try {
      await rm(folder, { recursive: true, force: true });
      await mkdir(folder, { recursive: true });
      await fetchCommit(context, url, source.commit, folder);
      return join(folder, source.below);
    } catch (error) {
      if (!(error instanceof ToolError)) throw error;
      failure ??= error;
    }
  }
  const said = failure instanceof ToolError ? failure.stderrTail : '';
  const url = source.urls[0]!;
  throw new RemoteError('npm-git', `git cannot fetch '${source.commit.slice(0, 12)}':\n${lastLines(said)}`, {
    url,
    hint: `see that git itself can, without a question: git ls-remote ${printable(url)}`,
    cause: failure,
  });
}

async function fetchCommit(context: Context, url: string, commit: string, folder: string): Promise<void> {
  const env = {
    GIT_TERMINAL_PROMPT: '0',
    GIT_ASKPASS: 'true',
    GIT_SSH_COMMAND: context.env.GIT_SSH_COMMAND ?? 'ssh -oBatchMode=yes',
    GIT_DIR: undefined,
    GIT_WORK_TREE: undefined,
  };
  const git = (...args: readonly string[]) =>
    run(context, 'git', ['-C', folder, ...args], { env, timeoutMs: FETCH_LIMIT_MS });
  await git('init', '--quiet', '--template=');
  try {
    await git('fetch', '--quiet', '--depth=1', url, commit);
  } catch (error) {
    if (!(error instanceof ToolError)) throw error;
    // a server need not hand out a commit that no branch or tag points at
    await git('fetch', '--quiet', '--tags', url, '+refs/heads/*:refs/remotes/origin/*');
  }
  await git('-c', 'core.autocrlf=false', 'checkout', '--quiet', '--detach', commit);
  if (existsSync(join(folder, '.gitmodules'))) await git('submodule', '--quiet', 'update', '--init', '--recursive');
}

/** Scripts that npm runs before it packs a package from git, in this order; empty: it is ready as it is. */
export async function preparations(folder: string): Promise<[event: string, command: string][]> {
  const scripts = asTable(asTable(JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'))).scripts);
  const found: [string, string][] = [];
  for (const event of ['preprepare', 'prepare', 'postprepare', 'prepack']) {
    const command = scripts[event];
    if (typeof command === 'string' && command.trim() !== '') found.push([event, command]);
  }
  return found;
}
