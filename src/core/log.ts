/**
 * Narration: nested, timed steps on stderr; notes and warnings; a transcript in a file. stdout is never touched here.
 *
 * Secret: how a step looks on a terminal and in a plain log. (listr2 was weighed: it wants the list of tasks up front,
 * while a step here starts wherever the code gets to it.)
 */
import { styleText } from 'node:util';

export type LogLevel = 'quiet' | 'normal' | 'verbose';

export interface Log {
  /** Runs `body` as a named step; prints its start, its end and how long it took, and names it where it fails. */
  step<T>(title: string, body: () => Promise<T>): Promise<T>;
  /** A line for the user that is no result. */
  info(line: string): void;
  /** Something that the user should know and that does not stop the work. */
  warn(line: string): void;
  /** Shown with `-v`, always in the transcript. */
  detail(line: string): void;
  /** Work under way: drawn over itself on a terminal, silent elsewhere. `total` undefined: unknown. */
  progress(label: string, done: number, total?: number): void;
}

export interface LogSink {
  write(text: string): void;
  readonly isTerminal: boolean;
  readonly columns: number;
}

export interface LogOptions {
  readonly level: LogLevel;
  readonly sink: LogSink;
  /** Milliseconds, monotonic. */
  readonly clock: () => number;
  /** Gets every line, whatever the level. */
  readonly transcript?: (line: string) => void;
}

/** Milliseconds as a person says them: "0.4 s", "12 s", "3 min 5 s". */
export function formatDuration(ms: number): string {
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** Bytes as a person says them, in powers of 1000 as apt prints them. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ['kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = -1;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

/**
 * Replaces control characters, so that a package, a guest or a program cannot steer the terminal of whoever reads the log.
 * Newline and tab stay.
 */
export function printable(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '\ufffd');
}

/** Between two drawings: a terminal far away is slower than the work. */
const REDRAW_MS = 80;
const BAR_WIDTH = 20;

/** '[########············]  40 % 400 of 1000', or the number alone. */
export function formatProgress(done: number, total: number | undefined): string {
  if (!total) return String(done);
  const share = Math.min(1, Math.max(0, done / total));
  const filled = Math.floor(share * BAR_WIDTH);
  const bar = `${'#'.repeat(filled)}${'·'.repeat(BAR_WIDTH - filled)}`;
  return `[${bar}] ${String(Math.floor(share * 100)).padStart(3)} % ${done} of ${total}`;
}

export function createLog(options: LogOptions): Log {
  const { level, sink, clock } = options;
  const colour = (style: Parameters<typeof styleText>[0], text: string) =>
    sink.isTerminal ? styleText(style, text, { validateStream: false }) : text;
  let depth = 0;
  let drawn = false;
  let drawnAt = 0;

  function line(text: string, visible: boolean): void {
    options.transcript?.(text);
    if (!visible) return;
    if (drawn) {
      sink.write('\r\u001b[K');
      drawn = false;
    }
    sink.write(`${text}\n`);
  }
  const indent = () => '  '.repeat(depth);

  return {
    async step(title, body) {
      const start = clock();
      const shown = printable(title);
      line(`${indent()}${colour('cyan', '>')} ${shown}`, level !== 'quiet');
      depth += 1;
      try {
        const result = await body();
        depth -= 1;
        line(
          `${indent()}${colour('green', '✓')} ${shown} ${colour('dim', `(${formatDuration(clock() - start)})`)}`,
          level !== 'quiet',
        );
        return result;
      } catch (error) {
        depth -= 1;
        line(`${indent()}${colour('red', '✗')} ${shown} (failed after ${formatDuration(clock() - start)})`, true);
        throw error;
      }
    },
    info: (text) => line(`${indent()}${printable(text)}`, level !== 'quiet'),
    warn: (text) => line(`${indent()}${colour('yellow', 'warning:')} ${printable(text)}`, true),
    detail: (text) => line(`${indent()}${colour('dim', printable(text))}`, level === 'verbose'),
    progress(label, done, total) {
      if (level === 'quiet' || !sink.isTerminal) return;
      const now = clock();
      if (drawn && done !== total && now - drawnAt < REDRAW_MS) return;
      drawnAt = now;
      sink.write(
        `\r\u001b[K${`${indent()}${printable(label)} ${formatProgress(done, total)}`.slice(0, sink.columns - 1)}`,
      );
      drawn = true;
    },
  };
}

/** A log that says nothing: for library users and unit tests. */
export function silentLog(): Log {
  return {
    step: (_title, body) => body(),
    info: () => {},
    warn: () => {},
    detail: () => {},
    progress: () => {},
  };
}
