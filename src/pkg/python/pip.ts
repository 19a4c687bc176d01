/**
 * pip as resolver, fetcher and builder: the only module that knows its command line and its report.
 *
 * Secret: a few lines of Python that run inside pip's own process. They keep the user's configuration, leave out a main
 * index that cannot be reached where others can, evaluate markers for the target where it is not this machine's Python, and
 * ask us for the metadata of sources whose code must not run here: a line of JSON on stdout, the answer on stdin.
 */
import { readFile, readlink } from 'node:fs/promises';
import { machine } from 'node:os';
import { basename, join } from 'node:path';
import { PassThrough } from 'node:stream';
import { z } from 'zod';
import type { Context } from '../../core/context.ts';
import { ToolError, UserError } from '../../core/errors.ts';
import { type RunResult, run } from '../../core/run.ts';
import type { MarkerEnvironment } from './requirement.ts';

/** The Python that packages are made for. */
export interface TargetPython {
  /** 'X.Y' */
  readonly version: string;
  /** Of `platform.machine()`: 'x86_64'. */
  readonly machine: string;
}

/** How pip is run: by an interpreter like the target's, or by another that is told to choose for the target. */
export interface Pip {
  readonly interpreter: string;
  readonly target: TargetPython;
  /** Interpreter and machine are the target's: sources can be built. */
  readonly native: boolean;
}

const PROGRAM = `
import json, os, socket, sys, threading
from urllib.parse import urlsplit
request = json.loads(sys.stdin.readline())
questions = os.fdopen(os.dup(1), "w")
os.dup2(2, 1) # pip explains conflicts on stdout, which is not kept for errors
try:
    import pip
    from pip._internal.configuration import Configuration
    from pip._internal.models.index import PyPI
    import pip._vendor.packaging.markers as markers
except ImportError:
    sys.exit("buildkit-no-pip")
def warn(text):
    print("buildkit-warning: " + text, file=sys.stderr)
def reachable(url):
    parts = urlsplit(url)
    if parts.scheme == "file": return os.path.exists(parts.path)
    if not parts.scheme: return os.path.exists(url)
    answer = []
    def attempt():
        try:
            socket.create_connection((parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)), 3).close()
            answer.append(True)
        except OSError:
            pass
    thread = threading.Thread(target=attempt, daemon=True)
    thread.start(); thread.join(3)
    return bool(answer)
configuration = Configuration(isolated=False)
configuration.load()
found = dict(configuration.items())
def setting(name):
    for scope in (":env:", request["args"][0], "global"):
        if found.get(scope + "." + name): return found[scope + "." + name]
    return ""
behind_proxy = setting("proxy") or os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY") or os.environ.get("all_proxy")
main_index = setting("index-url") or setting("pypi-url") or PyPI.simple_url
no_index = setting("no-index") in ("1", "true", "True", "yes", "on")
if not no_index and not (behind_proxy and main_index.startswith("http")) and not reachable(main_index):
    others = [url for url in setting("extra-index-url").split() if reachable(url)]
    folders = [url for url in setting("find-links").split() if reachable(url)]
    if others:
        os.environ["PIP_INDEX_URL"] = others[0]
        os.environ["PIP_EXTRA_INDEX_URL"] = " ".join(others[1:])
    elif folders:
        os.environ["PIP_NO_INDEX"] = "1"
    if others or folders:
        host = urlsplit(main_index).hostname or main_index
        warn("the package index %s cannot be reached: only the other configured sources are used" % host)
    else:
        warn("the package index %s cannot be reached" % (urlsplit(main_index).hostname or main_index))
        sys.exit("buildkit-no-index")
if request["environment"]:
    environment = request["environment"]
    markers.default_environment = lambda: dict(environment)
if request["asks"]:
    from pip._internal.cli import cmdoptions
    from pip._internal.distributions.sdist import SourceDistribution
    from pip._internal.exceptions import InstallationError
    from pip._internal.operations import prepare
    cmdoptions.check_dist_restriction = lambda *args, **kwargs: None # it wants no sources for other Pythons
    archives = {}
    unpack = prepare.unpack_url
    def unpack_url(link, *args, **kwargs):
        file = unpack(link, *args, **kwargs)
        if file: archives[link.url] = file.path
        return file
    prepare.unpack_url = unpack_url
    def metadata_of(distribution, *args, **kwargs):
        source = distribution.req
        link = source.link
        question = {"name": source.name, "folder": source.unpacked_source_directory,
                    "archive": None if link.subdirectory_fragment else archives.get(link.url),
                    "info": source.download_info.to_dict()}
        print(json.dumps(question), file=questions, flush=True)
        answer = sys.stdin.readline().strip()
        if not answer: raise InstallationError("no metadata of %s" % link)
        source.metadata_directory = json.loads(answer)
        if source.name: source.warn_on_mismatching_name()
        else: source._set_requirement()
        source.assert_source_matches_version()
    SourceDistribution.prepare_distribution_metadata = metadata_of
from pip._internal.cli.main import main
sys.exit(main(request["args"]))
`;

/** A source that pip came upon and unpacked, and whose metadata it wants. */
export interface FoundSource {
  /** undefined where only the metadata say it. */
  readonly name: string | undefined;
  readonly folder: string;
  /** undefined: it is a folder, or from version control. */
  readonly archive: string | undefined;
  /** As in `Resolved`. */
  readonly url: string;
  readonly sha256: string | undefined;
}

/** @returns a folder NAME-VERSION.dist-info that holds METADATA */
export type MetadataOf = (source: FoundSource) => Promise<string>;

/**
 * Chooses the interpreter: Debian's own when it has the target's X.Y, else the target's by name, else any.
 * @param candidates programs to try, best first
 */
export async function findPip(
  context: Context,
  target: TargetPython,
  candidates: readonly string[] = ['/usr/bin/python3', `python${target.version}`, 'python3'],
): Promise<Pip> {
  const native = target.machine === machine();
  for (const interpreter of candidates) {
    if ((await versionOf(context, interpreter)) === target.version) return { interpreter, target, native };
  }
  for (const interpreter of candidates) {
    if ((await versionOf(context, interpreter)) !== undefined) return { interpreter, target, native: false };
  }
  throw new UserError('no-python', 'there is no Python 3 on this machine', {
    hint: 'apt-get install python3 python3-pip',
  });
}

/** 'X.Y'; Debian's /usr/bin/python3 is a link that says it without a process. */
async function versionOf(context: Context, interpreter: string): Promise<string | undefined> {
  if (interpreter.startsWith('/')) {
    const link = await readlink(interpreter).catch(() => '');
    const version = /^python(3\.\d+)$/.exec(basename(link))?.[1];
    if (version !== undefined) return version;
  }
  try {
    const code = 'import sys; print("%d.%d" % sys.version_info[:2])';
    return (await run(context, interpreter, ['-I', '-c', code])).stdout.trim();
  } catch (error) {
    if (error instanceof ToolError) return undefined;
    throw error;
  }
}

const archiveSchema = z.object({ hashes: z.record(z.string(), z.string()).optional(), hash: z.string().optional() });
/** Where a distribution is from (PyPA's "Direct URL data structure"). */
const originSchema = z.object({
  url: z.string(),
  archive_info: archiveSchema.optional(),
  dir_info: z.object({}).loose().optional(),
  vcs_info: z.object({ vcs: z.string(), commit_id: z.string() }).optional(),
  subdirectory: z.string().optional(),
});
const reportSchema = z.object({
  pip_version: z.string(),
  environment: z.record(z.string(), z.string()),
  install: z.array(
    z.object({
      download_info: originSchema,
      requested: z.boolean(),
      metadata: z.object({
        name: z.string(),
        version: z.string(),
        requires_dist: z.array(z.string()).optional(),
        requires_python: z.string().optional(),
      }),
    }),
  ),
});
const questionSchema = z.object({
  name: z.string().nullable(),
  folder: z.string(),
  archive: z.string().nullable(),
  info: originSchema,
});

/** One distribution that pip chose. */
export interface Resolved {
  /** As its metadata spell it. */
  readonly name: string;
  readonly version: string;
  readonly url: string;
  /** Hex digest of the archive, as far as the index says it. */
  readonly sha256: string | undefined;
  readonly requested: boolean;
  readonly requiresDist: readonly string[];
}

export interface Resolution {
  readonly pipVersion: string;
  /** Marker variables of the target. */
  readonly environment: MarkerEnvironment;
  readonly distributions: readonly Resolved[];
}

/**
 * Asks pip for the whole closure of some requirements and wheel files. Nothing is installed.
 * @param options '--requirement FILE', '--constraint FILE'
 * @param metadataOf gives the metadata of sources; undefined: pip runs their code here, or takes wheels only for another Python
 * @throws UserError `unresolvable` with pip's own explanation; `no-pip`; RemoteError-like `index-unreachable`
 */
export async function resolve(
  context: Context,
  pip: Pip,
  requirements: readonly string[],
  options: readonly string[],
  scratch: string,
  metadataOf?: MetadataOf,
): Promise<Resolution> {
  const reportFile = join(scratch, 'report.json');
  const args = ['install', '--dry-run', '--ignore-installed', '--report', reportFile, '--no-input'];
  const wheelsOnly = metadataOf === undefined ? [ONLY_WHEELS] : [];
  const choice = pip.native ? [] : [...wheelsOnly, ...targetOptions(pip.target), '--target', `${scratch}/none`];
  await runPip(context, pip, [...args, ...choice, ...options, '--', ...requirements], { metadataOf });
  const report = reportSchema.parse(JSON.parse(await readFile(reportFile, 'utf8')));
  return {
    pipVersion: report.pip_version,
    environment: pip.native ? report.environment : markerEnvironment(pip.target),
    distributions: report.install.map(({ download_info: from, requested, metadata }) => ({
      name: metadata.name,
      version: metadata.version,
      ...originOf(from),
      requested,
      requiresDist: metadata.requires_dist ?? [],
    })),
  };
}

/** The URL as pip takes it, at the commit that was seen. */
function originOf(from: z.infer<typeof originSchema>): Pick<Resolved, 'url' | 'sha256'> {
  const { url, archive_info: archive, vcs_info: control, subdirectory } = from;
  const folder = subdirectory === undefined ? '' : `#subdirectory=${subdirectory}`;
  return {
    url: control === undefined ? url : `${control.vcs}+${url}@${control.commit_id}${folder}`,
    sha256: archive?.hashes?.sha256 ?? /^sha256=(.*)/.exec(archive?.hash ?? '')?.[1],
  };
}

/** Fetches the wheels of exactly these requirements ('name==version') into a folder. */
export async function fetchWheels(context: Context, pip: Pip, pins: readonly string[], folder: string): Promise<void> {
  const choice = [ONLY_WHEELS, ...(pip.native ? [] : targetOptions(pip.target))];
  await runPip(
    context,
    pip,
    ['download', '--no-deps', '--quiet', '--no-input', '--dest', folder, ...choice, '--', ...pins],
    {},
  );
}

/** Fetches wheels of these requirements and of all that they need into a folder. No code of them runs. */
export async function fetchClosure(
  context: Context,
  pip: Pip,
  requirements: readonly string[],
  folder: string,
): Promise<void> {
  if (requirements.length === 0) return;
  const choice = [ONLY_WHEELS, ...(pip.native ? [] : targetOptions(pip.target))];
  const args = ['download', '--quiet', '--no-input', '--dest', folder, ...choice, '--', ...requirements];
  await runPip(context, pip, args, {});
}

export interface WheelBuild {
  /** A folder or 'name==version'. */
  readonly source: string;
  readonly folder: string;
  readonly sourceDateEpoch: number;
  readonly logFile: string;
  readonly timeoutMs: number;
}

/** Builds a wheel with the source's own back end, isolated as pip does it. */
export async function buildWheel(context: Context, pip: Pip, build: WheelBuild): Promise<void> {
  if (!pip.native) {
    const { version, machine: cpu } = pip.target;
    throw new UserError(
      'needs-target-python',
      `'${basename(build.source)}' is a source, and building it needs Python ${version} on ${cpu}`,
      {
        hint: 'build it in a root (--isolation root) or on a machine of that suite and architecture, or give a wheel',
      },
    );
  }
  const args = ['wheel', '--no-deps', '--no-input', '--wheel-dir', build.folder];
  const binary = build.source.includes('==') ? ['--no-binary', build.source.split('==')[0]!] : [];
  const env = { SOURCE_DATE_EPOCH: String(build.sourceDateEpoch), PYTHONHASHSEED: '0', TZ: 'UTC' };
  await runPip(context, pip, [...args, ...binary, '--', build.source], {
    env,
    logFile: build.logFile,
    timeoutMs: build.timeoutMs,
  });
}

async function runPip(
  context: Context,
  pip: Pip,
  args: readonly string[],
  {
    metadataOf,
    ...options
  }: { env?: Record<string, string>; logFile?: string; timeoutMs?: number; metadataOf?: MetadataOf | undefined },
): Promise<RunResult> {
  const environment = pip.native ? null : markerEnvironment(pip.target);
  const request = `${JSON.stringify({ args, environment, asks: metadataOf !== undefined })}\n`;
  context.log.detail(`+ ${pip.interpreter} -m pip ${args.join(' ')}`);
  const env = {
    PIP_DISABLE_PIP_VERSION_CHECK: '1',
    PIP_REQUIRE_VIRTUALENV: undefined,
    PYTHONDONTWRITEBYTECODE: '1',
    ...options.env,
  };
  const talk = metadataOf === undefined ? undefined : answering(metadataOf, request);
  try {
    const input = talk?.input ?? request;
    const result = await run(context, pip.interpreter, ['-s', '-c', PROGRAM], { ...options, ...talk, env, input });
    passWarnings(context, result.stderr);
    return result;
  } catch (error) {
    const refusal = await talk?.refusal();
    if (refusal !== undefined) throw refusal;
    if (!(error instanceof ToolError)) throw error;
    passWarnings(context, error.stderrTail);
    throw explainPip(error, `${pip.interpreter} -m pip ${args.join(' ')}`);
  }
}

/** Answers what pip asks while it runs; an empty line where there is no answer. */
function answering(metadataOf: MetadataOf, request: string) {
  const input = new PassThrough();
  input.write(request);
  let last: Promise<unknown> = Promise.resolve();
  const answer = async (line: string): Promise<unknown> => {
    try {
      const { name, folder, archive, info } = questionSchema.parse(JSON.parse(line));
      const found = { name: name ?? undefined, folder, archive: archive ?? undefined, ...originOf(info) };
      input.write(`${JSON.stringify(await metadataOf(found))}\n`);
      return undefined;
    } catch (error) {
      input.write('\n');
      return error;
    }
  };
  return {
    input,
    onLine(line: string, stream: 'stdout' | 'stderr') {
      if (stream === 'stdout' && line !== '') last = answer(line);
    },
    /** Why the last question got no answer. */
    refusal: () => last,
  };
}

function passWarnings(context: Context, stderr: string): void {
  for (const line of stderr.split('\n')) {
    if (line.startsWith('buildkit-warning: ')) context.log.warn(line.slice('buildkit-warning: '.length));
  }
}

/** Turns pip's last words into an error of ours; what is not known stays a ToolError with a command to paste. */
function explainPip(error: ToolError, command: string): Error {
  const said = error.stderrTail;
  const lines = said
    .split('\n')
    .filter((line) => !line.startsWith('buildkit-') && !/^WARNING: (Location|Retrying)/.test(line));
  if (said.includes('buildkit-no-pip')) {
    return new UserError('no-pip', 'pip is not installed', { hint: 'apt-get install python3-pip', cause: error });
  }
  if (said.includes('buildkit-no-index')) {
    return new UserError('index-unreachable', 'no Python package index can be reached', {
      hint: 'check the network, or name another index: pip config set global.index-url URL',
      cause: error,
    });
  }
  if (/No space left on device/.test(said)) {
    return new UserError('cannot-write', 'pip found no room on the disk', {
      hint: 'free some room, then run it again',
      cause: error,
    });
  }
  if (
    /ResolutionImpossible|No matching distribution|Could not find a version|conflicting dependencies|Invalid requirement/.test(
      said,
    )
  ) {
    const reasons = reasonsOf(said);
    return new UserError(
      'unresolvable',
      `pip finds no set of versions that fits:\n${reasons.map((line) => `  ${line}`).join('\n')}`,
      {
        hint: 'loosen one of the requirements named above, or add an index that has what is missing',
        cause: error,
      },
    );
  }
  return new ToolError(error.code, `pip: ${error.message}`, {
    command,
    stderrTail: lines.join('\n'),
    logFile: error.logFile,
    status: error.status,
    hint: error.hint,
    cause: error,
  });
}

/** pip's errors, and of a conflict who wants what: the lines up to its advice. */
function reasonsOf(said: string): string[] {
  const conflict = /^The conflict is caused by:\n(.*?)(?=\n\s*\n|\nTo fix this)/ms.exec(said)?.[1]?.split('\n') ?? [];
  const errors = said
    .split('\n')
    .filter((line) => line.startsWith('ERROR: ') && !line.includes('ResolutionImpossible'));
  return [...errors.map((line) => line.slice('ERROR: '.length)), ...conflict]
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

const ONLY_WHEELS = '--only-binary=:all:';

/** What pip must be told to choose wheels for another Python or machine (manylinux tags as in PEP 600). */
function targetOptions(target: TargetPython): string[] {
  const digits = target.version.replace('.', '');
  const platforms = ['2_36', '2_35', '2_34', '2_31', '2_28', '2_27', '2_24', '2_17', '2_12', '2_5'].map(
    (glibc) => `manylinux_${glibc}_${target.machine}`,
  );
  const legacy = ['manylinux2014', 'manylinux2010', 'manylinux1', 'linux'].map((name) => `${name}_${target.machine}`);
  return [
    '--implementation=cp',
    `--python-version=${target.version}`,
    ...[`cp${digits}`, 'abi3', 'none'].map((abi) => `--abi=${abi}`),
    ...[...platforms, ...legacy, 'any'].map((platform) => `--platform=${platform}`),
  ];
}

/** Marker variables of a target that is not this machine's Python. */
export function markerEnvironment(target: TargetPython): MarkerEnvironment {
  return {
    implementation_name: 'cpython',
    implementation_version: `${target.version}.0`,
    os_name: 'posix',
    platform_machine: target.machine,
    platform_release: '',
    platform_system: 'Linux',
    platform_version: '',
    platform_python_implementation: 'CPython',
    python_full_version: `${target.version}.0`,
    python_version: target.version,
    sys_platform: 'linux',
  };
}
