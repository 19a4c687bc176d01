/** `buildkit release`: the whole line, driven by buildkit.yaml. */
import type { Command } from 'commander';
import type { Cli } from './command.ts';
import { formatReport } from './report.ts';

export function addReleaseCommands(program: Command, cli: Cli): void {
  const release = program.command('release').description('the whole line, driven by buildkit.yaml');
  release
    .command('run')
    .description('build, publish, install in a clean machine, check; exit 0 only when all of it happened')
    .option('--no-test', 'stop after publishing')
    .option('--dry-run', 'show what would be built and published')
    .action(
      cli.action(async (cx, options: { test: boolean; dryRun?: boolean }) => {
        const { planRelease, runRelease } = await import('../release/flow.ts');
        const request = { workspaceDir: cx.workspaceDir, config: await cx.config(), withoutTest: !options.test };
        if (options.dryRun) {
          const plan = await planRelease(cx, request);
          return { data: plan, text: plan.steps.map((step) => `- ${step}`).join('\n') };
        }
        const report = await runRelease(cx, request);
        return { data: report, text: formatReport(report, []), exitCode: report.test?.passed === false ? 1 : 0 };
      }),
    );
}
