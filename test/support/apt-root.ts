/** A private apt: its own configuration, lists, cache and dpkg database; nothing of the machine's is read or changed. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type RunResult, run } from '../../src/core/run.ts';

export interface AptRoot extends AsyncDisposable {
  readonly path: string;
  /** Runs apt-get, apt-cache, ... here; resolves whatever the exit code is. */
  run(program: string, ...args: readonly string[]): Promise<RunResult>;
  /** Like `run apt-get update`; throws unless apt is content: exit 0 and no line that starts with W: E: Err: or Ign: */
  update(): Promise<RunResult>;
}

export interface AptRootOptions {
  /** Text of the one .sources file. */
  readonly sources: string;
  readonly architecture?: string;
  /** apt.conf lines, as they are. */
  readonly configuration?: readonly string[];
}

/** Lines with which apt says that something is not as it should be. */
export function complaints(result: RunResult): string[] {
  return `${result.stdout}\n${result.stderr}`.split('\n').filter((line) => /^(?:W|E|Err|Ign):/.test(line));
}

export async function createAptRoot(options: AptRootOptions): Promise<AptRoot> {
  const path = await mkdtemp(join(tmpdir(), 'buildkit-apt-'));
  for (const folder of [
    'etc/apt/sources.list.d',
    'etc/apt/preferences.d',
    'etc/apt/apt.conf.d',
    'etc/apt/trusted.gpg.d',
    'var/lib/apt/lists/partial',
    'var/cache/apt/archives/partial',
    'var/log/apt',
    'var/lib/dpkg/info',
    'var/lib/dpkg/updates',
  ]) {
    await mkdir(join(path, folder), { recursive: true });
  }
  await writeFile(join(path, 'var/lib/dpkg/status'), '');
  await writeFile(join(path, 'etc/apt/sources.list.d/test.sources'), options.sources);
  await writeFile(
    join(path, 'apt.conf'),
    [
      `Dir "${path}/";`,
      `Dir::State::status "${path}/var/lib/dpkg/status";`,
      'Dir::Bin::dpkg "/usr/bin/dpkg";',
      'Dir::Bin::methods "/usr/lib/apt/methods";',
      `APT::Architecture "${options.architecture ?? 'amd64'}";`,
      `APT::Architectures { "${options.architecture ?? 'amd64'}"; };`,
      'APT::Sandbox::User "root";',
      'APT::Update::Error-Mode "any";',
      'APT::Install-Recommends "false";',
      'Acquire::Check-Valid-Until "true";',
      'Acquire::Check-Date "true";',
      'Acquire::Languages "none";',
      'Acquire::http::Proxy "DIRECT";',
      'Acquire::Retries "0";',
      `DPkg::Options { "--root=${path}"; "--log=${path}/dpkg.log"; "--force-not-root"; };`,
      ...(options.configuration ?? []),
      '',
    ].join('\n'),
  );
  const env = { ...process.env, APT_CONFIG: join(path, 'apt.conf'), DEBIAN_FRONTEND: 'noninteractive' };
  const start = (program: string, ...args: readonly string[]) =>
    run({ env }, program, args, {
      okExitCodes: Array.from({ length: 255 }, (_, index) => index + 1),
      timeoutMs: 120_000,
    });
  return {
    path,
    run: start,
    async update() {
      const result = await start('apt-get', 'update');
      const found = complaints(result);
      if (result.exitCode === 0 && found.length === 0) return result;
      throw new Error(`apt-get update: exit ${result.exitCode}\n${result.stdout}\n${result.stderr}`);
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}
