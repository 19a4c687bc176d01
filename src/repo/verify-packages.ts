/** Packages indexes against the files they name: there, with their size and digests, and the same control file. */
import type { Context } from '../core/context.ts';
import { BuildkitError } from '../core/errors.ts';
import { getField, type Paragraph, readParagraphs } from '../deb/control.ts';
import type { BinaryPackage } from '../deb/package.ts';
import { type ClosurePackage, checkClosure } from './closure.ts';
import type { ReleaseFile } from './release-file.ts';
import { isInside, type Tree } from './tree.ts';
import type { Note } from './verify-indexes.ts';

interface Listed {
  readonly stanza: Paragraph;
  readonly index: string;
}

/** Fields that a repository writes, or may write in another way than the package does. */
const REPOSITORY_FIELDS =
  /^(?:filename|size|md5sum|sha1|sha256|sha512|description-md5|description|section|priority|tag|task|phased-update-percentage|status)$/i;

/** Stanzas in memory at a time when packages are read. */
const FILES_AT_A_TIME = 500;

export class PackageChecker {
  readonly #context: Context;
  readonly #tree: Tree;
  readonly #release: ReleaseFile;
  readonly #note: Note;
  /** By Filename: the same package stands in the index of each architecture when it is for all. */
  readonly #files = new Map<string, Listed>();
  readonly #stanzas: Paragraph[] = [];

  constructor(context: Context, tree: Tree, release: ReleaseFile, note: Note) {
    this.#context = context;
    this.#tree = tree;
    this.#release = release;
    this.#note = note;
  }

  /** Packages, each counted once. */
  get count(): number {
    return this.#files.size;
  }

  /** Reads one index. @throws UserError for what is no list of stanzas */
  async readIndex(
    index: string,
    text: AsyncIterable<Uint8Array>,
    onStanza: (stanza: Paragraph) => void = () => {},
  ): Promise<void> {
    const seen = new Set<string>();
    const architecture = /\/binary-([^/]+)\/Packages$/.exec(index)?.[1];
    for await (const stanza of readParagraphs(text, { file: index })) {
      const [name = '?', version = '?', arch = '?'] = ['Package', 'Version', 'Architecture'].map((field) =>
        getField(stanza, field),
      );
      const identity = `${name}_${version}_${arch}`;
      onStanza(stanza);
      if (seen.has(identity)) this.#note('listed-twice', index, `${identity} is listed twice`);
      seen.add(identity);
      if (architecture !== undefined && arch !== 'all' && arch !== architecture) {
        this.#note('wrong-architecture', index, `${identity} does not belong there`);
      }
      const filename = getField(stanza, 'Filename');
      if (filename === undefined || !isInside(filename)) {
        this.#note(
          'bad-filename',
          index,
          `${identity} has ${filename === undefined ? 'no Filename' : `the Filename '${filename}'`}`,
        );
        continue;
      }
      const known = this.#files.get(filename);
      if (!known) {
        this.#files.set(filename, { stanza, index });
        this.#stanzas.push(stanza);
      } else if (getField(known.stanza, 'SHA256') !== getField(stanza, 'SHA256')) {
        this.#note('listed-differently', index, `${filename} has another SHA256 in ${known.index}`);
      }
    }
  }

  async finish(options: {
    readonly packages: boolean;
    readonly base: readonly Paragraph[] | undefined;
  }): Promise<void> {
    if (options.packages) await this.#checkFiles();
    const suite = this.#stanzas.map(closurePackage);
    const { architectures } = this.#release;
    const checked = architectures.filter((architecture) => architecture !== 'all' && architecture !== 'source');
    for (const problem of checkClosure({ suite, architectures: checked, base: options.base })) {
      this.#note(problem.code, problem.subject ?? '', problem.message);
    }
  }

  async #checkFiles(): Promise<void> {
    const entries = [...this.#files];
    for (let from = 0; from < entries.length; from += FILES_AT_A_TIME) {
      await this.#checkBatch(entries.slice(from, from + FILES_AT_A_TIME));
      this.#context.log.progress('checking packages', Math.min(from + FILES_AT_A_TIME, entries.length), entries.length);
    }
  }

  async #checkBatch(entries: readonly (readonly [string, Listed])[]): Promise<void> {
    const { readDebs } = await import('../deb/archive.ts');
    const byPath = new Map<string, readonly [string, Listed]>();
    for (const entry of entries) {
      const path = await this.#tree.fetch(entry[0]);
      if (path === undefined)
        this.#note('package-missing', entry[0], `it is listed in ${entry[1].index}, and not there`);
      else byPath.set(path, entry);
    }
    for await (const result of readDebs(this.#context, byPath.keys())) {
      const [filename, { stanza }] = byPath.get(result.path)!;
      if ('info' in result) this.#compare(filename, stanza, result.info.package);
      else if (result.error instanceof BuildkitError) this.#note('package-broken', filename, result.error.message);
      else throw result.error;
      await this.#tree.release(filename);
    }
  }

  #compare(filename: string, stanza: Paragraph, found: BinaryPackage): void {
    const facts = {
      Size: String(found.size),
      MD5sum: found.md5,
      SHA1: found.sha1,
      SHA256: found.sha256,
      SHA512: found.sha512,
    };
    for (const [field, value] of Object.entries(facts)) {
      const listed = getField(stanza, field);
      if (listed !== undefined && listed.toLowerCase() !== value) {
        this.#note('wrong-digest', filename, `its ${field} is ${value}, the index says ${listed}`);
      }
    }
    if (getField(stanza, 'SHA256') === undefined && getField(stanza, 'SHA512') === undefined) {
      this.#note('weak-digest', filename, 'the index has neither SHA256 nor SHA512 of it');
    }
    const synopsis = (from: Paragraph) => (getField(from, 'Description') ?? '').split('\n')[0]?.trim();
    if (synopsis(stanza) !== synopsis(found.control)) {
      this.#note('stanza-differs', filename, 'its Description is not what its control file says');
    }
    const names = new Set([...stanza.fields, ...found.control.fields].map((field) => field.name));
    for (const name of names) {
      if (REPOSITORY_FIELDS.test(name)) continue;
      const [listed, own] = [getField(stanza, name), getField(found.control, name)];
      if (listed?.trim() !== own?.trim()) {
        this.#note('stanza-differs', filename, `field ${name} is not what its control file says`);
      }
    }
  }
}

function closurePackage(stanza: Paragraph): ClosurePackage {
  return { kind: 'deb', name: getField(stanza, 'Package') ?? '', stanza };
}
