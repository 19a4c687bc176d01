/**
 * A machine on a bridge, in a network namespace that stands for this machine: boot on a tap, apt through the proxy and from a
 * signed repository, both on the bridge address, nothing else reachable, ssh to the guest's own address, everything gone afterwards.
 */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run, start } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { connect, makeNamespace, type Namespace, processesWith } from '../support/netns.ts';
import { makePackage } from '../support/packages.ts';
import { takeBases } from '../support/vm-world.ts';
import { createWorld, type World } from '../support/world.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
const NODE = resolve(import.meta.dirname, '../../node_modules/.bin/node');
const BUILD_MS = 900_000;
const BOOT_MS = 420_000;
/** What lies behind the host's uplink. */
const OUTSIDE = '203.0.113.1';
const BRIDGE = '192.168.100.254';

let stack: AsyncDisposableStack;
let world: World;
let state: string;
let host: Namespace;
let outside: Namespace;
beforeAll(async () => {
  stack = new AsyncDisposableStack();
  world = stack.use(await createWorld());
  state = process.env.BUILDKIT_TEST_STATE ?? world.context.stateDir;
  // built outside: the namespace knows no mirror
  await takeBases(world.context);
  await run({}, BUILDKIT, ['--state', state, 'vm', 'base', 'build', '--suite', 'bookworm'], { timeoutMs: BUILD_MS });
  host = stack.use(await makeNamespace('host'));
  outside = stack.use(await makeNamespace('world'));
  await connect(
    { at: host, name: 'up0', address: '203.0.113.2/24' },
    { at: outside, name: 'host0', address: `${OUTSIDE}/24` },
  );
  await host.run('ip', ['route', 'add', 'default', 'via', OUTSIDE]);
}, BUILD_MS);
afterAll(() => stack.disposeAsync());

const place = () => ['-C', world.path, '--state', state];
const vm = (args: string[], okExitCodes: number[] = []) =>
  host.run(BUILDKIT, [...place(), 'vm', ...args], { okExitCodes, timeoutMs: BOOT_MS });

/** Starts a server inside a namespace and waits for the first line that it prints. */
async function serve(at: Namespace, ...argv: string[]): Promise<void> {
  const program = stack.use(start({}, 'ip', ['netns', 'exec', at.name, ...argv]));
  program.stderr.resume();
  for await (const _line of createInterface({ input: program.stdout as Readable })) break;
}

/** The files of `folder`, without another word. */
function serveFiles(at: Namespace, port: number, folder: string): Promise<void> {
  const script = `const { createReadStream, existsSync, statSync } = require('fs');
    require('http').createServer((q, s) => {
      const file = ${JSON.stringify(folder)} + q.url;
      if (!existsSync(file) || !statSync(file).isFile()) return s.writeHead(404).end();
      s.setHeader('Last-Modified', statSync(file).mtime.toUTCString());
      createReadStream(file).pipe(s);
    }).listen(${port}, '0.0.0.0', () => console.log('ready'))`;
  return serve(at, NODE, '-e', script);
}

/** A signed repository below `folder` with the package `name`. @returns its entry for clients that find it at `url` */
async function publish(folder: string, name: string, depends: string, url: string): Promise<string> {
  using repo = await Repo.init(world.context, join(world.path, folder), {
    ...{
      origin: folder,
      label: folder,
      suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
    },
  });
  const made = await makePackage(world.context, join(world.path, `in-${folder}`), {
    ...{ name, fields: depends === '' ? {} : { Depends: depends } },
  });
  await repo.add('bookworm', [made.path]);
  await repo.publish();
  return await repo.sources('bookworm', { url });
}

describe('a machine that cannot start', () => {
  it('says which port is used, which right or number is missing, and how to do without; nothing is left', async () => {
    const before = await host.snapshot();
    await vm(['create', '12']);
    await vm(['create', 'plain']);
    await serveFiles(host, 4444, world.path);
    const refused = async (...args: string[]) => {
      const { exitCode, stderr } = await vm(['start', ...args], [1, 3]);
      expect(exitCode).not.toBe(0);
      return stderr;
    };
    expect(await refused('12', '-p', '4444:80')).toContain(
      'a port that the machine shall have belongs to another program',
    );
    expect(await refused('plain', '--bridge', 'br0')).toContain("machine 'plain' has no number");
    expect(await refused('12', '--bridge', 'br0', '-p', '4445:80')).toContain(
      'on a bridge the machine has an address of its own',
    );
    const unprivileged = ['--bounding-set=-net_admin', '--', BUILDKIT, ...place()];
    const missing = await host.run('setpriv', [...unprivileged, 'vm', 'start', '12', '--bridge', 'br0'], {
      okExitCodes: [1],
    });
    expect(missing.stderr).toContain('CAP_NET_ADMIN is missing');
    expect(missing.stderr).toContain('vm start NAME without --bridge');
    const { stdout } = await vm(['list', '--json']);
    expect(JSON.parse(stdout).map((one: { state: string }) => one.state)).toEqual(['stopped', 'stopped']);
    await vm(['destroy', 'buildkit12', 'plain']);
    expect(await host.snapshot()).toBe(before);
  });
});

describe('a machine on an isolated bridge', () => {
  it(
    'updates through the proxy, installs from the bridge address, reaches nothing else, and leaves nothing',
    async () => {
      const key = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
      await new KeyStore(world.context).generate(key);
      const sources = [
        await publish('own', 'greeting', 'words', 'http://host.buildkit:8080/'),
        await publish('upstream', 'words', '', `http://${OUTSIDE}:8000/`),
      ];
      const proxy = {
        ...{ dir: 'cache', listen: ['0.0.0.0:9999'], 'inner-hosts': [OUTSIDE] },
        backends: { upstream: { mirrors: [`http://${OUTSIDE}:8000/`] } },
        keyrings: ['upstream/public/archive-key.gpg'],
      };
      await writeFile(join(world.path, 'buildkit.yaml'), JSON.stringify({ repo: { dir: 'own' }, proxy }));
      const log = join(world.path, 'access.log');
      await serveFiles(outside, 8000, join(world.path, 'upstream/public'));

      const before = await host.snapshot();
      await vm(['create', '10', '--proxy', 'auto']);
      const started = JSON.parse(
        (await vm(['start', 'buildkit10', '--bridge', 'br0', '--tap', 'qtap0', '--isolated', '--json'])).stdout,
      );
      expect(started).toMatchObject({ sshHost: '192.168.100.10', sshPort: 22 });
      const [network] = JSON.parse((await vm(['net', 'status', '--json'])).stdout);
      expect(network).toMatchObject({
        ...{ up: true, isolated: true, taps: [{ name: 'qtap0', there: true, vm: 'buildkit10' }] },
      });
      await serve(host, BUILDKIT, ...place(), 'proxy', 'serve', '--access-log', log);
      await serve(host, BUILDKIT, ...place(), 'repo', 'serve', '--listen', `${BRIDGE}:8080`);
      await serveFiles(host, 7777, world.path);

      const inside = async (script: string, ...more: string[]) => {
        const { exitCode, stdout, stderr } = await vm(
          ['run', 'buildkit10', '--', 'sh', '-c', script, ...more],
          [1, 100],
        );
        return `${stdout}${stderr}exit ${exitCode}\n`;
      };
      expect(await inside('ip -4 -br address show | grep -v ^lo')).toMatch(/ 192\.168\.100\.10\/24 /);
      expect(await inside('getent hosts host.buildkit')).toMatch(/^192\.168\.100\.254 /);
      const install = `cd /etc/apt/sources.list.d && rm -f * && echo "$1" >test.sources
        apt-get -o APT::Update::Error-Mode=any update && apt-get -y install greeting`;
      const installed = await inside(install, 'sh', sources.join('\n'));
      expect(installed).toMatch(/Setting up words[\s\S]*Setting up greeting[\s\S]*exit 0\n$/);
      const asked = await readFile(log, 'utf8');
      expect(asked).toContain('192.168.100.10');
      for (const file of ['InRelease', 'words_1.0_all.deb']) expect(asked).toMatch(new RegExp(`:8000/\\S*${file}`));
      expect(asked).not.toContain('greeting'); // what this machine serves itself goes without the proxy

      const reach = async (...addresses: string[]) => {
        const knock = `timeout 10 bash -c 'echo >/dev/tcp/$0/$1' $a 2>/dev/null && echo "$a reached" || echo "$a refused"`;
        const ports = addresses.map((one) => `'${one.replace(':', ' ')}'`).join(' ');
        return (await inside(`for a in ${ports}; do ${knock}; done`)).trimEnd().split('\n').slice(0, -1);
      };
      expect(
        await reach(`${BRIDGE}:9999`, `${BRIDGE}:8080`, `${BRIDGE}:7777`, '203.0.113.2:9999', `${OUTSIDE}:8000`),
      ).toEqual([
        ...[`${BRIDGE} 9999 reached`, `${BRIDGE} 8080 reached`, `${BRIDGE} 7777 refused`],
        ...['203.0.113.2 9999 refused', `${OUTSIDE} 8000 refused`],
      ]);

      const { include } = JSON.parse((await vm(['ssh-config', '--json'])).stdout);
      const ssh = ['-F', include, '-o', 'BatchMode=yes', 'buildkit10.vm.buildkit', 'hostname'];
      expect((await host.run('ssh', ssh, { timeoutMs: 60_000 })).stdout).toBe('buildkit10\n');

      const busy = await vm(['net', 'down'], [1]);
      expect(busy.stderr).toContain("network 'default' is in use by 'buildkit10'");
      expect((await vm(['stop', 'buildkit10'])).stdout).toContain('is stopped (it shut down)');
      expect(await host.snapshot()).toBe(before);
      await vm(['destroy', 'buildkit10']);
    },
    BOOT_MS * 2,
  );

  it(
    'that was killed with its QEMU while it started is told dead; gc gives the tap and the network back',
    async () => {
      const before = await host.snapshot();
      await vm(['create', '11', '--name', 'web']);
      const starting = start({}, 'ip', [
        'netns',
        'exec',
        host.name,
        BUILDKIT,
        ...place(),
        'vm',
        'start',
        'web',
        '--bridge',
        'br0',
      ]);
      const status = async () => JSON.parse((await vm(['status', 'web', '--json'], [1])).stdout);
      await expect.poll(status, { timeout: 120_000 }).toMatchObject({ state: 'running', sshHost: '192.168.100.11' });
      const { pid } = await status();
      process.kill(starting.pid, 'SIGKILL');
      process.kill(pid, 'SIGKILL');
      await starting[Symbol.asyncDispose]();
      await expect.poll(status, { timeout: 30_000 }).toMatchObject({ state: 'dead' });
      expect((await vm(['gc'])).stdout).toContain("tap qtap11 of machine 'web', network 'default'");
      expect(await host.snapshot()).toBe(before);
      expect(await readdir(join(state, 'vm/net'))).toEqual(['lock']);
      await vm(['destroy', 'web']);
      expect(await processesWith(`${state}/vm`)).toEqual([]);
      expect((await readFile('/proc/mounts', 'utf8')).includes(world.path)).toBe(false);
    },
    BOOT_MS,
  );
});
