/** The mirror tools of Debian read what is published: aptly, reprepro, debmirror; dose-debcheck agrees about closure. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

let world: World;
let repo: Repo;
let server: Awaited<ReturnType<typeof serveRepo>>;
let gnupg: string;
let fingerprint: string;

beforeEach(async () => {
  world = await createWorld();
  // aptly of Debian 12 reads no EdDSA by itself, and reprepro and debmirror use gpg
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'rsa4096' as const, expiresSeconds: undefined };
  ({ fingerprint } = await new KeyStore(world.context).generate(request));
  repo = await Repo.init(world.context, join(world.path, 'repo'), {
    suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
    origin: 'Example',
    label: 'Example',
  });
  const folder = join(world.path, 'in');
  // enough names for several blocks in one index
  for (let index = 0; index < 400; index += 1) {
    const fields = { Depends: index === 0 ? 'libc6' : `pkg-${index - 1} (>= 1.0)` };
    await makePackage(world.context, folder, { name: `pkg-${index}`, fields });
  }
  await repo.add('bookworm', [folder]);
  await repo.publish();
  server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
  gnupg = join(world.path, 'gnupg');
  await mkdir(gnupg, { mode: 0o700 });
  await run({}, 'gpg', ['--homedir', gnupg, '--batch', '--import', join(repo.publicDir, 'archive-key.asc')]);
  await run({}, 'gpg', [
    '--homedir',
    gnupg,
    '--no-default-keyring',
    '--keyring',
    'trustedkeys.gpg',
    '--batch',
    '--import',
    join(repo.publicDir, 'archive-key.asc'),
  ]);
});

afterEach(async () => {
  await server[Symbol.asyncDispose]();
  repo[Symbol.dispose]();
  await run({}, 'gpgconf', ['--homedir', gnupg, '--kill', 'all']);
  await world[Symbol.asyncDispose]();
});

/** Names of all .deb files below a folder. */
async function debsBelow(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  return names.filter((name) => name.endsWith('.deb'));
}

describe('a published repository', () => {
  it('is mirrored by aptly', async () => {
    const config = join(world.path, 'aptly.conf');
    await writeFile(
      config,
      JSON.stringify({ rootDir: join(world.path, 'aptly'), architectures: ['amd64'], gpgProvider: 'gpg' }),
    );
    const env = { GNUPGHOME: gnupg };
    const aptly = (...args: string[]) => run({}, 'aptly', [`-config=${config}`, ...args], { env, timeoutMs: 120_000 });
    await aptly('mirror', 'create', '-keyring=trustedkeys.gpg', 'test', `${server.url}/`, 'bookworm', 'main');
    await aptly('mirror', 'update', '-keyring=trustedkeys.gpg', 'test');
    expect((await aptly('mirror', 'show', 'test')).stdout).toContain('Number of packages: 400');
  });

  it('is mirrored by reprepro', async () => {
    const base = join(world.path, 'reprepro');
    await mkdir(join(base, 'conf'), { recursive: true });
    await writeFile(
      join(base, 'conf/distributions'),
      ['Codename: bookworm', 'Architectures: amd64', 'Components: main', 'Update: ours', ''].join('\n'),
    );
    await writeFile(
      join(base, 'conf/updates'),
      ['Name: ours', `Method: ${server.url}`, 'Suite: bookworm', `VerifyRelease: ${fingerprint.slice(-16)}`, ''].join(
        '\n',
      ),
    );
    await run({}, 'reprepro', ['-b', base, 'update'], { env: { GNUPGHOME: gnupg }, timeoutMs: 120_000 });
    expect((await run({}, 'reprepro', ['-b', base, 'list', 'bookworm'])).stdout.trim().split('\n')).toHaveLength(400);
  });

  it('is mirrored by debmirror', async () => {
    const target = join(world.path, 'debmirror');
    const url = new URL(server.url);
    const args = [
      `--host=${url.host}`,
      '--root=/',
      '--method=http',
      '--dist=bookworm',
      '--section=main',
      '--arch=amd64',
    ];
    args.push(
      '--nosource',
      '--i18n',
      `--keyring=${join(repo.publicDir, 'archive-key.gpg')}`,
      '--rsync-extra=none',
      target,
    );
    await run({}, 'debmirror', args, { timeoutMs: 120_000, env: { HOME: world.path } });
    expect(await debsBelow(join(target, 'pool'))).toHaveLength(400);
    const index = 'dists/bookworm/main/binary-amd64/Packages.xz';
    expect((await readFile(join(target, index))).equals(await readFile(join(repo.publicDir, index)))).toBe(true);
  });

  it('has the closure that dose-debcheck finds', async () => {
    const index = join(repo.publicDir, 'dists/bookworm/main/binary-amd64/Packages');
    const args = ['--latest=1', '--deb-native-arch=amd64', '--failures', '--summary', index];
    const alone = await run({}, 'dose-debcheck', args, { okExitCodes: [1] });
    expect(alone.stdout).toMatch(/broken-packages: 400/); // libc6 is missing: every one asks for it at last
    const base = join(world.path, 'base');
    await writeFile(base, 'Package: libc6\nVersion: 2.36-9\nArchitecture: amd64\n');
    const whole = await run({}, 'dose-debcheck', [...args.slice(0, -1), `--bg=${base}`, index], { okExitCodes: [1] });
    expect(whole.stdout).toMatch(/broken-packages: 0/);
  });
});
