/** `buildkit repo`: between suites, and back in time. */
import { resolve } from 'node:path';
import { UserError } from '../core/errors.ts';
import { formatBytes } from '../core/log.ts';
import type { SuiteDifference } from '../repo/history.ts';
import type { TransferVerb } from '../repo/promote.ts';
import { type Cli, type CommandContext, table } from './command.ts';
import {
  addChangeOptions,
  type ChangeOptions,
  changed,
  openRepo,
  type Place,
  packageLines,
  type Row,
  userName,
} from './repo-place.ts';

interface TransferOptions extends ChangeOptions {
  readonly component?: string;
  readonly base?: string[];
  readonly force?: boolean;
}

const VERBS: Readonly<Record<TransferVerb, string>> = {
  copy: 'put packages of one suite into another, the same bytes',
  move: 'like copy, and take them out of the first',
  promote: 'make packages in the second suite what they are in the first: other versions go',
};

export function addTransfers(row: Row, cli: Cli): void {
  for (const [verb, description] of Object.entries(VERBS) as [TransferVerb, string][]) {
    addChangeOptions(row(`${verb} <from> <to> [filter...]`, description))
      .option('--component <name>', 'into this section; default: the section of the same name')
      .option(
        '--base <names...>',
        "what the distribution has: suites that this machine's apt follows, or Packages indexes; dependencies must be met there or in the suite",
      )
      .option('--force', 'also when something could not be installed')
      .action(
        cli.action(async (cx, from: string, to: string, words: string[], options: TransferOptions) => {
          using repo = await openRepo(cx, options);
          const [{ parseFilter }, { readBase }] = await Promise.all([
            import('../repo/query.ts'),
            import('../repo/base.ts'),
          ]);
          const { component, dryRun, force } = options;
          const filter = words.length === 0 ? undefined : parseFilter(words.join(' | '));
          const base = options.base && (await readBase(cx, options.base, cx.cwd));
          const done = await repo.transfer(verb, {
            from,
            to,
            filter,
            component,
            base,
            dryRun,
            force,
            who: userName(cx),
          });
          for (const problem of done.problems) cx.log.warn(problem.message);
          if (base === undefined)
            cx.log.detail('dependencies on the distribution were not looked at: name it by --base bookworm');
          const suites = verb === 'move' ? [from, to] : [to];
          const exitCode = done.problems.length > 0 && !force ? 1 : 0;
          return await changed(cx, repo, suites, options, { data: done, text: differenceText(done, dryRun), exitCode });
        }),
      );
  }
}

function differenceText(difference: SuiteDifference, dryRun = false): string {
  const lines = [
    packageLines(difference.removed, dryRun ? 'would remove' : 'removed'),
    packageLines(difference.added, dryRun ? 'would add' : 'added'),
  ].filter((part) => part !== '');
  return lines.length > 0 ? lines.join('\n') : 'nothing to change';
}

export function addHistory(row: Row, cli: Cli): void {
  row('history [suite]', 'who changed what, newest first')
    .option('--limit <n>', 'at most so many changes', '50')
    .action(
      cli.action(async (cx, suite: string | undefined, options: Place & { readonly limit: string }) => {
        using repo = await openRepo(cx, options);
        const changes = repo.history(suite, Number(options.limit));
        const rows = changes.map((one) => [
          String(one.id),
          one.at,
          one.who,
          one.action,
          `+${one.added} -${one.removed}`,
          JSON.stringify(one.detail),
        ]);
        return { data: changes, text: table(rows) };
      }),
    );

  addChangeOptions(row('undo [change]', 'take a change back (default: the latest); later ones stay')).action(
    cli.action(async (cx, change: string | undefined, options: ChangeOptions) => {
      using repo = await openRepo(cx, options);
      const { dryRun } = options;
      const done = await repo.undo(change === undefined ? undefined : Number(change), { dryRun, who: userName(cx) });
      const suites = [...new Set([...done.added, ...done.removed].map((item) => item.suite))];
      return await changed(cx, repo, suites, options, { data: done, text: differenceText(done, dryRun) });
    }),
  );

  addChangeOptions(row('retain <suite>', 'take old versions out of a suite'))
    .requiredOption('--keep <n>', 'versions of each name and architecture that stay')
    .option('--by-source', 'count versions of the source: all of its packages stay or go together')
    .option('--older-than <days>', 'only what came longer ago')
    .action(
      cli.action(
        async (
          cx,
          suite: string,
          options: ChangeOptions & { keep: string; bySource?: boolean; olderThan?: string },
        ) => {
          using repo = await openRepo(cx, options);
          const { dryRun, bySource } = options;
          const olderThanDays = options.olderThan === undefined ? undefined : Number(options.olderThan);
          const done = await repo.retain(suite, {
            keep: Number(options.keep),
            bySource,
            olderThanDays,
            dryRun,
            who: userName(cx),
          });
          return await changed(cx, repo, [suite], options, { data: done, text: differenceText(done, dryRun) });
        },
      ),
    );
}

export function addGenerations(row: Row, cli: Cli): void {
  row('generations [suite]', 'what was published when; the newest is what clients see').action(
    cli.action(async (cx, suite: string | undefined, options: Place) => {
      using repo = await openRepo(cx, options);
      const found = repo.generations(suite);
      const rows = found.map((one) => [
        one.suite,
        one.id,
        one.validUntil === undefined ? 'no end' : `valid until ${one.validUntil}`,
        [one.current ? 'current' : '', one.pinned ? 'pinned' : ''].filter((word) => word !== '').join(', '),
      ]);
      return { data: found, text: table(rows) };
    }),
  );

  row('diff <suite> <from> [to]', 'what changed between two generations, or up to now').action(
    cli.action(async (cx, suite: string, from: string, to: string | undefined, options: Place) => {
      using repo = await openRepo(cx, options);
      const found = repo.diff(suite, from, to);
      const text = [packageLines(found.removed, '-'), packageLines(found.added, '+')]
        .filter((part) => part !== '')
        .join('\n');
      return { data: found, text };
    }),
  );

  addChangeOptions(row('rollback <suite> <generation>', 'make a suite what it was in a generation')).action(
    cli.action(async (cx, suite: string, generation: string, options: ChangeOptions) => {
      using repo = await openRepo(cx, options);
      const { dryRun } = options;
      const done = await repo.rollBack(suite, generation, { dryRun, who: userName(cx) });
      return await changed(cx, repo, [suite], options, { data: done, text: differenceText(done, dryRun) });
    }),
  );

  for (const [verb, pinned] of [
    ['pin', true],
    ['unpin', false],
  ] as const) {
    row(`${verb} <suite> <generation>`, pinned ? 'keep a generation for ever' : 'let a generation expire again').action(
      cli.action(async (cx, suite: string, generation: string, options: Place) => {
        using repo = await openRepo(cx, options);
        return { data: repo.pin(suite, generation, pinned), text: '' };
      }),
    );
  }

  row('gc', 'remove expired generations and files that nobody can ask for any more')
    .option('--dry-run', 'only show what would go')
    .action(
      cli.action(async (cx, options: Place & { readonly dryRun?: boolean }) => {
        using repo = await openRepo(cx, options);
        const done = await repo.collectGarbage(options);
        const verb = options.dryRun ? 'would remove' : 'removed';
        const what = `${done.generations.length} generations, ${done.packages.length} package files, ${done.objects} index files`;
        return { data: done, text: `${verb} ${what}: ${formatBytes(done.bytes)}` };
      }),
    );
}

interface VerifyOptions extends Place {
  readonly suite?: string[];
  readonly key?: string[];
  readonly base?: string[];
  readonly packages: boolean;
}

export function addVerify(row: Row, cli: Cli): void {
  row('verify [place]', 'check a published repository, ours or any: a folder with dists/, or a URL')
    .option(
      '--suite <names...>',
      "which suites; default: those of the folder, or of this repository for a URL; './' for a flat one",
    )
    .option('--key <files...>', 'public keys; default: archive-key.gpg of the repository')
    .option(
      '--base <names...>',
      "what the distribution has: suites that this machine's apt follows, or Packages indexes; every dependency must be met",
    )
    .option('--no-packages', 'look at the indexes alone')
    .action(
      cli.action(async (cx, given: string | undefined, options: VerifyOptions) => {
        const [{ verifyRepository }, { readBase }] = await Promise.all([
          import('../repo/verify.ts'),
          import('../repo/base.ts'),
        ]);
        const paths = (names?: string[]) => names?.map((name) => resolve(cx.cwd, name));
        const base = options.base && (await readBase(cx, options.base, cx.cwd));
        const { place, suites } = await verifiedPlace(cx, given, options);
        const report = await verifyRepository(cx, {
          place,
          suites,
          keys: paths(options.key),
          packages: options.packages,
          base,
        });
        const lines = report.problems.map((problem) => `${problem.code}: ${problem.message}`);
        const counts = report.suites.map(
          (one) => `${one.suite}: ${one.indexes} indexes, ${one.packages} packages, ${one.sources} sources`,
        );
        const verdict =
          lines.length === 0 ? 'no problem found' : `${lines.length} problem${lines.length === 1 ? '' : 's'} found`;
        return { data: report, text: [...lines, ...counts, verdict].join('\n'), exitCode: lines.length === 0 ? 0 : 1 };
      }),
    );
}

async function verifiedPlace(cx: CommandContext, given: string | undefined, options: VerifyOptions) {
  if (given !== undefined && options.suite !== undefined)
    return { place: placeGiven(cx, given), suites: options.suite };
  const { suitesIn } = await import('../repo/tree.ts');
  const isUrl = given !== undefined && /^https?:/.test(given);
  const there = given === undefined || isUrl ? [] : await suitesIn(resolve(cx.cwd, given));
  if (there.length > 0) return { place: placeGiven(cx, given!), suites: there };
  try {
    using repo = await openRepo(cx, given === undefined || isUrl ? options : { repo: given });
    const published = repo.suites().map((suite) => suite.name);
    return { place: isUrl ? given : repo.publicDir, suites: options.suite ?? published };
  } catch (error) {
    if (given === undefined || !(error instanceof UserError && error.code === 'no-repository')) throw error;
    const what = isUrl ? 'a URL does not tell which suites it has' : `'${given}' holds no published suite`;
    const hint = isUrl ? 'name them: --suite bookworm' : 'name the folder that holds dists/';
    throw new UserError('no-suites', what, { hint });
  }
}

function placeGiven(cx: CommandContext, given: string): string {
  return /^https?:/.test(given) ? given : resolve(cx.cwd, given);
}

interface ImportOptions extends ChangeOptions {
  readonly component?: string[];
  readonly key?: string[];
  readonly unsigned?: boolean;
  readonly filter?: string;
}

export function addImport(row: Row, cli: Cli): void {
  addChangeOptions(
    row(
      'import <suite> <place> [from]',
      'take packages, sources too: of a URL or folder with dists/, of aptly or reprepro, or of a folder with .deb files',
    ),
  )
    .option('--component <names...>', 'sections there; default: those that both have')
    .option('--key <files...>', 'public keys that sign there')
    .option('--unsigned', 'take what nobody vouches for')
    .option('--filter <text>', "which packages: 'Name (~ ^python3-)', '$PackageType (= deb)'")
    .addHelpText(
      'after',
      `
FROM is the suite there; it may be left out where there is only one.
  buildkit repo import bookworm https://apt.example.org/ stable --key example.gpg --filter 'Name (~ ^ex-)'
  buildkit repo import bookworm ~/.aptly bookworm --key me.gpg    what aptly published; PREFIX/SUITE where it has a prefix
  buildkit repo import bookworm ~/.aptly                          all that is in the pool of aptly, published or not
  buildkit repo import bookworm /srv/reprepro stable --unsigned   by conf/distributions
  buildkit repo import bookworm /srv/debs                         every package below a folder
An import that was interrupted goes on where it stopped when it is run again.`,
    )
    .action(
      cli.action(async (cx, suite: string, place: string, from: string | undefined, options: ImportOptions) => {
        using repo = await openRepo(cx, options);
        const { parseFilter } = await import('../repo/query.ts');
        const { component: components, unsigned, dryRun } = options;
        const done = await repo.import({
          ...{ place: placeGiven(cx, place), from, to: suite, components, unsigned, dryRun, who: userName(cx) },
          keys: options.key?.map((path) => resolve(cx.cwd, path)),
          filter: options.filter === undefined ? undefined : parseFilter(options.filter),
        });
        for (const refusal of done.refused) cx.log.warn(`refused '${refusal.file}': ${refusal.message}`);
        const verb = dryRun ? 'would add' : 'added';
        const lines = done.added.map((item) => `${verb} ${item.name} ${item.version} ${item.architecture}`);
        const text = [...lines, `${done.unchanged} were here already`].join('\n');
        return await changed(cx, repo, [suite], options, {
          data: done,
          text,
          exitCode: done.refused.length > 0 ? 1 : 0,
        });
      }),
    );
}
