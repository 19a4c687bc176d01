/** Folders full of awkward things, and how two folders compare. */
import { createHash } from 'node:crypto';
import {
  chmod,
  link,
  lstat,
  lutimes,
  mkdir,
  readdir,
  readFile,
  readlink,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { DebEntry } from '../../src/deb/archive.ts';

const LONG = 'long-name-of-a-folder-that-goes-on-and-on';

/** Everything that has broken a package builder before: blanks, other alphabets, long names, links of all kinds, odd modes. */
export const AWKWARD: readonly DebEntry[] = [
  { path: '/usr/bin/setuid', type: 'file', mode: 0o4755, source: { data: 'setuid' } },
  { path: '/usr/bin/setgid', type: 'file', mode: 0o2755, source: { data: 'setgid' } },
  { path: '/usr/bin/a hard link', type: 'hardlink', mode: 0, link: '/usr/bin/setuid' },
  { path: '/usr/bin/zz-hard-link', type: 'hardlink', mode: 0, link: '/usr/bin/setuid' },
  { path: '/usr/share/sticky', type: 'dir', mode: 0o1777 },
  { path: '/usr/share/empty', type: 'dir', mode: 0o755 },
  { path: '/usr/share/private', type: 'dir', mode: 0o700 },
  { path: '/usr/share/private/key', type: 'file', mode: 0o600, source: { data: 'key' } },
  { path: '/usr/share/with blank/and\ttab', type: 'file', mode: 0o644, source: { data: 'blank' } },
  { path: '/usr/share/back\\slash', type: 'file', mode: 0o644, source: { data: 'backslash' } },
  { path: '/usr/share/-dash', type: 'file', mode: 0o644, source: { data: 'dash' } },
  { path: '/usr/share/grüße/日本語/\u{1f600}', type: 'file', mode: 0o644, source: { data: 'unicode' } },
  { path: '/usr/share/empty-file', type: 'file', mode: 0o644, source: { data: '' } },
  { path: `/usr/share/${'n'.repeat(246)}`, type: 'file', mode: 0o644, source: { data: 'long name' } },
  { path: `/usr/share/${'é'.repeat(123)}`, type: 'dir', mode: 0o755 },
  ...[1, 3, 9].map(
    (depth): DebEntry => ({
      path: `/usr/lib/${`${LONG}/`.repeat(depth)}file`,
      type: 'file',
      mode: 0o644,
      source: { data: `${depth}` },
    }),
  ),
  {
    path: `/usr/lib/${`${LONG}/`.repeat(9)}hard`,
    type: 'hardlink',
    mode: 0,
    link: `/usr/lib/${`${LONG}/`.repeat(9)}file`,
  },
  { path: '/usr/lib/link', type: 'symlink', mode: 0, link: 'a target with blanks\nand a newline' },
  { path: '/usr/lib/link-up', type: 'symlink', mode: 0, link: '../../etc/none' },
  { path: '/usr/lib/link-absolute', type: 'symlink', mode: 0, link: '/etc/ü' },
  ...[100, 101, 300].map(
    (length): DebEntry => ({ path: `/usr/lib/link-${length}`, type: 'symlink', mode: 0, link: 't'.repeat(length) }),
  ),
  { path: `/usr/lib/${'l'.repeat(246)}`, type: 'symlink', mode: 0, link: `${LONG}/`.repeat(5) },
  { path: '/etc/awkward.conf', type: 'file', mode: 0o644, source: { data: 'setting' }, conffile: true },
  { path: '/a-first', type: 'file', mode: 0o644, source: { data: 'first' } },
  { path: '/usr-local', type: 'file', mode: 0o644, source: { data: 'sorts between' } },
];

/** The same on disk, everything with one time. */
export async function makeTree(root: string, entries: readonly DebEntry[], mtime: number): Promise<void> {
  const links = entries.filter(({ type }) => type === 'hardlink');
  const others = entries.filter(({ type }) => type !== 'hardlink');
  await mkdir(root, { recursive: true });
  await chmod(root, 0o755);
  for (const entry of [...others, ...links]) {
    const path = join(root, entry.path);
    await makeParents(root, dirname(path));
    if (entry.type === 'dir') await mkdir(path);
    else if (entry.type === 'symlink') await symlink(entry.link!, path);
    else if (entry.type === 'hardlink') await link(join(root, entry.link!), path);
    else await writeFile(path, (entry.source as { data: string }).data);
    if (entry.type === 'file' || entry.type === 'dir') await chmod(path, entry.mode);
  }
  await setTimes(root, mtime);
}

async function makeParents(root: string, folder: string): Promise<void> {
  if (!folder.startsWith(root) || folder === root) return;
  await makeParents(root, dirname(folder));
  const made = await mkdir(folder).then(
    () => true,
    () => false,
  );
  if (made) await chmod(folder, 0o755); // whatever the umask is
}

async function setTimes(path: string, mtime: number): Promise<void> {
  const stat = await lstat(path);
  if (stat.isDirectory()) for (const name of await readdir(path)) await setTimes(join(path, name), mtime);
  if (stat.isSymbolicLink()) await lutimes(path, mtime, mtime);
  else await utimes(path, mtime, mtime);
}

/** Everything about everything below a folder, as lines: two equal lists are two equal trees. */
export async function describeTree(root: string): Promise<string[]> {
  const lines: string[] = [];
  const firstName = new Map<number, string>();
  const visit = async (path: string): Promise<void> => {
    const stat = await lstat(join(root, path));
    const type = stat.isDirectory() ? 'd' : stat.isSymbolicLink() ? 'l' : stat.isFile() ? 'f' : '?';
    let content = '';
    if (type === 'l') content = await readlink(join(root, path));
    if (type === 'f') {
      content = createHash('sha256')
        .update(await readFile(join(root, path)))
        .digest('hex')
        .slice(0, 16);
      if (stat.nlink > 1) content += ` is ${firstName.get(stat.ino) ?? firstName.set(stat.ino, path).get(stat.ino)}`;
    }
    lines.push(
      `${type} ${(stat.mode & 0o7777).toString(8)} ${stat.uid}:${stat.gid} ${Math.floor(stat.mtimeMs / 1000)} ${JSON.stringify(path)} ${content}`,
    );
    if (type === 'd') for (const name of (await readdir(join(root, path))).sort()) await visit(join(path, name));
  };
  await visit('.');
  return lines;
}
