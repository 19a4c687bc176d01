/**
 * The stages of a base build by a user who is not root: everything real but the packages. What mmdebstrap's bootstrap would make
 * is stood in for by a small tree; the hooks run in the real one's custom variant, in a user namespace that newuidmap maps.
 */
import { chmod, chown, copyFile, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type RunResult, run } from '../../src/core/run.ts';
import { createWorld, type World } from '../support/world.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
const USER = { name: 'bk-rootless', id: 23_456 };

let world: World;
beforeAll(async () => {
  world = await createWorld();
  await chmod(world.path, 0o711);
  await makeTree(join(world.path, 'tree'));
  await mkdir(join(world.path, 'bin'));
  const real = (await run({}, 'sh', ['-c', 'command -v mmdebstrap'])).stdout.trim();
  await writeFile(join(world.path, 'bin/mmdebstrap'), standIn(real, join(world.path, 'tree')), { mode: 0o755 });
  for (const folder of ['state', 'home']) {
    await mkdir(join(world.path, folder));
    await chown(join(world.path, folder), USER.id, USER.id);
  }
  await customize(join(world.path, 'home'));
});
afterAll(() => world[Symbol.asyncDispose]());

/** A root with a shell and tar; of systemd, apt and the account tools only the names. */
async function makeTree(tree: string): Promise<void> {
  for (const folder of [
    'usr/bin',
    'usr/sbin',
    'usr/lib',
    'etc/apt',
    'boot',
    'tmp',
    'run',
    'proc',
    'sys',
    'dev',
    'var/log',
    'mnt',
  ]) {
    await mkdir(join(tree, folder), { recursive: true });
  }
  await mkdir(join(tree, 'var/lib/dpkg'), { recursive: true });
  for (const [link, target] of [
    ['bin', 'usr/bin'],
    ['sbin', 'usr/sbin'],
    ['lib', 'usr/lib'],
    ['lib64', 'usr/lib'],
  ]) {
    await symlink(target!, join(tree, link!));
  }
  for (const name of ['sh', 'tar', 'id', 'cat', 'chown', 'env']) {
    const program = (await run({}, 'sh', ['-c', 'readlink -f "$(command -v "$1")"', 'sh', name])).stdout.trim();
    await copyFile(program, join(tree, 'usr/bin', name));
    for (const [, library] of (await run({}, 'ldd', [program])).stdout.matchAll(/(\/\S+) \(0x/g)) {
      const target = join(tree, library!.startsWith('/usr') ? library! : join('usr', library!)).replace(
        '/lib64/',
        '/lib/',
      );
      await mkdir(dirname(target), { recursive: true });
      await copyFile(library!, target);
    }
  }
  for (const name of ['systemctl', 'usermod', 'apt-get', 'dpkg']) {
    await writeFile(join(tree, 'usr/bin', name), '#!/bin/sh\nexit 0\n', { mode: 0o755 });
  }
  for (const name of ['vmlinuz-6.1', 'initrd.img-6.1']) await writeFile(join(tree, 'boot', name), name);
  await writeFile(join(tree, 'var/lib/dpkg/status'), 'Package: base\nStatus: install ok installed\nVersion: 1\n');
  await writeFile(join(tree, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
}

/** Copies the tree where packages would be fetched; every other call is the real program's. */
function standIn(real: string, tree: string): string {
  return `#!/bin/sh
set -e
case " $* " in *" --variant=minbase "*) ;; *) exec ${real} "$@" ;; esac
for word; do case $word in --customize-hook=*) hook=\${word#*=} ;; */root) root=$word ;; esac; done
cp -a ${tree} "$root"
chown -R 0:0 "$root"
chown 0:42 "$root/etc/passwd"
chmod 600 "$root"/boot/*
exec "$hook" "$root"
`;
}

async function customize(home: string): Promise<void> {
  await mkdir(join(home, 'overlay/etc'), { recursive: true });
  await writeFile(join(home, 'overlay/etc/app'), '%HOSTNAME% %DISTR%\n');
  await chmod(join(home, 'overlay/etc/app'), 0o2640);
  await symlink('app', join(home, 'overlay/etc/%HOSTNAME%'));
  await mkdir(join(home, 'hooks'));
  const hooks = {
    postunpack: `echo "postunpack $1 $3 $(id -u)" >>${home}/log; test -d "$2/etc"`,
    'install.sh':
      'set -e; cat /usr/sbin/policy-rc.d >/etc/policy; echo "install $*, $(id -u)" >/etc/order; cat /proc/self/status >/dev/null; chown 7:7 /etc/policy',
    'install-custom.sh': 'echo "custom $*" >>/etc/order; echo x >/var/log/trace',
    postconfig: `cat "$2/etc/order" >>${home}/log; echo "postconfig $1 $3" >>${home}/log`,
  };
  for (const [name, text] of Object.entries(hooks)) {
    await writeFile(join(home, 'hooks', name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  }
  await run({}, 'chown', ['-R', `${USER.id}:${USER.id}`, home]);
}

/** @param ranges lines of subuid(5), seen by this command alone, like the user itself */
async function asUser(ranges: string, args: readonly string[], okExitCodes: number[] = []): Promise<RunResult> {
  const etc = join(world.path, 'etc');
  await mkdir(etc, { recursive: true });
  const account = `${USER.name}:x:${USER.id}:${USER.id}::/nonexistent:/bin/sh\n`;
  await writeFile(join(etc, 'passwd'), `${await readFile('/etc/passwd', 'utf8')}${account}`);
  for (const name of ['subuid', 'subgid']) await writeFile(join(etc, name), ranges);
  const mounts = ['passwd', 'subuid', 'subgid'].map((name) => `mount --bind ${etc}/${name} /etc/${name}`).join('; ');
  // the checkout may lie in a folder that others cannot enter
  const drop = `setpriv --reuid ${USER.id} --regid ${USER.id} --clear-groups --inh-caps=+dac_read_search --ambient-caps=+dac_read_search`;
  const script = `${mounts}; exec ${drop} -- "$@"`;
  return run({}, 'unshare', ['--mount', 'sh', '-ec', script, 'sh', BUILDKIT, ...args], {
    cwd: join(world.path, 'home'),
    okExitCodes,
    env: {
      PATH: `${join(world.path, 'bin')}:${process.env.PATH}`,
      HOME: join(world.path, 'home'),
      XDG_CACHE_HOME: undefined,
    },
  });
}

const BUILD = ['vm', 'base', 'build', '--suite', 'bookworm', '--plain', '--size', '1G', '--name', 'shop'];
const state = () => join(world.path, 'state');

describe('a base build without root', () => {
  it('says what is missing and how to get it', async () => {
    const { stderr } = await asUser('', ['--state', state(), ...BUILD], [1]);
    expect(stderr).toContain('error: building a base image without root needs a user namespace of your own');
    expect(stderr).toContain(`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ${USER.name}`);
    expect(await readdir(join(state(), 'vm/bases'))).toEqual(['.lock']);
  });

  it('runs overlay and hooks with the owners, modes and arguments that root would give them', async () => {
    const args = ['--state', state(), ...BUILD, '--overlay', 'overlay', '--hooks', 'hooks'];
    const { stdout } = await asUser(`${USER.name}:100000:65536\n`, args);
    const id = /^built: (\S+)/.exec(stdout)?.[1] ?? '';
    const raw = join(world.path, 'disk.raw');
    await run({}, 'qemu-img', ['convert', '-O', 'raw', join(state(), 'vm/bases', id, 'disk.qcow2'), raw]);
    const inside = async (command: string) => (await run({}, 'debugfs', ['-R', command, raw])).stdout;
    expect(await inside('cat /etc/app')).toBe('shop bookworm\n');
    expect(await inside('stat /etc/app')).toMatch(/Mode: {2}02640[\s\S]*User: +0 +Group: +0 /);
    expect(await inside('stat /etc/shop')).toContain('Fast link dest: "app"');
    expect(await inside('stat /etc/passwd')).toMatch(/User: +0 +Group: +42 /);
    expect(await inside('stat /etc/policy')).toMatch(/User: +7 +Group: +7 /);
    expect(await inside('cat /etc/policy')).toContain('exit 101');
    expect(await inside('ls /usr/sbin')).not.toContain('policy-rc.d');
    expect(await inside('ls /var/log')).not.toContain('trace');
    expect(await readFile(join(world.path, 'home/log'), 'utf8')).toBe(
      'postunpack shop bookworm 0\ninstall shop bookworm, 0\ncustom shop bookworm\npostconfig shop bookworm\n',
    );
    expect((await readdir(join(state(), 'vm/bases'))).sort()).toEqual(['.lock', id]);
  });

  it('leaves what it can go on from, and removes it, as the user who made it', async () => {
    const ranges = `${USER.name}:100000:65536\n`;
    const hook = join(world.path, 'home/hooks/install-custom.sh');
    const whole = await readFile(hook);
    await writeFile(hook, '#!/bin/sh\nexit 9\n');
    const args = ['--state', state(), ...BUILD, '--overlay', 'overlay', '--hooks', 'hooks'];
    const failed = await asUser(ranges, args, [3]);
    expect(failed.stderr).toContain("error: stage 'install-custom.sh' of the base image failed");
    await writeFile(hook, `${whole}# another\n`);
    const made = await asUser(ranges, [...args, '--from-stage', 'install-custom.sh']);
    expect(made.stderr).not.toContain("Stage 'install.sh'");
    expect(made.stdout).toMatch(/^built: /);
    await writeFile(hook, '#!/bin/sh\nexit 9\n');
    await asUser(ranges, args, [3]);
    const gc = await asUser(ranges, ['--state', state(), 'vm', 'gc']);
    expect(gc.stdout).toContain('kept work of a build (bookworm-');
    const left = (await readdir(join(state(), 'vm/bases'))).filter((name) => !name.startsWith('bookworm-'));
    expect(left).toEqual(['.lock']);
  });
});
