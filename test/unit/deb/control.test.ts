import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../../src/core/errors.ts';
import {
  foldLines,
  formatControl,
  formatParagraph,
  getField,
  type Paragraph,
  type ParseOptions,
  paragraph,
  parseControl,
  parseParagraph,
  readParagraphs,
  setField,
  unfoldLines,
} from '../../../src/deb/control.ts';

const HELLO = `Package: hello
Version: 2.10-3
Depends: libc6 (>= 2.34)
Description: example package
 The GNU hello program.
 .
   verbatim
Conffiles:
 /etc/hello 0123
`;

/** The error that reading throws, as its code, line and message. */
function refusal(
  text: string,
  options: ParseOptions = {},
): { code: string; line: number | undefined; file: string | undefined; message: string } {
  try {
    parseControl(text, options);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return { code: error.code, line: error.line, file: error.file, message: error.message };
  }
  throw new Error('it was not refused');
}

function values(read: Paragraph): [string, string][] {
  return read.fields.map((field) => [field.name, field.value]);
}

async function streamed(chunks: Iterable<Uint8Array | string>, options: ParseOptions = {}): Promise<Paragraph[]> {
  const found: Paragraph[] = [];
  for await (const next of readParagraphs(chunks, options)) found.push(next);
  return found;
}

describe('parseControl', () => {
  it('keeps order, continuation lines and line numbers', () => {
    const [read] = parseControl(`\n${HELLO}`);
    expect(read?.fields).toEqual([
      { name: 'Package', value: 'hello', line: 2 },
      { name: 'Version', value: '2.10-3', line: 3 },
      { name: 'Depends', value: 'libc6 (>= 2.34)', line: 4 },
      { name: 'Description', value: 'example package\n The GNU hello program.\n .\n   verbatim', line: 5 },
      { name: 'Conffiles', value: '\n /etc/hello 0123', line: 9 },
    ]);
  });

  it('finds fields in any case, and takes nothing from Object', () => {
    const read = parseParagraph('__proto__: x\nconstructor: y\nPackage: a1\n');
    expect(getField(read, 'PACKAGE')).toBe('a1');
    expect(getField(read, '__PROTO__')).toBe('x');
    expect(getField(read, 'constructor')).toBe('y');
    expect(getField(read, 'toString')).toBeUndefined();
    expect(getField(parseParagraph('A: b\n'), '__proto__')).toBeUndefined();
  });

  it('keeps blanks but those before the first line', () => {
    const read = parseParagraph('A:  b c \t\nB:x\nC: \n  d  \nD:\nE: f \n g \n');
    expect(values(read)).toEqual([
      ['A', 'b c \t'],
      ['B', 'x'],
      ['C', '\n  d  '],
      ['D', ''],
      ['E', 'f \n g '],
    ]);
    expect(['A', 'C', 'E'].map((name) => getField(read, name))).toEqual(['b c', '\n  d  ', 'f \n g ']);
  });

  it('reads CRLF as lines, without the CR in any value', () => {
    const text = 'A: b\r\nC: d\r\n e\r\n\r\n\r\nF: g\r\n';
    const read = parseControl(text);
    expect(read.map(values)).toEqual([
      [
        ['A', 'b'],
        ['C', 'd\n e'],
      ],
      [['F', 'g']],
    ]);
    expect(formatControl(read)).toBe(text);
    expect(read.map(formatParagraph)).toEqual(['A: b\nC: d\n e\n', 'F: g\n']);
  });

  it('leaves comments out of values, also within one', () => {
    const read = parseControl('# top\nA: b\n# in\n c\n#between\nD: e\n#Depends: x\n\n# next\nF: g\n# end\n');
    expect(read.map(values)).toEqual([
      [
        ['A', 'b\n c'],
        ['D', 'e'],
      ],
      [['F', 'g']],
    ]);
    expect(read.map((each) => each.fields.map((field) => field.line))).toEqual([[2, 6], [10]]);
    expect(formatParagraph(read[0]!)).toBe('A: b\n c\nD: e\n');
  });

  it.each([
    ['no colon', 'A: b\nnonsense\n', 2, "'nonsense' is not followed by a colon"],
    ['a blank in the name', 'A: b\nC D: e\n', 2, "'C' is not followed by a colon"],
    ['no name', 'A: b\n: c\n', 2, 'a field has no name'],
    ['a dash in front', '-A: b\n', 1, "a field name cannot start with '-'"],
    ['a letter outside ASCII', 'A: b\n\nÄ: c\n', 3, "a field name cannot hold the character after ''"],
    ['a line of blanks', 'A: b\n  \n c\n', 2, 'there is a line of nothing but blanks'],
    [
      'continuation without a field',
      ' a\nA: b\n',
      1,
      'a line that starts with a blank continues a field, but there is none above it',
    ],
    ['end of file in a name', 'A: b\nC', 2, "'C' is not followed by a colon"],
    ['a byte order mark', '\ufeffA: b\n', 1, 'the file starts with a byte order mark'],
    ['a signed text', '-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nA: b\n', 1, 'the text is signed'],
  ])('refuses %s with the line', (_what, text, line, message) => {
    expect(refusal(text, { file: 'x/control' })).toEqual({ code: 'control-syntax', line, file: 'x/control', message });
  });

  it('refuses the same field twice, whatever its case', () => {
    const message = "the field 'PACKAGE' is there twice (first in line 3)";
    expect(refusal('X: y\n\nPackage: a\nB: c\nPACKAGE: d\n')).toEqual({
      code: 'control-duplicate',
      line: 5,
      file: undefined,
      message,
    });
    const many = Array.from({ length: 100 }, (_, index) => `F${index}: x\n`).join('');
    expect(refusal(`${many}f7: y\n`)).toMatchObject({ code: 'control-duplicate', line: 101 });
    expect(parseControl(`${many}f100: y\n`)[0]?.fields).toHaveLength(101);
  });

  it('lists duplicates where asked', () => {
    const read = parseParagraph('A: 1\nB: 2\na: 3\n', { duplicates: 'keep' });
    expect(values(read)).toEqual([
      ['A', '1'],
      ['B', '2'],
      ['a', '3'],
    ]);
    expect(formatControl([setField(read, 'A', '4')])).toBe('A: 4\nB: 2\n');
  });

  it('can refuse comments as dpkg does in a binary package', () => {
    expect(refusal('A: b\n# c\n', { comments: 'refuse' })).toMatchObject({
      line: 2,
      message: 'comments are not allowed here',
    });
  });

  it('can take a line of blanks for the end of a paragraph', () => {
    const text = 'A: b\n \t\nC: d\n';
    const read = parseControl(text, { blankLines: 'separate' });
    expect(read.map(values)).toEqual([[['A', 'b']], [['C', 'd']]]);
    expect(formatControl(read)).toBe(text);
  });

  it('bounds the size of a paragraph', () => {
    expect(refusal(`A: b\n\nC: ${'x'.repeat(100)}\n`, { maxParagraphSize: 50 })).toMatchObject({
      code: 'control-too-large',
      line: 3,
    });
  });

  it('takes hostile texts in time that grows with their length only', () => {
    const start = performance.now();
    parseControl(`A:${' '.repeat(1_000_000)}x${' '.repeat(1_000_000)}\n`);
    parseControl(`A: b\n${'# c\n'.repeat(500_000)}`);
    parseControl('\n'.repeat(2_000_000));
    expect(() => parseControl(`${'a'.repeat(2_000_000)}`)).toThrow(UserError);
    parseControl(Array.from({ length: 50_000 }, (_, index) => `F${index}: x\n`).join(''));
    expect(performance.now() - start).toBeLessThan(10_000);
  });
});

describe('parseParagraph', () => {
  it('wants exactly one', () => {
    expect(() => parseParagraph('\n# only a comment\n')).toThrow('there is no paragraph in it');
    expect(() => parseParagraph('A: b\n\nC: d\n')).toThrow('there is more than one paragraph where one is expected');
  });
});

describe('printing back', () => {
  it.each([
    HELLO,
    `${HELLO}\n${HELLO}`,
    '\n\n# head\n\nA: b\n\n\n\n# c\n#d\n\nE: f\n\n# tail\n\n',
    'A: b',
    'A:b\nC:\td  \nD: \n',
    'A: b\n c\n# d\n# e\n f',
    'A: b\r\n\r\nC: d\r\n',
    'A: b\n# last',
    'A: ä€𝄞\n ÿ\n',
  ])('gives %j byte for byte', async (text) => {
    expect(formatControl(parseControl(text))).toBe(text);
    expect(formatControl(await streamed([text]))).toBe(text);
  });

  it('holds for every text that is read, whole or in chunks', async () => {
    const line = fc.oneof(
      fc.constantFrom(
        '',
        '',
        '# comment',
        'A: b',
        'B:c',
        'C: d ',
        'D:',
        ' more',
        '\tmore',
        ' .',
        '\r',
        'E: f\r',
        ' x\r',
        'F:  ü',
        'G-1: 𝄞',
      ),
      fc.string({ maxLength: 6 }),
    );
    const text = fc
      .tuple(fc.array(line, { maxLength: 20 }), fc.boolean())
      .map(([lines, ends]) => lines.join('\n') + (ends ? '\n' : ''));
    await fc.assert(
      fc.asyncProperty(text, fc.integer({ min: 1, max: 9 }), async (input, size) => {
        const options: ParseOptions = { duplicates: 'keep' };
        let read: Paragraph[];
        try {
          read = parseControl(input, options);
        } catch (error) {
          expect(error).toBeInstanceOf(UserError);
          return;
        }
        if (read.length > 0) expect(formatControl(read)).toBe(input);
        const bytes = Buffer.from(input);
        const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
          bytes.subarray(index * size, (index + 1) * size),
        );
        if (input.isWellFormed()) expect(await streamed(chunks, options)).toEqual(read);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('readParagraphs', () => {
  it('says the line and file of a fault, wherever the chunks end', async () => {
    const bytes = Buffer.from('A: b\n\nC: d\n e\n\nnonsense\n');
    for (let size = 1; size <= bytes.length; size += 1) {
      const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
        bytes.subarray(index * size, (index + 1) * size),
      );
      await expect(streamed(chunks, { file: 'Packages' })).rejects.toMatchObject({ file: 'Packages', line: 6 });
    }
  });

  it('refuses bytes that are not UTF-8, with their line', async () => {
    const bytes = Buffer.concat([Buffer.from('A: b\n\nC: ä\nD: '), Buffer.from([0xe4]), Buffer.from('\n')]);
    await expect(streamed([bytes])).rejects.toMatchObject({
      code: 'control-syntax',
      line: 4,
      message: 'the text is not UTF-8',
    });
    await expect(streamed([bytes.subarray(0, 12), bytes.subarray(12)])).rejects.toMatchObject({ line: 4 });
  });

  it('does not mind a source that uses its buffer again', async () => {
    function* reused() {
      const buffer = Buffer.alloc(4);
      for (const part of ['A: b', '\n\nC:', ' d\n ', 'e\nF:', ' g\n\n']) {
        buffer.write(part);
        yield buffer.subarray(0, part.length);
      }
    }
    expect((await streamed(reused())).map(values)).toEqual([
      [['A', 'b']],
      [
        ['C', 'd\n e'],
        ['F', 'g'],
      ],
    ]);
  });

  it('holds no more than one paragraph, and bounds that', async () => {
    let given = 0;
    function* endless(part: string) {
      for (;;) {
        given += part.length;
        yield Buffer.from(part);
      }
    }
    const options = { maxParagraphSize: 100_000 };
    for (const part of ['x'.repeat(1000), 'F: x\n x\n', '\n\n\n\n', '# c\n', ' \n']) {
      given = 0;
      await expect(streamed(endless(part), options)).rejects.toBeInstanceOf(UserError);
      expect(given).toBeLessThan(250_000);
    }
    let count = 0;
    for await (const read of readParagraphs(endless('A: b\nB: c\n\n'), options)) {
      expect(read.fields).toHaveLength(2);
      count += 1;
      if (count === 1000) break;
    }
    expect(count).toBe(1000);
  });

  it('gives nothing for nothing', async () => {
    expect(await streamed([])).toEqual([]);
    expect(await streamed(['\n', '# c'])).toEqual([]);
  });
});

describe('setField', () => {
  it('changes one field and leaves the rest as it was, comments too', () => {
    const read = parseControl('# top\nA:b\n# why\nC: d\nE:f');
    expect(formatControl([setField(read[0]!, 'c', 'new\n line')])).toBe('# top\nA:b\n# why\nC: new\n line\nE:f');
    expect(formatControl([setField(read[0]!, 'C', undefined)])).toBe('# top\nA:b\nE:f');
    expect(formatControl([setField(read[0]!, 'G', 'h')])).toBe('# top\nA:b\n# why\nC: d\nE:f\nG: h\n');
    expect(formatControl([setField(read[0]!, 'a', 'b')])).toBe('# top\nA:b\n# why\nC: d\nE:f');
    expect(setField(read[0]!, 'Nothing', undefined)).toBe(read[0]);
  });
});

describe('paragraph', () => {
  it('leaves undefined values out', () => {
    expect(
      formatParagraph(
        paragraph([
          ['Package', 'a1'],
          ['Depends', undefined],
          ['Empty', ''],
          ['Files', '\n x'],
        ]),
      ),
    ).toBe('Package: a1\nEmpty:\nFiles:\n x\n');
  });

  it.each([
    ['a new field', 'x\nEvil: y'],
    ['a new paragraph', 'x\n\nPackage: evil'],
    ['an end of the paragraph', 'x\n'],
    ['a line of blanks', 'x\n \n y'],
    ['a comment', 'x\n# y'],
    ['a carriage return', 'x\r\n y'],
    ['a NUL', 'x\0'],
  ])('refuses a value that brings %s', (_what, value) => {
    expect(() => paragraph([['A', value]])).toThrow(UserError);
    expect(() => setField(paragraph([['A', 'b']]), 'A', value)).toThrow(UserError);
  });

  it.each(['', 'A B', 'A:', '#A', '-A', 'Ä', 'A\n'])('refuses the name %j', (name) => {
    expect(() => paragraph([[name, 'x']])).toThrow(UserError);
  });

  it('refuses a name twice', () => {
    expect(() =>
      paragraph([
        ['A', '1'],
        ['a', '2'],
      ]),
    ).toThrow("the field 'a' is there twice");
  });

  it('takes exactly what reads back the same', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^[ -~\n\tä]{0,12}$/), (value) => {
        let made: Paragraph;
        try {
          made = paragraph([
            ['A', value],
            ['B', 'x'],
          ]);
        } catch {
          return;
        }
        const read = parseParagraph(formatParagraph(made));
        expect(values(read)).toEqual(values(made));
        expect(getField(read, 'A')?.split('\n').slice(1)).toEqual(value.split('\n').slice(1));
      }),
      { numRuns: 2000 },
    );
  });
});

describe('formatControl', () => {
  it('keeps paragraphs apart, wherever they come from', () => {
    const made = paragraph([['A', 'b']]);
    const [first, second] = parseControl('# x\nC: d\n\n\n# y\nE: f\n# z');
    expect(formatControl([made, made])).toBe('A: b\n\nA: b\n');
    expect(formatControl([made, first!])).toBe('A: b\n\n# x\nC: d\n');
    expect(formatControl([second!, made])).toBe('\n\n# y\nE: f\n# z\n\nA: b\n');
    expect(formatControl([])).toBe('');
  });

  it('completes a last line that something now follows', () => {
    const [read] = parseControl('A: b');
    expect(formatControl([read!, read!])).toBe('A: b\n\nA: b');
  });
});

describe('foldLines', () => {
  it('goes there and back', () => {
    const lines = ['-----BEGIN-----', '', '  x', 'y'];
    expect(foldLines(lines)).toBe('\n -----BEGIN-----\n .\n   x\n y');
    expect(unfoldLines(foldLines(lines))).toEqual(lines);
    expect(formatParagraph(paragraph([['Signed-By', foldLines(lines)]]))).toBe(
      'Signed-By:\n -----BEGIN-----\n .\n   x\n y\n',
    );
  });
});
