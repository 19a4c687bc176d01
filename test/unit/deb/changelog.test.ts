import { describe, expect, it } from 'vitest';
import {
  bumpChangelog,
  formatChangelog,
  formatChangelogDate,
  makeEntry,
  type NewEntry,
  parseChangelog,
  readChangelogDate,
} from '../../../src/deb/changelog.ts';

const TEXT = `hello (2.10-3) unstable; urgency=medium, binary-only=yes

  * Standards-Version: 4.6.2.

  [ Somebody Else ]
  * Another change
    that goes on.

 -- Jane Doe <jane@example.org>  Mon, 26 Dec 2022 16:30:00 +0100

hello (1:2.10-2) bookworm trixie; urgency=low
  * No empty line above.
 -- Jane Doe <jane@example.org>  Mon, 13 May 2019 15:12:42 +0000
`;

const NEW: NewEntry = {
  package: 'hello',
  version: '1:2.11-1',
  distributions: ['bookworm'],
  changes: [
    'New release.',
    'A change that is told in so many words that they do not fit into one line of eighty columns.',
  ],
  maintainer: 'Jane Doe <jane@example.org>',
  date: new Date('2026-11-21T08:00:00Z'),
};

describe('parseChangelog', () => {
  it('reads entries', () => {
    expect(parseChangelog(TEXT)).toMatchObject([
      {
        package: 'hello',
        version: '2.10-3',
        distributions: ['unstable'],
        metadata: { urgency: 'medium', 'binary-only': 'yes' },
        changes: [
          '  * Standards-Version: 4.6.2.',
          '',
          '  [ Somebody Else ]',
          '  * Another change',
          '    that goes on.',
        ],
        maintainer: 'Jane Doe <jane@example.org>',
        date: 'Mon, 26 Dec 2022 16:30:00 +0100',
        line: 1,
      },
      { version: '1:2.10-2', distributions: ['bookworm', 'trixie'], changes: ['  * No empty line above.'], line: 11 },
    ]);
  });

  it.each([
    TEXT,
    `\n\n${TEXT}\n\n`,
    TEXT.replaceAll('\n', '\r\n'),
    TEXT.trimEnd(),
    `${TEXT}\nLocal variables:\nmode: debian-changelog\nEnd:\n`,
    `${TEXT}\nOld Changelog:\n  whatever\n`,
    TEXT.replace(' -- Jane Doe <jane@example.org>  Mon', ' -- Jane Doe <jane@example.org> Mon'),
  ])('prints back byte for byte (%#)', (text) => {
    expect(formatChangelog(parseChangelog(text))).toBe(text);
  });

  it.each([
    ['nonsense\n', 1, 'this is not the heading of an entry'],
    ['hello (1.0-1); urgency=low\n', 1, 'this is not the heading of an entry'],
    [TEXT.split(' -- ')[0]!, 1, 'the entry has no signature'],
    [`${TEXT.split(' -- ')[0]}${TEXT}`, 9, 'the entry above has no signature'],
    [TEXT.replace(' <jane@example.org>', ''), 9, 'a signature is'],
    [TEXT.replace('2.10-3', '2.10_3'), 1, "'2.10_3' is not a Debian version"],
    [TEXT.replace('  * Another', 'Another'), 6, 'a line of an entry starts with two blanks'],
    [TEXT.replace('urgency=medium', 'urgency'), 1, "'urgency' is not 'key=value'"],
    [`${TEXT}\n%%%\n`, 15, 'this is not the heading of an entry'],
  ])('refuses a fault with its line (%#)', (text, line, message) => {
    expect(() => parseChangelog(text, { file: 'debian/changelog' })).toThrow(
      expect.objectContaining({
        code: 'changelog-syntax',
        file: 'debian/changelog',
        line,
        message: expect.stringContaining(message),
      }),
    );
  });

  it('takes nothing for nothing', () => {
    expect(parseChangelog('')).toEqual([]);
    expect(parseChangelog('\n\n')).toEqual([]);
  });
});

describe('bumpChangelog', () => {
  it('puts the new entry on top and leaves the rest as it was', () => {
    const old = parseChangelog(TEXT.replace('hello (2.10-3)', 'hello (1:2.10-3)'));
    expect(formatChangelog(bumpChangelog(old, NEW))).toBe(`hello (1:2.11-1) bookworm; urgency=medium

  * New release.
  * A change that is told in so many words that they do not fit into one line of
    eighty columns.

 -- Jane Doe <jane@example.org>  Sat, 21 Nov 2026 08:00:00 +0000

${TEXT.replace('hello (2.10-3)', 'hello (1:2.10-3)')}`);
    expect(bumpChangelog([], NEW)).toEqual([makeEntry(NEW)]);
  });

  it('reads back what it makes', () => {
    const [made] = parseChangelog(formatChangelog([makeEntry(NEW)]));
    expect(made).toEqual({ ...makeEntry(NEW), line: 1 });
  });

  it('refuses a version that is not above the newest', () => {
    const old = parseChangelog(TEXT);
    for (const version of ['2.10-3', '2.10-3~deb12', '1.0']) {
      expect(() => bumpChangelog(old, { ...NEW, version })).toThrow(
        expect.objectContaining({ code: 'changelog-order' }),
      );
    }
  });

  it.each<[Partial<NewEntry>, string]>([
    [{ package: 'Hello' }, 'is not the name of a package'],
    [{ version: '1.0_1' }, 'is not a Debian version'],
    [{ distributions: [] }, 'needs a distribution'],
    [{ distributions: ['a; b'] }, 'cannot be the name of a distribution'],
    [{ changes: [] }, 'at least one change'],
    [{ changes: ['  \n '] }, 'at least one change'],
    [{ maintainer: 'Jane' }, "is not 'Name <mail>'"],
    [{ maintainer: 'Jane <a@b>\n -- x <c@d>' }, "is not 'Name <mail>'"],
    [{ urgency: 'low\n' }, 'is not an urgency'],
  ])('refuses %j', (change, message) => {
    expect(() => makeEntry({ ...NEW, ...change })).toThrow(message);
  });
});

describe('dates', () => {
  it('are written in UTC and read in any zone', () => {
    expect(formatChangelogDate(new Date('2024-06-03T02:04:05Z'))).toBe('Mon, 03 Jun 2024 02:04:05 +0000');
    expect(readChangelogDate('Mon, 26 Dec 2022 16:30:00 +0100')).toEqual(new Date('2022-12-26T15:30:00Z'));
    expect(readChangelogDate('Mon,  3 Jun 2024 00:00:00 -0930 (XYZ)')).toEqual(new Date('2024-06-03T09:30:00Z'));
    expect(readChangelogDate('3 June 2024 00:00:00 +0000')).toEqual(new Date('2024-06-03T00:00:00Z'));
    for (const text of ['', 'yesterday', 'Mon, 26 Foo 2022 16:30:00 +0100', '2024-06-03'])
      expect(readChangelogDate(text)).toBeUndefined();
  });
});
