/**
 * The log of what a build runs: one file for each kind of work and name below `stateDir/logs`, kept until the next time; and its last
 * lines for a message.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { printable } from '../core/log.ts';

const LAST_LINES = 12;

/** A path for the log, where no older one is: `core/run` appends. @param name whatever a package may be called */
export async function freshLog(context: Context, kind: 'build' | 'install', name: string): Promise<string> {
  const folder = join(context.stateDir, 'logs');
  await mkdir(folder, { recursive: true });
  const file = join(folder, `${kind}-${name.replaceAll(/[^\w.+-]/g, '_')}.log`);
  await rm(file, { force: true });
  return file;
}

/** The end of what a program said, indented. */
export function lastLines(text: string): string {
  const lines = text.trimEnd().split('\n').slice(-LAST_LINES);
  return lines.map((line) => `  ${printable(line)}`).join('\n');
}
