/** core/run against real programs: failures, interruption, descendants. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { hasProgram, run, shellQuote, start } from '../../src/core/run.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'buildkit-run-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** A shell that starts a grandchild, writes its pid to a file and waits for it. */
const withGrandchild = (pidFile: string) => ['-c', 'sleep 300 & echo $! > "$1"; wait', 'sh', pidFile];

async function pidIn(file: string): Promise<number> {
  for (let tries = 0; tries < 200; tries += 1) {
    const text = await readFile(file, 'utf8').catch(() => '');
    if (text.endsWith('\n')) return Number(text);
    await sleep(20);
  }
  throw new Error(`no pid in ${file}`);
}

/** A killed process may stay as a zombie until its new parent reaps it: that counts as gone. */
async function isGone(pid: number): Promise<boolean> {
  for (let tries = 0; tries < 100; tries += 1) {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined);
    if (stat === undefined || / Z /.test(stat)) return true;
    await sleep(50);
  }
  return false;
}

describe('run', () => {
  it('returns output and accepted exit codes, and fails with the command to paste', async () => {
    expect(await run({}, 'sh', ['-c', 'echo out; echo err >&2; exit 3'], { okExitCodes: [3] })).toEqual({
      stdout: 'out\n',
      stderr: 'err\n',
      exitCode: 3,
    });
    await expect(run({}, 'sh', ['-c', "echo 'it broke' >&2; exit 2"])).rejects.toMatchObject({
      code: 'tool-failed',
      status: 2,
      stderrTail: 'it broke\n',
      command: "sh -c 'echo '\\''it broke'\\'' >&2; exit 2'",
    });
  });

  it('knows which Debian package a missing program is in', async () => {
    const env = { PATH: folder };
    await expect(run({ env }, 'qemu-img', [])).rejects.toMatchObject({
      code: 'tool-missing',
      hint: 'apt-get install qemu-utils',
    });
    expect(await hasProgram({}, 'no-such-program-here')).toBe(false);
  });

  it('hands down exactly the environment of the context, in C.UTF-8', async () => {
    const { stdout } = await run({ env: { PATH: '/usr/bin:/bin', GIVEN: 'yes' } }, 'env', []);
    expect(
      stdout
        .split('\n')
        .filter((line) => line !== '')
        .sort(),
    ).toEqual(['GIVEN=yes', 'LC_ALL=C.UTF-8', 'PATH=/usr/bin:/bin']);
  });

  it('closes stdin, or feeds it', async () => {
    expect((await run({}, 'cat', [])).stdout).toBe('');
    expect((await run({}, 'cat', [], { input: 'fed' })).stdout).toBe('fed');
  });

  it('keeps a log and shows lines as they come', async () => {
    const logFile = join(folder, 'log');
    const lines: string[] = [];
    await run({}, 'sh', ['-c', 'echo a; echo b >&2'], {
      logFile,
      onLine: (line, stream) => lines.push(`${stream} ${line}`),
    });
    expect(lines.sort()).toEqual(['stderr b', 'stdout a']);
    expect((await readFile(logFile, 'utf8')).split('\n').sort()).toEqual(['', 'a', 'b']);
  });

  it('ends a program with all its descendants at the time limit', async () => {
    const pidFile = join(folder, 'pid');
    await expect(run({}, 'sh', withGrandchild(pidFile), { timeoutMs: 700 })).rejects.toMatchObject({
      code: 'tool-timeout',
    });
    expect(await isGone(await pidIn(pidFile))).toBe(true);
  });

  it('ends a program with all its descendants on interruption, with the reason of the signal', async () => {
    const pidFile = join(folder, 'pid');
    const controller = new AbortController();
    const running = run({ signal: controller.signal }, 'sh', withGrandchild(pidFile));
    const pid = await pidIn(pidFile);
    controller.abort(new Error('the user said stop'));
    await expect(running).rejects.toThrow('the user said stop');
    expect(await isGone(pid)).toBe(true);
  });

  it('stops a program that prints without end', async () => {
    await expect(run({}, 'yes', [], { maxOutputBytes: 100_000 })).rejects.toMatchObject({ code: 'tool-output' });
  });
});

describe('start', () => {
  it('streams both ways', async () => {
    await using program = start({}, 'tr', ['a-z', 'A-Z']);
    program.stdin.end('hello');
    const chunks: Buffer[] = [];
    for await (const chunk of program.stdout) chunks.push(chunk as Buffer);
    await program.ended;
    expect(Buffer.concat(chunks).toString()).toBe('HELLO');
  });

  it('kills the whole group on dispose', async () => {
    const pidFile = join(folder, 'pid');
    let pid = 0;
    {
      await using _program = start({}, 'sh', withGrandchild(pidFile));
      pid = await pidIn(pidFile);
    }
    expect(await isGone(pid)).toBe(true);
  });
});

describe('shell quoting', () => {
  it('survives a real shell', async () => {
    const words = ["it's", 'a b', '$HOME', '', '*', 'plain', '"q"', 'new\nline'];
    const { stdout } = await run({}, 'sh', ['-c', `printf '%s\\0' ${shellQuote(words)}`]);
    expect(stdout.split('\0').slice(0, -1)).toEqual(words);
  });
});
