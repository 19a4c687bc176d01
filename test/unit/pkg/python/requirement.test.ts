import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { markerEnvironment } from '../../../../src/pkg/python/pip.ts';
import {
  markerHolds,
  normaliseName,
  parseMarker,
  parseRequirement,
  RequirementError,
} from '../../../../src/pkg/python/requirement.ts';

const bookworm = markerEnvironment({ version: '3.11', machine: 'x86_64' });
const holds = (text: string, extra = '') => markerHolds(parseMarker(text), bookworm, extra);

describe('parseRequirement', () => {
  it.each([
    ['flask', 'flask', [], []],
    ['Flask >= 2.2 , <4', 'Flask', [], ['>=2.2', '<4']],
    ['uvicorn[standard,Http_Tools](==0.30.*)', 'uvicorn', ['standard', 'http-tools'], ['==0.30.*']],
    ['a.b-c ~=1.4.2', 'a.b-c', [], ['~=1.4.2']],
    ['x===2004d0', 'x', [], undefined],
  ])('%s', (line, name, extras, clauses) => {
    if (clauses === undefined) return expect(() => parseRequirement(line)).toThrow(RequirementError);
    const found = parseRequirement(line);
    expect([found.name, found.extras]).toEqual([name, extras]);
    expect(found.clauses.map((one) => one.operator + one.text)).toEqual(clauses);
  });

  it('tells a URL and a marker from a specifier', () => {
    const found = parseRequirement('pip @ https://example.org/pip-1.zip ; python_version < "3"');
    expect(found).toMatchObject({ name: 'pip', url: 'https://example.org/pip-1.zip', clauses: [] });
    expect(found.marker).toBeDefined();
  });

  it.each(['', '-e .', '>=1', 'a b', 'a >>1', 'a ==', 'a; nonsense', 'a; python_version <', 'a ~=1', '_x'])(
    'refuses %j',
    (line) => {
      expect(() => parseRequirement(line)).toThrow(RequirementError);
    },
  );

  it('throws nothing else, whatever it is given', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), (line) => {
        try {
          parseRequirement(line);
        } catch (error) {
          expect(error).toBeInstanceOf(RequirementError);
        }
      }),
    );
  });
});

describe('markers, for the target', () => {
  it.each([
    ['python_version < "3.9"', false],
    ['python_version >= "3.9"', true],
    ["'3.10' <= python_version", true],
    ['python_full_version < "3.11.0a7"', false],
    ['sys_platform == "win32" or os_name == "posix"', true],
    ['sys_platform == "win32" and os_name == "posix" or python_version == "3.11"', true],
    ['(sys_platform == "win32" or os_name == "posix") and python_version == "3.8"', false],
    ['platform_machine in "x86_64 aarch64"', true],
    ['platform_machine not  in "x86_64 aarch64"', false],
    ['platform_python_implementation != "PyPy"', true],
    ['python_implementation == "CPython"', true],
    ['os.name == "nt"', false],
    ['python_version == "3.*"', true],
    ['extra == "test"', false],
    ['python_version ~= "3.8"', true],
  ])('%s: %s', (text, expected) => {
    expect(holds(text)).toBe(expected);
  });

  it('compares extras as names', () => {
    expect(holds('extra == "Http_Tools"', 'http-tools')).toBe(true);
    expect(holds('extra != "x"', 'y')).toBe(true);
  });
});

it('normaliseName', () => {
  expect(['Flask_SQLAlchemy', 'zope.interface', 'a--_.b', 'PyYAML'].map(normaliseName)).toEqual([
    'flask-sqlalchemy',
    'zope-interface',
    'a-b',
    'pyyaml',
  ]);
});
