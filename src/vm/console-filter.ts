/**
 * What a guest may do to the terminal that its console is shown on: draw, and no more.
 *
 * Secret: which sequences (ECMA-48, xterm's ctlseqs) make a terminal answer, print, set its title or clipboard, and are left out: all
 * strings (OSC, DCS, APC, PM, SOS), reports, window operations, answerback, C1 controls. Cursor, colours, modes and scrolling stay.
 */

/** Final bytes of control sequences that draw. */
const DRAWING = '@ABCDEFGHIJKLMPSTXZ`abdefghlmrsu';
/** Bytes after ESC that are whole sequences: save, restore, index, next line, tab set, reverse index, reset, keypad. */
const SHORT = '78DEHMc=>';
const KEPT_CONTROLS = '\u0007\b\t\n\r\u000e\u000f';
const LONGEST = 64;

type State = 'text' | 'escape' | 'sequence' | 'charset' | 'string' | 'string-escape';

/** Takes pieces as they come, cut anywhere; returns what may be shown of each. */
export function consoleFilter(): (chunk: string) => string {
  let state: State = 'text';
  let held = '';
  const take = (one: string): string => {
    switch (state) {
      case 'text':
        if (one === '\u001b') state = 'escape';
        return one !== '\u001b' && isShown(one) ? one : '';
      case 'escape':
        return afterEscape(one);
      case 'charset':
        state = 'text';
        return /[0-9A-Z]/.test(one) ? held + one : '';
      case 'sequence':
        return inSequence(one);
      default:
        // a string ends with BEL or ESC \
        if (one === '\u0007' || one === '\u0018') state = 'text';
        else if (one === '\u001b') state = 'string-escape';
        else state = state === 'string-escape' && one === '\\' ? 'text' : 'string';
        return '';
    }
  };
  const afterEscape = (one: string): string => {
    state = 'text';
    held = `\u001b${one}`;
    if (one === '[') state = 'sequence';
    else if ('()'.includes(one)) state = 'charset';
    else if (']PX^_'.includes(one)) state = 'string';
    else if (one === '\u001b') state = 'escape';
    return SHORT.includes(one) ? held : '';
  };
  const inSequence = (one: string): string => {
    held += one;
    const isParameter = one >= ' ' && one <= '?';
    if (isParameter && held.length < LONGEST) return '';
    state = one === '\u001b' ? 'escape' : 'text';
    // with > or an intermediate byte it means something else: a question, most of them
    return DRAWING.includes(one) && /^\u001b\[\??[\d;:]*.$/.test(held) ? held : '';
  };
  return (chunk) => {
    let shown = '';
    for (const one of chunk) shown += take(one);
    return shown;
  };
}

function isShown(one: string): boolean {
  return one >= ' ' ? !/[\u007f-\u009f]/.test(one) : KEPT_CONTROLS.includes(one);
}
