import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { boundPatches, edScript, type Patch, parsePatchIndex, renderPatchIndex } from '../../../src/repo/pdiff.ts';

/** ed(1) as far as patches use it, from the last line to the first. */
function applyEd(text: string, script: string): string {
  const lines = text.split('\n').slice(0, -1);
  const commands = script.split('\n').slice(0, -1);
  for (let at = 0; at < commands.length; at += 1) {
    const match = /^(\d+)(?:,(\d+))?([acd])$/.exec(commands[at]!);
    if (!match) throw new Error(`no command: '${commands[at]}'`);
    const [, first, last = first, verb] = match;
    const added: string[] = [];
    if (verb !== 'd') for (at += 1; commands[at] !== '.'; at += 1) added.push(commands[at]!);
    if (verb === 'a') lines.splice(Number(first), 0, ...added);
    else lines.splice(Number(first) - 1, Number(last) - Number(first) + 1, ...added);
  }
  return lines.map((line) => `${line}\n`).join('');
}

const stanza = (name: string, lines: readonly string[]) =>
  `Package: ${name}\n${lines.map((line) => `X: ${line}\n`).join('')}\n`;

const index = fc
  .dictionary(
    fc.stringMatching(/^[a-c][a-c+.-]{0,2}$/),
    fc.array(fc.array(fc.constantFrom('a', 'b', 'c', ''), { maxLength: 4 }), { minLength: 1, maxLength: 3 }),
    { maxKeys: 6 },
  )
  .map((packages) =>
    Object.keys(packages)
      .sort()
      .flatMap((name) => packages[name]!.map((lines) => stanza(name, lines)))
      .join(''),
  );

describe('a patch', () => {
  it('leads from any index to any other', () => {
    fc.assert(
      fc.property(index, index, (before, after) => {
        const script = edScript(Buffer.from(before), Buffer.from(after)).toString();
        expect(applyEd(before, script)).toBe(after);
        if (before === after) expect(script).toBe('');
      }),
      { numRuns: 2000 },
    );
  });

  it('holds the lines that changed and no more', () => {
    const names = Array.from({ length: 30 }, (_, at) => `pkg-${String(at).padStart(2, '0')}`);
    const before = names.map((name) => stanza(name, ['1', 'same'])).join('');
    const after = before.replace('pkg-07\nX: 1', 'pkg-07\nX: 2').replace(stanza('pkg-20', ['1', 'same']), '');
    expect(edScript(Buffer.from(before), Buffer.from(`${after}${stanza('z', [])}`)).toString()).toBe(
      '120a\nPackage: z\n\n.\n81,84d\n30c\nX: 2\n.\n',
    );
  });
});

describe('the index of patches', () => {
  const sized = (digit: string, size: number) => ({ sha256: digit.repeat(64), size });
  const patch = (from: string, size = 10): Patch => ({
    name: `patch-${from}`,
    from: sized(from, 1000),
    patch: sized('e', 20),
    download: sized('f', size),
  });

  it('is what apt reads, and is read back', () => {
    const text = renderPatchIndex(sized('9', 1234), [patch('1'), patch('2')]);
    expect(text).toBe(
      [
        `SHA256-Current: ${'9'.repeat(64)} 1234`,
        'SHA256-History:',
        ` ${'1'.repeat(64)} 1000 patch-1`,
        ` ${'2'.repeat(64)} 1000 patch-2`,
        'SHA256-Patches:',
        ` ${'e'.repeat(64)} 20 patch-1`,
        ` ${'e'.repeat(64)} 20 patch-2`,
        'SHA256-Download:',
        ` ${'f'.repeat(64)} 10 patch-1.gz`,
        ` ${'f'.repeat(64)} 10 patch-2.gz`,
        '',
      ].join('\n'),
    );
    expect(parsePatchIndex(text)).toEqual([patch('1'), patch('2')]);
    expect(parsePatchIndex('something else')).toEqual([]);
  });

  it('names the latest only, no more than a whole index has bytes, and no circle', () => {
    const chain = ['1', '2', '3', '4'].map((from) => patch(from));
    const froms = (patches: readonly Patch[]) => patches.map((one) => one.from.sha256[0]);
    expect(froms(boundPatches(chain, '9'.repeat(64), 3, 1000))).toEqual(['2', '3', '4']);
    expect(froms(boundPatches(chain, '9'.repeat(64), 9, 25))).toEqual(['3', '4']);
    expect(froms(boundPatches(chain, '2'.repeat(64), 9, 1000))).toEqual(['3', '4']);
    expect(froms(boundPatches(chain, '9'.repeat(64), 0, 1000))).toEqual([]);
  });
});
