import { describe, expect, it } from 'vitest';
import { planSources } from '../../../src/deb/mirror.ts';
import { planRecipe } from '../../../src/vm/base-plan.ts';
import { keptName, keptRootName, lineOf, planStages, type Stage, stagesFrom } from '../../../src/vm/base-stages.ts';
import type { CustomStage } from '../../../src/vm/customize.ts';

const sources = planSources('bookworm', [], 'http://m.example/debian');
const recipe = (more: { size?: string; include?: string[] } = {}) =>
  planRecipe({ suite: 'bookworm', architecture: 'amd64', ...more }, sources);
const parts = (more: Partial<Record<CustomStage, string>> = {}) =>
  new Map(Object.entries({ overlay: 'o', 'install.sh': 'i', postconfig: 'p', ...more })) as Map<CustomStage, string>;
const plan = (more: Partial<Record<CustomStage, string>> = {}) => planStages(recipe(), 'base', parts(more));
const names = (stages: readonly Stage[]) => stages.map(({ name }) => name);

describe('planStages', () => {
  it('has the stages that the customization has, in the order in which they run', () => {
    expect(names(plan({ postunpack: 'u' }))).toEqual([
      'bootstrap',
      'postunpack',
      'overlay',
      'install.sh',
      'postconfig',
      'disk',
    ]);
    expect(names(planStages(recipe(), 'base', new Map()))).toEqual(['bootstrap', 'disk']);
  });

  it('names what is before a stage by all that decides it, and by nothing that comes later', () => {
    const digests = (stages: readonly Stage[]) => Object.fromEntries(stages.map((stage) => [stage.name, stage.before]));
    const usual = digests(plan());
    const other = digests(plan({ 'install.sh': 'mended' }));
    expect([other.overlay, other['install.sh']]).toEqual([usual.overlay, usual['install.sh']]);
    expect(other.postconfig).not.toBe(usual.postconfig);
    expect(other.disk).not.toBe(usual.disk);
    expect(lineOf(planStages(recipe({ size: '4G' }), 'base', parts()))).toBe(lineOf(plan()));
    const lines = [
      plan(),
      planStages(recipe({ include: ['curl'] }), 'base', parts()),
      planStages(recipe(), 'disk', parts()),
    ];
    expect(new Set(lines.map(lineOf)).size).toBe(3);
  });
});

describe('stagesFrom', () => {
  const stages = plan();
  const kept = (...of: string[]) => stages.filter(({ name }) => of.includes(name)).map(keptName);
  const refusal = (...call: Parameters<typeof stagesFrom>) => {
    try {
      stagesFrom(...call);
    } catch (error) {
      const { code, hint } = error as { code: string; hint: string };
      return [code, hint];
    }
    return undefined;
  };

  it('begins at the start, or where something is kept', () => {
    expect(stagesFrom(stages, undefined, kept('disk'), false)).toEqual(stages);
    expect(stagesFrom(stages, 'bootstrap', [], false)).toEqual(stages);
    expect(names(stagesFrom(stages, 'postconfig', kept('overlay', 'postconfig'), false))).toEqual([
      'postconfig',
      'disk',
    ]);
    // a stage that is left out, or mended since: what is before it has not changed
    expect(names(stagesFrom(plan({ 'install.sh': 'mended' }), 'install.sh', kept('install.sh'), false))).toEqual([
      'install.sh',
      'postconfig',
      'disk',
    ]);
    const without = planStages(recipe(), 'base', new Map([['install.sh', 'i']]));
    expect(names(stagesFrom(without, 'install.sh', kept('overlay'), false))).toEqual(['install.sh', 'disk']);
    expect(names(stagesFrom(stages, 'disk', [keptRootName(stages.at(-1)!)], false))).toEqual(['disk']);
  });

  it('refuses the work of another plan, and says from where it could go on', () => {
    const changed = plan({ overlay: 'mended' });
    expect(refusal(changed, 'install.sh', kept('overlay', 'install.sh'), false)).toEqual([
      'base-stage-other-plan',
      'go on from what has not changed: --from-stage overlay',
    ]);
    const fresh = 'build it from the start: leave --from-stage out';
    expect(refusal(stages, 'overlay', [], true)).toEqual(['base-stage-other-plan', fresh]);
    expect(refusal(stages, 'overlay', [], false)).toEqual(['base-stage-not-kept', fresh]);
    expect(refusal(stages, 'disk', kept('overlay'), false)).toEqual([
      'base-stage-not-kept',
      'go on from what has not changed: --from-stage overlay',
    ]);
    expect(refusal(stages, 'postunpack', [], false)).toEqual([
      'base-stage-unknown',
      'its stages: bootstrap, overlay, install.sh, postconfig, disk',
    ]);
  });
});
