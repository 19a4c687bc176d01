/**
 * An image from elsewhere as a base: machines are clones of it like of a built one, and get their name and keys by a NoCloud seed.
 *
 * Secret: that a file or device used in place becomes the lowest layer below a thin one of ours, so that nothing writes to it.
 */
import { rename, rm } from 'node:fs/promises';
import { machine } from 'node:os';
import { basename, join, resolve } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { run } from '../core/run.ts';
import { debArch } from '../deb/arch.ts';
import { type AdoptedBase, adoptBase, type Base } from './base.ts';
import { type FetchedImage, type FetchRequest, fetchImage } from './fetch.ts';

export interface FetchBaseRequest extends Omit<FetchRequest, 'target'> {
  /** Id of the base; default: from the name of the file. */
  readonly name?: string | undefined;
  /** What is in it, `bookworm`: machines ask for a base by it. */
  readonly suite?: string | undefined;
  /** Debian's name; default: this machine's. */
  readonly architecture?: string | undefined;
  /** A base of that name may be there already: the image as it is now takes its place. */
  readonly replace?: boolean | undefined;
}

/**
 * Fetches the image, or takes it in place, and makes it a base; one that was made of the same source is found again.
 * @throws as `fetchImage` does; UserError `base-exists`, `base-name`
 */
export function fetchBase(context: Context, request: FetchBaseRequest): Promise<Base> {
  const id = request.name ?? baseName(request.source);
  if (!/^[a-z0-9][a-z0-9.-]{0,62}$/.test(id)) {
    throw new UserError('base-name', `'${id}' is no name for a base`, {
      hint: 'give it one with --name: lower case letters, digits, . and -',
    });
  }
  const isUrl = /^[a-z]+:\/\//i.test(request.source);
  const from = isUrl ? request.source : resolve(request.cwd, request.source);
  const make = async (scratch: string) => {
    const image = await context.log.step(`Fetch ${request.source}`, () =>
      fetchImage(context, { ...request, target: join(scratch, 'image') }),
    );
    await toDisk(context, image, join(scratch, 'disk.qcow2'));
    return {
      suite: request.suite ?? '',
      architecture: request.architecture ?? debArch(machine()),
      virtualSize: image.virtualSize,
      inPlace: image.inPlace ? { path: image.path, sha256: image.sha256 } : undefined,
      checks: checksOf(request),
    };
  };
  return adoptBase(context, id, from, make, request.replace);
}

function checksOf({ digests, imageDigests, keyring, cwd }: FetchBaseRequest): AdoptedBase['checks'] {
  return { digests, imageDigests, ...(keyring === undefined ? {} : { keyring: resolve(cwd, keyring) }) } as never;
}

/** `https://.../debian-12-genericcloud-amd64.qcow2` is `debian-12-genericcloud-amd64`. */
export function baseName(source: string): string {
  const file = basename(/^https?:/i.test(source) ? new URL(source).pathname : source);
  return file
    .replace(/(\.(gz|xz|zst))?$/i, '')
    .replace(/\.(qcow2|img|raw)$/i, '')
    .toLowerCase()
    .replaceAll(/[^a-z0-9.-]+/g, '-')
    .replace(/^[.-]+/, '');
}

async function toDisk(context: Context, image: FetchedImage, disk: string): Promise<void> {
  if (image.inPlace) {
    const layer = ['create', '-q', '-f', 'qcow2', '-b', image.path, '-F', image.format, disk];
    await run(context, 'qemu-img', layer);
  } else if (image.format === 'qcow2') {
    await rename(image.path, disk);
  } else {
    const convert = ['convert', '-f', 'raw', '-O', 'qcow2', image.path, disk];
    await run(context, 'qemu-img', convert, { timeoutMs: 3_600_000 });
    await rm(image.path);
  }
}
