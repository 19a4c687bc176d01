/**
 * Sending: an object or a body under way to one client, whole or in ranges.
 *
 * Secret: how bytes get out cheaply. Small objects leave with their head in one write; of large ones two pieces are on their way
 * to each client, so that a slow client holds half a MiB and nobody else up. (RFC 9110, 9112.)
 */
import { readSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { BLOCK_BYTES, type Blocks, createBlocks, type Supply } from './blocks.ts';
import type { Files, OpenFile } from './files.ts';
import { type ByteRange, decideAnswer, multipartFrames } from './range.ts';
import type { Reader, Transfer } from './transfer.ts';

export interface AnswerHead {
  readonly contentType: string;
  /** Seconds since the epoch. */
  readonly lastModified: number | undefined;
  /** HIT, MISS, JOIN, REVALIDATED, STALE, OFFLINE. */
  readonly cache: string;
  readonly why: string;
  /** Seconds since it was fetched. */
  readonly age: number;
  readonly immutable: boolean;
}

/** Of a body under way: what is said of it depends on what is known when its first byte goes out. */
export type TransferHead = Omit<AnswerHead, 'why' | 'lastModified' | 'age'> & {
  readonly why: (transfer: Transfer) => string;
};

export interface Sending {
  /** Called once when nothing more will be sent. */
  onEnd?: ((bytes: number, aborted: boolean) => void) | undefined;
}

export interface Answerer {
  file(request: IncomingMessage, response: ServerResponse, file: OpenFile, head: AnswerHead, sending: Sending): void;
  /** Resolves false when nothing was sent and the caller should look again (the body came to nothing, or is elsewhere now). */
  transfer(
    request: IncomingMessage,
    response: ServerResponse,
    transfer: Transfer,
    head: TransferHead,
    sending: Sending,
  ): Promise<boolean>;
  text(response: ServerResponse, status: number, text: string, headers?: Readonly<Record<string, string>>): void;
  bytes(request: IncomingMessage, response: ServerResponse, bytes: Buffer, etag: string, head: AnswerHead): void;
}

export function createAnswerer(files: Files, via: string): Answerer {
  const blocks = createBlocks();

  function commonHeaders(head: AnswerHead, etag: string | undefined): string[] {
    const headers = ['Content-Type', head.contentType, 'Accept-Ranges', 'bytes', 'Via', `1.1 ${via}`];
    headers.push('X-Cache', head.cache, 'X-Cache-Why', head.why, 'Age', String(head.age));
    if (etag !== undefined) headers.push('ETag', etag);
    if (head.lastModified !== undefined) headers.push('Last-Modified', httpDate(head.lastModified));
    if (head.immutable) headers.push('Cache-Control', 'public, max-age=31536000, immutable');
    else headers.push('Cache-Control', 'max-age=0, must-revalidate');
    return headers;
  }

  /** The head for what the request wants of `size` bytes; the spans to send; undefined when the answer is complete. */
  function begin(
    request: IncomingMessage,
    response: ServerResponse,
    size: number | undefined,
    etag: string | undefined,
    head: AnswerHead,
  ): Span[] | undefined {
    const wanted = decideAnswer(request.headers, { etag: etag ?? '""', lastModified: head.lastModified, size });
    const headers = commonHeaders(head, etag);
    const bodyless = request.method === 'HEAD';
    switch (wanted.kind) {
      case 'not-modified':
        response.writeHead(304, headers);
        response.end();
        return undefined;
      case 'precondition-failed':
        response.writeHead(412, [...headers, 'Content-Length', '0']);
        response.end();
        return undefined;
      case 'unsatisfiable':
        response.writeHead(416, [...headers, 'Content-Range', `bytes */${size}`, 'Content-Length', '0']);
        response.end();
        return undefined;
      case 'ranges':
        return beginRanges(response, wanted.ranges, size!, headers, head.contentType, bodyless);
      case 'whole':
        if (size !== undefined) headers.push('Content-Length', String(size));
        response.writeHead(200, headers);
        if (!bodyless) return [{ start: 0, end: size }];
        response.end();
        return undefined;
    }
  }

  function beginRanges(
    response: ServerResponse,
    ranges: readonly ByteRange[],
    size: number,
    headers: string[],
    type: string,
    bodyless: boolean,
  ): Span[] | undefined {
    let spans: Span[];
    if (ranges.length === 1) {
      const { start, end } = ranges[0]!;
      headers.push('Content-Range', `bytes ${start}-${end - 1}/${size}`, 'Content-Length', String(end - start));
      spans = [{ start, end }];
    } else {
      const boundary = `buildkit${size.toString(36)}x${ranges.length}`;
      const { heads, tail, length } = multipartFrames(ranges, size, type, boundary);
      headers[1] = `multipart/byteranges; boundary=${boundary}`;
      headers.push('Content-Length', String(length));
      spans = ranges.map(({ start, end }, index) => ({
        start,
        end,
        before: heads[index]!,
        ...(index === ranges.length - 1 ? { after: tail } : {}),
      }));
    }
    response.writeHead(206, headers);
    if (!bodyless) return spans;
    response.end();
    return undefined;
  }

  return {
    file(request, response, file, head, sending) {
      const { headers } = request;
      file.uses += 1;
      const plain =
        headers.range === undefined && headers['if-none-match'] === undefined && headers['if-match'] === undefined;
      const undated = headers['if-modified-since'] === undefined && headers['if-unmodified-since'] === undefined;
      if (file.bytes && plain && undated) {
        const common = commonHeaders(head, `"${file.sha256}"`);
        common.push('Content-Length', String(file.size));
        response.writeHead(200, common);
        response.end(request.method === 'HEAD' ? undefined : file.bytes);
        sending.onEnd?.(file.size, false);
        return;
      }
      const spans = begin(request, response, file.size, `"${file.sha256}"`, head);
      if (!spans) {
        sending.onEnd?.(0, false);
        return;
      }
      files.hold(file);
      const supply: Supply = file.bytes
        ? {
            content: file,
            available: () => file.size,
            read: (into, position, length) => file.bytes!.copy(into, 0, position, position + length),
          }
        : {
            content: file,
            available: () => file.size,
            read: (into, position, length) => readSync(file.fd, into, 0, length, position),
          };
      const pump = new Pump(response, supply, spans, blocks, (bytes, aborted) => {
        files.release(file);
        sending.onEnd?.(bytes, aborted);
      });
      pump.go();
    },

    transfer(request, response, transfer, head, sending) {
      return new Promise((resolve) => {
        let pump: Pump | undefined;
        const finish = (sent: boolean) => {
          transfer.detach(reader);
          resolve(sent);
        };
        const reader: Reader = {
          get position() {
            return pump?.position ?? firstByte(request.headers.range, transfer.size);
          },
          get committed() {
            return pump !== undefined;
          },
          get begun() {
            return pump !== undefined && pump.sent > 0;
          },
          cut() {
            if (pump) pump.abort();
            else finish(false);
          },
          wake() {
            if (pump) {
              if (transfer.outcome && transfer.outcome.kind !== 'stored') pump.abort();
              else pump.go();
              return;
            }
            const { outcome } = transfer;
            const onlyHere = outcome?.kind === 'stored' && outcome.mtimeMs === undefined; // the disk refused it
            if (outcome && !onlyHere) finish(false);
            else if (outcome || transfer.released > 0) start();
          },
        };
        const start = () => {
          if (response.destroyed) return finish(true);
          // what it must be may have become known since
          const { expectedSha256: sha256, lastModified } = transfer;
          const etag = sha256 === undefined ? undefined : `"${sha256}"`;
          const why = head.why(transfer);
          const spans = begin(request, response, transfer.size, etag, { ...head, why, lastModified, age: 0 });
          if (!spans) {
            sending.onEnd?.(0, false);
            return finish(true);
          }
          const supply: Supply = {
            get content() {
              return transfer.content;
            },
            available: () => transfer.released,
            read: (into, position, length) => transfer.read(into, position, length),
          };
          pump = new Pump(response, supply, spans, blocks, (bytes, aborted) => {
            sending.onEnd?.(bytes, aborted);
            finish(true);
          });
          pump.ended = () => transfer.outcome?.kind === 'stored';
          pump.go();
        };
        response.once('close', () => {
          if (!pump) finish(true);
        });
        if (!transfer.attach(reader)) return resolve(false);
        reader.wake();
      });
    },

    text(response, status, text, headers = {}) {
      if (response.headersSent || response.destroyed) return;
      const body = Buffer.from(`${text}\n`);
      const list = [
        'Content-Type',
        'text/plain; charset=utf-8',
        'Content-Length',
        String(body.length),
        'Via',
        `1.1 ${via}`,
      ];
      for (const [name, value] of Object.entries(headers)) list.push(name, value);
      response.writeHead(status, list);
      response.end(response.req.method === 'HEAD' ? undefined : body);
    },

    bytes(request, response, bytes, etag, head) {
      const spans = begin(request, response, bytes.length, etag, head);
      if (!spans) return;
      const supply: Supply = {
        content: bytes,
        available: () => bytes.length,
        read: (into, position, length) => bytes.copy(into, 0, position, position + length),
      };
      new Pump(response, supply, spans, blocks, () => {}).go();
    },
  };
}

interface Span {
  readonly start: number;
  /** Undefined: to the end, wherever that will be. */
  readonly end: number | undefined;
  readonly before?: string;
  readonly after?: string;
}

/** Feeds one response; `go` whenever there may be more to send. */
class Pump {
  position: number;
  /** Bytes that went out. */
  sent = 0;
  /** For bodies of unknown length: true when no more will come. */
  ended: () => boolean = () => true;
  readonly #response: ServerResponse;
  readonly #supply: Supply;
  readonly #spans: readonly Span[];
  readonly #blocks: Blocks;
  readonly #onEnd: (bytes: number, aborted: boolean) => void;
  #span = 0;
  #begun = false;
  #inFlight = 0;
  #over = false;

  constructor(
    response: ServerResponse,
    supply: Supply,
    spans: readonly Span[],
    blocks: Blocks,
    onEnd: (bytes: number, aborted: boolean) => void,
  ) {
    this.#response = response;
    this.#supply = supply;
    this.#spans = spans;
    this.#blocks = blocks;
    this.#onEnd = onEnd;
    this.position = spans[0]!.start;
    response.once('close', () => this.#close(true));
  }

  go(): void {
    while (!this.#over && this.#inFlight < 2) {
      const span = this.#spans[this.#span];
      if (span === undefined) {
        this.#finish();
        return;
      }
      if (!this.#begun) {
        this.#begun = true;
        this.position = span.start;
        if (span.before !== undefined) this.#response.write(span.before);
      }
      const known = span.end ?? (this.ended() ? this.#supply.available() : undefined);
      if (known !== undefined && this.position >= known) {
        if (span.after !== undefined) this.#response.write(span.after);
        this.#begun = false;
        this.#span += 1;
        continue;
      }
      const length = Math.min(
        BLOCK_BYTES,
        this.#supply.available() - this.position,
        (known ?? Infinity) - this.position,
      );
      if (length <= 0) return; // more is to come
      if (!this.#send(length, (known ?? Infinity) - this.position)) return;
    }
  }

  #send(length: number, rest: number): boolean {
    const loan = this.#blocks.borrow(this.#supply, this.position, length, rest);
    if (loan === undefined) {
      this.abort(); // the file ends before it should: never pretend that this was all
      return false;
    }
    const { bytes } = loan;
    this.position += bytes.length;
    this.sent += bytes.length;
    this.#inFlight += 1;
    this.#response.write(bytes, (error) => {
      this.#inFlight -= 1;
      loan.giveBack(error !== undefined && error !== null); // after an error the kernel may still read it
      if (!error) this.go();
    });
    return true;
  }

  #finish(): void {
    if (this.#over) return;
    this.#response.end();
    this.#close(false);
  }

  /** Ends the connection without ending the answer. */
  abort(): void {
    if (this.#over) return;
    this.#response.destroy();
    this.#close(true);
  }

  #close(aborted: boolean): void {
    if (this.#over) return;
    this.#over = true;
    this.#onEnd(this.sent, aborted);
  }
}

/** Where a reader that asks for a range begins; only a hint. */
function firstByte(range: string | undefined, size: number | undefined): number {
  const match = range === undefined ? null : /^bytes=(\d+)-/.exec(range);
  const start = match ? Number(match[1]) : 0;
  return size !== undefined && start >= size ? 0 : start;
}

function httpDate(seconds: number): string {
  return new Date(seconds * 1000).toUTCString();
}
