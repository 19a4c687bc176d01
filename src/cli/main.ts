/**
 * The program: argv, environment, clock, signals and exit code. The only module that reads them, and the only top-level catch.
 */
import { readFile } from 'node:fs/promises';
import { constants, homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Command, CommanderError } from 'commander';
import type { LoadedConfig } from '../core/config.ts';
import { errnoOf, exitCodeOf, InterruptedError } from '../core/errors.ts';
import { createLog, type Log } from '../core/log.ts';
import { choosePlaces, type Places } from '../core/paths.ts';
import type { Config } from '../release/config.ts';
import type { Cli, CommandContext, Output } from './command.ts';
import { type Emit, openEvents, withEvents } from './events.ts';
import { buildProgram, type GlobalOptions, usageErrorFrom } from './program.ts';
import { errorAsData, renderError } from './render.ts';
import { openTranscript } from './transcript.ts';
import { readConfig, workspaceNamesState } from './workspace.ts';

const PROGRAM_DIR = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const argv = process.argv.slice(2);

// meant for this program alone (bin/buildkit), not for what it starts: npm, node and others
delete process.env.NODE_COMPILE_CACHE;

async function packageVersion(): Promise<string> {
  return (JSON.parse(await readFile(join(PROGRAM_DIR, 'package.json'), 'utf8')) as { version: string }).version;
}

/**
 * Aborts on the first signal, so that everything under way is undone; a second one ends the process at once.
 * @param hangups who hears SIGHUP in place of that
 */
function watchSignals(hangups: ReadonlySet<() => void>): AbortSignal {
  const interruption = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    const number = constants.signals[name];
    process.on(name, () => {
      if (name === 'SIGHUP' && hangups.size > 0) {
        for (const listener of hangups) listener();
        return;
      }
      if (interruption.signal.aborted) process.exit(128 + number);
      interruption.abort(new InterruptedError(number));
    });
  }
  return interruption.signal;
}

function makeLog(options: GlobalOptions, places: Places): Log {
  return createLog({
    level: options.quiet ? 'quiet' : options.verbose ? 'verbose' : 'normal',
    sink: {
      write: (text) => void (options.events === '-' || process.stderr.write(text)),
      isTerminal: process.stderr.isTTY === true,
      columns: process.stderr.columns ?? 80,
    },
    clock: () => performance.now(),
    transcript: openTranscript(places.stateDir, argv, new Date(), process.pid),
  });
}

/** With `--events -` stderr holds nothing but events once the command has begun. */
function eventsOf(options: GlobalOptions): Emit | undefined {
  const { events } = options;
  if (events === undefined) return undefined;
  const path = events === '-' ? events : resolve(process.cwd(), events);
  return openEvents(
    path,
    () => new Date(),
    (text) => void process.stderr.write(text),
  );
}

async function makeContext(
  options: GlobalOptions,
  emit: Emit | undefined,
  signal: AbortSignal,
  hangups: Set<() => void>,
): Promise<CommandContext> {
  const cwd = process.cwd();
  const workspaceDir = resolve(cwd, options.directory ?? '.');
  let loaded: Promise<LoadedConfig<Config>> | undefined;
  const loadedConfig = () => {
    loaded ??= readConfig(workspaceDir, process.env);
    return loaded;
  };
  const decided = options.state !== undefined || Boolean(process.env.BUILDKIT_STATE);
  const inWorkspace = !decided && (await workspaceNamesState(workspaceDir));
  const stateOfWorkspace = inWorkspace ? (await loadedConfig()).values.state : undefined;
  const places = choosePlaces({
    env: process.env,
    uid: process.getuid?.() ?? 0,
    home: homedir(),
    programDir: PROGRAM_DIR,
    cwd,
    stateFlag: options.state,
    stateOfWorkspace: stateOfWorkspace && resolve(workspaceDir, stateOfWorkspace),
  });
  return {
    env: process.env,
    signal,
    log: emit ? withEvents(makeLog(options, places), emit, () => performance.now()) : makeLog(options, places),
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
    onHangup: (listener) => {
      hangups.add(listener);
      return { [Symbol.dispose]: () => void hangups.delete(listener) };
    },
    writeOut: (text) => void process.stdout.write(text),
  };
}

function printOutput(output: Output, json: boolean): void {
  const text = json ? JSON.stringify(output.data, undefined, 2) : output.text;
  if (text !== '') process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
}

async function main(): Promise<number> {
  const version = await packageVersion();
  const hangups = new Set<() => void>();
  const signal = watchSignals(hangups);
  let program: Command | undefined;
  let exitCode = 0;
  let emit: Emit | undefined;
  const options = (): GlobalOptions => program?.opts<GlobalOptions>() ?? {};
  const cli: Cli = {
    action:
      (handler) =>
      async (...args: unknown[]) => {
        emit = eventsOf(options());
        emit?.('command-started', { command: argv });
        const context = await makeContext(options(), emit, signal, hangups);
        const output = await handler(context, ...(args.slice(0, -1) as never));
        if (!output?.passedOn) signal.throwIfAborted();
        if (output) printOutput(output, options().json ?? false);
        exitCode = output?.exitCode ?? 0;
        emit?.('command-finished', { exitCode, ms: Math.round(performance.now()) });
      },
  };
  try {
    program = await buildProgram(argv, version, cli, (text) => void process.stdout.write(text));
    if (argv.length === 0) program.outputHelp();
    else await program.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (thrown) {
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return 0; // --help, --version
    if (errnoOf(thrown) === 'EPIPE') return 141;
    const error = signal.aborted
      ? signal.reason
      : thrown instanceof CommanderError && program
        ? usageErrorFrom(thrown, argv, program)
        : thrown;
    const runtime = `node ${process.version}, ${process.platform} ${process.arch}`;
    const json = options().json ?? argv.includes('--json');
    const ms = Math.round(performance.now());
    emit?.('command-finished', { exitCode: exitCodeOf(error), ms, ...errorAsData(error) });
    if (emit && options().events === '-') return exitCodeOf(error); // stderr holds nothing but events
    process.stderr.write(
      json
        ? `${JSON.stringify(errorAsData(error))}\n`
        : renderError(error, { version, runtime, verbose: options().verbose ?? false }),
    );
    return exitCodeOf(error);
  }
}

process.stdout.on('error', (error) => {
  if (errnoOf(error) === 'EPIPE') process.exit(141); // the reader has gone (buildkit repo list | head)
  throw error;
});
process.exitCode = await main();
