/** `buildkit quickstart`: the whole line on a small example, in a work folder that can be thrown away. */
import { appendFile } from 'node:fs/promises';
import { join, relative, resolve } from 'node:path';
import type { Command } from 'commander';
import { ProblemsError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { shellQuote } from '../core/run.ts';
import type { Cli, CommandContext } from './command.ts';
import { formatReport } from './report.ts';
import { readConfig } from './workspace.ts';

const SERVICE = 'hello-service';

export function addQuickstartCommand(program: Command, cli: Cli): void {
  program
    .command('quickstart')
    .description(
      'scaffold a small web service, package it with all it needs, publish, install and check it in a machine',
    )
    .option('--work <dir>', 'where all of it happens', 'quickstart-work')
    .option('--suite <suite>', 'Debian release to build for and to test on', 'bookworm')
    .action(
      cli.action(async (cx, options: { work: string; suite: string }) => {
        const { runRelease } = await import('../release/flow.ts');
        const work = resolve(cx.cwd, options.work);
        const context = withStateIn(cx, work);
        await context.log.step('Check this machine (buildkit doctor)', () => refuseLacks(context));
        const project = await context.log.step(`Scaffold ${SERVICE}`, () => scaffold(context, work, options.suite));
        const config = (await readConfig(project, context.env)).values;
        const report = await runRelease(context, { workspaceDir: project, config });
        const text = formatReport(report, nextSteps(cx, project, report.repository.suite));
        return { data: { work, project, ...report }, text, exitCode: report.test?.passed ? 0 : 1 };
      }),
    );
}

/** Keys, caches and machines go into the work folder too, unless the user said where state is to be. */
function withStateIn(cx: CommandContext, work: string): CommandContext {
  if (!cx.stateOrigin.startsWith('default')) return cx;
  const stateDir = join(work, 'state');
  return { ...cx, stateDir, cacheDir: join(stateDir, 'cache') };
}

async function refuseLacks(context: CommandContext): Promise<void> {
  const { aptGetInstallArgs, checkMachine, missingPackages } = await import('../release/doctor.ts');
  const findings = await checkMachine(context, 'quickstart');
  for (const one of findings.filter(({ status }) => status === 'warning'))
    context.log.warn(`${one.name}: ${one.detail}`);
  const missing = missingPackages(findings);
  if (missing.length === 0) return;
  const problems = findings
    .filter(({ status }) => status === 'missing')
    .map((one) => ({ code: 'missing-program', subject: one.name, message: one.detail }));
  throw new ProblemsError('packages-missing', `these Debian packages are missing: ${missing.join(' ')}`, problems, {
    hint: `as root: apt-get ${aptGetInstallArgs(missing).join(' ')}`,
  });
}

async function scaffold(context: CommandContext, work: string, suite: string): Promise<string> {
  const target = join(work, SERVICE);
  if (await exists(join(target, 'buildkit.yaml'))) {
    context.log.info(`${target} (there already: reused)`);
    return target;
  }
  const { renderTemplate } = await import('../template/render.ts');
  await renderTemplate(context, { template: 'python-service', target, values: { name: SERVICE, suite } });
  // so that the commands that are tried next find the same key, caches and base image
  const state = `\n# Keys, machines and caches of this quickstart; remove the line to use your own\nstate: ${relative(target, context.stateDir)}\n`;
  await appendFile(join(target, 'buildkit.yaml'), state);
  context.log.info(target);
  return target;
}

function nextSteps(cx: CommandContext, project: string, suite: string): (readonly [string, string])[] {
  const launcher = relative(cx.cwd, join(cx.programDir, 'bin/buildkit'));
  const program = launcher.startsWith('..') ? join(cx.programDir, 'bin/buildkit') : launcher;
  const row = (...words: string[]) => shellQuote([program, '-C', relative(cx.cwd, project) || '.', ...words]);
  return [
    [row('release', 'run'), `after a change in ${join(relative(cx.cwd, project), 'src')}`],
    [row('repo', 'list'), 'what is in the repository'],
    [row('repo', 'serve'), 'serve it on 127.0.0.1:8080'],
    [row('repo', 'sources', suite), "the entry for a client's /etc/apt/sources.list.d"],
    [row('vm', 'create', '10'), 'a machine of your own: then vm start buildkit10, vm ssh buildkit10'],
  ];
}
