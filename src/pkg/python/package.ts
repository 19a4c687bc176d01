/**
 * One Python distribution as one Debian package: everything that `writeDeb` needs.
 *
 * Secret: which fields, scripts and files Debian wants around the files of a wheel (Policy 4, 5, 12; Python policy).
 */
import type { DebEntry, DebSpec } from '../../deb/archive.ts';
import { paragraph } from '../../deb/control.ts';
import type { SuiteFacts } from '../../deb/suites.ts';
import { type ElfNeeds, readElf } from '../elf.ts';
import type { ProjectChanges } from '../project-changelog.ts';
import { maintainerScripts } from '../scripts.ts';
import { sharedDepends } from '../shlibs.ts';
import { builtChangelog, copyrightText, description, documentEntries, synopsis } from '../texts.ts';
import { layOut } from './layout.ts';
import { normaliseName } from './requirement.ts';
import type { ServiceFiles } from './service.ts';
import type { Wheel } from './wheel.ts';

export interface PackageFacts {
  readonly name: string;
  readonly version: string;
  readonly suite: SuiteFacts;
  /** Debian architecture of the target. */
  readonly architecture: string;
  readonly maintainer: string;
  /** On the other packages of the closure. */
  readonly depends: string;
  /** 'pypi:flask==3.1.3' or the project's folder name: said in the description. */
  readonly source: string;
  readonly sourceDateEpoch: number;
  readonly service: ServiceFiles | undefined;
  /** Of a project: what it says of its own versions. */
  readonly past?: ProjectChanges | undefined;
}

export interface PythonPackage {
  readonly spec: DebSpec;
  readonly architecture: string;
  readonly warnings: readonly string[];
}

/** @param vendored wheels that it carries inside: it and they are then private modules of an application */
export async function pythonPackage(
  wheel: Wheel,
  facts: PackageFacts,
  vendored: readonly Wheel[] = [],
): Promise<PythonPackage> {
  const all = [wheel, ...vendored];
  const { objects, libraries } = await elfFiles(all);
  const isBinary = (one: Wheel) => !one.pure || one.tags.platforms.some((platform) => platform !== 'any');
  const binary = objects.length > 0 || all.some(isBinary);
  const privateDir = vendored.length === 0 ? undefined : `/usr/lib/${facts.name}/python`;
  const shared = sharedDepends(objects, libraries, facts.suite.number);
  const architecture = binary ? facts.architecture : 'all';
  const service = facts.service;
  const depends = [
    facts.depends,
    ...new Set(all.map((one) => pythonDepends(one, isBinary(one), facts.suite.python))),
    ...shared.depends,
    ...(service?.user === undefined ? [] : ['adduser']),
    ...(service?.depends ?? []),
  ];
  const { metadata } = wheel;
  const control = paragraph([
    ['Package', facts.name],
    ['Version', facts.version],
    ['Architecture', architecture],
    ['Maintainer', facts.maintainer],
    ['Depends', depends.filter((part) => part !== '').join(', ')],
    ['Provides', alsoCalled(metadata.name, facts)],
    ['Section', service?.section ?? 'python'],
    ['Priority', 'optional'],
    ['Homepage', homepage(metadata.homepage)],
    ['Description', describe(wheel, facts)],
  ]);
  const scripts = maintainerScripts({
    packageName: facts.name,
    python: privateDir === undefined ? 'public' : { privateDir },
    user: service?.user,
    units: service?.units ?? [],
    stateDirs: service?.stateDirs ?? [],
  });
  const layout = { pythonVersion: facts.suite.python, sourceDateEpoch: facts.sourceDateEpoch, privateDir };
  const entries = [
    ...(await layOut(wheel, layout)),
    ...(await Promise.all(vendored.map((one) => layOut(one, { ...layout, programs: false })))).flat(),
    ...(await documents(wheel, vendored, facts, privateDir)),
    ...(service?.entries ?? []),
    ...(binary ? [lintianOverrides(facts.name)] : []),
  ];
  const warnings = shared.unknown.map(
    (name) => `${facts.name} uses '${name}', and buildkit knows no package that has it`,
  );
  return { spec: { control, scripts, entries }, architecture, warnings };
}

/** Where Debian has another name for a distribution, the plain one leads there too. */
function alsoCalled(distribution: string, facts: PackageFacts): string | undefined {
  const plain = `python3-${normaliseName(distribution)}`;
  return plain === facts.name || facts.service !== undefined ? undefined : `${plain} (= ${facts.version})`;
}

/** The empty package of an extra: nothing but relations. */
export function extraPackage(facts: PackageFacts, distribution: string, extra: string): DebSpec {
  const text = `This empty package brings what the extra "${extra}" of the Python distribution ${distribution} needs.`;
  const control = paragraph([
    ['Package', facts.name],
    ['Version', facts.version],
    ['Architecture', 'all'],
    ['Maintainer', facts.maintainer],
    ['Depends', facts.depends],
    ['Section', 'python'],
    ['Priority', 'optional'],
    ['Description', description(`${distribution} with its extra ${extra}`, [text])],
  ]);
  const copyright = copyrightText({
    upstreamName: distribution,
    source: undefined,
    author: undefined,
    licence: undefined,
    licenceFiles: [],
  });
  return { control, entries: docEntries(facts, copyright) };
}

function homepage(url: string | undefined): string | undefined {
  return url !== undefined && /^https?:\/\/\S+$/.test(url) ? url : undefined;
}

function describe(wheel: Wheel, facts: PackageFacts): string {
  const { name, version, summary } = wheel.metadata;
  const first = synopsis(summary, `Python distribution ${name}`);
  const origin =
    facts.service === undefined
      ? `This package holds the Python distribution ${name} ${version}`
      : `This is ${name} ${version}`;
  return description(first, [`${origin}, built by buildkit from ${facts.source} for Debian ${facts.suite.number}.`]);
}

/** Extension modules fit one Python only, unless they keep to the stable ABI; pure modules fit the Python of any architecture. */
function pythonDepends(wheel: Wheel, binary: boolean, python: string): string {
  const [major, minor] = python.split('.').map(Number);
  const ties = wheel.tags.abis.some((abi) => /^cp\d+/.test(abi));
  if (binary && ties) return `python3 (>= ${python}~), python3 (<< ${major}.${minor! + 1})`;
  const stable = wheel.tags.abis.includes('abi3')
    ? wheel.tags.pythons.map((tag) => /^cp3(\d+)$/.exec(tag)?.[1]).find(Boolean)
    : undefined;
  if (binary && stable !== undefined) return `python3 (>= 3.${stable}~)`;
  const floor = />=\s*(3\.\d+)/.exec(wheel.metadata.requiresPython ?? '')?.[1];
  return floor === undefined ? 'python3:any' : `python3:any (>= ${floor}~)`;
}

async function elfFiles(wheels: readonly Wheel[]): Promise<{ objects: ElfNeeds[]; libraries: Set<string> }> {
  const objects: ElfNeeds[] = [];
  const libraries = new Set<string>();
  for (const file of wheels.flatMap((wheel) => wheel.files)) {
    if (!/\.so(\.|$)/.test(file.path) && !file.executable) continue;
    const needs = readElf(await file.read());
    if (!needs) continue;
    objects.push(needs);
    libraries.add(file.path.slice(file.path.lastIndexOf('/') + 1));
  }
  return { objects, libraries };
}

const LICENCE_FILE = /^(licen[cs]es?\/.*|licen[cs]e.*|copying.*|notice.*)$/i;

async function documents(
  wheel: Wheel,
  vendored: readonly Wheel[],
  facts: PackageFacts,
  privateDir: string | undefined,
): Promise<DebEntry[]> {
  const parts = await Promise.all(
    [wheel, ...vendored].map(async (one) => {
      const { name, author, licence, homepage: source } = one.metadata;
      const files = one === wheel ? ['*'] : topLevel(one).map((path) => `${privateDir!.slice(1)}/${path}`);
      return { files, upstreamName: name, source, author, licence, licenceFiles: await licenceFiles(one) };
    }),
  );
  return docEntries(facts, copyrightText(parts[0]!, parts.slice(1)));
}

async function licenceFiles(wheel: Wheel): Promise<{ name: string; text: string }[]> {
  const prefix = `${wheel.distInfo}/`;
  const files = wheel.files.filter(
    (file) =>
      file.path.startsWith(prefix) && LICENCE_FILE.test(file.path.slice(prefix.length)) && file.size < 1_000_000,
  );
  return Promise.all(
    files.map(async (file) => ({ name: file.path.slice(prefix.length), text: (await file.read()).toString('utf8') })),
  );
}

/** 'flask/*', 'six.py': what a wheel puts into a folder of modules. */
function topLevel(wheel: Wheel): string[] {
  const names = new Set<string>();
  for (const file of wheel.files) {
    if (file.path.startsWith(`${wheel.dataDir}/`)) continue;
    const [first = '', ...rest] = file.path.split('/');
    names.add(rest.length > 0 ? `${first}/*` : first);
  }
  return [...names].sort();
}

/** Published binaries are taken as they are: stripping breaks some that patchelf has touched, and their libraries are bundled. */
function lintianOverrides(name: string): DebEntry {
  const tags = [
    'unstripped-binary-or-object',
    'embedded-library',
    'library-not-linked-against-libc',
    'custom-library-search-path',
  ];
  const lines = ['# the files of a published wheel, unchanged', ...tags.map((tag) => `${name}: ${tag} *`), ''];
  return {
    path: `/usr/share/lintian/overrides/${name}`,
    type: 'file',
    mode: 0o644,
    source: { data: lines.join('\n') },
  };
}

function docEntries(facts: PackageFacts, copyright: string): DebEntry[] {
  const changelog = builtChangelog(
    {
      package: facts.name,
      version: facts.version,
      suite: facts.suite.codename,
      source: facts.source,
      maintainer: facts.maintainer,
      date: facts.sourceDateEpoch,
    },
    facts.past,
  );
  return documentEntries(facts.name, copyright, changelog);
}

/** When the newest file of a wheel is from; the given day where the wheel says 1980, as makers of reproducible wheels do. */
export function wheelDate(wheel: Wheel, otherwise: number): number {
  const newest = wheel.files.reduce((latest, file) => Math.max(latest, file.mtime), 0);
  return newest < 500_000_000 ? otherwise : newest;
}
