/**
 * Overrides: what the archive says of a package in place of its own control file.
 *
 * Secret: the formats of override files (apt-ftparchive(1), "THE BINARY OVERRIDE FILE", "THE SOURCE OVERRIDE FILE", "THE EXTRA
 * OVERRIDE FILE") and how they are applied to a stanza. The packages themselves stay as they are.
 */
import { createHash } from 'node:crypto';
import { UserError } from '../core/errors.ts';
import { isPackageName } from '../deb/package.ts';
import { checkField } from './admit.ts';

/** `binary`: package priority section [maintainer]; `source`: package section; `extra`: package field value. */
export type OverrideFormat = 'binary' | 'source' | 'extra';

/** What stands in place of a package's own fields. */
export interface Override {
  readonly fields: readonly (readonly [name: string, value: string])[];
  /** Maintainers in place of which `to` stands; empty: of any. */
  readonly maintainer?: { readonly from: readonly string[]; readonly to: string } | undefined;
}

/** By `binary NAME` or `source NAME`. */
export type Overrides = ReadonlyMap<string, Override>;

/** Identify a package and its file, or decide what can be installed beside it: an index that lies about them is broken. */
const FIXED_FIELDS =
  /^(?:package|version|architecture|filename|size|md5sum|sha1|sha256|sha512|description.*|source|directory)$/i;

export interface OverrideFile {
  readonly format: OverrideFormat;
  /** For messages. */
  readonly path: string;
  readonly text: string;
}

/** Reads all files together: later lines win. @throws UserError `bad-override` with file and line */
export function parseOverrides(files: readonly OverrideFile[]): Overrides {
  const overrides = new Map<string, Override>();
  for (const { format, path, text } of files) {
    const kind = format === 'source' ? 'source' : 'binary';
    for (const [index, line] of text.split('\n').entries()) {
      const content = line.replace(/(?:^|\s)#.*$/, '').trim();
      if (content === '') continue;
      const bad = (message: string) =>
        new UserError('bad-override', message, { file: path, line: index + 1, hint: FORMAT_HINT[format] });
      const [name = '', ...words] = content.split(/\s+/);
      if (!isPackageName(name)) throw bad(`'${name}' is no package name`);
      const key = `${kind} ${name}`;
      overrides.set(key, merge(overrides.get(key), PARSERS[format](content, words, bad)));
    }
  }
  for (const [key, { fields, maintainer }] of overrides) {
    for (const [name, value] of fields) checkField(key, name, value);
    if (maintainer) checkField(key, 'Maintainer', maintainer.to);
  }
  return overrides;
}

const FORMAT_HINT: Readonly<Record<OverrideFormat, string>> = {
  binary: "each line: PACKAGE PRIORITY SECTION [MAINTAINER], for example 'hello optional net'",
  source: "each line: SOURCE SECTION, for example 'hello net'",
  extra: "each line: PACKAGE FIELD VALUE, for example 'hello Phased-Update-Percentage 10'",
};

type LineParser = (content: string, words: readonly string[], bad: (message: string) => UserError) => Override;

const PARSERS: Readonly<Record<OverrideFormat, LineParser>> = {
  binary(content, words, bad) {
    const [priority, section] = words;
    if (priority === undefined || section === undefined) throw bad('priority and section are missing');
    const rest = /^\S+\s+\S+\s+\S+\s+(.+)$/.exec(content)?.[1];
    return {
      fields: [
        ['Priority', priority],
        ['Section', section],
      ],
      maintainer: rest === undefined ? undefined : maintainerOf(rest),
    };
  },
  source(_content, words, bad) {
    // apt-ftparchive also takes the binary format, with the priority before the section
    const section = words.at(-1);
    if (section === undefined || words.length > 2) throw bad('one section belongs here');
    return { fields: [['Section', section]] };
  },
  extra(content, words, bad) {
    const value = /^\S+\s+\S+\s+(.+)$/.exec(content)?.[1];
    const field = words[0];
    if (field === undefined || value === undefined) throw bad('field and value are missing');
    if (FIXED_FIELDS.test(field)) throw bad(`field ${field} cannot be overridden`);
    return { fields: [[field, value]] };
  },
};

/** `old => new`, `old // old2 => new`, or the new one alone. */
function maintainerOf(text: string): { from: readonly string[]; to: string } {
  const [from, to] = text.split(/\s*=>\s*/, 2);
  if (to === undefined) return { from: [], to: text };
  return { from: from!.split(/\s*\/\/\s*/), to };
}

function merge(before: Override | undefined, now: Override): Override {
  if (!before) return now;
  const names = new Set(now.fields.map(([name]) => name.toLowerCase()));
  return {
    fields: [...before.fields.filter(([name]) => !names.has(name.toLowerCase())), ...now.fields],
    maintainer: now.maintainer ?? before.maintainer,
  };
}

/** The same for the same overrides, whatever files they came from; undefined: there are none. */
export function digestOverrides(overrides: Overrides): string | undefined {
  if (overrides.size === 0) return undefined;
  const sorted = [...overrides].sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex').slice(0, 16);
}

/** A control file with these fields in place of its own; fields that it has not come last. */
export function applyOverride(control: string, override: Override | undefined): string {
  if (!override) return control;
  let text = control;
  for (const [name, value] of override.fields) text = putField(text, name, value);
  const { maintainer } = override;
  if (!maintainer) return text;
  const current = /^Maintainer:[ \t]*(.*?)[ \t]*$/im.exec(text)?.[1];
  if (maintainer.from.length > 0 && !maintainer.from.includes(current ?? '')) return text;
  return putField(text, 'Maintainer', maintainer.to);
}

function putField(control: string, name: string, value: string): string {
  const line = `${name}: ${value}\n`;
  const escaped = name.replaceAll(/[^A-Za-z0-9-]/g, '\\$&');
  const pattern = new RegExp(`^${escaped}:[^\\n]*\\n(?:[ \\t][^\\n]*\\n)*`, 'im');
  return pattern.test(control) ? control.replace(pattern, () => line) : control + line;
}
