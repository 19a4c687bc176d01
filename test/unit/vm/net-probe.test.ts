import { describe, expect, it } from 'vitest';
import { parseNeighbour } from '../../../src/vm/net-probe.ts';

describe('the table of neighbours', () => {
  it('says who answers, that nobody has yet, or that nobody does', () => {
    expect(parseNeighbour([{ lladdr: '02:00:00:00:00:02', state: ['REACHABLE'] }])).toEqual({
      mac: '02:00:00:00:00:02',
    });
    expect(parseNeighbour([{ state: ['INCOMPLETE'] }])).toBe('asking');
    expect(parseNeighbour([{ state: ['FAILED'] }])).toBeUndefined();
    expect(parseNeighbour([])).toBeUndefined();
  });
});
