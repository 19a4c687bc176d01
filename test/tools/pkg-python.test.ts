/** Flask's closure and a service from the template, built for real, installed by dpkg in a clean bookworm, and gone again. */
import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { run } from '../../src/core/run.ts';
import { getField } from '../../src/deb/control.ts';
import type { BinaryPackage } from '../../src/deb/package.ts';
import { type BuildRequest, type BuildResult, buildPackages, planBuild } from '../../src/pkg/build.ts';
import { renderTemplate } from '../../src/template/render.ts';
import { createDebianRoot, type DebianRoot, freePort } from '../support/debian-root.ts';
import { type PythonIndex, pipsOwnIndex, pythonIndex } from '../support/python-index.ts';
import { createWorld, type World } from '../support/world.ts';

const PACKAGER = 'Ada Lovelace <ada@debian.org>';
let index: PythonIndex;
let world: World;
let root: DebianRoot;
let service: BuildResult;

const context = (env: Record<string, string> = {}) => ({
  ...world.context,
  env: { ...world.context.env, ...index.env, ...env },
});
const request = (inputs: readonly string[], out: string): BuildRequest => ({
  inputs,
  cwd: world.path,
  suite: 'bookworm',
  outDir: join(world.path, out),
  maintainer: PACKAGER,
});
const named = (result: BuildResult, name: string): BinaryPackage => result.packages.find((one) => one.name === name)!;
const newProject = (name: string, values: Record<string, string> = {}) =>
  renderTemplate(context(), {
    template: 'python-service',
    target: join(world.path, name),
    values: { name: 'hello-service', author: 'Ada', email: 'ada@debian.org', ...values },
  });

beforeAll(async () => {
  index = await pythonIndex();
  world = await createWorld();
  await newProject('hello-service');
  [service, root] = await Promise.all([
    buildPackages(context(), request(['./hello-service'], 'service')),
    createDebianRoot('bookworm', ['python3', 'python3-pip', 'adduser']),
  ]);
}, 400_000);
afterAll(async () => {
  await root?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
  await index?.[Symbol.asyncDispose]();
});

describe('pkg build of a service', () => {
  it('makes one package of each distribution, the asked one first, named as the project', () => {
    expect(service.asked).toEqual(['hello-service']);
    expect(service.packages[0]).toMatchObject({ name: 'hello-service', version: '0.1-1~deb12', architecture: 'all' });
    const names = service.packages.map((one) => one.name);
    for (const name of ['flask', 'werkzeug', 'jinja2', 'markupsafe', 'click', 'itsdangerous', 'gunicorn']) {
      expect(names).toContain(`python3-${name}`);
    }
    const depends = getField(named(service, 'hello-service').control, 'Depends');
    expect(depends).toContain('python3-flask (>= 2.2)');
    expect(depends).toContain('python3-gunicorn (>= 20.1)');
    expect(depends).toContain('python3:any');
    expect(named(service, 'python3-markupsafe').architecture).not.toBe('all');
    expect(getField(named(service, 'python3-markupsafe').control, 'Depends')).toMatch(
      /python3 \(>= 3\.11~\), python3 \(<< 3\.12\).*libc6 \(>= 2\./,
    );
  });

  it('passes lintian without errors', async () => {
    const files = service.packages.map((one) => one.path);
    const { stdout } = await run({}, 'lintian', [
      '--allow-root',
      '--fail-on',
      'none',
      '--tag-display-limit',
      '0',
      ...files,
    ]);
    expect(stdout.split('\n').filter((line) => line.startsWith('E:'))).toEqual([]);
  });

  it('installs, imports, serves, keeps a changed conffile on upgrade, and is gone after purge', async () => {
    await newProject('newer', { version: '0.2.0' });
    const newer = await buildPackages(context(), request(['./newer'], 'newer'));
    const before = await root.snapshot();
    const files = await root.bring(service.packages.map((one) => one.path));
    await root.sh(`dpkg -i ${files.join(' ')}`);
    expect((await root.sh('hello-service --version')).stdout).toBe('0.1.0\n');
    expect((await root.sh('pip check')).stdout).toContain('No broken requirements');
    expect((await root.sh('dpkg -V')).stdout).toBe('');
    await root.sh('test -d /usr/lib/python3/dist-packages/flask/__pycache__');
    await root.sh('getent passwd hello-service');
    await root.sh('test -L /etc/systemd/system/multi-user.target.wants/hello-service.service');
    const port = await freePort(); // the root shares this machine's network, and with it whatever listens there
    const answer = `runuser -u hello-service -- hello-service >/tmp/log 2>&1 & server=$!
      python3 -c '
import time, urllib.request
for attempt in range(100):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:${port}/healthz").read().decode()); break
    except OSError: time.sleep(0.1)'
      kill $server || { cat /tmp/log >&2; false; }`;
    await root.sh(`sed -i s/8080/${port}/ /etc/hello-service/config.toml`);
    expect((await root.sh(answer)).stdout).toContain('"version":"0.1.0"');

    const [upgrade] = await root.bring([named(newer, 'hello-service').path]);
    await root.sh(`dpkg -i --force-confold ${upgrade}`);
    expect((await root.sh('hello-service --version; cat /etc/hello-service/config.toml')).stdout).toMatch(
      new RegExp(`^0\\.2\\.0\n.*${port}`, 's'),
    );

    const names = service.packages.map((one) => one.name).join(' ');
    await root.sh(`dpkg -r ${names}`);
    await root.sh('test -f /etc/hello-service/config.toml && ! test -e /usr/bin/hello-service');
    await root.sh('mkdir -p /var/lib/hello-service && touch /var/lib/hello-service/data');
    await root.sh(`dpkg -P ${names}`);
    expect(await root.snapshot()).toEqual(before);
    await root.sh('! getent passwd hello-service');
  });
});

describe('the same input', () => {
  it('gives the same bytes in another folder, at another time, under another umask and locale', async () => {
    await cp(join(world.path, 'hello-service'), join(world.path, 'elsewhere/deep'), { recursive: true });
    await using other = await createWorld(new Date('2031-05-05T05:05:05Z'));
    const umask = process.umask(0o077);
    let again: BuildResult;
    try {
      const env = { ...index.env, TZ: 'Asia/Tokyo', LANG: 'tr_TR.UTF-8' };
      const elsewhere = { ...other.context, env: { ...other.context.env, ...env } };
      again = await buildPackages(elsewhere, { ...request(['./elsewhere/deep'], 'again') });
    } finally {
      process.umask(umask);
    }
    expect(again.packages.map((one) => [one.name, one.sha256])).toEqual(
      service.packages.map((one) => [one.name, one.sha256]),
    );
  });

  it('is recognised: nothing is built again, and a lost file comes back from the cache', async () => {
    await rm(service.packages[1]!.path);
    const again = await buildPackages(context(), request(['./hello-service'], 'service'));
    expect(again).toMatchObject({ built: 1, reused: service.packages.length - 1 });
    expect(again.packages.map((one) => one.sha256)).toEqual(service.packages.map((one) => one.sha256));
  });

  it('never changes the bytes of a version: other content under the same version is refused', async () => {
    await cp(join(world.path, 'hello-service'), join(world.path, 'changed'), { recursive: true });
    await writeFile(join(world.path, 'changed/src/hello_service/extra.py'), 'X = 1\n');
    const before = await readFile(named(service, 'hello-service').path);
    await expect(buildPackages(context(), request(['./changed'], 'service'))).rejects.toMatchObject({
      code: 'version-exists',
      exitCode: 1,
    });
    expect(await readFile(named(service, 'hello-service').path)).toEqual(before);
  });
});

describe('what cannot be built', () => {
  it('an unresolvable requirement is explained and nothing is written', async () => {
    await expect(buildPackages(context(), request(['flask>=2', 'flask<1'], 'never'))).rejects.toMatchObject({
      code: 'unresolvable',
    });
    expect(await readdir(world.path)).not.toContain('never');
  });

  it('a back end that fails: the end of its log, and where the whole log is', async () => {
    await newProject('broken');
    await writeFile(join(world.path, 'broken/src/hello_service/__init__.py'), 'def broken(:\n');
    await writeFile(
      join(world.path, 'broken/pyproject.toml'),
      (await readFile(join(world.path, 'broken/pyproject.toml'), 'utf8')).replace(
        /^version = .*$/m,
        'dynamic = ["version"]',
      ),
    );
    const failure = await buildPackages(context(), request(['./broken'], 'never')).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'source-does-not-build', exitCode: 1 });
    expect((failure as Error).message).toContain('SyntaxError: invalid syntax');
    const log = /the whole log: (.*)/.exec((failure as { hint: string }).hint)![1]!;
    expect(await readFile(log, 'utf8')).toContain('SyntaxError');
    expect(await readdir(world.path)).not.toContain('never');
  });

  it('an index that is down', async () => {
    const dead = {
      PIP_INDEX_URL: 'http://127.0.0.1:9/simple',
      PIP_EXTRA_INDEX_URL: '',
      PIP_FIND_LINKS: '',
      PIP_CONFIG_FILE: '/dev/null',
    };
    await expect(planBuild(context(dead), request(['flask'], 'never'))).rejects.toMatchObject({
      code: 'index-unreachable',
    });
  });
});

describe('an index that is down among others', () => {
  it('the others are used, and it is said', async () => {
    const { PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS } = {
      PIP_EXTRA_INDEX_URL: '',
      PIP_FIND_LINKS: '',
      ...index.env,
    } as Record<string, string>;
    const env = {
      PIP_INDEX_URL: 'http://127.0.0.1:9/simple',
      PIP_EXTRA_INDEX_URL: `${PIP_INDEX_URL ?? ''} ${PIP_EXTRA_INDEX_URL}`.trim() || (await pipsOwnIndex()),
      PIP_FIND_LINKS: PIP_FIND_LINKS!,
      PIP_NO_INDEX: '0',
    };
    const plan = await planBuild(context(env), request(['markupsafe'], 'never'));
    expect(plan.packages).toMatchObject([{ name: 'python3-markupsafe', why: 'asked for', decision: 'build' }]);
    expect(world.warnings.join()).toContain('127.0.0.1 cannot be reached');
  });
});
