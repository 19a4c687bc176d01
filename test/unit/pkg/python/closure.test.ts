import { describe, expect, it } from 'vitest';
import { type ClosureOptions, planClosure } from '../../../../src/pkg/python/closure.ts';
import { markerEnvironment, type Resolution, type Resolved } from '../../../../src/pkg/python/pip.ts';

const environment = markerEnvironment({ version: '3.11', machine: 'x86_64' });
const one = (name: string, version: string, requiresDist: readonly string[] = [], requested = false): Resolved => ({
  name,
  version,
  url: `https://example.org/${name}.whl`,
  sha256: 'a'.repeat(64),
  requested,
  requiresDist,
});
const plan = (distributions: Resolved[], options: Partial<ClosureOptions> = {}) => {
  const resolution: Resolution = { pipVersion: '23', environment, distributions };
  return planClosure(resolution, { revision: '1~deb12', names: new Map(), askedExtras: new Map(), ...options });
};
const rows = (...args: Parameters<typeof plan>) =>
  plan(...args).packages.map((row) => [row.debianName, row.version, row.depends, row.why]);

describe('planClosure', () => {
  it('names, versions, relations, and who needs whom; markers of other machines are left out', () => {
    expect(
      rows([
        one('Flask', '3.1.3', ['click>=8.1.3', 'Jinja2>=3.1.2,<4', 'colorama; sys_platform == "win32"'], true),
        one('click', '8.5.0'),
        one('Jinja2', '3.1.6', ['MarkupSafe>=2.0']),
        one('MarkupSafe', '3.0.3rc1'),
      ]),
    ).toEqual([
      [
        'python3-flask',
        '3.1.3-1~deb12',
        'python3-click (>= 8.1.3), python3-jinja2 (<< 4~~), python3-jinja2 (>= 3.1.2)',
        'asked for',
      ],
      ['python3-click', '8.5-1~deb12', '', 'needed by python3-flask'],
      ['python3-jinja2', '3.1.6-1~deb12', 'python3-markupsafe (>= 2.0)', 'needed by python3-flask'],
      ['python3-markupsafe', '3.0.3~rc1-1~deb12', '', 'needed by python3-jinja2'],
    ]);
  });

  it('gives an extra a package of its own, so that the plain one is the same for everybody', () => {
    const uvicorn = one('uvicorn', '0.30', [
      'h11>=0.8',
      'httptools>=0.5; extra == "standard"',
      'h11>=0.9; extra == "standard"',
    ]);
    const closure = [
      one('app', '1', ['uvicorn[standard]>=0.2'], true),
      uvicorn,
      one('h11', '0.14'),
      one('httptools', '0.6'),
    ];
    expect(rows(closure)).toEqual([
      ['python3-app', '1.0-1~deb12', 'python3-uvicorn (>= 0.2), python3-uvicorn+standard', 'asked for'],
      ['python3-uvicorn', '0.30-1~deb12', 'python3-h11 (>= 0.8)', 'needed by python3-app'],
      ['python3-h11', '0.14-1~deb12', '', 'needed by python3-uvicorn, python3-uvicorn+standard'],
      ['python3-httptools', '0.6-1~deb12', '', 'needed by python3-uvicorn+standard'],
      [
        'python3-uvicorn+standard',
        '0.30-1~deb12',
        'python3-h11 (>= 0.9), python3-httptools (>= 0.5), python3-uvicorn (= 0.30-1~deb12)',
        'needed by python3-app',
      ],
    ]);
  });

  it('takes extras that name other extras of the same distribution', () => {
    const all = one('x', '1', ['a; extra == "one"', 'x[one]; extra == "all"'], true);
    const names = rows([all, one('a', '1')], { askedExtras: new Map([['x', ['all']]]) });
    expect(names.map(([name, , depends]) => [name, depends])).toEqual([
      ['python3-x', ''],
      ['python3-a', ''],
      ['python3-x+all', 'python3-x (= 1.0-1~deb12), python3-x+one'],
      ['python3-x+one', 'python3-a, python3-x (= 1.0-1~deb12)'],
    ]);
  });

  it('uses the names that Debian uses, and those that projects choose', () => {
    const names = rows([one('PyYAML', '6', [], true), one('My_App', '1', [], true)], {
      names: new Map([['my-app', 'shop']]),
    });
    expect(names.map(([name]) => name)).toEqual(['python3-yaml', 'shop']);
  });

  it('refuses versions that are none, and says what Debian cannot', () => {
    expect(() => plan([one('x', '1.0-x-y')])).toThrow(expect.objectContaining({ code: 'version-syntax' }));
    expect(plan([one('a', '1', ['b===1.0']), one('b', '1.0')]).warnings[0]).toContain("a needs b: '===1.0'");
  });
});
