/**
 * A Debian system on a partitioned disk, with overlay and hooks: built by the program itself, read back by debugfs, booted by
 * SeaBIOS and by OVMF without a kernel on QEMU's command line.
 */
import { mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run, start } from '../../src/core/run.ts';
import { createWorld, type World } from '../support/world.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
const BUILD_MS = 900_000;
const BOOT_MS = 420_000;
const MARKER = 'overlay: web bookworm amd64, swap 1, root ext4';

let world: World;
let disk: string;
beforeAll(async () => {
  world = await createWorld();
  disk = join(world.path, 'web.raw');
  await writeOverlay(join(world.path, 'overlay'));
  await writeHooks(join(world.path, 'hooks'));
  const flags = [
    '--overlay',
    'overlay',
    '--hooks',
    'hooks',
    '--name',
    'web',
    '--swap',
    '64M',
    '--uefi',
    '--size',
    '3G',
  ];
  await build([...flags, '--target', 'raw:web.raw']);
}, BUILD_MS);
afterAll(() => world[Symbol.asyncDispose]());

const build = (flags: string[], okExitCodes: number[] = []) =>
  run({}, BUILDKIT, ['--state', 'state', 'vm', 'base', 'build', '--suite', 'bookworm', ...flags], {
    cwd: world.path,
    okExitCodes,
    timeoutMs: BUILD_MS,
  });

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

  it(
    'is refused before anything is built where a file is in the way; a hook that fails names itself and leaves only the log',
    async () => {
      const refused = await build(['--target', 'raw:web.raw'], [1]);
      expect(refused.stderr).toContain("'" + disk + "' holds something");
      expect(refused.stderr).not.toContain('Bootstrap');
      await writeFile(join(world.path, 'hooks/install.sh'), '#!/bin/sh\necho no such thing >&2\nexit 7\n', {
        mode: 0o755,
      });
      const failed = await build(['--hooks', 'hooks', '--name', 'web', '--target', 'qcow2:other.qcow2'], [3]);
      expect(failed.stderr).toContain("stage 'install.sh' of the base image failed");
      expect(failed.stderr).toContain('no such thing');
      expect(await readdir(join(world.path, 'state/vm/bases'))).toEqual(['.lock', expect.stringMatching(/\.log$/)]);
      expect((await readdir(world.path)).filter((name) => name.includes('other'))).toEqual([]);
      expect((await readFile('/proc/mounts', 'utf8')).includes(world.path)).toBe(false);
    },
    BUILD_MS,
  );
});
