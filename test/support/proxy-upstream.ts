/** An upstream on loopback that misbehaves on order and counts what it is asked. */
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Listening, listen } from '../../src/core/http.ts';

export interface UpstreamFile {
  readonly bytes: Buffer;
  readonly etag?: string | undefined;
  /** HTTP date; undefined: none is sent. */
  readonly lastModified?: string | undefined;
}

/** What goes wrong with a path; the first matching fault with `times` left is used. */
export interface Fault {
  readonly path: RegExp;
  /** How often; default: for ever. */
  times?: number;
  readonly status?: number;
  /** Headers to send with `status`. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The connection ends after this many bytes of the body; Content-Length promises all of it. */
  readonly cutAfter?: number;
  /** With cutAfter: no Content-Length and no chunks, so that the cut looks like an end. */
  readonly lengthless?: boolean;
  /** One byte at this offset is wrong. */
  readonly flip?: number;
  /** Before the head, and between pieces of 16 kB. */
  readonly delayMs?: number;
  /** Called when it is asked for. */
  readonly before?: () => void;
  /** Never answers. */
  readonly hang?: boolean;
  /** Answers ranges of whatever is there now, If-Range or not. */
  readonly ignoresIfRange?: boolean;
  /** Ignores Range. */
  readonly noRanges?: boolean;
}

export interface FakeUpstream extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly files: Map<string, UpstreamFile>;
  readonly faults: Fault[];
  /** `GET /path` of each request, in order; ` bytes=N-` behind it when a range was asked. */
  readonly log: string[];
  put(path: string, content: string | Buffer, options?: Omit<UpstreamFile, 'bytes'>): void;
  /** Requests whose path matches. */
  count(path: RegExp): number;
  /** Lets held answers go on (see `hold`). */
  release(): void;
  /** From now on bodies stop after `bytes` until `release`. */
  hold(bytes: number): void;
  readonly connections: () => number;
}

export async function startUpstream(port = 0): Promise<FakeUpstream> {
  const files = new Map<string, UpstreamFile>();
  const faults: Fault[] = [];
  const log: string[] = [];
  let gate: { bytes: number; open: Promise<void>; release: () => void } | undefined;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = decodeURIComponent((request.url ?? '').replace(/\?.*$/, ''));
    const range = request.headers.range;
    log.push(`${path}${range === undefined ? '' : ` ${range}`}`);
    const fault = faults.find((one) => one.path.test(path) && (one.times === undefined || one.times > 0));
    if (fault?.times !== undefined) fault.times -= 1;
    fault?.before?.();
    if (fault?.hang) return;
    if (fault?.delayMs !== undefined) await pause(fault.delayMs);
    if (fault?.status !== undefined) {
      response.writeHead(fault.status, { 'content-length': '0', ...fault.headers });
      response.end();
      return;
    }
    const file = files.get(path);
    if (!file) {
      response.writeHead(404, { 'content-length': '0' });
      response.end();
      return;
    }
    await send(request, response, file, fault);
  }

  async function send(
    request: IncomingMessage,
    response: ServerResponse,
    file: UpstreamFile,
    fault: Fault | undefined,
  ): Promise<void> {
    const { headers } = request;
    const common: Record<string, string> = { 'content-type': 'application/octet-stream' };
    if (file.etag !== undefined) common.etag = file.etag;
    if (file.lastModified !== undefined) common['last-modified'] = file.lastModified;
    const same =
      (file.etag !== undefined && headers['if-none-match'] === file.etag) ||
      (file.lastModified !== undefined && headers['if-modified-since'] === file.lastModified);
    if (same) {
      response.writeHead(304, common);
      response.end();
      return;
    }
    let bytes = Buffer.from(file.bytes);
    if (fault?.flip !== undefined) bytes[fault.flip]! ^= 0xff;
    const ifRange = headers['if-range'];
    const rangeHolds =
      fault?.ignoresIfRange === true || ifRange === undefined || ifRange === file.etag || ifRange === file.lastModified;
    const match = fault?.noRanges || !rangeHolds ? null : /^bytes=(\d+)-$/.exec(headers.range ?? '');
    let status = 200;
    if (match) {
      const start = Number(match[1]);
      if (start >= bytes.length) {
        response.writeHead(416, { 'content-range': `bytes */${bytes.length}`, 'content-length': '0' });
        response.end();
        return;
      }
      common['content-range'] = `bytes ${start}-${bytes.length - 1}/${bytes.length}`;
      bytes = bytes.subarray(start);
      status = 206;
    }
    if (fault?.lengthless) {
      response.shouldKeepAlive = false;
      response.useChunkedEncodingByDefault = false;
      response.writeHead(status, { ...common, connection: 'close' });
    } else {
      response.writeHead(status, { ...common, 'content-length': String(bytes.length) });
    }
    const end = Math.min(fault?.cutAfter ?? bytes.length, bytes.length);
    for (let at = 0; at < end; at += 16_384) {
      if (response.destroyed) return;
      if (gate && at >= gate.bytes) await gate.open;
      if (fault?.delayMs !== undefined && at > 0) await pause(fault.delayMs);
      if (!response.write(bytes.subarray(at, Math.min(at + 16_384, end)))) {
        await new Promise<void>((resolve) => {
          const go = () => {
            response.off('drain', go);
            response.off('close', go);
            resolve();
          };
          response.on('drain', go);
          response.on('close', go);
        });
      }
    }
    if (fault?.cutAfter === undefined) response.end();
    else if (fault.lengthless) response.socket?.end();
    else setTimeout(() => response.socket?.destroy(), 20);
  }

  const server: Listening = await listen((request, response) => void answer(request, response), {
    host: '127.0.0.1',
    port,
  });
  let connections = 0;
  server.server.on('connection', () => {
    connections += 1;
  });
  return {
    url: server.url,
    port: server.port,
    files,
    faults,
    log,
    connections: () => connections,
    put(path, content, options = {}) {
      const bytes = Buffer.isBuffer(content) ? content : Buffer.from(content);
      files.set(path, { bytes, ...options });
    },
    count: (path) => log.filter((line) => path.test(line)).length,
    hold(bytes) {
      let release = () => {};
      const open = new Promise<void>((resolve) => {
        release = resolve;
      });
      gate = { bytes, open, release };
    },
    release() {
      gate?.release();
      gate = undefined;
    },
    async [Symbol.asyncDispose]() {
      gate?.release();
      await server.close(0);
    },
  };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export function sha256(bytes: Buffer | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}
