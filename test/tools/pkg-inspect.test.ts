/** pkg contents, extract, lint and diff from the command line, against dpkg-deb and lintian. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';

const BUILDKIT = resolve(import.meta.dirname, '../../bin/buildkit');
let scratch: string;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'buildkit-inspect-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

function buildkit(...args: string[]) {
  return run({}, BUILDKIT, ['--state', join(scratch, 'state'), ...args], {
    cwd: scratch,
    okExitCodes: [1, 2, 3, 4],
    timeoutMs: 60_000,
  });
}

/** A package made by dpkg-deb itself: foreign to us. */
async function foreign(name: string, version: string, content: string, more = ''): Promise<string> {
  const tree = join(scratch, `${name}-${version}`);
  await mkdir(join(tree, 'DEBIAN'), { recursive: true });
  await mkdir(join(tree, 'usr/local/lib'), { recursive: true });
  await writeFile(join(tree, 'usr/local/lib/data'), content);
  await writeFile(
    join(tree, 'DEBIAN/control'),
    `Package: ${name}\nVersion: ${version}\nArchitecture: all\nMaintainer: Ada <ada@debian.org>\n${more}Description: x\n`,
  );
  const deb = join(scratch, `${name}_${version}.deb`);
  await run({}, 'dpkg-deb', ['--root-owner-group', '--build', tree, deb], { env: { SOURCE_DATE_EPOCH: '1700000000' } });
  return deb;
}

describe('looking into packages', () => {
  it('lists as dpkg-deb does', async () => {
    const deb = await foreign('one', '1', 'a\n');
    const ours = JSON.parse((await buildkit('pkg', 'contents', deb, '--json')).stdout) as {
      path: string;
      size: number;
    }[];
    const theirs = (await run({}, 'dpkg-deb', ['--fsys-tarfile', deb])).stdout;
    expect(theirs).toContain('usr/local/lib/data');
    expect(ours.map((file) => file.path)).toEqual(['/', '/usr', '/usr/local', '/usr/local/lib', '/usr/local/lib/data']);
    expect((await buildkit('pkg', 'contents', deb)).stdout).toMatch(
      /^file {2}0644 {2}root\/root\s+2 {2}\S+ \S+ {2}\/usr\/local\/lib\/data$/m,
    );
  });

  it('extracts', async () => {
    const deb = await foreign('two', '1', 'content\n');
    expect((await buildkit('pkg', 'extract', deb, 'out')).exitCode).toBe(0);
    expect(await readFile(join(scratch, 'out/usr/local/lib/data'), 'utf8')).toBe('content\n');
  });

  it('lints: quick rules and lintian, exit 1 on errors', async () => {
    const deb = await foreign('three', '1', 'x');
    const quick = await buildkit('pkg', 'lint', deb, '--no-lintian', '--json');
    expect(quick.exitCode).toBe(1);
    const codes = (JSON.parse(quick.stdout) as { code: string; policy: string }[]).map(
      (one) => `${one.code} ${one.policy}`,
    );
    expect(codes).toContain('forbidden-place 9.1.2');
    expect(codes).toContain('no-copyright 12.5');
    const both = JSON.parse((await buildkit('pkg', 'lint', deb, '--json')).stdout) as {
      code: string;
      policy: string;
    }[];
    expect(both.filter((one) => one.policy === 'lintian').map((one) => one.code)).toContain('dir-in-usr-local');
  });

  it('draws who needs whom, by name, version and Provides', async () => {
    const files = [
      await foreign('needs', '1', 'x', 'Pre-Depends: bash\nDepends: gone | virtual (>= 2), other (>= 9), needs\n'),
      await foreign('giver', '3', 'x', 'Provides: virtual (= 2)\n'),
      await foreign('other', '8', 'x', 'Depends: giver\n'),
    ];
    const { nodes, edges } = JSON.parse((await buildkit('pkg', 'graph', ...files, '--json')).stdout);
    expect(edges.map((one: { from: string; to: string }) => `${one.from} ${one.to}`)).toEqual([
      'needs bash',
      'needs giver',
      'needs other',
      'other giver',
    ]);
    expect(nodes.map((one: { name: string; decision: string }) => `${one.name} ${one.decision}`)).toEqual([
      'needs given',
      'giver given',
      'other given',
      'bash other',
    ]);
    expect((await buildkit('pkg', 'graph', ...files)).stdout).toContain('"needs" -> "giver";');
  });

  it('says what differs, and that nothing does', async () => {
    const [a, b] = [await foreign('four', '1', 'x'), await foreign('four', '2', 'yy')];
    const diff = await buildkit('pkg', 'diff', a, b, '--json');
    expect(diff.exitCode).toBe(1);
    const found = JSON.parse(diff.stdout) as { differences: { kind: string; name: string; a: string; b: string }[] };
    expect(found.differences).toMatchObject([
      { kind: 'field', name: 'Version', a: '1', b: '2' },
      {
        kind: 'file',
        name: '/usr/local/lib/data',
        a: expect.stringContaining('1 bytes'),
        b: expect.stringContaining('2 bytes'),
      },
    ]);
    const same = await buildkit('pkg', 'diff', a, a);
    expect(same).toMatchObject({ exitCode: 0, stdout: 'identical\n' });
  });

  it('takes a cut package as an error of the user', async () => {
    const deb = await foreign('five', '1', 'x');
    await writeFile(join(scratch, 'cut.deb'), (await readFile(deb)).subarray(0, 150));
    for (const verb of ['info', 'contents', 'lint', 'graph'])
      expect((await buildkit('pkg', verb, 'cut.deb')).exitCode, verb).toBe(1);
    expect((await buildkit('pkg', 'extract', 'cut.deb', 'cut-out')).exitCode).toBe(1);
  });
});
