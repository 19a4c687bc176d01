/**
 * Downloads that go on where the last one stopped, in this run or in a later one.
 *
 * Secret: Range, If-Range and the validators that make them safe (RFC 9110 8.8, 13.1.5, 14). The part and what the server said
 * of it lie side by side; a part without a strong validator is begun anew.
 */
import { createHash } from 'node:crypto';
import { mkdir, open, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { lock } from '../core/db.ts';
import { BuildkitError, errnoOf, RemoteError } from '../core/errors.ts';
import { explainWriteError, writeFileAtomic } from '../core/files.ts';

const TRIES = 5;
const IDLE_MS = 60_000;

const noteSchema = z.object({ url: z.string(), validator: z.string().optional(), total: z.number().optional() });
type Note = z.infer<typeof noteSchema>;

export interface Download extends Disposable {
  /** Complete. */
  readonly path: string;
  /** Bytes that an earlier run had fetched. */
  readonly resumedAt: number;
  /** Forgets the part: it was used, or it is wrong. */
  remove(): Promise<void>;
}

/**
 * Fetches `url` into `folder` and keeps it locked until it is disposed; what is there already is not fetched again.
 * @throws RemoteError `http-status`, `http-failed`; UserError `locked` when another process fetches it
 */
export async function downloadResumable(context: Context, url: string, folder: string): Promise<Download> {
  await mkdir(folder, { recursive: true });
  const stem = join(folder, createHash('sha256').update(url).digest('hex').slice(0, 24));
  const [path, notePath] = [`${stem}.part`, `${stem}.json`];
  const held = await lock(`${stem}.lock`, { what: `the download of ${url}`, signal: context.signal });
  const remove = async () => {
    for (const file of [path, notePath]) await rm(file, { force: true });
  };
  try {
    const resumedAt = await sizeOf(path);
    await fetchAll(context, url, path, notePath);
    return { path, resumedAt, remove, [Symbol.dispose]: () => held[Symbol.dispose]() };
  } catch (error) {
    held[Symbol.dispose]();
    throw error;
  }
}

async function fetchAll(context: Context, url: string, path: string, notePath: string): Promise<void> {
  let failures = 0;
  for (;;) {
    const before = await sizeOf(path);
    try {
      if (await fetchOnce(context, url, path, notePath)) return;
      throw new Error('the answer ended early');
    } catch (cause) {
      context.signal.throwIfAborted();
      if (cause instanceof BuildkitError && !isTemporary(cause)) throw cause;
      failures = (await sizeOf(path)) > before ? 1 : failures + 1; // it moves on: patience begins anew
      if (failures >= TRIES) throw giveUp(url, cause);
      context.log.detail(`try ${failures} failed (${reasonOf(cause)}), trying again`);
      const pause = Math.min(250 * 2 ** failures, 4000);
      await sleep(pause, undefined, { signal: context.signal }).catch(() => context.signal.throwIfAborted());
    }
  }
}

function isTemporary(error: BuildkitError): boolean {
  return error instanceof RemoteError && error.status !== undefined && (error.status >= 500 || error.status === 429);
}

function reasonOf(cause: unknown): string {
  const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  return inner instanceof Error ? inner.message || (errnoOf(inner) ?? inner.name) : String(inner);
}

function giveUp(url: string, cause: unknown): RemoteError {
  if (cause instanceof RemoteError) return cause;
  return new RemoteError('http-failed', `cannot fetch: ${reasonOf(cause)}`, {
    url,
    tries: TRIES,
    hint: 'run the command again: it goes on where this one stopped',
    cause,
  });
}

/** One request. @returns whether the file is complete now */
async function fetchOnce(context: Context, url: string, path: string, notePath: string): Promise<boolean> {
  const note = await readNote(notePath);
  const size = note?.url === url ? await sizeOf(path) : 0;
  if (note?.total === size && size > 0) return true;
  const idle = new AbortController();
  const signal = AbortSignal.any([context.signal, idle.signal]);
  let timer = setTimeout(() => idle.abort(new Error('nothing came for a minute')), IDLE_MS);
  try {
    const response = await fetch(url, { headers: requestHeaders(size, note), signal });
    const total = await begin(response, { url, path, notePath, size });
    const from = response.status === 206 ? size : 0;
    await append(path, from, response.body ?? [], (done) => {
      clearTimeout(timer);
      timer = setTimeout(() => idle.abort(new Error('nothing came for a minute')), IDLE_MS);
      context.log.progress(url.slice(url.lastIndexOf('/') + 1), done, total);
    });
    return total === undefined || (await sizeOf(path)) === total;
  } finally {
    clearTimeout(timer);
  }
}

function requestHeaders(size: number, note: Note | undefined): Record<string, string> {
  const plain = { 'accept-encoding': 'identity' }; // bytes as they lie on the server: digests are of those
  if (size === 0 || note?.validator === undefined) return plain;
  return { ...plain, range: `bytes=${size}-`, 'if-range': note.validator };
}

/** Reads the head of the answer, notes what it says and makes room. @returns bytes of the whole, if known */
async function begin(
  response: Response,
  at: { url: string; path: string; notePath: string; size: number },
): Promise<number | undefined> {
  const { url, path, notePath, size } = at;
  const { status, headers } = response;
  if (status === 206) {
    const [, first, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get('content-range') ?? '') ?? [];
    if (Number(first) === size) return total === '*' ? undefined : Number(total);
  }
  if (status !== 200) {
    await response.body?.cancel();
    // what is asked for is not there (any more), or the server's ranges are not to be trusted: from the start next time
    if (status === 416 || status === 206) {
      for (const file of [path, notePath]) await rm(file, { force: true });
      throw new Error(`the server answered ${status} to a request for the rest`);
    }
    throw new RemoteError('http-status', `the server answered ${status}`, { url, status });
  }
  const length = headers.get('content-length');
  const total = length === null ? undefined : Number(length);
  const etag = headers.get('etag');
  const validator = etag?.startsWith('"') ? etag : (headers.get('last-modified') ?? undefined); // If-Range takes no weak tag
  await rm(path, { force: true });
  const note: Note = { url, ...(validator ? { validator } : {}), ...(total === undefined ? {} : { total }) };
  await writeFileAtomic(notePath, JSON.stringify(note));
  return total;
}

async function append(
  path: string,
  from: number,
  body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  onProgress: (done: number) => void,
): Promise<void> {
  const file = await open(path, from === 0 ? 'w' : 'r+');
  let at = from;
  try {
    for await (const chunk of body) {
      await file.write(chunk, 0, chunk.length, at);
      at += chunk.length;
      onProgress(at);
    }
    await file.sync();
  } catch (cause) {
    throw explainWriteError(cause, path);
  } finally {
    await file.close();
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return 0;
    throw error;
  }
}

async function readNote(path: string): Promise<Note | undefined> {
  try {
    return noteSchema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || error instanceof SyntaxError || error instanceof z.ZodError) return undefined;
    throw error;
  }
}
