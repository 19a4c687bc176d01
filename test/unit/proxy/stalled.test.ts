import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { heldBufferBytes } from '../../support/held-memory.ts';
import { ask, startProxy } from '../../support/proxy-world.ts';

const PIECE = Buffer.alloc(1 << 20, 'buildkit');
const PIECES = 160;
const LOOK_EACH_BYTES = 8 * PIECE.length;

describe('clients that stall for good', () => {
  it('hold up neither the fetch nor others, and cost no memory', async () => {
    let asked = 0;
    let goOn = () => {};
    const allJoined = new Promise<void>((go) => {
      goOn = go;
    });
    const upstream = createServer(async (_request, response) => {
      asked += 1;
      response.writeHead(200, { 'content-length': String(PIECE.length * PIECES) });
      for (let piece = 0; piece < PIECES; piece += 1) {
        if (piece === PIECES / 8) await allJoined;
        if (!response.write(PIECE)) await new Promise((go) => response.once('drain', go));
      }
      response.end();
    });
    await new Promise<void>((done) => upstream.listen(0, '127.0.0.1', done));
    const mirror = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}/archive`;
    await using world = await startProxy([mirror]);
    const { hostname, port } = new URL(world.url);
    const before = heldBufferBytes();
    const stalled = Array.from({ length: 8 }, () => {
      const socket = connect({ host: hostname, port: Number(port) });
      socket.pause();
      socket.on('error', () => {});
      socket.write('GET /archive/pool/large.deb HTTP/1.1\r\nHost: x\r\n\r\n');
      return socket;
    });
    const readers = () => world.proxy.cache.flights.current()[0]?.readers ?? 0;
    try {
      await expect.poll(readers, { timeout: 60_000 }).toBe(8);
      const hash = createHash('sha256');
      let most = 0;
      let unseen = 0;
      const last = new Promise<string>((resolve, reject) => {
        const socket = connect({ host: hostname, port: Number(port) }, () =>
          socket.write('GET /archive/pool/large.deb HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
        );
        let head: string | undefined;
        socket.on('data', (chunk) => {
          unseen += chunk.length;
          if (unseen >= LOOK_EACH_BYTES) {
            unseen = 0;
            most = Math.max(most, heldBufferBytes());
          }
          if (head !== undefined) return void hash.update(chunk);
          const end = chunk.indexOf('\r\n\r\n');
          head = chunk.subarray(0, end).toString();
          hash.update(chunk.subarray(end + 4));
        });
        socket.on('error', reject);
        socket.on('end', () => resolve(head ?? ''));
      });
      await expect.poll(readers, { timeout: 60_000 }).toBe(9);
      goOn();
      const answer = await last;
      const expected = createHash('sha256');
      for (let piece = 0; piece < PIECES; piece += 1) expected.update(PIECE);
      expect(answer).toContain('X-Cache: JOIN');
      expect(hash.digest('hex')).toBe(expected.digest('hex'));
      expect(asked).toBe(1);
      expect(most - before).toBeLessThan((PIECES / 4) * PIECE.length);
      const again = await ask(world.url, '/archive/pool/large.deb', { headers: { range: 'bytes=-8' } });
      expect(again.headers['x-cache']).toBe('HIT');
    } finally {
      goOn();
      for (const socket of stalled) socket.destroy();
      upstream.closeAllConnections();
      upstream.close();
    }
  }, 120_000);
});
