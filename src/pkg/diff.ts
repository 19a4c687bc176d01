/** What differs between two binary packages: fields, scripts and other control files, files with type, mode, owner and content. */
import type { Context } from '../core/context.ts';
import { type DebFile, type DebInfo, listDeb, readDeb } from '../deb/archive.ts';

export interface Difference {
  readonly kind: 'field' | 'control-file' | 'file';
  readonly name: string;
  /** undefined: not there. */
  readonly a: string | undefined;
  readonly b: string | undefined;
}

export interface PackageDiff {
  /** Byte for byte. */
  readonly identical: boolean;
  readonly differences: readonly Difference[];
}

export async function diffDebs(context: Context, a: string, b: string): Promise<PackageDiff> {
  const [left, right] = await Promise.all([readDeb(context, a), readDeb(context, b)]);
  if (left.package.sha256 === right.package.sha256) return { identical: true, differences: [] };
  const [filesA, filesB] = await Promise.all([describeFiles(context, a, left), describeFiles(context, b, right)]);
  return {
    identical: false,
    differences: [
      ...compare('field', fields(left), fields(right)),
      ...compare('control-file', controlFiles(left), controlFiles(right)),
      ...compare('file', filesA, filesB),
    ],
  };
}

function fields(info: DebInfo): Map<string, string> {
  return new Map(info.package.control.fields.map((field) => [field.name, field.value]));
}

/** md5sums is said by the files themselves. */
function controlFiles(info: DebInfo): Map<string, string> {
  const others = [...info.controlFiles].filter(([name]) => name !== 'control' && name !== 'md5sums');
  return new Map(others.map(([name, data]) => [name, Buffer.from(data).toString('utf8')]));
}

async function describeFiles(context: Context, path: string, info: DebInfo): Promise<Map<string, string>> {
  const sums = new Map<string, string>();
  for (const line of Buffer.from(info.controlFiles.get('md5sums') ?? '')
    .toString('utf8')
    .split('\n')) {
    const match = /^([0-9a-f]{32}) {2}(.*)$/.exec(line);
    if (match) sums.set(`/${match[2]}`, match[1]!);
  }
  const files = new Map<string, string>();
  for await (const file of listDeb(context, path)) files.set(file.path, describe(file, sums.get(file.path)));
  return files;
}

function describe(file: DebFile, md5: string | undefined): string {
  const owner = `${file.user || file.uid}/${file.group || file.gid}`;
  const what = file.type === 'file' ? `${file.size} bytes${md5 === undefined ? '' : ` md5 ${md5}`}` : (file.link ?? '');
  const time = new Date(file.mtime * 1000).toISOString();
  return `${file.type} ${file.mode.toString(8).padStart(4, '0')} ${owner} ${time} ${what}`.trimEnd();
}

function compare(
  kind: Difference['kind'],
  a: ReadonlyMap<string, string>,
  b: ReadonlyMap<string, string>,
): Difference[] {
  const names = [...new Set([...a.keys(), ...b.keys()])].sort();
  return names
    .filter((name) => a.get(name) !== b.get(name))
    .map((name) => ({ kind, name, a: a.get(name), b: b.get(name) }));
}

/** For people: one block for each difference, '-' and '+' in front. */
export function diffText(diff: PackageDiff): string {
  if (diff.identical) return 'identical';
  const block = ({ kind, name, a, b }: Difference) => [
    `${kind} ${name}`,
    ...(a === undefined ? [] : lines('-', a)),
    ...(b === undefined ? [] : lines('+', b)),
  ];
  return diff.differences.length === 0
    ? 'the same content, packed in another way'
    : diff.differences.flatMap(block).join('\n');
}

function lines(mark: string, text: string): string[] {
  return text.split('\n').map((line) => `${mark} ${line}`);
}
