/**
 * apt's list of sources: deb822 `.sources` files and one-line `sources.list`.
 *
 * Secret: sources.list(5): how the two styles name the same option, lists by blanks or commas, and a public key inside `Signed-By`.
 */
import { UserError } from '../core/errors.ts';
import { printable } from '../core/log.ts';
import {
  foldLines,
  formatParagraph,
  getField,
  type Paragraph,
  paragraph,
  parseControl,
  unfoldLines,
} from './control.ts';

export interface AptSource {
  readonly types: readonly ('deb' | 'deb-src')[];
  readonly uris: readonly string[];
  /** Suites, or paths that end in `/` for a flat repository. */
  readonly suites: readonly string[];
  /** None for a flat repository. */
  readonly components: readonly string[];
  readonly architectures?: readonly string[] | undefined;
  /** Absent means yes. */
  readonly enabled?: boolean | undefined;
  /** Paths of keyrings or fingerprints, as apt takes them; or the armored public key itself. */
  readonly signedBy?: string | undefined;
  /** Any other field, by its deb822 name (`Languages`, `By-Hash`, `Trusted`, `Snapshot`, ...). */
  readonly options?: Readonly<Record<string, string>> | undefined;
}

export interface SourcesOptions {
  /** For messages. */
  readonly file?: string | undefined;
}

const KEY_BLOCK = '-----BEGIN PGP PUBLIC KEY BLOCK-----';

/** Fields that have a place of their own in `AptSource`. */
const OWN_FIELDS = new Set(['types', 'uris', 'suites', 'components', 'architectures', 'enabled', 'signed-by']);

/** The one-line names of options and the deb822 ones. */
const FIELD_OF_OPTION: Readonly<Record<string, string>> = {
  arch: 'Architectures',
  lang: 'Languages',
  target: 'Targets',
  pdiffs: 'PDiffs',
  'by-hash': 'By-Hash',
  'allow-insecure': 'Allow-Insecure',
  'allow-weak': 'Allow-Weak',
  'allow-downgrade-to-insecure': 'Allow-Downgrade-To-Insecure',
  trusted: 'Trusted',
  'signed-by': 'Signed-By',
  'check-valid-until': 'Check-Valid-Until',
  'valid-until-min': 'Valid-Until-Min',
  'valid-until-max': 'Valid-Until-Max',
  'check-date': 'Check-Date',
  'date-max-future': 'Date-Max-Future',
  'inrelease-path': 'InRelease-Path',
  snapshot: 'Snapshot',
};

/**
 * The deb822 entry, as a file in /etc/apt/sources.list.d holds it; ends with a newline.
 * @throws UserError `source-invalid`
 */
export function formatSource(source: AptSource): string {
  const problem = problemOf(source);
  if (problem !== undefined) throw new UserError('source-invalid', problem);
  const { signedBy } = source;
  const entry = paragraph([
    ['Enabled', source.enabled === false ? 'no' : undefined],
    ['Types', source.types.join(' ')],
    ['URIs', source.uris.join(' ')],
    ['Suites', source.suites.join(' ')],
    ['Components', source.components.length === 0 ? undefined : source.components.join(' ')],
    ['Architectures', source.architectures?.join(' ')],
    ...Object.entries(source.options ?? {}),
    ['Signed-By', signedBy?.includes(KEY_BLOCK) ? foldLines(signedBy.trim().split(/\r?\n/)) : signedBy],
  ]);
  return formatParagraph(entry);
}

/**
 * Reads a `.sources` file.
 * @throws UserError `source-invalid`, `control-syntax`, with file and line
 */
export function parseSources(text: string, options: SourcesOptions = {}): AptSource[] {
  return parseControl(text, options).map((entry) => readEntry(entry, options));
}

/**
 * Reads a one-line `sources.list`: `deb [arch=amd64 signed-by=/path] uri suite component...`.
 * @throws UserError `source-invalid` with file and line
 */
export function parseOneLine(text: string, options: SourcesOptions = {}): AptSource[] {
  return text.split('\n').flatMap((line, index) => {
    const words = splitLine(line);
    return words.length === 0 ? [] : [readOneLine(words, { file: options.file, line: index + 1 })];
  });
}

function readEntry(entry: Paragraph, { file }: SourcesOptions): AptSource {
  const line = entry.fields[0]?.line;
  const others = entry.fields.filter((field) => !OWN_FIELDS.has(field.name.toLowerCase()));
  const list = (name: string) => words(getField(entry, name) ?? '');
  const architectures = getField(entry, 'Architectures');
  const signedBy = getField(entry, 'Signed-By');
  const enabled = getField(entry, 'Enabled');
  return checked(
    {
      types: list('Types') as AptSource['types'],
      uris: list('URIs'),
      suites: list('Suites'),
      components: list('Components'),
      ...(architectures === undefined ? {} : { architectures: words(architectures) }),
      ...(enabled === undefined ? {} : { enabled: !/^(?:no|false|without|off|disable|0)$/i.test(enabled) }),
      ...(signedBy === undefined ? {} : { signedBy: readSignedBy(signedBy) }),
      ...(others.length === 0
        ? {}
        : { options: Object.fromEntries(others.map((field) => [field.name, words(field.value).join(' ')])) }),
    },
    { file, line },
  );
}

function readSignedBy(value: string): string {
  return value.includes(KEY_BLOCK) ? `${unfoldLines(value).join('\n')}\n` : words(value).join(' ');
}

function readOneLine(line: readonly string[], place: Place): AptSource {
  const [type = '', ...rest] = line;
  const bracketed = rest[0]?.startsWith('[') === true ? words(rest.shift()!.slice(1, -1)) : [];
  const [uri, suite, ...components] = rest;
  if (uri === undefined || suite === undefined) {
    throw new UserError('source-invalid', 'an address and a suite are expected', {
      ...place,
      hint: 'deb [option=value ...] uri suite [component ...]',
    });
  }
  const fields = Object.fromEntries(bracketed.map((option) => readOption(option, place)));
  const { Architectures, 'Signed-By': signedBy, ...options } = fields;
  return checked(
    {
      types: [type] as unknown as AptSource['types'],
      uris: [uri],
      suites: [suite],
      components,
      ...(Architectures === undefined ? {} : { architectures: words(Architectures) }),
      ...(signedBy === undefined ? {} : { signedBy }),
      ...(Object.keys(options).length === 0 ? {} : { options }),
    },
    place,
  );
}

function readOption(option: string, place: Place): [field: string, value: string] {
  const match = /^([A-Za-z-]+?)([+-]?)=(.+)$/.exec(option);
  if (!match) throw new UserError('source-invalid', `'${printable(option)}' is not 'option=value'`, place);
  const [, name = '', change, value = ''] = match;
  const key = name.toLowerCase();
  const field = Object.hasOwn(FIELD_OF_OPTION, key) ? FIELD_OF_OPTION[key]! : name;
  const suffix = change === '+' ? '-Add' : change === '-' ? '-Remove' : '';
  return [field + suffix, value.split(',').join(' ')];
}

/** Words of a line up to a comment; `[...]` holds blanks together, in options and in `cdrom:[...]/`. */
function splitLine(line: string): string[] {
  const found = line.match(/#.*|(?:\[[^\]]*\]|[^\s#[])+/g) ?? [];
  const comment = found.findIndex((word) => word.startsWith('#'));
  return comment < 0 ? found : found.slice(0, comment);
}

interface Place {
  readonly file?: string | undefined;
  readonly line?: number | undefined;
}

function checked(source: AptSource, place: Place): AptSource {
  const problem = problemOf(source);
  if (problem !== undefined) throw new UserError('source-invalid', problem, place);
  return source;
}

/** Why apt would refuse the entry. */
function problemOf({ types, uris, suites, components }: AptSource): string | undefined {
  const badType = types.find((type) => type !== 'deb' && type !== 'deb-src');
  if (badType !== undefined) return `'${printable(badType)}' is not a type of source: deb or deb-src`;
  if (types.length === 0) return 'the source has no type: deb or deb-src';
  if (uris.length === 0) return 'the source has no address (URIs)';
  const badUri = uris.find((uri) => !/^[A-Za-z][A-Za-z0-9+.-]*:/.test(uri));
  if (badUri !== undefined) return `'${printable(badUri)}' is not an address: it starts with a scheme such as https:`;
  if (suites.length === 0) return 'the source has no suite';
  const flat = suites.filter((suite) => suite.endsWith('/')).length;
  if (flat > 0 && flat < suites.length) return 'suites and flat paths (ending in /) cannot stand in one source';
  if (flat > 0 && components.length > 0) return `a flat repository ('${printable(suites[0]!)}') has no components`;
  if (flat === 0 && components.length === 0)
    return 'the source has no component, and its suite is not a flat path (ending in /)';
  return undefined;
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}
