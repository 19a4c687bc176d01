import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Paragraph, parseControl } from '../../../src/deb/control.ts';
import type { BinaryPackage } from '../../../src/deb/package.ts';
import { admit } from '../../../src/repo/admit.ts';
import { renderStanza } from '../../../src/repo/indexes.ts';

type Fields = readonly (readonly [string, string])[];

const USUAL: Fields = [
  ['Package', 'hello'],
  ['Version', '1.0'],
  ['Architecture', 'amd64'],
];

/** A package whose fields were never checked by anybody. */
function hostile(fields: Fields, facts: Partial<BinaryPackage> = {}): BinaryPackage {
  const control: Paragraph = { fields: [...USUAL, ...fields].map(([name, value]) => ({ name, value, line: 0 })) };
  return {
    path: 'hello.deb',
    name: 'hello',
    version: '1.0',
    architecture: 'amd64',
    control,
    size: 10,
    md5: 'm',
    sha1: 's1',
    sha256: 's256',
    sha512: 's512',
    ...facts,
  };
}

function stanzaOf(file: BinaryPackage): string {
  return renderStanza({ ...admit(file, 'deb'), id: 1, filename: 'pool/main/h/hello/hello_1.0_amd64.deb' });
}

describe('admission to an index', () => {
  it('drops what only a repository may say', () => {
    const stanza = stanzaOf(
      hostile([
        ['Filename', '../../../etc/passwd'],
        ['SIZE', '1'],
        ['MD5sum', 'x'],
        ['sha256', 'x'],
        ['Status', 'install ok installed'],
        ['Phased-Update-Percentage', '0'],
        ['Depends', 'libc6'],
      ]),
    );
    expect(stanza).toBe(
      [
        'Package: hello',
        'Version: 1.0',
        'Architecture: amd64',
        'Depends: libc6',
        'Filename: pool/main/h/hello/hello_1.0_amd64.deb',
        'Size: 10',
        'MD5sum: m',
        'SHA256: s256',
        '',
        '',
      ].join('\n'),
    );
  });

  it.each<[string, Fields, Partial<BinaryPackage>]>([
    ['a stanza after an empty line', [['Description', 'x\n\nPackage: evil']], {}],
    ['a line of blanks, which some parsers take for an empty one', [['Description', 'x\n \t\n more']], {}],
    ['a blank last line', [['Description', 'x\n ']], {}],
    ['a field on a line of its own', [['Description', 'x\nFilename: evil']], {}],
    ['a return', [['Description', 'x\rFilename: evil']], {}],
    ['a zero byte', [['Depends', 'a\u0000b']], {}],
    ['a field name with a colon', [['Filename: evil\nX', 'y']], {}],
    ['a field name that is a comment', [['#Depends', 'y']], {}],
    ['a field name that begins with a dash', [['-X', 'y']], {}],
    ['a path as name', [], { name: '../../x' }],
    ['an upper case name', [], { name: 'Hello' }],
    ['a name longer than a file system takes', [], { name: 'a'.repeat(300) }],
    ['a path as version', [], { version: '1/../../x' }],
    ['a version longer than a file system takes', [], { version: `1${'0'.repeat(300)}` }],
    ['an architecture that is none', [], { architecture: 'any' }],
    ['a path as source', [['Source', '../../x']], {}],
    ['a source version that is none', [['Source', 'x (1/2)']], {}],
    ['more text than an index takes', [['Depends', 'x'.repeat(1024 * 1024)]], {}],
  ])('refuses %s', (_what, fields, facts) => {
    expect(() => admit(hostile(fields, facts), 'deb')).toThrow(
      expect.objectContaining({ code: 'bad-package', exitCode: 1 }),
    );
  });

  it('takes a long list of dependencies', () => {
    expect(stanzaOf(hostile([['Depends', 'libx, '.repeat(150_000)]])).length).toBeGreaterThan(900_000);
  });

  it('never lets any value become another field or another stanza', () => {
    const piece = fc.constantFrom(
      '\n',
      ' ',
      '\t',
      '.',
      ':',
      '#',
      '-',
      'Filename: evil',
      'Package: evil',
      '\r',
      'a',
      'ü',
      '\u0085',
      '\u2028',
    );
    const value = fc.array(piece, { maxLength: 12 }).map((parts) => parts.join(''));
    const name = fc.constantFrom('Description', 'Depends', 'X-Other', 'Filename', 'x:y', '#x');
    fc.assert(
      fc.property(fc.array(fc.tuple(name, value), { maxLength: 3 }), (fields) => {
        let stanza: string;
        try {
          stanza = stanzaOf(hostile(fields));
        } catch (error) {
          expect(error).toMatchObject({ code: 'bad-package' });
          return;
        }
        const read = parseControl(stanza, { duplicates: 'keep' });
        expect(read).toHaveLength(1);
        const all = read[0]!.fields.map((field) => field.name);
        expect(all.filter((field) => /^(filename|package|size|sha256)$/i.test(field))).toHaveLength(4);
        expect(read[0]!.fields.find((field) => field.name === 'Filename')?.value).toMatch(/^pool\//);
      }),
      { numRuns: 2000 },
    );
  });
});
