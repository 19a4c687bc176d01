/** The quickstart itself: from an empty work folder to a service that answered over HTTP in a clean machine. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { type PythonIndex, pythonIndex } from '../support/python-index.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
const LIMIT_MS = 900_000;

let folder: string;
let index: PythonIndex;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-quickstart-'));
  index = await pythonIndex();
});
afterAll(async () => {
  await index[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const buildkit = (...args: string[]) =>
  run({}, BUILDKIT, args, { cwd: folder, env: index.env, timeoutMs: LIMIT_MS, okExitCodes: [1, 2, 3, 4, 70] });

describe('quickstart', () => {
  it('does the whole line, and a second run reuses what the first one made and says so', {
    timeout: 2 * LIMIT_MS,
  }, async () => {
    const first = await buildkit('quickstart', '--work', 'work', '--json');
    expect(first.stderr).not.toMatch(/^error/m);
    expect(first.exitCode).toBe(0);
    const report = JSON.parse(first.stdout);
    expect(report.asked).toEqual(['hello-service']);
    expect(report.test).toMatchObject({ passed: true, suite: 'bookworm' });
    expect(report.test.packages).toContainEqual({ name: 'hello-service', version: report.packages[0].version });
    for (const wanted of [
      /apt-get update/,
      /apt-get install/,
      /hello-service\.service/,
      /http:\/\/127\.0\.0\.1:8080\/healthz/,
    ]) {
      expect(report.test.steps).toContainEqual(
        expect.objectContaining({ name: expect.stringMatching(wanted), passed: true }),
      );
    }
    expect(await readFile(report.test.consoleLog, 'utf8')).toContain('ssh is up');

    const second = await buildkit('quickstart', '--work', 'work');
    expect(second.exitCode).toBe(0);
    expect(second.stderr).toMatch(/hello-service \(there already: reused\)/);
    expect(second.stderr).toMatch(/were there already: reused/);
    expect(second.stderr).toMatch(/bookworm-\w+ \(.*there already: reused\)/);
    expect(second.stdout).toMatch(/^try next:$/m);
  });

  it('fails with exit code 1 and keeps the evidence when a package cannot be installed, through a proxy of its own', {
    timeout: LIMIT_MS,
  }, async () => {
    const project = join(folder, 'work/hello-service');
    const cache = join(folder, 'cache');
    const proxied = { BUILDKIT_PROXY_USE: 'auto', BUILDKIT_PROXY_DIR: cache, BUILDKIT_PROXY_LISTEN: '127.0.0.1:1' };
    const wrong = await run({}, BUILDKIT, ['-C', project, 'release', 'run', '--json'], {
      env: { ...index.env, ...proxied, BUILDKIT_RELEASE_INSTALL: 'hello-service,no-such-package' },
      timeoutMs: LIMIT_MS,
      okExitCodes: [1],
    });
    expect(wrong.exitCode).toBe(1);
    const { test } = JSON.parse(wrong.stdout);
    expect(test.passed).toBe(false);
    expect(JSON.stringify(test.steps)).toContain('no-such-package');
    expect(test.steps[0]).toMatchObject({ name: 'apt-get update', passed: true });
    expect(wrong.stderr).toContain('started for this command');
    // what the machine alone asks for: there is no other reader of updates to a suite
    const kept = await buildkit('proxy', 'ls', 'bookworm-updates', '--cache', cache);
    expect(kept.stdout).toContain('bookworm-updates/InRelease');
  });
});
