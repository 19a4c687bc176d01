/**
 * The outer archive of a .deb: headers of ar's common format, read and written.
 *
 * Secret: the 60 bytes of an ar header and the odd padding. Ruled by deb(5) and ar(5): names of at most 15 bytes, no long
 * name tables, sizes of at most ten decimal digits.
 */
import { UserError } from '../core/errors.ts';

/** The first eight bytes of every ar archive. */
export const AR_MAGIC = '!<arch>\n';
export const AR_HEADER_SIZE = 60;
/** The largest member that ten decimal digits can name: 9,999,999,999 bytes. */
export const AR_MAX_SIZE = 9_999_999_999;

const HEADER_END = '`\n';

/** Members start at even offsets: 1 where a newline follows a member of this size, else 0. */
export function arPadding(size: number): 0 | 1 {
  return size % 2 === 0 ? 0 : 1;
}

/**
 * The header of a member as dpkg-deb writes it: root's, mode 100644.
 * @param mtime seconds since the epoch
 * @throws UserError `deb-too-big` when the size does not fit
 */
export function formatArHeader(name: string, size: number, mtime: number): Buffer {
  if (!/^[!-.0-~]{1,15}$/.test(name)) throw new RangeError(`no name for an ar member: ${JSON.stringify(name)}`);
  if (!Number.isSafeInteger(mtime) || mtime < 0 || mtime > 999_999_999_999)
    throw new RangeError(`no time for an ar member: ${mtime}`);
  if (size > AR_MAX_SIZE) {
    throw new UserError(
      'deb-too-big',
      `'${name}' has ${size} bytes; a .deb holds at most ${AR_MAX_SIZE} in one member`,
      {
        hint: 'compress better (xz), or split the package',
      },
    );
  }
  const text = `${name.padEnd(16)}${String(mtime).padEnd(12)}${'0'.padEnd(6)}${'0'.padEnd(6)}${'100644'.padEnd(8)}${String(size).padEnd(10)}${HEADER_END}`;
  return Buffer.from(text, 'latin1');
}

export interface ArHeader {
  readonly name: string;
  readonly size: number;
}

/**
 * Reads a header, or says (as a string, for the caller knows the place) what is wrong with it.
 * A slash at the end of the name, as GNU ar writes it, is dropped, as dpkg does.
 */
export function parseArHeader(header: Uint8Array): ArHeader | string {
  const text = Buffer.from(header.buffer, header.byteOffset, AR_HEADER_SIZE).toString('latin1');
  if (text.slice(58) !== HEADER_END) return 'the bytes at the start of a member are no ar header';
  const name = text.slice(0, 16).replace(/ +$/, '').replace(/\/$/, '');
  if (!/^[!-.0-~]+$/.test(name))
    return `a member has a name that dpkg does not take: ${JSON.stringify(text.slice(0, 16))}`;
  const size = /^(\d+) *$/.exec(text.slice(48, 58))?.[1];
  if (size === undefined) return `the size of member '${name}' is no number: ${JSON.stringify(text.slice(48, 58))}`;
  return { name, size: Number(size) };
}
