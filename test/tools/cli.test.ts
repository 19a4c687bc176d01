/** The program as a user starts it: launcher, exit codes, where output goes, interruption. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-cli-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const buildkit = (args: string[], env: Record<string, string> = {}) =>
  run({}, BUILDKIT, ['--state', join(folder, 'state'), ...args], { cwd: folder, env, okExitCodes: [1, 2, 3, 4, 70] });

describe('buildkit', () => {
  it('runs on the Node that npm brought, through a link and from any folder', async () => {
    const version = JSON.parse(await readFile(resolve(BUILDKIT, '../../package.json'), 'utf8')).version;
    await run({}, 'ln', ['-s', BUILDKIT, join(folder, 'bk')]);
    expect((await run({}, join(folder, 'bk'), ['--version'], { cwd: '/' })).stdout).toBe(`${version}\n`);
  });

  it('says what to do in a checkout without node modules', async () => {
    await mkdir(join(folder, 'clone/bin'), { recursive: true });
    await run({}, 'cp', [BUILDKIT, join(folder, 'clone/bin/buildkit')]);
    const result = await run({}, join(folder, 'clone/bin/buildkit'), [], { okExitCodes: [3] });
    expect([result.exitCode, result.stderr]).toEqual([3, expect.stringContaining('npm ci')]);
  });

  it('answers a slip with exit code 2, the usage line and what was meant, on stderr alone', async () => {
    const result = await buildkit(['cofnig', 'show']);
    expect(result).toEqual({
      exitCode: 2,
      stdout: '',
      stderr: "error: unknown command 'cofnig'\nusage: buildkit COMMAND ...\nhint: did you mean 'config'?\n",
    });
    expect(await buildkit(['config', 'show', '--frobnicate'])).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining('usage: buildkit config show'),
    });
    expect(await buildkit(['repo'])).toMatchObject({
      exitCode: 2,
      stderr: expect.stringContaining('buildkit repo --help'),
    });
  });

  it('prints results on stdout and nothing else there; errors as JSON when asked', async () => {
    const { stdout } = await buildkit(['config', 'show', '--json']);
    expect(JSON.parse(stdout)).toContainEqual({ key: 'suite', value: 'bookworm', origin: 'default' });
    await writeFile(join(folder, 'buildkit.yaml'), 'suiet: x\n');
    const failed = await buildkit(['config', 'show', '--json']);
    expect([failed.exitCode, failed.stdout]).toEqual([1, '']);
    expect(JSON.parse(failed.stderr).error.problems[0]).toMatchObject({
      line: 1,
      column: 1,
      hint: "did you mean 'suite'?",
    });
    await rm(join(folder, 'buildkit.yaml'));
  });

  it('takes -C, --state and --json before or after the command', async () => {
    await mkdir(join(folder, 'ws'), { recursive: true });
    await writeFile(join(folder, 'ws/buildkit.yaml'), 'name: elsewhere\n');
    for (const args of [
      ['-C', 'ws', '--json', 'config', 'show'],
      ['config', 'show', '-C', 'ws', '--json'],
    ]) {
      expect(JSON.parse((await buildkit(args)).stdout)[0]).toMatchObject({ key: 'name', value: 'elsewhere' });
    }
  });

  it('names every command in its help and exits 0', async () => {
    const { stdout, exitCode } = await buildkit(['--help']);
    expect(exitCode).toBe(0);
    for (const name of ['new', 'pkg', 'key', 'repo', 'vm', 'release', 'quickstart', 'doctor', 'config'])
      expect(stdout).toMatch(new RegExp(`^ {2}${name} `, 'm'));
    for (const group of ['pkg', 'key', 'repo', 'vm', 'release', 'config'])
      expect((await buildkit([group, '--help'])).stdout).toContain(`buildkit ${group}`);
  });

  it('tells what the machine lacks, with the line that mends it', async () => {
    const path = join(folder, 'bin');
    await mkdir(path, { recursive: true });
    for (const program of ['sh', 'env', 'readlink', 'dirname'])
      await run({}, 'ln', ['-sf', `/usr/bin/${program}`, join(path, program)]);
    const result = await buildkit(['doctor'], { PATH: path });
    expect(result.exitCode).toBe(1);
    expect(result.stdout).toMatch(/^missing +qemu-img/m);
    expect(result.stdout).toMatch(/^to mend: apt-get install .*\bqemu-utils\b/m);
  });

  it('leaves a transcript of a run in the state folder, readable by its owner alone', async () => {
    const state = join(folder, 'state-t');
    await run({}, BUILDKIT, ['--state', state, 'new', 'python-service', join(folder, 'svc')], { cwd: folder });
    const [name] = await readdir(join(state, 'transcripts'));
    expect(name).toMatch(/^\d{8}T\d{6}Z-new-/);
    expect(await readFile(join(state, 'transcripts', name!), 'utf8')).toContain('python-service');
  });
});
