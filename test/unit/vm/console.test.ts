import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConsoleWatch, consoleEnd, lostCause, plainText } from '../../../src/vm/console.ts';

describe('plainText', () => {
  it.each([
    ['\u001b[1;31mred\u001b[0m', 'red'],
    ['\u001b]0;title\u0007text', 'text'],
    ['\u001b]8;;http://x\u001b\\link', 'link'],
    ['\u001bc\u001b[?7l\u001b[2Jclear', 'clear'],
    ['a\r\nb\tc', 'a\nb\tc'],
    ['bell\u0007 csi\u009b31m', 'bell\ufffd csi\ufffd31m'],
    ['cut off \u001b[', 'cut off \ufffd['],
  ])('of %j', (hostile, harmless) => {
    expect(plainText(hostile)).toBe(harmless);
  });
});

describe('lostCause', () => {
  it.each([
    ['[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs', /panicked/],
    ['ALERT! UUID=1 does not exist.  Dropping to a shell!\n', /root disk/],
    ['\n(initramfs) ', /initramfs/],
    ['You are in emergency mode. After logging in', /emergency/],
  ])('of %j', (text, cause) => {
    expect(lostCause(text)).toMatch(cause);
  });

  it('is none in a healthy boot', () => {
    expect(lostCause('Loading Linux\nbuildkit: ssh is up\nweb login: ')).toBeUndefined();
  });
});

describe('consoleEnd', () => {
  it('is the last lines that hold something', () => {
    expect(consoleEnd('a\n\nb\n\u001b[0m\nc\n\n', 2)).toBe('b\nc');
  });

  it('keeps the line that says what happened, however long the trace behind it', () => {
    expect(consoleEnd('a\nKernel panic - not syncing: x\n1\n2\n3\n', 2)).toBe(
      'Kernel panic - not syncing: x\n...\n2\n3',
    );
    expect(consoleEnd('a\nKernel panic - not syncing: x\n1\n', 2)).toBe('Kernel panic - not syncing: x\n1');
  });
});

describe('ConsoleWatch', () => {
  it('tells of what is there, of what comes, and keeps it', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'buildkit-console-'));
    try {
      const path = join(folder, 'console.log');
      await writeFile(path, 'old ');
      using console = new ConsoleWatch(path).start();
      const seen = new Promise<string>((resolve) => {
        console.onChange((text) => {
          if (text.includes('new')) resolve(text);
        });
      });
      await appendFile(path, 'new');
      expect(await seen).toBe('old new');
      await appendFile(path, ' last');
      await console.read();
      expect(console.text).toBe('old new last');
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
