/**
 * Translation-en: long descriptions apart from Packages, once for all architectures.
 *
 * Secret: how a description is found by its digest (DebianRepository/Format, "Translation indices"): Description-md5 is the MD5
 * of the whole value and a line break, as apt, apt-ftparchive and dak reckon it.
 */
import { createHash } from 'node:crypto';
import type { CatalogPackage } from './catalog.ts';

/** The field with its continuation lines, each with its line break. */
const DESCRIPTION = /^Description:((?:[^\n]*\n)(?:[ \t][^\n]*\n)*)/im;

interface Description {
  /** Without the blank after the colon and blanks at the end. */
  readonly value: string;
  readonly md5: string;
}

function descriptionOf(control: string): Description | undefined {
  const found = DESCRIPTION.exec(control)?.[1];
  if (found === undefined) return undefined;
  const value = found.replace(/^[ \t]+/, '').trimEnd();
  return { value, md5: createHash('md5').update(`${value}\n`).digest('hex') };
}

/** The control file with the first line of its description and Description-md5. */
export function shortenDescription(control: string): string {
  const description = descriptionOf(control);
  if (!description) return control;
  const short = description.value.split('\n', 1)[0]!;
  // not a text: '$' would mean something in it
  return control.replace(DESCRIPTION, () => `Description: ${short}\nDescription-md5: ${description.md5}\n`);
}

/** The stanzas of one name: each different description once. Never empty: a block must hold text for each name in it. */
export function renderTranslations(versions: readonly CatalogPackage[]): string[] {
  const stanzas = new Map<string, string>();
  for (const { name, control } of versions) {
    const { value, md5 } = descriptionOf(control) ?? descriptionOf('Description:\n')!;
    stanzas.set(md5, `Package: ${name}\nDescription-md5: ${md5}\nDescription-en: ${value}\n\n`);
  }
  return [...stanzas.values()];
}
