/** Files that were made, put where the user wants them: whole or not at all. */
import { constants, copyFile, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** Copies to a neighbour of `to` first; the folder must be there. */
export async function placeFile(from: string, to: string): Promise<void> {
  const temporary = join(dirname(to), `.${basename(to)}.tmp`);
  await rm(temporary, { force: true });
  await copyFile(from, temporary, constants.COPYFILE_FICLONE);
  await rename(temporary, to);
}
