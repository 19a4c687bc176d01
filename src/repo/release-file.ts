/** Release as it is read back: dates and listed files, of any repository (DebianRepository/Format). */
import type { Problem } from '../core/errors.ts';
import { getField, parseParagraph } from '../deb/control.ts';

export type HashName = 'MD5Sum' | 'SHA1' | 'SHA256' | 'SHA512';

/** Weakest first. */
export const HASH_NAMES: readonly HashName[] = ['MD5Sum', 'SHA1', 'SHA256', 'SHA512'];

export interface ListedFile {
  /** Below dists/SUITE/. */
  readonly path: string;
  readonly size: number;
  readonly hashes: Readonly<Partial<Record<HashName, string>>>;
}

export interface ReleaseFile {
  readonly suite: string | undefined;
  readonly codename: string | undefined;
  readonly components: readonly string[];
  readonly architectures: readonly string[];
  readonly byHash: boolean;
  readonly date: Date | undefined;
  readonly validUntil: Date | undefined;
  readonly files: readonly ListedFile[];
  /** Lines and fields that cannot be read. */
  readonly problems: readonly Problem[];
}

/** @throws UserError `control-syntax` for what is no paragraph at all */
export function parseRelease(text: string, file: string): ReleaseFile {
  const stanza = parseParagraph(text, { file });
  const problems: Problem[] = [];
  const field = (name: string) => getField(stanza, name);
  const words = (name: string) => (field(name) ?? '').split(/\s+/).filter((word) => word !== '');
  const date = (name: string) => {
    const value = field(name);
    const milliseconds = value === undefined ? Number.NaN : Date.parse(value);
    if (!Number.isNaN(milliseconds)) return new Date(milliseconds);
    if (value !== undefined) problems.push({ code: 'bad-date', message: `${name} '${value}' is no date`, file });
    return undefined;
  };
  const files = new Map<string, { path: string; size: number; hashes: Partial<Record<HashName, string>> }>();
  for (const name of HASH_NAMES) {
    for (const line of (field(name) ?? '').split('\n').map((part) => part.trim())) {
      if (line === '') continue;
      const match = /^([0-9a-f]+)\s+(\d+)\s+(\S+)$/i.exec(line);
      if (!match) {
        problems.push({
          code: 'bad-release-line',
          message: `${name} holds a line that lists no file: '${line}'`,
          file,
        });
        continue;
      }
      const [, hash = '', size, path = ''] = match;
      const entry = files.get(path) ?? { path, size: Number(size), hashes: {} };
      if (entry.hashes[name] !== undefined || entry.size !== Number(size)) {
        problems.push({ code: 'listed-twice', message: `'${path}' is listed twice in Release`, file });
      }
      entry.hashes[name] = hash.toLowerCase();
      files.set(path, entry);
    }
  }
  return {
    suite: field('Suite'),
    codename: field('Codename'),
    components: words('Components'),
    architectures: words('Architectures'),
    byHash: field('Acquire-By-Hash')?.toLowerCase() === 'yes',
    date: date('Date'),
    validUntil: date('Valid-Until'),
    files: [...files.values()],
    problems,
  };
}
