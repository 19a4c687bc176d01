import { describe, expect, it } from 'vitest';
import { createLog, formatBytes, formatDuration, formatProgress, printable } from '../../../src/core/log.ts';

function recorder(level: 'quiet' | 'normal' | 'verbose') {
  const written: string[] = [];
  const transcript: string[] = [];
  let now = 0;
  const log = createLog({
    level,
    sink: { write: (text) => void written.push(text), isTerminal: false, columns: 80 },
    clock: () => (now += 500),
    transcript: (line) => void transcript.push(line),
  });
  return { log, written, transcript };
}

describe('steps', () => {
  it('nest, are timed and end with a mark', async () => {
    const { log, written } = recorder('normal');
    await log.step('outer', () => log.step('inner', async () => log.info('note')));
    expect(written.join('')).toBe('> outer\n  > inner\n    note\n  ✓ inner (0.5 s)\n✓ outer (1.5 s)\n');
  });

  it('name themselves where they fail, also when quiet, and pass the error on', async () => {
    const { log, written } = recorder('quiet');
    const failure = new Error('no');
    await expect(log.step('Build it', () => Promise.reject(failure))).rejects.toBe(failure);
    expect(written.join('')).toBe('✗ Build it (failed after 0.5 s)\n');
  });

  it('leave every line in the transcript, whatever the level', () => {
    const { log, written, transcript } = recorder('quiet');
    log.info('a');
    log.detail('b');
    log.warn('c');
    expect(written).toEqual(['warning: c\n']);
    expect(transcript).toEqual(['a', 'b', 'warning: c']);
  });
});

describe('what reaches a terminal', () => {
  it('carries no control sequences of others', () => {
    expect(printable('a\u001b[2Jb\u0007\tc\nd\u202ee')).toBe('a\ufffd[2Jb\ufffd\tc\nd\ufffde');
  });

  it('says times and sizes as people do', () => {
    expect([400, 9_900, 12_300, 185_000].map(formatDuration)).toEqual(['0.4 s', '9.9 s', '12 s', '3 min 5 s']);
    expect([12, 1500, 25_300_000, 3_200_000_000].map(formatBytes)).toEqual(['12 B', '1.5 kB', '25 MB', '3.2 GB']);
  });

  it('draws a bar over itself, on a terminal only', () => {
    expect(formatProgress(0, 8)).toBe('[····················]   0 % 0 of 8');
    expect(formatProgress(3, 8)).toBe('[#######·············]  37 % 3 of 8');
    expect(formatProgress(9, 8)).toBe('[####################] 100 % 9 of 8');
    expect(formatProgress(7, undefined)).toBe('7');
    for (const isTerminal of [true, false]) {
      const written: string[] = [];
      const sink = { write: (text: string) => void written.push(text), isTerminal, columns: 30 };
      const log = createLog({ level: 'normal', sink, clock: () => 0 });
      for (let done = 1; done <= 5; done += 1) log.progress('adding', done, 5);
      log.info('done');
      const drawn = [
        '\r\u001b[Kadding [####················]',
        '\r\u001b[Kadding [####################]',
        '\r\u001b[K',
      ];
      expect(written).toEqual([...(isTerminal ? drawn : []), 'done\n']); // what comes too soon is left out, the end is not
    }
  });
});
