/** For a whole run of the vm tier: a folder for bases that more than one test file needs, so that each is built once. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

let made: string | undefined;

export async function setup(): Promise<void> {
  if (process.env.BUILDKIT_TEST_BASES) return;
  made = await mkdtemp(join(tmpdir(), 'buildkit-bases-'));
  process.env.BUILDKIT_TEST_BASES = made; // what the workers inherit
}

export async function teardown(): Promise<void> {
  if (made !== undefined) await rm(made, { recursive: true, force: true });
}
