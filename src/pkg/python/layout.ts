/**
 * Where the files of a wheel go in a Debian package.
 *
 * Secret: the mapping of the PyPA "Binary distribution format" to Debian's Python policy (public modules in dist-packages,
 * interpreter lines, INSTALLER and RECORD as dh_python3 leaves them) and Policy 9.1, 10.9, 12.1.
 */
import { basename } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { DebEntry } from '../../deb/archive.ts';
import { parseScripts, privatePath, scriptText } from './metadata.ts';
import type { Wheel, WheelFile } from './wheel.ts';

const DIST_PACKAGES = '/usr/lib/python3/dist-packages';

/** pip's notes of how it installed; RECORD would let pip uninstall what dpkg owns. */
const LEFT_OUT = /\/(RECORD(\..*)?|INSTALLER|REQUESTED|direct_url\.json)$/;

const EXTENSION_MODULE = /\.so(\.[0-9.]+)?$/;

export interface LayoutOptions {
  /** 'X.Y' of the target, for header files. */
  readonly pythonVersion: string;
  /** Stands in for times that no file can have had. */
  readonly sourceDateEpoch: number;
  /** Where modules go instead of dist-packages: private ones of an application. */
  readonly privateDir?: string | undefined;
  /** False for a distribution that is carried inside another: its programs are not for users. */
  readonly programs?: boolean;
}

export async function layOut(wheel: Wheel, options: LayoutOptions): Promise<DebEntry[]> {
  const { pythonVersion, sourceDateEpoch, privateDir } = options;
  const modules = privateDir ?? DIST_PACKAGES;
  const programs = options.programs ?? true;
  const entries = new Map<string, DebEntry>();
  const add = (entry: DebEntry) => {
    if (!entries.has(entry.path)) entries.set(entry.path, entry);
  };
  for (const file of wheel.files) {
    const path = installedPath(wheel, file.path, pythonVersion, modules);
    if (path === undefined || (!programs && /^\/usr\/(bin|include)\//.test(path))) continue;
    add(await entryFor(file, path, sourceDateEpoch, privateDir));
  }
  const generated = (path: string, mode: number, data: string): DebEntry => ({
    path,
    type: 'file',
    mode,
    source: { data },
  });
  add(generated(`${modules}/${wheel.distInfo}/INSTALLER`, 0o644, 'debian\n'));
  const entryPoints = wheel.files.find((file) => file.path === `${wheel.distInfo}/entry_points.txt`);
  const scripts = entryPoints && programs ? parseScripts((await entryPoints.read()).toString('utf8')) : [];
  for (const script of scripts)
    add(generated(`/usr/bin/${basename(script.name)}`, 0o755, scriptText(script, privateDir)));
  return [...entries.values()];
}

/** True when a wheel brings programs for users. */
export async function hasPrograms(wheel: Wheel): Promise<boolean> {
  if (wheel.files.some((file) => file.path.startsWith(`${wheel.dataDir}/scripts/`))) return true;
  const entryPoints = wheel.files.find((file) => file.path === `${wheel.distInfo}/entry_points.txt`);
  return entryPoints !== undefined && parseScripts((await entryPoints.read()).toString('utf8')).length > 0;
}

/** undefined: not part of the package. */
function installedPath(
  wheel: Pick<Wheel, 'dataDir' | 'distInfo' | 'tags'>,
  path: string,
  pythonVersion: string,
  modules: string,
): string | undefined {
  if (path.startsWith(`${wheel.distInfo}/`) && LEFT_OUT.test(path)) return undefined;
  if (/\.pyc$|(^|\/)__pycache__\//.test(path)) return undefined;
  if (!path.startsWith(`${wheel.dataDir}/`)) return `${modules}/${path}`;
  const [scheme = '', ...rest] = path.slice(wheel.dataDir.length + 1).split('/');
  const inner = rest.join('/');
  switch (scheme) {
    case 'purelib':
    case 'platlib':
      return `${modules}/${inner}`;
    case 'scripts':
      return `/usr/bin/${inner}`;
    case 'headers':
      return `/usr/include/python${pythonVersion}/${wheel.tags.name}/${inner}`;
    case 'data':
      return rest[0] === 'etc' ? `/${inner}` : `/usr/${inner}${/^share\/man\/.*\.\d\w*$/.test(inner) ? '.gz' : ''}`;
    default:
      return undefined;
  }
}

async function entryFor(
  file: WheelFile,
  path: string,
  sourceDateEpoch: number,
  privateDir: string | undefined,
): Promise<DebEntry> {
  // zip knows no time before 1980, which is what makers of reproducible wheels write there
  const mtime = file.mtime < 500_000_000 ? sourceDateEpoch : file.mtime;
  const common = { path, type: 'file', mtime } as const;
  const conffile = path.startsWith('/etc/');
  if (path.startsWith('/usr/share/man/') && path.endsWith('.gz')) {
    return { ...common, mode: 0o644, source: { data: gzipSync(await file.read(), { level: 9 }) } };
  }
  const isProgram = path.startsWith('/usr/bin/');
  if (!isProgram && !file.executable) {
    return { ...common, mode: 0o644, conffile, source: { open: () => file.open(), size: file.size } };
  }
  const content = await file.read();
  const runs = content.subarray(0, 2).toString('latin1') === '#!' || isElf(content);
  const mode = isProgram || (runs && !EXTENSION_MODULE.test(path)) ? 0o755 : 0o644;
  return { ...common, mode, conffile, source: { data: isProgram ? withInterpreter(content, privateDir) : content } };
}

function isElf(content: Uint8Array): boolean {
  return content[0] === 0x7f && content[1] === 0x45 && content[2] === 0x4c && content[3] === 0x46;
}

/** '#!python' of a wheel's script, or any other Python, becomes Debian's interpreter, which is told of private modules. */
export function withInterpreter(content: Buffer, privateDir?: string): Buffer {
  const end = content.indexOf(10);
  const line = content.subarray(0, end < 0 ? content.length : end).toString('latin1');
  const match = /^#!\s*(?:\S*\/)?(?:env\s+)?pythonw?[\d.]*(\s.*)?$/.exec(line.trimEnd());
  if (!match) return content;
  const options = match[1]?.trim() ? ` ${match[1].trim()}` : '';
  const prelude = privateDir === undefined ? '' : `\n${privatePath(privateDir)}`;
  return Buffer.concat([
    Buffer.from(`#!/usr/bin/python3${options}${prelude}`),
    content.subarray(end < 0 ? content.length : end),
  ]);
}
