/** Pages written by a real publish, served by the real server, read by a real XML parser. */
import { access, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

async function publishedRepo(world: World): Promise<Repo> {
  await new KeyStore(world.context).generate({
    name: 'Pages',
    email: 'pages@example.org',
    algorithm: 'ed25519',
    expiresSeconds: undefined,
  });
  const suites = [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }];
  const repo = await Repo.init(world.context, join(world.path, 'repo'), { suites, origin: 'A & B', label: '<Pages>' });
  const folder = join(world.path, 'in');
  await makePackage(world.context, folder, {
    name: 'hello',
    fields: { Description: 'says <hello> & "bye"\n <script>alert(1)</script>', Homepage: 'javascript:alert(1)' },
  });
  await makePackage(world.context, folder, { name: 'libc++1', fields: { Depends: 'hello' } });
  await repo.add('bookworm', [folder]);
  await repo.publish();
  return repo;
}

describe('pages for people', () => {
  it('are published, and every link of them is answered', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
    const queue = [server.url];
    const seen = new Map<string, string>();
    for (let url = queue.pop(); url !== undefined; url = queue.pop()) {
      const address = url.replace(/[?#].*$/, '');
      if (seen.has(address)) continue;
      const answer = await fetch(address);
      expect([address, answer.status]).toEqual([address, 200]);
      const type = answer.headers.get('content-type') ?? '';
      const text = await answer.text();
      seen.set(address, type);
      if (!type.startsWith('text/html')) continue;
      for (const [, link] of text.matchAll(/ (?:href|src)="([^"]+)"/g)) {
        if (!link!.startsWith('data:')) queue.push(new URL(link!.replaceAll('&amp;', '&'), address).href);
      }
    }
    const paths = new Map([...seen].map(([url, type]) => [new URL(url).pathname, type.split(';')[0]]));
    expect(Object.fromEntries(paths)).toEqual({
      '/': 'text/html',
      '/index.html': 'text/html',
      '/pages.css': 'text/css',
      '/pages.js': 'text/javascript',
      '/archive-key.asc': 'application/pgp-keys',
      '/pages/bookworm/index.html': 'text/html',
      '/pages/bookworm/feed.atom': 'application/atom+xml',
      '/pages/bookworm/packages/hello.html': 'text/html',
      '/pages/bookworm/packages/libc%2B%2B1.html': 'text/html',
      '/pool/main/h/hello/hello_1.0_all.deb': 'application/vnd.debian.binary-package',
      '/pool/main/libc/libc%2B%2B1/libc%2B%2B1_1.0_all.deb': 'application/vnd.debian.binary-package',
    });
  });

  it('have a feed that is XML', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    const program =
      'import sys, xml.etree.ElementTree as t\n' +
      'a = "{http://www.w3.org/2005/Atom}"\n' +
      'f = t.parse(sys.argv[1]).getroot()\n' +
      'print(f.tag == a + "feed", f.find(a + "author/" + a + "name").text)\n' +
      'print(sorted((e.find(a + "title").text, e.find(a + "summary").text) for e in f.iter(a + "entry")))\n';
    const feed = join(repo.publicDir, 'pages/bookworm/feed.atom');
    const { stdout } = await run(world.context, 'python3', ['-c', program, feed]);
    expect(stdout.trim().split('\n')).toEqual([
      'True A & B',
      `[('hello 1.0 (all)', 'says <hello> & "bye"'), ('libc++1 1.0 (all)', 'test package libc++1')]`,
    ]);
  });

  it('are left alone on request, and never a reason for a publish to fail', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    const front = join(repo.publicDir, 'index.html');
    await rm(front);
    await repo.publish([], { force: true, pages: false });
    await expect(access(front)).rejects.toMatchObject({ code: 'ENOENT' });
    await rm(join(repo.publicDir, 'pages'), { recursive: true });
    await writeFile(join(repo.publicDir, 'pages'), 'in the way');
    const [published] = await repo.publish([], { force: true });
    expect(published).toMatchObject({ published: true });
    expect(world.warnings).toEqual([expect.stringMatching(/^the pages for people were not written: /)]);
  });

  it('show sources, and link them while they are there', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    const page = (path: string) => readFile(join(repo.publicDir, 'pages/bookworm', path), 'utf8');
    expect(await page('packages/hello.html')).not.toContain('sources/');
    const folder = join(world.path, 'source');
    await mkdir(join(folder, 'hello-1.0/debian/source'), { recursive: true });
    await writeFile(join(folder, 'hello-1.0/debian/source/format'), '3.0 (native)\n');
    await writeFile(
      join(folder, 'hello-1.0/debian/changelog'),
      'hello (1.0) unstable; urgency=low\n\n  * x\n\n -- T <t@e.org>  Mon, 01 Jan 2024 00:00:00 +0000\n',
    );
    await writeFile(
      join(folder, 'hello-1.0/debian/control'),
      'Source: hello\nMaintainer: T <t@e.org>\n\nPackage: hello\nArchitecture: all\nDescription: x\n\nPackage: late\nArchitecture: all\nDescription: x\n',
    );
    await run({}, 'dpkg-source', ['--build', 'hello-1.0'], { cwd: folder });
    await repo.add('bookworm', [join(folder, 'hello_1.0.dsc')]);
    await repo.publish();
    expect(await page('packages/hello.html')).toContain('href="../sources/hello.html"');
    expect(await page('index.html')).toContain('<a href="sources.html">1 source package</a>');
    expect(await page('sources.html')).toContain('href="sources/hello.html"');
    expect(await page('sources/hello.html')).toMatch(
      /<li><a href="..\/packages\/hello.html">hello<\/a><\/li>\n<li>late<\/li>/,
    );
    const { path } = await makePackage(world.context, join(world.path, 'late'), { name: 'late' });
    await repo.add('bookworm', [path]);
    await repo.publish();
    expect(await page('sources/hello.html')).toContain('href="../packages/late.html"');
    await repo.remove('bookworm', ['hello=1.0']);
    await repo.publish();
    await expect(page('sources.html')).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(page('sources/hello.html')).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('go and stay away where the repository is set so', async () => {
    await using world = await createWorld();
    using repo = await publishedRepo(world);
    const names = async () => (await readdir(repo.publicDir)).sort();
    expect(await names()).toEqual(expect.arrayContaining(['index.html', 'pages', 'pages.css', 'pages.js']));
    await repo.saveSettings({ pages: false });
    await repo.publish();
    expect(await names()).toEqual(['archive-key.asc', 'archive-key.gpg', 'by-hash', 'dists', 'pool', 'snapshots']);
    await repo.publish([], { force: true, pages: true });
    expect(await names()).not.toContain('pages');
    await repo.saveSettings({ pages: true });
    await repo.publish();
    expect(await names()).toContain('index.html');
    await access(join(repo.publicDir, 'pages/bookworm/packages/hello.html'));
  });
});
