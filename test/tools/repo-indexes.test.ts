/** What a suite may publish beside plain Packages, as real apt takes it: translations, patches, other forms and digests, overrides. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { getField, type Paragraph, parseControl } from '../../src/deb/control.ts';
import { KeyStore } from '../../src/repo/keys.ts';
import { parseOverrides } from '../../src/repo/overrides.ts';
import { Repo } from '../../src/repo/repo.ts';
import { serveRepo } from '../../src/repo/serve.ts';
import type { SuiteSettings } from '../../src/repo/settings.ts';
import { verifyRepository } from '../../src/repo/verify.ts';
import { type AptRoot, createAptRoot } from '../support/apt-root.ts';
import { makePackage, type TestPackage } from '../support/packages.ts';
import { createWorld, type World } from '../support/world.ts';

const MINUTE_MS = 60_000;

interface Bench extends AsyncDisposable {
  readonly world: World;
  readonly repo: Repo;
  readonly url: string;
  /** Adds packages and publishes, a minute after the last time. */
  publish(packages: readonly TestPackage[]): Promise<void>;
  /** Below dists/bookworm/. */
  read(path: string): Promise<string>;
  apt(...configuration: string[]): Promise<AptRoot>;
  /** Every problem of what is published. */
  problems(): Promise<readonly unknown[]>;
}

async function createBench(suite: Partial<SuiteSettings>): Promise<Bench> {
  const start = Date.now() - 60 * MINUTE_MS;
  const world = await createWorld(new Date(start));
  const request = { name: 'Example', email: 'a@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
  await new KeyStore(world.context).generate(request);
  const repo = await Repo.init(world.context, join(world.path, 'repo'), {
    suites: [{ name: 'bookworm', components: ['main'], architectures: ['amd64'], ...suite }],
    origin: 'Example',
    label: 'Example',
  });
  const server = await serveRepo(world.context, repo.dir, { listen: '127.0.0.1:0' });
  let round = 0;
  return {
    world,
    repo,
    url: server.url,
    async publish(packages) {
      round += 1;
      world.setClock(new Date(start + round * MINUTE_MS));
      const folder = join(world.path, `in-${round}`);
      for (const spec of packages) await makePackage(world.context, folder, spec);
      if (packages.length > 0) expect((await repo.add('bookworm', [folder])).refused).toEqual([]);
      await repo.publish([], { pages: false });
    },
    read: (path) => readFile(join(repo.publicDir, 'dists/bookworm', path), 'utf8'),
    apt: async (...configuration) =>
      createAptRoot({ sources: await repo.sources('bookworm', { url: server.url }), configuration }),
    problems: async () =>
      (await verifyRepository(world.context, { place: repo.publicDir, suites: ['bookworm'] })).problems,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      repo[Symbol.dispose]();
      await world[Symbol.asyncDispose]();
    },
  };
}

/** What apt asked for, without the address. */
async function requestsOf(apt: AptRoot): Promise<string[]> {
  const { exitCode, stdout, stderr } = await apt.run('apt-get', 'update');
  expect(exitCode, stderr).toBe(0); // `Ign:` is no failure: a list of patches does not know every state
  return [...`${stdout}\n${stderr}`.matchAll(/^GET \/dists\/bookworm\/(\S+) HTTP/gm)].map((match) => match[1]!);
}

const ENGLISH = '#clear Acquire::Languages; Acquire::Languages { "en"; };';
const LOUD = 'Debug::Acquire::http "true";';

describe('translations', () => {
  it('hold what Packages leaves out, once for all architectures, and apt shows it', async () => {
    await using bench = await createBench({ architectures: ['amd64', 'arm64'], translations: true });
    const Description = 'greets $& with €\n a friendly greeting\n .\n  and more';
    await bench.publish([
      { name: 'hello', architecture: 'amd64', fields: { Description } },
      { name: 'hello', architecture: 'arm64', fields: { Description } },
      { name: 'hello', version: '2.0', fields: { Description: `${Description}\n of another kind` } },
      { name: 'short', fields: { Description: 'only one line' } },
    ]);
    const [stanza] = parseControl(await bench.read('main/binary-amd64/Packages'));
    expect(getField(stanza!, 'Description')).toBe('greets $& with €');
    // apt-ftparchive reckons the same digest
    const args = ['-o', 'APT::FTPArchive::LongDescription=false', '--arch=amd64', 'packages', 'pool'];
    const theirs = parseControl((await run({}, 'apt-ftparchive', args, { cwd: bench.repo.publicDir })).stdout);
    const md5 = (list: readonly Paragraph[]) => list.map((one) => getField(one, 'Description-md5')).sort();
    expect(md5(parseControl(await bench.read('main/binary-amd64/Packages')))).toEqual(md5(theirs));
    const translations = parseControl(await bench.read('main/i18n/Translation-en'));
    expect(translations.map((one) => getField(one, 'Package'))).toEqual(['hello', 'hello', 'short']);
    await using apt = await bench.apt(ENGLISH);
    await apt.update();
    const shown = await apt.run('apt', 'show', 'hello=1.0');
    expect(shown.stdout).toContain('Description: greets $& with €\n a friendly greeting\n .\n  and more\n');
    expect((await apt.run('apt-cache', 'show', 'hello=2.0')).stdout).toContain(' of another kind\n');
    expect((await apt.run('apt-cache', 'search', 'friendly')).stdout).toContain('hello - greets');
    expect(await bench.problems()).toEqual([]);
    // off again
    await bench.repo.saveSuite('bookworm', { translations: false });
    await bench.publish([]);
    expect(await bench.read('main/binary-amd64/Packages')).toContain(' of another kind\n');
    expect(await bench.read('Release')).not.toContain('Translation-en');
  });
});

describe('patches', () => {
  /** Incompressible, so that a patch is smaller than the whole. */
  const many = (from: number, to: number): TestPackage[] =>
    Array.from({ length: to - from }, (_, at) => ({ name: `pkg-${from + at}` }));

  it('bring apt from any kept state to the newest, with the same bytes', async () => {
    await using bench = await createBench({ pdiffs: 3, translations: true });
    await bench.publish(many(0, 60));
    const states: AptRoot[] = [];
    const listOf = async (apt: AptRoot, part: string) => {
      const lists = join(apt.path, 'var/lib/apt/lists');
      const name = (await readdir(lists)).find((file) => file.endsWith(part));
      return readFile(join(lists, name!), 'utf8');
    };
    try {
      for (let round = 0; round < 6; round += 1) {
        const apt = await bench.apt(LOUD, ENGLISH, 'Acquire::PDiffs "true";');
        states.push(apt);
        await apt.update();
        if (round % 2 === 1) await bench.repo.remove('bookworm', [`pkg-${round * 7}`]);
        await bench.publish([{ name: `new-${round}` }, { name: 'pkg-30', version: `2.${round}` }]);
      }
      const requests = await Promise.all(states.map(requestsOf));
      for (const part of ['main_binary-amd64_Packages', 'main_i18n_Translation-en']) {
        const current = await bench.read(part.replace(/_/g, '/'));
        for (const apt of states) expect(await listOf(apt, part)).toBe(current);
      }
      const patches = requests.map(
        (paths) =>
          paths.filter((path) => path.startsWith('main/binary-amd64/Packages.diff/') && path.endsWith('.gz')).length,
      );
      const whole = requests.map((paths) => paths.filter((path) => /binary-amd64\/by-hash/.test(path)).length);
      expect(patches).toEqual([0, 0, 0, 3, 2, 1]); // three are kept
      expect(whole).toEqual([1, 1, 1, 0, 0, 0]);
      for (const paths of requests) expect(paths).toContain('InRelease');
    } finally {
      for (const apt of states) await apt[Symbol.asyncDispose]();
    }
    expect(await bench.problems()).toEqual([]);
    // nothing of what clients may ask for is garbage
    await bench.repo.collectGarbage();
    expect((await bench.repo.check()).problems).toEqual([]);
  });

  it('stay while nothing changes, and go when they are switched off', async () => {
    await using bench = await createBench({ pdiffs: 3 });
    await bench.publish(many(0, 30));
    await bench.publish(many(30, 31));
    const before = await bench.read('main/binary-amd64/Packages.diff/Index');
    await bench.repo.publish([], { force: true });
    expect(await bench.read('main/binary-amd64/Packages.diff/Index')).toBe(before);
    await bench.repo.saveSuite('bookworm', { pdiffs: 0 });
    await bench.publish([]);
    expect(await readdir(join(bench.repo.publicDir, 'dists/bookworm/main/binary-amd64'))).not.toContain(
      'Packages.diff',
    );
  });
});

describe('forms and digests', () => {
  it('are those that were chosen, each by its hash', async () => {
    await using bench = await createBench({
      compressions: ['xz', 'zstd'],
      hashes: ['SHA512', 'MD5Sum'],
      contents: true,
    });
    await bench.publish([{ name: 'hello' }]);
    const folder = join(bench.repo.publicDir, 'dists/bookworm/main/binary-amd64');
    expect((await readdir(folder)).sort()).toEqual(['Packages.xz', 'Packages.zst', 'by-hash']);
    expect((await readdir(join(folder, 'by-hash'))).sort()).toEqual(['MD5Sum', 'SHA256', 'SHA512']);
    const packages = (await run({}, 'zstd', ['-dcq', join(folder, 'Packages.zst')])).stdout;
    expect(packages).toContain('Package: hello\n');
    expect((await run({}, 'xz', ['-dc', join(folder, 'Packages.xz')])).stdout).toBe(packages);
    for (const [type, hash] of [
      ['xz', 'SHA512'],
      ['zst', 'SHA512'],
    ]) {
      await using apt = await bench.apt(LOUD, `Acquire::CompressionTypes::Order { "${type}"; };`);
      const requests = await requestsOf(apt);
      expect(requests.filter((path) => path.startsWith(`main/binary-amd64/by-hash/${hash}/`))).toHaveLength(1);
      expect((await apt.run('apt-cache', 'policy', 'hello')).stdout).toContain('Candidate: 1.0');
    }
    expect(await bench.problems()).toEqual([]);
    for (const [field, program] of [
      ['MD5Sum', 'md5sum'],
      ['SHA256', 'sha256sum'],
      ['SHA512', 'sha512sum'],
    ]) {
      const [release] = parseControl(await bench.read('Release'));
      const lines = getField(release!, field!)!
        .split('\n')
        .filter(Boolean)
        .map((line) => line.trim().split(/\s+/))
        .filter(([, , path]) => path !== 'main/Contents-amd64'); // that is there in other forms alone
      expect(lines).toHaveLength(5); // plain is listed, as apt needs it, and only by its hash
      const sums = lines.map(([sum, , path]) => `${sum}  ${dirname(path!)}/by-hash/${field}/${sum}\n`).join('');
      const cwd = join(bench.repo.publicDir, 'dists/bookworm');
      await run({}, program!, ['--check', '--status'], { cwd, input: sums });
    }
    // many blocks are many frames
    await bench.publish(Array.from({ length: 300 }, (_, at) => ({ name: `pkg-${at}` })));
    await using apt = await bench.apt('Acquire::CompressionTypes::Order { "zst"; };');
    await apt.update();
    expect((await apt.run('apt-cache', 'pkgnames')).stdout.trim().split('\n')).toHaveLength(301);
    const { objects } = await bench.repo.collectGarbage({ dryRun: true });
    expect(objects).toBe(0);
  });

  it('of an empty suite are taken too', async () => {
    await using bench = await createBench({ compressions: ['none', 'gzip', 'xz', 'zstd'], translations: true });
    await bench.publish([]);
    for (const type of ['xz', 'gz', 'zst']) {
      await using apt = await bench.apt(ENGLISH, `Acquire::CompressionTypes::Order { "${type}"; };`);
      await apt.update();
    }
    expect(await bench.problems()).toEqual([]);
  });
});

describe('Contents', () => {
  it.each([
    ['gz', undefined],
    ['xz', ['none', 'xz'] as const],
    ['zst', ['zstd'] as const],
  ])('are fetched by apt as apt-file asks for them, as .%s', async (suffix, compressions) => {
    await using bench = await createBench({ contents: true, compressions });
    await bench.publish(Array.from({ length: 40 }, (_, at) => ({ name: `pkg-${at}` })));
    const folder = join(bench.repo.publicDir, 'dists/bookworm/main');
    expect((await readdir(folder)).sort()).toEqual([`Contents-amd64.${suffix}`, 'binary-amd64', 'by-hash']);
    await using apt = await bench.apt(`Acquire::IndexTargets::deb::Contents-deb {
      MetaKey "$(COMPONENT)/Contents-$(ARCHITECTURE)"; ShortDescription "Contents"; Description "Contents"; };`);
    const lines = async () => {
      await apt.update();
      const target = await apt.run('apt-get', 'indextargets', '--format', '$(FILENAME)', 'Created-By: Contents-deb');
      return (await apt.run('/usr/lib/apt/apt-helper', 'cat-file', target.stdout.trim())).stdout.split('\n');
    };
    expect((await lines()).filter(Boolean)).toHaveLength(40);
    await bench.publish([{ name: 'one-more' }]);
    expect(await lines()).toContainEqual(expect.stringMatching(/^usr\/share\/one-more\/data +misc\/one-more$/));
    expect(await bench.problems()).toEqual([]);
    expect((await bench.repo.check()).problems).toEqual([]);
    const { objects } = await bench.repo.collectGarbage({ dryRun: true });
    expect(objects).toBe(0);
  });
});

describe('overrides', () => {
  it('stand in the indexes as apt-ftparchive puts them, and not in the packages', async () => {
    await using bench = await createBench({ contents: true });
    const files = {
      binary:
        'hello\timportant\tnet\tOld <o@example.org> => New <n@example.org>  # comment\n\nplain optional misc Other <x@example.org>\n',
      extra: 'hello Phased-Update-Percentage 10\nhello Task desktop, web\n',
    };
    const fields = { Maintainer: 'Old <o@example.org>', Section: 'misc', Priority: 'optional' };
    await bench.publish([{ name: 'hello', fields }, { name: 'plain' }, { name: 'untouched' }]);
    const before = await bench.read('main/binary-amd64/Packages');
    await bench.repo.saveOverrides('bookworm', [
      { format: 'binary', path: 'override', text: files.binary },
      { format: 'extra', path: 'extra', text: files.extra },
    ]);
    await bench.publish([]);
    const ours = parseControl(await bench.read('main/binary-amd64/Packages'));
    for (const [name, text] of Object.entries(files)) await writeFile(join(bench.world.path, name), text);
    const args = ['-o', `APT::FTPArchive::ExtraOverride=${join(bench.world.path, 'extra')}`, 'packages', 'pool'];
    const result = await run({}, 'apt-ftparchive', [...args, join(bench.world.path, 'binary')], {
      cwd: bench.repo.publicDir,
    });
    const theirs = parseControl(result.stdout);
    const field = (list: readonly Paragraph[], name: string) =>
      list.map((one) => `${getField(one, 'Package')} ${getField(one, name)}`).sort();
    for (const name of ['Section', 'Priority', 'Maintainer']) {
      const expected = field(theirs, name).filter((line) => !line.startsWith('untouched')); // it leaves out what it does not know
      expect(
        field(ours, name).filter((line) => !line.startsWith('untouched')),
        name,
      ).toEqual(expected);
    }
    const [hello] = ours;
    expect(getField(hello!, 'Phased-Update-Percentage')).toBe('10');
    expect(getField(hello!, 'Task')).toBe('desktop, web');
    const contents = await run({}, 'gzip', [
      '-dc',
      join(bench.repo.publicDir, 'dists/bookworm/main/Contents-amd64.gz'),
    ]);
    expect(contents.stdout).toMatch(/usr\/share\/hello\/data +net\/hello\n/);
    await using apt = await bench.apt();
    await apt.update();
    expect((await apt.run('apt-cache', 'show', 'hello')).stdout).toMatch(/Section: net\nPriority: important\n/);
    await bench.repo.saveOverrides('bookworm', []);
    await bench.publish([]);
    expect(await bench.read('main/binary-amd64/Packages')).toBe(before);
  });

  it.each([
    ['binary', 'hello optional', /priority and section/],
    ['binary', '../x optional net', /no package name/],
    ['extra', 'hello Filename pool/x', /cannot be overridden/],
    ['extra', 'hello Task', /field and value/],
    ['source', 'hello a b c', /one section/],
  ] as const)('in a %s file: %j is refused', (format, text, message) => {
    expect(() => parseOverrides([{ format, path: 'file', text }])).toThrow(message);
  });
});

describe('what Release tells', () => {
  it('of pinning, changelogs and signers is heeded by apt', async () => {
    await using bench = await createBench({ notAutomatic: true });
    await bench.repo.saveSettings({ changelogs: 'https://example.org/changelogs/@CHANGEPATH@', signedBy: true });
    await bench.publish([{ name: 'hello' }]);
    const release = await bench.read('Release');
    expect(release).toContain('Changelogs: https://example.org/changelogs/@CHANGEPATH@\n');
    expect(release).toMatch(/^Signed-By: [0-9A-F]{40}$/m);
    await using apt = await bench.apt();
    await apt.update();
    const policy = async () => / 1\.0 (\d+)\n/.exec((await apt.run('apt-cache', 'policy', 'hello')).stdout)?.[1];
    expect(await policy()).toBe('1');
    const uri = await apt.run('apt-get', 'changelog', '--print-uris', 'hello');
    expect(uri.stdout).toContain('https://example.org/changelogs/main/h/hello/hello_1.0');
    await bench.repo.saveSuite('bookworm', { butAutomaticUpgrades: true });
    await bench.publish([]);
    await apt.run('apt-get', 'update', '--allow-releaseinfo-change');
    expect(await policy()).toBe('100');
    await expect(bench.repo.saveSettings({ changelogs: 'https://example.org/' })).rejects.toMatchObject({
      code: 'bad-url',
    });
  });

  it('names both keys while one replaces the other, so that clients follow', async () => {
    await using bench = await createBench({});
    await bench.repo.saveSettings({ signedBy: true });
    await bench.publish([{ name: 'hello' }]);
    await using apt = await bench.apt();
    await apt.update();
    const request = { name: 'New', email: 'n@example.org', algorithm: 'ed25519' as const, expiresSeconds: undefined };
    const { fingerprint } = await new KeyStore(bench.world.context).generate(request);
    await bench.repo.rotateKey(fingerprint, 1);
    await bench.publish([]);
    expect(await bench.read('Release')).toMatch(new RegExp(`^Signed-By: [0-9A-F]{40},${fingerprint}$`, 'm'));
    await apt.update();
  });
});

describe('packages of other kinds', () => {
  it('for the installer have an index of their own', async () => {
    await using bench = await createBench({ translations: true, pdiffs: 3 });
    const made = await makePackage(bench.world.context, join(bench.world.path, 'in'), {
      name: 'hello-udeb',
      architecture: 'amd64',
      fields: { Section: 'debian-installer', 'Package-Type': 'udeb', Description: 'short\n long' },
    });
    const udeb = made.path.replace(/\.deb$/, '.udeb');
    await run({}, 'mv', [made.path, udeb]);
    await bench.repo.add('bookworm', [udeb]);
    await bench.publish([{ name: 'hello' }]);
    const [stanza, ...others] = parseControl(await bench.read('main/debian-installer/binary-amd64/Packages'));
    expect(others).toEqual([]);
    expect(getField(stanza!, 'Filename')).toBe('pool/main/h/hello-udeb/hello-udeb_1.0_amd64.udeb');
    expect(getField(stanza!, 'Description')).toBe('short\n long');
    expect(await bench.read('main/binary-amd64/Packages')).not.toContain('udeb');
    expect(await bench.read('main/i18n/Translation-en')).not.toContain('udeb');
    expect(await bench.read('Release')).toMatch(/ main\/debian-installer\/binary-amd64\/Packages\.xz\n/);
    const list = join(bench.repo.publicDir, 'dists/bookworm/main/debian-installer/binary-amd64/Packages.xz');
    const theirs = await run(
      {},
      'apt-ftparchive',
      ['-o', 'APT::FTPArchive::Packages::Extensions=.udeb', 'packages', 'pool'],
      {
        cwd: bench.repo.publicDir,
      },
    );
    expect(theirs.stdout).toContain('Package: hello-udeb');
    expect((await run({}, 'xz', ['-dc', list])).stdout).toContain('Package: hello-udeb');
    await using apt = await createAptRoot({
      sources: (await bench.repo.sources('bookworm', { url: bench.url })).replace(
        /^Components:.*$/m,
        'Components: main/debian-installer main',
      ),
      configuration: [ENGLISH],
    });
    await apt.update();
    expect((await apt.run('apt-cache', 'pkgnames')).stdout.trim().split('\n').sort()).toEqual(['hello', 'hello-udeb']);
    await bench.repo.remove('bookworm', ['hello-udeb']);
    await bench.publish([]);
    expect(await bench.read('Release')).not.toContain('debian-installer');
  });

  it('with debugging symbols install beside what they are of', async () => {
    await using bench = await createBench({});
    await bench.publish([
      { name: 'tool', architecture: 'amd64' },
      {
        name: 'tool-dbgsym',
        architecture: 'amd64',
        fields: {
          Source: 'tool',
          Section: 'debug',
          Depends: 'tool (= 1.0)',
          'Auto-Built-Package': 'debug-symbols',
          'Build-Ids': 'c0ffee',
        },
      },
    ]);
    await using apt = await bench.apt();
    await apt.update();
    expect((await apt.run('apt-cache', 'show', 'tool-dbgsym')).stdout).toMatch(/Build-Ids: c0ffee\n/);
    const installed = await apt.run('apt-get', 'install', '-y', 'tool-dbgsym');
    expect(installed).toMatchObject({ exitCode: 0, stderr: '' });
    expect(await bench.read('main/binary-amd64/Packages')).toContain(
      'Filename: pool/main/t/tool/tool-dbgsym_1.0_amd64.deb',
    );
    expect(await bench.problems()).toEqual([]);
  });
});
