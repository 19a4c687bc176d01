/**
 * The kinds of failure that buildkit tells apart, and the exit code of each.
 *
 * Secret of this module: how a kind maps to an exit code. Everything below `cli/` throws these or returns `Problem[]`;
 * only `cli/main` catches at top level. `cause` is always kept.
 */

export interface ErrorDetails {
  /** The next step for the user, as a full sentence or a command to paste. */
  readonly hint?: string | undefined;
  readonly file?: string | undefined;
  /** 1-based. */
  readonly line?: number | undefined;
  /** 1-based. */
  readonly column?: number | undefined;
  readonly cause?: unknown;
}

export abstract class BuildkitError extends Error {
  abstract readonly exitCode: number;
  /** Stable, kebab-case: scripts may match on it. */
  readonly code: string;
  readonly hint: string | undefined;
  readonly file: string | undefined;
  readonly line: number | undefined;
  readonly column: number | undefined;

  constructor(code: string, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = code;
    this.hint = details.hint;
    this.file = details.file;
    this.line = details.line;
    this.column = details.column;
  }
}

/** The input or the state says no; a check or a test failed. */
export class UserError extends BuildkitError {
  readonly exitCode = 1;
}

/** A check that found something: every Problem, not only the first. */
export class ProblemsError extends UserError {
  readonly problems: readonly Problem[];

  constructor(code: string, message: string, problems: readonly Problem[], details: ErrorDetails = {}) {
    super(code, message, details);
    this.problems = problems;
  }
}

/** Unknown command, flag or value on the command line. */
export class UsageError extends BuildkitError {
  readonly exitCode = 2;
  readonly usage: string | undefined;

  constructor(message: string, details: ErrorDetails & { readonly usage?: string | undefined } = {}) {
    super('usage', message, details);
    this.usage = details.usage;
  }
}

export interface ToolFailure extends ErrorDetails {
  /** The command as a shell would take it, ready to paste. */
  readonly command: string;
  readonly stderrTail?: string | undefined;
  readonly logFile?: string | undefined;
  /** The program's own exit code; undefined when it was killed, timed out or never started. */
  readonly status?: number | undefined;
}

/** A program failed, timed out or is missing. */
export class ToolError extends BuildkitError {
  readonly exitCode = 3;
  readonly command: string;
  readonly stderrTail: string;
  readonly logFile: string | undefined;
  readonly status: number | undefined;

  constructor(code: string, message: string, failure: ToolFailure) {
    super(code, message, failure);
    this.command = failure.command;
    this.stderrTail = failure.stderrTail ?? '';
    this.logFile = failure.logFile;
    this.status = failure.status;
  }
}

export interface RemoteFailure extends ErrorDetails {
  readonly url: string;
  readonly status?: number | undefined;
  readonly tries?: number | undefined;
}

/** The network, an HTTP answer, or an upstream signature or digest. */
export class RemoteError extends BuildkitError {
  readonly exitCode = 4;
  readonly url: string;
  readonly status: number | undefined;
  readonly tries: number | undefined;

  constructor(code: string, message: string, failure: RemoteFailure) {
    super(code, message, failure);
    this.url = failure.url;
    this.status = failure.status;
    this.tries = failure.tries;
  }
}

/** SIGINT or SIGTERM arrived; exit code 128 + n after everything was undone. */
export class InterruptedError extends BuildkitError {
  readonly exitCode: number;

  constructor(signalNumber: number) {
    super('interrupted', 'interrupted');
    this.exitCode = 128 + signalNumber;
  }
}

/** One finding of a check. Checks return every Problem, never only the first. */
export interface Problem {
  /** Stable, kebab-case. */
  readonly code: string;
  readonly message: string;
  /** What it is about: a file, a package, a configuration key. */
  readonly subject?: string | undefined;
  readonly file?: string | undefined;
  readonly line?: number | undefined;
  readonly column?: number | undefined;
  readonly hint?: string | undefined;
}

/** Exit code for anything that is thrown. Whatever is not ours is a bug: 70, as EX_SOFTWARE of sysexits.h. */
export function exitCodeOf(error: unknown): number {
  return error instanceof BuildkitError ? error.exitCode : 70;
}

/** The code of a system call's error (`ENOENT`, `ENOSPC`, ...), if it is one. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return undefined;
}
