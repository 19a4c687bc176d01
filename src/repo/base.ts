/** What a distribution has, from its Packages indexes: files with any usual compression. */
import { createReadStream } from 'node:fs';
import { basename } from 'node:path';
import type { RunContext } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { compressionOf } from '../deb/compression.ts';
import { type Paragraph, readParagraphs } from '../deb/control.ts';
import { decompress } from '../deb/decompression.ts';

/** @throws UserError `no-such-file`, or for what is no index */
export async function readBase(context: RunContext, paths: readonly string[]): Promise<Paragraph[]> {
  const stanzas: Paragraph[] = [];
  for (const path of paths) {
    const name = basename(path);
    const compression = compressionOf(name, name.replace(/\.(?:gz|xz|zst|bz2|lzma)$/, '')) ?? 'none';
    const bytes = decompress(
      context,
      compression,
      createReadStream(path),
      { file: path, member: name },
      { reader: 'apt' },
    );
    try {
      for await (const stanza of readParagraphs(bytes, { file: path })) stanzas.push(stanza);
    } catch (cause) {
      if (errnoOf(cause) !== 'ENOENT') throw cause;
      throw new UserError('no-such-file', `there is no file '${path}'`, { hint: 'name a Packages index', cause });
    }
  }
  return stanzas;
}
