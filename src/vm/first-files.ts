/**
 * Files that a machine gets at its first start, before anybody works in it (an apt.conf.d line, for example).
 *
 * Secret: they wait in the machine's folder and go in by ssh, so that a machine of any base can have them.
 */
import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { readIfThere, writeFileAtomic } from '../core/files.ts';
import type { ExecResult } from './ssh.ts';

const FILE = 'first-files.json';

const schema = z.array(z.object({ path: z.string(), mode: z.number(), text: z.string() }));
export type FirstFile = Readonly<z.infer<typeof schema>[number]>;

/** What of a running machine is needed to write into it. */
interface Writable {
  must(argv: readonly string[]): Promise<ExecResult>;
  write(path: string, content: string, mode?: number): Promise<void>;
}

export async function writeFiles(machine: Writable, files: readonly FirstFile[]): Promise<void> {
  for (const { path, mode, text } of files) {
    await machine.must(['mkdir', '-p', '--', dirname(path)]);
    await machine.write(path, text, mode);
  }
}

/** @param dir of the machine */
export async function keepFirstFiles(dir: string, files: readonly FirstFile[]): Promise<void> {
  if (files.length > 0) await writeFileAtomic(join(dir, FILE), JSON.stringify(files));
}

export async function giveFirstFiles(machine: Writable, dir: string): Promise<void> {
  const path = join(dir, FILE);
  const text = await readIfThere(path);
  if (text === undefined) return;
  await writeFiles(machine, schema.parse(JSON.parse(text)));
  await rm(path);
}
