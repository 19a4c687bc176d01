/**
 * The stages of a build, and from which of them a later one may go on.
 *
 * Secret: the chain of digests: what is kept before a stage is named by all that decided it, so that another plan never finds it.
 */
import { createHash } from 'node:crypto';
import { UserError } from '../core/errors.ts';
import type { BaseRecipe } from './base-plan.ts';
import { CUSTOM_STAGES, type CustomStage } from './customize.ts';

/** In their order; those of a customization only where it has them. */
export const STAGES = ['bootstrap', ...CUSTOM_STAGES, 'disk'] as const;
export type StageName = (typeof STAGES)[number];

/** Raised when roots are made in another way. */
const FORMAT = 1;

export interface Stage {
  readonly name: StageName;
  /** Names the root as it is before this stage; of the first: nothing. */
  readonly before: string;
  /** The stage that left it so. */
  readonly follows: StageName | undefined;
}

/**
 * @param kind what becomes of the root: writing a disk of its own changes it
 * @param parts digest of each stage of the customization
 */
export function planStages(
  recipe: BaseRecipe,
  kind: 'base' | 'disk',
  parts: ReadonlyMap<CustomStage, string>,
): readonly Stage[] {
  const { sizeBytes: _ofDisk, customization: _inParts, ...first } = recipe;
  const stages: Stage[] = [{ name: 'bootstrap', before: '', follows: undefined }];
  let digest = sha256([FORMAT, kind, first]);
  for (const name of CUSTOM_STAGES) {
    const part = parts.get(name);
    if (part === undefined) continue;
    stages.push({ name, before: digest, follows: stages.at(-1)!.name });
    digest = sha256([digest, name, part]);
  }
  return [...stages, { name: 'disk', before: digest, follows: stages.at(-1)!.name }];
}

function sha256(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex');
}

/** Names the first root: builds with the same one can go on from each other's work. */
export function lineOf(stages: readonly Stage[]): string {
  return (stages[1]?.before ?? '').slice(0, 12);
}

/** What the root before a stage is kept as; not by the name of the stage, which may be left out of the next build. */
export function keptName({ follows = 'bootstrap', before }: Stage): string {
  return `${follows}-${before.slice(0, 16)}`;
}

/** What the root is kept as once nothing but the disk is left to do. */
export function keptRootName({ before }: Stage): string {
  return `root-${before.slice(0, 16)}`;
}

/**
 * The stages that are still to be done.
 * @param kept names in the folder of kept work
 * @param others whether work of builds with another first root is kept
 * @throws UserError `base-stage-unknown`, `base-stage-not-kept`, `base-stage-other-plan`
 */
export function stagesFrom(
  stages: readonly Stage[],
  from: StageName | undefined,
  kept: readonly string[],
  others: boolean,
): readonly Stage[] {
  if (from === undefined || from === 'bootstrap') return stages;
  const at = stages.findIndex(({ name }) => name === from);
  if (at === -1) {
    throw new UserError('base-stage-unknown', `this build has no stage '${from}'`, {
      hint: `its stages: ${stages.map(({ name }) => name).join(', ')}`,
    });
  }
  const isKept = (stage: Stage) =>
    kept.includes(keptName(stage)) || (stage.name === 'disk' && kept.includes(keptRootName(stage)));
  const stage = stages[at]!;
  if (isKept(stage)) return stages.slice(at);
  const earlier = stages.slice(1, at).findLast(isKept);
  const former = stage.name === 'disk' ? [`${stage.follows}-`, 'root-'] : [`${stage.follows}-`];
  const changed = others || kept.some((name) => former.some((start) => name.startsWith(start)));
  const [code, message] = changed
    ? ['base-stage-other-plan', `what is kept of a build before '${from}' belongs to another plan than this one`]
    : ['base-stage-not-kept', `nothing is kept of the work before stage '${from}'`];
  throw new UserError(code, message, {
    hint: earlier
      ? `go on from what has not changed: --from-stage ${earlier.name}`
      : 'build it from the start: leave --from-stage out',
  });
}
