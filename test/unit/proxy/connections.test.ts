import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, expect, it } from 'vitest';
import { type Connections, type Control, createConnections } from '../../../src/proxy/connections.ts';

/** A server that answers the n-th request of all by `answers[n]`; 'close' ends the connection instead. */
async function script(answers: readonly (string | Buffer)[]) {
  let asked = 0;
  let opened = 0;
  const sockets = new Set<Socket>();
  const heads: string[] = [];
  const server = createServer((socket) => {
    opened += 1;
    sockets.add(socket);
    socket.on('error', () => {});
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      for (let end = text.indexOf('\r\n\r\n'); end >= 0; end = text.indexOf('\r\n\r\n')) {
        heads.push(text.slice(0, end));
        text = text.slice(end + 4);
        const answer = answers[asked];
        asked += 1;
        if (answer === 'close') socket.destroy();
        else if (answer !== undefined) socket.write(answer as string);
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const connections = createConnections({ most: 2, connectMs: 30_000, idleMs: 60_000 });
  return {
    authority: { scheme: 'http', host: '127.0.0.1', port: (server.address() as AddressInfo).port } as const,
    connections,
    heads,
    sockets,
    asked: () => asked,
    opened: () => opened,
    async [Symbol.asyncDispose]() {
      connections.close();
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

type Bed = Awaited<ReturnType<typeof script>>;

function ask(bed: Bed, on: { head?: (control: Control) => void; body?: (bytes: Buffer) => void } = {}) {
  const connections: Connections = bed.connections;
  return new Promise<{ status: number; body: Buffer }>((resolve, reject) => {
    let status = 0;
    const parts: Buffer[] = [];
    connections.ask(
      bed.authority,
      '/x',
      { 'x-test': '1' },
      {
        onHead(code, _headers, control) {
          status = code;
          on.head?.(control);
        },
        onBody(bytes) {
          parts.push(Buffer.from(bytes));
          on.body?.(bytes);
        },
        onEnd: () => resolve({ status, body: Buffer.concat(parts) }),
        onError: reject,
      },
    );
  });
}

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';

describe('connections to mirrors', () => {
  it('are used again for one request after the other', async () => {
    await using bed = await script([OK, OK, OK]);
    for (let round = 0; round < 3; round += 1) expect((await ask(bed)).body.toString()).toBe('ok');
    expect(bed.opened()).toBe(1);
    expect(bed.heads[0]!.split('\r\n')).toEqual([
      'GET /x HTTP/1.1',
      `host: 127.0.0.1:${bed.authority.port}`,
      'x-test: 1',
    ]);
  });

  it('are as many as allowed; more requests wait for one', async () => {
    await using bed = await script([OK, OK, OK, OK, OK]);
    const all = await Promise.all(Array.from({ length: 5 }, () => ask(bed)));
    expect(all.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
    expect(bed.opened()).toBe(2);
  });

  it('are not used again when more came than was asked for: that belongs to nobody', async () => {
    const smuggled = `${OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`;
    await using bed = await script([smuggled, OK]);
    expect((await ask(bed)).body.toString()).toBe('ok');
    expect((await ask(bed)).body.toString()).toBe('ok');
    expect(bed.opened()).toBe(2);
  });

  it('that the server closed while they were kept cost a second attempt, not an error; twice is an error', async () => {
    await using bed = await script([OK, 'close', OK, 'close', 'close', OK]);
    await ask(bed);
    expect((await ask(bed)).body.toString()).toBe('ok');
    expect(bed.asked()).toBe(3);
    await expect(ask(bed)).rejects.toThrow();
    expect(bed.asked()).toBe(5);
  });

  it('fail at once when a fresh one is closed without an answer', async () => {
    await using bed = await script(['close', OK]);
    await expect(ask(bed)).rejects.toThrow();
    expect(bed.asked()).toBe(1);
  });

  it('that were given up in the middle are closed, after a short rest used again', async () => {
    const rest = `HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n${'x'.repeat(1000)}`;
    const long = 'HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\n\r\nx';
    await using bed = await script([rest, OK, long, OK]);
    const giveUp = () =>
      new Promise<void>((resolve) => {
        void ask(bed, {
          head(control) {
            control.abandon();
            resolve();
          },
        });
      });
    await giveUp();
    await ask(bed);
    const before = bed.opened();
    expect(before).toBeLessThanOrEqual(2);
    await giveUp();
    await ask(bed);
    expect(bed.opened()).toBeGreaterThanOrEqual(before);
    expect(bed.asked()).toBe(4);
  });

  it('hand on what a receiver throws, and end', async () => {
    await using bed = await script(['HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nxx']);
    const failing = ask(bed, {
      body() {
        throw new Error('wrong bytes');
      },
    });
    await expect(failing).rejects.toThrow('wrong bytes');
  });

  it('end at an answer that is not HTTP, and when all are closed', async () => {
    await using bed = await script(['220 smtp.example.org\r\n', '']);
    await expect(ask(bed)).rejects.toThrow('malformed');
    const pending = [ask(bed), ask(bed), ask(bed)].map((one) => one.catch((error: Error) => error.message));
    bed.connections.close();
    expect(await Promise.all(pending)).toHaveLength(3);
    await expect(ask(bed)).rejects.toThrow('stopping');
  });

  it('can be paused, and lose nothing', async () => {
    const body = randomBytes(3_000_000);
    await using bed = await script([
      Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n`), body]),
    ]);
    let control: Control | undefined;
    const hash = createHash('sha256');
    await ask(bed, {
      head: (own) => {
        control = own;
      },
      body(bytes) {
        hash.update(bytes);
        control!.pause();
        setImmediate(() => control!.resume());
      },
    });
    expect(hash.digest('hex')).toBe(createHash('sha256').update(body).digest('hex'));
  });

  it('send no path and no header that is more than one line', async () => {
    await using bed = await script([]);
    const exchange = { onHead() {}, onBody() {}, onEnd() {}, onError() {} };
    const { connections, authority } = bed;
    expect(() => connections.ask(authority, '/a b', {}, exchange)).toThrow('path');
    expect(() => connections.ask(authority, '/a\r\nX: y', {}, exchange)).toThrow('path');
    expect(() => connections.ask(authority, '/a', { 'if-range': '"x"\r\nX: y' }, exchange)).toThrow('if-range');
    expect(() => connections.ask(authority, '/a', { 'a\r\nb': 'x' }, exchange)).toThrow('cannot be sent');
    expect(bed.opened()).toBe(0);
  });
});
