/**
 * A folder with a Python project: what pyproject.toml says of its package, which files belong to it, when it is from.
 *
 * `[tool.buildkit]` in pyproject.toml holds what a .deb has beside the Python module: its name, units, configuration files.
 */
import { createHash } from 'node:crypto';
import {
  chmod,
  copyFile,
  mkdir,
  readdir,
  readFile,
  readlink,
  realpath,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import { parse as parseToml, TomlError } from 'smol-toml';
import { z } from 'zod';
import type { Context } from '../../core/context.ts';
import { errnoOf, ToolError, UserError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { didYouMean } from '../../core/nearest.ts';
import { run } from '../../core/run.ts';
import { isPackageName } from '../../deb/package.ts';
import { sourceDate } from '../source-date.ts';

const absolute = z.string().regex(/^\/[^\0\n]*[^/\0\n]$/, 'must be an absolute path, as installed');
const inside = z.string().min(1);

export const toolSchema = z.strictObject({
  package: z.string().refine(isPackageName, 'is no name that Debian can have').optional(),
  section: z
    .string()
    .regex(/^[a-z-]+$/)
    .optional(),
  /** System user that the units run as; made at installation. */
  user: z
    .string()
    .regex(/^[a-z_][a-z0-9_-]{0,30}$/, 'is no name for a system user')
    .optional(),
  /** systemd unit files in the project. */
  units: z.array(inside.regex(/^[^\s']+\.(service|socket|timer|path|target)$/, 'is no unit file')).default([]),
  /** Installed path to file in the project. */
  conffiles: z.record(absolute, inside).default({}),
  files: z.record(absolute, inside).default({}),
  /** Shell command that makes what the package holds beside sources, run in the project's folder; npm projects only. */
  prepare: z.string().min(1).optional(),
  /** Further relations, as in Depends. */
  depends: z.array(z.string().min(1)).default([]),
});

export type ToolTable = z.infer<typeof toolSchema>;

export interface PythonProject {
  readonly folder: string;
  /** Name in [project]; undefined when only the back end knows it. */
  readonly name: string | undefined;
  /** 'Name <mail>' of the first author with both. */
  readonly author: string | undefined;
  readonly tool: ToolTable;
}

/** True for a folder that pip could build. */
export async function isPythonProject(folder: string): Promise<boolean> {
  return (await exists(join(folder, 'pyproject.toml'))) || (await exists(join(folder, 'setup.py')));
}

/**
 * @throws UserError `pyproject-syntax`, `pyproject-value`
 */
export async function readProject(folder: string): Promise<PythonProject> {
  const file = join(folder, 'pyproject.toml');
  const table = await readToml(file);
  const project = asTable(table.project);
  const parsed = toolSchema.safeParse(asTable(asTable(table.tool).buildkit));
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    const unknown = issue.code === 'unrecognized_keys' ? issue.keys[0] : undefined;
    const key = ['tool', 'buildkit', ...issue.path.map(String), ...(unknown === undefined ? [] : [unknown])].join('.');
    throw new UserError(
      'pyproject-value',
      unknown === undefined ? `'${key}' ${issue.message}` : `unknown key '${key}'`,
      {
        file,
        hint: unknown === undefined ? undefined : didYouMean(unknown, Object.keys(toolSchema.shape)),
      },
    );
  }
  const authors = (Array.isArray(project.authors) ? project.authors : []).map(asTable);
  const author = authors.find((one) => typeof one.name === 'string' && typeof one.email === 'string');
  return {
    folder,
    name: typeof project.name === 'string' ? project.name : undefined,
    author: author ? `${author.name} <${author.email}>` : undefined,
    tool: parsed.data,
  };
}

async function readToml(file: string): Promise<Record<string, unknown>> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return {}; // setup.py alone
    throw error;
  }
  try {
    return parseToml(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const message = cause.message.split('\n')[0]!.replace('Invalid TOML document: ', '');
    throw new UserError('pyproject-syntax', message, { file, line: cause.line, column: cause.column, cause });
  }
}

function asTable(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

/** A file of the project, for the package. Its path must stay inside, also through links. */
export async function projectFile(project: PythonProject, path: string): Promise<Buffer> {
  const full = join(project.folder, path);
  const refuse = (what: string, cause?: unknown) =>
    new UserError('project-file', `'${path}' ${what}`, {
      file: join(project.folder, 'pyproject.toml'),
      hint: 'see [tool.buildkit]: paths are relative to the folder of pyproject.toml',
      cause,
    });
  try {
    const [home, real] = await Promise.all([realpath(project.folder), realpath(full)]);
    if (!real.startsWith(`${home}${sep}`)) throw refuse('is outside of the project');
    return await readFile(real);
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    throw refuse(errnoOf(cause) === 'ENOENT' ? 'is not there' : 'cannot be read', cause);
  }
}

interface TreeEntry {
  readonly path: string;
  readonly kind: 'file' | 'program' | 'link';
}

export interface ProjectTree {
  /** Digest of names, kinds and contents. */
  readonly digest: string;
  readonly entries: readonly TreeEntry[];
  /** Seconds since the epoch: of the last commit, else of debian/changelog, else a fixed day. */
  readonly date: number;
  /** Where .git is, for back ends that ask it for the version. */
  readonly gitDir: string | undefined;
}

/** Never part of a source, wherever they are. */
const SKIPPED = new Set([
  '.git',
  '.hg',
  '__pycache__',
  '.venv',
  '.tox',
  '.nox',
  '.mypy_cache',
  '.pytest_cache',
  '.ruff_cache',
  'node_modules',
]);

/** What git would take into a commit; without git, everything but caches. Build results at the top are left out. */
export async function readProjectTree(context: Context, folder: string): Promise<ProjectTree> {
  const git = await gitFacts(context, folder);
  const entries = (git?.entries ?? (await walk(folder))).filter(
    (entry) => !/^(dist|build|[^/]+\.egg-info)\//.test(entry.path),
  );
  entries.sort((a, b) => (a.path < b.path ? -1 : 1));
  const hash = createHash('sha256');
  for (const entry of entries) {
    const full = join(folder, entry.path);
    const content = entry.kind === 'link' ? Buffer.from(await readlink(full)) : await readFile(full);
    hash.update(`${entry.path}\0${entry.kind}\0${content.length}\0`).update(content);
  }
  return { digest: hash.digest('hex'), entries, date: await sourceDate(context, folder), gitDir: git?.gitDir };
}

async function gitFacts(
  context: Context,
  folder: string,
): Promise<{ entries: TreeEntry[]; gitDir: string } | undefined> {
  const git = async (...args: string[]) => (await run(context, 'git', ['-C', folder, ...args])).stdout;
  try {
    const gitDir = (await git('rev-parse', '--absolute-git-dir')).trim();
    const names = (await git('ls-files', '-z', '--cached', '--others', '--exclude-standard')).split('\0');
    if (!names.some((name) => name === 'pyproject.toml' || name === 'setup.py')) return undefined; // ignored by an outer tree
    const entries = await Promise.all(names.filter((name) => name !== '').map((name) => treeEntry(folder, name)));
    return {
      entries: entries.filter((entry) => entry !== undefined),
      gitDir,
    };
  } catch (error) {
    if (error instanceof ToolError) return undefined; // no git, or no git tree
    throw error;
  }
}

async function treeEntry(folder: string, path: string): Promise<TreeEntry | undefined> {
  const full = join(folder, path);
  const link = await readlink(full).catch(() => undefined);
  if (link !== undefined) return { path, kind: 'link' };
  const facts = await stat(full).catch(() => undefined);
  if (!facts?.isFile()) return undefined; // removed but not yet from the index; submodules
  return { path, kind: (facts.mode & 0o111) === 0 ? 'file' : 'program' };
}

async function walk(folder: string, below = ''): Promise<TreeEntry[]> {
  const entries: TreeEntry[] = [];
  for (const item of await readdir(join(folder, below), { withFileTypes: true })) {
    if (SKIPPED.has(item.name)) continue;
    const path = below === '' ? item.name : `${below}/${item.name}`;
    if (item.isDirectory()) {
      if (!(await exists(join(folder, path, 'pyvenv.cfg')))) entries.push(...(await walk(folder, path)));
    } else {
      const entry = await treeEntry(folder, path);
      if (entry) entries.push(entry);
    }
  }
  return entries;
}

/** A copy to build in, so that back ends leave nothing in the user's folder. */
export async function copyTree(folder: string, tree: ProjectTree, target: string): Promise<void> {
  for (const entry of tree.entries) {
    const to = join(target, entry.path);
    await mkdir(dirname(to), { recursive: true });
    if (entry.kind === 'link') {
      await symlink(await readlink(join(folder, entry.path)), to);
      continue;
    }
    await copyFile(join(folder, entry.path), to);
    await chmod(to, entry.kind === 'program' ? 0o755 : 0o644);
  }
  if (tree.gitDir !== undefined && relative(folder, tree.gitDir) === '.git') {
    await writeFile(join(target, '.git'), `gitdir: ${tree.gitDir}\n`);
  }
}
