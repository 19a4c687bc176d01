/** Images from a server that cuts, changes and lies, from files and from a device; seeds read by isoinfo, bsdtar and xorriso. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { basename, join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Listening, listen } from '../../src/core/http.ts';
import { run } from '../../src/core/run.ts';
import { detachSign, generateKey } from '../../src/deb/openpgp.ts';
import { collectBaseGarbage, listBases, verifyBase } from '../../src/vm/base.ts';
import { updateBase } from '../../src/vm/base-update.ts';
import { type FetchRequest, fetchImage } from '../../src/vm/fetch.ts';
import { type FetchBaseRequest, fetchBase } from '../../src/vm/fetch-base.ts';
import { seedImage } from '../../src/vm/seed.ts';
import { createWorld, type World } from '../support/world.ts';

const MIB = 1024 * 1024;
let world: World;
let published: string;
let image: Buffer;
beforeEach(async () => {
  world = await createWorld();
  published = join(world.path, 'www');
  await mkdir(published);
  image = Buffer.alloc(3 * MIB);
  for (let at = 0; at < MIB; at += 4) image.writeUInt32LE((at * 2654435761) >>> 0, at); // the rest is a hole
  await writeFile(join(published, 'disk.raw'), image);
});
afterEach(() => world[Symbol.asyncDispose]());

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const target = () => join(world.path, 'bases/x/disk');
const request = (source: string, more: Partial<FetchRequest> = {}): FetchRequest => ({
  source,
  cwd: world.path,
  target: target(),
  digests: {},
  imageDigests: {},
  ...more,
});
const leftovers = async () => {
  const names = await Promise.all(
    [join(world.path, 'bases/x'), join(world.path, 'cache/downloads')].map((folder) => readdir(folder).catch(() => [])),
  );
  return names.flat().filter((name) => !name.endsWith('.lock'));
};

interface Web extends AsyncDisposable {
  readonly url: string;
  /** `GET /disk.raw bytes=100-` */
  readonly log: string[];
  bytesSent: number;
  /** Cuts the connection once that many bytes of a body are sent. */
  cutAfter: number | undefined;
  etag: string;
  ranges: boolean;
}

/** Serves `published` with ranges and tags. */
async function serve(port = 0): Promise<Web> {
  const web = {
    log: [] as string[],
    bytesSent: 0,
    cutAfter: undefined as number | undefined,
    etag: '"1"',
    ranges: true,
  };
  const handler = (incoming: IncomingMessage, response: ServerResponse) => {
    void answer(web, incoming, response);
  };
  const listening: Listening = await listen(handler, `127.0.0.1:${port}`);
  return Object.assign(web, { url: listening.url, [Symbol.asyncDispose]: () => listening.close(0) });
}

async function answer(
  web: Omit<Web, 'url' | keyof AsyncDisposable>,
  incoming: IncomingMessage,
  response: ServerResponse,
) {
  const range = incoming.headers.range;
  web.log.push(`${incoming.method} ${incoming.url}${range ? ` ${range}` : ''}`);
  const body = await readFile(join(published, basename(incoming.url ?? ''))).catch(() => undefined);
  if (!body) {
    response.writeHead(404).end();
    return;
  }
  const valid = range !== undefined && web.ranges && incoming.headers['if-range'] === web.etag;
  const from = valid ? Number(/bytes=(\d+)-/.exec(range)?.[1]) : 0;
  const part = body.subarray(from);
  response.writeHead(valid ? 206 : 200, {
    'content-length': part.length,
    etag: web.etag,
    ...(valid ? { 'content-range': `bytes ${from}-${body.length - 1}/${body.length}` } : {}),
  });
  const sent = web.cutAfter === undefined ? part : part.subarray(0, web.cutAfter);
  web.bytesSent += sent.length;
  response.write(sent, () => (sent.length < part.length ? response.destroy() : response.end()));
}

describe('fetchImage', () => {
  it('unpacks gz, xz and zst, checks before and after, and keeps holes', async () => {
    await using web = await serve();
    await run({}, 'qemu-img', ['convert', '-O', 'qcow2', join(published, 'disk.raw'), join(published, 'disk.qcow2')]);
    for (const name of ['disk.raw', 'disk.qcow2']) {
      for (const [program, end] of [
        ['gzip', 'gz'],
        ['xz', 'xz'],
        ['zstd', 'zst'],
      ] as const) {
        await run({}, program, ['-k', '-q', join(published, name)]);
        const packed = await readFile(join(published, `${name}.${end}`));
        const plain = await readFile(join(published, name));
        const found = await fetchImage(
          world.context,
          request(`${web.url}/${name}.${end}`, {
            target: `${target()}-${name}-${end}`,
            digests: { sha256: sha256(packed), md5: createHash('md5').update(packed).digest('hex') },
            imageDigests: { sha512: createHash('sha512').update(plain).digest('hex') },
          }),
        );
        expect(found).toMatchObject({
          format: name === 'disk.raw' ? 'raw' : 'qcow2',
          inPlace: false,
          virtualSize: image.length,
          sha256: sha256(plain),
        });
        expect((await readFile(found.path)).equals(plain)).toBe(true);
        if (name === 'disk.raw') expect((await stat(found.path)).blocks * 512).toBeLessThan(2 * MIB);
      }
    }
  });

  it('keeps nothing of a wrong download or a wrong image', async () => {
    await using web = await serve();
    await run({}, 'gzip', ['-k', join(published, 'disk.raw')]);
    const wrong = '0'.repeat(64);
    for (const more of [{ digests: { sha256: wrong } }, { imageDigests: { sha256: wrong } }]) {
      await expect(fetchImage(world.context, request(`${web.url}/disk.raw.gz`, more))).rejects.toMatchObject({
        code: 'digest-mismatch',
        exitCode: 4,
      });
      expect(await leftovers()).toEqual([]);
    }
    await writeFile(join(published, 'cut.gz'), (await readFile(join(published, 'disk.raw.gz'))).subarray(0, 1000));
    await expect(fetchImage(world.context, request(`${web.url}/cut.gz`))).rejects.toMatchObject({
      code: 'tool-failed',
    });
    expect(await leftovers()).toEqual([]);
    await expect(fetchImage(world.context, request(`${web.url}/nothing.raw`))).rejects.toMatchObject({
      code: 'http-status',
      status: 404,
    });
  });

  it('goes on in the same run after a cut, and in a later run after the server was away', async () => {
    const web = await serve();
    web.cutAfter = 400_000;
    const first = fetchImage(world.context, request(`${web.url}/disk.raw`));
    // cuts all along: each answer brings some more, until it is complete
    expect((await first).sha256).toBe(sha256(image));
    expect(web.bytesSent).toBeLessThan(image.length * 1.5); // what was under way when it was cut came twice
    expect(web.log[1]).toMatch(/^GET \/disk\.raw bytes=\d+-$/);

    const port = Number(new URL(web.url).port);
    const dying = new AbortController();
    web.etag = '"2"';
    const interrupted = fetchImage({ ...world.context, signal: dying.signal }, request(`${web.url}/disk.raw`));
    interrupted.catch(() => {});
    await expect.poll(() => web.log.length, { timeout: 60_000 }).toBeGreaterThan(10);
    await web[Symbol.asyncDispose]();
    dying.abort(new Error('stopped'));
    await expect(interrupted).rejects.toThrow('stopped');

    await using again = await serve(port);
    again.etag = '"2"';
    expect((await fetchImage(world.context, request(`${again.url}/disk.raw`))).sha256).toBe(sha256(image));
    expect(again.log[0]).toMatch(/^GET \/disk\.raw bytes=\d+-$/);
    expect(again.bytesSent).toBeLessThan(image.length);
  });

  it('begins anew when the file changed meanwhile or the server knows no ranges', async () => {
    await using web = await serve();
    for (const change of [{ etag: '"new"' }, { ranges: false }]) {
      web.cutAfter = MIB;
      const cut = fetchImage({ ...world.context, signal: AbortSignal.timeout(300) }, request(`${web.url}/disk.raw`));
      await expect(cut).rejects.toMatchObject({ name: 'TimeoutError' });
      Object.assign(web, change, { cutAfter: undefined });
      image.writeUInt32LE(web.log.length, 0);
      await writeFile(join(published, 'disk.raw'), image);
      expect((await fetchImage(world.context, request(`${web.url}/disk.raw`))).sha256).toBe(sha256(image));
    }
  });

  it('gives up with the number of tries when nothing answers', async () => {
    const web = await serve();
    await web[Symbol.asyncDispose]();
    await expect(fetchImage(world.context, request(`${web.url}/disk.raw`))).rejects.toMatchObject({
      code: 'http-failed',
      exitCode: 4,
      tries: 5,
    });
  });

  it('uses a file or a device in place, untouched', async () => {
    const file = join(published, 'disk.raw');
    const before = await stat(file);
    const found = await fetchImage(world.context, request('www/disk.raw', { imageDigests: { sha256: sha256(image) } }));
    expect(found).toEqual({
      path: file,
      format: 'raw',
      inPlace: true,
      virtualSize: image.length,
      sha256: sha256(image),
    });
    const device = (await run({}, 'losetup', ['--find', '--show', '--read-only', file])).stdout.trim();
    try {
      expect(await fetchImage(world.context, request(device))).toMatchObject({
        path: device,
        inPlace: true,
        virtualSize: image.length,
        sha256: sha256(image),
      });
    } finally {
      await run({}, 'losetup', ['--detach', device]);
    }
    expect([(await stat(file)).mtimeMs, await leftovers()]).toEqual([before.mtimeMs, []]);
    await expect(fetchImage(world.context, request('no-such'))).rejects.toMatchObject({ code: 'image-missing' });
  });

  it('refuses an image that would make QEMU read a file of this machine', async () => {
    const file = join(published, 'evil.qcow2');
    await run({}, 'qemu-img', ['create', '-q', '-f', 'qcow2', '-b', '/etc/passwd', '-F', 'raw', file]);
    await using web = await serve();
    await expect(fetchImage(world.context, request(`${web.url}/evil.qcow2`))).rejects.toMatchObject({
      code: 'image-foreign-file',
    });
    expect(await leftovers()).toEqual([]);
  });
});

describe('signatures', () => {
  const key = (email: string) =>
    generateKey({ name: 'Publisher', email, algorithm: 'ed25519', date: new Date(Date.now() - 60_000) });

  it('of the image and of a list of sums are followed; a foreign one and none are refused', async () => {
    await using web = await serve();
    const [publisher, stranger] = await Promise.all([key('a@example.org'), key('b@example.org')]);
    const keyring = join(world.path, 'publisher.asc');
    await writeFile(keyring, publisher.publicKeyArmored);
    const from = (source: string) => fetchImage(world.context, request(source, { keyring }));
    const sign = async (name: string, bytes: Uint8Array, signer: typeof publisher) =>
      writeFile(
        join(published, name),
        await detachSign(bytes, [{ key: signer.privateKeyArmored }], { date: new Date(), armor: false }),
      );
    await expect(from(`${web.url}/disk.raw`)).rejects.toMatchObject({ code: 'signature-missing' });
    await sign('disk.raw.sig', image, stranger);
    await expect(from(`${web.url}/disk.raw`)).rejects.toMatchObject({ code: 'signature-bad' });
    expect(await leftovers()).toEqual([]);
    await sign('disk.raw.sig', image, publisher);
    expect((await from(`${web.url}/disk.raw`)).sha256).toBe(sha256(image));

    await writeFile(join(published, 'other.raw'), image);
    const sums = Buffer.from(`${createHash('sha512').update(image).digest('hex')}  other.raw\n`);
    await writeFile(join(published, 'SHA512SUMS'), sums);
    await sign('SHA512SUMS.sign', sums, publisher);
    expect((await from(`${web.url}/other.raw`)).sha256).toBe(sha256(image));
    expect((await from(join(published, 'other.raw'))).inPlace).toBe(true);
    await writeFile(join(published, 'other.raw'), image.fill(7, 100, 200));
    await expect(from(`${web.url}/other.raw`)).rejects.toMatchObject({ code: 'digest-mismatch' });
  });
});

describe('vm base fetch', () => {
  const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
  const hex = (algorithm: string, bytes: Uint8Array) => createHash(algorithm).update(bytes).digest('hex');

  it('takes every digest before and after unpacking, and the keys of the publisher', async () => {
    await run({}, 'xz', ['-k', join(published, 'disk.raw')]);
    const packed = await readFile(join(published, 'disk.raw.xz'));
    const date = new Date(Date.now() - 60_000);
    const key = await generateKey({ name: 'Publisher', email: 'a@example.org', algorithm: 'ed25519', date });
    await writeFile(join(world.path, 'publisher.asc'), key.publicKeyArmored);
    const signature = await detachSign(packed, [{ key: key.privateKeyArmored }], { date: new Date(), armor: false });
    await writeFile(join(published, 'disk.raw.xz.sig'), signature);
    const flags = ['md5', 'sha256', 'sha512'].flatMap((one) => [
      ...[`--${one}`, hex(one, packed)],
      ...[`--image-${one}`, hex(one, image)],
    ]);
    const fetching = (name: string, more: string[], okExitCodes: number[] = []) =>
      run({}, BUILDKIT, ['--state', 'state', 'vm', 'base', 'fetch', 'www/disk.raw.xz', '--name', name, ...more], {
        cwd: world.path,
        okExitCodes,
      });
    const made = await fetching('all', [...flags, '--signature', 'publisher.asc']);
    expect(made.stdout).toContain('made: all (');
    for (let at = 0; at < flags.length; at += 2) {
      const wrong = (flags[at + 1] ?? '').replace(/^./, (digit) => (digit === '0' ? '1' : '0'));
      const { stderr } = await fetching('wrong', [flags[at]!, wrong], [4]);
      expect(stderr).toContain(`${flags[at]!.replace(/^--(image-)?/, '')} of the ${at % 4 ? 'image' : 'download'} is`);
    }
    expect(await readdir(join(world.path, 'state/vm/bases'))).toEqual(['.lock', 'all']);
  });
});

describe('an update of a fetched base', () => {
  const nobody = { usersOf: async () => [] };
  const change = async (byte: number) => writeFile(join(published, 'disk.raw'), image.fill(byte, 0, 512));
  const fetched = (source: string, more: Partial<FetchBaseRequest> = {}) =>
    fetchBase(world.context, { source, cwd: world.path, digests: {}, imageDigests: {}, name: 'cloud', ...more });
  const below = () => readdir(join(world.context.stateDir, 'vm/bases'));

  it('takes the image as it is now, whole, under its name, and only when no machine lies over it', async () => {
    await using web = await serve();
    const first = await fetched(`${web.url}/disk.raw`, { suite: 'bookworm' });
    expect(await updateBase(world.context, 'cloud', nobody)).toMatchObject({ unchanged: true, base: { id: 'cloud' } });
    web.etag = '"2"';
    await change(5);
    const refused = updateBase(world.context, 'cloud', { usersOf: async () => ['web'] });
    await expect(refused).rejects.toMatchObject({ code: 'base-in-use', hint: expect.stringContaining('--name') });
    expect(await verifyBase(world.context, 'cloud', first.sha256)).toMatchObject({ sha256: first.sha256 });
    const updated = await updateBase(world.context, 'bookworm', nobody);
    expect(updated).toMatchObject({ unchanged: false, former: 'cloud', base: { id: 'cloud', suite: 'bookworm' } });
    expect(updated.base.sha256).not.toBe(first.sha256);
    expect((await listBases(world.context)).map(({ sha256 }) => sha256)).toEqual([updated.base.sha256]);
    // an overlay of the old one never meets the new one
    await expect(verifyBase(world.context, 'cloud', first.sha256)).rejects.toMatchObject({ code: 'base-changed' });
    expect(await below()).toEqual(['.lock', 'cloud']);
  });

  it('keeps the old one when the source is gone or a process dies between the two', async () => {
    const web = await serve();
    const first = await fetched(`${web.url}/disk.raw`);
    await writeFile(join(published, 'disk.raw'), '<html>');
    await expect(updateBase(world.context, 'cloud', nobody)).rejects.toMatchObject({ code: 'image-kind' });
    await web[Symbol.asyncDispose]();
    expect(await listBases(world.context)).toMatchObject([{ id: 'cloud', sha256: first.sha256 }]);
    const dead = join(world.context.stateDir, 'vm/bases/.building-replaced-1');
    await mkdir(dead);
    await writeFile(join(dead, 'restore'), first.dir);
    await rename(first.dir, join(dead, 'aside'));
    expect(await collectBaseGarbage(world.context)).toEqual(['a half-made base image']);
    expect(await listBases(world.context)).toMatchObject([{ id: 'cloud', sha256: first.sha256 }]);
    expect(await below()).toEqual(['.lock', 'cloud']);
  });

  it('notices a change of a file that is used in place', async () => {
    await fetched('www/disk.raw');
    expect(await updateBase(world.context, 'cloud', nobody)).toMatchObject({ unchanged: true });
    await change(9);
    const updated = await updateBase(world.context, 'cloud', nobody);
    expect(updated.unchanged).toBe(false);
    await verifyBase(world.context, 'cloud', updated.base.sha256);
  });

  it('cannot be of what is pinned to a digest, nor of what nobody noted the making of', async () => {
    await using web = await serve();
    await fetched(`${web.url}/disk.raw`, { imageDigests: { sha256: sha256(image) } });
    await expect(updateBase(world.context, 'cloud', nobody)).rejects.toMatchObject({
      code: 'base-pinned',
      message: expect.stringContaining('fetched with its sha256'),
    });
    const file = join(world.context.stateDir, 'vm/bases/cloud/base.json');
    const { source: _gone, ...record } = JSON.parse(await readFile(file, 'utf8'));
    await writeFile(file, JSON.stringify({ ...record, suite: 'trixie' }));
    await expect(updateBase(world.context, 'trixie', nobody)).rejects.toMatchObject({ code: 'base-no-recipe' });
    await expect(updateBase(world.context, 'none', nobody)).rejects.toMatchObject({ code: 'base-unknown' });
  });
});

describe('a seed', () => {
  it('is read by isoinfo, bsdtar, xorriso and blkid', async () => {
    const file = join(world.path, 'seed.iso');
    const seed = seedImage(
      { instanceId: 'i-1', hostname: 'web', authorizedKeys: ['ssh-ed25519 AAAA x'], nets: [] },
      new Date('2026-02-03T04:05:06Z'),
    );
    await writeFile(file, seed);
    const names = ['meta-data', 'network-config', 'user-data'];
    const out = async (program: string, args: string[]) => (await run({}, program, args)).stdout;
    expect((await out('isoinfo', ['-J', '-f', '-i', file])).trim().split('\n')).toEqual(
      names.map((name) => `/${name}`),
    );
    expect((await out('bsdtar', ['-tf', file])).trim().split('\n').sort()).toEqual(['.', ...names]);
    expect(await out('xorriso', ['-indev', file, '-ls', '/'])).toContain("'user-data'");
    expect(await out('blkid', ['-p', '-o', 'export', file])).toMatch(/^LABEL=cidata$[\s\S]*^TYPE=iso9660$/m);
    expect(await out('bsdtar', ['-xOf', file, 'user-data'])).toMatch(/^#cloud-config\n\{"hostname":"web"/);
    expect(await out('isoinfo', ['-J', '-i', file, '-x', '/meta-data'])).toBe(
      '{"instance-id":"i-1","local-hostname":"web"}\n',
    );
  });
});
