/**
 * What a build says of itself: .changes (what was made, for whom) and .buildinfo (with what it was made).
 *
 * Secret: the fields of deb-changes(5) and deb-buildinfo(5), in the order of dpkg-genchanges and dpkg-genbuildinfo.
 */
import { formatChangelogDate } from './changelog.ts';
import { foldLines, formatParagraph, getField, type Paragraph, paragraph } from './control.ts';
import { parseVersion } from './version.ts';

/** A file that a list names. Digests are hex. */
export interface ListedFile {
  readonly name: string;
  readonly size: number;
  readonly md5: string;
  readonly sha1: string;
  readonly sha256: string;
}

/** A package that was made: its file and its control fields. */
export interface ListedPackage extends ListedFile {
  readonly control: Paragraph;
}

export interface BuildFacts {
  readonly source: string;
  /** Whole, with the epoch. */
  readonly version: string;
  readonly packages: readonly ListedPackage[];
  /** .dsc and what it lists; empty for a build of binaries alone. */
  readonly sources: readonly ListedFile[];
  readonly date: Date;
}

export interface ChangesFacts extends BuildFacts {
  readonly buildinfo: ListedFile;
  readonly distribution: string;
  readonly maintainer: string;
  /** One line each. */
  readonly changes: readonly string[];
}

export interface BuildinfoFacts extends BuildFacts {
  readonly buildArchitecture: string;
  /** Vendor: `Debian`. */
  readonly origin: string;
  /** NAME to VERSION of what was installed. */
  readonly installed: Readonly<Record<string, string>>;
  readonly environment: Readonly<Record<string, string>>;
  /** Fields of the builder's own; values of one line each. */
  readonly own: readonly (readonly [name: string, lines: readonly string[]])[];
}

export function formatChanges(facts: ChangesFacts): string {
  const { source, version, packages, sources, buildinfo } = facts;
  const files = [...sources, buildinfo, ...packages];
  const heading = `${source} (${version}) ${facts.distribution}; urgency=medium`;
  return formatParagraph(
    paragraph([
      ['Format', '1.8'],
      ['Date', formatChangelogDate(facts.date)],
      ['Source', source],
      ['Binary', binaryNames(packages)],
      ['Architecture', architectures(facts)],
      ['Version', version],
      ['Distribution', facts.distribution],
      ['Urgency', 'medium'],
      ['Maintainer', facts.maintainer],
      ['Changed-By', facts.maintainer],
      ['Description', foldLines([...packages.map(description)])],
      ['Changes', foldLines([heading, '', ...facts.changes.map((line) => `  * ${line}`)])],
      ...checksums(files).filter(([name]) => name !== 'Checksums-Md5'),
      ['Files', foldLines([...files.map(fileLine)])],
    ]),
  );
}

export function formatBuildinfo(facts: BuildinfoFacts): string {
  const installed = Object.entries(facts.installed).sort(([a], [b]) => (a < b ? -1 : 1));
  const lines = installed.map(
    ([name, version], index) => `${name} (= ${version})${index === installed.length - 1 ? '' : ','}`,
  );
  const environment = Object.entries(facts.environment).sort(([a], [b]) => (a < b ? -1 : 1));
  const quoted = environment.map(([name, value]) => `${name}="${value.replaceAll(/["\\]/g, '\\$&')}"`);
  return formatParagraph(
    paragraph([
      ['Format', '1.0'],
      ['Source', facts.source],
      ['Binary', binaryNames(facts.packages)],
      ['Architecture', architectures(facts)],
      ['Version', facts.version],
      ...checksums([...facts.sources.filter((one) => one.name.endsWith('.dsc')), ...facts.packages]),
      ['Build-Origin', facts.origin],
      ['Build-Architecture', facts.buildArchitecture],
      ['Build-Date', formatChangelogDate(facts.date)],
      ['Installed-Build-Depends', foldLines([...lines])],
      ['Environment', foldLines([...quoted])],
      ...facts.own.map(([name, values]) => [name, foldLines([...values])] as const),
    ]),
  );
}

/** `source_version_arch`, the epoch left out: the name of a list without its ending. */
export function listStem(facts: BuildFacts): string {
  const { upstream, revision } = parseVersion(facts.version);
  const built = [...new Set(facts.packages.map((one) => getField(one.control, 'Architecture') ?? 'all'))];
  const architecture = built.find((one) => one !== 'all') ?? built[0] ?? 'source';
  return `${facts.source}_${upstream}${revision === '' ? '' : `-${revision}`}_${architecture}`;
}

function binaryNames(packages: readonly ListedPackage[]): string {
  return packages.map((one) => getField(one.control, 'Package') ?? '').join(' ');
}

function architectures({ packages, sources }: BuildFacts): string {
  const built = packages.map((one) => getField(one.control, 'Architecture') ?? 'all');
  return [...new Set([...(sources.length > 0 ? ['source'] : []), ...built.sort()])].join(' ');
}

function description({ control }: ListedPackage): string {
  const synopsis = (getField(control, 'Description') ?? '').split('\n', 1)[0]!;
  return `${(getField(control, 'Package') ?? '').padEnd(10)} - ${synopsis}`;
}

function checksums(files: readonly ListedFile[]): (readonly [string, string])[] {
  const of = (digest: 'md5' | 'sha1' | 'sha256') =>
    foldLines([...files.map((one) => `${one[digest]} ${one.size} ${one.name}`)]);
  return [
    ['Checksums-Md5', of('md5')],
    ['Checksums-Sha1', of('sha1')],
    ['Checksums-Sha256', of('sha256')],
  ];
}

function fileLine(file: ListedFile | ListedPackage): string {
  const field = (name: string) => ('control' in file ? getField(file.control, name) : undefined);
  const section = field('Section') ?? 'misc';
  return `${file.md5} ${file.size} ${section} ${field('Priority') ?? 'optional'} ${file.name}`;
}
