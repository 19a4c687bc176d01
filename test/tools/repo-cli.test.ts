/** The commands as a user types them: output, exit codes, --json, --dry-run. */
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run, start } from '../../src/core/run.ts';
import { makePackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const PROGRAM = resolve(import.meta.dirname, '../../bin/buildkit');

function buildkit(world: World, ...args: string[]) {
  const all = ['-C', world.path, '--state', world.context.stateDir, ...args];
  return run({}, PROGRAM, all, { cwd: world.path, okExitCodes: [1, 2, 3, 4, 70], timeoutMs: 60_000 });
}

async function prepared(world: World): Promise<string> {
  const key = await buildkit(world, 'key', 'generate', '--name', 'Me', '--email', 'me@example.org', '--expires', '90d');
  expect(key).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^[0-9A-F]{40}\n$/) });
  const made = await buildkit(
    world,
    'repo',
    'init',
    '--suite',
    'bookworm,trixie',
    '--arch',
    'amd64',
    '--origin',
    'X',
    '--label',
    'Y',
  );
  expect(made.exitCode).toBe(0);
  return key.stdout.trim();
}

describe('buildkit key', () => {
  it('generates, lists and exports', async () => {
    await using world = await createWorld();
    const fingerprint = await prepared(world);
    const listed = JSON.parse((await buildkit(world, '--json', 'key', 'list')).stdout);
    expect(listed).toMatchObject([{ fingerprint, algorithm: 'ed25519', userIds: ['Me <me@example.org>'] }]);
    expect((await buildkit(world, 'key', 'export', '--armor')).stdout).toMatch(
      /^-----BEGIN PGP PUBLIC KEY BLOCK-----\n/,
    );
    const again = await buildkit(world, 'key', 'generate', '--name', 'A <b>', '--email', 'nowhere');
    expect(again.exitCode).toBe(1);
    const wrong = await buildkit(world, 'key', 'generate', '--name', 'A', '--email', 'a@b.c', '--algorithm', 'dsa');
    expect(wrong.exitCode).toBe(2);
  });

  it('takes a passphrase from a file, never from argv, and publishes with it alone', async () => {
    await using world = await createWorld();
    const secret = join(world.path, 'passphrase');
    await run({}, 'sh', ['-c', 'umask 077; echo "correct horse" > "$0"', secret]);
    const args = ['--name', 'Me', '--email', 'me@example.org', '--passphrase-file', secret];
    await buildkit(world, 'key', 'generate', ...args);
    await buildkit(world, 'repo', 'init', '--suite', 'bookworm');
    const locked = await buildkit(world, 'repo', 'publish');
    expect(locked).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('--passphrase-fd') });
    expect((await buildkit(world, 'repo', 'publish', '--passphrase-file', secret)).exitCode).toBe(0);
    const fd = 'exec "$0" "$@" --passphrase-fd 3 3<"$SECRET"';
    const line = ['-c', fd, PROGRAM, '-C', world.path, '--state', world.context.stateDir, 'repo', 'publish', '--force'];
    expect((await run({}, 'sh', line, { env: { SECRET: secret } })).stdout).toContain('published bookworm');
    // on a terminal it is asked for, and not shown
    const asking = [PROGRAM, '-C', world.path, '--state', world.context.stateDir, 'repo', 'publish', '--force'].join(
      ' ',
    );
    const typed = await run({}, 'script', ['-qec', asking, '/dev/null'], { input: 'correct horse\n' });
    expect(typed.stdout).toContain('Passphrase of Me <me@example.org>');
    expect(typed.stdout).toContain('published bookworm');
    // nor is it kept: not in transcripts, not in the repository
    const kept = await run({}, 'grep', ['-rl', 'correct horse', world.path], { okExitCodes: [0, 1] });
    expect(kept.stdout.trim()).toBe(secret);
  });
});

describe('buildkit repo', () => {
  it('adds, lists, publishes and removes', async () => {
    await using world = await createWorld();
    await prepared(world);
    await makePackage(world.context, join(world.path, 'dist'), { name: 'hello' });
    const dry = await buildkit(world, 'repo', 'add', 'bookworm', 'dist', '--dry-run', '--publish');
    expect(dry.stdout).toBe('would add hello 1.0 all (bookworm/main)\n');
    const added = await buildkit(world, 'repo', 'add', 'bookworm', 'dist', '--publish');
    expect(added.stdout).toMatch(
      /^added hello 1\.0 all \(bookworm\/main\)\npublished bookworm: 1 packages, generation /,
    );
    expect((await buildkit(world, 'repo', 'list')).stdout).toBe('bookworm  main  hello  1.0  all\n');
    const again = JSON.parse((await buildkit(world, 'repo', 'add', 'bookworm', 'dist', '--json')).stdout);
    expect(again).toMatchObject({ added: [], unchanged: [{ name: 'hello' }], refused: [] });
    expect(await readFile(join(world.path, 'repo/public/dists/bookworm/InRelease'), 'utf8')).toContain(
      'Suite: bookworm',
    );
    const sources = await buildkit(
      world,
      'repo',
      'sources',
      'trixie',
      '--url',
      'https://apt.example.org',
      '--signed-by',
      '/x.gpg',
    );
    expect(sources.stdout).toBe(
      'Types: deb\nURIs: https://apt.example.org/\nSuites: trixie\nComponents: main\nArchitectures: amd64\nSigned-By: /x.gpg\n',
    );
    const removed = await buildkit(world, 'repo', 'remove', 'bookworm', 'hello');
    expect(removed.stdout).toBe('removed hello 1.0 all (bookworm/main)\n');
  });

  it('says what is wrong, and what to do, with exit code 1', async () => {
    await using world = await createWorld();
    await prepared(world);
    await makePackage(world.context, join(world.path, 'one'), { name: 'hello' });
    await makePackage(world.context, join(world.path, 'two'), { name: 'hello', data: 'other' });
    await buildkit(world, 'repo', 'add', 'bookworm', 'one');
    const changed = await buildkit(world, 'repo', 'add', 'bookworm', 'two');
    expect(changed).toMatchObject({ exitCode: 1, stdout: '' });
    expect(changed.stderr).toMatch(/hello 1\.0 \(all\) is known with other bytes/);
    expect(changed.stderr).toMatch(/new version/);
    expect(await buildkit(world, 'repo', 'add', 'bookwrm', 'one')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining("did you mean 'bookworm'?"),
    });
    expect((await buildkit(world, 'repo', 'list', '--repo', 'nowhere')).stderr).toContain('buildkit repo init');
  });

  it('serves until it is interrupted', async () => {
    await using world = await createWorld();
    await prepared(world);
    await buildkit(world, 'repo', 'publish');
    const args = ['-C', world.path, '--state', world.context.stateDir, 'repo', 'serve', '--listen', '127.0.0.1:0'];
    await using server = start({}, PROGRAM, args);
    const url = await new Promise<string>((found) =>
      server.stdout.once('data', (chunk) => found(String(chunk).trim())),
    );
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/$/);
    const answer = await fetch(`${url}dists/bookworm/InRelease`);
    expect(answer.status).toBe(200);
    expect(await answer.text()).toContain('Codename: bookworm');
    server.kill('SIGTERM');
    expect(await server.exitCode).toBe(143);
  });
});
