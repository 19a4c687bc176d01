/**
 * The four scripts that an older system put beside a machine, with its names and its order of arguments (REMOTE before LOCAL).
 *
 * Secret: how a script finds this buildkit and this state folder again, from anywhere.
 */
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { writeFileAtomic } from '../core/files.ts';
import { shellQuote } from '../core/run.ts';
import { readMachine } from './machine.ts';

/** Name and text of each. Pure. */
export function planScripts(name: string, buildkit: string, stateDir: string): ReadonlyMap<string, string> {
  const vm = shellQuote([buildkit, '--state', stateDir, 'vm']);
  const script = (...lines: string[]) => ['#!/bin/sh', 'set -eu', ...lines, ''].join('\n');
  const usage = (words: string, count: number) => `[ $# -eq ${count} ] || { echo "usage: $0 ${words}" >&2; exit 2; }`;
  return new Map([
    [
      `${name}-ctl`,
      script(
        usage('start|stop|status|restart', 1),
        `case $1 in start|stop|status|restart) exec ${vm} "$1" ${name} ;; esac`,
        'echo "usage: $0 start|stop|status|restart" >&2',
        'exit 2',
      ),
    ],
    [`${name}-sendfile`, script(usage('REMOTE LOCAL', 2), `exec ${vm} put ${name} "$2" "$1"`)],
    [`${name}-getfile`, script(usage('REMOTE LOCAL', 2), `exec ${vm} get ${name} "$1" "$2"`)],
    [`${name}-runscript`, script(usage('COMMAND', 1), `exec ${vm} run ${name} -- sh -c "$1"`)],
  ]);
}

/** Writes them to `folder`; returns their paths. @throws UserError `vm-unknown` */
export async function writeScripts(context: Context, name: string, folder: string): Promise<string[]> {
  const record = await readMachine(context, name);
  const buildkit = join(context.programDir, 'bin/buildkit');
  const paths: string[] = [];
  for (const [file, text] of planScripts(record.name, buildkit, context.stateDir)) {
    const path = join(folder, file);
    await writeFileAtomic(path, text, { mode: 0o755 });
    paths.push(path);
  }
  return paths;
}
