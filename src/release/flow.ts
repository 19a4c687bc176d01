/**
 * The main job, top to bottom: source -> .debs of the package and everything it needs -> signed repository -> apt installs it
 * in a clean machine -> checked. The only place where pkg, repo and vm meet.
 */
import { resolve } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { formatBytes } from '../core/log.ts';
import type { BinaryPackage } from '../deb/package.ts';
import { parseSources } from '../deb/sources.ts';
import { type BuildPlan, type BuildRequest, type BuildResult, buildPackages, planBuild } from '../pkg/build.ts';
import type { PackageFacts } from '../repo/handle.ts';
import { KeyStore, parseLifetime } from '../repo/keys.ts';
import { Repo } from '../repo/repo.ts';
import { serveRepo } from '../repo/serve.ts';
import { type Base, buildBase } from '../vm/base.ts';
import { HOST_FROM_GUEST, type TestReport, testPackages } from '../vm/test.ts';
import type { Config } from './config.ts';
import { guestFiles, type UsedProxy, useProxy } from './proxy-use.ts';

export interface ReleaseRequest {
  readonly workspaceDir: string;
  readonly config: Config;
  /** Stop after publishing. */
  readonly withoutTest?: boolean | undefined;
}

export interface ReleasePlan {
  readonly build: BuildPlan;
  /** What would be done, in order, one sentence each. */
  readonly steps: readonly string[];
}

export interface ReleaseReport {
  /** Every package of the closure, those asked for first. */
  readonly packages: readonly BinaryPackage[];
  readonly asked: readonly string[];
  readonly built: number;
  readonly reused: number;
  readonly outDir: string;
  readonly repository: {
    readonly dir: string;
    readonly suite: string;
    readonly generation: string | undefined;
    readonly key: string;
  };
  readonly base?: Base | undefined;
  /** `passed: false` makes the release fail. */
  readonly test?: TestReport | undefined;
}

/** What `runRelease` would do; resolves the closure, changes nothing outside the cache. */
export async function planRelease(context: Context, request: ReleaseRequest): Promise<ReleasePlan> {
  const { config } = request;
  const build = await planBuild(context, buildRequest(request));
  const names =
    config.release.install ?? build.packages.filter((one) => one.why === 'asked for').map((one) => one.name);
  const test = [
    `base image of ${config.suite}: build it, or use the one there is`,
    `in a clean machine: apt-get update, apt-get install ${names.join(' ')}`,
    ...config.release.checks.map((check) => `check ${JSON.stringify(check)}`),
  ];
  return {
    build,
    steps: [
      ...build.packages.map((one) => `build ${one.name} ${one.version} (${one.why})`),
      `add them to suite ${config.suite} of ${resolve(request.workspaceDir, config.repo.dir)}, sign and publish`,
      ...(request.withoutTest ? [] : test),
    ],
  };
}

/**
 * The whole line. A stage that cannot do its part throws; packages that do not work in the machine are a report whose test
 * did not pass.
 */
export async function runRelease(context: Context, request: ReleaseRequest): Promise<ReleaseReport> {
  const { config } = request;
  const { step } = context.log;
  await using proxy = await useProxy(context, { workspaceDir: request.workspaceDir, config: config.proxy });
  const built = await step(`Build .debs for ${config.suite}`, () => build(context, request, proxy));
  const key = await step('Signing key', () => ensureKey(context, config));
  const repository = await step('Publish the signed repository', () => publish(context, request, key, built));
  const done = { ...built, outDir: buildRequest(request).outDir, repository };
  if (request.withoutTest) return done;
  const base = await step(`Base image of ${config.suite}`, () => baseImage(context, config, proxy));
  const test = await step('Install and check in a clean machine', () =>
    installAndCheck(context, request, { built, base, proxy }),
  );
  if (!test.passed) context.log.warn('the packages did not pass: see the report');
  return { ...done, base, test };
}

function buildRequest({ config, workspaceDir }: ReleaseRequest): BuildRequest {
  return {
    inputs: config.packages,
    cwd: workspaceDir,
    suite: config.suite,
    outDir: resolve(workspaceDir, config.pkg.out),
    packagingVersion: config.pkg['packaging-version'],
    maintainer: config.pkg.maintainer,
    compression: config.pkg.compression,
    isolation: config.pkg.isolation,
    network: config.pkg.network,
    changes: config.pkg.changes,
    sbom: config.pkg.sbom,
    checkContents: config.pkg['check-contents'],
    policy: config.pkg,
  };
}

async function build(context: Context, request: ReleaseRequest, proxy: UsedProxy | undefined): Promise<BuildResult> {
  const through = proxy ? { ...context, env: { ...context.env, ...proxy.env } } : context;
  const published = await publishedPackages(context, request);
  const result = await buildPackages(through, { ...buildRequest(request), published, proxy: proxy?.url });
  for (const one of result.packages) context.log.info(`${one.name} ${one.version} (${formatBytes(one.size)})`);
  if (result.reused > 0) context.log.info(`${result.reused} of ${result.packages.length} were there already: reused`);
  return result;
}

/** What the repository has in the suite, if there is one already. */
async function publishedPackages(context: Context, { config, workspaceDir }: ReleaseRequest): Promise<PackageFacts[]> {
  try {
    using repo = await Repo.open(context, resolve(workspaceDir, config.repo.dir));
    return repo.list(config.suite).filter((one) => one.kind === 'deb');
  } catch (error) {
    if (error instanceof UserError && error.code === 'no-repository') return [];
    throw error;
  }
}

/** The key that the configuration names, or the only one there is, or a first one. Never a second beside others. */
async function ensureKey(context: Context, config: Config): Promise<string> {
  const store = new KeyStore(context);
  if (config.repo.key !== undefined || (await store.list()).length > 0) {
    const { fingerprint } = await store.find(config.repo.key);
    context.log.info(`${fingerprint} (there already)`);
    return fingerprint;
  }
  const made = await store.generate({
    name: config.key.name ?? config.name,
    email: config.key.email ?? `${config.name}@localhost`,
    algorithm: config.key.algorithm,
    expiresSeconds: parseLifetime(config.key.expires),
  });
  context.log.info(`${made.fingerprint} (new, ${config.key.algorithm})`);
  return made.fingerprint;
}

async function publish(
  context: Context,
  { config, workspaceDir }: ReleaseRequest,
  key: string,
  built: BuildResult,
): Promise<ReleaseReport['repository']> {
  const dir = resolve(workspaceDir, config.repo.dir);
  using repo = await openOrInit(context, config, dir, key);
  const paths = built.packages.map((one) => one.path);
  const { added, unchanged, refused } = await repo.add(config.suite, paths, { allOrNothing: true, who: 'release run' });
  const [first] = refused;
  if (first) {
    throw new UserError(first.code, `'${first.file}' cannot be added: ${first.message}`, {
      hint: first.hint ?? 'change what differs, or raise pkg.packaging-version in buildkit.yaml',
    });
  }
  const [published] = await repo.publish([config.suite], { keys: [key] });
  context.log.info(`${added.length} packages added, ${unchanged.length} there already: ${dir}`);
  return { dir, suite: config.suite, generation: published?.generation, key };
}

async function openOrInit(context: Context, config: Config, dir: string, key: string): Promise<Repo> {
  try {
    return await Repo.open(context, dir);
  } catch (error) {
    if (!(error instanceof UserError && error.code === 'no-repository')) throw error;
  }
  const { components, architectures } = config.repo;
  return Repo.init(context, dir, {
    suites: (config.repo.suites ?? [config.suite]).map((name) => ({ name, components, architectures })),
    origin: config.repo.origin ?? config.name,
    label: config.repo.label ?? config.name,
    keys: [key],
    validDays: Math.max(1, Math.round((parseLifetime(config.repo['valid-for']) ?? 0) / 86_400)),
  });
}

async function baseImage(context: Context, config: Config, proxy: UsedProxy | undefined): Promise<Base> {
  const { size, include, mirror } = config.vm.base;
  const base = await buildBase(context, { suite: config.suite, size, include, mirror, proxy: proxy?.url });
  context.log.info(`${base.id} (${formatBytes(base.size)}${base.reused ? ', there already: reused' : ''})`);
  return base;
}

async function installAndCheck(
  context: Context,
  { config, workspaceDir }: ReleaseRequest,
  { built, base, proxy }: { readonly built: BuildResult; readonly base: Base; readonly proxy: UsedProxy | undefined },
): Promise<TestReport> {
  const dir = resolve(workspaceDir, config.repo.dir);
  using repo = await Repo.open(context, dir);
  await using server = await serveRepo(context, dir, { listen: '127.0.0.1:0' });
  const url = `http://${HOST_FROM_GUEST}:${server.port}/`;
  context.log.info(`the machine finds the repository at ${url}`);
  const sources = parseSources(await repo.sources(config.suite, { url }));
  // awaited here: the repository is served until the machine has what it wants
  return await testPackages(context, {
    suite: config.suite,
    packages: config.release.install ?? built.asked,
    sources,
    checks: config.release.checks,
    base: base.id,
    files: proxy && guestFiles(proxy),
    accel: config.vm.accel,
    memory: config.vm.memory,
    cpus: config.vm.cpus,
  });
}
