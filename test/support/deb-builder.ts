/** Packages made by hand, good ones and ones that lie: every field of every header can be set to anything. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DebEntry, DebSpec } from '../../src/deb/archive.ts';
import { paragraph } from '../../src/deb/control.ts';
import { formatTarHeader, type TarHeader, tarEnd, tarPadding } from '../../src/deb/tar.ts';

/** A folder that is gone when the scope ends. */
export interface Scratch extends AsyncDisposable {
  readonly path: string;
  at(...parts: string[]): string;
  /** Writes a file and returns its path. */
  put(name: string, content: string | Uint8Array): Promise<string>;
}

export async function createScratch(): Promise<Scratch> {
  const path = await mkdtemp(join(tmpdir(), 'buildkit-deb-'));
  const at = (...parts: string[]) => join(path, ...parts);
  return {
    path,
    at,
    async put(name, content) {
      await writeFile(at(name), content);
      return at(name);
    },
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

export interface RawMember {
  readonly name: string;
  readonly data?: Uint8Array | string;
  /** What the header says, where that is not the truth. */
  readonly size?: number | string;
  /** The whole header instead of a good one. */
  readonly header?: string;
  /** False: no newline after an odd size. */
  readonly padded?: boolean;
}

export function rawAr(members: readonly RawMember[], magic = '!<arch>\n'): Buffer {
  const parts: Buffer[] = [Buffer.from(magic, 'latin1')];
  for (const member of members) {
    const data = Buffer.from(member.data ?? '');
    const size = String(member.size ?? data.length).padEnd(10);
    const usual = `${member.name.padEnd(16)}${'0'.padEnd(12)}${'0'.padEnd(6)}${'0'.padEnd(6)}${'100644'.padEnd(8)}${size}\`\n`;
    parts.push(Buffer.from(member.header ?? usual, 'latin1'), data);
    if (data.length % 2 === 1 && member.padded !== false) parts.push(Buffer.from('\n'));
  }
  return Buffer.concat(parts);
}

export interface RawTarEntry {
  readonly name: string;
  readonly type?: TarHeader['type'];
  readonly mode?: number;
  readonly mtime?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly link?: string;
  readonly data?: Uint8Array | string;
  /** What the header says, where that is not the truth. */
  readonly size?: number;
  /** Changes the header block (the last 512 bytes before the content) before its checksum is made anew. */
  readonly tamper?: (block: Buffer) => void;
}

export function rawTar(entries: readonly RawTarEntry[], end = true): Buffer {
  const parts: Buffer[] = [];
  for (const entry of entries) {
    const data = Buffer.from(entry.data ?? '');
    const header = formatTarHeader(tarHeader({ ...entry, size: entry.size ?? data.length }));
    if (entry.tamper !== undefined) {
      const block = header.subarray(-512);
      entry.tamper(block);
      sealTarHeader(block);
    }
    parts.push(header, data, Buffer.alloc(tarPadding(data.length)));
  }
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat(end ? [...parts, tarEnd(size)] : parts);
}

export function tarHeader(entry: RawTarEntry): TarHeader {
  return {
    name: Buffer.from(entry.name),
    type: entry.type ?? 'file',
    mode: entry.mode ?? (entry.type === 'dir' ? 0o755 : 0o644),
    uid: entry.uid ?? 0,
    gid: entry.gid ?? 0,
    user: 'root',
    group: 'root',
    size: entry.size ?? 0,
    mtime: entry.mtime ?? 1_600_000_000,
    link: Buffer.from(entry.link ?? ''),
  };
}

/** Makes the checksum right again. */
export function sealTarHeader(block: Buffer): void {
  block.write('        ', 148, 'latin1');
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
}

export const CONTROL_TEXT =
  'Package: sample\nVersion: 1.0-1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: sample\n';

export interface RawDeb {
  readonly control?: readonly RawTarEntry[];
  readonly data?: readonly RawTarEntry[];
  readonly controlMember?: RawMember;
  readonly dataMember?: RawMember;
  /** Instead of the three usual ones. */
  readonly members?: (usual: RawMember[]) => readonly RawMember[];
}

/** An uncompressed .deb: `debian-binary`, `control.tar`, `data.tar`. */
export function rawDeb(raw: RawDeb = {}): Buffer {
  const control = raw.control ?? [{ name: './control', data: CONTROL_TEXT }];
  const data = raw.data ?? [
    { name: './', type: 'dir' },
    { name: './hello', data: 'hello\n' },
  ];
  const usual: RawMember[] = [
    { name: 'debian-binary', data: '2.0\n' },
    raw.controlMember ?? { name: 'control.tar', data: rawTar(control) },
    raw.dataMember ?? { name: 'data.tar', data: rawTar(data) },
  ];
  return rawAr(raw.members?.(usual) ?? usual);
}

/** What `writeDeb` takes, with the fields that every package needs. */
export function debSpec(
  entries: readonly DebEntry[],
  rest: Partial<DebSpec> & { readonly fields?: Readonly<Record<string, string>> } = {},
): DebSpec {
  const { fields, ...spec } = rest;
  const usual = {
    Package: 'sample',
    Version: '1.0-1',
    Architecture: 'all',
    Maintainer: 'A <a@example.org>',
    Description: 'sample',
  };
  return { control: paragraph(Object.entries({ ...usual, ...fields })), entries, ...spec };
}

export function file(path: string, data: string | Uint8Array = path, rest: Partial<DebEntry> = {}): DebEntry {
  return { path, type: 'file', mode: 0o644, source: { data }, ...rest };
}
