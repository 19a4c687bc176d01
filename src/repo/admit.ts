/**
 * What a package may say of itself before it is let into an index.
 *
 * Secret: how a hostile control file is kept from speaking for the repository. A stanza is one paragraph whose lines apt, dpkg
 * and the mirror tools cut alike (Policy 5.1), and the fields that only a repository may write are thrown away.
 */
import { UserError } from '../core/errors.ts';
import { isArch } from '../deb/arch.ts';
import { getField, type Paragraph } from '../deb/control.ts';
import { type BinaryPackage, isPackageName } from '../deb/package.ts';
import { isVersion } from '../deb/version.ts';
import type { NewPackage, PackageKind } from './catalog.ts';
import type { SuiteSettings } from './settings.ts';

/** Written by the repository, never by a package. */
const OWN_FIELDS = new Set([
  'filename',
  'size',
  'md5sum',
  'sha1',
  'sha256',
  'sha512',
  'description-md5',
  'status',
  'conffiles',
  'config-version',
  'triggers-awaited',
  'triggers-pending',
  'msdos-filename',
  'phased-update-percentage',
]);

/** apt gives up the whole index at a stanza of more than 1 MiB; digests and overrides come on top of this. */
const MAX_STANZA_BYTES = 960 * 1024;
/** Longest names that still leave room for version and architecture in a file name of 255 bytes. */
const MAX_NAME = 100;
const MAX_FILE_NAME = 240;

function refuse(file: BinaryPackage, code: string, message: string): UserError {
  return new UserError(code, message, { file: file.path });
}

/**
 * Checks what the index will say of a package.
 * @throws UserError `bad-package` with what is wrong
 */
export function admit(file: BinaryPackage, kind: PackageKind): Omit<NewPackage, 'filename'> {
  const { name, version, architecture } = file;
  if (!isPackageName(name) || name.length > MAX_NAME) throw refuse(file, 'bad-package', `'${name}' is no package name`);
  if (!isVersion(version)) throw refuse(file, 'bad-package', `'${version}' is no Debian version`);
  if (architecture !== 'all' && !isArch(architecture)) {
    throw refuse(file, 'bad-package', `'${architecture}' is no Debian architecture`);
  }
  if (name.length + version.length + architecture.length > MAX_FILE_NAME) {
    throw refuse(file, 'bad-package', 'name and version are too long for a file name');
  }
  return {
    kind,
    name,
    version,
    architecture,
    source: sourceOf(file),
    size: file.size,
    md5: file.md5,
    sha1: file.sha1,
    sha256: file.sha256,
    sha512: file.sha512,
    control: renderControl(file, file.control),
  };
}

/** `Source: name (version)`, or the package's own name. */
function sourceOf(file: BinaryPackage): string {
  const field = getField(file.control, 'Source');
  if (field === undefined) return file.name;
  const match = /^(\S+)(?:\s+\(([^()]+)\))?$/.exec(field);
  if (!match || !isPackageName(match[1]!) || match[1]!.length > MAX_NAME || (match[2] && !isVersion(match[2]))) {
    throw refuse(file, 'bad-package', `'${field.slice(0, 100)}' is no value for the field Source`);
  }
  return match[1]!;
}

/** The stanza without what the repository adds: Package first, the other fields in their order. */
function renderControl(file: BinaryPackage, control: Paragraph): string {
  let text = `Package: ${file.name}\n`;
  for (const field of control.fields) {
    const lowerName = field.name.toLowerCase();
    if (lowerName === 'package' || OWN_FIELDS.has(lowerName)) continue;
    checkField(file.path, field.name, field.value);
    text +=
      field.value.startsWith('\n') || field.value === ''
        ? `${field.name}:${field.value}\n`
        : `${field.name}: ${field.value}\n`;
  }
  // a copy in one piece: what it was put together from would keep all that was read alive
  return checkStanzaSize(file.path, Buffer.from(text)).toString();
}

/** @throws UserError `bad-package` for what would make the whole index unreadable */
export function checkStanzaSize(file: string, stanza: Buffer): Buffer {
  if (stanza.length <= MAX_STANZA_BYTES) return stanza;
  const message = `its control file has ${stanza.length} bytes: apt could not read an index that holds it`;
  throw new UserError('bad-package', message, { file, hint: `at most ${MAX_STANZA_BYTES} bytes` });
}

/** @throws UserError `bad-package` for what would end the stanza or begin another field */
export function checkField(file: string, name: string, value: string): void {
  const bad = (message: string) => new UserError('bad-package', message, { file });
  if (!/^[!-,./-9;-~][!-9;-~]*$/.test(name) || name.startsWith('#')) {
    throw bad(`'${name.slice(0, 100)}' is no field name`);
  }
  if (/[\u0000-\u0008\u000b-\u001f\u007f]/.test(value)) throw bad(`field ${name} holds control characters`);
  if (value.includes('\n') && /\n(?:[^ \t]|[ \t]*(?:\n|$))/.test(value)) {
    throw bad(`field ${name} holds a line that would end the stanza or begin another field`);
  }
}

/** @throws UserError `wrong-architecture` when the suite does not carry it */
export function checkFits(item: Pick<NewPackage, 'architecture'>, suite: SuiteSettings, file: string): void {
  if (['all', 'source'].includes(item.architecture) || suite.architectures.includes(item.architecture)) return;
  throw new UserError(
    'wrong-architecture',
    `suite '${suite.name}' has no architecture '${item.architecture}', only ${suite.architectures.join(', ')}`,
    { file, hint: `buildkit repo suite ${suite.name} --add-arch ${item.architecture}` },
  );
}
