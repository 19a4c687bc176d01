/**
 * `node bench/deb-control.ts`: reads the Packages index of bookworm's main (63,000 paragraphs, 50 MB) with buildkit's reader, with
 * npm's debian-control and with dpkg's own Dpkg::Control; and sorts its versions with buildkit and with Dpkg::Version.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { scratchFolder } from '../src/core/files.ts';
import { getField, readParagraphs } from '../src/deb/control.ts';
import { compareVersions } from '../src/deb/version.ts';
import { openPackagesIndex } from '../test/support/packages-index.ts';
import { measure, medianOf, report } from './support.ts';

const PERL_READ =
  'open my $fh, "<", shift or die; my $n = 0; while (1) { my $c = Dpkg::Control->new(type => CTRL_INDEX_PKG); last unless $c->parse($fh, "-"); $n++ } print "$n\n"';
const PERL_SORT = 'chomp(my @v = <>); my @s = sort { version_compare($a, $b) } @v; print "$s[0] $s[-1]\n"';

async function countParagraphs(file: string): Promise<number> {
  let count = 0;
  for await (const _ of readParagraphs(createReadStream(file))) count += 1;
  return count;
}

async function compareReaders(scratch: string, file: string): Promise<string> {
  const own = [process.execPath, import.meta.filename];
  const rows: [string, string[]][] = [
    ['buildkit', [...own, 'read', file]],
    ['debian-control', [...own, 'read-other', file]],
    ['Dpkg::Control', ['perl', '-MDpkg::Control', '-e', PERL_READ, file]],
  ];
  const measured = [];
  for (const [name, argv] of rows) measured.push(await medianOf(3, () => measure(name, argv, { scratch })));
  const megabytes = (await stat(file)).size / 1e6;
  const speed = measured.map((row) => `${row.name} ${(megabytes / row.wallSeconds).toFixed(0)} MB/s`).join(', ');
  return `${report(`Read ${megabytes.toFixed(0)} MB of Packages, start of the program included`, measured)}${speed}\n`;
}

async function compareSorters(scratch: string, versions: string): Promise<string> {
  const own = [process.execPath, import.meta.filename];
  const rows: [string, string[]][] = [
    ['buildkit', [...own, 'sort', versions]],
    ['Dpkg::Version', ['perl', '-MDpkg::Version', '-e', PERL_SORT, versions]],
  ];
  const measured = [];
  for (const [name, argv] of rows) measured.push(await medianOf(3, () => measure(name, argv, { scratch })));
  return report('Sort the versions of all packages', measured);
}

async function main(): Promise<void> {
  await using scratch = await scratchFolder(tmpdir());
  const file = join(scratch.path, 'Packages');
  await using index = await openPackagesIndex({}, scratch.path);
  await pipeline(index.stdout, createWriteStream(file));
  const found: string[] = [];
  for await (const paragraph of readParagraphs(createReadStream(file)))
    found.push(getField(paragraph, 'Version') ?? '0');
  const versions = join(scratch.path, 'versions');
  await writeFile(versions, `${found.join('\n')}\n`);
  process.stdout.write(`${await compareReaders(scratch.path, file)}\n${await compareSorters(scratch.path, versions)}`);
}

const [, , goal, file = ''] = process.argv;
if (goal === 'read') console.log(await countParagraphs(file));
else if (goal === 'read-other') {
  // @ts-expect-error: it has no types
  const { default: other } = await import('debian-control');
  const texts = (await readFile(file, 'utf8')).split('\n\n').filter((text) => text.trim() !== '');
  console.log(texts.map((text) => other.parse(text)).length);
} else if (goal === 'sort') {
  const sorted = (await readFile(file, 'utf8')).trimEnd().split('\n').sort(compareVersions);
  console.log(sorted[0], sorted.at(-1));
} else await main();
