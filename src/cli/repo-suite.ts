/** `buildkit repo`: what a repository and its suites are like. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { errnoOf, UserError } from '../core/errors.ts';
import type { OverrideFile, OverrideFormat } from '../repo/overrides.ts';
import type { SuiteSettings } from '../repo/settings.ts';
import { type Cli, type CommandContext, table } from './command.ts';
import { openRepo, type Place, type Row } from './repo-place.ts';

interface SuiteOptions extends Place {
  readonly addArch?: string[];
  readonly addComponent?: string[];
  readonly alias?: string;
  readonly notAutomatic?: boolean;
  readonly butAutomaticUpgrades?: boolean;
  readonly contents?: boolean;
  readonly translations?: boolean;
  readonly compress?: string[];
  readonly hash?: string[];
  readonly pdiffs?: string;
  /** False: --no-override. */
  readonly override?: string[] | false;
  readonly extraOverride?: string[];
  readonly sourceOverride?: string[];
}

interface SetOptions extends Place {
  readonly origin?: string;
  readonly label?: string;
  readonly description?: string;
  readonly url?: string;
  readonly validDays?: string;
  readonly keepDays?: string;
  readonly keepGenerations?: string;
  readonly changelogs?: string;
  readonly signedBy?: boolean;
  readonly pages?: boolean;
}

export function addSettings(row: Row, cli: Cli): void {
  row('suite [name]', 'show the suites, change one, or make a new one')
    .option('--add-arch <names...>', 'further architectures')
    .option('--add-component <names...>', 'further sections')
    .option('--alias <name>', 'a second name, and Suite in Release: stable')
    .option('--not-automatic', 'apt installs from it only what is asked for (NotAutomatic)')
    .option('--no-not-automatic', 'apt treats it like any other')
    .option('--but-automatic-upgrades', 'apt upgrades what came from it (ButAutomaticUpgrades)')
    .option('--contents', 'publish Contents: which package has which file (as .gz unless --compress says other forms)')
    .option('--no-contents', 'publish no Contents')
    .option('--translations', 'long descriptions in Translation-en; Packages keeps their first lines')
    .option('--no-translations', 'long descriptions in Packages')
    .option('--compress <forms...>', 'forms of each index: plain,gz,xz,zst (plain,gz,xz)')
    .option('--hash <names...>', 'digests in Release and by-hash beside sha256: sha512,md5; none')
    .option('--pdiffs <count>', 'patches kept of each index, for clients that have an older one; 0: none')
    .option('--override <files...>', 'PACKAGE PRIORITY SECTION [MAINTAINER] in place of what packages say')
    .option('--extra-override <files...>', 'PACKAGE FIELD VALUE: Phased-Update-Percentage, Task, ...')
    .option('--source-override <files...>', 'SOURCE SECTION')
    .option('--no-override', 'let packages speak for themselves')
    .action(
      cli.action(async (cx, name: string | undefined, options: SuiteOptions) => {
        using repo = await openRepo(cx, options);
        const { splitList } = await import('../repo/settings.ts');
        const list = (words?: string[]) => (words === undefined ? [] : splitList(words));
        if (name !== undefined) {
          const change = await changeOf(options);
          const overrides = await overridesOf(cx, options);
          await repo.saveSuite(name, change, list(options.addComponent), list(options.addArch));
          if (overrides) await repo.saveOverrides(name, overrides);
        }
        const suites = repo.suites().filter((suite) => name === undefined || suite.name === name);
        const rows = suites.map((suite) => [
          suite.name,
          suite.alias ?? '-',
          suite.components.join(','),
          suite.architectures.join(','),
          marksOf(suite).join(', '),
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
    .option('--changelogs <url>', "where apt finds changelogs: a URL with @CHANGEPATH@ in it, or 'no'")
    .option('--signed-by', 'tell clients in Release by which keys later ones are signed (Signed-By)')
    .option('--no-signed-by', 'do not')
    .option('--pages', 'write pages for people at each publish')
    .option('--no-pages', 'write none, and remove those there are')
    .action(
      cli.action(async (cx, options: SetOptions) => {
        using repo = await openRepo(cx, options);
        const number = (text?: string) => (text === undefined ? undefined : Number(text));
        const { origin, label, description, url, changelogs, signedBy, pages } = options;
        const settings = await repo.saveSettings({
          ...{ origin, label, description, url, changelogs, signedBy, pages },
          validDays: number(options.validDays),
          keepDays: number(options.keepDays),
          keepGenerations: number(options.keepGenerations),
        });
        const rows = Object.entries(settings).map(([key, value]) => [key, JSON.stringify(value)]);
        return { data: settings, text: table(rows) };
      }),
    );
}

async function changeOf(options: SuiteOptions) {
  const { parseCompressions, parseHashes, splitList } = await import('../repo/settings.ts');
  const { alias, notAutomatic, butAutomaticUpgrades, contents, translations } = options;
  return {
    ...{ alias, notAutomatic, butAutomaticUpgrades, contents, translations },
    compressions: options.compress && parseCompressions(splitList(options.compress)),
    hashes: options.hash && parseHashes(splitList(options.hash)),
    pdiffs: options.pdiffs === undefined ? undefined : Number(options.pdiffs),
  };
}

/** Undefined: those that there are stay. */
async function overridesOf(cx: CommandContext, options: SuiteOptions): Promise<OverrideFile[] | undefined> {
  const { override, extraOverride, sourceOverride } = options;
  if (override === false) return [];
  const named: [OverrideFormat, string[] | undefined][] = [
    ['binary', override],
    ['extra', extraOverride],
    ['source', sourceOverride],
  ];
  const files: OverrideFile[] = [];
  for (const [format, paths = []] of named) {
    for (const path of paths) files.push({ format, path, text: await readText(resolve(cx.cwd, path), path) });
  }
  return files.length > 0 ? files : undefined;
}

async function readText(path: string, given: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw cause;
    throw new UserError('no-such-file', `there is no file '${given}'`, { cause });
  }
}

/** What is not as it is by default. */
function marksOf(suite: SuiteSettings): string[] {
  const marks: [boolean | undefined, string][] = [
    [suite.notAutomatic, 'not automatic'],
    [suite.contents, 'contents'],
    [suite.translations, 'translations'],
    [suite.overrides !== undefined, 'overrides'],
    [(suite.pdiffs ?? 0) > 0, `${suite.pdiffs} patches`],
  ];
  return marks.flatMap(([isSo, text]) => (isSo ? [text] : []));
}
