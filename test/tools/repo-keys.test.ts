/** Keys over time: rotation without a client that loses trust, other signers, the keyring package. */
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import { createAptRoot } from '../support/apt-root.ts';
import { createWorld, type World } from '../support/world.ts';

const DAY_MS = 86_400_000;
/** Long enough ago for everything that happens here to be past. */
const START = Date.now() - 200 * DAY_MS;

async function newKey(world: World, email: string): Promise<string> {
  const request = { name: 'Example', email, algorithm: 'ed25519' as const, expiresSeconds: undefined };
  return (await new KeyStore(world.context).generate(request)).fingerprint;
}

function newRepo(world: World, keys?: readonly string[]): Promise<Repo> {
  return Repo.init(world.context, join(world.path, 'repo'), {
    suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
    origin: 'Example Org',
    label: 'Example',
    validDays: 0,
    ...(keys ? { keys } : {}),
  });
}

/** apt with only this key: exit code of update. */
async function updateWith(world: World, repo: Repo, key: string): Promise<number> {
  await using server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
  const keyring = join(world.path, `${key}.asc`);
  await writeFile(keyring, await new KeyStore(world.context).exportArmored(key));
  const sources = await repo.sources('bookworm', { url: server.url, signedBy: keyring });
  await using apt = await createAptRoot({ sources });
  return (await apt.run('apt-get', 'update')).exitCode;
}

describe('rotating keys', () => {
  it('lets clients of either key in while both sign, then of the new one alone', async () => {
    await using world = await createWorld(new Date(START));
    const old = await newKey(world, 'old@example.org');
    using repo = await newRepo(world);
    await repo.publish();
    world.setClock(new Date(START + DAY_MS));
    const next = await newKey(world, 'next@example.org');
    await repo.rotateKey(next, 90);
    expect(await repo.publish()).toMatchObject([{ published: true }]);
    expect(await repo.keyStatus()).toMatchObject([
      { fingerprint: old, role: 'signs, leaves', until: new Date(START + 91 * DAY_MS).toISOString() },
      { fingerprint: next, role: 'signs, stays' },
    ]);
    expect(await updateWith(world, repo, old)).toBe(0);
    expect(await updateWith(world, repo, next)).toBe(0);
    expect(await repo.sources('bookworm', { url: 'http://x/' })).toMatch(
      /Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----/,
    );
    const keyring = await run({}, 'gpg', ['--show-keys', '--with-colons', join(repo.publicDir, 'archive-key.asc')]);
    for (const fingerprint of [old, next]) expect(keyring.stdout).toContain(`fpr:::::::::${fingerprint}:`);

    world.setClock(new Date(START + 92 * DAY_MS));
    expect(await repo.publish()).toMatchObject([{ published: true }]);
    expect(await repo.keyStatus()).toMatchObject([{ fingerprint: next, role: 'signs' }]);
    expect(await updateWith(world, repo, old)).not.toBe(0);
    expect(await updateWith(world, repo, next)).toBe(0);
    await expect(repo.rotateKey(next, 90)).rejects.toMatchObject({ code: 'key-signs-already' });
  });

  it('reaches clients by an upgrade of the keyring package', async () => {
    await using world = await createWorld(new Date(START));
    await newKey(world, 'old@example.org');
    using repo = await newRepo(world);
    await repo.publish();
    const first = await repo.keyringDeb(world.path);
    expect(first.name).toBe('example-org-archive-keyring');
    expect((await repo.keyringDeb(join(world.path, 'again'))).sha256).toBe(first.sha256);
    world.setClock(new Date(START + DAY_MS));
    const next = await newKey(world, 'next@example.org');
    await repo.rotateKey(next, 90);
    const second = await repo.keyringDeb(world.path);
    await run({}, 'dpkg', ['--compare-versions', second.version, 'gt', first.version]);
    const root = join(world.path, 'root');
    await mkdir(join(root, 'var/lib/dpkg/info'), { recursive: true });
    await mkdir(join(root, 'var/lib/dpkg/updates'), { recursive: true });
    await writeFile(join(root, 'var/lib/dpkg/status'), '');
    const install = (path: string) =>
      run({}, 'dpkg', [`--root=${root}`, `--log=${root}/log`, '--force-not-root', '-i', path]);
    await install(first.path);
    await install(second.path);
    const keyring = join(root, 'usr/share/keyrings/example-org-archive-keyring.gpg');
    expect((await run({}, 'gpg', ['--show-keys', '--with-colons', keyring])).stdout).toContain(next);
    await repo.publish();
    await run({}, 'gpgv', ['--keyring', keyring, join(repo.publicDir, 'dists/bookworm/InRelease')]);
  });

  it('extends and revokes a key', async () => {
    await using world = await createWorld(new Date(START));
    const fingerprint = await newKey(world, 'a@example.org');
    const store = new KeyStore(world.context);
    const extended = await store.extend(fingerprint, 30 * 86_400);
    expect(extended.expires?.getTime()).toBe(START - (START % 1000) + 30 * DAY_MS);
    const { certificateArmored } = await store.revocation(fingerprint, 'compromised');
    const gnupg = join(world.path, 'gnupg');
    await mkdir(gnupg, { mode: 0o700 });
    const gpg = (...args: string[]) => run({}, 'gpg', ['--homedir', gnupg, '--batch', ...args]);
    await writeFile(join(world.path, 'key.asc'), await store.exportArmored(fingerprint));
    await writeFile(join(world.path, 'revocation.asc'), certificateArmored);
    await gpg('--import', join(world.path, 'key.asc'), join(world.path, 'revocation.asc'));
    expect((await gpg('--list-keys', '--with-colons')).stdout).toMatch(/^pub:r:/m);
  });
});

describe('other signers', () => {
  async function gnupgHome(world: World): Promise<string> {
    const home = join(world.path, 'gnupg');
    await mkdir(home, { mode: 0o700 });
    const args = [
      '--batch',
      '--passphrase',
      '',
      '--quick-gen-key',
      'Agent <agent@example.org>',
      'rsa3072',
      'sign',
      'never',
    ];
    await run({}, 'gpg', ['--homedir', home, ...args]);
    return home;
  }

  it('gpg and its agent', async () => {
    await using world = await createWorld();
    const home = await gnupgHome(world);
    const context = { ...world.context, env: { ...world.context.env, GNUPGHOME: home } };
    using repo = await Repo.init(context, join(world.path, 'repo'), {
      suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'] }],
      origin: 'o',
      label: 'l',
      keys: ['gpg:agent@example.org'],
    });
    await repo.publish();
    await run({}, 'gpgv', [
      '--keyring',
      join(repo.publicDir, 'archive-key.gpg'),
      join(repo.publicDir, 'dists/bookworm/InRelease'),
    ]);
    await run({}, 'gpgconf', ['--homedir', home, '--kill', 'all']);
  });

  it('any command, whose answer is checked', async () => {
    await using world = await createWorld();
    const home = await gnupgHome(world);
    const program = join(world.path, 'sign');
    const lines = [
      '#!/bin/sh',
      'case $1 in',
      `clearsign) gpg --homedir ${home} --batch --clearsign;;`,
      `detach) gpg --homedir ${home} --batch --armor --detach-sign;;`,
      `export) gpg --homedir ${home} --batch --armor --export;;`,
      'esac',
    ];
    await writeFile(program, `${lines.join('\n')}\n`);
    await chmod(program, 0o755);
    using repo = await newRepo(world, [`command:${program}`]);
    await repo.publish();
    const release = join(repo.publicDir, 'dists/bookworm/InRelease');
    await run({}, 'gpgv', ['--keyring', join(repo.publicDir, 'archive-key.gpg'), release]);
    const before = await readFile(release);
    await writeFile(program, `${lines.join('\n').replace('clearsign) ', 'clearsign) sed s/Label/Lable/ | ')}\n`);
    await expect(repo.publish([], { force: true })).rejects.toMatchObject({ code: 'signature-other-text' });
    expect(await readFile(release)).toEqual(before);
    await run({}, 'gpgconf', ['--homedir', home, '--kill', 'all']);
  });

  it('somebody elsewhere', async () => {
    await using world = await createWorld();
    const home = await gnupgHome(world);
    using repo = await newRepo(world);
    const text = await repo.writeUnsigned('bookworm');
    const gpg = (...args: string[]) => run({}, 'gpg', ['--homedir', home, '--batch', ...args]);
    const inRelease = (await gpg('--output', '-', '--clearsign', text)).stdout;
    const releaseGpg = (await gpg('--output', '-', '--armor', '--detach-sign', text)).stdout;
    const publicKeys = (await gpg('--armor', '--export')).stdout;
    const attachment = { inRelease, releaseGpg, publicKeys };
    await expect(
      repo.attachSignature('bookworm', { ...attachment, inRelease: inRelease.replace('Example', 'Exbmple') }),
    ).rejects.toMatchObject({ code: 'signature-bad' });
    const id = await repo.attachSignature('bookworm', attachment);
    expect(repo.generations()).toMatchObject([{ id, current: true }]);
    await run({}, 'gpgv', [
      '--keyring',
      join(repo.publicDir, 'archive-key.gpg'),
      join(repo.publicDir, 'dists/bookworm/InRelease'),
    ]);
    await expect(repo.attachSignature('bookworm', attachment)).rejects.toMatchObject({ code: 'nothing-pending' });
    await run({}, 'gpgconf', ['--homedir', home, '--kill', 'all']);
  });
});
