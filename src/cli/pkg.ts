/** `buildkit pkg`: building packages, and looking into any. */
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { UsageError } from '../core/errors.ts';
import { printable } from '../core/log.ts';
import { type DebFile, extractDeb, listDeb, readDeb } from '../deb/archive.ts';
import { getField } from '../deb/control.ts';
import { type BuildRequest, type BuildResult, buildPackages, type DependencyMode, planBuild } from '../pkg/build.ts';
import { diffDebs, diffText } from '../pkg/diff.ts';
import { dotText, packageGraph, planGraph } from '../pkg/graph.ts';
import { packageInfo, packageInfoText } from '../pkg/info.ts';
import { type Finding, lintDeb } from '../pkg/lint.ts';
import type { UsedProxy } from '../release/proxy-use.ts';
import type { PackageFacts } from '../repo/handle.ts';
import { type Cli, type CommandContext, type Output, table } from './command.ts';
import { addReproduce } from './pkg-reproduce.ts';
import { addPkgRoot } from './pkg-root.ts';
import { openRepo } from './repo-place.ts';

interface BuildOptions {
  readonly suite?: string;
  readonly out?: string;
  readonly arch?: string;
  readonly packagingVersion?: string;
  readonly upstreamVersion?: string;
  readonly maintainer?: string;
  readonly compression?: BuildRequest['compression'];
  readonly refresh?: boolean;
  readonly deps?: DependencyMode;
  readonly mirror?: string;
  readonly proxy?: string;
  readonly repo?: string;
  readonly isolation?: BuildRequest['isolation'];
  readonly network?: boolean;
  readonly changes?: boolean;
  readonly timeLimit?: string;
  readonly dryRun?: boolean;
  readonly explain?: boolean;
  readonly sbom?: boolean;
  readonly checkContents?: boolean;
  readonly exportDebian?: string;
  readonly rpm?: boolean;
  readonly allowScripts?: string[];
}

export function addPkgCommands(program: Command, cli: Cli): void {
  const pkg = program.command('pkg').description('build .deb files of a package and of everything it needs');
  withPlanOptions(pkg.command('build'))
    .description('build folders, Debian sources, wheels or requirements, and everything they need')
    .option('--out <dir>', 'folder for the .deb files; default: pkg.out in buildkit.yaml')
    .option('--maintainer <name-and-mail>', '"Name <mail>" in the packages')
    .addOption(new Option('--compression <kind>', 'of the members').choices(['xz', 'zstd', 'gzip', 'none']))
    .addOption(
      new Option('--isolation <where>', 'build sources in a clone of the build root, or on this machine').choices([
        'auto',
        'root',
        'host',
      ]),
    )
    .option('--network', 'builds in a root may reach the network; default: pkg.network in buildkit.yaml')
    .option('--time-limit <minutes>', 'end the build of a source after this time')
    .option('--changes', 'write .changes and .buildinfo, too; default: pkg.changes in buildkit.yaml')
    .option('--dry-run', 'show what would be built')
    .option('--explain', 'say why each package was built anew, or not')
    .option('--sbom', 'write a bill of materials beside each package (SPDX 2.3, JSON)')
    .option('--export-debian <dir>', 'write source trees that dpkg-buildpackage turns into the same packages')
    .option('--check-contents', 'look in what the suite has for the same files: conflicts, or an error')
    .option('--allow-scripts <names...>', 'npm packages, NAME or NAME@VERSION, whose install scripts may run')
    .option('--rpm', 'make .rpm files of them, too, by alien')
    .action(
      cli.action(async (cx, inputs: string[], options: BuildOptions) => {
        await using proxy = await proxyFor(cx, options);
        const request = await buildRequest(cx, inputs, options, proxy);
        const context = through(cx, proxy);
        if (options.dryRun) return planOutput(request, await planBuild(context, request));
        const result = await buildPackages(context, request);
        const others = await otherForms(context, cx, result, options, request.outDir);
        return buildOutput(result, others, options.explain);
      }),
    );
  withPlanOptions(pkg.command('plan'))
    .description('the whole table: what is built, left to the suite, carried inside or dropped, and why')
    .option('--graph', 'who needs whom, in the language of Graphviz; with --json nodes and edges')
    .action(
      cli.action(async (cx, inputs: string[], options: BuildOptions & { graph?: boolean }) => {
        await using proxy = await proxyFor(cx, options);
        const request = await buildRequest(cx, inputs, options, proxy);
        const plan = await planBuild(through(cx, proxy), request);
        if (!options.graph) return planOutput(request, plan);
        const graph = planGraph(plan);
        return { data: graph, text: printable(dotText(graph)) };
      }),
    );
  addInspection(pkg, cli);
  addReproduce(pkg, cli);
  addPkgRoot(pkg, cli);
}

/** Rows that look into any .deb, also a foreign or hostile one. */
function addInspection(pkg: Command, cli: Cli): void {
  pkg
    .command('info')
    .description('what a .deb says of itself')
    .argument('<file>', 'the .deb file')
    .action(
      cli.action(async (cx, file: string) => {
        const info = await readDeb(cx, resolve(cx.cwd, file));
        return { data: packageInfo(info), text: packageInfoText(info) };
      }),
    );
  pkg
    .command('contents')
    .description('the files in a .deb')
    .argument('<file>', 'the .deb file')
    .action(
      cli.action(async (cx, file: string) => {
        const files = await Array.fromAsync(listDeb(cx, resolve(cx.cwd, file)));
        return { data: files, text: printable(table(files.map(contentsRow))) };
      }),
    );
  pkg
    .command('extract')
    .description('unpack the files of a .deb; nothing is written outside of the folder')
    .argument('<file>', 'the .deb file')
    .argument('<dir>', 'made when missing')
    .action(
      cli.action(async (cx, file: string, dir: string) => {
        const target = resolve(cx.cwd, dir);
        await extractDeb(cx, resolve(cx.cwd, file), target);
        return { data: { target }, text: target };
      }),
    );
  pkg
    .command('graph')
    .description('who of these packages needs whom, in the language of Graphviz; with --json nodes and edges')
    .argument('<files...>', '.deb files')
    .action(
      cli.action(async (cx, files: string[]) => {
        const infos = await Array.fromAsync(files, (file) => readDeb(cx, resolve(cx.cwd, file)));
        const graph = packageGraph(infos.map((one) => one.package));
        return { data: graph, text: printable(dotText(graph)) };
      }),
    );
  pkg
    .command('lint')
    .description("check packages: quick rules of Debian Policy, and lintian's where it is installed; exit 1 on errors")
    .argument('<files...>', '.deb files')
    .option('--no-lintian', 'quick rules only')
    .action(
      cli.action(async (cx, files: string[], options: { lintian: boolean }) => {
        const findings: Finding[] = [];
        for (const file of files) findings.push(...(await lintDeb(cx, resolve(cx.cwd, file), options.lintian)));
        const rows = findings.map((one) => [one.severity, one.subject ?? '', one.message, `(${one.policy})`]);
        const exitCode = findings.some((one) => one.severity === 'error') ? 1 : 0;
        return { data: findings, text: findings.length === 0 ? 'no problems found' : printable(table(rows)), exitCode };
      }),
    );
  pkg
    .command('diff')
    .description('what differs between two packages; exit 1 when something does')
    .argument('<a>', 'a .deb file')
    .argument('<b>', 'another')
    .action(
      cli.action(async (cx, a: string, b: string) => {
        const diff = await diffDebs(cx, resolve(cx.cwd, a), resolve(cx.cwd, b));
        return { data: diff, text: printable(diffText(diff)), exitCode: diff.identical ? 0 : 1 };
      }),
    );
}

function contentsRow(file: DebFile): string[] {
  const link = file.link === undefined ? '' : ` -> ${file.link}`;
  const owner = `${file.user || file.uid}/${file.group || file.gid}`;
  const time = new Date(file.mtime * 1000).toISOString().slice(0, 16).replace('T', ' ');
  return [
    file.type,
    file.mode.toString(8).padStart(4, '0'),
    owner,
    String(file.size).padStart(9),
    time,
    `${file.path}${link}`,
  ];
}

function withPlanOptions(command: Command): Command {
  return command
    .argument('[inputs...]', "folders and requirements: '.', 'flask>=3', 'x.whl'; default: packages in buildkit.yaml")
    .option('--suite <codename>', 'Debian release to build for; default: suite in buildkit.yaml')
    .option('--arch <architecture>', 'Debian architecture to build for; default: that of this machine')
    .option('--packaging-version <version>', 'the Debian revision before the suite mark')
    .option('--upstream-version <version>', "of a DEBIAN/ tree or package section; default: from git's tags")
    .addOption(
      new Option('--deps <mode>', 'what becomes of dependencies; default: pkg.deps in buildkit.yaml').choices([
        'auto',
        'packages',
        'bundle',
        'distro',
      ]),
    )
    .option('--mirror <url>', 'where to read what the suite has, if this machine does not follow it')
    .option('--repo <dir>', 'refuse versions that do not sort above what its suite has; the same bytes are fine')
    .option('--proxy <url>', "fetch through a proxy; 'auto': find or start one; default: proxy.use in buildkit.yaml")
    .option('--refresh', 'ask the package index again, also when it was asked minutes ago');
}

async function proxyFor(cx: CommandContext, { proxy: wanted }: BuildOptions): Promise<UsedProxy | undefined> {
  const { proxy: config } = await cx.config();
  const { useProxy } = await import('../release/proxy-use.ts');
  return useProxy(cx, { wanted, workspaceDir: cx.workspaceDir, config });
}

function through(cx: CommandContext, proxy: UsedProxy | undefined): CommandContext {
  return proxy ? { ...cx, env: { ...cx.env, ...proxy.env } } : cx;
}

async function buildRequest(
  cx: CommandContext,
  inputs: readonly string[],
  options: BuildOptions,
  proxy: UsedProxy | undefined,
): Promise<BuildRequest> {
  const config = await cx.config();
  const { pkg } = config;
  return {
    inputs: inputs.length > 0 ? inputs : config.packages,
    cwd: inputs.length > 0 ? cx.cwd : cx.workspaceDir,
    suite: options.suite ?? config.suite,
    outDir: options.out === undefined ? resolve(cx.workspaceDir, pkg.out) : resolve(cx.cwd, options.out),
    architecture: options.arch,
    packagingVersion: options.packagingVersion ?? pkg['packaging-version'],
    upstreamVersion: options.upstreamVersion,
    maintainer: options.maintainer ?? pkg.maintainer,
    compression: options.compression ?? pkg.compression,
    sbom: options.sbom ?? pkg.sbom,
    checkContents: options.checkContents ?? pkg['check-contents'],
    published:
      options.repo === undefined ? undefined : await publishedIn(cx, options.repo, options.suite ?? config.suite),
    refresh: options.refresh,
    proxy: proxy?.url,
    isolation: options.isolation ?? pkg.isolation,
    network: options.network ?? pkg.network,
    changes: options.changes ?? pkg.changes,
    timeLimitMs: options.timeLimit === undefined ? undefined : minutes(options.timeLimit),
    policy: {
      ...pkg,
      deps: options.deps ?? pkg.deps,
      mirror: options.mirror ?? pkg.mirror,
      'allow-scripts': options.allowScripts ?? pkg['allow-scripts'],
    },
  };
}

function minutes(text: string): number {
  if (/^\d+(\.\d+)?$/.test(text) && Number(text) > 0) return Number(text) * 60_000;
  throw new UsageError(`'${text}' is no number of minutes`);
}

async function publishedIn(cx: CommandContext, repo: string, suite: string): Promise<PackageFacts[]> {
  using opened = await openRepo(cx, { repo });
  return opened.list(suite).filter((one) => one.kind === 'deb');
}

function planOutput(request: BuildRequest, plan: Awaited<ReturnType<typeof planBuild>>): Output {
  const rows = plan.table.map((one) => [one.name, one.version, one.decision, one.why]);
  return { data: { suite: request.suite, ...plan }, text: table(rows) };
}

/** What was asked for beside the .deb files: paths of source trees and .rpm files. */
async function otherForms(
  context: CommandContext,
  cx: CommandContext,
  { packages }: BuildResult,
  options: BuildOptions,
  outDir: string,
): Promise<string[]> {
  const made: string[] = [];
  if (options.exportDebian !== undefined) {
    const { exportDebian } = await import('../pkg/export-debian.ts');
    const dir = resolve(cx.cwd, options.exportDebian);
    for (const one of packages) made.push(await exportDebian(context, one.path, dir));
  }
  if (options.rpm) {
    const { makeRpm } = await import('../pkg/rpm.ts');
    for (const one of packages) made.push(await makeRpm(context, one, outDir));
  }
  return made;
}

function buildOutput(result: BuildResult, others: readonly string[], explain = false): Output {
  const data = result.packages.map(({ control, ...one }) => ({ ...one, depends: getField(control, 'Depends') ?? '' }));
  const reasons = explain ? [table(result.explained.map((one) => [one.name, one.version, one.outcome, one.why]))] : [];
  const summary = `${result.packages.length} packages: ${result.built} new, ${result.reused} unchanged`;
  const text = [...result.packages.map((one) => one.path), ...others, ...reasons, summary].join('\n');
  return { data: { ...result, packages: data, others }, text };
}
