/**
 * A Debian source tree that dpkg-buildpackage turns into the same package as we built: for those who go on by hand.
 *
 * Secret: what of a package dpkg-gencontrol and dpkg-deb write anew, and what must be carried along: the files as they are below
 * `debian/root`, their modes (version control and umask lose them), scripts and other control files. debhelper would change bytes
 * (dh_strip, dh_compress), so rules call dpkg's own programs. Ruled by Policy 4 and 5, dpkg-gencontrol(1), dpkg-deb(1).
 */
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { type DebFile, type DebInfo, extractDeb, listDeb, readDeb } from '../deb/archive.ts';
import { formatChangelog, makeEntry } from '../deb/changelog.ts';
import { formatParagraph, getField, type Paragraph, paragraph } from '../deb/control.ts';

/** Made by dpkg-gencontrol from elsewhere, or kept in the paragraph of the source. */
const NOT_BINARY = new Set(['source', 'version', 'maintainer', 'installed-size', 'original-maintainer']);
/** Fields that dpkg-gencontrol copies by itself; others need the prefix XB-. */
const KNOWN = new Set(
  `package architecture section priority essential protected multi-arch pre-depends depends recommends suggests enhances breaks
  conflicts replaces provides built-using static-built-using homepage description package-type build-profiles tag important`.split(
    /\s+/,
  ),
);
/** Made anew by the rules. */
const GENERATED = new Set(['control', 'md5sums']);

/**
 * @returns the folder with `debian/`, below `dir`: 'NAME-VERSION'
 * @throws UserError `export-exists`
 */
export async function exportDebian(context: Context, deb: string, dir: string): Promise<string> {
  const info = await readDeb(context, deb);
  const { name, version } = info.package;
  const folder = join(dir, `${name}-${version.replace(/^\d+:/, '')}`);
  if (await exists(folder)) {
    throw new UserError('export-exists', 'a source tree of this version is there already', {
      file: folder,
      hint: 'remove it, or give another folder',
    });
  }
  try {
    await writeTree(context, deb, info, folder);
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
  return folder;
}

async function writeTree(context: Context, deb: string, info: DebInfo, folder: string): Promise<void> {
  const { name, control } = info.package;
  const files = await Array.fromAsync(listDeb(context, deb));
  const date = files.reduce((newest, file) => Math.max(newest, file.mtime), 0);
  await extractDeb(context, deb, join(folder, 'debian/root'));
  const write = async (path: string, data: string | Uint8Array, mode = 0o644): Promise<void> => {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), data);
    await chmod(join(folder, path), mode);
  };
  const owned = files.some((file) => ownerOf(file) !== 'root:root');
  const maintainer = getField(control, 'Maintainer') ?? '';
  const entry = makeEntry({
    package: getField(control, 'Source')?.replace(/\s*\(.*$/, '') ?? name,
    version: info.package.version,
    distributions: ['UNRELEASED'],
    changes: [`Exported by buildkit.`],
    maintainer,
    date: new Date(date * 1000),
  });
  await write('debian/changelog', formatChangelog([entry]));
  await write('debian/control', `${formatParagraph(sourceParagraph(control, owned))}\n${binaryParagraph(control)}`);
  await write('debian/source/format', '3.0 (native)\n');
  await write('debian/modes', modesText(files));
  for (const [file, data] of info.controlFiles) if (!GENERATED.has(file)) await write(`debian/DEBIAN/${file}`, data);
  await write('debian/rules', RULES.replaceAll('@NAME@', name), 0o755);
}

function sourceParagraph(control: Paragraph, owned: boolean): Paragraph {
  const field = (name: string) => getField(control, name);
  return paragraph([
    ['Source', field('Source')?.replace(/\s*\(.*$/, '') ?? field('Package')],
    ['Section', field('Section') ?? 'misc'],
    ['Priority', field('Priority') ?? 'optional'],
    ['Maintainer', field('Maintainer')],
    ['Standards-Version', '4.6.2'],
    ['Rules-Requires-Root', owned ? 'binary-targets' : 'no'],
  ]);
}

function binaryParagraph(control: Paragraph): string {
  return formatParagraph(control)
    .split('\n')
    .reduce<{ lines: string[]; keep: boolean }>(
      (state, line) => {
        const name = /^([^\s:]+):/.exec(line)?.[1];
        const keep = name === undefined ? state.keep : !NOT_BINARY.has(name.toLowerCase());
        const text = name !== undefined && !KNOWN.has(name.toLowerCase()) ? `XB-${line}` : line;
        return { lines: keep ? [...state.lines, text] : state.lines, keep };
      },
      { lines: [], keep: true },
    )
    .lines.join('\n');
}

/** 'MODE USER:GROUP PATH', for the rules; links have neither. */
function modesText(files: readonly DebFile[]): string {
  const lines = files
    .filter((file) => file.type !== 'symlink' && file.type !== 'hardlink')
    .map((file) => `${file.mode.toString(8).padStart(4, '0')} ${ownerOf(file)} .${file.path}\n`);
  return lines.join('');
}

/** Names count before numbers, as for dpkg. */
function ownerOf({ user, group, uid, gid }: DebFile): string {
  return `${user || uid}:${group || gid}`;
}

const RULES = `#!/usr/bin/make -f
# Written by buildkit pkg build --export-debian: the files below debian/root are installed as they are.
export SOURCE_DATE_EPOCH ?= $(shell dpkg-parsechangelog -STimestamp)
tree = debian/@NAME@

build build-arch build-indep:

binary binary-arch binary-indep:
	rm -rf $(tree)
	cp -a debian/root $(tree)
	cd $(tree) && while read -r mode owner path; do \\
		if [ "$$owner" != root:root ]; then chown "$$owner" "$$path"; fi; chmod "$$mode" "$$path"; done < ../modes
	dpkg-gencontrol -p@NAME@ -P$(tree) -Odebian/@NAME@.control
	install -d -m 0755 $(tree)/DEBIAN
	mv debian/@NAME@.control $(tree)/DEBIAN/control
	if [ -d debian/DEBIAN ]; then cp debian/DEBIAN/* $(tree)/DEBIAN/; fi
	chmod 0644 $(tree)/DEBIAN/* 2>/dev/null || true
	for script in preinst postinst prerm postrm config; do \\
		if [ -e $(tree)/DEBIAN/$$script ]; then chmod 0755 $(tree)/DEBIAN/$$script; fi; done
	cd $(tree) && find . -type f ! -path './DEBIAN/*' -printf '%P\\n' | LC_ALL=C sort | while read -r path; do \\
		if ! grep -qxF "/$$path" DEBIAN/conffiles 2>/dev/null; then md5sum "$$path"; fi; done > DEBIAN/md5sums
	[ -s $(tree)/DEBIAN/md5sums ] || rm $(tree)/DEBIAN/md5sums
	dpkg-deb --build $(if $(filter 0,$(shell grep -cv ' root:root ' debian/modes)),--root-owner-group) $(tree) ..

clean:
	rm -rf debian/@NAME@ debian/@NAME@.control debian/files

.PHONY: build build-arch build-indep binary binary-arch binary-indep clean
`;
