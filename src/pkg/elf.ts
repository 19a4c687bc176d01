/**
 * What a shared object or program asks of the dynamic linker: its libraries and the symbol versions it wants of each.
 *
 * Secret: the ELF file. Ruled by the System V gABI (dynamic section) and the LSB (symbol versioning, .gnu.version_r).
 */

export interface ElfNeeds {
  readonly soname: string | undefined;
  readonly needed: readonly string[];
  /** By library: 'libc.so.6' -> 'GLIBC_2.34', ... */
  readonly versions: ReadonlyMap<string, readonly string[]>;
  /** e_machine: 62 is x86-64, 183 is AArch64. */
  readonly machine: number;
}

const PT_LOAD = 1;
const PT_DYNAMIC = 2;
const DT = { needed: 1, strtab: 5, soname: 14, verneed: 0x6ffffffe, verneednum: 0x6fffffff } as const;

/** undefined: no ELF file, or one that is not dynamic or not whole. */
export function readElf(bytes: Uint8Array): ElfNeeds | undefined {
  return readWhole(bytes, dynamicOf);
}

/** `read` of an ELF file; undefined for another file, and where offsets lie. */
function readWhole<T>(bytes: Uint8Array, read: (bytes: Uint8Array) => T | undefined): T | undefined {
  if (bytes.length < 64 || bytes[0] !== 0x7f || bytes[1] !== 0x45 || bytes[2] !== 0x4c || bytes[3] !== 0x46)
    return undefined;
  try {
    return read(bytes);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** Numbers in the byte order and the width (e_ident) of the file. */
function numbersOf(bytes: Uint8Array) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = bytes[4] === 2;
  const little = bytes[5] === 1;
  const u16 = (at: number) => view.getUint16(at, little);
  const u32 = (at: number) => view.getUint32(at, little);
  const word = (at: number) => (wide ? Number(view.getBigUint64(at, little)) : u32(at));
  return { wide, u16, u32, word };
}

function dynamicOf(bytes: Uint8Array): ElfNeeds | undefined {
  const { wide, u16, u32, word } = numbersOf(bytes);
  const headers: { type: number; offset: number; address: number; size: number }[] = [];
  const table = word(wide ? 32 : 28);
  const entrySize = u16(wide ? 54 : 42);
  for (let index = 0; index < u16(wide ? 56 : 44); index += 1) {
    const at = table + index * entrySize;
    headers.push({
      type: u32(at),
      offset: word(at + (wide ? 8 : 4)),
      address: word(at + (wide ? 16 : 8)),
      size: word(at + (wide ? 32 : 16)),
    });
  }
  const dynamic = headers.find((header) => header.type === PT_DYNAMIC);
  if (!dynamic) return undefined;
  const place = (address: number): number => {
    const segment = headers.find(
      (header) => header.type === PT_LOAD && address >= header.address && address < header.address + header.size,
    );
    if (!segment) throw new RangeError('address outside of every segment');
    return address - segment.address + segment.offset;
  };
  const tags: [number, number][] = [];
  const pair = wide ? 16 : 8;
  for (let at = dynamic.offset; at + pair <= dynamic.offset + dynamic.size; at += pair) {
    const tag = word(at);
    if (tag === 0) break;
    tags.push([tag, word(at + pair / 2)]);
  }
  const one = (tag: number) => tags.find(([key]) => key === tag)?.[1];
  const strings = one(DT.strtab);
  if (strings === undefined) return undefined;
  const stringsAt = place(strings);
  const text = (offset: number): string => {
    const from = stringsAt + offset;
    const end = bytes.indexOf(0, from);
    if (from >= bytes.length || end < 0) throw new RangeError('string outside of the file');
    return Buffer.from(bytes.subarray(from, end)).toString('utf8');
  };
  const versions = new Map<string, string[]>();
  const verneed = one(DT.verneed);
  let at = verneed === undefined ? 0 : place(verneed);
  for (let left = verneed === undefined ? 0 : (one(DT.verneednum) ?? 0); left > 0; left -= 1) {
    const names: string[] = [];
    let aux = at + u32(at + 8);
    for (let count = u16(at + 2); count > 0; count -= 1) {
      names.push(text(u32(aux + 8)));
      const step = u32(aux + 12);
      if (step === 0) break; // the last one; also where the count lies
      aux += step;
    }
    versions.set(text(u32(at + 4)), names);
    const step = u32(at + 12);
    if (step === 0) break;
    at += step;
  }
  const soname = one(DT.soname);
  return {
    soname: soname === undefined ? undefined : text(soname),
    needed: tags.filter(([tag]) => tag === DT.needed).map(([, value]) => text(value)),
    versions,
    machine: u16(18),
  };
}

export interface ElfSections {
  readonly names: readonly string[];
  /** Hex digits of .note.gnu.build-id. */
  readonly buildId: string | undefined;
  readonly machine: number;
  /** ET_DYN: a library, or a program that may lie anywhere. */
  readonly isShared: boolean;
}

/** Section names of an ELF file of this byte order; undefined: none, or not whole. */
export function readElfSections(bytes: Uint8Array): ElfSections | undefined {
  return readWhole(bytes, sectionsOf);
}

function sectionsOf(bytes: Uint8Array): ElfSections | undefined {
  const { wide, u16, u32, word } = numbersOf(bytes);
  const table = word(wide ? 40 : 32);
  const size = u16(wide ? 58 : 46);
  const count = u16(wide ? 60 : 48);
  if (table === 0 || count === 0) return undefined;
  const headers = Array.from({ length: count }, (_, index) => {
    const at = table + index * size;
    return { name: u32(at), offset: word(at + (wide ? 24 : 16)), size: word(at + (wide ? 32 : 20)) };
  });
  const strings = headers[u16(wide ? 62 : 50)];
  if (strings === undefined) return undefined;
  const nameOf = (offset: number): string => {
    const from = strings.offset + offset;
    const end = bytes.indexOf(0, from);
    if (from >= bytes.length || end < 0) throw new RangeError('name outside of the file');
    return Buffer.from(bytes.subarray(from, end)).toString('latin1');
  };
  const named = headers.map((header) => ({ ...header, text: nameOf(header.name) }));
  const note = named.find((header) => header.text === '.note.gnu.build-id');
  // Elf_Nhdr: lengths of name and description, type; then 'GNU\0' and the id itself
  const id = note && bytes.subarray(note.offset + 16, note.offset + 16 + u32(note.offset + 4));
  return {
    names: named.map((header) => header.text).filter((text) => text !== ''),
    buildId: id === undefined || id.length < 2 ? undefined : Buffer.from(id).toString('hex'),
    machine: u16(18),
    isShared: u16(16) === 3,
  };
}
