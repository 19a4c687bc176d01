/**
 * The members of a .deb: which there are, where they lie, in which order they must stand. Pure, but for the bytes it asks for.
 *
 * Secret: what dpkg takes as a .deb. Ruled by deb(5).
 */
import { UserError } from '../core/errors.ts';
import { AR_HEADER_SIZE, AR_MAGIC, arPadding, parseArHeader } from './ar.ts';
import type { DebMember } from './archive.ts';
import { compressionOf, type StoredCompression } from './compression.ts';

/** deb(5) knows three members and a few more that start with an underscore. */
const MAX_MEMBERS = 64;

export interface PackedTar extends DebMember {
  readonly compression: StoredCompression;
}

/** Where everything lies. */
export interface Layout {
  readonly members: readonly DebMember[];
  readonly control: PackedTar;
  readonly data: PackedTar;
}

/**
 * Finds all members by their headers.
 * @param readAt bytes of the file; always within `size`
 * @throws UserError `deb-broken`, `deb-truncated`, `deb-unsupported`
 */
export function findMembers(readAt: (offset: number, length: number) => Buffer, size: number, file: string): Layout {
  const fail = (code: string, message: string, hint?: string): never => {
    throw new UserError(code, message, { file, hint });
  };
  if (size < AR_MAGIC.length) fail(size === 0 ? 'deb-truncated' : 'deb-broken', 'too short to be a Debian package');
  const magic = readAt(0, AR_MAGIC.length).toString('latin1');
  if (magic.startsWith('0.93')) fail('deb-unsupported', 'a package in the format of before 1995');
  if (magic !== AR_MAGIC) fail('deb-broken', 'not a Debian package: it does not start as an ar archive does');
  const members: DebMember[] = [];
  for (let offset = AR_MAGIC.length; offset < size; ) {
    const after = members.at(-1)?.name ?? 'the start';
    if (offset + AR_HEADER_SIZE > size)
      fail('deb-truncated', `cut short, or followed by something else, after ${after}`);
    const header = parseArHeader(readAt(offset, AR_HEADER_SIZE));
    if (typeof header === 'string') return fail('deb-broken', `after ${after}: ${header}`);
    const start = offset + AR_HEADER_SIZE;
    offset = start + header.size + arPadding(header.size);
    if (offset > size)
      fail('deb-truncated', `${header.name}: cut short: ${header.size} bytes announced, ${size - start} there`);
    members.push({ name: header.name, offset: start, size: header.size });
    if (members.length > MAX_MEMBERS) fail('deb-broken', `more than ${MAX_MEMBERS} members`);
  }
  return { members, ...checkOrder(members, readAt, fail) };
}

/** debian-binary, control.tar*, data.tar*, in this order; between them only names with an underscore; behind, what others add. */
function checkOrder(
  members: readonly DebMember[],
  readAt: (offset: number, length: number) => Buffer,
  fail: (code: string, message: string) => never,
): { control: PackedTar; data: PackedTar } {
  const first = members[0];
  if (first?.name !== 'debian-binary')
    return fail('deb-broken', "not a Debian package: 'debian-binary' is not its first member");
  const version = first.size > 64 ? '' : readAt(first.offset, first.size).toString('latin1');
  if (!/^\d+\.\d+\n/.test(version)) return fail('deb-broken', 'debian-binary: holds no format version');
  if (!version.startsWith('2.'))
    return fail('deb-unsupported', `debian-binary: format version ${version.split('\n')[0]} is not known`);
  const rest = members.slice(1);
  const own = rest.filter(({ name }) => /^(debian-binary|(control|data)\.tar)/.test(name));
  for (const base of ['debian-binary', 'control.tar', 'data.tar']) {
    const same = own.filter(({ name }) => name.startsWith(base));
    if (same.length > (base === 'debian-binary' ? 0 : 1))
      return fail('deb-broken', `${same.at(-1)!.name}: there is more than one ${base}`);
  }
  const required = rest.filter(({ name }) => !name.startsWith('_'));
  const member = (index: number, base: string): PackedTar => {
    const found = required[index];
    if (found === undefined) return fail('deb-broken', `${base}: missing`);
    if (!found.name.startsWith(base)) return fail('deb-broken', `${found.name}: stands where ${base} should`);
    const compression = compressionOf(found.name, base);
    const known = compression !== undefined && (base === 'data.tar' || !['bzip2', 'lzma'].includes(compression));
    if (!known) return fail('deb-unsupported', `${found.name}: dpkg knows no such compression`);
    return { ...found, compression };
  };
  return { control: member(0, 'control.tar'), data: member(1, 'data.tar') };
}
