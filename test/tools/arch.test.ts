/** Architectures against dpkg's own tables. */
import { expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { archMatches, debArch, gnuTriplet, isArch, isArchWildcard, multiarchTriplet } from '../../src/deb/arch.ts';

/** All that dpkg knows: architectures with their GNU and multiarch names, and which wildcards mean them. */
const DPKG_ARCH = String.raw`
use strict; use warnings;
use JSON::PP;
use Dpkg::Arch qw(:all);
my ($wildcards) = @{decode_json(<STDIN>)};
my @all = get_valid_arches();
my %gnu = map { $_ => debarch_to_gnutriplet($_) } @all;
my %multiarch = map { $_ => debarch_to_multiarch($_) } @all;
my %matches;
for my $wildcard (@$wildcards) { $matches{$wildcard} = [grep { debarch_is($_, $wildcard) } @all]; }
my %wildcard = map { $_ => debarch_is_wildcard($_) ? JSON::PP::true : JSON::PP::false } @$wildcards, @all;
print encode_json({ all => \@all, gnu => \%gnu, multiarch => \%multiarch, matches => \%matches, wildcard => \%wildcard });
`;

interface DpkgAnswer {
  readonly all: readonly string[];
  readonly gnu: Readonly<Record<string, string>>;
  readonly multiarch: Readonly<Record<string, string>>;
  readonly matches: Readonly<Record<string, readonly string[]>>;
  readonly wildcard: Readonly<Record<string, boolean>>;
}

it('names and matches architectures as dpkg', { timeout: 60_000 }, async () => {
  const parts = [
    ['any', 'base', 'eabihf', 'x32'],
    ['any', 'gnu', 'musl'],
    ['any', 'linux', 'hurd', 'kfreebsd'],
    ['any', 'amd64', 'arm', 'mips64el'],
  ];
  const four = parts.reduce<string[]>(
    (made, next) => (made.length === 0 ? next : made.flatMap((left) => next.map((right) => `${left}-${right}`))),
    [],
  );
  const wildcards = [
    'any',
    'linux-any',
    'any-amd64',
    'any-arm',
    'hurd-any',
    'gnu-linux-any',
    'musl-any-any',
    'gnu-any-any',
    'any-linux-any',
    ...four,
  ].filter((name) => name.split('-').includes('any'));
  const { stdout } = await run({}, 'perl', ['-e', DPKG_ARCH], { input: `${JSON.stringify([wildcards])}\n` });
  const theirs = JSON.parse(stdout) as DpkgAnswer;
  expect(theirs.all.length).toBeGreaterThan(300);
  expect(theirs.all.filter((name) => !isArch(name))).toEqual([]);
  expect(Object.fromEntries(theirs.all.map((name) => [name, gnuTriplet(name)]))).toEqual(theirs.gnu);
  expect(Object.fromEntries(theirs.all.map((name) => [name, multiarchTriplet(name)]))).toEqual(theirs.multiarch);
  expect(Object.keys(theirs.wildcard).filter((name) => isArchWildcard(name) !== theirs.wildcard[name])).toEqual([]);
  const ours = Object.fromEntries(
    wildcards.map((wildcard) => [wildcard, theirs.all.filter((name) => archMatches(wildcard, name))]),
  );
  expect(ours).toEqual(theirs.matches);
});

it('names this machine as dpkg', async () => {
  const { stdout } = await run({}, 'dpkg', ['--print-architecture']);
  const { stdout: machine } = await run({}, 'uname', ['-m']);
  expect([debArch(process.arch), debArch(machine.trim())]).toEqual([stdout.trim(), stdout.trim()]);
});
