/** Readers and writers at the same time, and disks that misbehave. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run, start } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { verifyRepository } from '../../src/repo/verify.ts';
import { createAptRoot } from '../support/apt-root.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const PROGRAM = resolve(import.meta.dirname, '../../bin/buildkit');

async function newRepo(world: World): Promise<Repo> {
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
  await new KeyStore(world.context).generate(request);
  return Repo.init(world.context, join(world.path, 'repo'), {
    suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
    origin: 'Example',
    label: 'Example',
  });
}

describe('a reader', () => {
  it('never fails while publishes follow each other, from empty lists each time', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    await repo.publish();
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    const sources = await repo.sources('bookworm', { url: server.url });
    // another process: it writes while this one serves
    const script =
      'for n in $(seq 1000); do "$0" --state "$1" repo publish --force --repo "$2" >/dev/null || exit 1; done';
    await using publisher = start({}, 'sh', ['-c', script, PROGRAM, world.context.stateDir, repo.dir]);
    for (const options of [[], ['Acquire::By-Hash "force";']]) {
      for (let round = 0; round < 15; round += 1) {
        await using apt = await createAptRoot({ sources, configuration: options });
        await apt.update();
      }
    }
    publisher.kill('SIGKILL');
    await publisher.exitCode;
    expect(repo.generations().length).toBeGreaterThan(5);
    expect((await verifyRepository(world.context, { place: repo.publicDir, suites: ['bookworm'] })).problems).toEqual(
      [],
    );
  });

  it('that holds an InRelease five publishes old still finds every index that it names', async () => {
    await using world = await createWorld(new Date(Date.now() - 3_600_000));
    using repo = await newRepo(world);
    const paths: string[] = [];
    let old = '';
    for (let n = 0; n < 7; n += 1) {
      world.setClock(new Date(Date.now() - 3_600_000 + n * 60_000));
      const made = await makePackage(world.context, join(world.path, 'in'), { name: `pkg-${n}` });
      await repo.add('bookworm', [made.path]);
      await repo.publish();
      if (n > 0) continue;
      old = await readFile(join(repo.publicDir, 'dists/bookworm/InRelease'), 'utf8');
      for (const match of old.matchAll(/^ ([0-9a-f]{64}) +\d+ (\S+)\/[^/\n]+$/gm)) {
        paths.push(`dists/bookworm/${match[2]}/by-hash/SHA256/${match[1]}`);
      }
    }
    await repo.collectGarbage();
    expect(paths).toHaveLength(3);
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    for (const path of paths) expect((await fetch(`${server.url}/${path}`)).status).toBe(200);
    // as apt meets it: a cache in between still has the old InRelease, and the rest is new
    await using stale = await withOldInRelease(server.url, old);
    await using apt = await createAptRoot({ sources: await repo.sources('bookworm', { url: stale.url }) });
    await apt.update();
    expect((await apt.run('apt-cache', 'pkgnames')).stdout.trim()).toBe('pkg-0');
  });
});

/** A server in front of another that answers with an older InRelease. */
async function withOldInRelease(upstream: string, inRelease: string): Promise<AsyncDisposable & { url: string }> {
  const server = createServer((request, response) => {
    if (request.url?.endsWith('/InRelease')) return void response.end(inRelease);
    void (async () => {
      const answer = await fetch(upstream + request.url!);
      response.writeHead(answer.status);
      response.end(Buffer.from(await answer.arrayBuffer()));
    })();
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((done) => server.close(() => done()));
    },
  };
}

describe('a disk', () => {
  /** A small file system of its own, in a mount namespace that ends with the command. */
  function onSmallDisk(world: World, folder: string, script: string, size = '3m') {
    const mounted = `mount -t tmpfs -o size=${size} none "$1" && cp -a "$2"/. "$1"/ && ${script}`;
    return run(
      {},
      'unshare',
      ['--mount', 'sh', '-c', mounted, PROGRAM, folder, join(world.path, 'repo'), world.context.stateDir, world.path],
      {
        okExitCodes: [1, 2, 3, 70],
      },
    );
  }

  it('that is full gives a clear error, and nothing is lost', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    await makePackage(world.context, join(world.path, 'in'), { name: 'small' });
    await repo.add('bookworm', [join(world.path, 'in')]);
    await repo.publish();
    repo[Symbol.dispose]();
    for (let n = 0; n < 8; n += 1) {
      const data = randomBytes(200_000).toString('base64');
      await makePackage(world.context, join(world.path, 'big'), { name: `big-${n}`, data });
    }
    const folder = join(world.path, 'disk');
    await mkdir(folder);
    const filled = 'dd if=/dev/zero of="$1/filler" bs=64k 2>/dev/null; truncate -s -384K "$1/filler"; ';
    const add = '"$0" --state "$3" repo add bookworm --repo "$1" "$4/big"; code=$?; ';
    const look =
      'rm "$1/filler"; "$0" --state "$3" repo verify "$1/public" --suite bookworm && "$0" --state "$3" repo list --repo "$1" && "$0" --state "$3" repo publish --force --repo "$1" && exit $code';
    const result = await onSmallDisk(world, folder, `{ ${filled}${add}${look}; }`);
    expect(result.stderr).toMatch(/no room left on the disk/);
    expect(result.stdout).toContain('no problem found');
    expect(result.stdout).toContain('small  1.0  all');
    expect(result.stdout).toMatch(/published bookworm: \d packages/);
    expect(result.exitCode).toBe(1);
  });

  it('that is full while it publishes or collects garbage loses nothing either', async () => {
    await using world = await createWorld(new Date(Date.now() - 20 * 86_400_000));
    using repo = await newRepo(world);
    for (let n = 0; n < 8; n += 1) {
      world.setClock(new Date(Date.now() - (20 - n) * 86_400_000));
      await makePackage(world.context, join(world.path, `in-${n}`), { name: `pkg-${n}` });
      await repo.add('bookworm', [join(world.path, `in-${n}`)]);
      await repo.publish();
    }
    // much to write: the description does not compress, and stands in three forms of the index
    for (let n = 0; n < 60; n += 1) {
      const Description = `short\n ${randomBytes(6000).toString('base64')}`;
      await makePackage(world.context, join(world.path, 'wide'), { name: `wide-${n}`, fields: { Description } });
    }
    await repo.add('bookworm', [join(world.path, 'wide')]);
    repo[Symbol.dispose]();
    const folder = join(world.path, 'disk');
    await mkdir(folder);
    const filled = 'dd if=/dev/zero of="$1/filler" bs=64k 2>/dev/null; truncate -s -192K "$1/filler"; ';
    const publish = '"$0" --state "$3" repo publish --repo "$1"; echo "publish $?"; ';
    const collect = '"$0" --state "$3" repo gc --repo "$1"; echo "gc $?"; ';
    const verify = '"$0" --state "$3" repo verify "$1/public" --suite bookworm; echo "verify $?"; ';
    const after =
      'rm "$1/filler"; "$0" --state "$3" repo gc --repo "$1" && "$0" --state "$3" repo publish --force --repo "$1"; ';
    const check = '"$0" --state "$3" repo check --repo "$1"; echo "check $?"; ';
    const script = `{ ${filled}${publish}${verify}${collect}${verify}${after}${verify}${check}}`;
    const { stdout, stderr } = await onSmallDisk(world, folder, script, '7m');
    const codes = [...stdout.matchAll(/^(publish|gc|verify|check) (\d+)$/gm)].map((match) => match.slice(1).join(' '));
    expect(codes, stdout + stderr).toEqual([
      'publish 1',
      'verify 0',
      expect.stringMatching(/^gc [01]$/), // it may find enough room for its own bookkeeping
      'verify 0',
      'verify 0',
      'check 0',
    ]);
    expect(stderr).toMatch(/no room left on the disk|disk is full/);
    expect(stderr).not.toContain('this is a bug');
    expect(stdout).toMatch(/published bookworm: 68 packages/);
  });

  it('that is read-only gives a clear error', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    await repo.publish();
    await makePackage(world.context, join(world.path, 'in'), { name: 'small' });
    repo[Symbol.dispose]();
    const folder = join(world.path, 'disk');
    await mkdir(folder);
    for (const command of ['add bookworm "$4/in"', 'publish --force', 'gc', 'list']) {
      const script = `mount -o remount,ro "$1" && "$0" --state "$3" repo ${command} --repo "$1"`;
      const result = await onSmallDisk(world, folder, script);
      expect(result.exitCode, command).toBe(1);
      expect(result.stderr, command).toMatch(/^error: .*(?:read-only|readonly|cannot open|unable to open)/m);
      expect(result.stderr, command).not.toContain('this is a bug');
    }
  });

  it('with a catalog of a newer buildkit is left alone', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    repo[Symbol.dispose]();
    const path = join(repo.dir, 'db', 'catalog.sqlite');
    await run({}, 'python3', [
      '-c',
      'import sqlite3,sys; sqlite3.connect(sys.argv[1]).execute("PRAGMA user_version = 99")',
      path,
    ]);
    await expect(Repo.open(world.context, repo.dir)).rejects.toMatchObject({ code: 'database-newer' });
    await writeFile(path, 'no database');
    for (const name of await readdir(join(repo.dir, 'db'))) expect(name).not.toMatch(/-wal$/);
    await expect(Repo.open(world.context, repo.dir)).rejects.toMatchObject({ code: 'database-unreadable' });
  });
});
