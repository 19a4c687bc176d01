/** Programs of Debian packages that a test needs and that no machine should have to install: fetched by apt, unpacked, run in place. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../src/core/run.ts';

export interface Borrowed extends AsyncDisposable {
  /** The root that the packages were unpacked to. */
  readonly path: string;
  /** For their libraries. */
  readonly env: Readonly<Record<string, string>>;
}

export async function borrow(packages: readonly string[]): Promise<Borrowed> {
  const folder = await mkdtemp(join(tmpdir(), 'buildkit-borrowed-'));
  const path = join(folder, 'root');
  await run({}, 'apt-get', ['-o', 'APT::Sandbox::User=root', 'download', '--quiet', ...packages], {
    cwd: folder,
    timeoutMs: 120_000,
  });
  for (const name of await readdir(folder)) {
    if (name.endsWith('.deb')) await run({}, 'dpkg-deb', ['--extract', join(folder, name), path]);
  }
  const { stdout: triplet } = await run({}, 'dpkg-architecture', ['-qDEB_HOST_MULTIARCH']);
  const library = ['usr/lib', 'lib'].map((one) => join(path, one, triplet.trim())).join(':');
  return {
    path,
    env: { LD_LIBRARY_PATH: library },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
