/**
 * Source packages and uploads: a .dsc or .changes with the files that it lists beside it.
 *
 * Secret: what must be checked before a list of files is believed: each is there, beside the list, with its size and digest
 * (Policy 5.4, 5.5; deb-changes(5), dsc(5)).
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import { getField, type Paragraph, parseParagraph } from '../deb/control.ts';
import { isPackageName } from '../deb/package.ts';
import { isVersion } from '../deb/version.ts';
import { checkField, checkStanzaSize } from './admit.ts';
import type { NewPackage } from './catalog.ts';

/** A file that a list names, found beside it. */
export interface ListedFile {
  readonly name: string;
  readonly path: string;
  readonly size: number;
  readonly md5: string;
  readonly sha256: string;
}

const MAX_LIST_BYTES = 4 * 1024 * 1024;

/** Takes the signature off: what counts is what dpkg-source would see. The signature itself is checked by `checkUploader`. */
async function readList(path: string): Promise<Paragraph> {
  const { size } = await stat(path);
  if (size > MAX_LIST_BYTES) throw new UserError('bad-list', 'it is larger than any list of files', { file: path });
  const text = (await readFile(path)).toString('utf8').replaceAll('\r\n', '\n');
  const signed = /^-----BEGIN PGP SIGNED MESSAGE-----\n(?:[^\n]+\n)*\n(.*?)\n-----BEGIN PGP SIGNATURE-----/s.exec(text);
  return parseParagraph(signed ? `${signed[1]!.replaceAll(/^- /gm, '')}\n` : text, {
    file: path,
    blankLines: 'separate',
  });
}

/** The files of a list, each with the digest that it must have. @throws UserError naming the first that is not as listed */
async function readListed(path: string, list: Paragraph): Promise<ListedFile[]> {
  const sums = getField(list, 'Checksums-Sha256');
  if (sums === undefined) throw new UserError('bad-list', 'it has no field Checksums-Sha256', { file: path });
  const files: ListedFile[] = [];
  for (const line of sums.split('\n').map((part) => part.trim())) {
    if (line === '') continue;
    const [sha256 = '', size = '', name = ''] = line.split(/\s+/);
    if (!/^[0-9a-f]{64}$/.test(sha256) || !/^\d+$/.test(size) || !/^[A-Za-z0-9][A-Za-z0-9.+_~-]*$/.test(name)) {
      throw new UserError('bad-list', `'${line}' lists no file`, { file: path });
    }
    files.push(await checkListed(path, { name, size: Number(size), sha256 }));
  }
  return files;
}

async function checkListed(list: string, wanted: { name: string; size: number; sha256: string }): Promise<ListedFile> {
  const path = join(dirname(list), wanted.name);
  const found = await digestsOf(path, list);
  if (found.size !== wanted.size || found.sha256 !== wanted.sha256) {
    throw new UserError('listed-file-differs', `'${wanted.name}' is not what '${basename(list)}' says`, { file: path });
  }
  return { name: wanted.name, path, ...found };
}

async function digestsOf(path: string, list: string): Promise<{ size: number; md5: string; sha256: string }> {
  const md5 = createHash('md5');
  const sha256 = createHash('sha256');
  let size = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
      size += chunk.length;
      md5.update(chunk);
      sha256.update(chunk);
    }
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw cause;
    throw new UserError(
      'listed-file-missing',
      `'${basename(path)}', which '${basename(list)}' lists, is not beside it`,
      { cause },
    );
  }
  return { size, md5: md5.digest('hex'), sha256: sha256.digest('hex') };
}

export interface SourceCandidate {
  readonly item: Omit<NewPackage, 'filename'>;
  /** What the .dsc lists; not the .dsc itself. */
  readonly files: readonly ListedFile[];
}

/** Fields that the stanza of Sources has in another form, or not at all. */
const LIST_FIELDS = /^(?:source|files|checksums-.*|package|directory)$/i;

/**
 * Reads a .dsc and checks its files.
 * @throws UserError `bad-list`, `bad-package`, `listed-file-missing`, `listed-file-differs`
 */
export async function readSource(path: string): Promise<SourceCandidate> {
  const list = await readList(path);
  const name = getField(list, 'Source') ?? '';
  const version = getField(list, 'Version') ?? '';
  const bad = (message: string) => new UserError('bad-package', message, { file: path });
  if (!isPackageName(name) || name.length > 100) throw bad(`'${name.slice(0, 100)}' is no name of a source`);
  if (!isVersion(version) || version.length > 120) throw bad(`'${version.slice(0, 100)}' is no Debian version`);
  const files = await readListed(path, list);
  const own = { name: basename(path), path, ...(await digestsOf(path, path)) };
  let control = `Package: ${name}\n`;
  for (const field of list.fields) {
    if (LIST_FIELDS.test(field.name)) continue;
    checkField(path, field.name, field.value);
    control += `${field.name}:${field.value.startsWith('\n') ? '' : ' '}${field.value}\n`;
  }
  const all = [own, ...files];
  control += `Files:\n${all.map((file) => ` ${file.md5} ${file.size} ${file.name}\n`).join('')}`;
  control += `Checksums-Sha256:\n${all.map((file) => ` ${file.sha256} ${file.size} ${file.name}\n`).join('')}`;
  checkStanzaSize(path, Buffer.from(control));
  const { size, md5, sha256 } = own;
  const item = {
    kind: 'dsc' as const,
    name,
    version,
    architecture: 'source',
    source: name,
    size,
    md5,
    sha1: '',
    sha256,
    sha512: '',
    control,
  };
  return { item, files };
}

/** Files of an upload: what the .changes lists, as paths. @throws UserError when one is not as listed, or nobody may upload it */
export async function readChanges(context: Context, path: string, uploaders: string): Promise<string[]> {
  await checkUploader(context, path, uploaders);
  const files = await readListed(path, await readList(path));
  return files.map((file) => file.path);
}

/**
 * With keys in the folder of uploaders, only they may upload; without any, whoever can run the command may.
 * @throws UserError `not-an-uploader`
 */
async function checkUploader(context: Context, path: string, folder: string): Promise<void> {
  const names = await readdir(folder).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  });
  if (names.length === 0) return;
  const keys = await Promise.all(names.map((name) => readFile(join(folder, name))));
  const { verifyClearSigned } = await import('../deb/openpgp.ts');
  try {
    await verifyClearSigned(await readFile(path), keys, { date: context.now(), file: path });
  } catch (cause) {
    if (!(cause instanceof UserError)) throw cause;
    throw new UserError(
      'not-an-uploader',
      `'${basename(path)}' is not signed by anybody who may upload: ${cause.message}`,
      {
        hint: `put the public key of the uploader into ${folder}`,
        cause,
      },
    );
  }
}
