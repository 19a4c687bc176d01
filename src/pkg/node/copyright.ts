/**
 * The machine-readable copyright file of a whole tree of npm packages.
 *
 * Secret: which files of a package say its licence, and that a text which many packages share is printed once. Ruled by Policy 12.5
 * and the machine-readable copyright format 1.0.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { copyrightLines, licenceLines, oneLine } from '../texts.ts';
import type { Manifest } from './arborist.ts';
import { authorOf, licenceOf } from './manifest.ts';

const LICENCE_FILE = /^(licen[cs]e|copying|notice|unlicense)([.-].*)?$/i;
const MAX_LICENCE_BYTES = 500_000;

export interface PackageCopyright {
  /** As in `Files:`: '*', 'usr/lib/x/node_modules/y/*'. */
  readonly files: string;
  readonly name: string;
  readonly licence: string;
  readonly holders: readonly string[];
  readonly texts: readonly string[];
}

/** What the package in `folder` says of its copyright. */
export async function readCopyright(
  folder: string,
  name: string,
  manifest: Manifest,
  files: string,
): Promise<PackageCopyright> {
  const names = (await readdir(folder)).filter((one) => LICENCE_FILE.test(one)).sort();
  const texts: string[] = [];
  for (const one of names) {
    const path = join(folder, one);
    const facts = await stat(path);
    if (facts.isFile() && facts.size < MAX_LICENCE_BYTES) texts.push(await readFile(path, 'utf8'));
  }
  const notices = [...new Set(texts.flatMap(copyrightLines).map(oneLine))].slice(0, 40);
  return {
    files,
    name,
    licence: oneLine(licenceOf(manifest) ?? 'other'),
    holders: notices.length > 0 ? notices : [oneLine(authorOf(manifest) ?? `the authors of ${name}`)],
    texts,
  };
}

/** @param packages the whole package first */
export function treeCopyright(
  upstreamName: string,
  source: string | undefined,
  packages: readonly PackageCopyright[],
): string {
  const licences = new Map<string, { readonly label: string; readonly lines: readonly string[] }>();
  const used = new Map<string, number>();
  const stanzas: string[] = [];
  for (const one of packages) {
    const lines = one.texts.flatMap((text, index) => [...(index > 0 ? ['', '---', ''] : []), ...bodyLines(text)]);
    const short = one.licence.replaceAll(/[()]/g, '').replaceAll(' ', '-');
    const key = `${short}\n${lines
      .join(' ')
      .replaceAll(/[\s*"'`“”]+/g, ' ')
      .toLowerCase()
      .trim()}`;
    let licence = licences.get(key);
    if (licence === undefined) {
      const count = (used.get(short) ?? 0) + 1;
      used.set(short, count);
      licence = { label: count === 1 ? short : `${short}-${count}`, lines };
      licences.set(key, licence);
    }
    stanzas.push(
      ['', `Files: ${one.files}`, `Copyright: ${one.holders.join('\n           ')}`, `License: ${licence.label}`].join(
        '\n',
      ),
    );
  }
  const texts = [...licences.values()].map(({ label, lines }) =>
    [
      '',
      `License: ${label}`,
      ...(lines.length > 0 ? lines : [`No text of this licence came with the package.`]).map(foldLine),
    ].join('\n'),
  );
  return [
    'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/',
    `Upstream-Name: ${oneLine(upstreamName)}`,
    ...(source === undefined ? [] : [`Source: ${oneLine(source)}`]),
    ...stanzas,
    ...texts,
    '',
  ].join('\n');
}

/** The text without its copyright notices, which stand in the Copyright field: so the same licence is the same text. */
function bodyLines(text: string): string[] {
  const notices = new Set(copyrightLines(text));
  const isNotice = (line: string) => copyrightLines(line).some((notice) => notices.has(notice));
  const lines = licenceLines(text).filter((line) => !isNotice(line));
  return lines
    .slice(lines.findIndex((line) => line.trim() !== ''))
    .filter((line, index, all) => line.trim() !== '' || all[index - 1]?.trim() !== '');
}

function foldLine(line: string): string {
  return line.trim() === '' ? ' .' : ` ${line.trimEnd()}`;
}
