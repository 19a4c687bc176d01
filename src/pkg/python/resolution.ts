/**
 * pip's answer, remembered for as long as an index lets its clients remember a page.
 *
 * Secret: what makes two questions the same one: requirements, digests of the wheels, and everything that configures pip.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Context } from '../../core/context.ts';
import { digestFile } from '../../core/files.ts';
import { cachedValue, keepValue, keyOf, workFolder } from '../cache.ts';
import { type MetadataOf, type Pip, type Resolution, resolve } from './pip.ts';
import { parseWheelName } from './wheel.ts';

/** PyPI's own Cache-Control for index pages says ten minutes, and pip goes by it. */
const FRESH_MS = 10 * 60 * 1000;

export interface Question {
  /** PEP 508. */
  readonly requirements: readonly string[];
  readonly requirementFiles: readonly string[];
  /** 'name==version' */
  readonly constraints: readonly string[];
  readonly wheels: readonly { readonly path: string; readonly sha256: string; readonly extras: readonly string[] }[];
  readonly refresh: boolean;
  /** For sources, where their code must not run here. */
  readonly metadataReader: ((scratch: string) => MetadataOf) | undefined;
}

export async function resolveOnce(context: Context, pip: Pip, question: Question): Promise<Resolution> {
  const lines = [...question.requirements, ...question.wheels.map(wheelRequirement)];
  const digests = await Promise.all([
    ...question.wheels.map((wheel) => wheel.sha256),
    ...question.requirementFiles.map((path) => digestFile(path, 'sha256')),
  ]);
  const { requirementFiles, constraints } = question;
  const asked = [
    lines,
    requirementFiles,
    constraints,
    digests,
    question.metadataReader === undefined ? 'here' : 'root',
  ];
  const key = keyOf(['resolution', asked, pip, await configuration(context)]);
  const kept = question.refresh ? undefined : ((await cachedValue(context, 'resolutions', key)) as Kept | undefined);
  const age = context.now().getTime() - (kept?.at ?? 0);
  if (kept !== undefined && age >= 0 && age < FRESH_MS) {
    context.log.detail(`the resolution is ${Math.round(age / 60_000)} minutes old; --refresh asks again`);
    return kept.resolution;
  }
  const words = [...lines, ...requirementFiles];
  const title = `Resolve ${words.length === 1 ? shortName(words[0]!) : `${words.length} requirements`}`;
  const resolution = await context.log.step(title, async () => {
    await using scratch = await workFolder(context);
    const options = [...requirementFiles.flatMap((path) => ['--requirement', path])];
    if (constraints.length > 0) {
      const file = join(scratch.path, 'constraints.txt');
      await writeFile(file, `${constraints.join('\n')}\n`);
      options.push('--constraint', file);
    }
    // before the folder goes
    return await resolve(context, pip, lines, options, scratch.path, question.metadataReader?.(scratch.path));
  });
  await keepValue(context, 'resolutions', key, { at: context.now().getTime(), resolution } satisfies Kept);
  return resolution;
}

interface Kept {
  readonly at: number;
  readonly resolution: Resolution;
}

function wheelRequirement({ path, extras }: Question['wheels'][number]): string {
  return extras.length === 0 ? path : `${parseWheelName(path).name}[${extras.join(',')}] @ ${pathToFileURL(path).href}`;
}

function shortName(line: string): string {
  return line.split('/').at(-1)!;
}

/** Everything outside the question that decides pip's answer: its variables and files (pip's "Configuration" page). */
async function configuration(context: Context): Promise<unknown[]> {
  const { env } = context;
  const home = env.HOME ?? homedir();
  const files = [
    '/etc/pip.conf',
    '/etc/xdg/pip/pip.conf',
    join(home, '.pip/pip.conf'),
    join(env.XDG_CONFIG_HOME || join(home, '.config'), 'pip/pip.conf'),
    ...(env.PIP_CONFIG_FILE ? [env.PIP_CONFIG_FILE] : []),
  ];
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8').catch(() => undefined)));
  const variables = Object.entries(env).filter(([name]) => /^PIP_|_proxy$/i.test(name));
  return [variables.sort(([a], [b]) => (a < b ? -1 : 1)), texts];
}
