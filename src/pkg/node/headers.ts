/**
 * The headers of the target's Node.js, which native add-ons are compiled against: others make an add-on that does not load.
 *
 * Secret: where they are: in a folder that npm's `nodedir` names, in /usr of a machine like the target, else in the suite's own
 * libnode-dev, fetched and checked by apt in folders of its own (apt.conf(5), Dir), unpacked into the cache.
 */
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Context } from '../../core/context.ts';
import { ToolError, UserError } from '../../core/errors.ts';
import { exists } from '../../core/files.ts';
import { run } from '../../core/run.ts';
import { debianMirror, readIndexTargets } from '../../deb/apt-targets.ts';
import { extractDeb } from '../../deb/archive.ts';
import { ARCHIVE_KEYRING, type SuiteFacts } from '../../deb/suites.ts';
import { workFolder } from '../cache.ts';

const APT_LIMIT_MS = 5 * 60 * 1000;

/**
 * A folder with include/node of the suite's major version of Node.js, as node-gyp's `nodedir` wants it.
 * @throws UserError `node-headers`
 */
export async function nodeHeaders(
  context: Context,
  suite: SuiteFacts,
  architecture: string,
  nodeDir: string | undefined,
): Promise<string> {
  for (const folder of [nodeDir, '/usr'].filter((one) => one !== undefined))
    if (await fits(folder, suite)) return folder;
  const kept = join(context.cacheDir, 'pkg/node-headers', `${suite.codename}-${architecture}`);
  const folder = join(kept, 'usr');
  if (await fits(folder, suite)) return folder;
  try {
    await context.log.step(`Fetch the headers of Node.js ${suite.node}`, () =>
      fetchHeaders(context, suite, architecture, kept),
    );
  } catch (error) {
    if (error instanceof ToolError) throw missing(suite, error);
    throw error;
  }
  if (await fits(folder, suite)) return folder;
  throw missing(suite);
}

async function fits(folder: string, suite: SuiteFacts): Promise<boolean> {
  const text = await readFile(join(folder, 'include/node/node_version.h'), 'utf8').catch(() => '');
  return /#define NODE_MAJOR_VERSION (\d+)/.exec(text)?.[1] === suite.node;
}

function missing(suite: SuiteFacts, cause?: ToolError): UserError {
  return new UserError(
    'node-headers',
    `the headers of Node.js ${suite.node}, which ${suite.codename} has, are not here`,
    {
      hint: `unpack ${suite.codename}'s libnode-dev (dpkg -x) and name its folder in .npmrc: nodedir=FOLDER/usr`,
      cause,
    },
  );
}

async function fetchHeaders(context: Context, suite: SuiteFacts, architecture: string, kept: string): Promise<void> {
  await using scratch = await workFolder(context);
  const site = debianMirror(await readIndexTargets(context));
  if (site === undefined || !(await exists(ARCHIVE_KEYRING))) throw missing(suite);
  for (const folder of ['lists/partial', 'archives/partial', 'root'])
    await mkdir(join(scratch.path, folder), { recursive: true });
  await writeFile(join(scratch.path, 'status'), '');
  await writeFile(
    join(scratch.path, 'sources.list'),
    `deb [signed-by=${ARCHIVE_KEYRING}] ${site} ${suite.codename} main\n`,
  );
  const options = aptOptions(scratch.path, architecture);
  await run(context, 'apt-get', [...options, 'update'], { timeoutMs: APT_LIMIT_MS });
  await run(context, 'apt-get', [...options, 'download', 'libnode-dev'], {
    cwd: scratch.path,
    timeoutMs: APT_LIMIT_MS,
  });
  const deb = (await readdir(scratch.path)).find((name) => name.endsWith('.deb'));
  if (deb === undefined) throw missing(suite);
  await extractDeb(context, join(scratch.path, deb), join(scratch.path, 'root'));
  await mkdir(dirname(kept), { recursive: true });
  if (!(await exists(kept))) await rename(join(scratch.path, 'root'), kept);
}

/** apt with nothing of this machine's: its own lists, no installed packages, one source. */
function aptOptions(folder: string, architecture: string): string[] {
  const settings = {
    'Dir::Etc::SourceList': `${folder}/sources.list`,
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::State::Lists': `${folder}/lists`,
    'Dir::State::status': `${folder}/status`,
    'Dir::Cache': folder,
    'APT::Architecture': architecture,
    'APT::Architectures': architecture,
    'APT::Sandbox::User': 'root', // its own user could not enter this folder
    'Acquire::Languages': 'none',
    'APT::Update::Error-Mode': 'any',
  };
  return ['-q', ...Object.entries(settings).flatMap(([key, value]) => ['-o', `${key}=${value}`])];
}
