/** Source packages and uploads, as dpkg-source and dpkg-genchanges make them and apt fetches them. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { getField, parseControl } from '../../src/deb/control.ts';
import { clearSign } from '../../src/deb/openpgp.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { createAptRoot } from '../support/apt-root.ts';
import { createWorld, type World } from '../support/world.ts';

async function newRepo(world: World): Promise<Repo> {
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
  await new KeyStore(world.context).generate(request);
  return Repo.init(world.context, join(world.path, 'repo'), {
    suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
    origin: 'Example',
    label: 'Example',
  });
}

/** A source of format 3.0 (quilt) with its .changes, in a folder of its own. @returns the folder */
async function makeSource(world: World, revision: number, upstream = 'hello'): Promise<string> {
  const folder = join(world.path, `source-${revision}-${upstream.length}`);
  const tree = join(folder, 'hello-1.0');
  await mkdir(join(tree, 'debian/source'), { recursive: true });
  await writeFile(join(tree, 'README'), upstream);
  const files = {
    'debian/control':
      'Source: hello\nSection: misc\nPriority: optional\nMaintainer: T <t@example.org>\nStandards-Version: 4.6.2\n\nPackage: hello\nArchitecture: all\nDescription: test\n more\n',
    'debian/changelog': `hello (1.0-${revision}) bookworm; urgency=low\n\n  * Test.\n\n -- T <t@example.org>  Sat, 01 Nov 2025 10:00:00 +0000\n`,
    'debian/source/format': '3.0 (quilt)\n',
    'debian/rules': '#!/usr/bin/make -f\n%:\n\ttrue\n',
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(tree, name), text);
  const tar = [
    '--sort=name',
    '--owner=0',
    '--group=0',
    '--mtime=@1700000000',
    '--exclude=debian',
    '-cf',
    '../hello_1.0.orig.tar',
    '-C',
    '..',
    'hello-1.0',
  ];
  await run({}, 'tar', tar, { cwd: tree });
  await run({}, 'gzip', ['-9n', '../hello_1.0.orig.tar'], { cwd: tree });
  await run({}, 'dpkg-source', ['-b', '.'], { cwd: tree });
  await run({}, 'sh', ['-c', 'dpkg-genchanges -S > ../hello.changes 2>/dev/null'], { cwd: tree }).catch(async () => {
    // dpkg-genbuildinfo was not run: write the list by hand, as dpkg-genchanges would
    const names = (await readdir(folder)).filter((name) => /\.(dsc|gz|xz)$/.test(name));
    const sums = (await run({}, 'sha256sum', names, { cwd: folder })).stdout.trim().split('\n');
    const lines = await Promise.all(
      sums.map(async (line) => {
        const [sum = '', name = ''] = line.split(/\s+/);
        return ` ${sum} ${(await readFile(join(folder, name))).length} ${name}`;
      }),
    );
    await writeFile(
      join(folder, 'hello.changes'),
      `Format: 1.8\nSource: hello\nVersion: 1.0-${revision}\nChecksums-Sha256:\n${lines.join('\n')}\n`,
    );
  });
  return folder;
}

describe('a source package', () => {
  it('is fetched and unpacked by apt-get source, and says what apt-ftparchive says', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const folder = await makeSource(world, 1);
    const result = await repo.add('bookworm', [join(folder, 'hello.changes')]);
    expect(result).toMatchObject({ refused: [], added: [{ kind: 'dsc', name: 'hello', version: '1.0-1' }] });
    await repo.publish();
    const index = await readFile(join(repo.publicDir, 'dists/bookworm/main/source/Sources'), 'utf8');
    const [ours] = parseControl(index);
    const [theirs] = parseControl(
      (await run({}, 'apt-ftparchive', ['sources', 'pool'], { cwd: repo.publicDir })).stdout,
    );
    for (const field of theirs!.fields) {
      if (/^checksums-(sha1|sha512)$|^priority$|^section$/i.test(field.name)) continue;
      const lines = (text?: string) =>
        text
          ?.split('\n')
          .map((line) => line.trim())
          .sort();
      expect(lines(getField(ours!, field.name)), field.name).toEqual(lines(field.value));
    }
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    const sources = (await repo.sources('bookworm', { url: server.url })).replace('Types: deb', 'Types: deb deb-src');
    await using apt = await createAptRoot({ sources });
    await apt.update();
    const fetched = await apt.run('sh', '-c', `cd ${apt.path} && apt-get source hello`);
    expect(fetched.exitCode, fetched.stderr).toBe(0);
    expect(await readFile(join(apt.path, 'hello-1.0/README'), 'utf8')).toBe('hello');
  });

  it('shares its upstream archive with the next revision, and goes without it', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const pool = join(repo.publicDir, 'pool/main/h/hello');
    for (const revision of [1, 2]) await repo.add('bookworm', [await makeSource(world, revision)]);
    expect((await readdir(pool)).sort()).toEqual([
      'hello_1.0-1.debian.tar.xz',
      'hello_1.0-1.dsc',
      'hello_1.0-2.debian.tar.xz',
      'hello_1.0-2.dsc',
      'hello_1.0.orig.tar.gz',
    ]);
    await repo.remove('bookworm', ['hello=1.0-1']);
    await repo.collectGarbage();
    expect((await readdir(pool)).sort()).toEqual([
      'hello_1.0-2.debian.tar.xz',
      'hello_1.0-2.dsc',
      'hello_1.0.orig.tar.gz',
    ]);
    const other = await repo.add('bookworm', [await makeSource(world, 3, 'other upstream')]);
    expect(other.refused).toMatchObject([
      { code: 'package-changed', message: "'hello_1.0.orig.tar.gz' is known with other bytes" },
    ]);
  });

  it('is refused when a listed file is missing or another one', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const folder = await makeSource(world, 1);
    const orig = join(folder, 'hello_1.0.orig.tar.gz');
    const bytes = await readFile(orig);
    bytes[20] = bytes[20]! ^ 1;
    await writeFile(orig, bytes);
    const dsc = join(folder, 'hello_1.0-1.dsc');
    expect((await repo.add('bookworm', [dsc])).refused).toMatchObject([{ code: 'listed-file-differs' }]);
    await expect(repo.add('bookworm', [join(folder, 'hello.changes')])).rejects.toMatchObject({
      code: 'listed-file-differs',
    });
    await run({}, 'rm', [orig]);
    expect((await repo.add('bookworm', [dsc])).refused).toMatchObject([{ code: 'listed-file-missing' }]);
    expect(repo.list()).toEqual([]);
  });

  it('is taken from those who may upload alone, where anybody is named', async () => {
    await using world = await createWorld();
    await using stranger = await createWorld();
    using repo = await newRepo(world);
    const changes = join(await makeSource(world, 1), 'hello.changes');
    const uploaders = join(repo.dir, 'db', 'uploaders');
    await mkdir(uploaders);
    const store = new KeyStore(world.context);
    const { fingerprint } = await store.find();
    await writeFile(join(uploaders, 'me.asc'), await store.exportArmored(fingerprint));
    await expect(repo.add('bookworm', [changes])).rejects.toMatchObject({ code: 'not-an-uploader' });
    const text = await readFile(changes, 'utf8');
    const date = new Date();
    const request = { name: 'S', email: 's@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
    const foreign = new KeyStore(stranger.context);
    const wrong = await foreign.signers([(await foreign.generate(request)).fingerprint], new Date());
    await writeFile(changes, await clearSign(text, wrong, { date: new Date() }));
    await expect(repo.add('bookworm', [changes])).rejects.toMatchObject({ code: 'not-an-uploader' });
    await writeFile(changes, await clearSign(text, await store.signers([fingerprint], date), { date }));
    expect((await repo.add('bookworm', [changes])).added).toHaveLength(1);
  });
});
