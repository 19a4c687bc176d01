/** `buildkit new`: a project from a template. */
import { resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import type { Command } from 'commander';
import { UsageError } from '../core/errors.ts';
import { type Question, renderTemplate } from '../template/render.ts';
import type { Cli } from './command.ts';

export function addNewCommand(program: Command, cli: Cli): void {
  program
    .command('new')
    .description('scaffold a project from a template (python-service)')
    .argument('<template>', 'name of the template')
    .argument('<dir>', 'the new folder')
    .option('--set <key=value>', 'a value of the template; may be repeated', collectPair, {})
    .option('--defaults', 'ask nothing, also on a terminal')
    .action(
      cli.action(
        async (cx, template: string, dir: string, options: { set: Record<string, string>; defaults?: boolean }) => {
          const target = resolve(cx.cwd, dir);
          const ask = cx.interactive && options.defaults !== true ? askOnTerminal : undefined;
          const result = await renderTemplate(cx, { template, target, values: options.set, ask });
          const text = `${result.target}: ${result.files.length} files\nnext: buildkit pkg build ${dir}`;
          return { data: result, text };
        },
      ),
    );
}

function collectPair(pair: string, before: Record<string, string>): Record<string, string> {
  const at = pair.indexOf('=');
  if (at < 1) throw new UsageError(`'${pair}' is no KEY=VALUE`, { hint: 'for example: --set name=hello' });
  return { ...before, [pair.slice(0, at)]: pair.slice(at + 1) };
}

async function askOnTerminal(question: Question): Promise<string> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return (await terminal.question(`${question.description} [${question.default}]: `)).trim();
  } finally {
    terminal.close();
  }
}
