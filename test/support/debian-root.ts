/** A minimal Debian bookworm below a temporary folder, to install packages in for real. Made by mmdebstrap; needs root. */
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type RunResult, run } from '../../src/core/run.ts';
import { debianMirror, readIndexTargets } from '../../src/deb/apt-targets.ts';

/** A TCP port that nobody listens on now: the roots share this machine's network. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

export interface DebianRoot extends AsyncDisposable {
  readonly path: string;
  /** Runs a shell text in it; throws unless it exits with 0. */
  sh(text: string): Promise<RunResult>;
  /** Copies files into its /tmp. @returns their names there */
  bring(paths: readonly string[]): Promise<string[]>;
  /** Every file and link, without what dpkg, logs and temporary folders hold. */
  snapshot(): Promise<string[]>;
}

/** @param timeoutMs of mmdebstrap: more than the usual for roots with a kernel */
export async function createDebianRoot(
  suite: string,
  include: readonly string[],
  timeoutMs = 600_000,
): Promise<DebianRoot> {
  const path = await mkdtemp(join(tmpdir(), 'buildkit-root-'));
  const mirror = debianMirror(await readIndexTargets({}));
  if (mirror === undefined) throw new Error('the apt configuration of this machine names no mirror of Debian');
  const options = [
    '--variant=minbase',
    '--mode=root',
    `--include=${include.join(',')}`,
    '--format=directory',
    '--skip=output/dev',
  ];
  await run({}, 'mmdebstrap', [...options, suite, path, mirror], { timeoutMs });
  const sh = async (text: string): Promise<RunResult> => {
    const okExitCodes = Array.from({ length: 255 }, (_, index) => index + 1);
    const result = await run({}, 'chroot', [path, '/bin/sh', '-ec', text], {
      okExitCodes,
      timeoutMs: 120_000,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root' },
    });
    if (result.exitCode === 0) return result;
    throw new Error(`'${text}' failed with ${result.exitCode}\n${result.stdout}\n${result.stderr}`);
  };
  return {
    path,
    sh,
    async bring(paths) {
      for (const from of paths) await copyFile(from, join(path, 'tmp', basename(from)));
      return paths.map((from) => `/tmp/${basename(from)}`);
    },
    async snapshot() {
      const skipped = [
        '/proc',
        '/sys',
        '/dev',
        '/tmp',
        '/run',
        '/var/lib/dpkg',
        '/var/log',
        '/var/cache',
        '/var/lib/systemd/deb-systemd-helper*',
      ];
      const prune = skipped.map((folder) => `-path '${folder}'`).join(' -o ');
      const { stdout } = await sh(`find / -xdev \\( ${prune} \\) -prune -o -print`);
      // adduser keeps the last version of what it changed
      return stdout
        .split('\n')
        .filter((line) => line !== '' && !/^\/etc\/(passwd|group|shadow|gshadow)-$/.test(line))
        .sort();
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 3 }),
  };
}
