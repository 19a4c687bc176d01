/** A folder like that of a large real package, the same on every machine: many small texts, some data, a few large files. */
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** xorshift32: fast, and the same everywhere. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** Code-like text: lines of words from a vocabulary, the frequent ones often. */
function textOf(random: () => number, words: readonly string[], size: number): Buffer {
  const parts: string[] = [];
  for (let length = 0; length < size; ) {
    const word = words[Math.floor(random() ** 3 * words.length)]!;
    const separator = random() < 0.15 ? '\n    ' : ' ';
    parts.push(word, separator);
    length += word.length + separator.length;
  }
  return Buffer.from(parts.join('').slice(0, size));
}

function dataOf(random: () => number, size: number): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  for (let index = 0; index < size; index += 1) bytes[index] = random() * 256;
  return bytes;
}

/** Writes about `megabytes` in `files` files below `folder`; every seventh is data that does not compress. */
export async function makeBenchTree(folder: string, files: number, megabytes: number): Promise<number> {
  const random = randomFrom(20_260_101);
  const words = Array.from({ length: 6000 }, () =>
    Array.from(
      { length: 2 + Math.floor(random() * 10) },
      () => 'etaoinshrdlucmfwyp_().={}'[Math.floor(random() ** 1.5 * 25)],
    ).join(''),
  );
  const weights = Array.from({ length: files }, () =>
    Math.exp(1.4 * Math.sqrt(-2 * Math.log(random() + 1e-9)) * Math.cos(2 * Math.PI * random())),
  );
  const unit = (megabytes * 1e6) / weights.reduce((sum, weight) => sum + weight, 0);
  let total = 0;
  for (const [index, weight] of weights.entries()) {
    const size = Math.min(Math.round(weight * unit), 8_000_000);
    const path = join(folder, 'usr/lib/bench', `module${index % 40}`, `part${index % 400}`, `file${index}.js`);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, index % 7 === 0 ? dataOf(random, size) : textOf(random, words, size));
    total += size;
  }
  return total;
}
