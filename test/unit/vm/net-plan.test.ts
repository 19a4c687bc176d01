import { describe, expect, it } from 'vitest';
import {
  type NetEntry,
  type NetFacts,
  type NetLink,
  type NetRecord,
  type PlanInput,
  planDown,
  planNet,
  showEffect,
  withEntry,
  withoutEntry,
} from '../../../src/vm/net-plan.ts';
import { nftScript } from '../../../src/vm/net-rules.ts';
import { DEFAULT_NETWORK } from '../../../src/vm/net-spec.ts';

const LINK: NetLink = {
  name: 'eth0',
  kind: undefined,
  mac: '02:00:00:00:00:01',
  alias: undefined,
  bridge: undefined,
  up: true,
  addresses: ['203.0.113.2/24'],
};
const FACTS: NetFacts = {
  links: [LINK],
  defaultUplink: 'eth0',
  routes: [{ table: 254, dev: 'eth0', gateway: '203.0.113.1' }],
  policies: [],
  forwarding: { eth0: '0' },
  tables: [],
  droppingChains: [],
  mayAdmin: true,
  user: ['me', '1000'],
  tunDevice: true,
  dnsmasqRuns: false,
};
const INPUT: PlanInput = {
  spec: DEFAULT_NETWORK,
  facts: FACTS,
  record: undefined,
  others: [],
  places: { conf: '/s/dnsmasq.conf', pidFile: '/s/pid', leaseFile: '/s/leases', logFile: '/s/log' },
  freshMac: '52:54:00:00:00:01',
};
const whats = (input: PlanInput) => planNet(input).steps.map(({ what }) => what);
const entriesOf = (input: PlanInput) => planNet(input).steps.flatMap(({ entry }) => (entry ? [entry] : []));
const recordOf = (input: PlanInput, complete = true): NetRecord => ({ entries: entriesOf(input), complete });

/** The facts once the default network is up. */
const UP: NetFacts = {
  ...FACTS,
  links: [
    LINK,
    { ...LINK, name: 'br0', kind: 'bridge', mac: INPUT.freshMac, addresses: ['192.168.100.254/24'] },
    {
      ...LINK,
      name: 'qtap0',
      kind: 'tun',
      bridge: 'br0',
      alias: 'buildkit network default tap qtap0',
      addresses: [],
    },
  ],
  forwarding: { eth0: '1', br0: '1' },
  tables: ['buildkit_default'],
};

describe('planNet', () => {
  it('makes everything where nothing is, rules first, each step with its undo', () => {
    const { steps, problems, notes } = planNet(INPUT);
    expect([problems, notes]).toEqual([[], []]);
    expect(steps.slice(1).map(({ apply, undo }) => [apply.map(showEffect), undo.map(showEffect)])).toEqual([
      [['ip link add name br0 address 52:54:00:00:00:01 type bridge'], ['ip link delete dev br0 type bridge']],
      [['ip address add 192.168.100.254/24 dev br0'], []],
      [['ip link set dev br0 up'], []],
      [
        [
          'ip tuntap add dev qtap0 mode tap user 1000',
          "ip link set dev qtap0 alias 'buildkit network default tap qtap0'",
        ],
        ['ip tuntap delete dev qtap0 mode tap'],
      ],
      [['ip link set dev qtap0 master br0'], []],
      [['ip link set dev qtap0 up'], []],
      [['echo 1 > /proc/sys/net/ipv4/conf/br0/forwarding'], ['echo 0 > /proc/sys/net/ipv4/conf/br0/forwarding']],
      [['echo 1 > /proc/sys/net/ipv4/conf/eth0/forwarding'], ['echo 0 > /proc/sys/net/ipv4/conf/eth0/forwarding']],
    ]);
    expect(steps[0]?.what).toBe('let br0 out through eth0 (NAT), table inet buildkit_default');
  });

  it('has nothing to do when all is there', () => {
    expect(whats({ ...INPUT, facts: UP, record: recordOf(INPUT) })).toEqual([]);
  });

  it('puts texts in place anew after a run that was cut short, and what went missing', () => {
    const record = recordOf(INPUT, false);
    expect(whats({ ...INPUT, facts: UP, record })).toEqual([
      'let br0 out through eth0 (NAT), table inet buildkit_default',
    ]);
    const facts = { ...UP, tables: [], links: UP.links.filter(({ name }) => name !== 'qtap0') };
    expect(whats({ ...INPUT, facts, record: recordOf(INPUT) })).toEqual([
      'let br0 out through eth0 (NAT), table inet buildkit_default',
      'make tap qtap0',
      'put qtap0 on br0',
      'switch qtap0 on',
    ]);
  });

  it('isolated: no forwarding, no NAT', () => {
    const spec = { ...DEFAULT_NETWORK, isolated: true };
    expect(whats({ ...INPUT, spec })).not.toContainEqual(expect.stringContaining('forward'));
    expect(nftScript(spec, undefined)).not.toContain('masquerade');
  });

  it('uses a bridge of others, and undoes only what it added to it', () => {
    const facts = {
      ...FACTS,
      links: [LINK, { ...LINK, name: 'br0', kind: 'bridge', mac: '02:00:00:00:00:99', addresses: [] }],
      forwarding: { eth0: '1', br0: '1' },
    };
    const input = { ...INPUT, facts, spec: { ...DEFAULT_NETWORK, taps: [] } };
    expect(entriesOf(input).map(({ kind }) => kind)).toEqual(['rules', 'address']);
    const after = { ...facts, links: [LINK, { ...facts.links[1]!, addresses: ['192.168.100.254/24'] }], tables: [] };
    expect(planDown(recordOf(input), after, []).map(({ what }) => what)).toEqual(['take 192.168.100.254/24 from br0']);
  });

  it('says every obstacle: rights, tun, names, addresses, uplink', () => {
    const facts: NetFacts = {
      ...FACTS,
      mayAdmin: false,
      tunDevice: false,
      defaultUplink: undefined,
      links: [
        { ...LINK, name: 'br0', addresses: [] },
        { ...LINK, name: 'qtap0', kind: 'tun', bridge: 'other', addresses: ['192.168.0.1/16'] },
      ],
    };
    expect(planNet({ ...INPUT, facts }).problems.map(({ code }) => code)).toEqual([
      'net-rights',
      'net-tun',
      'net-interface-taken',
      'net-interface-taken',
      'net-address-taken',
      'net-uplink',
    ]);
  });

  it('notes a firewall of others that drops what is forwarded', () => {
    const facts = { ...FACTS, droppingChains: ['ip filter FORWARD'] };
    expect(planNet({ ...INPUT, facts }).notes).toEqual([expect.stringContaining('ip filter FORWARD')]);
    expect(planNet({ ...INPUT, facts, spec: { ...DEFAULT_NETWORK, isolated: true } }).notes).toEqual([]);
  });
});

describe('another uplink than that of the default route', () => {
  const eth1: NetLink = { ...LINK, name: 'eth1', addresses: ['198.51.100.2/24'] };
  const spec = { ...DEFAULT_NETWORK, uplink: 'eth1', taps: [] };
  const facts: NetFacts = {
    ...FACTS,
    links: [LINK, eth1],
    routes: [...FACTS.routes, { table: 254, dev: 'eth1', gateway: '198.51.100.1' }],
    forwarding: { eth0: '0', eth1: '0' },
  };
  const input: PlanInput = { ...INPUT, spec, facts };
  const there: NetFacts = {
    ...facts,
    links: [...facts.links, { ...UP.links[1]!, name: 'br0' }],
    routes: [...facts.routes, { table: 25_400, dev: 'eth1', gateway: '198.51.100.1' }],
    policies: [
      { priority: 25_400, iif: 'br0', table: 254, butDefault: true },
      { priority: 25_401, iif: 'br0', table: 25_400, butDefault: false },
    ],
    forwarding: { eth0: '0', eth1: '1', br0: '1' },
    tables: ['buildkit_default'],
  };

  it('leads the bridge alone, by a routing table that nobody else has', () => {
    const way = planNet(input).steps.filter(({ entry }) => entry?.kind === 'route' || entry?.kind === 'policy');
    expect(way.map(({ apply, undo }) => [...apply, ...undo].map(showEffect))).toEqual([
      [
        'ip route replace default via 198.51.100.1 dev eth1 table 25400',
        'ip route delete default via 198.51.100.1 dev eth1 table 25400',
      ],
      [
        'ip rule add iif br0 priority 25400 lookup 254 suppress_prefixlength 0',
        'ip rule delete iif br0 priority 25400 lookup 254 suppress_prefixlength 0',
      ],
      ['ip rule add iif br0 priority 25401 lookup 25400', 'ip rule delete iif br0 priority 25401 lookup 25400'],
    ]);
    const rival = { ...facts, policies: [{ priority: 25_401, iif: 'x', table: 7, butDefault: false }] };
    expect(entriesOf({ ...input, facts: rival })).toContainEqual(
      expect.objectContaining({ kind: 'route', table: 25_402 }),
    );
    const down = { entries: entriesOf(input).filter(({ kind }) => kind === 'route') };
    const others = [{ ...down, complete: true }];
    expect(entriesOf({ ...input, others })).toContainEqual(expect.objectContaining({ kind: 'route', table: 25_402 }));
  });

  it('has nothing to do when it is there, and goes in the opposite order', () => {
    expect(whats({ ...input, facts: there, record: recordOf(input) })).toEqual([]);
    expect(planDown(recordOf(input), there, []).map(({ what }) => what)).toEqual([
      'put forwarding of eth1 back to 0',
      'remove rule 25401',
      'remove rule 25400',
      'remove routing table 25400',
      'remove bridge br0',
      'remove table inet buildkit_default',
    ]);
    const other = { ...there, routes: [{ table: 25_400, dev: 'eth0' }], policies: [] };
    expect(planDown(recordOf(input), other, []).map(({ what }) => what)).not.toContainEqual(
      expect.stringMatching(/rule|routing/),
    );
  });

  it('goes back to the routes of this machine when the uplink is no longer asked for', () => {
    const steps = planNet({
      ...input,
      spec: { ...spec, uplink: undefined },
      facts: there,
      record: recordOf(input),
    }).steps;
    const back = steps.find(({ what }) => what === 'lead br0 by the routes of this machine');
    expect(back?.apply.map(showEffect).map((line) => line.split(' ').slice(0, 3).join(' '))).toEqual([
      'ip rule delete',
      'ip rule delete',
      'ip route delete',
    ]);
  });

  it('takes the gateway that is named, and says when none is known', () => {
    const bare = { ...facts, routes: FACTS.routes };
    expect(planNet({ ...input, facts: bare }).notes).toEqual([
      expect.stringContaining('no default route leads out by eth1'),
    ]);
    const named = { ...input, facts: bare, spec: { ...spec, gateway: '198.51.100.9' } };
    expect(planNet(named).notes).toEqual([]);
    expect(entriesOf(named)).toContainEqual({ kind: 'route', table: 25_400, dev: 'eth1', gateway: '198.51.100.9' });
  });
});

describe('a bridge and a tap that somebody lent to a user without rights', () => {
  const links = UP.links.map((link) => (link.kind === 'tun' ? { ...link, alias: undefined, owner: '1000' } : link));
  const facts: NetFacts = { ...UP, links, mayAdmin: false, tables: [] };

  it('are used as they are', () => {
    const plan = planNet({ ...INPUT, facts });
    expect([plan.steps, plan.problems]).toEqual([[], []]);
    expect(plan.notes).toEqual([expect.stringContaining('br0 is used as it is')]);
  });

  it('of another user are none', () => {
    const foreign = links.map((link) => ({ ...link, owner: link.owner && '1001' }));
    expect(planNet({ ...INPUT, facts: { ...facts, links: foreign } }).problems).toMatchObject([{ code: 'net-rights' }]);
  });

  it('must be on and have the address that the machine is told of', () => {
    const off = links.map((link) => ({ ...link, up: false, bridge: undefined, addresses: ['10.5.0.1/24'] }));
    expect(planNet({ ...INPUT, facts: { ...facts, links: off } }).problems).toMatchObject([
      { message: 'br0 has not 192.168.100.254/24', hint: 'add: --address 10.5.0.1/24' },
      { message: 'br0 is off' },
      { message: "tap 'qtap0' is not on 'br0'" },
      { message: "tap 'qtap0' is off" },
    ]);
  });
});

describe('planDown', () => {
  it('takes back in the opposite order what is still there', () => {
    expect(planDown(recordOf(INPUT), UP, []).map(({ what }) => what)).toEqual([
      'put forwarding of eth0 back to 0',
      'remove tap qtap0',
      'remove bridge br0',
      'remove table inet buildkit_default',
    ]);
    expect(planDown(recordOf(INPUT), FACTS, [])).toEqual([]);
  });

  it('leaves a bridge and a tap alone that bear no mark of ours', () => {
    const links = UP.links.map((link) => ({ ...link, mac: '02:00:00:00:00:77', alias: 'someone' }));
    expect(planDown(recordOf(INPUT), { ...UP, links, tables: [], forwarding: {} }, [])).toEqual([]);
  });

  it('removes a tap that a killed run could not mark yet', () => {
    const tap: NetLink = { ...LINK, name: 'qtap0', kind: 'tun', up: false, addresses: [] };
    const steps = planDown(recordOf(INPUT), { ...FACTS, links: [LINK, tap] }, []);
    expect(steps.map(({ what }) => what)).toEqual(['remove tap qtap0']);
  });

  it('leaves a switch on that another network needs; the last one puts back what the first one found', () => {
    const first = recordOf(INPUT);
    const second: PlanInput = {
      ...INPUT,
      spec: { ...DEFAULT_NETWORK, name: 'lab', bridge: 'br1', address: '192.168.101.254/24', taps: [] },
      facts: UP,
      others: [first],
    };
    const secondRecord = recordOf(second);
    expect(secondRecord.entries).toContainEqual({
      kind: 'sysctl',
      key: 'net/ipv4/conf/eth0/forwarding',
      former: '0',
      value: '1',
    });
    expect(planDown(first, UP, [secondRecord]).map(({ what }) => what)).not.toContainEqual(
      expect.stringContaining('forwarding'),
    );
    expect(planDown(secondRecord, UP, []).map(({ what }) => what)).toContain('put forwarding of eth0 back to 0');
  });

  it('leaves a switch alone that was on before or that others turned since', () => {
    const entry: NetEntry = { kind: 'sysctl', key: 'net/ipv4/conf/eth0/forwarding', former: '0', value: '1' };
    expect(planDown({ entries: [entry] }, { ...UP, forwarding: { eth0: '0' } }, [])).toEqual([]);
    expect(planDown({ entries: [{ ...entry, former: '1' }] }, UP, [])).toEqual([]);
  });
});

describe('the record', () => {
  it('keeps the turn of a thing and what was found the first time', () => {
    const rules: NetEntry = { kind: 'rules', table: 't', script: 'a' };
    const first: NetEntry = { kind: 'sysctl', key: 'k', former: '0', value: '1' };
    const entries = withEntry(withEntry(withEntry([], rules), first), { ...rules, script: 'b' });
    expect(withEntry(entries, { ...first, former: '1' })).toEqual([{ ...rules, script: 'b' }, first]);
    expect(withoutEntry(entries, { ...rules, script: 'c' })).toEqual([first]);
  });
});
