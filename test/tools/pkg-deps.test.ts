/** Dependency policies on real input: what bookworm has is used, what it has otherwise is carried inside, and it stays untouched. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { getField } from '../../src/deb/control.ts';
import {
  type BuildRequest,
  type BuildResult,
  buildPackages,
  type DependencyMode,
  planBuild,
} from '../../src/pkg/build.ts';
import { renderTemplate } from '../../src/template/render.ts';
import { createDebianRoot, type DebianRoot, freePort } from '../support/debian-root.ts';
import { type PythonIndex, pythonIndex } from '../support/python-index.ts';
import { createWorld, type World } from '../support/world.ts';

let index: PythonIndex;
let world: World;
let root: DebianRoot;
/** The newest flask of the index is newer than bookworm's. */
let flask: string;
let ask: string;

const context = () => ({ ...world.context, env: { ...world.context.env, ...index.env } });
const request = (input: string, deps: DependencyMode): BuildRequest => ({
  inputs: [input],
  cwd: world.path,
  suite: 'bookworm',
  outDir: join(world.path, `out-${deps}`),
  maintainer: 'Ada Lovelace <ada@debian.org>',
  policy: { deps },
});

beforeAll(async () => {
  index = await pythonIndex();
  world = await createWorld();
  const port = await freePort();
  ask = ASK.replace('PORT', String(port));
  await renderTemplate(context(), {
    template: 'python-service',
    target: join(world.path, 'shop'),
    values: { name: 'shop', port: String(port) },
  });
  const plan = await planBuild(context(), request('flask', 'packages'));
  flask = plan.packages.find((one) => one.name === 'python3-flask')!.version.replace(/-.*/, '');
  const pyproject = join(world.path, 'shop/pyproject.toml');
  await writeFile(pyproject, (await readFile(pyproject, 'utf8')).replace('"flask >=2.2"', `"flask >=${flask}"`));
  root = await createDebianRoot('bookworm', ['python3', 'adduser', 'python3-flask', 'python3-gunicorn']);
}, 400_000);
afterAll(async () => {
  await root?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
  await index?.[Symbol.asyncDispose]();
});

const ASK = `for attempt in $(seq 100); do
  python3 -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:PORT/healthz").read().decode())' 2>/dev/null && break
  sleep 0.1
done`;

async function worksAndGoes(result: BuildResult): Promise<void> {
  const before = await root.snapshot();
  const [file] = await root.bring([result.packages.find((one) => one.name === 'shop')!.path]);
  await root.sh(`dpkg -i ${file}`);
  expect((await root.sh(`runuser -u shop -- shop >/tmp/log 2>&1 & server=$!; ${ask}; kill $server`)).stdout).toContain(
    '"status":"ok"',
  );
  expect((await root.sh('python3 -c "from importlib.metadata import version; print(version(\'flask\'))"')).stdout).toBe(
    '2.2.2\n',
  );
  expect((await root.sh('dpkg -V')).stdout).toBe('');
  await root.sh('dpkg -P shop');
  expect(await root.snapshot()).toEqual(before);
}

async function lintianErrors(result: BuildResult): Promise<string[]> {
  const { stdout } = await run({}, 'lintian', [
    '--allow-root',
    '--fail-on',
    'none',
    ...result.packages.map((one) => one.path),
  ]);
  return stdout.split('\n').filter((line) => line.startsWith('E:'));
}

describe('deps: auto', () => {
  it('says of every distribution what becomes of it', async () => {
    const { table } = await planBuild(context(), request('shop', 'auto'));
    const row = (name: string) => table.find((one) => one.name === name);
    expect(row('shop')).toMatchObject({ decision: 'build', why: 'asked for' });
    expect(row('python3-gunicorn')).toMatchObject({
      decision: 'present',
      why: expect.stringContaining('the suite has 20.1.0'),
    });
    if (flask.startsWith('2.2.')) expect(row('python3-flask')).toMatchObject({ decision: 'present' });
    else
      expect(row('flask')).toMatchObject({
        decision: 'vendor',
        why: `needed by shop; the suite has 2.2.2-3, and shop wants >=${flask}`,
      });
  });

  it('installs beside the older flask of the suite, serves, and is gone', async () => {
    const result = await buildPackages(context(), request('shop', 'auto'));
    expect(result.packages.map((one) => one.name)).toEqual(['shop']);
    expect(getField(result.packages[0]!.control, 'Depends')).toContain('python3-gunicorn (>= 20.1)');
    expect(await lintianErrors(result)).toEqual([]);
    await worksAndGoes(result);
  });
});

describe('deps: bundle', () => {
  it('needs nothing but Python and the C library', async () => {
    const result = await buildPackages(context(), request('shop', 'bundle'));
    const depends = getField(result.packages[0]!.control, 'Depends')!;
    expect(depends).not.toMatch(/python3-/);
    expect(depends).toContain('adduser');
    expect(await lintianErrors(result)).toEqual([]);
    await worksAndGoes(result);
  });
});

describe('deps: distro', () => {
  it('refuses and names what the suite lacks', async () => {
    const failure = await planBuild(context(), { ...request('shop', 'distro'), suite: 'bookworm' }).catch(
      (error: unknown) => error,
    );
    if (flask.startsWith('2.2.')) expect(failure).toMatchObject({ table: expect.any(Array) });
    else
      expect(failure).toMatchObject({
        code: 'not-in-suite',
        message: expect.stringContaining(`flask: needed by shop; the suite has 2.2.2-3, and shop wants >=${flask}`),
      });
  });
});
