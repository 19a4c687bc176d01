/**
 * The texts that every binary package carries: Description, copyright (DEP-5), changelog.Debian.gz.
 *
 * Secret: their form and place. Ruled by Policy 3.4, 4.4, 12.5, 12.7, 5.6.13 and the machine-readable copyright format 1.0.
 */
import { gzipSync } from 'node:zlib';
import type { DebEntry } from '../deb/archive.ts';
import { formatChangelog, makeEntry, parseChangelog } from '../deb/changelog.ts';

/** The one-line synopsis: no article, no full stop at its end, 80 characters at most. */
export function synopsis(summary: string, fallback: string): string {
  const plain = summary
    .replaceAll(/[\s\u0000-\u001f\u007f]+/g, ' ')
    .trim()
    .replace(/^(a|an|the)\s+/i, '')
    .replace(/[\s.!]+$/, '');
  if (plain.length < 3) return fallback;
  if (plain.length <= 79) return plain;
  return `${plain.slice(0, 77).replace(/\s+\S*$/, '')}..`;
}

/** The Description field: synopsis and paragraphs, wrapped and indented. */
export function description(first: string, paragraphs: readonly string[]): string {
  const body = paragraphs.map((text) => wrap(text, 78).map((line) => ` ${line}`));
  return [first, ...body.flatMap((lines, index) => (index === 0 ? lines : [' .', ...lines]))].join('\n');
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [''];
  for (const word of text.split(/\s+/).filter((part) => part !== '')) {
    const last = lines.at(-1)!;
    if (last === '') lines[lines.length - 1] = word;
    else if (last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

export interface CopyrightFacts {
  readonly upstreamName: string;
  readonly source: string | undefined;
  readonly author: string | undefined;
  /** Short name or SPDX expression as upstream says it. */
  readonly licence: string | undefined;
  readonly licenceFiles: readonly { readonly name: string; readonly text: string }[];
}

/** Licences whose text base-files brings: the copyright file must point there (Policy 12.5). Title, version, name. */
const COMMON_LICENCES: readonly [title: RegExp, version: RegExp, name: string][] = [
  [/gnu lesser general public license/i, /version 2\.1/i, 'LGPL-2.1'],
  [/gnu lesser general public license/i, /version 3/i, 'LGPL-3'],
  [/gnu lesser general public license|\bLGPL\b/i, /^/, 'LGPL'],
  [/gnu general public license/i, /version 3/i, 'GPL-3'],
  [/gnu general public license/i, /version 2/i, 'GPL-2'],
  [/gnu general public license|\bGPL\b/i, /^/, 'GPL'],
  [/gnu free documentation license/i, /^/, 'GFDL'],
  [/apache license/i, /version 2\.0/i, 'Apache-2.0'],
  [/mozilla public license/i, /version 2\.0/i, 'MPL-2.0'],
];

/**
 * The machine-readable copyright file.
 * @param parts what others made and the package carries, with the files that are theirs (globs without the first slash)
 */
export function copyrightText(
  facts: CopyrightFacts,
  parts: readonly (CopyrightFacts & { readonly files: readonly string[] })[] = [],
): string {
  return [
    'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/',
    `Upstream-Name: ${oneLine(facts.upstreamName)}`,
    ...(facts.source === undefined ? [] : [`Source: ${oneLine(facts.source)}`]),
    ...[{ ...facts, files: ['*'] }, ...parts].flatMap(filesParagraph),
    '',
  ].join('\n');
}

function filesParagraph(facts: CopyrightFacts & { readonly files: readonly string[] }): string[] {
  const notices = facts.licenceFiles.flatMap((file) => copyrightLines(file.text)).slice(0, 40);
  const holders = notices.length > 0 ? [...new Set(notices)] : [facts.author ?? `the authors of ${facts.upstreamName}`];
  const texts = facts.licenceFiles.flatMap((file, index) => [
    ...(index > 0 ? ['', `--- ${file.name} ---`, ''] : []),
    ...licenceLines(file.text),
  ]);
  const body = texts.length > 0 ? texts : ['The package names no text of its licence beside this name.'];
  return [
    '',
    `Files: ${facts.files.map((path) => path.replaceAll(/[\s?\\]/g, '?')).join('\n       ')}`,
    `Copyright: ${holders.map(oneLine).join('\n           ')}`,
    `License: ${oneLine(facts.licence ?? 'other').replaceAll(' ', '-')}`,
    ...body.map((line) => (line.trim() === '' ? ' .' : ` ${line.trimEnd()}`)),
  ];
}

export function oneLine(text: string): string {
  return text.replaceAll(/[\s\u0000-\u001f\u007f]+/g, ' ').trim();
}

export function copyrightLines(text: string): string[] {
  return text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => /^(copyright\b.*(\d{4}|©|\(c\))|©|\(c\)\s)/i.test(line) && line.length < 200)
    .map((line) => line.replace(/^copyright\s*/i, '').replace(/^(\(c\)|©)\s*/i, ''))
    .filter((line) => line !== '' && !/^(holder|owner|notice|\[yyyy\])/i.test(line));
}

/** From title to end, where one of these stands among other texts. Each ends like this. */
const WHOLE_TEXTS: readonly [start: RegExp, name: string][] = [
  [/^[^\S\n]*GNU GENERAL PUBLIC LICENSE\s+Version 3, 29 June 2007/m, 'GPL-3'],
  [/^[^\S\n]*GNU GENERAL PUBLIC LICENSE\s+Version 2, June 1991/m, 'GPL-2'],
  [/^[^\S\n]*GNU LESSER GENERAL PUBLIC LICENSE\s+Version 2\.1, February 1999/m, 'LGPL-2.1'],
  [/^[^\S\n]*Apache License\s+Version 2\.0, January 2004/m, 'Apache-2.0'],
];
const END_OF_TERMS = 'END OF TERMS AND CONDITIONS';

function pointerTo(name: string): string {
  return `On Debian systems the full text of this licence is in /usr/share/common-licenses/${name}.`;
}

/** A whole text that base-files has is left out; one that only speaks of such a licence gets the pointer added. */
export function licenceLines(text: string): string[] {
  const short = WHOLE_TEXTS.reduce((rest, [start, name]) => withoutWhole(rest, start, pointerTo(name)), text);
  const affero = /affero general public license/i.test(short);
  const common = affero
    ? undefined
    : COMMON_LICENCES.find(([title, version]) => title.test(short) && version.test(short))?.[2];
  if (common !== undefined && short === text && text.length > 8000) return [pointerTo(common)];
  const lines = short
    .trim()
    .split(/\r?\n/)
    .map((line) => line.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f]/g, ' '));
  return common === undefined || short !== text ? lines : [...lines, '', pointerTo(common)];
}

function withoutWhole(text: string, start: RegExp, pointer: string): string {
  const from = text.search(start);
  const end = from < 0 ? -1 : text.indexOf(END_OF_TERMS, from);
  return end < 0 ? text : `${text.slice(0, from)}${pointer}${text.slice(end + END_OF_TERMS.length)}`;
}

export interface ChangeEntry {
  readonly package: string;
  readonly version: string;
  readonly suite: string;
  readonly changes: readonly string[];
  readonly maintainer: string;
  /** Seconds since the epoch. */
  readonly date: number;
}

/**
 * changelog.Debian.gz with one entry above those of `older`, a debian/changelog; the same bytes for the same entry.
 * @throws UserError `changelog-entry` (a maintainer that is none), `changelog-syntax`
 */
export function changelogGz(entry: ChangeEntry, older = ''): Buffer {
  const { suite, date, ...rest } = entry;
  const made = makeEntry({ ...rest, distributions: [suite], date: new Date(date * 1000) });
  return gzipSync(formatChangelog([made, ...parseChangelog(older)]), { level: 9 });
}

export interface OwnPast {
  /** Of this very version. */
  readonly changes?: readonly string[];
  /** As debian/changelog. */
  readonly older?: string;
}

export interface OriginFacts {
  readonly package: string;
  readonly version: string;
  /** Codename. */
  readonly suite: string;
  /** What it was built from: 'pypi:flask==3.1.3', 'its package section'. */
  readonly source: string;
  readonly maintainer: string;
  /** Seconds since the epoch. */
  readonly date: number;
}

/** The changelog.Debian.gz of what was built: by whom, from what, above the entries of what it says of its own past. */
export function builtChangelog({ source, ...entry }: OriginFacts, own: OwnPast = {}): Buffer {
  return changelogGz({ ...entry, changes: [`Built by buildkit from ${source}.`, ...(own.changes ?? [])] }, own.older);
}

/** What Policy 12.5 and 12.7 want below /usr/share/doc. */
export function documentEntries(
  packageName: string,
  copyright: string | Uint8Array,
  changelog: string | Uint8Array,
): DebEntry[] {
  const file = (name: string, data: string | Uint8Array): DebEntry => ({
    path: `/usr/share/doc/${packageName}/${name}`,
    type: 'file',
    mode: 0o644,
    source: { data },
  });
  return [file('copyright', copyright), file('changelog.Debian.gz', changelog)];
}
