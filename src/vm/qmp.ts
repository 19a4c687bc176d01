/**
 * A client of QEMU's machine protocol: commands, answers, events (QEMU's docs/interop/qmp-spec).
 *
 * Secret: the wire format, JSON objects one per line, and the way to a socket whose path is too long for connect(2).
 */
import { type FileHandle, open } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { UserError } from '../core/errors.ts';

export interface QmpEvent {
  /** `SHUTDOWN`, `STOP`, `GUEST_PANICKED`, ... */
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

const ANSWER_MS = 10_000;
const MAX_LINE = 16 * 1024 * 1024;

/** A connection to one QEMU. */
export class Qmp implements AsyncDisposable {
  /** Resolves when the connection has ended: QEMU has gone, or `close` was called. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  #greeted: (() => void) | undefined;
  #nextId = 1;
  #text = '';

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => this.#read(chunk));
    socket.on('error', () => {}); // 'close' follows and says it all
    this.closed = new Promise((resolve) =>
      socket.on('close', () => {
        this.#failAll(new UserError('qmp-closed', 'the machine has ended'));
        resolve();
      }),
    );
  }

  /**
   * Connects to the socket at `path`, of any length.
   * @throws the error of connect(2): ENOENT and ECONNREFUSED mean that no QEMU is there
   */
  static async connect(path: string, options: { signal?: AbortSignal } = {}): Promise<Qmp> {
    const { socket, folder } = await connectUnix(path);
    const qmp = new Qmp(socket);
    void qmp.closed.then(() => folder.close());
    const greeted = new Promise<void>((resolve) => {
      qmp.#greeted = resolve;
    });
    const abort = () => socket.destroy();
    options.signal?.addEventListener('abort', abort, { once: true });
    try {
      await withLimit(Promise.race([greeted, qmp.closed]), ANSWER_MS, 'the greeting of QEMU');
      await qmp.execute('qmp_capabilities');
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      options.signal?.removeEventListener('abort', abort);
    }
    return qmp;
  }

  /**
   * Runs a QMP command.
   * @throws UserError `qmp-refused` with QEMU's words, `qmp-closed`, `qmp-timeout`
   */
  async execute(command: string, args?: Readonly<Record<string, unknown>>, limitMs = ANSWER_MS): Promise<unknown> {
    const id = this.#nextId;
    this.#nextId += 1;
    const answer = new Promise<unknown>((resolve, reject) => this.#pending.set(id, { resolve, reject }));
    if (this.#socket.destroyed) this.#failAll(new UserError('qmp-closed', 'the machine has ended'));
    else this.#socket.write(`${JSON.stringify({ execute: command, id, ...(args ? { arguments: args } : {}) })}\n`);
    try {
      return await withLimit(answer, limitMs, `the answer of QEMU to '${command}'`);
    } finally {
      this.#pending.delete(id);
    }
  }

  /** `running`, `paused`, `internal-error`, `io-error`, `guest-panicked`, ... (RunState of QEMU's QAPI) */
  async status(): Promise<string> {
    const answer = (await this.execute('query-status')) as { status?: unknown };
    return String(answer.status);
  }

  /** Calls `listener` at each event until the returned function is called. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  close(): void {
    this.#socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    await this.closed;
  }

  #read(chunk: string): void {
    this.#text += chunk;
    const lines = this.#text.split('\n');
    this.#text = lines.pop() ?? '';
    if (this.#text.length > MAX_LINE) this.#socket.destroy();
    for (const line of lines) if (line.trim() !== '') this.#take(line);
  }

  #take(line: string): void {
    let message: Record<string, unknown>;
    try {
      message = JSON.parse(line) as Record<string, unknown>;
    } catch {
      this.#socket.destroy(); // not QEMU
      return;
    }
    if ('QMP' in message) this.#greeted?.();
    if (typeof message.event === 'string') {
      const event = { event: message.event, data: (message.data ?? {}) as Record<string, unknown> };
      for (const listener of this.#listeners) listener(event);
    }
    const pending = this.#pending.get(Number(message.id));
    if (!pending) return;
    if ('error' in message) {
      const { desc } = message.error as { desc?: unknown };
      pending.reject(new UserError('qmp-refused', `QEMU says: ${String(desc)}`));
    } else pending.resolve(message.return);
  }

  #failAll(error: Error): void {
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

/** Connects through /proc/self/fd, since sun_path has 108 bytes and state folders may lie deep. */
export async function connectUnix(path: string): Promise<{ socket: Socket; folder: FileHandle }> {
  const folder = await open(dirname(path), 'r');
  try {
    const socket = createConnection({ path: `/proc/self/fd/${folder.fd}/${basename(path)}` });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return { socket, folder };
  } catch (error) {
    await folder.close();
    throw error;
  }
}

async function withLimit<T>(promise: Promise<T>, limitMs: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new UserError('qmp-timeout', `waited ${limitMs / 1000} s for ${what}`)), limitMs);
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}
