/**
 * What the target suite itself has: its packages of Python and Node.js with version and relations.
 *
 * Secret: where the list comes from (apt's own lists where this machine follows the suite, else its archive), and what upstream
 * version a Debian version stands for.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { start } from '../core/run.ts';
import { readAptList } from '../deb/apt-targets.ts';
import { getField, type Paragraph, readParagraphs } from '../deb/control.ts';
import { cachedValue, keepValue, keyOf, workFolder } from './cache.ts';
import { aptTargets, readSignedRelease, type SuiteSource, siteOf } from './suite-archive.ts';

export interface SuitePackage {
  readonly name: string;
  readonly version: string;
  /** Names in Depends and Pre-Depends, without versions. */
  readonly depends: readonly string[];
  /** Of packages of Node.js. */
  readonly architecture?: string;
  /** Versioned Provides, of packages of Node.js. */
  readonly provides?: readonly (readonly [name: string, version: string])[];
  /** No system is without it. */
  readonly essential?: boolean;
}

export type SuiteIndex = ReadonlyMap<string, SuitePackage>;

/** @throws what `siteOf` and `readSignedRelease` refuse */
export async function readSuiteIndex(
  context: Context,
  suite: string,
  architecture: string,
  source: SuiteSource,
): Promise<SuiteIndex> {
  const targets = await aptTargets(context);
  const local = targets.find(
    (one) => one.codename === suite && one.component === 'main' && one.architecture === architecture,
  );
  const list = local && (await aptList(local.file));
  if (list !== undefined) return once(context, ['apt', list], () => languagePackages(readAptList(context, list.path)));
  const release = await readSignedRelease(context, siteOf(suite, targets, source), source);
  const name = `main/binary-${architecture}/Packages.xz`;
  return once(context, ['mirror', release.digestOf(name)], async () => {
    await using scratch = await workFolder(context);
    const packed = join(scratch.path, 'Packages.xz');
    await release.fetch(name, packed);
    await using xz = start(context, 'xz', ['--decompress', '--stdout', packed], { stdio: { stdin: 'ignore' } });
    const packages = await languagePackages(readParagraphs(xz.stdout as AsyncIterable<Uint8Array>));
    await xz.ended;
    return packages;
  });
}

/** apt may keep its lists compressed; apt-helper reads them whatever way. */
async function aptList(file: string): Promise<{ path: string; changed: number } | undefined> {
  const facts = await stat(file).catch(() => undefined);
  return facts && { path: file, changed: facts.mtimeMs };
}

const OURS = /^(python3?-|cython|node-|npm$|nodejs$)/;

/** Those of Python and Node.js, and those that no system is without. */
async function languagePackages(paragraphs: AsyncIterable<Paragraph>): Promise<SuitePackage[]> {
  const packages: SuitePackage[] = [];
  for await (const paragraph of paragraphs) {
    const field = (name: string) => getField(paragraph, name) ?? '';
    const name = field('Package');
    const essential = field('Essential') === 'yes' || field('Priority') === 'required';
    if (!OURS.test(name) && !essential) continue;
    const depends = `${field('Pre-Depends')},${field('Depends')}`
      .split(/[,|]/)
      .map((one) => one.trim().split(/[\s:(]/)[0]!)
      .filter((one) => OURS.test(one));
    packages.push({
      name,
      version: field('Version'),
      depends: [...new Set(depends)],
      ...(name.startsWith('node')
        ? { provides: providesOf(field('Provides')), architecture: field('Architecture') }
        : {}),
      ...(essential ? { essential } : {}),
    });
  }
  return packages;
}

/** 'node-x (= 1.0), y' -> those with a version. */
function providesOf(text: string): [name: string, version: string][] {
  return [...text.matchAll(/([a-z0-9][a-z0-9+.-]+)\s*\(=\s*([^)\s]+)\s*\)/g)].map((match) => [match[1]!, match[2]!]);
}

async function once(context: Context, identity: unknown, make: () => Promise<SuitePackage[]>): Promise<SuiteIndex> {
  const key = keyOf(['suite-index-3', identity]);
  let packages = (await cachedValue(context, 'suites', key)) as SuitePackage[] | undefined;
  if (packages === undefined) {
    packages = await context.log.step('Read what the suite has', make);
    await keepValue(context, 'suites', key, packages);
  }
  return new Map(packages.map((one) => [one.name, one]));
}

/**
 * The upstream version that a Debian version stands for, as its Python project would write it: no epoch, no revision, no
 * '+dfsg', '+ds', '+repack'; of '8.2.0+0.really.8.1.8' what follows 'really'; '1.0~rc1' is '1.0rc1'.
 */
export function upstreamOf(version: string): string {
  const upstream = version.replace(/^\d+:/, '').replace(/-[^-]*$/, '');
  const really = /really\.?(\d.*)$/.exec(upstream)?.[1] ?? upstream;
  return really
    .replace(/[+.~](dfsg|ds|repack|debian|deb)[\d.+~]*.*$/, '')
    .replace(/\+(git|hg|svn|bzr)[\w.~+-]*$/, '')
    .replaceAll('~', '');
}

/** '3:' of '3:3.2.25-1', else ''. */
export function epochOf(version: string): string {
  return /^\d+:/.exec(version)?.[0] ?? '';
}
