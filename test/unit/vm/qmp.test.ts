import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Qmp } from '../../../src/vm/qmp.ts';

interface FakeQemu extends AsyncDisposable {
  readonly path: string;
  /** Commands so far. */
  readonly commands: string[];
  send(message: object): void;
  hangUp(): void;
}

/** A QEMU that answers by a table, cutting its bytes into small pieces. @param folder where the socket is */
async function fakeQemu(answers: Record<string, object>, folder?: string): Promise<FakeQemu> {
  const base = await mkdtemp(join(tmpdir(), 'buildkit-qmp-'));
  const place = folder === undefined ? base : join(base, folder);
  await mkdir(place, { recursive: true });
  const commands: string[] = [];
  let peer: Socket | undefined;
  const send = (message: object) => {
    const text = `${JSON.stringify(message)}\r\n`;
    for (let at = 0; at < text.length; at += 7) peer?.write(text.slice(at, at + 7));
  };
  const server = createServer((socket) => {
    peer = socket;
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      for (const line of chunk.split('\n').filter(Boolean)) {
        const { execute, id } = JSON.parse(line) as { execute: string; id: number };
        commands.push(execute);
        const answer = execute === 'qmp_capabilities' ? { return: {} } : answers[execute];
        if (answer) send({ ...answer, id });
      }
    });
    send({ QMP: { version: {}, capabilities: [] } });
  });
  // the server binds by a short name: bind(2) has the same limit that the client has to get around
  const cwd = process.cwd();
  process.chdir(place);
  await new Promise<void>((resolve) => server.listen('s', resolve));
  process.chdir(cwd);
  return {
    path: join(place, 's'),
    commands,
    send,
    hangUp: () => peer?.destroy(),
    async [Symbol.asyncDispose]() {
      peer?.destroy();
      await new Promise((resolve) => server.close(resolve));
      await rm(base, { recursive: true });
    },
  };
}

describe('Qmp', () => {
  it('negotiates, asks and gets answers', async () => {
    await using qemu = await fakeQemu({ 'query-status': { return: { status: 'running' } } });
    await using qmp = await Qmp.connect(qemu.path);
    expect(await qmp.status()).toBe('running');
    expect(qemu.commands).toEqual(['qmp_capabilities', 'query-status']);
  });

  it('connects to a socket whose path is longer than connect(2) takes', async () => {
    await using qemu = await fakeQemu({ 'query-status': { return: { status: 'paused' } } }, 'd'.repeat(120));
    await using qmp = await Qmp.connect(qemu.path);
    expect(await qmp.status()).toBe('paused');
  });

  it("passes QEMU's refusal on", async () => {
    await using qemu = await fakeQemu({ cont: { error: { class: 'GenericError', desc: 'no room' } } });
    await using qmp = await Qmp.connect(qemu.path);
    await expect(qmp.execute('cont')).rejects.toMatchObject({ code: 'qmp-refused', message: 'QEMU says: no room' });
  });

  it('tells of events until it is told to stop', async () => {
    await using qemu = await fakeQemu({ 'query-status': { return: { status: 'running' } } });
    await using qmp = await Qmp.connect(qemu.path);
    const seen: string[] = [];
    const stop = qmp.onEvent(({ event, data }) => seen.push(`${event} ${JSON.stringify(data)}`));
    qemu.send({ event: 'STOP' });
    qemu.send({ event: 'GUEST_PANICKED', data: { action: 'pause' } });
    await qmp.status();
    stop();
    qemu.send({ event: 'RESUME' });
    await qmp.status();
    expect(seen).toEqual(['STOP {}', 'GUEST_PANICKED {"action":"pause"}']);
  });

  it('fails what is asked when QEMU goes, and everything after', async () => {
    await using qemu = await fakeQemu({});
    await using qmp = await Qmp.connect(qemu.path);
    const question = qmp.execute('query-block');
    qemu.hangUp();
    await expect(question).rejects.toMatchObject({ code: 'qmp-closed' });
    await qmp.closed;
    await expect(qmp.status()).rejects.toMatchObject({ code: 'qmp-closed' });
  });

  it('waits no longer than it is told', async () => {
    await using qemu = await fakeQemu({});
    await using qmp = await Qmp.connect(qemu.path);
    await expect(qmp.execute('query-cpus', undefined, 30)).rejects.toMatchObject({ code: 'qmp-timeout' });
  });

  it('says that nobody is there', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'buildkit-qmp-'));
    await expect(Qmp.connect(join(folder, 's'))).rejects.toMatchObject({ code: 'ENOENT' });
    await rm(folder, { recursive: true });
  });
});
