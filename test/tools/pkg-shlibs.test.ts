/** The table of shared libraries against dpkg-shlibdeps, on this machine's own extension modules and programs. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { parseRelations } from '../../src/deb/relation.ts';
import { compareVersions } from '../../src/deb/version.ts';
import { readElf } from '../../src/pkg/elf.ts';
import { sharedDepends } from '../../src/pkg/shlibs.ts';

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'buildkit-shlibs-'));
  await mkdir(join(scratch, 'debian'));
  await writeFile(join(scratch, 'debian/control'), 'Source: x\n\nPackage: x\nArchitecture: any\n');
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

async function judge(file: string): Promise<Map<string, string>> {
  const { stdout } = await run({}, 'dpkg-shlibdeps', ['-O', file], { cwd: scratch });
  const groups = parseRelations(/^shlibs:Depends=(.*)$/m.exec(stdout)?.[1] ?? '');
  return new Map(groups.map((group) => [group[0]!.name, group[0]!.version?.version ?? '']));
}

it('names the same packages, and asks for no version that is above what dpkg-shlibdeps asks for', async () => {
  const [version] = (await readdir('/usr/lib')).filter((name) => /^python3\.\d+$/.test(name));
  const folder = `/usr/lib/${version}/lib-dynload`;
  const modules = (await readdir(folder))
    .filter((name) => /^_(bz2|ctypes|hashlib|lzma|sqlite3|ssl|json|uuid|asyncio)\./.test(name))
    .map((name) => join(folder, name));
  const programs = ['/usr/bin/dpkg', '/usr/bin/perl', '/usr/bin/apt-get'];
  const suite = /VERSION_ID="(\d+)"/.exec(await readFile('/etc/os-release', 'utf8'))?.[1] ?? '12';
  let compared = 0;
  for (const file of [...modules, ...programs]) {
    const expected = await judge(file);
    const { depends, unknown } = sharedDepends([readElf(await readFile(file))!], new Set(), suite);
    const ours = new Map(
      parseRelations(depends.join(', ')).map((group) => [group[0]!.name, group[0]!.version?.version ?? '']),
    );
    if (unknown.length === 0) expect([...ours.keys()], file).toEqual([...expected.keys()].sort());
    for (const [name, bound] of ours) {
      expect(expected.has(name), `${file}: ${name}`).toBe(true);
      if (bound !== '')
        expect(compareVersions(bound, expected.get(name) || '0'), `${file}: ${name}`).toBeLessThanOrEqual(0);
      compared += 1;
    }
  }
  expect(compared).toBeGreaterThan(15);
});
