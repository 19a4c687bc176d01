import { describe, expect, it } from 'vitest';
import { formatBuildinfo, formatChanges, listStem } from '../../../src/deb/changes.ts';
import { parseParagraph } from '../../../src/deb/control.ts';

const digests = { md5: '1'.repeat(32), sha1: '2'.repeat(40), sha256: '3'.repeat(64) };
const control = (name: string, architecture: string) =>
  parseParagraph(
    `Package: ${name}\nVersion: 2:1.0-1\nArchitecture: ${architecture}\nSection: python\nPriority: optional\nDescription: a thing\n more\n`,
  );
const facts = {
  source: 'thing',
  version: '2:1.0-1',
  packages: [
    { ...digests, name: 'thing_1.0-1_all.deb', size: 10, control: control('thing', 'all') },
    { ...digests, name: 'thing-ext_1.0-1_amd64.deb', size: 11, control: control('thing-ext', 'amd64') },
  ],
  sources: [],
  date: new Date('2025-11-01T10:00:00Z'),
};

describe('lists of a build', () => {
  it('are named as dpkg-buildpackage names them', () => {
    expect(listStem(facts)).toBe('thing_1.0-1_amd64');
    expect(listStem({ ...facts, packages: facts.packages.slice(0, 1) })).toBe('thing_1.0-1_all');
  });

  it('.changes', () => {
    const text = formatChanges({
      ...facts,
      buildinfo: { ...digests, name: 'thing_1.0-1_amd64.buildinfo', size: 12 },
      distribution: 'bookworm',
      maintainer: 'Ada <ada@example.org>',
      changes: ['Built.'],
    });
    expect(text).toBe(`Format: 1.8
Date: Sat, 01 Nov 2025 10:00:00 +0000
Source: thing
Binary: thing thing-ext
Architecture: all amd64
Version: 2:1.0-1
Distribution: bookworm
Urgency: medium
Maintainer: Ada <ada@example.org>
Changed-By: Ada <ada@example.org>
Description:
 thing      - a thing
 thing-ext  - a thing
Changes:
 thing (2:1.0-1) bookworm; urgency=medium
 .
   * Built.
Checksums-Sha1:
 ${digests.sha1} 12 thing_1.0-1_amd64.buildinfo
 ${digests.sha1} 10 thing_1.0-1_all.deb
 ${digests.sha1} 11 thing-ext_1.0-1_amd64.deb
Checksums-Sha256:
 ${digests.sha256} 12 thing_1.0-1_amd64.buildinfo
 ${digests.sha256} 10 thing_1.0-1_all.deb
 ${digests.sha256} 11 thing-ext_1.0-1_amd64.deb
Files:
 ${digests.md5} 12 misc optional thing_1.0-1_amd64.buildinfo
 ${digests.md5} 10 python optional thing_1.0-1_all.deb
 ${digests.md5} 11 python optional thing-ext_1.0-1_amd64.deb
`);
  });

  it('.buildinfo', () => {
    const text = formatBuildinfo({
      ...facts,
      packages: facts.packages.slice(0, 1),
      buildArchitecture: 'amd64',
      origin: 'Debian',
      installed: { zlib1g: '1:1.2', binutils: '2.40' },
      environment: { X: 'a "b" \\' },
      own: [['Tool-Request', ['{}']]],
    });
    expect(text).toBe(`Format: 1.0
Source: thing
Binary: thing
Architecture: all
Version: 2:1.0-1
Checksums-Md5:
 ${digests.md5} 10 thing_1.0-1_all.deb
Checksums-Sha1:
 ${digests.sha1} 10 thing_1.0-1_all.deb
Checksums-Sha256:
 ${digests.sha256} 10 thing_1.0-1_all.deb
Build-Origin: Debian
Build-Architecture: amd64
Build-Date: Sat, 01 Nov 2025 10:00:00 +0000
Installed-Build-Depends:
 binutils (= 2.40),
 zlib1g (= 1:1.2)
Environment:
 X="a \\"b\\" \\\\"
Tool-Request:
 {}
`);
  });
});
