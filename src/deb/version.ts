/**
 * Debian versions: `[epoch:]upstream[-revision]`, read and ordered as dpkg does.
 *
 * Secret: the order of Policy 5.6.12 and deb-version(7). Checked against `dpkg --compare-versions` on generated pairs.
 * Two inputs that dpkg lets pass are refused, as Policy has no such thing: blanks around a version and an epoch like `+1`.
 */
import { UserError } from '../core/errors.ts';
import { printable } from '../core/log.ts';

export interface DebVersion {
  readonly epoch: number;
  readonly upstream: string;
  /** '' when there is none; orders like '0'. */
  readonly revision: string;
}

/** dpkg keeps the epoch in a C int. */
const MAX_EPOCH = 2 ** 31 - 1;

/**
 * Reads a version.
 * @throws UserError `version-syntax`
 */
export function parseVersion(text: string): DebVersion {
  const version = readVersion(text);
  if (typeof version === 'string')
    throw new UserError('version-syntax', `'${printable(text.slice(0, 200))}' is not a Debian version: ${version}`);
  return version;
}

export function isVersion(text: string): boolean {
  return typeof readVersion(text) !== 'string';
}

/** The version as text, the epoch left out when it is 0. */
export function formatVersion(version: DebVersion): string {
  const { epoch, upstream, revision } = version;
  return `${epoch === 0 ? '' : `${epoch}:`}${upstream}${revision === '' ? '' : `-${revision}`}`;
}

/**
 * -1 when `a` is the older one, 1 when it is the newer one, 0 when dpkg takes them for equal (`1.0` and `1.0-0`, `1.0` and `1.00`).
 * @throws UserError `version-syntax` for a text that is no version
 */
export function compareVersions(a: string | DebVersion, b: string | DebVersion): -1 | 0 | 1 {
  if (a === b && typeof a !== 'string') return 0;
  const left = typeof a === 'string' ? parseVersion(a) : a;
  const right = typeof b === 'string' ? parseVersion(b) : b;
  if (left.epoch !== right.epoch) return left.epoch < right.epoch ? -1 : 1;
  return comparePart(left.upstream, right.upstream) || comparePart(left.revision, right.revision);
}

/** The version, or why it is none. */
function readVersion(text: string): DebVersion | string {
  const colon = text.indexOf(':');
  const epochText = colon < 0 ? '0' : text.slice(0, colon);
  if (!/^[0-9]+$/.test(epochText)) return 'the epoch (before the colon) is not a number';
  const epoch = Number(epochText);
  if (epoch > MAX_EPOCH) return 'the epoch (before the colon) is too big';
  const dash = text.lastIndexOf('-');
  const hasRevision = dash > colon;
  const upstream = text.slice(colon + 1, hasRevision ? dash : undefined);
  const revision = hasRevision ? text.slice(dash + 1) : '';
  if (upstream === '') return text === '' ? 'it is empty' : 'there is no upstream version';
  if (!/^[0-9]/.test(upstream)) return 'the upstream version does not start with a digit';
  // a second colon: dpkg takes it where there is an epoch
  if (!/^[A-Za-z0-9.+~:-]+$/.test(upstream))
    return 'the upstream version holds a character other than letters, digits and . + - ~';
  if (hasRevision && revision === '') return 'nothing follows the last hyphen';
  if (!/^[A-Za-z0-9.+~]*$/.test(revision)) return 'the revision holds a character other than letters, digits and . + ~';
  return { epoch, upstream, revision };
}

/** `verrevcmp` of dpkg: runs of non-digits by weight, runs of digits by number, in turns. */
function comparePart(a: string, b: string): -1 | 0 | 1 {
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    while ((i < a.length && !isDigit(a.charCodeAt(i))) || (j < b.length && !isDigit(b.charCodeAt(j)))) {
      const left = weight(a, i);
      const right = weight(b, j);
      if (left !== right) return left < right ? -1 : 1;
      i += 1;
      j += 1;
    }
    while (a.charCodeAt(i) === 0x30) i += 1;
    while (b.charCodeAt(j) === 0x30) j += 1;
    let first: -1 | 0 | 1 = 0;
    while (isDigit(a.charCodeAt(i)) && isDigit(b.charCodeAt(j))) {
      if (first === 0) first = sign(a.charCodeAt(i) - b.charCodeAt(j));
      i += 1;
      j += 1;
    }
    if (isDigit(a.charCodeAt(i))) return 1; // the longer number is the greater one
    if (isDigit(b.charCodeAt(j))) return -1;
    if (first !== 0) return first;
  }
  return 0;
}

/** `~` before the end and digits, those before letters, letters before everything else. */
function weight(text: string, at: number): number {
  if (at >= text.length) return 0;
  const code = text.charCodeAt(at);
  if (isDigit(code)) return 0;
  if ((code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a)) return code;
  return code === 0x7e ? -1 : code + 256;
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

function sign(difference: number): -1 | 0 | 1 {
  return difference < 0 ? -1 : difference > 0 ? 1 : 0;
}
