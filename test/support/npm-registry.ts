/** A small npm registry on the loopback, with packages made up for a test, honest or not. */
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { type Listening, listen } from '../../src/core/http.ts';
import { formatTarHeader, tarEnd, tarPadding } from '../../src/deb/tar.ts';

export interface FakePackage {
  readonly name: string;
  readonly version: string;
  /** Fields of package.json beside name and version. */
  readonly manifest?: Readonly<Record<string, unknown>>;
  /** Path to content, below 'package/'; one that starts with '!' is taken as it stands behind it. */
  readonly files?: Readonly<Record<string, string>>;
  /** When it was published, as an ISO date; default: nobody says. */
  readonly published?: string;
  /** Sent in place of the tarball that the digest was made of. */
  readonly sendInstead?: Buffer;
}

export interface NpmRegistry extends AsyncDisposable {
  readonly url: string;
  /** For Context.env: npm's configuration of nobody but this registry. */
  readonly env: Readonly<Record<string, string>>;
  /** What was asked for, and with which credentials. */
  readonly requests: { readonly path: string; readonly authorization: string | undefined }[];
}

export async function npmRegistry(packages: readonly FakePackage[]): Promise<NpmRegistry> {
  const requests: NpmRegistry['requests'] = [];
  let listening: Listening | undefined;
  const tarballs = new Map(packages.map((one) => [tarballPath(one), one]));
  listening = await listen((request, response) => {
    const path = decodeURIComponent(request.url ?? '/');
    requests.push({ path, authorization: request.headers.authorization });
    const tarball = tarballs.get(path);
    if (tarball) return void response.end(tarball.sendInstead ?? packTarball(tarball));
    const versions = packages.filter((one) => `/${one.name}` === path);
    if (versions.length === 0) {
      response.statusCode = 404;
      return void response.end('{"error":"Not found"}');
    }
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(packument(versions, listening!.url)));
  }, '127.0.0.1:0');
  return {
    url: `${listening.url}/`,
    requests,
    env: {
      npm_config_registry: `${listening.url}/`,
      npm_config_userconfig: '/nonexistent',
      npm_config_globalconfig: '/nonexistent',
    },
    [Symbol.asyncDispose]: () => listening!.close(0),
  };
}

function tarballPath({ name, version }: FakePackage): string {
  return `/${name}/-/${name.replace(/^.*\//, '')}-${version}.tgz`;
}

/** What `npm pack` makes. */
export function packTarball({ name, version, manifest, files }: FakePackage): Buffer {
  const all = { 'package.json': JSON.stringify({ name, version, ...manifest }), ...files };
  const blocks = Object.entries(all).flatMap(([path, content]) => {
    const data = Buffer.from(content);
    const header = formatTarHeader({
      name: Buffer.from(path.startsWith('!') ? path.slice(1) : `package/${path}`),
      type: 'file',
      mode: 0o644,
      uid: 0,
      gid: 0,
      user: '',
      group: '',
      size: data.length,
      mtime: 499_162_500,
      link: Buffer.alloc(0),
    });
    return [header, data, Buffer.alloc(tarPadding(data.length))];
  });
  const body = Buffer.concat(blocks);
  return gzipSync(Buffer.concat([body, tarEnd(body.length)]));
}

function packument(versions: readonly FakePackage[], url: string): unknown {
  const { name, version } = versions.at(-1)!;
  return {
    name,
    'dist-tags': { latest: version },
    time: Object.fromEntries(versions.flatMap((one) => (one.published ? [[one.version, one.published]] : []))),
    versions: Object.fromEntries(
      versions.map((one) => {
        const integrity = `sha512-${createHash('sha512').update(packTarball(one)).digest('base64')}`;
        const dist = { tarball: `${url}${tarballPath(one)}`, integrity };
        return [one.version, { name, version: one.version, ...one.manifest, dist }];
      }),
    ),
  };
}
