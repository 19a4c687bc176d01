/**
 * Whether a published repository, ours or anybody's, is what it says.
 *
 * Secret: what can be wrong with one, and what is fine though it looks odd: Release may list forms of an index that are not
 * there as long as one is. Every problem is told, not only the first.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import type { Context } from '../core/context.ts';
import { BuildkitError, type Problem } from '../core/errors.ts';
import { compressionOf } from '../deb/compression.ts';
import type { Paragraph } from '../deb/control.ts';
import { decompress } from '../deb/decompression.ts';
import { HASH_NAMES, type HashName, type ListedFile, parseRelease, type ReleaseFile } from './release-file.ts';
import { openTree, suiteFolder, type Tree } from './tree.ts';
import { checkPatches, digestOf, SourceChecker, TranslationChecker } from './verify-indexes.ts';
import { PackageChecker } from './verify-packages.ts';

export interface VerifyRequest {
  /** A folder with dists/, or a URL. */
  readonly place: string;
  readonly suites: readonly string[];
  /** Files with public keys; default: archive-key.gpg of the repository. */
  readonly keys?: readonly string[] | undefined;
  /** Look at every package, not only at the indexes (default true). */
  readonly packages?: boolean | undefined;
  /** Packages indexes of the distribution: with them, every dependency must be met. */
  readonly base?: readonly Paragraph[] | undefined;
}

export interface VerifiedSuite {
  readonly suite: string;
  readonly indexes: number;
  readonly packages: number;
  readonly sources: number;
}

export interface VerifyReport {
  readonly place: string;
  readonly suites: readonly VerifiedSuite[];
  readonly problems: readonly Problem[];
}

/** Looks at all of it. @throws RemoteError when the repository cannot be reached at all */
export async function verifyRepository(context: Context, request: VerifyRequest): Promise<VerifyReport> {
  await using tree = await openTree(context, request.place);
  const problems: Problem[] = [];
  const suites: VerifiedSuite[] = [];
  for (const suite of request.suites) {
    suites.push(await new SuiteVerifier(context, tree, suite, request, problems).verify());
  }
  return { place: request.place, suites, problems };
}

const HASH_ALGORITHM: Readonly<Record<HashName, string>> = {
  MD5Sum: 'md5',
  SHA1: 'sha1',
  SHA256: 'sha256',
  SHA512: 'sha512',
};
const CLOCK_TOLERANCE_MS = 10_000;

class SuiteVerifier {
  readonly #context: Context;
  readonly #tree: Tree;
  readonly #suite: string;
  readonly #request: VerifyRequest;
  readonly #problems: Problem[];

  constructor(context: Context, tree: Tree, suite: string, request: VerifyRequest, problems: Problem[]) {
    this.#context = context;
    this.#tree = tree;
    this.#suite = suite;
    this.#request = request;
    this.#problems = problems;
  }

  #note(code: string, path: string, message: string): void {
    this.#problems.push({ code, message: `${path}: ${message}`, subject: path });
  }

  /** Whatever `body` throws about the repository is a problem of it. */
  async #noting<T>(path: string, body: () => Promise<T>): Promise<T | undefined> {
    try {
      return await body();
    } catch (error) {
      if (!(error instanceof BuildkitError) || error.exitCode !== 1) throw error;
      this.#note(error.code, path, error.message);
      return undefined;
    }
  }

  async verify(): Promise<VerifiedSuite> {
    const text = await this.#releaseText();
    const release =
      text === undefined ? undefined : await this.#noting('Release', async () => parseRelease(text, 'Release'));
    if (!release) return { suite: this.#suite, indexes: 0, packages: 0, sources: 0 };
    this.#problems.push(...release.problems);
    this.#checkDates(release);
    const note = (code: string, path: string, message: string) => this.#note(code, path, message);
    const checkers: Checkers = {
      packages: new PackageChecker(this.#context, this.#tree, release, note),
      sources: new SourceChecker(this.#tree, note),
      translations: new TranslationChecker(note),
    };
    const groups = Map.groupBy(release.files, (file) => file.path.replace(/\.(?:gz|xz|zst|bz2|lzma|lz4)$/, ''));
    let done = 0;
    for (const [plain, files] of groups) {
      await this.#checkIndex(release, plain, files, checkers);
      done += 1;
      this.#context.log.progress('checking indexes', done, groups.size);
    }
    checkers.translations.finish();
    const packages = this.#request.packages ?? true;
    if (packages) await checkers.sources.checkFiles();
    await checkers.packages.finish({ packages, base: this.#request.base });
    const { count } = checkers.packages;
    return { suite: this.#suite, indexes: groups.size, packages: count, sources: checkers.sources.count };
  }

  async #read(name: string): Promise<Buffer | undefined> {
    const path = await this.#tree.fetch(suiteFolder(this.#suite) + name);
    return path === undefined ? undefined : readFile(path);
  }

  /** The text that is signed, after every check of signatures. */
  async #releaseText(): Promise<string | undefined> {
    const [inRelease, release, signature] = [
      await this.#read('InRelease'),
      await this.#read('Release'),
      await this.#read('Release.gpg'),
    ];
    if (!inRelease && !release) {
      this.#note('no-release', suiteFolder(this.#suite), 'there is neither InRelease nor Release');
      return undefined;
    }
    const keys = await this.#keys();
    const { verifyClearSigned, verifyDetached } = await import('../deb/openpgp.ts');
    const options = { date: this.#context.now() };
    let text: string | undefined;
    if (!inRelease)
      this.#note(
        'no-inrelease',
        suiteFolder(this.#suite),
        'InRelease is missing: clients need two requests, and may see a mixture',
      );
    else if (keys)
      text = await this.#noting('InRelease', async () => (await verifyClearSigned(inRelease, keys, options)).text);
    if (release && signature && keys)
      await this.#noting('Release.gpg', () => verifyDetached(release, signature, keys, options));
    if (release && !signature) this.#note('no-release-gpg', 'Release', 'Release.gpg is missing');
    if (release && text !== undefined && release.toString('utf8') !== text) {
      this.#note('release-differs', 'Release', 'it says something else than InRelease');
    }
    return text ?? release?.toString('utf8') ?? unsignedText(inRelease!.toString('utf8'));
  }

  async #keys(): Promise<Buffer[] | undefined> {
    if (this.#request.keys) return Promise.all(this.#request.keys.map((path) => readFile(path)));
    const path = (await this.#tree.fetch('archive-key.gpg')) ?? (await this.#tree.fetch('archive-key.asc'));
    if (path !== undefined) return [await readFile(path)];
    this.#note('no-key', suiteFolder(this.#suite), 'signatures cannot be checked: name the public key with --key');
    return undefined;
  }

  #checkDates(release: ReleaseFile): void {
    const now = this.#context.now().getTime();
    if (!release.date) this.#note('no-date', 'Release', 'it has no Date');
    else if (release.date.getTime() > now + CLOCK_TOLERANCE_MS)
      this.#note('date-in-future', 'Release', `its Date ${release.date.toISOString()} is in the future`);
    if (release.validUntil && release.validUntil.getTime() < now) {
      this.#note('expired', 'Release', `it expired on ${release.validUntil.toISOString()}`);
    }
  }

  /** One index in all its forms. */
  async #checkIndex(
    release: ReleaseFile,
    plain: string,
    files: readonly ListedFile[],
    checkers: Checkers,
  ): Promise<void> {
    const listed = files.find((file) => file.path === plain);
    let present = 0;
    let isTold = false;
    for (const file of files) {
      const name = suiteFolder(this.#suite) + file.path;
      const path = await this.#tree.fetch(name);
      if (path === undefined) continue;
      present += 1;
      if (!(await this.#checkListed(file, path))) continue;
      if (release.byHash) await this.#checkByHash(file);
      const compression = compressionOf(file.path, plain);
      if (compression === undefined) continue;
      const reader: IndexReader | undefined = isTold ? undefined : readerOf(plain, checkers);
      const source = decompress(
        this.#context,
        compression,
        createReadStream(path),
        { member: file.path },
        { reader: 'apt' },
      );
      const sha256 = createHash('sha256');
      const text = hashed(source, sha256);
      await this.#noting(file.path, async () => {
        if (reader) await reader(plain, text);
        else for await (const _ of text);
      });
      isTold ||= reader !== undefined;
      if (plain.endsWith('.diff/Index')) await this.#checkPatches(release, file, path);
      const expected = listed?.hashes.SHA256;
      if (expected !== undefined && sha256.digest('hex') !== expected) {
        this.#note('compression-differs', file.path, `its text is not that of ${plain}`);
      }
      await this.#tree.release(name);
    }
    if (present === 0 && !/\/(?:Release|Index)$/.test(plain))
      this.#note('index-missing', plain, 'Release lists it, but it is there in no form');
  }

  async #checkListed(file: ListedFile, path: string): Promise<boolean> {
    const { size } = await stat(path);
    if (size !== file.size) {
      this.#note('wrong-size', file.path, `it has ${size} bytes, Release says ${file.size}`);
      return false;
    }
    for (const name of HASH_NAMES) {
      const expected = file.hashes[name];
      if (expected === undefined || (await digestOf(path, HASH_ALGORITHM[name])) === expected) continue;
      this.#note('wrong-digest', file.path, `its ${name} is not what Release says`);
      return false;
    }
    return true;
  }

  async #checkPatches(release: ReleaseFile, index: ListedFile, path: string): Promise<void> {
    const patched = index.path.replace(/\.diff\/Index$/, '');
    const plain = release.files.find((file) => file.path === patched);
    const folder = suiteFolder(this.#suite);
    const note = (code: string, at: string, message: string) => this.#note(code, at, message);
    await this.#noting(index.path, () => checkPatches(this.#tree, folder, index, path, plain, note));
  }

  /** apt asks for the strongest hash that Release lists. */
  async #checkByHash(file: ListedFile): Promise<void> {
    const name = HASH_NAMES.findLast((hash) => file.hashes[hash] !== undefined);
    if (name === undefined) return;
    const folder = file.path.includes('/') ? `${file.path.slice(0, file.path.lastIndexOf('/'))}/` : '';
    const byHash = `${folder}by-hash/${name}/${file.hashes[name]}`;
    const path = await this.#tree.fetch(suiteFolder(this.#suite) + byHash);
    if (path === undefined) this.#note('by-hash-missing', file.path, `${byHash} is not there`);
    else if ((await digestOf(path, HASH_ALGORITHM[name])) !== file.hashes[name]) {
      this.#note('by-hash-differs', file.path, `${byHash} holds something else`);
    }
    await this.#tree.release(suiteFolder(this.#suite) + byHash);
  }
}

interface Checkers {
  readonly packages: PackageChecker;
  readonly sources: SourceChecker;
  readonly translations: TranslationChecker;
}

type IndexReader = (index: string, text: AsyncIterable<Uint8Array>) => Promise<void>;

/** Who reads the text of an index; undefined: it is only digested. */
function readerOf(plain: string, { packages, sources, translations }: Checkers): IndexReader | undefined {
  if (/(?:^|\/)Packages$/.test(plain)) {
    const component = plain.replace(/\/(?:debian-installer\/)?binary-[^/]+\/Packages$/, '');
    return (index, text) => packages.readIndex(index, text, (stanza) => translations.want(component, stanza));
  }
  if (/(?:^|\/)Sources$/.test(plain)) return sources.readIndex.bind(sources);
  if (/\/i18n\/Translation-en$/.test(plain)) return translations.readIndex.bind(translations);
  return undefined;
}

async function* hashed(
  source: AsyncIterable<Uint8Array>,
  hash: ReturnType<typeof createHash>,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    hash.update(chunk);
    yield chunk;
  }
}

/** What a clear-signed text says, unchecked: the signature is a problem of its own. */
function unsignedText(signed: string): string {
  const match = /^-----BEGIN PGP SIGNED MESSAGE-----\n(?:[^\n]+\n)*\n(.*)\n-----BEGIN PGP SIGNATURE-----/s.exec(signed);
  return match ? `${match[1]!.replaceAll(/^- /gm, '')}\n` : signed;
}
