/** `buildkit pkg reproduce`: a build repeated and compared. */
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { printable } from '../core/log.ts';
import type { Reproduced, ReproduceOptions } from '../pkg/reproduce.ts';
import type { Cli } from './command.ts';

export function addReproduce(pkg: Command, cli: Cli): void {
  pkg
    .command('reproduce')
    .description('build again what a .buildinfo tells of, and compare every byte; exit 1 when something differs')
    .argument('<buildinfo>', "of pkg build or dpkg-buildpackage; that one's .dsc beside it")
    .option('--suite <codename>', 'Debian release to build in; default: as recorded')
    .addOption(
      new Option('--isolation <where>', 'build in a root or on this machine').choices(['auto', 'root', 'host']),
    )
    .option('--proxy <url>', 'an apt proxy for what is installed in the root')
    .action(
      cli.action(async (cx, file: string, options: Omit<ReproduceOptions, 'cwd'>) => {
        const { reproduce } = await import('../pkg/reproduce.ts');
        const result = await reproduce(cx, resolve(cx.cwd, file), { ...options, cwd: cx.cwd });
        const blocks = await textOf(result.packages);
        const notes = result.identical ? [] : result.changed.map((line) => `installed ${line}`);
        return { data: result, text: printable([...blocks, ...notes].join('\n')), exitCode: result.identical ? 0 : 1 };
      }),
    );
}

async function textOf(packages: readonly Reproduced[]): Promise<string[]> {
  const { diffText } = await import('../pkg/diff.ts');
  return packages.flatMap(({ name, verdict, diff }) => [
    `${name}: ${verdict === 'missing' ? 'not made again' : verdict}`,
    ...(diff === undefined
      ? []
      : diffText(diff)
          .split('\n')
          .map((line) => `  ${line}`)),
  ]);
}
