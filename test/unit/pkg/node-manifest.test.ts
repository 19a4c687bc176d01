/** package.json, as odd as anybody may write it. */
import { describe, expect, it } from 'vitest';
import { treeCopyright } from '../../../src/pkg/node/copyright.ts';
import { allowedByProject, unshareArgs } from '../../../src/pkg/node/install-scripts.ts';
import {
  authorOf,
  homepageOf,
  installScriptsOf,
  licenceOf,
  manPagesOf,
  programsOf,
} from '../../../src/pkg/node/manifest.ts';

describe('package.json', () => {
  it.each([
    [{ bin: 'cli.js' }, { x: 'cli.js' }],
    [{ bin: './bin/../cli.js' }, { x: 'cli.js' }],
    [{ bin: { a: '/bin/a.js', b: 'b' } }, { a: 'bin/a.js', b: 'b' }],
    [{ bin: { '../../etc/x': 'x.js' } }, { x: 'x.js' }],
    [{ bin: { a: '../../../etc/passwd', '': 'b', 'c d': 'c', e: 7, '..': 'x' } }, {}],
    [{ bin: [] }, {}],
    [{}, {}],
  ])('%j has the programs %j', (manifest, programs) => {
    expect(Object.fromEntries(programsOf('@scope/x', manifest))).toEqual(programs);
  });

  it('reads licences, authors and addresses in their older forms', () => {
    expect(licenceOf({ license: 'MIT' })).toBe('MIT');
    expect(licenceOf({ license: { type: 'BSD' } })).toBe('BSD');
    expect(licenceOf({ licenses: [{ type: 'MIT' }, { type: 'Apache' }] })).toBe('MIT');
    expect(licenceOf({ license: 7 })).toBeUndefined();
    expect(authorOf({ author: 'Ada <ada@example.org> (https://x)' })).toBe('Ada <ada@example.org>');
    expect(authorOf({ author: { name: 'Ada', email: 'a@b' } })).toBe('Ada <a@b>');
    expect(homepageOf({ repository: { url: 'git+ssh://git@example.org/a/b.git' } })).toBe('https://example.org/a/b');
    expect(homepageOf({ homepage: 'javascript:alert(1)' })).toBeUndefined();
    expect(manPagesOf({ man: ['./man/x.1', '../x.1', 'y.txt'] })).toEqual(['man/x.1']);
  });

  it('lists install scripts in npm order, also the one that is not written', () => {
    expect(installScriptsOf({ scripts: { postinstall: 'b', preinstall: 'a', test: 'c' } }, false)).toEqual([
      ['preinstall', 'a'],
      ['postinstall', 'b'],
    ]);
    expect(installScriptsOf({}, true)).toEqual([['install', 'node-gyp rebuild']]);
    expect(installScriptsOf({ gypfile: false }, true)).toEqual([]);
    expect(installScriptsOf({ scripts: { install: 'x' } }, true)).toEqual([['install', 'x']]);
  });

  it('allows scripts by name only, and runs them without network', () => {
    expect(allowedByProject({ allowScripts: { a: true, b: false, 'c@1.0.0': true, d: 'yes' } })).toEqual([
      'a',
      'c@1.0.0',
    ]);
    expect(unshareArgs('node x').join(' ')).toMatch(/--net .*--kill-child -- sh -c node x$/);
  });
});

describe('copyright of a tree', () => {
  const MIT = (year: string) => `The MIT License\n\nCopyright (c) ${year} Ada\n\nPermission is hereby granted`;

  it('prints a text once that several packages share, and numbers those that differ', () => {
    const one = (files: string, year: string, text = MIT(year)) => ({
      files,
      name: files,
      licence: 'MIT',
      holders: [`${year} Ada`],
      texts: [text],
    });
    expect(
      treeCopyright('x', 'https://example.org', [
        one('*', '2020'),
        one('a/*', '2021'),
        one('b/*', '2022', 'Do as you like'),
      ]),
    ).toBe(`Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: x
Source: https://example.org

Files: *
Copyright: 2020 Ada
License: MIT

Files: a/*
Copyright: 2021 Ada
License: MIT

Files: b/*
Copyright: 2022 Ada
License: MIT-2

License: MIT
 The MIT License
 .
 Permission is hereby granted

License: MIT-2
 Do as you like
`);
  });
});
