/**
 * `node bench/repo.ts [PACKAGES]`: makes that many small packages (default 1,000), then adds and publishes all of them, and
 * one more, against apt-ftparchive, and against aptly and reprepro where they are installed.
 */
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { RunContext } from '../src/core/context.ts';
import { scratchFolder } from '../src/core/files.ts';
import { hasProgram, run } from '../src/core/run.ts';
import { writeDeb } from '../src/deb/archive.ts';
import { paragraph } from '../src/deb/control.ts';
import { type Measurement, measure, report } from './support.ts';

const BUILDKIT = resolve(import.meta.dirname, '../bin/buildkit');
const context: RunContext = {};

/** Packages like those of an application archive: some dependencies, a few lines of description, a few small files. */
async function makeCorpus(folder: string, from: number, to: number): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (let index = from; index < to; index += 1) {
    const name = `pkg-${String(index).padStart(5, '0')}`;
    await writeDeb(
      context,
      join(folder, `${name}_1.${index % 7}-1_all.deb`),
      {
        control: paragraph([
          ['Package', name],
          ['Version', `1.${index % 7}-1`],
          ['Architecture', 'all'],
          ['Maintainer', 'Bench <bench@example.org>'],
          ['Depends', `pkg-${String((index * 7) % 1000).padStart(5, '0')} (>= 1.0), libc6 (>= 2.36), python3:any`],
          ['Section', 'misc'],
          ['Priority', 'optional'],
          ['Homepage', `https://example.org/${name}`],
          [
            'Description',
            `benchmark package ${index}\n It says a few words about what it is for,\n as packages do: ${name.repeat(3)}.`,
          ],
        ]),
        entries: [1, 2, 3].map((n) => ({
          path: `/usr/share/${name}/file${n}`,
          type: 'file' as const,
          mode: 0o644,
          source: { data: `${name} ${n}\n`.repeat(20) },
        })),
      },
      { compression: 'xz', level: 0, sourceDateEpoch: 1_700_000_000 },
    );
  }
}

interface Bench {
  readonly scratch: string;
  readonly corpus: string;
  readonly more: string;
  readonly gnupg: string;
}

type Measured = { readonly all: Measurement; readonly one: Measurement };

async function benchBuildkit(bench: Bench): Promise<Measured> {
  const state = join(bench.scratch, 'state');
  const repo = join(bench.scratch, 'buildkit');
  const buildkit = (...args: string[]) => run(context, BUILDKIT, ['--state', state, ...args]);
  await buildkit('key', 'generate', '--name', 'Bench', '--email', 'bench@example.org');
  await buildkit(
    'repo',
    'init',
    repo,
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
  );
  const script = `"$0" --state "$1" repo add --repo "$2" bench "$3" --publish`;
  const once = (name: string, from: string) =>
    measure(name, ['sh', '-c', script, BUILDKIT, state, repo, from], { scratch: bench.scratch });
  return {
    all: await once('buildkit repo add --publish', bench.corpus),
    one: await once('buildkit repo add --publish', bench.more),
  };
}

async function benchFtparchive(bench: Bench): Promise<Measured> {
  const tree = join(bench.scratch, 'ftparchive');
  await mkdir(join(tree, 'dists/bench/main/binary-amd64'), { recursive: true });
  await cp(bench.corpus, join(tree, 'pool'), { recursive: true });
  const script = [
    'apt-ftparchive --db cache.db packages pool > dists/bench/main/binary-amd64/Packages',
    'gzip -9kf dists/bench/main/binary-amd64/Packages',
    'xz -6kf dists/bench/main/binary-amd64/Packages',
    'apt-ftparchive -o APT::FTPArchive::Release::Suite=bench release dists/bench > Release',
    'gpg --batch --yes --clearsign -o dists/bench/InRelease Release',
  ].join(' && ');
  const once = () => measure('apt-ftparchive, gzip, xz, gpg', ['sh', '-c', script], gpgOptions(bench, tree));
  const all = await once();
  await cp(bench.more, join(tree, 'pool'), { recursive: true });
  return { all, one: await once() };
}

async function benchAptly(bench: Bench): Promise<Measured> {
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
  return { all, one };
}

async function benchReprepro(bench: Bench): Promise<Measured> {
  const root = join(bench.scratch, 'reprepro');
  await mkdir(join(root, 'conf'), { recursive: true });
  const distribution = [
    'Codename: bench',
    'Components: main',
    'Architectures: amd64',
    'SignWith: yes',
    'DebIndices: Packages Release . .gz',
    '',
  ];
  await writeFile(join(root, 'conf/distributions'), distribution.join('\n'));
  const options = gpgOptions(bench, root);
  const script = 'find "$0" -name "*.deb" -print0 | xargs -0 -n 10000 reprepro --silent -b . includedeb bench';
  const all = await measure('reprepro (gz only)', ['sh', '-c', script, bench.corpus], options);
  const one = await measure('reprepro (gz only)', ['sh', '-c', script, bench.more], options);
  return { all, one };
}

function gpgOptions(bench: Bench, cwd: string) {
  return { scratch: bench.scratch, cwd, env: { GNUPGHOME: bench.gnupg } };
}

const count = Number(process.argv[2] ?? 1000);
await using scratch = await scratchFolder(tmpdir(), 'buildkit-bench-');
const bench: Bench = {
  scratch: scratch.path,
  corpus: join(scratch.path, 'corpus'),
  more: join(scratch.path, 'more'),
  gnupg: join(scratch.path, 'gnupg'),
};
await makeCorpus(bench.corpus, 0, count);
await makeCorpus(bench.more, count, count + 1);
await mkdir(bench.gnupg, { mode: 0o700 });
const keyArgs = [
  '--batch',
  '--passphrase',
  '',
  '--quick-gen-key',
  'Bench <bench@example.org>',
  'ed25519',
  'sign',
  'never',
];
await run(context, 'gpg', keyArgs, { env: { GNUPGHOME: bench.gnupg } });

const results = [await benchFtparchive(bench), await benchBuildkit(bench)];
if (await hasProgram(context, 'aptly')) results.push(await benchAptly(bench));
if (await hasProgram(context, 'reprepro')) results.push(await benchReprepro(bench));
const title = (what: string) => `${what}: published and signed (ratios to apt-ftparchive)`;
process.stdout.write(
  `${report(
    title(`${count} packages`),
    results.map((result) => result.all),
  )}\n`,
);
process.stdout.write(
  report(
    title(`one more package into ${count}`),
    results.map((result) => result.one),
  ),
);
await run(context, 'gpgconf', ['--kill', 'all'], { env: { GNUPGHOME: bench.gnupg } });
