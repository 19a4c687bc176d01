/**
 * The program: argv, environment, clock, signals and exit code. The only module that reads them, and the only top-level catch.
 *
 * Each command group is loaded when it is asked for, so that start-up does not pay for what is not used.
 */

import { appendFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { constants, homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, CommanderError } from 'commander';
import type { LoadedConfig } from '../core/config.ts';
import { errnoOf, exitCodeOf, InterruptedError, UsageError, UserError } from '../core/errors.ts';
import { createLog, type Log, type LogLevel } from '../core/log.ts';
import { didYouMean } from '../core/nearest.ts';
import { choosePlaces } from '../core/paths.ts';
import type { Config } from '../release/config.ts';
import type { Cli, CommandContext, Output } from './command.ts';
import { errorAsData, renderError } from './render.ts';

const PROGRAM_DIR = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const KEPT_TRANSCRIPTS = 50;

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
};

interface GlobalOptions {
  readonly directory?: string;
  readonly state?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
}

function baseProgram(version: string): Command {
  return new Command('buildkit')
    .description('Debian packaging and apt-repository release toolkit')
    .version(version, '-V, --version')
    .option('-C, --directory <dir>', 'the workspace: where buildkit.yaml is')
    .option('--state <dir>', 'where keys, machines and caches are kept')
    .option('--json', 'print the result as JSON')
    .option('-q, --quiet', 'no narration, only warnings and errors')
    .option('-v, --verbose', 'show the commands that are run')
    .showSuggestionAfterError(true)
    .configureHelp({ showGlobalOptions: true });
}

/** The first word of argv that is neither an option nor the value of a global option. */
function groupWord(argv: readonly string[]): string | undefined {
  for (let index = 0; index < argv.length; index += 1) {
    const word = argv[index]!;
    if (word === '-C' || word === '--directory' || word === '--state') index += 1;
    else if (!word.startsWith('-'))
      return word === 'help' ? argv.slice(index + 1).find((next) => !next.startsWith('-')) : word;
  }
  return undefined;
}

function applyRecursively(command: Command, change: (command: Command) => void): void {
  change(command);
  for (const child of command.commands) applyRecursively(child, change);
}

function usageErrorFrom(error: CommanderError, argv: readonly string[], program: Command): UsageError {
  let command = program;
  for (const word of argv) command = command.commands.find((child) => child.name() === word) ?? command;
  const names: string[] = [];
  for (let at: Command | null = command; at; at = at.parent) names.unshift(at.name());
  const [message = '', ...rest] = error.message.replace(/^error: /, '').split('\n');
  const suggestion = /Did you mean (?:one of )?(.*)\?/.exec(rest.join(' '))?.[1];
  return new UsageError(message, {
    usage: `${names.join(' ')} ${command.usage()}`,
    hint: suggestion === undefined ? `see: ${names.join(' ')} --help` : `did you mean '${suggestion}'?`,
  });
}

async function readWorkspaceFile(workspaceDir: string): Promise<{ path: string; text: string } | undefined> {
  const path = join(workspaceDir, 'buildkit.yaml');
  try {
    return { path, text: await readFile(path, 'utf8') };
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined;
    const message = `cannot read the configuration: ${(cause as Error).message}`;
    throw new UserError('config-unreadable', message, { file: path, cause });
  }
}

/** A cheap look, so that commands without configuration do not pay for the YAML parser and the schema. */
async function workspaceNamesState(workspaceDir: string): Promise<boolean> {
  return /^state\s*:/m.test((await readWorkspaceFile(workspaceDir))?.text ?? '');
}

async function readConfig(workspaceDir: string): Promise<LoadedConfig<Config>> {
  const [{ loadConfig }, { configSchema }] = await Promise.all([
    import('../core/config.ts'),
    import('../release/config.ts'),
  ]);
  const file = await readWorkspaceFile(workspaceDir);
  return loadConfig(configSchema, { env: process.env, envPrefix: 'BUILDKIT', file });
}

/** Appends each line to a file of this run below the state folder; silent where that cannot be written. */
function openTranscript(stateDir: string, argv: readonly string[], startedAt: Date): (line: string) => void {
  const folder = join(stateDir, 'transcripts');
  const stamp = startedAt.toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const path = join(
    folder,
    `${stamp}-${
      argv
        .filter((word) => /^[a-z]+$/.test(word))
        .slice(0, 2)
        .join('-') || 'run'
    }-${process.pid}.log`,
  );
  let usable = true;
  let begun = false;
  return (line) => {
    if (!usable) return;
    try {
      if (!begun) {
        mkdirSync(folder, { recursive: true, mode: 0o700 });
        for (const old of readdirSync(folder).sort().slice(0, -KEPT_TRANSCRIPTS))
          rmSync(join(folder, old), { force: true });
        appendFileSync(path, `# buildkit ${argv.join(' ')}\n`, { mode: 0o600 });
        begun = true;
      }
      appendFileSync(path, `${line}\n`);
    } catch {
      usable = false; // a transcript is a convenience: the work itself will say what is wrong with the disk
    }
  };
}

async function packageVersion(): Promise<string> {
  return (JSON.parse(await readFile(join(PROGRAM_DIR, 'package.json'), 'utf8')) as { version: string }).version;
}

async function main(argv: readonly string[]): Promise<number> {
  const version = await packageVersion();
  const program = baseProgram(version);
  const interruption = new AbortController();
  let interrupted = false;
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (interrupted) process.exit(128 + constants.signals[name]);
      interrupted = true;
      interruption.abort(new InterruptedError(constants.signals[name]));
    });
  }
  const globals = (): GlobalOptions => program.opts<GlobalOptions>();
  let exitCode = 0;
  let log: Log | undefined;

  const makeContext = async (): Promise<CommandContext> => {
    const options = globals();
    const cwd = process.cwd();
    const workspaceDir = resolve(cwd, options.directory ?? '.');
    let config: Promise<LoadedConfig<Config>> | undefined;
    const loadedConfig = () => (config ??= readConfig(workspaceDir));
    const decided = options.state !== undefined || Boolean(process.env.BUILDKIT_STATE);
    const namesState = !decided && (await workspaceNamesState(workspaceDir));
    const stateOfWorkspace = namesState ? (await loadedConfig()).values.state : undefined;
    const places = choosePlaces({
      env: process.env,
      uid: process.getuid?.() ?? 0,
      home: homedir(),
      programDir: PROGRAM_DIR,
      cwd,
      stateFlag: options.state,
      stateOfWorkspace: stateOfWorkspace && resolve(workspaceDir, stateOfWorkspace),
    });
    const level: LogLevel = options.quiet ? 'quiet' : options.verbose ? 'verbose' : 'normal';
    log = createLog({
      level,
      sink: {
        write: (text) => void process.stderr.write(text),
        isTerminal: process.stderr.isTTY === true,
        columns: process.stderr.columns ?? 80,
      },
      clock: () => performance.now(),
      transcript: openTranscript(places.stateDir, argv, new Date()),
    });
    return {
      env: process.env,
      signal: interruption.signal,
      log,
      now: () => new Date(),
      stateDir: places.stateDir,
      cacheDir: places.cacheDir,
      programDir: PROGRAM_DIR,
      stateOrigin: places.origin,
      workspaceDir,
      cwd,
      json: options.json ?? false,
      interactive: process.stdin.isTTY === true && process.stderr.isTTY === true,
      loadedConfig,
      config: async () => (await loadedConfig()).values,
      writeOut: (text) => void process.stdout.write(text),
    };
  };

  const cli: Cli = {
    action:
      (handler) =>
      async (...args: unknown[]) => {
        const output = await handler(await makeContext(), ...(args.slice(0, -1) as never));
        interruption.signal.throwIfAborted();
        if (output) printOutput(output, globals().json ?? false);
        exitCode = output?.exitCode ?? 0;
      },
  };

  try {
    const word = groupWord(argv);
    for (const [name, group] of Object.entries(GROUPS)) {
      if (name === word) (await group.load())(program, cli);
      else program.command(name).summary(group.summary).description(group.summary);
    }
    if (word !== undefined && !Object.hasOwn(GROUPS, word)) {
      throw new UsageError(`unknown command '${word}'`, {
        usage: 'buildkit COMMAND ...',
        hint: didYouMean(word, Object.keys(GROUPS)),
      });
    }
    applyRecursively(program, (command) =>
      command
        .exitOverride()
        .configureOutput({ writeErr: () => {}, writeOut: (text) => void process.stdout.write(text) }),
    );
    if (word === undefined && argv.length === 0) {
      program.outputHelp();
      return 0;
    }
    await program.parseAsync([...argv], { from: 'user' });
    return exitCode;
  } catch (thrown) {
    let error =
      interrupted && interruption.signal.reason instanceof InterruptedError ? interruption.signal.reason : thrown;
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0;
      if (error.code === 'commander.help') {
        // a group without its subcommand: help was asked for by leaving it out
        error = new UsageError('this command needs a subcommand', {
          hint: `see: buildkit ${groupWord(argv) ?? ''} --help`,
        });
      } else error = usageErrorFrom(error, argv, program);
    }
    if (errnoOf(error) === 'EPIPE') return 141;
    const text = globals().json
      ? `${JSON.stringify(errorAsData(error))}\n`
      : renderError(error, {
          version,
          runtime: `node ${process.version}, ${process.platform} ${process.arch}`,
          verbose: globals().verbose ?? false,
        });
    process.stderr.write(text);
    return exitCodeOf(error);
  }
}

function printOutput(output: Output, json: boolean): void {
  const text = json ? JSON.stringify(output.data, undefined, 2) : output.text;
  if (text !== '') process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
}

process.stdout.on('error', (error) => {
  if (errnoOf(error) === 'EPIPE') process.exit(141); // the reader has gone (buildkit repo list | head)
  throw error;
});
process.exitCode = await main(process.argv.slice(2));
