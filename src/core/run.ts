/**
 * The only module that starts programs (sole user of execa).
 *
 * argv arrays, never a shell; stdin closed unless given; LC_ALL=C.UTF-8; every child in a process group of its own that is
 * killed with its descendants on abort and on dispose; the end of stderr kept for the error; the command shown at `-v`.
 */
import { constants } from 'node:os';
import type { Readable, Writable } from 'node:stream';
import { execa, type Options } from 'execa';
import type { RunContext } from './context.ts';
import { errnoOf, ToolError } from './errors.ts';
import { missingProgramHint } from './tools.ts';

const STDERR_TAIL_BYTES = 8192;

export interface RunOptions {
  readonly cwd?: string;
  /** Added to the context's environment; an undefined value removes the variable. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Fed to stdin; stdin is closed when absent. */
  readonly input?: string | Uint8Array | Readable;
  readonly timeoutMs?: number;
  /** Other exit codes that are answers, not failures (`dpkg --compare-versions` says no with 1). */
  readonly okExitCodes?: readonly number[];
  /** Called for each line of stdout and stderr as it comes (progress of long programs). */
  readonly onLine?: (line: string, stream: 'stdout' | 'stderr') => void;
  /** Everything the program prints is appended here; the path is shown in the error. */
  readonly logFile?: string;
  /** Output beyond this many bytes ends the program with an error (default 64 MiB). Use `start` for streams. */
  readonly maxOutputBytes?: number;
}

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

/** A program under way. Disposing kills its whole process group and waits for its end. */
export interface RunningProgram extends AsyncDisposable {
  readonly pid: number;
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Settles when the program has ended; rejects with ToolError on failure. */
  readonly ended: Promise<void>;
  /** Resolves with the exit status, whatever it is; undefined when a signal ended it. */
  readonly exitCode: Promise<number | undefined>;
  kill(signal?: NodeJS.Signals): void;
}

/** The command line as a POSIX shell would take it. */
export function shellQuote(words: readonly string[]): string {
  return words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(' ');
}

/**
 * Runs a program to its end and returns what it printed.
 * @throws ToolError when it is missing, fails, is killed or takes longer than `timeoutMs`
 */
export async function run(
  context: RunContext,
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const command = shellQuote([program, ...args]);
  context.log?.detail(`+ ${command}`);
  const { onLine } = options;
  const child = execa(program, args, {
    ...common(context, options),
    stripFinalNewline: false,
    maxBuffer: options.maxOutputBytes ?? 64 * 1024 * 1024,
    ...(options.input === undefined
      ? { stdin: 'ignore' }
      : typeof options.input === 'string' || options.input instanceof Uint8Array
        ? { input: options.input }
        : { input: options.input }),
    ...(options.logFile === undefined
      ? {}
      : {
          stdout: ['pipe', { file: options.logFile, append: true }],
          stderr: ['pipe', { file: options.logFile, append: true }],
        }),
  } as Options);
  if (onLine) {
    void eachLine(child, 'stdout', onLine);
    void eachLine(child, 'stderr', onLine);
  }
  const result = await child;
  const stdout = String(result.stdout ?? '');
  const stderr = String(result.stderr ?? '');
  const accepted = result.exitCode !== undefined && [0, ...(options.okExitCodes ?? [])].includes(result.exitCode);
  if (accepted && !result.timedOut && !result.isCanceled) return { stdout, stderr, exitCode: result.exitCode ?? 0 };
  context.signal?.throwIfAborted();
  throw toolError(program, command, result, stderr, options);
}

/**
 * Starts a program whose streams the caller uses. Nothing is buffered but the end of stderr.
 * `await using` it, or see to it that `ended` is awaited.
 */
export function start(
  context: RunContext,
  program: string,
  args: readonly string[],
  options: Omit<RunOptions, 'onLine' | 'input' | 'maxOutputBytes' | 'logFile'> & {
    /** Files or descriptors for the child's streams instead of pipes; 'ignore' closes. */
    readonly stdio?: {
      readonly stdin?: 'pipe' | 'ignore';
      readonly stdout?: 'pipe' | 'ignore' | 'inherit' | number;
      readonly stderr?: 'pipe' | 'ignore' | 'inherit';
    };
  } = {},
): RunningProgram {
  const command = shellQuote([program, ...args]);
  context.log?.detail(`+ ${command}`);
  const child = execa(program, args, {
    ...common(context, options),
    stdin: options.stdio?.stdin ?? 'pipe',
    stdout: options.stdio?.stdout ?? 'pipe',
    stderr: options.stdio?.stderr ?? 'pipe',
    buffer: false,
  } as Options);
  let tail = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    tail = (tail + chunk.toString('utf8')).slice(-STDERR_TAIL_BYTES);
  });
  const settled = child.then((result) => result);
  const ended = settled.then((result) => {
    const accepted = result.exitCode !== undefined && [0, ...(options.okExitCodes ?? [])].includes(result.exitCode);
    if (accepted && !result.timedOut && !result.isCanceled) return;
    context.signal?.throwIfAborted();
    throw toolError(program, command, result, tail, options);
  });
  ended.catch(() => {}); // a caller that disposes early has no interest in how it ended
  return {
    pid: child.pid ?? -1,
    stdin: child.stdin as Writable,
    stdout: child.stdout as Readable,
    stderr: child.stderr as Readable,
    ended,
    exitCode: settled.then((result) => result.exitCode),
    kill: (signal = 'SIGTERM') => void child.kill(signal),
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await settled;
    },
  };
}

/**
 * Hands the terminal to a program until it ends, and returns its exit code (128 + n when signal n ended it). It stays in the
 * terminal's own session and process group, so that job control and changes of the window's size reach it.
 * @throws ToolError `tool-missing`
 */
export async function runInteractive(context: RunContext, program: string, args: readonly string[]): Promise<number> {
  const command = shellQuote([program, ...args]);
  context.log?.detail(`+ ${command}`);
  const result = await execa(program, args, {
    ...common(context, {}),
    killDescendants: false,
    stdio: 'inherit',
  } as Options);
  if (result.exitCode !== undefined) return result.exitCode;
  context.signal?.throwIfAborted();
  if (result.signal !== undefined) return 128 + constants.signals[result.signal as NodeJS.Signals];
  throw toolError(program, command, result, '', {});
}

/** True when `program` can be started from the context's PATH. */
export async function hasProgram(context: RunContext, program: string): Promise<boolean> {
  try {
    await run(context, 'sh', ['-c', 'command -v -- "$1" >/dev/null', 'sh', program]);
    return true;
  } catch (error) {
    if (error instanceof ToolError) return false;
    throw error;
  }
}

function common(context: RunContext, options: RunOptions): Options {
  const env = { ...context.env, LC_ALL: 'C.UTF-8', ...options.env };
  return {
    reject: false,
    // process.env is the base only where the caller handed no environment down
    extendEnv: context.env === undefined,
    env: Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined)),
    cleanup: true,
    killDescendants: true,
    forceKillAfterDelay: 5000,
    encoding: 'utf8',
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.timeoutMs === undefined ? {} : { timeout: options.timeoutMs }),
    ...(context.signal === undefined ? {} : { cancelSignal: context.signal }),
  } as Options;
}

async function eachLine(
  child: { iterable(options: { from: 'stdout' | 'stderr' }): AsyncIterable<unknown> },
  from: 'stdout' | 'stderr',
  onLine: (line: string, stream: 'stdout' | 'stderr') => void,
): Promise<void> {
  try {
    for await (const line of child.iterable({ from })) onLine(String(line), from);
  } catch {
    // the failure is reported once, by the awaited result
  }
}

interface Outcome {
  readonly exitCode?: number | undefined;
  readonly timedOut?: boolean;
  readonly signal?: string | undefined;
  readonly isMaxBuffer?: boolean;
  readonly code?: string;
  readonly cause?: unknown;
  readonly shortMessage?: string;
}

function toolError(program: string, command: string, outcome: unknown, stderr: string, options: RunOptions): ToolError {
  const result = outcome as Outcome;
  const failure = {
    command,
    stderrTail: stderr.slice(-STDERR_TAIL_BYTES),
    logFile: options.logFile,
    status: result.exitCode,
  };
  const errno = errnoOf(result.cause) ?? result.code;
  if (errno === 'ENOENT' && result.exitCode === undefined) {
    return new ToolError('tool-missing', `'${program}' is not installed`, {
      ...failure,
      hint: missingProgramHint(program),
    });
  }
  const cause = result.cause;
  if (result.timedOut) {
    return new ToolError('tool-timeout', `'${program}' took longer than ${(options.timeoutMs ?? 0) / 1000} s`, {
      ...failure,
      cause,
    });
  }
  if (result.isMaxBuffer) {
    return new ToolError('tool-output', `'${program}' printed more than buildkit takes`, { ...failure, cause });
  }
  if (result.signal !== undefined) {
    return new ToolError('tool-killed', `'${program}' was ended by ${result.signal}`, { ...failure, cause });
  }
  if (result.exitCode === undefined) {
    return new ToolError('tool-failed', `'${program}' could not be started: ${errno ?? 'unknown reason'}`, {
      ...failure,
      cause,
    });
  }
  return new ToolError('tool-failed', `'${program}' failed with exit code ${result.exitCode}`, { ...failure, cause });
}
