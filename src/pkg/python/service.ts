/**
 * What `[tool.buildkit]` adds to a package: systemd units, configuration files, further files, a system user.
 *
 * Secret: where they go, and what must be removed at purge (the folders that systemd.exec(5) makes for a unit).
 */
import { basename } from 'node:path';
import { UserError } from '../../core/errors.ts';
import type { DebEntry } from '../../deb/archive.ts';
import type { SuiteFacts } from '../../deb/suites.ts';
import { type PythonProject, projectFile } from './project.ts';

export interface ServiceFiles {
  readonly entries: readonly DebEntry[];
  readonly units: readonly string[];
  readonly user: string | undefined;
  readonly section: string | undefined;
  readonly depends: readonly string[];
  /** Folders that systemd makes for the units, absolute. */
  readonly stateDirs: readonly string[];
}

/** undefined: the project is a library and nothing else. */
export async function readService(project: PythonProject, suite: SuiteFacts): Promise<ServiceFiles | undefined> {
  const { tool } = project;
  const isLibrary = tool.units.length + Object.keys(tool.conffiles).length + Object.keys(tool.files).length === 0;
  if (isLibrary && tool.package === undefined) return undefined;
  const entries: DebEntry[] = [];
  const stateDirs = new Set<string>();
  for (const unit of tool.units) {
    const data = await projectFile(project, unit);
    for (const folder of unitFolders(data.toString('utf8'))) stateDirs.add(folder);
    entries.push({ path: `${suite.unitDir}/${basename(unit)}`, type: 'file', mode: 0o644, source: { data } });
  }
  for (const [path, from] of Object.entries(tool.conffiles)) {
    entries.push({
      path: checked(path),
      type: 'file',
      mode: 0o644,
      conffile: true,
      source: { data: await projectFile(project, from) },
    });
  }
  for (const [path, from] of Object.entries(tool.files)) {
    const mode = /^\/usr\/s?bin\//.test(path) ? 0o755 : 0o644;
    entries.push({ path: checked(path), type: 'file', mode, source: { data: await projectFile(project, from) } });
  }
  return {
    entries,
    units: tool.units.map((unit) => basename(unit)),
    user: tool.user,
    section: tool.section,
    depends: tool.depends,
    stateDirs: [...stateDirs].sort(),
  };
}

function checked(path: string): string {
  if (
    path
      .split('/')
      .slice(1)
      .every((part) => part !== '' && part !== '.' && part !== '..')
  )
    return path;
  throw new UserError('pyproject-value', `'${path}' is no plain absolute path`, {
    hint: 'write it as it will be installed: /etc/hello/config.toml',
  });
}

const FOLDER_ROOTS: Readonly<Record<string, string>> = {
  StateDirectory: '/var/lib',
  CacheDirectory: '/var/cache',
  LogsDirectory: '/var/log',
};

/** StateDirectory=, CacheDirectory= and LogsDirectory= of a unit, absolute. Names with specifiers are left alone. */
export function unitFolders(unit: string): string[] {
  const folders: string[] = [];
  for (const line of unit.split('\n')) {
    const match = /^\s*(StateDirectory|CacheDirectory|LogsDirectory)\s*=\s*(.*)$/.exec(line);
    for (const name of match?.[2]?.split(/\s+/) ?? []) {
      const plain = name.split(':')[0]!;
      if (/^[\w@+.-]+(\/[\w@+.-]+)*$/.test(plain) && !plain.split('/').includes('..'))
        folders.push(`${FOLDER_ROOTS[match![1]!]}/${plain}`);
    }
  }
  return folders;
}
