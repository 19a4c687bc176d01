/** A headless Chromium that is spoken to over the DevTools protocol: pages as people see them, asked by expressions. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { start } from '../../src/core/run.ts';

export interface View {
  readonly width: number;
  readonly height?: number;
  readonly scheme?: 'light' | 'dark';
  /** Default true. */
  readonly javascript?: boolean;
}

export interface Browser extends AsyncDisposable {
  /** Opens a page and waits until it is loaded. */
  open(url: string, view: View): Promise<void>;
  /** The value of an expression in the page, as JSON has it. */
  value<T>(expression: string): Promise<T>;
}

/** One at a time is enough: a start takes longer than twenty pages. */
export async function startBrowser(): Promise<Browser> {
  const home = await mkdtemp(join(tmpdir(), 'buildkit-browser-'));
  const program = start(
    {},
    'chromium',
    [
      ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run'],
      ...['--remote-debugging-port=0', `--user-data-dir=${home}`, 'about:blank'],
    ],
    { env: { HOME: home } },
  );
  // chromium writes port and path of its socket here
  let place: string[] = [];
  while (place.length < 2) {
    await sleep(20);
    const text = await readFile(join(home, 'DevToolsActivePort'), 'utf8').catch(() => '');
    place = text.trim().split('\n').filter(Boolean);
  }
  const socket = new WebSocket(`ws://127.0.0.1:${place[0]}${place[1]}`);
  await new Promise((done, fail) => {
    socket.addEventListener('open', done);
    socket.addEventListener('error', fail);
  });
  let last = 0;
  const waiting = new Map<number, { done: (value: never) => void; fail: (error: Error) => void }>();
  const heard = new Map<string, () => void>();
  socket.addEventListener('message', (message) => {
    const said = JSON.parse(String(message.data)) as {
      id?: number;
      method?: string;
      result?: unknown;
      error?: { message: string };
    };
    const asked = said.id === undefined ? undefined : waiting.get(said.id);
    if (asked && said.error) asked.fail(new Error(said.error.message));
    else asked?.done(said.result as never);
    if (said.method) heard.get(said.method)?.();
  });
  let sessionId: string | undefined;
  const ask = <T>(method: string, params: object = {}): Promise<T> => {
    last += 1;
    const id = last;
    socket.send(JSON.stringify({ id, method, params, sessionId }));
    return new Promise<T>((done, fail) => waiting.set(id, { done: done as never, fail }));
  };
  const { targetId } = await ask<{ targetId: string }>('Target.createTarget', { url: 'about:blank' });
  ({ sessionId } = await ask<{ sessionId: string }>('Target.attachToTarget', { targetId, flatten: true }));
  await ask('Page.enable');
  return {
    async open(url, { width, height = 900, scheme = 'light', javascript = true }) {
      await ask('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: 1, mobile: width < 600 });
      await ask('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
      await ask('Emulation.setScriptExecutionDisabled', { value: !javascript });
      const loaded = new Promise<void>((done) => {
        heard.set('Page.loadEventFired', done);
      });
      await ask('Page.navigate', { url });
      await loaded;
    },
    async value<T>(expression: string) {
      const { result, exceptionDetails } = await ask<{ result: { value: T }; exceptionDetails?: { text: string } }>(
        'Runtime.evaluate',
        { expression, returnByValue: true, awaitPromise: true },
      );
      if (exceptionDetails) throw new Error(exceptionDetails.text);
      return result.value;
    },
    async [Symbol.asyncDispose]() {
      sessionId = undefined;
      socket.send(JSON.stringify({ id: last + 1, method: 'Browser.close' }));
      await program.exitCode.catch(() => undefined);
      socket.close();
      await program[Symbol.asyncDispose]();
      await rm(home, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}
