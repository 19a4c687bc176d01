/**
 * An image with a real cloud-init, fetched packed over HTTP and also used in place: its machines take name, keys and address
 * from the seed.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { listen } from '../../src/core/http.ts';
import { run } from '../../src/core/run.ts';
import { writeDisk } from '../../src/vm/disk.ts';
import { parseTarget } from '../../src/vm/disk-target.ts';
import { createDebianRoot } from '../support/debian-root.ts';
import { createWorld, type World } from '../support/world.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
const PACKAGES = [
  'linux-image-cloud-amd64',
  'systemd-sysv',
  'udev',
  'dbus',
  'openssh-server',
  'cloud-init',
  'iproute2',
  'netbase',
  'locales',
];
const BUILD_MS = 900_000;
const BOOT_MS = 600_000;

let world: World;
let image: string;
beforeAll(async () => {
  world = await createWorld();
  image = join(world.path, 'cloud-12.raw');
  await using root = await createDebianRoot('bookworm', PACKAGES, BUILD_MS);
  await root.sh('systemctl enable systemd-networkd; rm -f /etc/ssh/ssh_host_*; : >/etc/machine-id');
  await writeFile(join(root.path, 'etc/cloud/cloud.cfg.d/90_dpkg.cfg'), 'datasource_list: [ NoCloud, None ]\n');
  const request = { root: root.path, target: parseTarget(`raw:${image}`), sizeBytes: 2 * 2 ** 30, swapBytes: 0 };
  await writeDisk(world.context, { ...request, uefi: false, force: false });
}, BUILD_MS);
afterAll(async () => {
  for (const name of ['12', '14']) await vm(['destroy', name], [1]); // where a test failed before it did so
  await world[Symbol.asyncDispose]();
}, 60_000);

const vm = (args: string[], okExitCodes: number[] = []) =>
  run({}, BUILDKIT, ['--state', world.path, 'vm', ...args], { okExitCodes, timeoutMs: BOOT_MS, cwd: world.path });

describe('an image from elsewhere', () => {
  it(
    'fetched and unpacked, gives machines that take their name, keys and address from the seed',
    async () => {
      await run({}, 'zstd', ['-q', '-1', image]);
      const packed = await readFile(`${image}.zst`);
      await using web = await listen((_request, response) => {
        response.setHeader('content-length', packed.length);
        createReadStream(`${image}.zst`).pipe(response);
      }, '127.0.0.1:0');
      const sha256 = createHash('sha256').update(packed).digest('hex');
      const url = `${web.url}/cloud-12.raw.zst`;
      const wrong = await vm(['base', 'fetch', url, '--image-sha256', sha256], [4]);
      expect(wrong.stderr).toContain('sha256 of the image is');
      expect((await vm(['base', 'list'])).stdout).toBe('');
      expect((await vm(['base', 'fetch', url, '--sha256', sha256])).stdout).toContain('made: cloud-12 (');
      expect((await vm(['base', 'fetch', url, '--sha256', sha256])).stdout).toContain('there already: cloud-12 (');
      await vm(['create', '12', '--base', 'cloud-12']);
      await vm(['start', '12']);
      const inside = async (command: string) => (await vm(['run', '12', '--', 'sh', '-c', command])).stdout;
      expect(await inside('hostname; ip -4 -br address show scope global')).toMatch(
        /^buildkit12\n\S+ +UP +10\.0\.2\.15\/24/,
      );
      expect(await inside('getent hosts host.buildkit')).toMatch(/^10\.0\.2\.2 /);
      const removed = await vm(['base', 'remove', 'cloud-12'], [1]);
      expect(removed.stderr).toContain('buildkit12');

      await vm(['stop', '12', '--timeout', '300']);
      await vm(['clone', '12', '14']);
      await vm(['start', '14']); // a login: the host key is its own, since any other is refused
      expect((await vm(['run', '14', '--', 'hostname'])).stdout).toBe('buildkit14\n');
      await vm(['destroy', '14']);
      await vm(['destroy', '12']);
      await vm(['base', 'remove', 'cloud-12']);
    },
    BOOT_MS * 4,
  );

  it(
    'used in place is not written to, and a machine never meets another one in its stead',
    async () => {
      const before = await stat(image);
      const made = JSON.parse((await vm(['base', 'fetch', 'cloud-12.raw', '--name', 'mine', '--json'])).stdout);
      expect(made).toMatchObject({ id: 'mine', bootsItself: true, source: image, virtualSize: before.size });
      expect(made.size).toBeLessThan(1e6);
      await vm(['create', '13', '--base', 'mine']);
      expect((await stat(image)).mtimeMs).toBe(before.mtimeMs);
      await run({}, 'dd', ['if=/dev/urandom', `of=${image}`, 'bs=512', 'count=1', 'seek=100', 'conv=notrunc']);
      const changed = await vm(['start', '13'], [1]);
      expect(changed.stderr).toContain('is not the one that this machine');
      await rm(image);
      expect((await vm(['start', '13'], [1])).stderr).toContain('is not the one that this machine');
    },
    BOOT_MS,
  );
});
