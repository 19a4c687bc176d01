/** Databases that may be deleted at any time: one that cannot be read is made anew. */
import { rm } from 'node:fs/promises';
import { type Database, openDatabase } from '../core/db.ts';
import { UserError } from '../core/errors.ts';

export async function openCache(path: string, migrations: readonly string[]): Promise<Database> {
  try {
    return openDatabase(path, migrations);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    for (const suffix of ['', '-wal', '-shm']) await rm(path + suffix, { force: true });
    return openDatabase(path, migrations);
  }
}
