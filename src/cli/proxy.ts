/** `buildkit proxy`: the apt cache. */
import { mkdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import { UserError } from '../core/errors.ts';
import { writeFileAtomic } from '../core/files.ts';
import { formatBytes } from '../core/log.ts';
import { clientConfiguration } from '../proxy/client.ts';
import { listAddresses } from '../proxy/listing.ts';
import { announce, ownAddresses } from '../proxy/mdns.ts';
import { hitRate } from '../proxy/pages.ts';
import { ProxyCache } from '../proxy/proxy.ts';
import { serveProxy, statusOf } from '../proxy/serve.ts';
import type { ProxySettings } from '../proxy/settings.ts';
import { dropMatching, expire, explain, verifyCache } from '../proxy/upkeep.ts';
import { parseSize, proxySettings, withOwnIndexes } from '../release/proxy-settings.ts';
import { type Cli, type CommandContext, type Output, table } from './command.ts';
import { addFillCommands } from './proxy-fill.ts';

interface Place {
  readonly cache?: string;
}

interface ServeFlags extends Place {
  readonly listen?: string[];
  readonly offline?: boolean;
  readonly frozen?: string;
  readonly allowHost?: string[];
  readonly allowClient?: string[];
  readonly allowConnect?: string[];
  readonly innerHost?: string[];
  readonly backend?: string[];
  readonly accessLog?: string;
  readonly announce?: boolean;
}

const VIEW_HELP = `
Who wants the suites of a view has them at http://HOST:9999/frozen/NAME/debian/,
through the proxy http://NAME@HOST:9999, or from: buildkit proxy serve --frozen NAME`;

export function addProxyCommands(program: Command, cli: Cli): void {
  const proxy = program.command('proxy').description('apt cache: verified, one fetch for many clients, works offline');
  const row = (usage: string, description: string) =>
    proxy
      .command(usage)
      .description(description)
      .option('--cache <dir>', 'folder of the cache; default: proxy.dir of buildkit.yaml, or below --state');

  row('serve', 'serve the cache until interrupted')
    .option('--listen <addresses...>', 'HOST:PORT, several; default: proxy.listen of buildkit.yaml, or 127.0.0.1:9999')
    .option('--backend <name=url...>', 'a back end of your own; the same name several times: several mirrors')
    .option('--allow-host <patterns...>', "upstream hosts beside the back ends: '*.example.org', '*'")
    .option('--inner-host <patterns...>', 'upstream hosts that may be at inner addresses')
    .option('--allow-client <networks...>', "who is served, beside private networks: 203.0.113.0/24, 'all'")
    .option('--allow-connect <patterns...>', 'HOST:PORT that CONNECT tunnels may reach')
    .option('--offline', 'ask nothing upstream; at the end, list what was missing')
    .option('--frozen <name>', 'serve this frozen view')
    .option('--access-log <file>', 'one line per answer')
    .option('--announce', 'tell the local network by mDNS (_apt_proxy._tcp)')
    .action(cli.action((cx, flags: ServeFlags) => serve(cx, flags)));

  row('stats', 'what the cache holds and what it did').action(
    cli.action(async (cx, flags: Place) => {
      await using cache = await beside(cx, flags);
      const status = statusOf(cache, 0);
      return { data: { ...status, hitRate: hitRate(status.counters) }, text: statsText(status) };
    }),
  );

  row('ls [text]', "list addresses in the cache: those with this text in them, or as '*' and '?' match").action(
    cli.action(async (cx, wanted: string | undefined, flags: Place) => {
      await using cache = await beside(cx, flags);
      const found = listAddresses(cache, wanted === undefined || /[*?]/.test(wanted) ? (wanted ?? '*') : `*${wanted}*`);
      if (found.length === 0) cx.log.info(wanted ? `nothing in the cache matches '${wanted}'` : 'the cache is empty');
      const marks = ['unverified', 'unsigned', 'verified'];
      return { data: found, text: table(found.map((one) => [one.key, formatBytes(one.size), marks[one.verified]!])) };
    }),
  );

  addFillCommands(row, { beside, settingsOf }, cli);

  row('expire', 'let go what is old or over the quota')
    .option('--quota <size>', 'for example 20G; default: proxy.quota of buildkit.yaml')
    .option('--unused <days>', 'what nobody used for this long')
    .option('--dry-run', 'only show what would go')
    .action(
      cli.action(async (cx, flags: Place & { quota?: string; unused?: string; dryRun?: boolean }) => {
        await using cache = await beside(cx, flags);
        const quota = flags.quota === undefined ? undefined : parseSize(flags.quota);
        const gone = expire(cache, { quota, maxUnusedDays: parseDays(flags.unused), dryRun: flags.dryRun });
        const bytes = gone.reduce((sum, one) => sum + one.size, 0);
        const rows = gone.map((one) => [one.reason, formatBytes(one.size), one.keys[0] ?? one.sha256]);
        const verb = flags.dryRun ? 'would go' : 'went';
        return {
          data: gone,
          text: [table(rows), `${gone.length} files (${formatBytes(bytes)}) ${verb}`].join('\n').trim(),
        };
      }),
    );

  row('verify', 'read every file again and hold it against its digest')
    .option('--repair', 'drop what is wrong; it is fetched again when it is next asked for')
    .action(
      cli.action(async (cx, flags: Place & { repair?: boolean }) => {
        await using cache = await beside(cx, flags);
        const report = await verifyCache(cache, { repair: flags.repair });
        const lines = report.problems.map((one) => `${one.subject}: ${one.message}`);
        const text = [...lines, `${report.objects} files (${formatBytes(report.bytes)}), ${lines.length} wrong`].join(
          '\n',
        );
        return { data: report, text, exitCode: lines.length > 0 && !flags.repair ? 1 : 0 };
      }),
    );

  row('drop <pattern>', "forget addresses as '*' and '?' match: 'debian/pool/main/h/*'")
    .option('--dry-run', 'only show them')
    .action(
      cli.action(async (cx, pattern: string, flags: Place & { dryRun?: boolean }) => {
        await using cache = await beside(cx, flags);
        const kept = listAddresses(cache, pattern).filter((one) => one.ofSuite).length;
        const gone = dropMatching(cache, pattern, { dryRun: flags.dryRun });
        const verb = flags.dryRun ? 'would be forgotten' : 'forgotten';
        const rest = kept > 0 ? `; ${kept} Release files and indexes stay with their suites` : '';
        const rows = table(gone.map((one) => [one.key, formatBytes(one.size)]));
        return { data: gone, text: `${rows}\n${gone.length} addresses ${verb}${rest}`.trim() };
      }),
    );

  row('why <url>', 'what the cache knows of an address and how it would answer').action(
    cli.action(async (cx, url: string, flags: Place) => {
      await using cache = await beside(cx, flags);
      const why = explain(cache, url);
      return { data: why, text: [why.key, ...why.lines.map((line) => `  ${line}`)].join('\n') };
    }),
  );

  row('freeze [name]', 'keep the suites as they are now under a name; without one, list the frozen views')
    .option('--remove', 'let the view go')
    .addHelpText('after', VIEW_HELP)
    .action(cli.action((cx, name: string | undefined, flags: Place & { remove?: boolean }) => freeze(cx, name, flags)));

  row('missing', 'what was asked for offline and is not here')
    .option('--clear', 'forget it')
    .action(
      cli.action(async (cx, flags: Place & { clear?: boolean }) => {
        await using cache = await beside(cx, flags);
        const missing = cache.store.missing();
        if (flags.clear) cache.store.clearMissing();
        if (missing.length === 0) cx.log.info('nothing was missing');
        return { data: missing, text: missing.map((one) => one.key).join('\n') };
      }),
    );

  proxy
    .command('configure')
    .description('let this machine use a proxy; direct when it is down')
    .option('--url <url>', 'the proxy', 'http://127.0.0.1:9999')
    .option('--direct <hosts...>', 'hosts that are asked without it')
    .option('--root <dir>', 'the system to write to', '/')
    .option('--print', 'only show the files (default)')
    .option('--apply', 'write them')
    .action(
      cli.action((cx, flags: { url: string; direct?: string[]; root: string; apply?: boolean }) =>
        configure(cx, flags),
      ),
    );
}

async function serve(cx: CommandContext, flags: ServeFlags): Promise<Output | undefined> {
  const config = (await cx.config()).proxy;
  const settings = await withOwnIndexes(cx, await settingsOf(cx, flags));
  await using proxy = await serveProxy(cx, settings, { listen: flags.listen ?? config.listen });
  cx.writeOut(cx.json ? `${JSON.stringify({ urls: proxy.urls })}\n` : `${proxy.urls.join('\n')}\n`);
  await using _announced = flags.announce ? await announceAll(cx, proxy.urls) : undefined;
  await new Promise<void>((end) => {
    if (cx.signal.aborted) end();
    else cx.signal.addEventListener('abort', () => end(), { once: true });
  });
  const missing = settings.offline ? proxy.cache.store.missing() : [];
  for (const { key } of missing) cx.log.warn(`was asked for and is not in the cache: ${key}`);
  return undefined;
}

/** Each listener with the addresses that others reach it by. */
async function announceAll(cx: CommandContext, urls: readonly string[]): Promise<AsyncDisposable> {
  const stack = new AsyncDisposableStack();
  const host = hostname().split('.')[0] ?? 'localhost';
  const outer = urls.map((url) => new URL(url)).filter(({ hostname: at }) => !/^(?:127\.|\[::1\]$)/.test(at));
  if (outer.length === 0)
    cx.log.warn('only this machine reaches the proxy: nothing is announced; listen on an address of the network');
  for (const { hostname: at, port } of outer) {
    const everywhere = at === '0.0.0.0' || at === '[::]';
    const addresses = everywhere ? ownAddresses() : [at.replace(/^\[|\]$/g, '')];
    const service = { name: `buildkit on ${host}`, type: '_apt_proxy._tcp', host, port: Number(port) || 80, addresses };
    stack.use(await announce(service));
  }
  return stack;
}

async function freeze(
  cx: CommandContext,
  name: string | undefined,
  flags: Place & { remove?: boolean },
): Promise<Output> {
  await using cache = await beside(cx, flags);
  if (name === undefined) {
    const views = cache.store.frozen().map((one) => ({
      name: one.name,
      suite: `${one.snapshot.backend}/${one.snapshot.root}`,
      date: new Date(one.snapshot.date * 1000).toISOString(),
    }));
    if (views.length === 0) cx.log.info('there is no frozen view; give a name to make one');
    return { data: views, text: table(views.map((one) => [one.name, one.suite, one.date])) };
  }
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(name)) {
    throw new UserError('proxy-frozen-name', `'${name}' cannot be the name of a frozen view`, {
      hint: "letters, digits, '.', '_' and '-'",
    });
  }
  if (flags.remove) {
    if (cache.store.unfreeze(name) === 0) throw new UserError('proxy-frozen', `there is no frozen view '${name}'`);
    return { data: { removed: name }, text: `removed '${name}'` };
  }
  if (cache.suites.hasView(name)) {
    throw new UserError('proxy-frozen', `'${name}' is frozen already`, {
      hint: 'choose another name, or --remove it first',
    });
  }
  const held = cache.suites.freeze(name);
  if (held.length === 0)
    throw new UserError('proxy-frozen', 'there is no suite in the cache to freeze', {
      hint: 'see: buildkit proxy precache --help',
    });
  const rows = held.map((one) => [
    `/frozen/${name}/${one.backend}/`,
    one.root,
    new Date(one.date * 1000).toISOString(),
  ]);
  return { data: { name, suites: held }, text: table(rows) };
}

async function configure(
  cx: CommandContext,
  flags: { url: string; direct?: string[]; root: string; apply?: boolean },
): Promise<Output> {
  const { files } = clientConfiguration(flags.url, { direct: flags.direct ?? [] });
  if (flags.apply) {
    for (const { path, mode, text } of files) {
      const target = join(resolve(cx.cwd, flags.root), path);
      await mkdir(dirname(target), { recursive: true });
      await writeFileAtomic(target, text, { mode });
    }
    return {
      data: { written: files.map((file) => file.path) },
      text: files.map((file) => `wrote ${file.path}`).join('\n'),
    };
  }
  return { data: files, text: files.map((file) => `# ${file.path}\n${file.text}`).join('\n') };
}

/** The cache for work beside a server that may be running. */
async function beside(cx: CommandContext, flags: Place): Promise<ProxyCache> {
  const { cache: dir } = flags;
  return ProxyCache.open(cx, await settingsOf(cx, dir === undefined ? {} : { cache: dir }), { serving: false });
}

async function settingsOf(cx: CommandContext, flags: ServeFlags): Promise<ProxySettings> {
  const { cache, accessLog } = flags;
  return proxySettings(cx, cx.workspaceDir, (await cx.config()).proxy, {
    ...flags,
    cache: cache === undefined ? undefined : resolve(cx.cwd, cache),
    accessLog: accessLog === undefined ? undefined : resolve(cx.cwd, accessLog),
  });
}

function parseDays(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d+$/.test(text)) throw new UserError('proxy-days', `'${text}' is no number of days`);
  return Number(text);
}

function statsText(status: ReturnType<typeof statusOf>): string {
  const { counters } = status;
  const rows = [
    ['files', String(status.objects)],
    ['size', formatBytes(status.bytes)],
    ['addresses', String(status.urls)],
    ['hit rate', `${(hitRate(counters) * 100).toFixed(1)} %`],
    ['saved', formatBytes(counters.bytes_saved)],
    ...Object.entries(counters).map(([name, value]) => [
      name.replaceAll('_', ' '),
      name.startsWith('bytes') ? formatBytes(value) : String(value),
    ]),
    ...status.suites.map((one) => [
      `${one.backend}/${one.root}`,
      `${new Date(one.date * 1000).toISOString()}${one.signed ? '' : ' (unknown key)'}`,
    ]),
  ];
  return table(rows);
}
