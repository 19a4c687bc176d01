/**
 * What happens, for programs: one JSON object a line (`--events FILE`, `-` for stderr).
 *
 * Secret: the names of events and their fields, which never change; and that progress is told a few times a second, whatever the
 * work does.
 */
import { openSync, writeSync } from 'node:fs';
import { explainWriteError } from '../core/files.ts';
import type { Log } from '../core/log.ts';

/** The shape of every line; README and --help name the kinds. */
export type EventKind =
  | 'command-started'
  | 'command-finished'
  | 'step-started'
  | 'step-finished'
  | 'progress'
  | 'info'
  | 'warning';

export type Emit = (event: EventKind, fields: Readonly<Record<string, unknown>>) => void;

export const EVENTS_HELP = `
Events (--events FILE, or - for stderr) are one JSON object a line, each with "event" and "at" (ISO 8601):
  command-started {command}   command-finished {exitCode, ms, error?}   step-started {step, title, parent?}
  step-finished {step, title, ok, ms}   progress {label, done, total?}   info {message}   warning {message}`;

const PROGRESS_MS = 250;

/** @param now for the time in each line @throws UserError when the file cannot be written */
export function openEvents(path: string, now: () => Date, toStderr: (text: string) => void): Emit {
  let write = toStderr;
  if (path !== '-') {
    try {
      const file = openSync(path, 'a', 0o644);
      write = (text) => void writeSync(file, text);
    } catch (cause) {
      throw explainWriteError(cause, path);
    }
  }
  return (event, fields) => write(`${JSON.stringify({ event, at: now().toISOString(), ...fields })}\n`);
}

/** A log that also tells programs. @param clock milliseconds, monotonic */
export function withEvents(log: Log, emit: Emit, clock: () => number): Log {
  let last = 0;
  const open: number[] = [];
  const told = new Map<string, number>();
  return {
    async step(title, body) {
      last += 1;
      const step = last;
      const begun = clock();
      emit('step-started', { step, title, parent: open.at(-1) });
      open.push(step);
      const finished = (ok: boolean) => {
        open.splice(open.indexOf(step), 1);
        emit('step-finished', { step, title, ok, ms: Math.round(clock() - begun) });
      };
      try {
        const result = await log.step(title, body);
        finished(true);
        return result;
      } catch (error) {
        finished(false);
        throw error;
      }
    },
    info(line) {
      emit('info', { message: line });
      log.info(line);
    },
    warn(line) {
      emit('warning', { message: line });
      log.warn(line);
    },
    detail: (line) => log.detail(line),
    progress(label, done, total) {
      const now = clock();
      const before = told.get(label);
      if (before === undefined || done === total || now - before >= PROGRESS_MS) {
        told.set(label, now);
        emit('progress', { label, done, total });
      }
      log.progress(label, done, total);
    },
  };
}
