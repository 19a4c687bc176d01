/**
 * Which packages of the target suite have the files that we are about to install.
 *
 * Secret: Contents indices (DebianRepository/Format): half a gigabyte of text for a few questions. They are read as a stream from
 * files that are kept by their signed digest, and the answer is kept too.
 */
import { mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { start } from '../core/run.ts';
import { cachedFiles, cachedValue, keepFiles, keepValue, keyOf, workFolder } from './cache.ts';
import { aptTargets, readSignedRelease, type SignedRelease, type SuiteSource, siteOf } from './suite-archive.ts';

/**
 * @param paths as installed: '/usr/bin/x'
 * @returns path to the packages of the suite that have it; those that nobody has are left out
 */
export async function suiteOwners(
  context: Context,
  suite: string,
  architecture: string,
  paths: ReadonlySet<string>,
  source: SuiteSource,
): Promise<Map<string, string[]>> {
  const release = await readSignedRelease(context, siteOf(suite, await aptTargets(context), source), source);
  const names = [`main/Contents-${architecture}.gz`, 'main/Contents-all.gz'];
  const question = keyOf([names.map((name) => release.digestOf(name)), [...paths].sort()]);
  const known = (await cachedValue(context, 'owners', question)) as [string, string[]][] | undefined;
  if (known !== undefined) return new Map(known);
  const owners = new Map<string, string[]>();
  await context.log.step(`Look for the files in what ${suite} has`, async () => {
    for (const name of names) {
      const file = await contentsFile(context, release, name);
      await using gzip = start(context, 'gzip', ['--decompress', '--stdout', file], { stdio: { stdin: 'ignore' } });
      await readContents(gzip.stdout as AsyncIterable<Uint8Array>, paths, owners);
      await gzip.ended;
    }
  });
  await keepValue(context, 'owners', question, [...owners]);
  return owners;
}

async function contentsFile(context: Context, release: SignedRelease, name: string): Promise<string> {
  const key = release.digestOf(name);
  const [kept] = (await cachedFiles(context, 'contents', key)) ?? [];
  if (kept !== undefined) return kept;
  await using scratch = await workFolder(context);
  const folder = join(scratch.path, 'contents');
  await mkdir(folder);
  await release.fetch(name, join(folder, basename(name)));
  return (await keepFiles(context, 'contents', key, folder))[0]!;
}

/** Adds the lines for `wanted` to `owners`. A line is a path, blanks, and 'section/name' joined by commas; paths may hold blanks. */
export async function readContents(
  source: AsyncIterable<Uint8Array>,
  wanted: ReadonlySet<string>,
  owners: Map<string, string[]>,
): Promise<void> {
  const byBytes = new Map([...wanted].map((path) => [Buffer.from(path).toString('latin1').slice(1), path]));
  const hasBlanks = [...wanted].some((path) => /\s/.test(path));
  const take = (line: string): void => {
    const short = line.slice(0, line.search(/\s/));
    if (!hasBlanks && !byBytes.has(short)) return; // nearly every line ends here
    const match = /^(.*\S)\s+(\S+)$/.exec(line);
    const path = match === null ? undefined : byBytes.get(match[1]!);
    if (match === null || path === undefined) return;
    const names = match[2]!.split(',').map((one) => one.slice(one.lastIndexOf('/') + 1));
    owners.set(path, [...new Set([...(owners.get(path) ?? []), ...names])].sort());
  };
  let rest = '';
  for await (const chunk of source) {
    const lines = (rest + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).toString('latin1')).split('\n');
    rest = lines.pop()!;
    for (const line of lines) take(line);
  }
  if (rest !== '') take(rest);
}
