/**
 * Reading what a mirror answers, byte by byte as it comes: HTTP/1.1 as RFC 9112 writes it, and nothing looser.
 *
 * Secret: the framing. Whatever two readers could take for different bodies is an error (both lengths, two lengths, other
 * encodings than `chunked`, folded lines, bare line ends), so that no body is ever joined with a part of another. Body bytes are
 * handed on where they lie, never copied: they hold until the call returns. Pure.
 */

export type AnswerHeaders = Readonly<Record<string, string | string[] | undefined>>;

export interface AnswerEvents {
  /** Of the final answer; what came before it (1xx) is passed over. */
  onHead(status: number, headers: AnswerHeaders): void;
  onBody(bytes: Buffer): void;
}

const MOST_HEAD_BYTES = 64 * 1024;
const MOST_HEADERS = 200;
const MOST_TRAILER_BYTES = 16 * 1024;
const MOST_SIZE_LINE = 1024;
const LF = 10;

/** One answer. */
export class AnswerReader {
  /** The answer is whole. */
  done = false;
  /** Something of it came. */
  begun = false;
  /** After it, the connection may be used for another one. */
  keepAlive = false;
  /** How long the server says that it will wait for another request, in seconds. */
  keepAliveSeconds: number | undefined;
  readonly #events: AnswerEvents;
  #state: 'status' | 'header' | 'fixed' | 'close' | 'size' | 'chunk' | 'chunk-end' | 'trailer' = 'status';
  /** The beginning of a line whose end did not come yet. */
  #carry = '';
  #lineBytes = 0;
  #status = 0;
  #minor = 1;
  #headers = new Map<string, string[]>();
  #count = 0;
  /** Of the body, or of the chunk. */
  #left = 0;

  constructor(events: AnswerEvents) {
    this.#events = events;
  }

  /** How much of the body is still to come, when the head said so. */
  get rest(): number | undefined {
    return this.done ? 0 : this.#state === 'fixed' ? this.#left : undefined;
  }

  /**
   * Takes what came. Returns how many bytes belong to this answer: fewer than there are when it ends before them.
   * @throws Error when it is not HTTP/1.1
   */
  push(bytes: Buffer): number {
    this.begun = true;
    let at = 0;
    while (at < bytes.length && !this.done) {
      switch (this.#state) {
        case 'fixed':
        case 'chunk': {
          const end = Math.min(bytes.length, at + this.#left);
          const part = at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end);
          this.#left -= part.length;
          at = end;
          if (this.#left === 0 && this.#state === 'chunk') this.#state = 'chunk-end';
          this.#events.onBody(part);
          if (this.#left === 0 && this.#state === 'fixed') this.done = true;
          break;
        }
        case 'close':
          this.#events.onBody(at === 0 ? bytes : bytes.subarray(at));
          at = bytes.length;
          break;
        default:
          at = this.#line(bytes, at);
      }
    }
    return at;
  }

  /** The server sent its last byte. @throws Error when the answer is not whole */
  end(): void {
    if (this.#state !== 'close' && !this.done) throw new Error('the connection ended before the answer did');
    this.done = true;
    this.keepAlive = false;
  }

  /** Reads up to the end of a line; returns where the next one begins. */
  #line(bytes: Buffer, from: number): number {
    const end = bytes.indexOf(LF, from);
    const to = end < 0 ? bytes.length : end + 1;
    this.#lineBytes += to - from;
    const most =
      this.#state === 'size' || this.#state === 'chunk-end'
        ? MOST_SIZE_LINE
        : this.#state === 'trailer'
          ? MOST_TRAILER_BYTES
          : MOST_HEAD_BYTES;
    if (this.#lineBytes > most) throw malformed('lines without end');
    const text = this.#carry + bytes.toString('latin1', from, to);
    if (end < 0) {
      this.#carry = text;
      return to;
    }
    this.#carry = '';
    if (!text.endsWith('\r\n')) throw malformed('a line ends without CR LF');
    const line = text.slice(0, -2);
    if (/[^\t\u0020-\u007e\u0080-\u00ff]/.test(line)) throw malformed('a line holds control characters');
    this.#heed(line);
    return to;
  }

  #heed(line: string): void {
    switch (this.#state) {
      case 'status':
        this.#begin(line);
        return;
      case 'header':
        if (line === '') this.#headEnds();
        else this.#header(line);
        return;
      case 'size':
        this.#chunkBegins(line);
        return;
      case 'chunk-end':
        if (line !== '') throw malformed('a chunk is longer than it says');
        this.#state = 'size';
        this.#lineBytes = 0;
        return;
      default: // a trailer: nothing in it is wanted, but it has to be one
        if (line === '') this.done = true;
        else fieldOf(line);
    }
  }

  #begin(line: string): void {
    const match = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: .*)?$/.exec(line);
    if (!match) throw malformed(`'${line.slice(0, 40)}' is no status line`);
    this.#minor = Number(match[1]);
    this.#status = Number(match[2]);
    this.#state = 'header';
  }

  #header(line: string): void {
    const [name, value] = fieldOf(line);
    this.#count += 1;
    if (this.#count > MOST_HEADERS) throw malformed('too many header lines');
    const before = this.#headers.get(name);
    if (before) before.push(value);
    else this.#headers.set(name, [value]);
  }

  #headEnds(): void {
    const status = this.#status;
    if (status === 101) throw malformed('it switches protocols unasked');
    if (status < 200) {
      this.#headers.clear();
      this.#state = 'status';
      return;
    }
    this.#lineBytes = 0;
    this.#frame(status);
    const headers: Record<string, string | string[]> = Object.create(null);
    for (const [name, values] of this.#headers) headers[name] = values.length === 1 ? values[0]! : values;
    this.#events.onHead(status, headers);
  }

  /** Where the body ends (RFC 9112 6.3). */
  #frame(status: number): void {
    const encodings = this.#headers.get('transfer-encoding');
    const lengths = this.#headers.get('content-length');
    const connection = (this.#headers.get('connection') ?? [])
      .join(',')
      .toLowerCase()
      .split(/[\t ,]+/);
    this.keepAlive = this.#minor === 1 && !connection.includes('close');
    const seconds = /(?:^|[\t ,;])timeout=(\d{1,6})/i.exec((this.#headers.get('keep-alive') ?? []).join(','))?.[1];
    this.keepAliveSeconds = seconds === undefined ? undefined : Number(seconds);
    if (encodings && lengths) throw malformed('it has both Content-Length and Transfer-Encoding');
    if (lengths && (lengths.length > 1 || !/^\d{1,15}$/.test(lengths[0]!)))
      throw malformed('its Content-Length is no length');
    if (encodings && (this.#minor === 0 || encodings.join(',').toLowerCase() !== 'chunked'))
      throw malformed('its Transfer-Encoding is not chunked');
    if (status === 204 || status === 304) this.done = true;
    else if (encodings) this.#state = 'size';
    else if (lengths) {
      this.#left = Number(lengths[0]);
      this.#state = 'fixed';
      this.done = this.#left === 0;
    } else {
      this.#state = 'close';
      this.keepAlive = false;
    }
  }

  #chunkBegins(line: string): void {
    const match = /^([0-9a-f]{1,12})[\t ]*(?:;.*)?$/i.exec(line);
    if (!match) throw malformed('a chunk has no size');
    this.#left = Number.parseInt(match[1]!, 16);
    this.#lineBytes = 0;
    this.#state = this.#left === 0 ? 'trailer' : 'chunk';
  }
}

function fieldOf(line: string): [name: string, value: string] {
  const match = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*(.*?)[\t ]*$/.exec(line);
  if (!match) throw malformed('a header line has no name');
  return [match[1]!.toLowerCase(), match[2]!];
}

function malformed(why: string): Error {
  return new Error(`the answer is malformed: ${why}`);
}
