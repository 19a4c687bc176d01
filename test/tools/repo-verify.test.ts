/** `repo verify` finds what is wrong with a tree, and nothing where all is well, also in trees that others made. */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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
        suites: [{ suite: 'bookworm', indexes: 2, packages: 2, sources: 0 }],
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

  describe('of every index that there is', () => {
    const binary = 'dists/bookworm/main/binary-amd64';

    /** Sources, Translation, patches, every form and digest. */
    async function wholeRepo(world: World): Promise<Repo> {
      const repo = await publishedRepo(world);
      const folder = join(world.path, 'source');
      await mkdir(join(folder, 'hello-1.0/debian/source'), { recursive: true });
      const files = {
        'source/format': '3.0 (native)\n',
        changelog: 'hello (1.0) sid; urgency=low\n\n  * x\n\n -- T <t@e.org>  Mon, 01 Jan 2024 00:00:00 +0000\n',
        control: 'Source: hello\nMaintainer: T <t@e.org>\n\nPackage: hello\nArchitecture: all\nDescription: x\n',
      };
      for (const [name, text] of Object.entries(files)) await writeFile(join(folder, 'hello-1.0/debian', name), text);
      await run({}, 'dpkg-source', ['--build', 'hello-1.0'], { cwd: folder });
      await repo.saveSuite('bookworm', {
        ...{ contents: true, translations: true, pdiffs: 5, hashes: ['SHA512', 'MD5Sum'] },
        compressions: ['none', 'gzip', 'xz', 'zstd'],
      });
      await repo.publish();
      await repo.add('bookworm', [join(folder, 'hello_1.0.dsc')]);
      await makePackage(world.context, join(world.path, 'more'), { name: 'more', architecture: 'amd64' });
      await repo.add('bookworm', [join(world.path, 'more')]);
      await repo.publish();
      return repo;
    }

    let world: World;
    let place: string;

    beforeAll(async () => {
      world = await createWorld();
      using repo = await wholeRepo(world);
      place = repo.publicDir;
    }, 120_000);

    afterAll(() => world[Symbol.asyncDispose]());

    it('finds nothing where all is well', async () => {
      expect(await readdir(join(place, binary))).toContain('Packages.diff');
      const report = await verifyRepository(world.context, { place, suites: ['bookworm'] });
      expect(report).toMatchObject({ problems: [], suites: [{ packages: 3, sources: 1 }] });
    });

    it.each<[string, string[], (place: string) => Promise<void>]>([
      [
        'a changed file of a source',
        ['wrong-digest'],
        (place) => rewrite(join(place, 'pool/main/h/hello/hello_1.0.tar.xz'), (b) => b.subarray(1)),
      ],
      ['a missing .dsc', ['package-missing'], (place) => rm(join(place, 'pool/main/h/hello/hello_1.0.dsc'))],
      [
        'a missing patch',
        ['by-hash-missing', 'patch-missing'],
        async (place) => {
          const folder = join(place, binary, 'Packages.diff');
          for (const name of await readdir(folder)) if (name.endsWith('.gz')) await rm(join(folder, name));
        },
      ],
      [
        'a changed patch',
        ['by-hash-differs', 'wrong-digest'],
        async (place) => {
          const folder = join(place, binary, 'Packages.diff');
          for (const name of await readdir(folder)) {
            if (name.endsWith('.gz')) await rewrite(join(folder, name), (b) => b.subarray(1));
          }
        },
      ],
      [
        'a missing translation',
        ['description-missing', 'index-missing'],
        async (place) => {
          const folder = join(place, 'dists/bookworm/main/i18n');
          for (const name of await readdir(folder))
            if (name.startsWith('Translation-en')) await rm(join(folder, name), { recursive: true });
        },
      ],
      [
        'a missing object of the strongest digest',
        ['by-hash-missing'],
        (place) => rm(join(place, 'by-hash/SHA512'), { recursive: true }),
      ],
    ])('finds %s', async (_what, expected, harm) => {
      const copy = join(await mkdtemp(join(world.path, 'harmed-')), 'public');
      await run({}, 'cp', ['-a', place, copy]);
      await harm(copy);
      const report = await verifyRepository(world.context, { place: copy, suites: ['bookworm'] });
      const found = [...new Set(report.problems.map((problem) => problem.code))];
      expect(expected).toEqual(expect.arrayContaining(found));
      expect(found.length).toBeGreaterThan(0);
    });
  });

  it('finds what is listed twice, differently, wrongly, and without a long description', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    // made wrong, not changed: unsigned, each index as Release says
    const folder = join(repo.publicDir, 'dists/bookworm');
    const stanza = (name: string, fields: string) => `Package: ${name}\nVersion: 1.0\nArchitecture: amd64\n${fields}\n`;
    const file = `Filename: pool/x.deb\nSize: 1\nSHA256: ${'0'.repeat(64)}\nDescription: short\nDescription-md5: 0\n`;
    const texts: Record<string, string> = {
      'main/binary-amd64/Packages':
        stanza('twice', file) + stanza('twice', file) + stanza('other', file.replace('0000', '1111')),
      'main/source/Sources': `${`Package: s\nVersion: 1\nDirectory: ../..\nChecksums-Sha256:\n ${'0'.repeat(64)} 1 s.dsc\n\n`.repeat(2)}Package: weak\nVersion: 1\n`,
      'main/i18n/Translation-en': 'Package: twice\nDescription-md5: 1\nDescription-en: short\n long\n',
      'main/binary-amd64/Packages.diff/Index': `SHA256-Current: ${'2'.repeat(64)} 5\nSHA256-Download:\n ${'3'.repeat(64)} 5 gone.gz\n`,
    };
    await rm(folder);
    let sums =
      'Suite: bookworm\nComponents: main\nArchitectures: amd64\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nSHA256:\n';
    for (const [name, text] of Object.entries(texts)) {
      await mkdir(join(folder, name, '..'), { recursive: true });
      await writeFile(join(folder, name), text);
      sums += ` ${createHash('sha256').update(text).digest('hex')} ${text.length} ${name}\n`;
    }
    await writeFile(join(folder, 'Release'), sums);
    expect(await problems(world, repo)).toEqual([
      ...[
        'bad-filename',
        'description-missing',
        'listed-differently',
        'listed-twice',
        'no-inrelease',
        'no-release-gpg',
      ],
      ...['package-missing', 'patch-missing', 'patches-differ', 'weak-digest', 'wrong-digest'],
    ]);
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
