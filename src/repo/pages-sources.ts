/** Pages of source packages: their files, and what is built from them. Pure. */
import { getField, type Paragraph, parseParagraph } from '../deb/control.ts';
import { compareVersions } from '../deb/version.ts';
import type { PackageFile, PublishedPackage } from './catalog.ts';

export interface SourceVersion {
  readonly version: string;
  readonly component: string;
  /** ISO 8601. */
  readonly addedAt: string;
  /** The .dsc first. */
  readonly files: readonly PackageFile[];
}

export interface SourcePage {
  readonly name: string;
  /** The newest. */
  readonly version: string;
  readonly control: Paragraph;
  readonly versions: readonly SourceVersion[];
  /** Names that the newest says it builds. */
  readonly binaries: readonly string[];
}

/** @param sources every version of one source in a suite; at least one */
export function sourcePage(
  sources: readonly PublishedPackage[],
  filesOf: (id: number) => readonly PackageFile[],
): SourcePage {
  const sorted = [...sources].sort((a, b) => compareVersions(b.package.version, a.package.version));
  const newest = sorted[0]!.package;
  const control = parseParagraph(newest.control);
  const names = (getField(control, 'Binary') ?? '').split(/[\s,]+/).filter((name) => name !== '');
  return {
    name: newest.name,
    version: newest.version,
    control,
    binaries: [...new Set(names)].sort(),
    versions: sorted.map(({ package: item, component, addedAt }) => {
      const { filename, size, sha256 } = item;
      return { version: item.version, component, addedAt, files: [{ filename, size, sha256 }, ...filesOf(item.id)] };
    }),
  };
}
