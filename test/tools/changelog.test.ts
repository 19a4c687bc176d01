/** The changelogs of the machine's packages: printed back byte for byte, and read as Dpkg::Changelog::Debian reads them. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { bumpChangelog, formatChangelog, parseChangelog, readChangelogDate } from '../../src/deb/changelog.ts';
import { createWorld } from '../support/world.ts';

/** Reads names of files, one a line; prints the entries of each as JSON. */
const DPKG_CHANGELOG = String.raw`
use strict; use warnings;
use JSON::PP;
use Dpkg::Changelog::Debian;
while (my $file = <STDIN>) {
  chomp $file;
  my $changelog = Dpkg::Changelog::Debian->new(verbose => 0);
  $changelog->load($file);
  my @entries = map { [$_->get_source(), "" . $_->get_version(), [$_->get_distributions()], $_->get_maintainer(), $_->get_timestamp()] } @$changelog;
  print encode_json(\@entries), "\n";
}
`;

it('reads and prints every changelog of the machine', { timeout: 300_000 }, async () => {
  const texts: string[] = [];
  for (const name of await readdir('/usr/share/doc')) {
    const packed = await readFile(join('/usr/share/doc', name, 'changelog.Debian.gz')).catch(() => undefined);
    if (packed !== undefined) texts.push(gunzipSync(packed).toString('latin1'));
  }
  expect(texts.length).toBeGreaterThan(50);
  const read = texts.map((text) => parseChangelog(text));
  for (const [number, entries] of read.entries()) expect(formatChangelog(entries) === texts[number]).toBe(true);
  const dates = read.flatMap((entries) => entries.slice(0, 3).map((entry) => entry.date));
  expect(dates.filter((date) => readChangelogDate(date) === undefined)).toEqual([]);
});

it('reads them as dpkg does', { timeout: 300_000 }, async () => {
  await using world = await createWorld();
  const names = (await readdir('/usr/share/doc')).sort().filter((_, index) => index % 8 === 0);
  const files: string[] = [];
  const texts: string[] = [];
  for (const name of names) {
    const packed = await readFile(join('/usr/share/doc', name, 'changelog.Debian.gz')).catch(() => undefined);
    if (packed === undefined) continue;
    const file = join(world.path, `${name}.changelog`);
    const plain = gunzipSync(packed);
    await writeFile(file, plain);
    files.push(file);
    texts.push(plain.toString('latin1'));
  }
  expect(files.length).toBeGreaterThan(5);
  const { stdout } = await run(world.context, 'perl', ['-e', DPKG_CHANGELOG], {
    input: files.map((file) => `${file}\n`).join(''),
  });
  const theirs = stdout
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as unknown[]);
  for (const [number, text] of texts.entries()) {
    const ours = parseChangelog(text).map((entry) => [
      entry.package,
      entry.version,
      entry.distributions,
      entry.maintainer,
      entry.date,
    ]);
    expect([files[number], ours]).toEqual([files[number], theirs[number]]);
  }
});

it('writes what dpkg-parsechangelog takes without a warning', async () => {
  await using world = await createWorld();
  const common = { package: 'hello', distributions: ['bookworm'], maintainer: 'Jane Dö <jane@example.org>' };
  const first = bumpChangelog([], {
    ...common,
    version: '1.0-1',
    changes: ['First release.'],
    date: new Date('2026-01-02T03:04:05Z'),
  });
  const both = bumpChangelog(first, {
    ...common,
    version: '1:0.9-1~deb12',
    changes: ['a '.repeat(100), 'Two'],
    date: new Date('2026-02-03T04:05:06Z'),
  });
  const file = join(world.path, 'changelog');
  await writeFile(file, formatChangelog(both));
  const { stdout, stderr } = await run(world.context, 'dpkg-parsechangelog', [
    '--file',
    file,
    '--all',
    '--format',
    'rfc822',
  ]);
  expect(stderr).toBe('');
  expect(stdout).toMatch(/^Version: 1:0\.9-1~deb12$/m);
  expect(stdout).toMatch(/^Timestamp: 1770091506$/m);
  expect(stdout).toMatch(/^Maintainer: Jane Dö <jane@example\.org>$/m);
});
