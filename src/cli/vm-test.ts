/** `buildkit vm test`: does a package of a repository install and work in a clean machine? */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { PackageCheck } from '../vm/test.ts';
import type { Cli, CommandContext, Output } from './command.ts';
import { addSizeOptions } from './vm.ts';

interface TestFlags {
  readonly repo?: string;
  readonly suite?: string;
  readonly base?: string;
  readonly service?: readonly string[];
  readonly http?: readonly string[];
  readonly contains?: string;
  readonly check?: readonly string[];
  readonly purge?: boolean;
  readonly instant?: boolean;
  readonly proxy?: string;
  readonly keep?: boolean;
  readonly memory?: string;
  readonly cpus?: number;
  readonly accel?: 'auto' | 'kvm' | 'tcg';
}

export function addVmTestCommand(vm: Command, cli: Cli): void {
  addSizeOptions(
    vm
      .command('test <packages...>')
      .description('install packages of a repository in a clean machine and check them; exit 1 when one fails')
      .option('--repo <dir>', 'default: repo.dir of buildkit.yaml')
      .option('--suite <codename>', 'default: suite of buildkit.yaml')
      .option('--base <base>', 'id or suite of the base image; default: that of the suite, built when there is none')
      .option('--service <unit>', 'must be active; may be repeated', collect)
      .option('--http <url>', 'must answer 200 inside the machine; may be repeated', collect)
      .option('--contains <text>', 'must be in those answers')
      .option('--check <command>', 'must succeed in the machine (sh); may be repeated', collect)
      .option(
        '--proxy <url>',
        "apt proxy of the machine; 'auto': find or start one; default: proxy.use of buildkit.yaml",
      )
      .option('--purge', 'remove and purge the packages at the end')
      .option('--instant', 'go on from a frozen machine instead of booting; the first time one is frozen')
      .option('--keep', 'leave the machine running when something failed'),
  ).action(cli.action((cx, packages: string[], flags: TestFlags) => test(cx, packages, flags)));
}

async function test(cx: CommandContext, packages: string[], flags: TestFlags): Promise<Output> {
  const { suite: usualSuite, repo: repoConfig, vm, proxy: proxyConfig } = await cx.config();
  const { Repo } = await import('../repo/repo.ts');
  const { serveRepo } = await import('../repo/serve.ts');
  const { parseSources } = await import('../deb/sources.ts');
  const { formatTestReport, HOST_FROM_GUEST, testPackages } = await import('../vm/test.ts');
  const { guestFiles, useProxy } = await import('../release/proxy-use.ts');
  const suite = flags.suite ?? usualSuite;
  const dir = flags.repo === undefined ? resolve(cx.workspaceDir, repoConfig.dir) : resolve(cx.cwd, flags.repo);
  using repo = await Repo.open(cx, dir);
  await using server = await serveRepo(cx, dir, { listen: '127.0.0.1:0' });
  await using proxy = await useProxy(cx, {
    wanted: flags.proxy,
    workspaceDir: cx.workspaceDir,
    config: proxyConfig,
  });
  const sources = parseSources(await repo.sources(suite, { url: `http://${HOST_FROM_GUEST}:${server.port}/` }));
  const { memory, cpus, accel } = { ...vm, ...flags };
  const { base, purge, instant, keep: keepOnFailure } = flags;
  const mirror = vm.base.mirror;
  const through = { buildProxy: proxy?.url, files: proxy && guestFiles(proxy) };
  const asked = { suite, packages, sources, checks: checksOf(flags), base, mirror, purge, instant, keepOnFailure };
  const request = { ...asked, ...through };
  const report = await testPackages(cx, { ...request, memory, cpus, accel });
  return { data: report, text: formatTestReport(report), exitCode: report.passed ? 0 : 1 };
}

function checksOf({ service = [], http = [], contains, check = [] }: TestFlags): PackageCheck[] {
  return [
    ...service.map((unit) => ({ service: unit })),
    ...http.map((url) => ({ http: url, contains })),
    ...check.map((command) => ({ command })),
  ];
}

function collect(value: string, former: readonly string[] = []): string[] {
  return [...former, value];
}
