/**
 * Does a package install and work in a clean machine? apt from the given sources inside a throw-away clone, then the checks.
 *
 * Secret: the order of the steps and what is kept of them (`STATE/vm/tests/NAME`: console, transcript, report).
 */
import { createWriteStream, type WriteStream } from 'node:fs';
import { copyFile, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import type { Context } from '../core/context.ts';
import { BuildkitError, errnoOf, UserError } from '../core/errors.ts';
import { writeFileAtomic } from '../core/files.ts';
import { formatDuration } from '../core/log.ts';
import { shellQuote } from '../core/run.ts';
import { type AptSource, formatSource } from '../deb/sources.ts';
import { buildBase, findBase } from './base.ts';
import { consoleEnd, plainText } from './console.ts';
import { type FirstFile, writeFiles } from './first-files.ts';
import { createVm } from './machine.ts';
import type { ExecResult } from './ssh.ts';
import {
  aptComplaints,
  DPKG_QUERY,
  httpFetch,
  judgeHttp,
  newPackages,
  packageNameOf,
  parseHttpAnswer,
  parseInstalled,
} from './test-judge.ts';
import { bootVm, createInstantVm, destroyVm, startVm, type Vm } from './vm.ts';

/** What must hold in the machine after the installation. */
export type PackageCheck =
  /** Fetched inside the guest. */
  | { readonly http: string; readonly status?: number | undefined; readonly contains?: string | undefined }
  /** Run by sh inside the guest. */
  | { readonly command: string }
  /** A systemd unit that must be active. */
  | { readonly service: string };

export interface TestRequest {
  readonly suite: string;
  /** Names as apt-get takes them: `hello`, `hello=2.12-1`. */
  readonly packages: readonly string[];
  /** As the guest sees them: the host's loopback is 10.0.2.2 (HOST_FROM_GUEST). */
  readonly sources: readonly AptSource[];
  readonly checks?: readonly PackageCheck[] | undefined;
  /** After the checks: remove, then purge; both must succeed. */
  readonly purge?: boolean | undefined;
  /** Leave the machine running when something failed. */
  readonly keepOnFailure?: boolean | undefined;
  readonly accel?: 'auto' | 'kvm' | 'tcg' | undefined;
  /** `1024M` */
  readonly memory?: string | undefined;
  readonly cpus?: number | undefined;
  /** Go on from a frozen machine instead of booting (see VmSpec). */
  readonly instant?: boolean | undefined;
  /** Id or suite of the base; default: that of `suite`, built when there is none. */
  readonly base?: string | undefined;
  readonly mirror?: string | undefined;
  /** Of apt, for the base image where one has to be built. */
  readonly buildProxy?: string | undefined;
  /** Written into the machine before apt runs there (apt.conf.d and what it needs). */
  readonly files?: readonly FirstFile[] | undefined;
}

export interface TestStep {
  /** `apt-get update` */
  readonly name: string;
  readonly passed: boolean;
  readonly durationMs: number;
  /** What was found, or the end of the output where it failed; control characters replaced. */
  readonly detail: string;
}

export interface TestReport {
  readonly passed: boolean;
  readonly suite: string;
  readonly base: string;
  readonly accel: 'kvm' | 'tcg';
  /** From the start of QEMU to a usable machine, milliseconds. */
  readonly bootMs: number;
  /** Those asked for, as installed. */
  readonly packages: readonly InstalledPackage[];
  /** Everything that the installation brought or upgraded. */
  readonly brought: readonly InstalledPackage[];
  readonly steps: readonly TestStep[];
  /** Serial console, kept after the machine has gone. */
  readonly consoleLog: string;
  /** Everything that the commands in the guest printed. */
  readonly transcript: string;
  /** Name of the machine that was left running. */
  readonly kept?: string | undefined;
}

export interface InstalledPackage {
  readonly name: string;
  readonly version: string;
}

/** Address of this machine's loopback inside a guest on the user network: serve on 127.0.0.1:PORT, point apt at http://10.0.2.2:PORT. */
export const HOST_FROM_GUEST = '10.0.2.2';

const KEPT_TESTS = 20;
const APT_LIMIT_MS = 20 * 60_000;
const CHECK_LIMIT_MS = 5 * 60_000;
const SERVICE_SECONDS = 60;
const APT = [
  'env',
  'DEBIAN_FRONTEND=noninteractive',
  'LC_ALL=C.UTF-8',
  'apt-get',
  '-q',
  '-o',
  'DPkg::Lock::Timeout=120',
];

/**
 * Runs the test. A package that fails is a report with `passed: false`; a machine that does not come up is thrown.
 * @throws UserError `test-nothing`, `base-unknown`; ToolError `vm-not-ready`, `vm-lost`
 */
export async function testPackages(context: Context, request: TestRequest): Promise<TestReport> {
  if (request.packages.length === 0) throw new UserError('test-nothing', 'no package to test was named');
  const base = request.base
    ? await findBase(context, request.base)
    : await buildBase(context, { suite: request.suite, mirror: request.mirror, proxy: request.buildProxy });
  const name = await freeName(context, request);
  const folder = join(context.stateDir, 'vm', 'tests', name);
  await mkdir(folder, { recursive: true });
  const { instant } = request;
  const options = { base: base.id, name, instant, memory: request.memory, cpus: request.cpus, accel: request.accel };
  const vm = await startTestMachine(context, options, request.keepOnFailure ?? false);
  let keep = false;
  try {
    await using transcript = openTranscript(join(folder, 'transcript.log'));
    const session = new Session(context, vm, transcript);
    const found = await runSteps(session, request);
    const passed = session.steps.every((step) => step.passed);
    keep = !passed && (request.keepOnFailure ?? false);
    const report: TestReport = {
      ...{ passed, suite: base.suite, base: base.id, accel: vm.accel, bootMs: Math.round(vm.bootMs), ...found },
      steps: session.steps,
      consoleLog: join(folder, 'console.log'),
      transcript: transcript.path,
      ...(keep ? { kept: vm.name } : {}),
    };
    await copyFile(vm.consoleLog, report.consoleLog);
    await writeFileAtomic(join(folder, 'report.json'), `${JSON.stringify(report, undefined, 2)}\n`);
    return report;
  } finally {
    await vm[Symbol.asyncDispose]();
    if (request.keepOnFailure && !keep) await destroyVm({ ...context, signal: new AbortController().signal }, name);
    await dropOldTests(context);
  }
}

/** One that may be left running outlives this process; any other does not. */
async function startTestMachine(
  context: Context,
  options: Parameters<typeof startVm>[1] & { readonly name: string },
  mayStay: boolean,
): Promise<Vm> {
  if (!mayStay) return startVm(context, options);
  await (options.instant ? createInstantVm : createVm)(context, options.name, options);
  return bootVm(context, options.name);
}

async function freeName(context: Context, { packages, suite }: TestRequest): Promise<string> {
  const word = packageNameOf(packages[0] ?? 'test').replaceAll(/[^a-z0-9]+/g, '-');
  const time = context
    .now()
    .toISOString()
    .replaceAll(/[-:]|\.\d+Z$/g, '')
    .toLowerCase();
  return `test-${word}-${suite}`.slice(0, 40).replace(/-+$/, '') + `-${time}-${process.pid}`;
}

async function dropOldTests(context: Context): Promise<void> {
  const folder = join(context.stateDir, 'vm', 'tests');
  const names = await readdir(folder).catch((error: unknown) => {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  });
  const byAge = names.sort((a, b) => (timeOf(a) < timeOf(b) ? -1 : 1));
  for (const name of byAge.slice(0, -KEPT_TESTS)) await rm(join(folder, name), { recursive: true, force: true });
}

function timeOf(name: string): string {
  return /\d{8}t\d{6}/.exec(name)?.[0] ?? '';
}

interface Transcript extends AsyncDisposable {
  readonly path: string;
  write(text: string): void;
}

function openTranscript(path: string): Transcript {
  const stream: WriteStream = createWriteStream(path);
  return {
    path,
    write: (text) => void stream.write(text),
    async [Symbol.asyncDispose]() {
      stream.end();
      await finished(stream);
    },
  };
}

/** The steps so far, and the way to take one. */
class Session {
  readonly steps: TestStep[] = [];
  readonly #context: Context;
  readonly #vm: Vm;
  readonly #transcript: Transcript;

  constructor(context: Context, vm: Vm, transcript: Transcript) {
    this.#context = context;
    this.#vm = vm;
    this.#transcript = transcript;
  }

  get vm(): Vm {
    return this.#vm;
  }

  /** Runs a command in the guest; its output goes to the transcript. */
  async run(argv: readonly string[], limitMs: number): Promise<ExecResult & { readonly output: string }> {
    this.#transcript.write(`# ${shellQuote(argv)}\n`);
    let output = '';
    const result = await this.#vm.run(argv, {
      timeoutMs: limitMs,
      onOutput: (chunk) => {
        const text = plainText(chunk.toString('utf8'));
        output += text;
        this.#transcript.write(text);
      },
    });
    this.#transcript.write(`# exit code ${result.exitCode}\n\n`);
    return { ...result, output };
  }

  /** A step passes when `body` returns what was found; it fails when it throws a StepFailure or the guest fails it. */
  async step(name: string, body: () => Promise<string>): Promise<boolean> {
    const began = performance.now();
    const add = (passed: boolean, detail: string) =>
      this.steps.push({ name, passed, durationMs: Math.round(performance.now() - began), detail });
    try {
      await this.#context.log.step(name, async () => add(true, plainText(await body())));
      return true;
    } catch (error) {
      this.#context.signal.throwIfAborted();
      const ofGuest = error instanceof BuildkitError && error.code === 'guest-timeout';
      if (!(error instanceof StepFailure) && !ofGuest) throw error;
      add(false, plainText(error.message));
      return false;
    }
  }
}

class StepFailure extends Error {}

async function runSteps(
  session: Session,
  request: TestRequest,
): Promise<{ packages: InstalledPackage[]; brought: InstalledPackage[] }> {
  const { vm } = session;
  const uris = request.sources.flatMap((source) => source.uris);
  const before = parseInstalled((await session.run(DPKG_QUERY, CHECK_LIMIT_MS)).stdout);
  await writeFiles(vm, request.files ?? []);
  await vm.write('/etc/apt/sources.list.d/buildkit-test.sources', request.sources.map(formatSource).join('\n'));
  const nothing = { packages: [], brought: [] };
  const updated = await session.step('apt-get update', () =>
    apt(session, ['-o', 'APT::Update::Error-Mode=any', 'update'], uris),
  );
  if (!updated) return nothing;
  const installed = await session.step(`apt-get install ${request.packages.join(' ')}`, () =>
    apt(session, ['install', '-y', ...request.packages], uris),
  );
  if (!installed) return nothing;
  const after = parseInstalled((await session.run(DPKG_QUERY, CHECK_LIMIT_MS)).stdout);
  const brought = newPackages(before, after);
  const names = request.packages.map(packageNameOf);
  await session.step('dpkg knows the packages', () => checkInstalled(session, names, after));
  for (const check of request.checks ?? []) await session.step(checkName(check), () => runCheck(session, check));
  if (request.purge) await removeAndPurge(session, names);
  const packages = names.flatMap((name) => {
    const version = after.get(name);
    return version === undefined ? [] : [{ name, version }];
  });
  return { packages, brought };
}

/** apt-get that must succeed and must not complain. */
async function apt(session: Session, args: readonly string[], uris: readonly string[]): Promise<string> {
  const { exitCode, output } = await session.run([...APT, ...args], APT_LIMIT_MS);
  const complaints = aptComplaints(output, uris);
  if (exitCode !== 0) throw new StepFailure(`exit code ${exitCode}\n${consoleEnd(output)}`);
  if (complaints.length > 0) throw new StepFailure(complaints.join('\n'));
  const summary = output.split('\n').findLast((line) => /^(\d+ upgraded|Fetched|Reading package lists)/.test(line));
  return summary ?? 'done';
}

async function checkInstalled(
  session: Session,
  names: readonly string[],
  installed: ReadonlyMap<string, string>,
): Promise<string> {
  const absent = names.filter((name) => !installed.has(name));
  if (absent.length > 0) throw new StepFailure(`not installed: ${absent.join(', ')}`);
  const audit = await session.run(['dpkg', '--audit'], CHECK_LIMIT_MS);
  if (audit.exitCode !== 0 || audit.output.trim() !== '') throw new StepFailure(consoleEnd(audit.output));
  return names.map((name) => `${name} ${installed.get(name)}`).join(', ');
}

function checkName(check: PackageCheck): string {
  if ('http' in check) return `GET ${check.http} in the machine`;
  return 'service' in check ? `service ${check.service} is active` : check.command;
}

async function runCheck(session: Session, check: PackageCheck): Promise<string> {
  if ('http' in check) return checkHttp(session, check);
  if ('service' in check) return checkService(session, check.service);
  const { exitCode, output } = await session.run(['sh', '-c', check.command], CHECK_LIMIT_MS);
  if (exitCode !== 0) throw new StepFailure(`exit code ${exitCode}\n${consoleEnd(output)}`);
  return consoleEnd(output, 3) || 'exit code 0';
}

async function checkHttp(session: Session, check: Extract<PackageCheck, { http: string }>): Promise<string> {
  const result = await session.run(httpFetch(check.http, SERVICE_SECONDS), CHECK_LIMIT_MS);
  if (result.exitCode !== 0) throw new StepFailure(`nobody answers: ${consoleEnd(result.stderr, 3)}`);
  const answer = parseHttpAnswer(result.stdout);
  const problem = judgeHttp(answer, check);
  if (problem !== undefined) throw new StepFailure(problem);
  const contains = check.contains === undefined ? '' : `, contains '${check.contains}'`;
  return `${answer?.status}${contains}`;
}

async function checkService(session: Session, unit: string): Promise<string> {
  const wait =
    'end=$(($(date +%s) + $2)); until systemctl is-active -q -- "$1"; do [ $(date +%s) -lt $end ] || exit 1; sleep 0.3; done';
  const { exitCode } = await session.run(['sh', '-c', wait, 'sh', unit, String(SERVICE_SECONDS)], CHECK_LIMIT_MS);
  if (exitCode === 0) return 'active';
  const status = await session.run(['systemctl', 'status', '--no-pager', '--full', '--', unit], CHECK_LIMIT_MS);
  throw new StepFailure(`not active after ${SERVICE_SECONDS} s\n${consoleEnd(status.output)}`);
}

async function removeAndPurge(session: Session, names: readonly string[]): Promise<void> {
  for (const verb of ['remove', 'purge']) {
    const done = await session.step(`apt-get ${verb} ${names.join(' ')}`, () =>
      apt(session, [verb, '-y', ...names], []),
    );
    if (!done) return;
  }
  await session.step('nothing of the packages is left', async () => {
    const { output } = await session.run([...DPKG_QUERY, ...names], CHECK_LIMIT_MS);
    const left = output.split('\n').filter((line) => /^(installed|config-files|half-|unpacked|triggers)/.test(line));
    if (left.length > 0) throw new StepFailure(left.join('\n'));
    return 'purged';
  });
}

/** The report as text for people. */
export function formatTestReport(report: TestReport): string {
  const steps = report.steps.flatMap((step) => {
    const [first = '', ...rest] = step.detail.split('\n');
    const head = `${step.passed ? 'ok  ' : 'FAIL'} ${step.name} (${formatDuration(step.durationMs)}): ${first}`;
    return [head, ...(step.passed ? [] : rest.map((line) => `       ${line}`))];
  });
  const count = report.brought.length;
  return [
    `${report.suite}, base ${report.base}, ${report.accel}, machine ready after ${formatDuration(report.bootMs)}`,
    ...steps,
    `${count} packages installed; transcript: ${report.transcript}`,
    `console: ${report.consoleLog}`,
    ...(report.kept === undefined ? [] : [`the machine still runs: buildkit vm ssh ${report.kept}`]),
    report.passed ? 'passed' : 'failed',
    '',
  ].join('\n');
}
