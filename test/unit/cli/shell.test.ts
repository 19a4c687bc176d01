/** The manual page and the completion are made from the commands: they say what the program has. */
import { Command } from 'commander';
import { expect, it } from 'vitest';
import { bashCompletion, choicesOf } from '../../../src/cli/completion.ts';
import { manualPage } from '../../../src/cli/manual.ts';
import { wholeProgram } from '../../../src/cli/program.ts';

function small(): Command {
  const program = new Command('buildkit').description('a kit').option('-C, --directory <dir>', 'the workspace');
  const repo = program.command('repo').description('repositories');
  repo
    .command('add')
    .description('.debs, and more')
    .argument('<suite>')
    .argument('[files...]')
    .option('--dry-run', 'look');
  return program;
}

it('completes subcommands and options of each command', () => {
  expect(choicesOf(small())).toEqual([
    { path: '', words: ['repo', '--directory', '--help'] },
    { path: 'repo', words: ['add', '--directory', '--help'] },
    { path: 'repo add', words: ['--directory', '--dry-run', '--help'] },
  ]);
  expect(bashCompletion(small())).toContain("    'repo add') words='--directory --dry-run --help' ;;\n");
});

it('writes roff that no text can break', () => {
  const page = manualPage(small());
  expect(page).toContain('.SS repo add SUITE [FILES...]\n\\&.debs, and more\n.TP\n\\fB\\-\\-dry\\-run\\fR\nlook\n');
});

it('has every group of the program', async () => {
  const program = await wholeProgram();
  const paths = choicesOf(program).map((one) => one.path);
  expect(paths).toEqual(
    expect.arrayContaining(['pkg build', 'repo add', 'vm base build', 'proxy serve', 'release run']),
  );
  for (const line of manualPage(program).split('\n')) expect(line).toMatch(/^(\.(TH|SH|SS|TP|B|BR)( |$)|[^.']|$)/);
});
