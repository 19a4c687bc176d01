/** A package section and a DEBIAN/ tree, on the real dpkg: installed with all that debhelper's files would do, and gone again. */
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { getField } from '../../src/deb/control.ts';
import { type BuildRequest, buildPackages } from '../../src/pkg/build.ts';
import { createDebianRoot, type DebianRoot } from '../support/debian-root.ts';
import { createWorld, type World } from '../support/world.ts';

let world: World;
let root: DebianRoot;

beforeAll(async () => {
  world = await createWorld();
  root = await createDebianRoot('bookworm', ['adduser', 'systemd', 'debconf', 'cron', 'man-db']);
}, 300_000);
afterAll(async () => {
  await root?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
});

async function fill(folder: string, files: Record<string, string>): Promise<void> {
  for (const [name, text] of Object.entries(files)) {
    const path = join(world.path, folder, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
    if (text.startsWith('#!')) await chmod(path, 0o755);
  }
}

const request = (input: string, more: Partial<BuildRequest> = {}): BuildRequest => ({
  inputs: [input],
  cwd: world.path,
  suite: 'bookworm',
  outDir: join(world.path, 'out'),
  maintainer: 'Ada Lovelace <ada@debian.org>',
  ...more,
});

const MANIFEST = `package:
  name: shelf
  version: 2.1.0
  summary: keeps things where they are
  description: |
    A program and its service.

    Second paragraph.
  licence: MIT
  section: admin
  depends: [bash (>= 5)]
  user: shelf
  units: [pkg/shelf.service, pkg/shelf.timer]
  sysusers: [pkg/shelf-extra.conf]
  tmpfiles: [pkg/shelf-tmp.conf]
  cron: [pkg/shelf.cron]
  logrotate: pkg/rotate
  man: [pkg/shelf.1]
  docs: [pkg/GUIDE.md]
  scripts: { postinst: pkg/postinst }
  debconf: { templates: pkg/templates, config: pkg/config }
  alternatives:
    - { name: keeper, link: /usr/bin/keeper, path: /usr/bin/shelf, priority: 70 }
  triggers: [interest-noawait /usr/share/shelf]
  files:
    - { source: bin/shelf, target: /usr/bin/shelf }
    - { source: etc/shelf.conf, target: /etc/shelf/shelf.conf, type: config, mode: '0640', group: adm }
    - { source: share, target: /usr/share/shelf }
    - { source: 'icons/**/*.svg', target: /usr/share/shelf/icons }
    - { target: /usr/share/shelf/latest, type: symlink, link: data.txt }
    - { target: /var/lib/shelf-spool, type: dir, mode: '1777' }
`;

const FILES = {
  'buildkit.yaml': MANIFEST,
  'pkg/shelf.service':
    '[Unit]\nDescription=shelf\n[Service]\nExecStart=/usr/bin/shelf serve\nUser=shelf\nStateDirectory=shelf\n[Install]\nWantedBy=multi-user.target\n',
  'pkg/shelf.timer': '[Unit]\nDescription=shelf\n[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n',
  'pkg/shelf-extra.conf': 'u shelf-extra - "more"\n',
  'pkg/shelf-tmp.conf': 'd /var/tmp/shelf-made 0755 root root -\n',
  'pkg/shelf.cron': '7 3 * * * root /usr/bin/shelf tidy\n',
  'pkg/rotate': '/var/log/shelf.log {\n  weekly\n  missingok\n}\n',
  'pkg/shelf.1': '.TH SHELF 1\n.SH NAME\nshelf \\- keeps things where they are\n',
  'pkg/GUIDE.md': '# Guide\n',
  'pkg/postinst':
    '#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_get shelf/colour\necho "$RET" > /etc/shelf/colour\n#DEBHELPER#\necho done > /etc/shelf/marker\n',
  'pkg/templates':
    'Template: shelf/colour\nType: string\nDefault: green\nDescription: Colour of the shelf:\n The colour that the shelf has.\n',
  'pkg/config': '#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_input low shelf/colour || true\ndb_go\n',
  'bin/shelf': '#!/bin/sh\necho shelf "$@"\n',
  'etc/shelf.conf': 'a=1\n',
  'share/data.txt': 'data\n',
  'share/with space/ü.txt': 'x\n',
  'icons/a.svg': '<svg/>',
  'icons/deep/b.svg': '<svg/>',
  'icons/deep/c.png': 'no',
};

describe('a package section', () => {
  it('installs with everything around it, and purges without a trace', async () => {
    await fill('shelf', FILES);
    const { packages } = await buildPackages(world.context, request('./shelf'));
    expect(packages).toMatchObject([{ name: 'shelf', version: '2.1.0-1~deb12', architecture: 'all' }]);
    const [one] = packages;
    expect(getField(one!.control, 'Depends')).toBe(
      'bash (>= 5), adduser, systemd | systemd-standalone-sysusers | systemd-sysusers, debconf (>= 0.5) | debconf-2.0, cron | cron-daemon',
    );
    const lint = await run({}, 'lintian', ['--allow-root', '--fail-on', 'none', one!.path]);
    // the test's own postinst writes below /etc, and its debconf questions have no translations
    expect(lint.stdout.split('\n').filter((line) => line.startsWith('E:'))).toEqual([]);

    const before = await root.snapshot();
    const [file] = await root.bring([one!.path]);
    await root.sh(`DEBIAN_FRONTEND=noninteractive dpkg -i ${file}`);
    const state = await root.sh(`
      shelf x; keeper y; cat /etc/shelf/colour /etc/shelf/marker
      stat -c '%a %U %G' /etc/shelf/shelf.conf /var/lib/shelf-spool
      readlink /usr/share/shelf/latest; cat "/usr/share/shelf/with space/ü.txt"
      ls /usr/share/shelf/icons /usr/share/shelf/icons/deep
      getent passwd shelf shelf-extra | cut -d: -f1; ls -d /etc/cron.d/shelf_cron /etc/logrotate.d/shelf
      ls /etc/systemd/system/multi-user.target.wants/shelf.service /etc/systemd/system/timers.target.wants/shelf.timer
      zcat /usr/share/man/man1/shelf.1.gz | head -1; cat /var/lib/dpkg/info/shelf.triggers
      # systemd-tmpfiles itself wants /proc, which the root has not
      grep -o 'create shelf-tmp.conf' /var/lib/dpkg/info/shelf.postinst`);
    expect(state.stdout.split('\n').filter(Boolean)).toEqual([
      'shelf x',
      'shelf y',
      'green',
      'done',
      '640 root adm',
      '1777 root root',
      'data.txt',
      'x',
      '/usr/share/shelf/icons:',
      'a.svg',
      'deep',
      '/usr/share/shelf/icons/deep:',
      'b.svg',
      'shelf',
      'shelf-extra',
      '/etc/cron.d/shelf_cron',
      '/etc/logrotate.d/shelf',
      '/etc/systemd/system/multi-user.target.wants/shelf.service',
      '/etc/systemd/system/timers.target.wants/shelf.timer',
      '.TH SHELF 1',
      'interest-noawait /usr/share/shelf',
      'create shelf-tmp.conf',
    ]);
    expect((await root.sh('dpkg -V shelf')).stdout).toBe('');
    await root.sh('dpkg -r shelf && test -f /etc/shelf/shelf.conf && ! test -e /usr/bin/keeper');
    await root.sh('rm -f /etc/shelf/colour /etc/shelf/marker; deluser --quiet --system shelf-extra; dpkg -P shelf');
    const left = (await root.snapshot()).filter((path) => !before.includes(path));
    expect(left).toEqual([]);
  });

  it('is the same package wherever its folder is, and another when a file changes', async () => {
    await fill('copy/of/shelf', FILES);
    const build = async (input: string, out: string) =>
      (await buildPackages(world.context, request(input, { outDir: join(world.path, out) }))).packages[0]!.sha256;
    const first = await build('./copy/of/shelf', 'one');
    await chmod(join(world.path, 'copy/of/shelf/share/data.txt'), 0o600);
    expect(await build('./copy/of/shelf', 'two')).toBe(first);
    await fill('copy/of/shelf', { 'share/data.txt': 'other\n' });
    expect(await build('./copy/of/shelf', 'three')).not.toBe(first);
  });

  it('says every mistake at once, and takes nothing from outside of its folder', async () => {
    const broken = MANIFEST.replace('shelf\n', 'Shelf!\n')
      .replace('bash (>= 5)', 'bash >= 5')
      .replace("mode: '0640'", "mode: '9'");
    await fill('broken', { ...FILES, 'buildkit.yaml': broken });
    const failure = await buildPackages(world.context, request('./broken')).catch((error: unknown) => error);
    expect(failure).toMatchObject({
      code: 'config-invalid',
      problems: [expect.anything(), expect.anything(), expect.anything()],
    });
    await fill('outside', {
      ...FILES,
      'buildkit.yaml': MANIFEST.replace('bin/shelf, target', '../shelf/bin/shelf, target'),
    });
    await expect(buildPackages(world.context, request('./outside'))).rejects.toMatchObject({ code: 'manifest-file' });
    await symlink('/etc', join(world.path, 'outside/etc-link'));
    await fill('outside', { 'buildkit.yaml': MANIFEST.replace('bin/shelf, target', 'etc-link/hostname, target') });
    await expect(buildPackages(world.context, request('./outside'))).rejects.toMatchObject({ code: 'manifest-file' });
  });
});

describe('a DEBIAN/ tree', () => {
  const tree = {
    'DEBIAN/control.template':
      'Package: tree-demo\nVersion: @VERSION@\nArchitecture: all\nMaintainer: @MAINTAINER@\nSection: misc\nPriority: optional\nDescription: demonstration for @SUITE@\n version @UPSTREAM@, mail me@example.org\n',
    'DEBIAN/conffiles': '/etc/tree-demo.conf\n',
    'DEBIAN/postinst': '#!/bin/sh\nset -e\necho "$1" > /var/lib/tree-demo-state\n',
    'DEBIAN/postrm': '#!/bin/sh\nset -e\nif [ "$1" = purge ]; then rm -f /var/lib/tree-demo-state; fi\n',
    'etc/tree-demo.conf': 'x\n',
    'usr/bin/tree-demo': '#!/bin/sh\necho tree\n',
  };

  it('is filled in, installs, and is gone', async () => {
    await fill('tree', tree);
    const { packages } = await buildPackages(world.context, request('./tree', { upstreamVersion: '1.5' }));
    expect(getField(packages[0]!.control, 'Description')).toBe(
      'demonstration for bookworm\n version 1.5, mail me@example.org',
    );
    const before = await root.snapshot();
    const [file] = await root.bring([packages[0]!.path]);
    const state = await root.sh(
      `dpkg -i ${file} >/dev/null; tree-demo; cat /var/lib/tree-demo-state; dpkg -V tree-demo; dpkg-query -W -f '\${Conffiles}\\n' tree-demo`,
    );
    expect(state.stdout).toMatch(/^tree\nconfigure\n \/etc\/tree-demo\.conf [0-9a-f]{32}\n$/);
    await root.sh('dpkg -P tree-demo');
    expect(await root.snapshot()).toEqual(before);
  });

  it('takes its version from the tags of git', async () => {
    await fill('tagged', tree);
    const git = (...args: string[]) =>
      run({}, 'git', ['-C', join(world.path, 'tagged'), '-c', 'user.name=A', '-c', 'user.email=a@b.org', ...args], {
        env: { GIT_COMMITTER_DATE: '2024-05-05T05:05:05Z' },
      });
    await git('init', '-q');
    await git('add', '.');
    await git('commit', '-q', '-m', 'x');
    await git('tag', 'v3.4');
    const { packages } = await buildPackages(world.context, request('./tagged'));
    expect(packages[0]!.version).toBe('3.4-1~deb12');
    const { stdout } = await run({}, 'dpkg-deb', ['-c', packages[0]!.path]);
    expect(stdout).toContain('2024-05-05 05:05 ./usr/bin/tree-demo');
  });

  it.each([
    [
      'a token that nothing fills in',
      { 'DEBIAN/control.template': tree['DEBIAN/control.template'].replace('@SUITE@', '@SUIT@') },
      "did you mean 'SUITE'?",
    ],
    ['a control file that dpkg does not know', { 'DEBIAN/postins': '#!/bin/sh\n' }, "did you mean 'postinst'?"],
    ['no field', { 'DEBIAN/control.template': 'Package: tree-demo\nVersion: @VERSION@\n' }, undefined],
    [
      'a bad name',
      { 'DEBIAN/control.template': tree['DEBIAN/control.template'].replace('tree-demo', 'Tree') },
      undefined,
    ],
  ])('refuses %s', async (what, change, hint) => {
    const folder = `bad-${what.replaceAll(' ', '-')}`;
    await fill(folder, { ...tree, ...change });
    const failure = await buildPackages(world.context, request(`./${folder}`, { upstreamVersion: '1' })).catch(
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ code: 'tree-control', ...(hint === undefined ? {} : { hint }) });
  });

  it('needs a version from somewhere', async () => {
    await fill('unversioned', tree);
    await expect(buildPackages(world.context, request('./unversioned'))).rejects.toMatchObject({
      code: 'tree-version',
    });
  });
});
