/**
 * One planned npm package as one Debian package: everything that `writeDeb` needs.
 *
 * Secret: which fields, scripts and documents Debian wants around the files (Policy 4, 5, 12; JavaScript policy).
 */
import type { DebEntry, DebSpec } from '../../deb/archive.ts';
import { paragraph } from '../../deb/control.ts';
import { formatRelations, parseRelations, type RelationGroup, simplifyRelations } from '../../deb/relation.ts';
import { debianRelationsOfRange } from '../../deb/semver.ts';
import type { SuiteFacts } from '../../deb/suites.ts';
import type { ProjectChanges } from '../project-changelog.ts';
import type { ServiceFiles } from '../python/service.ts';
import { maintainerScripts } from '../scripts.ts';
import { sharedDepends } from '../shlibs.ts';
import { builtChangelog, description, documentEntries, synopsis } from '../texts.ts';
import { type PackageCopyright, treeCopyright } from './copyright.ts';
import type { PackageFile } from './files.ts';
import type { FilledModule } from './layout.ts';
import { homepageOf, textOf } from './manifest.ts';
import type { PlannedNode } from './plan.ts';

export interface NodeFacts {
  readonly suite: SuiteFacts;
  /** Debian architecture of the target. */
  readonly architecture: string;
  readonly maintainer: string;
  readonly sourceDateEpoch: number;
  /** 'npm:semver@7.8.6' or the project: said in the description. */
  readonly source: string;
  readonly service: ServiceFiles | undefined;
  /** Of a project: what it says of its own versions. */
  readonly past: ProjectChanges | undefined;
  /** Its links lead to packages for one kind of machine. */
  readonly isTiedToMachine: boolean;
}

export interface NodePackage {
  readonly name: string;
  readonly version: string;
  readonly architecture: string;
  readonly spec: DebSpec;
  readonly warnings: readonly string[];
}

/** @param filled the files of `planned.modules` */
export function nodePackage(
  planned: PlannedNode,
  filled: readonly FilledModule[],
  placed: readonly DebEntry[],
  copyrights: readonly PackageCopyright[],
  facts: NodeFacts,
): NodePackage {
  const files = filled.flatMap((one) => one.files);
  const native = files.some((file) => file.native);
  const architecture = native || facts.isTiedToMachine ? facts.architecture : 'all';
  const { service, suite } = facts;
  const shared = sharedDepends(
    files.flatMap((file) => file.elf ?? []),
    new Set(files.filter((file) => file.elf).map((file) => file.path.slice(file.path.lastIndexOf('/') + 1))),
    suite.number,
  );
  const tied: RelationGroup[] = files.some((file) => file.tied)
    ? debianRelationsOfRange('nodejs', `${suite.node}.x`).groups
    : [];
  const extra = [...shared.depends, ...(service?.user === undefined ? [] : ['adduser']), ...(service?.depends ?? [])];
  const depends = simplifyRelations([...planned.depends, ...tied, ...parseRelations(extra.join(', '))]);
  const { manifest } = planned.subject;
  const control = paragraph([
    ['Package', planned.debianName],
    ['Version', planned.version],
    ['Architecture', architecture],
    ['Multi-Arch', architecture === 'all' ? 'foreign' : undefined],
    ['Maintainer', facts.maintainer],
    ['Depends', formatRelations(depends)],
    ['Section', service?.section ?? 'javascript'],
    ['Priority', 'optional'],
    ['Homepage', homepageOf(manifest)],
    ['Description', describe(planned, facts)],
  ]);
  const scripts = maintainerScripts({
    packageName: planned.debianName,
    python: 'none',
    user: service?.user,
    units: service?.units ?? [],
    stateDirs: service?.stateDirs ?? [],
  });
  const copyright = treeCopyright(planned.subject.name, homepageOf(manifest), copyrights);
  const changelog = builtChangelog(
    {
      package: planned.debianName,
      version: planned.version,
      suite: suite.codename,
      source: facts.source,
      maintainer: facts.maintainer,
      date: facts.sourceDateEpoch,
    },
    facts.past,
  );
  const entries = [
    ...placed,
    ...documentEntries(planned.debianName, copyright, changelog),
    ...(service?.entries ?? []),
    ...lintianOverrides(planned, native, files),
  ];
  const warnings = shared.unknown.map(
    (name) => `${planned.debianName} uses '${name}', and buildkit knows no package that has it`,
  );
  return {
    name: planned.debianName,
    version: planned.version,
    architecture,
    spec: { control, scripts, entries },
    warnings,
  };
}

function describe(planned: PlannedNode, facts: NodeFacts): string {
  const { name, version, manifest } = planned.subject;
  const first = synopsis(textOf(manifest.description), `npm package ${name}`);
  const others = planned.modules.length - 1;
  const holds: Readonly<Record<PlannedNode['kind'], string>> = {
    bundle: `This package holds the npm package ${name} ${version}${others > 0 ? ` and ${others} npm packages that it needs` : ''}`,
    app: `This package makes the npm package ${name} ${version} available; what it needs are packages of their own`,
    store: `This package holds the npm package ${name} ${version} where other packages find this version of it`,
  };
  return description(first, [
    `${holds[planned.kind]}. It was built by buildkit from ${facts.source} for Debian ${facts.suite.number}.`,
  ]);
}

/**
 * Published programs are taken as they are: those of Go and Rust are linked statically and do not survive strip. Files that configure
 * tools of developers stay where a generator may hand them out.
 */
function lintianOverrides(
  { debianName: name, runtime }: PlannedNode,
  native: boolean,
  files: readonly PackageFile[],
): DebEntry[] {
  const tags = native
    ? ['unstripped-binary-or-object', 'statically-linked-binary', 'embedded-library', 'library-not-linked-against-libc']
    : [];
  if (files.some((file) => /(^|\/)\.eslint(rc(\.\w+)?|ignore)$/.test(file.path)))
    tags.push('package-contains-eslint-config-file');
  if (files.some((file) => /(^|\/)(package-lock\.json|yarn\.lock)$/.test(file.path))) tags.push('nodejs-lock-file');
  if (runtime !== undefined)
    tags.push('unusual-interpreter', 'wrong-path-for-interpreter', 'missing-dep-for-interpreter');
  if (tags.length === 0) return [];
  const lines = ['# files of published npm packages, unchanged', ...tags.map((tag) => `${name}: ${tag} *`), ''];
  return [
    { path: `/usr/share/lintian/overrides/${name}`, type: 'file', mode: 0o644, source: { data: lines.join('\n') } },
  ];
}
