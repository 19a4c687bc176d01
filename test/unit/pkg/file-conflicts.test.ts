import { describe, expect, it } from 'vitest';
import { findClashes, relationsAmong, relationsWithSuite } from '../../../src/pkg/file-conflicts.ts';
import { readContents } from '../../../src/pkg/suite-contents.ts';

const both = (...names: string[]) => ({ Conflicts: names, Replaces: names });
const clashes = findClashes([
  { name: 'opencv', paths: ['/usr/cv2.py', '/usr/a'] },
  { name: 'headless', paths: ['/usr/cv2.py', '/usr/b'] },
]);

describe('relationsAmong', () => {
  it('lets two that nobody needs together conflict with and replace each other', () => {
    expect(relationsAmong(clashes, [['app', 'opencv']])).toEqual(
      new Map([
        ['headless', both('opencv')],
        ['opencv', both('headless')],
      ]),
    );
    expect(relationsAmong([], [])).toEqual(new Map());
  });

  it.each([
    [
      'one package',
      [
        ['app', 'opencv'],
        ['app', 'headless'],
      ],
      'app',
    ],
    [
      'one far away',
      [
        ['app', 'x'],
        ['x', 'opencv'],
        ['app', 'y'],
        ['y', 'headless'],
        ['y', 'app'],
      ],
      'app',
    ],
    ['one of the two', [['opencv', 'headless']], 'opencv'],
  ] as const)('refuses two that %s needs together', (_, edges, who) => {
    expect(() => relationsAmong(clashes, edges)).toThrow(
      expect.objectContaining({
        code: 'file-clash',
        problems: [
          expect.objectContaining({ message: expect.stringContaining(`/usr/cv2.py, and '${who}' needs both`) }),
        ],
      }),
    );
  });
});

describe('relationsWithSuite', () => {
  const built = [
    { name: 'python3-flask', paths: ['/usr/bin/flask', '/usr/lib/flask.py'] },
    { name: 'python3-click', paths: ['/usr/lib/click.py'] },
  ];
  const owners = new Map([
    ['/usr/bin/flask', ['flask-tools', 'python3-flask']],
    ['/usr/lib/click.py', ['python3-click']],
  ]);

  it('conflicts with others that have the files, not with older versions of itself', () => {
    expect(relationsWithSuite(built, owners, new Map(), new Set())).toEqual(
      new Map([['python3-flask', both('flask-tools')]]),
    );
  });

  it('refuses what the plan depends on, and what every system has', () => {
    const depends = new Map([['python3-click', ['flask-tools']]]);
    expect(() => relationsWithSuite(built, owners, depends, new Set())).toThrow(
      expect.objectContaining({ code: 'file-clash' }),
    );
    expect(() => relationsWithSuite(built, owners, new Map(), new Set(['flask-tools']))).toThrow(
      expect.objectContaining({ code: 'file-clash' }),
    );
  });
});

it('readContents takes the lines that are asked for, across pieces, with blanks and other bytes in paths', async () => {
  const text = `usr/bin/flask      python/flask-tools,web/other
usr/bin/flask2\tx/y
usr/share/a b  doc   doc/with-blank
usr/share/ä.txt  doc/umlaut
usr/bin/last plain`;
  const bytes = Buffer.from(text);
  for (const size of [1, 7, 1000]) {
    const owners = new Map<string, string[]>();
    const pieces = async function* () {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
    };
    const wanted = new Set(['/usr/bin/flask', '/usr/share/a b  doc', '/usr/share/ä.txt', '/usr/bin/last', '/none']);
    await readContents(pieces(), wanted, owners);
    expect(Object.fromEntries(owners)).toEqual({
      '/usr/bin/flask': ['flask-tools', 'other'],
      '/usr/share/a b  doc': ['with-blank'],
      '/usr/share/ä.txt': ['umlaut'],
      '/usr/bin/last': ['plain'],
    });
  }
});
