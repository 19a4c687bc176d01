/** Wheels made by hand: good ones, and ones that lie in any way a zip can. */
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { crc32, deflateRawSync } from 'node:zlib';

export interface ZipEntry {
  readonly name: string;
  readonly data: string | Uint8Array;
  /** Unix mode with file type; default a regular file 0644. */
  readonly mode?: number;
  /** What the headers say, where that is not the truth. */
  readonly size?: number;
  readonly crc?: number;
  readonly flags?: number;
}

function zip(entries: readonly ZipEntry[]): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const entry of entries) {
    const name = Buffer.from(entry.name);
    const content = Buffer.from(entry.data);
    const packed = deflateRawSync(content);
    const shared = Buffer.alloc(26);
    shared.writeUInt16LE(20, 0);
    shared.writeUInt16LE(entry.flags ?? 0x800, 2);
    shared.writeUInt16LE(8, 4);
    shared.writeUInt16LE(0x6000, 6); // 12:00:00
    shared.writeUInt16LE(((2020 - 1980) << 9) | (2 << 5) | 3, 8);
    shared.writeUInt32LE(entry.crc ?? crc32(content), 10);
    shared.writeUInt32LE(packed.length, 14);
    shared.writeUInt32LE(entry.size ?? content.length, 18);
    shared.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), shared, name, packed]);
    const central = Buffer.alloc(46 - 30);
    central.writeUInt16LE(0, 0); // comment length, disk, internal attributes
    central.writeUInt32LE(((entry.mode ?? 0o100644) << 16) >>> 0, 6);
    central.writeUInt32LE(offset, 10);
    directory.push(Buffer.concat([Buffer.from('PK\x01\x02\x14\x03'), shared, central.subarray(0, 14), name]));
    parts.push(local);
    offset += local.length;
  }
  const index = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(index.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, index, end]);
}

export interface WheelSpec {
  readonly name: string;
  readonly version: string;
  readonly tag?: string;
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  /** Lines of METADATA beside name and version. */
  readonly metadata?: readonly string[];
  readonly pure?: boolean;
  readonly extra?: readonly ZipEntry[];
  /** Instead of a right one. */
  readonly record?: string;
}

/** Writes a wheel. @returns its path */
export async function writeWheel(folder: string, spec: WheelSpec): Promise<string> {
  const tag = spec.tag ?? 'py3-none-any';
  const info = `${spec.name}-${spec.version}.dist-info`;
  const metadata = [
    'Metadata-Version: 2.1',
    `Name: ${spec.name}`,
    `Version: ${spec.version}`,
    ...(spec.metadata ?? []),
    '',
    '',
  ];
  const files: Record<string, string | Uint8Array> = {
    ...spec.files,
    [`${info}/METADATA`]: metadata.join('\n'),
    [`${info}/WHEEL`]: `Wheel-Version: 1.0\nRoot-Is-Purelib: ${spec.pure ?? true}\nTag: ${tag}\n`,
  };
  const line = ([path, data]: [string, string | Uint8Array]) =>
    `${path},sha256=${createHash('sha256').update(data).digest('base64url')},${Buffer.from(data).length}`;
  const record = spec.record ?? [...Object.entries(files).map(line), `${info}/RECORD,,`, ''].join('\n');
  const entries = [
    ...Object.entries({ ...files, [`${info}/RECORD`]: record }).map(([name, data]) => ({ name, data })),
    ...(spec.extra ?? []),
  ];
  const path = join(folder, `${spec.name}-${spec.version}-${tag}.whl`);
  await writeFile(path, zip(entries));
  return path;
}
