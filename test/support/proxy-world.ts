/** A running proxy with its cache in a folder that vanishes, and requests as a client makes them. */
import { writeFileSync } from 'node:fs';
import { type Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { join } from 'node:path';
import type { ProxyParts } from '../../src/proxy/proxy.ts';
import { type RunningProxy, serveProxy } from '../../src/proxy/serve.ts';
import { defaultSettings, type ProxySettings } from '../../src/proxy/settings.ts';
import { createWorld, type World } from './world.ts';

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** False: the connection ended before the answer did. */
  readonly complete: boolean;
}

export interface AskOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** One connection for several requests. */
  readonly agent?: Agent;
  /** Called with each piece. */
  readonly onData?: (chunk: Buffer, received: number) => void | Promise<void>;
  readonly signal?: AbortSignal;
}

export interface ProxyWorld extends AsyncDisposable {
  readonly world: World;
  readonly proxy: RunningProxy;
  readonly url: string;
  readonly settings: ProxySettings;
  /** `path` in origin form, or a whole address for a request as to a proxy. */
  ask(path: string, options?: AskOptions): Promise<Answer>;
  /** Ends the proxy and starts another on the same cache. */
  restart(changes?: Partial<ProxySettings>): Promise<void>;
}

/** @param mirrors of the back end `archive` */
export async function startProxy(
  mirrors: readonly string[],
  options: {
    keys?: readonly string[];
    settings?: Partial<ProxySettings>;
    signatures?: 'require' | 'accept';
    clock?: Date;
    parts?: ProxyParts;
  } = {},
): Promise<ProxyWorld> {
  const world = await createWorld(options.clock);
  const keyrings = (options.keys ?? []).map((key, index) => {
    const path = join(world.path, `key${index}.asc`);
    writeFileSync(path, key);
    return path;
  });
  let settings: ProxySettings = {
    ...defaultSettings(join(world.path, 'proxy')),
    backends:
      mirrors.length === 0
        ? {}
        : { archive: { mirrors, signatures: options.signatures ?? (keyrings.length > 0 ? 'require' : 'accept') } },
    maxAge: 0,
    keyrings,
    ...options.settings,
  };
  const start = () =>
    serveProxy(world.context, settings, {
      listen: ['127.0.0.1:0'],
      ...(options.parts ? { parts: options.parts } : {}),
    });
  let proxy = await start();
  return {
    world,
    get proxy() {
      return proxy;
    },
    get url() {
      return proxy.urls[0]!;
    },
    get settings() {
      return settings;
    },
    ask: (path, asked = {}) => ask(proxy.urls[0]!, path, asked),
    async restart(changes = {}) {
      await proxy.close();
      settings = { ...settings, ...changes };
      proxy = await start();
    },
    async [Symbol.asyncDispose]() {
      await proxy.close();
      await world[Symbol.asyncDispose]();
    },
  };
}

export function ask(base: string, path: string, options: AskOptions = {}): Promise<Answer> {
  const { hostname, port } = new URL(base);
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        host: hostname,
        port,
        path,
        method: options.method ?? 'GET',
        headers: options.headers ?? {},
        agent: options.agent ?? false,
        ...(options.signal ? { signal: options.signal } : {}),
      },
      (response) => {
        const chunks: Buffer[] = [];
        let received = 0;
        const finish = () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            body: Buffer.concat(chunks),
            complete: response.complete,
          });
        response.on('data', (chunk: Buffer) => {
          chunks.push(chunk);
          received += chunk.length;
          const waiting = options.onData?.(chunk, received);
          if (waiting) {
            response.pause();
            void waiting.then(() => response.resume());
          }
        });
        response.on('end', finish);
        response.on('error', finish);
        response.on('close', finish);
      },
    );
    request.on('error', reject);
    request.end();
  });
}
