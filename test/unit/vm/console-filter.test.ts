import { describe, expect, it } from 'vitest';
import { consoleFilter } from '../../../src/vm/console-filter.ts';

const shown = (text: string) => consoleFilter()(text);

describe('the console on a terminal', () => {
  it('draws: text, colours, cursor, modes, line drawing', () => {
    const screen =
      'login: \u001b[1;31mred\u001b[0m\r\n\u001b[2J\u001b[10;20H\u001b[?25l\u001b[?1049h\u001b(0lqk\u001b(B\u001b7\u001b8\b\tü€';
    expect(shown(screen)).toBe(screen);
  });

  it.each([
    ['a title', '\u001b]0;pwned\u0007'],
    ['the clipboard', '\u001b]52;c;ZXZpbA==\u001b\\'],
    ['a device control string', '\u001bP$q"p\u001b\\'],
    ['an application command', '\u001b_Gx=1\u001b\\'],
    ['a question after the device', '\u001b[c\u001b[>c\u001b[>q'],
    ['a question after the cursor', '\u001b[6n\u001b[?6n'],
    ['window operations', '\u001b[21t\u001b[8;1;1t'],
    ['the printer', '\u001b[5i'],
    ['a question after a mode', '\u001b[?2026$p'],
    ['answerback', '\u0005'],
    ['C1 controls', '\u009b6n'.slice(0, 1)],
    ['identification', '\u001bZ'],
  ])('drops %s', (_what, sequence) => {
    expect(shown(`a${sequence}b`)).toBe('ab');
  });

  it('knows them however they are cut', () => {
    const text = 'a\u001b]52;c;ZXZpbA==\u001b\\b\u001b[1mc\u001b[6nd';
    const filter = consoleFilter();
    expect([...text].map(filter).join('')).toBe('ab\u001b[1mcd');
  });

  it('shows again what follows an endless sequence', () => {
    expect(shown(`\u001b[${'1'.repeat(100)}text`).endsWith('text')).toBe(true);
  });
});
