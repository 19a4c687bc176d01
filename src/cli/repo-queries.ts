/** `buildkit repo`: asking what is in it. */
import type { Member } from '../repo/catalog.ts';
import { type Cli, type Output, table } from './command.ts';
import { openRepo, type Place, type Row } from './repo-place.ts';

interface QueryOptions extends Place {
  readonly suite?: string;
  readonly filter?: string;
  readonly format?: string;
}

export function addQueries(row: Row, cli: Cli): void {
  row('list [suite]', 'list what is in the suites, published or not')
    .option('--filter <text>', "which packages: 'Name (~ ^python3-), $Version (>= 2)' or '?section(net)'")
    .option('--format <text>', `how: '\${Package} \${Version}\\n'; any field, Suite, Component, Filename, Size`)
    .action(
      cli.action(async (cx, suite: string | undefined, options: QueryOptions) => {
        const query = await import('../repo/query.ts');
        using repo = await openRepo(cx, options);
        const filter = options.filter === undefined ? undefined : query.parseFilter(options.filter);
        return show([...repo.members(suite, filter)], options, query);
      }),
    );

  row(
    'search <words...>',
    'packages whose name or description has all of the words; or that a filter takes: Name (~ ^lib)',
  )
    .option('--suite <name>', 'only in this suite')
    .action(
      cli.action(async (cx, words: string[], options: QueryOptions) => {
        const query = await import('../repo/query.ts');
        using repo = await openRepo(cx, options);
        const isFilter = words.some((word) => /[($|]/.test(word));
        const found = isFilter
          ? [...repo.members(options.suite, query.parseFilter(words.join(' ')))]
          : [...repo.members(options.suite)].filter((member) => query.hasWords(member, words));
        const rows = found.map((member) => [
          member.suite,
          member.package.name,
          member.package.version,
          query.synopsisOf(member),
        ]);
        return { data: found.map(query.memberData), text: table(rows) };
      }),
    );

  row('show <filter>', 'all that is known of a package: its stanza in the index')
    .option('--suite <name>', 'only in this suite')
    .action(
      cli.action(async (cx, text: string, options: QueryOptions) => {
        const query = await import('../repo/query.ts');
        using repo = await openRepo(cx, options);
        const found = [...repo.members(options.suite, query.parseFilter(text))];
        const stanzas = [...new Set(found.map((member) => query.fullStanza(member)))];
        return { data: found.map(query.memberData), text: stanzas.join('\n'), exitCode: found.length > 0 ? 0 : 1 };
      }),
    );

  for (const [verb, description] of [
    ['depends', 'what a package asks for, and what in the suite meets it'],
    ['rdepends', 'packages that ask for it'],
  ] as const) {
    row(`${verb} <name>`, description)
      .option('--suite <name>', 'in this suite; default: the first')
      .action(
        cli.action(async (cx, name: string, options: QueryOptions) => {
          const { dependencies, reverseDependencies } = await import('../repo/relations.ts');
          using repo = await openRepo(cx, options);
          const members = [...repo.members(options.suite ?? repo.suites()[0]!.name)];
          const found = verb === 'depends' ? dependencies(members, name) : reverseDependencies(members, name);
          const rows = found.map((one) => [one.package, one.version, one.field, one.relation, one.metBy.join(', ')]);
          return { data: found, text: table(rows) };
        }),
      );
  }
}

function show(found: readonly Member[], options: QueryOptions, query: typeof import('../repo/query.ts')): Output {
  const { format } = options;
  const data = found.map(query.memberData);
  if (format !== undefined) return { data, text: found.map((member) => query.formatMember(member, format)).join('') };
  const rows = found.map(({ suite, component, package: item }) => [
    suite,
    component,
    item.name,
    item.version,
    item.architecture,
  ]);
  return { data, text: table(rows) };
}
