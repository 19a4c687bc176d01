/**
 * What a distribution has, from its Packages indexes: files with any usual compression, or those that this machine's apt keeps.
 */
import { createReadStream } from 'node:fs';
import { basename, resolve } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { didYouMean } from '../core/nearest.ts';
import { readAptList, readIndexTargets } from '../deb/apt-targets.ts';
import { compressionOf } from '../deb/compression.ts';
import { type Paragraph, readParagraphs } from '../deb/control.ts';
import { decompress } from '../deb/decompression.ts';

/**
 * @param bases files, or names of suites that this machine's apt follows: 'bookworm', 'bookworm-security'
 * @throws UserError `no-such-base`, or for what is no index
 */
export async function readBase(context: RunContext, bases: readonly string[], cwd: string): Promise<Paragraph[]> {
  const stanzas: Paragraph[] = [];
  for (const base of bases) {
    const path = resolve(cwd, base);
    const indexes = (await exists(path)) ? [readIndexFile(context, path)] : await followed(context, base);
    for (const index of indexes) for await (const stanza of index) stanzas.push(stanza);
  }
  return stanzas;
}

function readIndexFile(context: RunContext, path: string): AsyncIterable<Paragraph> {
  const name = basename(path);
  const compression = compressionOf(name, name.replace(/\.(?:gz|xz|zst|bz2|lzma)$/, '')) ?? 'none';
  const bytes = decompress(
    context,
    compression,
    createReadStream(path),
    { file: path, member: name },
    { reader: 'apt' },
  );
  return readParagraphs(bytes, { file: path });
}

async function followed(context: RunContext, suite: string): Promise<AsyncIterable<Paragraph>[]> {
  const targets = await readIndexTargets(context);
  const files = new Set<string>();
  for (const one of targets) {
    if ([one.release, one.codename].includes(suite) && (await exists(one.file))) files.add(one.file);
  }
  if (files.size > 0) return [...files].map((file) => readAptList(context, file));
  const names = [...new Set(targets.map((one) => one.codename || one.release))];
  throw new UserError(
    'no-such-base',
    `there is no file '${suite}', and this machine's apt has no lists of such a suite`,
    {
      hint: didYouMean(suite, names) ?? `name a Packages index, or one of ${names.join(', ')}`,
    },
  );
}
