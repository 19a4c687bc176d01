/**
 * What built packages must say of packages of the target suite that have the same files.
 *
 * Secret: that a package which we bring in a version of our own counts as ours, and a file that only the older version of the same
 * package had, too.
 */
import { machine } from 'node:os';
import type { Context } from '../core/context.ts';
import { debArch } from '../deb/arch.ts';
import { getField } from '../deb/control.ts';
import { parseRelations } from '../deb/relation.ts';
import type { BuildRequest } from './build.ts';
import { relationsWithSuite } from './file-conflicts.ts';
import type { Built, ExtraRelations } from './produce.ts';
import { suiteOwners } from './suite-contents.ts';
import { readSuiteIndex } from './suite-index.ts';

/** @throws ProblemsError `file-clash`; what the archive of the suite refuses */
export async function suiteRelations(
  context: Context,
  request: Pick<BuildRequest, 'suite' | 'architecture' | 'policy' | 'proxy'>,
  built: readonly Built[],
): Promise<Map<string, ExtraRelations>> {
  const source = { mirror: request.policy?.mirror, proxy: request.proxy };
  const architecture = request.architecture ?? debArch(machine());
  const paths = new Set(built.flatMap((one) => one.paths));
  const owners = await suiteOwners(context, request.suite, architecture, paths, source);
  if (owners.size === 0) return new Map();
  const index = await readSuiteIndex(context, request.suite, architecture, source);
  const essential = new Set([...index.values()].filter((one) => one.essential).map((one) => one.name));
  const owned = built.map((one) => ({ name: one.package.name, paths: one.paths }));
  return relationsWithSuite(owned, owners, dependsOf(built), essential);
}

function dependsOf(built: readonly Built[]): Map<string, string[]> {
  return new Map(
    built.map(({ package: one }) => {
      const text = [getField(one.control, 'Pre-Depends'), getField(one.control, 'Depends')].filter(Boolean).join(', ');
      // of alternatives another may be taken
      const certain = parseRelations(text).filter((group) => group.length === 1);
      return [one.name, certain.map((group) => group[0]!.name)];
    }),
  );
}
