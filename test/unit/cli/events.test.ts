import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type EventKind, openEvents, withEvents } from '../../../src/cli/events.ts';
import { silentLog } from '../../../src/core/log.ts';

function recorder(msPerLook: number) {
  const events: [EventKind, object][] = [];
  const lines: string[] = [];
  let now = 0;
  const log = {
    ...silentLog(),
    info: (text: string) => void lines.push(text),
    warn: (text: string) => void lines.push(text),
  };
  const told = withEvents(
    log,
    (kind, fields) => void events.push([kind, fields]),
    () => (now += msPerLook),
  );
  return { told, events, lines };
}

describe('events', () => {
  it('say which step began and ended where', async () => {
    const { told, events } = recorder(10);
    const failure = new Error('no');
    await told.step('outer', () => told.step('inner', async () => 1));
    await expect(told.step('third', () => Promise.reject(failure))).rejects.toBe(failure);
    expect(events).toEqual([
      ['step-started', { step: 1, title: 'outer', parent: undefined }],
      ['step-started', { step: 2, title: 'inner', parent: 1 }],
      ['step-finished', { step: 2, title: 'inner', ok: true, ms: 10 }],
      ['step-finished', { step: 1, title: 'outer', ok: true, ms: 30 }],
      ['step-started', { step: 3, title: 'third', parent: undefined }],
      ['step-finished', { step: 3, title: 'third', ok: false, ms: 10 }],
    ]);
  });

  it('come beside the narration, and of progress only now and then', () => {
    const { told, events, lines } = recorder(1);
    told.info('a');
    told.warn('b');
    for (let done = 1; done <= 1000; done += 1) told.progress('adding packages', done, 1000);
    expect(lines).toEqual(['a', 'b']);
    expect(events.slice(0, 3)).toEqual([
      ['info', { message: 'a' }],
      ['warning', { message: 'b' }],
      ['progress', { label: 'adding packages', done: 1, total: 1000 }],
    ]);
    expect(events.at(-1)).toEqual(['progress', { label: 'adding packages', done: 1000, total: 1000 }]);
    expect(events.length).toBeLessThan(10);
  });

  it('are lines of JSON in a file that may hold earlier ones, or on stderr', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'buildkit-test-'));
    const path = join(folder, 'events');
    const stderr: string[] = [];
    const now = () => new Date('2026-11-21T08:00:00Z');
    openEvents(path, now, () => {})('info', { message: 'a\nb' });
    openEvents(path, now, () => {})('warning', { message: '\u001b' });
    openEvents('-', now, (text) => void stderr.push(text))('info', {});
    const at = '"at":"2026-11-21T08:00:00.000Z"';
    expect(await readFile(path, 'utf8')).toBe(
      `{"event":"info",${at},"message":"a\\nb"}\n{"event":"warning",${at},"message":"\\u001b"}\n`,
    );
    expect(stderr).toEqual([`{"event":"info",${at}}\n`]);
    await rm(folder, { recursive: true });
    expect(() => openEvents(path, now, () => {})).toThrow();
  });
});
