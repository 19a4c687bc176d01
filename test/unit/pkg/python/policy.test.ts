import { describe, expect, it } from 'vitest';
import { planClosure } from '../../../../src/pkg/python/closure.ts';
import { markerEnvironment, type Resolution, type Resolved } from '../../../../src/pkg/python/pip.ts';
import { decide, type Policy, type PolicyInput } from '../../../../src/pkg/python/policy.ts';
import { epochOf, type SuiteIndex, upstreamOf } from '../../../../src/pkg/suite-index.ts';

const environment = markerEnvironment({ version: '3.11', machine: 'x86_64' });
const one = (name: string, version: string, ...requiresDist: string[]): Resolved => ({
  name,
  version,
  url: `https://example.org/${name}.whl`,
  sha256: undefined,
  requested: name === 'app',
  requiresDist,
});
const suiteOf = (rows: Record<string, [version: string, ...depends: string[]]>): SuiteIndex =>
  new Map(Object.entries(rows).map(([name, [version, ...depends]]) => [name, { name, version, depends }]));
const plain: Policy = { mode: 'auto', present: new Set(), build: new Set(), vendor: new Set(), drop: new Set() };

function plan(
  distributions: Resolved[],
  suite: SuiteIndex,
  policy: Partial<Policy> = {},
  more: Partial<PolicyInput> = {},
) {
  const resolution: Resolution = { pipVersion: '23', environment, distributions };
  const input: PolicyInput = {
    resolution,
    asked: new Set(['app']),
    askedExtras: new Map(),
    applications: new Set(['app']),
    names: new Map([['app', 'app']]),
    suite,
    policy: { ...plain, ...policy },
    ...more,
  };
  const decisions = decide(input);
  const closure = planClosure(resolution, {
    revision: '1~deb12',
    names: input.names,
    askedExtras: input.askedExtras,
    decisions: decisions.of,
  });
  return {
    kinds: Object.fromEntries([...decisions.of].map(([name, decision]) => [name, decision.kind])),
    why: (name: string) => decisions.of.get(name)?.why,
    problems: decisions.problems,
    closure: closure.packages,
    app: closure.packages.find((row) => row.debianName === 'app')!,
  };
}

describe('auto', () => {
  it('leaves to the suite what fits, builds what it lacks, and does not look behind what it leaves', () => {
    const suite = suiteOf({ 'python3-flask': ['2.2.2-3', 'python3-click'] });
    const { kinds, app } = plan(
      [
        one('app', '1', 'flask>=2.2', 'tiny'),
        one('flask', '3.1', 'click>=8.1'),
        one('click', '8.2'),
        one('tiny', '0.1'),
      ],
      suite,
    );
    expect(kinds).toEqual({ app: 'build', flask: 'present', tiny: 'build' });
    expect(app.depends).toBe('python3-flask (>= 2.2), python3-tiny');
  });

  it('vendors what the suite has in another version, and its needs become those of the application', () => {
    const suite = suiteOf({ 'python3-flask': ['2.2.2-3', 'python3-click'], 'python3-click': ['8.1.3-2'] });
    const { kinds, app, closure, why } = plan(
      [one('app', '1', 'flask>=3'), one('flask', '3.1', 'click>=8.1'), one('click', '8.2')],
      suite,
    );
    expect(kinds).toEqual({ app: 'build', flask: 'vendor', click: 'present' });
    expect(why('flask')).toBe('needed by app; the suite has 2.2.2-3, and app wants >=3');
    expect(closure).toHaveLength(1);
    expect(app.vendored.map((row) => row.name)).toEqual(['flask']);
    expect(app.depends).toBe('python3-click (>= 8.1)');
  });

  it('brings along whoever would import the vendored one: of ours, and of the suite through others', () => {
    const suite = suiteOf({
      'python3-werkzeug': ['2.2.2-3'],
      'python3-flask': ['2.2.2-3', 'python3-werkzeug'],
      'python3-flask-login': ['0.6-1', 'python3-flask'],
    });
    const { kinds, why } = plan(
      [
        one('app', '1', 'werkzeug>=3', 'flask-login', 'ours'),
        one('werkzeug', '3.1'),
        one('flask-login', '0.7', 'flask'),
        one('flask', '3.1', 'werkzeug>=3'),
        one('ours', '1', 'werkzeug'),
      ],
      suite,
    );
    expect(kinds).toEqual({
      app: 'build',
      werkzeug: 'vendor',
      'flask-login': 'vendor',
      flask: 'vendor',
      ours: 'vendor',
    });
    expect(why('flask-login')).toContain("the suite's own uses werkzeug, which is vendored");
  });

  it('builds instead where nobody can carry: a library was asked for', () => {
    const suite = suiteOf({ 'python3-flask': ['2.2.2-3'] });
    expect(
      plan([one('app', '1', 'flask>=3'), one('flask', '3.1')], suite, {}, { applications: new Set() }).kinds,
    ).toEqual({ app: 'build', flask: 'build' });
  });

  it('is not deceived by an epoch, and writes it into the relation', () => {
    const suite = suiteOf({ 'python3-django': ['3:3.2.25-0+deb12u1'] });
    const django = one('Django', '4.2');
    expect(plan([one('app', '1', 'django>=4.2'), django], suite).kinds.django).toBe('vendor');
    expect(plan([one('app', '1', 'django>=3.2,<4'), django], suite).app.depends).toBe(
      'python3-django (<< 3:4~~), python3-django (>= 3:3.2)',
    );
  });

  it('relates to the version itself where Debian spells it so that the range would miss it', () => {
    const suite = suiteOf({ 'python3-click': ['8.2.0+0.really.8.1.8-1'] });
    expect(plan([one('app', '1', 'click<8.2'), one('click', '8.1')], suite).app.depends).toBe(
      'python3-click (>= 8.2.0+0.really.8.1.8-1)',
    );
  });
});

describe('the other modes and the overrides', () => {
  const closure = [
    one('app', '1', 'flask>=2', 'yaml-x'),
    one('flask', '3.1', 'click'),
    one('click', '8.2'),
    one('yaml-x', '6'),
  ];
  const suite = suiteOf({ 'python3-flask': ['2.2.2-3'], 'python3-click': ['8.1.3-2'] });

  it.each([
    ['packages', { flask: 'build', click: 'build', 'yaml-x': 'build' }],
    ['bundle', { flask: 'vendor', click: 'vendor', 'yaml-x': 'vendor' }],
  ] as const)('%s', (mode, expected) => {
    expect(plan(closure, suite, { mode }).kinds).toEqual({ app: 'build', ...expected });
  });

  it('distro names everything that the suite lacks', () => {
    const { problems, kinds } = plan(closure, suite, { mode: 'distro' });
    expect(kinds.flask).toBe('present');
    expect(problems).toEqual(['yaml-x: needed by app; the suite has no python3-yaml-x']);
  });

  it('build, vendor and drop win over the mode', () => {
    expect(plan(closure, suite, { build: new Set(['flask']) }).kinds).toEqual({
      app: 'build',
      flask: 'build',
      click: 'present',
      'yaml-x': 'build',
    });
    expect(plan(closure, suite, { mode: 'packages', vendor: new Set(['yaml-x']) }).kinds['yaml-x']).toBe('vendor');
    const dropped = plan(closure, suite, { drop: new Set(['flask']) });
    expect(dropped.kinds).toEqual({ app: 'build', flask: 'drop', 'yaml-x': 'build' });
    expect(dropped.app.depends).toBe('python3-yaml-x');
  });

  it('refuses a package for everybody that would need what only an application has inside', () => {
    const policy = { mode: 'packages', vendor: new Set(['click']), build: new Set(['flask']) } as const;
    expect(() => plan(closure, suite, policy)).toThrow(expect.objectContaining({ code: 'vendor-public' }));
  });
});

it.each([
  ['3:3.2.25-0+deb12u1', '3.2.25', '3:'],
  ['2.28.1+dfsg-1', '2.28.1', ''],
  ['1.0~rc1-2', '1.0rc1', ''],
  ['8.2.0+0.really.8.1.8-1', '8.1.8', ''],
  ['1.2+really1.1-1', '1.1', ''],
  ['6.0+git20220101.abcdef-1', '6.0', ''],
  ['0.8.4+ds1-1', '0.8.4', ''],
  ['1.5+repack-1', '1.5', ''],
  ['2022.7-1', '2022.7', ''],
])('the upstream version of %s is %s', (version, upstream, epoch) => {
  expect([upstreamOf(version), epochOf(version)]).toEqual([upstream, epoch]);
});
