import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { npmDigests, simpleLinks } from '../../../src/proxy/registries.ts';
import { type FakeUpstream, sha256, startUpstream } from '../../support/proxy-upstream.ts';
import { startProxy } from '../../support/proxy-world.ts';

function putNpm(upstream: FakeUpstream, tarball: Buffer, integrity = sri(tarball)): void {
  const url = `${upstream.url}/registry/left/-/left-1.0.0.tgz`;
  const packument = {
    name: 'left',
    'dist-tags': { latest: '1.0.0' },
    versions: { '1.0.0': { name: 'left', version: '1.0.0', dist: { tarball: url, integrity } } },
  };
  upstream.put('/registry/left', JSON.stringify(packument));
  upstream.put('/registry/left/-/left-1.0.0.tgz', tarball);
}

function sri(bytes: Buffer): string {
  return `sha512-${createHash('sha512').update(bytes).digest('base64')}`;
}

describe('/npm/', () => {
  it('turns addresses to itself, checks tarballs by integrity and works offline', async () => {
    await using upstream = await startUpstream();
    const tarball = randomBytes(200_000);
    putNpm(upstream, tarball);
    await using world = await startProxy([], { settings: { npmRegistry: `${upstream.url}/registry/` } });
    const page = await world.ask('/npm/left', { headers: { host: 'cache.example.org:9999' } });
    const { versions } = JSON.parse(page.body.toString());
    expect(versions['1.0.0'].dist.tarball).toBe('http://cache.example.org:9999/npm/left/-/left-1.0.0.tgz');
    const first = await world.ask('/npm/left/-/left-1.0.0.tgz');
    expect(first.body.equals(tarball)).toBe(true);
    expect(first.headers['x-cache-why']).toBe('checked against its index page');
    await world.restart({ offline: true });
    expect((await world.ask('/npm/left')).status).toBe(200);
    expect((await world.ask('/npm/left/-/left-1.0.0.tgz')).body.equals(tarball)).toBe(true);
    expect((await world.ask('/npm/right')).status).toBe(503);
    expect(upstream.count(/tgz/)).toBe(1);
  });

  it('refuses a tarball that is not what its packument says', async () => {
    await using upstream = await startUpstream();
    putNpm(upstream, randomBytes(1000), sri(randomBytes(1000)));
    await using world = await startProxy([], { settings: { npmRegistry: `${upstream.url}/registry` } });
    await world.ask('/npm/left');
    expect((await world.ask('/npm/left/-/left-1.0.0.tgz')).status).toBe(502);
  });

  it('checks a tarball whose page nobody asked for, as npm ci does it', async () => {
    await using upstream = await startUpstream();
    putNpm(upstream, randomBytes(1000), sri(randomBytes(1000)));
    await using world = await startProxy([], { settings: { npmRegistry: `${upstream.url}/registry` } });
    expect((await world.ask('/npm/left/-/left-1.0.0.tgz')).status).toBe(502);
  });

  it('reads scoped names in both spellings and refuses what is no package', async () => {
    await using upstream = await startUpstream();
    upstream.put('/registry/@scope/name', '{"name":"@scope/name","versions":{}}');
    await using world = await startProxy([], { settings: { npmRegistry: `${upstream.url}/registry` } });
    for (const path of ['/npm/@scope/name', '/npm/@scope%2fname', '/npm/%40scope%2Fname'])
      expect((await world.ask(path)).status).toBe(200);
    expect((await world.ask('/npm/-/whoami')).status).toBe(404);
    expect((await world.ask('/npm/..%2f..%2fetc')).status).toBe(400);
  });

  it('takes the strongest digest that there is', () => {
    const hex = '00'.repeat(64);
    expect(npmDigests({ integrity: `sha512-${Buffer.alloc(64).toString('base64')}`, shasum: 'a'.repeat(40) })).toEqual([
      { algorithm: 'sha512', hex },
    ]);
    expect(npmDigests({ shasum: 'a'.repeat(40) })).toEqual([{ algorithm: 'sha1', hex: 'a'.repeat(40) }]);
    expect(npmDigests({ shasum: 'no' })).toEqual([]);
  });
});

describe('/pypi/', () => {
  it.each(['html', 'json'])(
    'turns the links of %s pages, checks files by their digest and works offline',
    async (form) => {
      await using upstream = await startUpstream();
      await using files = await startUpstream();
      const wheel = randomBytes(100_000);
      files.put('/packages/demo-1.0-py3-none-any.whl', wheel);
      const url = `${files.url}/packages/demo-1.0-py3-none-any.whl`;
      const page =
        form === 'html'
          ? `<a href="${url}#sha256=${sha256(wheel)}" data-requires-python="&gt;=3.8">demo</a>`
          : JSON.stringify({
              meta: { 'api-version': '1.0' },
              name: 'demo',
              files: [{ filename: 'demo-1.0-py3-none-any.whl', url, hashes: { sha256: sha256(wheel) } }],
            });
      upstream.put('/simple/demo/', page);
      await using world = await startProxy([], {
        settings: { pypiIndex: `${upstream.url}/simple`, innerHosts: ['127.0.0.1'] },
      });
      const headers: Record<string, string> = form === 'json' ? { accept: 'application/vnd.pypi.simple.v1+json' } : {};
      const text = (await world.ask('/pypi/simple/Demo/', { headers })).body.toString();
      const link = /\/pypi\/files\/[^"#]+/.exec(text)![0];
      expect(text).toContain(sha256(wheel));
      if (form === 'html') expect(text).toContain('data-requires-python="&gt;=3.8"');
      const file = await world.ask(link);
      expect(file.body.equals(wheel)).toBe(true);
      expect(file.headers['x-cache-why']).toBe('checked against its index page');
      await world.restart({ offline: true });
      expect((await world.ask('/pypi/simple/demo/', { headers })).body.toString()).toBe(text);
      expect((await world.ask(link)).body.equals(wheel)).toBe(true);
      expect(files.log).toHaveLength(1);
    },
  );

  it.each(['html', 'json'])(
    'passes on the separate metadata of %s pages (PEP 658), checked by their digest',
    async (form) => {
      await using upstream = await startUpstream();
      const metadata = 'Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n';
      const url = `${upstream.url}/files/demo-1.0-py3-none-any.whl`;
      upstream.put('/files/demo-1.0-py3-none-any.whl', 'the wheel');
      upstream.put('/files/demo-1.0-py3-none-any.whl.metadata', metadata);
      const told = { sha256: sha256(metadata) };
      const page = (digests: { sha256: string }) =>
        form === 'html'
          ? `<a href="${url}#sha256=${sha256('the wheel')}" data-core-metadata="sha256=${digests.sha256}">demo</a>`
          : JSON.stringify({
              meta: { 'api-version': '1.0' },
              name: 'demo',
              files: [
                {
                  filename: 'demo-1.0-py3-none-any.whl',
                  url,
                  hashes: { sha256: sha256('the wheel') },
                  'core-metadata': digests,
                },
              ],
            });
      upstream.put('/simple/demo/', page(told));
      upstream.put('/simple/other/', page({ sha256: '0'.repeat(64) }));
      await using world = await startProxy([], { settings: { pypiIndex: `${upstream.url}/simple`, maxAge: 600 } });
      const headers: Record<string, string> = form === 'json' ? { accept: 'application/vnd.pypi.simple.v1+json' } : {};
      const text = (await world.ask('/pypi/simple/demo/', { headers })).body.toString();
      expect(text).toContain(told.sha256);
      const link = /\/pypi\/files\/[^"#]+/.exec(text)![0];
      expect((await world.ask(`${link}.metadata`)).body.toString()).toBe(metadata);
      expect((await world.ask(link)).body.toString()).toBe('the wheel');
      const wrong = (await world.ask('/pypi/simple/other/', { headers })).body.toString();
      expect((await world.ask(`${/\/pypi\/files\/[^"#]+/.exec(wrong)![0]}.metadata`)).status).toBe(502);
      await world.restart({ offline: true });
      expect((await world.ask(`${link}.metadata`)).body.toString()).toBe(metadata);
    },
  );

  it('offers no metadata where the index has none', async () => {
    await using upstream = await startUpstream();
    upstream.put('/simple/demo/', '<a href="../../files/demo-1.0-py3-none-any.whl">demo</a>');
    upstream.put('/files/demo-1.0-py3-none-any.whl.metadata', 'not linked');
    await using world = await startProxy([], { settings: { pypiIndex: `${upstream.url}/simple` } });
    const text = (await world.ask('/pypi/simple/demo/')).body.toString();
    expect((await world.ask(`${/\/pypi\/files\/[^"#]+/.exec(text)![0]}.metadata`)).status).toBe(404);
  });

  it('is no way to files that no page links to', async () => {
    await using upstream = await startUpstream();
    upstream.put('/secret.whl', 'secret');
    await using world = await startProxy([], { settings: { pypiIndex: `${upstream.url}/simple` } });
    const id = createHash('sha256').update(`${upstream.url}/secret.whl`).digest('hex').slice(0, 16);
    expect((await world.ask(`/pypi/files/demo/${id}/secret.whl`)).status).toBe(404);
    expect(upstream.log).toEqual([]);
  });

  it('reads links as PEP 503 writes them', () => {
    const text =
      '<a href="../../files/a-1.tar.gz#md5=0123456789abcdef0123456789abcdef">x</a><A HREF=\'b-1.whl\'>y</A><a href="javascript:alert(1)">z</a><a href="https://h/c&amp;d-1.whl">w</a>';
    expect(simpleLinks(text, false, 'https://index.example.org/simple/a/').map(({ file, url }) => [file, url])).toEqual(
      [
        ['a-1.tar.gz', 'https://index.example.org/files/a-1.tar.gz'],
        ['b-1.whl', 'https://index.example.org/simple/a/b-1.whl'],
        ['c&d-1.whl', 'https://h/c&d-1.whl'],
      ],
    );
  });
});
