/**
 * What a .buildinfo says was built, built again from nothing and compared byte for byte.
 *
 * Secret: what kind of build a .buildinfo tells of: dpkg-buildpackage's (its .dsc lies beside it, or names can be found there) is
 * repeated in a build root of the same suite, buildkit's own by the request that it recorded. Nothing of the cache is used.
 */
import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Context } from '../core/context.ts';
import { UserError } from '../core/errors.ts';
import { digestFile, exists } from '../core/files.ts';
import { readChangelogDate } from '../deb/changelog.ts';
import { getField, type Paragraph, parseControl } from '../deb/control.ts';
import { type SuiteFacts, suiteFacts, suiteNames } from '../deb/suites.ts';
import { parseVersion } from '../deb/version.ts';
import { type BuildRequest, buildPackages } from './build.ts';
import { type Recorded, readRecorded } from './buildinfo.ts';
import { workFolder } from './cache.ts';
import { diffDebs, type PackageDiff } from './diff.ts';
import { choosePlace, type Isolation } from './root/choose.ts';
import { buildSource } from './source-package/build.ts';
import { readSourceList } from './source-package/read.ts';

export interface ReproduceOptions {
  /** What relative inputs of a recorded request refer to. */
  readonly cwd: string;
  /** Default: as recorded, or told by the recorded base-files. */
  readonly suite?: string | undefined;
  readonly isolation?: Isolation | undefined;
  readonly mirror?: string | undefined;
  readonly proxy?: string | undefined;
}

export interface Reproduced {
  readonly name: string;
  /** `missing`: the new build made no such file. */
  readonly verdict: 'identical' | 'differs' | 'missing';
  /** Where it differs and the file lies beside the .buildinfo. */
  readonly diff?: PackageDiff | undefined;
}

export interface Reproduction {
  readonly identical: boolean;
  readonly packages: readonly Reproduced[];
  /** Packages that the build had in other versions: 'NAME: VERSION then, VERSION now'. */
  readonly changed: readonly string[];
}

/**
 * @throws UserError `buildinfo-invalid`, `source-missing`, and as the builds do
 */
export async function reproduce(context: Context, file: string, options: ReproduceOptions): Promise<Reproduction> {
  if (!(await exists(file))) throw new UserError('no-such-file', `there is no '${file}'`);
  const info = parseBuildinfo(await readFile(file, 'utf8'), file);
  const wanted = listedPackages(info, file);
  await using scratch = await workFolder(context);
  const recorded = readRecorded(info);
  const made = recorded
    ? await again(context, info, recorded, options, scratch.path)
    : await againFromSource(context, info, file, options);
  const packages: Reproduced[] = [];
  for (const { name, sha256 } of wanted) {
    const found = made.find((path) => basename(path) === name);
    if (found === undefined) packages.push({ name, verdict: 'missing' });
    else if ((await digestFile(found, 'sha256')) === sha256) packages.push({ name, verdict: 'identical' });
    else {
      const original = join(dirname(file), name);
      const diff = (await exists(original)) ? await diffDebs(context, original, found) : undefined;
      packages.push({ name, verdict: 'differs', diff });
    }
  }
  const newInfo = made.find((path) => path.endsWith('.buildinfo'));
  return {
    identical: packages.every((one) => one.verdict === 'identical'),
    packages,
    changed:
      newInfo === undefined ? [] : changedPackages(info, parseBuildinfo(await readFile(newInfo, 'utf8'), newInfo)),
  };
}

/** Also a signed one: what counts is what its digests say of files. */
function parseBuildinfo(text: string, file: string): Paragraph {
  const unsigned = /^-----BEGIN PGP SIGNED MESSAGE-----\n(?:[^\n]+\n)*\n(.*?)\n-----BEGIN PGP SIGNATURE-----/s.exec(
    text,
  );
  const [info] = parseControl(unsigned ? `${unsigned[1]}\n` : text, { file, blankLines: 'separate' });
  if (info !== undefined && getField(info, 'Format') !== undefined && getField(info, 'Source') !== undefined)
    return info;
  throw new UserError('buildinfo-invalid', 'it is no .buildinfo', { file });
}

function listedPackages(info: Paragraph, file: string): { name: string; sha256: string }[] {
  const lines = (getField(info, 'Checksums-Sha256') ?? '').split('\n');
  const found = lines.flatMap((line) => {
    const [, sha256, name] = /^\s*([0-9a-f]{64})\s+\d+\s+([A-Za-z0-9][\w.+~-]*\.deb)\s*$/.exec(line) ?? [];
    return sha256 === undefined || name === undefined ? [] : [{ name, sha256 }];
  });
  if (found.length > 0) return found;
  throw new UserError('buildinfo-invalid', 'it lists no .deb file', { file });
}

/** By buildkit, from what was asked for; what the indexes have meanwhile is held off by the versions, and the date, of then. */
async function again(
  context: Context,
  info: Paragraph,
  { request, closure }: Recorded,
  options: ReproduceOptions,
  scratch: string,
): Promise<string[]> {
  const { SOURCE_DATE_EPOCH } = environmentOf(info);
  const fresh = { ...context, cacheDir: join(scratch, 'cache'), env: { ...context.env, SOURCE_DATE_EPOCH } };
  const pins = closure.filter((one) => one.startsWith('pypi:')).map((one) => one.slice('pypi:'.length));
  const date = readChangelogDate(getField(info, 'Build-Date') ?? '');
  const result = await buildPackages(fresh, {
    ...(request as Omit<BuildRequest, 'cwd' | 'outDir'>),
    constraints: pins,
    before: date?.toISOString(),
    suite: options.suite ?? request.suite,
    isolation: options.isolation ?? request.isolation,
    proxy: options.proxy,
    cwd: options.cwd,
    outDir: join(scratch, 'out'),
  });
  return result.packages.map((one) => one.path);
}

/** By dpkg-buildpackage, from the .dsc beside. @throws UserError `source-missing` */
async function againFromSource(
  context: Context,
  info: Paragraph,
  file: string,
  options: ReproduceOptions,
): Promise<string[]> {
  const [name = '', written] = (getField(info, 'Source') ?? '').split(/[\s()]+/);
  const { upstream, revision } = parseVersion(written || (getField(info, 'Version') ?? ''));
  const list = join(dirname(file), `${name}_${upstream}${revision === '' ? '' : `-${revision}`}.dsc`);
  if (!(await exists(list))) {
    throw new UserError('source-missing', `its source '${basename(list)}' is not beside it`, {
      file,
      hint: 'put the .dsc and the files that it lists into the same folder',
    });
  }
  const suite = options.suite ?? suiteOf(info, file).codename;
  const place = await choosePlace(context, options.isolation ?? 'auto', { ...options, suite }, 'make');
  const { DEB_BUILD_OPTIONS, DEB_BUILD_PROFILES } = environmentOf(info);
  const built = await buildSource(context, await readSourceList(list), {
    place,
    force: true,
    buildOptions: DEB_BUILD_OPTIONS ?? '',
    buildProfiles: DEB_BUILD_PROFILES ?? '',
    proxy: options.proxy,
  });
  return [...built.files];
}

function environmentOf(info: Paragraph): Record<string, string | undefined> {
  const lines = (getField(info, 'Environment') ?? '').split('\n');
  return Object.fromEntries(
    lines.flatMap((line) => {
      const [, name, value] = /^\s*(\w+)="(.*)"\s*$/.exec(line) ?? [];
      return name === undefined ? [] : [[name, value?.replaceAll(/\\(.)/g, '$1')]];
    }),
  );
}

function installedIn(info: Paragraph): Map<string, string> {
  const text = getField(info, 'Installed-Build-Depends') ?? '';
  return new Map(
    [...text.matchAll(/([a-z0-9][a-z0-9+.:-]+) \(= ([^)\s]+)\)/g)].map(([, name, version]) => [name!, version!]),
  );
}

/** base-files carries the number of its release. @throws UserError `suite-unknown` */
function suiteOf(info: Paragraph, file: string): SuiteFacts {
  const number = /^\d+/.exec(installedIn(info).get('base-files') ?? '')?.[0];
  const found = suiteNames()
    .map(suiteFacts)
    .find((one) => one.number === number);
  if (found) return found;
  throw new UserError('suite-unknown', 'it does not say which suite it was built in', {
    file,
    hint: 'name it: --suite bookworm',
  });
}

function changedPackages(then: Paragraph, now: Paragraph): string[] {
  const [before, after] = [installedIn(then), installedIn(now)];
  return [...new Set([...before.keys(), ...after.keys()])]
    .sort()
    .filter((name) => before.get(name) !== after.get(name))
    .map((name) => `${name}: ${before.get(name) ?? 'not there'} then, ${after.get(name) ?? 'not there'} now`);
}
