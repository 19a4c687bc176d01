/** Real npm packages in both forms and a service of the template: built, installed by dpkg in a clean bookworm, run, and gone again. */
import { mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { listDeb } from '../../src/deb/archive.ts';
import { getField } from '../../src/deb/control.ts';
import type { BinaryPackage } from '../../src/deb/package.ts';
import { indexCandidates, parseRelations, unsatisfied } from '../../src/deb/relation.ts';
import { debianUpstreamOfSemver } from '../../src/deb/semver.ts';
import { type BuildRequest, type BuildResult, buildPackages, planBuild } from '../../src/pkg/build.ts';
import { renderTemplate } from '../../src/template/render.ts';
import { createDebianRoot, type DebianRoot, freePort } from '../support/debian-root.ts';
import { createWorld, type World } from '../support/world.ts';

let world: World;
let root: DebianRoot;
const made = new Map<string, BuildResult>();

const request = (inputs: readonly string[], out: string, more: Partial<BuildRequest> = {}): BuildRequest => ({
  inputs,
  cwd: world.path,
  suite: 'bookworm',
  architecture: 'amd64',
  outDir: join(world.path, out),
  maintainer: 'Ada Lovelace <ada@debian.org>',
  compression: 'gzip',
  ...more,
});

/** The service, with the lock that `npm install` writes. */
async function newService(): Promise<void> {
  const target = join(world.path, 'hello-node');
  const values = { name: 'hello-node', author: 'Ada', email: 'ada@debian.org' };
  await renderTemplate(world.context, { template: 'node-service', target, values });
  await run({}, 'npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: target, timeoutMs: 150_000 });
}

async function buildAll(): Promise<void> {
  await newService();
  const packages = { policy: { npm: 'packages' } } as const;
  const requests: readonly BuildRequest[] = [
    request(['npm:semver@7.8.6'], 'semver'),
    request(['npm:cowsay@1.6.0'], 'cowsay'),
    request(['npm:cowsay@1.6.0'], 'cowsay-packages', packages),
    request(['npm:serve@14.2.7'], 'serve'),
    request(['npm:serve@14.2.7'], 'serve-packages', packages),
    request(['npm:cowsay@1.6.0'], 'cowsay-auto', { policy: { deps: 'auto', npm: 'packages' } }),
    request(['npm:esbuild@0.28.2'], 'esbuild'),
    request(['./hello-node'], 'service'),
  ];
  for (const one of requests) made.set(basename(one.outDir), await buildPackages(world.context, one));
}

beforeAll(async () => {
  world = await createWorld();
  [root] = await Promise.all([createDebianRoot('bookworm', ['nodejs', 'adduser']), buildAll()]);
}, 400_000);
afterAll(async () => {
  await root?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
});

const built = (name: string): readonly BinaryPackage[] => made.get(name)!.packages;

/** Installs, runs `check` in the root, removes and purges; nothing may stay. */
async function installAndCheck(name: string, check: () => Promise<void>): Promise<void> {
  const before = await root.snapshot();
  const files = await root.bring(built(name).map((one) => one.path));
  await root.sh(`dpkg -i ${files.join(' ')}`);
  await check();
  expect((await root.sh('dpkg -V')).stdout).toBe('');
  await root.sh(
    `dpkg -P ${built(name)
      .map((one) => one.name)
      .join(' ')}`,
  );
  expect(await root.snapshot()).toEqual(before);
}

async function fetchFrom(command: string, port: number, path: string): Promise<string> {
  const { stdout } = await root.sh(`${command} >/tmp/log 2>&1 & server=$!
    node -e '
(async () => {
  for (let attempt = 0; attempt < 150; attempt += 1) {
    try {
      const answer = await fetch("http://127.0.0.1:${port}${path}");
      console.log(answer.status, await answer.text());
      return;
    } catch { await new Promise((resolve) => setTimeout(resolve, 200)); }
  }
  console.log(require("node:fs").readFileSync("/tmp/log", "utf8"));
})()'
    kill $server; wait $server || true`);
  return stdout;
}

describe('real npm packages', () => {
  it('pass lintian without errors', async () => {
    // lintian takes a second for each: of the hundred small ones those that are something special
    const special = /^node-(serve|debug|minimist|registry-auth-token|json-schema-traverse|yargs)/;
    const all = [...made].flatMap(([name, one]) =>
      one.packages.filter((each) => !name.endsWith('-packages') || special.test(each.name)),
    );
    const files = all.map((one) => one.path);
    const args = ['--allow-root', '--fail-on', 'none', '--tag-display-limit', '0', ...files];
    const { stdout } = await run({}, 'lintian', args, { timeoutMs: 170_000 });
    expect(stdout.split('\n').filter((line) => line.startsWith('E:'))).toEqual([]);
  });

  it('cowsay with deps: auto: what bookworm has comes from there, the rest from us', async () => {
    const names = built('cowsay-auto').map((one) => one.name);
    expect(names).toContainEqual(expect.stringMatching(/^node-yargs-15/));
    expect(names.filter((name) => /^node-get-stdin/.test(name))).toEqual([]);
    expect(names.length).toBeLessThan(built('cowsay-packages').length);
    const before = await root.snapshot();
    const files = await root.bring(built('cowsay-auto').map((one) => one.path));
    const installed = async () =>
      (await root.sh('dpkg --get-selections')).stdout.split('\n').map((line) => line.split(/[\s:]/)[0]!);
    const packagesBefore = await installed();
    await root.sh(`apt-get update -qq && apt-get install -y -qq --no-install-recommends ${files.join(' ')}`);
    const after = await installed();
    expect(after).toContain('node-get-stdin');
    expect((await root.sh('cowsay moo')).stdout).toContain('< moo >');
    await root.sh(
      `dpkg -P ${after.filter((name) => !packagesBefore.includes(name)).join(' ')}; find /var/lib/apt/lists -type f -delete`,
    );
    expect(
      (await root.snapshot()).filter((path) => !before.includes(path) && !path.startsWith('/var/lib/apt/')),
    ).toEqual([]);
  });

  it('semver: its program, and the module where Debian has it', async () => {
    expect(built('semver')).toMatchObject([{ name: 'node-semver', version: '7.8.6-1~deb12', architecture: 'all' }]);
    await installAndCheck('semver', async () => {
      expect((await root.sh("semver -r '^1' 1.2.3 2.0.0")).stdout.trim()).toBe('1.2.3');
      const inc = `NODE_PATH=/usr/share/nodejs node -p 'require("semver").inc("1.2.3", "minor")'`;
      expect((await root.sh(inc)).stdout.trim()).toBe('1.3.0');
      expect((await root.sh('head -n 1 /usr/bin/semver')).stdout).toBe('#!/usr/bin/node\n');
    });
  });

  it.each(['cowsay', 'cowsay-packages'])('%s says it', async (name) => {
    await installAndCheck(name, async () => {
      expect((await root.sh('cowsay moo')).stdout).toContain('< moo >');
    });
  });

  it.each(['serve', 'serve-packages'])(
    '%s serves (import, require, and several versions of one name)',
    async (name) => {
      const port = await freePort();
      await installAndCheck(name, async () => {
        const command = `NO_UPDATE_CHECK=1 serve -L -l tcp://127.0.0.1:${port} /usr/share/doc/node-serve`;
        expect(await fetchFrom(command, port, '/copyright')).toMatch(/^200 Format: https:\/\/www\.debian\.org/);
      });
    },
  );

  it('serve as packages has a package for each line, and all that they need is among them', async () => {
    const all = built('serve-packages');
    const names = all.map((one) => one.name);
    for (const twice of ['ansi-regex', 'ansi-styles', 'string-width', 'strip-ansi'])
      expect(names.filter((name) => new RegExp(`^node-${twice}-\\d+$`).test(name)).length).toBe(2);
    const own = all.map((one) => ({ name: one.name, version: one.version, architecture: one.architecture }));
    const index = indexCandidates([
      ...own,
      { name: 'nodejs', version: '18.20.4+dfsg-1~deb12u2', architecture: 'amd64' },
    ]);
    for (const one of all)
      expect(
        unsatisfied(parseRelations(getField(one.control, 'Depends') ?? ''), index, { architecture: 'amd64' }),
      ).toEqual([]);
  });

  it('esbuild has the program for the target and for no other machine', async () => {
    expect(built('esbuild')).toMatchObject([{ name: 'node-esbuild', architecture: 'amd64' }]);
    const other = await buildPackages(
      world.context,
      request(['npm:esbuild@0.28.2'], 'esbuild-arm', { architecture: 'arm64' }),
    );
    const programs = async (one: BinaryPackage) =>
      (await Array.fromAsync(listDeb({}, one.path)))
        .map((file) => file.path)
        .filter((path) => /@esbuild\/[^/]+\/bin\//.test(path));
    expect(await programs(built('esbuild')[0]!)).toEqual([expect.stringContaining('/@esbuild/linux-x64/bin/esbuild')]);
    expect(other.packages[0]!.architecture).toBe('arm64');
    expect(await programs(other.packages[0]!)).toEqual([expect.stringContaining('/@esbuild/linux-arm64/bin/esbuild')]);
    await installAndCheck('esbuild', async () => {
      expect((await root.sh("echo 'let x: number = 1; export { x }' | esbuild --loader=ts")).stdout).toContain(
        'let x = 1;',
      );
    });
  });
});

describe('a service in JavaScript', () => {
  it('passes the tests that the template brings', async () => {
    const { stdout } = await run({}, 'npm', ['test'], { cwd: join(world.path, 'hello-node'), timeoutMs: 60_000 });
    expect(stdout).toMatch(/^(#|ℹ) pass 3$/m); // the reporter differs between Node 20 and 24
  });

  it('is one package, runs as its user, and is gone after purge with all it made', async () => {
    const [one] = built('service');
    expect(one).toMatchObject({ name: 'hello-node', version: '0.1.0-1~deb12', architecture: 'all' });
    expect(getField(one!.control, 'Depends')).toBe('nodejs (>= 18.0.0), adduser');
    await installAndCheck('service', async () => {
      expect((await root.sh('hello-node --version')).stdout).toBe('0.1.0\n');
      await root.sh(
        'getent passwd hello-node && test -L /etc/systemd/system/multi-user.target.wants/hello-node.service',
      );
      const port = await freePort();
      await root.sh(`sed -i 's/^port = .*/port = ${port}/' /etc/hello-node/config.toml`);
      const answer = await fetchFrom('runuser -u hello-node -- hello-node', port, '/healthz');
      expect(JSON.parse(answer.replace(/^200 /, ''))).toEqual({
        service: 'hello-node',
        version: '0.1.0',
        status: 'ok',
      });
      await root.sh('mkdir -p /var/lib/hello-node && touch /var/lib/hello-node/state');
      await root.sh("sed -i 's/^port = .*/port = 8080/' /etc/hello-node/config.toml"); // for dpkg -V
    });
  });

  it('built again is the same, also when its lock is named', async () => {
    for (const input of ['./hello-node', './hello-node/package-lock.json']) {
      const again = await buildPackages(world.context, request([input], 'service'));
      expect(again).toMatchObject({ built: 0, reused: 1 });
    }
    const plan = await planBuild(world.context, request(['./hello-node'], 'service'));
    expect(plan.packages).toMatchObject([{ name: 'hello-node', why: 'asked for', decision: 'build' }]);
  });

  it('has other bytes for another Debian, in another place', async () => {
    await mkdir(join(world.path, 'trixie'), { recursive: true });
    const { packages } = await buildPackages(world.context, request(['./hello-node'], 'trixie', { suite: 'trixie' }));
    expect(packages[0]!.version).toBe('0.1.0-1~deb13');
    const units = (await Array.fromAsync(listDeb({}, packages[0]!.path))).filter((file) =>
      file.path.endsWith('.service'),
    );
    expect(units.map((file) => file.path)).toEqual(['/usr/lib/systemd/system/hello-node.service']);
  });
});

describe('npm versions in Debian', () => {
  it('are in the order of npm to dpkg itself', async () => {
    const { default: semver } = await import('semver');
    const tails = [
      '',
      '-alpha',
      '-alpha.1',
      '-alpha.beta',
      '-alpha1',
      '-alpha10',
      '-alpha2',
      '-beta',
      '-beta.2',
      '-beta.11',
      '-rc.1',
      '-0',
      '-1',
      '-10a',
      '-a-b',
      '-A',
      '--',
      '-rc-7f',
      '-rc.0',
      '-rc0',
    ];
    const versions = ['0.9.10', '1.0.0', '1.0.1', '10.0.0'].flatMap((release) => tails.map((tail) => release + tail));
    const pairs = versions.flatMap((a) => versions.map((b) => [a, b] as const));
    const deb = (version: string) => `${debianUpstreamOfSemver(version)}-1~deb12`;
    const program =
      'use Dpkg::Version; while (<STDIN>) { chomp; my ($x, $y) = split / /; print version_compare($x, $y), "\\n" }';
    const input = pairs.map(([a, b]) => `${deb(a)} ${deb(b)}`).join('\n');
    const { stdout } = await run({}, 'perl', ['-e', program], { input, timeoutMs: 60_000 });
    const answers = stdout.trimEnd().split('\n').map(Number);
    expect(answers).toHaveLength(pairs.length);
    expect(pairs.filter(([a, b], index) => semver.compare(a, b) !== answers[index])).toEqual([]);
  });
});
