/** `release run` without the machine: scaffold, build, publish; again; and what is refused. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exists } from '../../src/core/files.ts';
import { run } from '../../src/core/run.ts';
import { type PythonIndex, pythonIndex } from '../support/python-index.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
let folder: string;
let index: PythonIndex;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-release-'));
  index = await pythonIndex();
  await buildkit(
    'new',
    'python-service',
    'hello',
    '--set',
    'name=hello-service',
    '--set',
    'author=A B',
    '--set',
    'email=a@example.org',
  );
});
afterAll(async () => {
  await index[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const buildkit = (...args: string[]) =>
  run({}, BUILDKIT, ['--state', join(folder, 'state'), ...args], {
    cwd: folder,
    env: index.env,
    timeoutMs: 170_000,
    okExitCodes: [1, 2, 3, 4, 70],
  });
const release = (...args: string[]) => buildkit('-C', 'hello', 'release', 'run', '--no-test', ...args);

describe('release run', () => {
  it('shows with --dry-run what it would do, and does none of it', async () => {
    const { stdout, exitCode } = await buildkit('-C', 'hello', 'release', 'run', '--dry-run');
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^- build hello-service \S+~deb12 \(asked for\)$/m);
    expect(stdout).toMatch(/^- build python3-flask \S+ \(needed by hello-service\)$/m);
    expect(stdout).toMatch(/apt-get install hello-service$/m);
    expect([await exists(join(folder, 'hello/dist')), await exists(join(folder, 'hello/repo'))]).toEqual([
      false,
      false,
    ]);
    expect(await exists(join(folder, 'state/keys'))).toBe(false);
  });

  it('builds and publishes everything; a second time it finds everything there, byte for byte', async () => {
    const first = await release('--json');
    expect(first.exitCode).toBe(0);
    const report = JSON.parse(first.stdout);
    expect(report.packages.map((one: { name: string }) => one.name)).toEqual(
      expect.arrayContaining(['hello-service', 'python3-flask', 'python3-markupsafe']),
    );
    const inRelease = await readFile(join(folder, 'hello/repo/public/dists/bookworm/InRelease'), 'utf8');
    expect(inRelease).toMatch(/^Origin: hello-service$/m);
    const files = await readdir(join(folder, 'hello/dist'));

    const second = JSON.parse((await release('--json')).stdout);
    expect(second).toMatchObject({ built: 0, reused: report.packages.length, repository: report.repository });
    expect(await readFile(join(folder, 'hello/repo/public/dists/bookworm/InRelease'), 'utf8')).toBe(inRelease);
    expect(await readdir(join(folder, 'hello/dist'))).toEqual(files);
  });

  it('refuses other bytes under the same version, names the way out, and leaves the repository as it was', async () => {
    const app = join(folder, 'hello/src/hello_service/app.py');
    await writeFile(app, `${await readFile(app, 'utf8')}\n# changed\n`);
    const before = await readFile(join(folder, 'hello/repo/public/dists/bookworm/InRelease'), 'utf8');
    const refused = await release();
    expect(refused.exitCode).toBe(1);
    expect(refused.stderr).toMatch(/hello-service/);
    expect(refused.stderr).toMatch(/^hint: .*packaging-version/m);
    expect(await readFile(join(folder, 'hello/repo/public/dists/bookworm/InRelease'), 'utf8')).toBe(before);

    const raised = await run(
      {},
      BUILDKIT,
      ['--state', join(folder, 'state'), '-C', join(folder, 'hello'), 'release', 'run', '--no-test', '--json'],
      {
        env: { ...index.env, BUILDKIT_PKG_PACKAGING_VERSION: '2' },
        timeoutMs: 170_000,
      },
    );
    expect(JSON.parse(raised.stdout).packages[0].version).toMatch(/-2~deb12$/);
  });
});
