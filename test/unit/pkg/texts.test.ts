import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import {
  builtChangelog,
  changelogGz,
  copyrightText,
  description,
  documentEntries,
  synopsis,
} from '../../../src/pkg/texts.ts';

describe('synopsis', () => {
  it.each([
    [
      'A simple framework for building complex web applications.',
      'simple framework for building complex web applications',
    ],
    ['The  thing\n of\tthings', 'thing of things'],
    ['', 'fallback'],
    ['x', 'fallback'],
    [`${'word '.repeat(30)}`, `${'word '.repeat(15).trim()}..`],
    ['evil\u001b[31m name', 'evil [31m name'],
  ])('%j', (summary, expected) => {
    const text = synopsis(summary, 'fallback');
    expect(text).toBe(expected);
    expect(text.length).toBeLessThan(80);
  });
});

it('description wraps and separates paragraphs as deb822 wants', () => {
  expect(description('first', [`${'abc '.repeat(25)}`, 'second'])).toBe(
    `first\n ${'abc '.repeat(19).trim()}\n ${'abc '.repeat(6).trim()}\n .\n second`,
  );
});

describe('copyrightText', () => {
  const facts = {
    upstreamName: 'Demo',
    source: 'https://example.org',
    author: 'Ada <ada@example.org>',
    licence: 'BSD License',
    licenceFiles: [],
  };

  it('takes holders from the texts, and the author where there are none', () => {
    const text = copyrightText({
      ...facts,
      licenceFiles: [{ name: 'LICENSE', text: 'Copyright (c) 2010 Pallets\n\nDo as you like.\n' }],
    });
    expect(text).toContain(
      'Copyright: 2010 Pallets\nLicense: BSD-License\n Copyright (c) 2010 Pallets\n .\n Do as you like.\n',
    );
    expect(copyrightText(facts)).toContain('Copyright: Ada <ada@example.org>\n');
  });

  it('points to the common licences instead of repeating them', () => {
    const gpl = `GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n${'x'.repeat(9000)}`;
    const long = copyrightText({ ...facts, licenceFiles: [{ name: 'COPYING', text: gpl }] });
    expect(long).toContain('/usr/share/common-licenses/GPL-3.');
    expect(long).not.toContain('xxxx');
    const short = copyrightText({
      ...facts,
      licenceFiles: [{ name: 'L', text: 'Under the Apache License, Version 2.0.' }],
    });
    expect(short).toContain(' Under the Apache License, Version 2.0.\n .\n On Debian systems');
    const affero = `GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3\n${'y'.repeat(9000)}`;
    expect(copyrightText({ ...facts, licenceFiles: [{ name: 'L', text: affero }] })).toContain('yyyy');
  });

  it('leaves out whole texts that stand among others, and keeps the others (numpy)', () => {
    const gpl = `                    GNU GENERAL PUBLIC LICENSE
                       Version 3, 29 June 2007
${'use with the GNU Affero General Public License\n'.repeat(300)}                     END OF TERMS AND CONDITIONS`;
    const apache = `Apache License\n  Version 2.0, January 2004\nzzzz\nEND OF TERMS AND CONDITIONS\nIts appendix.`;
    const licenceFiles = [{ name: 'L', text: `Ours:\n${'y'.repeat(9000)}\n${gpl}\nAn exception.\n${apache}\n` }];
    const text = copyrightText({ ...facts, licenceFiles });
    expect(text).not.toMatch(/Affero|zzzz|END OF TERMS/);
    expect(text).toMatch(
      / Ours:\n y{9000}\n On Debian [^\n]*GPL-3\.\n An exception\.\n On Debian [^\n]*Apache-2\.0\.\n Its appendix\./,
    );
  });

  it('lets no text inject a field', () => {
    const text = copyrightText({ ...facts, author: 'x\nLicense: evil', upstreamName: 'a\nFiles: b' });
    expect(text.match(/^License:/gm)).toHaveLength(1);
    expect(text.match(/^Files:/gm)).toHaveLength(1);
  });
});

it('changelogGz is the same for the same entry and readable', () => {
  const entry = {
    package: 'xy',
    version: '1-1~deb12',
    suite: 'bookworm',
    changes: ['Built.'],
    maintainer: 'A <a@b.org>',
    date: 0,
  };
  expect(changelogGz(entry)).toEqual(changelogGz(entry));
  expect(gunzipSync(changelogGz(entry)).toString()).toBe(
    'xy (1-1~deb12) bookworm; urgency=medium\n\n  * Built.\n\n -- A <a@b.org>  Thu, 01 Jan 1970 00:00:00 +0000\n',
  );
});

it('documentEntries places the texts, and builtChangelog says what it was built from', () => {
  const changelog = builtChangelog({
    package: 'xy',
    version: '1.0-1',
    suite: 'bookworm',
    source: 'pypi:x==1.0',
    maintainer: 'Ada <ada@debian.org>',
    date: 1_700_000_000,
  });
  expect(gunzipSync(changelog).toString()).toContain('  * Built by buildkit from pypi:x==1.0.');
  const older = 'xy (0.9-1) unstable; urgency=low\n\n  * Older.\n\n -- A <a@b.org>  Thu, 01 Jan 1970 00:00:00 +0000\n';
  const entry = { package: 'xy', version: '1.0-1', suite: 'bookworm', source: 'x', maintainer: 'A <a@b.org>', date: 0 };
  expect(gunzipSync(builtChangelog(entry, { older })).toString()).toMatch(
    /^xy \(1\.0-1\)[\s\S]*\n\nxy \(0\.9-1\) unstable; urgency=low\n/,
  );
  expect(documentEntries('x', 'text', changelog)).toEqual([
    { path: '/usr/share/doc/x/copyright', type: 'file', mode: 0o644, source: { data: 'text' } },
    { path: '/usr/share/doc/x/changelog.Debian.gz', type: 'file', mode: 0o644, source: { data: changelog } },
  ]);
});
