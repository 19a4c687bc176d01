/**
 * `node bench/deb-build.ts [RUNS]`: one package of 200 MB in 12,000 files, by us and by `dpkg-deb --build` at the same compression
 * with both cores, in turns. Ours also writes md5sums and returns four digests: the second row is dpkg-deb with those.
 */
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { scratchFolder } from '../src/core/files.ts';
import { type DebEntry, writeDeb } from '../src/deb/archive.ts';
import type { Compression } from '../src/deb/compression.ts';
import { formatParagraph, paragraph } from '../src/deb/control.ts';
import { inTurns, report } from './support.ts';
import { makeBenchTree } from './support-tree.ts';

const FILES = 12_000;
const MEGABYTES = 200;
const CONTROL = paragraph([
  ['Package', 'bench'],
  ['Version', '1.0'],
  ['Architecture', 'all'],
  ['Maintainer', 'Bench <bench@example.org>'],
  ['Description', 'benchmark'],
]);

/** What it takes with the usual programs to come by the same package and the same knowledge of it. */
const WITH_DIGESTS = `
  tree=$1 deb=$2; shift 2
  (cd "$tree" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums" && "$@" &&
  rm "$tree/DEBIAN/md5sums" && for sum in md5 sha1 sha256 sha512; do "\${sum}sum" "$deb"; done
`;

async function entriesOf(tree: string, path = ''): Promise<DebEntry[]> {
  const entries: DebEntry[] = [];
  for (const found of await readdir(join(tree, path), { withFileTypes: true })) {
    const own = `${path}/${found.name}`;
    if (own === '/DEBIAN') continue;
    if (found.isDirectory()) entries.push({ path: own, type: 'dir', mode: 0o755 }, ...(await entriesOf(tree, own)));
    else entries.push({ path: own, type: 'file', mode: 0o644, source: { file: join(tree, own) } });
  }
  return entries;
}

/** What a child of the benchmark does. */
async function buildOnce(tree: string, output: string, compression: Compression): Promise<void> {
  const entries = await entriesOf(tree);
  await writeDeb({}, output, { control: CONTROL, entries }, { compression, sourceDateEpoch: 2_000_000_000 });
}

async function compare(runs: number): Promise<void> {
  await using scratch = await scratchFolder(tmpdir(), 'bench-deb-');
  const tree = join(scratch.path, 'tree');
  const bytes = await makeBenchTree(tree, FILES, MEGABYTES);
  await mkdir(join(tree, 'DEBIAN'), { mode: 0o755 });
  await writeFile(join(tree, 'DEBIAN/control'), formatParagraph(CONTROL));
  for (const compression of ['zstd', 'xz'] as const) {
    const [theirs, ours] = [join(scratch.path, 'theirs.deb'), join(scratch.path, 'ours.deb')];
    const times = compression === 'xz' ? Math.min(runs, 1) : runs;
    const dpkgDeb = ['dpkg-deb', '--root-owner-group', `-Z${compression}`, '--build', tree, theirs];
    const rows = await inTurns(times, scratch.path, [
      { name: `dpkg-deb -Z${compression}`, argv: dpkgDeb },
      { name: '  and md5sums and four digests', argv: ['sh', '-c', WITH_DIGESTS, 'sh', tree, theirs, ...dpkgDeb] },
      {
        name: `buildkit ${compression}`,
        argv: [process.execPath, import.meta.filename, '--once', tree, ours, compression],
      },
    ]);
    const size = (await stat(ours)).size / (await stat(theirs)).size;
    const title = `${(bytes / 1e6).toFixed(0)} MB in ${FILES} files, ${compression}, ${times} in turns; ours is ${size.toFixed(3)}x as large`;
    process.stdout.write(`${report(title, rows)}\n`);
  }
}

const [first = '5', tree = '', output = '', compression = 'xz'] = process.argv.slice(2);
if (first === '--once') await buildOnce(tree, output, compression as Compression);
else await compare(Number(first));
