/** `buildkit repo`: signed apt repositories. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { AddResult } from '../repo/add.ts';
import type { PackageFacts } from '../repo/handle.ts';
import type { PublishedSuite } from '../repo/publish.ts';
import type { Repo } from '../repo/repo.ts';
import { type Cli, type CommandContext, type Output, table } from './command.ts';
import { addPassphraseOptions, type PassphraseOptions, passphraseSource } from './passphrase.ts';

interface Place {
  readonly repo?: string;
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

export function addRepoCommands(program: Command, cli: Cli): void {
  const repo = program.command('repo').description('signed apt repositories');
  const row = (usage: string, description: string) =>
    repo
      .command(usage)
      .description(description)
      .option('--repo <dir>', 'the repository; default: repo.dir of buildkit.yaml');

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

  row('add <suite> <files...>', 'add .deb files, or all of a folder')
    .option('--component <name>', "section; default: the suite's first")
    .option('--all-or-nothing', 'add nothing when one of them is refused')
    .option('--dry-run', 'only show what would be added')
    .action(
      cli.action(
        async (
          cx,
          suite: string,
          files: string[],
          options: Place & { component?: string; allOrNothing?: boolean; dryRun?: boolean },
        ) => {
          using opened = await open(cx, options);
          const { component, allOrNothing, dryRun } = options;
          const paths = files.map((file) => resolve(cx.cwd, file));
          return showAdded(
            cx,
            await opened.add(suite, paths, { component, allOrNothing, dryRun, who: userName(cx) }),
            options,
          );
        },
      ),
    );

  row('remove <suite> <packages...>', 'take packages out of a suite: NAME or NAME=VERSION')
    .option('--component <name>', 'only from this section')
    .option('--dry-run', 'only show what would be removed')
    .action(
      cli.action(
        async (cx, suite: string, specs: string[], options: Place & { component?: string; dryRun?: boolean }) => {
          using opened = await open(cx, options);
          const { component, dryRun } = options;
          const removed = await opened.remove(suite, specs, { component, dryRun, who: userName(cx) });
          return { data: { removed }, text: lines(removed, options.dryRun ? 'would remove' : 'removed') };
        },
      ),
    );

  row('list [suite]', 'list what is in the suites, published or not').action(
    cli.action(async (cx, suite: string | undefined, options: Place) => {
      using opened = await open(cx, options);
      const found = opened.list(suite);
      const rows = found.map((item) => [item.suite, item.component, item.name, item.version, item.architecture]);
      return { data: found, text: table(rows) };
    }),
  );

  addPassphraseOptions(row('publish [suites...]', 'sign and show to clients what is in the suites'))
    .option('--key <keys...>', 'sign with these from now on')
    .option('--url <url>', 'where clients find it, from now on')
    .option('--force', 'also when nothing changed')
    .option('--dry-run', 'only show what would be published')
    .action(
      cli.action(
        async (
          cx,
          suites: string[],
          options: Place & PassphraseOptions & { key?: string[]; url?: string; force?: boolean; dryRun?: boolean },
        ) => {
          using opened = await open(cx, options);
          const { key: keys, url, force, dryRun } = options;
          const passphrase = passphraseSource(cx, options);
          const done = await opened.publish(suites, { keys, url, force, dryRun, passphrase });
          return { data: done, text: done.map((suite) => publishedLine(suite, options.dryRun)).join('\n') };
        },
      ),
    );

  row('serve', 'serve it over HTTP until interrupted')
    .option('--listen <address>', 'HOST:PORT; default: repo.listen of buildkit.yaml')
    .action(
      cli.action(async (cx, options: Place & { listen?: string }) => {
        const { serveRepo } = await import('../repo/serve.ts');
        const listenOn = options.listen ?? (await cx.config()).repo.listen;
        await using server = await serveRepo(cx, await placeOf(cx, options), { listen: listenOn });
        cx.writeOut(cx.json ? `${JSON.stringify({ url: server.url })}\n` : `${server.url}/\n`);
        await interrupted(cx);
        return undefined;
      }),
    );

  row('sources [suite]', 'print the .sources entry for clients')
    .option('--url <url>', 'where clients find it')
    .option('--signed-by <path>', 'path of the key on the client; default: the key stands in the entry')
    .action(
      cli.action(async (cx, suite: string | undefined, options: Place & { url?: string; signedBy?: string }) => {
        using opened = await open(cx, options);
        const { url, signedBy } = options;
        const text = await opened.sources(suite, {
          url: url ?? (opened.settings().url === undefined ? await defaultUrl(cx) : undefined),
          signedBy,
        });
        return { data: { sources: text }, text };
      }),
    );
}

async function placeOf(cx: CommandContext, options: Place): Promise<string> {
  if (options.repo !== undefined) return resolve(cx.cwd, options.repo);
  return resolve(cx.workspaceDir, (await cx.config()).repo.dir);
}

async function open(cx: CommandContext, options: Place): Promise<Repo> {
  const { Repo } = await import('../repo/repo.ts');
  return Repo.open(cx, await placeOf(cx, options));
}

/** What `repo serve` without options answers on. */
async function defaultUrl(cx: CommandContext): Promise<string> {
  return `http://${(await cx.config()).repo.listen}/`;
}

/** For the history. */
function userName(cx: CommandContext): string {
  return cx.env.SUDO_USER ?? cx.env.USER ?? cx.env.LOGNAME ?? 'unknown';
}

async function init(cx: CommandContext, dir: string | undefined, options: InitOptions): Promise<Output> {
  const [{ Repo }, { splitList }] = await Promise.all([import('../repo/repo.ts'), import('../repo/settings.ts')]);
  const config = await cx.config();
  const root = dir === undefined ? await placeOf(cx, options) : resolve(cx.cwd, dir);
  const list = (flag: string[] | undefined, other: readonly string[]) => (flag === undefined ? other : splitList(flag));
  const components = list(options.component, config.repo.components);
  const architectures = list(options.arch, config.repo.architectures);
  const suites = list(options.suite, config.repo.suites ?? [config.suite]).map((name) => ({
    name,
    components,
    architectures,
  }));
  const validDays = options.validDays === undefined ? undefined : Number(options.validDays);
  const request = {
    suites,
    origin: options.origin ?? config.repo.origin ?? config.name,
    label: options.label ?? config.repo.label ?? config.name,
    description: options.description,
    url: options.url,
    keys: options.key ?? (config.repo.key === undefined ? undefined : [config.repo.key]),
    validDays,
  };
  if (options.dryRun) return { data: { dir: root, ...request }, text: `would make a repository in ${root}` };
  using made = await Repo.init(cx, root, request);
  const data = { dir: made.dir, settings: made.settings(), suites: made.suites() };
  return { data, text: `repository in ${made.dir}: ${suites.map((suite) => suite.name).join(', ')}` };
}

function lines(items: readonly PackageFacts[], verb: string): string {
  return items
    .map((item) => `${verb} ${item.name} ${item.version} ${item.architecture} (${item.suite}/${item.component})`)
    .join('\n');
}

function showAdded(
  cx: CommandContext,
  result: AddResult,
  options: { allOrNothing?: boolean; dryRun?: boolean },
): Output {
  for (const refusal of result.refused) {
    cx.log.warn(
      `refused '${refusal.file}': ${refusal.message}${refusal.hint === undefined ? '' : ` (${refusal.hint})`}`,
    );
  }
  if (result.refused.length > 0 && options.allOrNothing)
    cx.log.warn('nothing was added: one refused file refuses the call');
  const text = [lines(result.added, options.dryRun ? 'would add' : 'added'), lines(result.unchanged, 'unchanged')];
  return {
    data: result,
    text: text.filter((part) => part !== '').join('\n'),
    exitCode: result.refused.length > 0 ? 1 : 0,
  };
}

function publishedLine(suite: PublishedSuite, dryRun: boolean | undefined): string {
  const verb = suite.published ? (dryRun ? 'would publish' : 'published') : 'unchanged';
  const until = suite.validUntil === undefined ? '' : `, valid until ${suite.validUntil}`;
  return `${verb} ${suite.suite}: ${suite.packages} packages${dryRun && suite.published ? '' : `, generation ${suite.generation}${until}`}`;
}

/** Resolves when the user stops the program. */
function interrupted(cx: CommandContext): Promise<void> {
  return new Promise((done) => {
    if (cx.signal.aborted) done();
    cx.signal.addEventListener('abort', () => done(), { once: true });
  });
}
