/**
 * Packages of another repository into a suite of ours: any published tree, in a folder (aptly's public/, reprepro's, a mirror) or
 * behind a URL.
 *
 * Secret: what is believed. The index only when its Release is signed by a key that the caller names (or the caller says that none
 * is needed), each package only with the SHA256 that the index gives. What is here already is not fetched, so that an interrupted
 * import goes on where it stopped.
 */
import { createReadStream } from 'node:fs';
import { copyFile, readFile, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { UserError } from '../core/errors.ts';
import { digestFile } from '../core/files.ts';
import { compressionOf } from '../deb/compression.ts';
import { getField, type Paragraph, readParagraphs } from '../deb/control.ts';
import { decompress } from '../deb/decompression.ts';
import { addPackages, type Refusal } from './add.ts';
import { findSuite, type PackageFacts, type RepoHandle, scratchOf } from './handle.ts';
import type { PackageFilter } from './query.ts';
import { type ListedFile, parseRelease, type ReleaseFile } from './release-file.ts';
import { isInside, openTree, type Tree } from './tree.ts';

export interface ImportRequest {
  /** A folder with dists/, or a URL. */
  readonly place: string;
  /** The suite there. */
  readonly from: string;
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

export interface ImportResult {
  readonly added: readonly Pick<PackageFacts, 'name' | 'version' | 'architecture' | 'component'>[];
  /** Here already. */
  readonly unchanged: number;
  readonly refused: readonly Refusal[];
}

/** Fetched and added at a time: what an interruption costs, and room on the disk. */
const BATCH = 200;

interface Wanted {
  readonly component: string;
  readonly stanza: Paragraph;
  readonly filename: string;
  readonly sha256: string;
}

/** @throws UserError `import-unsigned`, `signature-*`, `import-index`; RemoteError */
export async function importPackages(repo: RepoHandle, request: ImportRequest): Promise<ImportResult> {
  const suite = findSuite(repo, request.to);
  await using tree = await openTree(repo.context, request.place);
  const release = await readRelease(repo, tree, request);
  const components = request.components ?? suite.components.filter((one) => release.components.includes(one));
  if (components.length === 0) {
    throw new UserError('no-such-component', `'${request.from}' and '${suite.name}' have no component in common`, {
      hint: `there: ${release.components.join(', ')}; name one with --component`,
    });
  }
  const wanted = new Map<string, Wanted>();
  for (const component of components) {
    for (const architecture of [...suite.architectures, 'all']) {
      for await (const one of readIndex(repo, tree, request, release, component, architecture)) {
        wanted.set(`${component} ${one.filename}`, one);
      }
    }
  }
  return fetchAll(repo, tree, request, suite.name, suite.components, [...wanted.values()]);
}

async function readRelease(repo: RepoHandle, tree: Tree, request: ImportRequest): Promise<ReleaseFile> {
  const read = async (name: string) => {
    const path = await tree.fetch(`dists/${request.from}/${name}`);
    return path === undefined ? undefined : readFile(path);
  };
  const inRelease = await read('InRelease');
  const release = await read('Release');
  if (request.keys === undefined && !request.unsigned) {
    throw new UserError('import-unsigned', 'nothing is taken without a key to check signatures with', {
      hint: 'name the public key of that repository with --key FILE, or take what nobody vouches for with --unsigned',
    });
  }
  const options = { date: repo.context.now(), file: `dists/${request.from}/InRelease` };
  if (request.keys !== undefined) {
    const keys = await Promise.all(request.keys.map((path) => readFile(path)));
    const { verifyClearSigned, verifyDetached } = await import('../deb/openpgp.ts');
    if (inRelease)
      return current(repo, parseRelease((await verifyClearSigned(inRelease, keys, options)).text, 'InRelease'));
    const signature = await read('Release.gpg');
    if (!release || !signature) throw noRelease(request);
    await verifyDetached(release, signature, keys, options);
    return current(repo, parseRelease(release.toString('utf8'), 'Release'));
  }
  if (!release) throw noRelease(request);
  return parseRelease(release.toString('utf8'), 'Release');
}

function noRelease(request: ImportRequest): UserError {
  return new UserError('import-index', `'${request.place}' has no suite '${request.from}'`, {
    hint: 'there is neither a signed InRelease nor Release with Release.gpg',
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
  request: ImportRequest,
  release: ReleaseFile,
  component: string,
  architecture: string,
): AsyncGenerator<Wanted> {
  const plain = `${component}/binary-${architecture}/Packages`;
  const found = await firstPresent(tree, request, release, plain);
  if (!found) return;
  const compression = compressionOf(found.file.path, plain) ?? 'none';
  const text = decompress(repo.context, compression, createReadStream(found.path), { member: found.file.path });
  for await (const stanza of readParagraphs(text, { file: found.file.path })) {
    const filename = getField(stanza, 'Filename') ?? '';
    const sha256 = getField(stanza, 'SHA256') ?? '';
    if (!isInside(filename) || filename === '' || !/^[0-9a-f]{64}$/.test(sha256)) {
      throw new UserError('import-index', `'${getField(stanza, 'Package')}' has no usable Filename or SHA256`, {
        file: found.file.path,
      });
    }
    const one = { component, stanza, filename, sha256 };
    if (request.filter?.(memberOf(request.from, one)) ?? true) yield one;
  }
}

/** A form of the index that is there, whole as Release says. */
async function firstPresent(
  tree: Tree,
  request: ImportRequest,
  release: ReleaseFile,
  plain: string,
): Promise<{ file: ListedFile; path: string } | undefined> {
  for (const suffix of ['.xz', '.gz', '']) {
    const file = release.files.find((one) => one.path === plain + suffix);
    const path = file && (await tree.fetch(`dists/${request.from}/${file.path}`));
    if (!file || path === undefined) continue;
    const expected = file.hashes.SHA256;
    if (expected !== undefined && (await digestFile(path, 'sha256')) === expected) return { file, path };
    throw new UserError('import-index', `'${file.path}' is not what Release says`, { hint: 'try again later' });
  }
  return undefined;
}

/** A stanza of elsewhere as filters see it. */
function memberOf(suite: string, { component, stanza, filename, sha256 }: Wanted) {
  const field = (name: string) => getField(stanza, name) ?? '';
  const name = field('Package');
  return {
    suite,
    component,
    package: {
      id: 0,
      kind: 'deb' as const,
      name,
      version: field('Version'),
      architecture: field('Architecture'),
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
    return item?.sha256 === one.sha256 && repo.catalog.isMember(suite, componentHere(components, one), item);
  };
  const missing = all.filter((one) => !isHere(one));
  const added: Pick<PackageFacts, 'name' | 'version' | 'architecture' | 'component'>[] = [];
  const refused: Refusal[] = [];
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
      const done = await fetchBatch(repo, tree, request, suite, component, ofComponent.slice(from, from + BATCH));
      added.push(...done.added);
      refused.push(...done.refused);
      repo.context.log.progress('importing packages', Math.min(from + BATCH, ofComponent.length), ofComponent.length);
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
  const paths: string[] = [];
  const refused: Refusal[] = [];
  for (const [index, one] of batch.entries()) {
    const fetched = await tree.fetch(one.filename);
    if (fetched !== undefined && (await digestFile(fetched, 'sha256')) === one.sha256) {
      // several may have one name in different folders there
      const copy = join(scratch.path, `${index}-${basename(one.filename)}`);
      await copyFile(fetched, copy);
      paths.push(copy);
    } else {
      const message = fetched === undefined ? 'it is listed there, and not there' : 'it is not what the index says';
      refused.push({ file: one.filename, code: 'import-file', message });
    }
    await tree.release(one.filename);
  }
  if (paths.length === 0) return { added: [], refused };
  const result = await addPackages(repo, suite, paths, { component, who: request.who });
  await rm(scratch.path, { recursive: true, force: true });
  return { added: result.added, refused: [...refused, ...result.refused] };
}
