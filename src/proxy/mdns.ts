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

/** Answers until it is disposed. @param port for tests: another one than 5353 */
export async function announce(service: Service, port = PORT): Promise<AsyncDisposable> {
  const socket = createSocket({ type: 'udp4', reuseAddr: true });
  socket.on('error', () => {}); // without a network nobody asks
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(port, () => {
      socket.off('error', reject);
      resolve();
    });
  });
  joinEverywhere(socket);
  const send = (message: Buffer, to = GROUP, at = port) => socket.send(message, at, to, () => {});
  socket.on('message', (message: Buffer, from: RemoteInfo) => {
    const asked = parseQuestions(message);
    if (!asked.some((question) => concerns(question, service))) return;
    send(encodeAnswer(service, TTL));
    if (from.port !== port) send(encodeAnswer(service, TTL, message.readUInt16BE(0)), from.address, from.port); // one-shot queries, RFC 6762 6.7
  });
  send(encodeAnswer(service, TTL));
  return {
    async [Symbol.asyncDispose]() {
      await new Promise<void>((resolve) => socket.send(encodeAnswer(service, 0), port, GROUP, () => resolve()));
      await new Promise<void>((resolve) => socket.close(() => resolve()));
    },
  };
}

function joinEverywhere(socket: Socket): void {
  for (const list of Object.values(networkInterfaces())) {
    for (const { family, address } of list ?? []) {
      if (family !== 'IPv4') continue;
      try {
        socket.addMembership(GROUP, address);
      } catch {
        // an interface without multicast
      }
    }
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
