/** Pages written by a real publish, served by the real server, read by a real XML parser. */
import { access, rm, writeFile } from 'node:fs/promises';
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
});
