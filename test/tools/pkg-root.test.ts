/** Build roots and Debian source packages: real mmdebstrap, real dpkg-buildpackage, sources of Debian's. Needs root. */

import { once } from 'node:events';
import { chmod, cp, mkdir, readdir, readFile, utimes, writeFile } from 'node:fs/promises';
import { createServer, get } from 'node:http';
import type { AddressInfo } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { UserError } from '../../src/core/errors.ts';
import { digestFile, exists } from '../../src/core/files.ts';
import { run, start } from '../../src/core/run.ts';
import { debianSources } from '../../src/deb/mirror.ts';
import { type BuildRequest, type BuildResult, buildPackages, planBuild } from '../../src/pkg/build.ts';
import { reproduce } from '../../src/pkg/reproduce.ts';
import { controlOf, openClone } from '../../src/pkg/root/clone.ts';
import { aptProxy, type BuildRoot, createRoot, listRoots, updateRoot } from '../../src/pkg/root/root.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { writeWheel } from '../support/python-wheel.ts';
import { createWorld, type World } from '../support/world.ts';

const LONG = 600_000;
let world: World;
let root: BuildRoot;
let tiny: BuildResult;
let proxy: { readonly url: string; readonly asked: readonly string[] } & Disposable;

const request = (input: string, out: string, more: Partial<BuildRequest> = {}): BuildRequest => ({
  inputs: [input],
  cwd: world.path,
  suite: 'bookworm',
  outDir: join(world.path, out),
  isolation: 'root',
  ...more,
});
const path = (...parts: string[]) => join(world.path, ...parts);
const cloneNames = () => readdir(path('state/roots/clones')).catch(() => []);

const CONTROL = (name: string, needs: string, arch: string) => `Source: ${name}
Section: misc
Priority: optional
Maintainer: Ada Lovelace <ada@debian.org>
${needs === '' ? '' : `Build-Depends: ${needs}\n`}Standards-Version: 4.6.2
Rules-Requires-Root: no

Package: ${name}
Architecture: ${arch}
Depends: \${misc:Depends}, \${shlibs:Depends}
Description: program that greets
 It says hello.
`;

/** A native source; `rules` is the text of debian/rules. */
async function makeSource(
  name: string,
  rules: string,
  options: { needs?: string; arch?: string } = {},
): Promise<string> {
  const folder = path(name);
  await mkdir(join(folder, 'debian/source'), { recursive: true });
  const files = {
    control: CONTROL(name, options.needs ?? '', options.arch ?? 'all'),
    changelog: `${name} (1:1.0) bookworm; urgency=medium\n\n  * First.\n\n -- Ada Lovelace <ada@debian.org>  Sat, 01 Nov 2025 10:00:00 +0000\n`,
    rules: `#!/usr/bin/make -f\n${rules}`,
    'source/format': '3.0 (native)\n',
    copyright: 'This is a test.\n\nCopyright 2025 Ada Lovelace. License: MIT.\n',
  };
  for (const [file, text] of Object.entries(files)) await writeFile(join(folder, 'debian', file), text);
  return folder;
}

/** debian/rules whose build runs `command`, without debhelper. */
const plainRules = (command: string) =>
  `clean build build-arch build-indep:\nbinary binary-arch binary-indep:\n\t${command}\n`;

async function refusal(promise: Promise<unknown>): Promise<UserError> {
  return promise.then(
    () => Promise.reject(new Error('it did not fail')),
    (error: UserError) => error,
  );
}

/** An apt proxy that hands on what it is asked for, to the one that this machine has or to the mirror itself. */
async function notingProxy(): Promise<typeof proxy> {
  const asked: string[] = [];
  const above = await aptProxy(world.context);
  const server = createServer(({ url = '', headers }, answer) => {
    asked.push(url);
    const { hostname, port, pathname, search } = new URL(above ?? url);
    const path = above === undefined ? `${pathname}${search}` : url;
    get({ hostname, port: port || 80, path, headers }, (reply) => {
      answer.writeHead(reply.statusCode ?? 502, reply.headers);
      reply.pipe(answer);
    }).on('error', () => answer.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const close = () => server.close().closeAllConnections();
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, [Symbol.dispose]: close };
}

beforeAll(async () => {
  world = await createWorld();
  proxy = await notingProxy();
  root = (await createRoot(world.context, { suite: 'bookworm', proxy: proxy.url })).root;
  await makeSource('tiny', '%:\n\tdh $@\n', { needs: 'debhelper-compat (= 12)', arch: 'any' });
  await writeFile(path('tiny/tiny.c'), '#include <stdio.h>\nint main(void) { puts("hello " __FILE__); return 0; }\n');
  await writeFile(
    path('tiny/Makefile'),
    'tiny: tiny.c\n\t$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $<\ninstall:\n\tinstall -D tiny $(DESTDIR)/usr/bin/tiny\nclean:\n\trm -f tiny\n',
  );
  tiny = await buildPackages(world.context, request('./tiny', 'out', { isolation: 'auto', proxy: proxy.url }));
}, LONG);
afterAll(async () => {
  proxy?.[Symbol.dispose]();
  await world?.[Symbol.asyncDispose]();
});

describe('a build root', () => {
  it('is made once', async () => {
    expect(await createRoot(world.context, { suite: 'bookworm' })).toEqual({ root, made: false });
    expect(root.clone).toBe('overlay');
    expect(root.id).toMatch(/^bookworm-amd64-[0-9a-f]{12}$/);
    expect(root.packages.some((one) => one.startsWith('build-essential='))).toBe(true);
  });

  it('was fetched through the proxy that was named, and so was what a build needs; nothing of it stays', async () => {
    const uris = (await debianSources(world.context, 'bookworm')).flatMap((one) => one.uris);
    const plain = uris.some((uri) => uri.startsWith('http:')); // others go past an apt proxy
    for (const name of ['gcc', 'debhelper']) {
      expect(proxy.asked.some((url) => basename(url).startsWith(`${name}_`))).toBe(plain);
    }
    const noted = ['-rlF', proxy.url, join(root.dir, 'tree/etc'), join(root.dir, 'root.json')];
    expect((await run(world.context, 'grep', noted, { okExitCodes: [1] })).stdout).toBe('');
  });

  it('gives a build a machine of its own: no network, no rights, no services, a fixed environment', async () => {
    await using clone = await openClone(world.context, root, undefined, path('clone.log'));
    const { stdout } = await clone.run({
      script: `id -u; id -G; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr '\\n' ' '; echo
ls /sys/class/net; hostname; umask; env | sort; ls -d /proc/[0-9]* | wc -l; echo x >/etc/x 2>/dev/null || echo read-only
/usr/sbin/policy-rc.d || echo $?`,
    });
    const lines = stdout.trimEnd().split('\n');
    expect(lines.slice(0, 3)).toEqual([
      '29999',
      '29999',
      'CapEff:\t0000000000000000 CapBnd:\t0000000000000000 NoNewPrivs:\t1 ',
    ]);
    expect(lines.slice(3, 6)).toEqual(['lo', 'buildkit', '0022']);
    expect(lines.filter((line) => line.includes('='))).toEqual([
      'DEBIAN_FRONTEND=noninteractive',
      'HOME=/nonexistent',
      'LANG=C.UTF-8',
      'LC_ALL=C.UTF-8',
      'LOGNAME=builder',
      'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      'PWD=/build',
      'SHELL=/bin/sh',
      'TERM=dumb',
      'TZ=UTC',
      'USER=builder',
    ]);
    expect(Number(lines.at(-3))).toBeLessThan(10); // nobody else's processes
    expect(lines.slice(-2)).toEqual(['read-only', '101']);
  });

  it('has a loopback that works, and no way out', async () => {
    await using clone = await openClone(world.context, root, undefined, path('clone.log'));
    const talk = `use IO::Socket::INET;
my $server = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die "listen: $!";
IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $server->sockport) or die "connect: $!";
IO::Socket::INET->new(PeerAddr => "192.0.2.1", PeerPort => 80) and die "out"; print "$!";`;
    const { stdout } = await clone.run({ script: 'perl -e "$1"', args: [talk] });
    expect(stdout).toBe('Network is unreachable');
  });

  it('is the same for the next build, whatever one did in its clone', async () => {
    const before = await readdir(join(root.dir, 'tree/etc'));
    {
      await using clone = await openClone(world.context, root, undefined, path('clone.log'));
      await clone.run({ user: 'root', script: 'rm -rf /etc/apt; touch /etc/mine /build/here' });
      expect(await readdir(clone.buildDir)).toEqual(['here']);
    }
    expect(await readdir(join(root.dir, 'tree/etc'))).toEqual(before);
    expect(await cloneNames()).toEqual([]);
    expect(await readFile('/proc/self/mounts', 'utf8')).not.toContain(world.path);
  });

  it('is copied where the kernel has no overlays for us', async () => {
    await using clone = await openClone(world.context, { ...root, clone: 'copy' }, undefined, path('clone.log'));
    await clone.run({ user: 'root', script: 'rm /etc/hostname' });
    expect((await clone.run({ script: 'ls /etc/hostname 2>&1 || id -u' })).stdout).toContain('29999');
    expect(await exists(join(root.dir, 'tree/etc/hostname'))).toBe(true);
  });

  it('reports what cannot be: an unknown root, a mirror that has no such suite', { timeout: LONG }, async () => {
    const server = createServer((_, answer) => answer.writeHead(404).end()).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const mirror = `http://127.0.0.1:${(server.address() as AddressInfo).port}/debian`;
    const failure = await refusal(updateRoot(world.context, { suite: 'trixie', mirror }));
    server.close();
    expect(failure.message).toContain('mmdebstrap makes no build root of trixie');
    expect(failure.hint).toContain('trixie-amd64.log');
    expect((await listRoots(world.context)).map((one) => one.id)).toEqual([root.id]);
    expect((await readdir(path('state/roots'))).filter((name) => name.startsWith('.building'))).toEqual([]);
  });
});

describe('pkg build of a Debian source', () => {
  it('makes all that dpkg-buildpackage makes', async () => {
    expect(tiny.packages.map((one) => `${one.name} ${one.version}`)).toEqual(['tiny 1:1.0', 'tiny-dbgsym 1:1.0']);
    expect(tiny.asked).toEqual(['tiny']);
    expect((await readdir(path('out'))).sort()).toEqual([
      'tiny-dbgsym_1.0_amd64.deb',
      'tiny_1.0.dsc',
      'tiny_1.0.tar.xz',
      'tiny_1.0_amd64.buildinfo',
      'tiny_1.0_amd64.changes',
      'tiny_1.0_amd64.deb',
    ]);
    const info = await readFile(path('out/tiny_1.0_amd64.buildinfo'), 'utf8');
    expect(info).toContain('Build-Path: /build/tiny-1.0\n');
    expect(info).toMatch(/^ debhelper \(= /m);
    const lintian = await run(world.context, 'lintian', ['--fail-on', 'error', path('out/tiny_1.0_amd64.changes')], {
      okExitCodes: [2],
    });
    expect(lintian.stdout.split('\n').filter((line) => line.startsWith('E:'))).toEqual([]);
    await run(world.context, 'dpkg-deb', ['-x', path('out/tiny_1.0_amd64.deb'), path('unpacked')]);
    expect((await run(world.context, path('unpacked/usr/bin/tiny'), [])).stdout).toBe('hello tiny.c\n');
  });

  it('builds nothing twice, and the same bytes from another folder, time and umask', { timeout: LONG }, async () => {
    expect(await buildPackages(world.context, request('./tiny', 'out'))).toMatchObject({ built: 0, reused: 2 });
    await cp(path('tiny'), path('elsewhere/tiny'), { recursive: true });
    await chmod(path('elsewhere/tiny/tiny.c'), 0o600);
    await utimes(path('elsewhere/tiny/tiny.c'), 1, 1);
    const fresh = { ...world.context, cacheDir: path('cache-2'), env: { ...world.context.env, TZ: 'Asia/Tokyo' } };
    await buildPackages(fresh, request('./elsewhere/tiny', 'out-2'));
    for (const name of (await readdir(path('out'))).filter((one) => !/buildinfo|changes/.test(one))) {
      expect([name, await digestFile(path('out-2', name), 'sha256')]).toEqual([
        name,
        await digestFile(path('out', name), 'sha256'),
      ]);
    }
  });

  it('is added to a repository by its .changes', async () => {
    const key = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
    await new KeyStore(world.context).generate(key);
    using repo = await Repo.init(world.context, path('repo'), {
      suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
      origin: 'Example',
      label: 'Example',
    });
    const { added, refused } = await repo.add('bookworm', [path('out/tiny_1.0_amd64.changes')], { who: 'test' });
    expect(refused).toEqual([]);
    expect(added.map((one) => `${one.name} ${one.architecture}`).sort()).toEqual([
      'tiny amd64',
      'tiny source',
      'tiny-dbgsym amd64',
    ]);
  });

  it('is reproduced from its .buildinfo', async () => {
    const info = path('out/tiny_1.0_amd64.buildinfo');
    const names = ['tiny-dbgsym_1.0_amd64.deb', 'tiny_1.0_amd64.deb'];
    expect(await reproduce(world.context, info, { cwd: world.path })).toEqual({
      identical: true,
      packages: names.map((name) => ({ name, verdict: 'identical' })),
      changed: [],
    });
  });

  it('keeps bytes that have a version', async () => {
    const folder = await makeSource(
      'keeps',
      plainRules(
        'mkdir -p debian/keeps/DEBIAN && cp text debian/keeps/ && dpkg-gencontrol -pkeeps -Pdebian/keeps && dpkg-deb --root-owner-group -b debian/keeps ..',
      ),
    );
    await writeFile(join(folder, 'text'), 'one');
    await buildPackages(world.context, request('./keeps', 'out-keeps'));
    await writeFile(join(folder, 'text'), 'two');
    const failure = await refusal(buildPackages(world.context, request('./keeps', 'out-keeps')));
    expect(failure.code).toBe('version-exists');
    expect(failure.hint).toContain('debian/changelog');
  });

  it('shows the end of the log of what does not build, and leaves nothing', async () => {
    await makeSource('broken', plainRules("echo 'the reason is here'; exit 3"));
    const failure = await refusal(buildPackages(world.context, request('./broken', 'out-broken')));
    expect(failure.code).toBe('source-does-not-build');
    expect(failure.message).toContain('the reason is here');
    const log = /the whole log: (.*)$/.exec(failure.hint ?? '')?.[1] ?? '';
    expect(await readFile(log, 'utf8')).toContain('dpkg-buildpackage');
    expect(await exists(path('out-broken'))).toBe(false);
    expect(await cloneNames()).toEqual([]);
  });

  it('ends what hangs, with all its processes', async () => {
    await makeSource('hangs', plainRules('sleep 86417 & setsid sleep 86417'));
    const failure = await refusal(buildPackages(world.context, request('./hangs', 'out-hangs', { timeLimitMs: 8000 })));
    expect(failure.message).toMatch(/took longer than 0\.13\d* minutes/);
    expect(failure.hint).toContain('build-hangs.log');
    expect(await pidsOf('86417')).toEqual([]);
    expect(await cloneNames()).toEqual([]);
  });

  it('leaves no process after kill -9, and the next command cleans up', async () => {
    await makeSource('killed', plainRules('sleep 86419'));
    const args = [
      '--state',
      path('state'),
      'pkg',
      'build',
      './killed',
      '--suite',
      'bookworm',
      '--out',
      path('out-killed'),
    ];
    await using victim = start(world.context, join(world.context.programDir, 'bin/buildkit'), args, {
      cwd: world.path,
    });
    const pids = await until(async () => {
      const found = await pidsOf('86419');
      return found.length > 0 ? found : undefined;
    });
    const node = await nodeOf(pids[0]!);
    process.kill(node, 'SIGKILL');
    await victim.exitCode;
    await until(async () => ((await pidsOf('86419')).length === 0 ? true : undefined));
    expect(await cloneNames()).toHaveLength(1);
    await using clone = await openClone(world.context, root, undefined, path('clone.log'));
    expect(await cloneNames()).toEqual([basename(dirname(clone.buildDir))]);
  });

  it('builds two at once', async () => {
    const text = (name: string) =>
      plainRules(
        `mkdir -p debian/${name}/DEBIAN && sleep 1 && dpkg-gencontrol -p${name} -Pdebian/${name} && dpkg-deb --root-owner-group -b debian/${name} ..`,
      );
    for (const name of ['first', 'second']) await makeSource(name, text(name));
    const both = await Promise.all(
      ['first', 'second'].map((name) => buildPackages(world.context, request(`./${name}`, 'out-two'))),
    );
    expect(both.map((one) => one.asked)).toEqual([['first'], ['second']]);
  });

  it('names what apt cannot install', async () => {
    await makeSource('needy', plainRules('true'), { needs: 'no-such-package-anywhere (>= 3)' });
    const failure = await refusal(buildPackages(world.context, request('./needy', 'out-needy')));
    expect(failure.code).toBe('build-depends');
    expect(failure.message).toContain('no-such-package-anywhere');
  });

  it('says where upstream’s tarball is missing', async () => {
    const folder = await makeSource('quilted', plainRules('true'));
    await writeFile(join(folder, 'debian/source/format'), '3.0 (quilt)\n');
    await writeFile(
      join(folder, 'debian/changelog'),
      (await readFile(join(folder, 'debian/changelog'), 'utf8')).replace('1:1.0', '1:1.0-1'),
    );
    expect((await refusal(buildPackages(world.context, request('./quilted', 'out-quilted')))).code).toBe(
      'orig-missing',
    );
  });

  it('builds format 1.0: native, and as a diff beside upstream’s tarball', async () => {
    const rules = (name: string) =>
      plainRules(
        `mkdir -p debian/${name}/DEBIAN && dpkg-gencontrol -p${name} -Pdebian/${name} && dpkg-deb --root-owner-group -b debian/${name} ..`,
      );
    for (const name of ['old-native', 'old-diff']) {
      await writeFile(join(await makeSource(name, rules(name)), 'debian/source/format'), '1.0\n');
    }
    const changelog = path('old-diff/debian/changelog');
    await writeFile(changelog, (await readFile(changelog, 'utf8')).replace('1:1.0', '1:1.0-1'));
    await mkdir(path('old-diff-1.0'));
    for (const folder of ['old-diff', 'old-diff-1.0']) await writeFile(path(folder, 'text'), 'of upstream\n');
    await run(world.context, 'tar', ['-C', world.path, '-czf', path('old-diff_1.0.orig.tar.gz'), 'old-diff-1.0']);
    for (const name of ['old-native', 'old-diff']) await buildPackages(world.context, request(`./${name}`, 'out-old'));
    expect((await readdir(path('out-old'))).filter((name) => !/\.(changes|buildinfo)$/.test(name)).sort()).toEqual([
      'old-diff_1.0-1.diff.gz',
      'old-diff_1.0-1.dsc',
      'old-diff_1.0-1_all.deb',
      'old-diff_1.0.orig.tar.gz',
      'old-native_1.0.dsc',
      'old-native_1.0.tar.gz',
      'old-native_1.0_all.deb',
    ]);
  });

  it('builds on this machine where that is wanted', async () => {
    await makeSource(
      'hosted',
      plainRules(
        'mkdir -p debian/hosted/DEBIAN && dpkg-gencontrol -phosted -Pdebian/hosted && dpkg-deb --root-owner-group -b debian/hosted ..',
      ),
    );
    const built = await buildPackages(world.context, request('./hosted', 'out-host', { isolation: 'host' }));
    expect(built.asked).toEqual(['hosted']);
  });

  it('builds sources of Debian’s: a .dsc in bookworm, an unpacked quilt one in trixie', { timeout: LONG }, async () => {
    const [list = '', quilt = ''] = await fetchSources({ hostname: 'bookworm', figlet: 'trixie' });
    const hostname = await buildPackages(world.context, request(list, 'out-hostname'));
    expect(hostname.asked).toEqual(['hostname']);
    expect(await readdir(path('out-hostname'))).toContain(basename(list));
    await mkdir(path('quilt'));
    await run(world.context, 'dpkg-source', ['-q', '--no-check', '-x', quilt, path('quilt/figlet-unpacked')]);
    for (const file of await readdir(dirname(quilt))) await cp(join(dirname(quilt), file), path('quilt', file));
    const figlet = await buildPackages(
      world.context,
      request('./quilt/figlet-unpacked', 'out-figlet', { suite: 'trixie', isolation: 'auto' }),
    );
    expect(figlet.packages.map((one) => one.name)).toEqual(['figlet', 'figlet-dbgsym']);
    expect(
      (await readdir(path('out-figlet'))).some(
        (name) => name.endsWith('.orig.tar.gz') || name.endsWith('.orig.tar.xz'),
      ),
    ).toBe(true);
  });
});

/** A back end in one file: what it writes into the wheel tells where its code ran. */
const BACK_END = `import os, socket, time, zipfile
if os.path.exists("evil"):
    try:
        open(open("evil").read(), "w").write("was here")
    except OSError: pass
def get_requires_for_build_wheel(config_settings=None):
    return ["late-help"]
def build_wheel(directory, config_settings=None, metadata_directory=None):
    import late_help
    if os.path.exists("hang"): time.sleep(86421)
    try:
        socket.create_connection(("192.0.2.1", 80)); network = "there"
    except OSError as error: network = error.strerror
    name = "where-1.0-py3-none-any.whl"
    files = {
        "where/__init__.py": "facts = %r\\n" % [os.getuid(), network, os.environ.get("SOURCE_DATE_EPOCH"), os.getcwd()],
        "where-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: where\\nVersion: 1.0\\n",
        "where-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    record = "where-1.0.dist-info/RECORD"
    files[record] = "".join(path + ",,\\n" for path in [*files, record])
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return name
`;

async function makeProject(name: string): Promise<string> {
  const folder = path(name);
  await mkdir(folder, { recursive: true });
  const table = '[build-system]\nrequires = ["early-help"]\nbuild-backend = "backend"\nbackend-path = ["."]\n';
  await writeFile(join(folder, 'pyproject.toml'), `${table}[project]\nname = "where"\nversion = "1.0"\n`);
  await writeFile(join(folder, 'backend.py'), BACK_END);
  return folder;
}

describe('pkg build of a Python source in a root', () => {
  const python = () => ({
    ...world.context,
    env: { ...world.context.env, PIP_NO_INDEX: '1', PIP_FIND_LINKS: path('links'), SOURCE_DATE_EPOCH: '1700000000' },
  });
  const facts = async (result: BuildResult) => {
    const deb = result.packages.find((one) => one.name === 'python3-where')!;
    await run(world.context, 'dpkg-deb', ['-x', deb.path, path('where-unpacked')]);
    return await readFile(path('where-unpacked/usr/lib/python3/dist-packages/where/__init__.py'), 'utf8');
  };

  beforeAll(async () => {
    await mkdir(path('links'));
    for (const name of ['early_help', 'late_help']) {
      await writeWheel(path('links'), { name, version: '1', files: { [`${name}.py`]: '' } });
    }
    await makeProject('where');
    await makeSdist('1.0', '2.1', { evil: path('evil-was-here') });
  });

  it('runs its code there alone, with what the back end declares and asks for', { timeout: LONG }, async () => {
    const built = await buildPackages(python(), request('./where', 'out-where', { changes: true }));
    expect(await facts(built)).toBe("facts = [29999, 'Network is unreachable', '1700000000', '/build/source']\n");
    expect(built.lists.map((one) => basename(one))).toEqual([
      'python3-where_1.0-1~deb12_all.changes',
      'python3-where_1.0-1~deb12_all.buildinfo',
    ]);
    const [changes = ''] = built.lists;
    const lintian = await run(world.context, 'lintian', [changes], { okExitCodes: [1, 2] });
    expect(lintian.stderr).not.toContain('Warning in processable');
    expect(lintian.stdout.split('\n').filter((line) => /^[EW]: [^ ]+ changes:/.test(line))).toEqual([]);
    const again = await reproduce(python(), built.lists[1]!, { cwd: world.path });
    expect(again).toMatchObject({ identical: true, packages: [{ verdict: 'identical' }] });
  });

  it('says with `pkg diff` what is not the same any more', async () => {
    await writeFile(path('where/backend.py'), BACK_END.replace('where/__init__.py', 'where/other.py'));
    const info = path('out-where/python3-where_1.0-1~deb12_all.buildinfo');
    const again = await reproduce(python(), info, { cwd: world.path });
    expect(again.identical).toBe(false);
    expect(again.packages[0]!.diff!.differences.map((one) => one.name)).toContain(
      '/usr/lib/python3/dist-packages/where/other.py',
    );
  });

  /** Of the index: `where` as sdist, with these files more. */
  const makeSdist = async (version: string, metadata: string, files: Readonly<Record<string, string>>) => {
    const name = `where-${version}`;
    await makeProject(name);
    await writeFile(path(name, 'PKG-INFO'), `Metadata-Version: ${metadata}\nName: where\nVersion: ${version}\n`);
    for (const [file, text] of Object.entries(files)) await writeFile(path(name, file), text);
    await run(world.context, 'tar', ['-czf', path(`links/${name}.tar.gz`), '-C', world.path, name]);
  };

  it('builds an sdist of the index, whose code never runs here, not even for its metadata', async () => {
    const built = await buildPackages(python(), request('where==1.0', 'out-sdist'));
    expect(await facts(built)).toContain("[29999, 'Network is unreachable'");
    expect(await exists(path('evil-was-here'))).toBe(false);
    const again = await buildPackages(python(), request('where==1.0', 'out-sdist', { refresh: true }));
    expect([again.built, again.reused]).toEqual([0, 1]);
    // the same on this machine: there it writes where it likes
    await planBuild(python(), request('where==1.0', 'never', { isolation: 'host' }));
    expect(await readFile(path('evil-was-here'), 'utf8')).toBe('was here');
  });

  it('runs no code at all for metadata that PKG-INFO says for good', async () => {
    await makeSdist('2.0', '2.2', { 'backend.py': 'raise SystemExit("it ran")\n' });
    const plan = await planBuild(python(), request('where==2.0', 'never'));
    expect(plan.packages.map((one) => one.version)).toEqual(['2.0-1~deb12']);
    const failure = await refusal(buildPackages(python(), request('where==2.0', 'never')));
    expect(failure.message).toContain('it ran');
  });

  it('ends a back end that hangs while pip wants its metadata, and keeps its log', async () => {
    await makeSdist('3.0', '2.1', { hang: '' });
    const failure = await refusal(buildPackages(python(), request('where==3.0', 'never', { timeLimitMs: 6000 })));
    expect(failure.message).toBe("building 'where' took longer than 0.1 minutes");
    expect(await exists(/the whole log: (.*)$/.exec(failure.hint ?? '')![1]!)).toBe(true);
    expect(await cloneNames()).toEqual([]);
  });

  it('says which of the wheels that a build needs are not to be had', async () => {
    await makeProject('needing');
    await writeFile(
      path('needing/pyproject.toml'),
      '[build-system]\nrequires = ["nowhere>=2"]\nbuild-backend = "backend"\nbackend-path = ["."]\n',
    );
    const failure = await refusal(buildPackages(python(), request('./needing', 'never')));
    expect(failure.code).toBe('unresolvable');
    expect(failure.message).toContain("its build needs 'nowhere>=2', of which there are not all wheels");
  });

  it('makes wheels and sdists packages of trixie’s Python, which come and go there', { timeout: LONG }, async () => {
    await writeWheel(path('links'), {
      name: 'pure_needs',
      version: '1',
      files: { 'pure_needs/__init__.py': 'from where import facts\n' },
      metadata: ['Requires-Dist: where==1.0', 'Requires-Dist: nowhere; python_version < "3.13"'],
    });
    const wanted = request('pure-needs', 'out-trixie', { suite: 'trixie', isolation: 'auto' });
    const built = await buildPackages(python(), wanted);
    expect(built.packages.map((one) => `${one.name} ${one.version}`)).toEqual([
      'python3-pure-needs 1.0-1~deb13',
      'python3-where 1.0-1~deb13',
    ]);
    const { root: trixie } = await createRoot(world.context, { suite: 'trixie' });
    await using clone = await openClone(world.context, trixie, { control: controlOf(['python3-pip']) }, path('log'));
    for (const one of built.packages) await cp(one.path, join(clone.buildDir, basename(one.path)));
    const inside = (script: string) => clone.run({ user: 'root', script });
    const list = 'find /etc /usr /opt /srv /var/lib -xdev -not -path "/var/lib/dpkg*" | sort';
    const before = (await inside(list)).stdout;
    await inside('dpkg -i /build/*.deb');
    const { stdout } = await inside(
      'cd /; python3 -c "import sys, pure_needs; print(sys.version_info[:2], pure_needs.facts)"',
    );
    expect(stdout).toMatch(/^\(3, 13\) \[29999, /);
    expect((await inside('pip check')).stdout).toContain('No broken requirements');
    expect((await inside('dpkg -V')).stdout).toBe('');
    await inside(`dpkg -P ${built.packages.map((one) => one.name).join(' ')}`);
    expect((await inside(list)).stdout).toBe(before);
  });
});

/** Sources as apt finds them, from lists of their own. @returns the path of each .dsc */
async function fetchSources(wanted: Readonly<Record<string, string>>): Promise<string[]> {
  await mkdir(path('fetched/lists/partial'), { recursive: true });
  const lines = await Promise.all(
    Object.values(wanted).map(async (suite) => {
      const [main] = await debianSources(world.context, suite);
      return `deb-src [signed-by=${main!.signedBy}] ${main!.uris[0]} ${suite} main\n`;
    }),
  );
  await writeFile(path('fetched/sources.list'), lines.join(''));
  const options = [
    `Dir::Etc::SourceList=${path('fetched/sources.list')}`,
    'Dir::Etc::SourceParts=-',
    `Dir::State::Lists=${path('fetched/lists')}`,
    'APT::Sandbox::User=root',
  ].flatMap((option) => ['-o', option]);
  await run(world.context, 'apt-get', [...options, 'update', '-q'], { timeoutMs: 500_000 });
  const found: string[] = [];
  for (const [name, suite] of Object.entries(wanted)) {
    const folder = path('fetched', name);
    await mkdir(folder);
    const source = ['source', '-q', '--download-only', `${name}/${suite}`];
    await run(world.context, 'apt-get', [...options, ...source], { cwd: folder, timeoutMs: 500_000 });
    found.push(join(folder, (await readdir(folder)).find((file) => file.endsWith('.dsc'))!));
  }
  return found;
}

async function pidsOf(word: string): Promise<number[]> {
  const pids: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (line.split('\0').includes(word)) pids.push(Number(name));
  }
  return pids;
}

/** The buildkit above a process inside. */
async function nodeOf(pid: number): Promise<number> {
  const line = await readFile(`/proc/${pid}/cmdline`, 'utf8');
  if (line.includes('src/cli/main') || line.includes('main.ts') || line.includes('main.js')) return pid;
  const parent = /^PPid:\s*(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))![1];
  return nodeOf(Number(parent));
}

async function until<T>(body: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < 1500; tries += 1) {
    const value = await body();
    if (value !== undefined) return value;
    await sleep(100);
  }
  throw new Error('it did not happen');
}
