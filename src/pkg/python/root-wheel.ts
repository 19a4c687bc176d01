/**
 * A Python source made a wheel in the target's own build root, with the source's own back end.
 *
 * Secret: what a source may do where. Its code runs in a clone without network only; before, the back end's requirements
 * (PEP 518, PEP 517 get_requires_for_build_wheel) are fetched here as wheels, of which no code runs.
 */
import { copyFile, cp, lstat, mkdir, readdir, readFile, rename } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { parse as parseToml } from 'smol-toml';
import type { Context } from '../../core/context.ts';
import { ToolError, UserError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { controlOf, openClone } from '../root/clone.ts';
import type { BuildRoot } from '../root/root.ts';
import { fetchClosure, type Pip } from './pip.ts';
import { isRequirement } from './requirement.ts';

export interface RootWheel {
  readonly root: BuildRoot;
  /** A project's folder, or an archive of one. */
  readonly source: string;
  /** Where .git is, for back ends that ask it for the version. */
  readonly gitDir?: string | undefined;
  /** Where the wheel goes. */
  readonly folder: string;
  readonly sourceDateEpoch: number;
  readonly logFile: string;
  readonly timeoutMs: number;
  readonly network: boolean;
  readonly proxy?: string | undefined;
}

const PACKAGES = ['python3', 'python3-dev', 'python3-pip'];
/** How often a back end may say that it needs still more. */
const ROUNDS = 4;
/** What setuptools does where nothing is said (PEP 517). */
const DEFAULT_REQUIRES = ['setuptools>=40.8.0', 'wheel'];

const UNPACK = `mkdir source unpacked
case $1 in
*.zip) python3 -m zipfile -e "$1" unpacked ;;
*) tar -x --no-same-owner --no-same-permissions -f "$1" -C unpacked ;;
esac
[ "$(ls unpacked | wc -l)" = 1 ] || { echo "the archive holds more than one folder"; exit 1; }
rmdir source
mv unpacked/* source
`;

const BUILD = `rm -rf out
pip() { python3 -m pip --disable-pip-version-check --no-cache-dir "$@"; }
pip wheel --no-deps --no-input $INDEX --find-links /build/wheels --wheel-dir /build/out ./source
`;

/** @throws ToolError when the back end fails or takes too long; UserError `unresolvable` for its requirements */
export async function buildWheelInRoot(context: Context, pip: Pip, build: RootWheel): Promise<void> {
  const { root, source, logFile, timeoutMs, network, proxy } = build;
  const isFolder = (await lstat(source)).isDirectory();
  const gitDir = isFolder && (await asksGit(source)) ? build.gitDir : undefined;
  const packages = gitDir === undefined ? PACKAGES : [...PACKAGES, 'git'];
  await using clone = await openClone(context, root, { control: controlOf(packages), proxy }, logFile);
  const place = join(clone.buildDir, isFolder ? 'source' : basename(source));
  if (isFolder) {
    const plain = (from: string) => basename(from) !== '.git';
    await cp(source, place, { recursive: true, verbatimSymlinks: true, preserveTimestamps: true, filter: plain });
  } else await copyFile(source, place);
  if (gitDir !== undefined) await cp(gitDir, join(place, '.git'), { recursive: true });
  await mkdir(join(clone.buildDir, 'wheels'));
  await clone.run({ user: 'root', script: 'chown -R -h builder:builder /build', logFile });
  if (!isFolder) await clone.run({ script: UNPACK, args: [basename(source)], logFile, timeoutMs });
  const wanted = new Set(await declaredRequires(join(clone.buildDir, 'source')));
  const wheels = join(clone.buildDir, 'wheels');
  for (let round = 1; ; round += 1) {
    await fetchRequires(context, pip, [...wanted], wheels);
    const from = await sizeOf(logFile);
    try {
      await clone.run({
        script: BUILD,
        env: {
          SOURCE_DATE_EPOCH: String(build.sourceDateEpoch),
          PYTHONHASHSEED: '0',
          INDEX: network ? '' : '--no-index',
        },
        network,
        logFile,
        timeoutMs,
      });
      break;
    } catch (error) {
      const missing = error instanceof ToolError ? missingIn((await readFile(logFile, 'utf8')).slice(from)) : undefined;
      if (missing === undefined || wanted.has(missing) || round === ROUNDS) throw error;
      wanted.add(missing);
    }
  }
  await takeWheel(join(clone.buildDir, 'out'), build.folder);
}

async function fetchRequires(context: Context, pip: Pip, wanted: readonly string[], folder: string): Promise<void> {
  try {
    await fetchClosure(context, pip, wanted, folder);
  } catch (error) {
    if (!(error instanceof UserError) || error.code !== 'unresolvable') throw error;
    const what = `its build needs ${wanted.map((one) => `'${one}'`).join(', ')}, of which there are not all wheels`;
    throw new UserError('unresolvable', `${what}: ${error.message}`, { hint: error.hint, cause: error });
  }
}

/** What the back end of this build wants beside what it declared. */
function missingIn(log: string): string | undefined {
  const found = /No matching distribution found for (\S[^\n]*?)\s*$/m.exec(log)?.[1];
  return found !== undefined && isRequirement(found) ? found : undefined;
}

/** Only these back ends want version control for the version; others need not wait for git. */
async function asksGit(folder: string): Promise<boolean> {
  return (await declaredRequires(folder)).some((one) => /scm|vcs|versioning|pbr|dunamai|git/i.test(one));
}

/** `build-system.requires` of pyproject.toml. The source is not trusted: it may hold a link in its place. */
async function declaredRequires(folder: string): Promise<readonly string[]> {
  const file = join(folder, 'pyproject.toml');
  const facts = await lstat(file).catch(() => undefined);
  if (!facts?.isFile() || !(await lstat(folder)).isDirectory()) return DEFAULT_REQUIRES;
  let table: unknown;
  try {
    table = parseToml(await readFile(file, 'utf8'));
  } catch {
    return DEFAULT_REQUIRES; // pip says what is wrong
  }
  const requires = (table as { 'build-system'?: { requires?: unknown } })['build-system']?.requires;
  if (!Array.isArray(requires)) return DEFAULT_REQUIRES;
  return requires.filter((one): one is string => typeof one === 'string' && isRequirement(one));
}

async function takeWheel(out: string, folder: string): Promise<void> {
  const names = (await exists(out)) ? (await readdir(out)).filter((name) => name.endsWith('.whl')) : [];
  const [name] = names;
  if (name === undefined || !(await lstat(join(out, name))).isFile()) {
    throw new UserError('source-does-not-build', 'the back end made no wheel');
  }
  await copyFile(join(out, name), join(folder, `.${name}`));
  await rename(join(folder, `.${name}`), join(folder, name));
}

async function sizeOf(path: string): Promise<number> {
  const facts = await lstat(path).catch(() => undefined);
  return facts?.size ?? 0;
}
