/**
 * The writing half of the HTTP interface.
 *
 * ```
 * PUT  /api/suites/SUITE/packages/FILE   one package, added at once          POST /api/suites/SUITE/publish
 * PUT  /upload/SUITE/FILE                as dput sends an upload: files first, its .changes last, which adds them
 * ```
 * Secret: where half an upload waits (incoming/, by token and suite), and that nothing of it is believed before it is whole.
 */
import { createHash } from 'node:crypto';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { scratchFolder } from '../core/files.ts';
import { layoutOf } from './layout.ts';
import { Repo } from './repo.ts';

export interface UploadLimits {
  readonly maxBytes: number;
  /** Writes of one token in a minute. */
  readonly writesPerMinute: number;
  /** For one body. */
  readonly seconds: number;
}

/** Where writes go, and who is told. */
export interface WriteContext {
  readonly context: Context;
  readonly dir: string;
  readonly limits: UploadLimits;
  readonly rate: RateLimit;
  /** Called with the name of the token, once it is known. */
  readonly onUser: (name: string) => void;
}

export interface WriteRequest {
  readonly kind: 'package' | 'spool' | 'publish';
  readonly suite: string;
  readonly file: string;
}

/** What a request wants to write; undefined: nothing that there is. */
export function writeRequestOf(method: string, path: string): WriteRequest | undefined {
  const name = '([A-Za-z0-9][A-Za-z0-9+._~:-]*)';
  const match = (pattern: string) => new RegExp(`^${pattern}$`).exec(path);
  if (method === 'POST') {
    const publish = match(`/api/suites/${name}/publish`);
    return publish ? { kind: 'publish', suite: publish[1]!, file: '' } : undefined;
  }
  if (method !== 'PUT') return undefined;
  const single = match(`/api/suites/${name}/packages/${name}`);
  if (single && /\.u?deb$/.test(single[2]!)) return { kind: 'package', suite: single[1]!, file: single[2]! };
  const spool = match(`/upload/${name}/${name}`);
  return spool ? { kind: 'spool', suite: spool[1]!, file: spool[2]! } : undefined;
}

/** `Authorization: Bearer TOKEN`, or the password of Basic, as dput and curl -u send it. */
function tokenOf(header: string | undefined): string | undefined {
  const bearer = /^Bearer\s+(\S+)$/i.exec(header ?? '');
  if (bearer) return bearer[1];
  const basic = /^Basic\s+([A-Za-z0-9+/=]+)$/i.exec(header ?? '');
  return basic
    ? Buffer.from(basic[1]!, 'base64')
        .toString('utf8')
        .replace(/^[^:]*:/, '')
    : undefined;
}

/** Writes within a minute, by token. */
export class RateLimit {
  readonly #perMinute: number;
  readonly #seen = new Map<string, number[]>();

  constructor(perMinute: number) {
    this.#perMinute = perMinute;
  }

  /** @param now milliseconds. Returns false when there were too many. */
  take(name: string, now: number): boolean {
    const recent = (this.#seen.get(name) ?? []).filter((at) => now - at < 60_000);
    if (recent.length >= this.#perMinute) return false;
    this.#seen.set(name, [...recent, now]);
    return true;
  }
}

export class TooMany extends Error {}

/**
 * Does what a request asks for.
 * @returns what is answered as JSON
 * @throws UserError `not-allowed`, `too-large`, and whatever adding and publishing throw; TooMany
 */
export async function handleWrite(
  { context, dir, limits, rate, onUser }: WriteContext,
  wanted: WriteRequest,
  request: IncomingMessage,
): Promise<unknown> {
  using repo = await Repo.open(context, dir);
  const role = wanted.kind === 'publish' ? 'publish' : 'upload';
  const token = repo.checkToken(tokenOf(request.headers.authorization), wanted.suite, role);
  onUser(token.name);
  if (!rate.take(token.name, performance.now())) throw new TooMany();
  const suite = repo.suites().find((one) => one.name === wanted.suite);
  if (!suite) throw new UserError('no-such-suite', `the repository has no suite '${wanted.suite}'`);
  if (wanted.kind === 'publish') return await repo.publish([suite.name]);
  const incoming = layoutOf(dir).incoming;
  const who = `token ${token.name}`;
  if (wanted.kind === 'package') {
    await using scratch = await scratchFolder(incoming, 'upload-');
    const path = join(scratch.path, wanted.file);
    await receive(request, path, limits);
    return withoutPaths(await repo.add(suite.name, [path], { who }));
  }
  const owner = createHash('sha256').update(token.name).digest('hex').slice(0, 16);
  const spool = join(incoming, `spool-${owner}-${suite.name}`);
  await mkdir(spool, { recursive: true, mode: 0o700 });
  const path = join(spool, wanted.file);
  await receive(request, path, limits);
  if (!wanted.file.endsWith('.changes')) return { received: wanted.file };
  const result = await repo.add(suite.name, [path], { who });
  await rm(spool, { recursive: true, force: true });
  return withoutPaths(result);
}

/** Paths of this machine are nobody's business. */
function withoutPaths(result: Awaited<ReturnType<Repo['add']>>): unknown {
  return { ...result, refused: result.refused.map((one) => ({ ...one, file: one.file.replace(/^.*\//, '') })) };
}

/** A client that sends nothing for so long has gone. */
const IDLE_MS = 60_000;

/** Stores a body whole or not at all. @throws UserError `too-large`, `too-slow` */
async function receive(request: IncomingMessage, path: string, limits: UploadLimits): Promise<void> {
  const tooLarge = () => new UserError('too-large', `more than ${limits.maxBytes} bytes are not taken`);
  if (Number(request.headers['content-length'] ?? 0) > limits.maxBytes) throw tooLarge();
  const patience = new Patience(limits.seconds * 1000);
  const partial = `${path}.part`;
  const file = await open(partial, 'w', 0o600);
  try {
    // the request stays open for the answer when a limit ends this
    const body = request.iterator({ destroyOnReturn: false });
    let size = 0;
    for (;;) {
      const next = await patience.wait(body.next() as Promise<IteratorResult<Buffer, undefined>>);
      if (next.done) break;
      size += next.value.length;
      if (size > limits.maxBytes) throw tooLarge();
      await file.writeFile(next.value);
    }
    if (!request.complete) throw new Error('the client has gone');
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  } finally {
    patience[Symbol.dispose]();
    await file.close();
  }
}

/**
 * Reads what is left of a body and throws it away: dput sends all of it before it looks at the answer, and would see a broken
 * connection in place of "401". A body that is longer than any upload may be is not waited for.
 */
export async function drain(request: IncomingMessage, limits: UploadLimits): Promise<void> {
  if (!(Number(request.headers['content-length'] ?? Number.NaN) <= limits.maxBytes)) return;
  using patience = new Patience(limits.seconds * 1000);
  const body = request.iterator({ destroyOnReturn: false });
  while (!(await patience.wait(body.next())).done);
}

/** How long somebody is waited for: in all, and for the next piece. */
class Patience implements Disposable {
  readonly #idleMs: number;
  readonly #total: NodeJS.Timeout;
  #giveUp: () => void = () => {};

  constructor(totalMs: number) {
    this.#idleMs = Math.min(IDLE_MS, totalMs);
    this.#total = setTimeout(() => this.#giveUp(), totalMs);
  }

  /** @throws UserError `too-slow` */
  async wait<T>(next: Promise<T>): Promise<T> {
    next.catch(() => {}); // nobody may wait for it any more
    const { promise, reject } = Promise.withResolvers<never>();
    this.#giveUp = () => reject(new UserError('too-slow', 'the upload took too long'));
    const idle = setTimeout(this.#giveUp, this.#idleMs);
    try {
      return await Promise.race([next, promise]);
    } finally {
      clearTimeout(idle);
    }
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#total);
  }
}
