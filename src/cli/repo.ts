/** `buildkit repo`: signed apt repositories. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { AddResult } from '../repo/add.ts';
import type { Repo } from '../repo/repo.ts';
import type { Cli, CommandContext, Output } from './command.ts';
import { addPassphraseOptions, type PassphraseOptions, passphraseSource } from './passphrase.ts';
import { addGenerations, addHistory, addImport, addTransfers, addVerify } from './repo-history.ts';
import { addKeyPlans } from './repo-keys.ts';
import { addMovingOut } from './repo-out.ts';
import {
  addChangeOptions,
  type ChangeOptions,
  changed,
  openRepo,
  type Place,
  packageLines,
  placeOf,
  publishedLine,
  type Row,
  userName,
} from './repo-place.ts';
import { addQueries } from './repo-queries.ts';
import { addServe } from './repo-serve.ts';
import { addSettings } from './repo-suite.ts';
import { addUpkeep } from './repo-upkeep.ts';

export function addRepoCommands(program: Command, cli: Cli): void {
  const repo = program.command('repo').description('signed apt repositories');
  const row: Row = (usage, description) =>
    repo
      .command(usage)
      .description(description)
      .option('--repo <dir>', 'the repository; default: repo.dir of buildkit.yaml');
  addInit(row, cli);
  addSettings(row, cli);
  addContents(row, cli);
  addQueries(row, cli);
  addPublish(row, cli);
  addServe(row, cli);
  addClients(row, cli);
  addTransfers(row, cli);
  addHistory(row, cli);
  addGenerations(row, cli);
  addVerify(row, cli);
  addImport(row, cli);
  addMovingOut(row, (usage, description) => repo.command(usage).description(description), cli);
  addKeyPlans(row, cli);
  addUpkeep(repo, row, cli);
}

interface InitOptions extends Place {
  readonly suite?: string[];
  readonly component?: string[];
  readonly arch?: string[];
  readonly origin?: string;
  readonly label?: string;
  readonly description?: string;
  readonly url?: string;
  readonly key?: string[];
  readonly validDays?: string;
  readonly dryRun?: boolean;
}

function addInit(row: Row, cli: Cli): void {
  row('init [dir]', 'make an empty repository')
    .option('--suite <names...>', 'codenames: bookworm,trixie')
    .option('--component <names...>', 'sections of each suite (main)')
    .option('--arch <names...>', 'architectures beside all')
    .option('--origin <text>', 'Origin in Release: who makes it')
    .option('--label <text>', 'Label in Release')
    .option('--description <text>', 'Description in Release')
    .option('--url <url>', 'where clients will find it')
    .option('--key <keys...>', 'sign with these: fingerprint or part of the user id')
    .option('--valid-days <days>', 'from Date to Valid-Until; 0: no end')
    .option('--dry-run', 'only show the settings')
    .action(cli.action((cx, dir: string | undefined, options: InitOptions) => init(cx, dir, options)));
}

async function init(cx: CommandContext, dir: string | undefined, options: InitOptions): Promise<Output> {
  const [{ Repo }, { daysOf, splitList }] = await Promise.all([
    import('../repo/repo.ts'),
    import('../repo/settings.ts'),
  ]);
  const config = await cx.config();
  const root = dir === undefined ? await placeOf(cx, options) : resolve(cx.cwd, dir);
  const list = (flag: string[] | undefined, other: readonly string[]) => (flag === undefined ? other : splitList(flag));
  const components = list(options.component, config.repo.components);
  const architectures = list(options.arch, config.repo.architectures);
  const suites = list(options.suite, config.repo.suites ?? [config.suite]);
  const request = {
    suites: suites.map((name) => ({ name, components, architectures })),
    origin: options.origin ?? config.repo.origin ?? config.name,
    label: options.label ?? config.repo.label ?? config.name,
    description: options.description,
    url: options.url,
    keys: options.key ?? (config.repo.key === undefined ? undefined : [config.repo.key]),
    validDays: options.validDays === undefined ? daysOf(config.repo['valid-for']) : Number(options.validDays),
  };
  if (options.dryRun) return { data: { dir: root, ...request }, text: `would make a repository in ${root}` };
  using made = await Repo.init(cx, root, request);
  const data = { dir: made.dir, settings: made.settings(), suites: made.suites() };
  return { data, text: `repository in ${made.dir}: ${suites.join(', ')}` };
}

interface AddRowOptions extends ChangeOptions {
  readonly component?: string;
  readonly allOrNothing?: boolean;
}

function addContents(row: Row, cli: Cli): void {
  addChangeOptions(row('add <suite> <files...>', 'add .deb files, or all of a folder'))
    .option('--component <name>', "section; default: the suite's first")
    .option('--all-or-nothing', 'add nothing when one of them is refused')
    .action(
      cli.action(async (cx, suite: string, files: string[], options: AddRowOptions) => {
        using repo = await openRepo(cx, options);
        const { component, allOrNothing, dryRun } = options;
        const paths = files.map((file) => resolve(cx.cwd, file));
        const result = await repo.add(suite, paths, { component, allOrNothing, dryRun, who: userName(cx) });
        return await changed(cx, repo, [suite], options, addedOutput(cx, result, options));
      }),
    );

  addChangeOptions(row('remove <suite> <packages...>', 'take packages out of a suite: NAME or NAME=VERSION'))
    .option('--component <name>', 'only from this section')
    .action(
      cli.action(async (cx, suite: string, specs: string[], options: ChangeOptions & { component?: string }) => {
        using repo = await openRepo(cx, options);
        const { component, dryRun } = options;
        const removed = await repo.remove(suite, specs, { component, dryRun, who: userName(cx) });
        const text = packageLines(removed, dryRun ? 'would remove' : 'removed');
        return await changed(cx, repo, [suite], options, { data: { removed }, text });
      }),
    );
}

function addedOutput(cx: CommandContext, result: AddResult, options: AddRowOptions): Output & { data: object } {
  for (const { file, message, hint } of result.refused) {
    cx.log.warn(`refused '${file}': ${message}${hint === undefined ? '' : ` (${hint})`}`);
  }
  if (result.refused.length > 0 && options.allOrNothing) {
    cx.log.warn('nothing was added: one refused file refuses the call');
  }
  const text = [
    packageLines(result.added, options.dryRun ? 'would add' : 'added'),
    packageLines(result.unchanged, 'unchanged'),
  ];
  return {
    data: result,
    text: text.filter((part) => part !== '').join('\n'),
    exitCode: result.refused.length > 0 ? 1 : 0,
  };
}

interface PublishRowOptions extends Place, PassphraseOptions {
  readonly key?: string[];
  readonly url?: string;
  readonly force?: boolean;
  readonly unsigned?: boolean;
  readonly pages: boolean;
  readonly dryRun?: boolean;
}

function addPublish(row: Row, cli: Cli): void {
  addPassphraseOptions(row('publish [suites...]', 'sign and show to clients what is in the suites'))
    .option('--key <keys...>', 'sign with these from now on')
    .option('--url <url>', 'where clients find it, from now on')
    .option('--force', 'also when nothing changed')
    .option('--unsigned', 'write Release for somebody else to sign; see repo attach-signature')
    .option('--no-pages', 'leave the pages for people as they are')
    .option('--dry-run', 'only show what would be published')
    .action(
      cli.action(async (cx, suites: string[], options: PublishRowOptions) => {
        using repo = await openRepo(cx, options);
        if (options.unsigned) return await writeUnsigned(repo, suites);
        const { key: keys, url, force, dryRun } = options;
        const pages = options.pages ? undefined : false;
        const passphrase = passphraseSource(cx, options);
        const done = await repo.publish(suites, { keys, url, force, pages, dryRun, passphrase });
        return { data: done, text: done.map((suite) => publishedLine(suite, dryRun)).join('\n') };
      }),
    );
}

async function writeUnsigned(repo: Repo, suites: readonly string[]): Promise<Output> {
  const names = suites.length > 0 ? suites : repo.suites().map((suite) => suite.name);
  const paths: string[] = [];
  for (const name of names) paths.push(await repo.writeUnsigned(name));
  return { data: paths, text: paths.join('\n') };
}

function addClients(row: Row, cli: Cli): void {
  row('sources [suite]', 'print the .sources entry for clients')
    .option('--url <url>', 'where clients find it; default: as published, else where repo serve listens')
    .option('--signed-by <path>', 'path of the key on the client; default: the key stands in the entry')
    .action(
      cli.action(
        async (
          cx,
          suite: string | undefined,
          options: Place & { readonly url?: string; readonly signedBy?: string },
        ) => {
          using repo = await openRepo(cx, options);
          const known = options.url ?? repo.settings().url;
          const url = known ?? `http://${(await cx.config()).repo.listen}/`;
          const text = await repo.sources(suite, { url, signedBy: options.signedBy });
          return { data: { sources: text }, text };
        },
      ),
    );
}
