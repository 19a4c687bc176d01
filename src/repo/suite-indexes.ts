/**
 * Which indexes a suite has, and their files.
 *
 * Secret: which of them must be made anew. Each is put together from its cached blocks, and not at all where nothing of it changed
 * and its files are still there.
 */
import { createHash } from 'node:crypto';
import type { Context } from '../core/context.ts';
import type { BlockCache, IndexSpec, StoredBlock } from './blocks.ts';
import type { Catalog, CatalogPackage, PackageKind } from './catalog.ts';
import { gzipMember, type XzBlock, xzHeader, xzTrailer, zstdFrame } from './compress.ts';
import type { PlannedSuite } from './generation.ts';
import { INDEX_FORMAT, type IndexFile, renderRelease, renderStanzas, type StanzaStyle } from './indexes.ts';
import type { Layout } from './layout.ts';
import { hasObject, ObjectDigest, ObjectWriter } from './objects.ts';
import {
  compressionsOf,
  INDEX_SUFFIX,
  type IndexCompression,
  type RepositorySettings,
  type SuiteSettings,
} from './settings.ts';
import { renderTranslations } from './translations.ts';

/** An index of a suite, and its path below dists/SUITE/ without the suffix. */
interface PlannedIndex {
  readonly spec: IndexSpec;
  readonly path: string;
}

interface Place {
  readonly context: Context;
  readonly layout: Layout;
  readonly catalog: Catalog;
  readonly cache: BlockCache;
  readonly suite: SuiteSettings;
  readonly change: number;
}

export interface SuiteFacts {
  readonly change: number;
  readonly keys: readonly string[];
  /** Fingerprints of the keys that sign, for Signed-By. */
  readonly signers: readonly string[];
  readonly repository: RepositorySettings;
}

/** Brings every index of a suite up to date in public/by-hash/, where nothing refers to it yet. */
export async function planSuite(
  context: Context,
  layout: Layout,
  catalog: Catalog,
  cache: BlockCache,
  suite: SuiteSettings,
  facts: SuiteFacts,
): Promise<PlannedSuite> {
  const place: Place = { context, layout, catalog, cache, suite, change: facts.change };
  const files: IndexFile[] = [];
  for (const index of planIndexes(catalog, suite)) {
    const made = await filesOf(place, index, writeIndex);
    files.push(...made, ...(await patchesOf(place, index, made)));
  }
  if (suite.contents) {
    for (const index of planContents(suite)) files.push(...(await filesOf(place, index, writeContents)));
  }
  const undated = renderRelease(facts.repository, suite, files, { date: 0, validUntil: undefined }, facts.signers);
  const fingerprint = createHash('sha256')
    .update(JSON.stringify([undated, facts.keys, facts.repository.validDays, INDEX_FORMAT]))
    .digest('hex');
  return { suite, change: facts.change, files, packages: catalog.countMembers(suite.name), fingerprint };
}

/** Those of installer packages and sources where there are any. */
function planIndexes(catalog: Catalog, suite: SuiteSettings): PlannedIndex[] {
  const { architectures } = suite;
  return suite.components.flatMap((component) => {
    const index = (kind: PackageKind, architecture: string, folder: string): PlannedIndex => ({
      spec: stanzaSpec(catalog, suite, component, kind, architecture),
      path: `${component}/${folder}/${kind === 'dsc' ? 'Sources' : 'Packages'}`,
    });
    const has = (kind: PackageKind) => catalog.hasKind(suite.name, component, kind);
    return [
      ...architectures.map((one) => index('deb', one, `binary-${one}`)),
      ...(suite.translations ? [translationIndex(suite, component)] : []),
      ...(has('udeb') ? architectures.map((one) => index('udeb', one, `debian-installer/binary-${one}`)) : []),
      ...(has('dsc') ? [index('dsc', 'source', 'source')] : []),
    ];
  });
}

function stanzaSpec(
  catalog: Catalog,
  suite: SuiteSettings,
  component: string,
  kind: PackageKind,
  architecture: string,
): IndexSpec {
  const compressions = compressionsOf(suite);
  const style = styleOf(catalog, suite, kind);
  return {
    key: { suite: suite.name, component, kind, architecture },
    what: 'stanzas',
    variant: JSON.stringify([style.shortDescriptions, suite.overrides ?? '', compressions]),
    compressions,
    render: renderStanzas(style),
  };
}

function styleOf(catalog: Catalog, suite: SuiteSettings, kind: PackageKind): StanzaStyle {
  // installers show no translations: theirs stay whole, as in Debian's archive
  const shortDescriptions = suite.translations === true && kind === 'deb';
  const source = kind === 'dsc' ? 'source' : 'binary';
  const override = (item: CatalogPackage) => catalog.findOverride(suite.name, `${source} ${item.name}`);
  return { shortDescriptions, ...(suite.overrides === undefined ? {} : { override }) };
}

function translationIndex(suite: SuiteSettings, component: string): PlannedIndex {
  const compressions = compressionsOf(suite);
  return {
    spec: {
      key: { suite: suite.name, component, kind: 'deb', architecture: '*' },
      what: 'translations',
      variant: JSON.stringify([compressions]),
      compressions,
      render: renderTranslations,
    },
    path: `${component}/i18n/Translation-en`,
  };
}

/** Contents are large and for few: only as gzip, as in Debian's archive, unless forms were chosen; never plain. */
function planContents(suite: SuiteSettings): PlannedIndex[] {
  const chosen = suite.compressions?.filter((one) => one !== 'none') ?? [];
  const compressions = chosen.length > 0 ? chosen : ['gzip' as const];
  return suite.components.flatMap((component) =>
    suite.architectures.map((architecture) => ({
      spec: {
        key: { suite: suite.name, component, kind: 'deb' as const, architecture },
        what: 'contents' as const,
        variant: JSON.stringify([suite.overrides ?? '', compressions]),
        compressions,
        render: () => [],
      },
      path: `${component}/Contents-${architecture}`,
    })),
  );
}

type WriteFiles = (place: Place, index: PlannedIndex) => Promise<IndexFile[]>;

/** The files of an index: those made before where nothing changed. */
async function filesOf(place: Place, index: PlannedIndex, write: WriteFiles): Promise<readonly IndexFile[]> {
  const { context, layout, catalog, cache, suite, change } = place;
  const hashes = suite.hashes ?? [];
  if (index.spec.what !== 'contents') await cache.update(context, catalog, index.spec, change);
  const known = cache.written(catalog, index.spec, change);
  if (known?.every((file) => hasObject(layout, file, hashes))) return known;
  const files = await write(place, index);
  cache.saveWritten(index.spec, change, files);
  return files;
}

/**
 * The patches that lead to an index from those that clients may have, with their own index. What clients see now is the state
 * before: its text is still there.
 */
async function patchesOf(
  { layout, catalog, suite }: Place,
  index: PlannedIndex,
  made: readonly IndexFile[],
): Promise<readonly IndexFile[]> {
  const before = suite.pdiffs ? catalog.currentGeneration(suite.name)?.files : undefined;
  const plain = (files: readonly IndexFile[]) => files.find((file) => file.path === index.path);
  const [old, current] = [before && plain(before), plain(made)];
  if (!before || !old || !current || !hasObject(layout, old, [])) return [];
  const known = before.filter((file) => file.path.startsWith(`${index.path}.diff/`));
  const isWhole = known.every((file) => hasObject(layout, file, suite.hashes ?? []));
  if (old.sha256 === current.sha256 && isWhole) return known;
  const { writePatches } = await import('./patches.ts');
  const maxBytes = Math.min(...made.map((file) => file.size));
  return writePatches(layout, suite, { path: index.path, known: isWhole ? known : [], old, current, maxBytes });
}

async function writeContents(place: Place, index: PlannedIndex): Promise<IndexFile[]> {
  const { contentsBlocks } = await import('./contents.ts');
  const { context, layout, catalog, suite, change } = place;
  const { override } = styleOf(catalog, suite, 'deb');
  const blocks = contentsBlocks(context, layout, catalog, index.spec, change, override);
  return writeForms(place, index, blocks, 'onlyListed');
}

function writeIndex(place: Place, index: PlannedIndex): Promise<IndexFile[]> {
  return writeForms(place, index, place.cache.blocks(index.spec), 'onlyByHash');
}

/**
 * Writes one index in every form, one block in memory at a time.
 * @param plain what becomes of the plain form where it was not chosen: apt looks for an index by its plain name in Release, and
 * checks what it has unpacked or patched against it
 */
async function writeForms(
  { layout, suite }: Place,
  index: PlannedIndex,
  blocks: Iterable<StoredBlock> | AsyncIterable<StoredBlock>,
  plain: 'onlyByHash' | 'onlyListed',
): Promise<IndexFile[]> {
  await using stack = new AsyncDisposableStack();
  const forms: { compression: IndexCompression; writer: ObjectWriter | ObjectDigest; joiner: Joiner }[] = [];
  const chosen = index.spec.compressions;
  for (const compression of chosen.includes('none') ? chosen : ['none' as const, ...chosen]) {
    const isListed = !chosen.includes(compression) && plain === 'onlyListed';
    const writer = isListed ? new ObjectDigest(suite.hashes) : stack.use(await ObjectWriter.open(layout, suite.hashes));
    const joiner = JOINERS[compression]();
    forms.push({ compression, writer, joiner });
    if (joiner.head) await writer.write(joiner.head);
  }
  for await (const block of blocks) {
    for (const { writer, joiner } of forms) await writer.write(joiner.next(block));
  }
  const files: IndexFile[] = [];
  for (const { compression, writer, joiner } of forms) {
    await writer.write(await joiner.end());
    const unlessChosen = chosen.includes(compression) ? {} : { [plain]: true };
    files.push({ path: index.path + INDEX_SUFFIX[compression], ...(await writer.finish()), ...unlessChosen });
  }
  return files;
}

/** How the blocks of one form become one file. */
interface Joiner {
  readonly head?: Uint8Array;
  readonly next: (block: StoredBlock) => Uint8Array;
  readonly end: () => Promise<Uint8Array>;
}

const NOTHING = new Uint8Array();

const JOINERS: Readonly<Record<IndexCompression, () => Joiner>> = {
  none: () => ({ next: (block) => block.text, end: async () => NOTHING }),
  gzip: () => chained((block) => block.gzip!, gzipMember),
  zstd: () => chained((block) => block.zstd!, zstdFrame),
  xz: () => {
    const sizes: Pick<XzBlock, 'unpaddedSize' | 'uncompressedSize'>[] = [];
    return {
      head: xzHeader(),
      next: ({ xz }) => {
        const { bytes, unpaddedSize, uncompressedSize } = xz!;
        sizes.push({ unpaddedSize, uncompressedSize });
        return bytes;
      },
      end: async () => xzTrailer(sizes),
    };
  },
};

/** One after the other; of no block at all, a piece of nothing. */
function chained(
  pick: (block: StoredBlock) => Uint8Array,
  compress: (text: Uint8Array) => Promise<Uint8Array>,
): Joiner {
  let count = 0;
  return {
    next: (block) => {
      count += 1;
      return pick(block);
    },
    end: async () => (count === 0 ? await compress(NOTHING) : NOTHING),
  };
}
