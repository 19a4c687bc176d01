/** What a .deb says of itself, as data and as text for people. */
import { formatBytes, printable } from '../core/log.ts';
import type { DebInfo } from '../deb/archive.ts';
import { formatParagraph } from '../deb/control.ts';

/** For --json: fields as strings, scripts by name. */
export function packageInfo(info: DebInfo): Record<string, unknown> {
  const { path, name, version, architecture, size, md5, sha1, sha256, sha512, control } = info.package;
  return {
    path,
    name,
    version,
    architecture,
    size,
    digests: { md5, sha1, sha256, sha512 },
    members: info.members,
    fields: Object.fromEntries(control.fields.map((field) => [field.name, field.value])),
    controlFiles: [...info.controlFiles.keys()].sort(),
    conffiles: info.conffiles,
  };
}

/** The control file, then what is around it. */
export function packageInfoText(info: DebInfo): string {
  const others = [...info.controlFiles.keys()].filter((name) => name !== 'control').sort();
  const lines = [
    `File: ${info.package.path} (${formatBytes(info.package.size)})`,
    `SHA256: ${info.package.sha256}`,
    `Members: ${info.members.map((member) => `${member.name} (${formatBytes(member.size)})`).join(', ')}`,
    `Control files: ${others.join(', ') || 'none'}`,
    `Configuration files: ${info.conffiles.join(', ') || 'none'}`,
  ];
  return printable(`${formatParagraph(info.package.control)}\n${lines.join('\n')}`);
}
