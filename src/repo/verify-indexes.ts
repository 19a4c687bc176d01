/**
 * Indexes beside Packages: sources against their files, translations against those who name them, patches against the index that
 * they lead to (DebianRepository/Format).
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { getField, type Paragraph, parseParagraph, readParagraphs } from '../deb/control.ts';
import type { ListedFile } from './release-file.ts';
import { isInside, type Tree } from './tree.ts';

export type Note = (code: string, path: string, message: string) => void;

export async function digestOf(path: string, algorithm: string): Promise<string> {
  const hash = createHash(algorithm);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

interface SourceFile {
  readonly size: number;
  readonly sha256: string;
  readonly index: string;
}

/** Sources of a suite, and the files that they list. */
export class SourceChecker {
  readonly #tree: Tree;
  readonly #note: Note;
  readonly #files = new Map<string, SourceFile>();
  count = 0;

  constructor(tree: Tree, note: Note) {
    this.#tree = tree;
    this.#note = note;
  }

  async readIndex(index: string, text: AsyncIterable<Uint8Array>): Promise<void> {
    const seen = new Set<string>();
    for await (const stanza of readParagraphs(text, { file: index })) {
      const identity = `${getField(stanza, 'Package')}_${getField(stanza, 'Version')}`;
      if (seen.has(identity)) this.#note('listed-twice', index, `source ${identity} is listed twice`);
      seen.add(identity);
      this.count += 1;
      this.#readFiles(stanza, identity, index);
    }
  }

  #readFiles(stanza: Paragraph, identity: string, index: string): void {
    const folder = getField(stanza, 'Directory') ?? '';
    const lines = (getField(stanza, 'Checksums-Sha256') ?? '').split('\n').filter((line) => line.trim() !== '');
    if (lines.length === 0) this.#note('weak-digest', index, `source ${identity} has no Checksums-Sha256`);
    for (const line of lines) {
      const [sha256 = '', size, name = ''] = line.trim().split(/\s+/);
      const path = `${folder === '.' || folder === '' ? '' : `${folder}/`}${name}`;
      if (name === '' || name.includes('/') || !isInside(path)) {
        this.#note('bad-filename', index, `source ${identity} lists '${path}'`);
        continue;
      }
      const known = this.#files.get(path);
      if (known && known.sha256 !== sha256) {
        this.#note('listed-differently', index, `${path} has another SHA256 in ${known.index}`);
      }
      this.#files.set(path, { size: Number(size), sha256, index });
    }
  }

  async checkFiles(): Promise<void> {
    for (const [name, file] of this.#files) {
      const path = await this.#tree.fetch(name);
      if (path === undefined) this.#note('package-missing', name, `it is listed in ${file.index}, and not there`);
      else if ((await stat(path)).size !== file.size || (await digestOf(path, 'sha256')) !== file.sha256) {
        this.#note('wrong-digest', name, `it is not what ${file.index} says`);
      }
      await this.#tree.release(name);
    }
  }
}

/** Long descriptions: who asks for one, and which there are. */
export class TranslationChecker {
  readonly #note: Note;
  readonly #wanted = new Map<string, { first: string; count: number; digests: Set<string> }>();
  readonly #there = new Map<string, Set<string>>();

  constructor(note: Note) {
    this.#note = note;
  }

  /** A stanza of Packages: without a long description it says where that is. */
  want(component: string, stanza: Paragraph): void {
    const digest = getField(stanza, 'Description-md5');
    if (digest === undefined || (getField(stanza, 'Description') ?? '').includes('\n')) return;
    const name = getField(stanza, 'Package') ?? '';
    const wanted = this.#wanted.get(component) ?? { first: name, count: 0, digests: new Set() };
    wanted.count += 1;
    wanted.digests.add(`${name} ${digest}`);
    this.#wanted.set(component, wanted);
  }

  async readIndex(index: string, text: AsyncIterable<Uint8Array>): Promise<void> {
    const there = new Set<string>();
    for await (const stanza of readParagraphs(text, { file: index })) {
      const [name, digest] = [getField(stanza, 'Package') ?? '', getField(stanza, 'Description-md5') ?? ''];
      if (there.has(`${name} ${digest}`)) this.#note('listed-twice', index, `${name} ${digest} is listed twice`);
      there.add(`${name} ${digest}`);
      const text = getField(stanza, 'Description-en');
      // apt takes the digest of the text as it stands, with its last newline
      if (text !== undefined && createHash('md5').update(`${text}\n`).digest('hex') !== digest) {
        this.#note('wrong-digest', index, `the description of ${name} is not that of its Description-md5`);
      }
    }
    this.#there.set(index.replace(/\/i18n\/.*$/, ''), there);
  }

  finish(): void {
    for (const [component, { digests }] of this.#wanted) {
      const there = this.#there.get(component);
      const missing = [...digests].filter((one) => !there?.has(one));
      if (missing.length === 0) continue;
      const names = missing.slice(0, 3).map((one) => one.split(' ')[0]);
      const more = missing.length > names.length ? ` and ${missing.length - names.length} more` : '';
      this.#note(
        'description-missing',
        `${component}/i18n/Translation-en`,
        `nothing describes ${names.join(', ')}${more}`,
      );
    }
  }
}

/**
 * The patches of one index: each there as it is listed, and leading to what Release lists now.
 * @param folder of Release, below the tree
 * @param plain of the patched index, as Release lists it
 */
export async function checkPatches(
  tree: Tree,
  folder: string,
  index: ListedFile,
  path: string,
  plain: ListedFile | undefined,
  note: Note,
): Promise<void> {
  const stanza = parseParagraph(await readFile(path, 'utf8'), { file: index.path });
  const [current, size] = (getField(stanza, 'SHA256-Current') ?? '').split(/\s+/);
  if (plain && (current !== plain.hashes.SHA256 || Number(size) !== plain.size)) {
    note('patches-differ', index.path, `its patches do not lead to ${plain.path}`);
  }
  const below = index.path.replace(/Index$/, '');
  for (const line of (getField(stanza, 'SHA256-Download') ?? '').split('\n')) {
    const [sha256, bytes, name] = line.trim().split(/\s+/);
    if (sha256 === undefined || name === undefined || !isInside(name)) continue;
    const patch = await tree.fetch(folder + below + name);
    if (patch === undefined) note('patch-missing', below + name, `${index.path} lists it, and it is not there`);
    else if ((await stat(patch)).size !== Number(bytes) || (await digestOf(patch, 'sha256')) !== sha256) {
      note('wrong-digest', below + name, `it is not what ${index.path} says`);
    }
    await tree.release(folder + below + name);
  }
}
