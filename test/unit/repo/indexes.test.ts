import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dirtyRanges } from '../../../src/repo/blocks.ts';
import type { CatalogPackage } from '../../../src/repo/catalog.ts';
import { cutBlocks, generationId, renderRelease, renderStanza, startsBlock } from '../../../src/repo/indexes.ts';
import type { RepositorySettings } from '../../../src/repo/settings.ts';

function pkg(name: string, version = '1.0', architecture = 'amd64'): CatalogPackage {
  const control = `Package: ${name}\nVersion: ${version}\nArchitecture: ${architecture}\nDescription: test\n more of it\n`;
  return {
    id: 1,
    kind: 'deb',
    name,
    version,
    architecture,
    source: name,
    filename: `pool/main/x/${name}_${version}_${architecture}.deb`,
    size: 1234,
    md5: 'a'.repeat(32),
    sha1: 'b'.repeat(40),
    sha256: 'c'.repeat(64),
    sha512: 'd'.repeat(128),
    control,
  };
}

const SETTINGS: RepositorySettings = {
  origin: 'Example',
  label: 'Example label',
  description: 'Packages of Example',
  url: 'https://apt.example.org/',
  keys: [],
  validDays: 14,
  keepDays: 7,
  keepGenerations: 5,
};

/** 21 November 2026, 08:12:05 UTC. */
const DATE = 1_795_248_725;

describe('a stanza of Packages', () => {
  it('is the control file and what the repository knows of the file', () => {
    expect(renderStanza(pkg('hello'))).toBe(
      [
        'Package: hello',
        'Version: 1.0',
        'Architecture: amd64',
        'Description: test',
        ' more of it',
        'Filename: pool/main/x/hello_1.0_amd64.deb',
        'Size: 1234',
        `MD5sum: ${'a'.repeat(32)}`,
        `SHA256: ${'c'.repeat(64)}`,
        '',
        '',
      ].join('\n'),
    );
  });
});

describe('Release', () => {
  const suite = { name: 'bookworm', components: ['main', 'extra'], architectures: ['amd64', 'arm64'] };

  it('has the fields in this order, byte for byte', () => {
    const files = [
      { path: 'main/binary-amd64/Packages.xz', size: 7, sha256: '2'.repeat(64) },
      { path: 'main/binary-amd64/Packages', size: 12345, sha256: '1'.repeat(64) },
    ];
    expect(renderRelease(SETTINGS, suite, files, { date: DATE, validUntil: DATE + 14 * 86_400 })).toBe(
      [
        'Origin: Example',
        'Label: Example label',
        'Suite: bookworm',
        'Codename: bookworm',
        'Date: Sat, 21 Nov 2026 08:12:05 UTC',
        'Valid-Until: Sat, 05 Dec 2026 08:12:05 UTC',
        'Acquire-By-Hash: yes',
        'Snapshots: https://apt.example.org/snapshots/@SNAPSHOTID@/',
        'Architectures: amd64 arm64',
        'Components: main extra',
        'Description: Packages of Example',
        'SHA256:',
        ` ${'1'.repeat(64)} 12345 main/binary-amd64/Packages`,
        ` ${'2'.repeat(64)}     7 main/binary-amd64/Packages.xz`,
        '',
      ].join('\n'),
    );
  });

  it('leaves out what is not known and tells an alias and pinning hints', () => {
    const text = renderRelease(
      { ...SETTINGS, url: undefined, description: undefined },
      { ...suite, alias: 'stable', notAutomatic: true, butAutomaticUpgrades: true },
      [],
      { date: DATE, validUntil: undefined },
    );
    expect(text).not.toMatch(/Valid-Until|Snapshots|Description/);
    expect(text).toContain('Suite: stable\nCodename: bookworm\n');
    expect(text).toContain('NotAutomatic: yes\nButAutomaticUpgrades: yes\n');
  });

  it('names a generation after its date', () => {
    expect(generationId(DATE)).toBe('20261121T081205Z');
  });
});

const names = fc.stringMatching(/^[a-z0-9][a-z0-9.+-]{1,6}$/);

describe('blocks', () => {
  it('hold every stanza once, by name, versions as dpkg orders them', () => {
    const items = ['1.0', '1.0~rc1', '1.10', '1.9', '1:0.1'].map((version) => pkg('hello', version));
    const text = [...cutBlocks(items)].map((block) => block.text).join('');
    expect([...text.matchAll(/^Version: (.*)$/gm)].map((match) => match[1])).toEqual([
      '1.0~rc1',
      '1.0',
      '1.9',
      '1.10',
      '1:0.1',
    ]);
  });

  it('are cut near one name in 128', () => {
    const cuts = Array.from({ length: 60_000 }, (_, index) => `package-${index}`).filter(startsBlock).length;
    expect(cuts).toBeGreaterThan(400);
    expect(cuts).toBeLessThan(540);
  });

  it('brought up to date range by range are those cut from scratch', () => {
    // names that begin a block are rare: here every second one does
    const starters = Array.from({ length: 4000 }, (_, index) => `s${index}`).filter(startsBlock);
    const mixed = fc.oneof(names, fc.constantFrom(...starters));
    fc.assert(
      fc.property(
        fc.uniqueArray(mixed, { maxLength: 60 }),
        fc.uniqueArray(mixed, { maxLength: 12 }),
        (before, toggled) => {
          const oldNames = [...before].sort();
          const all = new Set(before);
          for (const name of [...toggled, ...before.slice(0, toggled.length)]) if (!all.delete(name)) all.add(name);
          const newNames = [...all].sort();
          const changed = [...new Set([...before, ...newNames])]
            .filter((n) => before.includes(n) !== all.has(n))
            .sort();
          const cut = (list: string[]) => [...cutBlocks(list.map((name) => pkg(name)))];
          let blocks = cut(oldNames);
          for (const range of dirtyRanges(
            changed,
            blocks.map((block) => block.first),
          )) {
            const inside = (name: string) => name >= range.from && (range.to === undefined || name < range.to);
            blocks = [...blocks.filter((block) => !inside(block.first)), ...cut(newNames.filter(inside))];
          }
          blocks.sort((a, b) => (a.first < b.first ? -1 : 1));
          expect(blocks).toEqual(cut(newNames));
        },
      ),
      { numRuns: 500 },
    );
  });
});
