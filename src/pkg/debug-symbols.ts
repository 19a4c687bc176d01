/**
 * Debug symbols of what was compiled here, as a package of their own, and the stripped files in place of the others.
 *
 * Secret: what dh_strip does (its manual page; objcopy(1), strip(1)): /usr/lib/debug/.build-id/xx/rest.debug, the link to it in the
 * program, and the fields of a NAME-dbgsym package.
 */
import { copyFile, mkdir, readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { writeFileAtomic } from '../core/files.ts';
import { hasProgram, run } from '../core/run.ts';
import type { DebEntry, DebSource, DebSpec } from '../deb/archive.ts';
import { getField, type Paragraph, paragraph } from '../deb/control.ts';
import { readElfSections } from './elf.ts';

export interface SplitPackage {
  readonly spec: DebSpec;
  /** undefined: nothing has symbols. */
  readonly debug: DebSpec | undefined;
  readonly warnings: readonly string[];
}

/** GNU's prefixes for other machines than this one. */
const PREFIXES: Readonly<Record<number, string>> = {
  3: 'i686-linux-gnu-',
  20: 'powerpc-linux-gnu-',
  21: 'powerpc64le-linux-gnu-',
  22: 's390x-linux-gnu-',
  40: 'arm-linux-gnueabihf-',
  62: 'x86_64-linux-gnu-',
  183: 'aarch64-linux-gnu-',
  243: 'riscv64-linux-gnu-',
};

/** @param folder for the split files, which must stay until the packages are written */
export async function splitDebugSymbols(
  context: Context,
  spec: DebSpec,
  isCompiledHere: (path: string) => boolean,
  folder: string,
): Promise<SplitPackage> {
  const entries: DebEntry[] = [];
  const debugFiles: DebEntry[] = [];
  const buildIds: string[] = [];
  const warnings = new Set<string>();
  for await (const entry of spec.entries) {
    const split =
      entry.type === 'file' && entry.source !== undefined && isCompiledHere(entry.path)
        ? await splitOne(context, entry.source, join(folder, String(entries.length)), basename(entry.path))
        : undefined;
    if (typeof split === 'string') warnings.add(split);
    if (split === undefined || typeof split === 'string') {
      entries.push(entry);
      continue;
    }
    const at = `/usr/lib/debug/.build-id/${split.buildId.slice(0, 2)}/${split.buildId.slice(2)}.debug`;
    entries.push({ ...entry, source: { file: split.stripped } });
    if (buildIds.includes(split.buildId)) continue; // one file at two places
    buildIds.push(split.buildId);
    debugFiles.push({ path: at, type: 'file', mode: 0o644, source: { file: split.symbols } });
  }
  if (buildIds.length === 0) return { spec, debug: undefined, warnings: [...warnings] };
  const name = getField(spec.control, 'Package')!;
  const doc: DebEntry = { path: `/usr/share/doc/${name}-dbgsym`, type: 'symlink', mode: 0o777, link: name };
  return {
    spec: { ...spec, entries },
    debug: { control: debugControl(spec.control, buildIds), entries: [...debugFiles, doc] },
    warnings: [...warnings],
  };
}

/** As dh_strip and dh_gencontrol write it. */
function debugControl(control: Paragraph, buildIds: readonly string[]): Paragraph {
  const field = (name: string) => getField(control, name);
  const name = field('Package')!;
  return paragraph([
    ['Package', `${name}-dbgsym`],
    ['Source', field('Source') ?? name],
    ['Version', field('Version')],
    ['Auto-Built-Package', 'debug-symbols'],
    ['Architecture', field('Architecture')],
    ['Multi-Arch', field('Multi-Arch') === 'same' ? 'same' : undefined],
    ['Maintainer', field('Maintainer')],
    ['Depends', `${name} (= ${field('Version')})`],
    ['Section', 'debug'],
    ['Priority', 'optional'],
    ['Description', `debug symbols for ${name}`],
    ['Build-Ids', [...buildIds].sort().join(' ')],
  ]);
}

interface SplitFile {
  readonly buildId: string;
  readonly stripped: string;
  readonly symbols: string;
}

/** undefined: no program, or none with symbols; a text says why it stays as it is. */
async function splitOne(
  context: Context,
  source: DebSource,
  folder: string,
  name: string,
): Promise<SplitFile | string | undefined> {
  if ('open' in source) return undefined;
  const bytes = 'file' in source ? await readFile(source.file) : Buffer.from(source.data);
  const elf = readElfSections(bytes);
  if (elf === undefined || !elf.names.includes('.symtab')) return undefined;
  if (elf.buildId === undefined) return `'${name}' has no build id: its symbols stay in it`;
  const objcopy = await programFor(context, 'objcopy', elf.machine);
  const strip = await programFor(context, 'strip', elf.machine);
  if (objcopy === undefined || strip === undefined) return `nothing here strips '${name}': its symbols stay in it`;
  const stripped = join(folder, name);
  const symbols = join(folder, 'debug', `${elf.buildId.slice(2)}.debug`);
  await mkdir(dirname(symbols), { recursive: true });
  if ('file' in source) await copyFile(source.file, stripped);
  else await writeFileAtomic(stripped, bytes);
  await run(context, objcopy, ['--only-keep-debug', '--compress-debug-sections', stripped, symbols]);
  const isLibrary = elf.isShared && !elf.names.includes('.interp');
  const sections = ['.comment', '.note'].map((section) => `--remove-section=${section}`);
  await run(context, strip, [...sections, ...(isLibrary ? ['--strip-unneeded'] : []), stripped]);
  await run(context, objcopy, [`--add-gnu-debuglink=${symbols}`, stripped]);
  return { buildId: elf.buildId, stripped, symbols };
}

async function programFor(context: Context, name: string, machine: number): Promise<string | undefined> {
  const cross = `${PREFIXES[machine] ?? ''}${name}`;
  return (await hasProgram(context, cross)) ? cross : undefined;
}
