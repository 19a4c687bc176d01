/**
 * What the target suite itself has: its Python packages with version and relations.
 *
 * Secret: where the list comes from (apt's own lists where this machine follows the suite, else a mirror, its InRelease
 * checked by gpgv), and what upstream version a Debian version stands for.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Context } from '../core/context.ts';
import { RemoteError, ToolError, UserError } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { run, start } from '../core/run.ts';
import { getField, readParagraphs } from '../deb/control.ts';
import { ARCHIVE_KEYRING } from '../deb/suites.ts';
import { cachedValue, keepValue, keyOf, workFolder } from './cache.ts';

export interface SuitePackage {
  readonly name: string;
  readonly version: string;
  /** Names in Depends and Pre-Depends, without versions. */
  readonly depends: readonly string[];
}

export type SuiteIndex = ReadonlyMap<string, SuitePackage>;

/**
 * @param mirror for suites that this machine does not follow; default: the one it has its own packages from
 * @param proxy an apt proxy for it
 * @throws UserError `no-mirror`; RemoteError; ToolError when the signature is wrong
 */
export async function readSuiteIndex(
  context: Context,
  suite: string,
  architecture: string,
  mirror: string | undefined,
  proxy?: string | undefined,
): Promise<SuiteIndex> {
  const targets = await aptTargets(context);
  const local = targets.find(
    (one) => one.codename === suite && one.component === 'main' && one.architecture === architecture,
  );
  const list = local && (await aptList(local.file));
  if (list !== undefined) return once(context, ['apt', list], () => readAptList(context, list.path));
  const site = mirror ?? targets.find((one) => one.component === 'main' && /\/debian\/?$/.test(one.site))?.site;
  if (site === undefined) {
    throw new UserError('no-mirror', `buildkit does not know where to read what ${suite} has`, {
      hint: 'name a mirror: --mirror URL',
    });
  }
  return fromMirror(context, `${site.replace(/\/$/, '')}/dists/${suite}`, architecture, proxy);
}

interface AptTarget {
  readonly file: string;
  readonly codename: string;
  readonly component: string;
  readonly architecture: string;
  readonly site: string;
}

async function aptTargets(context: Context): Promise<AptTarget[]> {
  const format = '$(FILENAME)\t$(CODENAME)\t$(COMPONENT)\t$(ARCHITECTURE)\t$(SITE)';
  try {
    const { stdout } = await run(context, 'apt-get', ['indextargets', '--format', format, 'Created-By: Packages']);
    return stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => {
        const [file = '', codename = '', component = '', architecture = '', site = ''] = line.split('\t');
        return { file, codename, component, architecture, site };
      });
  } catch (error) {
    if (error instanceof ToolError) return []; // no apt on this machine
    throw error;
  }
}

/** apt may keep its lists compressed; apt-helper reads them whatever way. */
async function aptList(file: string): Promise<{ path: string; changed: number } | undefined> {
  const facts = await stat(file).catch(() => undefined);
  return facts && { path: file, changed: facts.mtimeMs };
}

async function readAptList(context: Context, path: string): Promise<SuitePackage[]> {
  await using helper = start(context, '/usr/lib/apt/apt-helper', ['cat-file', path], { stdio: { stdin: 'ignore' } });
  const packages = await pythonPackages(helper.stdout as AsyncIterable<Uint8Array>);
  await helper.ended;
  return packages;
}

async function pythonPackages(source: AsyncIterable<Uint8Array>): Promise<SuitePackage[]> {
  const packages: SuitePackage[] = [];
  for await (const paragraph of readParagraphs(source)) {
    const name = getField(paragraph, 'Package') ?? '';
    if (!/^python3?-|^cython/.test(name)) continue;
    const relations = `${getField(paragraph, 'Pre-Depends') ?? ''},${getField(paragraph, 'Depends') ?? ''}`;
    const depends = relations
      .split(/[,|]/)
      .map((one) => one.trim().split(/[\s:(]/)[0]!)
      .filter((one) => /^python3?-|^cython/.test(one));
    packages.push({ name, version: getField(paragraph, 'Version') ?? '', depends: [...new Set(depends)] });
  }
  return packages;
}

async function once(context: Context, identity: unknown, make: () => Promise<SuitePackage[]>): Promise<SuiteIndex> {
  const key = keyOf(['suite-index', identity]);
  let packages = (await cachedValue(context, 'suites', key)) as SuitePackage[] | undefined;
  if (packages === undefined) {
    packages = await context.log.step('Read what the suite has', make);
    await keepValue(context, 'suites', key, packages);
  }
  return new Map(packages.map((one) => [one.name, one]));
}

async function fromMirror(
  context: Context,
  dist: string,
  architecture: string,
  proxy: string | undefined,
): Promise<SuiteIndex> {
  const { download } = await import('../core/http.ts'); // its client is large: loaded for those who need it
  await using scratch = await workFolder(context);
  const signed = join(scratch.path, 'InRelease');
  await download(context, `${dist}/InRelease`, signed, { maxBytes: 16_000_000, proxy });
  if (!(await exists(ARCHIVE_KEYRING))) {
    throw new UserError('no-keyring', `'${ARCHIVE_KEYRING}' is missing: the suite's list cannot be trusted`, {
      hint: 'apt-get install debian-archive-keyring',
    });
  }
  const { stdout: release } = await run(context, 'gpgv', ['--keyring', ARCHIVE_KEYRING, '--output', '-', signed]);
  const name = `main/binary-${architecture}/Packages.xz`;
  const sha256 = new RegExp(`^ ([0-9a-f]{64})\\s+\\d+ ${name.replaceAll('.', '\\.')}$`, 'm').exec(release)?.[1];
  if (sha256 === undefined)
    throw new RemoteError('no-such-index', `the suite has no list for '${architecture}'`, { url: `${dist}/InRelease` });
  return once(context, ['mirror', sha256], async () => {
    const packed = join(scratch.path, 'Packages.xz');
    await download(context, `${dist}/${name}`, packed, { sha256, proxy });
    await using xz = start(context, 'xz', ['--decompress', '--stdout', packed], { stdio: { stdin: 'ignore' } });
    const packages = await pythonPackages(xz.stdout as AsyncIterable<Uint8Array>);
    await xz.ended;
    return packages;
  });
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
