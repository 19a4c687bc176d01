/**
 * The pages of a repository for people: static files below public/ that any web server or bucket serves.
 *
 * Secret: which pages must be written anew after a publish. They are made from the catalog alone, and nothing depends on them.
 */
import type { RepoHandle } from './handle.ts';

export interface PagesReport {
  /** Pages written because what they show changed. */
  readonly written: number;
  readonly removed: number;
}

export interface PagesOptions {
  /** Every page anew, also where nothing changed. */
  readonly force?: boolean | undefined;
}

/** Brings the pages in line with what clients see. The caller holds the publish lock. */
export async function updatePages(_repo: RepoHandle, _options: PagesOptions = {}): Promise<PagesReport> {
  return { written: 0, removed: 0 };
}
