import type { Reporter, TestModule } from 'vitest/node';

/** Closes a run with one plain line, 'N passed, N failed, N skipped', for whoever reads the log by machine. */
export default class PlainCount implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    const counts = { passed: 0, failed: 0, skipped: 0, pending: 0 };
    let broken = 0;
    for (const module of modules) {
      if (module.state() === 'failed' && [...module.children.allTests()].length === 0) broken += 1;
      for (const test of module.children.allTests()) counts[test.result().state] += 1;
    }
    process.stdout.write(
      `\n${counts.passed} passed, ${counts.failed + broken} failed, ${counts.skipped + counts.pending} skipped\n`,
    );
  }
}
