/** `buildkit repo`: what a repository and its suites are like. */
import { type Cli, table } from './command.ts';
import { openRepo, type Place, type Row } from './repo-place.ts';

interface SuiteOptions extends Place {
  readonly addArch?: string[];
  readonly addComponent?: string[];
  readonly alias?: string;
  readonly notAutomatic?: boolean;
  readonly butAutomaticUpgrades?: boolean;
  readonly contents?: boolean;
}

interface SetOptions extends Place {
  readonly origin?: string;
  readonly label?: string;
  readonly description?: string;
  readonly url?: string;
  readonly validDays?: string;
  readonly keepDays?: string;
  readonly keepGenerations?: string;
}

export function addSettings(row: Row, cli: Cli): void {
  row('suite [name]', 'show the suites, change one, or make a new one')
    .option('--add-arch <names...>', 'further architectures')
    .option('--add-component <names...>', 'further sections')
    .option('--alias <name>', 'a second name, and Suite in Release: stable')
    .option('--not-automatic', 'apt installs from it only what is asked for (NotAutomatic)')
    .option('--no-not-automatic', 'apt treats it like any other')
    .option('--but-automatic-upgrades', 'apt upgrades what came from it (ButAutomaticUpgrades)')
    .option('--contents', 'publish Contents: which package has which file')
    .option('--no-contents', 'publish no Contents')
    .action(
      cli.action(async (cx, name: string | undefined, options: SuiteOptions) => {
        using repo = await openRepo(cx, options);
        const { splitList } = await import('../repo/settings.ts');
        const list = (words?: string[]) => (words === undefined ? [] : splitList(words));
        if (name !== undefined) {
          const { alias, notAutomatic, butAutomaticUpgrades, contents } = options;
          const change = { alias, notAutomatic, butAutomaticUpgrades, contents };
          await repo.saveSuite(name, change, list(options.addComponent), list(options.addArch));
        }
        const suites = repo.suites().filter((suite) => name === undefined || suite.name === name);
        const rows = suites.map((suite) => [
          suite.name,
          suite.alias ?? '-',
          suite.components.join(','),
          suite.architectures.join(','),
          [suite.notAutomatic ? 'not automatic' : '', suite.contents ? 'contents' : ''].filter(Boolean).join(', '),
        ]);
        return { data: suites, text: table(rows) };
      }),
    );

  row('set', 'show or change what the repository says of itself')
    .option('--origin <text>', 'Origin in Release')
    .option('--label <text>', 'Label in Release')
    .option('--description <text>', 'Description in Release')
    .option('--url <url>', 'where clients find it')
    .option('--valid-days <days>', 'from Date to Valid-Until; 0: no end')
    .option('--keep-days <days>', 'how long generations stay after they were replaced')
    .option('--keep-generations <n>', 'how many of the latest stay in any case')
    .action(
      cli.action(async (cx, options: SetOptions) => {
        using repo = await openRepo(cx, options);
        const number = (text?: string) => (text === undefined ? undefined : Number(text));
        const { origin, label, description, url } = options;
        const settings = await repo.saveSettings({
          ...{ origin, label, description, url },
          validDays: number(options.validDays),
          keepDays: number(options.keepDays),
          keepGenerations: number(options.keepGenerations),
        });
        const rows = Object.entries(settings).map(([key, value]) => [key, JSON.stringify(value)]);
        return { data: settings, text: table(rows) };
      }),
    );
}
