/** What of an npm tree is left to the suite: by its versions, by everybody's ranges, by the configuration. */
import { describe, expect, it } from 'vitest';
import { formatRelations } from '../../../src/deb/relation.ts';
import type { NodeModule } from '../../../src/pkg/node/arborist.ts';
import { planNodePackages } from '../../../src/pkg/node/plan.ts';
import { decideNode, type NodePolicyInput, npmVersionOf, relationsOnPresent } from '../../../src/pkg/node/policy.ts';

type Needs = Readonly<Record<string, readonly [spec: string, to: string]>>;

function module(location: string, version: string, needs: Needs = {}, more: object = {}): NodeModule {
  const name = location.replace(/^.*node_modules\//, '');
  const edges = Object.entries(needs).map(([to, [spec, place]]) => ({
    name: to,
    spec,
    kind: 'prod' as const,
    to: place,
  }));
  const found = { inBundle: false, integrity: 'sha512-x', source: undefined };
  return { name, version, location, manifest: { name, ...more }, ...found, edges };
}

const at = (name: string) => `node_modules/${name}`;
/** app needs a and b; both need shared, b another line of it; a needs deep. */
const TREE: NodeModule[] = [
  module('', '', { app: ['*', at('app')] }),
  module(at('app'), '1.0.0', { a: ['^1.0.0', at('a')], b: ['^2.0.0', at('b')], shared: ['^3.0.0', at('shared')] }),
  module(at('a'), '1.5.0', { deep: ['^1.0.0', at('deep')], shared: ['^3.1.0', at('shared')] }),
  module(at('b'), '2.1.0', { shared: ['^4.0.0', 'node_modules/b/node_modules/shared'] }),
  module('node_modules/b/node_modules/shared', '4.0.0'),
  module(at('deep'), '1.0.0'),
  module(at('shared'), '3.2.0'),
];
const suite = (packages: Readonly<Record<string, string>>): NodePolicyInput['suite'] =>
  new Map(
    Object.entries(packages).map(([name, version]) => [name, { name, version, depends: [], architecture: 'all' }]),
  );
const decide = (more: Partial<NodePolicyInput>) =>
  decideNode({
    modules: TREE,
    asked: 'app',
    mode: 'auto',
    policy: {},
    suite: suite({}),
    architecture: 'amd64',
    ...more,
  });
const locations = (modules: readonly NodeModule[]) => modules.map((one) => one.location);

describe('decideNode', () => {
  it('leaves to the suite what everybody takes, with all that only this needs', () => {
    const { kept, present, table } = decide({ suite: suite({ 'node-a': '1.4.2+~1.0-1', 'node-shared': '3.2.1-2' }) });
    expect(locations(kept)).toEqual(['', at('app'), at('b'), 'node_modules/b/node_modules/shared']);
    expect([...present].map(([location, one]) => [location, one.path])).toEqual([
      [at('a'), '/usr/share/nodejs/a'],
      [at('shared'), '/usr/share/nodejs/shared'],
    ]);
    expect(table.map((one) => [one.name, one.decision])).toEqual([
      ['node-a', 'present'],
      ['node-shared', 'present'],
      ['shared', 'vendor'],
    ]);
    expect(table.at(-1)!.why).toBe('needed by b; the suite has 3.2.1-2, and b wants ^4.0.0');
  });

  it('keeps what one of many does not take, and looks again at what that then needs', () => {
    const { kept, present } = decide({
      suite: suite({ 'node-a': '0.9.0-1', 'node-shared': '3.0.5-1', 'node-deep': '1.0.0-1' }),
    });
    // a stays, so its need of ^3.1.0 keeps shared, too
    expect(locations(kept)).toContain(at('a'));
    expect(locations(kept)).toContain(at('shared'));
    expect([...present.keys()]).toEqual([at('deep')]);
  });

  it('finds names that the configuration gives, native modules, and what others provide', () => {
    const packages: NodePolicyInput['suite'] = new Map([
      ['libjs-a', { name: 'libjs-a', version: '1:1.9.0-1', depends: [], architecture: 'amd64' }],
      [
        'node-bundle',
        {
          name: 'node-bundle',
          version: '7.0-1',
          depends: [],
          architecture: 'all',
          provides: [['node-shared', '3.9.0']],
        },
      ],
    ]);
    const { present } = decide({ suite: packages, policy: { rename: { a: 'libjs-a' } } });
    expect(present.get(at('a'))).toMatchObject({ debianName: 'libjs-a', path: '/usr/lib/x86_64-linux-gnu/nodejs/a' });
    expect(present.get(at('shared'))).toMatchObject({ debianName: 'node-shared', version: '3.9.0' });
    expect(formatRelations(relationsOnPresent(present.get(at('a'))!, '^1.0.0'))).toBe(
      'libjs-a (>= 1:1.0.0), libjs-a (<< 1:2~~)',
    );
  });

  it('obeys present, vendor and drop, and says what distro lacks', () => {
    const there = suite({ 'node-a': '1.4.2-1', 'node-b': '9.0.0-1', 'node-shared': '3.2.0-1' });
    expect([...decide({ suite: there, policy: { vendor: ['a', 'shared'] } }).present]).toEqual([]);
    expect(decide({ suite: there, mode: 'packages', policy: { present: ['b'] } }).present.has(at('b'))).toBe(true);
    const dropped = decide({ mode: 'packages', policy: { drop: ['b'] } });
    expect(locations(dropped.kept)).toEqual(['', at('app'), at('a'), at('deep'), at('shared')]);
    expect(dropped.table).toEqual([expect.objectContaining({ name: 'b', decision: 'drop' })]);
    expect(decide({ suite: there, mode: 'distro' }).problems).toEqual([
      'b 2.1.0: needed by app; the suite has 9.0.0-1, and app wants ^2.0.0',
      'shared 4.0.0: needed by b; the suite has 3.2.0-1, and b wants ^4.0.0',
    ]);
  });

  it("keeps modules that 'import' what they need: Debian's folders are not looked at for these", () => {
    const modules = TREE.map((one) =>
      one.name === 'a' ? { ...one, manifest: { ...one.manifest, type: 'module' } } : one,
    );
    const { present, table } = decide({ modules, suite: suite({ 'node-a': '1.4.2-1', 'node-deep': '1.0.0-1' }) });
    expect([...present.keys()]).toEqual([at('deep')]);
    expect(table.find((one) => one.name === 'a')).toMatchObject({
      decision: 'vendor',
      why: expect.stringContaining('import'),
    });
  });
});

it('planNodePackages relates to the suite and links to it, in one package and in many', () => {
  const { kept, present } = decide({ suite: suite({ 'node-a': '1.4.2-1', 'node-shared': '3.2.1-2' }) });
  const options = {
    appName: 'app',
    isProject: false,
    asked: 'app',
    revision: '1',
    nodeVersion: '18.20.4',
    suite: 'bookworm',
    present,
  };
  const [bundle] = planNodePackages(kept, { ...options, mode: 'bundle' }).packages;
  const relations = 'node-a (<< 2~~), node-a (>= 1.0.0), node-shared (<< 4~~), node-shared (>= 3.0.0), nodejs';
  expect(formatRelations(bundle!.depends)).toBe(relations);
  expect(Object.fromEntries(bundle!.suiteLinks)).toEqual({
    [at('a')]: '/usr/share/nodejs/a',
    [at('shared')]: '/usr/share/nodejs/shared',
  });
  const { packages } = planNodePackages(kept, { ...options, mode: 'packages', rename: { b: 'node-bee' } });
  expect(packages.map((one) => one.debianName)).toEqual(['app', 'node-app-1', 'node-bee-2', 'node-shared-4']);
  expect([...packages[1]!.suiteLinks.keys()]).toEqual([at('a'), at('shared')]);
  expect(formatRelations(packages[1]!.depends)).toContain('node-a (>= 1.0.0)');
});

it.each([
  ['7.3.5+~7.3.9-2', '7.3.5'],
  ['1.2-1', '1.2.0'],
  ['8.0.0+dfsg-1', '8.0.0'],
  ['2:5.0.1+really4.2.0-1', '4.2.0'],
  ['0~20180101-1', undefined],
])('npmVersionOf(%s) is %s', (debian, npm) => expect(npmVersionOf(debian)).toBe(npm));
