/**
 * What npm's names are called in Debian, and when two versions of one name are two packages.
 *
 * Secret: the JavaScript team's policy (`node-NAME`, scope and name joined by `-`; Policy 5.6.7 for the characters), and the "line" of
 * a version: those that one caret range takes together, of which a system needs one.
 */
import { UserError } from '../../core/errors.ts';
import { printable } from '../../core/log.ts';
import { isPackageName } from '../../deb/package.ts';

/** `@scope/name` -> `node-scope-name`. */
export function debianNodeName(name: string): string {
  const plain = plainName(name.replace(/^@([^/]+)\//, '$1-'));
  return checked(plain === '' ? '' : `node-${plain}`, name);
}

/** Lower case, and `-` for what Debian's names cannot hold. For applications, which are called as they call themselves. */
export function debianAppName(name: string): string {
  return checked(plainName(name.replace(/^@[^/]+\//, '')), name);
}

/** `foo@1.2.3` -> `node-foo-1`: the package of one line in the store. */
export function debianLineName(name: string, line: string): string {
  return checked(`${debianNodeName(name)}-${line.toLowerCase()}`, name);
}

function plainName(name: string): string {
  return name
    .toLowerCase()
    .replaceAll(/[^a-z0-9+.-]+/g, '-')
    .replace(/^[^a-z0-9]+/, '');
}

function checked(debianName: string, name: string): string {
  if (isPackageName(debianName) && debianName.length <= 128) return debianName;
  throw new UserError('debian-name', `Debian cannot have a package called '${printable(debianName)}'`, {
    hint: `give '${printable(name)}' another name: "buildkit": { "package": "..." } in its package.json`,
  });
}

/**
 * `1.4.2` -> `1`, `0.4.2` -> `0.4`, `0.0.2` -> `0.0.2`; a pre-release is a line of its own. What `^VERSION` takes is in one line.
 */
export function versionLine(version: string): string {
  const [core = '', prerelease] = version.replace(/\+.*$/, '').split(/-(.*)/s);
  if (prerelease !== undefined) return `${core}-${prerelease}`;
  const [major, minor, patch] = core.split('.');
  if (major !== '0') return major!;
  return minor === '0' ? `0.0.${patch}` : `0.${minor}`;
}
