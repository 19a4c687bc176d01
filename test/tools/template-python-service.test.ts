/** What `buildkit new python-service` makes is a project whose own tests pass, and the whole of it works from the command line. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { type PythonIndex, pythonIndex } from '../support/python-index.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
let index: PythonIndex;
let scratch: string;

beforeAll(async () => {
  index = await pythonIndex();
  scratch = await mkdtemp(join(tmpdir(), 'buildkit-template-'));
});
afterAll(async () => {
  await rm(scratch, { recursive: true, force: true });
  await index[Symbol.asyncDispose]();
});

function buildkit(...args: string[]) {
  return run({}, BUILDKIT, ['--state', join(scratch, 'state'), ...args], {
    cwd: scratch,
    okExitCodes: [1, 2, 3, 4],
    timeoutMs: 120_000,
    env: index.env,
  });
}

describe('the template python-service', () => {
  it('gives a project that installs with pip and passes its own tests', async () => {
    const made = await buildkit('new', 'python-service', 'shop-window', '--set', 'description=sells "things" & more');
    expect(made.exitCode).toBe(0);
    const project = join(scratch, 'shop-window');
    const site = join(scratch, 'site');
    const install = ['-m', 'pip', 'install', '--quiet', '--target', site, `${project}[test]`];
    await run({}, '/usr/bin/python3', install, { env: index.env, timeoutMs: 150_000 });
    const tests = await run({}, '/usr/bin/python3', ['-m', 'pytest', '-q', '-p', 'no:cacheprovider'], {
      cwd: project,
      env: { PYTHONPATH: site, PYTHONDONTWRITEBYTECODE: '1' },
      timeoutMs: 60_000,
    });
    expect(tests.stdout).toMatch(/^6 passed/m);
  });

  it('takes nothing that is wrong on the command line', async () => {
    const unknown = await buildkit('new', 'python-service', 'x', '--set', 'prot=1');
    expect(unknown).toMatchObject({ exitCode: 1, stdout: '' });
    expect(unknown.stderr).toContain("did you mean 'port'?");
    expect((await buildkit('new', 'python-service', 'x', '--set', 'port')).exitCode).toBe(2);
    expect((await buildkit('new', 'python-service', '.')).stderr).toContain('not an empty folder');
  });
});

describe('buildkit pkg from the command line', () => {
  it('plans as JSON, builds, and shows what a package says of itself', async () => {
    const plan = await buildkit('pkg', 'build', 'markupsafe', '--dry-run', '--json');
    const { packages } = JSON.parse(plan.stdout) as { packages: { name: string; version: string }[] };
    expect(packages).toMatchObject([{ name: 'python3-markupsafe', decision: 'build', why: 'asked for' }]);
    const built = JSON.parse((await buildkit('pkg', 'build', 'markupsafe', '--out', 'debs', '--json')).stdout) as {
      packages: { path: string; sha256: string; depends: string }[];
    };
    const [one] = built.packages;
    expect(one!.depends).toContain('python3 (>= 3.11~)');
    const info = JSON.parse((await buildkit('pkg', 'info', one!.path, '--json')).stdout) as Record<string, unknown>;
    expect(info).toMatchObject({
      name: 'python3-markupsafe',
      version: packages[0]!.version,
      digests: { sha256: one!.sha256 },
    });
    expect((await buildkit('pkg', 'info', one!.path)).stdout).toMatch(/^Package: python3-markupsafe\n/);
  });

  it('says what is no package, no folder, no suite', async () => {
    expect((await buildkit('pkg', 'info', BUILDKIT)).exitCode).toBe(1);
    const folder = await buildkit('pkg', 'build', './nothing');
    expect(folder.exitCode).toBe(1);
    expect(folder.stderr).toContain("there is no './nothing'");
    const suite = await buildkit('pkg', 'build', 'flask', '--suite', 'bokworm');
    expect(suite.exitCode).toBe(1);
    expect(suite.stderr).toContain("did you mean 'bookworm'?");
  });
});
