import { describe, expect, it } from 'vitest';
import { mayAdminNetworks, parseLinks, parsePolicies, parseRoutes, parseRules } from '../../../src/vm/net-facts.ts';

describe('reading facts', () => {
  it('joins links and addresses', () => {
    const links = [
      { ifname: 'lo', flags: ['LOOPBACK', 'UP'], address: '00:00:00:00:00:00' },
      {
        ifname: 'qtap0',
        flags: [],
        address: '02:00:00:00:00:02',
        ifalias: 'x',
        master: 'br0',
        linkinfo: { info_kind: 'tun', info_data: { user: 'someone' } },
      },
      {},
    ];
    const addresses = [{ ifname: 'lo', addr_info: [{ local: '127.0.0.1', prefixlen: 8 }, {}] }, {}];
    expect(parseLinks(links.slice(0, 2), addresses)).toEqual([
      {
        name: 'lo',
        kind: undefined,
        mac: '00:00:00:00:00:00',
        alias: undefined,
        bridge: undefined,
        up: true,
        addresses: ['127.0.0.1/8'],
      },
      {
        ...{ name: 'qtap0', kind: 'tun', mac: '02:00:00:00:00:02', alias: 'x', bridge: 'br0', up: false },
        ...{ addresses: [], owner: 'someone' },
      },
    ]);
  });

  it('puts default routes in order: the least metric first', () => {
    const routes = [
      { dev: 'wlan0', metric: 600, gateway: '10.0.0.1' },
      { dev: 'eth0', metric: 100 },
      { gateway: 'of several hops' },
      { dev: 'eth1', table: '25400', gateway: '10.1.0.1' },
    ];
    expect(parseRoutes(routes)).toEqual([
      { table: 25_400, dev: 'eth1', gateway: '10.1.0.1' },
      { table: 254, dev: 'eth0' },
      { table: 254, dev: 'wlan0', gateway: '10.0.0.1' },
    ]);
  });

  it('keeps the rules that lead by where something comes in', () => {
    const rules = [
      { priority: 0, src: 'all', table: '255' },
      { priority: 7, iif: 'br0', table: '254', suppress_prefixlen: 0 },
      { priority: 8, iif: 'br0', table: '25400' },
      { priority: 9, iif: 'br0', action: 'blackhole' },
    ];
    expect(parsePolicies(rules)).toEqual([
      { priority: 7, iif: 'br0', table: 254, butDefault: true },
      { priority: 8, iif: 'br0', table: 25_400, butDefault: false },
    ]);
  });

  it('knows the right from the mask of capabilities', () => {
    expect(mayAdminNetworks('Name:\tx\nCapEff:\t000001ffffffffff\n')).toBe(true);
    expect(mayAdminNetworks('CapEff:\t0000000000001000\n')).toBe(true);
    expect(mayAdminNetworks('CapEff:\t000001ffffffefff\n')).toBe(false);
    expect(mayAdminNetworks('')).toBe(false);
  });

  it('lists inet tables and the forward chains that drop', () => {
    const tables = {
      nftables: [{ metainfo: {} }, { table: { family: 'inet', name: 'a' } }, { table: { family: 'ip', name: 'b' } }],
    };
    const chain = { family: 'ip', table: 'filter', name: 'FORWARD', hook: 'forward', policy: 'drop' };
    const chains = {
      nftables: [{ chain }, { chain: { ...chain, hook: 'input' } }, { chain: { ...chain, policy: 'accept' } }],
    };
    expect(parseRules(tables, chains)).toEqual({ tables: ['a'], droppingChains: ['ip filter FORWARD'] });
  });
});
