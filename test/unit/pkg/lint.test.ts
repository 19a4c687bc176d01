import { describe, expect, it } from 'vitest';
import { paragraph } from '../../../src/deb/control.ts';
import { type LintFile, type LintInput, lint } from '../../../src/pkg/lint.ts';

const file = (path: string, mode = 0o644): LintFile => ({ path, mode, type: 'file' });
const link = (path: string, target: string): LintFile => ({ path, mode: 0o777, type: 'symlink', link: target });
const FIELDS: Record<string, string> = {
  Package: 'shelf',
  Version: '1-1',
  Architecture: 'all',
  Maintainer: 'Ada <ada@debian.org>',
  Section: 'misc',
  Priority: 'optional',
  Description: 'keeps things\n more of it',
};
const DOCUMENTS = [file('/usr/share/doc/shelf/copyright'), file('/usr/share/doc/shelf/changelog.Debian.gz')];
const good: LintInput = { control: paragraph(Object.entries(FIELDS)), files: DOCUMENTS, scripts: {}, conffiles: [] };
const codes = (change: Partial<LintInput>) => lint({ ...good, ...change }).map((one) => one.code);
const withFields = (more: Record<string, string | undefined>) => ({
  control: paragraph(Object.entries({ ...FIELDS, ...more })),
});
const withFiles = (...files: LintFile[]) => ({ files: [...DOCUMENTS, ...files] });

describe('lint', () => {
  it('has nothing to say about a good package', () => {
    const files = [
      file('/usr/bin/shelf', 0o755),
      file('/etc/shelf.conf'),
      link('/usr/bin/keeper', 'shelf'),
      link('/etc/alternatives/x', '/usr/bin/shelf'),
      { path: '/var/spool/shelf', type: 'dir', mode: 0o1777 } as const,
      file('/usr/share/man/man1/shelf.1.gz'),
    ];
    expect(lint({ ...good, ...withFiles(...files), conffiles: ['/etc/shelf.conf'] })).toEqual([]);
  });

  it.each([
    [{ Maintainer: undefined }, ['missing-field']],
    [{ Section: undefined, Priority: undefined }, ['missing-field', 'missing-field']],
    [{ Package: 'Shelf' }, ['bad-field', 'no-copyright', 'no-changelog']],
    [{ Version: '1_0' }, ['bad-field']],
    [{ Architecture: 'amd46' }, ['bad-field']],
    [{ Maintainer: 'Ada' }, ['bad-field']],
    [{ License: 'MIT', Vendor: 'x' }, ['unknown-field', 'unknown-field']],
    [{ 'X-Own': 'fine' }, []],
    [{ Depends: 'a (>> 1), b |' }, ['bad-relation']],
    [{ Depends: 'shelf' }, ['depends-on-itself']],
    [{ Provides: 'shelf' }, []],
    [{ Description: 'The thing.' }, ['synopsis-article', 'synopsis-full-stop', 'no-extended-description']],
    [{ Description: `${'x'.repeat(81)}\n more` }, ['long-synopsis']],
  ])('fields %j', (fields, expected) => {
    expect(codes(withFields(fields))).toEqual(expected);
  });

  it.each([
    [file('/usr/local/bin/x', 0o755), 'forbidden-place'],
    [file('/home/ada/x'), 'forbidden-place'],
    [file('/var/run/x.pid'), 'forbidden-place'],
    [file('/usr/share/x', 0o666), 'world-writable'],
    [{ path: '/var/x', type: 'dir', mode: 0o777 } as const, 'world-writable'],
    [file('/usr/bin/su2', 0o4755), 'setuid'],
    [file('/usr/bin/x', 0o644), 'program-not-executable'],
    [file('/usr/share/man/man1/x.1'), 'manual-not-compressed'],
    [link('/usr/bin/x', '/usr/lib/x/x'), 'absolute-link'],
    [link('/etc/x', '../usr/share/x'), 'relative-link'],
    [file('/etc/x.conf'), 'etc-not-conffile'],
    [file('/usr/lib/python3/dist-packages/x.pyc'), 'compiled-python'],
    [file('/usr/lib/python3/dist-packages/x.py'), 'python-not-compiled'],
    [file('/lib/systemd/system/x.service'), 'unit-not-handled'],
  ])('%j is %s', (one, code) => {
    expect(codes(withFiles(one))).toEqual([code]);
  });

  it('checks configuration files and scripts', () => {
    expect(codes({ conffiles: ['/etc/none'] })).toEqual(['conffile-missing']);
    expect(codes({ ...withFiles(file('/usr/share/x.conf')), conffiles: ['/usr/share/x.conf'] })).toEqual([
      'conffile-outside-etc',
    ]);
    expect(codes({ scripts: { postinst: 'echo' } })).toEqual(['script-without-interpreter']);
    expect(
      codes({ scripts: { postinst: '#!/bin/sh\necho\n', prerm: '#!/bin/sh -e\n', config: '#!/usr/bin/perl\n' } }),
    ).toEqual(['script-ignores-errors']);
  });

  it('names severity and the section of Policy', () => {
    expect(lint({ ...good, ...withFiles(file('/etc/x.conf')) })).toMatchObject([
      { severity: 'error', policy: '10.7.3', subject: 'shelf', message: expect.stringContaining("'/etc/x.conf'") },
    ]);
  });
});
