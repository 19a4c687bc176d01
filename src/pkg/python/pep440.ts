/**
 * Python versions (PEP 440): reading, ordering, and the Debian version that sorts in the same way.
 *
 * Secret: which marks of a Debian version keep PEP 440's order (deb-version(7): `~` sorts before the end, `+` after it).
 * Checked against `packaging` and dpkg on random pairs by a tools test.
 */

export interface PepVersion {
  readonly epoch: bigint;
  readonly release: readonly bigint[];
  readonly pre: { readonly phase: 'a' | 'b' | 'rc'; readonly number: bigint } | undefined;
  readonly post: bigint | undefined;
  readonly dev: bigint | undefined;
  /** Numbers as bigint, words in lower case. */
  readonly local: readonly (bigint | string)[];
}

const PATTERN =
  /^\s*v?(?:(\d+)!)?(\d+(?:\.\d+)*)(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?(\d*))?(?:-(\d+)|[-_.]?(post|rev|r)[-_.]?(\d*))?(?:[-_.]?(dev)[-_.]?(\d*))?(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?\s*$/i;

const PHASES: Readonly<Record<string, 'a' | 'b' | 'rc'>> = {
  a: 'a',
  alpha: 'a',
  b: 'b',
  beta: 'b',
  c: 'rc',
  rc: 'rc',
  pre: 'rc',
  preview: 'rc',
};

/** Reads any spelling that PEP 440 takes; undefined for what it does not. */
export function parsePep440(text: string): PepVersion | undefined {
  const match = PATTERN.exec(text);
  if (!match) return undefined;
  const [, epoch, release, phase, preNumber, implicitPost, postWord, postNumber, dev, devNumber, local] = match;
  const post = implicitPost ?? (postWord === undefined ? undefined : postNumber || '0');
  return {
    epoch: BigInt(epoch ?? 0),
    release: release!.split('.').map(BigInt),
    pre: phase === undefined ? undefined : { phase: PHASES[phase.toLowerCase()]!, number: BigInt(preNumber || 0) },
    post: post === undefined ? undefined : BigInt(post),
    dev: dev === undefined ? undefined : BigInt(devNumber || 0),
    local: (local?.toLowerCase().split(/[-_.]/) ?? []).map((part) => (/^\d+$/.test(part) ? BigInt(part) : part)),
  };
}

export function isPreRelease(version: PepVersion): boolean {
  return version.pre !== undefined || version.dev !== undefined;
}

/** The normal spelling: '1.0rc1.post2.dev3+local'. */
export function formatPep440(version: PepVersion): string {
  const { epoch, release, pre, post, dev, local } = version;
  return [
    epoch > 0n ? `${epoch}!` : '',
    release.join('.'),
    pre ? `${pre.phase}${pre.number}` : '',
    post === undefined ? '' : `.post${post}`,
    dev === undefined ? '' : `.dev${dev}`,
    local.length > 0 ? `+${local.join('.')}` : '',
  ].join('');
}

type Atom = bigint | string;
const LOWEST = -1n;
const HIGHEST = 1n << 64n;
const PHASE_RANK = { a: 1n, b: 2n, rc: 3n } as const;

/** Order of PEP 440, "Summary of permitted suffixes and relative ordering". */
export function comparePep440(a: PepVersion, b: PepVersion): -1 | 0 | 1 {
  return (
    order(a.epoch, b.epoch) ||
    compareLists(stripZeros(a.release), stripZeros(b.release)) ||
    compareLists(suffixKey(a), suffixKey(b)) ||
    compareLists(a.local, b.local)
  );
}

function suffixKey({ pre, post, dev }: PepVersion): bigint[] {
  const devAlone = pre === undefined && post === undefined && dev !== undefined;
  return [pre ? PHASE_RANK[pre.phase] : devAlone ? LOWEST : HIGHEST, pre?.number ?? 0n, post ?? LOWEST, dev ?? HIGHEST];
}

function order(a: Atom, b: Atom): -1 | 0 | 1 {
  if (typeof a !== typeof b) return typeof a === 'bigint' ? 1 : -1; // in local labels numbers sort above words
  return a < b ? -1 : a > b ? 1 : 0;
}

function compareLists(a: readonly Atom[], b: readonly Atom[]): -1 | 0 | 1 {
  for (const [index, atom] of a.entries()) {
    const other = b[index];
    if (other === undefined) return 1;
    const answer = order(atom, other);
    if (answer !== 0) return answer;
  }
  return a.length < b.length ? -1 : 0;
}

/** At least one number stays. */
export function stripZeros(release: readonly bigint[]): bigint[] {
  const end = release.findLastIndex((part) => part !== 0n);
  return release.slice(0, Math.max(1, end + 1));
}

/**
 * The release numbers with which equal versions get equal texts: trailing zeros go, two numbers stay (1, 1.0 and 1.0.0
 * are all 1.0), since Debian holds 1.0 and 1.0.0 for different versions.
 */
function canonicalRelease(release: readonly bigint[]): bigint[] {
  const short = stripZeros(release);
  return short.length === 1 ? [...short, 0n] : short;
}

/**
 * The upstream part of a Debian version, with epoch where there is one. Order is kept but for words against numbers in
 * local labels. A revision must follow, else `-` in it would be read as one.
 */
export function debianUpstream(version: PepVersion): string {
  const { epoch, pre, post, dev, local } = version;
  const devAlone = pre === undefined && post === undefined;
  return [
    epoch > 0n ? `${epoch}:` : '',
    canonicalRelease(version.release).join('.'),
    pre ? `~${pre.phase}${pre.number}` : '',
    post === undefined ? '' : `+post${post}`,
    dev === undefined ? '' : devAlone ? `~~dev${dev}` : `~dev${dev}`,
    local.length > 0 ? `+l.${local.join('.')}` : '',
  ].join('');
}
