import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AnswerHeaders, AnswerReader } from '../../../src/proxy/http-answer.ts';

interface Read {
  readonly status: number;
  readonly headers: AnswerHeaders;
  readonly body: string;
  readonly done: boolean;
  readonly keepAlive: boolean;
  /** Behind the answer. */
  readonly surplus: string;
}

/** Reads what comes in pieces of the given lengths (the last one takes the rest), then the end of the connection if `ends`. */
function read(text: string, cuts: readonly number[] = [], ends = false): Read {
  let status = 0;
  let headers: AnswerHeaders = {};
  let body = '';
  const reader = new AnswerReader({
    onHead(code, list) {
      expect(status).toBe(0);
      status = code;
      headers = list;
    },
    onBody(bytes) {
      body += bytes.toString('latin1');
    },
  });
  const bytes = Buffer.from(text, 'latin1');
  let at = 0;
  for (const cut of [...cuts, bytes.length]) {
    const piece = bytes.subarray(at, Math.min(bytes.length, at + cut));
    const taken = piece.length === 0 ? 0 : reader.push(piece);
    at += taken;
    if (taken < piece.length) break;
  }
  if (ends) reader.end();
  return { status, headers, body, done: reader.done, keepAlive: reader.keepAlive, surplus: text.slice(at) };
}

const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n';

describe('an answer of a mirror', () => {
  it('ends where its length says; what follows is not its own', () => {
    const answer = read('HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "x" \r\n\r\nhelloHTTP/1.1 200');
    expect(answer).toMatchObject({ status: 200, body: 'hello', done: true, keepAlive: true, surplus: 'HTTP/1.1 200' });
    expect(answer.headers.etag).toBe('"x"');
  });

  it('is read in chunks, with extensions and trailers', () => {
    const text = `${CHUNKED}5\r\nhello\r\n6;a="b"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nmore`;
    expect(read(text)).toMatchObject({ body: 'hello world', done: true, keepAlive: true, surplus: 'more' });
    expect(read(`${CHUNKED}0\r\n\r\n`)).toMatchObject({ body: '', done: true });
  });

  it('goes on to the end of the connection when nothing says how long it is, and is not done before', () => {
    const open = read('HTTP/1.0 200 OK\r\n\r\nall of it');
    expect(open).toMatchObject({ body: 'all of it', done: false, keepAlive: false });
    expect(read('HTTP/1.1 200 \r\n\r\nall of it', [], true)).toMatchObject({ done: true, keepAlive: false });
  });

  it('has no body where its status says so, whatever its headers say', () => {
    expect(read('HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n')).toMatchObject({
      done: true,
      keepAlive: true,
    });
    expect(read('HTTP/1.1 200 OK\r\nConnection: Foo, Close\r\nContent-Length: 0\r\n\r\n').keepAlive).toBe(false);
  });

  it('follows interim answers', () => {
    const text = 'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na';
    const answer = read(text);
    expect(answer).toMatchObject({ status: 200, body: 'a', done: true });
    expect(answer.headers.link).toBeUndefined();
  });

  it('keeps lines of one name apart, and takes no name for a property', () => {
    const { headers } = read('HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\n__proto__: x\r\nContent-Length: 0\r\n\r\n');
    expect(headers.a).toEqual(['1', '2']);
    expect(Object.getPrototypeOf(headers)).toBeNull();
  });

  it('is the same however it was cut', () => {
    const text = `HTTP/1.1 100 Continue\r\n\r\n${CHUNKED}3\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\nHTTP`;
    const whole = read(text);
    expect(whole).toMatchObject({ body: 'abc0123456789', done: true, surplus: 'HTTP' });
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 60 }), (cuts) => {
        expect(read(text, cuts)).toEqual(whole);
      }),
    );
  });

  const REFUSED: Readonly<Record<string, string>> = {
    'no status line': 'SSH-2.0-OpenSSH_9.2\r\n\r\n',
    'HTTP/2': 'HTTP/2.0 200 OK\r\n\r\n',
    'switching protocols': 'HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n',
    'both lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n',
    'two lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n',
    'a list of lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n',
    'a signed length': 'HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n',
    'a negative length': 'HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n',
    'an endless length': `HTTP/1.1 200 OK\r\nContent-Length: ${'9'.repeat(20)}\r\n\r\n`,
    'another encoding': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n',
    'a disguised encoding': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n',
    'chunks in HTTP/1.0': 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
    'a blank before the colon': 'HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n',
    'a folded line': 'HTTP/1.1 200 OK\r\nA: b\r\n Content-Length: 5\r\n\r\n',
    'bare line feeds': 'HTTP/1.1 200 OK\nContent-Length: 5\n\n',
    'a bare carriage return': 'HTTP/1.1 200 OK\r\nA: b\rContent-Length: 5\r\n\r\n',
    'a zero byte': 'HTTP/1.1 200 OK\r\nA: b\u0000c\r\n\r\n',
    'a line without name': 'HTTP/1.1 200 OK\r\n: 5\r\n\r\n',
    'a chunk without size': `${CHUNKED}\r\n\r\n`,
    'a size in disguise': `${CHUNKED}0x5\r\nhello\r\n`,
    'a chunk that is longer than it says': `${CHUNKED}4\r\nhello\r\n0\r\n\r\n`,
    'a size that ends in a bare line feed': `${CHUNKED}5\nhello\r\n0\r\n\r\n`,
    'a chunk that is too large to count': `${CHUNKED}fffffffffffff\r\n`,
    'a trailer that is none': `${CHUNKED}0\r\nGET / HTTP/1.1\r\n\r\n`,
    'an endless head': `HTTP/1.1 200 OK\r\nA: ${'x'.repeat(70_000)}`,
    'endless interim answers': 'HTTP/1.1 103 Early\r\nA: b\r\n\r\n'.repeat(5000),
    'endless extensions': `${CHUNKED}5;${'x'.repeat(5000)}`,
    'endless trailers': `${CHUNKED}0\r\n${'A: b\r\n'.repeat(5000)}`,
    'too many lines': `HTTP/1.1 200 OK\r\n${'A: b\r\n'.repeat(300)}\r\n`,
  };
  it.each(Object.entries(REFUSED))('is refused for %s', (_, text) => {
    expect(() => read(text)).toThrow('malformed');
    expect(() =>
      read(
        text,
        Array.from({ length: 200 }, () => 3),
      ),
    ).toThrow('malformed');
  });

  it('is not whole when the connection ends first', () => {
    for (const text of [
      'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell',
      `${CHUNKED}5\r\nhello\r\n`,
      `${CHUNKED}0\r\n`,
      'HTTP/1.1 200 OK\r\nA:',
      '',
    ]) {
      expect(() => read(text, [], true)).toThrow('ended before');
    }
  });
});
