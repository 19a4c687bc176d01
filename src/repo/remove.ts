/** Packages out of a suite. Their files stay in the pool: generations that clients still read may name them. */
import { UserError } from '../core/errors.ts';
import type { Member } from './catalog.ts';
import { factsOfMember, type PackageFacts, type RepoHandle } from './handle.ts';

/**
 * Removes what each of `specs` means: `name` or `name=version`. The caller holds the write lock.
 * @throws UserError `no-such-package` when one of them means nothing; nothing is changed then
 */
export function removePackages(
  repo: RepoHandle,
  suite: string,
  specs: readonly string[],
  options: {
    readonly component?: string | undefined;
    readonly dryRun?: boolean | undefined;
    readonly who?: string | undefined;
  },
): PackageFacts[] {
  const { catalog, context } = repo;
  return catalog.transaction(() => {
    const found = new Map<string, Member>();
    for (const spec of specs) {
      for (const member of matching(repo, suite, spec, options.component)) {
        found.set(`${member.component} ${member.package.id}`, member);
      }
    }
    const members = [...found.values()];
    if (!options.dryRun && members.length > 0) {
      const change = catalog.recordChange(context.now(), options.who ?? 'unknown', 'remove', {
        suite,
        packages: specs,
      });
      for (const member of members) catalog.removeMember(change, member);
    }
    return members.map(factsOfMember);
  });
}

function matching(repo: RepoHandle, suite: string, spec: string, component: string | undefined): Member[] {
  const [name = '', version] = spec.split(/=(.*)/s);
  const named = [...repo.catalog.members({ suite, name })];
  const members = named.filter(
    (member) =>
      (version === undefined || member.package.version === version) &&
      (component === undefined || member.component === component),
  );
  if (members.length > 0) return members;
  const versions = [...new Set(named.map((member) => member.package.version))];
  throw new UserError('no-such-package', `suite '${suite}' has no package '${spec}'`, {
    hint: versions.length > 0 ? `it has version ${versions.join(', ')}` : `see: buildkit repo list ${suite}`,
  });
}
