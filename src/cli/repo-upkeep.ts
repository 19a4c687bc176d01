/** `buildkit repo`: what a running archive needs: dates renewed, people who may upload. */
import { type Command, Option } from 'commander';
import type { TokenRole } from '../repo/catalog.ts';
import { type Cli, table } from './command.ts';
import { addPassphraseOptions, type PassphraseOptions, passphraseSource } from './passphrase.ts';
import { openRepo, type Place, type Row } from './repo-place.ts';

interface TokenOptions extends Place {
  readonly suite?: string[];
  readonly role: TokenRole;
}

export function addUpkeep(repoCommand: Command, row: Row, cli: Cli): void {
  addPassphraseOptions(
    row(
      'renew',
      'sign anew what is published where more than half of its time is over; for timers (serve does it by itself)',
    ),
  ).action(
    cli.action(async (cx, options: Place & PassphraseOptions) => {
      using repo = await openRepo(cx, options);
      const renewed = await repo.renew(passphraseSource(cx, options));
      return { data: { renewed }, text: renewed.map((suite) => `signed anew ${suite}`).join('\n') };
    }),
  );

  addPassphraseOptions(
    row('check', 'look whether every file is there with its digest').option('--repair', 'make links and indexes anew'),
  ).action(
    cli.action(async (cx, options: Place & PassphraseOptions & { readonly repair?: boolean }) => {
      using repo = await openRepo(cx, options);
      const report = await repo.check({ repair: options.repair ?? false, passphrase: passphraseSource(cx, options) });
      const lines = report.problems.map((problem) => `${problem.code}: ${problem.message} (${problem.hint})`);
      const text = lines.length > 0 ? lines.join('\n') : 'no problem found';
      return { data: report, text, exitCode: lines.length > 0 ? 1 : 0 };
    }),
  );

  const token = repoCommand.command('token').description('who may write over HTTP');
  const tokenRow = (usage: string, description: string) =>
    token
      .command(usage)
      .description(description)
      .option('--repo <dir>', 'the repository; default: repo.dir of buildkit.yaml');
  tokenRow('create <name>', 'let somebody write; the token is shown this once')
    .option('--suite <names...>', 'only into these suites')
    .addOption(
      new Option('--role <role>', 'publish: also make it visible').choices(['upload', 'publish']).default('upload'),
    )
    .action(
      cli.action(async (cx, name: string, options: TokenOptions) => {
        using repo = await openRepo(cx, options);
        const secret = repo.createToken({ name, suites: options.suite, role: options.role });
        return { data: { name, token: secret }, text: secret };
      }),
    );
  tokenRow('list', 'list who may write').action(
    cli.action(async (cx, options: Place) => {
      using repo = await openRepo(cx, options);
      const found = repo.tokens();
      const rows = found.map((one) => [one.name, one.role, one.suites.join(',') || 'every suite', one.created]);
      return { data: found, text: table(rows) };
    }),
  );
  tokenRow('revoke <name>', 'let somebody write no longer').action(
    cli.action(async (cx, name: string, options: Place) => {
      using repo = await openRepo(cx, options);
      repo.revokeToken(name);
      return { data: { revoked: name }, text: `revoked ${name}` };
    }),
  );
}
