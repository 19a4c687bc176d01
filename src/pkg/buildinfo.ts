/**
 * The .changes and .buildinfo of what buildkit itself made: one pair for a call, named after the first package asked for.
 *
 * Secret: what must be known to make the same bytes again (deb-buildinfo(5)): beside Debian's own fields, the inputs and options
 * as they were given (`Buildkit-Request`) and the exact versions that they led to (`Buildkit-Closure`).
 */
import { readFile, stat } from 'node:fs/promises';
import { machine } from 'node:os';
import { basename, join } from 'node:path';
import { z } from 'zod';
import type { Context } from '../core/context.ts';
import { ToolError } from '../core/errors.ts';
import { digestFile, writeFileAtomic } from '../core/files.ts';
import { run } from '../core/run.ts';
import { debArch } from '../deb/arch.ts';
import { type BuildFacts, formatBuildinfo, formatChanges, type ListedFile, listStem } from '../deb/changes.ts';
import { getField, type Paragraph, unfoldLines } from '../deb/control.ts';
import type { BinaryPackage } from '../deb/package.ts';
import { parseRelations } from '../deb/relation.ts';

/** What is recorded of a request. */
export const requestSchema = z.object({
  inputs: z.array(z.string()),
  suite: z.string(),
  architecture: z.string().optional(),
  packagingVersion: z.string().optional(),
  upstreamVersion: z.string().optional(),
  maintainer: z.string().optional(),
  compression: z.enum(['xz', 'zstd', 'gzip', 'none']).optional(),
  isolation: z.enum(['auto', 'root', 'host']).optional(),
  network: z.boolean().optional(),
  policy: z.record(z.string(), z.unknown()).optional(),
});
export type RecordedRequest = z.infer<typeof requestSchema>;

export interface Recorded {
  readonly request: RecordedRequest;
  /** 'pypi:flask==3.1.3': what the inputs led to. */
  readonly closure: readonly string[];
}

const REQUEST = 'Buildkit-Request';
const CLOSURE = 'Buildkit-Closure';

/** Programs whose versions may show in a package. */
const TOOLS = ['binutils', 'dpkg', 'dpkg-dev', 'git', 'python3', 'python3-pip', 'xz-utils', 'zstd'];
/** As dpkg-genbuildinfo picks them: what may change bytes and tells nothing of the user. */
const ENVIRONMENT = ['DEB_BUILD_OPTIONS', 'DEB_BUILD_PROFILES', 'SOURCE_DATE_EPOCH'];

/**
 * Writes both beside the packages.
 * @returns their paths, the .changes first
 */
export async function writeBuildLists(
  context: Context,
  packages: readonly BinaryPackage[],
  asked: readonly string[],
  recorded: Recorded,
  outDir: string,
): Promise<string[]> {
  const main = packages.find((one) => asked.includes(one.name)) ?? packages[0];
  if (main === undefined) return [];
  const facts: BuildFacts = {
    source: main.name,
    version: main.version,
    packages: packages.map((one) => ({ ...one, name: basename(one.path) })),
    sources: [],
    date: context.now(),
  };
  const stem = join(outDir, listStem(facts));
  const environment = { LANG: 'C.UTF-8', LC_ALL: 'C.UTF-8', ...pick(context.env, ENVIRONMENT) };
  const version = await ownVersion(context);
  const buildinfo = formatBuildinfo({
    ...facts,
    buildArchitecture: debArch(machine()),
    origin: 'Debian',
    installed: await installedTools(context),
    environment,
    own: [
      ['Buildkit-Version', [version]],
      [REQUEST, [JSON.stringify({ ...recorded.request, maintainer: getField(main.control, 'Maintainer') })]],
      ...(recorded.closure.length === 0 ? [] : [[CLOSURE, recorded.closure] as const]),
    ],
  });
  await writeFileAtomic(`${stem}.buildinfo`, buildinfo);
  const changes = formatChanges({
    ...facts,
    buildinfo: await listed(`${stem}.buildinfo`),
    distribution: recorded.request.suite,
    maintainer: getField(main.control, 'Maintainer') ?? '',
    changes: [`Built by buildkit ${version} from ${recorded.request.inputs.join(', ')}.`],
  });
  await writeFileAtomic(`${stem}.changes`, changes);
  return [`${stem}.changes`, `${stem}.buildinfo`];
}

/** undefined: buildkit did not write it. */
export function readRecorded(buildinfo: Paragraph): Recorded | undefined {
  const lines = (name: string) => unfoldLines(getField(buildinfo, name) ?? '');
  const [text] = lines(REQUEST);
  if (text === undefined) return undefined;
  const request = requestSchema.safeParse(parseJson(text));
  return request.success ? { request: request.data, closure: lines(CLOSURE) } : undefined;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

async function listed(path: string): Promise<ListedFile> {
  const [md5, sha1, sha256] = await Promise.all([
    digestFile(path, 'md5'),
    digestFile(path, 'sha1'),
    digestFile(path, 'sha256'),
  ]);
  return { name: basename(path), size: (await stat(path)).size, md5, sha1, sha256 };
}

function pick(env: Context['env'], names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.flatMap((name) => (env[name] ? [[name, env[name]]] : [])));
}

async function ownVersion(context: Context): Promise<string> {
  const text = await readFile(join(context.programDir, 'package.json'), 'utf8').catch(() => '{}');
  const { version } = z.object({ version: z.string().default('unknown') }).parse(JSON.parse(text));
  return version;
}

/** The tools' packages and all that they depend on, as dpkg has them; nothing on a machine without dpkg. */
async function installedTools(context: Context): Promise<Record<string, string>> {
  const format =
    '$' + '{Package}\\t$' + '{Version}\\t$' + '{db:Status-Status}\\t$' + '{Pre-Depends}, $' + '{Depends}\\n';
  let text: string;
  try {
    text = (await run(context, 'dpkg-query', ['-W', '-f', format])).stdout;
  } catch (error) {
    if (error instanceof ToolError) return {};
    throw error;
  }
  return closureOf(text, TOOLS);
}

/** @param text lines of NAME, VERSION, status and relations, by tabs. Pure. */
export function closureOf(text: string, tools: readonly string[]): Record<string, string> {
  const known = new Map<string, { version: string; needs: string }>();
  for (const line of text.split('\n')) {
    const [name = '', version = '', status, needs = ''] = line.split('\t');
    if (status === 'installed') known.set(name, { version, needs: needs.replace(/^, |, $/g, '') });
  }
  const found: Record<string, string> = {};
  const queue = [...tools];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    const one = known.get(name);
    if (one === undefined || Object.hasOwn(found, name)) continue;
    found[name] = one.version;
    queue.push(...parseRelations(one.needs).flatMap((group) => group.map((relation) => relation.name)));
  }
  return found;
}
