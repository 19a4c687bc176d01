/** What is published, compared with apt-ftparchive, and how publishing behaves when repeated, interrupted or raced. */
import { randomInt } from 'node:crypto';
import { mkdir, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { run, start } from '../../src/core/run.ts';
import { getField, type Paragraph, parseControl } from '../../src/deb/control.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { Repo } from '../../src/repo/repo.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const NOW = new Date('2026-11-21T08:12:05Z');
const PROGRAM = resolve(import.meta.dirname, '../../bin/buildkit');

async function newRepo(world: World, architectures = ['amd64']): Promise<Repo> {
  await new KeyStore(world.context).generate({
    name: 'Example',
    email: 'archive@example.org',
    algorithm: 'ed25519',
    expiresSeconds: undefined,
  });
  return Repo.init(world.context, join(world.path, 'repo'), {
    suites: ['bookworm', 'trixie'].map((name) => ({ name, components: ['main'], architectures })),
    origin: 'Example',
    label: 'Example',
  });
}

const dists = (repo: Repo, path: string) => join(repo.publicDir, 'dists', path);

describe('the indexes', () => {
  it('say what apt-ftparchive says, field by field, and alike in every compression', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world, ['amd64', 'arm64']);
    const incoming = join(world.path, 'in');
    for (const architecture of ['amd64', 'all', 'arm64']) {
      for (const version of ['1.0-1', '1:0.9~rc1']) {
        await makePackage(world.context, join(incoming, version), {
          name: `tool-${architecture}`,
          version,
          architecture,
          fields: {
            Depends: 'libc6 (>= 2.36), other | another (<< 2)',
            Homepage: 'https://example.org/',
            Tag: 'a::b,\n c::d',
            'X-Long': 'x'.repeat(5000),
            Description: 'short: with colon\n long line\n .\n  verbatim ünïcode',
          },
        });
      }
    }
    await repo.add('bookworm', [incoming]);
    await repo.publish(['bookworm']);
    for (const architecture of ['amd64', 'arm64']) {
      const path = dists(repo, `bookworm/main/binary-${architecture}/Packages`);
      const ours = parseControl(await readFile(path, 'utf8'));
      const args = [`--arch=${architecture}`, '-o=APT::FTPArchive::AlwaysStat=true', 'packages', 'pool'];
      const theirs = parseControl((await run({}, 'apt-ftparchive', args, { cwd: repo.publicDir })).stdout);
      expect(ours).toHaveLength(4);
      const key = (p: Paragraph) =>
        `${getField(p, 'Package')} ${getField(p, 'Version')} ${getField(p, 'Architecture')}`;
      const expected = new Map(theirs.map((stanza) => [key(stanza), stanza]));
      expect([...expected.keys()].sort()).toEqual(ours.map(key).sort());
      for (const stanza of ours) {
        const other = expected.get(key(stanza))!;
        const left = other.fields.map((f) => f.name).filter((name) => getField(stanza, name) === undefined);
        expect(left, 'digests that are left out on purpose').toEqual(['SHA1', 'SHA512']);
        for (const field of stanza.fields) expect(getField(other, field.name), field.name).toBe(field.value);
      }
      const plain = await readFile(path, 'utf8');
      expect((await run({}, 'gzip', ['-dc', `${path}.gz`])).stdout).toBe(plain);
      expect((await run({}, 'xz', ['-dc', `${path}.xz`])).stdout).toBe(plain);
      await run({}, 'xz', ['--test', `${path}.xz`]);
    }
  });

  it('tell which package has which file, as apt-ftparchive does', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    await repo.saveSuite('bookworm', { contents: true });
    const incoming = join(world.path, 'in');
    for (const name of ['one', 'two']) await makePackage(world.context, incoming, { name });
    await makePackage(world.context, incoming, { name: 'three', architecture: 'amd64', fields: { Section: 'net' } });
    await repo.add('bookworm', [incoming]);
    await repo.publish(['bookworm']);
    const path = dists(repo, 'bookworm/main/Contents-amd64.gz');
    const lines = (text: string) =>
      text
        .split('\n')
        .map((line) => line.replaceAll(/\s+/g, ' '))
        .filter(Boolean);
    const ours = lines((await run({}, 'gzip', ['-dc', path])).stdout);
    expect(ours).toEqual([
      'usr/share/one/data misc/one',
      'usr/share/three/data net/three',
      'usr/share/two/data misc/two',
    ]);
    const theirs = await run({}, 'apt-ftparchive', ['contents', 'pool'], { cwd: repo.publicDir });
    // it knows sections from override files alone
    expect(lines(theirs.stdout).sort()).toEqual(ours.map((line) => line.replace(/ \w+\//, ' ')));
    expect(await readFile(dists(repo, 'bookworm/Release'), 'utf8')).toContain(' main/Contents-amd64.gz\n');
    await run({}, 'sh', ['-c', 'mv "$0" "$0.away"', join(repo.publicDir, 'pool')]); // nothing is unpacked again
    expect(await repo.publish(['bookworm'], { force: true })).toMatchObject([{ published: true }]);
  });

  it('are the same bytes whatever way led to their contents', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    const incoming = join(world.path, 'in');
    for (let index = 0; index < 300; index += 1) {
      await makePackage(world.context, join(incoming, String(index % 10)), { name: `pkg-${index}` });
    }
    for (let part = 0; part < 10; part += 1) {
      world.setClock(new Date(NOW.getTime() + part * 60_000));
      await repo.add('bookworm', [join(incoming, String(part))]);
      await repo.publish(['bookworm']); // block by block
      if (part === 7) await repo.remove('bookworm', ['pkg-3', 'pkg-50', 'pkg-113']);
    }
    world.setClock(new Date(NOW.getTime() + 3_600_000));
    await repo.add('bookworm', [incoming]);
    await repo.publish(['bookworm']);
    await repo.add('trixie', [incoming]);
    await repo.publish(['trixie']); // at once
    for (const suffix of ['', '.gz', '.xz']) {
      const path = `main/binary-amd64/Packages${suffix}`;
      const [bookworm, trixie] = await Promise.all(
        ['bookworm', 'trixie'].map((s) => readFile(dists(repo, `${s}/${path}`))),
      );
      expect(bookworm!.equals(trixie!), suffix).toBe(true);
    }
    const listed = parseControl(await readFile(dists(repo, 'bookworm/main/binary-amd64/Packages'), 'utf8'));
    expect(listed).toHaveLength(300);
  });
});

describe('publishing', () => {
  it('with the same clock, key and contents gives the same Release', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    await makePackage(world.context, join(world.path, 'in'), { name: 'hello' });
    await repo.add('bookworm', [join(world.path, 'in')]);
    expect(await repo.publish(['bookworm'])).toEqual([
      {
        suite: 'bookworm',
        published: true,
        generation: '20261121T081205Z',
        packages: 1,
        validUntil: '2026-12-05T08:12:05.000Z',
      },
    ]);
    const digests: string[] = [];
    for (const suffix of ['', '.gz', '.xz']) {
      const path = dists(repo, `bookworm/main/binary-amd64/Packages${suffix}`);
      const sum = (await run({}, 'sha256sum', [path])).stdout.slice(0, 64);
      const size = String((await readFile(path)).length).padStart(3);
      digests.push(` ${sum} ${size} main/binary-amd64/Packages${suffix}`);
    }
    expect(await readFile(dists(repo, 'bookworm/Release'), 'utf8')).toBe(
      [
        'Origin: Example',
        'Label: Example',
        'Suite: bookworm',
        'Codename: bookworm',
        'Date: Sat, 21 Nov 2026 08:12:05 UTC',
        'Valid-Until: Sat, 05 Dec 2026 08:12:05 UTC',
        'Acquire-By-Hash: yes',
        'Architectures: amd64',
        'Components: main',
        'SHA256:',
        ...digests,
        '',
      ].join('\n'),
    );
  });

  it('does nothing twice, keeps by-hash objects, and renews what is half over', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    for (const name of ['one', 'two']) await makePackage(world.context, join(world.path, name), { name });
    await repo.add('bookworm', [join(world.path, 'one')]);
    await repo.publish();
    const objects = () => readdir(dists(repo, 'bookworm/main/binary-amd64/by-hash/SHA256'));
    const before = await objects();
    expect(await repo.publish()).toMatchObject([{ published: false }, { published: false }]);
    await repo.add('bookworm', [join(world.path, 'two')]);
    expect(await repo.publish([], { dryRun: true })).toMatchObject([{ published: true }, { published: false }]);
    expect(await repo.publish()).toMatchObject([{ published: true }, { published: false }]);
    expect(await objects()).toEqual(expect.arrayContaining(before));
    expect((await objects()).length).toBe(before.length + 3);
    world.setClock(new Date(NOW.getTime() + 8 * 86_400_000));
    expect(await repo.publish()).toMatchObject([{ published: true }, { published: true }]);
  });

  it('refuses to go on when the clock went back', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    await repo.publish();
    world.setClock(new Date(NOW.getTime() - 86_400_000));
    await expect(repo.publish([], { force: true })).rejects.toMatchObject({ code: 'clock-behind' });
  });

  it('makes a broken or deleted cache of blocks anew', async () => {
    await using world = await createWorld(NOW);
    using repo = await newRepo(world);
    await makePackage(world.context, join(world.path, 'in'), { name: 'one' });
    await repo.add('bookworm', [join(world.path, 'in')]);
    await repo.publish();
    const path = dists(repo, 'bookworm/main/binary-amd64/Packages');
    const before = await readFile(path);
    await rm(join(repo.dir, 'db', 'blocks.sqlite'));
    await mkdir(join(repo.dir, 'incoming', 'left-over'));
    expect(await repo.publish([], { force: true })).toMatchObject([{ published: true }, { published: true }]);
    expect(await readFile(path)).toEqual(before);
  });
});

describe('buildkit repo from several processes', () => {
  it('adds at the same time, and none fails', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const folders = Array.from({ length: 8 }, (_, index) => join(world.path, `in-${index}`));
    for (const [index, folder] of folders.entries()) {
      for (let n = 0; n < 4; n += 1) await makePackage(world.context, folder, { name: `pkg-${index}-${n}` });
    }
    const state = ['--state', world.context.stateDir];
    await Promise.all(
      folders.map((folder) => run({}, PROGRAM, [...state, 'repo', 'add', '--repo', repo.dir, 'bookworm', folder])),
    );
    expect(repo.list('bookworm')).toHaveLength(32);
  });

  it('killed at any moment leaves a whole repository, and the next command just works', async () => {
    await using world = await createWorld();
    using repo = await newRepo(world);
    const incoming = join(world.path, 'in');
    await makePackage(world.context, incoming, { name: 'base' });
    await repo.add('bookworm', [incoming]);
    await repo.publish();
    const keyring = join(repo.publicDir, 'archive-key.gpg');
    const state = ['--state', world.context.stateDir];
    for (let round = 0; round < 12; round += 1) {
      const folder = join(world.path, `round-${round}`);
      await makePackage(world.context, folder, { name: `pkg-${round}` });
      const line = round % 2 === 0 ? ['add', 'bookworm', folder] : ['publish', '--force', 'bookworm'];
      await using program = start({}, PROGRAM, [...state, 'repo', line[0]!, '--repo', repo.dir, ...line.slice(1)]);
      await sleep(100 + randomInt(250));
      program.kill('SIGKILL');
      await program.exitCode;
      // whole: signed, and every file that Release lists is there with its digest
      const folderNow = dists(repo, 'bookworm');
      await run({}, 'gpgv', ['--keyring', keyring, join(folderNow, 'InRelease')]);
      const release = await readFile(join(folderNow, 'Release'), 'utf8');
      const listed = [...release.matchAll(/^ ([0-9a-f]{64}) +(\d+) (\S+)$/gm)];
      expect(listed).toHaveLength(3);
      const sums = listed.map((match) => `${match[1]}  ${match[3]}\n`).join('');
      await run({}, 'sha256sum', ['--check', '--status'], { cwd: folderNow, input: sums });
      // works: nothing is in the way of the next command
      await repo.add('bookworm', [folder]);
      expect((await repo.publish(['bookworm'])).length).toBe(1);
      const packages = await readFile(join(folderNow, 'main/binary-amd64/Packages'), 'utf8');
      expect(packages).toContain(`Package: pkg-${round}\n`);
      const target = await readlink(folderNow);
      expect(target).toMatch(/^\.\.\/snapshots\/\d{8}T\d{6}Z\/dists\/bookworm$/);
    }
  });
});
