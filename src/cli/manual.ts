/**
 * `buildkit manual`: the manual page buildkit(1), made from the commands themselves, so that it says what the program does.
 *
 * Secret: the man macros of roff (man(7)) and what must be escaped in them.
 */
import type { Argument, Command, Option } from 'commander';
import type { Cli } from './command.ts';
import { wholeProgram } from './program.ts';

export function addManualCommand(program: Command, cli: Cli): void {
  program
    .command('manual')
    .description('prints the manual page: buildkit manual | man -l -')
    .action(
      cli.action(async () => {
        const text = manualPage(await wholeProgram());
        return { data: { page: text }, text };
      }),
    );
}

const ENDS: readonly (readonly [code: string, meaning: string])[] = [
  ['0', 'done'],
  ['1', 'the input or the state says no; a check or a test failed'],
  ['2', 'unknown command or option'],
  ['3', 'a program that buildkit runs failed, took too long or is missing'],
  ['4', 'network, HTTP, a bad signature or digest of somebody else'],
  ['70', 'a bug in buildkit'],
  ['128+n', 'stopped by signal n, after what was under way was undone'],
];

const FILES: readonly (readonly [path: string, meaning: string])[] = [
  ['buildkit.yaml', 'the configuration of a workspace; buildkit config schema prints its keys'],
  ['/var/lib/buildkit', 'keys, machines and transcripts of root, where buildkit is installed'],
  ['~/.local/state/buildkit, ~/.cache/buildkit', 'the same, and caches, of other users (XDG base directories)'],
];

const ENVIRONMENT: readonly (readonly [name: string, meaning: string])[] = [
  ['BUILDKIT_STATE', 'the state folder, as --state'],
  ['BUILDKIT_SECTION_KEY', 'a value of buildkit.yaml: BUILDKIT_REPO_ORIGIN is repo.origin'],
  ['SOURCE_DATE_EPOCH', 'the date of what is built, in seconds since the epoch'],
  ['DEBFULLNAME, DEBEMAIL', 'the maintainer of packages that name none'],
];

/** The page as roff. Pure: the same commands give the same text. */
export function manualPage(program: Command): string {
  const lines = [
    '.TH BUILDKIT 1 "" "buildkit" "User Commands"',
    '.SH NAME',
    `buildkit \\- ${escaped(program.description())}`,
    '.SH SYNOPSIS',
    '.B buildkit',
    '[\\fIOPTION\\fR]... \\fICOMMAND\\fR ...',
    '.SH DESCRIPTION',
    'Turns software and everything it depends on into Debian packages, puts them into a signed apt repository, installs and',
    'checks them in a clean machine, and promotes what passed.',
    'Results go to standard output, narration to standard error.',
    '.SH OPTIONS',
    'These may stand anywhere.',
    ...program.options.flatMap(optionLines),
    '.SH COMMANDS',
    ...program.commands.filter((command) => command.name() !== 'help').flatMap((command) => commandLines(command, [])),
    '.SH EXIT STATUS',
    ...ENDS.flatMap(tagged),
    '.SH FILES',
    ...FILES.flatMap(tagged),
    '.SH ENVIRONMENT',
    ...ENVIRONMENT.flatMap(tagged),
    '.SH SEE ALSO',
    '.BR apt (8),',
    '.BR dpkg (1),',
    '.BR deb (5),',
    '.BR sources.list (5)',
  ];
  return `${lines.join('\n')}\n`;
}

function commandLines(command: Command, above: readonly string[]): string[] {
  const path = [...above, command.name()];
  const children = command.commands.filter((child) => child.name() !== 'help');
  const own = [
    `.SS ${escaped([...path, ...command.registeredArguments.map(shownArgument)].join(' '))}`,
    escaped(command.description()),
    ...command.options.filter((option) => !option.hidden).flatMap(optionLines),
  ];
  // a group that only holds others is said by them
  const isGroup = children.length > 0 && command.registeredArguments.length === 0;
  return [...(isGroup ? [] : own), ...children.flatMap((child) => commandLines(child, path))];
}

function shownArgument(argument: Argument): string {
  const name = `${argument.name().toUpperCase()}${argument.variadic ? '...' : ''}`;
  return argument.required ? name : `[${name}]`;
}

function optionLines(option: Option): string[] {
  return tagged([option.flags, option.description]);
}

function tagged([name, meaning]: readonly [string, string]): string[] {
  return ['.TP', `\\fB${escaped(name)}\\fR`, escaped(meaning)];
}

/** A line of text as roff shows it: hyphens that can be searched for, and nothing that would be a request. */
function escaped(text: string): string {
  const plain = text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll(/\s+/g, ' ').trim();
  return /^[.']/.test(plain) ? `\\&${plain}` : plain;
}
