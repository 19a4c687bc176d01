import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  CUSTOM_STAGES,
  type Customization,
  customizationDigest,
  customizationParts,
  findHooks,
  readOverlay,
  replaceTokens,
  stageScript,
} from '../../../src/vm/customize.ts';

let folder: string;
let custom: Customization;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-custom-'));
  custom = { name: 'web', suite: 'bookworm', architecture: 'amd64', overlay: join(folder, 'o') };
  await mkdir(join(folder, 'o/etc/%HOSTNAME%'), { recursive: true });
  await mkdir(join(folder, 'h'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('the overlay', () => {
  it('keeps modes and links and fills tokens into names, texts and links, not into binaries', async () => {
    await writeFile(join(folder, 'o/etc/motd'), 'caf\u00e9 %DISTR% on %ARCH%: %HOSTNAME% %OTHER%\n');
    await chmod(join(folder, 'o/etc/motd'), 0o2750);
    await writeFile(join(folder, 'o/etc/%HOSTNAME%/blob'), Buffer.from('\0%DISTR%'));
    await chmod(join(folder, 'o/etc/%HOSTNAME%/blob'), 0o600);
    await symlink('/srv/%DISTR%', join(folder, 'o/etc/link'));
    await chmod(join(folder, 'o/etc'), 0o755);
    await chmod(join(folder, 'o/etc/%HOSTNAME%'), 0o700);
    const entries = await readOverlay(custom);
    expect(entries.map(({ path, type, mode, link }) => [path, type, mode, link])).toEqual([
      ['etc', 'dir', 0o755, undefined],
      ['etc/web', 'dir', 0o700, undefined],
      ['etc/web/blob', 'file', 0o600, undefined],
      ['etc/link', 'symlink', 0o777, '/srv/bookworm'],
      ['etc/motd', 'file', 0o2750, undefined],
    ]);
    expect(Buffer.from(entries[4]!.content!).toString()).toBe('caf\u00e9 bookworm on amd64: web %OTHER%\n');
    expect(Buffer.from(entries[2]!.content!).toString()).toBe('\0%DISTR%');
  });

  it('must be there', async () => {
    const missing = { ...custom, overlay: join(folder, 'nope') };
    await expect(readOverlay(missing)).rejects.toMatchObject({ code: 'overlay-missing' });
  });

  it('replaces only whole tokens', () => {
    expect(replaceTokens('%DISTR %DISTR%% %%ARCH%', custom)).toBe('%DISTR bookworm% %amd64');
  });
});

describe('hooks', () => {
  const hook = (name: string, text = '#!/bin/sh\n', mode = 0o755) => writeFile(join(folder, 'h', name), text, { mode });

  it('are found by name; other files are not hooks', async () => {
    await hook('install.sh');
    await hook('postconfig');
    await hook('README', 'x', 0o644);
    const found = await findHooks({ ...custom, hooks: join(folder, 'h') });
    expect([...found.keys()]).toEqual(['install.sh', 'postconfig']);
  });

  it('must be programs, and one at least', async () => {
    await expect(findHooks({ ...custom, hooks: join(folder, 'h') })).rejects.toMatchObject({ code: 'hooks-missing' });
    await hook('install.sh', '#!/bin/sh\n', 0o644);
    await expect(findHooks({ ...custom, hooks: join(folder, 'h') })).rejects.toMatchObject({
      code: 'hook-not-executable',
    });
    await hook('install.sh', 'echo no interpreter\n');
    await chmod(join(folder, 'h/install.sh'), 0o755);
    await expect(findHooks({ ...custom, hooks: join(folder, 'h') })).rejects.toMatchObject({
      code: 'hook-not-executable',
    });
  });

  it('run in the order of the older systems, with their arguments', () => {
    expect(CUSTOM_STAGES).toEqual(['postunpack', 'overlay', 'install.sh', 'install-custom.sh', 'postconfig']);
    expect(stageScript(custom, 'postunpack', '/h d/postunpack')).toBe(
      `#!/bin/sh\nset -eu\nroot=$1\n'/h d/postunpack' web "$root" bookworm\n`,
    );
    expect(stageScript(custom, 'postconfig', '/h')).toContain('\n/h web "$root" bookworm\n');
    const inside = stageScript(custom, 'install.sh', '/h d/install.sh');
    expect(inside).toContain(`cp --no-preserve=all '/h d/install.sh' "$root/tmp/.buildkit-install.sh"\n`);
    expect(inside).toContain('\nchroot "$root" /tmp/.buildkit-install.sh web bookworm\n');
    expect(stageScript(custom, 'overlay', '/s/overlay.tar')).toMatch(/^chroot "\$root" tar -x .* <\/s\/overlay\.tar$/m);
  });
});

describe('the digest', () => {
  const digest = async (of: Customization) => customizationDigest(await customizationParts(of));

  it('changes with content, mode, hook and, where a hook could see it, name; not with nothing to do', async () => {
    const bare = { ...custom, overlay: undefined };
    expect(await digest(bare)).toBeUndefined();
    const first = await digest(custom);
    expect(await digest(custom)).toBe(first);
    await writeFile(join(folder, 'o/a'), 'x', { mode: 0o644 });
    const second = await digest(custom);
    await chmod(join(folder, 'o/a'), 0o600);
    const third = await digest(custom);
    await writeFile(join(folder, 'h/install.sh'), '#!/bin/sh\n', { mode: 0o755 });
    const hooks = join(folder, 'h');
    const fourth = await digest({ ...custom, hooks });
    const fifth = await digest({ ...custom, hooks, name: 'db' });
    expect(new Set([first, second, third, fourth, fifth]).size).toBe(5);
  });
});
