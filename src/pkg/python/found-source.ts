/**
 * The metadata of sources that pip comes upon while it resolves, had without running their code on this machine.
 *
 * Secret: when PKG-INFO is believed: where it says of its fields that none of those that decide a closure is dynamic (PEP 643,
 * "Core metadata" 2.2). Of any other source the wheel is built in the target's root, once, and its METADATA are taken.
 */
import { lstat, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../../core/context.ts';
import { parseCoreMetadata, parseHeaders } from './metadata.ts';
import type { MetadataOf, Pip } from './pip.ts';
import { buildsInRoot, foundWheel, type SourceOptions } from './source.ts';
import { openWheel } from './wheel.ts';

const MAX_PKG_INFO_BYTES = 16 * 1024 * 1024;

/** undefined: the code of sources may run on this machine, and pip asks them itself. */
export async function metadataReader(
  context: Context,
  pip: Pip,
  options: SourceOptions,
): Promise<((scratch: string) => MetadataOf) | undefined> {
  if (!(await buildsInRoot(context, pip, options))) return undefined;
  return (scratch) => async (found) => {
    const text = (await staticPkgInfo(found.folder)) ?? (await builtMetadata(context, pip, found, options));
    const { name, version } = parseCoreMetadata(text);
    const folder = join(scratch, `${name}-${version}.dist-info`.replaceAll('/', '_'));
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'METADATA'), text);
    return folder;
  };
}

async function builtMetadata(...args: Parameters<typeof foundWheel>): Promise<string> {
  using wheel = await openWheel(await foundWheel(...args));
  const file = wheel.files.find((one) => one.path === `${wheel.distInfo}/METADATA`);
  return (await file!.read()).toString('utf8'); // openWheel has read it
}

/** The source is not trusted: it may hold a link in its place. */
async function staticPkgInfo(folder: string): Promise<string | undefined> {
  const file = join(folder, 'PKG-INFO');
  const facts = await lstat(file).catch(() => undefined);
  if (!facts?.isFile() || facts.size > MAX_PKG_INFO_BYTES) return undefined;
  const text = await readFile(file, 'utf8');
  return isStatic(text) ? text : undefined;
}

/** True where name, version and requirements in it are those of every wheel that is built of the source. */
export function isStatic(pkgInfo: string): boolean {
  const fields = parseHeaders(pkgInfo);
  const layout = /^(\d+)\.(\d+)$/.exec(fields.find(([name]) => name === 'metadata-version')?.[1] ?? '');
  if (layout === null || Number(layout[1]) < 2 || (layout[1] === '2' && Number(layout[2]) < 2)) return false;
  const { name, version } = parseCoreMetadata(pkgInfo);
  const dynamic = fields.filter(([field]) => field === 'dynamic').map(([, value]) => value.toLowerCase());
  const decisive = ['requires-dist', 'requires-python', 'provides-extra', 'version', 'name'];
  return name !== '' && version !== '' && !dynamic.some((field) => decisive.includes(field));
}
