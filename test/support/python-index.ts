/**
 * A package index for tests, without naming one: the extra index that this machine's pip is configured for, else the main one
 * where it can be reached, else wheels built from Debian's own sources.
 */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../src/core/run.ts';
import { isDebian, readIndexTargets } from '../../src/deb/apt-targets.ts';
import { ARCHIVE_KEYRING } from '../../src/deb/suites.ts';

export interface PythonIndex extends AsyncDisposable {
  /** To be merged into the environment. */
  readonly env: Readonly<Record<string, string>>;
}

/** Debian source packages of what the template and Flask need. */
const DEBIAN_SOURCES = [
  'flask',
  'python-werkzeug',
  'jinja2',
  'markupsafe',
  'python-click',
  'python-itsdangerous',
  'blinker',
  'gunicorn',
  'flit',
];

export async function pythonIndex(): Promise<PythonIndex> {
  const { stdout } = await run({}, '/usr/bin/python3', ['-m', 'pip', 'config', 'list']);
  const setting = (name: string) => new RegExp(`^(?:global|:env:)\\.${name}='(.*)'$`, 'm').exec(stdout)?.[1] ?? '';
  const [first, ...others] = setting('extra-index-url').split(/\s+/).filter(Boolean);
  const nothingToDispose = { [Symbol.asyncDispose]: async () => {} };
  if (first !== undefined) {
    return { env: { PIP_INDEX_URL: first, PIP_EXTRA_INDEX_URL: others.join(' ') }, ...nothingToDispose };
  }
  if (await reachable(setting('index-url') || (await pipsOwnIndex()))) return { env: {}, ...nothingToDispose };
  return fromDebian();
}

/** The index that pip asks when nothing is configured, in pip's own words. */
export async function pipsOwnIndex(): Promise<string> {
  const program = 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)';
  return (await run({}, '/usr/bin/python3', ['-c', program])).stdout.trim();
}

function reachable(url: string): Promise<boolean> {
  const { hostname, port, protocol } = new URL(url);
  return new Promise((answer) => {
    const socket = connect({ host: hostname, port: Number(port) || (protocol === 'http:' ? 80 : 443), timeout: 3000 });
    const done = (ok: boolean) => {
      socket.destroy();
      answer(ok);
    };
    socket
      .once('connect', () => done(true))
      .once('error', () => done(false))
      .once('timeout', () => done(false));
  });
}

/** Options that make apt read the sources of the host's release alone, from lists of their own. */
async function sourceLists(folder: string): Promise<string[]> {
  const { VERSION_CODENAME: codename } = Object.fromEntries(
    (await readFile('/etc/os-release', 'utf8')).split('\n').map((line) => line.split('=') as [string, string]),
  );
  const targets = (await readIndexTargets({})).filter((one) => isDebian(one) && one.codename === codename);
  const lines = targets.map(
    (one) => `deb-src [signed-by=${ARCHIVE_KEYRING}] ${one.uri} ${codename} ${one.component}\n`,
  );
  await mkdir(join(folder, 'lists/partial'), { recursive: true });
  await writeFile(join(folder, 'sources.list'), [...new Set(lines)].join(''));
  const options = [
    `Dir::Etc::SourceList=${join(folder, 'sources.list')}`,
    'Dir::Etc::SourceParts=-',
    `Dir::State::Lists=${join(folder, 'lists')}`,
    'APT::Sandbox::User=root',
  ].flatMap((option) => ['-o', option]);
  await run({}, 'apt-get', [...options, 'update', '--quiet'], { timeoutMs: 120_000 });
  return options;
}

async function fromDebian(): Promise<PythonIndex> {
  const folder = await mkdtemp(join(tmpdir(), 'buildkit-index-'));
  const wheels = join(folder, 'wheels');
  await mkdir(wheels);
  const options = await sourceLists(folder);
  for (const source of DEBIAN_SOURCES) {
    const work = join(folder, source);
    await mkdir(work);
    await run({}, 'apt-get', [...options, 'source', '--quiet', source], { cwd: work, timeoutMs: 120_000 });
    const tree = (await readdir(work, { withFileTypes: true })).find((entry) => entry.isDirectory())!.name;
    const path = source === 'flit' ? join(work, tree, 'flit_core') : join(work, tree);
    const args = ['-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--no-index', '--wheel-dir', wheels, path];
    await run({}, '/usr/bin/python3', args, { timeoutMs: 120_000 });
  }
  return {
    env: { PIP_NO_INDEX: '1', PIP_FIND_LINKS: wheels },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
