/**
 * npm and PyPI through the same cache: `/npm/` as a registry, `/pypi/simple/` as an index, files kept by digest.
 *
 * Secret: where each puts its digests (npm packument `dist.integrity`, PEP 503 fragments, PEP 691 `hashes`), and how addresses in
 * their answers are turned so that files come through here, too. What a file must be is read from the index page that is in the
 * cache, so that what a lock names can be fetched again offline.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { OpenFile } from './files.ts';
import type { Found } from './find.ts';
import type { Digest, HashName } from './policy.ts';
import type { ProxyCache } from './proxy.ts';
import { encodePath, npmSpelling, parseTarget } from './target.ts';

export interface Registries {
  npm(request: IncomingMessage, response: ServerResponse): Promise<void>;
  pypi(request: IncomingMessage, response: ServerResponse): Promise<void>;
}

interface Page {
  readonly key: string;
  readonly url: string;
  readonly accept: string;
  readonly contentType: string;
}

const PACKUMENT = 'application/vnd.npm.install-v1+json';
const SIMPLE_JSON = 'application/vnd.pypi.simple.v1+json';

export function createRegistries(cache: ProxyCache): Registries {
  const npmBase = cache.settings.npmRegistry.replace(/\/+$/, '');
  const pypiBase = cache.settings.pypiIndex.replace(/\/+$/, '');
  const maxAge = cache.settings.maxAge;

  /** The page in the cache, asked for again when it is time. Undefined: answered already. */
  async function page(page: Page, response: ServerResponse): Promise<OpenFile | undefined> {
    const found = await fetchPage(page);
    if (found.kind === 'file') return found.file;
    if (found.status === 503) cache.unavailable(response, page.key, found.reason);
    else cache.answerer.text(response, found.status, found.reason);
    return undefined;
  }

  async function fetchPage(
    page: Page,
  ): Promise<{ kind: 'file'; file: OpenFile } | { kind: 'none'; status: number; reason: string }> {
    const ask = {
      key: page.key,
      sources: [{ url: page.url, trusted: true }],
      contentType: page.contentType,
      headers: { accept: page.accept },
    };
    for (let round = 0; round < 3; round += 1) {
      const found = await cache.findChanging(ask, maxAge);
      const settled = await settle(found);
      if (settled.kind !== 'again') return settled;
    }
    return { kind: 'none', status: 503, reason: 'the page changes while it is fetched' };
  }

  async function settle(
    found: Found,
  ): Promise<{ kind: 'file'; file: OpenFile } | { kind: 'none'; status: number; reason: string } | { kind: 'again' }> {
    if (found.kind !== 'transfer') return found;
    const outcome = await found.transfer.done;
    const sha256 = outcome.kind === 'stored' ? outcome.sha256 : found.before?.sha256;
    if (outcome.kind === 'not-modified' && found.before)
      cache.store.touchUrl(found.before.key, Math.floor(cache.context.now().getTime() / 1000));
    if (outcome.kind === 'absent') return { kind: 'none', status: 404, reason: 'upstream has no such file' };
    const file = sha256 === undefined ? undefined : await cache.files.open(sha256);
    if (file) return { kind: 'file', file };
    return outcome.kind === 'failed' ? { kind: 'none', status: 503, reason: outcome.reason } : { kind: 'again' };
  }

  async function sendFile(
    request: IncomingMessage,
    response: ServerResponse,
    key: string,
    url: string,
    digests: readonly Digest[],
    trusted: boolean,
    type: string,
  ): Promise<void> {
    cache.metrics.add('requests');
    const ask = { key, sources: [{ url, trusted }], contentType: type };
    for (let round = 0; round < 3; round += 1) {
      const found = await cache.findDigest(
        ask,
        { digests },
        digests.length > 0 ? 'checked against its index page' : 'unverified: its index page is not here',
      );
      if (response.destroyed || (await cache.send(request, response, found, type, key))) return;
    }
    cache.unavailable(response, key, 'the file changes upstream while it is fetched');
  }

  const textOf = (file: OpenFile): string =>
    file.bytes ? file.bytes.toString('utf8') : readFileSync(cache.blobs.pathOf(file.sha256), 'utf8');

  function sendPage(request: IncomingMessage, response: ServerResponse, text: string, type: string): void {
    const bytes = Buffer.from(text);
    const etag = `"${createHash('sha256').update(bytes).digest('hex')}"`;
    cache.answerer.bytes(request, response, bytes, etag, {
      contentType: type,
      lastModified: undefined,
      cache: 'HIT',
      why: 'index page, addresses turned to this cache',
      age: 0,
      immutable: false,
    });
  }

  async function npm(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (npmBase === '') {
      cache.answerer.text(response, 404, "nothing is behind /npm/: name it as 'proxy.npm-registry' in buildkit.yaml");
      return;
    }
    const path = pathBelow(request, 'npm/');
    if (path === undefined) {
      cache.answerer.text(response, 400, 'the path is malformed');
      return;
    }
    const tarball = /^((?:@[^/]+\/)?[^/@][^/]*)\/-\/(?:[^/]+\/)?([^/]+\.tgz)$/.exec(path);
    if (!tarball) {
      if (!/^(?:@[^/]+\/)?[^/@-][^/]*$/.test(path)) {
        cache.answerer.text(response, 404, 'only packages and their tarballs');
        return;
      }
      const file = await page(packument(path, request.headers.accept), response);
      if (!file) return;
      const base = `http://${request.headers.host ?? 'localhost'}/npm/`;
      return sendPage(request, response, textOf(file).replaceAll(`"${npmBase}/`, `"${base}`), 'application/json');
    }
    const key = `npm/${path}`;
    // npm ci asks for what its lock names and for no page: what a tarball must be stands in the page alone
    if (tarballDigests(tarball[1]!, tarball[2]!).length === 0 && !cache.offline) {
      await fetchPage(packument(tarball[1]!, PACKUMENT));
    }
    const digests = tarballDigests(tarball[1]!, tarball[2]!);
    await sendFile(request, response, key, `${npmBase}/${encodePath(path)}`, digests, true, 'application/octet-stream');
  }

  function packument(name: string, accept: string | undefined): Page {
    const short = accept?.includes(PACKUMENT) ?? false;
    const type = short ? PACKUMENT : 'application/json';
    return {
      key: `npm/${name}${short ? '?install' : ''}`,
      url: `${npmBase}/${encodePath(name)}`,
      accept: type,
      contentType: type,
    };
  }

  /** What the packument in the cache says of a tarball; nothing when none is here. */
  function tarballDigests(name: string, file: string): Digest[] {
    for (const key of [`npm/${name}?install`, `npm/${name}`]) {
      const row = cache.store.url(key);
      if (!row) continue;
      try {
        const document = JSON.parse(readFileSync(cache.blobs.pathOf(row.sha256), 'utf8')) as Packument;
        for (const version of Object.values(document.versions ?? {})) {
          if (version.dist?.tarball?.endsWith(`/${file}`)) return npmDigests(version.dist);
        }
      } catch {
        // a page that is damaged tells nothing: the file is then marked as unverified
      }
    }
    return [];
  }

  async function pypi(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (pypiBase === '') {
      cache.answerer.text(response, 404, "nothing is behind /pypi/: name it as 'proxy.pypi-index' in buildkit.yaml");
      return;
    }
    const path = pathBelow(request, 'pypi/');
    if (path === undefined) {
      cache.answerer.text(response, 400, 'the path is malformed');
      return;
    }
    const project = /^simple\/([A-Za-z0-9._-]+)\/?$/.exec(path)?.[1];
    if (project !== undefined) {
      const json = request.headers.accept?.includes(SIMPLE_JSON) ?? false;
      const file = await page(simplePage(project, json), response);
      if (!file) return;
      const links = simpleLinks(textOf(file), json, `${pypiBase}/${project}/`);
      const text = json ? turnJson(textOf(file), links, project) : renderSimple(project, links);
      return sendPage(request, response, text, json ? SIMPLE_JSON : 'text/html; charset=utf-8');
    }
    const wanted = /^files\/([A-Za-z0-9._-]+)\/([0-9a-f]{16})\/([^/]+)$/.exec(path);
    if (!wanted) {
      cache.answerer.text(response, 404, 'pages are at /pypi/simple/PROJECT/');
      return;
    }
    // only what an index page in the cache links to is fetched: this is no way to other hosts
    const [, of = '', id = '', name = ''] = wanted;
    const metadata = /^(.+)\.metadata$/.exec(name)?.[1];
    const whole = findLink(of, id, name);
    const described = metadata === undefined ? undefined : findLink(of, id, metadata);
    // PEP 658: the metadata of a file lie beside it
    const link =
      whole ?? (described?.metadata && { ...described, url: `${described.url}.metadata`, digests: described.metadata });
    if (!link) {
      cache.answerer.text(response, 404, 'no index page here links to this file: ask for its page first');
      return;
    }
    await sendFile(
      request,
      response,
      `pypi/${path}`,
      link.url,
      link.digests,
      hostOf(link.url) === hostOf(pypiBase),
      'application/octet-stream',
    );
  }

  function simplePage(project: string, json: boolean): Page {
    const name = normalName(project);
    const type = json ? SIMPLE_JSON : 'text/html';
    return {
      key: `pypi/simple/${name}/${json ? '?json' : ''}`,
      url: `${pypiBase}/${name}/`,
      accept: json ? `${SIMPLE_JSON}, text/html;q=0.1` : 'text/html',
      contentType: type,
    };
  }

  function findLink(project: string, id: string, file: string): Link | undefined {
    for (const json of [true, false]) {
      const { key, url } = simplePage(project, json);
      const row = cache.store.url(key);
      if (!row) continue;
      try {
        const text = readFileSync(cache.blobs.pathOf(row.sha256), 'utf8');
        const link = simpleLinks(text, json, url).find((one) => one.file === file && linkId(one.url) === id);
        if (link) return link;
      } catch {
        // damaged: asked for again with its page
      }
    }
    return undefined;
  }

  return { npm, pypi };
}

interface Dist {
  readonly tarball?: string;
  readonly integrity?: string;
  readonly shasum?: string;
}

interface Packument {
  readonly versions?: Readonly<Record<string, { readonly dist?: Dist }>>;
}

/** Subresource Integrity: the strongest hash of `dist.integrity`; older packages have only a SHA1. */
export function npmDigests(dist: Dist): Digest[] {
  for (const algorithm of ['sha512', 'sha256'] as const) {
    const match = new RegExp(`(?:^|\\s)${algorithm}-([A-Za-z0-9+/=]+)`).exec(dist.integrity ?? '');
    if (match) return [{ algorithm, hex: Buffer.from(match[1]!, 'base64').toString('hex') }];
  }
  return dist.shasum && /^[0-9a-f]{40}$/.test(dist.shasum) ? [{ algorithm: 'sha1', hex: dist.shasum }] : [];
}

interface Link {
  readonly file: string;
  readonly url: string;
  readonly digests: readonly Digest[];
  readonly attributes: string;
  /** Of the separate metadata file (PEP 658, PEP 714); undefined: there is none; empty: no digest is told. */
  readonly metadata: readonly Digest[] | undefined;
}

/** The links of a page, HTML (PEP 503) or JSON (PEP 691), absolute; those to other schemes are left out. */
export function simpleLinks(text: string, json: boolean, base: string): Link[] {
  if (json) {
    if (text.trimStart().startsWith('<')) return simpleLinks(text, false, base);
    const page = JSON.parse(text) as { files?: JsonFile[] };
    return (page.files ?? []).flatMap((file) => {
      const told = file['core-metadata'] ?? file['dist-info-metadata'] ?? false;
      const metadata = told === false ? undefined : strongest(told === true ? {} : told);
      return linkOf(file.url, base, file.hashes ?? {}, '', metadata);
    });
  }
  return [...text.matchAll(/<a\s([^>]*)>/gi)].flatMap((match) => {
    const attributes = match[1]!;
    const href = /href\s*=\s*(?:"([^"]*)"|'([^']*)')/i.exec(attributes);
    const address = decodeEntities(href?.[1] ?? href?.[2] ?? '');
    const hash = /#(sha256|sha512|sha1|md5)=([0-9a-f]+)$/i.exec(address);
    const others = [...attributes.matchAll(/\s?(data-[a-z-]+)\s*=\s*"([^"]*)"/gi)].map(
      ([, name, value]) => ` ${name}="${value}"`,
    );
    const told = /data-(?:core|dist-info)-metadata\s*=\s*"(?:(sha256|sha512)=)?([^"]*)"/i.exec(attributes);
    const metadata =
      told && told[2] !== 'false' ? strongest(told[1] ? { [told[1].toLowerCase()]: told[2]! } : {}) : undefined;
    const hashes = hash ? { [hash[1]!.toLowerCase()]: hash[2]!.toLowerCase() } : {};
    return linkOf(address, base, hashes, others.join(''), metadata);
  });
}

interface JsonFile {
  readonly filename: string;
  readonly url: string;
  readonly hashes?: Record<string, string>;
  readonly 'core-metadata'?: boolean | Record<string, string>;
  readonly 'dist-info-metadata'?: boolean | Record<string, string>;
}

function strongest(hashes: Readonly<Record<string, string>>): Digest[] {
  const best = (['sha512', 'sha256', 'sha1', 'md5'] as readonly HashName[]).find((name) =>
    /^[0-9a-f]+$/.test(hashes[name] ?? ''),
  );
  return best ? [{ algorithm: best, hex: hashes[best]! }] : [];
}

function linkOf(
  address: string,
  base: string,
  hashes: Readonly<Record<string, string>>,
  attributes: string,
  metadata: readonly Digest[] | undefined,
): Link[] {
  const url = URL.parse(address, base);
  if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:')) return [];
  url.hash = '';
  const file = decodeURIComponent(url.pathname.slice(url.pathname.lastIndexOf('/') + 1));
  if (file === '' || /[/\\\u0000-\u001f]/.test(file)) return [];
  return [{ file, url: url.href, digests: strongest(hashes), attributes, metadata }];
}

/** PEP 503: one spelling of a project's name. */
function normalName(project: string): string {
  return project.toLowerCase().replaceAll(/[-_.]+/g, '-');
}

function linkId(url: string): string {
  return createHash('sha256').update(url).digest('hex').slice(0, 16);
}

function ownAddress(link: Link, project: string): string {
  return `/pypi/files/${normalName(project)}/${linkId(link.url)}/${encodeURIComponent(link.file)}`;
}

function renderSimple(project: string, links: readonly Link[]): string {
  const rows = links.map((link) => {
    const fragment = link.digests[0] ? `#${link.digests[0].algorithm}=${link.digests[0].hex}` : '';
    return `<a href="${ownAddress(link, project)}${fragment}"${link.attributes}>${escapeText(link.file)}</a><br>`;
  });
  return `<!doctype html>\n<html><head><meta name="pypi:repository-version" content="1.0"><title>${escapeText(normalName(project))}</title></head><body>\n${rows.join('\n')}\n</body></html>\n`;
}

function turnJson(text: string, links: readonly Link[], project: string): string {
  if (text.trimStart().startsWith('<'))
    return JSON.stringify({
      meta: { 'api-version': '1.0' },
      name: project,
      files: links.map((link) => ({
        filename: link.file,
        url: ownAddress(link, project),
        hashes: byName(link.digests),
        ...(link.metadata ? { 'core-metadata': link.metadata.length > 0 ? byName(link.metadata) : true } : {}),
      })),
    });
  const page = JSON.parse(text) as { files?: Record<string, unknown>[] };
  const own = new Map(links.map((link) => [link.file, link]));
  const files = (page.files ?? []).flatMap((file) => {
    const link = own.get(String(file.filename));
    return link ? [{ ...file, url: ownAddress(link, project) }] : [];
  });
  return JSON.stringify({ ...page, files });
}

function byName(digests: readonly Digest[]): Record<string, string> {
  return Object.fromEntries(digests.map(({ algorithm, hex }) => [algorithm, hex]));
}

function pathBelow(request: IncomingMessage, prefix: string): string | undefined {
  const target = parseTarget(npmSpelling(request.url ?? ''));
  return target.form === 'origin' && target.path.startsWith(prefix) ? target.path.slice(prefix.length) : undefined;
}

function hostOf(url: string): string {
  return URL.parse(url)?.host ?? '';
}

function decodeEntities(text: string): string {
  return text
    .replaceAll('&amp;', '&')
    .replaceAll('&quot;', '"')
    .replaceAll('&#39;', "'")
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>');
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
