/** `repo verify` finds what is wrong with a tree, and nothing where all is well, also in trees that others made. */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { type VerifyRequest, verifyRepository } from '../../src/repo/verify.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

async function publishedRepo(world: World): Promise<Repo> {
  await new KeyStore(world.context).generate({
    name: 'Example',
    email: 'a@example.org',
    algorithm: 'ed25519',
    expiresSeconds: undefined,
  });
  const repo = await Repo.init(world.context, join(world.path, 'repo'), {
    suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64', 'arm64'] }],
    origin: 'Example',
    label: 'Example',
  });
  const folder = join(world.path, 'in');
  await makePackage(world.context, folder, {
    name: 'app',
    architecture: 'amd64',
    fields: { Depends: 'lib (>= 1.0), libc6' },
  });
  await makePackage(world.context, folder, { name: 'lib' });
  await repo.add('bookworm', [folder]);
  await repo.publish();
  return repo;
}

async function problems(world: World, repo: Repo, request: Partial<VerifyRequest> = {}): Promise<string[]> {
  const report = await verifyRepository(world.context, { place: repo.publicDir, suites: ['bookworm'], ...request });
  return [...new Set(report.problems.map((problem) => problem.code))].sort();
}

/** Another file in its place: hard links share the bytes. */
async function rewrite(path: string, change: (bytes: Buffer) => Buffer): Promise<void> {
  const bytes = change(await readFile(path));
  await rm(path);
  await writeFile(path, bytes);
}

describe('repo verify', () => {
  it('finds nothing in what was just published, in a folder and over HTTP', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    for (const place of [repo.publicDir, `${server.url}/`]) {
      expect(await verifyRepository(world.context, { place, suites: ['bookworm'] })).toEqual({
        place,
        suites: [{ suite: 'bookworm', indexes: 2, packages: 2 }],
        problems: [],
      });
    }
  });

  const index = 'dists/bookworm/main/binary-amd64';
  it.each<[string, string[], (repo: Repo) => Promise<void>]>([
    [
      'a changed package',
      ['package-broken'],
      (repo) => rewrite(join(repo.publicDir, 'pool/main/l/lib/lib_1.0_all.deb'), (b) => b.subarray(0, 300)),
    ],
    [
      'a package that is another one',
      ['stanza-differs', 'wrong-digest'],
      async (repo) => {
        const pool = join(repo.publicDir, 'pool/main');
        await rm(join(pool, 'l/lib/lib_1.0_all.deb'));
        await rename(join(pool, 'a/app/app_1.0_amd64.deb'), join(pool, 'l/lib/lib_1.0_all.deb'));
        await writeFile(join(pool, 'a/app/app_1.0_amd64.deb'), await readFile(join(pool, 'l/lib/lib_1.0_all.deb')));
      },
    ],
    ['a missing package', ['package-missing'], (repo) => rm(join(repo.publicDir, 'pool/main/l/lib/lib_1.0_all.deb'))],
    [
      'a changed index',
      ['by-hash-differs', 'wrong-digest', 'wrong-size'],
      (repo) => rewrite(join(repo.publicDir, `${index}/Packages.gz`), (b) => b.subarray(1)),
    ],
    [
      'a missing by-hash folder',
      ['by-hash-missing'],
      (repo) => rm(join(repo.publicDir, 'by-hash'), { recursive: true }),
    ],
    [
      'a changed Release',
      ['release-differs', 'signature-bad'],
      (repo) => rewrite(join(repo.publicDir, 'dists/bookworm/Release'), (b) => Buffer.concat([b, Buffer.from(' \n')])),
    ],
    [
      'a changed InRelease',
      ['signature-bad'],
      (repo) =>
        rewrite(join(repo.publicDir, 'dists/bookworm/InRelease'), (b) =>
          Buffer.from(b.toString().replace('Example', 'Exbmple')),
        ),
    ],
    [
      'a missing index',
      ['index-missing'],
      async (repo) => {
        for (const suffix of ['', '.gz', '.xz']) await rm(join(repo.publicDir, `${index}/Packages${suffix}`));
      },
    ],
    [
      'a missing key',
      ['no-key'],
      async (repo) => {
        for (const suffix of ['asc', 'gpg']) await rm(join(repo.publicDir, `archive-key.${suffix}`));
      },
    ],
  ])('finds %s', async (_what, expected, harm) => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    await harm(repo);
    const found = await problems(world, repo);
    expect(expected).toEqual(expect.arrayContaining(found));
    expect(found.length).toBeGreaterThan(0);
  });

  it('finds what is over, and what nothing meets', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    expect(await problems(world, repo, { base: [] })).toEqual(['unmet-dependency']);
    world.setClock(new Date(Date.now() + 15 * 86_400_000));
    expect(await problems(world, repo)).toEqual(['expired']);
    world.setClock(new Date(Date.now() - 86_400_000));
    expect(await problems(world, repo)).toContain('date-in-future');
  });

  it('finds an index whose forms differ', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    // signed as it is: a repository that was made wrong, not one that was changed
    const folder = join(repo.publicDir, 'dists/bookworm');
    const other = join(world.path, 'Packages');
    await writeFile(other, 'Package: other\nVersion: 1\nArchitecture: amd64\nFilename: ../../etc/passwd\n');
    await run({}, 'gzip', ['-9nk', other]);
    const bytes = await readFile(`${other}.gz`);
    const sum = (await run({}, 'sha256sum', [`${other}.gz`])).stdout.slice(0, 64);
    const release = (await readFile(join(folder, 'Release'), 'utf8')).replace(
      /^ [0-9a-f]{64} +\d+ main\/binary-amd64\/Packages\.gz$/m,
      ` ${sum} ${bytes.length} main/binary-amd64/Packages.gz`,
    );
    await rm(join(folder, 'main/binary-amd64/Packages.gz'));
    await writeFile(join(folder, 'main/binary-amd64/Packages.gz'), bytes);
    await writeFile(join(folder, 'Release'), release);
    for (const name of ['InRelease', 'Release.gpg']) await rm(join(folder, name));
    const found = await problems(world, repo);
    expect(found).toEqual(
      expect.arrayContaining(['by-hash-missing', 'compression-differs', 'no-inrelease', 'no-release-gpg']),
    );
  });

  it('takes a tree that apt-ftparchive and gpg made', async () => {
    await using world = await createWorld();
    const root = join(world.path, 'tree');
    const binary = join(root, 'dists/test/main/binary-amd64');
    await mkdir(binary, { recursive: true });
    for (const name of ['one', 'two']) await makePackage(world.context, join(root, 'pool'), { name });
    const gnupg = join(world.path, 'gnupg');
    await mkdir(gnupg, { mode: 0o700 });
    const env = { GNUPGHOME: gnupg };
    const script = [
      'gpg --batch --quiet --passphrase "" --quick-gen-key "Test <t@example.org>" rsa3072 sign never',
      'apt-ftparchive packages pool > dists/test/main/binary-amd64/Packages',
      'gzip -k dists/test/main/binary-amd64/Packages && xz -k dists/test/main/binary-amd64/Packages',
      'apt-ftparchive -o APT::FTPArchive::Release::Components=main -o APT::FTPArchive::Release::Architectures=amd64 release dists/test > R',
      'mv R dists/test/Release',
      'gpg --batch --clearsign -o dists/test/InRelease dists/test/Release',
      'gpg --batch --armor --detach-sign -o dists/test/Release.gpg dists/test/Release',
      'gpg --batch --export > key.gpg',
      'gpgconf --kill all',
    ];
    await run({}, 'sh', ['-ec', script.join('\n')], { cwd: root, env });
    const report = await verifyRepository(world.context, {
      place: root,
      suites: ['test'],
      keys: [join(root, 'key.gpg')],
    });
    expect(report.problems).toEqual([]);
    expect(report.suites).toMatchObject([{ packages: 2 }]);
  });
});
