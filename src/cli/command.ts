/** How a command row meets the world: it gets a context and its arguments and returns a value; `main` prints it. */

import type { LoadedConfig } from '../core/config.ts';
import type { Context } from '../core/context.ts';
import type { Config } from '../release/config.ts';

/** What a command has to say on stdout: `data` with `--json`, else `text`. */
export interface Output {
  readonly data: unknown;
  /** Printed as it is; a final newline is added when missing. Empty prints nothing. */
  readonly text: string;
  /** For commands that pass another program's exit code on, or whose answer is "no" (default 0). */
  readonly exitCode?: number;
  /** The exit code is that of a program that a signal to buildkit reaches, too: it says what came of it. */
  readonly passedOn?: boolean;
}

export interface CommandContext extends Context {
  /** Where buildkit.yaml is looked for: `-C DIR`, else the current folder. */
  readonly workspaceDir: string;
  /** Where the command was started: what the user's relative paths refer to. */
  readonly cwd: string;
  readonly json: boolean;
  /** stdin and stderr are terminals: questions may be asked. */
  readonly interactive: boolean;
  /** What decided the state folder. */
  readonly stateOrigin: string;
  /** Reads and checks buildkit.yaml, once. */
  config(): Promise<Config>;
  loadedConfig(): Promise<LoadedConfig<Config>>;
  /** Hears SIGHUP ("read your files anew") for as long as it is not disposed; without one SIGHUP ends the program. */
  onHangup(listener: () => void): Disposable;
  /** Output that cannot wait for the end of the command (a guest's, a server's first line). */
  writeOut(text: string | Uint8Array): void;
}

/** The bridge from commander to a handler: `.action(cli.action(async (cx, file, options) => ...))`. */
export interface Cli {
  action<A extends readonly unknown[]>(
    handler: (cx: CommandContext, ...args: A) => Promise<Output | undefined>,
  ): (...args: unknown[]) => Promise<void>;
}

/** Text columns: each as wide as its widest cell, two blanks between, nothing after the last. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows)
    for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 0, cell.length);
  return rows
    .map((row) =>
      row
        .map((cell, index) => (index === row.length - 1 ? cell : cell.padEnd(widths[index] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
