/**
 * A machine on a bridge, in a network namespace that stands for this machine: boot on a tap, ssh to the guest's own address,
 * apt from a repository on the bridge address, nothing else reachable, everything gone afterwards.
 */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run, start } from '../../src/core/run.ts';
import { connect, makeNamespace, type Namespace, processesWith } from '../support/netns.ts';
import { createWorld, type World } from '../support/world.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
const NODE = resolve(import.meta.dirname, '../../node_modules/.bin/node');
const BUILD_MS = 900_000;
const BOOT_MS = 420_000;

let stack: AsyncDisposableStack;
let world: World;
let host: Namespace;
let outside: Namespace;
beforeAll(async () => {
  stack = new AsyncDisposableStack();
  world = stack.use(await createWorld());
  // built outside: the namespace knows no mirror
  await run({}, BUILDKIT, ['--state', world.path, 'vm', 'base', 'build', '--suite', 'bookworm'], {
    timeoutMs: BUILD_MS,
  });
  host = stack.use(await makeNamespace('host'));
  outside = stack.use(await makeNamespace('world'));
  await connect(
    { at: host, name: 'up0', address: '203.0.113.2/24' },
    { at: outside, name: 'host0', address: '203.0.113.1/24' },
  );
  await host.run('ip', ['route', 'add', 'default', 'via', '203.0.113.1']);
  await serve(outside, 8080, world.path);
}, BUILD_MS);
afterAll(() => stack.disposeAsync());

const vm = (args: string[], okExitCodes: number[] = []) =>
  host.run(BUILDKIT, ['--state', world.path, 'vm', ...args], { okExitCodes, timeoutMs: BOOT_MS });

/** Serves `folder` inside a namespace; prints each request. */
async function serve(at: Namespace, port: number, folder: string): Promise<void> {
  const script = `const { createReadStream, existsSync } = require('fs');
    require('http').createServer((q, s) => {
      const file = ${JSON.stringify(folder)} + q.url;
      if (!existsSync(file) || q.url.endsWith('/')) return s.writeHead(404).end();
      createReadStream(file).pipe(s);
    }).listen(${port}, '0.0.0.0', () => console.log('ready'))`;
  const program = stack.use(start({}, 'ip', ['netns', 'exec', at.name, NODE, '-e', script]));
  await new Promise<void>((done) => program.stdout.once('data', () => done()));
}

/** A small repository, unsigned: signing has its own tests. */
async function writeRepository(folder: string): Promise<void> {
  const tree = join(world.path, 'greeting');
  await mkdir(join(tree, 'DEBIAN'), { recursive: true });
  const control = [
    'Package: greeting',
    'Version: 1.0',
    'Architecture: all',
    'Maintainer: T <t@example.org>',
    'Description: x',
    '',
  ];
  await writeFile(join(tree, 'DEBIAN/control'), control.join('\n'));
  await mkdir(folder);
  await run({}, 'dpkg-deb', ['--root-owner-group', '-b', tree, join(folder, 'greeting.deb')]);
  const { stdout } = await run({}, 'apt-ftparchive', ['packages', '.'], { cwd: folder });
  await writeFile(join(folder, 'Packages.gz'), gzipSync(stdout));
}

describe('a machine on a bridge', () => {
  it(
    'is reached at its address, installs from the bridge address, reaches nothing else, and leaves nothing',
    async () => {
      const before = await host.snapshot();
      await writeRepository(join(world.path, 'repo'));
      await serve(host, 8080, join(world.path, 'repo'));
      await vm(['create', '10']);
      const started = JSON.parse(
        (await vm(['start', 'buildkit10', '--bridge', 'br0', '--tap', 'qtap0', '--isolated', '--json'])).stdout,
      );
      expect(started).toMatchObject({ sshHost: '192.168.100.10', sshPort: 22 });
      const [network] = JSON.parse((await vm(['net', 'status', '--json'])).stdout);
      expect(network).toMatchObject({
        up: true,
        isolated: true,
        taps: [{ name: 'qtap0', there: true, vm: 'buildkit10' }],
      });

      const inside = async (script: string) =>
        (await vm(['run', 'buildkit10', '--', 'sh', '-c', script], [0, 1, 100])).stdout;
      expect(await inside('ip -4 -br address show | grep -v ^lo')).toMatch(/ 192\.168\.100\.10\/24 /);
      expect(await inside('getent hosts host.buildkit')).toMatch(/^192\.168\.100\.254 /);
      const source = 'deb [trusted=yes] http://host.buildkit:8080 ./';
      const apt = '-o Dir::Etc::sourceparts=/dev/null -o Acquire::Retries=0';
      const install = `echo '${source}' >/etc/apt/sources.list; apt-get ${apt} update && apt-get ${apt} -y install greeting; echo exit $?`;
      expect(await inside(install)).toMatch(/Setting up greeting[\s\S]*exit 0\n$/);
      const reach = (address: string) =>
        inside(`timeout 10 bash -c 'echo >/dev/tcp/${address}/8080' 2>/dev/null && echo reached || echo refused`);
      expect(await reach('192.168.100.254')).toBe('reached\n');
      expect(await reach('203.0.113.1')).toBe('refused\n');
      expect(await reach('203.0.113.2')).toBe('refused\n');

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
    'goes out by NAT; after kill -9 of QEMU gc gives the tap and the network back',
    async () => {
      const before = await host.snapshot();
      await vm(['create', '11', '--name', 'web']);
      await vm(['start', 'web', '--bridge', 'br0']);
      const out = `timeout 10 bash -c 'echo >/dev/tcp/203.0.113.1/8080' && echo reached`;
      expect((await vm(['run', 'web', '--', 'sh', '-c', out])).stdout).toBe('reached\n');
      const { pid } = JSON.parse((await vm(['status', 'web', '--json'])).stdout);
      process.kill(pid, 'SIGKILL');
      const status = async () => (await vm(['status', 'web', '--json'], [0, 1])).stdout;
      await expect.poll(status, { timeout: 30_000 }).toContain('"dead"');
      expect((await vm(['gc'])).stdout).toContain("tap qtap11 of machine 'web', network 'default'");
      expect(await host.snapshot()).toBe(before);
      expect(await readdir(join(world.path, 'vm/net'))).toEqual(['lock']);
      await vm(['destroy', 'web']);
      const left = await processesWith(world.path);
      expect(left.filter((line) => !line.includes('createServer'))).toEqual([]); // those are the test's own
      expect((await readFile('/proc/mounts', 'utf8')).includes(world.path)).toBe(false);
    },
    BOOT_MS,
  );
});
