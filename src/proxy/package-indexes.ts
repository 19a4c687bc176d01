/**
 * The npm registry and the Python index that this machine's own clients use: what stands behind /npm/ and /pypi/ unless the
 * configuration says otherwise. No address is known here.
 */
import type { RunContext } from '../core/context.ts';
import { ToolError } from '../core/errors.ts';
import { run } from '../core/run.ts';

const PIP = `
from pip._internal.configuration import Configuration
from pip._internal.models.index import PyPI
configuration = Configuration(isolated=False)
configuration.load()
found = dict(configuration.items())
print(found.get(":env:.index-url") or found.get("global.index-url") or PyPI.simple_url)
`;

export interface PackageIndexes {
  /** Empty: this machine has no npm. */
  readonly npmRegistry: string;
  /** Empty: this machine has no pip. */
  readonly pypiIndex: string;
}

export async function machineIndexes(context: RunContext): Promise<PackageIndexes> {
  const [npmRegistry, pypiIndex] = await Promise.all([
    httpAddress(context, 'npm', ['config', 'get', 'registry']),
    httpAddress(context, '/usr/bin/python3', ['-c', PIP]),
  ]);
  return { npmRegistry, pypiIndex };
}

async function httpAddress(context: RunContext, program: string, args: readonly string[]): Promise<string> {
  try {
    const line = (await run(context, program, args, { timeoutMs: 15_000 })).stdout.trim();
    // one with a password stays this user's: behind a proxy it would be everybody's
    return /^https?:\/\/[^@\s]+$/.test(line) ? line : '';
  } catch (error) {
    if (error instanceof ToolError) return '';
    throw error;
  }
}
