/**
 * A folder as dpkg-deb takes it: files where they will be installed, and DEBIAN/ with control (or control.template) and scripts.
 *
 * Secret: what of such a folder counts. Modes are made plain (0644, 0755, special bits kept), times and owners are not looked at:
 * they depend on who checked the folder out. Ruled by deb(5), deb-control(5), Policy 6, 10.9.
 */
import { createHash } from 'node:crypto';
import { lstat, readdir, readFile, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import type { Context } from '../../core/context.ts';
import { errnoOf, UserError } from '../../core/errors.ts';
import { createDigester, exists } from '../../core/files.ts';
import { didYouMean } from '../../core/nearest.ts';
import { isArch } from '../../deb/arch.ts';
import type { DebEntry, DebSpec, MaintainerScript } from '../../deb/archive.ts';
import { formatParagraph, getField, type Paragraph, parseParagraph, setField } from '../../deb/control.ts';
import { isPackageName } from '../../deb/package.ts';
import { isVersion } from '../../deb/version.ts';
import { keyed } from '../explain.ts';
import type { PackageJob } from '../job.ts';
import { describeVersion, sourceDate } from '../source-date.ts';

export interface TreeOptions {
  /** Debian architecture of the target, for `@ARCHITECTURE@`. */
  readonly architecture: string;
  /** '1~deb12' */
  readonly revision: string;
  readonly suite: { readonly codename: string };
  readonly sourceDateEpoch: number | undefined;
  /** For `@VERSION@`; default: from git's tags. */
  readonly upstreamVersion: string | undefined;
  readonly maintainer: (author: string | undefined) => Promise<string>;
}

const SCRIPTS: readonly MaintainerScript[] = ['preinst', 'postinst', 'prerm', 'postrm', 'config'];
const OTHER_CONTROL = new Set(['templates', 'shlibs', 'symbols', 'isinstallable']);
/** Written by the builder, or only notes. */
const IGNORED = new Set(['control', 'control.template', 'conffiles', 'triggers', 'md5sums']);

export async function isTree(folder: string): Promise<boolean> {
  return (await exists(join(folder, 'DEBIAN/control'))) || (await exists(join(folder, 'DEBIAN/control.template')));
}

/**
 * @throws UserError `tree-control`, `tree-version`, `tree-file`, and what deb/control refuses
 */
export async function prepareTree(context: Context, folder: string, options: TreeOptions): Promise<PackageJob> {
  const control = await readControl(context, folder, options);
  const names = await readdir(join(folder, 'DEBIAN'));
  const unknown = names.find(
    (name) => !SCRIPTS.includes(name as MaintainerScript) && !OTHER_CONTROL.has(name) && !IGNORED.has(name),
  );
  if (unknown !== undefined) {
    throw new UserError('tree-control', `dpkg knows no control file '${unknown}'`, {
      file: join(folder, 'DEBIAN', unknown),
      hint: didYouMean(unknown, [...SCRIPTS, ...OTHER_CONTROL, ...IGNORED]),
    });
  }
  const text = async (name: string) =>
    names.includes(name) ? readFile(join(folder, 'DEBIAN', name), 'utf8') : undefined;
  const entries = await readEntries(folder);
  const present = <T extends string>(list: readonly T[]) => list.filter((name) => names.includes(name));
  const scripts = Object.fromEntries(
    await Promise.all(present(SCRIPTS).map(async (name) => [name, await text(name)] as const)),
  );
  const extraControl = Object.fromEntries(
    await Promise.all(
      present([...OTHER_CONTROL]).map(async (name) => [name, { data: (await text(name)) ?? '', mode: 0o644 }] as const),
    ),
  );
  const triggers = await text('triggers');
  const conffiles = (await text('conffiles'))
    ?.split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const spec: DebSpec = {
    control,
    entries,
    scripts: scripts as Partial<Record<MaintainerScript, string>>,
    extraControl,
    ...(triggers === undefined ? {} : { triggers }),
    ...(conffiles === undefined ? {} : { conffiles }),
  };
  const date = options.sourceDateEpoch ?? (await sourceDate(context, folder));
  const architecture = getField(control, 'Architecture')!;
  return {
    name: getField(control, 'Package')!,
    version: getField(control, 'Version')!,
    source: `the tree '${basename(folder)}'`,
    why: 'asked for',
    ...keyed({
      kind: 'tree',
      control: formatParagraph(control),
      scripts,
      'control files': extraControl,
      triggers: triggers ?? null,
      conffiles: conffiles ?? null,
      date,
      files: await digestEntries(context, entries),
    }),
    sourceDateEpoch: date,
    make: async () => ({ spec, architecture, warnings: [] }),
  };
}

async function readControl(context: Context, folder: string, options: TreeOptions): Promise<Paragraph> {
  const template = join(folder, 'DEBIAN/control.template');
  const isTemplate = await exists(template);
  const file = isTemplate ? template : join(folder, 'DEBIAN/control');
  const text = await readFile(file, 'utf8');
  const filled = isTemplate ? await fill(context, text, file, folder, options) : text;
  const control = setField(parseParagraph(filled, { file }), 'Installed-Size', undefined);
  for (const [name, fits] of [
    ['Package', isPackageName],
    ['Version', isVersion],
    ['Architecture', isArch],
    ['Maintainer', (value: string) => value !== ''],
    ['Description', (value: string) => value !== ''],
  ] as const) {
    const value = getField(control, name);
    if (value !== undefined && fits(value)) continue;
    throw new UserError(
      'tree-control',
      value === undefined ? `the field '${name}' is missing` : `'${value}' cannot be the ${name}`,
      { file },
    );
  }
  return control;
}

/** `@VERSION@` is the whole Debian version, `@UPSTREAM@` without revision; a lone @ and mail addresses stay. */
async function fill(
  context: Context,
  text: string,
  file: string,
  folder: string,
  options: TreeOptions,
): Promise<string> {
  const upstream = /@(VERSION|UPSTREAM)@/.test(text) ? await upstreamVersion(context, folder, options) : '';
  const values: Readonly<Record<string, string>> = {
    VERSION: `${upstream}-${options.revision}`,
    UPSTREAM: upstream,
    ARCHITECTURE: options.architecture,
    SUITE: options.suite.codename,
    MAINTAINER: text.includes('@MAINTAINER@') ? await options.maintainer(undefined) : '',
  };
  return text
    .split('\n')
    .map((line, index) =>
      line.replaceAll(/@([A-Z][A-Z_]*)@/g, (_, name: string) => {
        if (Object.hasOwn(values, name)) return values[name]!;
        throw new UserError('tree-control', `nothing fills in '@${name}@'`, {
          file,
          line: index + 1,
          hint: didYouMean(name, Object.keys(values)),
        });
      }),
    )
    .join('\n');
}

async function upstreamVersion(context: Context, folder: string, options: TreeOptions): Promise<string> {
  const version = options.upstreamVersion ?? (await describeVersion(context, folder));
  if (version !== undefined && isVersion(`${version}-1`) && !version.includes('-')) return version;
  throw new UserError(
    'tree-version',
    version === undefined ? 'nothing says which version this is' : `'${version}' is no upstream version`,
    {
      hint: 'give it with --upstream-version, or tag a commit in git: git tag v1.0',
    },
  );
}

/** Every file, link and folder below `folder` but DEBIAN, sorted by name. */
async function readEntries(folder: string, below = ''): Promise<DebEntry[]> {
  const entries: DebEntry[] = [];
  for (const name of (await readdir(join(folder, below))).sort()) {
    const path = `${below}/${name}`;
    if (path === '/DEBIAN' || path === '/.git') continue;
    const file = join(folder, path);
    const facts = await lstat(file);
    const special = facts.mode & 0o7000;
    if (facts.isDirectory()) {
      entries.push({ path, type: 'dir', mode: 0o755 | special }, ...(await readEntries(folder, path)));
    } else if (facts.isSymbolicLink()) {
      entries.push({ path, type: 'symlink', mode: 0o777, link: await readlink(file) });
    } else if (facts.isFile()) {
      const mode = ((facts.mode & 0o111) === 0 ? 0o644 : 0o755) | special;
      entries.push({ path, type: 'file', mode, source: { file } });
    } else {
      throw new UserError('tree-file', `'${path}' is neither file, folder nor link`, { file });
    }
  }
  return entries;
}

const FILES_AT_A_TIME = 256;

async function digestEntries(context: Context, entries: readonly DebEntry[]): Promise<string> {
  const hash = createHash('sha256');
  const digest = createDigester('sha256');
  for (const [index, entry] of entries.entries()) {
    if (index % FILES_AT_A_TIME === 0) await setImmediate(); // a signal may have come
    context.signal.throwIfAborted();
    hash.update(JSON.stringify([entry.path, entry.type, entry.mode, entry.link ?? null]));
    if (entry.source && 'file' in entry.source) hash.update(digestOf(digest, entry.source.file));
  }
  return hash.digest('hex');
}

function digestOf(digest: (file: string) => string, file: string): string {
  try {
    return digest(file);
  } catch (cause) {
    if (errnoOf(cause) !== 'EACCES') throw cause;
    throw new UserError('tree-file', 'no right to read it', { file, cause });
  }
}
