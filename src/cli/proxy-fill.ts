/** `buildkit proxy import` and `precache`: filling the cache beforehand. */
import { readFile } from 'node:fs/promises';
import { machine } from 'node:os';
import { basename, resolve } from 'node:path';
import type { Command } from 'commander';
import { UsageError, UserError } from '../core/errors.ts';
import { formatBytes } from '../core/log.ts';
import { importTree, type PrecacheReport, precache } from '../proxy/intake.ts';
import { type Locked, readLocked } from '../proxy/locks.ts';
import { type PrefetchReport, prefetch } from '../proxy/prefetch.ts';
import type { ProxyCache } from '../proxy/proxy.ts';
import type { ProxySettings } from '../proxy/settings.ts';
import type { Cli, CommandContext, Output } from './command.ts';

interface Place {
  readonly cache?: string;
}

/** How a row of `proxy` comes to its cache. */
interface Openers {
  beside(cx: CommandContext, flags: Place): Promise<ProxyCache>;
  settingsOf(cx: CommandContext, flags: Place): Promise<ProxySettings>;
}

interface PrecacheFlags extends Place {
  readonly backend: string;
  readonly arch: string[];
  readonly component: string[];
  readonly list?: string[];
  readonly lock?: string[];
}

export function addFillCommands(row: (usage: string, description: string) => Command, open: Openers, cli: Cli): void {
  row('import <dir>', 'take files that are on disk: another cache, /var/cache/apt/archives, a mirror').action(
    cli.action(async (cx, dir: string, flags: Place) => {
      await using cache = await open.beside(cx, flags);
      const done = await importTree(cache, resolve(cx.cwd, dir));
      const text = `imported ${done.imported} files (${formatBytes(done.bytes)}), ${done.present} were here, ${done.unknown.length} are named by no index`;
      return { data: done, text };
    }),
  );
  row('precache [suite] [packages...]', 'fetch the indexes of a suite, and packages: NAME, NAME=VERSION, lib*')
    .option('--backend <name>', 'the archive', 'debian')
    .option('--arch <names...>', 'architectures', ['amd64'])
    .option('--component <names...>', 'sections', ['main'])
    .option(
      '--list <files...>',
      "more packages of the suite: NAME or NAME=VERSION lines, dpkg-query -W, dpkg's status file",
    )
    .option(
      '--lock <files...>',
      'apt-get --print-uris, package-lock.json, pylock.toml, uv.lock, poetry.lock, NAME==VERSION lines',
    )
    .action(
      cli.action((cx, suite: string | undefined, packages: string[], flags: PrecacheFlags) =>
        fill(cx, open, suite, packages, flags),
      ),
    );
}

async function fill(
  cx: CommandContext,
  open: Openers,
  suite: string | undefined,
  packages: readonly string[],
  flags: PrecacheFlags,
): Promise<Output> {
  const { list = [], lock = [], cache: dir } = flags;
  const place = dir === undefined ? {} : { cache: dir };
  if (suite === undefined && (list.length > 0 || lock.length === 0)) {
    throw new UsageError('which suite?', { hint: 'buildkit proxy precache bookworm NAME..., or --lock FILE' });
  }
  const lists = await Promise.all(list.map((file) => readList(cx, file)));
  const locks = await Promise.all(lock.map((file) => readLock(cx, file)));
  const debs = lists.flatMap((one) => one.debs);
  const patterns = [
    ...packages,
    ...debs.map(({ name, version }) => (version === undefined ? name : `${name}=${version}`)),
  ];
  const reports: { suite?: PrecacheReport; lock?: PrefetchReport } = {};
  if (suite !== undefined) {
    await using cache = await open.beside(cx, flags);
    reports.suite = await precache(cache, flags.backend, suite, {
      packages: patterns,
      architectures: flags.arch,
      components: flags.component,
    });
  }
  if (locks.length > 0) {
    const { serverOf } = await import('../release/proxy-use.ts');
    const { withOwnIndexes } = await import('../release/proxy-settings.ts');
    await using server = await serverOf(cx, await withOwnIndexes(cx, await open.settingsOf(cx, place)));
    const all = {
      uris: locks.flatMap((one) => one.uris),
      npm: locks.flatMap((one) => one.npm),
      python: locks.flatMap((one) => one.python),
    };
    reports.lock = await prefetch(cx, server.url, all, machine());
  }
  return fillOutput(reports);
}

function fillOutput({ suite, lock }: { readonly suite?: PrecacheReport; readonly lock?: PrefetchReport }): Output {
  const lines: string[] = [];
  if (suite) {
    const missed = suite.unmatched.length > 0 ? `; nothing matches ${suite.unmatched.join(', ')}` : '';
    lines.push(
      `${suite.indexes} indexes; fetched ${suite.fetched} packages (${formatBytes(suite.bytes)}), ${suite.present} were here${missed}`,
    );
  }
  if (lock) {
    lines.push(...lock.failed.map(({ what, why }) => `${what}: ${why}`));
    lines.push(
      `${lock.files} files of locks are here (${formatBytes(lock.bytes)}), ${lock.failed.length} could not be had`,
    );
  }
  const failed = (suite?.unmatched.length ?? 0) + (lock?.failed.length ?? 0) > 0;
  return { data: { ...suite, ...(lock ? { lock } : {}) }, text: lines.join('\n'), exitCode: failed ? 1 : 0 };
}

async function readList(cx: CommandContext, file: string): Promise<Locked> {
  const found = readLocked(file, await textOf(cx, file));
  if (found.debs.length > 0) return found;
  throw new UserError('proxy-lock', 'there is no list of Debian packages in it', {
    file,
    hint: 'for locks: --lock FILE',
  });
}

async function readLock(cx: CommandContext, file: string): Promise<Locked> {
  const text = await textOf(cx, file);
  const { isLockName, parseLock } = await import('../pkg/python/lock.ts');
  if (isLockName(file)) {
    const python = parseLock(basename(file), text).map(({ name, version }) => ({ name, version }));
    return { debs: [], uris: [], npm: [], python };
  }
  const found = readLocked(file, text);
  if (found.debs.length === 0) return found;
  throw new UserError('proxy-lock', 'it names Debian packages without their addresses', {
    file,
    hint: 'say the suite that they are of: buildkit proxy precache SUITE --list FILE',
  });
}

async function textOf(cx: CommandContext, file: string): Promise<string> {
  const path = resolve(cx.cwd, file);
  return readFile(path, 'utf8').catch((cause: unknown) => {
    throw new UserError('no-such-file', `'${file}' cannot be read`, { file: path, cause });
  });
}
