/**
 * `node bench/repo.ts [--packages 1000,5000,60000 | --real 300] [--tools buildkit,apt-ftparchive,aptly,reprepro] [--reader ROUNDS]`
 *
 * Makes that many small packages (default 1,000), or fetches so many of Debian's own, adds and publishes all of them, then one more, with each tool that is
 * installed: wall clock, CPU seconds, peak memory. With --reader, as many `apt-get update` from empty lists while publishes
 * follow each other as fast as they can, and says how many failed.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { RunContext } from '../src/core/context.ts';
import { scratchFolder } from '../src/core/files.ts';
import { hasProgram, run, start } from '../src/core/run.ts';
import { type Measurement, measure, report } from './support.ts';
import { fetchReal, makeCorpus } from './support-corpus.ts';

const BUILDKIT = resolve(import.meta.dirname, '../bin/buildkit');
const context: RunContext = {};

interface Bench {
  readonly scratch: string;
  readonly corpus: string;
  readonly more: string;
  readonly gnupg: string;
}

interface Measured {
  readonly all: Measurement;
  readonly one: Measurement;
}

type Tool = (bench: Bench) => Promise<Measured[]>;

const initArgs = (folder: string) => [
  'repo',
  'init',
  folder,
  '--suite',
  'bench',
  '--component',
  'main',
  '--arch',
  'amd64',
  '--origin',
  'B',
  '--label',
  'B',
];

/** Without and with its pages for people; the others make none. */
async function benchBuildkit(bench: Bench): Promise<Measured[]> {
  const state = join(bench.scratch, 'state');
  const buildkit = (...args: string[]) => run(context, BUILDKIT, ['--state', state, ...args], { timeoutMs: HOUR_MS });
  await buildkit('key', 'generate', '--name', 'Bench', '--email', 'bench@example.org');
  await buildkit('--version'); // compiled code is there
  const results: Measured[] = [];
  for (const [name, line] of [
    [
      'buildkit',
      '"$0" --state "$1" repo add --repo "$2" bench "$3" && "$0" --state "$1" repo publish --no-pages --repo "$2"',
    ],
    ['buildkit, pages too, one command', '"$0" --state "$1" repo add --repo "$2" bench "$3" --publish'],
  ] as const) {
    const repo = join(bench.scratch, 'buildkit');
    await buildkit(...initArgs(repo));
    await buildkit('repo', 'suite', '--repo', repo, 'bench', '--contents');
    const once = (from: string) =>
      measure(name, ['sh', '-c', line, BUILDKIT, state, repo, from], { scratch: bench.scratch });
    results.push({ all: await once(bench.corpus), one: await once(bench.more) });
    await rm(repo, { recursive: true });
  }
  return results;
}

async function benchFtparchive(bench: Bench): Promise<Measured[]> {
  const tree = join(bench.scratch, 'ftparchive');
  await mkdir(join(tree, 'dists/bench/main/binary-amd64'), { recursive: true });
  const script = [
    'find "$0" -name "*.deb" -exec cp -t pool {} +',
    'apt-ftparchive --db cache.db packages pool > dists/bench/main/binary-amd64/Packages',
    'apt-ftparchive --db cache.db contents pool > dists/bench/main/Contents-amd64',
    'gzip -9f dists/bench/main/Contents-amd64',
    'gzip -9kf dists/bench/main/binary-amd64/Packages',
    'xz -6kf dists/bench/main/binary-amd64/Packages',
    'apt-ftparchive -o APT::FTPArchive::Release::Suite=bench release dists/bench > Release',
    'gpg --batch --yes --clearsign -o dists/bench/InRelease Release',
  ].join(' && ');
  await mkdir(join(tree, 'pool'));
  const once = (from: string) => measure('apt-ftparchive', ['sh', '-c', script, from], gpgOptions(bench, tree));
  return [{ all: await once(bench.corpus), one: await once(bench.more) }];
}

async function benchAptly(bench: Bench): Promise<Measured[]> {
  const root = join(bench.scratch, 'aptly');
  const config = join(bench.scratch, 'aptly.conf');
  await writeFile(config, JSON.stringify({ rootDir: root, architectures: ['amd64'], gpgProvider: 'gpg' }));
  const options = gpgOptions(bench, bench.scratch);
  const aptly = `aptly -config=${config}`;
  await run(context, 'sh', ['-c', `${aptly} repo create -distribution=bench bench`], options);
  const script = (publish: string) =>
    `${aptly} repo add bench "$0" >/dev/null && ${aptly} publish ${publish} >/dev/null`;
  const all = await measure('aptly', ['sh', '-c', script('repo -architectures=amd64 bench'), bench.corpus], options);
  const one = await measure('aptly', ['sh', '-c', script('update bench'), bench.more], options);
  return [{ all, one }];
}

async function benchReprepro(bench: Bench): Promise<Measured[]> {
  const root = join(bench.scratch, 'reprepro');
  await mkdir(join(root, 'conf'), { recursive: true });
  const distribution = [
    'Codename: bench',
    'Components: main',
    'Architectures: amd64',
    'SignWith: yes',
    'DebIndices: Packages Release . .gz',
    'Contents: .gz',
    '',
  ];
  await writeFile(join(root, 'conf/distributions'), distribution.join('\n'));
  const options = gpgOptions(bench, root);
  const script = 'find "$0" -name "*.deb" -print0 | xargs -0 -n 10000 reprepro --silent -b . includedeb bench';
  const all = await measure('reprepro (gz only)', ['sh', '-c', script, bench.corpus], options);
  const one = await measure('reprepro (gz only)', ['sh', '-c', script, bench.more], options);
  return [{ all, one }];
}

function gpgOptions(bench: Bench, cwd: string) {
  return { scratch: bench.scratch, cwd, env: { GNUPGHOME: bench.gnupg } };
}

const TOOLS: Readonly<Record<string, Tool>> = {
  'apt-ftparchive': benchFtparchive,
  buildkit: benchBuildkit,
  aptly: benchAptly,
  reprepro: benchReprepro,
};

const HOUR_MS = 3_600_000;

async function compare(
  scratch: string,
  gnupg: string,
  count: number,
  tools: readonly string[],
  isReal = false,
): Promise<void> {
  const folder = await mkdtemp(join(scratch, `${count}-`));
  const bench: Bench = { scratch: folder, corpus: join(folder, 'corpus'), more: join(folder, 'more'), gnupg };
  if (isReal) await fetchReal(bench.corpus, bench.more, count);
  else {
    await makeCorpus(bench.corpus, 0, count);
    await makeCorpus(bench.more, count, count + 1);
  }
  const results: Measured[] = [];
  for (const [name, tool] of Object.entries(TOOLS)) {
    if (tools.includes(name) && (name === 'buildkit' || (await hasProgram(context, name)))) {
      results.push(...(await tool(bench)));
    }
  }
  const show = (what: string, rows: Measurement[]) =>
    process.stdout.write(
      `${report(`${what}: published and signed, with Contents (ratios to ${rows[0]!.name})`, rows)}\n`,
    );
  show(
    `${count} ${isReal ? 'real ' : ''}packages`,
    results.map((result) => result.all),
  );
  show(
    `one more package into ${count}`,
    results.map((result) => result.one),
  );
  await rm(folder, { recursive: true });
}

/** apt from empty lists, again and again, while another process publishes. */
async function readWhilePublishing(scratch: string, rounds: number): Promise<void> {
  const state = join(scratch, 'reader-state');
  const repo = join(scratch, 'reader-repo');
  const buildkit = (...args: string[]) => run(context, BUILDKIT, ['--state', state, ...args]);
  await buildkit('key', 'generate', '--name', 'Bench', '--email', 'bench@example.org');
  await buildkit(...initArgs(repo));
  await makeCorpus(join(scratch, 'reader-debs'), 0, 50);
  await buildkit('repo', 'add', '--repo', repo, 'bench', join(scratch, 'reader-debs'), '--publish');
  const line = ['--state', state, 'repo', 'serve', '--repo', repo, '--listen', '127.0.0.1:0'];
  await using server = start(context, BUILDKIT, line);
  let url = '';
  for await (const chunk of server.stdout) {
    url += String(chunk);
    if (url.includes('\n')) break;
  }
  const sources = (await buildkit('repo', 'sources', '--repo', repo, '--url', url.trim())).stdout;
  // something comes and goes with each, so that the indexes change too
  const script = `n=0; while :; do n=$((n + 1)); "$0" --state "$1" repo remove --repo "$2" bench "pkg-000$((n % 10 + 10))" --publish || exit
    "$0" --state "$1" repo undo --repo "$2" --publish || exit; done`;
  await using publisher = start(context, 'sh', ['-c', script, BUILDKIT, state, repo]);
  publisher.stdout.resume();
  let failed = 0;
  for (let round = 0; round < rounds; round += 1) {
    await using apt = await scratchFolder(scratch, 'apt-');
    if (!(await updates(apt.path, sources))) failed += 1;
  }
  publisher.kill('SIGKILL');
  const generations = JSON.parse((await buildkit('--json', 'repo', 'generations', '--repo', repo)).stdout) as unknown[];
  process.stdout.write(
    `${rounds} updates from empty lists while ${generations.length} generations were published: ${failed} failed\n`,
  );
}

/** True when `apt-get update` from empty lists has nothing to say. */
async function updates(root: string, sources: string): Promise<boolean> {
  for (const folder of ['etc/apt/sources.list.d', 'lists/partial', 'cache/archives/partial']) {
    await mkdir(join(root, folder), { recursive: true });
  }
  await writeFile(join(root, 'etc/apt/sources.list.d/bench.sources'), sources);
  await writeFile(join(root, 'status'), '');
  const options = [
    `Dir::Etc=${root}/etc/apt`,
    `Dir::State::lists=${root}/lists`,
    `Dir::State::status=${root}/status`,
    `Dir::Cache=${root}/cache`,
    'APT::Sandbox::User=root',
    'APT::Update::Error-Mode=any',
    'Acquire::Retries=0',
    'Acquire::http::Proxy=DIRECT',
  ];
  const args = ['update', ...options.flatMap((option) => ['-o', option])];
  const result = await run(context, 'apt-get', args, { okExitCodes: [100] });
  const isClean = result.exitCode === 0 && !/^(?:W|E|Err|Ign):/m.test(`${result.stdout}\n${result.stderr}`);
  if (!isClean) process.stdout.write(`${result.stdout}${result.stderr}\n`);
  return isClean;
}

const { values } = parseArgs({
  options: {
    packages: { type: 'string', default: '1000' },
    tools: { type: 'string', default: Object.keys(TOOLS).join(',') },
    reader: { type: 'string' },
    real: { type: 'string' },
  },
});
await using scratch = await scratchFolder(tmpdir(), 'buildkit-bench-');
if (values.reader !== undefined) {
  await readWhilePublishing(scratch.path, Number(values.reader));
} else {
  const gnupg = join(scratch.path, 'gnupg');
  await mkdir(gnupg, { mode: 0o700 });
  const user = ['--passphrase', '', '--quick-gen-key', 'Bench <bench@example.org>', 'ed25519', 'sign', 'never'];
  await run(context, 'gpg', ['--batch', ...user], { env: { GNUPGHOME: gnupg } });
  const tools = values.tools.split(',');
  if (values.real !== undefined) await compare(scratch.path, gnupg, Number(values.real), tools, true);
  else for (const count of values.packages.split(',').map(Number)) await compare(scratch.path, gnupg, count, tools);
  await run(context, 'gpgconf', ['--kill', 'all'], { env: { GNUPGHOME: gnupg } });
}
