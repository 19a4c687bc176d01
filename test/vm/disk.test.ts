/**
 * A Debian system on a partitioned disk, with overlay and hooks: built by the program itself, read back by debugfs, booted by
 * SeaBIOS and by OVMF without a kernel on QEMU's command line.
 */
import { mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { digestFile, exists } from '../../src/core/files.ts';
import { listen } from '../../src/core/http.ts';
import { type RunResult, run, shellQuote, start } from '../../src/core/run.ts';
import { debianMirror, readIndexTargets } from '../../src/deb/apt-targets.ts';
import { serveProxy } from '../../src/proxy/serve.ts';
import { defaultSettings } from '../../src/proxy/settings.ts';
import { createWorld, type World } from '../support/world.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
const BUILD_MS = 900_000;
const BOOT_MS = 420_000;
const MARKER = 'overlay: web bookworm amd64, swap 1, root ext4';

const STAGES = ['postunpack', 'overlay', 'install.sh', 'install-custom.sh', 'postconfig', 'disk'] as const;
type StageName = (typeof STAGES)[number];
const FLAGS = ['--overlay', 'overlay', '--hooks', 'hooks', '--name', 'web'];
const TO_DISK = ['--swap', '64M', '--uefi', '--size', '3G', '--target', 'raw:web.raw'];

/** A program that only a kill ends, and that no other run of this file starts. */
const FOREVER = `sleep ${1_000_000 + process.pid}`;

let world: World;
let disk: string;
let upstream: Upstream;
/** What each stage said when it failed, and what was left then. */
const failures = new Map<
  StageName,
  { stderr: string; bases: string[]; here: string[]; mounts: string; loops: string }
>();
/** Of the build that succeeded, from the stage before the disk on. */
let finished: RunResult;
/** What it asked for upstream. */
let asked: readonly string[];
beforeAll(async () => {
  world = await createWorld();
  disk = join(world.path, 'web.raw');
  upstream = await startUpstream();
  await writeFile(join(world.path, 'buildkit.yaml'), proxyConfig(upstream.port));
  await writeOverlay(join(world.path, 'overlay'));
  await writeHooks(join(world.path, 'hooks'));
  for (const folder of ['small', 'bin']) await mkdir(join(world.path, folder));
  // each stage fails once, then the build goes on from it; what was done before is not done again
  for (const [at, stage] of STAGES.entries()) {
    const mend = await breakStage(stage);
    const from = at === 0 ? ['--proxy', 'auto'] : ['--from-stage', STAGES[at - 1]!];
    const place = stage === 'disk' ? ['--target', 'raw:small/web.raw'] : [];
    const { stderr } = await build([...FLAGS, ...TO_DISK, ...from, ...place], [1, 3]);
    const loops = (await run({}, 'losetup', ['--list', '--noheadings', '--output', 'BACK-FILE'])).stdout;
    const here = [...(await readdir(world.path)), ...(await readdir(join(world.path, 'small')))];
    await mend();
    const mounts = await readFile('/proc/mounts', 'utf8');
    failures.set(stage, { stderr, bases: await bases(), here, mounts, loops });
  }
  finished = await build([...FLAGS, ...TO_DISK, '--from-stage', 'disk']);
  asked = [...upstream.log];
}, BUILD_MS * 2);
afterAll(async () => {
  await run({}, 'umount', ['-q', join(world.path, 'small')], { okExitCodes: [1, 32] }); // where a test failed before it did so
  await world[Symbol.asyncDispose]();
  await upstream[Symbol.asyncDispose]();
});

const environment = () => ({ PATH: `${join(world.path, 'bin')}:${process.env.PATH}`, no_proxy: undefined });
const buildArgs = (flags: string[]) => [
  ...['--state', 'state', 'vm', 'base', 'build', '--suite', 'bookworm', '--mirror', `${upstream.url}/debian`],
  ...flags,
];
const build = (flags: string[], okExitCodes: number[] = []) =>
  run({}, BUILDKIT, buildArgs(flags), { cwd: world.path, okExitCodes, timeoutMs: BUILD_MS, env: environment() });
const buildkit = (...args: string[]) =>
  run({}, BUILDKIT, ['--state', 'state', 'vm', ...args], { cwd: world.path, timeoutMs: BUILD_MS, env: environment() });
const bases = () => readdir(join(world.path, 'state/vm/bases'));

interface Upstream extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Paths that were asked for. */
  readonly log: string[];
}

/** This machine's mirror of Debian, with a count of what it is asked. */
async function startUpstream(): Promise<Upstream> {
  const mirror = debianMirror(await readIndexTargets({}));
  if (mirror === undefined) throw new Error('the apt configuration of this machine names no mirror of Debian');
  const log: string[] = [];
  const server = await listen((request, response) => {
    const path = (request.url ?? '').replace(/^\/debian\//, '');
    log.push(path);
    const relay = async () => {
      const since = request.headers['if-modified-since'];
      const answer = await fetch(new URL(path, mirror), { headers: since ? { 'if-modified-since': since } : {} });
      const kept = ['content-length', 'last-modified', 'etag', 'content-type'];
      const headers = [...answer.headers].filter(([name]) => kept.includes(name));
      response.writeHead(answer.status, Object.fromEntries(headers));
      if (answer.body) await pipeline(answer.body, response);
      else response.end();
    };
    relay().catch(() => response.destroy());
  }, '127.0.0.1:0');
  const port = Number(new URL(server.url).port);
  return { url: server.url, port, log, [Symbol.asyncDispose]: () => server.close(0) };
}

/** Nothing is found where a proxy could be configured; what was asked for once is not asked for again. */
function proxyConfig(port: number): string {
  const host = `["127.0.0.1:${port}"]`;
  return `proxy:\n  dir: proxy-cache\n  max-age: 86400\n  listen: ["127.0.0.1:1"]\n  hosts: ${host}\n  inner-hosts: ${host}\n`;
}

/** Lets a stage fail. @returns what mends it */
async function breakStage(stage: StageName): Promise<() => Promise<void>> {
  if (stage === 'overlay') {
    // a file where the root has a folder that is not empty
    const inTheWay = join(world.path, 'overlay/etc/ssl');
    await writeFile(inTheWay, 'no folder');
    return () => rm(inTheWay);
  }
  if (stage === 'disk') return fillUp('64M');
  const path = join(world.path, 'hooks', stage);
  const whole = await readFile(path);
  await writeFile(path, `#!/bin/sh\necho "told to fail in ${stage}" >&2\nexit 7\n`);
  return () => writeFile(path, whole);
}

/** Makes a small disk of the folder `small`. @returns what takes it away */
async function fillUp(size: string): Promise<() => Promise<void>> {
  const folder = join(world.path, 'small');
  await run({}, 'mount', ['-t', 'tmpfs', '-o', `size=${size},mode=755`, 'buildkit-small', folder]);
  return async () => void (await run({}, 'umount', [folder]));
}

async function writeOverlay(folder: string): Promise<void> {
  await mkdir(join(folder, 'etc/app'), { recursive: true });
  // /lib is a link in the root: it must stay one
  await mkdir(join(folder, 'lib/systemd/system'), { recursive: true });
  await writeFile(join(folder, 'etc/app/conf'), 'overlay: %HOSTNAME% %DISTR% %ARCH%', { mode: 0o640 });
  await symlink('/etc/app/conf', join(folder, 'etc/%HOSTNAME%.link'));
  const facts =
    'echo "$(cat /etc/web.link), swap $(grep -c /dev/ /proc/swaps), root $(findmnt -no FSTYPE /)" >/dev/ttyS0';
  const unit = [
    '[Unit]',
    'Description=tells what it sees',
    '[Service]',
    'Type=oneshot',
    `ExecStart=/bin/sh -c '${facts}'`,
  ];
  const install = ['ExecStartPost=/usr/bin/systemctl poweroff', '[Install]', 'WantedBy=multi-user.target', ''];
  await writeFile(join(folder, 'lib/systemd/system/marker.service'), [...unit, ...install].join('\n'));
}

async function writeHooks(folder: string): Promise<void> {
  await mkdir(folder);
  const hooks = {
    postunpack: `echo "postunpack $1 $(test -d "$2/etc" && echo root) $3" >>${world.path}/log`,
    'install.sh': [
      'set -e',
      'grep -q "exit 101" /usr/sbin/policy-rc.d',
      'apt-get install -y -qq --no-install-recommends hello >/dev/null',
      'systemctl enable marker.service',
      'echo "install.sh $*" >/etc/order',
    ].join('\n'),
    'install-custom.sh': 'echo "install-custom.sh $*" >>/etc/order; echo x >/var/log/trace.log',
    postconfig: `echo "postconfig $1 $(cat "$2/etc/order" | tr '\\n' ' ')$3" >>${world.path}/log`,
  };
  for (const [name, text] of Object.entries(hooks)) {
    await writeFile(join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }
}

async function rootOffset(): Promise<number> {
  const table = JSON.parse((await run({}, 'sfdisk', ['--json', disk])).stdout).partitiontable;
  return table.partitions.find(({ name }: { name: string }) => name === 'root').start * 512;
}

/** A base of bookworm as an older day could have left it. */
async function makeOldBase(id: string, hooks: string): Promise<void> {
  const dir = join(world.path, 'state/vm/bases', id);
  await mkdir(dir);
  const disk = join(dir, 'disk.qcow2');
  await run({}, 'qemu-img', ['create', '-q', '-f', 'qcow2', disk, '1M']);
  const { size, mtimeMs } = await stat(disk);
  const request = { suite: 'bookworm', architecture: 'amd64', mirror: `${upstream.url}/debian`, hooks };
  const record = {
    ...{ format: 1, id, suite: 'bookworm', architecture: 'amd64', recipe: 'r', packages: [] },
    ...{ sha256: await digestFile(disk, 'sha256'), kernelRelease: '6.1', rootUuid: 'u', virtualSize: 1 << 20 },
    ...{ stamp: { size, mtimeMs }, created: '2020-01-01T00:00:00Z', request },
  };
  await writeFile(join(dir, 'base.json'), JSON.stringify(record));
  await writeFile(join(dir, 'packages.list'), 'adduser 1\n');
}

/** Starts a build, kills it -9 once `file` is there, and sees that all it started is gone. */
async function killed(args: string[], file: string): Promise<void> {
  await rm(file, { force: true });
  await using building = start({}, BUILDKIT, ['--state', 'state', 'vm', ...args], {
    cwd: world.path,
    env: environment(),
    timeoutMs: BUILD_MS,
    stdio: { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' },
  });
  await expect.poll(() => exists(file), { timeout: BUILD_MS, interval: 200 }).toBe(true);
  process.kill(building.pid, 'SIGKILL');
  await building.exitCode;
  const sleeping = async () => (await run({}, 'pgrep', ['-f', `^${FOREVER}$`], { okExitCodes: [1] })).stdout;
  await expect.poll(sleeping, { timeout: 60_000 }).toBe('');
  expect((await readFile('/proc/mounts', 'utf8')).includes(world.path)).toBe(false);
}

/** Boots the disk, without changing it, until it powers itself off. @returns what came over the serial line */
async function boot(firmware: readonly string[]): Promise<string> {
  const log = join(world.path, 'serial.log');
  await rm(log, { force: true });
  const args = [
    ...['-machine', 'q35', '-accel', 'tcg,thread=multi', '-smp', '2', '-m', '768M', '-display', 'none', '-no-reboot'],
    ...['-serial', `file:${log}`, '-nic', 'none', '-device', 'virtio-rng-pci', '-snapshot'],
    ...['-drive', `file=${disk},format=raw,if=virtio`, ...firmware],
  ];
  await using qemu = start({}, 'qemu-system-x86_64', args, { timeoutMs: BOOT_MS });
  await qemu.ended;
  return readFile(log, 'utf8');
}

describe('a built disk', () => {
  it('has the overlay with modes and links, what the hooks did in their order, and no traces', async () => {
    const at = `${disk}?offset=${await rootOffset()}`;
    const debugfs = async (command: string) => (await run({}, 'debugfs', ['-R', command, at])).stdout;
    expect(await debugfs('cat /etc/app/conf')).toBe('overlay: web bookworm amd64');
    expect(await debugfs('stat /etc/app/conf')).toContain('Mode:  0640');
    expect(await debugfs('stat /etc/web.link')).toContain('Fast link dest: "/etc/app/conf"');
    expect(await debugfs('stat /lib')).toContain('Fast link dest: "usr/lib"');
    expect(await debugfs('cat /etc/hostname')).toBe('web\n');
    expect(await readFile(join(world.path, 'log'), 'utf8')).toBe(
      'postunpack web root bookworm\npostconfig web install.sh web bookworm install-custom.sh web bookworm bookworm\n',
    );
    expect(await debugfs('stat /usr/bin/hello')).toContain('Type: regular');
    expect(await debugfs('cat /etc/machine-id')).toBe('');
    expect(await debugfs('cat /etc/resolv.conf')).toBe('nameserver 10.0.2.3\n');
    for (const gone of [
      '/usr/sbin/policy-rc.d',
      '/var/log/trace.log',
      '/etc/ssh/ssh_host_ed25519_key',
      '/etc/.resolv',
      '/usr/sbin/start-stop-daemon.REAL',
      '/tmp/.buildkit-install.sh',
    ]) {
      expect([gone, await debugfs(`stat ${gone}`)]).toEqual([gone, '']);
    }
  });

  it(
    'boots by itself from a BIOS',
    async () => {
      expect(await boot([])).toContain(MARKER);
    },
    BOOT_MS,
  );

  it(
    'boots by itself from UEFI',
    async () => {
      const code = 'if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE.fd';
      const variables = 'if=pflash,format=raw,file=/usr/share/OVMF/OVMF_VARS.fd';
      expect(await boot(['-drive', code, '-drive', variables])).toContain(MARKER);
    },
    BOOT_MS,
  );

  it('is refused before anything is built where a file is in the way', async () => {
    const refused = await build(['--target', 'raw:web.raw'], [1]);
    expect(refused.stderr).toContain("'" + disk + "' holds something");
    expect(refused.stderr).not.toContain('Bootstrap');
  });
});

describe('a stage that fails', () => {
  it.each(STAGES)('%s: names itself, keeps log and earlier work, and leaves nothing else', (stage) => {
    const { stderr, bases: left, here, mounts, loops } = failures.get(stage)!;
    expect(stderr).toContain(`error: stage '${stage}' of the base image failed`);
    const reasons: Partial<Record<StageName, string>> = {
      overlay: 'etc/ssl',
      disk: `no room left on the disk of '${join(world.path, 'small')}'`,
    };
    expect(stderr).toContain(reasons[stage] ?? `told to fail in ${stage}`);
    expect(stderr).toContain(`go on: add --from-stage ${stage} to the command`);
    expect(stderr).toMatch(/log: \/.*bookworm-\w+\.log\)?$/m);
    expect(stderr.includes('Bootstrap')).toBe(stage === 'postunpack');
    expect(left).toEqual([expect.stringMatching(/^\.kept-bookworm-/), '.lock', expect.stringMatching(/\.log$/)]);
    expect(here.filter((name) => /web\.raw|buildkit-disk/.test(name))).toEqual([]);
    expect([mounts.includes(world.path), loops.includes(world.path)]).toEqual([false, false]);
  });

  it('names a disk without room for the packages, too, and leaves nothing on it but the log', async () => {
    const takeAway = await fillUp('40M');
    try {
      const args = ['--state', 'small/state', ...buildArgs([]).slice(2)];
      const { stderr } = await run({}, BUILDKIT, args, { cwd: world.path, okExitCodes: [1], timeoutMs: BUILD_MS });
      const below = join(world.path, 'small/state/vm/bases');
      expect(stderr).toContain(
        `error: stage 'bootstrap' of the base image failed: no room left on the disk of '${below}'`,
      );
      expect(stderr).toContain('then run the command again; nothing half made was left');
      expect(await readdir(below)).toEqual(['.lock', expect.stringMatching(/^bookworm-\w+\.log$/)]);
    } finally {
      await takeAway();
    }
  }, 300_000);

  it('is where the next build goes on; its success removes what was kept', async () => {
    expect(finished.stderr).not.toMatch(/Bootstrap|Stage/);
    expect(finished.stdout).toContain(`written: ${disk}`);
    expect((await readdir(world.path)).filter((name) => name.includes('buildkit-disk'))).toEqual([]);
    // by the first build alone; the others below leave their own
    expect(failures.get('disk')!.stderr).toContain("Stage 'postconfig'");
    expect(failures.get('disk')!.stderr).not.toContain("Stage 'install-custom.sh'");
    expect(await bases()).toEqual(['.lock']);
  });
});

describe('a second build', () => {
  it(
    'fetches nothing from upstream through the cache that the first one filled; killed, it leaves no program, mount or half image, and goes on',
    async () => {
      const said = failures.get('postunpack')!.stderr;
      const first = /fetching through the proxy (http:\/\/\S+) \(started for this command/.exec(said)?.[1];
      expect(first).toBeDefined();
      await expect(fetch(first!)).rejects.toThrow(); // it ended with its command
      expect(asked.filter((path) => path.endsWith('.deb')).length).toBeGreaterThan(80);
      expect(new Set(asked).size).toBe(asked.length);

      const before = upstream.log.length;
      const settings = {
        ...defaultSettings(join(world.path, 'proxy-cache')),
        ...{ hosts: [`127.0.0.1:${upstream.port}`], innerHosts: [`127.0.0.1:${upstream.port}`], maxAge: 86_400 },
      };
      await using proxy = await serveProxy(world.context, settings, { listen: ['127.0.0.1:0'] });
      // a base this time, which has another first root
      const blocking = join(world.path, 'blocking');
      await mkdir(blocking);
      const pidFile = join(world.path, 'pid');
      const block = `#!/bin/sh\nmount -t tmpfs x "$2/mnt"; echo up >${pidFile}\nexec ${FOREVER}\n`;
      await writeFile(join(blocking, 'postunpack'), block, { mode: 0o755 });
      await makeOldBase('bookworm-old', blocking);
      await buildkit('create', 'web', '--base', 'bookworm-old');
      const update = ['base', 'update', 'bookworm-old'];
      await killed([...update, '--proxy', proxy.urls[0]!], pidFile);
      expect(upstream.log.slice(before)).toEqual([]);
      const left = await bases();
      expect(left.filter((name) => name.startsWith('.building-'))).toHaveLength(1);

      // the next one is not disturbed: it goes on, and is killed while it writes the disk
      await writeFile(join(blocking, 'postunpack'), '#!/bin/sh\n', { mode: 0o755 });
      const mke2fs = join(world.path, 'bin/mke2fs');
      await writeFile(mke2fs, `#!/bin/sh\necho up >${pidFile}\nexec ${FOREVER}\n`, { mode: 0o755 });
      await killed([...update, '--from-stage', 'postunpack'], pidFile);
      await rm(mke2fs);
      const other = await build(['--hooks', 'blocking', '--from-stage', 'disk', '--include', 'hello'], [1]);
      expect(other.stderr).toContain("what is kept of a build before 'disk' belongs to another plan than this one");
      expect(other.stderr).toContain('hint: build it from the start: leave --from-stage out');
      const kept = join(world.path, 'state/vm/bases', (await bases()).find((name) => name.startsWith('.kept-'))!);
      await run({}, 'cp', ['-a', kept, join(world.path, 'kept')]);
      const made = await buildkit(...update, '--from-stage', 'disk');
      const id = /^updated: (bookworm-\w{12}) \(\d+ packages changed\)$/m.exec(made.stdout)?.[1];
      expect(made.stdout).toMatch(/^ {2}adduser 1 -> \S+$/m);
      expect(made.stdout).toContain('bookworm-old stays for: web');
      expect(upstream.log.slice(before)).toEqual([]);
      expect(await bases()).toEqual(['.lock', id, 'bookworm-old']);
      await rename(join(world.path, 'kept'), kept);
      const again = await buildkit('base', 'update', 'bookworm', '--from-stage', 'disk');
      expect(again.stdout).toBe(`updated: ${id}.2\nremoved: ${id}\n`);
      const show = JSON.parse((await buildkit('base', 'show', 'bookworm', '--json')).stdout);
      expect(show).toMatchObject({ id: `${id}.2`, suite: 'bookworm' });
      expect(JSON.parse((await buildkit('list', '--json')).stdout)).toMatchObject([
        { name: 'web', base: 'bookworm-old' },
      ]);
    },
    BUILD_MS,
  );

  it(
    'killed while it bootstraps leaves what vm gc removes',
    async () => {
      const seen = join(world.path, 'seen');
      const real = (await run({}, 'sh', ['-c', 'command -v mmdebstrap'])).stdout.trim();
      // the real one, which tells when it has something to clean up
      const hook = `--extract-hook=echo up >${seen}; exec ${FOREVER}`;
      const wrapper = `#!/bin/sh\nexec ${real} ${shellQuote([hook])} "$@"\n`;
      await writeFile(join(world.path, 'bin/mmdebstrap'), wrapper, { mode: 0o755 });
      await killed(['base', 'build', '--mirror', `${upstream.url}/debian`, '--proxy', 'auto'], seen);
      await rm(join(world.path, 'bin/mmdebstrap'));
      expect((await bases()).some((name) => name.startsWith('.building-'))).toBe(true);
      expect((await buildkit('gc')).stdout).toContain('a half-made base image');
      expect((await bases()).filter((name) => !/^bookworm-\w+(\.2)?$/.test(name))).toEqual(['.lock']);
      expect((await buildkit('gc')).stdout).toBe('nothing to remove\n');
    },
    BUILD_MS,
  );
});
