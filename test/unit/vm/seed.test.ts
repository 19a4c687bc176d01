import { describe, expect, it } from 'vitest';
import { isoImage, seedFiles, seedImage } from '../../../src/vm/seed.ts';

const DATE = new Date('2026-02-03T04:05:06Z');
const REQUEST = {
  instanceId: 'i-1',
  hostname: 'web',
  authorizedKeys: ['ssh-ed25519 AAAA "quoted" #x'],
  nets: [{ mac: '52:54:00:a8:64:0a', address: '192.168.100.10/24', gateway: '192.168.100.254', dns: '1.1.1.1' }],
};

describe('isoImage', () => {
  it('is a volume with two trees of names over the same data', () => {
    const image = Buffer.from(isoImage('cidata', [{ name: 'meta-data', content: 'abc' }], DATE));
    expect(image.length % 2048).toBe(0);
    const descriptors = [16, 17, 18].map((sector) => image.subarray(sector * 2048, sector * 2048 + 6));
    expect(descriptors.map(([type]) => type)).toEqual([1, 2, 255]);
    expect(image.subarray(16 * 2048 + 40, 16 * 2048 + 72).toString()).toBe('cidata'.padEnd(32));
    expect(image.readUInt32LE(16 * 2048 + 80) * 2048).toBe(image.length);
    expect(image.includes('META_DATA.;1')).toBe(true);
    expect(image.includes(Buffer.from('meta-data', 'utf16le').swap16())).toBe(true);
    expect(image.subarray(25 * 2048, 25 * 2048 + 3).toString()).toBe('abc');
  });

  it('is the same for the same input', () => {
    expect(seedImage(REQUEST, DATE)).toEqual(seedImage(REQUEST, DATE));
  });

  it.each([
    [['A', 'a']],
    [['x'.repeat(28)]],
    [['a/b']],
    [Array.from({ length: 40 }, (_, index) => `file-with-a-name-${index}`)],
  ])('refuses %j', (names) => {
    const files = names.map((name) => ({ name, content: '' }));
    expect(() => isoImage('x', files, DATE)).toThrow(expect.objectContaining({ code: 'seed-files' }));
  });
});

describe('seedFiles', () => {
  it('says name, keys and address in YAML that needs no quoting', () => {
    const [meta, user, network] = seedFiles(REQUEST).map(({ content }) => String(content));
    expect(JSON.parse(meta!)).toEqual({ 'instance-id': 'i-1', 'local-hostname': 'web' });
    expect(user).toMatch(/^#cloud-config\n\{/);
    expect(JSON.parse(user!.slice(user!.indexOf('\n')))).toMatchObject({ ssh_authorized_keys: REQUEST.authorizedKeys });
    expect(JSON.parse(network!)).toEqual({
      version: 2,
      ethernets: {
        net0: {
          match: { macaddress: '52:54:00:a8:64:0a' },
          addresses: ['192.168.100.10/24'],
          routes: [{ to: '0.0.0.0/0', via: '192.168.100.254' }],
          nameservers: { addresses: ['1.1.1.1'] },
        },
      },
    });
  });

  it('asks for an address where none is given', () => {
    const network = String(seedFiles({ ...REQUEST, nets: [] })[2]?.content);
    expect(JSON.parse(network).ethernets.all.dhcp4).toBe(true);
  });
});
