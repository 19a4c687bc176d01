/**
 * What the kernel says about interfaces, addresses, routes, switches, rules and rights.
 *
 * Secret: the JSON of ip(8) and nft(8) and the files of proc(5).
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { z } from 'zod';
import type { RunContext } from '../core/context.ts';
import { errnoOf } from '../core/errors.ts';
import { exists } from '../core/files.ts';
import { run } from '../core/run.ts';
import type { NetFacts, NetLink } from './net-plan.ts';
import type { DnsmasqPlaces } from './net-rules.ts';
import { pidWithArgument } from './process.ts';

const MAIN_TABLE = 254; // rt_tables
const CAP_NET_ADMIN = 12n; // capabilities(7)

const linksSchema = z.array(
  z.object({
    ifname: z.string(),
    flags: z.array(z.string()).default([]),
    address: z.string().default(''),
    ifalias: z.string().optional(),
    master: z.string().optional(),
    linkinfo: z
      .object({
        info_kind: z.string().optional(),
        info_data: z.object({ user: z.union([z.string(), z.number()]).optional() }).optional(),
      })
      .optional(),
  }),
);
const addressesSchema = z.array(
  z.object({
    ifname: z.string().optional(),
    addr_info: z.array(z.object({ local: z.string().optional(), prefixlen: z.number().optional() })).default([]),
  }),
);
const routesSchema = z.array(
  z.object({
    dev: z.string().optional(),
    gateway: z.string().optional(),
    metric: z.number().default(0),
    table: z.coerce.number().default(MAIN_TABLE),
  }),
);
const policiesSchema = z.array(
  z.object({
    priority: z.number(),
    iif: z.string().optional(),
    table: z.coerce.number().optional(),
    suppress_prefixlen: z.number().optional(),
  }),
);
const rulesSchema = z.object({
  nftables: z.array(
    z.object({
      table: z.object({ family: z.string(), name: z.string() }).optional(),
      chain: z
        .object({
          family: z.string(),
          table: z.string(),
          name: z.string(),
          hook: z.string().optional(),
          policy: z.string().optional(),
        })
        .optional(),
    }),
  ),
});

/** Where a record is valid: names of interfaces mean nothing after a reboot or in another network namespace. */
export interface World {
  readonly bootId: string;
  /** `net:[4026531840]` */
  readonly netns: string;
}

export async function readWorld(): Promise<World> {
  const bootId = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
  return { bootId: bootId.trim(), netns: await readlink('/proc/self/ns/net') };
}

/**
 * Tells whether a network namespace is still there: a process is in it, or it is mounted as by `ip netns` (namespaces(7)). One of
 * which nothing can be known counts as there.
 */
export async function netnsIsThere(netns: string): Promise<boolean> {
  if ((await readFile('/proc/self/mountinfo', 'utf8')).includes(` ${netns} `)) return true;
  // init may be closed to root as well, in containers; it is where all others are
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== '1')) {
    try {
      if ((await readlink(`/proc/${pid}/ns/net`)) === netns) return true;
    } catch (error) {
      if (!['ENOENT', 'ESRCH'].includes(errnoOf(error) ?? '')) return true;
    }
  }
  return false;
}

/** @param places those of the network in question, for its dnsmasq */
export async function readFacts(context: RunContext, places: DnsmasqPlaces): Promise<NetFacts> {
  const mayAdmin = mayAdminNetworks(await readFile('/proc/self/status', 'utf8'));
  const rules = mayAdmin ? await readRules(context) : { tables: [], droppingChains: [] };
  const routes = parseRoutes(await ipJson(context, '-N', '-4', 'route', 'show', 'table', 'all', 'default'));
  return {
    routes,
    policies: parsePolicies(await ipJson(context, '-N', '-4', 'rule', 'show')),
    links: parseLinks(await ipJson(context, '-d', 'link', 'show'), await ipJson(context, '-4', 'address', 'show')),
    defaultUplink: routes.find(({ table }) => table === MAIN_TABLE)?.dev,
    forwarding: await readForwarding(),
    ...rules,
    mayAdmin,
    user: [userInfo().username, String(userInfo().uid)],
    tunDevice: await exists('/dev/net/tun'),
    dnsmasqRuns: (await pidOfDnsmasq(places)) !== undefined,
  };
}

async function ipJson(context: RunContext, ...args: string[]): Promise<unknown> {
  const { stdout } = await run(context, 'ip', ['-j', ...args], { timeoutMs: 30_000 });
  return JSON.parse(stdout.trim() === '' ? '[]' : stdout);
}

/** @param links output of `ip -j -d link` @param addresses output of `ip -j -4 address` */
export function parseLinks(links: unknown, addresses: unknown): NetLink[] {
  const found = new Map(
    addressesSchema
      .parse(addresses)
      .map(({ ifname, addr_info }) => [
        ifname,
        addr_info
          .filter(({ local }) => local !== undefined)
          .map(({ local, prefixlen }) => `${local}/${prefixlen ?? 32}`),
      ]),
  );
  return linksSchema.parse(links).map((link) => ({
    name: link.ifname,
    kind: link.linkinfo?.info_kind,
    mac: link.address,
    alias: link.ifalias,
    bridge: link.master,
    owner: link.linkinfo?.info_data?.user?.toString(),
    up: link.flags.includes('UP'),
    addresses: found.get(link.ifname) ?? [],
  }));
}

/** Default routes, those with the least metric first. @param routes output of `ip -N -j route show table all default` */
export function parseRoutes(routes: unknown): NetFacts['routes'] {
  return routesSchema
    .parse(routes)
    .toSorted((a, b) => a.metric - b.metric)
    .flatMap(({ dev, gateway, table }) => (dev === undefined ? [] : [{ table, dev, gateway }]));
}

/** @param rules output of `ip -N -j rule show` */
export function parsePolicies(rules: unknown): NetFacts['policies'] {
  return policiesSchema
    .parse(rules)
    .flatMap(({ priority, iif, table, suppress_prefixlen }) =>
      iif === undefined || table === undefined ? [] : [{ priority, iif, table, butDefault: suppress_prefixlen === 0 }],
    );
}

/** @param status text of /proc/self/status */
export function mayAdminNetworks(status: string): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}

async function readRules(context: RunContext): Promise<Pick<NetFacts, 'tables' | 'droppingChains'>> {
  const list = async (what: string) => {
    const { stdout } = await run(context, 'nft', ['-j', 'list', what], { timeoutMs: 30_000 });
    return JSON.parse(stdout) as unknown;
  };
  return parseRules(await list('tables'), await list('chains'));
}

/** @param tables output of `nft -j list tables` @param chains output of `nft -j list chains` */
export function parseRules(tables: unknown, chains: unknown): Pick<NetFacts, 'tables' | 'droppingChains'> {
  return {
    tables: rulesSchema.parse(tables).nftables.flatMap(({ table }) => (table?.family === 'inet' ? [table.name] : [])),
    droppingChains: rulesSchema
      .parse(chains)
      .nftables.flatMap(({ chain }) =>
        chain?.hook === 'forward' && chain.policy === 'drop' ? [`${chain.family} ${chain.table} ${chain.name}`] : [],
      ),
  };
}

async function readForwarding(): Promise<Record<string, string>> {
  const root = '/proc/sys/net/ipv4/conf';
  const values: Record<string, string> = {};
  for (const name of await readdir(root)) {
    try {
      values[name] = (await readFile(`${root}/${name}/forwarding`, 'utf8')).trim();
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error; // an interface that went away meanwhile
    }
  }
  return values;
}

/** Process id of the network's dnsmasq, if it is that one and alive. */
export function pidOfDnsmasq(places: Pick<DnsmasqPlaces, 'pidFile' | 'conf'>): Promise<number | undefined> {
  return pidWithArgument(places.pidFile, `--conf-file=${places.conf}`);
}
