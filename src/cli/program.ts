/**
 * The command line as commander sees it: groups that are loaded when they are asked for, global options, and commander's
 * own errors turned into ours.
 */
import { Command, type CommanderError } from 'commander';
import { UsageError } from '../core/errors.ts';
import { didYouMean } from '../core/nearest.ts';
import type { Cli } from './command.ts';
import { EVENTS_HELP } from './events.ts';

interface Group {
  readonly summary: string;
  readonly load: () => Promise<(program: Command, cli: Cli) => void>;
}

const GROUPS: Readonly<Record<string, Group>> = {
  new: { summary: 'scaffold a project from a template', load: async () => (await import('./new.ts')).addNewCommand },
  pkg: {
    summary: 'build .deb files of a package and of everything it needs',
    load: async () => (await import('./pkg.ts')).addPkgCommands,
  },
  key: { summary: 'signing keys', load: async () => (await import('./key.ts')).addKeyCommands },
  repo: { summary: 'signed apt repositories', load: async () => (await import('./repo.ts')).addRepoCommands },
  vm: { summary: 'base images, test machines', load: async () => (await import('./vm.ts')).addVmCommands },
  proxy: {
    summary: 'apt cache: verified, one fetch for many clients, works offline',
    load: async () => (await import('./proxy.ts')).addProxyCommands,
  },
  release: {
    summary: 'the whole line: build, publish, test in a clean machine',
    load: async () => (await import('./release.ts')).addReleaseCommands,
  },
  quickstart: {
    summary: 'the whole line on a small example, in a work folder',
    load: async () => (await import('./quickstart.ts')).addQuickstartCommand,
  },
  doctor: {
    summary: 'what this machine has and lacks, and the line that mends it',
    load: async () => (await import('./doctor.ts')).addDoctorCommand,
  },
  config: {
    summary: 'the configuration and where each value comes from',
    load: async () => (await import('./config.ts')).addConfigCommands,
  },
  manual: {
    summary: 'the manual page, with every command and option',
    load: async () => (await import('./manual.ts')).addManualCommand,
  },
  completion: {
    summary: 'completion of commands and options for a shell',
    load: async () => (await import('./completion.ts')).addCompletionCommand,
  },
};

export interface GlobalOptions {
  readonly directory?: string;
  readonly state?: string;
  readonly json?: boolean;
  readonly events?: string;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
}

function baseProgram(version: string): Command {
  return new Command('buildkit')
    .description('Debian packaging and apt repository release toolkit')
    .version(version, '-V, --version')
    .option('-C, --directory <dir>', 'the workspace: where buildkit.yaml is')
    .option('--state <dir>', 'where keys, machines and caches are kept')
    .option('--json', 'print the result as JSON')
    .option('--events <file>', 'write what happens to this file, one JSON object a line; -: to stderr')
    .option('-q, --quiet', 'no narration, only warnings and errors')
    .option('-v, --verbose', 'show the commands that are run')
    .showSuggestionAfterError(true)
    .configureHelp({ showGlobalOptions: true })
    .addHelpText('after', EVENTS_HELP);
}

/** The first word of argv that is neither an option nor the value of a global option. */
function groupWord(argv: readonly string[]): string | undefined {
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index]!;
    if (['-C', '--directory', '--state', '--events'].includes(word)) index += 1;
    else if (!word.startsWith('-'))
      return word === 'help' ? argv.slice(index + 1).find((next) => !next.startsWith('-')) : word;
  }
  return undefined;
}

function applyRecursively(command: Command, change: (command: Command) => void): void {
  change(command);
  for (const child of command.commands) applyRecursively(child, change);
}

/** Commander's complaint as ours: that one fault, the usage line of the command it is about, what was meant. */
export function usageErrorFrom(error: CommanderError, argv: readonly string[], program: Command): UsageError {
  let command = program;
  for (const word of argv) command = command.commands.find((child) => child.name() === word) ?? command;
  const names: string[] = [];
  for (let at: Command | null = command; at; at = at.parent) names.unshift(at.name());
  const usage = `${names.join(' ')} ${command.usage()}`;
  const hint = `see: ${names.join(' ')} --help`;
  // commander prints a group's whole help when its subcommand is missing, and says so by this code
  if (error.code === 'commander.help') return new UsageError('this command needs a subcommand', { usage, hint });
  const [message = '', ...rest] = error.message.replace(/^error: /, '').split('\n');
  const meant = /Did you mean (?:one of )?(.*)\?/.exec(rest.join(' '))?.[1];
  return new UsageError(message, { usage, hint: meant === undefined ? hint : `did you mean '${meant}'?` });
}

/**
 * The program with the group that `argv` asks for loaded; of the others only names and summaries, for the help.
 * @throws UsageError for an unknown group
 */
export async function buildProgram(
  argv: readonly string[],
  version: string,
  cli: Cli,
  writeOut: (text: string) => void,
): Promise<Command> {
  const program = baseProgram(version);
  const word = groupWord(argv);
  if (word !== undefined && !Object.hasOwn(GROUPS, word)) {
    throw new UsageError(`unknown command '${word}'`, {
      usage: 'buildkit COMMAND ...',
      hint: didYouMean(word, Object.keys(GROUPS)),
    });
  }
  for (const [name, group] of Object.entries(GROUPS)) {
    if (name === word) (await group.load())(program, cli);
    else program.command(name).summary(group.summary).description(group.summary);
  }
  applyRecursively(program, (command) => command.exitOverride().configureOutput({ writeErr: () => {}, writeOut }));
  return program;
}

/** The program with every group loaded, to be looked at: nothing in it can be run. */
export async function wholeProgram(): Promise<Command> {
  const program = baseProgram('');
  const nothing: Cli = { action: () => async () => {} };
  for (const group of Object.values(GROUPS)) (await group.load())(program, nothing);
  return program;
}
