/**
 * `vm net` with the real ip, nft and dnsmasq, in network namespaces of the test's own: `host` stands for this machine,
 * `world` for what lies behind its uplink, `guest` and `other` for machines.
 */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { start } from '../../src/core/run.ts';
import { connect, makeNamespace, type Namespace, processesWith } from '../support/netns.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
const NODE = resolve(import.meta.dirname, '../../node_modules/.bin/node');

let state: string;
let stack: AsyncDisposableStack;
let host: Namespace;
let world: Namespace;
let guest: Namespace;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  state = await mkdtemp(join(tmpdir(), 'buildkit-net-'));
  stack.defer(() => rm(state, { recursive: true, force: true }));
  host = stack.use(await makeNamespace('host'));
  world = stack.use(await makeNamespace('world'));
  guest = stack.use(await makeNamespace('guest'));
  await connect(
    { at: host, name: 'up0', address: '203.0.113.2/24' },
    { at: world, name: 'host0', address: '203.0.113.1/24' },
  );
  await host.run('ip', ['route', 'add', 'default', 'via', '203.0.113.1']);
});
afterEach(() => stack.disposeAsync());

const vm = (args: string[]) => host.run(BUILDKIT, ['--state', state, 'vm', ...args]);

const net = (args: string[], options: { ok?: number[]; state?: string } = {}) =>
  host.run(BUILDKIT, ['--state', options.state ?? state, 'vm', 'net', ...args], { okExitCodes: options.ok ?? [] });

/** Puts `machine` on the bridge, with a static address or none. */
async function plugIn(machine: Namespace, number: number, options: { bridge?: string; subnet?: string } = {}) {
  const { bridge = 'br0', subnet = '192.168.100' } = options;
  const mac = `52:54:00:${subnet
    .split('.')
    .slice(1)
    .concat(String(number))
    .map((octet) => Number(octet).toString(16).padStart(2, '0'))
    .join(':')}`;
  await connect({ at: host, name: `veth${number}` }, { at: machine, name: 'eth0', mac });
  await host.run('ip', ['link', 'set', `veth${number}`, 'master', bridge]);
  return {
    mac,
    static: async () => {
      await machine.run('ip', ['address', 'add', `${subnet}.${number}/24`, 'dev', 'eth0']);
      await machine.run('ip', ['route', 'add', 'default', 'via', `${subnet}.254`]);
    },
  };
}

/** What an HTTP server inside `at` on `port` answers: the address it sees its client at. */
function serve(at: Namespace, port: number) {
  const script = `require('http').createServer((q, s) => s.end(q.socket.remoteAddress)).listen(${port}, '0.0.0.0', () => console.log('ready'))`;
  const program = stack.use(start({}, 'ip', ['netns', 'exec', at.name, NODE, '-e', script]));
  return new Promise<void>((done) => program.stdout.once('data', () => done()));
}

/** @param limitMs short only where packets are dropped without a word */
async function get(from: Namespace, url: string, limitMs = 60_000): Promise<string> {
  const script = `fetch('${url}', { signal: AbortSignal.timeout(${limitMs}) }).then((r) => r.text()).then(console.log, (e) => console.log('failed', e.cause?.code ?? e.name))`;
  return (await from.run(NODE, ['-e', script])).stdout.trim();
}

async function ask(from: Namespace, server: string, name: string): Promise<string> {
  const script = `const r = new (require('dns').promises.Resolver)({ timeout: 60000, tries: 1 }); r.setServers(['${server}']); r.resolve4('${name}').then((a) => console.log(a.join()), (e) => console.log('failed', e.code))`;
  return (await from.run(NODE, ['-e', script])).stdout.trim();
}

/** Runs library code inside the namespace. @returns what it prints, as JSON */
async function library(code: string): Promise<unknown> {
  const net = resolve(import.meta.dirname, '../../src/vm/net.ts');
  const spec = resolve(import.meta.dirname, '../../src/vm/net-spec.ts');
  const log = 'new Proxy({}, { get: () => () => {} })';
  const script = `import * as net from ${JSON.stringify(net)};
    import { DEFAULT_NETWORK } from ${JSON.stringify(spec)};
    const context = { stateDir: ${JSON.stringify(state)}, env: process.env, signal: new AbortController().signal, log: ${log} };
    const result = await (async () => { ${code} })().catch((error) => ({ code: error.code, message: error.message }));
    console.log(JSON.stringify(result ?? null));`;
  return JSON.parse((await host.run(NODE, ['--input-type=module', '-e', script])).stdout);
}

async function succeed(code: string): Promise<void> {
  expect(JSON.stringify(await library(`${code} return null;`))).toBe('null');
}

describe('machines on a network', () => {
  it('bring it up with the first and down with the last', async () => {
    const before = await host.snapshot();
    const join = (name: string, number: number) =>
      library(`return net.joinNetwork(context, DEFAULT_NETWORK, { name: '${name}', number: ${number} });`);
    expect(await join('web', 10)).toEqual({
      network: 'default',
      bridge: 'br0',
      tap: 'qtap10',
      address: '192.168.100.10',
      mac: '52:54:00:a8:64:0a',
      gateway: '192.168.100.254',
      prefixLength: 24,
      dns: false,
    });
    expect(await join('db', 11)).toMatchObject({ tap: 'qtap11' });
    expect(await join('thief', 10)).toMatchObject({ code: 'net-seat-taken' });
    expect((await net(['down'], { ok: [1] })).stderr).toContain("in use by 'web', 'db'");
    await succeed(`await net.leaveNetwork(context, 'default', 'web');`);
    const [status] = JSON.parse((await net(['status', '--json'])).stdout);
    expect(status).toMatchObject({ up: true, taps: [{ name: 'qtap11', vm: 'db' }] });
    // a second time changes nothing
    await succeed(`await net.leaveNetwork(context, 'default', 'web');`);
    await succeed(`await net.leaveNetwork(context, 'default', 'db');`);
    expect(await host.snapshot()).toBe(before);
  });

  it('sit on a network that the user brought up, and leave it as it was', async () => {
    await net(['up', '--dns']);
    const before = await host.snapshot();
    await succeed(`await net.joinNetwork(context, DEFAULT_NETWORK, { name: 'web', number: 10, tap: 'qtap0' });
      await net.joinNetwork(context, DEFAULT_NETWORK, { name: 'db', number: 11 });`);
    expect(await ask(host, '192.168.100.254', 'db.vm.buildkit')).toBe('192.168.100.11');
    // bringing it up again takes no machine's place away
    expect((await net(['up', '--dns'])).stdout).toBe("network 'default' is up already\n");
    await succeed(
      `await net.leaveNetwork(context, 'default', 'web'); await net.leaveNetwork(context, 'default', 'db');`,
    );
    expect(await host.snapshot()).toBe(before);
    await net(['down']);
  });

  it('that died are taken off by gc, with the network that they kept up; those at work are not', async () => {
    const before = await host.snapshot();
    await succeed(`await net.joinNetwork(context, DEFAULT_NETWORK, { name: 'web', number: 10 });
      await net.joinNetwork(context, DEFAULT_NETWORK, { name: 'db', number: 11 });`);
    const collect = (alive: string) => library(`return net.collectNetworks(context, async (vm) => vm === '${alive}');`);
    expect(await collect('db')).toEqual(["tap qtap10 of machine 'web'"]);
    expect(await collect('')).toEqual(["tap qtap11 of machine 'db'", "network 'default'"]);
    expect(await collect('')).toEqual([]);
    expect(await host.snapshot()).toBe(before);
  });

  it('are forgotten after a reboot, and left to those who are in another namespace', async () => {
    const file = join(state, 'vm/net/default.json');
    await net(['up']);
    const elsewhere = await world.run(BUILDKIT, ['--state', state, 'vm', 'net', 'down'], { okExitCodes: [1] });
    expect(elsewhere.stderr).toContain('in another network namespace');
    const seen = await world.run(BUILDKIT, ['--state', state, 'vm', 'net', 'status']);
    expect(seen.stdout).toContain('it was brought up in another network namespace');
    {
      await using gone = await makeNamespace('gone');
      await gone.run(BUILDKIT, ['--state', state, 'vm', 'net', 'up', 'gone', '--bridge', 'br7', '--isolated']);
    }
    expect((await net(['down', 'gone'])).stdout).toBe("network 'gone' is not up\n");
    await net(['down']);
    await net(['up']);
    const record = JSON.parse(await readFile(file, 'utf8'));
    await host.sh('ip link delete br0; ip link delete qtap0; nft delete table inet buildkit_default');
    await writeFile(file, JSON.stringify({ ...record, world: { ...record.world, bootId: 'of an earlier boot' } }));
    await host.sh('ip link add br0 type bridge');
    expect(await library(`return net.collectNetworks(context, async () => false);`)).toEqual([]);
    expect(await readdir(join(state, 'vm/net'))).toEqual(['lock']);
    expect((await host.run('ip', ['-br', 'link', 'show', 'br0'])).stdout).toContain('br0');
  });
});

describe('vm net', () => {
  it('is up, up again without a step, seen as up, and down to the byte', async () => {
    const before = await host.snapshot();
    const planned = JSON.parse((await net(['up', '--dhcp', '--dns', '--dry-run', '--json'])).stdout);
    expect(await host.snapshot()).toBe(before);
    const done = JSON.parse((await net(['up', '--dhcp', '--dns', '--json'])).stdout);
    expect(done.steps).toEqual(planned.map(({ what }: { what: string }) => what));
    expect((await net(['up', '--dhcp', '--dns'])).stdout).toBe("network 'default' is up already\n");
    const [status] = JSON.parse((await net(['status', '--json'])).stdout);
    expect(status).toMatchObject({ name: 'default', up: true, bridge: 'br0', uplink: 'up0', missing: [] });
    expect(await processesWith(state)).toHaveLength(1);

    await net(['down']);
    expect(await host.snapshot()).toBe(before);
    expect(await processesWith(state)).toEqual([]);
    expect(await readdir(join(state, 'vm/net'))).toEqual(['lock']);
    expect((await net(['down'])).stdout).toBe("network 'default' is not up\n");
  });

  it('leads guests out by NAT, lets the host in to them and the world not', async () => {
    await net(['up']);
    await (await plugIn(guest, 10)).static();
    await serve(world, 8000);
    await serve(guest, 8001);
    expect(await get(guest, 'http://203.0.113.1:8000/')).toBe('203.0.113.2');
    expect(await get(host, 'http://192.168.100.10:8001/')).toBe('192.168.100.254');
    await world.run('ip', ['route', 'add', '192.168.100.0/24', 'via', '203.0.113.2']);
    expect(await get(world, 'http://192.168.100.10:8001/', 3000)).toMatch(/^failed/);
  });

  it('gives the lease and the names of the number scheme', async () => {
    await net(['up', '--dhcp', '--dns', '--guest', '10=web']);
    await plugIn(guest, 10);
    const script = join(state, 'udhcpc.sh');
    await writeFile(script, '#!/bin/sh\n[ "$1" = bound ] || exit 0\nenv > "$OUT"\n', { mode: 0o755 });
    const out = join(state, 'lease');
    await guest.run('udhcpc', ['-i', 'eth0', '-n', '-q', '-f', '-s', script], { env: { OUT: out }, timeoutMs: 60_000 });
    const lease = await readFile(out, 'utf8');
    expect(lease).toMatch(/^ip=192\.168\.100\.10$/m);
    expect(lease).toMatch(/^router=192\.168\.100\.254$/m);
    expect(lease).toMatch(/^dns=192\.168\.100\.254$/m);
    const [status] = JSON.parse((await net(['status', '--json'])).stdout);
    expect(status.leases).toEqual([{ mac: '52:54:00:a8:64:0a', address: '192.168.100.10', name: 'web' }]);

    await guest.run('ip', ['address', 'add', '192.168.100.10/24', 'dev', 'eth0']);
    const names = ['web.vm.buildkit', 'buildkit10.vm.buildkit', 'buildkit77.vm.buildkit', 'host.buildkit'];
    expect(await Promise.all(names.map((name) => ask(guest, '192.168.100.254', name)))).toEqual([
      '192.168.100.10',
      '192.168.100.10',
      '192.168.100.77',
      '192.168.100.254',
    ]);
    expect(await ask(guest, '192.168.100.254', 'nothing.vm.buildkit')).toBe('failed ENOTFOUND');
    expect(await ask(host, '192.168.100.254', 'web.vm.buildkit')).toBe('192.168.100.10');
  });

  it('isolated: reaches the given ports on the bridge address and nothing else, also when the host forwards', async () => {
    await host.sh('echo 1 > /proc/sys/net/ipv4/ip_forward');
    await net(['up', '--isolated', '--dhcp', '--dns', '--port', '9999']);
    await (await plugIn(guest, 10)).static();
    await Promise.all([serve(world, 8000), serve(host, 9999), serve(host, 7777)]);
    expect(await get(guest, 'http://192.168.100.254:9999/')).toBe('192.168.100.10');
    expect(await get(guest, 'http://192.168.100.254:7777/')).toMatch(/^failed/);
    expect(await get(guest, 'http://203.0.113.2:9999/')).toMatch(/^failed/);
    expect(await get(guest, 'http://203.0.113.1:8000/')).toMatch(/^failed/);
    expect(await get(host, 'http://203.0.113.1:8000/')).toBe('203.0.113.2');
    expect(await ask(guest, '192.168.100.254', 'host.buildkit')).toBe('192.168.100.254');
    // a name of the world must not carry anything out
    expect(await ask(guest, '192.168.100.254', 'secret.example.org')).toMatch(/^failed (ENOTFOUND|EREFUSED)$/);
    expect((await guest.sh('busybox ping -c 1 -W 3 192.168.100.254 >/dev/null && echo reached')).stdout).toBe(
      'reached\n',
    );
  });

  it('keeps several apart, each out by its own uplink; one that goes leaves the others as they were', async () => {
    const [second, other, more, shut] = await Promise.all(
      ['second', 'other', 'more', 'shut'].map(async (name) => stack.use(await makeNamespace(name))),
    );
    await connect(
      { at: host, name: 'up1', address: '198.51.100.2/24' },
      { at: second!, name: 'host1', address: '198.51.100.1/24' },
    );
    await host.run('ip', ['route', 'add', 'default', 'via', '198.51.100.1', 'metric', '500']);
    // the same address behind both uplinks: who answers says which way it went
    for (const at of [world, second!]) await at.run('ip', ['address', 'add', '192.0.2.80/32', 'dev', 'lo']);
    const plain = await host.snapshot();
    await net(['up', '--dhcp', '--dns']);
    await net(['up', 'more', '--bridge', 'br3', '--address', '192.168.103.254/24']);
    await net(['up', 'shut', '--bridge', 'br2', '--address', '192.168.102.254/24', '--isolated', '--dns']);
    const three = await host.snapshot();
    const lab = ['up', 'lab', '--bridge', 'br1', '--address', '192.168.101.254/24', '--uplink', 'up1', '--dhcp'];
    const taps = ['--tap', 'qtap1', '--tap', 'qtap2'];
    await net([...lab, ...taps]);
    const four = await host.snapshot();
    expect((await net([...lab, ...taps])).stdout).toBe("network 'lab' is up already\n");
    expect((await net(['up', '--dhcp', '--dns'])).stdout).toBe("network 'default' is up already\n");
    const status = JSON.parse((await net(['status', '--json'])).stdout);
    expect(status.map((one: Record<string, unknown>) => [one.name, one.up, one.uplink ?? 'none'])).toEqual([
      ['default', true, 'up0'],
      ['lab', true, 'up1'],
      ['more', true, 'up0'],
      ['shut', true, 'none'],
    ]);
    expect(await host.snapshot()).toBe(four);

    await (await plugIn(guest, 10)).static();
    await (await plugIn(other!, 11, { bridge: 'br1', subnet: '192.168.101' })).static();
    await (await plugIn(shut!, 12, { bridge: 'br2', subnet: '192.168.102' })).static();
    await (await plugIn(more!, 13, { bridge: 'br3', subnet: '192.168.103' })).static();
    await Promise.all([serve(other!, 8000), serve(world, 8000), serve(second!, 8000)]);
    const outside = 'http://192.0.2.80:8000/';
    expect(await Promise.all([guest, other!, more!].map((at) => get(at, outside)))).toEqual([
      '203.0.113.2',
      '198.51.100.2',
      '203.0.113.2',
    ]);
    const refused = [
      get(shut!, outside),
      get(guest, 'http://192.168.101.11:8000/'),
      get(other!, 'http://203.0.113.1:8000/'),
    ];
    for (const answer of await Promise.all(refused)) expect(answer).toMatch(/^failed/);
    for (const number of [10, 11, 12, 13]) await host.run('ip', ['link', 'delete', `veth${number}`]);
    await net(['down', 'lab']);
    expect(await host.snapshot()).toBe(three);
    await net(['down', 'shut']);
    await net(['down']);
    // two of them shared the uplink's switch
    expect((await host.sh('cat /proc/sys/net/ipv4/conf/up0/forwarding')).stdout).toBe('1\n');
    await net(['down', 'more']);
    expect(await host.snapshot()).toBe(plain);
  });

  it('touches nothing of others: their bridge, their table, their switch', async () => {
    await host.sh(`echo 1 > /proc/sys/net/ipv4/ip_forward
      ip link add name br0 address 02:00:00:00:00:01 type bridge
      ip link add name other0 type veth peer name other1
      ip link set other0 master br0 up
      ip link set other1 up
      ip link set br0 up
      until ip link show br0 | grep -q 'state UP'; do sleep 0.1; done
      nft 'add table inet mine; add chain inet mine c { type filter hook forward priority 0; policy drop; }'`);
    const before = await host.snapshot();
    const up = await net(['up']);
    expect(up.stderr).toContain('another firewall drops forwarded packets (inet mine c)');
    await net(['down']);
    expect(await host.snapshot()).toBe(before);
    // one that was made anew under the same name, while ours was away, is not ours
    await host.run('ip', ['link', 'delete', 'br0']);
    await net(['up']);
    await host.sh('ip link delete br0; ip link add br0 type bridge');
    await net(['down']);
    expect((await host.run('ip', ['-br', 'link', 'show', 'br0'])).stdout).toContain('br0');
  });

  it('says every obstacle at once and changes nothing', async () => {
    const before = await host.snapshot();
    const refused = await net(['up', '--uplink', 'nope0', '--address', '203.0.113.254/24', '--tap', 'lo'], { ok: [1] });
    expect(refused.stderr).toContain("there is no interface 'nope0'");
    expect(refused.stderr).toContain("203.0.113.254/24 overlaps 203.0.113.2/24 of 'up0'");
    expect(refused.stderr).toContain("'lo' is there and is no tap");
    const unprivileged = await host.run(
      'setpriv',
      ['--bounding-set=-net_admin', '--', BUILDKIT, '--state', state, 'vm', 'net', 'up'],
      { okExitCodes: [1] },
    );
    expect(unprivileged.stderr).toContain('CAP_NET_ADMIN is missing');
    expect(unprivileged.stderr).toContain('buildkit vm start NAME');
    expect(await host.snapshot()).toBe(before);
  });

  it('undoes a failed start: dnsmasq cannot have the port', async () => {
    const before = await host.snapshot();
    const script = `require('dgram').createSocket('udp4').bind(53, '0.0.0.0', () => console.log('ready'))`;
    const rival = stack.use(start({}, 'ip', ['netns', 'exec', host.name, NODE, '-e', script]));
    await new Promise<void>((done) => rival.stdout.once('data', () => done()));
    const failed = await net(['up', '--dns'], { ok: [3] });
    expect(failed.stderr).toContain('Address already in use');
    expect(await host.snapshot()).toBe(before);
    expect(await readdir(join(state, 'vm/net'))).toEqual(['lock']);

    // a network that is up stays so, also when the garbage is collected
    await net(['up']);
    const up = await host.snapshot();
    await net(['up', '--dns'], { ok: [3] });
    expect(await vm(['gc'])).toMatchObject({ stdout: 'nothing to remove\n' });
    expect(await host.snapshot()).toBe(up);
    await net(['up']);
    const [status] = JSON.parse((await net(['status', '--json'])).stdout);
    expect(status).toMatchObject({ up: true, dns: false, missing: [] });
    expect(await host.snapshot()).toBe(up);
  });

  it('says which switch cannot be turned where /proc/sys is read-only, and how to do without', async () => {
    const before = await host.snapshot();
    const script = `mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; exec "$@"`;
    const up = (...args: string[]) => {
      const command = [BUILDKIT, '--state', state, 'vm', 'net', 'up', ...args];
      return host.run('unshare', ['--mount', 'sh', '-euc', script, 'sh', ...command], { okExitCodes: [1] });
    };
    const refused = await up();
    expect(refused.stderr).toContain("no right to write '/proc/sys/net/ipv4/conf/br0/forwarding'");
    expect(refused.stderr).toContain('--isolated');
    expect(refused.stderr).toContain('vm start NAME without --bridge');
    expect(await host.snapshot()).toBe(before);
    expect((await up('--isolated', '--port', '9999', '--json')).exitCode).toBe(0);
    await net(['down']);
    expect(await host.snapshot()).toBe(before);
  });

  it('lends a tap to one user, who needs no rights; to nobody else', async () => {
    await net(['up', '--tap-owner', '65534', '--tap', 'qtap0']);
    await net(['up', 'lab', '--bridge', 'br1', '--address', '192.168.101.254/24', '--tap', 'qtap1']);
    const unprivileged = ['--bounding-set=-all', '--reuid', '65534', '--regid', '65534', '--clear-groups', '--'];
    const open = (tap: string) => {
      const netdev = `tap,id=n,ifname=${tap},script=no,downscript=no`;
      const qemu = ['qemu-system-x86_64', '-machine', 'none', '-nodefaults', '-display', 'none', '-netdev', netdev];
      const options = { input: 'quit\n', okExitCodes: [1], timeoutMs: 60_000 };
      return host.run('setpriv', [...unprivileged, ...qemu, '-monitor', 'stdio'], options);
    };
    expect((await open('qtap0')).exitCode).toBe(0);
    expect((await open('qtap1')).stderr).toContain('Operation not permitted');
    const before = await host.snapshot();
    // root without the right stands for that user: the checkout may be root's alone
    const own = join(state, 'own');
    const lent = (args: string[]) =>
      host.run('setpriv', ['--bounding-set=-net_admin', '--', BUILDKIT, '--state', own, 'vm', 'net', ...args], {
        okExitCodes: [1],
      });
    const one = ['up', '--bridge', 'br1', '--tap', 'qtap1'];
    expect((await lent(one)).stderr).toContain('add: --address 192.168.101.254/24');
    const used = await lent([...one, '--address', '192.168.101.254/24']);
    expect(used).toMatchObject({ exitCode: 0, stderr: expect.stringContaining('br1 is used as it is') });
    expect((await lent(['up'])).stderr).toContain("network 'default' is up on br1");
    expect(JSON.parse((await lent(['status', '--json'])).stdout)).toMatchObject([{ up: true, bridge: 'br1' }]);
    await lent(['down']);
    expect(await host.snapshot()).toBe(before);
  });

  it('finds an address that a machine of others has on the bridge', async () => {
    await net(['up']);
    await (await plugIn(guest, 10)).static();
    await guest.run('ip', ['link', 'set', 'dev', 'eth0', 'address', '02:00:00:00:00:10']);
    const before = await host.snapshot();
    const join = (number: number) =>
      library(`return net.joinNetwork(context, DEFAULT_NETWORK, { name: 'web', number: ${number} });`);
    expect(await join(10)).toMatchObject({
      code: 'net-address-in-use',
      message: expect.stringContaining("192.168.100.10 belongs to 02:00:00:00:00:10 on 'br0'"),
    });
    expect(await host.snapshot()).toBe(before);
    expect(await join(12)).toMatchObject({ address: '192.168.100.12' });
    await succeed(`await net.leaveNetwork(context, 'default', 'web');`);
  });

  it('takes no open network for an isolated one, nor one that leads elsewhere', async () => {
    await net(['up']);
    const join = (spec: string) =>
      library(`return net.joinNetwork(context, { ...DEFAULT_NETWORK, ${spec} }, { name: 'web', number: 10 });`);
    const refused = {
      code: 'net-changed',
      message: expect.stringContaining("network 'default' is up and is not isolated"),
    };
    expect(await join('isolated: true')).toMatchObject(refused);
    expect(await join("uplink: 'up1', dns: true")).toMatchObject({
      message: "network 'default' is up and leads out by the default route, has no DNS",
    });
  });

  it('after kill -9 at any step status tells what is there, and the next down or gc leaves what was there before', async () => {
    const before = await host.snapshot();
    const count = JSON.parse((await net(['up', '--dns', '--dry-run', '--json'])).stdout).length;
    for (let step = 1; step <= count; step += 1) {
      // a step's program kills its caller once it has done its work
      const tools = await mkdtemp(join(state, 'bin-'));
      const wrapper = `#!/bin/sh
        /usr/bin/env PATH=/usr/sbin:/usr/bin:/sbin:/bin "\${0##*/}" "$@" || exit
        case "$*" in *show*|*list*) exit 0 ;; esac
        echo . >> ${tools}/count
        [ "$(wc -l < ${tools}/count)" -lt ${step} ] || kill -9 $PPID\n`;
      for (const name of ['ip', 'nft', 'dnsmasq']) await writeFile(join(tools, name), wrapper, { mode: 0o755 });
      const killed = await host.run(
        'sh',
        [
          '-c',
          `PATH=${tools}:$PATH ${NODE} ${resolve(BUILDKIT, '../../src/cli/main.ts')} --state ${state} vm net up --dns`,
        ],
        { okExitCodes: [137] },
      );
      expect([step, killed.exitCode]).toEqual([step, step <= 9 ? 137 : 0]);
      const [status] = JSON.parse((await net(['status', '--json'])).stdout);
      const links = (await host.run('ip', ['-br', 'link'])).stdout;
      expect([step, status.up]).toEqual([step, killed.exitCode === 0]);
      expect([step, status.missing.includes('make bridge br0')]).toEqual([step, !links.includes('br0')]);
      expect([step, status.taps[0].there]).toEqual([step, links.includes('qtap0')]);
      if (step % 2 === 0 && killed.exitCode !== 0)
        expect((await vm(['gc'])).stdout).toBe("removed: network 'default'\n");
      else await net(['down']);
      expect([step, await host.snapshot()]).toEqual([step, before]);
      expect(await processesWith(state)).toEqual([]);
    }
  }, 400_000);
});
