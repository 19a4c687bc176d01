/** `buildkit repo`: out of a repository: all of it, or its packages as files. */
import { resolve } from 'node:path';
import { formatBytes } from '../core/log.ts';
import type { Cli } from './command.ts';
import { openRepo, type Place, type Row } from './repo-place.ts';

interface CloneRowOptions {
  readonly current?: boolean;
  readonly link?: boolean;
}

interface ExportRowOptions extends Place {
  readonly filter?: string;
  readonly sources?: boolean;
  readonly published?: boolean;
  readonly copy?: boolean;
}

export function addMovingOut(repoRow: Row, plainRow: Row, cli: Cli): void {
  plainRow(
    'clone <from> <to>',
    'copy a whole repository: suites, settings, history, generations; no private keys, no tokens',
  )
    .option('--current', 'only what clients see now and what is pinned, without older generations')
    .option('--link', 'package files share their bytes with the original, where the file system can')
    .action(
      cli.action(async (cx, from: string, to: string, options: CloneRowOptions) => {
        using repo = await openRepo(cx, { repo: from });
        const done = await repo.clone(resolve(cx.cwd, to), options);
        const what = `${done.suites.length} suites, ${done.generations} generations, ${done.packages} files`;
        return { data: done, text: `repository in ${done.dir}: ${what}, ${formatBytes(done.bytes)}` };
      }),
    );

  repoRow('export-debs <suite> <dir>', 'write the packages of a suite as files, with a manifest (SHA256SUMS)')
    .option('--filter <text>', "which packages: 'Name (~ ^python3-)'")
    .option('--sources', 'source packages too: .dsc and what it lists')
    .option('--published', 'what clients see now, in place of what is in the suite')
    .option('--copy', 'files of their own, in place of hard links to the pool')
    .action(
      cli.action(async (cx, suite: string, dir: string, options: ExportRowOptions) => {
        using repo = await openRepo(cx, options);
        const { parseFilter } = await import('../repo/query.ts');
        const filter = options.filter === undefined ? undefined : parseFilter(options.filter);
        const { sources, published, copy } = options;
        const done = await repo.exportDebs(suite, resolve(cx.cwd, dir), { filter, sources, published, copy });
        const how = `${done.linked} linked, ${done.copied} copied, ${done.unchanged} were there already`;
        return { data: done, text: `${done.files.length} files in ${dir}: ${how}` };
      }),
    );
}
