/**
 * More lines than memory holds, in order: sorted runs on disk, merged while they are read.
 *
 * Secret: how much is kept in memory, and that few lines never touch the disk.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { StringDecoder } from 'node:string_decoder';
import { explainWriteError, scratchFolder } from '../core/files.ts';

const RUN_CHARACTERS = 8 * 1024 * 1024;
const READ_BYTES = 128 * 1024;
const WRITE_LINES = 4096;

/** Lines without a line break, in the order of their UTF-16 units, as `sort` has them. */
export class SortedRuns implements AsyncDisposable {
  readonly #parent: string;
  readonly #runCharacters: number;
  #folder: Awaited<ReturnType<typeof scratchFolder>> | undefined;
  readonly #runs: string[] = [];
  #lines: string[] = [];
  #characters = 0;

  /** @param parent folder for the runs @param runCharacters how much is sorted in memory */
  constructor(parent: string, runCharacters = RUN_CHARACTERS) {
    this.#parent = parent;
    this.#runCharacters = runCharacters;
  }

  /** Everything is still in memory. */
  get isSmall(): boolean {
    return this.#runs.length === 0;
  }

  /** Undefined but when a run is full: then wait for it before the next line. */
  add(line: string): Promise<void> | undefined {
    this.#lines.push(line);
    this.#characters += line.length;
    return this.#characters < this.#runCharacters ? undefined : this.#writeRun();
  }

  async #writeRun(): Promise<void> {
    this.#folder ??= await scratchFolder(this.#parent, 'runs-');
    const path = join(this.#folder.path, String(this.#runs.length));
    const lines = this.#lines.sort();
    try {
      await using file = await open(path, 'wx', 0o600);
      for (let at = 0; at < lines.length; at += WRITE_LINES) {
        await file.writeFile(`${lines.slice(at, at + WRITE_LINES).join('\n')}\n`);
      }
    } catch (cause) {
      throw explainWriteError(cause, path);
    }
    this.#runs.push(path);
    this.#lines = [];
    this.#characters = 0;
  }

  /** Every line in order, also the same one twice; may be read again. */
  *sorted(): Generator<string> {
    const rest = this.#lines.sort();
    if (this.#runs.length === 0) yield* rest;
    else yield* merge([...this.#runs.map(readLines), rest.values()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#folder?.[Symbol.asyncDispose]();
  }
}

function* readLines(path: string): Generator<string, undefined> {
  const file = openSync(path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    const decoder = new StringDecoder('utf8');
    let rest = '';
    for (;;) {
      const count = readSync(file, buffer, 0, buffer.length, null);
      if (count === 0) return undefined;
      const lines = (rest + decoder.write(buffer.subarray(0, count))).split('\n');
      rest = lines.pop()!;
      yield* lines;
    }
  } finally {
    closeSync(file);
  }
}

/** Few sources, compared one with the other: there are some dozens at most. */
function* merge(sources: Iterator<string, undefined>[]): Generator<string> {
  const heads = sources.map((source) => source.next().value);
  try {
    for (;;) {
      let least: number | undefined;
      for (const [at, head] of heads.entries()) {
        if (head !== undefined && (least === undefined || head < heads[least]!)) least = at;
      }
      if (least === undefined) return;
      yield heads[least]!;
      heads[least] = sources[least]!.next().value;
    }
  } finally {
    for (const source of sources) source.return?.();
  }
}
