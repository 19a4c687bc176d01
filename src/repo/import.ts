/**
 * Packages of elsewhere into a suite of ours: any published tree, in a folder or behind a URL, what aptly or reprepro keeps, or
 * the files of a pool (see import-source.ts for how they are told apart).
 *
 * Secret: what is believed. The index only when its Release is signed by a key that the caller names (or the caller says that none
 * is needed), each package only with the SHA256 that the index gives. What is here already is not fetched, so that an interrupted
 * import goes on where it stopped.
 */
import { createReadStream } from 'node:fs';
import { copyFile, mkdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import pLimit from 'p-limit';
import { UserError } from '../core/errors.ts';
import { digestFile } from '../core/files.ts';
import { compressionOf } from '../deb/compression.ts';
import { getField, type Paragraph, readParagraphs } from '../deb/control.ts';
import { decompress } from '../deb/decompression.ts';
import { addPackages, type Refusal } from './add.ts';
import type { Member, PackageKind } from './catalog.ts';
import { findSuite, type PackageFacts, type RepoHandle, scratchOf } from './handle.ts';
import { importPool } from './import-pool.ts';
import { findSource, type ImportSource } from './import-source.ts';
import type { PackageFilter } from './query.ts';
import { type ListedFile, parseRelease, type ReleaseFile } from './release-file.ts';
import { isInside, openTree, type Tree } from './tree.ts';

export interface ImportRequest {
  /** A URL, or a folder: a published tree, a root of aptly, a base of reprepro, a pool. */
  readonly place: string;
  /** The suite there; default: the only one. */
  readonly from?: string | undefined;
  /** The suite here. */
  readonly to: string;
  /** Components there; default: those of the suite here that are there too. */
  readonly components?: readonly string[] | undefined;
  /** Files with public keys that sign there. */
  readonly keys?: readonly string[] | undefined;
  /** Takes what nobody signed. */
  readonly unsigned?: boolean | undefined;
  readonly filter?: PackageFilter | undefined;
  readonly dryRun?: boolean | undefined;
  /** For the history. */
  readonly who?: string | undefined;
}

export type ImportedPackage = Pick<PackageFacts, 'name' | 'version' | 'architecture' | 'component'>;

export interface ImportResult {
  readonly added: readonly ImportedPackage[];
  /** Here already. */
  readonly unchanged: number;
  readonly refused: readonly Refusal[];
}

/** Fetched and added at a time: what an interruption costs, and room on the disk. */
const BATCH = 200;
const FETCHES_AT_ONCE = 6;

interface WantedFile {
  /** Below the tree. */
  readonly path: string;
  readonly sha256: string;
}

interface Wanted {
  readonly component: string;
  readonly kind: PackageKind;
  readonly stanza: Paragraph;
  /** The package; of a source: the .dsc first, then what it lists. */
  readonly files: readonly [WantedFile, ...WantedFile[]];
}

type IndexSource = Extract<ImportSource, { kind: 'index' }>;

/** @throws UserError `import-unsigned`, `import-which`, `import-index`, `signature-*`; RemoteError */
export async function importPackages(repo: RepoHandle, request: ImportRequest): Promise<ImportResult> {
  const suite = findSuite(repo, request.to);
  const source = await findSource(request.place, request.from);
  if (source.kind === 'pool') return importPool(repo, suite, source, request);
  await using tree = await openTree(repo.context, source.place);
  const release = await readRelease(repo, tree, source, request);
  const isFlat = release.components.length === 0;
  const components = isFlat
    ? ['']
    : (request.components ?? suite.components.filter((one) => release.components.includes(one)));
  if (components.length === 0) {
    throw new UserError('no-such-component', `'${source.folder}' and '${suite.name}' have no component in common`, {
      hint: `there: ${release.components.join(', ')}; name one with --component`,
    });
  }
  const wanted = new Map<string, Wanted>();
  for (const component of components) {
    for (const index of indexesOf(component, suite.architectures)) {
      for await (const one of readIndex(repo, tree, source, release, component, index)) {
        if (request.filter?.(memberOf(suite.name, one)) ?? true) wanted.set(`${component} ${one.files[0].path}`, one);
      }
    }
  }
  const fitting = [...wanted.values()].filter((one) => fits(one, suite.architectures));
  return await fetchAll(repo, tree, request, suite.name, suite.components, fitting);
}

interface WantedIndex {
  readonly kind: PackageKind;
  readonly path: string;
}

function indexesOf(component: string, architectures: readonly string[]): WantedIndex[] {
  if (component === '') {
    return [
      { kind: 'deb', path: 'Packages' },
      { kind: 'dsc', path: 'Sources' },
    ];
  }
  return [
    ...[...architectures, 'all'].flatMap((architecture): WantedIndex[] => [
      { kind: 'deb', path: `${component}/binary-${architecture}/Packages` },
      { kind: 'udeb', path: `${component}/debian-installer/binary-${architecture}/Packages` },
    ]),
    { kind: 'dsc', path: `${component}/source/Sources` },
  ];
}

/** A flat tree holds packages of every architecture in one index. */
function fits(one: Wanted, architectures: readonly string[]): boolean {
  const architecture = getField(one.stanza, 'Architecture') ?? '';
  return one.kind === 'dsc' || architecture === 'all' || architectures.includes(architecture);
}

async function readRelease(
  repo: RepoHandle,
  tree: Tree,
  source: IndexSource,
  request: ImportRequest,
): Promise<ReleaseFile> {
  const read = async (name: string) => {
    const path = await tree.fetch(source.folder + name);
    return path === undefined ? undefined : readFile(path);
  };
  if (request.keys === undefined && !request.unsigned) {
    throw new UserError('import-unsigned', 'nothing is taken without a key to check signatures with', {
      hint: 'name the public key of that repository with --key FILE, or take what nobody vouches for with --unsigned',
    });
  }
  const inRelease = await read('InRelease');
  const release = await read('Release');
  const options = { date: repo.context.now(), file: `${source.folder}InRelease` };
  if (request.keys !== undefined) {
    const keys = await Promise.all(request.keys.map((path) => readFile(path)));
    const { verifyClearSigned, verifyDetached } = await import('../deb/openpgp.ts');
    if (inRelease)
      return current(repo, parseRelease((await verifyClearSigned(inRelease, keys, options)).text, 'InRelease'));
    const signature = await read('Release.gpg');
    if (!release || !signature) throw noRelease(request, source);
    await verifyDetached(release, signature, keys, options);
    return current(repo, parseRelease(release.toString('utf8'), 'Release'));
  }
  if (!release) throw noRelease(request, source);
  return parseRelease(release.toString('utf8'), 'Release');
}

function noRelease(request: ImportRequest, source: IndexSource): UserError {
  return new UserError('import-index', `'${request.place}' has no suite '${request.from ?? source.folder}'`, {
    hint: `there is neither a signed ${source.folder}InRelease nor Release with Release.gpg`,
  });
}

/** @throws UserError `import-expired` */
function current(repo: RepoHandle, release: ReleaseFile): ReleaseFile {
  if (!release.validUntil || release.validUntil > repo.context.now()) return release;
  throw new UserError('import-expired', `that repository expired on ${release.validUntil.toISOString()}`, {
    hint: 'somebody may show you an old state of it; its owner must publish it again',
  });
}

async function* readIndex(
  repo: RepoHandle,
  tree: Tree,
  source: IndexSource,
  release: ReleaseFile,
  component: string,
  index: WantedIndex,
): AsyncGenerator<Wanted> {
  const found = await firstPresent(tree, source, release, index.path);
  if (!found) return;
  const compression = compressionOf(found.file.path, index.path) ?? 'none';
  const bytes = createReadStream(found.path);
  const text = decompress(repo.context, compression, bytes, { member: found.file.path }, { reader: 'apt' });
  for await (const stanza of readParagraphs(text, { file: found.file.path })) {
    const files = index.kind === 'dsc' ? sourceFiles(stanza) : binaryFile(stanza);
    const [first] = files;
    const isUsable = ({ path, sha256 }: WantedFile) => isInside(path) && path !== '' && /^[0-9a-f]{64}$/.test(sha256);
    if (first === undefined || !files.every(isUsable)) {
      throw new UserError('import-index', `'${getField(stanza, 'Package')}' has no usable Filename or SHA256`, {
        file: found.file.path,
      });
    }
    yield { component, kind: index.kind, stanza, files: [first, ...files.slice(1)] };
  }
  await tree.release(found.name);
}

function binaryFile(stanza: Paragraph): WantedFile[] {
  const path = (getField(stanza, 'Filename') ?? '').replace(/^\.\//, '');
  return [{ path, sha256: getField(stanza, 'SHA256') ?? '' }];
}

/** What a stanza of Sources lists, the .dsc first; none when there is no .dsc. */
function sourceFiles(stanza: Paragraph): WantedFile[] {
  const folder = (getField(stanza, 'Directory') ?? '').replace(/^\.\/?/, '').replace(/(?<=.)\/?$/, '/');
  const lines = (getField(stanza, 'Checksums-Sha256') ?? '').split('\n').map((line) => line.trim().split(/\s+/));
  const files = lines.filter((words) => words.length === 3 && /^[^/]+$/.test(words[2]!));
  const listed = files.map(([sha256 = '', , name = '']) => ({ path: folder + name, sha256 }));
  const dsc = listed.find(({ path }) => path.endsWith('.dsc'));
  return dsc ? [dsc, ...listed.filter((file) => file !== dsc)] : [];
}

/** A form of the index that is there, whole as Release says. */
async function firstPresent(
  tree: Tree,
  source: IndexSource,
  release: ReleaseFile,
  plain: string,
): Promise<{ file: ListedFile; path: string; name: string } | undefined> {
  for (const suffix of ['.xz', '.zst', '.gz', '', '.bz2']) {
    const file = release.files.find((one) => one.path === plain + suffix);
    if (!file) continue;
    for (const name of placesOf(source, release, file)) {
      const path = await tree.fetch(name);
      if (path === undefined) continue;
      if (await isAsListed(path, file)) return { file, path, name };
      throw new UserError('import-index', `'${file.path}' is not what Release says`, { hint: 'try again later' });
    }
  }
  return undefined;
}

/** By its digest first: a publish may be under way there. */
function placesOf(source: IndexSource, release: ReleaseFile, file: ListedFile): string[] {
  const folder = file.path.replace(/[^/]*$/, '');
  const byHash = release.byHash && file.hashes.SHA256 ? [`${folder}by-hash/SHA256/${file.hashes.SHA256}`] : [];
  return [...byHash, file.path].map((path) => source.folder + path);
}

async function isAsListed(path: string, { hashes }: ListedFile): Promise<boolean> {
  if (hashes.SHA256 !== undefined) return (await digestFile(path, 'sha256')) === hashes.SHA256;
  return hashes.SHA512 !== undefined && (await digestFile(path, 'sha512')) === hashes.SHA512;
}

/** A stanza of elsewhere as filters see it. */
function memberOf(suite: string, { component, kind, stanza, files }: Wanted): Member {
  const field = (name: string) => getField(stanza, name) ?? '';
  const name = field('Package');
  const [{ path: filename, sha256 }] = files;
  return {
    suite,
    component,
    package: {
      id: 0,
      kind,
      name,
      version: field('Version'),
      architecture: kind === 'dsc' ? 'source' : field('Architecture'),
      source: field('Source').replace(/ .*$/s, '') || name,
      filename,
      size: Number(field('Size')),
      md5: '',
      sha1: '',
      sha256,
      sha512: '',
      control: stanza.fields.map((one) => `${one.name}: ${one.value}\n`).join(''),
    },
  };
}

async function fetchAll(
  repo: RepoHandle,
  tree: Tree,
  request: ImportRequest,
  suite: string,
  components: readonly string[],
  all: readonly Wanted[],
): Promise<ImportResult> {
  const isHere = (one: Wanted) => {
    const item = repo.catalog.findPackage(memberOf(suite, one).package);
    return item?.sha256 === one.files[0].sha256 && repo.catalog.isMember(suite, componentHere(components, one), item);
  };
  const missing = all.filter((one) => !isHere(one));
  const added: ImportedPackage[] = [];
  const refused: Refusal[] = [];
  let done = 0;
  for (const [component, ofComponent] of Map.groupBy(missing, (one) => componentHere(components, one))) {
    if (request.dryRun) {
      for (const one of ofComponent) {
        const { name, version, architecture } = memberOf(suite, one).package;
        added.push({ name, version, architecture, component });
      }
      continue;
    }
    for (let from = 0; from < ofComponent.length; from += BATCH) {
      repo.context.signal.throwIfAborted();
      const batch = ofComponent.slice(from, from + BATCH);
      const result = await fetchBatch(repo, tree, request, suite, component, batch);
      added.push(...result.added);
      refused.push(...result.refused);
      done += batch.length;
      repo.context.log.progress('importing packages', done, missing.length);
    }
  }
  return { added, unchanged: all.length - missing.length, refused };
}

/** The section of the same name, else our first. */
function componentHere(components: readonly string[], one: Wanted): string {
  return components.includes(one.component) ? one.component : components[0]!;
}

async function fetchBatch(
  repo: RepoHandle,
  tree: Tree,
  request: ImportRequest,
  suite: string,
  component: string,
  batch: readonly Wanted[],
): Promise<{ added: readonly PackageFacts[]; refused: readonly Refusal[] }> {
  await using scratch = await scratchOf(repo, 'import-');
  const limit = pLimit(FETCHES_AT_ONCE);
  const refused: Refusal[] = [];
  const outcomes = await Promise.allSettled(
    batch.map((one, index) =>
      limit(async () => {
        // several may have one name in different folders there
        const folder = join(scratch.path, String(index));
        await mkdir(folder);
        for (const file of one.files) {
          repo.context.signal.throwIfAborted();
          const problem = await fetchFile(tree, file, join(folder, basename(file.path)));
          if (problem === undefined) continue;
          refused.push({ file: file.path, code: 'import-file', message: problem });
          return undefined;
        }
        return join(folder, basename(one.files[0].path));
      }),
    ),
  );
  const failure = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failure) throw failure.reason; // only now: the scratch folder is in use until all have ended
  const paths = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? (outcome.value ?? []) : []));
  if (paths.length === 0) return { added: [], refused };
  const result = await addPackages(repo, suite, paths, { component, who: request.who });
  return { added: result.added, refused: [...refused, ...result.refused] };
}

/** @returns what is wrong with it */
async function fetchFile(tree: Tree, file: WantedFile, target: string): Promise<string | undefined> {
  const path = await tree.fetch(file.path);
  if (path === undefined) return 'it is listed there, and not there';
  const isRight = (await digestFile(path, 'sha256')) === file.sha256;
  if (isRight) await copyFile(path, target);
  await tree.release(file.path);
  return isRight ? undefined : 'it is not what the index says';
}
