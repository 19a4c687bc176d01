/**
 * The files of an unpacked npm package as Debian wants them: interpreters, modes, nothing for other machines.
 *
 * Secret: what npm lets into a package and dpkg or lintian does not (Policy 8.4, 10.4, 10.9): `env` in interpreter lines, programs
 * that are none, prebuilt add-ons for every other platform, notes for git and npm.
 */
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { DebSource } from '../../deb/archive.ts';
import { type ElfNeeds, readElf } from '../elf.ts';
import type { NodeTarget } from './target.ts';

export interface PackageFile {
  /** Below the package's folder: 'lib/index.js'. */
  readonly path: string;
  readonly mode: 0o644 | 0o755;
  readonly source: DebSource;
  /** Of ELF files that ask something of the dynamic linker. */
  readonly elf: ElfNeeds | undefined;
  /** A program or library for this kind of machine only. */
  readonly native: boolean;
  /** A native add-on that is tied to one version of Node.js (not to Node-API). */
  readonly tied: boolean;
}

/** What git, npm and editors leave behind and no program reads. */
const NOTES = /(^|\/)(\.npmignore|\.gitignore|\.gitattributes|\.gitmodules|\.package-lock\.json)$|(^|\/)\.git(hub)?\//;

/** Of the package's own makers. Elsewhere such files may be templates that a generator hands out, and stay. */
const MAKERS_NOTES =
  /^((tests?|spec|__tests__|examples?|benchmarks?)\/.*\/?)?(\.eslint(rc(\.\w+)?|ignore)|yarn\.lock|package-lock\.json|pnpm-lock\.yaml|\.(travis|appveyor)\.yml|\.editorconfig|\.nycrc(\.json)?|\.yarnrc(\.yml)?|\.prettier(rc(\.\w+)?|ignore)|\.jshintrc|\.npmrc)$/;

/** prebuildify and node-pre-gyp: 'prebuilds/darwin-x64+arm64/x.node'. */
const PREBUILD = /(^|\/)prebuilds\/([a-z0-9]+)-([a-z0-9+]+)\//;

/**
 * Reads every file below `folder`, but what lies in its `node_modules`: those are packages of their own.
 * @param programs paths that package.json's `bin` names
 * @param node what scripts are run by
 */
export async function packageFiles(
  folder: string,
  programs: ReadonlySet<string>,
  target: NodeTarget,
  node = '/usr/bin/node',
): Promise<PackageFile[]> {
  const files: PackageFile[] = [];
  for (const path of await walk(folder)) {
    if (NOTES.test(path) || MAKERS_NOTES.test(path) || isForeignPrebuild(path, target)) continue;
    const file = await readPackageFile(folder, path, programs.has(path), target, node);
    if (file !== undefined) files.push(file);
  }
  return files;
}

async function walk(folder: string, below = ''): Promise<string[]> {
  const paths: string[] = [];
  for (const item of await readdir(join(folder, below), { withFileTypes: true })) {
    const path = below === '' ? item.name : `${below}/${item.name}`;
    if (item.isDirectory()) {
      if (path !== 'node_modules') paths.push(...(await walk(folder, path)));
    } else if (item.isFile()) paths.push(path);
  }
  return paths.sort();
}

/** True for a folder of prebuilt add-ons that another system or processor is for. */
export function isForeignPrebuild(path: string, target: NodeTarget): boolean {
  const match = PREBUILD.exec(path);
  if (!match) return false;
  const [, , os, cpus] = match;
  return os !== target.os || !cpus!.split('+').includes(target.cpu) || /\.musl\.node$/.test(path);
}

async function readPackageFile(
  folder: string,
  path: string,
  isProgram: boolean,
  target: NodeTarget,
  node: string,
): Promise<PackageFile | undefined> {
  const full = join(folder, path);
  const { mode, size } = await stat(full);
  const plain: PackageFile = { path, mode: 0o644, source: { file: full }, elf: undefined, native: false, tied: false };
  const isLibrary = /\.(node|so(\.[\d.]+)?)$/.test(path);
  if (!isProgram && (mode & 0o111) === 0 && !isLibrary) return plain;
  const head = await readHead(full);
  if (isElf(head)) {
    if (head.readUInt16LE(18) !== target.elfMachine) return undefined; // for another processor: nothing here could run it
    const bytes = await readFile(full);
    const tied = path.endsWith('.node') && isTied(bytes);
    return { ...plain, mode: isLibrary ? 0o644 : 0o755, elf: readElf(bytes), native: true, tied };
  }
  if (isLibrary && !isProgram) return size > 0 && isForeignBinary(head) ? undefined : plain;
  const isScript = head[0] === 0x23 && head[1] === 0x21;
  if (!isScript && !isProgram) return plain;
  const { data, runs } = withInterpreter(await readFile(full), isProgram, node);
  return { ...plain, mode: runs ? 0o755 : 0o644, source: { data } };
}

async function readHead(file: string): Promise<Buffer> {
  const handle = await open(file, 'r');
  try {
    const head = Buffer.alloc(64);
    const { bytesRead } = await handle.read(head, 0, 64, 0);
    return head.subarray(0, Math.max(bytesRead, 4));
  } finally {
    await handle.close();
  }
}

function isElf(head: Buffer): boolean {
  return head.length === 64 && head.readUInt32BE(0) === 0x7f454c46;
}

/** Mach-O and Windows' PE. */
function isForeignBinary(head: Buffer): boolean {
  return (
    head.toString('latin1', 0, 2) === 'MZ' ||
    [0xfeedface, 0xfeedfacf, 0xcefaedfe, 0xcffaedfe, 0xcafebabe].includes(head.readUInt32BE(0))
  );
}

/** Node-API add-ons run on every later Node; those that call V8 or Node's C++ on one only. */
function isTied(bytes: Buffer): boolean {
  return bytes.includes('_ZN2v8') || bytes.includes('node_module_register');
}

const NODE_LINE = /^#!\s*(?:\/\S*\/)?(?:env\s+(?:-S\s*)?)?(?:node|nodejs)((?:\s+\S+)*)\s*$/;
const KNOWN_INTERPRETERS: Readonly<Record<string, string>> = {
  bash: '/bin/bash',
  sh: '/bin/sh',
  perl: '/usr/bin/perl',
};

/**
 * The script with an interpreter line that Debian takes, and whether it may be a program.
 * @param isProgram named in `bin`: it is JavaScript where nothing else is said, as for npm
 * @param interpreter of JavaScript
 */
export function withInterpreter(
  content: Buffer,
  isProgram: boolean,
  interpreter = '/usr/bin/node',
): { readonly data: Buffer; readonly runs: boolean } {
  const isScript = content[0] === 0x23 && content[1] === 0x21;
  if (!isScript) {
    return isProgram
      ? { data: Buffer.concat([Buffer.from(`#!${interpreter}\n`), content]), runs: true }
      : { data: content, runs: false };
  }
  const newline = content.indexOf(10);
  const end = newline < 0 ? content.length : newline;
  const line = content.toString('utf8', 0, end).trimEnd(); // npm takes the carriage return off too
  const replaced = (text: string, runs = true) => ({
    data: Buffer.concat([Buffer.from(text), content.subarray(end)]),
    runs,
  });
  const node = NODE_LINE.exec(line);
  if (node) {
    const args = node[1]!.trim().split(/\s+/).filter(Boolean);
    const program = interpreter === '/usr/bin/node' ? 'node' : interpreter;
    // the kernel hands everything behind the program over as one argument
    return replaced(
      args.length > 1 ? `#!/usr/bin/env -S ${program} ${args.join(' ')}` : [`#!${interpreter}`, ...args].join(' '),
    );
  }
  const other = /^#!\s*(?:\/\S*\/)?(?:env\s+(?:-S\s*)?)?([\w.+-]+)(\s.*)?$/.exec(line);
  const known = other && Object.hasOwn(KNOWN_INTERPRETERS, other[1]!) ? KNOWN_INTERPRETERS[other[1]!] : undefined;
  return known === undefined ? replaced(line, isProgram) : replaced(`#!${known}${(other![2] ?? '').trimEnd()}`);
}
