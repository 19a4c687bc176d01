import { describe, expect, it } from 'vitest';
import { planSources } from '../../../src/deb/mirror.ts';
import { customizeHook, guestFiles, oemString, SSH_UP_LINE } from '../../../src/vm/guest.ts';

const files = guestFiles(planSources('bookworm', [], 'http://m.example/debian'), 'fast');
const content = (path: string) => files.find((file) => file.path === path)?.content ?? '';

describe('oemString', () => {
  it('is one setting per line behind a first line that the guest skips', () => {
    const text = oemString({
      hostname: 'web',
      authorizedKeys: ['ssh-ed25519 AAAA me\n'],
      hostKey: { privateKey: '-----BEGIN-----\nx\n', publicKey: 'ssh-ed25519 BBBB web' },
      user: 'admin',
      nets: [{ mac: '52:54:00:00:00:01', address: '10.0.2.15/24', gateway: '10.0.2.2', dns: '10.0.2.3' }],
      hosts: ['10.0.2.2 host.buildkit'],
    });
    expect(text.split('\n')).toEqual([
      'buildkit',
      'buildkit.hostname=web',
      'buildkit.key=ssh-ed25519 AAAA me',
      'buildkit.user=admin',
      'buildkit.hostpub=ssh-ed25519 BBBB web',
      `buildkit.hostkey=${Buffer.from('-----BEGIN-----\nx\n').toString('base64')}`,
      'buildkit.net=52:54:00:00:00:01 10.0.2.15/24 10.0.2.2 10.0.2.3',
      'buildkit.host=10.0.2.2 host.buildkit',
    ]);
  });
});

describe('files of the guest', () => {
  it('reads the settings as root from SMBIOS and says when ssh is up', () => {
    expect(content('/usr/lib/buildkit/guest-setup')).toContain('/sys/firmware/dmi/tables/DMI');
    expect(content('/etc/systemd/system/buildkit-ready.service')).toContain(SSH_UP_LINE);
    expect(content('/etc/systemd/system/buildkit-guest.service')).toMatch(/^Before=.*ssh\.service/m);
  });

  it('points apt at the mirror that the base was built from', () => {
    expect(content('/etc/apt/sources.list.d/debian.sources')).toContain('URIs: http://m.example/debian/');
  });
});

describe('customizeHook', () => {
  const hook = customizeHook([{ path: "/etc/it's here", mode: 0o640, content: 'a\n$(rm -rf /)\n' }], 'plain');

  it('writes content that no shell looks at, with owner and mode', () => {
    expect(hook).toContain(Buffer.from('a\n$(rm -rf /)\n').toString('base64'));
    expect(hook).not.toContain('rm -rf /)');
    expect(hook).toContain(`chmod 640 "$1"'/etc/it'\\''s here'`);
    expect(hook).toContain('chown 0:0');
  });

  it('leaves no identity in the base', () => {
    expect(hook).toContain(': >"$1"/etc/machine-id');
    expect(hook).toContain('rm -f "$1"/etc/ssh/ssh_host_*');
  });
});
