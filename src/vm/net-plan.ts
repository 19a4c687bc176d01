/**
 * From what a network shall be and what is there, the steps that are missing, each with its undo; and from the record of an
 * earlier run, the steps that take everything back. Pure: this is what `--dry-run` prints.
 *
 * Secret: by which mark a thing is ours. A bridge has the MAC that the record chose for it (set in the very call that makes
 * it), a tap has its alias, the nft table its name, dnsmasq its command line. What bears no mark of ours is never removed.
 * Forwarding is switched per interface (ip-sysctl: conf/IF/forwarding), for `ip_forward` would change all of them.
 */
import type { Problem } from '../core/errors.ts';
import { shellQuote } from '../core/run.ts';
import { type DnsmasqPlaces, dnsmasqConf, nftScript, tableName } from './net-rules.ts';
import { checkNetwork, type NetworkSpec, overlaps, parsePrefix } from './net-spec.ts';

export type Effect =
  | { readonly kind: 'run'; readonly argv: readonly string[]; readonly input?: string }
  /** `key` is a path below /proc/sys. */
  | { readonly kind: 'sysctl'; readonly key: string; readonly value: string }
  | { readonly kind: 'write'; readonly path: string; readonly text: string }
  /** Ends the process of `pidFile` if `conf` is on its command line. */
  | { readonly kind: 'stop'; readonly pidFile: string; readonly conf: string }
  | { readonly kind: 'remove'; readonly paths: readonly string[] };

/** One thing that a network put in place, as the record keeps it. */
export type NetEntry =
  | { readonly kind: 'bridge'; readonly name: string; readonly mac: string }
  | { readonly kind: 'tap'; readonly name: string; readonly alias: string }
  | { readonly kind: 'member'; readonly tap: string; readonly bridge: string }
  | { readonly kind: 'address'; readonly bridge: string; readonly address: string }
  | { readonly kind: 'link-up'; readonly name: string }
  | { readonly kind: 'rules'; readonly table: string; readonly script: string }
  /** The default route of a routing table of the network's own. */
  | { readonly kind: 'route'; readonly table: number; readonly dev: string; readonly gateway?: string | undefined }
  | ({ readonly kind: 'policy' } & PolicyRule)
  | { readonly kind: 'sysctl'; readonly key: string; readonly former: string; readonly value: string }
  | { readonly kind: 'dnsmasq'; readonly places: DnsmasqPlaces; readonly text: string };

/** What comes in by `iif` is led by `table` (ip-rule(8)). */
export interface PolicyRule {
  readonly priority: number;
  readonly iif: string;
  readonly table: number;
  /** But for the default route of that table. */
  readonly butDefault: boolean;
}

export interface NetStep {
  /** `make bridge br0` */
  readonly what: string;
  /** Absent for a step whose effect goes away with an earlier one's. */
  readonly entry?: NetEntry;
  readonly apply: readonly Effect[];
  readonly undo: readonly Effect[];
}

export interface NetLink {
  readonly name: string;
  readonly kind: string | undefined;
  readonly mac: string;
  readonly alias: string | undefined;
  readonly bridge: string | undefined;
  /** Who may open a tap without rights: a name, or a number where there is none. */
  readonly owner?: string | undefined;
  readonly up: boolean;
  /** `a.b.c.d/n` */
  readonly addresses: readonly string[];
}

/** What is there, read from the kernel. */
export interface NetFacts {
  readonly links: readonly NetLink[];
  readonly defaultUplink: string | undefined;
  /** Default routes of all tables, the preferred first. */
  readonly routes: readonly { readonly table: number; readonly dev: string; readonly gateway?: string | undefined }[];
  readonly policies: readonly PolicyRule[];
  /** Values of the forwarding switches by interface. */
  readonly forwarding: Readonly<Record<string, string>>;
  /** Names of the inet tables. */
  readonly tables: readonly string[];
  /** Forward chains of others whose policy is drop, `ip filter FORWARD`. */
  readonly droppingChains: readonly string[];
  /** CAP_NET_ADMIN. */
  readonly mayAdmin: boolean;
  /** Name and number of who asks. */
  readonly user: readonly [name: string, uid: string];
  readonly tunDevice: boolean;
  /** The dnsmasq of this network runs. */
  readonly dnsmasqRuns: boolean;
}

/** What an earlier run left on record. */
export interface NetRecord {
  readonly entries: readonly NetEntry[];
  /** False while a run is under way or was cut short: texts on record may not have been put in place. */
  readonly complete: boolean;
}

export interface NetPlan {
  readonly steps: readonly NetStep[];
  /** Why it cannot be done; empty when it can. */
  readonly problems: readonly Problem[];
  /** Worth knowing, no obstacle. */
  readonly notes: readonly string[];
}

export interface PlanInput {
  readonly spec: NetworkSpec;
  readonly facts: NetFacts;
  readonly record: NetRecord | undefined;
  /** Records of the other networks: switches are shared with them. */
  readonly others: readonly NetRecord[];
  readonly places: DnsmasqPlaces;
  /** MAC for a bridge that has to be made. */
  readonly freshMac: string;
}

/** What is missing to have the network as described; no step when it is up already. */
export function planNet(input: PlanInput): NetPlan {
  if (isLent(input)) return planLent(input);
  const problems = [...checkNetwork(input.spec), ...checkFacts(input)];
  const uplink = uplinkOf(input);
  const steps = problems.some(({ code }) => code.startsWith('net-address'))
    ? []
    : [
        ...rulesSteps(input, uplink), // first: at no moment is there a bridge without its rules
        ...bridgeSteps(input),
        ...input.spec.taps.flatMap((tap) => tapSteps(input, tap)),
        ...waySteps(input, uplink),
        ...forwardingSteps(input, uplink),
        ...dnsmasqSteps(input),
      ];
  return { steps, problems, notes: notes(input) };
}

/** Somebody with rights made bridge and taps for a user who has none: they are used as they are. */
function isLent({ spec, facts }: PlanInput): boolean {
  const taps = spec.taps.map((tap) => linkOf(facts, tap));
  const open = taps.every((tap) => tap?.kind === 'tun' && tap.owner !== undefined && facts.user.includes(tap.owner));
  return !facts.mayAdmin && taps.length > 0 && open && linkOf(facts, spec.bridge)?.kind === 'bridge';
}

function planLent({ spec, facts }: PlanInput): NetPlan {
  const problems = checkNetwork(spec);
  const bridge = linkOf(facts, spec.bridge);
  const say = (message: string) =>
    problems.push({ code: 'net-lent', message, hint: 'ask whoever made it', subject: spec.name });
  const addresses = bridge?.addresses ?? [];
  if (!addresses.includes(spec.address)) {
    const hint = addresses[0] === undefined ? 'ask whoever made it' : `add: --address ${addresses[0]}`;
    problems.push({ code: 'net-lent', message: `${spec.bridge} has not ${spec.address}`, hint, subject: spec.name });
  }
  if (!bridge?.up) say(`${spec.bridge} is off`);
  for (const tap of spec.taps.map((name) => linkOf(facts, name))) {
    if (tap?.bridge !== spec.bridge) say(`tap '${tap?.name}' is not on '${spec.bridge}'`);
    if (!tap?.up) say(`tap '${tap?.name}' is off`);
  }
  const note = `${spec.bridge} is used as it is: there is no right to see or change what passes (CAP_NET_ADMIN)`;
  return { steps: [], problems, notes: [note] };
}

function uplinkOf({ spec, facts }: PlanInput): string | undefined {
  return spec.isolated ? undefined : (spec.uplink ?? facts.defaultUplink);
}

function linkOf(facts: NetFacts, name: string): NetLink | undefined {
  return facts.links.find((link) => link.name === name);
}

function bridgeSteps({ spec, facts, record, freshMac }: PlanInput): NetStep[] {
  const { bridge, address } = spec;
  const found = linkOf(facts, bridge);
  const recorded = record?.entries.find((entry) => entry.kind === 'bridge' && entry.name === bridge);
  // a bridge that is not ours keeps what it had: address and state are then undone on their own
  const ours = found === undefined || (recorded?.kind === 'bridge' && recorded.mac === found.mac);
  const steps: NetStep[] = [];
  if (!found) steps.push(step(`make bridge ${bridge}`, { kind: 'bridge', name: bridge, mac: freshMac }, true));
  if (!found?.addresses.includes(address)) {
    steps.push(step(`give ${bridge} the address ${address}`, { kind: 'address', bridge, address }, !ours));
  }
  if (!found?.up) steps.push(step(`switch ${bridge} on`, { kind: 'link-up', name: bridge }, !ours));
  return steps;
}

function tapSteps({ spec, facts, record }: PlanInput, name: string): NetStep[] {
  const found = linkOf(facts, name);
  const alias = tapAlias(spec.name, name);
  const ours = found === undefined || found.alias === alias || isRecordedTap(record, name);
  const steps: NetStep[] = [];
  if (!found || (ours && found.alias !== alias)) {
    const made = step(`make tap ${name}`, { kind: 'tap', name, alias }, true, spec.tapOwner ?? facts.user[1]);
    // made by a run that was cut short before it could mark it
    steps.push(found ? { ...made, apply: made.apply.slice(1) } : made);
  }
  if (found?.bridge !== spec.bridge) {
    const entry: NetEntry = { kind: 'member', tap: name, bridge: spec.bridge };
    steps.push(step(`put ${name} on ${spec.bridge}`, entry, !ours));
  }
  if (!found?.up) steps.push(step(`switch ${name} on`, { kind: 'link-up', name }, !ours));
  return steps;
}

/** The mark of a tap that is ours. */
function tapAlias(network: string, tap: string): string {
  return `buildkit network ${network} tap ${tap}`;
}

function isRecordedTap(record: NetRecord | undefined, name: string): boolean {
  return record?.entries.some((entry) => entry.kind === 'tap' && entry.name === name) ?? false;
}

function rulesSteps({ spec, facts, record }: PlanInput, uplink: string | undefined): NetStep[] {
  const table = tableName(spec.name);
  const script = nftScript(spec, uplink);
  const same = record?.entries.some((entry) => entry.kind === 'rules' && entry.script === script) ?? false;
  if (record?.complete && same && facts.tables.includes(table)) return [];
  const what = spec.isolated
    ? `close ${spec.bridge} but for the proxy and the repository on this machine`
    : `let ${spec.bridge} out through ${uplink ?? 'nothing'} (NAT), table inet ${table}`;
  return [step(what, { kind: 'rules', table, script }, true)];
}

const MAIN_TABLE = 254;
/** Tables and priorities of ours, as far as nobody else has them. */
const FIRST_TABLE = 25_400;

/**
 * Out by another interface than all else of this machine: in a routing table that only the bridge is led by. What is near is
 * reached as ever.
 */
function waySteps(input: PlanInput, uplink: string | undefined): NetStep[] {
  const { spec, facts, record, others } = input;
  const old = record?.entries.filter((entry) => entry.kind === 'route' || entry.kind === 'policy') ?? [];
  const way = uplink === undefined ? undefined : ownWay(input, uplink);
  if (way === undefined) {
    const left = old.toReversed().filter((entry) => undoName(entry, facts, { entries: old }, []) !== undefined);
    return left.length === 0
      ? []
      : [{ what: `lead ${spec.bridge} by the routes of this machine`, apply: left.flatMap(undoOf), undo: [] }];
  }
  const taken = new Set([
    ...facts.routes.map(({ table }) => table),
    ...facts.policies.flatMap(({ priority, table }) => [priority, priority - 1, table]),
    ...others.flatMap(({ entries }) => entries.flatMap((entry) => (entry.kind === 'route' ? [entry.table] : []))),
  ]);
  let table = old.find((entry) => entry.kind === 'route')?.table ?? FIRST_TABLE;
  while (old.length === 0 && taken.has(table)) table += 2;
  const rule = (priority: number, from: number, butDefault: boolean): NetEntry & PolicyRule => ({
    ...{ kind: 'policy', priority, iif: spec.bridge, table: from, butDefault },
  });
  const via = way.gateway === undefined ? '' : ` and ${way.gateway}`;
  const route: NetEntry = { kind: 'route', table, ...way };
  const policies = [rule(table, MAIN_TABLE, true), rule(table + 1, table, false)];
  return [
    ...(facts.routes.some((one) => one.table === table && sameWay(one, way))
      ? []
      : [step(`lead ${spec.bridge} out by ${way.dev}${via}, table ${table}`, route, true)]),
    ...policies
      .filter((one) => !facts.policies.some((there) => samePolicy(there, one)))
      .map((one) => step(`ask table ${one.table} for ${spec.bridge}, rule ${one.priority}`, one, true)),
  ];
}

type Way = Omit<NetFacts['routes'][number], 'table'>;

/** Undefined: the routes of this machine lead out by the uplink anyhow, or none is known that does. */
function ownWay({ spec, facts }: PlanInput, uplink: string): Way | undefined {
  if (spec.gateway !== undefined) return { dev: uplink, gateway: spec.gateway };
  if (uplink === facts.defaultUplink) return undefined;
  const found = facts.routes.find((route) => route.table === MAIN_TABLE && route.dev === uplink);
  return found && { dev: uplink, gateway: found.gateway };
}

function sameWay(a: Way, b: Way): boolean {
  return a.dev === b.dev && a.gateway === b.gateway;
}

function samePolicy(a: PolicyRule, b: PolicyRule): boolean {
  return a.priority === b.priority && a.iif === b.iif && a.table === b.table && a.butDefault === b.butDefault;
}

function forwardingSteps({ spec, facts, record, others }: PlanInput, uplink: string | undefined): NetStep[] {
  if (uplink === undefined) return [];
  return [spec.bridge, uplink].flatMap((name) => {
    const key = forwardingKey(name);
    const sharer = others
      .flatMap(({ entries }) => entries)
      .find((entry) => entry.kind === 'sysctl' && entry.key === key);
    const now = facts.forwarding[name];
    const recorded = record?.entries.some((entry) => entry.kind === 'sysctl' && entry.key === key) ?? false;
    if (now === '1' && (recorded || !sharer)) return [];
    // the last network that needs it puts back what the first one found
    const former = sharer?.kind === 'sysctl' ? sharer.former : (now ?? '0');
    return [step(`forward what comes in by ${name}`, { kind: 'sysctl', key, former, value: '1' }, true)];
  });
}

function dnsmasqSteps({ spec, facts, record, places }: PlanInput): NetStep[] {
  const recorded = record?.entries.find((entry) => entry.kind === 'dnsmasq');
  const stopOld = recorded?.kind === 'dnsmasq' && facts.dnsmasqRuns ? undoOf(recorded) : [];
  if (!spec.dhcp && !spec.dns) {
    return stopOld.length === 0 ? [] : [{ what: 'stop dnsmasq', apply: stopOld, undo: [] }];
  }
  const text = dnsmasqConf(spec, places);
  if (record?.complete && facts.dnsmasqRuns && recorded?.kind === 'dnsmasq' && recorded.text === text) return [];
  const services = [spec.dhcp ? 'DHCP' : '', spec.dns ? 'DNS' : ''].filter((one) => one !== '').join(' and ');
  const made = step(`answer ${services} on ${spec.bridge}`, { kind: 'dnsmasq', places, text }, true);
  const stop = stopOld.filter((effect) => effect.kind === 'stop');
  return [{ ...made, apply: [...stop, ...made.apply] }];
}

function step(what: string, entry: NetEntry, recorded: boolean, owner?: number | string): NetStep {
  const apply = applyOf(entry, owner);
  return recorded ? { what, entry, apply, undo: undoOf(entry) } : { what, apply, undo: [] };
}

function applyOf(entry: NetEntry, owner: number | string = 0): Effect[] {
  switch (entry.kind) {
    case 'bridge':
      return [ip('link', 'add', 'name', entry.name, 'address', entry.mac, 'type', 'bridge')];
    case 'tap':
      return [
        ip('tuntap', 'add', 'dev', entry.name, 'mode', 'tap', 'user', String(owner)), // without one, any user may open it
        ip('link', 'set', 'dev', entry.name, 'alias', entry.alias),
      ];
    case 'member':
      return [ip('link', 'set', 'dev', entry.tap, 'master', entry.bridge)];
    case 'address':
      return [ip('address', 'add', entry.address, 'dev', entry.bridge)];
    case 'link-up':
      return [ip('link', 'set', 'dev', entry.name, 'up')];
    case 'rules':
      return [{ kind: 'run', argv: ['nft', '-f', '-'], input: entry.script }];
    case 'route':
      return [ip('route', 'replace', ...wayOf(entry))];
    case 'policy':
      return [ip('rule', 'add', ...policyOf(entry))];
    case 'sysctl':
      return [{ kind: 'sysctl', key: entry.key, value: entry.value }];
    case 'dnsmasq':
      return [
        { kind: 'write', path: entry.places.conf, text: entry.text },
        { kind: 'run', argv: ['dnsmasq', `--conf-file=${entry.places.conf}`] },
      ];
  }
}

function undoOf(entry: NetEntry): Effect[] {
  switch (entry.kind) {
    case 'bridge':
      return [ip('link', 'delete', 'dev', entry.name, 'type', 'bridge')];
    case 'tap':
      return [ip('tuntap', 'delete', 'dev', entry.name, 'mode', 'tap')];
    case 'member':
      return [ip('link', 'set', 'dev', entry.tap, 'nomaster')];
    case 'address':
      return [ip('address', 'delete', entry.address, 'dev', entry.bridge)];
    case 'link-up':
      return [ip('link', 'set', 'dev', entry.name, 'down')];
    case 'rules':
      return [{ kind: 'run', argv: ['nft', 'delete', 'table', 'inet', entry.table] }];
    case 'route':
      return [ip('route', 'delete', ...wayOf(entry))];
    case 'policy':
      return [ip('rule', 'delete', ...policyOf(entry))];
    case 'sysctl':
      return [{ kind: 'sysctl', key: entry.key, value: entry.former }];
    case 'dnsmasq': {
      const { conf, pidFile, leaseFile, logFile } = entry.places;
      return [
        { kind: 'stop', pidFile, conf },
        { kind: 'remove', paths: [conf, pidFile, leaseFile, logFile] },
      ];
    }
  }
}

function wayOf({ table, dev, gateway }: Way & { readonly table: number }): string[] {
  return ['default', ...(gateway === undefined ? [] : ['via', gateway]), 'dev', dev, 'table', String(table)];
}

function policyOf({ priority, iif, table, butDefault }: PolicyRule): string[] {
  const lookup = ['lookup', String(table), ...(butDefault ? ['suppress_prefixlength', '0'] : [])];
  return ['iif', iif, 'priority', String(priority), ...lookup];
}

function ip(...args: string[]): Effect {
  return { kind: 'run', argv: ['ip', ...args] };
}

function forwardingKey(name: string): string {
  return `net/ipv4/conf/${name}/forwarding`;
}

/**
 * What takes a recorded network back, last thing first. Leaves out what is gone already and what bears no mark of ours, and
 * switches that another network still needs.
 */
export function planDown(record: Pick<NetRecord, 'entries'>, facts: NetFacts, others: readonly NetRecord[]): NetStep[] {
  return record.entries.toReversed().flatMap((entry): NetStep[] => {
    const what = undoName(entry, facts, record, others);
    return what === undefined ? [] : [{ what, entry, apply: undoOf(entry), undo: [] }];
  });
}

function undoName(
  entry: NetEntry,
  facts: NetFacts,
  record: Pick<NetRecord, 'entries'>,
  others: readonly NetRecord[],
): string | undefined {
  switch (entry.kind) {
    case 'bridge': {
      const found = linkOf(facts, entry.name);
      return found?.kind === 'bridge' && found.mac === entry.mac ? `remove bridge ${entry.name}` : undefined;
    }
    case 'tap': {
      const found = linkOf(facts, entry.name);
      const cutShort = found?.alias === undefined && found?.bridge === undefined && found?.up === false;
      const ours = found?.kind === 'tun' && (found.alias === entry.alias || cutShort);
      return ours ? `remove tap ${entry.name}` : undefined;
    }
    case 'member':
      return linkOf(facts, entry.tap)?.bridge === entry.bridge ? `take ${entry.tap} off ${entry.bridge}` : undefined;
    case 'address':
      return linkOf(facts, entry.bridge)?.addresses.includes(entry.address)
        ? `take ${entry.address} from ${entry.bridge}`
        : undefined;
    case 'link-up':
      return linkOf(facts, entry.name)?.up ? `switch ${entry.name} off` : undefined;
    case 'rules':
      return facts.tables.includes(entry.table) ? `remove table inet ${entry.table}` : undefined;
    case 'route': {
      const there = facts.routes.some((one) => one.table === entry.table && sameWay(one, entry));
      return there ? `remove routing table ${entry.table}` : undefined;
    }
    case 'policy':
      return facts.policies.some((one) => samePolicy(one, entry)) ? `remove rule ${entry.priority}` : undefined;
    case 'sysctl': {
      const name = entry.key.split('/').at(-2) ?? '';
      const needed = others.some(({ entries }) =>
        entries.some((one) => one.kind === 'sysctl' && one.key === entry.key),
      );
      const goesAway = record.entries.some((one) => one.kind === 'bridge' && one.mac === linkOf(facts, name)?.mac);
      const changed = facts.forwarding[name] === entry.value && entry.former !== entry.value;
      return changed && !needed && !goesAway ? `put forwarding of ${name} back to ${entry.former}` : undefined;
    }
    case 'dnsmasq':
      return 'stop dnsmasq';
  }
}

function checkFacts(input: PlanInput): Problem[] {
  const { spec, facts } = input;
  const problems: Problem[] = [];
  const say = (code: string, message: string, hint: string) =>
    problems.push({ code, message, hint, subject: spec.name });
  const rootless = 'or use the user network, which needs no rights: buildkit vm start NAME without --bridge';
  if (!facts.mayAdmin) {
    say('net-rights', 'no right to change networks (CAP_NET_ADMIN is missing)', `run it as root; ${rootless}`);
  }
  if (!facts.tunDevice && spec.taps.length > 0) {
    say('net-tun', 'no /dev/net/tun: taps cannot be made', `modprobe tun; ${rootless}`);
  }
  const bridge = linkOf(facts, spec.bridge);
  if (bridge && bridge.kind !== 'bridge') {
    say('net-interface-taken', `'${spec.bridge}' is there and is no bridge`, 'choose another name with --bridge');
  }
  for (const tap of spec.taps) {
    const found = linkOf(facts, tap);
    if (found && found.kind !== 'tun') {
      say('net-interface-taken', `'${tap}' is there and is no tap`, 'choose another name with --tap');
    } else if (found?.bridge !== undefined && found.bridge !== spec.bridge) {
      say('net-interface-taken', `tap '${tap}' is on '${found.bridge}'`, 'choose another name with --tap');
    }
  }
  problems.push(...checkAddresses(spec, facts));
  if (spec.uplink !== undefined && !linkOf(facts, spec.uplink)) {
    say('net-uplink', `there is no interface '${spec.uplink}'`, 'see: ip link');
  } else if (!spec.isolated && uplinkOf(input) === undefined) {
    say('net-uplink', 'no default route: nothing leads out', 'name the interface with --uplink, or use --isolated');
  }
  return problems;
}

function checkAddresses(spec: NetworkSpec, facts: NetFacts): Problem[] {
  const own = parsePrefix(spec.address);
  return facts.links
    .filter((link) => link.name !== spec.bridge)
    .flatMap((link) => link.addresses.map((address) => ({ link, address })))
    .filter(({ address }) => !address.endsWith('/32') && overlapsText(own, address))
    .map(({ link, address }) => ({
      code: 'net-address-taken',
      message: `${spec.address} overlaps ${address} of '${link.name}'`,
      hint: 'choose another network with --address, for example 192.168.101.254/24',
      subject: spec.name,
    }));
}

function overlapsText(own: ReturnType<typeof parsePrefix>, address: string): boolean {
  const [host = '', length = '32'] = address.split('/');
  const octets = host.split('.').map(Number);
  const value = octets.reduce((sum, octet) => sum * 256 + octet, 0);
  const size = 2 ** (32 - Number(length));
  const network = value - (value % size);
  const text = [24, 16, 8, 0].map((shift) => Math.floor(network / 2 ** shift) % 256).join('.');
  return overlaps(own, { address: host, length: Number(length), network: text });
}

function notes(input: PlanInput): string[] {
  const { spec, facts } = input;
  const uplink = uplinkOf(input);
  if (uplink === undefined) return [];
  const near =
    uplink !== facts.defaultUplink && !ownWay(input, uplink)
      ? [`no default route leads out by ${uplink}: machines reach what is near it alone, unless you add --gateway`]
      : [];
  if (facts.droppingChains.length === 0) return near;
  return [
    ...near,
    `another firewall drops forwarded packets (${facts.droppingChains.join(', ')}): machines get out only if it lets ${spec.bridge} pass`,
  ];
}

/** The record with `entry` in it; a thing that is put in place anew keeps its turn and what was found before the first time. */
export function withEntry(entries: readonly NetEntry[], entry: NetEntry): NetEntry[] {
  const at = entries.findIndex((one) => identity(one) === identity(entry));
  if (at < 0) return [...entries, entry];
  const old = entries[at];
  const kept = entry.kind === 'sysctl' && old?.kind === 'sysctl' ? { ...entry, former: old.former } : entry;
  return entries.with(at, kept);
}

/** The record without `entry`. */
export function withoutEntry(entries: readonly NetEntry[], entry: NetEntry): NetEntry[] {
  return entries.filter((one) => identity(one) !== identity(entry));
}

/** Tells whether `entries` hold the thing that `entry` is about, in whatever state. */
export function holdsEntry(entries: readonly NetEntry[], entry: NetEntry): boolean {
  return entries.some((one) => identity(one) === identity(entry));
}

function identity(entry: NetEntry): string {
  switch (entry.kind) {
    case 'bridge':
    case 'tap':
    case 'link-up':
      return `${entry.kind} ${entry.name}`;
    case 'member':
      return `member ${entry.tap}`;
    case 'address':
      return `address ${entry.bridge} ${entry.address}`;
    case 'rules':
      return `rules ${entry.table}`;
    case 'route':
      return `route ${entry.table}`;
    case 'policy':
      return `policy ${entry.priority}`;
    case 'sysctl':
      return `sysctl ${entry.key}`;
    case 'dnsmasq':
      return 'dnsmasq';
  }
}

/** An effect as a line for a shell, for `--dry-run`. */
export function showEffect(effect: Effect): string {
  switch (effect.kind) {
    case 'run':
      return effect.input === undefined
        ? shellQuote(effect.argv)
        : `${shellQuote(effect.argv)} <<'EOF'\n${effect.input}EOF`;
    case 'sysctl':
      return `echo ${effect.value} > /proc/sys/${effect.key}`;
    case 'write':
      return `# write ${effect.path} (${effect.text.split('\n').length - 1} lines)`;
    case 'stop':
      return `kill "$(cat ${shellQuote([effect.pidFile])})"`;
    case 'remove':
      return `rm -f ${shellQuote(effect.paths)}`;
  }
}
