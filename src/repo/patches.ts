/** The files of pdiffs: the patch to the newest state, those that were made before, and their index. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { gzipMember } from './compress.ts';
import type { IndexFile } from './indexes.ts';
import type { Layout } from './layout.ts';
import { ObjectWriter, objectPath } from './objects.ts';
import { boundPatches, edScript, type Patch, parsePatchIndex, patchName, renderPatchIndex } from './pdiff.ts';
import type { SuiteSettings } from './settings.ts';

interface PatchRequest {
  /** Of the index: 'main/binary-amd64/Packages'. */
  readonly path: string;
  /** Patches and their index as clients see them now. */
  readonly known: readonly IndexFile[];
  /** The plain index as clients see it now, and as it will be. */
  readonly old: IndexFile;
  readonly current: IndexFile;
  /** Patches that are larger than this together are of no use. */
  readonly maxBytes: number;
}

/** Writes them as objects. @returns nothing where no patch leads to the new state */
export async function writePatches(layout: Layout, suite: SuiteSettings, request: PatchRequest): Promise<IndexFile[]> {
  const { path, known, old, current } = request;
  const listPath = `${path}.diff/Index`;
  const list = known.find((file) => file.path === listPath);
  const chain: Patch[] = list ? parsePatchIndex(await readFile(objectPath(layout, list.sha256), 'utf8')) : [];
  if (old.sha256 !== current.sha256) chain.push(await writePatch(layout, old, current));
  const patches = boundPatches(chain, current.sha256, suite.pdiffs ?? 0, request.maxBytes);
  if (patches.length === 0) return [];
  await using writer = await ObjectWriter.open(layout, suite.hashes);
  await writer.write(Buffer.from(renderPatchIndex(current, patches)));
  return [
    { path: listPath, ...(await writer.finish()) },
    ...patches.map(({ name, download }) => ({ path: `${path}.diff/${name}.gz`, ...download, unlisted: true })),
  ];
}

async function writePatch(layout: Layout, old: IndexFile, current: IndexFile): Promise<Patch> {
  const [before, after] = await Promise.all([old, current].map((file) => readFile(objectPath(layout, file.sha256))));
  const script = edScript(before!, after!);
  await using writer = await ObjectWriter.open(layout);
  await writer.write(await gzipMember(script));
  const { sha256, size } = await writer.finish();
  return {
    name: patchName(old.sha256, current.sha256),
    from: { sha256: old.sha256, size: old.size },
    patch: { sha256: createHash('sha256').update(script).digest('hex'), size: script.length },
    download: { sha256, size },
  };
}
