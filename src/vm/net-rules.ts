/**
 * What passes between a network, this machine and the world, and the answers of its DHCP and DNS, as configuration texts.
 *
 * Secret: the languages of nft(8) and dnsmasq(8). All of it pure; the texts are compared to tell whether something changed.
 */
import { guestAddress, guestMac, type NetworkSpec, parsePrefix } from './net-spec.ts';

const DOMAIN = 'vm.buildkit';
const HOST_NAME = 'host.buildkit';

/** The table is ours alone: adding and removing it touches nothing of others. */
export function tableName(network: string): string {
  return `buildkit_${network.replaceAll('-', '_')}`;
}

/**
 * A script for `nft -f -` that puts the network's table in place in one transaction, whatever was in it before.
 * @param uplink the interface that leads out; without it (isolated) nothing does
 */
export function nftScript(spec: NetworkSpec, uplink: string | undefined): string {
  const table = `inet ${tableName(spec.name)}`;
  const chains = spec.isolated || uplink === undefined ? isolatedChains(spec) : routedChains(spec, uplink);
  return [`table ${table} {}`, `delete table ${table}`, `table ${table} {`, ...chains, '}', ''].join('\n');
}

function routedChains(spec: NetworkSpec, uplink: string): string[] {
  const [bridge, out] = [quoted(spec.bridge), quoted(uplink)];
  const { network, length } = parsePrefix(spec.address);
  return [
    '\tchain forward {',
    '\t\ttype filter hook forward priority filter; policy accept;',
    `\t\tiifname ${bridge} oifname { ${bridge}, ${out} } accept`,
    `\t\tiifname ${bridge} reject with icmpx admin-prohibited`,
    `\t\toifname ${bridge} ct state established,related accept`,
    `\t\toifname ${bridge} drop`,
    '\t}',
    '\tchain postrouting {',
    '\t\ttype nat hook postrouting priority srcnat; policy accept;',
    `\t\tip saddr ${network}/${length} oifname ${out} masquerade`,
    '\t}',
  ];
}

function isolatedChains(spec: NetworkSpec): string[] {
  const bridge = quoted(spec.bridge);
  const { address } = parsePrefix(spec.address);
  return [
    '\tchain input {',
    '\t\ttype filter hook input priority filter; policy accept;',
    `\t\tiifname != ${bridge} accept`,
    '\t\tct state established,related accept',
    `\t\tip daddr ${address} icmp type echo-request accept`,
    ...(spec.ports.length === 0 ? [] : [`\t\tip daddr ${address} tcp dport { ${spec.ports.join(', ')} } accept`]),
    ...(spec.dhcp ? ['\t\tudp sport 68 udp dport 67 accept'] : []),
    ...(spec.dns ? [`\t\tip daddr ${address} meta l4proto { tcp, udp } th dport 53 accept`] : []),
    '\t\treject with icmpx admin-prohibited',
    '\t}',
    '\tchain forward {',
    '\t\ttype filter hook forward priority filter; policy accept;',
    `\t\tiifname ${bridge} oifname ${bridge} accept`,
    `\t\tiifname ${bridge} reject with icmpx admin-prohibited`,
    `\t\toifname ${bridge} drop`,
    '\t}',
  ];
}

function quoted(name: string): string {
  return `"${name}"`; // interface names hold no quotes: checkNetwork sees to it
}

export interface DnsmasqPlaces {
  readonly conf: string;
  readonly pidFile: string;
  readonly leaseFile: string;
  readonly logFile: string;
}

/**
 * dnsmasq.conf of a network. Every number of the scheme has its lease and its name, so that a new machine changes nothing here;
 * machines with a name of their own have that one beside it.
 */
export function dnsmasqConf(spec: NetworkSpec, places: DnsmasqPlaces): string {
  const { address, network, length } = parsePrefix(spec.address);
  const names = new Map(spec.guests.map((guest) => [guest.number, guest.name]));
  const numbers = Array.from({ length: 252 }, (_, index) => index + 2);
  const lines = [
    `# network '${spec.name}' of buildkit; written anew by each 'vm net up'`,
    `interface=${spec.bridge}`,
    'except-interface=lo',
    'bind-interfaces',
    'no-hosts',
    `pid-file=${places.pidFile}`,
    `log-facility=${places.logFile}`,
    ...(spec.dns ? dnsLines(spec, address, names, numbers) : ['port=0']),
    ...(spec.dhcp ? dhcpLines(spec, { address, network, length, leaseFile: places.leaseFile }, names, numbers) : []),
  ];
  return `${lines.join('\n')}\n`;
}

function dnsLines(spec: NetworkSpec, address: string, names: ReadonlyMap<number, string>, numbers: number[]): string[] {
  return [
    'domain-needed',
    'bogus-priv',
    'local=/buildkit/',
    // names of the world are looked up outside: an isolated guest must not send anything out that way
    ...(spec.isolated ? ['no-resolv', 'local=/#/'] : []),
    `host-record=${HOST_NAME},${address}`,
    ...numbers.map((number) => {
      const all = [names.get(number), `buildkit${number}`].filter((name) => name !== undefined);
      return `host-record=${all.map((name) => `${name}.${DOMAIN}`).join(',')},${guestAddress(spec, number)}`;
    }),
  ];
}

function dhcpLines(
  spec: NetworkSpec,
  at: { address: string; network: string; length: number; leaseFile: string },
  names: ReadonlyMap<number, string>,
  numbers: number[],
): string[] {
  return [
    'dhcp-authoritative',
    'dhcp-ignore-names', // a guest does not choose what others find under a name
    `dhcp-leasefile=${at.leaseFile}`,
    `domain=${DOMAIN}`,
    `dhcp-range=${at.network},static,${netmask(at.length)},12h`,
    spec.isolated ? 'dhcp-option=option:router' : `dhcp-option=option:router,${at.address}`,
    spec.dns ? `dhcp-option=option:dns-server,${at.address}` : 'dhcp-option=option:dns-server',
    ...numbers.map(
      (number) =>
        `dhcp-host=${guestMac(spec, number)},${guestAddress(spec, number)},${names.get(number) ?? `buildkit${number}`}`,
    ),
  ];
}

function netmask(length: number): string {
  const ones = 2 ** 32 - 2 ** (32 - length);
  return [24, 16, 8, 0].map((shift) => Math.floor(ones / 2 ** shift) % 256).join('.');
}
