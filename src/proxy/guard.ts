/**
 * Who may ask, and what may be asked upstream: address classes, network lists, host patterns.
 *
 * Secret: which addresses belong to an inner network (RFC 1918, 3927, 4193, 6598, 6890 and the metadata service of clouds, which
 * is link-local). The check is made on the address that a connection really goes to, so that a name that resolves to another
 * address the second time (DNS rebinding) gains nothing.
 */
import { BlockList, isIP } from 'node:net';
import { UserError } from '../core/errors.ts';

/** Addresses that no upstream may have unless it is configured by hand. */
const INNER: readonly string[] = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '224.0.0.0/4',
  '240.0.0.0/4',
  '::/128',
  '::1/128',
  'fc00::/7',
  'fe80::/10',
  'fec0::/10',
  'ff00::/8',
];

/** Networks whose clients are served when nothing else is said: this machine and private networks. */
export const DEFAULT_CLIENTS: readonly string[] = [
  '127.0.0.0/8',
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '169.254.0.0/16',
  '::1/128',
  'fc00::/7',
  'fe80::/10',
];

export interface NetworkList {
  has(address: string): boolean;
}

/**
 * Reads `10.0.0.0/8`, `2001:db8::/32`, single addresses, and `all`.
 * @throws UserError `proxy-network`
 */
export function parseNetworks(texts: readonly string[]): NetworkList {
  const list = new BlockList();
  let everyone = false;
  for (const text of texts) {
    if (text === 'all') {
      everyone = true;
      continue;
    }
    const [address = '', prefix] = text.split('/', 2);
    const family = isIP(address);
    const bits = prefix === undefined ? (family === 4 ? 32 : 128) : Number(prefix);
    if (family === 0 || !/^\d{1,3}$/.test(prefix ?? '0') || bits > (family === 4 ? 32 : 128)) {
      throw new UserError('proxy-network', `'${text}' is no network`, {
        hint: "write an address, a network such as 10.0.0.0/8 or fd00::/8, or 'all'",
      });
    }
    list.addSubnet(address, bits, family === 4 ? 'ipv4' : 'ipv6');
  }
  return {
    has(address) {
      const plain = plainAddress(address);
      return everyone || (isIP(plain) !== 0 && list.check(plain, isIP(plain) === 4 ? 'ipv4' : 'ipv6'));
    },
  };
}

/** IPv4 inside IPv6 (mapped, NAT64, 6to4) as the IPv4 that it stands for; zone identifiers dropped. */
function plainAddress(address: string): string {
  const bare = address
    .replace(/^\[|\]$/g, '')
    .replace(/%.*$/, '')
    .toLowerCase();
  if (isIP(bare) !== 6) return bare;
  const groups = expandIpv6(bare);
  const dotted = (high: number, low: number) => `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
  const zeros = (count: number) => groups.slice(0, count).every((group) => group === 0);
  if (zeros(5) && groups[5] === 0xffff) return dotted(groups[6]!, groups[7]!);
  if (zeros(6) && (groups[6] !== 0 || groups[7]! > 1)) return dotted(groups[6]!, groups[7]!);
  if (groups[0] === 0x64 && groups[1] === 0xff9b) return dotted(groups[6]!, groups[7]!);
  if (groups[0] === 0x2002) return dotted(groups[1]!, groups[2]!);
  return bare;
}

function expandIpv6(address: string): number[] {
  const withoutDots = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_all, a, b, c, d) => {
    return `${((Number(a) << 8) | Number(b)).toString(16)}:${((Number(c) << 8) | Number(d)).toString(16)}`;
  });
  const [head = '', tail] = withoutDots.split('::', 2);
  const front = head === '' ? [] : head.split(':');
  const back = tail === undefined || tail === '' ? [] : tail.split(':');
  const missing = tail === undefined ? 0 : 8 - front.length - back.length;
  return [...front, ...Array.from({ length: missing }, () => '0'), ...back].map((group) => Number.parseInt(group, 16));
}

const inner = parseNetworks(INNER);

/** True for loopback, link-local, private, metadata, multicast and reserved addresses, in whatever notation. */
export function isInnerAddress(address: string): boolean {
  const plain = plainAddress(address);
  return isIP(plain) === 0 || inner.has(plain);
}

/** Matches `a.example.org`, `*.example.org` (any depth), `host:8080`, and `*` (every host). */
export function hostMatches(patterns: readonly string[], host: string, port?: number): boolean {
  return patterns.some((pattern) => {
    const match = /^(.*?)(?::(\d+))?$/.exec(pattern.toLowerCase());
    const name = match?.[1] ?? '';
    if (match?.[2] !== undefined && Number(match[2]) !== port) return false;
    if (name === '*') return true;
    return name.startsWith('*.') ? host.endsWith(name.slice(1)) : host === name;
  });
}
