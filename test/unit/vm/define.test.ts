import { describe, expect, it } from 'vitest';
import { planDefinition } from '../../../src/vm/define.ts';

describe('a definition', () => {
  it('says what the base is, what the machine is, and what each start is', () => {
    const plan = planDefinition(
      {
        ...{ name: 'web', number: 12, memory: '512M', directory: 'place' },
        image: {
          url: 'https://images.example/d12.raw.gz',
          digests: { md5: 'aa' },
          'image-digests': { sha512: 'bb' },
          signature: 'keys.gpg',
        },
        ...{ 'disk-interface': 'scsi', snapshot: true, vnc: '127.0.0.1:1', graphics: true },
        ...{ forward: ['tcp:13480:80'], netdev: ['user,id=net9'], share: ['src:src:rw'] },
        ssh: { port: 2222, key: 'id', user: 'admin', host: '127.0.0.3' },
        ...{ 'exec-on-boot': ['true'], 'qemu-options': ['-s'], 'kernel-parameters': ['x'] },
      },
      '/here',
    );
    expect(plan).toEqual({
      ...{ nameOrNumber: '12', name: 'web', base: undefined },
      image: {
        ...{ source: 'https://images.example/d12.raw.gz', cwd: '/here', name: undefined, suite: undefined },
        ...{ keyring: '/here/keys.gpg', digests: { md5: 'aa' }, imageDigests: { sha512: 'bb' } },
      },
      options: { memory: '512M', directory: '/here/place' },
      launch: {
        ...{ diskInterface: 'scsi', snapshot: true, graphics: true, netdevs: ['user,id=net9'], vnc: '127.0.0.1:1' },
        forwards: [{ protocol: 'tcp', address: '127.0.0.1', hostPort: 13480, guestPort: 80 }],
        shares: [{ dir: '/here/src', tag: 'src', writable: true }],
        ssh: { port: 2222, key: '/here/id', user: 'admin', host: '127.0.0.3' },
        ...{ execOnBoot: ['true'], qemuOptions: ['-s'], kernelParameters: ['x'] },
      },
    });
  });

  it('takes a file or a device where it is', () => {
    expect(planDefinition({ name: 'a', image: { file: '/dev/vg/x' } }, '/here').image).toMatchObject({
      source: '/dev/vg/x',
    });
    expect(planDefinition({ name: 'a', image: 'disk.qcow2' }, '/here').image).toMatchObject({ source: 'disk.qcow2' });
  });

  it.each([
    [{}],
    ['text'],
    [{ name: 'a', base: 'bookworm', image: 'x' }],
    [{ name: 'a', image: { url: 'x', file: 'y' } }],
    [{ name: 'a', colour: 'red' }],
    [{ name: 'a', ssh: { user: 'a b' } }],
    [{ name: 'a', 'disk-interface': 'floppy' }],
  ])('refuses %j', (content) => {
    expect(() => planDefinition(content, '/here')).toThrowError(expect.objectContaining({ code: 'vm-definition' }));
  });

  it('names every mistake at once', () => {
    const problems = [{ subject: 'cpus' }, { subject: 'the definition', message: "unknown key 'colour'" }];
    expect(() => planDefinition({ name: 'a', cpus: 0, colour: 'red' }, '/')).toThrowError(
      expect.objectContaining({ problems: problems.map((one) => expect.objectContaining(one)) }),
    );
  });
});
