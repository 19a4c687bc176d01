import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { installSshConfig, sshConfigText } from '../../../src/vm/ssh-config.ts';

describe('sshConfigText', () => {
  it('names no machine: ssh asks when it connects', () => {
    const text = sshConfigText('/opt/my tools/buildkit', '/var/lib/100%', '/var/lib/100%/key');
    expect(text).toContain('\nHost *.vm.buildkit\n');
    expect(text).toContain(`\n  ProxyCommand '/opt/my tools/buildkit' --state /var/lib/100%% -q vm dial %n\n`);
    expect(text).toContain('\n  IdentityFile "/var/lib/100%%/key"\n');
    expect(text).toContain('\n  StrictHostKeyChecking yes\n');
  });
});

describe('installSshConfig', () => {
  it('puts the include first, once, and keeps what was there', async () => {
    const home = await mkdtemp(join(tmpdir(), 'buildkit-home-'));
    try {
      expect(await installSshConfig(home, '/s/ssh_config')).toBe(true);
      await writeFile(join(home, '.ssh/config'), 'Host a\n  Port 1\n');
      expect(await installSshConfig(home, '/s/ssh_config')).toBe(true);
      expect(await installSshConfig(home, '/s/ssh_config')).toBe(false);
      expect(await readFile(join(home, '.ssh/config'), 'utf8')).toBe('Include "/s/ssh_config"\nHost a\n  Port 1\n');
      expect((await stat(join(home, '.ssh/config'))).mode & 0o777).toBe(0o600);
    } finally {
      await rm(home, { recursive: true });
    }
  });
});
