/** Where the cache listens and how it is found: several addresses, IPv6, sockets of systemd, port 3142, mDNS between two machines. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunningProgram, run, start } from '../../src/core/run.ts';
import { type Borrowed, borrow } from '../support/borrowed.ts';
import { freePort } from '../support/debian-root.ts';
import { connect, makeNamespace } from '../support/netns.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
const ASK = fileURLToPath(new URL('../support/mdns-ask.ts', import.meta.url));
const AVAHI = ['avahi-daemon', 'avahi-utils', 'libavahi-core7', 'libavahi-common3', 'libavahi-client3', 'libdaemon0'];
const BUS = ['dbus-daemon', 'libdbus-1-3', 'libapparmor1', 'libcap-ng0', 'libexpat1', 'libgdbm6'];

let folder: string;
let borrowed: Borrowed;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-proxy-network-'));
  borrowed = await borrow(['auto-apt-proxy', ...AVAHI, ...BUS]);
}, 180_000);
afterAll(async () => {
  await borrowed?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const serveArgs = (name: string, ...flags: readonly string[]) => [
  ...['-C', folder, '--state', join(folder, name)],
  ...['proxy', 'serve', ...flags],
];

/** The first `count` lines that a program prints. */
async function firstLines(program: RunningProgram, count: number): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of createInterface({ input: program.stdout as Readable })) {
    lines.push(line);
    if (lines.length === count) break;
  }
  return lines;
}

/** Repeats until the result is as wanted: daemons take their time. */
async function until<T>(look: () => Promise<T>, good: (value: T) => boolean): Promise<T> {
  const end = Date.now() + 60_000;
  for (;;) {
    const value = await look();
    if (good(value) || Date.now() > end) return value;
    await new Promise((next) => setTimeout(next, 200));
  }
}

const health = async (url: string) => (await (await fetch(`${url}/healthz`)).json()) as { service: string };

describe('listeners', () => {
  it('are several, IPv4 and IPv6, each printed', async () => {
    await using server = start({}, BUILDKIT, serveArgs('several', '--listen', '127.0.0.1:0', '[::1]:0', '127.0.0.1:0'));
    const urls = await firstLines(server, 3);
    expect(urls.map((url) => url.replace(/\d+$/, 'PORT'))).toEqual([
      'http://127.0.0.1:PORT',
      'http://[::1]:PORT',
      'http://127.0.0.1:PORT',
    ]);
    for (const url of urls) expect((await health(url)).service).toBe('buildkit proxy');
  }, 60_000);

  it('take no port that another program has, and then leave the cache alone', async () => {
    await using first = start({}, BUILDKIT, serveArgs('taken-1', '--listen', '127.0.0.1:0'));
    const [url] = await firstLines(first, 1);
    const address = new URL(url!).host;
    const second = await run({}, BUILDKIT, serveArgs('taken-2', '--listen', '127.0.0.1:0', address), {
      okExitCodes: [1],
      timeoutMs: 60_000,
    });
    expect([second.exitCode, second.stderr]).toEqual([1, expect.stringContaining('another program listens on')]);
    const third = await run({}, BUILDKIT, serveArgs('taken-1', '--listen', '127.0.0.1:0'), {
      okExitCodes: [1],
      timeoutMs: 60_000,
    });
    expect([third.exitCode, third.stderr]).toEqual([1, expect.stringContaining('the cache')]);
  }, 60_000);

  it('come from systemd, whatever the configuration says', async () => {
    const [one, two] = [await freePort(), await freePort()];
    const args = ['-l', `127.0.0.1:${one}`, '-l', `[::1]:${two}`, '-E', `PATH=${process.env.PATH}`];
    await using activated = start({}, 'systemd-socket-activate', [...args, BUILDKIT, ...serveArgs('systemd')]);
    const printed = firstLines(activated, 2);
    // it starts the program at the first connection, which waits in the socket until it is served
    const first = await until(
      () => health(`http://127.0.0.1:${one}`).catch(() => undefined),
      (answer) => answer !== undefined,
    );
    expect(first?.service).toBe('buildkit proxy');
    expect(await printed).toEqual([`http://127.0.0.1:${one}`, `http://[::1]:${two}`]);
    expect((await health(`http://[::1]:${two}`)).service).toBe('buildkit proxy');
  }, 90_000);
});

describe('between two machines', () => {
  it('is announced by mDNS, found by avahi, by auto-apt-proxy and by --proxy auto', async () => {
    await using server = await makeNamespace('pxa');
    await using client = await makeNamespace('pxb');
    await connect(
      { at: server, name: 'up0', address: '198.51.100.1/24' },
      { at: client, name: 'up0', address: '198.51.100.2/24' },
    );
    const flags = [
      '--allow-client',
      '198.51.100.0/24',
      '--announce',
      '--listen',
      '198.51.100.1:3142',
      '198.51.100.1:9999',
    ];
    await using proxy = start({}, 'ip', ['netns', 'exec', server.name, BUILDKIT, ...serveArgs('announced', ...flags)]);
    expect(await firstLines(proxy, 2)).toEqual(['http://198.51.100.1:3142', 'http://198.51.100.1:9999']);

    // squid-deb-proxy-client asks in these words
    await using bus = await startAvahi(client.name);
    const browse = () =>
      client.run(join(borrowed.path, 'usr/bin/avahi-browse'), ['-kprtf', '_apt_proxy._tcp'], {
        env: { ...borrowed.env, DBUS_SYSTEM_BUS_ADDRESS: bus.address },
        okExitCodes: [1],
      });
    const { stdout } = await until(browse, (result) => /^=.*;3142;/m.test(result.stdout));
    expect(stdout).toMatch(/^=;up0;IPv4;buildkit.*;_apt_proxy._tcp;local;[^;]+;198\.51\.100\.1;(3142|9999);/m);

    const found = await client.run(process.execPath, [ASK], { timeoutMs: 60_000 });
    expect(found.stdout.trim()).toMatch(/^198\.51\.100\.1:(3142|9999)$/);

    await client.run('ip', ['route', 'add', 'default', 'via', '198.51.100.1']);
    const detect = () =>
      client.run(join(borrowed.path, 'usr/bin/auto-apt-proxy'), [], {
        env: { AUTO_APT_PROXY_NO_CACHE: '1', TMPDIR: folder },
        timeoutMs: 120_000,
      });
    expect((await detect()).stdout.trim()).toBe('http://198.51.100.1:3142');
    // approx's name is what it looks for on the other port; apt-cacher-ng's answer would hide it there
    const page = await client.sh(
      'exec python3 -c "import urllib.request as u; print(u.urlopen(\'http://198.51.100.1:9999/\').read().decode())"',
    );
    expect(page.stdout).toMatch(/<title>approx\s*server<\/title>/i);
  }, 240_000);
});

/** A system bus and avahi of its own in a namespace; /run is the namespace's. */
async function startAvahi(namespace: string): Promise<{ address: string } & AsyncDisposable> {
  const address = `unix:path=${folder}/bus`;
  await writeFile(
    join(folder, 'bus.conf'),
    `<busconfig><type>system</type><listen>${address}</listen><auth>EXTERNAL</auth><policy context="default">` +
      '<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>',
  );
  await writeFile(
    join(folder, 'avahi.conf'),
    '[server]\nuse-ipv6=no\nallow-interfaces=up0\n[publish]\ndisable-publishing=yes\n[rlimits]\n',
  );
  const script = [
    'mount -t tmpfs none /run',
    'mkdir -p /run/avahi-daemon',
    `${borrowed.path}/usr/bin/dbus-daemon --config-file=${folder}/bus.conf --nofork &`,
    `while ! [ -S ${folder}/bus ]; do sleep 0.1; done`,
    `exec ${borrowed.path}/usr/sbin/avahi-daemon --no-drop-root --no-chroot --no-rlimits --no-proc-title -f ${folder}/avahi.conf`,
  ].join('\n');
  const daemon = start({}, 'ip', ['netns', 'exec', namespace, 'sh', '-eu', '-c', script], {
    env: { ...borrowed.env, DBUS_SYSTEM_BUS_ADDRESS: address },
    stdio: { stdout: 'ignore', stderr: 'ignore' },
  });
  return { address, [Symbol.asyncDispose]: () => daemon[Symbol.asyncDispose]() };
}
