/** buildkit.yaml of the workspace: found, read, checked once. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { LoadedConfig } from '../core/config.ts';
import { errnoOf, UserError } from '../core/errors.ts';
import type { Config } from '../release/config.ts';

async function readWorkspaceFile(workspaceDir: string): Promise<{ path: string; text: string } | undefined> {
  const path = join(workspaceDir, 'buildkit.yaml');
  try {
    return { path, text: await readFile(path, 'utf8') };
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return undefined;
    const message = `cannot read the configuration: ${(cause as Error).message}`;
    throw new UserError('config-unreadable', message, { file: path, cause });
  }
}

/** A cheap look, so that commands without configuration do not pay for the YAML parser and the schema. */
export async function workspaceNamesState(workspaceDir: string): Promise<boolean> {
  return /^state\s*:/m.test((await readWorkspaceFile(workspaceDir))?.text ?? '');
}

export async function readConfig(
  workspaceDir: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<LoadedConfig<Config>> {
  const [{ loadConfig }, { configSchema }] = await Promise.all([
    import('../core/config.ts'),
    import('../release/config.ts'),
  ]);
  const file = await readWorkspaceFile(workspaceDir);
  return loadConfig(configSchema, { env, envPrefix: 'BUILDKIT', file });
}
