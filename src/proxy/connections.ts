/**
 * Connections to mirrors: opened, kept for the next request, at most so many to one server.
 *
 * Secret: sockets that read into one buffer, which is used again for each piece of every answer: there is no garbage to collect,
 * and half of the CPU of a general client goes (see bench/proxy.ts). One request is under way on a connection at a time. One that
 * the server closed while it was kept is noticed by the request that meets it, which goes out again (RFC 9112 9.3.1).
 */
import { connect, isIP, type LookupFunction, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { type AnswerHeaders, AnswerReader } from './http-answer.ts';
import { type Authority, formatAuthority } from './target.ts';

/** One request and what becomes of it: either `onEnd` or `onError` is the last call. */
export interface Exchange {
  onHead(status: number, headers: AnswerHeaders, control: Control): void;
  /** The bytes hold until it returns. */
  onBody(bytes: Buffer, control: Control): void;
  onEnd(): void;
  /** @param error also what `onHead` or `onBody` threw */
  onError(error: unknown): void;
}

export interface Control {
  pause(): void;
  resume(): void;
  /** Nothing is called any more. A short rest is read over, so that the connection can be used again. */
  abandon(): void;
}

export interface Connections {
  /** @param headers without Host and Connection; @throws Error when path or headers cannot be sent */
  ask(authority: Authority, path: string, headers: Readonly<Record<string, string>>, exchange: Exchange): Control;
  close(): void;
}

export interface ConnectionOptions {
  /** To one server. */
  readonly most: number;
  readonly connectMs: number;
  /** The longest silence within an answer. */
  readonly idleMs: number;
  readonly lookup?: LookupFunction | undefined;
}

interface Job {
  readonly text: string;
  /** Undefined: abandoned. */
  exchange: Exchange | undefined;
  control: Control;
  repeated: boolean;
  link: Link | undefined;
}

interface Link {
  readonly socket: Socket;
  job: Job | undefined;
  reader: AnswerReader | undefined;
  /** Answers so far. */
  answers: number;
  /** May still come of an answer that nobody wants. */
  unwanted: number;
}

interface Server {
  readonly authority: Authority;
  readonly idle: Link[];
  readonly waiting: Job[];
  readonly links: Set<Link>;
}

const READ_BYTES = 256 * 1024;
const KEEP_MS = 4000;
/** Read over rather than closing the connection. */
const SHORT_REST = 64 * 1024;

export function createConnections(options: ConnectionOptions): Connections {
  const { most, connectMs, idleMs, lookup } = options;
  const servers = new Map<string, Server>();
  // reading and handing on is one call: no two answers are in it at once
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  let closed = false;

  function serverOf(authority: Authority): Server {
    const origin = formatAuthority(authority);
    let server = servers.get(origin);
    if (!server) {
      server = { authority, idle: [], waiting: [], links: new Set() };
      servers.set(origin, server);
    }
    return server;
  }

  function open(server: Server): Link {
    const { scheme, host, port } = server.authority;
    const onread = {
      buffer,
      callback(count: number): boolean {
        take(server, link, buffer.subarray(0, count));
        return true;
      },
    };
    const place = { host, port, onread, noDelay: true, ...(lookup ? { lookup } : {}) };
    const socket =
      scheme === 'https'
        ? connectTls({ ...place, ALPNProtocols: ['http/1.1'], ...(isIP(host) ? {} : { servername: host }) })
        : connect(place);
    const link: Link = { socket, job: undefined, reader: undefined, answers: 0, unwanted: 0 };
    server.links.add(link);
    const late = setTimeout(() => socket.destroy(new Error(`no connection within ${connectMs} ms`)), connectMs);
    socket.once(scheme === 'https' ? 'secureConnect' : 'connect', () => {
      clearTimeout(late);
      socket.setTimeout(idleMs);
    });
    let failure: Error | undefined;
    socket.on('error', (error) => {
      failure = error;
    });
    socket.on('timeout', () => socket.destroy(new Error(`silence for ${idleMs} ms`)));
    socket.on('end', () => ended(server, link));
    socket.once('close', () => {
      clearTimeout(late);
      gone(server, link, failure ?? new Error('the other side closed the connection'));
    });
    return link;
  }

  function take(server: Server, link: Link, bytes: Buffer): void {
    const { reader } = link;
    if (!reader) {
      link.socket.destroy(); // nobody asked
      return;
    }
    try {
      const taken = reader.push(bytes);
      if (link.job?.exchange === undefined && !reader.done) {
        link.unwanted += bytes.length;
        if (link.unwanted > SHORT_REST) link.socket.destroy();
      }
      if (reader.done) finished(server, link, taken === bytes.length);
    } catch (error) {
      fail(link, error);
      link.socket.destroy();
    }
  }

  function ended(server: Server, link: Link): void {
    try {
      link.reader?.end();
      if (link.reader) finished(server, link, false);
    } catch {
      link.socket.destroy(); // `gone` says so, or asks again
    }
  }

  function finished(server: Server, link: Link, clean: boolean): void {
    const { job, reader } = link;
    link.job = undefined;
    link.reader = undefined;
    link.answers += 1;
    if (clean && reader!.keepAlive && !link.socket.destroyed && link.socket.writable) {
      const says = reader!.keepAliveSeconds;
      const keep = says === undefined ? KEEP_MS : Math.min(KEEP_MS, says * 1000 - 500);
      const next = server.waiting.shift();
      if (next) start(link, next);
      else if (keep <= 0 || closed) link.socket.destroy();
      else {
        server.idle.push(link);
        link.socket.setTimeout(keep);
      }
    } else link.socket.destroy();
    if (job) {
      const { exchange } = job;
      job.exchange = undefined;
      job.link = undefined;
      exchange?.onEnd();
    }
  }

  function fail(link: Link, error: unknown): void {
    const { job } = link;
    link.job = undefined;
    link.reader = undefined;
    if (!job) return;
    const { exchange } = job;
    job.exchange = undefined;
    job.link = undefined;
    exchange?.onError(error);
  }

  function gone(server: Server, link: Link, error: Error): void {
    server.links.delete(link);
    const at = server.idle.indexOf(link);
    if (at >= 0) server.idle.splice(at, 1);
    const { job, reader } = link;
    const mayRepeat = job?.exchange !== undefined && link.answers > 0 && reader?.begun === false && !closed;
    if (mayRepeat && !job.repeated) {
      job.repeated = true;
      link.job = undefined;
      start(open(server), job);
    } else fail(link, error);
    const next = server.links.size < most ? server.waiting.shift() : undefined;
    if (next) start(open(server), next);
    else if (server.links.size === 0) servers.delete(formatAuthority(server.authority));
  }

  function start(link: Link, job: Job): void {
    link.job = job;
    job.link = link;
    link.unwanted = 0;
    link.reader = new AnswerReader({
      onHead: (status, headers) => job.exchange?.onHead(status, headers, job.control),
      onBody: (bytes) => job.exchange?.onBody(bytes, job.control),
    });
    if (link.answers > 0) link.socket.setTimeout(idleMs);
    link.socket.write(job.text, 'latin1');
  }

  function abandon(server: Server, job: Job): void {
    job.exchange = undefined;
    const { link } = job;
    if (!link) {
      const at = server.waiting.indexOf(job);
      if (at >= 0) server.waiting.splice(at, 1);
      return;
    }
    const rest = link.reader?.rest;
    if (rest === undefined || rest > SHORT_REST) link.socket.destroy();
    else {
      link.socket.resume();
      link.socket.setTimeout(KEEP_MS);
    }
  }

  return {
    ask(authority, path, headers, exchange) {
      const server = serverOf(authority);
      const job: Job = {
        text: requestText(authority, path, headers),
        exchange,
        repeated: false,
        link: undefined,
        control: {
          pause() {
            job.link?.socket.pause();
            job.link?.socket.setTimeout(0);
          },
          resume() {
            job.link?.socket.setTimeout(idleMs);
            job.link?.socket.resume();
          },
          abandon: () => abandon(server, job),
        },
      };
      let idle = server.idle.pop();
      while (idle && (idle.socket.destroyed || !idle.socket.writable)) idle = server.idle.pop();
      if (closed) queueMicrotask(() => job.exchange?.onError(new Error('the proxy is stopping')));
      else if (idle) start(idle, job);
      else if (server.links.size < most) start(open(server), job);
      else server.waiting.push(job);
      return job.control;
    },
    close() {
      closed = true;
      for (const server of [...servers.values()]) {
        const waiting = server.waiting.splice(0);
        for (const link of server.links) link.socket.destroy();
        for (const job of waiting) job.exchange?.onError(new Error('the proxy is stopping'));
      }
    },
  };
}

function requestText(authority: Authority, path: string, headers: Readonly<Record<string, string>>): string {
  const { scheme } = authority;
  if (!/^\/[\u0021-\u007e]*$/.test(path)) throw new Error('the path cannot be sent');
  const lines = [`GET ${path} HTTP/1.1`, `host: ${formatAuthority(authority).slice(scheme.length + 3)}`];
  for (const [name, value] of Object.entries(headers)) {
    const sound = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name) && !/[^\t\u0020-\u007e\u0080-\u00ff]/.test(value);
    if (!sound) throw new Error(`the header '${name.slice(0, 40)}' cannot be sent`);
    lines.push(`${name}: ${value}`);
  }
  return `${lines.join('\r\n')}\r\n\r\n`;
}
