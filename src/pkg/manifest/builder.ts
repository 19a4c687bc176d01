/**
 * The package of a `package:` section: its files gathered, its scripts composed, its texts made.
 *
 * Secret: where each kind of file goes (Policy 9, 10, 12) and what must be generated around it.
 */
import { createHash } from 'node:crypto';
import { glob, lstat, readdir, readFile, readlink, realpath } from 'node:fs/promises';
import { basename, dirname, join, relative, sep } from 'node:path';
import { gzipSync } from 'node:zlib';
import { parse as parseYaml } from 'yaml';
import type { Context } from '../../core/context.ts';
import { errnoOf, type Problem, ProblemsError, UserError } from '../../core/errors.ts';
import { digestFile, readIfThere } from '../../core/files.ts';
import type { DebEntry, DebSpec, MaintainerScript } from '../../deb/archive.ts';
import { paragraph } from '../../deb/control.ts';
import type { SuiteFacts } from '../../deb/suites.ts';
import { keyed } from '../explain.ts';
import type { PackageJob } from '../job.ts';
import { type ProjectChanges, projectChanges } from '../project-changelog.ts';
import { unitFolders } from '../python/service.ts';
import { generatedParts, mergeScript } from '../scripts.ts';
import { describeVersion, sourceDate } from '../source-date.ts';
import { builtChangelog, copyrightText, description, documentEntries, synopsis } from '../texts.ts';
import { type Manifest, manifestSchema } from './schema.ts';

export interface ManifestOptions {
  readonly suite: SuiteFacts;
  /** Debian architecture of the target, for `architecture: any`. */
  readonly architecture: string;
  /** '1~deb12' */
  readonly revision: string;
  readonly sourceDateEpoch: number | undefined;
  readonly upstreamVersion: string | undefined;
  readonly maintainer: (author: string | undefined) => Promise<string>;
}

/** The `package:` section of the folder's buildkit.yaml; undefined without one. */
export async function readManifest(folder: string): Promise<Manifest | undefined> {
  const file = join(folder, 'buildkit.yaml');
  const text = await readIfThere(file);
  if (text === undefined) return undefined;
  const section = (parseYaml(text, { maxAliasCount: 50 }) as { package?: unknown } | null)?.package;
  if (section === undefined) return undefined;
  const parsed = manifestSchema.safeParse(section);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(
    (issue): Problem => ({
      code: 'config-value',
      message: `'${['package', ...issue.path.map(String)].join('.')}': ${issue.message}`,
      file,
    }),
  );
  throw new ProblemsError('config-invalid', 'mistakes in the package section', problems, {
    file,
    hint: 'see the keys and their meaning: buildkit config schema',
  });
}

/**
 * @throws UserError `manifest-file`, `manifest-version`, ProblemsError `config-invalid`
 */
export async function prepareManifest(
  context: Context,
  folder: string,
  manifest: Manifest,
  options: ManifestOptions,
): Promise<PackageJob> {
  const upstream = options.upstreamVersion ?? manifest.version ?? (await describeVersion(context, folder));
  if (upstream === undefined) {
    throw new UserError('manifest-version', 'nothing says which version this is', {
      file: join(folder, 'buildkit.yaml'),
      hint: 'write package.version, give --upstream-version, or tag a commit in git: git tag v1.0',
    });
  }
  const version = `${upstream}-${options.revision}`;
  const architecture = manifest.architecture === 'any' ? options.architecture : manifest.architecture;
  const date = options.sourceDateEpoch ?? (await sourceDate(context, folder));
  const maintainer = manifest.maintainer ?? (await options.maintainer(undefined));
  const source = new Source(folder);
  const past = await projectChanges(context, folder, { name: manifest.name, version: upstream });
  const entries = [
    ...(await listedFiles(source, manifest)),
    ...(await knownFiles(source, manifest, options.suite)),
    ...(await texts(source, manifest, { version, maintainer, date, suite: options.suite.codename }, past)),
  ];
  refuseTwice(entries, folder);
  const spec: DebSpec = {
    control: controlOf(manifest, version, architecture, maintainer),
    entries,
    scripts: await scriptsOf(source, manifest),
    ...(manifest.triggers.length === 0 ? {} : { triggers: `${manifest.triggers.join('\n')}\n` }),
    ...(manifest.debconf === undefined
      ? {}
      : { extraControl: { templates: { data: await source.read(manifest.debconf.templates), mode: 0o644 } } }),
  };
  return {
    name: manifest.name,
    version,
    source: `the package section of '${basename(folder)}'`,
    why: 'asked for',
    ...keyed({
      kind: 'manifest',
      'package section': manifest,
      version,
      architecture,
      maintainer,
      date,
      suite: options.suite.codename,
      scripts: spec.scripts ?? null,
      files: await digestOf(entries),
    }),
    sourceDateEpoch: date,
    make: async () => ({ spec, architecture, warnings: [] }),
  };
}

/** Files of the folder, none from outside it. */
class Source {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  async path(name: string): Promise<string> {
    const refuse = (what: string, cause?: unknown) =>
      new UserError('manifest-file', `'${name}' ${what}`, {
        file: join(this.folder, 'buildkit.yaml'),
        hint: 'paths are relative to buildkit.yaml',
        cause,
      });
    const full = join(this.folder, name);
    try {
      const [home, real] = await Promise.all([realpath(this.folder), realpath(dirname(full))]);
      if (real !== home && !real.startsWith(`${home}${sep}`)) throw refuse('is outside of the folder');
      await lstat(full);
      return full;
    } catch (cause) {
      if (cause instanceof UserError) throw cause;
      throw refuse(errnoOf(cause) === 'ENOENT' ? 'is not there' : 'cannot be read', cause);
    }
  }

  async read(name: string): Promise<Buffer> {
    return readFile(await this.path(name));
  }
}

async function listedFiles(source: Source, manifest: Manifest): Promise<DebEntry[]> {
  const entries: DebEntry[] = [];
  for (const file of manifest.files) {
    const owner = { user: file.owner, group: file.group };
    const mode = file.mode === undefined ? undefined : Number.parseInt(file.mode, 8);
    if (file.type === 'dir') entries.push({ path: file.target, type: 'dir', mode: mode ?? 0o755, ...owner });
    else if (file.type === 'symlink')
      entries.push({ path: file.target, type: 'symlink', mode: 0o777, link: file.link ?? '' });
    else {
      const conffile = file.type === 'config';
      for (const [path, from] of await matches(source, file.source ?? '', file.target)) {
        entries.push(
          ...(await fileEntries(from, path, mode)).map((entry) => ({
            ...entry,
            ...owner,
            ...(entry.type === 'file' ? { conffile } : {}),
          })),
        );
      }
    }
  }
  return entries;
}

/** One file goes to the target itself; a pattern's matches, and a file for 'x/', go below it. */
async function matches(source: Source, from: string, target: string): Promise<[path: string, from: string][]> {
  if (!/[*?[{]/.test(from)) return [[target, await source.path(from)]];
  const fixed = from
    .split('/')
    .filter((_, index, all) => all.slice(0, index + 1).every((part) => !/[*?[{]/.test(part)))
    .join('/');
  const found: string[] = [];
  for await (const name of glob(from, { cwd: source.folder })) found.push(name);
  if (found.length === 0) await source.path(from); // says that it is not there
  const files = await Promise.all(found.sort().map(async (name) => [name, await source.path(name)] as const));
  const plain = await Promise.all(
    files.map(async ([name, path]) => [name, path, (await lstat(path)).isDirectory()] as const),
  );
  return plain
    .filter(([, , isFolder]) => !isFolder)
    .map(([name, path]) => [`${target}/${relative(fixed, name)}`, path]);
}

async function fileEntries(from: string, path: string, mode: number | undefined): Promise<DebEntry[]> {
  const facts = await lstat(from);
  if (facts.isSymbolicLink()) return [{ path, type: 'symlink', mode: 0o777, link: await readlink(from) }];
  if (facts.isDirectory()) {
    const names = (await readdir(from)).sort();
    const inner = await Promise.all(names.map((name) => fileEntries(join(from, name), `${path}/${name}`, mode)));
    return [{ path, type: 'dir', mode: 0o755 }, ...inner.flat()];
  }
  if (!facts.isFile()) throw new UserError('manifest-file', 'is neither file, folder nor link', { file: from });
  const usual = (facts.mode & 0o111) === 0 ? 0o644 : 0o755;
  return [{ path, type: 'file', mode: mode ?? usual, source: { file: from } }];
}

/** Units, sysusers, tmpfiles, cron, logrotate, manual pages and documents, where Debian has them. */
async function knownFiles(source: Source, manifest: Manifest, suite: SuiteFacts): Promise<DebEntry[]> {
  const plain = async (path: string, name: string, conffile = false): Promise<DebEntry> => ({
    path,
    type: 'file',
    mode: 0o644,
    conffile,
    source: { data: await source.read(name) },
  });
  const manuals = manifest.man.map(async (name): Promise<DebEntry> => {
    const section = /\.(\d)\w*$/.exec(name)?.[1];
    if (section === undefined)
      throw new UserError('manifest-file', `'${name}' is no manual page: its name ends in no section`, {
        file: join(source.folder, name),
      });
    const data = gzipSync(await source.read(name), { level: 9 });
    return { path: `/usr/share/man/man${section}/${basename(name)}.gz`, type: 'file', mode: 0o644, source: { data } };
  });
  return Promise.all([
    ...manifest.units.map((name) => plain(`${suite.unitDir}/${basename(name)}`, name)),
    ...manifest.sysusers.map((name) => plain(`/usr/lib/sysusers.d/${basename(name)}`, name)),
    ...manifest.tmpfiles.map((name) => plain(`/usr/lib/tmpfiles.d/${basename(name)}`, name)),
    ...manifest.cron.map((name) => plain(`/etc/cron.d/${basename(name).replaceAll('.', '_')}`, name, true)),
    ...(manifest.logrotate === undefined ? [] : [plain(`/etc/logrotate.d/${manifest.name}`, manifest.logrotate, true)]),
    ...manifest.docs.map((name) => plain(`/usr/share/doc/${manifest.name}/${basename(name)}`, name)),
    ...manuals,
  ]);
}

async function texts(
  source: Source,
  manifest: Manifest,
  facts: { readonly version: string; readonly maintainer: string; readonly date: number; readonly suite: string },
  past: ProjectChanges,
): Promise<DebEntry[]> {
  const made = () =>
    copyrightText({
      upstreamName: manifest.name,
      source: manifest.homepage,
      author: facts.maintainer,
      licence: manifest.licence,
      licenceFiles: [],
    });
  const copyright = manifest.copyright === undefined ? made() : await source.read(manifest.copyright);
  const changelog =
    manifest.changelog === undefined
      ? builtChangelog({ ...facts, package: manifest.name, source: 'its package section' }, past)
      : gzipSync(await source.read(manifest.changelog), { level: 9 });
  return documentEntries(manifest.name, copyright, changelog);
}

async function scriptsOf(source: Source, manifest: Manifest): Promise<Partial<Record<MaintainerScript, string>>> {
  const folders = await Promise.all(
    manifest.units.map(async (name) => unitFolders((await source.read(name)).toString('utf8'))),
  );
  const generated = generatedParts({
    packageName: manifest.name,
    python: 'none',
    user: manifest.user,
    units: manifest.units.map((name) => basename(name)),
    stateDirs: [...new Set(folders.flat())].sort(),
    sysusers: manifest.sysusers.map((name) => basename(name)),
    tmpfiles: manifest.tmpfiles.map((name) => basename(name)),
    alternatives: manifest.alternatives,
    debconf: manifest.debconf !== undefined,
  });
  const scripts: Partial<Record<MaintainerScript, string>> = {};
  for (const name of ['preinst', 'postinst', 'prerm', 'postrm'] as const) {
    const own = manifest.scripts[name];
    const body = name === 'preinst' ? undefined : generated[name];
    if (own !== undefined) scripts[name] = mergeScript((await source.read(own)).toString('utf8'), body ?? '');
    else if (body !== undefined) scripts[name] = `#!/bin/sh\nset -e\n\n${body}\nexit 0\n`;
  }
  if (manifest.debconf?.config !== undefined)
    scripts.config = (await source.read(manifest.debconf.config)).toString('utf8');
  return scripts;
}

function controlOf(manifest: Manifest, version: string, architecture: string, maintainer: string) {
  const needed = [
    ...(manifest.user === undefined ? [] : ['adduser']),
    ...(manifest.sysusers.length === 0 ? [] : ['systemd | systemd-standalone-sysusers | systemd-sysusers']),
    ...(manifest.debconf === undefined ? [] : ['debconf (>= 0.5) | debconf-2.0']),
    ...(manifest.cron.length === 0 ? [] : ['cron | cron-daemon']),
  ];
  const join = (list: readonly string[]) => (list.length === 0 ? undefined : list.join(', '));
  const paragraphs = manifest.description
    .split(/\n\s*\n/)
    .map((text) => text.trim())
    .filter((text) => text !== '');
  return paragraph([
    ['Package', manifest.name],
    ['Version', version],
    ['Architecture', architecture],
    ['Essential', manifest.essential ? 'yes' : undefined],
    ['Multi-Arch', manifest['multi-arch']],
    ['Maintainer', maintainer],
    ['Pre-Depends', join(manifest['pre-depends'])],
    ['Depends', join([...manifest.depends, ...needed])],
    ['Recommends', join(manifest.recommends)],
    ['Suggests', join(manifest.suggests)],
    ['Enhances', join(manifest.enhances)],
    ['Breaks', join(manifest.breaks)],
    ['Conflicts', join(manifest.conflicts)],
    ['Replaces', join(manifest.replaces)],
    ['Provides', join(manifest.provides)],
    ['Section', manifest.section],
    ['Priority', manifest.priority],
    ['Homepage', manifest.homepage],
    [
      'Description',
      description(synopsis(manifest.summary, manifest.name), paragraphs.length > 0 ? paragraphs : [manifest.summary]),
    ],
  ]);
}

function refuseTwice(entries: readonly DebEntry[], folder: string): void {
  const seen = new Set<string>();
  for (const { path, type } of entries) {
    if (type !== 'dir' && seen.has(path))
      throw new UserError('manifest-file', `two files would be '${path}'`, { file: join(folder, 'buildkit.yaml') });
    seen.add(path);
  }
}

async function digestOf(entries: readonly DebEntry[]): Promise<string> {
  const hash = createHash('sha256');
  for (const { source, ...entry } of entries) {
    hash.update(JSON.stringify(entry));
    if (source === undefined) continue;
    if ('file' in source) hash.update(await digestFile(source.file, 'sha256'));
    else if ('data' in source) hash.update(source.data);
  }
  return hash.digest('hex');
}
