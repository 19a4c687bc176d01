/**
 * What this machine's apt reads: its Packages indexes, and which of them are Debian's.
 *
 * Secret: what `apt-get indextargets` says (apt-get(8); the fields of /usr/share/doc/apt-doc/acquire-additional-files.md).
 */
import type { RunContext } from '../core/context.ts';
import { run, start } from '../core/run.ts';
import { type Paragraph, readParagraphs } from './control.ts';
import { suiteNames } from './suites.ts';

/** One Packages index that this machine's apt reads. */
export interface IndexTarget {
  /** Ends with a slash. */
  readonly uri: string;
  /** As the sources name it: `bookworm-updates`, or `stable`. */
  readonly release: string;
  /** From its Release file; empty before the first `apt-get update`. */
  readonly codename: string;
  readonly origin: string;
  readonly component: string;
  readonly architecture: string;
  /** Where apt keeps it, absolute, compressed or not: `readAptList` reads it. */
  readonly file: string;
}

const FORMAT = ['REPO_URI', 'RELEASE', 'CODENAME', 'ORIGIN', 'COMPONENT', 'ARCHITECTURE', 'FILENAME']
  .map((name) => `$(${name})`)
  .join('|');
const HELPER = '/usr/lib/apt/apt-helper';

/** @throws ToolError where there is no apt-get */
export async function readIndexTargets(context: RunContext): Promise<IndexTarget[]> {
  const { stdout } = await run(context, 'apt-get', ['indextargets', '--format', FORMAT, 'Created-By: Packages']);
  return parseIndexTargets(stdout);
}

/** Lines of `apt-get indextargets`; what apt does not know it prints as its own placeholder. */
export function parseIndexTargets(text: string): IndexTarget[] {
  return text.split('\n').flatMap((line) => {
    if (line === '') return [];
    const cells = line.split('|').map((cell) => (cell.startsWith('$(') ? '' : cell));
    const [uri = '', release = '', codename = '', origin = '', component = '', architecture = '', file = ''] = cells;
    return uri === '' || release === '' ? [] : [{ uri, release, codename, origin, component, architecture, file }];
  });
}

/** The stanzas of an index that apt keeps, in whatever compression it does. */
export async function* readAptList(context: RunContext, file: string): AsyncGenerator<Paragraph> {
  await using helper = start(context, HELPER, ['cat-file', file], { stdio: { stdin: 'ignore' } });
  yield* readParagraphs(helper.stdout as AsyncIterable<Uint8Array>, { file });
  await helper.ended;
}

/** Before the first update apt knows no Origin: then the name of the suite decides. */
export function isDebian(target: IndexTarget): boolean {
  if (target.origin !== '') return target.origin === 'Debian';
  return [...suiteNames(), 'stable', 'oldstable', 'testing', 'unstable'].includes(target.release.split(/[-/]/, 1)[0]!);
}

/** The address that Debian's main archive is read from: also of suites that this machine does not follow. */
export function debianMirror(targets: readonly IndexTarget[]): string | undefined {
  return targets.find((one) => isDebian(one) && pocketOf(one) === '' && one.component === 'main')?.uri;
}

/** `''`, `-updates`, `-security`; others (`-backports`) are not part of a plain machine. */
export function pocketOf(target: IndexTarget): string {
  return /-.*$/.exec(target.codename || target.release)?.[0] ?? '';
}
