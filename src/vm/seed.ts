/**
 * The NoCloud seed that a cloud image reads at its first boot: meta-data, user-data and network-config in a small ISO.
 *
 * Secret: ECMA-119 (ISO 9660) with the Joliet names that keep case and hyphens; written without a mount or a program
 * (cloud-init, "NoCloud": a volume labelled `cidata`).
 */
import { UserError } from '../core/errors.ts';

export interface SeedFile {
  readonly name: string;
  readonly content: string | Uint8Array;
}

const SECTOR = 2048;
const DESCRIPTORS = 16; // after the system area
const PATH_TABLES = 19; // little and big endian, of both trees
const ROOTS = 23; // plain and Joliet
const DATA = 25;

/** The two trees of names: plain ones in ASCII, Joliet's in UCS-2. */
interface Tree {
  readonly descriptor: 1 | 2;
  readonly pathTable: number;
  readonly root: number;
  encode(name: string): Buffer;
}

const TREES: readonly Tree[] = [
  { descriptor: 1, pathTable: PATH_TABLES, root: ROOTS, encode: plainName },
  { descriptor: 2, pathTable: PATH_TABLES + 2, root: ROOTS + 1, encode: jolietName },
];

/**
 * A volume with `files` in its root.
 * @param label at most 16 characters
 * @param date stored as the time of everything
 * @throws UserError `seed-files` when names clash, are too long or too many
 */
export function isoImage(label: string, files: readonly SeedFile[], date: Date): Uint8Array {
  const placed = placeFiles(files);
  const last = placed.at(-1);
  const sectors = last ? last.sector + sectorsOf(last.bytes.length) : DATA;
  const image = Buffer.alloc(sectors * SECTOR);
  for (const tree of TREES) {
    image.set(volumeDescriptor(tree, label, sectors, date), (DESCRIPTORS + tree.descriptor - 1) * SECTOR);
    image.set(pathTable(tree.root, 'LE'), tree.pathTable * SECTOR);
    image.set(pathTable(tree.root, 'BE'), (tree.pathTable + 1) * SECTOR);
    image.set(rootFolder(tree, placed, date), tree.root * SECTOR);
  }
  image.set([255, ...Buffer.from('CD001'), 1], (DESCRIPTORS + 2) * SECTOR); // the descriptors end here
  for (const { sector, bytes } of placed) image.set(bytes, sector * SECTOR);
  return image;
}

interface PlacedFile {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly sector: number;
}

function placeFiles(files: readonly SeedFile[]): PlacedFile[] {
  const plain = new Set(files.map(({ name }) => plainName(name).toString('latin1')));
  const room = files.reduce((sum, { name }) => sum + 34 + 2 * name.length, 0) <= SECTOR - 68; // Joliet names are the longer ones
  if (plain.size !== files.length || !room || files.some(({ name }) => !/^[\w.-]{1,27}$/.test(name))) {
    throw new UserError('seed-files', 'these files do not go into one seed', {
      hint: 'use a few names of at most 27 letters, digits, -, _ and .',
    });
  }
  let sector = DATA;
  return files.map(({ name, content }) => {
    const bytes = typeof content === 'string' ? Buffer.from(content) : content;
    const placed = { name, bytes, sector };
    sector += Math.max(1, sectorsOf(bytes.length));
    return placed;
  });
}

function sectorsOf(bytes: number): number {
  return Math.ceil(bytes / SECTOR);
}

/** `meta-data` is `META_DATA.;1`: d-characters, version (ECMA-119 7.4, 7.5). */
function plainName(name: string): Buffer {
  const [base = '', ...rest] = name.toUpperCase().replaceAll('-', '_').split('.');
  return Buffer.from(`${base}.${rest.join('_')};1`, 'latin1');
}

function jolietName(name: string): Buffer {
  return Buffer.from(name, 'utf16le').swap16();
}

/** ECMA-119 9.1. */
function folderRecord(identifier: Uint8Array, sector: number, size: number, flags: number, date: Date): Buffer {
  const length = 33 + identifier.length;
  const record = Buffer.alloc(length + (length % 2));
  record.writeUInt8(record.length, 0);
  both32(record, 2, sector);
  both32(record, 10, size);
  record.set(shortDate(date), 18);
  record.writeUInt8(flags, 25);
  both16(record, 28, 1);
  record.writeUInt8(identifier.length, 32);
  record.set(identifier, 33);
  return record;
}

function rootFolder(tree: Tree, files: readonly PlacedFile[], date: Date): Buffer {
  const own = [0, 1].map((self) => folderRecord(Buffer.from([self]), tree.root, SECTOR, 2, date));
  const named = files
    .map(({ name, bytes, sector }) => ({ key: tree.encode(name), bytes, sector }))
    .sort((a, b) => Buffer.compare(a.key, b.key))
    .map(({ key, bytes, sector }) => folderRecord(key, sector, bytes.length, 0, date));
  return Buffer.concat([...own, ...named]);
}

/** ECMA-119 8.4 and 8.5: the primary descriptor, and the supplementary one that says Joliet by its escape sequence. */
function volumeDescriptor(tree: Tree, label: string, sectors: number, date: Date): Buffer {
  const joliet = tree.descriptor === 2;
  const text = (value: string, width: number) => {
    const padded = value.padEnd(joliet ? width / 2 : width);
    return joliet ? jolietName(padded) : Buffer.from(padded, 'latin1');
  };
  const block = Buffer.alloc(SECTOR);
  block.set([tree.descriptor, ...Buffer.from('CD001'), 1]);
  block.set(text('', 32), 8);
  block.set(text(label, 32), 40);
  both32(block, 80, sectors);
  if (joliet) block.write('%/E', 88, 'latin1');
  both16(block, 120, 1);
  both16(block, 124, 1);
  both16(block, 128, SECTOR);
  both32(block, 132, 10); // size of a path table
  block.writeUInt32LE(tree.pathTable, 140);
  block.writeUInt32BE(tree.pathTable + 1, 148);
  block.set(folderRecord(Buffer.from([0]), tree.root, SECTOR, 2, date), 156);
  for (const [offset, width] of [
    [190, 128],
    [318, 128],
    [446, 128],
    [574, 128],
  ] as const) {
    block.set(text('', width), offset);
  }
  block.set(text('', 36), 702);
  block.set(text('', 36), 739);
  block.set(text('', 36), 776);
  for (const offset of [813, 830, 864]) block.set(longDate(date), offset);
  block.fill('0', 847, 863, 'latin1'); // never expires
  block.writeUInt8(1, 881);
  return block;
}

/** One entry: the root (ECMA-119 9.4). */
function pathTable(root: number, order: 'LE' | 'BE'): Buffer {
  const table = Buffer.alloc(10);
  table.writeUInt8(1, 0);
  table[order === 'LE' ? 'writeUInt32LE' : 'writeUInt32BE'](root, 2);
  table[order === 'LE' ? 'writeUInt16LE' : 'writeUInt16BE'](1, 6);
  return table;
}

function both32(target: Buffer, offset: number, value: number): void {
  target.writeUInt32LE(value, offset);
  target.writeUInt32BE(value, offset + 4);
}

function both16(target: Buffer, offset: number, value: number): void {
  target.writeUInt16LE(value, offset);
  target.writeUInt16BE(value, offset + 2);
}

function shortDate(date: Date): number[] {
  const [year, ...rest] = dateParts(date);
  return [(year ?? 1900) - 1900, ...rest, 0];
}

function longDate(date: Date): Buffer {
  const [year = 0, ...rest] = dateParts(date);
  const digits = [String(year), ...rest.map((part) => String(part).padStart(2, '0')), '00'].join('');
  return Buffer.concat([Buffer.from(digits, 'latin1'), Buffer.from([0])]);
}

function dateParts(date: Date): number[] {
  return [
    date.getUTCFullYear(),
    date.getUTCMonth() + 1,
    ...[date.getUTCDate(), date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()],
  ];
}

/** What a machine's seed says. */
export interface SeedRequest {
  /** Changes with each new machine: cloud-init then makes new host keys and a new identity. */
  readonly instanceId: string;
  readonly hostname: string;
  /** Lines for authorized_keys of root and of the image's own user. */
  readonly authorizedKeys: readonly string[];
  /** Of the machine: it keeps the one that buildkit knows it by. */
  readonly hostKey?: { readonly privateKey: string; readonly publicKey: string } | undefined;
  /** 32 hex digits; the disk of a clone says its source's. */
  readonly machineId?: string | undefined;
  /** Who has the keys beside root and the image's own user. */
  readonly user?: string | undefined;
  /** Lines for /etc/hosts. */
  readonly hosts?: readonly string[] | undefined;
  /** Fixed addresses; DHCP when empty. */
  readonly nets: readonly {
    readonly mac: string;
    /** `192.168.100.10/24` */
    readonly address: string;
    readonly gateway: string;
    readonly dns: string;
  }[];
}

/** @param line an address and a name, in place of the line that the name had */
function hostsScript(line: string): string {
  const name = line.slice(line.lastIndexOf(' ') + 1).replaceAll('.', '\\.');
  return `sed -i '/ ${name}$/d' /etc/hosts; echo '${line}' >>/etc/hosts`;
}

function oncePerMachine(what: string, script: string): string[] {
  return ['cloud-init-per', 'instance', what, 'sh', '-c', script];
}

/** The three files of NoCloud (cloud-init: instance metadata, cloud config, network config version 2). */
export function seedFiles(request: SeedRequest): SeedFile[] {
  const json = JSON.stringify; // YAML 1.2 reads JSON, which leaves nothing to quote by hand
  const meta = { 'instance-id': request.instanceId, 'local-hostname': request.hostname };
  const user = {
    hostname: request.hostname,
    preserve_hostname: false,
    updates: { network: { when: ['boot-new-instance', 'boot'] } },
    disable_root: false,
    ssh_pwauth: false,
    ssh_authorized_keys: request.authorizedKeys,
    ...(request.hostKey === undefined
      ? {}
      : { ssh_keys: { ed25519_private: request.hostKey.privateKey, ed25519_public: request.hostKey.publicKey } }),
    ...(request.hosts === undefined
      ? {}
      : {
          bootcmd: [
            // at each boot: they change with the network, as the addresses do
            ...request.hosts.map((line) => ['sh', '-c', hostsScript(line)]),
            ...(request.machineId === undefined
              ? []
              : [oncePerMachine('machine-id', `echo ${request.machineId} >/etc/machine-id`)]),
          ],
        }),
    users: [
      'default',
      { name: 'root', lock_passwd: true, ssh_authorized_keys: request.authorizedKeys },
      ...(request.user === undefined || request.user === 'root'
        ? []
        : [{ name: request.user, shell: '/bin/bash', ssh_authorized_keys: request.authorizedKeys }]),
    ],
  };
  const fixed = request.nets.map(({ mac, address, gateway, dns }) => ({
    match: { macaddress: mac },
    addresses: [address],
    ...(gateway === '' ? {} : { routes: [{ to: '0.0.0.0/0', via: gateway }] }),
    ...(dns === '' ? {} : { nameservers: { addresses: [dns] } }),
  }));
  const dynamic = { all: { match: { name: 'e*' }, dhcp4: true } };
  const ethernets =
    fixed.length === 0 ? dynamic : Object.fromEntries(fixed.map((net, index) => [`net${index}`, net] as const));
  return [
    { name: 'meta-data', content: `${json(meta)}\n` },
    { name: 'user-data', content: `#cloud-config\n${json(user)}\n` },
    { name: 'network-config', content: `${json({ version: 2, ethernets })}\n` },
  ];
}

/** The seed as an ISO image, for a read-only drive. */
export function seedImage(request: SeedRequest, date: Date): Uint8Array {
  return isoImage('cidata', seedFiles(request), date);
}
