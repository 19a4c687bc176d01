/**
 * An initrd that does nothing but load a few modules, mount the root and go on there: under emulation the one of
 * initramfs-tools costs five seconds, this one a third of one. Pure.
 *
 * Secret: its /init is a program of system calls in a row, written as machine code (x86-64: syscall(2), elf(5)), since no shell
 * and no library has to be unpacked then; and the archive's format (the kernel's buffer-format.rst, cpio "newc").
 */

export interface InitrdModule {
  /** `virtio_blk.ko` */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Drivers of QEMU's virtio disks and cards, as modules.dep names their files without folder and suffixes. */
const WANTED = ['virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_rng', 'ext4', 'crc32c_generic'];

/**
 * Which files to load, in their order, by the text of modules.dep(5); those built into the kernel are not in it.
 * @returns paths below /lib/modules/RELEASE
 */
export function planModules(modulesDep: string): string[] {
  const needs = new Map<string, { path: string; after: string[] }>();
  for (const line of modulesDep.split('\n')) {
    const [path = '', rest = ''] = line.split(':', 2);
    if (path !== '') needs.set(moduleName(path), { path, after: rest.split(' ').filter((one) => one !== '') });
  }
  const order: string[] = [];
  const add = (name: string): void => {
    const found = needs.get(name);
    if (!found || order.includes(found.path)) return;
    // the last one listed is the one to load first
    for (const one of found.after.toReversed()) add(moduleName(one));
    order.push(found.path);
  };
  for (const name of WANTED) add(name);
  return order;
}

/** `kernel/lib/libcrc32c.ko.xz` is `libcrc32c`. */
export function moduleName(path: string): string {
  return (path.split('/').at(-1) ?? '').replace(/\.ko(\.\w+)?$/, '').replaceAll('-', '_');
}

/** The initrd, uncompressed: unpacking costs a guest more than reading. */
export function tinyInitrd(modules: readonly InitrdModule[]): Uint8Array {
  const names = modules.map((one) => `/${one.name}`);
  return cpio([
    { name: 'dev', mode: 0o040755, bytes: EMPTY },
    { name: 'root', mode: 0o040755, bytes: EMPTY },
    { name: 'init', mode: 0o100755, bytes: initProgram(names) },
    ...modules.map(({ name, bytes }) => ({ name, mode: 0o100644, bytes })),
  ]);
}

const EMPTY = new Uint8Array();
/** linux/arch/x86/entry/syscalls/syscall_64.tbl */
const CALL = { open: 2, execve: 59, chdir: 80, chroot: 161, mount: 165, finitModule: 313 } as const;
const MS_MOVE = 0x2000;
const MS_NOATIME = 0x400;
const BASE = 0x400000n;
const HEADERS = 64 + 56;

/** A text of the program, or a number, or what the call before returned. */
type Argument = string | number | 'RESULT';
const RESULT = 'RESULT';

/**
 * A static ELF program that loads modules, mounts /dev/vda and becomes its /sbin/init. A call that fails is not looked at: when
 * no root was mounted, the last one fails, and the kernel panics for want of an init, which ends all waiting.
 */
export function initProgram(modules: readonly string[]): Uint8Array {
  const calls: [number: number, ...Argument[]][] = [
    [CALL.mount, 'devtmpfs', '/dev', 'devtmpfs', 0, 0],
    ...modules.flatMap((path): [number, ...Argument[]][] => [
      [CALL.open, path, 0, 0],
      [CALL.finitModule, RESULT, '', 0],
    ]),
    [CALL.mount, '/dev/vda', '/root', 'ext4', MS_NOATIME, 0],
    [CALL.mount, '/dev', '/root/dev', 0, MS_MOVE, 0],
    [CALL.chdir, '/root'],
    [CALL.mount, '.', '/', 0, MS_MOVE, 0],
    [CALL.chroot, '.'],
    [CALL.chdir, '/'],
  ];
  return assemble(calls);
}

/** argv and the environment are handed on as the kernel gave them: parameters for the real init are among them. */
function assemble(calls: readonly (readonly [number, ...Argument[]])[]): Uint8Array {
  const texts = new Map<string, number>();
  let size = 0;
  const place = (text: string) => {
    if (!texts.has(text)) {
      texts.set(text, size);
      size += Buffer.byteLength(text) + 1;
    }
    return texts.get(text)!;
  };
  const last = place('/sbin/init');
  for (const [, ...args] of calls) for (const one of args) if (typeof one === 'string' && one !== RESULT) place(one);
  const code: number[] = [0x48, 0x89, 0xe3]; // mov rbx, rsp
  const data = BASE + BigInt(HEADERS);
  const address = (offset: number) => data + BigInt(offset);
  for (const [number, ...args] of calls) {
    for (const [index, one] of args.entries()) {
      if (one === RESULT)
        code.push(0x48, 0x89, 0xc7); // mov rdi, rax
      else code.push(...load(REGISTERS[index]!, typeof one === 'string' ? address(texts.get(one)!) : BigInt(one)));
    }
    code.push(...load(RAX, BigInt(number)), 0x0f, 0x05); // syscall
  }
  code.push(
    ...load(REGISTERS[0]!, address(last)),
    ...[0x48, 0x8d, 0x73, 0x08], // lea rsi, [rbx+8]: argv
    ...[0x48, 0x8b, 0x03], // mov rax, [rbx]: argc
    ...[0x48, 0x8d, 0x54, 0xc3, 0x10], // lea rdx, [rbx+rax*8+16]: environment
    ...load(RAX, BigInt(CALL.execve)),
    ...[0x0f, 0x05],
    ...[0x31, 0xff, ...load(RAX, 60n), 0x0f, 0x05], // exit
  );
  const strings = Buffer.alloc(size);
  for (const [text, offset] of texts) strings.write(text, offset);
  return elf(strings, Buffer.from(code));
}

/** Opcodes of `mov REGISTER, imm64`, in the order in which system calls take their arguments. */
const RAX = [0x48, 0xb8] as const;
const REGISTERS: readonly (readonly [number, number])[] = [
  [0x48, 0xbf], // rdi
  [0x48, 0xbe], // rsi
  [0x48, 0xba], // rdx
  [0x49, 0xba], // r10
  [0x49, 0xb8], // r8
];

function load(register: readonly [number, number], value: bigint): number[] {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return [...register, ...bytes];
}

/** One segment: texts, then code. */
function elf(strings: Buffer, code: Buffer): Uint8Array {
  const head = Buffer.alloc(HEADERS);
  const total = BigInt(HEADERS + strings.length + code.length);
  head.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  head.writeUInt16LE(2, 16); // executable
  head.writeUInt16LE(62, 18); // x86-64
  head.writeUInt32LE(1, 20);
  head.writeBigUInt64LE(BASE + BigInt(HEADERS + strings.length), 24);
  head.writeBigUInt64LE(64n, 32); // program headers
  head.writeUInt16LE(64, 52);
  head.writeUInt16LE(56, 54);
  head.writeUInt16LE(1, 56);
  head.writeUInt32LE(1, 64); // PT_LOAD
  head.writeUInt32LE(5, 68); // readable, executable
  head.writeBigUInt64LE(BASE, 80);
  head.writeBigUInt64LE(BASE, 88);
  head.writeBigUInt64LE(total, 96);
  head.writeBigUInt64LE(total, 104);
  head.writeBigUInt64LE(0x1000n, 112);
  return Buffer.concat([head, strings, code]);
}

interface Entry {
  readonly name: string;
  readonly mode: number;
  readonly bytes: Uint8Array;
}

function cpio(entries: readonly Entry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const pad = (size: number) => Buffer.alloc((4 - (size % 4)) % 4);
  for (const [index, { name, mode, bytes }] of [...entries, { name: 'TRAILER!!!', mode: 0, bytes: EMPTY }].entries()) {
    const hex = [index + 1, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, name.length + 1, 0];
    const header = `070701${hex.map((one) => one.toString(16).padStart(8, '0')).join('')}${name}\0`;
    parts.push(Buffer.from(header, 'latin1'), pad(header.length), bytes, pad(bytes.length));
  }
  return Buffer.concat(parts);
}
