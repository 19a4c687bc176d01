/** The report of a release: what was made, where it lies, what to try next. */
import { join } from 'node:path';
import type { BinaryPackage } from '../deb/package.ts';
import type { ReleaseReport } from '../release/flow.ts';
import { formatTestReport } from '../vm/test.ts';
import { table } from './command.ts';

function packageLines(packages: readonly BinaryPackage[]): string {
  return table(packages.map((one) => [`  ${one.name}`, one.version, one.path]));
}

/** Text for people; `next` are commands to try, with what each does. */
export function formatReport(report: ReleaseReport, next: readonly (readonly [string, string])[]): string {
  const { repository, base, test } = report;
  const artefacts = [
    ['  repository', repository.dir],
    ['  what a web server serves', join(repository.dir, 'public')],
    ['  signing key', repository.key],
    ...(base ? [['  base image', base.disk]] : []),
    ...(test
      ? [
          ['  console of the machine', test.consoleLog],
          ['  what ran in it', test.transcript],
        ]
      : []),
  ];
  return [
    `packages (${report.packages.length}; ${report.built} built now, ${report.reused} reused):`,
    packageLines(report.packages),
    '',
    'artefacts:',
    table(artefacts),
    ...(test ? ['', formatTestReport(test).trimEnd()] : []),
    ...(next.length > 0 ? ['', 'try next:', table(next.map(([command, what]) => [`  ${command}`, `# ${what}`]))] : []),
  ].join('\n');
}
