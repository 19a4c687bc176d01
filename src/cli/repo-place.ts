/** What every `buildkit repo` row shares: which repository is meant, who does it, publishing at the end of a change. */
import { userInfo } from 'node:os';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { PackageFacts } from '../repo/handle.ts';
import type { PublishedSuite } from '../repo/publish.ts';
import type { Repo } from '../repo/repo.ts';
import type { CommandContext, Output } from './command.ts';
import { addPassphraseOptions, type PassphraseOptions, passphraseSource } from './passphrase.ts';

export interface Place {
  readonly repo?: string;
}

/** Makes a row of the group with the option that all of them have. */
export type Row = (usage: string, description: string) => Command;

export interface ChangeOptions extends Place, PassphraseOptions {
  readonly dryRun?: boolean;
  readonly publish?: boolean;
}

/** For rows that change suites: show only, or publish at once. */
export function addChangeOptions(command: Command): Command {
  return addPassphraseOptions(command)
    .option('--dry-run', 'only show what would change')
    .option('--publish', 'publish the changed suite at once');
}

export async function placeOf(cx: CommandContext, options: Place): Promise<string> {
  if (options.repo !== undefined) return resolve(cx.cwd, options.repo);
  return resolve(cx.workspaceDir, (await cx.config()).repo.dir);
}

export async function openRepo(cx: CommandContext, options: Place): Promise<Repo> {
  const { Repo } = await import('../repo/repo.ts');
  return Repo.open(cx, await placeOf(cx, options));
}

/** For the history. */
export function userName(cx: CommandContext): string {
  return cx.env.SUDO_USER ?? cx.env.USER ?? cx.env.LOGNAME ?? accountName();
}

/** Services and CI often have none of the variables. */
function accountName(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.()}`; // no entry in passwd
  }
}

/** The result of a change, after publishing where that was asked for. */
export async function changed(
  cx: CommandContext,
  repo: Repo,
  suites: readonly string[],
  options: ChangeOptions,
  output: { readonly data: object; readonly text: string; readonly exitCode?: number },
): Promise<Output> {
  if (!options.publish || options.dryRun) return output;
  const published = await repo.publish(suites, { passphrase: passphraseSource(cx, options) });
  const text = [output.text, ...published.map((suite) => publishedLine(suite))]
    .filter((line) => line !== '')
    .join('\n');
  return { ...output, data: { ...output.data, published }, text };
}

export function publishedLine(suite: PublishedSuite, dryRun = false): string {
  const verb = suite.published ? (dryRun ? 'would publish' : 'published') : 'unchanged';
  const until = suite.validUntil === undefined ? '' : `, valid until ${suite.validUntil}`;
  const state = dryRun && suite.published ? '' : `, generation ${suite.generation}${until}`;
  return `${verb} ${suite.suite}: ${suite.packages} packages${state}`;
}

export function packageLines(items: readonly PackageFacts[], verb: string): string {
  return items
    .map((item) => `${verb} ${item.name} ${item.version} ${item.architecture} (${item.suite}/${item.component})`)
    .join('\n');
}
