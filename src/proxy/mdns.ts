/**
 * Telling the local network: `_apt_proxy._tcp` by multicast DNS, which squid-deb-proxy-client and auto-apt-proxy look for.
 *
 * Secret: the messages (RFC 6762, 6763; wire form RFC 1035 4). Announced at the start, answered when asked, taken back at the end.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { networkInterfaces } from 'node:os';

export interface Service {
  /** Of the instance, as a person sees it. */
  readonly name: string;
  readonly type: string;
  /** Without `.local`. */
  readonly host: string;
  readonly port: number;
  readonly addresses: readonly string[];
}

const GROUP = '224.0.0.251';
const PORT = 5353;
const TYPE = { a: 1, ptr: 12, txt: 16, aaaa: 28, srv: 33, any: 255 } as const;
const TTL = 120;
const FLUSH = 0x8000;

/** Answers until it is disposed, on the network of each IPv4 address. @param port for tests: another one than 5353 */
export async function announce(service: Service, port = PORT): Promise<AsyncDisposable> {
  const stack = new AsyncDisposableStack();
  for (const address of service.addresses.filter((one) => !one.includes(':'))) {
    stack.use(await announceOn({ ...service, addresses: [address] }, address, port));
  }
  return stack;
}

/** A socket for each network: what is sent by multicast leaves by one interface, with the address that is good there. */
async function announceOn(service: Service, address: string, port: number): Promise<AsyncDisposable> {
  const socket = createSocket({ type: 'udp4', reuseAddr: true });
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(port, () => {
      socket.off('error', reject);
      resolve();
    });
  });
  socket.on('error', () => {}); // without a network nobody asks
  const joined = join(socket, address);
  const send = (message: Buffer, to = GROUP, at = port) => socket.send(message, at, to, () => {});
  socket.on('message', (message: Buffer, from: RemoteInfo) => {
    const asked = parseQuestions(message);
    if (!asked.some((question) => concerns(question, service))) return;
    send(encodeAnswer(service, TTL));
    if (from.port !== port) send(encodeAnswer(service, TTL, message.readUInt16BE(0)), from.address, from.port); // one-shot queries, RFC 6762 6.7
  });
  if (joined) send(encodeAnswer(service, TTL));
  const again = setTimeout(() => joined && send(encodeAnswer(service, TTL)), 1000); // twice, RFC 6762 8.3
  return {
    async [Symbol.asyncDispose]() {
      clearTimeout(again);
      if (joined)
        await new Promise<void>((resolve) => socket.send(encodeAnswer(service, 0), port, GROUP, () => resolve()));
      await new Promise<void>((resolve) => socket.close(() => resolve()));
    },
  };
}

/** False on an interface without multicast. */
function join(socket: Socket, address: string): boolean {
  try {
    socket.setMulticastInterface(address);
    socket.addMembership(GROUP, address);
    return true;
  } catch {
    return false;
  }
}

/** Addresses of this machine that others can reach; loopback when there are none. */
export function ownAddresses(): string[] {
  const all = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  const outer = all
    .filter(({ internal, address }) => !internal && !address.startsWith('fe80'))
    .map(({ address }) => address);
  return outer.length > 0 ? outer : ['127.0.0.1'];
}

export interface Question {
  readonly name: string;
  readonly type: number;
}

/** The questions of a query; none when it is an answer or malformed. */
export function parseQuestions(message: Buffer): Question[] {
  if (message.length < 12 || (message.readUInt16BE(2) & 0x8000) !== 0) return [];
  const questions: Question[] = [];
  let at = 12;
  try {
    for (let count = Math.min(message.readUInt16BE(4), 32); count > 0; count -= 1) {
      const { name, next } = readName(message, at);
      questions.push({ name: name.toLowerCase(), type: message.readUInt16BE(next) });
      at = next + 4;
    }
  } catch {
    return [];
  }
  return questions;
}

function readName(message: Buffer, start: number): { name: string; next: number } {
  const labels: string[] = [];
  let at = start;
  let next = -1;
  for (let hops = 0; hops < 64; hops += 1) {
    const length = message.readUInt8(at);
    if (length === 0) return { name: labels.join('.'), next: next < 0 ? at + 1 : next };
    if ((length & 0xc0) === 0xc0) {
      if (next < 0) next = at + 2;
      at = message.readUInt16BE(at) & 0x3fff;
      continue;
    }
    if (at + 1 + length > message.length) throw new RangeError('a label beyond the message');
    labels.push(message.toString('utf8', at + 1, at + 1 + length));
    at += 1 + length;
  }
  throw new RangeError('a name in a circle');
}

function concerns({ name, type }: Question, service: Service): boolean {
  const own = [`${service.type}.local`, `${service.name}.${service.type}.local`, `${service.host}.local`].map((one) =>
    one.toLowerCase(),
  );
  return own.includes(name) && [TYPE.a, TYPE.aaaa, TYPE.ptr, TYPE.srv, TYPE.txt, TYPE.any].includes(type as 1);
}

export interface Discovered {
  /** IPv4 of the machine that the service is on. */
  readonly address: string;
  readonly port: number;
}

/**
 * Asks the local network once (RFC 6762 5.1) and returns what answers first; nothing when nobody does.
 * @param port for tests: another one than 5353
 */
export async function discover(type: string, waitMs: number, port = PORT): Promise<Discovered | undefined> {
  const { promise, resolve } = Promise.withResolvers<Discovered | undefined>();
  const addresses = [...ownAddresses().filter((one) => !one.includes(':')), '127.0.0.1'];
  const sockets = [...new Set(addresses)].map((address) => ask(type, address, port, resolve));
  const limit = setTimeout(() => resolve(undefined), waitMs);
  try {
    return await promise;
  } finally {
    clearTimeout(limit);
    for (const socket of sockets) socket.close();
  }
}

function ask(type: string, address: string, port: number, found: (service: Discovered) => void): Socket {
  const socket = createSocket('udp4');
  socket.on('error', () => {}); // an interface without multicast, or none
  socket.on('message', (message: Buffer) => {
    const service = parseService(message, type);
    if (service) found(service);
  });
  socket.bind(0, () => {
    if (join(socket, address)) socket.send(encodeQuery(type), port, GROUP, () => {});
  });
  return socket;
}

/** One PTR question (RFC 1035 4.1). */
export function encodeQuery(type: string): Buffer {
  const head = Buffer.alloc(12);
  head.writeUInt16BE(1, 4);
  return Buffer.concat([head, encodeName(`${type}.local`), Buffer.from([0, TYPE.ptr, 0, 1])]);
}

/** Address and port of the first instance of `type` in an answer; undefined when it is malformed, taken back or of another kind. */
export function parseService(message: Buffer, type: string): Discovered | undefined {
  const records = parseRecords(message);
  const instance = records.find((one) => one.type === TYPE.srv && one.ttl > 0 && one.name.endsWith(`.${type}.local`));
  if (!instance) return undefined;
  const port = message.readUInt16BE(instance.at + 4);
  const host = readName(message, instance.at + 6).name.toLowerCase();
  const address = records.find((one) => one.type === TYPE.a && one.length === 4 && one.name === host);
  return address && port > 0
    ? { address: [...message.subarray(address.at, address.at + 4)].join('.'), port }
    : undefined;
}

interface Resource {
  readonly name: string;
  readonly type: number;
  readonly ttl: number;
  readonly at: number;
  readonly length: number;
}

/** All records of an answer; none when it is a query or malformed. */
function parseRecords(message: Buffer): Resource[] {
  if (message.length < 12 || (message.readUInt16BE(2) & 0x8000) === 0) return [];
  const records: Resource[] = [];
  try {
    let at = 12;
    for (let count = message.readUInt16BE(4); count > 0; count -= 1) at = readName(message, at).next + 4;
    const total = message.readUInt16BE(6) + message.readUInt16BE(8) + message.readUInt16BE(10);
    for (let count = Math.min(total, 64); count > 0; count -= 1) {
      const { name, next } = readName(message, at);
      const length = message.readUInt16BE(next + 8);
      if (next + 10 + length > message.length) return [];
      const type = message.readUInt16BE(next);
      if (type === TYPE.srv) readName(message, next + 16); // a name beyond the message is met here
      records.push({ name: name.toLowerCase(), type, ttl: message.readUInt32BE(next + 4), at: next + 10, length });
      at = next + 10 + length;
    }
  } catch {
    return [];
  }
  return records;
}

/** PTR, SRV, TXT and addresses in one answer. @param ttl 0 takes it back */
export function encodeAnswer(service: Service, ttl: number, id = 0): Buffer {
  const type = encodeName(`${service.type}.local`);
  const instance = Buffer.concat([label(service.name), type]);
  const host = encodeName(`${service.host}.local`);
  const srv = Buffer.alloc(6);
  srv.writeUInt16BE(service.port, 4);
  const records = [
    record(type, TYPE.ptr, 1, ttl, instance),
    record(instance, TYPE.srv, 1 | FLUSH, ttl, Buffer.concat([srv, host])),
    record(instance, TYPE.txt, 1 | FLUSH, ttl, Buffer.from([0])),
    ...service.addresses
      .filter((address) => !address.includes(':'))
      .map((address) => record(host, TYPE.a, 1 | FLUSH, ttl, Buffer.from(address.split('.').map(Number)))),
  ];
  const head = Buffer.alloc(12);
  head.writeUInt16BE(id, 0);
  head.writeUInt16BE(0x8400, 2);
  head.writeUInt16BE(records.length, 6);
  return Buffer.concat([head, ...records]);
}

function record(name: Buffer, type: number, klass: number, ttl: number, data: Buffer): Buffer {
  const middle = Buffer.alloc(10);
  middle.writeUInt16BE(type, 0);
  middle.writeUInt16BE(klass, 2);
  middle.writeUInt32BE(ttl, 4);
  middle.writeUInt16BE(data.length, 8);
  return Buffer.concat([name, middle, data]);
}

function label(text: string): Buffer {
  const bytes = Buffer.from(text).subarray(0, 63);
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

function encodeName(name: string): Buffer {
  return Buffer.concat([...name.split('.').map(label), Buffer.from([0])]);
}
