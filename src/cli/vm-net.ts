/** `buildkit vm net`: networks of machines. */
import type { Command } from 'commander';
import { ProblemsError, UsageError } from '../core/errors.ts';
import { downNetwork, type NetworkStatus, networkStatus, previewDown, previewUp, upNetwork } from '../vm/net.ts';
import { type NetStep, showEffect } from '../vm/net-plan.ts';
import { DEFAULT_NETWORK, type NetworkGuest, type NetworkSpec, parsePrefix } from '../vm/net-spec.ts';
import { type Cli, type CommandContext, type Output, table } from './command.ts';

const NETWORK_NAME = /^[a-z][a-z0-9-]{0,30}$/;

interface UpOptions {
  readonly bridge: string;
  readonly address: string;
  readonly tap?: readonly string[];
  readonly tapOwner?: number;
  readonly uplink?: string;
  readonly gateway?: string;
  readonly isolated: boolean;
  readonly port?: readonly number[];
  readonly dhcp: boolean;
  readonly dns: boolean;
  readonly guest: readonly NetworkGuest[];
  readonly dryRun: boolean;
}

/** Adds `net up|down|status` to the `vm` command. */
export function addVmNetCommands(vm: Command, cli: Cli): void {
  const net = vm.command('net').description('bridges, taps, NAT, DHCP and DNS for machines (needs CAP_NET_ADMIN)');
  addUp(net, cli);
  net
    .command('down')
    .description('take a network back to exactly what was there before')
    .argument('[name]', 'of the network', DEFAULT_NETWORK.name)
    .option('--force', 'also while machines sit on it', false)
    .option('--dry-run', 'print the steps, do nothing', false)
    .action(
      cli.action(async (cx, name: string, options: { force: boolean; dryRun: boolean }) => {
        if (options.dryRun) return showSteps(await previewDown(cx, name));
        const steps = await downNetwork(cx, name, options);
        const text = steps.length === 0 ? `network '${name}' is not up` : `network '${name}' is down`;
        return { data: { name, steps: steps.map(({ what }) => what) }, text };
      }),
    );
  net
    .command('status')
    .description('networks on record: what is up, taps, leases, what is missing')
    .action(
      cli.action(async (cx) => {
        const found = await networkStatus(cx);
        return { data: found, text: found.length === 0 ? 'no network is up' : found.map(showStatus).join('\n\n') };
      }),
    );
}

/** What `vm start` takes to sit on a bridge instead of QEMU's user network. */
export interface BridgeFlags {
  readonly bridge?: string;
  readonly tap?: string;
  readonly uplink?: string;
  readonly gateway?: string;
  readonly address?: string;
  readonly isolated?: boolean;
  readonly dhcp?: boolean;
  readonly dns?: boolean;
}

export function addBridgeOptions(start: Command): Command {
  return start
    .option('--bridge <interface>', 'sit on this bridge, which is brought up when it is down (needs rights)')
    .option('--tap <interface>', 'on the bridge (default: qtapNUMBER)')
    .option('--uplink <interface>', 'leads out of a bridge that is brought up')
    .option('--gateway <address>', 'the next hop beyond --uplink')
    .option('--address <address/length>', "this machine's on a bridge that is brought up")
    .option(
      '--isolated',
      'a bridge that is brought up leads nowhere but to the proxy and the repository on its address',
    )
    .option('--dhcp', 'a bridge that is brought up gives leases')
    .option('--dns', 'a bridge that is brought up answers for NAME.vm.buildkit and host.buildkit');
}

/** The network that the flags mean: `default` is that of br0, others are called as their bridge. */
export async function networkChoice(
  cx: CommandContext,
  flags: BridgeFlags,
): Promise<{ spec: NetworkSpec; tap: string | undefined } | undefined> {
  const {
    bridge,
    tap,
    uplink,
    gateway,
    address = DEFAULT_NETWORK.address,
    isolated = false,
    dhcp = false,
    dns = false,
  } = flags;
  if (bridge === undefined) {
    if ([tap, uplink, gateway, flags.address].every((one) => one === undefined) && !isolated && !dhcp && !dns)
      return undefined;
    throw new UsageError('--tap, --uplink, --address, --isolated, --dhcp and --dns need --bridge', {
      hint: 'for example: --bridge br0',
    });
  }
  const name = bridge === DEFAULT_NETWORK.bridge ? DEFAULT_NETWORK.name : NETWORK_NAME.exec(bridge.toLowerCase())?.[0];
  if (name === undefined) {
    throw new UsageError(`'${bridge}' is no bridge that a network can be named after`, {
      hint: `give the network a name first: buildkit vm net up NAME --bridge ${bridge}`,
    });
  }
  const ports = isolated ? await servedPorts(cx) : DEFAULT_NETWORK.ports;
  return {
    spec: { ...DEFAULT_NETWORK, name, bridge, address, uplink, gateway, isolated, dhcp, dns, ports, taps: [] },
    tap,
  };
}

/** Where the proxy and the repository of this workspace are served. */
async function servedPorts(cx: CommandContext): Promise<number[]> {
  const { parseListenAddress } = await import('../core/http.ts');
  const { proxy, repo } = await cx.config();
  const ports = [...proxy.listen, repo.listen].map((text) => parseListenAddress(text).port);
  return [...new Set(ports.filter((port) => port > 0))];
}

function addUp(net: Command, cli: Cli): void {
  net
    .command('up')
    .description('bring a network up; what is there already is left alone')
    .argument('[name]', 'of the network; each has a bridge and a subnet of its own', DEFAULT_NETWORK.name)
    .option('--bridge <interface>', 'made when it is not there', DEFAULT_NETWORK.bridge)
    .option('--address <address/length>', "the host's on the bridge", DEFAULT_NETWORK.address)
    .option('--tap <interface>', 'may be repeated (default: qtap0)', collect)
    .option(
      '--tap-owner <uid>',
      'user that may open the taps without root, by vm start --bridge (default: you alone)',
      number,
    )
    .option(
      '--uplink <interface>',
      'leads out (default: that of the default route); another one gets a routing table of its own',
    )
    .option('--gateway <address>', 'the next hop beyond --uplink (default: that of its own default route)')
    .option('--isolated', 'no way out but --port on the bridge address', false)
    .option(
      '--port <number>',
      'reachable when isolated; may be repeated (default: proxy.listen and repo.listen of buildkit.yaml)',
      collectNumber,
    )
    .option('--dhcp', 'static leases: number 10 gets .10', false)
    .option('--dns', 'NAME.vm.buildkit, buildkit10.vm.buildkit, host.buildkit', false)
    .option('--guest <number=name>', 'a name for a number; may be repeated', collectGuest, [])
    .option('--dry-run', 'print the steps and their undo, do nothing', false)
    .action(
      cli.action(async (cx, name: string, options: UpOptions) => {
        const spec = specOf(name, options, options.port ?? (await servedPorts(cx)));
        if (options.dryRun) {
          const plan = await previewUp(cx, spec);
          if (plan.problems.length === 0) return showSteps(plan.steps);
          throw new ProblemsError('net-not-possible', `cannot bring network '${name}' up`, plan.problems);
        }
        const plan = await upNetwork(cx, spec);
        for (const note of plan.notes) cx.log.warn(note);
        const text = plan.steps.length === 0 ? `network '${name}' is up already` : `network '${name}' is up`;
        const data = { name, steps: plan.steps.map(({ what }) => what), notes: plan.notes };
        return { data, text: spec.isolated ? `${text}\n${showWays(spec)}` : text };
      }),
    );
}

function specOf(name: string, options: UpOptions, ports: readonly number[]): NetworkSpec {
  return {
    name,
    bridge: options.bridge,
    address: options.address,
    taps: options.tap ?? (name === DEFAULT_NETWORK.name ? DEFAULT_NETWORK.taps : []),
    tapOwner: options.tapOwner,
    uplink: options.uplink,
    gateway: options.gateway,
    isolated: options.isolated,
    ports,
    dhcp: options.dhcp,
    dns: options.dns,
    guests: options.guest,
  };
}

/** What an isolated machine reaches, and how that gets there. */
function showWays({ address, ports }: NetworkSpec): string {
  const host = parsePrefix(address).address;
  const ways = ports.map((port) => `${host}:${port}`);
  const listen = `serve there: buildkit proxy serve --listen ${host}:PORT, buildkit repo serve --listen ${host}:PORT`;
  return ways.length === 0
    ? 'machines on it reach nothing'
    : `machines on it reach ${ways.join(', ')} alone; ${listen}`;
}

function showSteps(steps: readonly NetStep[]): Output {
  const lines = steps.flatMap(({ what, apply, undo }) => [
    `# ${what}`,
    ...apply.map(showEffect),
    ...undo.map((effect) => `#   undo: ${showEffect(effect)}`),
  ]);
  const data = steps.map(({ what, apply, undo }) => ({
    what,
    apply: apply.map(showEffect),
    undo: undo.map(showEffect),
  }));
  return { data, text: steps.length === 0 ? 'nothing to do' : lines.join('\n') };
}

function showStatus(network: NetworkStatus): string {
  const way = network.isolated ? 'isolated' : `out through ${network.uplink ?? 'nothing'}`;
  const services = [network.dhcp ? 'DHCP' : '', network.dns ? 'DNS' : ''].filter((one) => one !== '').join(', ');
  return table([
    [
      'network',
      `${network.name}: ${network.up ? 'up' : network.missing.length > 0 ? `needs mending: buildkit vm net up ${network.name}` : 'elsewhere'}`,
    ],
    ['bridge', `${network.bridge} ${network.address}, ${way}${services === '' ? '' : `, ${services}`}`],
    ...network.taps.map((tap) => ['tap', `${tap.name}${tap.vm === undefined ? '' : ` (machine '${tap.vm}')`}`]),
    ...network.leases.map((lease) => ['lease', `${lease.address} ${lease.mac} ${lease.name}`]),
    ...network.missing.map((what) => ['missing', what]),
    ...network.notes.map((note) => ['note', note]),
  ]);
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

function collectNumber(value: string, before: readonly number[] = []): readonly number[] {
  return [...before, number(value)];
}

function collectGuest(value: string, before: readonly NetworkGuest[]): readonly NetworkGuest[] {
  const [left = '', name = ''] = value.split('=', 2);
  return [...before, { number: number(left), name }];
}

function number(value: string): number {
  if (!/^\d{1,9}$/.test(value)) throw new UsageError(`'${value}' is no number`);
  return Number(value);
}
