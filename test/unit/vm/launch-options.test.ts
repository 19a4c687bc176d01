import { describe, expect, it } from 'vitest';
import {
  launchFromEnvironment,
  mergeLaunch,
  mountPoint,
  parseCopy,
  parseForward,
  parseShare,
  parseVnc,
} from '../../../src/vm/launch-options.ts';

const absolute = (path: string) => `/here/${path}`;

describe('what a start is made of', () => {
  it('joins lists and lets the later single value win', () => {
    const merged = mergeLaunch(
      { qemuOptions: ['-a'], vnc: '127.0.0.1:1' },
      { graphics: true, qemuOptions: ['-b'], vnc: undefined },
      { vnc: '127.0.0.1:2' },
    );
    expect(merged).toEqual({ graphics: true, qemuOptions: ['-a', '-b'], vnc: '127.0.0.1:2' });
  });

  it('takes the variables of run-HOST-vm, empty ones as absent', () => {
    const env = {
      QEMU_OPTS: '-vga  std',
      QEMU_NET_OPTS: 'hostfwd=tcp::2222-:22',
      QEMU_KERNEL_PARAMS: 'a=1 b',
      SHARED_DIR: '/x',
    };
    expect(launchFromEnvironment(env)).toEqual({
      qemuOptions: ['-vga', 'std'],
      netOptions: 'hostfwd=tcp::2222-:22',
      kernelParameters: ['a=1', 'b'],
      shares: [{ dir: '/x', tag: 'shared', writable: true }],
    });
    expect(launchFromEnvironment({ QEMU_OPTS: '', SHARED_DIR: '' })).toEqual({});
  });

  it('reads ports, folders, copies and displays', () => {
    expect(parseForward('tcp:13480:80')).toEqual({
      protocol: 'tcp',
      address: '127.0.0.1',
      hostPort: 13480,
      guestPort: 80,
    });
    expect(parseForward('udp:127.0.0.2:53:5353')).toMatchObject({
      protocol: 'udp',
      address: '127.0.0.2',
      guestPort: 5353,
    });
    expect(parseShare('a:b', absolute)).toEqual({ dir: '/here/a', tag: 'b', writable: false });
    expect(parseShare('a:b:rw', absolute)).toEqual({ dir: '/here/a', tag: 'b', writable: true });
    expect(mountPoint({ dir: '/x', tag: 'shared', writable: true })).toBe('/tmp/shared');
    expect(parseCopy('a:/b', absolute)).toEqual({ from: '/here/a', to: '/b' });
    expect(parseVnc(':3')).toBe('127.0.0.1:3');
  });

  it.each([
    [() => parseForward('0:80'), 'forward'],
    [() => parseForward('70000:80'), 'forward'],
    [() => parseShare('nothing', absolute), 'share'],
    [() => parseShare('a:b,c', absolute), 'share'],
    [() => parseCopy('a:relative', absolute), 'copy-file'],
    [() => parseVnc('5901'), 'vnc'],
    [() => parseVnc('x,y:1'), 'vnc'],
  ])('refuses nonsense: %s', (parse, code) => {
    expect(parse).toThrowError(expect.objectContaining({ code }));
  });
});
