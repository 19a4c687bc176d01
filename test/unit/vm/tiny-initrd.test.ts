import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { initProgram, planModules, tinyInitrd } from '../../../src/vm/tiny-initrd.ts';

const DEP = [
  'kernel/drivers/virtio/virtio.ko.xz:',
  'kernel/drivers/virtio/virtio_ring.ko.xz: kernel/drivers/virtio/virtio.ko.xz',
  'kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz',
  'kernel/drivers/virtio/virtio_pci.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz kernel/drivers/virtio/virtio.ko.xz',
  'kernel/fs/xfs/xfs.ko.xz: kernel/lib/libcrc32c.ko.xz',
].join('\n');

describe('planModules', () => {
  it('loads what is needed first, each once, and leaves out what is built in', () => {
    expect(planModules(DEP).map((path) => path.split('/').at(-1))).toEqual([
      'virtio.ko.xz',
      'virtio_ring.ko.xz',
      'virtio_pci.ko.xz',
      'virtio_blk.ko.xz',
    ]);
  });
});

describe('the initrd', () => {
  it('is an archive that cpio reads, with the modules and a program', () => {
    const image = tinyInitrd([{ name: 'virtio_blk.ko', bytes: Buffer.from('12345') }]);
    const listed = execFileSync('cpio', ['-itv', '--quiet'], { input: image, encoding: 'utf8' });
    const rows = listed.split('\n').map((line) => line.replace(/^(\S+).* (\d+) \w+ +\d+ +\S+ (\S+)$/, '$1 $2 $3'));
    expect(rows.slice(0, 2)).toEqual(['drwxr-xr-x 0 dev', 'drwxr-xr-x 0 root']);
    expect(rows[2]).toMatch(/^-rwxr-xr-x \d+ init$/);
    expect(rows[3]).toBe('-rw-r--r-- 5 virtio_blk.ko');
  });

  it('has a static program for x86-64 that names what it loads and mounts', () => {
    const program = Buffer.from(initProgram(['/virtio_blk.ko']));
    expect(program.subarray(0, 20).toString('hex')).toBe('7f454c4602010100000000000000000002003e00');
    for (const text of ['/virtio_blk.ko', '/dev/vda', '/sbin/init']) expect(program.includes(`${text}\0`)).toBe(true);
    // as many system calls as there are steps: devtmpfs, open and load, six for the root, execve, exit
    expect(program.toString('latin1').split('\x0f\x05')).toHaveLength(1 + 1 + 2 + 6 + 2);
  });
});
