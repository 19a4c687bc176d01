import { describe, expect, it } from 'vitest';
import { asOwner, enterArgs } from '../../../../src/pkg/root/enter.ts';
import { bootstrapArgs } from '../../../../src/pkg/root/root.ts';

const entry = {
  rights: 'root',
  rootsDir: '/roots',
  clone: 'clones/a',
  lowers: ['r/layers/k/upper', 'r/tree'],
} as const;

describe('the way into a root', () => {
  it('is without network and rights unless said otherwise', () => {
    const args = enterArgs(entry, { script: 'make', args: ['x'] });
    expect(args.slice(0, 12)).toEqual(
      'setpriv --pdeathsig KILL -- unshare --mount --pid --ipc --uts --net --fork --kill-child'.split(' '),
    );
    expect(args.slice(15, 22)).toEqual([
      'buildkit-root',
      '',
      'clones/a',
      'r/layers/k/upper:r/tree',
      'no',
      'root',
      '/build',
    ]);
    expect(args).toContain('--bounding-set=-all');
    expect(args).toContain('--no-new-privs');
    expect(args.slice(-5)).toEqual(['sh', '-euc', 'umask 022; make', 'buildkit-build', 'x']);
  });

  it('has network and rights for an installation', () => {
    const args = enterArgs(entry, {
      script: 'apt-get',
      user: 'root',
      network: true,
      env: { HOME: '/root', X: undefined },
    });
    expect(args).not.toContain('--net');
    expect(args).not.toContain('setpriv --reuid=29999');
    expect(args.filter((one) => one.startsWith('--reuid'))).toEqual([]);
    expect(args).toContain('HOME=/root');
    expect(args).not.toContain('HOME=/nonexistent');
    expect(args.some((one) => one.startsWith('X='))).toBe(false);
  });

  it('makes the user namespace first: it forgets the signal that ends it with us', () => {
    expect(asOwner('user', ['rm', 'x']).join(' ')).toBe(
      'unshare --user --map-root-user --map-auto -- setpriv --pdeathsig KILL -- rm x',
    );
  });
});

describe('the making of a root', () => {
  const places = { tree: '/s/tree', hook: '/s/hook.sh', sources: '/s/build.sources' };
  const source = (uri: string) => ({ types: ['deb'], uris: [uri], suites: ['sid'], components: ['main'] }) as const;

  it('is a buildd chroot of the sources given', () => {
    const args = bootstrapArgs({ suite: 'sid', architecture: 'arm64', sources: [source('http://m.example/')] }, places);
    expect(args).toContain('--variant=buildd');
    expect(args).toContain('--architectures=arm64');
    expect(args).toContain('--include=fakeroot');
    expect(args.slice(-3)).toEqual(['sid', '/s/tree', '/s/build.sources']);
  });

  it('brings certificates for mirrors behind TLS', () => {
    const args = bootstrapArgs(
      { suite: 'sid', architecture: 'amd64', sources: [source('https://m.example/')] },
      places,
    );
    expect(args).toContain('--include=fakeroot,ca-certificates');
  });
});
