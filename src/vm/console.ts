/**
 * The serial console of a machine as a growing file: its end for error messages, lines to wait for, signs that all is lost.
 *
 * Secret: how a Linux guest says that it will never be ready.
 */
import { watch } from 'node:fs';
import { open } from 'node:fs/promises';
import { errnoOf } from '../core/errors.ts';
import { printable } from '../core/log.ts';

/** Lines after which waiting is in vain, and what they mean. */
const LOST: readonly (readonly [pattern: RegExp, meaning: string])[] = [
  [/Kernel panic - not syncing/, 'the kernel of the guest panicked'],
  [/ALERT! .* does not exist\. {2}Dropping to a shell!/, 'the guest does not find its root disk'],
  [/^\(initramfs\)/m, 'the guest stopped in its initramfs'],
  [/You are in (emergency|rescue) mode/, 'the guest came up in emergency mode'],
  [/end Kernel panic/, 'the kernel of the guest panicked'],
];

const TERMINAL_SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_c])/g;

/** Takes out colours, cursor moves and other terminal sequences (ECMA-48), and the control characters that remain. */
export function plainText(text: string): string {
  return printable(text.replaceAll(TERMINAL_SEQUENCES, '').replaceAll('\r', ''));
}

/** Why the guest will never be ready, if the console says so. */
export function lostCause(text: string): string | undefined {
  return LOST.find(([pattern]) => pattern.test(text))?.[1];
}

/** The last lines of a console, for people; what says that all is lost is among them, however much came after it. */
export function consoleEnd(text: string, lines = 15): string {
  const all = plainText(text)
    .split('\n')
    .filter((line) => line.trim() !== '');
  const end = all.slice(-lines);
  const lost = all.slice(0, -lines).findLast((line) => LOST.some(([pattern]) => pattern.test(line)));
  return [...(lost === undefined ? [] : [lost, '...']), ...end].join('\n');
}

/** Follows a console file from `from` bytes on. */
export class ConsoleWatch implements Disposable {
  readonly path: string;
  readonly #listeners = new Set<(text: string) => void>();
  #text = '';
  #offset: number;
  #reading: Promise<void> | undefined;
  #again = false;
  #close: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(path: string, from = 0) {
    this.path = path;
    this.#offset = from;
  }

  /** Everything since the start, at most the last 256 kB. */
  get text(): string {
    return this.#text;
  }

  /** Starts following; the file must exist. */
  start(): this {
    const watcher = watch(this.path, () => void this.read());
    watcher.on('error', () => {});
    this.#close = () => watcher.close();
    // inotify tells of no change on some network file systems
    this.#timer = setInterval(() => void this.read(), 1000);
    this.#timer.unref();
    void this.read();
    return this;
  }

  /** Calls `listener` with the whole text so far, now and at each change. */
  onChange(listener: (text: string) => void): () => void {
    this.#listeners.add(listener);
    listener(this.#text);
    return () => void this.#listeners.delete(listener);
  }

  /** Takes in what the file has by now; resolves when all of it is there. */
  read(): Promise<void> {
    this.#again = true;
    this.#reading ??= this.#readAll().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  async #readAll(): Promise<void> {
    while (this.#again) {
      this.#again = false;
      await this.#readOn();
    }
  }

  async #readOn(): Promise<void> {
    let file: Awaited<ReturnType<typeof open>>;
    try {
      file = await open(this.path, 'r');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw error;
    }
    try {
      const buffer = Buffer.alloc(64 * 1024);
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, this.#offset);
        if (bytesRead === 0) return;
        this.#offset += bytesRead;
        this.#text = (this.#text + buffer.toString('utf8', 0, bytesRead)).slice(-256 * 1024);
        for (const listener of this.#listeners) listener(this.#text);
      }
    } finally {
      await file.close();
    }
  }

  [Symbol.dispose](): void {
    this.#close?.();
    clearInterval(this.#timer);
    this.#listeners.clear();
  }
}
