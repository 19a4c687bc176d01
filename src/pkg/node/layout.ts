/**
 * Where the files of npm packages go in a Debian package.
 *
 * Secret: the folders (pkg-js-tools; FHS; Policy 10.5 for links), commands in /usr/bin, manual pages, and the module below
 * /usr/share/nodejs that Debian's own packages of the same name have.
 */

import { readFile } from 'node:fs/promises';
import { dirname, posix } from 'node:path';
import { gzipSync } from 'node:zlib';
import { multiarchTriplet } from '../../deb/arch.ts';
import type { DebEntry } from '../../deb/archive.ts';
import type { NodeModule } from './arborist.ts';
import type { PackageFile } from './files.ts';
import { manPagesOf, programsOf } from './manifest.ts';

/** One module with the files that were read of it. */
export interface FilledModule {
  readonly module: NodeModule;
  readonly files: readonly PackageFile[];
}

/** Where the modules of an application are: '/usr/lib/APP'. */
export function appHome(debianName: string): string {
  return `/usr/lib/${debianName}`;
}

/** The node_modules folder of one store package; native ones cannot be below /usr/share (FHS 4.11). */
export function storeHome(storeKey: string, architecture: string | undefined): string {
  const nodejs = architecture === undefined ? '/usr/share/nodejs' : `/usr/lib/${multiarchTriplet(architecture)}/nodejs`;
  return `${nodejs}/.store/${storeKey}/node_modules`;
}

/** Files of modules below `home`, each at `place(module)` there. */
export function moduleEntries(modules: readonly FilledModule[], place: (module: NodeModule) => string): DebEntry[] {
  return modules.flatMap(({ module, files }) =>
    files.map((file): DebEntry => {
      const path = `${place(module)}/${file.path}`;
      return { path, type: 'file', mode: file.mode, source: file.source };
    }),
  );
}

/** `node_modules/.bin` as npm makes it: programs start each other by these. */
export function innerPrograms(modules: readonly FilledModule[], home: string): DebEntry[] {
  const links = new Map<string, DebEntry>();
  for (const { module, files } of modules) {
    if (module.location === '') continue;
    const folder = module.location.slice(0, module.location.length - module.name.length - 1);
    for (const [command, path] of programsOf(module.name, module.manifest)) {
      const link = `${home}/${folder}/.bin/${command}`;
      if (!files.some((file) => file.path === path) || links.has(link)) continue;
      links.set(link, symlink(link, `${home}/${module.location}/${path}`));
    }
  }
  return [...links.values()];
}

/** Links to the folders of other packages, for `require` and `import`. */
export function moduleLinks(
  folder: string,
  links: ReadonlyMap<string, string>,
  homeOf: (storeKey: string) => string,
): DebEntry[] {
  return [...links].map(([name, key]) => symlink(`${folder}/${name}`, `${homeOf(key)}/${storedName(key)}`));
}

/** Links below `home` to modules of the suite. */
export function suiteEntries(home: string, links: ReadonlyMap<string, string>): DebEntry[] {
  return [...links].map(([below, path]) => symlink(`${home}/${below}`, path));
}

/** '@scope+name@1' -> '@scope/name': what a package is called in its own place of the store. */
export function storedName(storeKey: string): string {
  return storeKey.slice(0, storeKey.indexOf('@', 1)).replaceAll('+', '/');
}

/** Commands in /usr/bin, and manual pages, of the module at `place`. */
export async function publicEntries({ module, files }: FilledModule, place: string): Promise<DebEntry[]> {
  const entries: DebEntry[] = [];
  const byPath = new Map(files.map((file) => [file.path, file]));
  for (const [command, path] of programsOf(module.name, module.manifest)) {
    if (byPath.has(path)) entries.push(symlink(`/usr/bin/${command}`, `${place}/${path}`));
  }
  for (const path of manPagesOf(module.manifest)) {
    const source = byPath.get(path)?.source;
    if (source === undefined || !('file' in source) || path.endsWith('.gz')) continue;
    const section = path.slice(-1);
    const data = gzipSync(await readFile(source.file), { level: 9 });
    entries.push({
      path: `/usr/share/man/man${section}/${posix.basename(path)}.gz`,
      type: 'file',
      mode: 0o644,
      source: { data },
    });
  }
  return entries;
}

/**
 * The module where Debian's package of the same name has it: folders with a link for each file, so that taking that package's place
 * neither breaks its dependents nor turns a folder into a link, which dpkg cannot do in an upgrade.
 */
export function publicModule({ module, files }: FilledModule, place: string): DebEntry[] {
  return files.map((file) => symlink(`/usr/share/nodejs/${module.name}/${file.path}`, `${place}/${file.path}`));
}

function symlink(path: string, target: string): DebEntry {
  return { path, type: 'symlink', mode: 0o777, link: posix.relative(dirname(path), target) };
}
