/** How errors look: one shape for people, one for `--json`. Results are printed by `main` from a row's Output. */
import {
  BuildkitError,
  exitCodeOf,
  type Problem,
  ProblemsError,
  RemoteError,
  ToolError,
  UsageError,
} from '../core/errors.ts';
import { printable } from '../core/log.ts';

export interface ErrorFacts {
  readonly version: string;
  readonly runtime: string;
  readonly verbose: boolean;
}

function place(at: { file?: string | undefined; line?: number | undefined; column?: number | undefined }): string {
  if (at.file === undefined) return '';
  return `${at.file}${at.line === undefined ? '' : `:${at.line}${at.column === undefined ? '' : `:${at.column}`}`}: `;
}

function problemLines(problem: Problem): string[] {
  const subject = problem.subject === undefined ? '' : `${problem.subject}: `;
  return [
    `  ${place(problem)}${subject}${problem.message}`,
    ...(problem.hint === undefined ? [] : [`    hint: ${problem.hint}`]),
  ];
}

/** The text of an error for stderr, with the next step; control characters replaced. */
export function renderError(error: unknown, facts: ErrorFacts): string {
  const lines: string[] = [];
  if (error instanceof BuildkitError) {
    lines.push(error.code === 'interrupted' ? 'interrupted' : `error: ${place(error)}${error.message}`);
    if (error instanceof ProblemsError) lines.push(...error.problems.flatMap(problemLines));
    if (error instanceof ToolError) {
      const tail = error.stderrTail
        .trimEnd()
        .split('\n')
        .slice(-12)
        .filter((line) => line !== '');
      lines.push(...tail.map((line) => `  | ${line}`), `  command: ${error.command}`);
      if (error.logFile !== undefined) lines.push(`  log: ${error.logFile}`);
    }
    if (error instanceof RemoteError) {
      lines.push(`  url: ${error.url}${error.tries === undefined ? '' : ` (${error.tries} tries)`}`);
    }
    if (error instanceof UsageError && error.usage !== undefined) lines.push(`usage: ${error.usage}`);
    if (error.hint !== undefined) lines.push(`hint: ${error.hint}`);
    if (facts.verbose && error.cause instanceof Error) lines.push(`cause: ${error.cause.stack ?? error.cause.message}`);
  } else {
    const trace = error instanceof Error ? (error.stack ?? error.message) : String(error);
    lines.push('error: this is a bug in buildkit', ...trace.split('\n').map((line) => `  ${line}`));
    lines.push(`  buildkit ${facts.version}, ${facts.runtime}`);
  }
  return `${printable(lines.join('\n'))}\n`;
}

/** The same as one JSON object, for `--json`. */
export function errorAsData(error: unknown): Record<string, unknown> {
  if (!(error instanceof BuildkitError)) {
    return {
      error: {
        code: 'bug',
        message: error instanceof Error ? error.message : String(error),
        exitCode: exitCodeOf(error),
      },
    };
  }
  const { code, message, hint, file, line, column, exitCode } = error;
  const extra =
    error instanceof ProblemsError
      ? { problems: error.problems }
      : error instanceof ToolError
        ? { command: error.command, status: error.status, stderr: error.stderrTail, log: error.logFile }
        : error instanceof RemoteError
          ? { url: error.url, status: error.status, tries: error.tries }
          : {};
  return { error: { code, message, hint, file, line, column, exitCode, ...extra } };
}
