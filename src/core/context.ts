/**
 * What the outer world hands to everything below `cli/`: clock, environment, narration, interruption, places.
 *
 * Nothing below `cli/main` reads `process.env`, `process.argv` or the wall clock, so that the same input gives the same bytes.
 */
import type { Log } from './log.ts';

export interface RunContext {
  /** Environment for child programs; the process's own when absent. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Aborted on SIGINT and SIGTERM. */
  readonly signal?: AbortSignal;
  readonly log?: Log;
}

export interface Context extends RunContext {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signal: AbortSignal;
  readonly log: Log;
  readonly now: () => Date;
  /** Kept data: keys, repositories, machines, base images. */
  readonly stateDir: string;
  /** May be deleted at any time. */
  readonly cacheDir: string;
  /** The checkout or installation that this program runs from: templates and docs are found below it. */
  readonly programDir: string;
}
