/** Packages made to break an index or a page, as files; and what a database of another time may hold. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { writeDeb } from '../../src/deb/archive.ts';
import { getField, paragraph, parseControl } from '../../src/deb/control.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { verifyRepository } from '../../src/repo/verify.ts';
import { createAptRoot } from '../support/apt-root.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

async function newRepo(world: World): Promise<Repo> {
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
  await new KeyStore(world.context).generate(request);
  return Repo.init(world.context, join(world.path, 'repo'), {
    suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
    origin: 'Example',
    label: 'Example',
    url: 'https://apt.example.org/',
  });
}

/** A package whose control file is this text, whatever it says: made by ar and tar, which do not look. */
async function rawPackage(world: World, file: string, control: string | Buffer): Promise<string> {
  const folder = join(world.path, 'raw', file);
  await mkdir(join(folder, 'data'), { recursive: true });
  await writeFile(join(folder, 'control'), control);
  await writeFile(join(folder, 'debian-binary'), '2.0\n');
  const path = join(folder, `${file}.deb`);
  const script =
    'tar czf control.tar.gz ./control && tar czf data.tar.gz -C data . && ar rc "$0" debian-binary control.tar.gz data.tar.gz';
  await run({}, 'sh', ['-c', script, path], { cwd: folder });
  return path;
}

const control = (name: string, more: string) =>
  `Package: ${name}\nVersion: 1.0\nArchitecture: all\nMaintainer: T <t@example.org>\n${more}`;

const indexOf = async (repo: Repo) =>
  readFile(join(repo.publicDir, 'dists/bookworm/main/binary-amd64/Packages'), 'utf8');

describe('a hostile control file', () => {
  it.each([
    ['two paragraphs', control('evil', 'Description: x\n\nPackage: second\nVersion: 2\nArchitecture: all\n')],
    ['a line of blanks', control('evil', 'Description: x\n \t\nPackage: second\n')],
    ['a name that leaves the pool', control('../../evil', 'Description: x\n')],
    ['a version that leaves the pool', 'Package: evil\nVersion: 1/../../x\nArchitecture: all\nDescription: x\n'],
    ['a source that leaves the pool', control('evil', 'Source: ../../etc\nDescription: x\n')],
    ['a carriage return inside a line', control('evil', 'Description: x\rPackage: second\n')],
    ['a null byte', control('evil', 'Description: x\0y\n')],
    ['no text at all', Buffer.from([0xff, 0xfe, 0x00, 0x0a])],
    ['a field twice', control('evil', 'Depends: a\nDepends: b\nDescription: x\n')],
  ])('with %s is refused by name, and the rest of the call is taken', async (_, text) => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const evil = await rawPackage(world, 'evil', text);
    const good = await makePackage(world.context, join(world.path, 'in'), { name: 'good' });
    const result = await repo.add('bookworm', [evil, good.path]);
    expect(result.refused.map((one) => one.file)).toEqual([evil]);
    expect(result.added.map((one) => one.name)).toEqual(['good']);
    expect(await readdir(join(repo.publicDir, 'pool/main'))).toEqual(['g']);
  });

  it('cannot say where its file lies, what it weighs, nor whom it reaches', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const text = control(
      'evil',
      'fIlEnAmE: ../../../etc/passwd\nSize: 1\nSHA256: 00\nPhased-Update-Percentage: 0\nDescription-md5: 0\n' +
        'Directory: /etc\nDescription: <script>alert(1)</script>\n <img src=x onerror=alert(2)>\n [x](javascript:alert(3))\n',
    );
    await repo.add('bookworm', [await rawPackage(world, 'evil', text)]);
    await repo.saveSuite('bookworm', { translations: true });
    await repo.publish();
    const [stanza, ...others] = parseControl(await indexOf(repo));
    expect(others).toEqual([]);
    expect(getField(stanza!, 'Filename')).toBe('pool/main/e/evil/evil_1.0_all.deb');
    for (const name of ['Size', 'SHA256', 'Filename']) {
      expect(stanza!.fields.filter((field) => field.name.toLowerCase() === name.toLowerCase())).toHaveLength(1);
    }
    expect(getField(stanza!, 'Phased-Update-Percentage')).toBeUndefined();
    // the pages show it as text
    const pages = (await readdir(repo.publicDir, { recursive: true })).filter((name) => /\.(?:html|xml)$/.test(name));
    expect(pages.length).toBeGreaterThan(2);
    for (const page of pages) {
      const html = await readFile(join(repo.publicDir, page), 'utf8');
      expect(html, page).not.toMatch(/<script>alert|<img src=x|href="javascript/);
    }
    const report = await verifyRepository(world.context, { place: repo.publicDir, suites: ['bookworm'] });
    expect(report.problems).toEqual([]);
  });

  it('with a dependency field of a megabyte is refused, for apt could read nothing of the suite', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const relations = (count: number) =>
      Array.from({ length: count }, (_, at) => `package-${at} (>= ${at}.0)`).join(', ');
    const wide = (count: number) => control('wide', `Depends: ${relations(count)}\nDescription: x\n`);
    expect(relations(40_000).length).toBeGreaterThan(1_000_000);
    const refused = await repo.add('bookworm', [await rawPackage(world, 'wide', wide(40_000))]);
    expect(refused.refused).toMatchObject([
      { code: 'bad-package', message: expect.stringContaining('apt could not read') },
    ]);
    // what is just allowed is read
    const Depends = relations(34_500);
    expect(Depends.length).toBeGreaterThan(940_000);
    expect((await repo.add('bookworm', [await rawPackage(world, 'wide', wide(34_500))])).refused).toEqual([]);
    const good = await makePackage(world.context, join(world.path, 'in'), { name: 'good' });
    await repo.add('bookworm', [good.path]);
    await repo.saveSuite('bookworm', { pdiffs: 3 });
    await repo.publish();
    await repo.remove('bookworm', ['wide']);
    await repo.publish();
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    await using apt = await createAptRoot({ sources: await repo.sources('bookworm', { url: server.url }) });
    await apt.update();
    await repo.undo();
    await repo.publish();
    expect(getField(parseControl(await indexOf(repo))[1]!, 'Depends')).toBe(Depends);
    await apt.update();
    expect((await apt.run('apt-get', 'install', '-y', '--download-only', 'good')).exitCode).toBe(0);
  });
});

describe('a package with a hundred thousand files', () => {
  it('is added and listed', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const entries = Array.from({ length: 100_000 }, (_, at) => ({
      path: `/usr/share/many/${at % 100}/file-${at}`,
      type: 'file' as const,
      mode: 0o644,
      source: { data: '' },
    }));
    const path = join(world.path, 'many_1.0_all.deb');
    const fields: [string, string][] = [
      ['Package', 'many'],
      ['Version', '1.0'],
      ['Architecture', 'all'],
      ['Maintainer', 'T <t@example.org>'],
      ['Description', 'many files'],
    ];
    await writeDeb(
      world.context,
      path,
      { control: paragraph(fields), entries },
      { compression: 'gzip', sourceDateEpoch: 1 },
    );
    await repo.saveSuite('bookworm', { contents: true });
    await repo.add('bookworm', [path]);
    await repo.publish();
    const contents = join(repo.publicDir, 'dists/bookworm/main/Contents-amd64.gz');
    const count = await run({}, 'sh', ['-c', 'gzip -dc "$0" | wc -l', contents]);
    expect(Number(count.stdout)).toBe(100_000);
    await repo.publish([], { force: true }); // from the list that was kept
  });
});

describe('a cache of a newer buildkit', () => {
  it('is put aside: it can be made again', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const made = await makePackage(world.context, join(world.path, 'in'), { name: 'good' });
    await repo.add('bookworm', [made.path]);
    await repo.publish();
    const before = await indexOf(repo);
    const set = 'import sqlite3,sys; sqlite3.connect(sys.argv[1]).execute("PRAGMA user_version = 99")';
    for (const name of ['blocks.sqlite', 'pages.sqlite']) {
      await run({}, 'python3', ['-c', set, join(repo.dir, 'db', name)]);
    }
    await repo.publish([], { force: true });
    expect(await indexOf(repo)).toBe(before);
    expect(world.warnings).toEqual([]);
  });
});

describe('a clock', () => {
  it('that goes back and forth between publishes never gives two generations one date', async () => {
    const start = Date.now() - 3_600_000;
    await using world = await createWorld(new Date(start));
    using repo = await newRepo(world);
    for (const [at, seconds] of [0, 1, 1, 60, 59, 60, 3000].entries()) {
      world.setClock(new Date(start + seconds * 1000));
      const made = await makePackage(world.context, join(world.path, 'in'), { name: `pkg-${at}` });
      await repo.add('bookworm', [made.path]);
      await repo.publish([], { pages: false });
    }
    const ids = repo.generations('bookworm').map((one) => one.id);
    expect(ids).toHaveLength(7);
    expect([...ids].sort().reverse()).toEqual(ids);
    // a minute back: refused at once, and nothing is lost
    world.setClock(new Date(start + 2940 * 1000));
    await expect(repo.publish([], { force: true })).rejects.toMatchObject({ code: 'clock-behind' });
    const shown = await verifyRepository(world.context, { place: repo.publicDir, suites: ['bookworm'] });
    // as the wrong clock sees it
    expect(new Set(shown.problems.map((one) => one.code))).toEqual(new Set(['signature-future', 'date-in-future']));
    world.setClock(undefined);
    expect(await repo.publish([], { force: true })).toMatchObject([{ published: true, packages: 7 }]);
  });
});
