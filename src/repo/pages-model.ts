/**
 * What pages show, taken from the catalog.
 *
 * Secret: which version speaks for a package (the newest), and how a long list of names is cut into pages. Pure.
 */
import { UserError } from '../core/errors.ts';
import { getField, type Paragraph, parseParagraph } from '../deb/control.ts';
import { formatRelation, parseRelations, RELATION_FIELDS, type RelationGroup } from '../deb/relation.ts';
import { compareVersions } from '../deb/version.ts';
import type { CatalogPackage, PublishedPackage } from './catalog.ts';
import { listLines } from './file-list.ts';
import { synopsisOf } from './pages-html.ts';

/** One line of a list of packages. */
export interface ListedPackage {
  readonly name: string;
  /** The newest. */
  readonly version: string;
  readonly synopsis: string;
}

/** A name and the text of a relation to it: 'libc6 (>= 2.36)'. */
export interface RelationText {
  readonly name: string;
  readonly text: string;
}

export interface RelationRow {
  /** 'Depends', 'Recommends', ... */
  readonly field: string;
  /** Groups that all must be met, each of alternatives. */
  readonly groups: readonly (readonly RelationText[])[];
  /** In place of groups, when the field could not be read or is endless. */
  readonly text?: string | undefined;
}

/** What a package installs, in order; of very many only the first. */
export interface PageFiles {
  readonly shown: readonly string[];
  readonly count: number;
}

const SHOWN_FILES = 5000;

/** @param list as `unpackList` gives it */
export function pageFiles(list: Buffer): PageFiles {
  const shown: string[] = [];
  let count = 0;
  for (const path of listLines(list)) {
    if (count < SHOWN_FILES) shown.push(path.toString());
    count += 1;
  }
  return { shown: shown.sort(), count }; // lists that an older buildkit made are not in order
}

export interface PackagePage extends ListedPackage {
  readonly description: string;
  /** The stanza of the newest version. */
  readonly control: Paragraph;
  /** Newest first, then by architecture. */
  readonly versions: readonly PublishedPackage[];
  readonly relations: readonly RelationRow[];
  /** What the newest version installs, where a list was made for Contents; without a slash at the beginning. */
  readonly files: PageFiles | undefined;
  /** The newest entries; '' when there are none. */
  readonly changelog: string;
}

/** A hostile field of a megabyte shall not make a page of ten. */
const MAX_RELATION_CHARACTERS = 20_000;
const MAX_SYNOPSIS_CHARACTERS = 200;

/**
 * @param versions everything of one name in one suite; at least one
 * @param filesOf the list of files of a package, where there is one
 */
export function packagePage(
  versions: readonly PublishedPackage[],
  filesOf: (item: CatalogPackage) => PageFiles | undefined,
  changelogOf: (item: CatalogPackage) => string = () => '',
): PackagePage {
  const sorted = newestFirst(versions);
  const newest = sorted[0]!.package;
  const control = parseParagraph(newest.control);
  const description = getField(control, 'Description') ?? '';
  return {
    name: newest.name,
    version: newest.version,
    synopsis: synopsisOf(description).slice(0, MAX_SYNOPSIS_CHARACTERS),
    description,
    control,
    versions: sorted,
    relations: RELATION_FIELDS.flatMap((field) => relationRow(control, field)),
    files: filesOf(newest),
    changelog: changelogOf(newest),
  };
}

/** By version, then by architecture. */
export function newestFirst(versions: readonly PublishedPackage[]): PublishedPackage[] {
  return [...versions].sort(
    (a, b) =>
      compareVersions(b.package.version, a.package.version) ||
      compareText(a.package.architecture, b.package.architecture) ||
      compareText(a.component, b.component),
  );
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function relationRow(control: Paragraph, field: string): RelationRow[] {
  const value = getField(control, field)?.trim();
  if (value === undefined || value === '') return [];
  if (value.length > MAX_RELATION_CHARACTERS) {
    return [{ field, groups: [], text: `${value.slice(0, 500)} ... (${value.length} characters)` }];
  }
  try {
    return [{ field, groups: parseRelations(value).map(relationTexts) }];
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return [{ field, groups: [], text: value }];
  }
}

function relationTexts(group: RelationGroup): RelationText[] {
  return group.map((relation) => ({ name: relation.name, text: formatRelation(relation) }));
}

/** The names that relations of a page speak of, each once. */
export function namesInRelations(page: PackagePage): string[] {
  return [...new Set(page.relations.flatMap((row) => row.groups.flat().map((relation) => relation.name)))];
}

/** A part of a long list that has a page of its own. */
export interface ListPart {
  /** What its names begin with: 'a', 'lib', 'python3-d'. */
  readonly prefix: string;
  readonly count: number;
}

/** Names [from, to) of a sorted list that share a page. */
interface NameGroup {
  readonly prefix: string;
  readonly from: number;
  readonly to: number;
}

/** Names on one page; more are cut by what they begin with. */
const NAMES_PER_PAGE = 500;

/**
 * Cuts a long sorted list of names where they begin differently, as an index of a book: by the first letter, and where that is
 * still too long, by the next. One group with an empty prefix when all fit on one page.
 */
export function groupNames(names: readonly string[], limit: number = NAMES_PER_PAGE): NameGroup[] {
  return cut(names, 0, names.length, '', limit);
}

function cut(names: readonly string[], from: number, to: number, prefix: string, limit: number): NameGroup[] {
  if (to - from <= limit) return [{ prefix, from, to }];
  const groups: NameGroup[] = [];
  let start = from;
  while (start < to) {
    const next = names[start]!.slice(0, prefix.length + 1);
    let end = start + 1;
    while (end < to && names[end]!.startsWith(next)) end += 1;
    // a name that is all prefix begins every longer one: it stays alone, and cannot be cut further
    groups.push(...(next === prefix ? [{ prefix, from: start, to: start + 1 }] : cut(names, start, end, next, limit)));
    if (next === prefix) end = start + 1;
    start = end;
  }
  return groups;
}
