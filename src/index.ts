/** The library: what other programs may use of buildkit. Re-exports only. */
export type { Context } from './core/context.ts';
