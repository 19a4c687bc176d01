/** What a distribution has: by the name of a suite that this machine follows, or from a file. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { exists } from '../../src/core/files.ts';
import { run } from '../../src/core/run.ts';
import { readIndexTargets } from '../../src/deb/apt-targets.ts';
import { getField } from '../../src/deb/control.ts';
import { readBase } from '../../src/repo/base.ts';

it("reads what this machine's apt keeps of a suite, by the suite's name", async () => {
  const followed = (await readIndexTargets({})).find((one) => one.component === 'main' && !one.codename.includes('-'))!;
  if (!(await exists(followed.file))) await run({}, 'apt-get', ['update', '-qq'], { timeoutMs: 300_000 });
  const names = new Set((await readBase({}, [followed.codename], '/')).map((stanza) => getField(stanza, 'Package')));
  expect(names).toContain('libc6');
  expect(names.size).toBeGreaterThan(10_000);
});

it('reads indexes in files, relative to the folder it is told, and refuses what is neither', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'buildkit-base-'));
  try {
    await writeFile(join(folder, 'Packages.gz'), gzipSync('Package: aa\nVersion: 1\n\nPackage: bb\nVersion: 2\n'));
    const stanzas = await readBase({}, ['Packages.gz'], folder);
    expect(stanzas.map((stanza) => getField(stanza, 'Package'))).toEqual(['aa', 'bb']);
    await expect(readBase({}, ['nosuch'], folder)).rejects.toMatchObject({ code: 'no-such-base' });
  } finally {
    await rm(folder, { recursive: true });
  }
});
