/**
 * control.tar: its files, and what the one called `control` says. Pure.
 *
 * Secret: what is refused, since no honest package has it: folders, links, names given twice, a control file that is not one
 * paragraph with a valid name, version and architecture. Ruled by deb(5), deb-control(5), deb-conffiles(5).
 */
import { isUtf8 } from 'node:buffer';
import { UserError } from '../core/errors.ts';
import { isArch } from './arch.ts';
import { getField, type Paragraph, parseParagraph } from './control.ts';
import { isPackageName } from './package.ts';
import { readTar } from './tar.ts';
import { isVersion } from './version.ts';

/** Of the file `control` itself: a 1 MB dependency field fits, a 100 MB one is an attack. */
const MAX_CONTROL = 8 * 1024 * 1024;

/** What a control archive says. */
export interface ControlArchive {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly control: Paragraph;
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Paths, without flags. */
  readonly conffiles: readonly string[];
}

/**
 * @param tar decompressed
 * @throws UserError `deb-...`, `tar-...`, `control-...` that names file and member
 */
export function readControlArchive(tar: Buffer, file: string, member: string): ControlArchive {
  const files = readControlFiles(tar, file, member);
  const control = parseControlFile(files.get('control'), file, member);
  const identity = readIdentity(control, file, member);
  return { ...identity, control, files, conffiles: parseConffiles(files.get('conffiles')) };
}

function readControlFiles(tar: Buffer, file: string, member: string): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  for (const { header, data } of readTar(tar, { file, member })) {
    const name = header.name.toString('utf8').replace(/^(\.\/+)+/, '');
    const fail = (what: string): never => {
      throw new UserError('deb-broken', `${member}: ${JSON.stringify(name.slice(0, 200))} ${what}`, { file });
    };
    if (header.type === 'dir' && (name === '.' || name === '')) continue;
    if (!/^[^/\0-\x1f]{1,100}$/.test(name) || name === '.' || name === '..') fail('is no name for a control file');
    if (header.type !== 'file') fail(`is a ${header.type} where only files belong`);
    if (files.has(name)) fail('is there twice');
    files.set(name, Buffer.from(data)); // lets go of the rest of a batch
  }
  return files;
}

function parseControlFile(bytes: Uint8Array | undefined, file: string, member: string): Paragraph {
  const place = `${member}: control`;
  if (bytes === undefined) throw new UserError('deb-broken', `${place}: missing`, { file });
  if (bytes.length > MAX_CONTROL)
    throw new UserError('deb-too-large', `${place}: larger than ${MAX_CONTROL >> 20} MiB`, { file });
  if (!isUtf8(bytes)) throw new UserError('deb-broken', `${place}: not UTF-8`, { file });
  try {
    return parseParagraph(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8'), { file });
  } catch (cause) {
    if (!(cause instanceof UserError)) throw cause;
    throw new UserError(cause.code, `${place}: ${cause.message}`, { file, line: cause.line, hint: cause.hint, cause });
  }
}

function readIdentity(
  control: Paragraph,
  file: string,
  member: string,
): { name: string; version: string; architecture: string } {
  const fail = (what: string): never => {
    throw new UserError('deb-broken', `${member}: control: ${what}`, { file });
  };
  const field = (name: string) => getField(control, name) ?? fail(`no field '${name}'`);
  const [name, version, architecture] = [field('Package'), field('Version'), field('Architecture')];
  if (!isPackageName(name)) fail(`'${name.slice(0, 200)}' is no package name`);
  if (!isVersion(version)) fail(`'${version.slice(0, 200)}' is no Debian version`);
  if (!isArch(architecture)) fail(`'${architecture.slice(0, 200)}' is no architecture of a binary package`);
  return { name, version, architecture };
}

/** deb-conffiles(5): a path a line, a flag before it possible. */
function parseConffiles(bytes: Uint8Array | undefined): string[] {
  const lines = bytes === undefined ? [] : Buffer.from(bytes).toString('utf8').split('\n');
  return lines.map((line) => line.trimEnd().replace(/^[a-z-]+\s+(?=\/)/, '')).filter((line) => line !== '');
}
