import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import type { DebEntry } from '../../../src/deb/archive.ts';
import {
  checkControl,
  installedKib,
  planConffiles,
  planControl,
  planData,
  withInstalledSize,
} from '../../../src/deb/archive-plan.ts';
import { formatParagraph, paragraph } from '../../../src/deb/control.ts';
import { debSpec, file, tarHeader } from '../../support/deb-builder.ts';

const EPOCH = 1_700_000_000;
const dir = (path: string, rest: Partial<DebEntry> = {}): DebEntry => ({ path, type: 'dir', mode: 0o755, ...rest });
const symlink = (path: string, link: string): DebEntry => ({ path, type: 'symlink', mode: 0, link });
const hardlink = (path: string, link: string): DebEntry => ({ path, type: 'hardlink', mode: 0, link });
const paths = (entries: readonly DebEntry[]) => planData(entries, EPOCH).map((object) => object.path);

function refusal(body: () => unknown): UserError {
  try {
    body();
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    return error as UserError;
  }
  throw new Error('taken as good');
}

describe('planData', () => {
  it('walks the tree as dpkg-deb does: names by bytes within their folder, symlinks last', () => {
    expect(
      paths([
        symlink('/a', 'b'),
        file('/usr/b-c'),
        file('/usr/b/x'),
        file('/usr/B'),
        file('/usr/b+'),
        symlink('/usr/0', 'x'),
      ]),
    ).toEqual(['/', '/usr', '/usr/B', '/usr/b', '/usr/b/x', '/usr/b+', '/usr/b-c', '/a', '/usr/0']);
  });

  it('sorts by bytes also where UTF-16 sorts otherwise', () => {
    expect(paths([file('/\u{1f600}'), file('/\uff5e'), file('/z')])).toEqual(['/', '/z', '/\uff5e', '/\u{1f600}']);
  });

  it("adds the root and missing parents, root's and 0755, at the epoch, and keeps those given", () => {
    const objects = planData([file('/opt/a/x'), dir('/opt', { mode: 0o700, uid: 7, mtime: 5 })], EPOCH);
    expect(objects.map(({ path, header: { mode, uid, user, mtime } }) => [path, mode, uid, user, mtime])).toEqual([
      ['/', 0o755, 0, 'root', EPOCH],
      ['/opt', 0o700, 7, '', 5],
      ['/opt/a', 0o755, 0, 'root', EPOCH],
      ['/opt/a/x', 0o644, 0, 'root', EPOCH],
    ]);
    expect(paths([])).toEqual(['/']);
  });

  it('sets back later times and cuts fractions', () => {
    const times = planData(
      [file('/a', '', { mtime: EPOCH + 1 }), file('/b', '', { mtime: 12.9 }), file('/c', '', { mtime: -0.5 })],
      EPOCH,
    );
    expect(times.slice(1).map(({ header }) => header.mtime)).toEqual([EPOCH, 12, -1]);
  });

  it('gives the content to the first name of a file, whichever was called the file', () => {
    const objects = planData([file('/z', 'zz', { mode: 0o600 }), hardlink('/a', '/z'), hardlink('/m', '/z')], EPOCH);
    expect(
      objects.map(({ path, header, source }) => [path, header.type, header.mode, String(header.link), source]),
    ).toEqual([
      ['/', 'dir', 0o755, '', undefined],
      ['/a', 'file', 0o600, '', { data: 'zz' }],
      ['/m', 'hardlink', 0o600, './a', undefined],
      ['/z', 'hardlink', 0o600, './a', undefined],
    ]);
  });

  it('names a path that is listed twice', () => {
    expect(refusal(() => planData([file('/usr/x'), symlink('/usr/x', 'y')], EPOCH))).toMatchObject({
      code: 'duplicate-path',
      message: expect.stringContaining("'/usr/x'"),
    });
  });

  it.each([
    ['usr/x', 'slash'],
    ['/usr//x', "part ''"],
    ['/usr/x/', "part ''"],
    ['/usr/../x', "part '..'"],
    ['/./x', "part '.'"],
    ['/a\nb', 'newline'],
    ['/a\0b', 'NUL'],
    ['/\ud800', 'Unicode'],
    [`/${'x'.repeat(247)}`, '246 bytes'],
    [`/${'é'.repeat(124)}`, '246 bytes'],
    [`/${'x/'.repeat(2100)}x`, '4096 bytes'],
  ])('refuses the path %j', (path, reason) => {
    expect(refusal(() => planData([file(path)], EPOCH))).toMatchObject({
      code: 'deb-path',
      message: expect.stringContaining(reason),
    });
  });

  it.each<[string, DebEntry[], string]>([
    ['a file below a link', [symlink('/lib', 'usr/lib'), file('/lib/x')], 'deb-path'],
    ['a file below a file', [file('/lib'), file('/lib/x')], 'deb-path'],
    ['a file without content', [{ path: '/x', type: 'file', mode: 0 }], 'deb-entry'],
    ['a folder with content', [{ ...file('/x'), type: 'dir' }], 'deb-entry'],
    ['a link to nowhere', [symlink('/x', '')], 'deb-entry'],
    ['a link with a NUL byte', [symlink('/x', 'a\0b')], 'deb-entry'],
    ['a hard link to nothing', [hardlink('/x', '/y')], 'deb-entry'],
    ['a hard link to a link', [symlink('/y', 'z'), hardlink('/x', '/y')], 'deb-entry'],
    ['a mode too large', [file('/x', '', { mode: 0o10000 })], 'deb-entry'],
    ['a mode that is no number', [file('/x', '', { mode: Number.NaN })], 'deb-entry'],
    ['a uid below zero', [file('/x', '', { uid: -1 })], 'deb-entry'],
    ['a user name too long', [file('/x', '', { user: 'u'.repeat(32) })], 'deb-entry'],
    ['a folder as conffile', [dir('/x', { conffile: true })], 'deb-entry'],
    ['a time that is none', [file('/x', '', { mtime: Number.NaN })], 'deb-entry'],
  ])('refuses %s, by name', (_title, entries, code) => {
    const error = refusal(() => planData(entries, EPOCH));
    expect(error.code).toBe(code);
    expect(error.message).toContain('/x');
  });

  it('does not depend on the order of the entries, and puts every parent before its children', () => {
    const segment = fc
      .stringMatching(/^[a-c+.-é]{1,3}$/)
      .filter((part) => part !== '.' && part !== '..' && !part.includes('/'));
    const tree = fc.uniqueArray(
      fc.array(segment, { minLength: 1, maxLength: 4 }).map((parts) => `/${parts.join('/')}`),
      { maxLength: 12 },
    );
    fc.assert(
      fc.property(tree, fc.nat(), (leaves, seed) => {
        const files = leaves
          .filter((path) => !leaves.some((other) => other.startsWith(`${path}/`)))
          .map((path) => file(path));
        const shuffled = [...files].sort(
          (a, b) => ((a.path.length * 31 + seed) % 7) - ((b.path.length * 17 + seed) % 7),
        );
        const order = paths(files);
        expect(paths(shuffled)).toEqual(order);
        const seen = new Set<string>();
        for (const path of order) {
          if (path !== '/') expect(seen).toContain(path.slice(0, Math.max(1, path.lastIndexOf('/'))));
          seen.add(path);
        }
      }),
    );
  });
});

describe('installedKib', () => {
  it.each([
    ['an empty file', { size: 0 }, 0],
    ['one byte', { size: 1 }, 1],
    ['a KiB', { size: 1024 }, 1],
    ['a KiB and a byte', { size: 1025 }, 2],
    ['a symlink', { type: 'symlink', link: 'x' }, 1],
    ['a folder', { type: 'dir' }, 1],
    ['another name of a file', { type: 'hardlink', link: './x' }, 0],
  ] as const)('counts %s', (_title, entry, kib) => {
    expect(installedKib(tarHeader({ name: './x', ...entry }))).toBe(kib);
  });
});

describe('planConffiles', () => {
  const objects = planData([file('/etc/a', '', { conffile: true }), file('/etc/b'), dir('/etc/d')], EPOCH);

  it('joins those marked and those listed, each once', () => {
    expect(planConffiles(objects, ['/etc/b', '/etc/a', 'remove-on-upgrade /etc/gone'])).toEqual([
      '/etc/a',
      '/etc/b',
      'remove-on-upgrade /etc/gone',
    ]);
  });

  it.each(['/etc/none', 'etc/a', '/etc/d', 'remove-on-upgrade /etc/a', '/etc/../a', '/etc/b\n/etc/x'])(
    'refuses %j',
    (line) => {
      expect(refusal(() => planConffiles(objects, [line])).code).toBe('deb-conffile');
    },
  );
});

describe('checkControl', () => {
  const fields = {
    Package: 'a-b',
    Version: '1:2',
    Architecture: 'amd64',
    Maintainer: 'A <a@example.org>',
    Description: 'x',
  };

  it('gives name, version and architecture', () => {
    expect(checkControl(paragraph(Object.entries(fields)))).toEqual({
      name: 'a-b',
      version: '1:2',
      architecture: 'amd64',
    });
  });

  it.each(Object.keys(fields))('refuses a package without %s', (missing) => {
    const control = paragraph(Object.entries(fields).filter(([name]) => name !== missing));
    expect(refusal(() => checkControl(control))).toMatchObject({
      code: 'deb-control',
      message: expect.stringContaining(missing),
    });
  });

  it.each([
    { Package: 'A' },
    { Package: '../x' },
    { Version: 'v1' },
    { Version: '1_2' },
    { Architecture: 'any' },
    { Architecture: 'vax' },
    { Architecture: 'source' },
  ])('refuses %j', (wrong) => {
    expect(refusal(() => checkControl(paragraph(Object.entries({ ...fields, ...wrong })))).code).toBe('deb-control');
  });
});

describe('planControl', () => {
  const control = debSpec([]).control;

  it('puts Installed-Size after Maintainer, over an old one', () => {
    const old = paragraph([
      ['Package', 'a'],
      ['installed-size', '9'],
      ['Maintainer', 'M'],
      ['Depends', 'b'],
    ]);
    expect(formatParagraph(withInstalledSize(old, 12))).toBe(
      'Package: a\nMaintainer: M\nInstalled-Size: 12\nDepends: b\n',
    );
  });

  it('lists files by name, scripts executable, md5sums by bytes of the path', () => {
    const spec = debSpec([], {
      scripts: { postinst: '#!/bin/sh\n', config: '#!/bin/sh\n' },
      triggers: 'activate-noawait x\n',
      extraControl: { templates: { data: 'T', mode: 0o644 } },
    });
    const files = planControl(
      spec,
      control,
      ['/etc/a'],
      [
        { path: '/b', md5: '2' },
        { path: '/a b', md5: '1' },
      ],
    );
    expect(files.map(({ name, mode, data }) => [name, mode.toString(8), data.toString()])).toEqual([
      ['conffiles', '644', '/etc/a\n'],
      ['config', '755', '#!/bin/sh\n'],
      ['control', '644', formatParagraph(control)],
      ['md5sums', '644', '1  a b\n2  b\n'],
      ['postinst', '755', '#!/bin/sh\n'],
      ['templates', '644', 'T'],
      ['triggers', '644', 'activate-noawait x\n'],
    ]);
  });

  it('has no md5sums and no conffiles where there are none', () => {
    expect(planControl(debSpec([]), control, [], []).map(({ name }) => name)).toEqual(['control']);
  });

  it.each([
    ['a script without interpreter', { scripts: { postinst: 'echo hi\n' } }, 'deb-script'],
    ['a control file given twice', { extraControl: { control: { data: '', mode: 0o644 } } }, 'deb-control-file'],
    ['a control file with a slash', { extraControl: { 'a/b': { data: '', mode: 0o644 } } }, 'deb-control-file'],
    ['a control file called ..', { extraControl: { '..': { data: '', mode: 0o644 } } }, 'deb-control-file'],
  ])('refuses %s', (_title, rest, code) => {
    expect(refusal(() => planControl(debSpec([], rest), control, [], [])).code).toBe(code);
  });
});
