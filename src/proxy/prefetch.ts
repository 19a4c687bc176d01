/**
 * Fetching through a running proxy what a lock names, so that it is in the cache when it is needed.
 *
 * Secret: which requests apt, npm and pip would make for it: they are made here, through the same doors, and read to their end.
 */
import { createHash } from 'node:crypto';
import { type IncomingMessage, request } from 'node:http';
import { finished } from 'node:stream/promises';
import pLimit from 'p-limit';
import type { Context } from '../core/context.ts';
import type { Locked, LockedPython } from './locks.ts';

const AT_ONCE = 6;
const SIMPLE_JSON = 'application/vnd.pypi.simple.v1+json';

export interface PrefetchReport {
  readonly files: number;
  readonly bytes: number;
  /** What could not be had, and why. */
  readonly failed: readonly { readonly what: string; readonly why: string }[];
}

/** A digest as the lock says it; undefined: none is known here (the proxy checks against its index pages). */
interface Wanted {
  readonly what: string;
  readonly target: string;
  readonly digest:
    | { readonly algorithm: string; readonly value: string; readonly encoding: 'hex' | 'base64' }
    | undefined;
}

/** @param proxy its address @param machine as uname has it: 'x86_64' */
export async function prefetch(
  context: Context,
  proxy: string,
  locked: Pick<Locked, 'uris' | 'npm' | 'python'>,
  machine: string,
): Promise<PrefetchReport> {
  const failed: { what: string; why: string }[] = [];
  const limit = pLimit(AT_ONCE);
  let [files, bytes, done] = [0, 0, 0];
  const total = locked.uris.length + locked.npm.length + locked.python.length;
  const guarded = (what: string, body: () => Promise<void>) =>
    limit(async () => {
      context.signal.throwIfAborted();
      try {
        await body();
      } catch (error) {
        context.signal.throwIfAborted();
        failed.push({ what, why: (error as Error).message });
      }
      done += 1;
      context.log.progress('precache', done, total);
    });
  const take = async (wanted: Wanted) => {
    const size = await fetchWhole(context, proxy, wanted);
    bytes += size;
    files += 1;
  };
  const uris = locked.uris.map(({ url, digest }) =>
    guarded(url, () =>
      take({ what: url, target: url, digest: digest && { ...digest, value: digest.hex, encoding: 'hex' } }),
    ),
  );
  const npm = locked.npm.map(({ name, path, integrity }) =>
    guarded(path, async () => {
      // its page first: offline, npm and the proxy ask for it
      await fetchWhole(
        context,
        proxy,
        { what: name, target: `/npm/${name.replace('/', '%2f')}`, digest: undefined },
        'application/vnd.npm.install-v1+json',
      );
      await take({ what: path, target: `/npm${path}`, digest: integrityOf(integrity) });
    }),
  );
  const python = locked.python.map((one) =>
    guarded(`${one.name}==${one.version}`, async () => {
      for (const target of await pythonFiles(context, proxy, one, machine))
        await take({ what: target, target, digest: undefined });
    }),
  );
  await Promise.all([...uris, ...npm, ...python]);
  return { files, bytes, failed };
}

function integrityOf(text: string | undefined): Wanted['digest'] {
  const match = /(?:^|\s)(sha512|sha384|sha256|sha1)-([A-Za-z0-9+/=]+)/.exec(text ?? '');
  return match ? { algorithm: match[1]!, value: match[2]!, encoding: 'base64' } : undefined;
}

/** Wheels of the version that run on this kind of machine; its source where there are none. */
async function pythonFiles(context: Context, proxy: string, { name, version }: LockedPython, machine: string) {
  const chunks: Buffer[] = [];
  const target = `/pypi/simple/${encodeURIComponent(name)}/`;
  await fetchWhole(context, proxy, { what: name, target, digest: undefined }, SIMPLE_JSON, (chunk) =>
    chunks.push(chunk),
  );
  const page = JSON.parse(Buffer.concat(chunks).toString('utf8')) as { files: { filename: string; url: string }[] };
  const own = page.files.filter(({ filename }) => versionOf(filename) === version.toLowerCase());
  const wheels = own.filter(({ filename }) =>
    new RegExp(`-(?:any|[^-]*linux[^-]*_${machine}[^-]*)\\.whl$`).test(filename),
  );
  const chosen = wheels.length > 0 ? wheels : own.filter(({ filename }) => !filename.endsWith('.whl'));
  if (chosen.length === 0) throw new Error('the index has no file of this version for this machine');
  return chosen.map(({ url }) => url);
}

/** Of `name-1.0-py3-none-any.whl` and `name-1.0.tar.gz` (PEP 427, PEP 625; older names hold hyphens). */
function versionOf(file: string): string | undefined {
  if (file.endsWith('.whl')) return file.split('-')[1]?.toLowerCase();
  return /-([^-]+)\.(?:tar\.gz|tar\.bz2|zip|tgz)$/.exec(file)?.[1]?.toLowerCase();
}

/** @returns the number of bytes @throws Error when the answer is not the whole right file */
async function fetchWhole(
  context: Context,
  proxy: string,
  { what, target, digest }: Wanted,
  accept?: string,
  onData?: (chunk: Buffer) => void,
): Promise<number> {
  const { hostname, port } = new URL(proxy);
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const host = hostname.replace(/^\[|\]$/g, '');
    const headers = accept === undefined ? {} : { accept };
    request({ host, port, path: target, agent: false, headers, signal: context.signal }, resolve)
      .on('error', reject)
      .end();
  });
  const hash = digest && createHash(digest.algorithm);
  let size = 0;
  const failure: Buffer[] = [];
  response.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (response.statusCode !== 200) return void (size < 4096 && failure.push(chunk));
    hash?.update(chunk);
    onData?.(chunk);
  });
  await finished(response);
  if (response.statusCode !== 200)
    throw new Error(Buffer.concat(failure).toString('utf8').trim() || `${response.statusCode}`);
  if (hash && hash.digest(digest!.encoding) !== digest!.value) throw new Error(`'${what}' is not what the lock says`);
  return size;
}
