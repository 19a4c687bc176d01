/**
 * The texts in a wheel's dist-info folder: METADATA (core metadata, an RFC 822 message), WHEEL and entry_points.txt.
 *
 * Secret: their syntax. Ruled by the PyPA specifications "Core metadata", "Binary distribution format", "Entry points".
 */

export interface CoreMetadata {
  readonly name: string;
  readonly version: string;
  readonly summary: string;
  readonly homepage: string | undefined;
  /** 'Name <mail>' of author or maintainer, as far as given. */
  readonly author: string | undefined;
  /** SPDX expression or free text, one line. */
  readonly licence: string | undefined;
  readonly requiresDist: readonly string[];
  readonly requiresPython: string | undefined;
  readonly providesExtra: readonly string[];
}

/** Header fields in their order; continuation lines joined by newline. The body (long description) is left out. */
export function parseHeaders(text: string): [string, string][] {
  const fields: [string, string][] = [];
  for (const line of text.split(/\r?\n/)) {
    if (line === '') break;
    const last = fields.at(-1);
    if (/^[ \t]/.test(line)) {
      if (last) last[1] += `\n${line.trim()}`;
      continue;
    }
    const at = line.indexOf(':');
    if (at > 0) fields.push([line.slice(0, at).toLowerCase(), line.slice(at + 1).trim()]);
  }
  return fields;
}

/** Reads METADATA or PKG-INFO. Name and version are '' when absent. */
export function parseCoreMetadata(text: string): CoreMetadata {
  const fields = parseHeaders(text);
  const all = (name: string) => fields.filter(([key]) => key === name).map(([, value]) => value);
  const one = (name: string) => all(name).find((value) => value !== '' && value !== 'UNKNOWN');
  const urls = all('project-url').map((value) => /^([^,]*),\s*(\S+)$/.exec(value));
  const urlOf = (pattern: RegExp) => urls.find((match) => match && pattern.test(match[1]!))?.[2];
  const classifier = all('classifier').find((value) => /^License :: .* :: /.test(value));
  return {
    name: one('name') ?? '',
    version: one('version') ?? '',
    summary: (one('summary') ?? '').split('\n')[0]!,
    homepage: one('home-page') ?? urlOf(/home|doc/i) ?? urlOf(/source|repo|git/i) ?? urls.find(Boolean)?.[2],
    author: person(one('author'), one('author-email')) ?? person(one('maintainer'), one('maintainer-email')),
    licence: one('license-expression') ?? shortLicence(one('license')) ?? classifier?.split(' :: ').at(-1),
    requiresDist: all('requires-dist'),
    requiresPython: one('requires-python'),
    providesExtra: all('provides-extra'),
  };
}

function person(name: string | undefined, mail: string | undefined): string | undefined {
  if (mail?.includes('<')) return mail.split('\n')[0];
  if (name !== undefined && mail !== undefined) return `${name} <${mail}>`;
  return name ?? mail;
}

/** Some put the whole text of the licence into the field. */
function shortLicence(text: string | undefined): string | undefined {
  return text === undefined || text.includes('\n') || text.length > 80 ? undefined : text;
}

export interface EntryPoint {
  readonly name: string;
  readonly module: string;
  /** Dotted attribute. */
  readonly attribute: string;
}

/** console_scripts and gui_scripts of entry_points.txt. */
export function parseScripts(text: string): EntryPoint[] {
  const scripts: EntryPoint[] = [];
  let section = '';
  for (const line of text.split(/\r?\n/)) {
    const trimmed = line.trim();
    if (/^[#;]/.test(trimmed)) continue;
    const head = /^\[(.*)\]$/.exec(trimmed);
    if (head) section = head[1]!.trim();
    const entry = /^([^=[\s][^=]*?)\s*=\s*([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\])?$/.exec(trimmed);
    if (!entry || !/^(console|gui)_scripts$/.test(section)) continue;
    scripts.push({ name: entry[1]!, module: entry[2]!, attribute: entry[3]! });
  }
  return scripts;
}

/** One line of Python that finds an application's private modules, also in the processes that it starts. */
export function privatePath(folder: string): string {
  const path = JSON.stringify(folder);
  return `import os, sys; sys.path.insert(0, ${path}); os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [${path}, os.environ.get("PYTHONPATH")]))`;
}

/** The program in /usr/bin for an entry point, as Debian's packages have it. */
export function scriptText(entry: EntryPoint, privateDir?: string): string {
  const first = entry.attribute.split('.')[0]!;
  return [
    '#!/usr/bin/python3',
    privateDir === undefined ? 'import sys' : privatePath(privateDir),
    `from ${entry.module} import ${first}`,
    'if __name__ == "__main__":',
    `    sys.exit(${entry.attribute}())`,
    '',
  ].join('\n');
}

export interface RecordLine {
  readonly path: string;
  /** urlsafe base64 without padding; undefined for files without digest (RECORD itself). */
  readonly sha256: string | undefined;
  readonly size: number | undefined;
}

/** RECORD: CSV with path, hash, size. Other digests than sha256 are left out. */
export function parseRecord(text: string): RecordLine[] {
  const lines: RecordLine[] = [];
  for (const line of text.split(/\r?\n/)) {
    const match = /^(?:"((?:[^"]|"")*)"|([^,]*)),([^,]*),(\d*)$/.exec(line);
    if (!match) continue;
    const hash = /^sha256=([\w-]+)/.exec(match[3]!)?.[1];
    const path = match[1]?.replaceAll('""', '"') ?? match[2]!;
    lines.push({ path, sha256: hash, size: match[4] === '' ? undefined : Number(match[4]) });
  }
  return lines;
}
