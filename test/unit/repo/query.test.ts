import { describe, expect, it } from 'vitest';
import { formatMember, hasWords, parseFilter } from '../../../src/repo/query.ts';
import { dependencies, reverseDependencies } from '../../../src/repo/relations.ts';
import { makeMember } from '../../support/members.ts';

const MEMBERS = [
  makeMember({
    name: 'python3-yaml',
    version: '6.0-1',
    architecture: 'amd64',
    source: 'pyyaml',
    fields: { Section: 'python' },
  }),
  makeMember({
    name: 'python3-flask',
    version: '2.2-1',
    fields: { Section: 'python', Depends: 'python3-yaml (>= 5), python3:any' },
  }),
  makeMember({
    name: 'hello',
    version: '1:1.0~rc1',
    architecture: 'arm64',
    fields: { Section: 'misc', Provides: 'greeter (= 2)' },
  }),
  makeMember({
    name: 'hello',
    version: '2.10',
    suite: 'trixie',
    component: 'extra',
    fields: { Depends: 'greeter (>= 1) | python3-flask' },
  }),
];

const meant = (filter: string) =>
  MEMBERS.filter(parseFilter(filter)).map(({ package: item }) => `${item.name}=${item.version}`);
const [YAML, FLASK, RC, HELLO] = ['python3-yaml=6.0-1', 'python3-flask=2.2-1', 'hello=1:1.0~rc1', 'hello=2.10'];

describe('a filter', () => {
  it.each<[string, string[]]>([
    ['hello', [RC!, HELLO!]],
    ['hello (<< 1:1.0)', [RC!, HELLO!]],
    ['hello (>= 1:1.0~rc1)', [RC!]],
    ['hello {arm64}', [RC!]],
    ['hello_2.10_all', [HELLO!]],
    ['python3-*', [YAML!, FLASK!]],
    ['*-?aml', [YAML!]],
    ['Name (~ ^python3-), $Version (>= 3)', [YAML!]],
    ['Name (~ ^python3-(yaml|flask)$)', [YAML!, FLASK!]],
    ['Section (= misc) | Suite (= trixie)', [RC!, HELLO!]],
    ['!Section (= python)', [RC!, HELLO!]],
    ['!(hello | Name (= python3-yaml))', [FLASK!]],
    ['Name (= hello), (Suite (= trixie) | $Architecture (= amd64))', [HELLO!]],
    ['Depends', [FLASK!, HELLO!]],
    ['$Source (= pyyaml)', [YAML!]],
    ['Component (= extra)', [HELLO!]],
    ['$Version (= 2.10-0)', [HELLO!]],
    ['Description (~ "about (hello)")', [RC!, HELLO!]],
    ['?name(^py)', [YAML!, FLASK!]],
    ['?and(?section(python), ?architecture(all))', [FLASK!]],
    ['?or(?exact-name(hello), ~npy)', [YAML!, FLASK!, RC!, HELLO!]],
    ['?not(?source-package(^py))', [RC!, HELLO!]],
    ['~epyyaml', [YAML!]],
  ])('%s', (filter, expected) => expect(meant(filter)).toEqual(expected));

  it.each(['', 'Name (', 'Name (~ [)', 'Name ( x )', 'hello,', '?what(x)', 'hello )', '?name(x', 'hello (2.0)'])(
    'that makes no sense is refused: %j',
    (filter) => expect(() => parseFilter(filter)).toThrow(expect.objectContaining({ code: 'query-syntax' })),
  );
});

describe('asking', () => {
  it('prints any field', () => {
    expect(
      formatMember(MEMBERS[0]!, `\${Package}\\t\${Version} \${Section} \${Suite}/\${Component} [\${Nothing}]\\n`),
    ).toBe('python3-yaml\t6.0-1 python bookworm/main []\n');
  });

  it('finds words in names and descriptions', () => {
    expect(MEMBERS.filter((member) => hasWords(member, ['ABOUT', 'flask']))).toEqual([MEMBERS[1]]);
  });

  it('knows who asks for whom, also by what is provided', () => {
    expect(dependencies(MEMBERS, 'python3-flask')).toEqual([
      { package: 'python3-flask', version: '2.2-1', field: 'Depends', relation: 'python3-yaml (>= 5)', metBy: [YAML] },
      { package: 'python3-flask', version: '2.2-1', field: 'Depends', relation: 'python3:any', metBy: [] },
    ]);
    expect(reverseDependencies(MEMBERS, 'python3-yaml').map((one) => one.package)).toEqual(['python3-flask']);
    expect(reverseDependencies(MEMBERS, 'hello')).toMatchObject([{ package: 'hello', version: '2.10', metBy: [RC] }]);
    expect(() => dependencies(MEMBERS, 'none')).toThrow(expect.objectContaining({ code: 'no-such-package' }));
  });
});
