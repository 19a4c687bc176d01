/**
 * Commands and files through ssh (sole user of ssh2).
 *
 * Secret: ssh2's client and its pitfalls: without TCP_NODELAY each command waits 40 ms for an acknowledgement; an exit by signal
 * comes without a code.
 */

import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { Client, type ClientChannel } from 'ssh2';
import { InterruptedError, ToolError } from '../core/errors.ts';
import { shellQuote } from '../core/run.ts';

export interface SshTarget {
  readonly host: string;
  readonly port: number;
  readonly user: string;
  /** OpenSSH private key. */
  readonly privateKey: string;
  /** `ssh-ed25519 AAAA...`: any other key of the host is refused. */
  readonly hostKey?: string | undefined;
}

export interface ExecOptions {
  /** Called with each piece of output as it comes. */
  readonly onOutput?: ((chunk: Buffer, stream: 'stdout' | 'stderr') => void) | undefined;
  /** The command is killed then, and ToolError `guest-timeout` thrown. */
  readonly timeoutMs?: number | undefined;
  readonly stdin?: Readable | string | Uint8Array | undefined;
  /**
   * Its value of BUILDKIT_RUN: when a signal to this process aborts the command, it gets the same signal, and half a minute to
   * end by itself; a second signal ends the wait. Without it, it is killed.
   */
  readonly mark?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Do not keep the output in memory: `onOutput` gets it. */
  readonly discard?: boolean | undefined;
}

export interface ExecResult {
  /** As a shell counts: 128 + n when signal n ended the command. */
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

const SIGNAL_PATIENCE_MS = 30_000;
/** Variable in the environment of a command that signals are for. */
const MARK = 'BUILDKIT_RUN';
const MAX_KEPT = 64 * 1024 * 1024;

/** A logged-in connection. */
export class Ssh implements Disposable {
  /** Resolves when the connection has ended. */
  readonly closed: Promise<void>;
  readonly #client: Client;

  private constructor(client: Client) {
    this.#client = client;
    client.setMaxListeners(0); // one for each command under way
    this.closed = new Promise((resolve) => client.once('close', () => resolve()));
  }

  /**
   * Connects and logs in.
   * @throws the error of the connection; `level` 'client-authentication' means that the key was refused
   */
  static connect(target: SshTarget, limitMs: number, signal?: AbortSignal): Promise<Ssh> {
    const client = new Client();
    const wanted = target.hostKey?.trim().split(/\s+/)[1];
    return new Promise<Ssh>((resolve, reject) => {
      const abort = () => {
        client.destroy();
        reject(signal?.reason as Error);
      };
      if (signal?.aborted) return abort();
      signal?.addEventListener('abort', abort, { once: true });
      client.on('error', () => {}); // it may tell of several; the first rejects, and 'close' follows in any case
      client.once('ready', () => {
        signal?.removeEventListener('abort', abort);
        client.setNoDelay(true);
        resolve(new Ssh(client));
      });
      client.once('error', (error) => {
        signal?.removeEventListener('abort', abort);
        client.destroy();
        reject(error);
      });
      client.connect({
        host: target.host,
        port: target.port,
        username: target.user,
        privateKey: target.privateKey,
        readyTimeout: limitMs,
        keepaliveInterval: 15_000,
        keepaliveCountMax: 8,
        hostVerifier: (key: Buffer) => wanted === undefined || key.toString('base64') === wanted,
      });
    });
  }

  /**
   * Runs `argv` in the guest (no shell looks at it) and returns what it printed and its exit code, whatever that is.
   * @throws ToolError `guest-timeout`, `guest-gone`
   */
  async exec(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const { mark } = options;
    const command = shellQuote(mark === undefined ? argv : ['env', `${MARK}=${mark}`, ...argv]);
    const output = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
    let kept = 0;
    const take = (stream: 'stdout' | 'stderr') => (chunk: Buffer) => {
      options.onOutput?.(chunk, stream);
      kept += chunk.length;
      if (!options.discard && kept <= MAX_KEPT) output[stream].push(chunk);
    };
    const exitCode = await this.#open(command, (channel) => {
      channel.on('data', take('stdout'));
      channel.stderr.on('data', take('stderr'));
      return this.#end(channel, command, options);
    });
    return {
      exitCode,
      stdout: Buffer.concat(output.stdout).toString('utf8'),
      stderr: Buffer.concat(output.stderr).toString('utf8'),
    };
  }

  /** `attach` runs before the next packet is read: the exit of a quick command comes in the same piece as its start. */
  #open<T>(command: string, attach: (channel: ClientChannel) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const gone = () => reject(goneError(command));
      this.#client.once('close', gone);
      this.#client.exec(command, (error, channel) => {
        this.#client.removeListener('close', gone);
        if (error) reject(goneError(command, error));
        else attach(channel).then(resolve, reject);
      });
    });
  }

  #end(channel: ClientChannel, command: string, options: ExecOptions): Promise<number> {
    return new Promise((resolve, reject) => {
      let code: number | undefined;
      const stop = (error: unknown) => {
        channel.removeAllListeners('close');
        channel.signal('KILL');
        channel.destroy();
        done();
        reject(error as Error);
      };
      const timer =
        options.timeoutMs === undefined
          ? undefined
          : setTimeout(() => stop(timeoutError(command, options.timeoutMs!)), options.timeoutMs);
      const abort = () => {
        const { reason } = options.signal ?? {};
        const name = reason instanceof InterruptedError ? signalName(reason.exitCode - 128) : undefined;
        if (name === undefined || options.mark === undefined) return stop(reason);
        // the command gets the signal too, and a while to end as it wants to
        this.#pass(name, options.mark);
        const patience = setTimeout(() => stop(reason), SIGNAL_PATIENCE_MS);
        channel.once('close', () => clearTimeout(patience));
      };
      const gone = () => stop(goneError(command));
      const done = () => {
        clearTimeout(timer);
        options.signal?.removeEventListener('abort', abort);
        this.#client.removeListener('close', gone);
      };
      options.signal?.addEventListener('abort', abort, { once: true });
      this.#client.once('close', gone);
      channel.on('error', () => {}); // writing to a command that reads no more; 'close' follows
      channel.on('exit', (status: number | null, signal?: string) => {
        // RFC 4254 6.10 names signals without SIG, ssh2 puts it before
        const name = `SIG${signal?.replace(/^SIG/, '')}` as NodeJS.Signals;
        code = status ?? 128 + (constants.signals[name] ?? 0);
      });
      channel.on('close', () => {
        done();
        if (code === undefined) reject(goneError(command));
        else resolve(code);
      });
      feed(channel, options.stdin);
      if (options.signal?.aborted) abort();
    });
  }

  /** sshd passes no signals to programs of root (session.c, session_signal_req): a second command finds the marked one. */
  #pass(signal: string, mark: string | undefined): void {
    if (mark === undefined) return;
    // one grep: a process costs an emulated CPU a tenth of a second
    const marked = `$(grep -slzxF ${MARK}=${mark} /proc/[0-9]*/environ)`;
    const command = `for file in ${marked}; do pid=\${file#/proc/}; kill -${signal} \${pid%/environ}; done 2>/dev/null`;
    this.#client.exec(command, (_error, channel) => channel?.resume());
  }

  [Symbol.dispose](): void {
    this.#client.destroy();
  }
}

/** `INT`, as RFC 4254 6.9 names it. */
function signalName(number: number): string | undefined {
  const found = Object.entries(constants.signals).find(([, value]) => value === number);
  return found?.[0].replace(/^SIG/, '');
}

function feed(channel: ClientChannel, stdin: ExecOptions['stdin']): void {
  if (stdin === undefined || typeof stdin === 'string' || stdin instanceof Uint8Array) {
    channel.end(stdin ?? '');
    return;
  }
  stdin.pipe(channel);
  void finished(stdin).catch(() => channel.destroy());
}

function timeoutError(command: string, limitMs: number): ToolError {
  return new ToolError('guest-timeout', `the command in the guest took longer than ${limitMs / 1000} s`, { command });
}

function goneError(command: string, cause?: unknown): ToolError {
  return new ToolError('guest-gone', 'the connection to the guest was lost', { command, cause });
}
