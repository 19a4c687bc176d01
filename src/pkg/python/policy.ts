/**
 * Present, build or vendor: what becomes of each distribution of a closure. Pure.
 *
 * Secret: the rules. A distribution that the suite has in a version that everybody who asks takes is left to the suite; what it
 * lacks is built; what it has in another version is vendored inside the applications that need it, so that the suite's own
 * package stays untouched. Vendoring spreads: whoever would import the vendored one, in the same process, must come along.
 */
import type { DependencyMode } from '../job.ts';
import { type SuiteIndex, type SuitePackage, upstreamOf } from '../suite-index.ts';
import { debianName } from './closure.ts';
import { parsePep440 } from './pep440.ts';
import type { Resolution, Resolved } from './pip.ts';
import { markerHolds, normaliseName, parseRequirement, type Requirement } from './requirement.ts';
import { accepts } from './specifier.ts';

export interface Policy {
  readonly mode: DependencyMode;
  /** Overrides, by normalised distribution name. */
  readonly present: ReadonlySet<string>;
  readonly build: ReadonlySet<string>;
  readonly vendor: ReadonlySet<string>;
  readonly drop: ReadonlySet<string>;
}

export type Decision =
  | { readonly kind: 'build' | 'vendor' | 'drop'; readonly why: string }
  | { readonly kind: 'present'; readonly why: string; readonly package: SuitePackage };

export interface PolicyInput {
  readonly resolution: Resolution;
  /** Normalised names of what was asked for. */
  readonly asked: ReadonlySet<string>;
  readonly askedExtras: ReadonlyMap<string, readonly string[]>;
  /** Those asked for that are applications: they have programs or units, so they can carry others inside. */
  readonly applications: ReadonlySet<string>;
  readonly names: ReadonlyMap<string, string>;
  readonly suite: SuiteIndex;
  readonly policy: Policy;
}

export interface Decisions {
  /** Every distribution that is reached, by normalised name, those asked for first. */
  readonly of: ReadonlyMap<string, Decision>;
  /** What the policy wants and cannot have. */
  readonly problems: readonly string[];
}

interface Need {
  readonly from: string;
  readonly requirement: Requirement;
}

export function decide(input: PolicyInput): Decisions {
  const byName = new Map(input.resolution.distributions.map((one) => [normaliseName(one.name), one]));
  const carried = new Map<string, string>(); // name -> why it can no longer be left to the suite
  for (let round = 0; ; round += 1) {
    const decisions = walk(input, byName, carried);
    const before = carried.size;
    if (input.applications.size > 0) spread(input, byName, decisions, carried);
    if (carried.size === before || round > byName.size)
      return { of: decisions, problems: problemsOf(decisions, input) };
  }
}

/** From what was asked for down to what is left to the suite, whose own needs are its own affair. */
function walk(
  input: PolicyInput,
  byName: ReadonlyMap<string, Resolved>,
  carried: ReadonlyMap<string, string>,
): Map<string, Decision> {
  let decisions = new Map<string, Decision>();
  for (;;) {
    const needs = collectNeeds(input, byName, decisions);
    const next = new Map<string, Decision>();
    for (const [name, list] of needs) next.set(name, judge(input, name, list, byName.get(name), carried));
    const same =
      next.size === decisions.size && [...next].every(([name, one]) => decisions.get(name)?.kind === one.kind);
    decisions = next;
    if (same) return decisions;
  }
}

function collectNeeds(
  input: PolicyInput,
  byName: ReadonlyMap<string, Resolved>,
  decisions: ReadonlyMap<string, Decision>,
): Map<string, Need[]> {
  const needs = new Map<string, Need[]>();
  const queue: [name: string, extra: string][] = [];
  const seen = new Set<string>();
  const visit = (name: string, extras: readonly string[]) => {
    for (const extra of ['', ...extras]) {
      if (seen.has(`${name}[${extra}]`)) continue;
      seen.add(`${name}[${extra}]`);
      queue.push([name, extra]);
    }
  };
  for (const name of input.asked) {
    needs.set(name, []);
    visit(name, input.askedExtras.get(name) ?? []);
  }
  for (let entry = queue.shift(); entry; entry = queue.shift()) {
    const [from, extra] = entry;
    const kind = decisions.get(from)?.kind;
    // an extra of what the suite has: its requirements count, since the suite's package does not bring them
    if (kind === 'drop' || (kind === 'present' && extra === '' && !input.asked.has(from))) continue;
    for (const line of byName.get(from)?.requiresDist ?? []) {
      const requirement = parseRequirement(line);
      const plain = markerHolds(requirement.marker, input.resolution.environment, '');
      if (extra === '' ? !plain : plain || !markerHolds(requirement.marker, input.resolution.environment, extra))
        continue;
      const name = normaliseName(requirement.name);
      needs.set(name, [...(needs.get(name) ?? []), { from, requirement }]);
      visit(name, requirement.extras);
    }
  }
  return needs;
}

function judge(
  input: PolicyInput,
  name: string,
  needs: readonly Need[],
  distribution: Resolved | undefined,
  carried: ReadonlyMap<string, string>,
): Decision {
  const { policy, asked } = input;
  if (asked.has(name)) return { kind: 'build', why: 'asked for' };
  if (policy.drop.has(name)) return { kind: 'drop', why: 'dropped by the configuration' };
  const by = `needed by ${[...new Set(needs.map((need) => need.from))].sort().join(', ')}`;
  const there = input.suite.get(debianName(distribution?.name ?? name, input.names));
  const canVendor = input.applications.size > 0;
  if (policy.present.has(name) && there)
    return { kind: 'present', why: `${by}; the configuration leaves it to the suite`, package: there };
  if (policy.build.has(name)) return { kind: 'build', why: `${by}; the configuration has it built` };
  if (policy.vendor.has(name) && canVendor) return { kind: 'vendor', why: `${by}; the configuration has it vendored` };
  if (policy.mode === 'packages') return { kind: 'build', why: by };
  if (policy.mode === 'bundle')
    return canVendor ? { kind: 'vendor', why: `${by}; everything is bundled` } : { kind: 'build', why: by };
  const lead = carried.get(name);
  if (lead !== undefined) return { kind: 'vendor', why: `${by}; ${lead}` };
  if (!there)
    return { kind: 'build', why: `${by}; the suite has no ${debianName(distribution?.name ?? name, input.names)}` };
  const refusal = needs.find((need) => !suits(need.requirement, there));
  if (refusal === undefined) return { kind: 'present', why: `${by}; the suite has ${there.version}`, package: there };
  const why = `${by}; the suite has ${there.version}, and ${refusal.from} wants ${specifierText(refusal.requirement)}`;
  return canVendor ? { kind: 'vendor', why } : { kind: 'build', why };
}

function suits(requirement: Requirement, there: SuitePackage): boolean {
  if (requirement.clauses.length === 0) return true;
  const version = parsePep440(upstreamOf(there.version));
  return version !== undefined && accepts(requirement.clauses, version);
}

function specifierText(requirement: Requirement): string {
  return requirement.clauses.map((clause) => `${clause.operator}${clause.text}`).join(',');
}

/** Who must come along with the vendored: packages of ours and of the suite that would import them from elsewhere. */
function spread(
  input: PolicyInput,
  byName: ReadonlyMap<string, Resolved>,
  decisions: ReadonlyMap<string, Decision>,
  carried: Map<string, string>,
): void {
  const vendored = new Set([...decisions].filter(([, one]) => one.kind === 'vendor').map(([name]) => name));
  if (vendored.size === 0) return;
  const debianNames = new Map(
    [...vendored].map((name) => [debianName(byName.get(name)?.name ?? name, input.names), name]),
  );
  for (const [name, decision] of decisions) {
    if (vendored.has(name) || input.asked.has(name) || carried.has(name)) continue;
    if (decision.kind === 'present' && !input.policy.present.has(name)) {
      const through = suiteNeeds(input.suite, decision.package, debianNames);
      if (through !== undefined && byName.has(name))
        carried.set(name, `the suite's own uses ${through}, which is vendored`);
    }
    if (decision.kind === 'build' && !input.policy.build.has(name) && input.policy.mode === 'auto') {
      const through = (byName.get(name)?.requiresDist ?? [])
        .map(parseRequirement)
        .filter((requirement) => markerHolds(requirement.marker, input.resolution.environment, ''))
        .map((requirement) => normaliseName(requirement.name))
        .find((one) => vendored.has(one));
      if (through !== undefined) carried.set(name, `it uses ${through}, which is vendored`);
    }
  }
}

function suiteNeeds(suite: SuiteIndex, from: SuitePackage, wanted: ReadonlyMap<string, string>): string | undefined {
  const seen = new Set([from.name]);
  const queue = [...from.depends];
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    if (seen.has(name)) continue;
    seen.add(name);
    const found = wanted.get(name);
    if (found !== undefined) return found;
    queue.push(...(suite.get(name)?.depends ?? []));
  }
  return undefined;
}

function problemsOf(decisions: ReadonlyMap<string, Decision>, input: PolicyInput): string[] {
  if (input.policy.mode !== 'distro') return [];
  return [...decisions]
    .filter(
      ([name, one]) =>
        one.kind !== 'present' &&
        one.kind !== 'drop' &&
        !input.asked.has(name) &&
        !input.policy.build.has(name) &&
        !input.policy.vendor.has(name),
    )
    .map(([name, one]) => `${name}: ${one.why}`);
}
