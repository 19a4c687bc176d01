import { describe, expect, it } from 'vitest';
import { dnsmasqConf, nftScript, tableName } from '../../../src/vm/net-rules.ts';
import { DEFAULT_NETWORK } from '../../../src/vm/net-spec.ts';

const PLACES = { conf: '/s/c', pidFile: '/s/p', leaseFile: '/s/l', logFile: '/s/g' };

describe('nftScript', () => {
  it('replaces the table in one transaction', () => {
    expect(
      nftScript({ ...DEFAULT_NETWORK, name: 'my-lab' }, 'eth0')
        .split('\n')
        .slice(0, 3),
    ).toEqual(['table inet buildkit_my_lab {}', 'delete table inet buildkit_my_lab', 'table inet buildkit_my_lab {']);
    expect(tableName('my-lab')).toBe('buildkit_my_lab');
  });

  it('isolated: lets in only what was asked for', () => {
    const closed = nftScript({ ...DEFAULT_NETWORK, isolated: true, ports: [] }, undefined);
    expect(closed.match(/accept$/gm)).toHaveLength(4); // other interfaces, answers, ping, guest to guest
    const open = nftScript({ ...DEFAULT_NETWORK, isolated: true, dhcp: true, dns: true }, undefined);
    expect(open).toContain('ip daddr 192.168.100.254 tcp dport { 9999, 8080 } accept');
    expect(open).toContain('th dport 53 accept');
    expect(open).toContain('udp dport 67 accept');
  });

  it('leads out only by the uplink', () => {
    expect(nftScript(DEFAULT_NETWORK, 'eth1')).toContain('ip saddr 192.168.100.0/24 oifname "eth1" masquerade');
  });
});

describe('dnsmasqConf', () => {
  it('has a lease and names for each number of the scheme', () => {
    const conf = dnsmasqConf(
      { ...DEFAULT_NETWORK, dhcp: true, dns: true, guests: [{ number: 10, name: 'web' }] },
      PLACES,
    );
    expect(conf.match(/^dhcp-host=/gm)).toHaveLength(252);
    expect(conf).toContain('\ndhcp-host=52:54:00:a8:64:0a,192.168.100.10,web\n');
    expect(conf).toContain('\nhost-record=web.vm.buildkit,buildkit10.vm.buildkit,192.168.100.10\n');
    expect(conf).toContain('\nhost-record=host.buildkit,192.168.100.254\n');
    expect(conf).toContain('\ndhcp-range=192.168.100.0,static,255.255.255.0,12h\n');
  });

  it('isolated: asks no server outside and names no router', () => {
    const conf = dnsmasqConf({ ...DEFAULT_NETWORK, isolated: true, dhcp: true, dns: true }, PLACES);
    expect(conf).toContain('\nno-resolv\nlocal=/#/\n');
    expect(conf).toContain('\ndhcp-option=option:router\n');
  });

  it('has DNS off where only DHCP was asked for, and the other way round', () => {
    expect(dnsmasqConf({ ...DEFAULT_NETWORK, dhcp: true }, PLACES)).toContain('\nport=0\n');
    expect(dnsmasqConf({ ...DEFAULT_NETWORK, dns: true }, PLACES)).not.toContain('dhcp');
  });
});
